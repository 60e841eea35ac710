// Alignment as a heat map: a table with the target's tokens as rows and the source's as columns.

import { element, formatFraction } from "./dom.js";

const EXPLANATION = "Rows are target tokens, columns are source tokens. A cell is the target token’s attention to the "
  + "source token, mean over heads and layers; a row sums to 1. The darkest shade is the largest weight here, ";

/** Return a token's text for a label: sub-words without the mark of a space. */
function label(text) {
  const plain = text.replace(/^[ ▁Ġ]+/, "");
  if (plain === "") return text === "" ? "∅" : "␣";
  return plain.replaceAll("\n", "↵").replaceAll("\t", "⇥");
}

/** Build the heat map of an alignment of the API: `{source_tokens, target_tokens, weights}`. */
export function buildHeatMap({ source_tokens: source, target_tokens: target, weights }) {
  const readout = element("p", { class: "readout", text: "Point at a cell, or move with the arrow keys." });
  const corner = element("td", { class: "corner", "aria-hidden": "true" });
  const heads = source.map((token) => {
    return element("th", { scope: "col" }, element("span", { text: label(token) }));
  });
  // Not all as arguments of one call, which are too many for a long text.
  const largest = weights.reduce((most, row) => Math.max(most, ...row), 0);
  const body = element("tbody");
  target.forEach((token, row) => {
    const cells = source.map((_, column) => buildCell(weights[row][column], largest, row, column));
    body.append(element("tr", {}, element("th", { scope: "row", text: label(token) }), ...cells));
  });
  const table = element(
    "table",
    { class: "heat-map", role: "grid", "aria-readonly": "true" },
    element("caption", { class: "sr-only", text: "Alignment: weight of each source token for each target token" }),
    element("thead", {}, element("tr", {}, corner, ...heads)),
    body,
  );
  const show = (cell) => point(table, cell, readout, source, target);
  table.addEventListener("pointerover", (event) => show(event.target.closest("tbody td")));
  table.addEventListener("pointerleave", () => show(table.contains(document.activeElement) ? document.activeElement : null));
  table.addEventListener("focusin", (event) => show(event.target.closest("tbody td")));
  table.addEventListener("keydown", (event) => move(table, event));
  return element(
    "figure",
    { class: "alignment" },
    element("figcaption", { text: "Alignment" }),
    element("div", { class: "scroll" }, table),
    element("div", { class: "explained" }, readout, element("p", { class: "muted", text: `${EXPLANATION}${formatFraction(largest)}.` })),
  );
}

function buildCell(weight, largest, row, column) {
  const cell = element("td", { role: "gridcell", tabindex: row || column ? "-1" : "0" });
  cell.append(element("span", { class: "sr-only", text: formatFraction(weight) }));
  cell.style.setProperty("--w", weight / largest);
  return cell;
}

/** Mark a cell's row and column, and write out its weight. */
function point(table, cell, readout, source, target) {
  table.querySelectorAll(".marked").forEach((marked) => marked.classList.remove("marked"));
  if (!cell) return;
  const [row, column] = [cell.parentElement.sectionRowIndex, cell.cellIndex - 1];
  cell.classList.add("marked");
  cell.parentElement.cells[0].classList.add("marked");
  table.tHead.rows[0].cells[column + 1].classList.add("marked");
  readout.replaceChildren(
    element("b", { text: label(target[row]) }), " attends to ", element("b", { text: label(source[column]) }),
    ` with weight ${cell.textContent}`,
  );
}

function move(table, event) {
  const cell = event.target.closest("tbody td");
  const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  if (!cell || !(event.key in steps)) return;
  const [down, right] = steps[event.key];
  const body = table.tBodies[0];
  const next = body.rows[cell.parentElement.sectionRowIndex + down]?.cells[cell.cellIndex + right];
  event.preventDefault();
  if (next?.tagName !== "TD") return;
  cell.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}
