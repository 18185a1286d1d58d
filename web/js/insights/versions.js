/** An agent's versions and its repeated inputs, each with how often they went wrong. Used by insights.js. */

import { h } from "../dom.js";
import { count, plural, words } from "../format.js";
import { severityOf } from "../kinds.js";
import { mark, name, when } from "../parts.js";
import { shareBar } from "./charts.js";

const HOT = 0.1; // from this share of runs on a failure is called systemic; the same here

export function versionsTable({ versions, deploys = [] }) {
  const deployed = new Map(deploys.map((one) => [one.version, one.deployed_at]));
  const row = (one) => h("tr", { key: one.agent_version },
    h("th", { scope: "row" }, h("span", { class: "mono" }, name(one.agent_version, 16)), deployed.has(one.agent_version) ? h("span", { class: "tag" }, "deployed ", when(deployed.get(one.agent_version), { relative: true })) : null),
    h("td", { class: "num" }, count(one.run_count)),
    h("td", { class: "num" }, count(one.signal_count)),
    h("td", {}, shareBar(one.signal_rate, one.signal_rate >= HOT ? "hot" : "")),
    h("td", { class: "num wide" }, when(one.first_seen)),
    h("td", { class: "num" }, when(one.last_seen, { relative: true })));
  return h("table", { class: "list versions" },
    h("caption", { class: "unseen" }, "Versions, newest first"),
    h("thead", {}, h("tr", {},
      h("th", { scope: "col" }, "Version"), h("th", { scope: "col", class: "num" }, "Runs"), h("th", { scope: "col", class: "num" }, "Signals"),
      h("th", { scope: "col" }, "Runs with signals"), h("th", { scope: "col", class: "num wide" }, "First seen"), h("th", { scope: "col", class: "num" }, "Last seen"))),
    h("tbody", {}, versions.map(row)));
}

export function inputsTable(patterns) {
  const row = (one) => h("tr", { key: `${one.input_hash} ${one.failure_type}` },
    h("th", { scope: "row" }, h("span", { class: "mono" }, name(one.input_hash, 13))),
    h("td", {}, mark(severityOf(one.failure_type)), " ", words(one.failure_type)),
    h("td", { class: "num" }, `${count(one.triggered_count)} of ${plural(one.total_runs, "run")}`),
    h("td", {}, shareBar(one.rate, one.rate >= HOT ? "hot" : "")));
  return h("table", { class: "list inputs" },
    h("caption", { class: "unseen" }, "Inputs given more than once, by digest"),
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Input digest"), h("th", { scope: "col" }, "Failure type"), h("th", { scope: "col", class: "num" }, "Shown in"), h("th", { scope: "col" }, "Share"))),
    h("tbody", {}, patterns.map(row)));
}
