/** The issues of all agents, most severe first. Used by main.js. */

import { h } from "../dom.js";
import { choice, fits, ISSUE_STATES } from "../filters.js";
import { count } from "../format.js";
import { fleetIssues, issueList } from "../issues.js";
import { panel } from "../parts.js";
import { fleetLink } from "../router.js";

const NOTHING = {
  "": ["No open issues", "Every agent's last runs were clean, or nothing has been received yet."],
  resolved: ["No resolved issues", "An issue resolves after five runs in a row without it."],
  all: ["No issues", "An issue opens with the first run that shows a failure, and resolves after five clean runs."],
};

export function issuesView({ filters }, context) {
  const state = filters.status ?? "";
  let found = { issues: [], total: 0 };
  const load = async (abort) => {
    found = await fleetIssues(state, abort);
  };
  const render = () => {
    const issues = found.issues.filter((issue) => fits(issue, state));
    const [title, text] = NOTHING[state] ?? NOTHING.all;
    return [
      h("div", { class: "line" }, h("h1", { tabindex: "-1" }, "Issues ", h("span", { class: "n" }, count(found.total))),
        choice("Show issues that are", state, ISSUE_STATES, (status) => context.go(fleetLink("issues", { status })))),
      issues.length ? issueList(issues, context, { agents: true }) : panel(title, h("p", {}, text)),
      found.total > issues.length ? h("p", { class: "more" }, `The ${count(issues.length)} most recent of ${count(found.total)}.`) : null,
    ];
  };
  return { title: "Issues", family: "issues", crumbs: [], load, render };
}
