/** How often each failure shows: the last 7 days, and day by day over 30. Used by insights.js. */

import { h, s } from "../dom.js";
import { count, percent, plural, words } from "../format.js";
import { bySeverity, severityOf } from "../kinds.js";
import { mark, when } from "../parts.js";
import { agentLink } from "../router.js";
import { dayName, lastDays, shareBar } from "./charts.js";

/** `found`: an answer of insights, `id`: the agent's. Failures of the last 7 days first, then those seen only before. */
export function ratesTable(found, id, now_ms = Date.now()) {
  const days = lastDays(now_ms);
  const week = new Map(found.systemic_patterns.map((one) => [one.failure_type, one]));
  const types = [...new Set([...week.keys(), ...found.failure_rates.map((one) => one.failure_type)])];
  const share = (type) => week.get(type)?.rate ?? -1;
  types.sort((a, b) => share(b) - share(a) || bySeverity(a, b));
  return h("table", { class: "list rates" },
    h("caption", { class: "unseen" }, "Failure types and how often they show"),
    h("thead", {}, h("tr", {},
      h("th", { scope: "col" }, "Failure type"), h("th", { scope: "col" }, "Of runs in 7 days"), h("th", { scope: "col", class: "num wide" }, "Affected"),
      h("th", { scope: "col", class: "wide after" }, "Rate a day, 30 days"), h("th", { scope: "col", class: "num" }, "Last seen"))),
    h("tbody", {}, types.map((type) => row(type, week.get(type), found.failure_rates.filter((one) => one.failure_type === type), days, id))));
}

function row(type, week, daily, days, id) {
  return h("tr", { key: type },
    h("th", { scope: "row" }, h("a", { class: "stretch kind", href: agentLink(id, "signals", { failure_type: type }) }, mark(severityOf(type)), " ", words(type)),
      week?.is_systemic ? h("span", { class: "tag systemic", title: "In at least a tenth of the last 7 days' runs." }, "systemic") : null),
    h("td", {}, week ? shareBar(week.rate, week.is_systemic ? "hot" : "") : h("span", { class: "faint" }, "not seen")),
    h("td", { class: "num wide" }, week ? `${count(week.affected_runs)} of ${plural(week.total_runs, "run")}` : "–"),
    h("td", { class: "wide after" }, bars(daily, days)),
    h("td", { class: "num" }, when(week?.last_seen ?? Date.parse(daily.at(-1).day) / 1000, { relative: true })));
}

/** One thin bar a day, as high as the day's rate. */
function bars(daily, days) {
  const by = new Map(daily.map((one) => [one.day, one]));
  const label = daily.map((one) => `${dayName(one.day)} ${percent(one.rate)}`).join(", ");
  return s("svg", { class: "daily", viewBox: "0 0 150 24", role: "img", "aria-label": `Rate a day: ${label || "never"}` }, s("title", {}, label),
    s("path", { class: "floor", d: "M0 23.500H150" }),
    days.map((day, i) => (by.has(day) ? s("rect", { x: i * 5, y: 23 - Math.max(1.5, by.get(day).rate * 22), width: 4, height: Math.max(1.5, by.get(day).rate * 22) }) : null)));
}
