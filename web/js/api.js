/**
 * The only place that talks to the server: relative paths of this same origin, the key, and errors in plain words.
 * Used by main.js (which lends `get` to the views) and pages.js.
 */

const KEY = "dunetrace.key"; // sessionStorage: gone with the tab
const PATIENCE_MS = 20_000;

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

/** `kind`: "key" | "scope" | "missing" | "busy" | "away" | "answer"; `title` and `detail` are for people. */
export class ApiError extends Error {
  constructor(kind, title, detail = "") {
    super(title);
    this.name = "ApiError";
    Object.assign(this, { kind, title, detail });
  }
}

/** GET a JSON answer. `params` that are empty are left out. Throws ApiError, or AbortError when `signal` says so. */
export async function get(path, params = {}, signal = undefined) {
  if (path.split("/").some((part) => part === "." || part === "..")) {
    throw new ApiError("missing", "This name can't be part of an address", "A browser removes “.” and “..” from every address.");
  }
  const query = new URLSearchParams(Object.entries(params).filter(([, value]) => value !== "" && value !== undefined));
  const answer = await send(query.size ? `${path}?${query}` : path, signal);
  if (answer.ok) {
    const body = await json(answer);
    if (body !== null) return body;
    throw new ApiError("answer", "The answer wasn't readable", "Something between this page and Dunetrace answered instead of it.");
  }
  throw refusal(answer, await json(answer));
}

/** {status, db, version, actors} of /health, also when it says 503; null when nothing answered. */
export async function health(signal) {
  try {
    return await json(await send("/health", signal));
  } catch {
    return null;
  }
}

async function send(address, signal) {
  const patience = AbortSignal.timeout(PATIENCE_MS);
  const headers = key.get() ? { Authorization: `Bearer ${key.get()}` } : {};
  try {
    return await fetch(address, { headers, cache: "no-store", signal: signal ? AbortSignal.any([signal, patience]) : patience });
  } catch (error) {
    if (signal?.aborted) throw error;
    if (patience.aborted) throw new ApiError("away", "Dunetrace took too long to answer", "It may be busy, or its database may be.");
    throw new ApiError("away", "Dunetrace can't be reached", "The server may be stopped, or the network may be down.");
  }
}

async function json(answer) {
  try {
    return await answer.json();
  } catch {
    return null;
  }
}

function refusal(answer, body) {
  const detail = typeof body?.detail === "string" ? body.detail : "";
  if (answer.status === 401) return new ApiError("key", "An API key is needed", detail);
  if (answer.status === 403) return new ApiError("scope", "This isn't allowed", detail);
  if (answer.status === 404) return new ApiError("missing", "This isn't here", detail);
  if (answer.status === 429 || answer.status === 503) {
    return new ApiError("busy", "Dunetrace can't answer right now", detail || "Its database may be away. Agents keep their events and send them later.");
  }
  return new ApiError("answer", `Dunetrace answered ${answer.status}`, detail);
}
