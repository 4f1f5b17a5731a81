// The page: sliders and the plane of seeds say what, a worker draws it, coarse while something moves and fine at rest.

import { Plane, placeOf, seedAt } from "./plane.js";
import { pngOf } from "./png.js";
import { $, described, el, plainName, showRange } from "./ui.js";

const COARSE_STEPS = 4, USUAL_STEPS = 20, MOST_ENLARGED = 7, PER_SEED = 260, MOST_SEEDS = 1e9;
const canvas = document.createElement("canvas");
const own = (object, name) => (Object.hasOwn(object, name) ? object[name] : 0); // a style may be named `constructor`
const state = { styles: {}, labels: {} };
let about, plane, worker, drawn, count = 0, running = null, isDirty = false, isMoving = false, filling;
let answer = () => {};

// From a blob the worker is bound by this page's policy, wherever the page is put; from a file it would not be.
function begin() {
  const code = `import ${JSON.stringify(new URL("worker.js", import.meta.url).href)};`;
  worker = new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })), { type: "module" });
  worker.onerror = () => stop("This browser cannot draw here: it needs to be of 2023 or later.");
  worker.onmessage = ({ data }) => {
    if (data.problem) stop(data.problem);
    else if (data.about) open(data.about);
    else if (data.loaded) progress(data.loaded);
    else if (data.engine) $("engine").textContent = data.engine === "webgpu" ? "It uses your GPU." : "";
    else if (data.id === count && data.done) progress(data.done);
    else if (data.id === count) answer(data);
  };
}

function stop(problem) {
  $("problem").textContent = problem;
  $("problem").hidden = false;
  $("waiting").hidden = true;
  $("frame").classList.remove("busy");
}

const progress = (share) => $("frame").style.setProperty("--done", `${100 * share}%`);

function open(found) {
  about = found;
  $("coming").textContent = `Loading ${Math.ceil((about.bytes + about.runtime.wasm.bytes) / 1e6)} MB, once…`;
  plane = new Plane($("plane"), { moved, released });
  buildStyles();
  buildLabels();
  $("steps").max = Math.min(50, about.sampling.timesteps);
  setHow(Math.min(USUAL_STEPS, about.sampling.steps), about.sampling.guidance);
  for (const id of ["steps", "guidance"]) {
    $(id).oninput = showHow;
    $(id).onchange = released;
  }
  $("keep").onclick = keep;
  $("chance").onclick = chance;
  $("seed").onchange = ({ target }) => {
    const seed = Number.parseInt(target.value, 10);
    if (seed >= 0 && seed < MOST_SEEDS) plane.glide(...placeOf(seed));
    else showSeed();
  };
  $("picture").addEventListener("pointerdown", (event) => {
    if (!event.button && event.pointerType !== "touch") event.preventDefault();
    if (!event.button) plane.drag(event, PER_SEED);
  });
  addEventListener("keydown", shortcut);
  addEventListener("hashchange", () => restore() && released());
  restore();
  released();
}

// ---- drawing

// What the worker makes of it; null where something else was asked for meanwhile.
function ask(more) {
  const id = ++count;
  answer(null);
  const how = { steps: Number($("steps").value), guidance: Number($("guidance").value) };
  const asked = { id, seed: plane.seed, styles: { ...state.styles }, labels: { ...state.labels }, ...how, ...more };
  worker.postMessage(asked);
  return new Promise((done) => {
    answer = (found) => (answer = () => {}, done(found && { ...found, asked }));
  });
}

const coarsely = (more) => ask({ steps: Math.min(COARSE_STEPS, Number($("steps").value)), isCoarse: true, ...more });

function moved() {
  isMoving = true;
  showSeed();
  if (running === "coarse") isDirty = true;
  else draw(true);
}

function released() {
  isMoving = isDirty = false;
  showSeed();
  remember();
  draw(false);
}

async function draw(isCoarse) {
  clearTimeout(filling);
  running = isCoarse ? "coarse" : "fine";
  plane.style = JSON.stringify([state.styles, state.labels, $("guidance").value]);
  const frame = $("frame");
  frame.dataset.drawn = "";
  if (!isCoarse) {
    const rough = await coarsely();
    if (!rough) return;
    show(rough);
    frame.classList.add("busy");
    progress(0);
  }
  const found = await (isCoarse ? coarsely() : ask({}));
  if (!found) return;
  show(found);
  running = null;
  if (isDirty) {
    isDirty = false;
    draw(true);
  } else if (!isCoarse) {
    frame.classList.remove("busy");
    frame.dataset.drawn = JSON.stringify(found.asked.seed);
    $("status").textContent = `${found.asked.steps} steps in ${found.seconds.toFixed(1)} s`;
    if (!isMoving) filling = setTimeout(fillPlane, 300);
  }
}

function paint({ pixels, width, height }) {
  Object.assign(canvas, { width, height });
  canvas.getContext("2d").putImageData(new ImageData(pixels, width, height), 0, 0);
  return canvas.toDataURL();
}

function show(found) {
  drawn = found;
  const picture = $("picture"), { width, height } = found;
  picture.src = paint(found);
  picture.alt = `${described(found.asked.styles)}, seed ${plainSeed()}`;
  $("frame").style.setProperty("--shape", width / height);
  $("frame").style.setProperty("--most", `${MOST_ENLARGED * Math.max(width, height)}px`);
  $("waiting").hidden = true;
  $("keep").disabled = $("chance").disabled = false;
}

