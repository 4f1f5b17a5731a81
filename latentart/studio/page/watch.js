// Watch: every run of the workspace beside the others, as its files tell of it, looked at again every few seconds.

import { $, el, get, plainName } from "/page/ui.js";

const EVERY = 3000, GOOD = ["learning"], WAITING = ["too early", "finished"];
const cards = new Map();

export function openWatch() {
  const empty = el("p", { className: "empty", textContent: "No training yet. Start one in the terminal: latentart train vae" });
  const grid = el("div", { className: "runs" });
  $("watch").append(empty, grid);
  const look = async () => {
    if (!document.hidden && !$("watch").hidden) {
      try {
        const { runs } = await get("/api/watch");
        empty.hidden = runs.length > 0;
        for (const { id } of runs) if (!cards.has(id)) cards.set(id, new Card());
        const elements = runs.map(({ id }) => cards.get(id).element);
        const isSame = elements.length === grid.children.length && elements.every((one, i) => one === grid.children[i]);
        if (!isSame) grid.replaceChildren(...elements); // what is put in anew loses the focus
        for (const run of runs) cards.get(run.id).show(run);
      } catch (error) {
        empty.textContent = error.message;
        empty.hidden = false;
      }
    }
    setTimeout(look, EVERY);
  };
  look();
}

class Card {
  constructor() {
    this.step = null;
    this.title = el("h2");
    this.pulse = el("span", { className: "pulse" });
    this.bar = el("div", { className: "bar-fill" });
    this.progress = el("div", { className: "progress" }, this.bar);
    this.count = el("p", { className: "count" });
    this.verdict = el("div", { className: "verdict" });
    this.facts = el("dl", { className: "facts" });
    this.chart = el("figure", { className: "chart" });
    this.preview = el("img", { alt: "", decoding: "async" });
    this.slider = el("input", { type: "range", min: 0, step: 1, aria: { label: "Previews over time" } });
    this.when = el("output");
    this.slider.oninput = () => this.turn(Number(this.slider.value));
    this.previews = el("div", { className: "previews" }, this.preview, el("div", { className: "row" }, el("span", { textContent: "Previews" }), this.slider, this.when));
    this.log = el("pre", { tabIndex: 0 });
    this.element = el("article", { className: "run panel" },
      el("header", { className: "head" }, this.title, this.pulse), this.progress, this.count, this.verdict, this.facts, this.chart, this.previews,
      el("details", {}, el("summary", { textContent: "Last lines of the log" }), this.log));
  }

  show(run) {
    this.run = run;
    const what = run.what === "denoiser" ? "Denoiser" : "Autoencoder";
    this.title.textContent = ["ldm", "vae"].includes(run.name) ? what : `${plainName(run.name)} · ${what.toLowerCase()}`;
    this.pulse.textContent = run.is_live ? "training" : run.modified ? `last heard ${ago(run.modified)}` : "";
    this.pulse.classList.toggle("live", run.is_live);
    this.progress.hidden = !run.planned;
    if (run.planned) this.bar.style.width = `${Math.min(100, (100 * run.done) / run.planned)}%`;
    const { steps, left, ...facts } = run.facts;
    this.count.textContent = left ? `${steps} steps, ${left} left` : `${steps} steps`;
    this.verdict.hidden = !run.verdict;
    if (run.verdict) {
      const { kind, evidence, advice } = run.verdict;
      this.verdict.className = `verdict ${GOOD.includes(kind) ? "good" : WAITING.includes(kind) ? "" : "bad"}`;
      this.verdict.replaceChildren(el("p", {}, el("b", { textContent: kind }), ` ${evidence}`), el("p", { className: "hint" }, ...advice.split("`").map((text, i) => (i % 2 ? el("code", { textContent: text }) : text))));
    }
    this.facts.replaceChildren(...Object.entries(facts).map(([name, value]) => el("div", {}, el("dt", { textContent: name }), el("dd", { textContent: value }))));
    this.chart.replaceChildren(...draw(run, this.chart.clientWidth || 440));
    const count = run.previews.length;
    this.previews.hidden = !count;
    const wasLast = this.step === null || this.step === this.last;
    this.last = run.previews[count - 1];
    this.slider.max = Math.max(0, count - 1);
    this.slider.parentElement.hidden = count < 2;
    if (count) this.turn(wasLast ? count - 1 : Math.max(0, run.previews.indexOf(this.step)));
    const isAtEnd = this.log.scrollTop + this.log.clientHeight >= this.log.scrollHeight - 4;
    this.log.textContent = run.log.join("\n");
    if (isAtEnd) this.log.scrollTop = this.log.scrollHeight;
  }

