/** A run drawn as lanes over time (or over steps): bars for calls, shapes for signals. SVG built node by node; used by views/run.js. */

import { s } from "./dom.js";
import { duration, offset, shorten, visible, words } from "./format.js";
import { shapePath } from "./parts.js";
import { LANES } from "./steps.js";

const LABELS = { llm: "LLM", tool: "Tools", retrieval: "Retrieval" };
const GUTTER = 76;
const TOP = 24; // below the axis
const BAR = 18;
const ROW = 22;
const ROWS = 5; // calls at the same time in one lane; more share the last row
const LEAST = 3; // pixels of a bar that took no time

/** Places spans on x. `mode`: "time" (seconds) or "step" (each call the same width). Gives {width, x(span), w(span), xAt(time)}. */
function scale({ spans, start, end }, mode, room) {
  if (mode === "step") {
    const slot = Math.max(6, Math.min(72, room / Math.max(1, spans.length)));
    const place = new Map(spans.map((span, i) => [span, i * slot]));
    const xAt = (time) => {
      const i = spans.findIndex((span) => span.start >= time);
      return (i < 0 ? spans.length : i) * slot;
    };
    return { width: Math.max(room, spans.length * slot), x: (span) => place.get(span), w: () => Math.max(LEAST, slot - 2), xAt };
  }
  const perSecond = (room - 8) / Math.max(end - start, 0.001);
  const xAt = (time) => (time - start) * perSecond;
  return { width: room, x: (span) => xAt(span.start), w: (span) => Math.max(LEAST, (span.end - span.start) * perSecond), xAt };
}

/** Rows within a lane, so that calls at the same time don't hide each other. */
function stack(spans, place) {
  const ends = [];
  return spans.map((span) => {
    const x = place.x(span);
    let row = ends.findIndex((end) => end <= x + 0.5);
    if (row < 0) row = Math.min(ends.length, ROWS - 1);
    ends[row] = x + place.w(span);
    return { span, row, x, w: place.w(span) };
  });
}

/**
 * `folded`: of steps.js; `signals` with severity and step_index; `width` in pixels; `selected`: a span or null;
 * `onStep(span)` on hover or key, `onSignal(signal)` on press. Gives one svg element.
 */
export function timeline({ folded, signals, mode, width, selected, onStep, onSignal }) {
  const place = scale(folded, mode, Math.max(120, width - GUTTER));
  const parts = [];
  let y = TOP;
  if (signals.length) {
    parts.push(laneLabel("Signals", y));
    y += ROW + 4;
  }
  for (const lane of LANES) {
    const bars = stack(folded.spans.filter((span) => span.lane === lane), place);
    if (!bars.length) continue;
    parts.push(laneLabel(LABELS[lane], y), drawn(bars).map((bar) => barOf(bar, y, selected, onStep)));
    y += (Math.max(...bars.map(({ row }) => row)) + 1) * ROW + 6;
  }
  parts.push(folded.moments.map((moment) => tick(moment, place, y)));
  parts.push(signals.map((signal) => flag(signal, folded, place, y, onSignal)));
  const total = place.width + GUTTER;
  return s("svg", { class: "timeline", width: total, height: y + 6, viewBox: `0 0 ${total} ${y + 6}`, "aria-hidden": "true" },
    axis(folded, mode, place, y), parts);
}

/** Of bars that would cover the same pixels only one is drawn: the failed one, else a slow one, if there is one. */
function drawn(bars) {
  const seen = new Map();
  for (const bar of bars) {
    const spot = `${bar.row}:${Math.round(bar.x)}:${Math.round(bar.w)}`;
    if (!seen.has(spot) || bar.span.outcome === "failed" || (bar.span.slow && seen.get(spot).span.outcome !== "failed")) seen.set(spot, bar);
  }
  return [...seen.values()];
}

const laneLabel = (text, y) => s("text", { class: "lane", x: 0, y: y + 13 }, text);

function barOf({ span, row, x, w }, y, selected, onStep) {
  const top = y + row * ROW;
  const failed = span.outcome === "failed";
  const room = w - (failed ? 24 : 8);
  const text = `${visible(span.name || words(span.lane))}${span.slow ? ` · ${duration(span.end - span.start)}` : ""}`;
  const label = room > 26 ? shorten(text, Math.floor((room - 4) / 6.6)) : "";
  const cross = GUTTER + x + (label ? w - 13 : w / 2 - 3);
  return s("g", { class: `bar ${span.lane} ${span.outcome}${span.slow ? " slow" : ""}${span === selected ? " selected" : ""}`, on: { pointerenter: () => onStep(span), click: () => onStep(span) } },
    s("rect", { x: GUTTER + x, y: top, width: w, height: BAR, rx: Math.min(3, w / 2) }),
    span.slow ? s("path", { class: "late", d: `M${GUTTER + x} ${top + BAR + 1.5}h${w}` }) : null,
    failed ? s("path", { class: "cross", d: `M${cross} ${top + 6}l6 6m0 -6l-6 6` }) : null,
    label ? s("text", { x: GUTTER + x + 5, y: top + 13 }, label) : null);
}

function flag(signal, { spans, start }, place, height, onSignal) {
  const span = spans.findLast((one) => one.step <= signal.step_index);
  const x = GUTTER + (span ? place.x(span) + Math.min(place.w(span), BAR) / 2 : place.xAt(start));
  return s("g", { class: "flag", transform: `translate(${Math.max(GUTTER, x - 8)} ${TOP})`, on: { click: () => onSignal(signal) } },
    s("title", {}, `${words(signal.severity)}: ${words(signal.failure_type)}, step ${signal.step_index}`),
    s("path", { class: "pole", d: `M8 16V${height - TOP}` }), shapePath(signal.severity));
}

const MOMENTS = { "user.message": "user message", "external.signal": "external signal", "run.completed": "completed", "run.errored": "errored" };

function tick(moment, place, height) {
  const label = MOMENTS[moment.type];
  if (!label) return null;
  const x = GUTTER + Math.min(place.xAt(moment.time), place.width - 1);
  return s("g", { class: `moment ${moment.type.replace(".", "-")}` }, s("title", {}, `${label} ${shorten(visible(moment.name), 60)}`), s("path", { d: `M${x} 18V${height}` }));
}

/** Round places along x: [{x, text}] every 1, 2 or 5 times a power of ten of seconds, or of calls. */
function ticks({ start, end, spans }, mode, place) {
  const total = mode === "step" ? spans.length : Math.max(end - start, 0.001);
  const every = rounded((total * 90) / place.width, mode === "step" ? 1 : 0);
  const many = Math.floor(total / every + 1e-9) + (mode === "step" ? 0 : 1);
  return Array.from({ length: Math.min(many, 200) }, (_, i) => {
    const span = spans[i * every];
    return mode === "step" ? { x: place.x(span), text: `step ${span.step}` } : { x: place.xAt(start + i * every), text: offset(i * every).replace(/\.0+ s$/, " s") };
  });
}

function rounded(least, floor) {
  const power = 10 ** Math.floor(Math.log10(least));
  return Math.max(floor, [1, 2, 5, 10].map((n) => n * power).find((n) => n >= least));
}

const axis = (folded, mode, place, height) =>
  ticks(folded, mode, place).map(({ x, text }) => {
    const edge = x > place.width - 50 && x > 0;
    return s("g", { class: "grid" }, s("path", { d: `M${GUTTER + x} 18V${height}` }), s("text", { x: GUTTER + x, y: 11, "text-anchor": edge ? "end" : "start" }, text));
  });
