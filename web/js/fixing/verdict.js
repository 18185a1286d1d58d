/** Whether a fix helped, in words with its numbers. Used by status.js, signal.js and the insights' table of fixes. */

import { h, s } from "../dom.js";
import { count, plural } from "../format.js";
import { name, when } from "../parts.js";

const RUNS_TO_TELL = 5; // from so many runs without the failure on, the server says that a fix is likely to have helped

const VERDICTS = {
  verified: ["Verified", "M3 8.500L6.500 12L13 4.500"],
  likely_fixed: ["Likely fixed", "M3 8.500L6.500 12L13 4.500"],
  still_occurring: ["Still occurring", "M13 8A5 5 0 1 1 11 4M11 1V4.500H7.500"],
  insufficient_data: ["Too early to tell", "M8 4V8L11 10M8 2A6 6 0 1 1 8 14A6 6 0 1 1 8 2"],
};

/** "Verified" with its icon. */
export function verdictBadge(verdict) {
  const [text, path] = VERDICTS[verdict] ?? VERDICTS.insufficient_data;
  return h("span", { class: `verdict ${verdict}` }, s("svg", { class: "mark", viewBox: "0 0 16 16", "aria-hidden": "true" }, s("path", { class: "stroke", d: path })), text);
}

/** The runs since and before, as sentences. `status`: of fix-status. */
export function inNumbers({ runs_after: runs, recurrence_after: again, runs_before, recurrence_before, verdict }) {
  const since = !runs ? "No run of this agent was judged since the fix."
    : again ? `${count(again)} of ${plural(runs, "run")} since the fix ${again === 1 ? "shows" : "show"} it again.`
      : runs === 1 ? "The one run since the fix doesn't show it." : `None of the ${count(runs)} runs since the fix shows it.`;
  const before = runs_before ? ` In the 30 days before, ${count(recurrence_before)} of ${count(runs_before)} did.` : "";
  return since + before + (verdict === "insufficient_data" ? ` It takes ${RUNS_TO_TELL} runs without it to tell.` : "");
}

/** How a fix was made, of `fixes[]`. */
export const how = (fix) => (fix.applied_via === "langfuse"
  ? ["applied to the prompt ", h("b", {}, name(fix.langfuse_prompt_name ?? "", 60)), fix.langfuse_version ? `, version ${count(fix.langfuse_version)}` : ""]
  : ["copied"]);

/** Every fix of a signal, the newest first. */
export const history = (fixes) =>
  h("ol", { class: "history" }, [...fixes].reverse().map((fix) => h("li", { key: fix.fix_id }, when(fix.applied_at), " ", how(fix))));
