/** One run: its facts, what was found in it, its timeline and every event. Used by main.js. */

import { get } from "../api.js";
import { h } from "../dom.js";
import { count, duration, isNumber, money, offset, plural, shorten, visible, words } from "../format.js";
import { choice } from "../filters.js";
import { eventLog, notesOf, SHOWABLE } from "../log.js";
import { copyButton, facts, name, panel, runSeconds, standing, statusBadge, when } from "../parts.js";
import { agentLink, runLink, segment } from "../router.js";
import { signalCard } from "../signal.js";
import { fold, inOrder } from "../steps.js";
import { timeline } from "../timeline.js";

const STAGE_EDGES = 30; // pixels of .stage's padding and borders, left and right

export function runView({ id, filters }, context) {
  const { redraw, width, go } = context;
  const state = { run: null, events: [], folded: null, mode: null, at: null, limit: 0, filters };
  const read = (more, abort) => get(`/v1/runs/${segment(id)}`, { include_shadow: "true", ...more }, abort);

  /** The events are read again only when there are more of them. */
  async function load(abort) {
    const known = state.run;
    const news = known ? await read({ events: "false" }, abort) : null;
    if (news?.event_count === known?.event_count && known) {
      state.run = { ...news, events: known.events, events_truncated: known.events_truncated };
    } else {
      state.run = await read({}, abort);
      state.events = inOrder(state.run.events);
    }
    state.folded = fold(state.events, { running: standing(state.run) === "running", now: Date.now() / 1000 });
    state.mode ??= bestMode(state.folded);
  }

  return {
    title: `Run ${visible(id)}`,
    get crumbs() {
      const { run } = state;
      return run ? [h("a", { href: agentLink(run.agent_id) }, name(run.agent_id, 40)), "Run"] : ["Run"];
    },
    load,
    /** Another filter of the same run: nothing to read. */
    follow(route) {
      if (route.view !== "run" || route.id !== id) return false;
      state.filters = route.filters;
      return true;
    },
    render: () => [header(state), signalList(state.run, context), steps(state, redraw, width()), log(state, redraw, go)],
  };
}

/** Over time, unless the calls' reported durations say that the timestamps were not taken as they happened. */
function bestMode({ spans, start, end }) {
  const last = spans.at(-1);
  const longest = Math.max(0, ...spans.map((span) => span.end - span.start));
  return spans.length > 1 && last.start - start < Math.max(0.05, Math.min(longest, end - start) / 4) ? "step" : "time";
}

function header({ run, folded, events }) {
  const parent = run.parent_run_id ?? events.find((event) => event.parent_run_id)?.parent_run_id;
  const calls = (lane) => count(folded.spans.filter((span) => span.lane === lane).length);
  const failed = folded.spans.filter((span) => span.outcome === "failed").length;
  const slow = folded.spans.filter((span) => span.slow).length;
  return h("header", { class: "head" },
    h("p", { class: "over" }, "Run of ", h("a", { href: agentLink(run.agent_id) }, name(run.agent_id, 48))),
    h("div", { class: "line" }, h("h1", { tabindex: "-1", class: "mono" }, name(run.run_id, 60)), copyButton(run.run_id), statusBadge(run)),
    facts([
      ["Started", when(run.started_at)],
      ["Duration", [duration(runSeconds(run)), standing(run) === "running" ? " so far" : null]],
      ["Steps", count(run.step_count)],
      run.events_truncated ? null : ["LLM calls", calls("llm")],
      run.events_truncated ? null : ["Tool calls", [calls("tool"), failed ? h("span", { class: "bad" }, ` · ${failed} failed`) : null]],
      slow ? ["Slow calls", h("span", { class: "warn" }, count(slow))] : null,
      ["Tokens", isNumber(run.total_tokens) ? count(run.total_tokens) : "–"],
      isNumber(run.total_cost_usd) ? ["Cost", money(run.total_cost_usd)] : null,
      ["Version", h("span", { class: "mono" }, name(run.agent_version, 16))],
      parent ? ["Part of", h("a", { href: runLink(parent), class: "mono" }, name(parent, 13))] : null,
    ]),
    cautions(run).map((caution) => h("p", { class: "lead bad" }, caution)));
}

/** What the reader must know before believing the rest. */
function cautions(run) {
  return [
    run.dropped_events ? `The agent lost ${plural(run.dropped_events, "event")} of this run before sending them; its signals are shadow.` : null,
    run.parked_error ? `Not judged: ${visible(run.parked_error)}.` : null,
    run.events_truncated ? `Only the newest ${count(run.events.length)} of ${count(run.event_count)} events are shown.` : null,
  ].filter(Boolean);
}

