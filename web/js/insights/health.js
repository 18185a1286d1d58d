/** An agent's health in points, and what it spent in tokens. Used by insights.js. */

import { h, s } from "../dom.js";
import { compact, count, isNumber, money, plural, shorten, visible, words } from "../format.js";

/** `health`: an answer of health-score. */
export function healthCard(health) {
  if (!isNumber(health.score)) return h("p", { class: "hint" }, "No run has been judged yet.");
  return [
    h("p", { class: "score" }, h("b", {}, count(health.score)), " of 100 ",
      h("span", { class: "hint" }, `over the last ${plural(health.sample_runs, "run")}${health.baseline_ready ? "" : "; more certain from 10 runs on"}`)),
    h("ul", { class: "points" }, Object.entries(health.components).map(([key, part]) => h("li", { key, class: tone(part.score / part.max) },
      h("span", {}, words(key)),
      s("svg", { viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" }, s("rect", { class: "whole", width: 100, height: 8, rx: 1 }), s("rect", { class: "part", width: Math.max(0, Math.min(100, (part.score / part.max) * 100)), height: 8, rx: 1 })),
      h("span", { class: "num" }, `${Math.round(part.score)} of ${part.max}`),
      h("span", { class: "hint" }, shorten(visible(part.label ?? ""), 80))))),
  ];
}

const tone = (share) => (share >= 0.8 ? "good" : share >= 0.5 ? "fair" : "poor");

const WINDOWS = [["1d", "24 hours"], ["7d", "7 days"], ["30d", "30 days"]];

/** `tokens`: an answer of token-stats. */
export function tokensCard(tokens) {
  const wasted = tokens.waste_by_failure_type.filter((one) => one.wasted_tokens > 0);
  return [
    h("dl", { class: "sums small" }, WINDOWS.filter(([key]) => tokens.windows[key]).map(([key, term]) =>
      h("div", {}, h("dt", {}, term), h("dd", { title: `${count(tokens.windows[key].total_tokens)} tokens in ${plural(tokens.windows[key].run_count, "run")}` }, compact(tokens.windows[key].total_tokens))))),
    wasted.length
      ? h("p", { class: "soft" }, "Of these wasted in 30 days: ", wasted.slice(0, 4).map((one, i) => [i ? ", " : "", h("b", {}, compact(one.wasted_tokens)), ` by ${words(one.failure_type)}`, one.wasted_cost_usd > 0 ? ` (${money(one.wasted_cost_usd)})` : null]), ".")
      : h("p", { class: "hint" }, "No signal says that tokens were wasted."),
  ];
}
