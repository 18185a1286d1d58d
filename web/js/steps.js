/** A run's events folded into what a timeline shows: calls with their durations, and moments. Pure; used by views/run.js. */

const CALLS = { "llm.called": "llm", "tool.called": "tool", "retrieval.called": "retrieval" };
const ANSWERS = { "llm.responded": "llm", "tool.responded": "tool", "retrieval.responded": "retrieval" };
export const LANES = ["llm", "tool", "retrieval"];
const SLOW_S = { llm: 30, tool: 15, retrieval: 15 }; // seconds: the defaults of the slow_step detector, for drawing only

/** Of what an event speaks: the tool's, model's, index's or signal's name, or "". */
export const nameOf = (payload) => payload.tool_name ?? payload.model ?? payload.index_name ?? payload.signal_name ?? payload.error_type ?? "";

/** Events in the order they happened: client's time, then step, then arrival. */
export const inOrder = (events) =>
  events.map((event, i) => [event, i]).sort(([a, i], [b, j]) => a.timestamp - b.timestamp || a.step_index - b.step_index || i - j).map(([event]) => event);

/**
 * `events` in order → {spans, moments, start, end}. Times are Unix seconds; `now` is where an open call of a run that is
 * still `running` ends. A span: {at, answered_at, lane, step, name, start, end, slow, outcome: ok|failed|unanswered|open, call,
 * answer}, `at` and `answered_at` being the places of its two events among all.
 */
export function fold(events, { running = false, now = 0 } = {}) {
  const spans = [];
  const moments = [];
  const open = [];
  for (const [at, event] of events.entries()) {
    const payload = event.payload ?? {};
    const lane = CALLS[event.event_type];
    if (lane) {
      const span = { at, answered_at: null, lane, step: event.step_index, name: nameOf(payload), start: event.timestamp, end: null, slow: false, outcome: "open", call: payload, answer: null };
      spans.push(span);
      open.push(span);
    } else if (ANSWERS[event.event_type]) {
      answer(open, ANSWERS[event.event_type], event, payload, at);
    } else {
      moments.push({ at, type: event.event_type, step: event.step_index, time: event.timestamp, name: nameOf(payload) });
    }
  }
  const start = events[0]?.timestamp ?? 0;
  const last = events.at(-1)?.timestamp ?? start;
  for (const span of open) close(span, running ? Math.max(now, last) : last, running && !answeredLater(spans, span) ? "open" : "unanswered");
  return { spans, moments, start, end: spans.reduce((end, span) => Math.max(end, span.end), running ? Math.max(now, last) : last) };
}

const answeredLater = (spans, span) => spans.some((other) => other.lane === span.lane && other.at > span.at && other.answer);

function close(span, end, outcome) {
  const slow = outcome !== "unanswered" && end - span.start > SLOW_S[span.lane];
  Object.assign(span, { end: Math.max(span.start, end), slow, outcome });
}

function answer(open, lane, event, payload, at) {
  const of = (test) => open.findLastIndex((span) => span.lane === lane && test(span));
  let i = payload.call_id === undefined || payload.call_id === null ? -1 : of((span) => span.call.call_id === payload.call_id);
  const named = lane !== "llm" && nameOf(payload);
  if (i < 0 && named) i = of((span) => span.name === named);
  if (i < 0 && !named) i = of((span) => span.step === event.step_index);
  if (i < 0 && !named) i = of(() => true);
  if (i < 0) return;
  const [span] = open.splice(i, 1);
  span.answer = payload;
  span.answered_at = at;
  close(span, Math.max(event.timestamp, span.start + (payload.latency_ms ?? 0) / 1000), payload.success === false ? "failed" : "ok");
}
