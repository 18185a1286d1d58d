/** What stands around every view: the ways to the others, how the server is, and the panels for errors. Used by main.js. */

import { key } from "./api.js";
import { h, morph } from "./dom.js";
import { local, plural } from "./format.js";
import { panel } from "./parts.js";

const SECTIONS = [["agents", "#/", "Overview"], ["issues", "#/issues", "Issues"], ["signals", "#/signals", "Signals"]];

/** The views over all agents, the one being shown marked. */
export function drawSections(view) {
  const links = SECTIONS.map(([one, href, text]) => h("a", { href, "aria-current": one === view ? "page" : null }, text));
  morph(document.getElementById("sections"), h("nav", {}, links));
}

/** "name / Run" at the top, below an agent; elsewhere nothing. */
export function drawCrumbs(crumbs) {
  const list = crumbs.length ? h("ol", {}, crumbs.map((crumb) => h("li", {}, crumb))) : "";
  morph(document.getElementById("crumbs"), h("nav", {}, list));
}

/** How the server is, in three words; the parts of it on opening. `state`: of /health, null when nothing answered. */
export function drawStatus(state, refreshed_at, forget) {
  const [tone, text] = inWords(state);
  const actors = Object.entries(state?.actors ?? {});
  const body = h("div", { class: "pop" },
    h("p", {}, state ? `Dunetrace ${state.version ?? ""}` : "No answer from the server."),
    actors.length ? h("ul", {}, actors.map(([name, actor]) =>
      h("li", {}, h("span", {}, name), h("span", {}, actor.state), h("span", { class: "faint" }, actor.restarts ? plural(actor.restarts, "restart") : "")))) : null,
    h("p", { class: "faint" }, refreshed_at ? `Read at ${local(refreshed_at)}, again every 15 s while this page is seen.` : ""),
    key.get() ? h("button", { type: "button", on: { click: forget } }, "Forget the API key") : null);
  const next = h("div", {}, h("details", { class: `health ${tone}` }, h("summary", {}, h("span", { class: "lamp", "aria-hidden": "true" }), text), body));
  morph(document.getElementById("status"), next);
}

function inWords(state) {
  if (!state) return ["bad", "Not reachable"];
  if (state.db && state.db !== "ok") return ["bad", { timeout: "Database slow", schema: "Database schema wrong" }[state.db] ?? "Database away"];
  if (state.status === "ok") return ["good", "All well"];
  const ill = Object.entries(state.actors ?? {}).filter(([, actor]) => actor.state !== "running").map(([name]) => name);
  return ["warn", ill.length ? `Degraded: ${ill.slice(0, 2).join(", ")}` : "Degraded"];
}

const retryButton = (retry) => h("button", { type: "button", on: { click: retry } }, "Try again");

/** In place of a view that never loaded. */
export function errorPanel(error, retry, forget) {
  return panel(error.title ?? "Something went wrong in this page",
    error.detail ? h("p", {}, error.detail) : null,
    h("p", { class: "actions" }, retryButton(retry), error.kind === "scope" && key.get() ? h("button", { type: "button", on: { click: forget } }, "Use another key") : null,
      h("a", { href: "#/" }, "Overview")));
}

/** Above a view that shows what was known before. */
export const staleBanner = (error, since, retry) =>
  h("div", { class: "banner", role: "alert", key: "banner" },
    h("p", {}, h("b", {}, `${error.title}. `), `Shown is what was known at ${local(since)}. Tried again every 15 seconds.`), retryButton(retry));
