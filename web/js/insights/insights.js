/** What an agent's runs have in common, as charts and tables. Used by views/agent.js. */

import { get } from "../api.js";
import { h } from "../dom.js";
import { panel } from "../parts.js";
import { riseTable } from "../rises.js";
import { fixesTable } from "./fixes.js";
import { healthCard, tokensCard } from "./health.js";
import { hoursChart } from "./hours.js";
import { paceChart } from "./pace.js";
import { ratesTable } from "./rates.js";
import { trend } from "./trend.js";
import { inputsTable, versionsTable } from "./versions.js";

const GAP = 20; // pixels between cards, as in insights.css
const EDGES = 38; // a card's padding and borders
const TWO = 900; // from this width on two cards stand side by side

/** What `insights` draws. `base`: the agent's path. */
export async function readInsights(base, abort) {
  const [found, health, tokens] = await Promise.all(["insights", "health-score", "token-stats"].map((part) => get(`${base}/${part}`, {}, abort)));
  return { found, health, tokens };
}

/** `rises`: the agent's fleet signals; `fixes`: of its signals. */
export function insights({ found, health, tokens, rises, fixes }, id, width) {
  if (!found.versions.length && !found.time_to_tool.total_runs) {
    return panel("Nothing to compare yet", h("p", {}, "No run of this agent has started in the last 30 days."));
  }
  const half = (width >= TWO ? (width - GAP) / 2 : width) - EDGES;
  return h("div", { class: "insights" },
    card("", trend(found, Math.floor(width - EDGES)), "whole"),
    rises.length ? card("Became more frequent", riseTable(rises), "whole") : null,
    card("How often each failure shows", found.systemic_patterns.length || found.failure_rates.length ? ratesTable(found, id) : h("p", { class: "calm" }, "No failure in the last 30 days."), "whole"),
    card("Health", [healthCard(health), h("h3", {}, "Tokens"), tokensCard(tokens)]),
    card("Time to the first tool", paceChart(found.time_to_tool, Math.floor(half))),
    card("", hoursChart(found.hourly_pattern, Math.floor(half))),
    card("Inputs that fail again", found.input_patterns.length ? inputsTable(found.input_patterns) : h("p", { class: "hint" }, "No input was given twice and failed.")),
    fixes.length ? card("Fixes", fixesTable(fixes, id), "whole") : null,
    card("Versions", versionsTable(found), "whole"));
}

const card = (title, body, kind = "") => h("section", { class: `card ${kind}` }, title ? h("h2", {}, title) : null, body);
