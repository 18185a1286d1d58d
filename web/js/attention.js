/** What is wrong now: failures that became more frequent, and the open issues of all agents, the worst first. Used by views/agents.js. */

import { acknowledged, quiet, snoozed } from "./acting.js";
import { h } from "./dom.js";
import { count, plural, words } from "./format.js";
import { progress } from "./issues.js";
import { severityOf } from "./kinds.js";
import { name, severityBadge, when } from "./parts.js";
import { riseCards } from "./rises.js";
import { agentLink, fleetLink } from "./router.js";

const SHOWN = 6;
const RISES = 4;

const dealtWith = (issue) => Number(acknowledged(issue) || snoozed(issue));

/** `issues`: the worst first, `total`: how many there are in all, `rises`: fleet signals that hold. */
export function attention({ issues, total, rises }) {
  if (!issues.length) return h("p", { class: "lead calm", key: "attention" }, "No open issues. The last runs of every agent were clean, or show nothing that repeats.");
  const rest = total - Math.min(issues.length, SHOWN);
  return h("section", { "aria-labelledby": "wrong-now", key: "attention" },
    h("h2", { id: "wrong-now" }, "Wrong now ", h("span", { class: "n" }, count(total))),
    rises.length ? riseCards(rises.slice(0, RISES), { agents: true }) : null,
    h("ul", { class: "wrongs" }, [...issues].sort((a, b) => dealtWith(a) - dealtWith(b)).slice(0, SHOWN).map(wrong)),
    rest > 0 ? h("p", { class: "more" }, h("a", { href: fleetLink("issues") }, `All ${plural(total, "open issue")}`)) : null);
}

const wrong = (issue) =>
  h("li", { key: `wrong-${issue.id}`, class: `${severityOf(issue.failure_type).toLowerCase()}${dealtWith(issue) ? " dealt" : ""}` },
    h("div", { class: "line" }, h("span", {}, severityBadge(severityOf(issue.failure_type)), issue.status === "reopened" ? [" ", h("span", { class: "tag" }, "reopened")] : null), when(issue.last_seen, { relative: true })),
    h("a", { class: "stretch", href: agentLink(issue.agent_id, "signals", { failure_type: issue.failure_type }) }, words(issue.failure_type)),
    h("p", { class: "who" }, name(issue.agent_id, 48)),
    h("div", { class: "line" }, h("span", { class: "soft" }, plural(issue.affected_runs, "affected run")), dealtWith(issue) ? h("span", {}, quiet(issue)) : progress(issue.clean_runs_since, " clean")));
