/** Copying a fix, and saying so to the server, so that the runs since can be judged. Used by panel.js, explaining.js and signal.js. */

import { post } from "../api.js";
import { h } from "../dom.js";
import { copyButton, announce } from "../parts.js";
import { saying } from "../work.js";
import { readFixes } from "./status.js";

const nameOf = (signal) => `copy of ${signal.id}`;

/** It says "Copied" from then on, over refreshes. */
export const copyFix = (text, signal, work) =>
  copyButton(text, work.of(nameOf(signal)).text === text ? "Copied" : "Copy fix", () => note(text, signal, work));

async function note(text, signal, work) {
  const noted = await work.start(nameOf(signal), () => post(`/v1/signals/${signal.id}/record-copy`, { fix_content: text }), { text });
  if (!noted) return;
  announce("Copied, and noted: the runs from now on show whether it helps.");
  await readFixes(signal.id, work);
}

/** What became of telling the server. */
export function noted(signal, work) {
  const { state, error } = work.of(nameOf(signal));
  if (state === "done") return h("p", { class: "hint" }, "Copied, and noted: the runs from now on show whether it helps.");
  return state === "failed" ? h("p", { class: "wrong", role: "alert" }, h("b", {}, "Copied, but not noted. "), saying(error)) : null;
}
