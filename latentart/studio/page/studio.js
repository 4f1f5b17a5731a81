// The page: three tabs, one at a time, each opened when it is first looked at.

import { openDraw } from "/page/draw.js";
import { openPictures } from "/page/pictures.js";
import { $, get } from "/page/ui.js";
import { openWatch } from "/page/watch.js";

const tabs = { draw: openDraw, watch: openWatch, pictures: openPictures };
const opened = new Set();

function turn() {
  const wanted = location.hash.slice(1).split("/")[0];
  const name = wanted in tabs ? wanted : "draw";
  for (const link of document.querySelectorAll(".tabs a")) {
    const isHere = link.hash === `#${name}`;
    if (isHere) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    $(link.hash.slice(1)).hidden = !isHere;
  }
  if (opened.has(name)) return;
  opened.add(name);
  tabs[name]();
}

get("/api/place").then((place) => {
  $("place").textContent = place.title;
  document.title = `${place.title} · latentart studio`;
  $("near").hidden = !place.tabs.includes("pictures");
  for (const link of document.querySelectorAll(".tabs a")) link.hidden = !(link.hash.slice(1) in tabs && place.tabs.includes(link.hash.slice(1)));
});
addEventListener("hashchange", turn);
turn();
