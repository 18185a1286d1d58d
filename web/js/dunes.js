/** Seven days of signals as the silhouette of a dune: small beside an agent, wide above the list. Used by views/agents.js. */

import { h, s } from "./dom.js";
import { plural } from "./format.js";

export const DAYS = 7;
const DAY_MS = 86_400_000;
const dayName = new Intl.DateTimeFormat(undefined, { weekday: "short", timeZone: "UTC" });

/** Seven numbers, oldest first, whatever the answer held. */
export const week = (sparkline) => Array.from({ length: DAYS }, (_, i) => Number(sparkline?.at(i - DAYS) ?? 0) || 0);

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

function silhouette(values, width, height, { inset = 3, least = 4, sky = 3 } = {}) {
  const top = Math.max(least, ...values);
  const step = (width - 2 * inset) / (DAYS - 1);
  const points = values.map((v, i) => [round(inset + i * step), round(height - 2 - (v / top) * (height - 2 - sky))]);
  const line = ridge(points);
  const fill = `${line}V${height}H${points[0][0]}Z`;
  return { points, shapes: [s("path", { d: fill, class: "dune" }), s("path", { d: line, class: "ridge" })] };
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

/** The wide one: all agents' signals a day, with the numbers above and the days below. */
export function horizon(sparklines) {
  const values = sparklines.map(week).reduce((sum, days) => sum.map((n, i) => n + days[i]), Array(DAYS).fill(0));
  const { shapes } = silhouette(values, 700, 64, { inset: 0 });
  const labels = dayLabels();
  return h("figure", { class: "horizon" },
    h("ol", {}, values.map((n, i) => h("li", {}, h("span", { class: n ? "" : "faint" }, String(n)), h("span", { class: "day", title: plural(n, "signal") }, labels[i])))),
    s("svg", { viewBox: "0 0 700 64", preserveAspectRatio: "none", "aria-hidden": "true" }, shapes),
    h("figcaption", { class: "unseen" }, "Signals a day over the last seven days, UTC"));
}
