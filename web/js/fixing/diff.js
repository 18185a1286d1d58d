/** What a new text adds to an old one, line by line. `changes` is pure; used by applying.js. */

import { h } from "../dom.js";
import { plural, visible } from "../format.js";

const AROUND = 2; // unchanged lines shown on each side

/** [{kind: "same" | "gone" | "new", text}]: what the two begin and end with alike is the same, all between has changed. */
export function changes(before, after) {
  const [old, next] = [lines(before), lines(after)];
  const most = Math.min(old.length, next.length);
  let head = 0;
  while (head < most && old[head] === next[head]) head += 1;
  let tail = 0;
  while (tail < most - head && old.at(-1 - tail) === next.at(-1 - tail)) tail += 1;
  const as = (kind) => (text) => ({ kind, text });
  return [
    ...old.slice(0, head).map(as("same")),
    ...old.slice(head, old.length - tail).map(as("gone")),
    ...next.slice(head, next.length - tail).map(as("new")),
    ...old.slice(old.length - tail).map(as("same")),
  ];
}

const lines = (text) => (text === "" ? [] : text.split("\n"));

const SIGNS = { same: [" ", ""], gone: ["−", "taken away: "], new: ["+", "added: "] };

/** The changed lines with a little of what stands around them. */
export function diff(before, after, title) {
  const all = changes(before, after);
  const near = (at) => all.slice(Math.max(0, at - AROUND), at + AROUND + 1).some(({ kind }) => kind !== "same");
  const parts = [];
  let hidden = 0;
  const skip = () => {
    if (hidden) parts.push(h("span", { class: "skipped" }, `⋯ ${plural(hidden, "line")} as before\n`));
    hidden = 0;
  };
  for (const [at, { kind, text }] of all.entries()) {
    if (!near(at)) {
      hidden += 1;
      continue;
    }
    skip();
    const [sign, spoken] = SIGNS[kind];
    parts.push(h("span", { class: kind }, h("span", { class: "sign", "aria-hidden": "true" }, sign), h("span", { class: "unseen" }, spoken), `${text === "" ? "" : visible(text)}\n`));
  }
  skip();
  return h("figure", { class: "code diff" }, h("figcaption", {}, title), h("pre", { tabindex: "0", "data-language": "text" }, parts));
}
