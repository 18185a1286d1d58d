/** A proposed fix on its way into a prompt of Langfuse's: what will be added, the one press that does it, and what it did. Used by explaining.js. */

import { post } from "../api.js";
import { h } from "../dom.js";
import { count, shorten, visible } from "../format.js";
import { announce, name } from "../parts.js";
import { saying } from "../work.js";
import { diff } from "./diff.js";
import { readFixes } from "./status.js";

const PATIENCE_MS = 80_000; // the server waits up to 20 s for its turn and takes up to 45

const nameOf = (signal) => `apply to ${signal.id}`;
const draftOf = (signal) => `prompt of ${signal.id}`; // a name half typed, so that a refresh doesn't take it away

const BLOCKED = {
  code_change: "This fix is a change of the agent's code, so it can't be put into a prompt. Copy it instead.",
  no_auto_apply: "Against an injection nothing is ever applied for you: the same input may have had its say in this fix. Read it, and harden the agent by hand.",
};

/** `found`: of explain. */
export function applying(found, signal, work) {
  if (found.apply_blocked) return h("p", { class: "blocked" }, BLOCKED[found.fix_type] ?? "A fix of this failure can't be put into a prompt. Copy it instead.");
  const { state, value, error } = work.of(nameOf(signal));
  if (state === "done") return published(value.answer, value.prompt);
  return [
    confirmation(found, signal, work, state === "busy"),
    state === "failed" ? h("p", { class: "wrong", role: "alert" }, h("b", {}, "Not applied. "), saying(error)) : null,
  ];
}

/** Opens on a press; nothing is done before the second one. */
function confirmation(found, signal, work, busy) {
  const prompt = found.langfuse_prompt_name;
  const submit = (event) => {
    event.preventDefault();
    const wanted = prompt ?? event.currentTarget.elements.prompt.value.trim();
    if (wanted) apply(found, signal, wanted, work);
  };
  const type = (event) => work.put(draftOf(signal), { state: "draft", value: event.currentTarget.value });
  const cancel = (event) => {
    const whole = event.currentTarget.closest("details");
    whole.open = false;
    whole.querySelector("summary").focus();
  };
  return h("details", { class: "apply" },
    h("summary", { class: "press strong" }, "Apply to prompt ", prompt ? name(prompt, 40) : null, "…"),
    h("form", { class: "confirm", on: { submit } },
      h("p", {}, "This paragraph goes to the end of the prompt", prompt ? [" ", h("b", {}, name(prompt, 60))] : null, ", of a chat prompt to the end of its last system message. It becomes its next version, with the same labels: agents that fetch the prompt by its label use it from then on. Langfuse keeps the version before."),
      prompt ? null : h("p", { class: "field" }, h("label", { for: `prompt-${signal.id}` }, "Prompt in Langfuse (the trace names none)"), h("input", { id: `prompt-${signal.id}`, name: "prompt", value: work.of(draftOf(signal)).value, required: true, maxlength: 255, autocomplete: "off", spellcheck: "false", on: { input: type } })),
      diff("", found.fix_content, "What is added"),
      h("p", { class: "actions" },
        h("button", { type: "submit", class: "strong", "aria-disabled": busy ? "true" : null }, busy ? "Applying…" : "Apply it"),
        busy ? h("span", { class: "soft" }, "Langfuse is being asked; this can take a minute.") : h("button", { type: "button", on: { click: cancel } }, "Cancel"))));
}

async function apply(found, signal, prompt, work) {
  const send = async () => ({ prompt, answer: await post(`/v1/signals/${signal.id}/apply-fix`, { fix_content: found.fix_content, langfuse_prompt_name: prompt }, PATIENCE_MS) });
  const done = await work.start(nameOf(signal), send);
  const { error } = work.of(nameOf(signal));
  if (done) announce(`Applied: version ${done.answer.new_version} of ${shorten(visible(prompt), 60)}.`);
  else if (error) announce(`Not applied: ${saying(error)}`);
  if (done) await readFixes(signal.id, work);
}

function published({ new_version, prompt_url, old_text, new_text }, prompt) {
  return h("div", { class: "published" },
    h("p", {}, h("b", { class: "calm" }, "Applied. "), "Version ", count(new_version), " of the prompt ", h("b", {}, name(prompt, 60)), " holds it. ", elsewhere(prompt_url)),
    diff(old_text, new_text, `Version ${new_version} beside the one before`));
}

/** A link to where the server says Langfuse is; only to what is an address on the web. */
const elsewhere = (address) =>
  (/^https?:$/.test(address.split("/")[0]) ? h("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, "Open it in Langfuse") : null);
