// Draws, beside the page, so that it stays quick; what is asked for last is what is drawn.

import { noiseOf } from "./noise.js";

const MOST_STEP = 1000; // ms that a GPU may take for one
const here = (name) => new URL(name, import.meta.url).href;
let about, ort, denoiser, decoder, wanted, isBusy = false, loaded = 0;

async function open() {
  about = await (await fetch(here("model.json"))).json();
  const engines = (await hasGpu()) ? ["webgpu", "wasm"] : ["wasm"];
  postMessage({ about });
  const networks = await Promise.all(["denoiser", "decoder"].map((name) => load(`${name}.onnx`, {}, about.bytes)));
  for (const engine of engines) {
    try {
      await start(engine, networks);
      return engine;
    } catch (error) {
      if (engine === "wasm") throw error; // a GPU that does not serve leaves it to the CPU
    }
  }
}

async function hasGpu() {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  return !!adapter && !(adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter); // one of software is slow
}

async function start(engine, networks) {
  const { script, binary, bytes } = about.runtime[engine];
  const all = about.bytes + bytes;
  if (script.integrity) { // another host's: what its bytes are was written down
    const code = await (await fetch(script.address, { integrity: script.integrity })).text();
    ort = await import(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
  } else ort = await import(here(script.address));
  const wasm = ort.env.wasm;
  wasm.wasmBinary = await unpack(await load(binary.address, binary, all));
  wasm.numThreads = self.crossOriginIsolated && !script.integrity ? Math.min(4, navigator.hardwareConcurrency) : 1;
  ort.env.logLevel = "error";
  const sessions = []; // one after the other: a GPU takes no two at once
  for (const network of networks) sessions.push(await ort.InferenceSession.create(network, { executionProviders: [engine] }));
  [denoiser, decoder] = sessions;
  const noise = noiseOf(0, about.latents.shape.reduce((a, b) => a * b)), said = "The networks do not work in this browser.";
  const found = await predict(noise, 0, rowsOf({}, {}));
  if (!about.check.every((value, i) => Math.abs(found[i] - value) < 0.05)) throw new Error(said);
  const began = performance.now();
  if (engine === "webgpu" && (await predict(noise, 0, rowsOf({}, {})), performance.now() - began > MOST_STEP)) throw new Error(said);
}

async function load(address, { integrity }, all) {
  const response = await fetch(here(address), integrity ? { integrity } : {});
  if (!response.ok) throw new Error(`${address} did not come: ${response.status}.`);
  const parts = [];
  for (const reader = response.body.getReader(); ; ) {
    const { value, done } = await reader.read();
    if (done) break;
    parts.push(value);
    postMessage({ loaded: Math.min(1, (loaded += value.length) / all) });
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

// A host that knows .gz may have unpacked it on the way.
async function unpack(bytes) {
  if (bytes[0] !== 0x1f) return bytes;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// The weight of each label of each column, of which the last says nothing.
function rowsOf(styles, labels) {
  return about.columns.flatMap(({ name, values }, i) => {
    const chosen = i ? (Object.hasOwn(labels, name) && labels[name] ? { [labels[name]]: 1 } : {}) : styles;
    const total = Object.values(chosen).reduce((a, b) => a + b, 0);
    return [...values.map((value) => (Object.hasOwn(chosen, value) ? chosen[value] / total : 0)), total ? 0 : 1];
  });
}

// The prediction for the noised latents x at a timestep; of a second row of labels another one, behind the first.
async function predict(x, t, ...rows) {
  const many = rows.length, both = new Float32Array(many * x.length);
  for (let i = 0; i < many; i++) both.set(x, i * x.length);
  const { prediction } = await denoiser.run({
    x_t: new ort.Tensor("float32", both, [many, ...about.latents.shape]),
    t: new ort.Tensor("int64", new BigInt64Array(many).fill(BigInt(t)), [many]),
    labels: new ort.Tensor("float32", Float32Array.from(rows.flat()), [many, rows[0].length]),
  });
  return prediction.data;
}

// DDIM, as in `latentart sample`; null where something else is asked for meanwhile.
async function draw(asked) {
  const { seed, styles, labels, steps, guidance } = asked;
  const { shape, mean, std } = about.latents, area = shape[1] * shape[2];
  const { x0_limit: limit, timesteps } = about.sampling, count = Math.min(steps, timesteps);
  const rows = [rowsOf(styles, labels), rowsOf({}, {})].slice(0, guidance === 1 ? 1 : 2);
  const x = noiseOf(seed, shape[0] * area);
  for (let i = 0; i < count; i++) {
    await aTurn();
    if (wanted !== asked) return null;
    const t = Math.floor((timesteps * (count - i)) / count) - 1, next = Math.floor((timesteps * (count - i - 1)) / count) - 1;
    const found = await predict(x, t, ...rows), last = found.length - x.length;
    const at = about.alpha_bar[t], then = next < 0 ? 1 : about.alpha_bar[next];
    for (let k = 0; k < x.length; k++) {
      const guess = last ? found[last + k] + guidance * (found[k] - found[last + k]) : found[k];
      const x0 = Math.min(limit, Math.max(-limit, about.x0_of_x_t[t] * x[k] + about.x0_of_prediction[t] * guess));
      x[k] = Math.sqrt(then) * x0 + (Math.sqrt(1 - then) * (x[k] - Math.sqrt(at) * x0)) / Math.sqrt(1 - at);
    }
    if (!asked.isCoarse) postMessage({ id: asked.id, done: (i + 1) / (count + 1) });
  }
  const latents = x.map((value, k) => value * std[Math.floor(k / area)] + mean[Math.floor(k / area)]);
  const { images } = await decoder.run({ latents: new ort.Tensor("float32", latents, [1, ...shape]) });
  const [, , height, width] = images.dims, size = width * height, pixels = new Uint8ClampedArray(4 * size).fill(255);
  for (let k = 0; k < 3 * size; k++) pixels[4 * (k % size) + Math.floor(k / size)] = (images.data[k] + 1) * 127.5;
  return { pixels, width, height };
}

// Let messages come in.
const { port1, port2 } = new MessageChannel();
const aTurn = () => new Promise((go) => ((port1.onmessage = go), port2.postMessage(0)));

const ready = open();
ready.then((engine) => postMessage({ engine }), (error) => postMessage({ problem: String(error.message ?? error) }));

onmessage = async ({ data }) => {
  wanted = data;
  if (isBusy) return;
  isBusy = true;
  try {
    await ready;
    for (let asked; (asked = wanted); ) {
      const began = performance.now(), drawn = await draw(asked);
      if (wanted === asked) wanted = null;
      if (drawn) postMessage({ id: asked.id, ...drawn, seconds: (performance.now() - began) / 1000 }, [drawn.pixels.buffer]);
    }
  } catch (error) {
    postMessage({ problem: String(error.message ?? error) });
  }
  isBusy = false;
};
