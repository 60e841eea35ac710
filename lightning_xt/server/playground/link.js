// Links that reproduce a result: everything that decides about it, in the URL's fragment, which no server sees.

const LONGEST = 100_000; // characters of an address that browsers still keep

/** Encode a state, such as `{model, prompt, seed, ...}`, as a fragment; unset values are omitted. */
function encode(state) {
  const fields = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) {
    if (value !== null && value !== undefined && value !== "") fields.set(name, String(value));
  }
  return `#${fields}`;
}

/** Decode a fragment to texts by name; null if it does not hold a state. */
export function decode(fragment) {
  const fields = Object.fromEntries(new URLSearchParams(fragment.replace(/^#/, "")));
  return "model" in fields ? fields : null;
}

/** Return the whole address of a state. */
export function address(state) {
  return location.href.split("#")[0] + encode(state);
}

/** Show a state in the address of the page; nothing of one that is too long. */
export function showState(state) {
  const fragment = encode(state);
  history.replaceState(null, "", fragment.length > LONGEST ? location.pathname : fragment);
}
