/**
 * Addresses of the page: what stands behind '#'. Used by main.js to choose the view and by the views to write links.
 * #/ · #/agents/{id} · #/agents/{id}/signals?severity=HIGH · #/agents/{id}/issues · #/runs/{id}
 */

const wellFormed = (text) => text.replace(/\p{Surrogate}/gu, "\ufffd");

/** One path segment: `a/b` → `a%2Fb`. A lone surrogate, which no address can carry, becomes U+FFFD as it does at the door. */
export const segment = (id) => encodeURIComponent(wellFormed(String(id)));

export const TABS = ["runs", "signals", "issues"];

export function agentLink(id, tab = "runs", filters = {}) {
  const query = new URLSearchParams(Object.entries(filters).filter(([, value]) => value)).toString();
  return `#/agents/${segment(id)}${tab === "runs" ? "" : `/${tab}`}${query ? `?${query}` : ""}`;
}

export const runLink = (id) => `#/runs/${segment(id)}`;

/** `location.hash` → {view, id?, tab?, filters?}; view "lost" when it is none of ours. */
export function parse(hash) {
  const [path, query] = hash.replace(/^#\/?/, "").split("?", 2);
  const parts = path.split("/");
  const id = decode(parts[1]);
  if (path === "") return { view: "agents" };
  if (parts[0] === "runs" && id && parts.length === 2) return { view: "run", id };
  if (parts[0] === "agents" && id && parts.length <= 3 && TABS.includes(parts[2] ?? "runs")) {
    return { view: "agent", id, tab: parts[2] ?? "runs", filters: Object.fromEntries(new URLSearchParams(query ?? "")) };
  }
  return { view: "lost" };
}

function decode(part) {
  try {
    return decodeURIComponent(part ?? "");
  } catch {
    return ""; // a stray % typed by hand
  }
}
