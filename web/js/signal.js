/** One signal with its explanation: what, why it matters, the evidence and the fixes. Used by every view with signals. */

import { h } from "./dom.js";
import { fields } from "./fields.js";
import { copyFix } from "./fixing/copying.js";
import { fixing } from "./fixing/panel.js";
import { cost, fixStatus, readMore } from "./fixing/status.js";
import { verdictBadge } from "./fixing/verdict.js";
import { percent, shorten, visible, words } from "./format.js";
import { codeBlock, facts, name, prose, severityBadge, when } from "./parts.js";
import { agentLink, runLink } from "./router.js";

/**
 * A card to open. `context`: {work}; `open`: opened at first; `link`: show which run it is of; `agent`: and which agent;
 * `run`: its run, where that is known; `fixes`: its agent's, where those are.
 */
export function signalCard(signal, { work }, { open = false, link = false, agent = false, run = null, fixes = [] } = {}) {
  const kind = signal.title && signal.title !== words(signal.failure_type) ? words(signal.failure_type) : null;
  const verdict = fixStatus(signal.id, work)?.verdict ?? fixes.find((fix) => fix.signal_id === signal.id)?.verdict;
  // Each redraw makes an open card that is only compared with the one on the screen; that one's toggle is nobody's.
  const toggle = (event) => {
    const card = event.currentTarget;
    if (card.open && card.isConnected) readMore(signal, work, run);
  };
  return h("details", { class: "signal", key: `signal-${signal.id}`, id: `signal-${signal.id}`, "data-signal": signal.id, open, on: { toggle } },
    h("summary", {},
      severityBadge(signal.severity),
      h("span", { class: "title" }, prose(shorten(visible(signal.title ?? words(signal.failure_type)), 200))),
      h("span", { class: "meta" },
        agent ? h("span", { class: "who" }, name(signal.agent_id, 32)) : null,
        kind ? h("span", { class: "kind" }, kind) : null,
        h("span", {}, `step ${signal.step_index}`),
        h("span", {}, `${percent(signal.confidence)} sure`),
        signal.shadow ? h("span", { class: "tag", title: "Stored and shown, never alerted, never an issue." }, "shadow") : null,
        signal.alerted ? h("span", { class: "tag", title: "At least one destination was told." }, "alerted") : null,
        verdict ? verdictBadge(verdict) : null,
        when(signal.detected_at, { relative: true }))),
    h("div", { class: "body" }, link ? runLine(signal, agent) : null, explanation(signal, work, run), suggestions(signal, work), fixing(signal, work)));
}

const runLine = (signal, agent) =>
  h("p", { class: "of" }, agent ? [h("a", { href: agentLink(signal.agent_id) }, name(signal.agent_id, 48)), ", run "] : "In run ", h("a", { href: runLink(signal.run_id) }, name(signal.run_id, 40)), ", version ", name(signal.agent_version, 16), ".");

function explanation(signal, work, run) {
  const wasted = cost(signal, work, run);
  const part = (heading, text) => (text ? [h("h4", {}, heading), h("p", {}, prose(visibleLines(text)))] : null);
  return h("div", { class: "words" },
    part("What happened", signal.what),
    part("Why it matters", signal.why_it_matters),
    part("Evidence", signal.evidence_summary),
    wasted ? [h("h4", {}, "What it wasted"), wasted] : null,
    evidence(signal));
}

const visibleLines = (text) => String(text).split("\n").map(visible).join("\n");

function suggestions(signal, work) {
  const found = signal.suggested_fixes ?? [];
  if (!found.length) return null;
  return h("div", { class: "fixes" },
    h("h4", {}, found.length === 1 ? "Suggested fix" : "Suggested fixes"),
    h("ol", {}, found.map((fix, at) => h("li", {},
      fix.code
        ? h("details", { open: at === 0 }, h("summary", {}, prose(visible(fix.description))), codeBlock(fix.code, fix.language, copyFix(fix.code, signal, work)))
        : h("p", {}, prose(visible(fix.description)))))));
}

function evidence(signal) {
  const pairs = fields(signal.evidence);
  if (!pairs.length) return null;
  return h("div", { class: "raw" }, facts(pairs));
}
