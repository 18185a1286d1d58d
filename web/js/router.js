/**
 * Addresses of the page: what stands behind '#'. Used by main.js to choose the view and by the views to write links.
 * #/ · #/issues · #/signals?severity=HIGH · #/agents/{id} · #/agents/{id}/insights · #/runs/{id}?show=tool
 */

const wellFormed = (text) => text.replace(/\p{Surrogate}/gu, "\ufffd");

/** One path segment: `a/b` → `a%2Fb`. A lone surrogate, which no address can carry, becomes U+FFFD as it does at the door. */
export const segment = (id) => encodeURIComponent(wellFormed(String(id)));

export const TABS = ["runs", "signals", "issues", "insights"];

function link(path, filters = {}) {
  const query = new URLSearchParams(Object.entries(filters).filter(([, value]) => value)).toString();
  return `#/${path}${query ? `?${query}` : ""}`;
}

export const overviewLink = (filters) => link("", filters);
export const fleetLink = (view, filters) => link(view, filters);
export const agentLink = (id, tab = "runs", filters = {}) => link(`agents/${segment(id)}${tab === "runs" ? "" : `/${tab}`}`, filters);
export const runLink = (id, filters) => link(`runs/${segment(id)}`, filters);

/** `location.hash` → {view, id?, tab?, filters}; view "lost" when it is none of ours. */
export function parse(hash) {
  const [path, query] = hash.replace(/^#\/?/, "").split("?", 2);
  const parts = path.split("/");
  const id = decode(parts[1]);
  const filters = Object.fromEntries(new URLSearchParams(query ?? ""));
  if (path === "") return { view: "agents", filters };
  if (path === "issues" || path === "signals") return { view: path, filters };
  if (parts[0] === "runs" && id && parts.length === 2) return { view: "run", id, filters };
  if (parts[0] === "agents" && id && parts.length <= 3 && TABS.includes(parts[2] ?? "runs")) {
    return { view: "agent", id, tab: parts[2] ?? "runs", filters };
  }
  return { view: "lost", filters };
}

function decode(part) {
  try {
    return decodeURIComponent(part ?? "");
  } catch {
    return ""; // a stray % typed by hand
  }
}
