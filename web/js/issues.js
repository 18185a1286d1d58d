/** Issues as a table: one failure type each, open until enough runs stay clean of it. Used by views/{agents,agent,issues}.js. */

import { actions, asAsked, quiet } from "./acting.js";
import { get } from "./api.js";
import { h, s } from "./dom.js";
import { count, plural, words } from "./format.js";
import { bySeverity, severityOf } from "./kinds.js";
import { mark, name, when } from "./parts.js";
import { agentLink } from "./router.js";

const CLEAN_RUNS = 5; // in a row, until an issue counts as resolved
const MOST = 500; // the API's largest limit

const ICONS = { open: "M8 2A6 6 0 1 1 8 14A6 6 0 1 1 8 2M8 5V8.500M8 11V11.100", reopened: "M13 8A5 5 0 1 1 11 4M11 1V4.500H7.500", resolved: "M3 8.500L6.500 12L13 4.500" };

/** {issues, total} of all agents, most severe first, then the latest trouble. `state`: "" is open and reopened, "resolved", "all". */
export async function fleetIssues(state, abort) {
  const statuses = { resolved: ["resolved"], all: ["all"] }[state] ?? ["open", "reopened"];
  const answers = await Promise.all(statuses.map((status) => get("/v1/issues/search", { status, limit: MOST }, abort)));
  const issues = answers.flatMap((answer) => answer.issues);
  issues.sort((a, b) => bySeverity(a.failure_type, b.failure_type) || b.last_seen - a.last_seen || a.id - b.id);
  return { issues, total: answers.reduce((sum, answer) => sum + answer.total, 0) };
}

/** `agents`: with a column that says whose each is; `context`: what acting on them needs. */
export function issueList(issues, context, { agents = false } = {}) {
  return h("table", { class: agents ? "list issues whose" : "list issues" },
    h("caption", { class: "unseen" }, "Issues"),
    h("thead", {}, h("tr", {},
      h("th", { scope: "col" }, "Issue"), agents ? h("th", { scope: "col" }, "Agent") : null, h("th", { scope: "col" }, "Status"),
      h("th", { scope: "col", class: "num" }, "Affected runs"), h("th", { scope: "col", class: "after" }, "Clean runs since"),
      h("th", { scope: "col", class: "num wide" }, "First seen"), h("th", { scope: "col", class: "num" }, "Last seen"),
      h("th", { scope: "col" }, h("span", { class: "unseen" }, "What to do")))),
    h("tbody", {}, issues.map((issue) => row(issue, context, agents))));
}

function row(given, context, agents) {
  const issue = asAsked(given, context.work);
  const href = agentLink(issue.agent_id, "signals", { failure_type: issue.failure_type });
  return h("tr", { key: issue.id, class: issue.status },
    h("th", { scope: "row" }, h("a", { class: "stretch kind", href }, mark(severityOf(issue.failure_type)), " ", words(issue.failure_type))),
    agents ? h("td", { class: "who" }, name(issue.agent_id, 40)) : null,
    h("td", { class: "state" }, h("span", { class: `standing ${issue.status}` },
      s("svg", { class: "mark", viewBox: "0 0 16 16", "aria-hidden": "true" }, s("path", { class: "stroke", d: ICONS[issue.status] ?? ICONS.open })), words(issue.status)), quiet(issue)),
    h("td", { class: "num affected" }, count(issue.affected_runs), h("span", { class: "small" }, " affected")),
    h("td", { class: "after" }, issue.status === "resolved" ? resolved(issue) : progress(issue.clean_runs_since)),
    h("td", { class: "num wide" }, when(issue.first_seen)),
    h("td", { class: "num last" }, when(issue.last_seen, { relative: true })),
    h("td", { class: "do" }, actions(given, context)));
}

const resolved = (issue) => h("span", { class: "faint" }, "resolved ", when(issue.resolved_at, { relative: true }));

/** Five dots: how far an open issue is on its way to resolved. `more` is said after their number. */
export function progress(clean, more = "") {
  const done = Math.min(clean ?? 0, CLEAN_RUNS);
  const label = `${plural(done, "clean run")} of the ${CLEAN_RUNS} that resolve it`;
  return h("span", { class: "progress", title: label },
    s("svg", { viewBox: "0 0 60 12", role: "img", "aria-label": label },
      Array.from({ length: CLEAN_RUNS }, (_, i) => s("circle", { cx: 6 + i * 12, cy: 6, r: 4, class: i < done ? "done" : "due" }))),
    `${done} of ${CLEAN_RUNS}${more}`);
}
