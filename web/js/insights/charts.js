/** What the insights' charts share: a frame with title, words and table, days along x, round numbers along y. */

import { h, s } from "../dom.js";
import { count, percent } from "../format.js";

const DAY_MS = 86_400_000;
export const DAYS = 30;
export const LEFT = 42; // pixels for the numbers
export const BOTTOM = 20; // and for the days

/** The last 30 UTC days as "YYYY-MM-DD", today last. */
export const lastDays = (now_ms = Date.now()) =>
  Array.from({ length: DAYS }, (_, i) => new Date(now_ms - (DAYS - 1 - i) * DAY_MS).toISOString().slice(0, 10));

const named = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", timeZone: "UTC" });

/** "2026-11-22" → "22 Nov" */
export const dayName = (day) => named.format(Date.parse(day));

/** A place in days since the first of `days`, of Unix seconds. */
export const inDays = (days, at) => (at * 1000 - Date.parse(days[0])) / DAY_MS;

/** The next 1, 2 or 5 times a power of ten. */
export function roundUp(n, least = 4) {
  const wanted = Math.max(n, least);
  const power = 10 ** Math.floor(Math.log10(wanted));
  return [1, 2, 5, 10].map((m) => m * power).find((m) => m >= wanted);
}

/**
 * A chart in its frame. `words` say what it shows to whoever can't see it; `rows` (heads first) are its numbers as a table.
 * `heading`: "h2" where the chart is all its card has.
 */
export function chart({ title, words, width, height, rows, parts, legend = null, heading = "h3" }) {
  return h("figure", { class: "chart" },
    h("figcaption", {}, h(heading, {}, title), legend),
    s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `${title}. ${words}` }, parts),
    h("details", { class: "numbers" }, h("summary", {}, "As a table"), numbers(rows, title)));
}

const numbers = ([heads, ...rows], title) =>
  h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${title}, as a table` },
    h("table", { class: "list" },
      h("thead", {}, h("tr", {}, heads.map((head, i) => h("th", { scope: "col", class: i ? "num" : null }, head)))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell, i) => (i ? h("td", { class: "num" }, cell) : h("th", { scope: "row" }, cell))))))));

/** Lines at 0, half (where that is whole) and `top`, with their numbers. `y(value)` gives pixels. */
export const levels = (top, y, width) =>
  [0, top / 2, top].filter(Number.isInteger).map((value) => s("g", { class: "grid" },
    s("path", { d: `M${LEFT} ${y(value)}H${width}` }), s("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, count(value))));

/** A day's name under every fifth column, today's under the last. */
export const dayAxis = (days, slot, baseline) =>
  days.map((day, i) => ((days.length - 1 - i) % (slot < 16 ? 10 : 5) ? null
    : s("text", { class: "day", x: LEFT + (i + 0.5) * slot, y: baseline + 15, "text-anchor": i === days.length - 1 ? "end" : "middle", dx: i === days.length - 1 ? slot / 2 : 0 },
      i === days.length - 1 ? "Today" : dayName(day))));

/** A share as a bar with its number, for table cells. */
export const shareBar = (share, tone = "") =>
  h("span", { class: `share ${tone}` },
    s("svg", { viewBox: "0 0 60 8", "aria-hidden": "true" }, s("rect", { class: "whole", width: 60, height: 8, rx: 2 }), s("rect", { class: "part", width: Math.max(share > 0 ? 2 : 0, Math.min(1, share) * 60), height: 8, rx: 2 })),
    percent(share));
