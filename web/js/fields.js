/** A stored field as a term and its value with its unit, told by the field's name: of evidence and payloads of any kind. */

import { h } from "./dom.js";
import { count, duration, isNumber, percent, words } from "./format.js";
import { name } from "./parts.js";

const LISTED = 12;

/** By what a key ends in: how a number with it is written. The first that fits counts. */
const NUMBERS = [
  [/_ms$/, (v) => (v === 0 ? "0 ms" : duration(v / 1000))],
  [/_s$/, duration],
  [/(^|_)(rate|share)$/, percent],
  [/(^|_)(ratio|factor|growth)$/, (v) => `${decimal(v)} ×`],
  [/_length$/, (v) => `${count(v)} characters`],
  [/(^|_)(step|steps|index|call_id|id)$/, String],
];

const decimal = (v) => String(Math.round(v * 100) / 100);

/** "wasted_ms" → "Wasted time", "latency_ms" → "Latency", "args_hash" → "Args digest"; a strange key as it is. */
export function label(key) {
  if (!/^[a-z][a-z0-9_]{0,47}$/.test(key)) return name(key, 40);
  const plain = key.replace(/_hash$/, "_digest").replace(/_length$/, "").replace(/_(ms|s)$/, (_, unit, at) => (/(latency|duration|timeout|limit|time)$/.test(key.slice(0, at)) ? "" : "_time"));
  return words(plain);
}

/** Numbers with their unit, flags as words, digests short, lists joined, all else as text that may be hostile. */
export function value(key, given) {
  if (isNumber(given)) return (NUMBERS.find(([pattern]) => pattern.test(key))?.[1] ?? number)(given);
  if (typeof given === "boolean") return given ? "yes" : "no";
  if (given === null || given === undefined) return "–";
  if (Array.isArray(given)) return listed(key, given);
  if (typeof given === "object") return name(JSON.stringify(given), 120);
  return /_hash$/.test(key) ? h("span", { class: "mono" }, name(given, 13)) : name(given, 120);
}

const number = (v) => (Number.isInteger(v) ? count(v) : decimal(v));

function listed(key, items) {
  if (!items.length) return "none";
  const shown = items.slice(0, LISTED).map((item, i) => [i ? ", " : "", value(key, item)]);
  return [shown, items.length > LISTED ? ` and ${count(items.length - LISTED)} more` : ""];
}

/** Every field of an object as [term, value], ready for `facts`. */
export const fields = (object) => Object.entries(object ?? {}).map(([key, given]) => [label(key), value(key, given)]);
