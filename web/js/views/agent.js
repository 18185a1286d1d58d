/** One agent: its runs, its signals with their explanations, its issues and its insights, one tab each. Used by main.js. */

import { get } from "../api.js";
import { h } from "../dom.js";
import { choice, fits, ISSUE_STATES, select, signalFilters, signalQuery } from "../filters.js";
import { count, plural, visible, words } from "../format.js";
import { insights, readInsights } from "../insights/insights.js";
import { issueList } from "../issues.js";
import { bySeverity } from "../kinds.js";
import { Pages } from "../pages.js";
import { moreButton, name, panel } from "../parts.js";
import { holding, riseCards, risesOf } from "../rises.js";
import { agentLink, segment, TABS } from "../router.js";
import { runTable } from "../runs.js";
import { signalCard } from "../signal.js";

export function agentView({ id, tab, filters }, context) {
  const { rerun, go, width } = context;
  const base = `/v1/agents/${segment(id)}`;
  const runs = new Pages(`${base}/runs`, "runs", "run_id");
  const signals = new Pages(`${base}/signals`, "signals", "id");
  const state = { issues: [], rises: [], totals: {}, insights: null, fixes: [] };

  /** The tab's own list in full; of the others only how many there are. */
  async function load(abort) {
    const total = async (path) => (await get(path, { limit: 1, explain: "false" }, abort)).page.total;
    const [{ issues }, rises, runTotal, signalTotal, found, fixes] = await Promise.all([
      get(`${base}/issues`, {}, abort),
      risesOf(id, abort),
      total(`${base}/runs`),
      total(`${base}/signals`),
      tab === "insights" ? readInsights(base, abort) : null,
      tab === "signals" || tab === "insights" ? get(`${base}/fixes`, {}, abort) : null,
      tab === "runs" ? runs.load({ has_signals: filters.has_signals, status: filters.status }, abort) : null,
      tab === "signals" ? signals.load(signalQuery(filters), abort) : null,
    ]);
    const open = issues.filter((issue) => fits(issue)).sort((a, b) => bySeverity(a.failure_type, b.failure_type));
    Object.assign(state, { issues, open, rises, insights: found, fixes: fixes?.fixes ?? [], totals: { runs: runTotal, signals: signalTotal, issues: open.length } });
  }

  const filter = (change) => go(agentLink(id, tab, { ...filters, ...change }));
  const bodies = {
    runs: () => runsTab(runs, filters, filter, rerun),
    signals: () => signalsTab(signals, state.fixes, filters, filter, context),
    issues: () => issuesTab(state.issues, filters.status, filter, context),
    insights: () => insights({ ...state.insights, rises: state.rises, fixes: state.fixes }, id, width()),
  };
  return {
    title: visible(id),
    family: `agent ${id}`,
    crumbs: [name(id, 40)],
    load,
    render: () => [header(id, state), tabs(id, tab, state.totals), h("div", { class: "tab", key: tab }, bodies[tab]())],
  };
}

const NAMED = 4;

function header(id, { open, rises, totals }) {
  const risen = holding(rises, open);
  const known = totals.runs ? "No open issues." : "Nothing is known of this agent.";
  return h("header", { class: "head" },
    h("h1", { tabindex: "-1" }, name(id, 80)),
    open.length
      ? h("p", { class: "lead" }, h("a", { href: agentLink(id, "issues") }, plural(open.length, "open issue")), ": ",
        open.slice(0, NAMED).map((issue) => words(issue.failure_type)).join(", "), open.length > NAMED ? " and more." : ".")
      : h("p", { class: totals.runs ? "lead calm" : "lead" }, known),
    risen.length ? riseCards(risen) : null);
}

const LABELS = { runs: "Runs", signals: "Signals", issues: "Open issues", insights: "Insights" };

const tabs = (id, tab, totals) =>
  h("nav", { class: "tabs", "aria-label": "Of this agent" },
    TABS.map((one) => h("a", { href: agentLink(id, one), "aria-current": one === tab ? "page" : null }, LABELS[one], one in totals ? [" ", h("span", { class: "n" }, count(totals[one]))] : null)));

const WITH = [["", "All runs"], ["true", "With signals"], ["false", "Without signals"]];
const STANDINGS = ["running", "completed", "errored", "stalled", "parked"];

function runsTab(runs, filters, filter, rerun) {
  return [
    h("div", { class: "filters" },
      select("Show", "has_signals", filters.has_signals ?? "", WITH, (has_signals) => filter({ has_signals })),
      select("Status", "status", filters.status ?? "", [["", "Any"], ...STANDINGS.map((one) => [one, words(one)])], (status) => filter({ status }))),
    runs.items.length ? [runTable(runs.items), moreButton(runs, "run", rerun)]
      : panel("No runs", h("p", {}, filters.has_signals || filters.status ? "No run of this agent fits these filters." : "No run of this agent has been received yet.")),
  ];
}

function signalsTab(signals, fixes, filters, filter, context) {
  const filtered = filters.severity || filters.failure_type;
  return [
    signalFilters(filters, filter),
    signals.items.length
      ? [h("div", { class: "signals" }, signals.items.map((signal) => signalCard(signal, context, { link: true, fixes }))), moreButton(signals, "signal", context.rerun)]
      : panel("No signals", h("p", {}, filtered ? "No signal of this agent fits these filters." : "Nothing has gone wrong in this agent's runs, as far as their structure shows.")),
  ];
}

function issuesTab(issues, status = "", filter, context) {
  const shown = issues.filter((issue) => fits(issue, status));
  return [
    h("div", { class: "filters" }, choice("Show issues that are", status, ISSUE_STATES, (one) => filter({ status: one }))),
    shown.length ? issueList(shown, context)
      : panel(issues.length ? "None of these" : "No issues", h("p", {}, issues.length ? "No issue of this agent is in that state." : "An issue opens with the first run that shows a failure, and resolves after five clean runs.")),
  ];
}
