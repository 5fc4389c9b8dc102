// Keeps the parts marked data-live as the server would render them now. Nothing jumps: a part is replaced only when it
// differs, opened details stay open, focus and scroll position stay, and a part is left alone while text in it is selected.
"use strict";

const everyMillis = 2000;
let timer = 0;
let rendered = new Map();

function parts(root) {
  return new Map([...root.querySelectorAll("[data-live]")].map((part) => [part.id, part]));
}

function selecting(part) {
  const selection = document.getSelection();
  return selection && !selection.isCollapsed && part.contains(selection.anchorNode);
}

function place(element, root) {
  // Where an element without an id stands, by the address it leads to or by its order among its kind.
  if (!element || element === root || !root.contains(element)) return null;
  if (element.id) return (fresh) => fresh.querySelector(`[id="${CSS.escape(element.id)}"]`);
  const href = element.getAttribute("href");
  if (href) return (fresh) => [...fresh.querySelectorAll("a")].find((link) => link.getAttribute("href") === href);
  if (element.tagName === "SUMMARY") {
    const owner = element.parentElement.id;
    return (fresh) => fresh.querySelector(`[id="${CSS.escape(owner)}"] > summary`);
  }
  const order = [...root.querySelectorAll(element.tagName)].indexOf(element);
  return (fresh) => fresh.querySelectorAll(element.tagName)[order];
}

function replace(part, fresh) {
  for (const details of part.querySelectorAll("details[id]")) {
    const successor = fresh.querySelector(`[id="${CSS.escape(details.id)}"]`);
    if (successor) successor.open = details.open;
  }
  const focus = place(document.activeElement, part);
  const scrolled = [...part.querySelectorAll("[tabindex]")].map((box) => [box.scrollLeft, box.scrollTop]);
  part.replaceWith(document.adoptNode(fresh));
  fresh.querySelectorAll("[tabindex]").forEach((box, index) => scrolled[index] && box.scrollTo(...scrolled[index]));
  if (focus) focus(fresh)?.focus({ preventScroll: true });
}

async function refresh() {
  const answer = await fetch(location.href, { cache: "no-store", headers: { Accept: "text/html" } });
  if (!answer.ok) return;
  const fresh = parts(new DOMParser().parseFromString(await answer.text(), "text/html"));
  const current = parts(document);
  if ([...fresh.keys()].sort().join() !== [...current.keys()].sort().join()) {
    // The first run has arrived: the page has another form now.
    location.reload();
    return;
  }
  for (const [id, part] of current) {
    const next = fresh.get(id);
    const markup = next.outerHTML;
    if (markup === rendered.get(id) || selecting(part)) continue;
    rendered.set(id, markup);
    replace(part, next);
  }
}

function schedule() {
  clearTimeout(timer);
  if (document.hidden) return;
  timer = setTimeout(() => refresh().catch(() => {}).finally(schedule), everyMillis);
}

for (const [id, part] of parts(document)) rendered.set(id, part.outerHTML);
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : refresh().catch(() => {}).finally(schedule)));
schedule();
