/** A run's event log, one row an event, the whole payload behind it. Used by views/run.js. */

import { h } from "./dom.js";
import { compact, count, duration, offset, shorten, utc, visible } from "./format.js";
import { fields } from "./fields.js";
import { facts, mark, name } from "./parts.js";
import { nameOf } from "./steps.js";

const PAGE = 200;

/** What an event says beside its name, shortest useful form, in this order. */
const NOTES = [
  ["success", (v) => (v === false ? "failed" : null)],
  ["finish_reason", (v) => v],
  ["exit_reason", (v) => v],
  ["latency_ms", (v) => duration(v / 1000)],
  ["prompt_tokens", (v) => `${compact(v)} tokens in`],
  ["completion_tokens", (v) => `${compact(v)} tokens out`],
  ["result_count", (v) => `${count(v)} results`],
  ["top_score", (v) => `top ${v}`],
  ["output_length", (v) => `${count(v)} chars`],
  ["input_length", (v) => `${count(v)} chars`],
  ["tools", (v) => `${v.length} tools`],
  ["injection_signal", () => "injection patterns in the input"],
  ["args_hash", (v) => `args ${String(v).slice(0, 8)}`],
];

export const notesOf = (payload) =>
  NOTES.flatMap(([key, word]) => (payload[key] === null || payload[key] === undefined || payload[key] === "" ? [] : [word(payload[key])])).filter(Boolean);

export const SHOWABLE = [["", "All"], ["llm", "LLM"], ["tool", "Tools"], ["retrieval", "Retrieval"], ["other", "Other"], ["failed", "Failed"]];

const failed = (event) => event.payload?.success === false || event.event_type === "run.errored";

const fits = (event, show) => !show || (show === "failed" ? failed(event) : kind(event.event_type) === show);

/** `events` in order, `signals` of the run, `limit`: rows shown, `onMore(limit)`, `show`: one of SHOWABLE, `selected`: a call's span. */
export function eventLog({ events, signals, limit, onMore, show, selected }) {
  const start = events[0]?.timestamp ?? 0;
  const at = grouped(signals);
  const flagged = new Set();
  const all = [...events.entries()].filter(([, event]) => fits(event, show));
  const rows = all.slice(0, Math.max(limit, PAGE)).map(([i, event]) => {
    const marks = flagged.has(event.step_index) ? [] : (at.get(event.step_index) ?? []);
    flagged.add(event.step_index);
    return row(event, i, start, marks, Boolean(selected) && (i === selected.at || i === selected.answered_at));
  });
  if (!rows.length) return h("p", { class: "hint" }, "No event of this run is of that kind.");
  const rest = all.length - rows.length;
  return [
    h("table", { class: "log" },
      h("thead", {}, h("tr", {}, ["Step", "After", "Event", "Details"].map((title) => h("th", { scope: "col" }, title)))),
      h("tbody", {}, rows)),
    rest > 0 ? h("p", { class: "more" }, `${count(rows.length)} of ${count(all.length)} events `,
      h("button", { type: "button", on: { click: () => onMore(rows.length + PAGE) } }, "More")) : null,
  ];
}

function grouped(signals) {
  const groups = new Map();
  for (const signal of signals) groups.set(signal.step_index, [...(groups.get(signal.step_index) ?? []), signal]);
  return groups;
}

function row(event, i, start, signals, selected) {
  const payload = event.payload ?? {};
  const about = nameOf(payload);
  return h("tr", { key: `event-${i}`, id: `event-${i}`, class: [failed(event) ? "failed" : "", selected ? "selected" : "", signals.length ? "marked" : ""].join(" ").trim() || null },
    h("td", { class: "num" }, String(event.step_index)),
    h("td", { class: "num", title: utc(event.timestamp) }, offset(event.timestamp - start)),
    h("td", { class: "type" }, h("span", { class: `dot ${kind(event.event_type)}` }), shorten(visible(event.event_type), 64), signals.map((signal) => mark(signal.severity))),
    h("td", {}, h("details", { class: "payload" },
      h("summary", {}, about ? name(about, 48) : null, h("span", { class: "notes" }, notesOf(payload).map((note) => h("span", {}, shorten(visible(note), 60))))),
      facts(fields(payload)))));
}

const kind = (type) => (["llm", "tool", "retrieval"].includes(type.split(".")[0]) ? type.split(".")[0] : "other");
