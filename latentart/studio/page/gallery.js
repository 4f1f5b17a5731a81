// The kept pictures, newest first: a click opens one again, two that are marked have a way between them.

import { $, described, el, events, get, windowId } from "/page/ui.js";

export function openGallery({ onOpen, say }) {
  const ends = [];
  let next = "", isBusy = false; // where the older ones go on; null once all are there

  // Older ones come as they are scrolled to.
  async function more() {
    if (isBusy || next === null) return;
    isBusy = true;
    try {
      const page = await get(`/api/kept?after=${next}`);
      const known = new Set(Array.from($("cards").children, (one) => one.dataset.id));
      $("cards").append(...page.kept.filter(({ id }) => !known.has(id)).map(card));
      next = page.next || null;
      showEnds();
    } catch (error) {
      say(error.message);
      next = null;
    }
    isBusy = false;
    if (next === null) end.disconnect();
    else { // it speaks again only where it is looked at anew
      end.unobserve($("cards-end"));
      end.observe($("cards-end"));
    }
  }
  const end = new IntersectionObserver(([entry]) => entry.isIntersecting && more(), { rootMargin: "600px" });

  function add(kept) {
    $("cards").querySelector(`[data-id="${kept.id}"]`)?.remove();
    const made = card(kept);
    made.classList.add("new");
    $("cards").prepend(made);
    showEnds();
  }

  function card(kept) {
    const { about } = kept, isSingle = about.style !== undefined && !about.invert && !about.init_image;
    const styles = about.style ? [about.style] : (about.styles ?? []);
    const weights = Object.assign({}, ...styles.map((style) => (typeof style === "string" ? { [style]: 1 } : style)));
    const name = about.movie ? `${about.movie === "walk" ? "A walk" : "A movie"}: ${described(weights)}` : described(weights) || kept.name;
    const picture = el("img", { src: `/api/kept/${kept.id}?${kept.modified}`, alt: "", loading: "lazy", decoding: "async" });
    const made = el("figure", { className: "card" },
      el("button", { type: "button", title: kept.name, aria: { label: `Open ${name}` }, onclick: () => onOpen(kept) }, picture));
    if (isSingle)
      made.append(el("button", { type: "button", className: "end", textContent: "Walk", aria: { pressed: "false", label: `Walk from or to ${name}` }, onclick: () => mark(kept.id) }));
    made.append(el("span", { textContent: name, title: name }));
    made.dataset.id = kept.id;
    made.style.margin = "0";
    return made;
  }

  function mark(id) {
    if (ends.includes(id)) ends.splice(ends.indexOf(id), 1);
    else ends.push(id);
    if (ends.length > 2) ends.shift();
    showEnds();
  }

  function showEnds() {
    for (const one of $("cards").children)
      one.querySelector(".end")?.setAttribute("aria-pressed", String(ends.includes(one.dataset.id)));
    $("walk").hidden = ends.length < 2;
    const isEmpty = !$("cards").children.length;
    $("walk-hint").textContent = isEmpty ? "What you keep lies in samples/, with its settings inside" : ends.length === 1 ? "Mark another one to walk to" : "";
  }

  $("walk").onclick = async () => {
    const [start, end] = ends, button = $("walk");
    button.disabled = true;
    try {
      for await (const event of events("/api/walk", { window: windowId, start, end })) {
        if (event.of) button.textContent = `${event.done} of ${event.of}`;
        if (event.kept) add(event.kept);
      }
      ends.length = 0;
    } catch (error) {
      say(error.message);
    }
    button.disabled = false;
    button.textContent = "Walk between the two";
    showEnds();
  };

  more();
  return { add };
}
