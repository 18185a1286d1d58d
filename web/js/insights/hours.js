/** When of the day runs start and go wrong: runs upwards, the share of them with signals downwards. Used by insights.js. */

import { h, s } from "../dom.js";
import { count, percent, plural } from "../format.js";
import { chart, LEFT } from "./charts.js";

const HEIGHT = 170;
const AXIS = 98; // the hours' line
const HALF = 14; // for their names

/** `pattern`: hourly_pattern of an answer of insights, hours of UTC; `width` in pixels. */
export function hoursChart(pattern, width) {
  const by = new Map(pattern.map((one) => [one.hour_of_day, one]));
  const hours = Array.from({ length: 24 }, (_, hour) => by.get(hour) ?? { hour_of_day: hour, run_count: 0, signal_count: 0, signal_rate: 0 });
  const most = Math.max(1, ...hours.map(({ run_count }) => run_count));
  const worst = pattern.reduce((a, b) => (b.signal_rate > (a?.signal_rate ?? 0) ? b : a), null);
  const slot = (width - LEFT) / 24;
  const up = AXIS - HALF;
  const down = HEIGHT - AXIS - 8;
  const column = ({ hour_of_day: hour, run_count, signal_rate, signal_count }) => {
    const x = LEFT + hour * slot + slot * 0.14;
    const [runs, rate] = [(run_count / most) * (up - 12), Math.min(1, signal_rate) * down];
    return s("g", { class: "column" }, s("title", {}, `${clock(hour)} UTC: ${plural(run_count, "run")}, ${count(signal_count)} with signals (${percent(signal_rate)})`),
      s("rect", { class: "whole", x: LEFT + hour * slot, y: 0, width: slot, height: HEIGHT }),
      s("rect", { class: "runs", x, y: up - runs, width: slot * 0.72, height: runs }),
      s("rect", { class: "rate", x, y: AXIS, width: slot * 0.72, height: rate }));
  };
  return chart({
    title: "Runs by the hour, UTC",
    heading: "h2",
    legend: h("ul", { class: "legend" }, h("li", {}, h("span", { class: "swatch still" }), " runs"), h("li", {}, h("span", { class: "swatch grave" }), " share of them with signals")),
    words: worst ? `Signals are most frequent from ${clock(worst.hour_of_day)} on, in ${percent(worst.signal_rate)} of its runs.` : "No run has shown a signal.",
    width,
    height: HEIGHT,
    parts: [
      s("g", { class: "grid" }, s("path", { d: `M${LEFT} ${up}H${width}M${LEFT} ${AXIS}H${width}` })),
      [[20, count(most)], [up, "0"], [AXIS + 4, "0 %"], [HEIGHT - 4, "100 %"]].map(([y, text]) => s("text", { x: LEFT - 4, y, "text-anchor": "end" }, text)),
      hours.map(column),
      [0, 6, 12, 18, 23].map((hour) => s("text", { class: "day", x: LEFT + (hour + 0.5) * slot, y: AXIS - 3, "text-anchor": "middle" }, String(hour))),
    ],
    rows: [["Hour", "Runs", "With signals", "Share"], ...hours.map((one) => [clock(one.hour_of_day), count(one.run_count), count(one.signal_count), percent(one.signal_rate)])],
  });
}

const clock = (hour) => `${String(hour).padStart(2, "0")}:00`;
