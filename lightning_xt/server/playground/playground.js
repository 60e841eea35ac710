// The playground: chooses a model, sends requests, shows results. The state that a result depends on is in the link.

import { Alternatives } from "./alternatives.js";
import { ApiError, listModels, storeKey, streamCompletions, translate } from "./api.js";
import { CompletionCard } from "./completions.js";
import { byId, confirmIn, copyText, plural } from "./dom.js";
import { address, decode, showState } from "./link.js";
import { Options } from "./options.js";
import { buildTranslation } from "./translations.js";

const NUM_ALTERNATIVES = 8;
const LARGEST_SEED = 2 ** 31;
const WORDS = {
  language_model: { kind: "language model", input: "Prompt", example: "Write the beginning of a text." },
  encoder_decoder: { kind: "encoder-decoder", input: "Source", example: "Write the source, one sentence per line." },
};

const input = byId("input");
const results = byId("results");
const inputs = { language_model: "", encoder_decoder: "" };
let models = new Map();
let model = null;
let options = null;
let running = null; // AbortController of the request that runs
let finished = Promise.resolve(); // settles when that request's results are complete
let retry = null; // repeats what a missing key has refused

const alternatives = new Alternatives(byId("alternatives"), results, (prompt) => runWith(prompt));

function report(text) {
  byId("status").textContent = text;
}

function showError(error) {
  byId("error").textContent = error ? error.message : "";
  byId("error").hidden = !error;
}

/** Run work of the page; its error is shown, and a missing or wrong key asked for, after which `again` is called. */
async function attempt(work, again) {
  showError(null);
  try {
    await work();
    byId("key-form").hidden = true;
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof ApiError)) throw error;
    showError(error);
    if (error.status !== 401) return;
    retry = again;
    byId("key-form").hidden = false;
    byId("key").focus();
  }
}

async function load() {
  report("Loading the models…");
  try {
    models = new Map((await listModels()).map((each) => [each.id, each]));
  } catch (error) {
    report("");
    throw error;
  }
  byId("model").replaceChildren(...[...models.keys()].map((id) => new Option(id, id)));
  byId("model").disabled = false;
  if (!restore()) choose([...models.keys()][0]);
}

/** Choose a model: its words, options, defaults and ranges. */
function choose(id) {
  if (model) inputs[model.kind] = input.value;
  model = models.get(id);
  byId("model").value = id;
  const words = WORDS[model.kind];
  byId("input-label").textContent = words.input;
  input.placeholder = words.example;
  input.value = inputs[model.kind];
  const facts = [words.kind];
  if (model.vocab_size) facts.push(`${model.vocab_size.toLocaleString("en")} tokens in the vocabulary`);
  if (model.max_length) facts.push(`up to ${model.max_length.toLocaleString("en")} per sequence`);
  byId("facts").textContent = facts.join(" · ");
  resetOptions();
  document.body.dataset.kind = model.kind;
  byId("reseed").hidden = model.kind !== "language_model";
  clear();
  setRunning(null);
  report("");
  grow();
}

function resetOptions() {
  options = new Options(byId("options"), model);
}

function clear() {
  alternatives.close();
  results.replaceChildren();
  byId("legend").hidden = true;
}

function setRunning(controller) {
  running = controller;
  byId("stop").disabled = !running;
  for (const id of ["run", "reseed", "copy-link"]) byId(id).disabled = Boolean(running) || !model;
  results.setAttribute("aria-busy", String(Boolean(running)));
}

function readState() {
  const text = model.kind === "language_model" ? { prompt: input.value } : { source: input.value };
  return { model: model.id, ...text, ...options.read() };
}

/** Restore a state from the link; whether there was one. */
function restore() {
  const state = decode(location.hash);
  if (!state) return false;
  if (!models.has(state.model)) {
    showError(new Error(`The link names the model ${state.model}, which is not served here: ${[...models.keys()].join(", ")}.`));
    return false;
  }
  choose(state.model);
  input.value = state.prompt ?? state.source ?? "";
  options.restore(state);
  grow();
  report("Prompt and options are restored from the link. Run reproduces the result.");
  return true;
}

/** Stop the request that runs; the server frees its rows. Wait until its results are complete. */
function stop() {
  running?.abort();
  return finished;
}