  turn(place) {
    const step = this.run.previews[place];
    this.slider.value = place;
    this.slider.style.setProperty("--fill", `${(100 * place) / Math.max(1, this.slider.max)}%`);
    this.when.textContent = step.toLocaleString("en");
    if (step === this.step) return;
    this.step = step;
    this.preview.src = `/api/watch/${this.run.id}/${step}`;
    this.preview.alt = `Samples at step ${step}`;
  }
}

// The training's loss and the held-out one of the same measure, on a logarithmic scale.
function draw({ training, held_out, what }, width) {
  const known = [...training, ...held_out].filter(([, value]) => value > 0);
  if (known.length < 2) return [];
  const [height, left, bottom] = [190, 46, 24];
  const steps = known.map(([step]) => step), logs = known.map(([, value]) => Math.log(value));
  const [first, last] = [Math.min(...steps), Math.max(...steps)], [low, high] = [Math.min(...logs), Math.max(...logs)];
  const x = (step) => left + ((step - first) / Math.max(1, last - first)) * (width - left - 8);
  const y = (log) => 10 + (1 - (log - low) / Math.max(1e-6, high - low)) * (height - bottom - 20);
  const svg = node("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  svg.setAttribute("aria-label", `Loss over steps, now ${Math.exp(logs[training.length - 1] ?? logs[0]).toPrecision(3)}`);
  for (let i = 0; i <= 3; i++) {
    const log = low + ((high - low) * i) / 3;
    svg.append(node("line", { x1: left, x2: width - 8, y1: y(log), y2: y(log), class: "grid" }),
      node("text", { x: left - 8, y: y(log) + 4, class: "tick end" }, Math.exp(log).toPrecision(2)));
  }
  for (const [share, anchor] of [[0, "start"], [0.5, "middle"], [1, "end"]])
    svg.append(node("text", { x: left + share * (width - left - 8), y: height - 4, class: `tick ${anchor}` }, Math.round(first + share * (last - first)).toLocaleString("en")));
  for (const [name, points] of [["training", training], ["held", held_out]]) {
    const path = points.filter(([, value]) => value > 0).map(([step, value]) => `${x(step).toFixed(1)},${y(Math.log(value)).toFixed(1)}`);
    if (path.length > 1) svg.append(node("polyline", { points: path.join(" "), class: name }));
    else if (path.length) svg.append(node("circle", { cx: path[0].split(",")[0], cy: path[0].split(",")[1], r: 3, class: name }));
  }
  const measure = what === "denoiser" ? "Loss" : "Reconstruction error";
  const caption = el("figcaption", {}, measure, el("span", { className: "key training", textContent: "training" }));
  if (held_out.length) caption.append(el("span", { className: "key held", textContent: "held out" }));
  return [caption, svg];
}

function node(tag, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function ago(time) {
  const seconds = Math.max(0, Date.now() / 1000 - time);
  const [size, unit] = seconds < 5400 ? [60, "minute"] : seconds < 129600 ? [3600, "hour"] : [86400, "day"];
  return new Intl.RelativeTimeFormat("en", { style: "long" }).format(-Math.round(seconds / size), unit);
}
