/** An agent's runs, newest first. Used by views/agent.js. */

import { h } from "./dom.js";
import { compact, count, duration, isNumber, money } from "./format.js";
import { name, runSeconds, standing, statusBadge, when } from "./parts.js";
import { runLink } from "./router.js";

export function runTable(runs) {
  const priced = runs.some((run) => isNumber(run.total_cost_usd));
  return h("table", { class: "list runs" },
    h("caption", { class: "unseen" }, "Runs, newest first"),
    h("thead", {}, h("tr", {},
      h("th", { scope: "col" }, "Run"), h("th", { scope: "col" }, "Status"), h("th", { scope: "col", class: "num" }, "Signals"),
      h("th", { scope: "col", class: "after" }, "Started"), h("th", { scope: "col", class: "num" }, "Duration"), h("th", { scope: "col", class: "num" }, "Steps"),
      h("th", { scope: "col", class: "num wide" }, "Tokens"), priced ? h("th", { scope: "col", class: "num wide" }, "Cost") : null, h("th", { scope: "col", class: "wide after" }, "Version"))),
    h("tbody", {}, runs.map((run) => row(run, priced))));
}

function row(run, priced) {
  return h("tr", { key: run.run_id, class: standing(run) },
    h("th", { scope: "row" }, h("a", { class: "stretch mono", href: runLink(run.run_id) }, name(run.run_id, 36))),
    h("td", {}, statusBadge(run)),
    h("td", { class: "num" }, run.signal_count ? h("span", { class: "tally some" }, count(run.signal_count)) : h("span", { class: "faint" }, "0")),
    h("td", { class: "after" }, when(run.started_at)),
    h("td", { class: "num" }, duration(runSeconds(run))),
    h("td", { class: "num" }, count(run.step_count)),
    h("td", { class: "num wide" }, compact(run.total_tokens)),
    priced ? h("td", { class: "num wide" }, isNumber(run.total_cost_usd) ? money(run.total_cost_usd) : h("span", { class: "faint", title: "One of its models has no price." }, "–")) : null,
    h("td", { class: "wide after mono faint" }, name(run.agent_version, 12)));
}
