// The panel of a token's alternatives: shown on hover and focus, kept open by a click or Enter.

import { findToken, level, moveFocus } from "./completions.js";
import { element, formatNumber, isNamed, percent, visible } from "./dom.js";

const LINGER = 220; // ms in which the pointer can move from the token into the panel

/** The panel, for all tokens in `results`. `onBranch(prompt)` generates with another token in the place of one. */
export class Alternatives {
  constructor(panel, results, onBranch) {
    this.panel = panel;
    this.onBranch = onBranch;
    this.span = null;
    this.pinned = false;
    this.listen(results);
    document.addEventListener("keydown", (event) => this.dismiss(event), { capture: true });
    addEventListener("scroll", () => this.place(), { passive: true, capture: true });
    addEventListener("resize", () => this.close());
    document.addEventListener("pointerdown", (event) => {
      if (!panel.contains(event.target) && !findToken(event.target)) this.close();
    });
  }

  listen(results) {
    results.addEventListener("pointerover", (event) => {
      if (event.pointerType === "mouse" && !this.pinned) this.show(findToken(event.target));
    });
    results.addEventListener("pointerout", (event) => {
      if (findToken(event.target) && !this.pinned) this.closeSoon();
    });
    this.panel.addEventListener("pointerenter", () => clearTimeout(this.timer));
    this.panel.addEventListener("pointerleave", () => !this.pinned && this.closeSoon());
    results.addEventListener("click", (event) => this.pin(findToken(event.target)));
    results.addEventListener("focusin", (event) => this.show(findToken(event.target)));
    results.addEventListener("focusout", (event) => {
      if (!this.panel.contains(event.relatedTarget) && !this.pinned) this.close();
    });
    results.addEventListener("keydown", (event) => this.press(event));
    this.panel.addEventListener("keydown", (event) => this.pressInside(event));
  }

  press(event) {
    const token = findToken(event.target);
    if (!token || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter" || event.key === " ") {
      this.pin(token);
      this.panel.querySelector("button")?.focus();
    } else if (!moveFocus(token.span, event.key)) return;
    event.preventDefault();
  }

  pressInside(event) {
    const rows = [...this.panel.querySelectorAll("button")];
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      rows[(rows.indexOf(document.activeElement) + step + rows.length) % rows.length]?.focus();
      event.preventDefault();
    }
  }

  /** Close an open panel by Escape, which does nothing else then: the page stops its request at the next one. */
  dismiss(event) {
    if (event.key !== "Escape" || this.panel.hidden) return;
    if (this.panel.contains(document.activeElement)) this.span.focus();
    this.close();
    event.preventDefault();
  }

  pin(token) {
    if (!token) return;
    this.pinned = false;
    this.show(token);
    this.pinned = !this.panel.hidden;
  }

  show(token) {
    clearTimeout(this.timer);
    if (!token || !token.tokens.length || (this.pinned && token.span === this.span)) return;
    this.close();
    this.span = token.span;
    this.panel.replaceChildren(...token.tokens.slice(0, 4).flatMap((one, index) => this.describe(token, one, index)));
    this.span.classList.add("shown");
    this.span.setAttribute("aria-describedby", this.panel.id);
    this.panel.hidden = false;
    this.place();
  }

  closeSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.close(), LINGER);
  }

  close() {
    clearTimeout(this.timer);
    this.span?.classList.remove("shown");
    this.span?.removeAttribute("aria-describedby");
    this.span = null;
    this.pinned = false;
    this.panel.hidden = true;
  }

  describe({ card, before, tokens }, token, index) {
    const heading = element(
      "p",
      { class: "chosen" },
      element("code", { text: visible(token.text) }),
      element("strong", { text: percent(token.logProb) }),
      element("span", { class: "muted", text: `log-probability ${formatNumber(token.logProb)}` }),
    );
    const rows = [...token.alternatives];
    if (rows.length && !rows.some(([text]) => text === token.text)) rows.push([token.text, token.logProb]);
    const list = element("ol", { "aria-label": "Alternatives" });
    rows.forEach(([text, logProb]) => {
      const branch = tokens.length === 1 && text !== token.text && text !== "" && !isNamed(text);
      list.append(this.buildRow(text, logProb, text === token.text, branch ? () => this.branch(before + text) : null));
    });
    const hint = element("p", { class: "muted hint", text: "Choose a token to generate from it instead." });
    return index + 1 === tokens.length && tokens.length === 1 && card && rows.length > 1
      ? [heading, list, hint]
      : [heading, list];
  }

  buildRow(text, logProb, sampled, onChoose) {
    const parts = [
      element("i", { class: `meter p${level(logProb)}`, "aria-hidden": "true" }),
      element("code", { text: visible(text) }),
      element("span", { class: "figure", text: percent(logProb) }),
    ];
    parts[0].style.setProperty("--w", Math.exp(logProb));
    const row = onChoose
      ? element("button", { type: "button", on: { click: onChoose } }, ...parts)
      : element("div", {}, ...parts);
    if (sampled) parts[2].append(element("span", { class: "sr-only", text: ", generated" }));
    return element("li", { class: sampled ? "sampled" : null }, row);
  }

  branch(prompt) {
    this.close();
    this.onBranch(prompt);
  }

  /** Place the panel under its token, or above it where there is no room. */
  place() {
    if (this.panel.hidden || !this.span) return;
    const token = this.span.getClientRects()[0];
    const { offsetWidth: width, offsetHeight: height } = this.panel;
    if (!token) return;
    const under = token.bottom + 8 + height <= innerHeight || token.top < height + 8;
    const left = Math.max(8, Math.min(token.left - 12, document.documentElement.clientWidth - width - 8));
    this.panel.style.left = `${left}px`;
    this.panel.style.top = `${under ? token.bottom + 8 : token.top - height - 8}px`;
  }
}
