/** What a person can do about an issue: acknowledge it, snooze it, resolve it. Used by issues.js and attention.js. */

import { post } from "./api.js";
import { h } from "./dom.js";
import { clock, shorten, utc, visible, words } from "./format.js";
import { menu } from "./menu.js";
import { announce, when } from "./parts.js";
import { saying } from "./work.js";

const HOUR_S = 3600;
const SNOOZES = [["For 1 hour", HOUR_S], ["For 4 hours", 4 * HOUR_S], ["For 1 day", 24 * HOUR_S]];

const nameOf = (issue) => `issue ${issue.id}`;
const now = () => Date.now() / 1000;

export const snoozed = (issue) => issue.status !== "resolved" && issue.snoozed_until > now();
export const acknowledged = (issue) => issue.status !== "resolved" && typeof issue.acknowledged_at === "number";

/** The issue as it will be if the server does what it was just asked for. */
export const asAsked = (issue, work) => ({ ...issue, ...(work.of(nameOf(issue)).state === "busy" ? work.of(nameOf(issue)).guess : {}) });

/** "acknowledged 3 min ago", "snoozed until 14:05": what is told to nobody for now. */
export const quiet = (issue) => [
  snoozed(issue) ? h("span", { class: "told" }, "snoozed until ", h("time", { datetime: new Date(issue.snoozed_until * 1000).toISOString(), title: utc(issue.snoozed_until) }, clock(issue.snoozed_until))) : null,
  acknowledged(issue) ? h("span", { class: "told" }, "acknowledged ", when(issue.acknowledged_at, { relative: true })) : null,
];

/** Sends it; shown at once, and then as the server says it is. `said`: in the past tense, for whoever can't see it. */
async function act(issue, { work, rerun }, { path, body, guess, said }) {
  const answer = await work.start(nameOf(issue), () => post(`/v1/issues/${issue.id}/${path}`, body), { guess, said });
  if (!answer) {
    const { error } = work.of(nameOf(issue));
    if (error) announce(`Not ${said}: ${saying(error)}`);
    return;
  }
  Object.assign(issue, answer);
  announce(`${words(issue.failure_type)} of ${shorten(visible(issue.agent_id), 60)}: ${said}.`);
  rerun();
}

const acknowledgement = (wanted) => ({
  path: "acknowledge", body: { acknowledged: wanted }, said: wanted ? "acknowledged" : "taken back",
  guess: { acknowledged_at: wanted ? now() : null },
});

const snooze = (seconds) => ({
  path: "snooze", body: { seconds }, said: seconds ? "snoozed" : "no longer snoozed",
  guess: { snoozed_until: seconds ? now() + seconds : null },
});

const resolution = () => ({ path: "resolve", body: {}, said: "resolved", guess: { status: "resolved", resolved_at: now() } });

/** The buttons, and in words what went wrong with the last one. `context`: {work, rerun}. */
export function actions(issue, context) {
  const shown = asAsked(issue, context.work);
  const { state, error, said } = context.work.of(nameOf(issue));
  const about = `${words(issue.failure_type)} of ${shorten(visible(issue.agent_id), 40)}`;
  const button = (text, make) =>
    h("button", { type: "button", class: "quiet", "aria-label": `${text} ${about}`, on: { click: () => act(issue, context, make()) } }, text);
  const choices = SNOOZES.map(([text, seconds]) => [text, () => act(issue, context, snooze(seconds))]);
  return h("div", { class: "acting", "aria-busy": state === "busy" ? "true" : null },
    shown.status === "resolved" ? null : h("div", { class: "buttons" },
      acknowledged(shown) ? button("Take back", () => acknowledgement(false)) : button("Acknowledge", () => acknowledgement(true)),
      snoozed(shown) ? button("End snooze", () => snooze(0)) : menu("Snooze", `Snooze ${about}`, choices),
      button("Resolve", resolution)),
    state === "failed" ? h("p", { class: "wrong" }, h("b", {}, said ? `Not ${said}. ` : "That didn't work. "), saying(error), " ",
      h("button", { type: "button", class: "quiet", on: { click: () => context.work.drop(nameOf(issue)) } }, "All right")) : null);
}