function signalList(run, context) {
  const { signals } = run;
  if (!signals.length) return h("p", { class: "lead calm" }, "No signals in this run.");
  return h("section", { "aria-labelledby": "signals-of-run" },
    h("h2", { id: "signals-of-run" }, "Signals ", h("span", { class: "n" }, String(signals.length))),
    h("div", { class: "signals" }, signals.map((signal, i) => signalCard(signal, context, { open: i === 0, run }))));
}

function steps(state, redraw, width) {
  const { folded, run } = state;
  if (!folded.spans.length) return panel("No steps yet", h("p", {}, "No call to a model, a tool or an index has been received for this run."));
  const selected = folded.spans.find((span) => span.at === state.at) ?? null;
  const pick = (span) => {
    if (!span || span.at === state.at) return;
    state.at = span.at;
    redraw();
  };
  return h("section", { "aria-labelledby": "timeline-of-run" },
    h("div", { class: "line" }, h("h2", { id: "timeline-of-run" }, "Timeline"), modes(state, redraw)),
    h("div", {
      class: "stage", tabindex: "0", role: "slider", "aria-label": "Steps of the run",
      "aria-valuemin": 1, "aria-valuemax": folded.spans.length, "aria-valuenow": folded.spans.indexOf(selected) + 1,
      "aria-valuetext": selected ? inWords(selected) : "none chosen",
      on: { keydown: (event) => walk(event, folded.spans, selected, pick) },
    }, timeline({ folded, signals: run.signals, mode: state.mode, width: width - STAGE_EDGES, selected, onStep: pick, onSignal: show })),
    stepFacts(selected, folded.start));
}

const modes = (state, redraw) =>
  choice("Draw the steps over", state.mode, [["time", "By time"], ["step", "By step"]], (mode) => {
    state.mode = mode;
    redraw();
  });

function walk(event, spans, selected, pick) {
  const here = spans.indexOf(selected);
  const to = { ArrowRight: here + 1, ArrowDown: here + 1, ArrowLeft: here - 1, ArrowUp: here - 1, Home: 0, End: spans.length - 1 }[event.key];
  if (event.key === "Enter" && selected) document.getElementById(`event-${selected.at}`)?.scrollIntoView({ block: "center" });
  if (to === undefined) return;
  event.preventDefault();
  pick(spans[Math.max(0, Math.min(spans.length - 1, to))]);
}

const OUTCOMES = { ok: "answered", failed: "failed", unanswered: "never answered", open: "no answer yet" };

const inWords = (span) => [`Step ${span.step}`, words(span.lane), shorten(visible(span.name), 60), OUTCOMES[span.outcome], duration(span.end - span.start)].join(", ");

/** The chosen step's facts; always there, so that the page doesn't jump. */
function stepFacts(span, start) {
  if (!span) return h("p", { class: "step-facts hint", id: "step-facts" }, "Point at a step, or go through them with the arrow keys.");
  const notes = [...notesOf(span.call), ...notesOf({ ...span.answer, latency_ms: null })];
  return h("p", { class: "step-facts", id: "step-facts" },
    h("b", {}, `Step ${span.step}`), h("span", { class: `dot ${span.lane}` }), span.name ? name(span.name, 48) : words(span.lane),
    h("span", { class: span.outcome === "failed" ? "bad" : "" }, OUTCOMES[span.outcome]),
    h("span", { class: span.slow ? "warn" : "" }, span.outcome === "unanswered" ? "" : `${duration(span.end - span.start)}${span.slow ? ", slow" : ""}`),
    h("span", {}, `at ${offset(span.start - start)}`),
    [...new Set(notes)].filter((note) => note !== "failed").map((note) => h("span", { class: "faint" }, shorten(visible(note), 60))));
}

function log(state, redraw, go) {
  const wanted = state.filters.show ?? "";
  const more = (limit) => {
    state.limit = limit;
    redraw();
  };
  return h("section", { "aria-labelledby": "events-of-run" },
    h("div", { class: "line" },
      h("h2", { id: "events-of-run" }, "Events ", h("span", { class: "n" }, count(state.events.length))),
      choice("Show events", wanted, SHOWABLE, (show) => go(runLink(state.run.run_id, { show })))),
    eventLog({ events: state.events, signals: state.run.signals, limit: state.limit, onMore: more, show: wanted, selected: state.folded.spans.find((span) => span.at === state.at) }));
}

/** Opens a signal's card and brings it into view. */
function show(signal) {
  const card = document.getElementById(`signal-${signal.id}`);
  card.open = true;
  card.scrollIntoView({ block: "center" });
  card.querySelector("summary").focus({ preventScroll: true });
}
