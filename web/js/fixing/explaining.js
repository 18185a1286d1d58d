/** Asking what led to a signal, and showing the answer with its proposed fix. Used by panel.js. */

import { post } from "../api.js";
import { h } from "../dom.js";
import { visible, words } from "../format.js";
import { announce, codeBlock, prose, when } from "../parts.js";
import { applying } from "./applying.js";
import { copyFix } from "./copying.js";

const PATIENCE_MS = 120_000; // the server gives up after 110 s

const nameOf = (signal) => `explain ${signal.id}`;

const SOURCES = {
  langfuse: "From the run's trace in Langfuse, in a model's words. A trace can hold what others wrote to mislead: read before you use it.",
  signal_only: "From the signal alone: Langfuse has no trace of this run (one can take some minutes to show there). In a model's words; read before you use it.",
};

async function ask(signal, work) {
  const found = await work.start(nameOf(signal), () => post(`/v1/signals/${signal.id}/explain`, {}, PATIENCE_MS));
  if (found) announce(`${words(signal.failure_type)} is explained.`);
}

/** Whether it was asked for: then there is something to show below the card's words. */
export const asked = (signal, work) => work.of(nameOf(signal)).state !== "idle";

export const askButton = (signal, work, text = "Explain with Langfuse") =>
  h("button", { type: "button", on: { click: () => ask(signal, work) } }, text);

/** The way there, or the answer. */
export function explained(signal, work) {
  const { state, value, error, since } = work.of(nameOf(signal));
  if (state === "busy") return underWay(since);
  return state === "failed" ? refused(error, signal, work) : proposal(value, signal, work);
}

const underWay = (since) =>
  h("div", { class: "under-way" },
    h("p", { role: "status" }, "The run's trace is being read and a model asked…"),
    h("progress", { "aria-label": "Being explained" }),
    h("p", { class: "hint" }, "Asked ", when(since, { relative: true }), ". It can take a minute or two. You can go on meanwhile: the answer waits here until this page is closed."));

/** What is not set up is nothing to be alarmed about. */
function refused(error, signal, work) {
  const unset = error.kind === "busy" && !error.passes && error.detail;
  const text = unset ? [error.detail, ". With these settings the server reads a run's trace and asks a model what led to a signal, when somebody presses this."]
    : [h("b", {}, error.title ?? "Something went wrong in this page", ". "), error.detail];
  return h("div", { class: unset ? "unset" : "wrong", role: unset ? "status" : "alert" },
    h("p", {}, text), h("p", { class: "actions" }, askButton(signal, work, "Try again")));
}

const lines = (text) => String(text).split("\n").map((line) => (line === "" ? "" : visible(line))).join("\n");

function proposal(found, signal, work) {
  return h("div", { class: "proposal" },
    h("div", {}, h("h4", {}, "Root cause"), h("p", { class: "cause" }, prose(lines(found.root_cause))),
      h("p", { class: "hint" }, SOURCES[found.source] ?? SOURCES.signal_only),
      h("p", { class: "actions" }, askButton(signal, work, "Ask again"))),
    h("div", {}, h("h4", {}, "Proposed fix"), codeBlock(lines(found.fix_content), "text", copyFix(found.fix_content, signal, work)),
      applying(found, signal, work)));
}