async function run() {
  if (!model || running || options.findInvalid().length) return;
  if (options.has("seed") && options.get("seed") === "") options.set("seed", "0");
  showState(readState());
  clear();
  const controller = new AbortController();
  setRunning(controller);
  const work = model.kind === "language_model" ? complete : translateSources;
  finished = attempt(() => work(controller.signal), run).finally(() => setRunning(null));
  await finished;
}

async function runWith(prompt) {
  await stop();
  input.value = prompt;
  grow();
  results.focus({ preventScroll: true }); // the button that was pressed is about to go
  return run();
}

async function complete(signal) {
  const body = { model: model.id, prompt: input.value, logprobs: NUM_ALTERNATIVES, ...options.build() };
  const n = Number(options.get("n")) || 1;
  const cards = Array.from({ length: n }, (_, index) => new CompletionCard({
    prompt: input.value,
    title: n === 1 ? "Completion" : `Completion ${index + 1}`,
    onContinue: runWith,
  }));
  results.replaceChildren(...cards.map((card) => card.element));
  byId("legend").hidden = false;
  report("Generating…");
  const start = performance.now();
  let first = null;
  try {
    await streamCompletions(body, (chunk) => {
      first ??= performance.now();
      chunk.choices.forEach((choice) => cards[choice.index]?.push(choice));
    }, signal);
    cards.forEach((card) => card.end("ended"));
  } catch (error) {
    if (first === null) clear();
    throw error;
  } finally {
    cards.forEach((card) => card.end("stopped"));
    summarize(cards, start, first, signal.aborted);
  }
}

function summarize(cards, start, first, stopped) {
  const count = cards.reduce((sum, card) => sum + card.count, 0);
  if (first === null) {
    report(stopped ? "Stopped." : "");
    return;
  }
  const seconds = (performance.now() - start) / 1000;
  const wait = Math.max(1, Math.round(first - start));
  const rate = (count / seconds).toPrecision(3);
  report(`${stopped ? "Stopped: " : ""}${plural(count, "token")} in ${seconds.toFixed(2)} s, ${Number(rate)} per second; first after ${wait} ms.`);
}

async function translateSources(signal) {
  const sources = input.value.split("\n").filter((line) => line.trim() !== "");
  const source = sources.length > 1 ? sources : (sources[0] ?? "");
  report("Translating…");
  const start = performance.now();
  let done = "";
  try {
    const aligned = model.alignment === false ? {} : { alignment: true };
    const found = await translate({ model: model.id, source, ...aligned, ...options.build() }, signal);
    results.replaceChildren(...found.map(buildTranslation));
    done = `${plural(found.length, "source")} translated in ${((performance.now() - start) / 1000).toFixed(2)} s.`;
  } finally {
    report(signal.aborted ? "Stopped." : done);
  }
}

/** Let the prompt's field grow with its text, up to half of the window. */
function grow() {
  input.style.height = "auto";
  input.style.height = `${Math.min(input.scrollHeight + 2, innerHeight / 2)}px`;
}

function listen() {
  byId("run").addEventListener("click", run);
  byId("stop").addEventListener("click", stop);
  byId("reseed").addEventListener("click", () => {
    options.set("seed", String(Math.floor(Math.random() * LARGEST_SEED)));
    run();
  });
  byId("reset").addEventListener("click", resetOptions);
  byId("explain").addEventListener("click", ({ currentTarget }) => {
    const explained = byId("options").classList.toggle("explained");
    currentTarget.setAttribute("aria-pressed", String(explained));
  });
  byId("copy-link").addEventListener("click", async () => {
    showState(readState());
    confirmIn(byId("copy-link"), (await copyText(address(readState()))) ? "Link copied" : "See the address");
  });
  byId("model").addEventListener("change", async (event) => {
    await stop();
    showError(null);
    choose(event.target.value);
  });
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    storeKey(byId("key").value);
    byId("key").value = "";
    retry?.();
  });
  byId("options").addEventListener("submit", (event) => event.preventDefault());
  input.addEventListener("input", grow);
  addEventListener("hashchange", () => stop().then(restore));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      run();
    } else if (event.key === "Escape" && !event.defaultPrevented) stop();
  });
  if (matchMedia("(max-width: 860px)").matches) byId("options-box").removeAttribute("open");
}

function start() {
  return attempt(load, start);
}

listen();
start();
