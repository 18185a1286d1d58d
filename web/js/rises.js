/** Fleet signals: failures that became more frequent with a version, a deploy or in an hour. Used by views/{agents,agent}.js. */

import { get } from "./api.js";
import { h, s } from "./dom.js";
import { clock, count, percent, plural, utc, words } from "./format.js";
import { severityOf } from "./kinds.js";
import { mark, name, when } from "./parts.js";
import { agentLink, runLink, segment } from "./router.js";

const ASKED = 12; // agents asked at each refresh: those with the worst open issues
const READ = 20; // fleet signals of one agent, newest first
const FRESH_S = 7 * 86_400; // an older one is history, whatever the issue does

/** An agent's, newest first. */
export const risesOf = async (agent_id, abort) => (await get(`/v1/agents/${segment(agent_id)}/fleet-signals`, { limit: READ }, abort)).fleet_signals;

/** Those of all agents that still hold. `issues`: open ones, the worst first. */
export async function fleetRises(issues, abort) {
  const agents = [...new Set(issues.map((issue) => issue.agent_id))].slice(0, ASKED);
  const found = await Promise.all(agents.map((agent_id) => risesOf(agent_id, abort)));
  return holding(found.flat(), issues);
}

/** Of each agent and failure type the newest one, if it is recent, not over, and its issue is still open. */
export function holding(rises, issues, now = Date.now() / 1000) {
  const open = new Set(issues.filter((issue) => issue.status !== "resolved").map(keyOf));
  const seen = new Set();
  return [...rises].sort((a, b) => b.found_at - a.found_at || b.id - a.id).filter((rise) => {
    const first = !seen.has(keyOf(rise));
    seen.add(keyOf(rise));
    return first && rise.over_at === null && rise.found_at > now - FRESH_S && open.has(keyOf(rise));
  });
}

const keyOf = ({ agent_id, failure_type }) => `${failure_type} ${agent_id}`;

const signalsOf = (rise) => agentLink(rise.agent_id, "signals", { failure_type: rise.failure_type });

/** Since when, as the end of a sentence. */
function since({ scope, subject, since: at }) {
  const moment = h("time", { datetime: new Date(at * 1000).toISOString(), title: utc(at) }, clock(at));
  if (scope === "hour") return ["in the hour from ", moment];
  return [scope === "deploy" ? "since the deploy of " : "since version ", h("span", { class: "mono" }, name(subject, 16)), ", ", moment];
}

/** One card each. `agents`: with whose they are. */
export const riseCards = (rises, { agents = false } = {}) =>
  h("ul", { class: "rises" }, rises.map((rise) => h("li", { key: `rise-${rise.id}` },
    step(rise),
    h("p", { class: "share" }, h("b", {}, percent(rise.rate)), h("span", {}, `was ${percent(rise.rate_before)}`)),
    h("div", { class: "said" },
      h("a", { class: "stretch", href: signalsOf(rise) }, mark(rise.severity), " ", words(rise.failure_type), " became more frequent"),
      h("p", { class: "soft" }, agents ? ["of ", name(rise.agent_id, 40), " "] : null, since(rise)),
      h("p", { class: "faint" }, `${count(rise.affected_runs)} of ${plural(rise.runs, "run")}, ${count(rise.affected_runs_before)} of ${count(rise.runs_before)} before; found `, when(rise.found_at, { relative: true }))))));

/** The two rates as the side of a dune, the higher one as high as the picture. */
function step({ rate, rate_before }) {
  const y = (share) => 40 - Math.max(1.5, (share / Math.max(rate, rate_before, 0.01)) * 36);
  const [low, high] = [y(rate_before).toFixed(1), y(rate).toFixed(1)];
  const line = `M0 ${low}H34C56 ${low} 54 ${high} 76 ${high}H110`;
  return s("svg", { class: "step", viewBox: "0 0 110 42", "aria-hidden": "true" },
    s("path", { class: "dune", d: `${line}V42H0Z` }), s("path", { class: "ridge", d: line }));
}

/** All that were found of one agent, those that are over too. */
export function riseTable(rises) {
  const row = (rise) => h("tr", { key: rise.id },
    h("th", { scope: "row" }, h("a", { class: "stretch kind", href: signalsOf(rise) }, mark(severityOf(rise.failure_type)), " ", words(rise.failure_type))),
    h("td", {}, since(rise)),
    h("td", { class: "num" }, h("b", {}, percent(rise.rate)), ` of ${plural(rise.runs, "run")}`),
    h("td", { class: "num wide" }, percent(rise.rate_before), ` of ${count(rise.runs_before)}`),
    h("td", { class: "num wide" }, h("a", { class: "above mono", href: runLink(rise.run_id) }, name(rise.run_id, 13))),
    h("td", { class: "num" }, when(rise.found_at, { relative: true }), rise.over_at === null ? null : [" ", h("span", { class: "tag" }, "over ", when(rise.over_at, { relative: true }))]));
  return h("table", { class: "list risen" },
    h("caption", { class: "unseen" }, "Failures that became more frequent, newest first"),
    h("thead", {}, h("tr", {},
      h("th", { scope: "col" }, "Failure type"), h("th", { scope: "col" }, "Since"), h("th", { scope: "col", class: "num" }, "Rate"), h("th", { scope: "col", class: "num wide" }, "Before"),
      h("th", { scope: "col", class: "num wide" }, "Run"), h("th", { scope: "col", class: "num" }, "Found"))),
    h("tbody", {}, rises.map(row)));
}
