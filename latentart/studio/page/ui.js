// Small things that every tab uses: elements, requests, streams of events, sliders.

export const $ = (id) => document.getElementById(id);

export function el(tag, properties = {}, ...children) {
  const { dataset, aria, ...others } = properties;
  const made = Object.assign(document.createElement(tag), others);
  Object.assign(made.dataset, dataset ?? {});
  for (const [name, value] of Object.entries(aria ?? {})) made.setAttribute(`aria-${name}`, value);
  made.append(...children);
  return made;
}

async function answerOf(response) {
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error ?? "The studio did not answer as it should.");
  return answer;
}

const unreachable = (error) => {
  if (error.name === "AbortError") throw error;
  throw new Error("The studio is not running any longer. Start it again in the terminal.");
};

export async function get(path) {
  return answerOf(await fetch(path).catch(unreachable));
}

export async function post(path, body, signal) {
  const isBlob = body instanceof Blob;
  const headers = { "content-type": isBlob ? "application/octet-stream" : "application/json" };
  const response = await fetch(path, { method: "POST", body: isBlob ? body : JSON.stringify(body), headers, signal });
  return answerOf(response);
}

// Server-sent events in the answer to a POST, one object after the other.
export async function* events(path, body, signal) {
  const headers = { "content-type": "application/json" };
  const response = await fetch(path, { method: "POST", body: JSON.stringify(body), headers, signal }).catch(unreachable);
  if (!response.ok) await answerOf(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const event = JSON.parse(part.slice("data: ".length));
      if (event.error) throw new Error(event.error);
      yield event;
    }
  }
}

// Show a slider's value beside it and fill its track up to there.
export function showRange(input, text = input.value) {
  const low = Number(input.min), high = Number(input.max);
  input.style.setProperty("--fill", `${(100 * (input.value - low)) / (high - low)}%`);
  const output = input.parentElement.querySelector("output");
  if (output) output.textContent = text;
}

export const plainName = (name) => name.replaceAll("_", " ");
// A path breaks after its folders and words, before it breaks within them.
export const breakable = (path) => path.split(/(?<=[/_-])/).flatMap((part, i) => (i ? [el("wbr"), part] : part));
export const windowId = Array.from(crypto.getRandomValues(new Uint8Array(8)), (b) => b.toString(16).padStart(2, "0")).join("");

export function described(weights) {
  const names = Object.entries(weights).sort(([, a], [, b]) => b - a).map(([name]) => plainName(name));
  return names.length > 3 ? `${names.slice(0, 2).join(" + ")} + ${names.length - 2} more` : names.join(" + ");
}
