/** A button with a few choices behind it. Used by acting.js. */

import { h } from "./dom.js";

/** `items`: [text, press]. It closes by a choice, by Escape, and when the focus goes elsewhere. */
export function menu(text, label, items) {
  const leave = (event) => {
    const menu = event.currentTarget;
    if (event.relatedTarget && !menu.contains(event.relatedTarget)) menu.open = false;
  };
  const escape = (event) => {
    if (event.key === "Escape" && event.currentTarget.open) close(event.currentTarget);
  };
  return h("details", { class: "menu", on: { focusout: leave, keydown: escape } },
    h("summary", { class: "press", "aria-label": label }, text),
    h("div", { class: "choices" }, items.map(([item, press]) =>
      h("button", { type: "button", on: { click: (event) => {
        close(event.currentTarget.closest("details"));
        press();
      } } }, item))));
}

function close(menu) {
  menu.open = false;
  menu.querySelector("summary").focus();
}
