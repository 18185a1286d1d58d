/** What is known of a signal beyond its row: its fixes and whether they helped, and what its run cost. Read when its card is opened. */

import { get } from "../api.js";
import { h } from "../dom.js";
import { count, duration, isNumber, money, plural } from "../format.js";
import { when } from "../parts.js";
import { segment } from "../router.js";
import { saying } from "../work.js";
import { history, how, inNumbers, verdictBadge } from "./verdict.js";

const fixesOf = (id) => `fixes of ${id}`;
const costOf = (id) => `run of ${id}`;

/** Of a signal's work: its fix-status, or null before it was read. */
export const fixStatus = (id, work) => work.of(fixesOf(id)).value ?? null;

export const readFixes = (id, work, abort) => work.renew(fixesOf(id), () => get(`/v1/signals/${id}/fix-status`, {}, abort));

/** For a card that was just opened. `run`: of the signal, where it is known already. */
export function readMore(signal, work, run) {
  readFixes(signal.id, work);
  if (run || !wasted(signal).tokens || work.of(costOf(signal.id)).value) return;
  work.renew(costOf(signal.id), () => get(`/v1/runs/${segment(signal.run_id)}`, { events: "false", explain: "false" }));
}

/** With each refresh: of the cards that are open, those whose fixes are being watched. */
export async function readAgain(work, abort) {
  const open = [...document.querySelectorAll("details.signal[open]")].map((card) => card.dataset.signal);
  await Promise.all(open.filter((id) => fixStatus(id, work)?.fix_applied).map((id) => readFixes(id, work, abort)));
}

/** What the evidence says was wasted. */
function wasted({ evidence }) {
  const amount = (value) => (isNumber(value) && value > 0 ? value : 0);
  return { tokens: amount(evidence?.wasted_tokens), ms: amount(evidence?.wasted_ms) };
}

/** "8,840 tokens and 8.10 s, about $0.12."; null when nothing is known to be wasted. Money is the run's share, where prices are set. */
export function cost(signal, work, run) {
  const { tokens, ms } = wasted(signal);
  const parts = [tokens ? plural(tokens, "token") : null, ms ? duration(ms / 1000) : null].filter(Boolean);
  if (!parts.length) return null;
  const { total_cost_usd: usd, total_tokens: total } = run ?? work.of(costOf(signal.id)).value ?? {};
  const known = tokens && isNumber(usd) && total > 0;
  const share = known ? (usd * tokens) / total : 0;
  const about = share >= 0.005 ? `about ${money(share)}` : money(share);
  return h("p", {}, parts.join(" and "), known ? [", ", h("b", {}, about), ` of the run's ${money(usd)}`] : null, ".");
}

/** Whether a fix helped, and every fix there was; null without one. */
export function fixResult(signal, work) {
  const { error } = work.of(fixesOf(signal.id));
  if (error) return h("p", { class: "hint" }, `Whether it was fixed can't be read now: ${saying(error)}`);
  const status = fixStatus(signal.id, work);
  if (!status?.fix_applied) return null;
  const fixes = status.fixes ?? [];
  return h("div", { class: "result" },
    h("p", {}, verdictBadge(status.verdict), " ", inNumbers(status)),
    h("p", { class: "soft" }, fixes.length > 1 ? `The first of ${count(fixes.length)} fixes was ` : "The fix was ", how(status), " ", when(status.applied_at, { relative: true }), "."),
    fixes.length > 1 ? h("details", {}, h("summary", {}, "All fixes"), history(fixes)) : null);
}
