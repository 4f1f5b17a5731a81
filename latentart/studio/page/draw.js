// Draw: sliders and the plane of seeds say what, the stage shows it, coarse while something moves and fine once it rests.

import { openGallery } from "/page/gallery.js";
import { openOrigin } from "/page/origin.js";
import { SMALL, address, look } from "/page/pictures.js";
import { Plane, placeOf, seedAt } from "/page/plane.js";
import { $, described, el, events, get, plainName, post, showRange, windowId } from "/page/ui.js";

const SAMPLERS = { ddim: "DDIM", ddpm: "DDPM", euler: "Euler", heun: "Heun", dpmpp_2m: "DPM-Solver++ 2M", unipc: "UniPC" };
const COARSE_STEPS = 3, MOST_ENLARGED = 7, FRAMES = 6, MEMORY = "latentart-studio";
const state = { weights: {}, labels: {} };
let model, plane, origin, gallery, running, isDirty = false, isMoving = false, filling;

export async function openDraw() {
  gallery = openGallery({ onOpen: reopen, say });
  try {
    model = await get("/api/model");
  } catch (error) {
    $("waiting").textContent = "Nothing to draw with yet.";
    $("problem").textContent = error.message;
    $("problem").hidden = false;
    for (const control of document.querySelectorAll("#draw .stage button:not(#copy), #draw .side :is(button, input, select)")) control.disabled = true;
    return;
  }
  plane = new Plane($("plane"), { moved, released });
  buildStyles();
  buildLabels();
  buildHow();
  origin = openOrigin({ model, changed: released, say });
  for (const id of ["keep", "vary", "near", "copy", "chance"]) $(id).onclick = { keep, vary, near, copy, chance }[id];
  $("seed").onchange = (event) => {
    const seed = Number.parseInt(event.target.value, 10);
    if (seed >= 0 && seed < 1e9) plane.glide(...placeOf(seed));
    else showSeed();
  };
  $("frame").addEventListener("pointerdown", (event) => {
    if (event.pointerType === "mouse" && !event.button && event.target === $("picture") && !origin.isRestyling)
      dragPicture(event);
  });
  addEventListener("keydown", shortcut);
  restore();
  released();
}

// ---- what is asked for

function asked(lane, more) {
  const size = [Number($("width").value), Number($("height").value)];
  const isUsual = size.every((side) => side === model.resolution);
  const follows = origin.isOn && isUsual; // the shape of the picture that it begins from
  return {
    window: `${windowId}-${lane}`,
    styles: state.weights,
    labels: Object.fromEntries(Object.entries(state.labels).filter(([, value]) => value)),
    seeds: [plane.seed],
    steps: Number($("steps").value),
    sampler: $("sampler").value,
    guidance: Number($("guidance").value),
    eta: origin.isRestyling ? 0 : Number($("eta").value),
    width: follows ? null : size[0],
    height: follows ? null : size[1],
    ...origin.asked(),
    ...more,
  };
}

// The same with few steps, by the sampler that comes closest to the fine picture with them; it adds no noise on the
// way, so that the picture moves as smoothly as the seeds do.
function coarsely(lane, more = {}) {
  const fine = asked(lane);
  return { ...fine, sampler: "unipc", eta: 0, steps: Math.min(COARSE_STEPS, fine.steps), ...more };
}

// ---- drawing

function moved() {
  isMoving = true;
  showSeed();
  if (running?.isCoarse) isDirty = true;
  else draw(true);
}

function released() {
  isMoving = isDirty = false;
  showSeed();
  remember();
  draw(false);
}

