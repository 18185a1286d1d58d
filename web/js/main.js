/** Starts the page: from the address to a view, a refresh every 15 s, errors and the key. Loaded by index.html. */

import { ApiError, health, key } from "./api.js";
import { h, morph } from "./dom.js";
import { keyPrompt } from "./key.js";
import { panel } from "./parts.js";
import { readAgain } from "./fixing/status.js";
import { whileSeen } from "./refresh.js";
import { parse } from "./router.js";
import { drawCrumbs, drawSections, drawStatus, errorPanel, staleBanner } from "./shell.js";
import { agentView } from "./views/agent.js";
import { agentsView } from "./views/agents.js";
import { issuesView } from "./views/issues.js";
import { runView } from "./views/run.js";
import { signalsView } from "./views/signals.js";
import { Work } from "./work.js";

const EVERY_MS = 15_000;
const KEPT = 12; // views remembered, so that going back shows at once what was there

const host = document.getElementById("view");
const makers = { agents: agentsView, agent: agentView, issues: issuesView, signals: signalsView, run: runView, lost: lostView };
const kept = new Map(); // hash → {view, error, loaded_at}
let current = null;
let loading = new AbortController();
let drawing = 0;
let scrolled = 0;
let followed = false; // a link, or back: the focus goes along only then, not when the page is first opened

function lostView() {
  const body = () => [panel("This address leads nowhere", h("p", {}, h("a", { href: "#/" }, "Overview")))];
  return { title: "Not found", crumbs: ["Not found"], load: async () => {}, render: body };
}

const context = {
  rerun: () => refresh(),
  redraw: () => {
    cancelAnimationFrame(drawing);
    drawing = requestAnimationFrame(draw);
  },
  go: (hash) => location.assign(hash),
  work: new Work(() => context.redraw()),
  width: () => host.clientWidth - 2 * parseFloat(getComputedStyle(host).paddingLeft),
};

function open() {
  clearTimeout(scrolled);
  const { hash } = location;
  const route = parse(hash);
  const before = current;
  if (before?.view.follow?.(route)) return again(hash);
  const page = kept.get(hash) ?? { view: makers[route.view](route, context), error: null, loaded_at: null };
  kept.delete(hash);
  kept.set(hash, page);
  if (kept.size > KEPT) kept.delete(kept.keys().next().value);
  current = page;
  const stays = before?.view.family && before.view.family === page.view.family;
  host.setAttribute("aria-busy", String(!page.loaded_at));
  if (stays && !page.loaded_at) return refresh();
  if (!stays) host.replaceChildren();
  draw();
  if (page.loaded_at && !stays) arrive();
  return refresh();
}

/** The same view under another address, which changes what it shows but not what it needs. */
function again(hash) {
  for (const [one, page] of kept) if (page === current) kept.delete(one);
  kept.set(hash, current);
  draw();
}

/** After a link: to the top and the heading; after going back: to where the reader was. */
function arrive() {
  window.scrollTo(0, history.state?.y ?? 0);
  if (followed) host.querySelector("h1")?.focus({ preventScroll: true });
}

async function refresh() {
  loading.abort();
  loading = new AbortController();
  const { signal } = loading;
  const page = current;
  const status = health(signal);
  try {
    await Promise.all([page.view.load(signal), readAgain(context.work, signal)]);
    Object.assign(page, { error: null, loaded_at: Date.now() / 1000 });
  } catch (error) {
    if (signal.aborted) return;
    page.error = error;
    if (!(error instanceof ApiError)) console.error(error);
  }
  if (signal.aborted) return;
  const first = !host.querySelector("h1");
  host.setAttribute("aria-busy", "false");
  draw();
  if (first) arrive();
  const state = await status;
  if (signal.aborted) return;
  drawStatus(state, Date.now() / 1000, forget);
}

function draw() {
  document.title = `${current.view.title.slice(0, 80)} · Dunetrace`;
  drawSections(parse(location.hash).view);
  drawCrumbs(current.view.crumbs);
  const within = host.contains(document.activeElement);
  morph(host, h("main", {}, content(current)));
  if (within && !host.contains(document.activeElement)) host.focus({ preventScroll: true }); // what had the focus is gone
}

function content({ view, error, loaded_at }) {
  if (error?.kind === "key") return keyPrompt(Boolean(key.get()), refresh);
  if (error && !loaded_at) return errorPanel(error, refresh, forget);
  if (!loaded_at) return h("p", { class: "loading", key: "loading" }, "Reading…");
  return [error ? staleBanner(error, loaded_at, refresh) : null, view.render()];
}

function forget() {
  key.forget();
  kept.clear();
  context.work.clear();
  current = null;
  open();
}

history.scrollRestoration = "manual"; // what was there comes back only after it was drawn: see arrive
window.addEventListener("scroll", () => {
  clearTimeout(scrolled);
  scrolled = setTimeout(() => history.replaceState({ y: window.scrollY }, ""), 100);
}, { passive: true });

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  host.focus();
});
window.addEventListener("hashchange", () => {
  followed = true;
  open();
});
let width = host.clientWidth;
new ResizeObserver(() => {
  if (width === host.clientWidth) return;
  width = host.clientWidth;
  context.redraw();
}).observe(host);
open();
whileSeen(() => (current.error?.kind === "key" ? undefined : refresh()), EVERY_MS);
