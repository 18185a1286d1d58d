/** One agent: its runs, its signals with their explanations, its issues, one tab each. Used by main.js. */

import { get } from "../api.js";
import { h } from "../dom.js";
import { count, plural, visible, words } from "../format.js";
import { issueList } from "../issues.js";
import { Pages } from "../pages.js";
import { SEVERITIES, moreButton, name, panel } from "../parts.js";
import { agentLink, segment, TABS } from "../router.js";
import { runTable } from "../runs.js";
import { signalCard } from "../signal.js";

export function agentView({ id, tab, filters }, { rerun, go }) {
  const base = `/v1/agents/${segment(id)}`;
  const runs = new Pages(`${base}/runs`, "runs", "run_id");
  const signals = new Pages(`${base}/signals`, "signals", "id");
  let issues = [];
  let totals = {};

  /** The tab's own list in full; of the others only how many there are. */
  async function load(abort) {
    const total = async (path) => (await get(path, { limit: 1, explain: "false" }, abort)).page.total;
    const [found, runTotal, signalTotal] = await Promise.all([
      get(`${base}/issues`, {}, abort),
      total(`${base}/runs`),
      total(`${base}/signals`),
      tab === "runs" ? runs.load({ has_signals: filters.has_signals }, abort) : null,
      tab === "signals" ? signals.load(signalQuery(filters), abort) : null,
    ]);
    issues = found.issues;
    totals = { runs: runTotal, signals: signalTotal, issues: issues.filter((issue) => issue.status !== "resolved").length };
  }

  const filter = (change) => go(agentLink(id, tab, { ...filters, ...change }));
  const bodies = {
    runs: () => runsTab(runs, filters, filter, rerun),
    signals: () => signalsTab(signals, issues, filters, filter, rerun),
    issues: () => (issues.length ? issueList(issues, id) : panel("No issues", h("p", {}, "An issue opens with the first run that shows a failure, and resolves after five clean runs."))),
  };
  return {
    title: visible(id),
    family: `agent ${id}`,
    crumbs: [name(id, 40)],
    load,
    render: () => [header(id, totals, issues), tabs(id, tab, totals), h("div", { class: "tab", key: tab }, bodies[tab]())],
  };
}

const signalQuery = ({ severity, failure_type, shadow }) => ({ severity, failure_type, include_shadow: shadow ? "true" : undefined, explain: "true" });

function header(id, totals, issues) {
  const live = issues.filter((issue) => issue.status !== "resolved");
  return h("header", { class: "head" },
    h("h1", { tabindex: "-1" }, name(id, 80)),
    live.length
      ? h("p", { class: "lead" }, h("a", { href: agentLink(id, "issues") }, plural(live.length, "open issue")), ": ",
        live.slice(0, 4).map((issue) => words(issue.failure_type)).join(", "), live.length > 4 ? " and more." : ".")
      : h("p", { class: "lead calm" }, totals.runs ? "No open issues." : "Nothing is known of this agent."));
}

const LABELS = { runs: "Runs", signals: "Signals", issues: "Open issues" };

const tabs = (id, tab, totals) =>
  h("nav", { class: "tabs", "aria-label": "Of this agent" },
    TABS.map((one) => h("a", { href: agentLink(id, one), "aria-current": one === tab ? "page" : null }, LABELS[one], " ", h("span", { class: "n" }, count(totals[one])))));

function runsTab(runs, filters, filter, rerun) {
  const wanted = filters.has_signals ?? "";
  const choose = (event) => filter({ has_signals: event.currentTarget.value });
  return [
    h("div", { class: "filters" }, select("Show", "has_signals", wanted, [["", "All runs"], ["true", "With signals"], ["false", "Without signals"]], choose)),
    runs.items.length ? [runTable(runs.items), moreButton(runs, "run", rerun)]
      : panel("No runs", h("p", {}, wanted ? "No run of this agent fits this filter." : "No run of this agent has been received yet.")),
  ];
}

function signalsTab(signals, issues, filters, filter, rerun) {
  const types = [...new Set([...issues.map((issue) => issue.failure_type), filters.failure_type].filter(Boolean))].sort();
  const choose = (field) => (event) => filter({ [field]: event.currentTarget.value });
  const shadow = (event) => filter({ shadow: event.currentTarget.checked ? "1" : "" });
  const filtered = filters.severity || filters.failure_type;
  return [
    h("div", { class: "filters" },
      select("Severity", "severity", filters.severity ?? "", [["", "Any"], ...SEVERITIES.map((one) => [one, words(one)])], choose("severity")),
      select("Type", "failure_type", filters.failure_type ?? "", [["", "Any"], ...types.map((one) => [one, words(one)])], choose("failure_type")),
      h("label", { class: "check" }, h("input", { type: "checkbox", name: "shadow", checked: Boolean(filters.shadow), on: { change: shadow } }), "Shadow signals too")),
    signals.items.length
      ? [h("div", { class: "signals" }, signals.items.map((signal) => signalCard(signal, { link: true }))), moreButton(signals, "signal", rerun)]
      : panel("No signals", h("p", {}, filtered ? "No signal of this agent fits these filters." : "Nothing has gone wrong in this agent's runs, as far as their structure shows.")),
  ];
}

const select = (label, field, value, options, change) =>
  h("label", {}, label, h("select", { name: field, on: { change } }, options.map(([one, text]) => h("option", { value: one, selected: one === value }, text))));