async function draw(isCoarse) {
  running?.stop.abort();
  clearTimeout(filling);
  filler?.abort();
  const mine = { isCoarse, stop: new AbortController() };
  running = mine;
  plane.style = JSON.stringify([state.weights, state.labels, $("width").value, $("height").value]);
  const body = isCoarse ? coarsely("stage") : asked("stage", { frames: FRAMES });
  const frame = $("frame");
  frame.classList.toggle("busy", !isCoarse);
  frame.style.setProperty("--done", "0%");
  $("nearest").hidden = true;
  try {
    for await (const event of events("/api/draw", body, mine.stop.signal)) {
      if (running !== mine) return;
      if ("frame" in event) frame.style.setProperty("--done", `${(100 * (event.frame + 1)) / (FRAMES + 1)}%`);
      if (event.address) show(event.address, event.width, event.height);
      if (event.command) {
        showCommand(event.command, event.must_keep);
        if (!isCoarse) say(`${body.steps} steps${event.seconds < 0.02 ? "" : ` in ${event.seconds.toFixed(2)} s`}`);
        if (event.version !== model.version) renew();
        frame.dataset.drawn = isCoarse ? "coarse" : JSON.stringify(body.seeds[0]);
      }
    }
  } catch (error) {
    if (error.name === "AbortError" || running !== mine) return;
    say(error.message);
  }
  if (running !== mine) return;
  running = null;
  frame.classList.remove("busy");
  if (isDirty) {
    isDirty = false;
    draw(true);
  } else if (!isMoving && !isCoarse) filling = setTimeout(fillPlane, 300);
}

// A training has written another model: its pictures are other ones, and where its styles are too, so is the page.
async function renew() {
  const { version, ...before } = model;
  model = await get("/api/model").catch(() => model);
  if (JSON.stringify({ ...model, version }) !== JSON.stringify({ version, ...before })) location.reload();
  plane.forget();
}

function show(address, width, height) {
  const picture = $("picture");
  picture.src = address;
  $("waiting").hidden = true;
  if (width) {
    shape(width, height);
    picture.alt = `${described(state.weights)}, seed ${plainSeed()}`;
    origin.drawn(width, height);
  }
}

// A small picture is not blown up to a blur.
function shape(width, height) {
  $("frame").style.setProperty("--shape", width / height);
  $("frame").style.setProperty("--most", `${MOST_ENLARGED * Math.max(width, height)}px`);
}

// While nothing else is wanted, give the crossings of the plane their pictures, a few at a time.
let filler;
async function fillPlane() {
  if (origin.isRestyling || document.hidden || $("draw").hidden) return;
  filler = new AbortController();
  const mine = filler, style = plane.style;
  try {
    for (let places; (places = plane.missing(4)).length && mine === filler && !running; ) {
      const body = coarsely("plane", { seeds: places.map(([i, j]) => seedAt(i, j)), picture: null, mask: null });
      for await (const event of events("/api/draw", body, mine.signal))
        if (event.address) await plane.addTile(...places[event.picture], event.address, style);
    }
  } catch {
    // the next rest tries again
  }
}

// ---- the plane and its seed

function dragPicture(event) {
  event.preventDefault();
  plane.drag({ currentTarget: $("picture"), pointerId: event.pointerId, clientX: event.clientX, clientY: event.clientY }, 260);
}

function plainSeed() {
  const seed = plane.seed;
  return typeof seed === "number" ? String(Math.round(seed * 100) / 100) : `${Math.round(seed[0] * 100) / 100} ↓ ${seed[2].toFixed(2)}`;
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
  const [first] = model.styles;
  state.weights = { [first]: 100 };
  for (const name of model.styles) {
    const input = el("input", { type: "range", min: 0, max: 100, step: 1, value: name === first ? 100 : 0, aria: { label: `${plainName(name)}, weight` } });
    const row = el("div", { className: "style" },
      el("button", { type: "button", textContent: plainName(name), title: `${plainName(name)} alone`, onclick: () => setWeights({ [name]: 100 }, true) }),
      input, el("output"));
    row.dataset.style = name;
    input.oninput = () => (takeWeight(name, Number(input.value)), moved());
    input.onchange = () => released();
    $("styles").append(row);
  }
  showWeights();
}

function takeWeight(name, weight) {
  const weights = { ...state.weights, [name]: weight };
  for (const key of Object.keys(weights)) if (!weights[key]) delete weights[key];
  if (!Object.keys(weights).length) weights[name] = 1; // a picture needs a style
  state.weights = weights;
  showWeights();
}

