/** The newest signals of all agents together. Used by main.js. */

import { h } from "../dom.js";
import { signalFilters, signalQuery } from "../filters.js";
import { plural } from "../format.js";
import { moreButton, panel } from "../parts.js";
import { Pages } from "../pages.js";
import { fleetLink, segment } from "../router.js";
import { signalCard } from "../signal.js";

const AGENTS = 12; // asked at each refresh: those with signals that were active last

export function signalsView({ filters }, context) {
  const { go, rerun } = context;
  const agents = new Pages("/v1/agents", "agents", "agent_id", 500);
  const lists = new Map(); // agent_id → Pages, kept so that `more` goes on where it was
  const state = { wanted: 50, items: [], total: 0, hasMore: false, left: 0 };

  /** Each agent gives its newest `wanted`, so that the newest `wanted` of all are among them. */
  async function load(abort) {
    await agents.load({}, abort);
    const some = agents.items.filter((agent) => agent.signal_count > 0 || filters.shadow);
    const asked = some.slice(0, AGENTS).map(({ agent_id }) => {
      const list = lists.get(agent_id) ?? new Pages(`/v1/agents/${segment(agent_id)}/signals`, "signals", "id");
      lists.set(agent_id, list);
      list.wanted = state.wanted;
      return list;
    });
    await Promise.all(asked.map((list) => list.load(signalQuery(filters), abort)));
    const all = asked.flatMap((list) => list.items).sort((a, b) => b.detected_at - a.detected_at || b.id - a.id);
    const total = asked.reduce((sum, list) => sum + list.total, 0);
    Object.assign(state, { items: all.slice(0, state.wanted), total, hasMore: total > state.wanted, left: some.length - asked.length });
  }

  const more = { get items() { return state.items; }, get total() { return state.total; }, get hasMore() { return state.hasMore; }, more: () => { state.wanted += 50; } };
  const filter = (change) => go(fleetLink("signals", { ...filters, ...change }));
  const render = () => [
    h("div", { class: "line" }, h("h1", { tabindex: "-1" }, "Signals"), signalFilters(filters, filter)),
    state.items.length
      ? [h("div", { class: "signals" }, state.items.map((signal) => signalCard(signal, context, { link: true, agent: true }))), moreButton(more, "signal", rerun)]
      : panel("No signals", h("p", {}, filters.severity || filters.failure_type ? "No signal of any agent fits these filters." : "Nothing has gone wrong in any agent's runs, as far as their structure shows.")),
    state.left ? h("p", { class: "hint" }, `Of the ${AGENTS} most recently active agents with signals; ${plural(state.left, "more agent")} not asked.`) : null,
  ];
  return { title: "Signals", family: "signals", crumbs: [], load, render };
}
