/** Seven days of signals as the silhouette of a dune: small beside an agent, wide above the list. Used by views/agents.js. */

import { h, s } from "./dom.js";
import { plural } from "./format.js";

export const DAYS = 7;
const DAY_MS = 86_400_000;
const dayName = new Intl.DateTimeFormat(undefined, { weekday: "short", timeZone: "UTC" });

/** Seven numbers, oldest first, whatever the answer held. */
export const week = (sparkline) => Array.from({ length: DAYS }, (_, i) => Number(sparkline?.at(i - DAYS) ?? 0) || 0);

/** Live signals of some agents by severity over the last `days`: {SEVERITY: n}. */
export function totals(agents, days) {
  const sums = {};
  for (const { severity_sparklines: by } of agents) {
    for (const [severity, sparkline] of Object.entries(by ?? {})) {
      sums[severity] = (sums[severity] ?? 0) + week(sparkline).slice(-days).reduce((a, b) => a + b, 0);
    }
  }
  return sums;
}

export function dayLabels(now_ms = Date.now()) {
  return Array.from({ length: DAYS }, (_, i) => (i === DAYS - 1 ? "Today" : dayName.format(now_ms - (DAYS - 1 - i) * DAY_MS)));
}

const inWords = (values) => dayLabels().map((day, i) => `${day}: ${values[i]}`).join(", ");

/** A curve through the points that never overshoots them: horizontal at each day, so a peak is where the number is. */
function ridge(points) {
  const [first, ...rest] = points;
  let [x0, y0] = first;
  let path = `M${x0} ${y0}`;
  for (const [x, y] of rest) {
    const middle = (x0 + x) / 2;
    path += `C${middle} ${y0} ${middle} ${y} ${x} ${y}`;
    [x0, y0] = [x, y];
  }
  return path;
}

function silhouette(values, width, height, { inset = 3, least = 4, sky = 3, top = Math.max(least, ...values), kind = "" } = {}) {
  const step = (width - 2 * inset) / (DAYS - 1);
  const points = values.map((v, i) => [round(inset + i * step), round(height - 2 - (v / top) * (height - 2 - sky))]);
  const line = ridge(points);
  const fill = `${line}V${height}H${points[0][0]}Z`;
  return { points, top, shapes: [s("path", { d: fill, class: `dune ${kind}` }), s("path", { d: line, class: `ridge ${kind}` })] };
}

const round = (n) => Math.round(n * 10) / 10;

/** The small one, 112 × 28. */
export function sparkline(raw) {
  const values = week(raw);
  const total = values.reduce((a, b) => a + b, 0);
  const label = total ? `Signals a day: ${inWords(values)}` : "No signals in the last 7 days";
  const { points, shapes } = silhouette(values, 112, 28);
  const [x, y] = points.at(-1);
  return s("svg", { class: total ? "spark" : "spark still", viewBox: "0 0 112 28", role: "img", "aria-label": label },
    s("title", {}, label), shapes, values.at(-1) ? s("circle", { cx: x, cy: y, r: 2.5, class: "today" }) : null);
}

const added = (lists) => lists.map(week).reduce((sum, days) => sum.map((n, i) => n + days[i]), Array(DAYS).fill(0));

/** The wide one: all agents' signals a day, the grave ones in front, with the numbers above and the days below. */
export function horizon(agents) {
  const values = added(agents.map((agent) => agent.sparkline));
  const grave = added(agents.flatMap(({ severity_sparklines: by }) => [by?.CRITICAL, by?.HIGH]));
  const behind = silhouette(values, 700, 64, { inset: 0 });
  const front = silhouette(grave, 700, 64, { inset: 0, top: behind.top, kind: "grave" });
  const labels = dayLabels();
  const title = (i) => `${plural(values[i], "signal")}, ${grave[i]} of them high or critical`;
  return h("figure", { class: "horizon" },
    h("ol", {}, values.map((n, i) => h("li", { title: title(i) }, h("span", { class: n ? "" : "faint" }, String(n)), h("span", { class: "day" }, labels[i])))),
    s("svg", { viewBox: "0 0 700 64", preserveAspectRatio: "none", "aria-hidden": "true" }, behind.shapes, grave.some(Boolean) ? front.shapes : null),
    h("figcaption", {}, h("span", { class: "swatch" }), "signals a day, UTC", grave.some(Boolean) ? [h("span", { class: "swatch grave" }), "high and critical"] : null));
}
