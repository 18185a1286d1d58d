/** Asks for the API key after a 401. Used by main.js; the key stays in this tab's session and goes only into a header. */

import { key } from "./api.js";
import { h } from "./dom.js";

/** The prompt in place of a view. `refused`: the key that was sent was not accepted. `retry` runs once a key is there. */
export function keyPrompt(refused, retry) {
  const submit = (event) => {
    event.preventDefault();
    const given = event.currentTarget.elements.key.value.trim();
    if (!given) return;
    key.set(given);
    retry();
  };
  return h("section", { class: "panel key", key: "key-prompt" },
    h("h1", { tabindex: "-1" }, "An API key is needed"),
    h("p", {}, refused
      ? "That key wasn't accepted. It may be mistyped, revoked, or without the scope “read”."
      : "This Dunetrace shows its runs only to holders of a key with the scope “read”."),
    h("form", { on: { submit } },
      h("label", { for: "key" }, "API key"),
      h("input", { id: "key", name: "key", type: "password", autocomplete: "off", spellcheck: "false", required: true, "aria-invalid": refused ? "true" : null }),
      h("button", { type: "submit", class: "strong" }, "Open")),
    h("p", { class: "hint" }, "Kept in this tab only, until you close it. A new one is made on the server with ",
      h("code", {}, "python -m dunetrace keys create"), "."));
}