// While nothing else is wanted, give the crossings of the plane their pictures.
async function fillPlane() {
  const { style } = plane;
  for (let place; !running && !document.hidden && ([place] = plane.missing(1)) && place; ) {
    const found = await coarsely({ seed: seedAt(...place) });
    if (!found || running) return;
    await plane.addTile(...place, paint(found), style);
  }
}

// ---- the plane and its seed

const rounded = (value) => String(Math.round(value * 100) / 100);

function plainSeed() {
  const { seed } = plane;
  return Array.isArray(seed) ? `${rounded(seed[0])} ↓ ${seed[2].toFixed(2)}` : rounded(seed);
}

function showSeed() {
  if (document.activeElement !== $("seed") || isMoving) $("seed").value = plainSeed();
}

function chance() {
  plane.place(Math.floor(Math.random() * 996) + 2, Math.floor(Math.random() * 996) + 2);
  released();
}

// ---- styles, labels, and how

function buildStyles() {
  for (const name of about.columns[0].values) {
    const input = el("input", { type: "range", min: 0, max: 100, step: 1, aria: { label: `${plainName(name)}, weight` } });
    const alone = () => (setStyles({ [name]: 100 }), released());
    const button = el("button", { type: "button", textContent: plainName(name), title: `${plainName(name)} alone`, onclick: alone });
    input.oninput = () => (takeWeight(name, Number(input.value)), moved());
    input.onchange = released;
    $("styles").append(el("div", { className: "style", dataset: { style: name } }, button, input, el("output")));
  }
  setStyles({ [about.columns[0].values[0]]: 100 });
}

function takeWeight(name, weight) {
  const others = Object.entries(state.styles).filter(([key]) => key !== name);
  if (weight || !others.length) others.push([name, weight || 1]); // a picture needs a style
  state.styles = Object.fromEntries(others);
  showStyles();
}

function setStyles(styles) {
  state.styles = styles;
  for (const row of $("styles").children) row.querySelector("input").value = own(styles, row.dataset.style);
  showStyles();
}

function showStyles() {
  const total = Object.values(state.styles).reduce((a, b) => a + b, 0);
  for (const row of $("styles").children) {
    const share = own(state.styles, row.dataset.style) / total;
    row.classList.toggle("on", share > 0);
    showRange(row.querySelector("input"), share ? `${Math.round(100 * share)} %` : "");
  }
}

function buildLabels() {
  for (const { name, values } of about.columns.slice(1)) {
    const options = values.map((value) => el("option", { value, textContent: plainName(value) }));
    const select = el("select", { dataset: { column: name } }, el("option", { value: "", textContent: "any" }), ...options);
    select.onchange = () => ((state.labels[name] = select.value), released());
    $("labels").append(el("label", { className: "row" }, el("span", { textContent: plainName(name) }), select));
  }
}

function setHow(steps, guidance) {
  $("steps").value = steps;
  $("guidance").value = guidance;
  showHow();
}

function showHow() {
  showRange($("steps"));
  showRange($("guidance"), Number($("guidance").value).toFixed(1));
}

// ---- keeping, and the address, by which a picture can be shared

// Its settings are those that `latentart sample --from` reads.
async function keep() {
  const { asked } = drawn, { seed, steps, guidance, labels } = asked;
  const total = Object.values(asked.styles).reduce((a, b) => a + b, 0), shares = Object.entries(asked.styles);
  const style = shares.length === 1 ? shares[0][0] : Object.fromEntries(shares.map(([name, weight]) => [name, weight / total]));
  const chosen = Object.fromEntries(Object.entries(labels).filter(([, value]) => value));
  const settings = { style, seed, ...about.settings, steps, guidance, ...(Object.keys(chosen).length ? { labels: chosen } : {}) };
  const ascii = JSON.stringify(settings).replace(/[\u0080-\uffff]/g, (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`);
  paint(drawn);
  const file = await pngOf(canvas, { latentart: ascii, "XML:com.adobe.xmp": about.xmp });
  const name = `${described(asked.styles)} ${[seed].flat().join("-")}`.replace(/[^\p{L}\p{N}.-]+/gu, "_");
  const link = el("a", { href: URL.createObjectURL(file), download: `${name}.png` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  $("status").textContent = "Kept among your downloads.";
}

function shortcut(event) {
  if (event.target.matches("input:not([type=range]), select") || event.ctrlKey || event.metaKey || event.altKey) return;
  const act = { k: keep, r: chance }[event.key.toLowerCase()];
  if (!act || event.repeat || !drawn) return;
  event.preventDefault();
  act();
}

function remember() {
  const { x, y } = plane, here = { at: [x, y], styles: state.styles, labels: state.labels, how: [$("steps").value, $("guidance").value].map(Number) };
  history.replaceState(null, "", `#${encodeURIComponent(JSON.stringify(here))}`);
}

// Go where the address says, which anybody may have written.
function restore() {
  try {
    const { at, styles, labels, how } = JSON.parse(decodeURIComponent(location.hash.slice(1)));
    const [column, ...others] = about.columns, isNumber = (value) => typeof value === "number" && value >= 0 && value <= 1e6;
    const known = Object.entries(styles).filter(([name, weight]) => column.values.includes(name) && isNumber(weight) && weight);
    if (![...at, ...how].every(isNumber) || !known.length) return false;
    state.labels = Object.fromEntries(others.filter(({ name, values }) => values.includes(own(labels, name))).map(({ name }) => [name, labels[name]]));
    for (const select of $("labels").querySelectorAll("select")) select.value = own(state.labels, select.dataset.column) || "";
    setHow(...how);
    setStyles(Object.fromEntries(known));
    plane.place(at[0], at[1]);
    return true;
  } catch {
    return false; // as if for the first time
  }
}

begin();
