/** Signals a day over 30 days by severity, with a mark where a version was deployed or first seen. Used by insights.js. */

import { h, s } from "../dom.js";
import { count, local, plural, shorten, visible, words } from "../format.js";
import { SEVERITIES, severityOf } from "../kinds.js";
import { mark } from "../parts.js";
import { BOTTOM, chart, dayAxis, dayName, inDays, lastDays, LEFT, levels, roundUp } from "./charts.js";

const HEIGHT = 210;
const TOP = 30; // below the marks
const LABEL = 66; // pixels a version's label takes

/** `found`: an answer of insights; `width` in pixels. */
export function trend(found, width, now_ms = Date.now()) {
  const days = lastDays(now_ms);
  const columns = days.map((day) => column(found.signal_trends.filter((one) => one.day === day)));
  const total = columns.reduce((sum, { total: n }) => sum + n, 0);
  const top = roundUp(Math.max(...columns.map(({ total: n }) => n)));
  const slot = (width - LEFT) / days.length;
  const baseline = HEIGHT - BOTTOM;
  const y = (value) => baseline - (value / top) * (baseline - TOP);
  const marks = marksOf(found, days);
  return chart({
    title: "Signals a day",
    heading: "h2",
    words: `${plural(total, "live signal")} in ${days.length} days; ${plural(marks.length, "version mark")}.`,
    width,
    height: HEIGHT,
    legend: legend(columns, marks),
    parts: [levels(top, y, width), dayAxis(days, slot, baseline), columns.map((one, i) => bar(one, days[i], LEFT + i * slot, slot, y)), flags(marks, slot)],
    rows: [["Day", "Signals", "Of which"], ...days.map((day, i) => [dayName(day), count(columns[i].total), inWords(columns[i])])],
  });
}

function column(trends) {
  const types = new Map();
  for (const { failure_type, count: n } of trends) types.set(failure_type, (types.get(failure_type) ?? 0) + n);
  const by = {};
  for (const [type, n] of types) by[severityOf(type)] = (by[severityOf(type)] ?? 0) + n;
  return { types, by, total: [...types.values()].reduce((a, b) => a + b, 0) };
}

const inWords = ({ types }) => [...types].sort(([, n], [, m]) => m - n).map(([type, n]) => `${words(type)} ${n}`).join(", ") || "none";

function bar(one, day, x, slot, y) {
  let below = 0;
  const parts = SEVERITIES.filter((severity) => one.by[severity]).map((severity) => {
    const [low, high] = [y(below), y(below + one.by[severity])];
    below += one.by[severity];
    return s("rect", { class: `part ${severity.toLowerCase()}`, x: x + slot * 0.14, y: high, width: slot * 0.72, height: Math.max(1.5, low - high) });
  });
  return s("g", { class: "column" }, s("title", {}, `${dayName(day)}: ${plural(one.total, "signal")}${one.total ? `: ${inWords(one)}` : ""}`),
    s("rect", { class: "whole", x, y: TOP, width: slot, height: HEIGHT - BOTTOM - TOP }), parts);
}

/** Deploys, and first sights of versions that nobody said were deployed. */
export function marksOf({ deploys = [], versions = [] }, days) {
  const said = new Set(deploys.map(({ version }) => version));
  const seen = versions.filter(({ agent_version }) => !said.has(agent_version)).map((one) => ({ version: one.agent_version, at: one.first_seen, deployed: false }));
  return [...deploys.map(({ version, deployed_at }) => ({ version, at: deployed_at, deployed: true })), ...seen]
    .map((one) => ({ ...one, place: inDays(days, one.at) }))
    .filter(({ place }) => place >= 0 && place <= days.length)
    .sort((a, b) => a.at - b.at);
}

function flags(marks, slot) {
  let free = -Infinity; // where the next label may begin
  return marks.map(({ version, at, deployed, place }) => {
    const x = LEFT + place * slot;
    const right = x + LABEL > LEFT + slot * 30;
    const begin = right ? x - LABEL : x;
    const labelled = begin >= free;
    if (labelled) free = begin + LABEL;
    const text = shorten(visible(version), 8);
    return s("g", { class: deployed ? "release deployed" : "release" },
      s("title", {}, `Version ${shorten(visible(version), 40)} ${deployed ? "deployed" : "first seen"} ${local(at)}`),
      s("path", { class: "pole", d: `M${x} 16V${HEIGHT - BOTTOM}` }),
      s("path", { class: "head", d: deployed ? `M${x - 5} 6h10l-5 9Z` : `M${x - 3.5} 11a3.5 3.5 0 1 1 7 0a3.5 3.5 0 1 1 -7 0Z` }),
      labelled ? s("text", { x: right ? x - 8 : x + 8, y: 15, "text-anchor": right ? "end" : "start" }, text) : null);
  });
}

function legend(columns, marks) {
  const present = SEVERITIES.filter((severity) => columns.some(({ by }) => by[severity]));
  return h("ul", { class: "legend" },
    present.map((severity) => h("li", {}, mark(severity), " ", words(severity))),
    marks.some(({ deployed }) => deployed) ? h("li", {}, "▼ version deployed") : null,
    marks.some(({ deployed }) => !deployed) ? h("li", {}, "● version first seen") : null);
}
