// Controls of the options: a labelled number, with a slider where the range is short.

import { element } from "./dom.js";
import { GROUPS, resolve } from "./option_list.js";

/** The options' controls for one model. Values are texts as in a link; an empty text is an unset option. */
export class Options {
  constructor(form, model) {
    this.controls = new Map();
    form.replaceChildren(...GROUPS[model.kind].map((group) => this.buildGroup(group, model)));
    this.keepOrder("n_best", "beams");
  }

  buildGroup({ title, open = false, options }, model) {
    const controls = options.map((option) => this.buildControl(resolve(option, model)));
    if (title === undefined) return element("div", { class: "group" }, ...controls);
    return element("details", { class: "group", open }, element("summary", { text: title }), ...controls);
  }

  buildControl(option) {
    const id = `option-${option.name}`;
    const field = option.lines ? buildLines(id, option) : buildNumber(id, option);
    const parts = [element("label", { for: id, text: option.label, title: option.hint }), field];
    const slider = option.slider ? buildSlider(option, field) : null;
    if (slider) parts.push(slider);
    parts.push(element("span", { id: `${id}-hint`, class: "option-hint", text: option.hint }));
    const control = { option, field, slider };
    this.controls.set(option.name, control);
    setValue(control, option.initial);
    return element("div", { class: option.lines ? "option lines" : "option" }, ...parts);
  }

  /** Move one of two options when the other is set, so that the first is at most the second. */
  keepOrder(lower, higher) {
    const [low, high] = [this.controls.get(lower), this.controls.get(higher)];
    if (!low || !high) return;
    const isBroken = () => low.field.valueAsNumber > high.field.valueAsNumber;
    low.field.addEventListener("input", () => isBroken() && setValue(high, low.field.value));
    high.field.addEventListener("input", () => isBroken() && setValue(low, high.field.value));
  }

  has(name) {
    return this.controls.has(name);
  }

  /** Values that are not numbers in their range; the first is focused. Empty if all options can be sent. */
  findInvalid() {
    const invalid = [...this.controls.values()].filter(({ field }) => !field.checkValidity());
    invalid.slice(0, 1).forEach(({ field }) => {
      field.closest("details.group")?.setAttribute("open", "");
      field.reportValidity();
    });
    return invalid.map(({ option }) => option.label);
  }

  get(name) {
    return this.controls.get(name).field.value;
  }

  set(name, value) {
    setValue(this.controls.get(name), value);
  }

  /** Values by name, for a link. */
  read() {
    return Object.fromEntries([...this.controls].map(([name, { field }]) => [name, field.value]));
  }

  /** Set values from a link; options that it does not have become unset. */
  restore(values) {
    for (const [name, control] of this.controls) {
      setValue(control, values[name] ?? "");
      if ((values[name] ?? "") !== "") control.field.closest("details.group")?.setAttribute("open", "");
    }
  }

  /** Options for a request: those that differ from the engine's defaults, and the seed. */
  build() {
    const body = {};
    for (const [name, { option, field }] of this.controls) {
      if (field.value === "") continue;
      if (option.lines) body[name] = splitLines(field.value);
      else if (name === "seed" || field.valueAsNumber !== option.initial) body[name] = field.valueAsNumber;
    }
    return body;
  }
}

function buildNumber(id, option) {
  return element("input", {
    id, name: option.name, type: "number", inputmode: option.step < 1 ? "decimal" : "numeric",
    min: option.least, max: option.most, step: option.step < 1 ? "any" : 1, placeholder: option.unset,
    "aria-describedby": `${id}-hint`,
  });
}

function buildLines(id, option) {
  return element("textarea", {
    id, name: option.name, rows: 2, placeholder: option.unset, spellcheck: "false", "aria-describedby": `${id}-hint`,
  });
}

/** Build a slider that follows the field and sets it; at the value where an option has no effect, it unsets it. */
function buildSlider(option, field) {
  const slider = element("input", {
    type: "range", min: option.slider[0], max: option.slider[1], step: option.step, tabindex: "-1",
    "aria-label": `${option.label}, slider`,
  });
  slider.addEventListener("input", () => {
    const off = option.off !== undefined && slider.valueAsNumber === option.off && option.initial === null;
    field.value = off ? "" : slider.value;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  });
  field.addEventListener("input", () => follow(slider, option, field));
  return slider;
}

function follow(slider, option, field) {
  slider.value = field.value === "" ? (option.off ?? option.initial ?? slider.min) : field.value;
  paint(slider);
}

function paint(slider) {
  const least = Number(slider.min);
  slider.style.setProperty("--filled", (slider.valueAsNumber - least) / (Number(slider.max) - least || 1));
}

function setValue({ option, field, slider }, value) {
  field.value = Array.isArray(value) ? value.join("\n") : (value ?? "");
  if (slider) follow(slider, option, field);
}

function splitLines(text) {
  const signs = { "\\n": "\n", "\\t": "\t", "\\\\": "\\" };
  const lines = text.split("\n").filter((line) => line !== "");
  return lines.map((line) => line.replace(/\\[nt\\]/g, (sign) => signs[sign]));
}
