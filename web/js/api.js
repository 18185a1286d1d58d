/**
 * The only place that talks to the server: relative paths of this same origin, the key, and errors in plain words.
 * Used by main.js, the views, and what a person can do in them.
 */

const KEY = "dunetrace.key"; // sessionStorage: gone with the tab
const PATIENCE_MS = 20_000;

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

/** `kind`: "key" | "scope" | "missing" | "busy" | "away" | "answer"; `title` and `detail` are for people; `passes`: it said when to come again. */
export class ApiError extends Error {
  constructor(kind, title, detail = "", passes = false) {
    super(title);
    this.name = "ApiError";
    Object.assign(this, { kind, title, detail, passes });
  }
}

/** GET a JSON answer. `params` that are empty are left out. Throws ApiError, or AbortError when `signal` says so. */
export async function get(path, params = {}, signal = undefined) {
  if (path.split("/").some((part) => part === "." || part === "..")) {
    throw new ApiError("missing", "This name can't be part of an address", "A browser removes “.” and “..” from every address.");
  }
  const query = new URLSearchParams(Object.entries(params).filter(([, value]) => value !== "" && value !== undefined));
  return read(await send(query.size ? `${path}?${query}` : path, { signal }));
}

/** POST a body as JSON, once: nothing is tried again by itself. As `get`, but waits for `patience_ms`. */
export const post = async (path, body, patience_ms = PATIENCE_MS) => read(await send(path, { body, patience_ms }));

async function read(answer) {
  const body = await json(answer);
  if (!answer.ok) throw refusal(answer, body);
  if (body !== null) return body;
  throw new ApiError("answer", "The answer wasn't readable", "Something between this page and Dunetrace answered instead of it.");
}

/** {status, db, version, actors} of /health, also when it says 503; null when nothing answered. */
export async function health(signal) {
  try {
    return await json(await send("/health", { signal }));
  } catch {
    return null;
  }
}

async function send(address, { body, signal, patience_ms = PATIENCE_MS }) {
  const patience = AbortSignal.timeout(patience_ms);
  const headers = key.get() ? { Authorization: `Bearer ${key.get()}` } : {};
  const change = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  if (change.body) headers["Content-Type"] = "application/json";
  try {
    return await fetch(address, { ...change, headers, cache: "no-store", signal: signal ? AbortSignal.any([signal, patience]) : patience });
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
  const detail = typeof body?.detail === "string" ? body.detail : faults(body?.detail);
  if (answer.status === 401) return new ApiError("key", "An API key is needed", detail);
  if (answer.status === 403) return new ApiError("scope", "This isn't allowed", detail);
  if (answer.status === 404) return new ApiError("missing", "This isn't here", detail);
  if (answer.status === 502 && detail) return new ApiError("answer", "A service that was asked for it failed", detail);
  if (answer.status === 429 || answer.status === 503) {
    const words = detail || "Its database may be away. Agents keep their events and send them later.";
    return new ApiError("busy", "Dunetrace can't answer right now", words, answer.headers.has("Retry-After"));
  }
  return new ApiError("answer", `Dunetrace answered ${answer.status}`, detail);
}

/** What is wrong with a body that was sent, of a 422. */
const faults = (detail) => (Array.isArray(detail) ? detail.map((fault) => String(fault?.msg ?? "")).filter(Boolean).join("; ") : "");
