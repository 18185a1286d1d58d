/** The lower part of a signal's card: whether it was fixed, and the way to a fix. Used by signal.js. */

import { h } from "../dom.js";
import { noted } from "./copying.js";
import { asked, askButton, explained } from "./explaining.js";
import { fixResult } from "./status.js";

export function fixing(signal, work) {
  return h("div", { class: "fixing" },
    fixResult(signal, work),
    noted(signal, work),
    asked(signal, work) ? explained(signal, work)
      : h("p", { class: "actions" }, askButton(signal, work), h("span", { class: "hint" }, "Reads this run's trace in your Langfuse and asks the model that is set up. Nothing of it is kept here.")));
}
