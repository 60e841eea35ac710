// Elements and texts. Text of a model only ever becomes text nodes, never markup.

/** Create an element. `text` becomes a text node; other properties become attributes, `false` and `null` none. */
export function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "text") node.textContent = value;
    else if (name === "on") Object.entries(value).forEach(([event, listen]) => node.addEventListener(event, listen));
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

export const byId = (id) => document.getElementById(id);

const SIGNS = { " ": "␣", "\n": "↵", "\r": "␍", "\t": "⇥" };

/** Whether a token's text is a name for one that is not a text by itself: a mark, or a part of a character. */
export function isNamed(text) {
  return /^(?:token_id:\d+|<(?:start|end|pad)>)$/.test(text);
}

/** Return a token's text with its white space visible. */
export function visible(text) {
  if (text === "") return "(no text)";
  if (isNamed(text)) return text.replace("token_id:", "token ");
  return text.replace(/^ +| +$|[\n\r\t]/g, (white) => [...white].map((sign) => SIGNS[sign]).join(""));
}

/** Format a probability from a log-probability in nats. */
export function percent(logProb) {
  return formatFraction(Math.exp(logProb));
}

/** Format a fraction as per cent, with as many digits as are of use. */
export function formatFraction(fraction) {
  const value = 100 * fraction;
  if (value >= 99.95) return value >= 99.995 ? "100 %" : `${value.toFixed(2)} %`;
  if (value >= 10) return `${value.toFixed(1)} %`;
  if (value >= 0.1) return `${value.toFixed(2)} %`;
  return value === 0 ? "0 %" : `${value.toPrecision(1)} %`;
}

/** Format a number with a true minus sign. */
export function formatNumber(value, digits = 2) {
  return value.toFixed(digits).replace("-", "−");
}

export function plural(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** Copy a text; where the clipboard is refused (a page over plain HTTP), by a selection. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = element("textarea", { class: "hidden-text", readonly: true, "aria-hidden": "true" });
    field.value = text;
    document.body.append(field);
    field.select();
    const copied = document.execCommand("copy");
    field.remove();
    return copied;
  }
}

/** Show for a moment in a button that its work is done. */
export function confirmIn(button, text) {
  const before = button.dataset.label ?? button.textContent;
  button.dataset.label = before;
  button.textContent = text;
  clearTimeout(button.timer);
  button.timer = setTimeout(() => {
    button.textContent = before;
  }, 1600);
}
