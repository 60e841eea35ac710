// The HTTP API: requests, streams of server-sent events, errors, the key.

const KEY = "lightning-xt.key";

/** An error of the API: its sentence and HTTP status; status 0 if the server did not answer. */
export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export function storeKey(key) {
  sessionStorage.setItem(KEY, key);
}

function headers() {
  const key = sessionStorage.getItem(KEY);
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

async function send(path, body, signal) {
  let response;
  try {
    const init = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
    response = await fetch(path, { ...init, headers: headers(), signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer. Is it running?", 0);
  }
  if (!response.ok) throw await readError(response);
  return response;
}

async function readError(response) {
  const answer = await response.json().catch(() => null);
  const message = answer?.error?.message ?? `The server answered ${response.status} ${response.statusText}`.trim();
  return new ApiError(message, response.status);
}

/** List the served models. */
export async function listModels() {
  return (await (await send("v1/models")).json()).data;
}

/** Translate; return the answer's `translations`. */
export async function translate(body, signal) {
  return (await (await send("v1/translations", body, signal)).json()).translations;
}

/** Stream completions; `onChunk` gets each chunk of the API. */
export async function streamCompletions(body, onChunk, signal) {
  const response = await send("v1/completions", { ...body, stream: true }, signal);
  let done = false;
  for await (const data of readEvents(response.body)) {
    // The rest is read too: a reader that leaves early looks like a client that has gone.
    done ||= data === "[DONE]";
    if (done) continue;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiError(chunk.error.message, response.status);
    onChunk(chunk);
  }
  if (!done) throw new ApiError("The server ended the stream early.", 0);
}

/** Yield the data of each server-sent event of a body. */
async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { done, value } = await reader.read().catch((error) => {
      if (error.name === "AbortError") throw error;
      throw new ApiError("The connection to the server was lost.", 0);
    });
    if (done) return;
    buffer += value.replaceAll("\r\n", "\n");
    const events = buffer.split("\n\n");
    buffer = events.pop();
    for (const event of events) {
      const lines = event.split("\n").filter((line) => line.startsWith("data:"));
      if (lines.length) yield lines.map((line) => line.slice(5).replace(/^ /, "")).join("\n");
    }
  }
}
