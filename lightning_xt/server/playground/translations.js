// Translations of an encoder-decoder: the n-best list of each source, and the alignment of the chosen candidate.

import { confirmIn, copyText, element, formatNumber } from "./dom.js";
import { buildHeatMap } from "./heatmap.js";

/** Build the card of one translation of the API: `{source, candidates: [{text, score, alignment}]}`. */
export function buildTranslation({ source, candidates }) {
  const map = element("div", { class: "map" });
  const list = element("ol", { class: "candidates", "aria-label": "Translations, best first" });
  const choose = (chosen) => {
    [...list.children].forEach((item, index) => {
      item.querySelector("button.candidate").setAttribute("aria-pressed", String(index === chosen));
    });
    const { alignment } = candidates[chosen];
    map.replaceChildren(...(alignment ? [buildHeatMap(alignment)] : []));
  };
  candidates.forEach((candidate, index) => {
    list.append(buildCandidate(candidate, candidates[0].score, () => choose(index)));
  });
  if (candidates.length) choose(0);
  return element(
    "article",
    { class: "card translation", "aria-label": `Translations of ${source}` },
    element("header", {}, element("h2", { class: "source", text: source })),
    list,
    map,
  );
}

/** Build an entry of the n-best list; its bar is the probability relative to the best candidate's. */
function buildCandidate({ text, score }, best, onChoose) {
  const copy = element("button", { type: "button", class: "quiet copy", text: "Copy", "aria-label": `Copy “${text}”` });
  copy.addEventListener("click", async () => confirmIn(copy, (await copyText(text)) ? "Copied" : "Not copied"));
  const parts = [element("span", { class: "text", text: text || "(no text)" })];
  if (Number.isFinite(score)) {
    const meter = element("i", { class: "meter", "aria-hidden": "true" });
    meter.style.setProperty("--w", Math.exp(Math.min(0, score - best)));
    parts.push(meter, element("span", { class: "score muted", text: `score ${formatNumber(score, 3)}` }));
  }
  const button = element("button", { type: "button", class: "candidate", "aria-pressed": "false" }, ...parts);
  button.addEventListener("click", onChoose);
  return element("li", {}, button, copy);
}
