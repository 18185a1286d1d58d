/** The controls above a list. What they choose stands in the address, so that a link shows the same to somebody else. */

import { h } from "./dom.js";
import { TYPES, SEVERITIES } from "./kinds.js";
import { words } from "./format.js";

/** `options`: [value, text]; `change(value)` on choosing. */
export const select = (label, field, value, options, change) =>
  h("label", {}, label, h("select", { name: field, on: { change: (event) => change(event.currentTarget.value) } },
    options.map(([one, text]) => h("option", { value: one, selected: one === value }, text))));

/** A few choices side by side, one of them pressed. */
export const choice = (label, value, options, change) =>
  h("div", { class: "choice", role: "group", "aria-label": label },
    options.map(([one, text]) => h("button", { type: "button", "aria-pressed": String(one === value), on: { click: () => change(one) } }, text)));

const check = (label, field, checked, change) =>
  h("label", { class: "check" }, h("input", { type: "checkbox", name: field, checked, on: { change: (event) => change(event.currentTarget.checked ? "1" : "") } }), label);

/** Severity, failure type and shadow: `filters` as in the address, `filter(change)` to change them. */
export const signalFilters = (filters, filter) =>
  h("div", { class: "filters" },
    select("Severity", "severity", filters.severity ?? "", [["", "Any"], ...SEVERITIES.map((one) => [one, words(one)])], (severity) => filter({ severity })),
    select("Type", "failure_type", filters.failure_type ?? "", [["", "Any"], ...typesWith(filters.failure_type)], (failure_type) => filter({ failure_type })),
    check("Shadow signals too", "shadow", Boolean(filters.shadow), (shadow) => filter({ shadow })));

const typesWith = (chosen) => [...new Set([...TYPES, chosen].filter(Boolean))].sort().map((one) => [one, words(one)]);

/** What the API is asked for them. */
export const signalQuery = ({ severity, failure_type, shadow }) => ({ severity, failure_type, include_shadow: shadow ? "true" : undefined, explain: "true" });

export const ISSUE_STATES = [["", "Open"], ["resolved", "Resolved"], ["all", "All"]];

/** Whether an issue fits what is chosen of ISSUE_STATES. */
export const fits = (issue, state = "") => state === "all" || (issue.status === "resolved") === (state === "resolved");
