// The plane of seeds: whole seeds at the crossings, across by one and down by a thousand, each with its own small picture.

export const ROW = 1000;
const UNIT = 84, TILE = 60, GRAIN = 64, MOST_TILES = 600;

export class Plane {
  constructor(canvas, { moved, released, near }) {
    Object.assign(this, { canvas, moved, released, near, x: 8, y: 5, tiles: new Map(), style: "" });
    this.target = null;
    canvas.addEventListener("pointerdown", (event) => this.#grab(event));
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    new ResizeObserver(() => this.paint()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.paint());
  }

  // The seed here as it is sent: a number, or [start, end, share] between one row and the next.
  get seed() {
    return seedAt(this.x, this.y);
  }

  place(x, y) {
    this.x = clamp(snap(x), 0, ROW - 1);
    this.y = clamp(snap(y), 0, 1e6);
    this.paint();
  }

  // Go to a place on a straight way, drawing what lies on it.
  glide(x, y) {
    const [fromX, fromY] = [this.x, this.y];
    const far = Math.hypot(x - fromX, y - fromY);
    if (far > 12 || matchMedia("(prefers-reduced-motion: reduce)").matches) {
      this.place(x, y);
      this.released();
      return;
    }
    const began = performance.now(), time = 260 + 160 * far;
    cancelAnimationFrame(this.frame);
    const step = (now) => {
      const u = Math.min(1, (now - began) / time), eased = u * u * (3 - 2 * u);
      this.place(fromX + eased * (x - fromX), fromY + eased * (y - fromY));
      if (u < 1) {
        this.moved();
        this.frame = requestAnimationFrame(step);
      } else this.released();
    };
    this.frame = requestAnimationFrame(step);
  }

  // Drag from wherever the pointer went down, on the plane or on the picture.
  drag(down, scale, onTap) {
    const surface = down.currentTarget, [x, y] = [this.x, this.y];
    let hasMoved = false;
    cancelAnimationFrame(this.frame);
    surface.setPointerCapture(down.pointerId);
    const move = (event) => {
      const dx = event.clientX - down.clientX, dy = event.clientY - down.clientY;
      if (!hasMoved && Math.hypot(dx, dy) < 4) return;
      hasMoved = true;
      this.place(x - dx / scale, y - dy / scale);
      this.moved();
    };
    const up = (event) => {
      surface.removeEventListener("pointermove", move);
      surface.removeEventListener("pointerup", up);
      surface.removeEventListener("pointercancel", up);
      if (hasMoved) this.released();
      else if (event.type === "pointerup") onTap?.(event);
    };
    surface.addEventListener("pointermove", move);
    surface.addEventListener("pointerup", up);
    surface.addEventListener("pointercancel", up);
  }

  #grab(event) {
    if (event.button) return;
    this.canvas.focus({ preventScroll: true });
    this.drag(event, UNIT, (tap) => {
      const box = this.canvas.getBoundingClientRect();
      const x = this.x + (tap.clientX - box.left - box.width / 2) / UNIT;
      const y = this.y + (tap.clientY - box.top - box.height / 2) / UNIT;
      const onTile = Math.hypot(x - Math.round(x), y - Math.round(y)) < 0.42;
      this.glide(...[x, y].map((value) => Math.max(0, onTile ? Math.round(value) : snap(value))));
    });
  }

  #key(event) {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!way || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const size = event.shiftKey ? 1 : 0.125;
    const [x, y] = event.shiftKey ? [Math.round(this.x), Math.round(this.y)] : [this.x, this.y];
    this.place(x + size * way[0], y + size * way[1]);
    this.moved();
    clearTimeout(this.pause);
    this.pause = setTimeout(() => this.released(), 220);
  }

  #wheel(event) {
    if (document.activeElement !== this.canvas) return;
    event.preventDefault();
    this.place(this.x + event.deltaX / 400, this.y + event.deltaY / 400);
    this.moved();
    clearTimeout(this.pause);
    this.pause = setTimeout(() => this.released(), 220);
  }

  // The crossings in view that have no picture of this style yet, the nearest first.
  missing(most) {
    return this.#crossings()
      .filter(([i, j]) => !this.tiles.has(this.#name(i, j)))
      .sort(([a, b], [c, d]) => Math.hypot(a - this.x, b - this.y) - Math.hypot(c - this.x, d - this.y))
      .slice(0, most);
  }

  async addTile(i, j, address, style) {
    const image = new Image();
    image.src = address;
    await image.decode().catch(() => {});
    this.tiles.set(`${style}|${i},${j}`, image);
    if (this.tiles.size > MOST_TILES) this.tiles.delete(this.tiles.keys().next().value);
    this.paint();
  }

  forget() {
    this.tiles.clear();
    this.paint();
  }

  #name(i, j) {
    return `${this.style}|${i},${j}`;
  }

  #crossings() {
    const { clientWidth: width, clientHeight: height } = this.canvas, found = [];
    const [right, down] = [width / 2 / UNIT + 0.5, height / 2 / UNIT + 0.5];
    for (let j = Math.max(0, Math.ceil(this.y - down)); j <= this.y + down; j++)
      for (let i = Math.max(0, Math.ceil(this.x - right)); i <= Math.min(ROW - 1, this.x + right); i++) found.push([i, j]);
    return found;
  }

  paint() {
    const { canvas } = this, ratio = devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = canvas;
    if (!width) return;
    if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
    if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
    const style = getComputedStyle(canvas), color = (name) => style.getPropertyValue(name);
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.imageSmoothingQuality = "high";
    for (const [i, j] of this.#crossings()) {
      const left = width / 2 + (i - this.x) * UNIT, top = height / 2 + (j - this.y) * UNIT;
      const image = this.tiles.get(this.#name(i, j));
      const near = Math.max(0, 1 - Math.hypot(i - this.x, j - this.y));
      const side = TILE + 10 * near;
      if (image?.naturalWidth) {
        const scale = side / Math.max(image.naturalWidth, image.naturalHeight);
        const [w, h] = [image.naturalWidth * scale, image.naturalHeight * scale];
        pen.save();
        pen.beginPath();
        pen.roundRect(left - w / 2, top - h / 2, w, h, 7);
        pen.clip();
        pen.globalAlpha = 0.72 + 0.28 * near;
        pen.drawImage(image, left - w / 2, top - h / 2, w, h);
        pen.restore();
      } else {
        pen.fillStyle = color("--rail");
        pen.beginPath();
        pen.arc(left, top, 3, 0, 7);
        pen.fill();
      }
    }
    for (const [line, ink] of [[6, color("--card")], [3, color("--accent")]]) {
      pen.lineWidth = line;
      pen.strokeStyle = ink;
      pen.beginPath();
      pen.arc(width / 2, height / 2, 13, 0, 7);
      pen.stroke();
    }
  }
}

const snap = (value) => Math.round(value * GRAIN) / GRAIN;
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

export function seedAt(x, y) {
  const row = Math.floor(y), seed = x + ROW * row, share = y - row;
  return share ? [seed, seed + ROW, share] : seed;
}

// The place of a seed, or null where it lies elsewhere than on the plane.
export function placeOf(seed) {
  if (typeof seed === "number") return [seed % ROW, Math.floor(seed / ROW)];
  const [start, end, share] = seed;
  if (typeof start !== "number" || end !== start + ROW) return null;
  return [start % ROW, Math.floor(start / ROW) + share];
}