function setWeights(weights, draws) {
  state.weights = weights;
  for (const row of $("styles").children) row.querySelector("input").value = weights[row.dataset.style] ?? 0;
  showWeights();
  if (draws) released();
}

function showWeights() {
  const total = Object.values(state.weights).reduce((a, b) => a + b, 0);
  for (const row of $("styles").children) {
    const share = (state.weights[row.dataset.style] ?? 0) / total;
    row.classList.toggle("on", share > 0);
    showRange(row.querySelector("input"), share ? `${Math.round(100 * share)} %` : "");
  }
}

function buildLabels() {
  for (const [column, values] of Object.entries(model.labels)) {
    const select = el("select", { onchange: () => ((state.labels[column] = select.value), released()) },
      el("option", { value: "", textContent: "any" }), ...values.map((value) => el("option", { value, textContent: plainName(value) })));
    select.dataset.column = column;
    $("labels").append(el("label", { className: "row" }, el("span", { textContent: plainName(column) }), select));
  }
}

function buildHow() {
  const { usual } = model;
  $("sampler").append(...Object.entries(SAMPLERS).map(([value, textContent]) => el("option", { value, textContent })));
  $("steps").max = Math.min(200, model.most_steps);
  setHow({ ...usual, steps: Math.min(usual.steps, 20), width: model.resolution, height: model.resolution });
  for (const id of ["steps", "guidance", "eta"]) {
    $(id).oninput = () => showHow();
    $(id).onchange = released;
  }
  $("sampler").onchange = () => (showHow(), released());
  for (const id of ["width", "height"]) {
    Object.assign($(id), { min: model.unit, step: model.unit, max: 4096 });
    $(id).onchange = () => {
      $(id).value = Math.max(model.unit, Math.round($(id).value / model.unit) * model.unit);
      released();
    };
  }
}

function setHow(values) {
  for (const id of ["steps", "guidance", "eta", "sampler", "width", "height"]) if (values[id] != null) $(id).value = values[id];
  showHow();
}

function showHow() {
  showRange($("steps"));
  showRange($("guidance"), Number($("guidance").value).toFixed(1));
  showRange($("eta"), Number($("eta").value).toFixed(2));
  $("eta-row").hidden = $("sampler").value !== "ddim";
}

// ---- keeping, varying, copying

async function keep() {
  const button = $("keep");
  button.disabled = true;
  try {
    const kept = await post("/api/keep", asked("keep"));
    gallery.add(kept);
    $("must-keep").hidden = true;
    say(`Kept as samples/${kept.name}`);
  } catch (error) {
    say(error.message);
  }
  button.disabled = false;
}

async function vary() {
  const strip = $("variations"), { x, y } = plane;
  const around = [[-1, -1], [0, -1], [1, -1], [-1, 0], [1, 0], [-1, 1], [0, 1], [1, 1]];
  const places = around.map(([i, j]) => [Math.max(0, x + 0.28 * i), Math.max(0, y + 0.28 * j)].map((v) => Math.round(v * 64) / 64));
  const cells = places.map(([i, j]) => el("button", { type: "button", aria: { label: "A variation" }, onclick: () => plane.glide(i, j) }));
  strip.replaceChildren(...cells);
  strip.hidden = false;
  try {
    const body = asked("vary", { seeds: places.map(([i, j]) => seedAt(i, j)), steps: Math.min(12, Number($("steps").value)) });
    for await (const event of events("/api/draw", body))
      if (event.address) cells[event.picture].append(el("img", { src: event.address, alt: "", draggable: false }));
  } catch (error) {
    say(error.message);
  }
}

