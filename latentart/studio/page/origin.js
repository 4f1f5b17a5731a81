// A picture to begin from: begin from it, restyle it, or paint a part of it anew with a mask that the pointer draws.

import { $, el, plainName, post, showRange } from "/page/ui.js";

const HINTS = {
  begin: "Noise is laid over it, more with more strength, and the picture found anew.",
  restyle: "It is walked back to its own noise, then down again in the style above.",
  paint: "Paint on the picture: what you mark is drawn anew, the rest stays.",
};

export function openOrigin({ model, changed, say }) {
  const state = { upload: null, url: "", way: "begin", mask: null, strokes: null, size: null };
  const canvas = $("mask"), pen = canvas.getContext("2d", { willReadFrequently: true });

  async function take(file) {
    if (!file?.type.startsWith("image/")) return;
    say("Reading the picture…");
    $("from").open = true;
    try {
      lay(await post("/api/uploads", file));
    } catch (error) {
      return say(error.message);
    }
    begin(state.way);
  }

  function lay(upload) {
    state.upload = upload;
    state.url = `/api/uploads/${upload.id}`;
    $("thumb").src = state.url;
    $("from").open = true;
    $("origin").hidden = false;
    $("drop").hidden = true;
  }

  // What a kept picture was begun from lies here again, with its mask; nothing is drawn yet.
  async function takeUp(kept) {
    const { picture, mask } = await post(`/api/kept/${kept.id}/origin`, {});
    lay(picture);
    turn(kept.about.invert ? "restyle" : mask ? "paint" : "begin");
    $("strength").value = kept.about.strength;
    $("was").value = kept.about.from_style ?? "";
    showRange($("strength"), Number($("strength").value).toFixed(2));
    if (!mask) return;
    const image = el("img", { src: `/api/uploads/${mask.id}` });
    await image.decode();
    state.mask = mask.id;
    state.strokes = blank();
    state.strokes.getContext("2d").drawImage(image, 0, 0);
  }

  function begin(way) {
    turn(way);
    if (way === "paint") showWhole();
    else changed();
  }

  function turn(way) {
    state.way = way;
    state.mask = null;
    state.strokes = null;
    for (const button of document.querySelectorAll("[data-way]")) button.setAttribute("aria-pressed", String(button.dataset.way === way));
    $("way-hint").textContent = HINTS[way];
    $("brush-row").hidden = canvas.hidden = way !== "paint";
    $("was-row").hidden = way !== "restyle";
    $("strength").value = { begin: 0.6, restyle: 1, paint: 1 }[way];
    showRange($("strength"), Number($("strength").value).toFixed(2));
  }

  // Before anything is marked the picture stands as it is.
  function showWhole() {
    const { width, height } = state.upload, scale = model.resolution / Math.min(width, height);
    const [w, h] = [width, height].map((side) => Math.max(model.unit, Math.floor((side * scale) / model.unit) * model.unit));
    $("picture").src = state.url;
    canvas.classList.remove("done");
    $("frame").style.setProperty("--shape", w / h);
    $("waiting").hidden = true;
    layMask(w, h);
  }

  // The canvas lies on the picture; the strokes lie in a mask of the upload's own size.
  function layMask(width, height) {
    if (canvas.hidden) return;
    const box = $("picture").getBoundingClientRect();
    state.size = [width, height];
    canvas.style.width = `${box.width}px`;
    canvas.style.height = `${box.height}px`;
    canvas.width = Math.round(box.width);
    canvas.height = Math.round(box.height);
    state.strokes ??= blank();
    tint();
  }

  function blank() {
    const strokes = el("canvas", { width: state.upload.width, height: state.upload.height });
    const ink = strokes.getContext("2d");
    ink.fillRect(0, 0, strokes.width, strokes.height);
    return strokes;
  }

  // The part of the upload that is drawn: the largest of the picture's shape in its middle.
  function part() {
    const { width, height } = state.upload, [w, h] = state.size, scale = Math.min(width / w, height / h);
    return [(width - w * scale) / 2, (height - h * scale) / 2, w * scale, h * scale];
  }

  function tint() {
    pen.globalCompositeOperation = "source-over";
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(state.strokes, ...part(), 0, 0, canvas.width, canvas.height);
    const shade = pen.getImageData(0, 0, canvas.width, canvas.height);
    for (let i = 0; i < shade.data.length; i += 4) shade.data.set([70, 105, 255, shade.data[i] * 0.45], i);
    pen.putImageData(shade, 0, 0);
  }

  canvas.addEventListener("pointerdown", (down) => {
    if (down.button || !state.strokes) return;
    canvas.setPointerCapture(down.pointerId);
    canvas.classList.remove("done");
    const ink = state.strokes.getContext("2d"), [left, top, width, height] = part();
    const to = (event) => {
      const box = canvas.getBoundingClientRect();
      return [left + ((event.clientX - box.left) / box.width) * width, top + ((event.clientY - box.top) / box.height) * height];
    };
    Object.assign(ink, { strokeStyle: "#fff", lineCap: "round", lineJoin: "round", lineWidth: $("brush").value * Math.min(width, height) * 2 });
    let last = to(down);
    const stroke = (event) => {
      const next = to(event);
      ink.beginPath();
      ink.moveTo(...last);
      ink.lineTo(next[0] + 0.01, next[1]);
      ink.stroke();
      last = next;
      tint();
    };
    const up = async () => {
      canvas.removeEventListener("pointermove", stroke);
      say("Reading the mask…");
      const blob = await new Promise((done) => state.strokes.toBlob(done, "image/png"));
      try {
        state.mask = (await post("/api/uploads", blob)).id;
        changed();
      } catch (error) {
        say(error.message);
      }
    };
    stroke(down);
    canvas.addEventListener("pointermove", stroke);
    canvas.addEventListener("pointerup", up, { once: true });
  });

  function forget(draws = true) {
    if (!state.upload) return;
    Object.assign(state, { upload: null, mask: null, strokes: null, way: "begin" });
    $("origin").hidden = canvas.hidden = true;
    $("drop").hidden = false;
    $("file").value = "";
    if (draws) changed();
  }

  $("file").onchange = (event) => take(event.target.files[0]);
  $("forget").onclick = () => forget();
  $("clear").onclick = () => begin("paint");
  for (const button of document.querySelectorAll("[data-way]")) button.onclick = () => begin(button.dataset.way);
  $("strength").oninput = () => showRange($("strength"), Number($("strength").value).toFixed(2));
  $("strength").onchange = () => (state.way !== "paint" || state.mask) && changed();
  $("brush").oninput = () => showRange($("brush"));
  showRange($("brush"));
  $("was").append(el("option", { value: "", textContent: "no style of these" }), ...model.styles.map((value) => el("option", { value, textContent: plainName(value) })));
  $("was").onchange = () => changed();
  addEventListener("dragover", (event) => (event.preventDefault(), document.body.classList.add("dragging")));
  addEventListener("dragleave", (event) => event.relatedTarget ?? document.body.classList.remove("dragging"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    take(event.dataTransfer.files[0]);
  });
  addEventListener("resize", () => state.size && layMask(...state.size));

  return {
    get isOn() { return state.upload !== null && (state.way !== "paint" || state.mask !== null); },
    get isRestyling() { return state.upload !== null && state.way === "restyle"; },
    asked() {
      if (!this.isOn) return {};
      const { way } = state, restyle = way === "restyle";
      const from_style = restyle && $("was").value ? $("was").value : null;
      return { picture: state.upload.id, mask: way === "paint" ? state.mask : null, strength: Number($("strength").value), restyle, from_style };
    },
    drawn(width, height) {
      layMask(width, height);
      canvas.classList.toggle("done", state.mask !== null); // what was painted anew is seen without the mark
    },
    forget,
    takeUp,
  };
}
