// Pictures: a contact sheet that holds only what is in view, the flagged beside their twins, the dropped, and a map.

import { $, breakable, el, get, plainName } from "/page/ui.js";

export const SMALL = 160;
const LARGE = 960, GAP = 6;
const VIEWS = { kept: "Kept", flagged: "Flagged", dropped: "Dropped", map: "Map" };
let set, view = "kept", style = -1, shown = new Map();

export async function openPictures() {
  try {
    set = await get("/api/pictures");
  } catch (error) {
    $("no-pictures").textContent = error.message;
    $("no-pictures").hidden = false;
    return;
  }
  set.starts = set.styles.reduce((starts, [, count]) => [...starts, starts.at(-1) + count], [0]);
  const counts = { kept: set.starts.at(-1), flagged: set.flagged.length, dropped: set.dropped.length };
  for (const [name, title] of Object.entries(VIEWS)) {
    if (name === "map" && !set.has_map) continue;
    const label = name in counts ? `${title} ${counts[name].toLocaleString("en")}` : title;
    $("views").append(el("button", { type: "button", textContent: label, dataset: { view: name }, onclick: () => turn(name) }));
  }
  const names = [["All styles", counts.kept], ...set.styles];
  names.forEach(([name, count], i) =>
    $("chips").append(el("button", { type: "button", dataset: { style: i - 1 }, onclick: () => choose(i - 1) }, el("bdi", { textContent: plainName(name) }), el("small", { textContent: count.toLocaleString("en") }))));
  addEventListener("scroll", paint, { passive: true });
  new ResizeObserver(() => paint()).observe($("sheet"));
  turn("kept");
}

function turn(name) {
  view = name;
  for (const button of $("views").children) button.setAttribute("aria-pressed", String(button.dataset.view === name));
  $("chips").hidden = $("sheet").hidden = name !== "kept";
  $("list").hidden = name !== "flagged" && name !== "dropped";
  $("map").hidden = name !== "map";
  if (name === "kept") choose(style);
  else if (name === "map") showMap();
  else list(set[name], name);
}

function choose(number) {
  style = number;
  for (const chip of $("chips").children) chip.setAttribute("aria-pressed", String(Number(chip.dataset.style) === number));
  shown.clear();
  $("cells").replaceChildren();
  paint();
}

export const address = (side, [number, place], version = set.version) => `/api/pictures/${side}/${version}/${number}/${place}`;

// The style and the place in it of the nth picture in view.
function placeOf(n) {
  if (style >= 0) return [style, n];
  let number = 0;
  while (set.starts[number + 1] <= n) number++;
  return [number, n - set.starts[number]];
}

// Only the rows in view, and one screen beyond, are there.
function paint() {
  if (view !== "kept" || $("pictures").hidden) return;
  const sheet = $("sheet"), width = sheet.clientWidth;
  if (!width) return;
  const columns = Math.max(3, Math.floor((width + GAP) / (132 + GAP))), side = (width + GAP) / columns;
  const count = style < 0 ? set.starts.at(-1) : set.styles[style][1];
  const rows = Math.ceil(count / columns);
  sheet.style.height = `${rows * side}px`;
  const top = -sheet.getBoundingClientRect().top;
  const first = Math.max(0, Math.floor((top - innerHeight) / side)) * columns;
  const last = Math.min(count, Math.ceil((top + 2 * innerHeight) / side) * columns);
  for (const [n, cell] of shown)
    if (n < first || n >= last) {
      cell.firstChild.removeAttribute("src"); // which gives up what is not here yet
      cell.remove();
      shown.delete(n);
    }
  for (let n = first; n < last; n++) {
    if (!shown.has(n)) {
      const place = placeOf(n), name = plainName(set.styles[place[0]][0]);
      const image = el("img", { src: address(SMALL, place), alt: name, decoding: "async", draggable: false });
      image.onload = () => image.classList.add("there");
      const cell = el("button", { type: "button", onclick: () => look(place) }, image);
      shown.set(n, cell);
      $("cells").append(cell);
    }
    const cell = shown.get(n);
    cell.style.width = cell.style.height = `${side - GAP}px`;
    cell.style.transform = `translate(${(n % columns) * side}px, ${Math.floor(n / columns) * side}px)`;
  }
}

