/** Small pieces every view is made of: names, times, marks, badges, copy buttons, facts, panels. */

import { h, s } from "./dom.js";
import { ago, count, local, plural, shorten, utc, visible, words } from "./format.js";
import { SEVERITIES } from "./kinds.js";

/** A name that came from an agent: isolated, its hidden characters shown, cut to `max` with the whole in the title. */
export function name(text, max = 60) {
  const whole = visible(text);
  return h("bdi", { class: "name", title: whole }, shorten(whole, max));
}

/** Words of ours about a run, with what stands between backticks set as code. */
export const prose = (text) => String(text).split(/`([^`]+)`/).map((part, at) => (at % 2 ? h("code", {}, part) : part));

/** A moment, "3 min ago" or by the clock, with UTC in the title. */
export function when(at, { relative = false } = {}) {
  if (typeof at !== "number") return h("span", { class: "faint" }, "–");
  return h("time", { datetime: new Date(at * 1000).toISOString(), title: utc(at) }, relative ? ago(at) : local(at));
}

const SHAPES = {
  CRITICAL: "M5 1H11L15 5V11L11 15H5L1 11V5Z",
  HIGH: "M8 1.5L15.2 14.500H.8Z",
  MEDIUM: "M8 1L15 8L8 15L1 8Z",
  LOW: "M8 2.500A5.500 5.500 0 1 1 8 13.500A5.500 5.500 0 1 1 8 2.500Z",
};

const severityClass = (severity) => (SEVERITIES.includes(severity) ? severity.toLowerCase() : "low");

export const shapePath = (severity) => s("path", { d: SHAPES[severity] ?? SHAPES.LOW, class: `shape ${severityClass(severity)}` });

/** The severity's own shape: octagon, triangle, diamond, ring. */
export const mark = (severity) => s("svg", { class: "mark", viewBox: "0 0 16 16", "aria-hidden": "true" }, shapePath(severity));

export const severityBadge = (severity) =>
  h("span", { class: `badge ${severityClass(severity)}` }, mark(severity), words(severity));

/** How many of each severity, the worst first: marks with numbers. `counts`: {SEVERITY: n}. */
export function tallies(counts) {
  const some = SEVERITIES.filter((severity) => counts[severity] > 0);
  if (!some.length) return h("span", { class: "faint" }, "0");
  return h("span", { class: "tallies" }, some.map((severity) =>
    h("span", { class: `tally ${severityClass(severity)}`, title: `${count(counts[severity])} ${severity.toLowerCase()}` },
      mark(severity), count(counts[severity]), h("span", { class: "unseen" }, ` ${severity.toLowerCase()} `))));
}

const STATUSES = {
  completed: ["M3 8.500L6.500 12L13 4.500", "Completed", "The agent said it was done."],
  errored: ["M4 4L12 12M12 4L4 12", "Errored", "The run ended with an error."],
  running: ["M5 3L13 8L5 13Z", "Running", "No end of the run has been seen yet."],
  stalled: ["M5 3V13M11 3V13", "Stalled", "Nothing was heard of this run for too long."],
  parked: ["M8 3V9M8 12.500V13", "Parked", "Its detection failed several times; it is not judged."],
};

/** How a run stands: "completed" | "errored" | "running" | "stalled" | "parked". */
export function standing(run) {
  if (run.status === "parked") return "parked";
  if (run.exit_reason === "run.errored") return "errored";
  if (run.status === "stalled" || run.exit_reason === "stalled") return "stalled";
  return run.status === "running" ? "running" : "completed";
}

export function statusBadge(run) {
  const [path, label, meaning] = STATUSES[standing(run)];
  const icon = s("svg", { class: "mark", viewBox: "0 0 16 16", "aria-hidden": "true" }, s("path", { d: path, class: "stroke" }));
  return h("span", { class: `standing ${standing(run)}`, title: meaning }, icon, label);
}

/** Seconds a run took, or has taken so far; undefined when nobody can know. */
export function runSeconds(run, now = Date.now() / 1000) {
  if (typeof run.completed_at === "number") return Math.max(0, run.completed_at - run.started_at);
  return standing(run) === "running" ? Math.max(0, now - run.started_at) : undefined;
}

/** `then()` once the text is in the clipboard. */
export function copyButton(text, label = "Copy", then = () => {}) {
  const press = async (event) => {
    const button = event.currentTarget;
    const worked = await copied(text);
    if (worked) then();
    const done = worked ? "Copied" : "Press Ctrl+C";
    button.textContent = done;
    announce(done);
    setTimeout(() => (button.textContent = label), 2000);
  };
  return h("button", { type: "button", class: "quiet", on: { click: press } }, label);
}

/** The clipboard needs https or localhost; elsewhere the older way through a selection is tried. */
async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = h("textarea", { class: "unseen", readonly: true, "aria-hidden": "true" });
    area.value = text;
    const before = document.activeElement;
    document.body.append(area);
    area.select();
    const worked = document.execCommand("copy");
    area.remove();
    before?.focus();
    return worked;
  }
}

export function announce(text) {
  document.getElementById("announce").textContent = text;
}

export const codeBlock = (code, language = "", copy = copyButton(code)) =>
  h("figure", { class: "code" }, h("figcaption", {}, h("span", {}, language), copy), h("pre", { tabindex: "0", "data-language": language }, h("code", {}, code)));

/** Pairs of a term and its value, as a description list. */
export const facts = (pairs) =>
  h("dl", { class: "facts" }, pairs.filter(Boolean).map(([term, value]) => h("div", {}, h("dt", {}, term), h("dd", {}, value))));

/** A quiet panel for what is empty, missing or broken: a heading, words, and what to do. */
export const panel = (title, ...body) => h("section", { class: "panel" }, h("h2", {}, title), ...body);

/** "50 of 213 runs" and the button for the next ones. */
export function moreButton(pages, one, rerun) {
  if (!pages.hasMore) return null;
  const press = () => {
    pages.more();
    rerun();
  };
  return h("p", { class: "more" }, `${pages.items.length} of ${plural(pages.total, one)} `, h("button", { type: "button", on: { click: press } }, "More"));
}
