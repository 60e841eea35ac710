// Completions of a language model, side by side: streamed tokens, coloured by their probability.

import { confirmIn, copyText, element, plural, visible } from "./dom.js";

const LEVELS = 10;
const ENDINGS = { stop: "ended", length: "length limit" };

/** Tokens of a text, by its element: `[{text, logProb, alternatives: [[text, logProb], ...]}]`. */
const TOKENS = new WeakMap();

/** Find the token at an element: its tokens, its card and the text before it; null if there is none. */
export function findToken(node) {
  const span = node instanceof Element ? node.closest(".token") : null;
  return span ? { span, ...TOKENS.get(span) } : null;
}

/** One completion that grows by the chunks of a stream. */
export class CompletionCard {
  constructor({ prompt, title, onContinue }) {
    this.prompt = prompt;
    this.text = "";
    this.held = [];
    this.count = 0;
    this.logProbs = 0;
    this.onContinue = onContinue;
    this.body = element("p", { class: "tokens", role: "group", "aria-label": `${title}, tokens` });
    this.facts = element("span", { class: "muted facts" });
    this.title = title;
    this.element = this.build();
  }

  build() {
    const copy = element("button", { type: "button", class: "quiet copy", text: "Copy" });
    copy.setAttribute("aria-label", `Copy ${this.title.toLowerCase()}`);
    copy.addEventListener("click", async () => confirmIn(copy, (await copyText(this.text)) ? "Copied" : "Not copied"));
    this.next = element("button", { type: "button", class: "continue", text: "Continue", disabled: true });
    this.next.setAttribute("aria-label", `Continue ${this.title.toLowerCase()}`);
    this.next.title = "Append the completion to the prompt and generate again";
    this.next.addEventListener("click", () => this.onContinue(this.prompt + this.text));
    return element(
      "article",
      { class: "card running", "aria-label": this.title },
      element("header", {}, element("h2", { text: this.title }), copy),
      this.body,
      element("footer", {}, this.facts, this.next),
    );
  }

  /** Append a choice of a chunk. Tokens without text, such as the first bytes of a character, wait for the next text. */
  push({ text, logprobs, finish_reason: reason }) {
    this.held.push(...readTokens(logprobs));
    const whole = this.held.length > 1 && this.held.map((token) => token.text).join("") === text;
    if (whole) this.held.splice(0).forEach((token) => this.append(token.text, [token]));
    else if (text) this.append(text, this.held.splice(0));
    if (!reason) return;
    if (this.held.length) this.append("", this.held.splice(0));
    this.end(ENDINGS[reason] ?? reason);
  }

  append(text, tokens) {
    const span = element("span", { class: "token", text, tabindex: this.body.childElementCount ? "-1" : "0" });
    const logProb = tokens.reduce((sum, token) => sum + token.logProb, 0);
    if (tokens.length) {
      span.classList.add(`p${level(logProb)}`);
      span.setAttribute("role", "button"); // opens the panel of alternatives
    }
    if (text.includes("\n")) span.classList.add("newline");
    if (text === "") span.dataset.name = tokens.map((token) => visible(token.text)).join(" ");
    TOKENS.set(span, { card: this, before: this.prompt + this.text, tokens });
    this.text += text;
    this.count += tokens.length;
    this.logProbs += logProb;
    this.body.append(span);
    this.describe(plural(this.count, "token"));
  }

  /** End with a reason, such as "stopped". */
  end(reason) {
    if (!this.element.classList.contains("running")) return;
    this.element.classList.remove("running");
    this.next.disabled = this.text === "";
    const perplexity = Math.exp(-this.logProbs / this.count);
    const facts = [plural(this.count, "token")];
    if (this.count && Number.isFinite(perplexity)) facts.push(`perplexity ${perplexity.toPrecision(3)}`);
    if (this.text === "") this.body.append(element("span", { class: "muted", text: "The completion is empty." }));
    this.describe([...facts, reason].join(" · "));
  }

  describe(facts) {
    this.facts.textContent = facts;
  }
}

/** Read the tokens of a chunk's `logprobs`. */
function readTokens(logprobs) {
  if (!logprobs) return [];
  return logprobs.tokens.map((text, index) => ({
    text,
    logProb: logprobs.token_logprobs[index] ?? 0,
    alternatives: Object.entries(logprobs.top_logprobs?.[index] ?? {}).sort((one, other) => other[1] - one[1]),
  }));
}

/** Level of a probability, 0 to 10, for its colour. */
export function level(logProb) {
  return Math.max(0, Math.min(LEVELS, Math.round(LEVELS * Math.exp(logProb))));
}

/** Move the focus among the tokens of a completion; whether the key was one of them. */
export function moveFocus(span, key) {
  const all = span.parentElement.querySelectorAll(".token");
  const at = [...all].indexOf(span);
  const targets = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: all.length - 1 };
  if (!(key in targets)) return false;
  const target = all[Math.max(0, Math.min(all.length - 1, targets[key]))];
  span.tabIndex = -1;
  target.tabIndex = 0;
  target.focus();
  return true;
}