async function near() {
  const strip = $("nearest"), button = $("near");
  button.disabled = true;
  say("Looking through the training pictures…");
  try {
    const { near, version, is_copy } = await post("/api/pictures/nearest", asked("near"));
    strip.replaceChildren(...near.map(([style, place, distance]) =>
      el("button", { type: "button", title: `Distance ${distance.toFixed(2)}`, aria: { label: "Look at a training picture" }, onclick: () => look([style, place], version) },
        el("img", { src: address(SMALL, [style, place], version), alt: "", draggable: false }))));
    strip.hidden = false;
    say(is_copy ? "The nearest training pictures; this one counts as a copy of the first." : "The nearest training pictures.");
  } catch (error) {
    say(error.message);
  }
  button.disabled = false;
}

// A line breaks between words, and never at the hyphens of an option.
function showCommand(text, mustKeep = false) {
  $("must-keep").hidden = !mustKeep;
  $("command").replaceChildren(...text.split(" ").flatMap((word, i) => [i ? " " : "", el("span", { textContent: word })]));
}

async function copy() {
  const text = $("command").textContent;
  try {
    await navigator.clipboard.writeText(text);
    say("Copied.");
  } catch { // where the page has no right to, mark it
    getSelection().selectAllChildren($("command"));
    say("Marked: copy it with the keyboard.");
  }
}

function shortcut(event) {
  const isTyping = event.target.matches("input:not([type=range]), select, textarea");
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey || $("draw").hidden) return;
  const act = { k: keep, v: vary, r: chance, n: $("near").hidden ? null : near }[event.key.toLowerCase()] ?? (event.key === "Enter" && event.target === $("plane") ? keep : null);
  if (act && !event.repeat) {
    event.preventDefault();
    act();
  }
}

// Open a kept picture again: its sliders, its seed, its way of drawing; a movie or grid is shown as it is.
async function reopen(kept) {
  const { about } = kept;
  const style = about.style ?? (about.styles?.length === 1 ? about.styles[0] : null);
  const place = placeOf(about.seed ?? about.seeds?.[0] ?? 0);
  if (!model || style === null || about.movie || !place || (about.seeds?.length ?? 1) > 1) {
    running?.stop.abort();
    running = null;
    show(`/api/kept/${kept.id}`);
    $("picture").onload = ({ target }) => (shape(target.naturalWidth, target.naturalHeight), (target.onload = null));
    showCommand(`latentart sample --from 'samples/${kept.name.replaceAll("'", "'\\''")}'`);
    say("Shown as it was kept.");
  } else {
    const weights = typeof style === "string" ? { [style]: 100 } : Object.fromEntries(Object.entries(style).map(([name, share]) => [name, 100 * share]));
    const unknown = Object.keys(weights).find((name) => !model.styles.includes(name));
    if (unknown) return say(`The model has no style ${plainName(unknown)} any longer.`);
    try {
      if (about.init_image || about.invert) await origin.takeUp(kept);
      else origin.forget(false);
    } catch (error) {
      return say(error.message);
    }
    const [width, height] = about.size ?? [model.resolution, model.resolution];
    setHow({ ...about, width, height });
    state.labels = { ...about.labels };
    for (const select of document.querySelectorAll("#labels select")) select.value = state.labels[select.dataset.column] ?? "";
    setWeights(weights, false);
    plane.place(...place);
    released();
  }
  scrollTo({ top: 0, behavior: "smooth" });
}

function say(text) {
  $("status").textContent = text;
}

// ---- a page that is loaded again is where it was

function remember() {
  const how = Object.fromEntries(["steps", "guidance", "eta", "sampler", "width", "height"].map((id) => [id, $(id).value]));
  try {
    sessionStorage.setItem(MEMORY, JSON.stringify({ styles: model.styles, weights: state.weights, x: plane.x, y: plane.y, how }));
  } catch {
    // a browser that keeps nothing
  }
}

function restore() {
  try {
    const was = JSON.parse(sessionStorage.getItem(MEMORY));
    if (JSON.stringify(was?.styles) !== JSON.stringify(model.styles)) return;
    setHow(was.how);
    setWeights(was.weights, false);
    plane.place(was.x, was.y);
  } catch {
    // as if for the first time
  }
}
