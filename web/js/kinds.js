/** The fifteen failure types and how severe each is at most. Used where the API gives a type without its severity. */

const KINDS = {
  PROMPT_INJECTION_SIGNAL: "CRITICAL",
  TOOL_LOOP: "HIGH",
  TOOL_THRASHING: "HIGH",
  RETRY_STORM: "HIGH",
  CASCADING_TOOL_FAILURE: "HIGH",
  LLM_TRUNCATION_LOOP: "HIGH",
  EMPTY_LLM_RESPONSE: "HIGH",
  SLOW_STEP: "MEDIUM", // usually; HIGH at five times the limit
  CONTEXT_BLOAT: "MEDIUM",
  FIRST_STEP_FAILURE: "MEDIUM",
  GOAL_ABANDONMENT: "MEDIUM",
  RAG_EMPTY_RETRIEVAL: "MEDIUM",
  REASONING_STALL: "MEDIUM",
  STEP_COUNT_INFLATION: "MEDIUM",
  TOOL_AVOIDANCE: "MEDIUM",
};

export const TYPES = Object.keys(KINDS);

export const SEVERITIES = ["CRITICAL", "HIGH", "MEDIUM", "LOW"];

/** Of a type; one that only a later release knows counts as MEDIUM. */
export const severityOf = (type) => (Object.hasOwn(KINDS, type) ? KINDS[type] : "MEDIUM");

/** Most severe first. */
export const bySeverity = (a, b) => SEVERITIES.indexOf(severityOf(a)) - SEVERITIES.indexOf(severityOf(b));