export async function look(place, version = set.version) {
  const dialog = $("look"), [image, text] = dialog.children;
  image.src = address(LARGE, place, version);
  text.textContent = "";
  dialog.showModal();
  const about = await get(`/api/pictures/about/${version}/${place[0]}/${place[1]}`);
  const labels = Object.entries(about.labels).map(([name, value]) => `${name}: ${value}`);
  text.replaceChildren(el("b", { textContent: plainName(about.style) }), el("span", { className: "hint" }, el("bdi", { textContent: about.source }), [` · ${about.width} × ${about.height}`, ...labels].join(" · ")));
}
$("look").onclick = (event) => event.target === $("look") && $("look").close();

function list(items, name) {
  const counts = {};
  for (const { reason } of items) counts[reason] = (counts[reason] ?? 0) + 1;
  const summary = Object.entries(counts).sort(([, a], [, b]) => b - a).map(([reason, count]) => `${count.toLocaleString("en")} ${plainName(reason)}`).join(", ");
  const rows = items.slice(0, 500).map((item) => {
    const pair = [item.place, item.twin].filter(Boolean).map((place) =>
      el("button", { type: "button", aria: { label: "Look at it" }, onclick: () => look(place) }, el("img", { src: address(SMALL, place), alt: "", loading: "lazy" })));
    return el("article", { className: "item" }, el("div", { className: "pair" }, ...pair),
      el("div", {}, el("b", { textContent: plainName(item.reason) }), el("p", {}, ...breakable(item.source)), el("p", { className: "hint" }, ...breakable(item.detail))));
  });
  const more = items.length > rows.length ? [el("p", { className: "hint", textContent: `and ${(items.length - rows.length).toLocaleString("en")} more in data/report.csv` })] : [];
  $("list").replaceChildren(el("p", { className: "hint", textContent: items.length ? summary : `Nothing was ${name}.` }), el("div", { className: "items" }, ...rows), ...more);
}

// ---- the map

let points;
async function showMap() {
  const caption = $("map").querySelector("figcaption");
  if (!points) {
    caption.textContent = "Laying out the map…";
    ({ points } = await get("/api/pictures/map").catch((error) => ((caption.textContent = error.message), { points: [] })));
    if (!points.length) return (caption.textContent = "There is no map yet: `latentart encode` makes the latents that it shows.");
    $("map").querySelector("canvas").onpointermove = hover;
    $("map").querySelector("canvas").onpointerdown = (event) => (hover(event), near && look(near.slice(2)));
    new ResizeObserver(drawMap).observe($("map"));
  }
  drawMap();
}

const color = (number) => `hsl(${Math.round((360 * number * 0.618034 + 222) % 360)} 62% 52%)`;
let near = null;

function drawMap() {
  const canvas = $("map").querySelector("canvas"), ratio = devicePixelRatio || 1, pen = canvas.getContext("2d");
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width) return;
  [canvas.width, canvas.height] = [width * ratio, height * ratio];
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  for (const point of points) {
    pen.fillStyle = color(point[2]);
    pen.globalAlpha = 0.75;
    pen.beginPath();
    pen.arc(...spot(point, width, height), 3.4, 0, 7);
    pen.fill();
  }
  pen.globalAlpha = 1;
  if (near) {
    const [x, y] = spot(near, width, height);
    pen.lineWidth = 2;
    pen.strokeStyle = getComputedStyle(canvas).color;
    pen.beginPath();
    pen.arc(x, y, 7, 0, 7);
    pen.stroke();
    if (near.image?.naturalWidth) {
      const side = 112, left = Math.min(width - side - 8, x + 14), top = Math.max(8, Math.min(height - side - 8, y - side / 2));
      pen.save();
      pen.beginPath();
      pen.roundRect(left, top, side, side, 8);
      pen.clip();
      pen.drawImage(near.image, left, top, side, side);
      pen.restore();
    }
  }
  const caption = $("map").querySelector("figcaption");
  if (caption.dataset.drawn) return;
  caption.dataset.drawn = "yes";
  caption.replaceChildren(...set.styles.map(([name], i) => {
    const dot = el("i");
    dot.style.background = color(i);
    return el("span", {}, dot, plainName(name));
  }));
}

const spot = ([x, y], width, height) => [20 + x * (width - 40), 20 + y * (height - 40)];

function hover(event) {
  const box = event.currentTarget.getBoundingClientRect(), [x, y] = [event.clientX - box.left, event.clientY - box.top];
  let found = null, least = 18 ** 2;
  for (const point of points) {
    const [a, b] = spot(point, box.width, box.height), far = (a - x) ** 2 + (b - y) ** 2;
    if (far < least) [found, least] = [point, far];
  }
  if (found === near) return;
  near = found;
  if (near && !near.image) {
    near.image = new Image();
    near.image.onload = drawMap;
    near.image.src = address(SMALL, near.slice(2));
  }
  drawMap();
}
