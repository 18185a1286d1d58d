/** The fixes of an agent's signals, and whether they helped. Used by insights.js. */

import { verdictBadge } from "../fixing/verdict.js";
import { h } from "../dom.js";
import { words } from "../format.js";
import { severityOf } from "../kinds.js";
import { mark, when } from "../parts.js";
import { agentLink } from "../router.js";

const VIA = { langfuse: "applied to a prompt", clipboard: "copied" };

/** `fixes`: an answer of fixes, newest first; `id`: the agent's. */
export function fixesTable(fixes, id) {
  const row = (fix, at) => h("tr", { key: `${fix.signal_id} ${fix.applied_at} ${at}` },
    h("th", { scope: "row" }, h("a", { class: "stretch kind", href: agentLink(id, "signals", { failure_type: fix.failure_type }) }, mark(severityOf(fix.failure_type)), " ", words(fix.failure_type))),
    h("td", {}, verdictBadge(fix.verdict)),
    h("td", { class: "wide" }, VIA[fix.applied_via] ?? words(fix.applied_via)),
    h("td", { class: "num" }, when(fix.applied_at, { relative: true })));
  return h("table", { class: "list mended" },
    h("caption", { class: "unseen" }, "Fixes, newest first"),
    h("thead", {}, h("tr", {},
      h("th", { scope: "col" }, "Failure type"), h("th", { scope: "col" }, "Since then"), h("th", { scope: "col", class: "wide" }, "How"), h("th", { scope: "col", class: "num" }, "When"))),
    h("tbody", {}, fixes.map(row)));
}
