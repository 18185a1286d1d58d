/** How soon runs reach their first tool call: quartiles, and the daily mean over 30 days. Used by insights.js. */

import { h, s } from "../dom.js";
import { count, isNumber, percent, plural } from "../format.js";
import { BOTTOM, chart, dayAxis, dayName, lastDays, LEFT, levels, roundUp } from "./charts.js";

const HEIGHT = 150;
const TOP = 8;

export const step = (value) => (isNumber(value) ? String(Math.round(value * 10) / 10) : "–");

/** `pace`: time_to_tool of an answer of insights; `width` in pixels. */
export function paceChart(pace, width, now_ms = Date.now()) {
  const days = lastDays(now_ms);
  const by = new Map(pace.daily_trend.map((one) => [one.day, one]));
  const means = days.map((day) => by.get(day)?.avg_first_tool_step ?? null);
  const top = roundUp(Math.max(0, ...means));
  const slot = (width - LEFT) / days.length;
  const baseline = HEIGHT - BOTTOM;
  const y = (value) => baseline - (value / top) * (baseline - TOP);
  const points = means.flatMap((mean, i) => (mean === null ? [] : [{ x: LEFT + (i + 0.5) * slot, y: y(mean), i, mean }]));
  return [
    h("dl", { class: "sums small" },
      [["25 % of runs by step", pace.p25], ["50 %", pace.p50], ["75 %", pace.p75]].map(([term, value]) => h("div", {}, h("dt", {}, term), h("dd", {}, step(value))))),
    h("p", { class: "hint" }, `${percent(pace.total_runs ? pace.runs_with_tool / pace.total_runs : undefined)} of ${plural(pace.total_runs, "run")} called a tool.`),
    chart({
      title: "First tool call, mean step a day",
      words: points.length ? `Between step ${step(Math.min(...points.map(({ mean }) => mean)))} and ${step(Math.max(...points.map(({ mean }) => mean)))}.` : "No tool was called.",
      width,
      height: HEIGHT,
      parts: [levels(top, y, width), dayAxis(days, slot, baseline), curve(points), points.map((point) => dot(point, days, by))],
      rows: [["Day", "Runs", "With a tool", "Mean first tool step"], ...pace.daily_trend.map((one) => [dayName(one.day), count(one.run_count), count(one.runs_with_tool), step(one.avg_first_tool_step)])],
    }),
  ];
}

/** One line through days that follow each other; a gap where nothing ran. */
const curve = (points) => s("path", { class: "curve", d: points.map(({ x, y, i }, at) => `${at && points[at - 1].i === i - 1 ? "L" : "M"}${x} ${y}`).join("") });

const dot = ({ x, y, i, mean }, days, by) =>
  s("g", { class: "column" }, s("title", {}, `${dayName(days[i])}: step ${step(mean)}, ${by.get(days[i]).runs_with_tool} of ${plural(by.get(days[i]).run_count, "run")}`),
    s("circle", { class: "whole", cx: x, cy: y, r: 9 }), s("circle", { class: "point", cx: x, cy: y, r: 3 }));
