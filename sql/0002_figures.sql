-- What the figures of an agent are read by, and issues that a person resolved.

-- Days, places of the first tool call and counts of runs, without reading the runs themselves.
CREATE INDEX runs_first_tool ON runs (customer_id, agent_id, start_day, first_tool_step);
-- Runs that were given the same input; most runs have an input of their own.
CREATE INDEX runs_input ON runs (customer_id, agent_id, input_hash) WHERE input_hash IS NOT NULL;
-- An agent's runs with live signals are few among many.
CREATE INDEX runs_with_signals ON runs (customer_id, agent_id, started_at DESC, run_id) WHERE signal_count > 0;

CREATE INDEX fixes_signal ON fixes (customer_id, signal_id, applied_at);

-- An issue is resolved by clean runs or by a person. Either way clean_runs_since goes on counting up to five.
ALTER TABLE issues ADD COLUMN resolved_by_hand BOOLEAN NOT NULL DEFAULT FALSE;
