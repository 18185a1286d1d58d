/** The overview: every agent, newest activity first, with its week of signals. Used by main.js. */

import { horizon, sparkline, week } from "../dunes.js";
import { h } from "../dom.js";
import { compact, count, local, plural, utc, words } from "../format.js";
import { codeBlock, mark, moreButton, name, panel, when } from "../parts.js";
import { Pages } from "../pages.js";
import { agentLink } from "../router.js";
import { key } from "../api.js";

export function agentsView(_route, { rerun }) {
  const pages = new Pages("/v1/agents", "agents", "agent_id");
  return {
    title: "Agents",
    crumbs: [],
    load: (signal) => pages.load({}, signal),
    render: () => (pages.items.length ? overview(pages, rerun) : welcome()),
  };
}

function overview(pages, rerun) {
  const agents = pages.items;
  const sum = (field) => agents.reduce((total, agent) => total + (agent[field] ?? 0), 0);
  const recent = agents.flatMap((agent) => week(agent.sparkline)).reduce((a, b) => a + b, 0);
  return [
    h("div", { class: "overview" },
      h("div", { class: "figures" },
        h("h1", { tabindex: "-1" }, "Agents"),
        h("dl", { class: "sums" },
          figure("agents", count(pages.total)),
          figure("runs", compact(sum("run_count"))),
          figure("signals", compact(sum("signal_count"))),
          figure(["critical ", mark("CRITICAL")], compact(sum("critical_count")), sum("critical_count") ? "critical" : ""),
          figure(["high ", mark("HIGH")], compact(sum("high_count")), sum("high_count") ? "high" : "")),
        pages.hasMore ? h("p", { class: "hint" }, `Sums over the ${agents.length} most recently active agents.`) : null),
      recent ? horizon(agents.map((agent) => agent.sparkline)) : h("p", { class: "calm" }, "No signals in the last seven days.")),
    h("table", { class: "list agents" },
      h("caption", { class: "unseen" }, "Agents, newest activity first"),
      h("thead", {}, h("tr", {},
        h("th", { scope: "col" }, "Agent"), h("th", { scope: "col", class: "wide" }, "7 days"),
        h("th", { scope: "col", class: "num" }, "Runs"), h("th", { scope: "col", class: "num" }, "Signals"),
        h("th", { scope: "col", class: "num" }, "Critical"), h("th", { scope: "col", class: "num" }, "High"),
        h("th", { scope: "col", class: "wide after" }, "Failure types"), h("th", { scope: "col", class: "num" }, "Last seen"))),
      h("tbody", {}, agents.map(row))),
    moreButton(pages, "agent", rerun),
  ];
}

const figure = (term, value, tone = "") => h("div", { class: tone || null }, h("dt", {}, term), h("dd", {}, value));

function row(agent) {
  const tally = (n, severity) => h("td", { class: "num" }, n ? h("span", { class: `tally ${severity.toLowerCase()}` }, mark(severity), count(n)) : h("span", { class: "faint" }, "0"));
  return h("tr", { key: agent.agent_id },
    h("th", { scope: "row" }, h("a", { class: "stretch", href: agentLink(agent.agent_id) }, name(agent.agent_id)), lost(agent)),
    h("td", { class: "wide" }, sparkline(agent.sparkline)),
    h("td", { class: "num" }, count(agent.run_count)),
    h("td", { class: "num" }, agent.signal_count ? count(agent.signal_count) : h("span", { class: "faint" }, "0")),
    tally(agent.critical_count, "CRITICAL"),
    tally(agent.high_count, "HIGH"),
    h("td", { class: "wide after" }, failureTypes(agent.failure_types ?? {})),
    h("td", { class: "num" }, when(agent.last_seen, { relative: true })));
}

const lost = ({ dropped_events: n }) =>
  n ? h("span", { class: "tag", title: "Events its senders said they lost before they could send them." }, `lost ${plural(n, "event")}`) : null;

const SHOWN = 3;

function failureTypes(types) {
  const sorted = Object.entries(types).sort(([a, n], [b, m]) => m - n || a.localeCompare(b));
  const chip = ([type, n]) => h("li", { title: type }, words(type), " ", h("b", {}, count(n)));
  const rest = sorted.slice(SHOWN);
  return h("ul", { class: "chips" }, sorted.slice(0, SHOWN).map(chip),
    rest.length ? h("li", { class: "rest", title: rest.map(([type, n]) => `${words(type)} ${n}`).join(", ") }, `+${rest.length}`) : null);
}

/** What a new user sees: nothing has come in yet, and what to do about it. */
function welcome() {
  const server = `http://${location.hostname}:8001`;
  const snippet = [
    "from dunetrace import Dunetrace",
    `dt = Dunetrace("${server}"${key.get() ? ', api_key="…"' : ""})`,
    'with dt.run("my-agent", model="gpt-4o", tools=["search"]) as run:',
    '    run.tool_called("search", {"query": "how dunes move"})',
    '    run.tool_responded("search", success=True)',
  ].join("\n");
  return [
    h("h1", { tabindex: "-1", class: "unseen" }, "Agents"),
    panel("No agent has been heard of yet",
      h("p", {}, "Everything here is ready and listening. Give your agent these five lines; its first run shows up here within seconds."),
      codeBlock("pip install dunetrace", "shell"),
      codeBlock(snippet, "python"),
      h("p", { class: "hint" }, "Only structure leaves the agent: counts, lengths, timings and digests. Never a prompt, an answer or an argument."),
      h("p", { class: "hint", title: utc(Date.now() / 1000) }, `Looked ${local(Date.now() / 1000)}; looking again every 15 seconds.`)),
  ];
}
