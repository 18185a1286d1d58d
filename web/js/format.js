/** Values into words: numbers, durations, times, and names that may be hostile. Pure; used by the views. */

const whole = new Intl.NumberFormat();
const short = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });
const sameDay = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const minute = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const sameYear = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const anyYear = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

export const NONE = "–";

export const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

/** 12345 → "12,345"; anything that is no number → "–". */
export const count = (n) => (isNumber(n) ? whole.format(n) : NONE);

/** 12345 → "12.3K". */
export const compact = (n) => (isNumber(n) ? short.format(n) : NONE);

export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

/** A share 0..1 → "87 %". */
export const percent = (share) => (isNumber(share) ? `${Math.round(share * 100)} %` : NONE);

const dollars = new Intl.NumberFormat("en", { style: "currency", currency: "USD" });

/** USD → "$0.12", "under $0.01". */
export const money = (usd) => (usd > 0 && usd < 0.005 ? "under $0.01" : dollars.format(usd));

/** Seconds → "12 ms", "1.24 s", "3 min 05 s", "2 h 07 min", "3 d 4 h". */
export function duration(seconds) {
  if (!isNumber(seconds) || seconds < 0) return NONE;
  if (seconds < 0.0005) return "< 1 ms";
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 59.95) return `${seconds < 9.995 ? seconds.toFixed(2) : seconds.toFixed(1)} s`;
  const total = Math.round(seconds);
  if (total < 3600) return `${Math.floor(total / 60)} min ${two(total % 60)} s`;
  if (total < 86400) return `${Math.floor(total / 3600)} h ${two(Math.floor((total % 3600) / 60))} min`;
  return `${Math.floor(total / 86400)} d ${Math.floor((total % 86400) / 3600)} h`;
}

const two = (n) => String(n).padStart(2, "0");

/** How long after the start: "0", "+1.24 s". */
export const offset = (seconds) => (seconds < 0.0005 ? "0" : `+${duration(seconds)}`);

/** How long before `now` (both Unix seconds): "just now", "3 min ago". */
export function ago(at, now = Date.now() / 1000) {
  if (!isNumber(at)) return NONE;
  const seconds = now - at;
  if (seconds < 5) return "just now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return plural(Math.floor(seconds / 86400), "day") + " ago";
}

/** The reader's own clock: the time alone for today, else with its date. */
export function local(at, now = Date.now() / 1000) {
  if (!isNumber(at)) return NONE;
  const then = new Date(at * 1000);
  const today = new Date(now * 1000);
  if (then.toDateString() === today.toDateString()) return sameDay.format(then);
  return (then.getFullYear() === today.getFullYear() ? sameYear : anyYear).format(then);
}

/** As `local`, to the minute: "14:05", "23 Nov, 14:05". */
export function clock(at, now = Date.now() / 1000) {
  const [then, today] = [new Date(at * 1000), new Date(now * 1000)];
  return then.toDateString() === today.toDateString() ? minute.format(then) : local(at, now);
}

/** "2026-11-22 07:54:43.120 UTC" */
export const utc = (at) => (isNumber(at) ? new Date(at * 1000).toISOString().replace("T", " ").replace("Z", " UTC") : NONE);

/** TOOL_LOOP → "Tool loop"; acronyms that stay: RAG, LLM. What is no type of ours comes out visible and short. */
export function words(type) {
  const text = String(type).replaceAll("_", " ").toLowerCase().replace(/\b(rag|llm)\b/g, (w) => w.toUpperCase());
  return shorten(visible(text.charAt(0).toUpperCase() + text.slice(1)), 60);
}

// C0, DEL and C1 controls; soft hyphen; zero-width and bidirectional controls; line and paragraph separators; BOM; lone surrogates.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]|\p{Surrogate}/gu;

/** Text with every character that hides or reorders made visible, so that two different names never look the same. */
export function visible(text) {
  const shown = String(text).replace(UNSEEN, (character) => {
    const code = character.codePointAt(0);
    return code < 0x20 ? String.fromCodePoint(0x2400 + code) : `⟨${code.toString(16).toUpperCase()}⟩`;
  });
  return shown.trim() === "" ? "␣".repeat(Math.max(1, Math.min(shown.length, 8))) : shown;
}

/** At most `max` characters, an ellipsis for the rest. */
export function shorten(text, max) {
  const head = Array.from(text.slice(0, max * 2));
  return head.length > max || text.length > max * 2 ? `${head.slice(0, max - 1).join("")}…` : text;
}
