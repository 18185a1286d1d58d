/** The overview: what is wrong now, the fleet in figures, and every agent with its week of signals. Used by main.js. */

import { attention } from "../attention.js";
import { horizon, sparkline, totals } from "../dunes.js";
import { h } from "../dom.js";
import { choice } from "../filters.js";
import { compact, count, plural, words } from "../format.js";
import { fleetIssues } from "../issues.js";
import { bySeverity, severityOf, SEVERITIES } from "../kinds.js";
import { mark, moreButton, name, tallies, when } from "../parts.js";
import { Pages } from "../pages.js";
import { fleetRises } from "../rises.js";
import { agentLink, fleetLink, overviewLink } from "../router.js";
import { welcome } from "../welcome.js";

const READ = 500; // agents the sums are over
const SHOWN = 50; // rows at first
const ORDERS = [["", "Trouble first"], ["activity", "Newest first"]];

export function agentsView({ filters }, { go, redraw }) {
  const pages = new Pages("/v1/agents", "agents", "agent_id", READ);
  const state = { issues: [], rises: [], total: 0, shown: SHOWN };

  async function load(abort) {
    const [found] = await Promise.all([readTrouble(abort), pages.load({}, abort)]);
    Object.assign(state, found);
  }

  const more = () => {
    state.shown += SHOWN;
    redraw();
  };
  const order = (by) => go(overviewLink({ by }));
  return {
    title: "Overview",
    family: "overview",
    crumbs: [],
    load,
    render: () => (pages.items.length ? overview(pages, state, { by: filters.by ?? "", order, more }) : welcome()),
  };
}

async function readTrouble(abort) {
  const found = await fleetIssues("", abort);
  return { ...found, rises: await fleetRises(found.issues, abort) };
}

function overview(pages, state, { by, order, more }) {
  const agents = by === "activity" ? pages.items : [...pages.items].sort(byTrouble);
  const shown = agents.slice(0, state.shown);
  const list = { items: shown, total: agents.length, hasMore: agents.length > shown.length, more };
  const week = pages.items.some((agent) => agent.sparkline.some(Boolean));
  return [
    h("div", { class: "overview" },
      figures(pages, state),
      week ? horizon(pages.items) : h("p", { class: "calm" }, "No signals in the last seven days.")),
    attention(state),
    h("section", { "aria-labelledby": "agents" },
      h("div", { class: "line" },
        h("h2", { id: "agents" }, "Agents ", h("span", { class: "n" }, count(pages.total))),
        agents.length > 1 ? choice("Order of the agents", by, ORDERS, order) : null),
      table(shown, openTypes(state.issues)),
      moreButton(list, "agent", () => {})),
  ];
}

function figures(pages, state) {
  const agents = pages.items;
  const sum = (field) => agents.reduce((total, agent) => total + (agent[field] ?? 0), 0);
  const figure = (term, value, detail = null) => h("div", {}, h("dt", {}, term), h("dd", {}, h("b", {}, value), detail));
  const [today, week] = [totals(agents, 1), totals(agents, 7)];
  const all = (counts) => count(Object.values(counts).reduce((a, b) => a + b, 0));
  return h("div", { class: "figures" },
    h("h1", { tabindex: "-1" }, "Overview"),
    h("dl", { class: "sums" },
      figure("Open issues", h("a", { href: fleetLink("issues") }, count(state.total))),
      figure("Signals today", h("a", { href: fleetLink("signals") }, all(today)), tallies(today)),
      figure("In 7 days", all(week), tallies(week)),
      figure("Runs", compact(sum("run_count"))),
      figure("Agents", count(pages.total))),
    pages.hasMore ? h("p", { class: "hint" }, `Sums over the ${count(agents.length)} most recently active agents.`) : null);
}

/** Today's signals by severity, then the week's; of equal trouble the one last active. */
function byTrouble(a, b) {
  const rank = (agent) => [1, 7].flatMap((days) => SEVERITIES.map((severity) => totals([agent], days)[severity] ?? 0));
  const [mine, other] = [rank(a), rank(b)];
  const at = mine.findIndex((n, i) => n !== other[i]);
  return at < 0 ? b.last_seen - a.last_seen : other[at] - mine[at];
}

function openTypes(issues) {
  const open = new Map();
  for (const issue of issues) open.set(issue.agent_id, (open.get(issue.agent_id) ?? 0) + 1);
  return open;
}

const table = (agents, open) =>
  h("table", { class: "list agents" },
    h("caption", { class: "unseen" }, "Agents"),
    h("thead", {}, h("tr", {},
      h("th", { scope: "col" }, "Agent"), h("th", { scope: "col", class: "wide" }, "7 days"),
      h("th", { scope: "col", class: "num" }, "Today"), h("th", { scope: "col", class: "num" }, "In 7 days"),
      h("th", { scope: "col", class: "num" }, "Open issues"), h("th", { scope: "col", class: "wide after" }, "Failure types, ever"),
      h("th", { scope: "col", class: "num" }, "Runs"), h("th", { scope: "col", class: "num" }, "Last seen"))),
    h("tbody", {}, agents.map((agent) => row(agent, open.get(agent.agent_id) ?? 0))));

function row(agent, open) {
  return h("tr", { key: agent.agent_id },
    h("th", { scope: "row" }, h("a", { class: "stretch", href: agentLink(agent.agent_id) }, name(agent.agent_id)), lost(agent)),
    h("td", { class: "wide" }, sparkline(agent.sparkline)),
    h("td", { class: "num" }, tallies(totals([agent], 1))),
    h("td", { class: "num" }, tallies(totals([agent], 7))),
    h("td", { class: "num" }, open ? h("b", {}, count(open)) : h("span", { class: "faint" }, "0")),
    h("td", { class: "wide after" }, failureTypes(agent.failure_types ?? {})),
    h("td", { class: "num" }, compact(agent.run_count)),
    h("td", { class: "num" }, when(agent.last_seen, { relative: true })));
}

const lost = ({ dropped_events: n }) =>
  n ? h("span", { class: "tag", title: "Events its senders said they lost before they could send them." }, `lost ${plural(n, "event")}`) : null;

const CHIPS = 2;

function failureTypes(types) {
  const sorted = Object.entries(types).sort(([a, n], [b, m]) => bySeverity(a, b) || m - n || a.localeCompare(b));
  const chip = ([type, n]) => h("li", {}, mark(severityOf(type)), " ", words(type), " ", h("b", {}, count(n)));
  const rest = sorted.slice(CHIPS);
  return h("ul", { class: "chips" }, sorted.slice(0, CHIPS).map(chip),
    rest.length ? h("li", { class: "rest", title: rest.map(([type, n]) => `${words(type)} ${n}`).join(", ") }, `+${rest.length}`) : null);
}
