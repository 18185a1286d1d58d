-- The spine: what is accepted, what is known of each run, what was found, and who was told.
-- Every key holds customer_id; every table that grows with traffic is keyed by run_id first, so that it can be sharded by run.

CREATE TABLE api_keys (
    key_hash     TEXT PRIMARY KEY,                       -- SHA-256 hex of the key; the key itself is shown once, at creation
    customer_id  TEXT NOT NULL DEFAULT 'default',
    agent_id     TEXT NOT NULL DEFAULT '*',              -- one agent, or '*' for all of the customer's
    scopes       TEXT[] NOT NULL,
    active       BOOLEAN NOT NULL DEFAULT TRUE,
    created_at   TIMESTAMPTZ NOT NULL DEFAULT now(),
    last_used_at TIMESTAMPTZ
);
CREATE INDEX api_keys_customer ON api_keys (customer_id, created_at);

-- Append-only. event_key is the event's identity (see events.event_key); day is the UTC date of the event's own
-- timestamp, clamped to what the server's clock allows, so that a resend meets the same key.
CREATE TABLE events (
    id            BIGINT GENERATED ALWAYS AS IDENTITY,
    customer_id   TEXT NOT NULL DEFAULT 'default',
    batch_id      TEXT NOT NULL,
    event_type    TEXT NOT NULL,
    run_id        TEXT NOT NULL,
    agent_id      TEXT NOT NULL,
    agent_version TEXT NOT NULL,
    step_index    INTEGER NOT NULL,
    timestamp     DOUBLE PRECISION NOT NULL,
    payload       JSONB NOT NULL,
    parent_run_id TEXT,
    received_at   TIMESTAMPTZ NOT NULL DEFAULT now(),
    event_key     TEXT NOT NULL,
    day           DATE NOT NULL,
    PRIMARY KEY (run_id, customer_id, event_key, day)
);

-- One row per run and unit of work of the writer: "this run has n new events". Read, then deleted by id.
CREATE TABLE run_touches (
    id          BIGINT GENERATED ALWAYS AS IDENTITY,
    customer_id TEXT NOT NULL DEFAULT 'default',
    run_id      TEXT NOT NULL,
    bucket      SMALLINT NOT NULL,
    n           INTEGER NOT NULL,
    first_day   DATE NOT NULL,
    last_day    DATE NOT NULL,
    received_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (run_id, id)
);
CREATE INDEX run_touches_bucket ON run_touches (bucket, id);

-- What senders said they lost before they could send it. Append-only, summed when shown.
CREATE TABLE sender_losses (
    customer_id TEXT NOT NULL DEFAULT 'default',
    agent_id    TEXT NOT NULL,
    loss_key    TEXT NOT NULL,                           -- the batch's identity, so that a retry counts once
    dropped     BIGINT NOT NULL,
    received_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (customer_id, agent_id, loss_key)
);

-- Rows Postgres refused: set aside so that they block nothing, counted and shown.
CREATE TABLE set_aside_events (
    id          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id TEXT NOT NULL DEFAULT 'default',
    event_key   TEXT NOT NULL,
    error       TEXT NOT NULL,                           -- the error's class, never its message
    row_json    BYTEA NOT NULL,                          -- the row behind the privacy door
    received_at TIMESTAMPTZ NOT NULL
);

CREATE TABLE deploys (
    id          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id TEXT NOT NULL DEFAULT 'default',
    agent_id    TEXT NOT NULL,
    version     TEXT NOT NULL,
    deployed_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE INDEX deploys_agent ON deploys (customer_id, agent_id, deployed_at DESC);

-- Written by the detection side only, by the poller that holds the lease of the run's bucket.
CREATE TABLE runs (
    run_id             TEXT NOT NULL,
    customer_id        TEXT NOT NULL DEFAULT 'default',
    bucket             SMALLINT NOT NULL,
    agent_id           TEXT NOT NULL,
    agent_version      TEXT NOT NULL,
    task_hash          TEXT NOT NULL DEFAULT '',         -- '' = no task was named
    parent_run_id      TEXT,
    input_hash         TEXT,
    started_at         DOUBLE PRECISION NOT NULL,        -- the client's clock, Unix seconds
    ended_at           DOUBLE PRECISION,                 -- the terminal event's; NULL while it runs
    first_day          DATE NOT NULL,                    -- bounds of its events' day, for reads of events
    last_day           DATE NOT NULL,
    start_day          DATE NOT NULL,                    -- the day the run counts for
    start_hour         TIMESTAMPTZ NOT NULL,
    last_received_at   TIMESTAMPTZ NOT NULL,
    event_count        BIGINT NOT NULL DEFAULT 0,        -- events announced by touches
    judged_event_count BIGINT NOT NULL DEFAULT 0,        -- events folded when it was last judged
    step_count         INTEGER NOT NULL DEFAULT 0,
    llm_calls          INTEGER NOT NULL DEFAULT 0,
    tool_calls         INTEGER NOT NULL DEFAULT 0,
    first_tool_step    INTEGER,
    total_tokens       BIGINT NOT NULL DEFAULT 0,
    dropped_events     BIGINT NOT NULL DEFAULT 0,
    signal_count       INTEGER NOT NULL DEFAULT 0,       -- live signals
    trigger            TEXT,                             -- run.completed | run.errored | stalled; NULL while it runs
    due_at             TIMESTAMPTZ,                      -- next look without news: stall, retry
    processed_at       TIMESTAMPTZ,
    attempts           SMALLINT NOT NULL DEFAULT 0,
    parked_error       TEXT,                             -- detector, exception type, code line; never a message
    issue_effect       TEXT CHECK (issue_effect IN ('clean', 'affected')),
    effect_seq         BIGINT,                           -- commit order of the effect among the agent's runs
    PRIMARY KEY (run_id, customer_id)
);
CREATE INDEX runs_due ON runs (bucket, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX runs_agent ON runs (customer_id, agent_id, started_at DESC, run_id);
CREATE INDEX runs_judged ON runs (customer_id, agent_id, processed_at) WHERE processed_at IS NOT NULL;
CREATE INDEX runs_baseline ON runs (customer_id, agent_id, agent_version, task_hash, processed_at DESC)
    WHERE trigger = 'run.completed' AND signal_count = 0 AND dropped_events = 0;

CREATE TABLE processed_runs (
    run_id        TEXT NOT NULL,
    customer_id   TEXT NOT NULL DEFAULT 'default',
    agent_id      TEXT NOT NULL,
    agent_version TEXT NOT NULL,
    processed_at  TIMESTAMPTZ NOT NULL DEFAULT now(),
    signal_count  INTEGER NOT NULL DEFAULT 0,
    trigger       TEXT NOT NULL,
    PRIMARY KEY (run_id, customer_id)
);

CREATE TABLE bucket_leases (
    bucket     SMALLINT PRIMARY KEY,
    holder     UUID,
    epoch      BIGINT NOT NULL DEFAULT 0,                -- rises with every change of holder
    expires_at TIMESTAMPTZ NOT NULL DEFAULT '-infinity'
);
INSERT INTO bucket_leases (bucket) SELECT generate_series(0, 63);

-- Who is alive, so that pollers share the buckets fairly.
CREATE TABLE pollers (
    holder  UUID PRIMARY KEY,
    seen_at TIMESTAMPTZ NOT NULL
);

CREATE FUNCTION severity_rank(severity TEXT) RETURNS INTEGER LANGUAGE SQL IMMUTABLE STRICT PARALLEL SAFE
    RETURN array_position(ARRAY['LOW', 'MEDIUM', 'HIGH', 'CRITICAL'], severity);

CREATE TABLE failure_signals (
    id            BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id   TEXT NOT NULL DEFAULT 'default',
    failure_type  TEXT NOT NULL,
    severity      TEXT NOT NULL,
    run_id        TEXT NOT NULL,
    agent_id      TEXT NOT NULL,
    agent_version TEXT NOT NULL,
    step_index    INTEGER NOT NULL,
    confidence    REAL NOT NULL,
    evidence      JSONB NOT NULL,
    detected_at   TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at    TIMESTAMPTZ NOT NULL DEFAULT now(),
    shadow        BOOLEAN NOT NULL DEFAULT TRUE,
    alerted       BOOLEAN NOT NULL DEFAULT FALSE,
    in_flight     BOOLEAN NOT NULL DEFAULT FALSE,        -- found while the run was still going on
    fanned_out_at TIMESTAMPTZ,                           -- NULL = the dispatcher owes it its deliveries
    UNIQUE (run_id, customer_id, failure_type)
);
CREATE INDEX failure_signals_agent ON failure_signals (customer_id, agent_id, detected_at DESC, id);
CREATE INDEX failure_signals_outbox ON failure_signals (detected_at, id) WHERE fanned_out_at IS NULL AND NOT shadow;

CREATE TABLE issues (
    id              BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id     TEXT NOT NULL DEFAULT 'default',
    agent_id        TEXT NOT NULL,
    failure_type    TEXT NOT NULL,
    status          TEXT NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'resolved', 'reopened')),
    first_seen      TIMESTAMPTZ NOT NULL,
    last_seen       TIMESTAMPTZ NOT NULL,
    resolved_at     TIMESTAMPTZ,
    affected_runs   INTEGER NOT NULL DEFAULT 0,
    clean_runs_since INTEGER NOT NULL DEFAULT 0,        -- stands still once resolved
    last_affected_seq BIGINT NOT NULL DEFAULT 0,         -- effects of runs with a later effect_seq came after it
    UNIQUE (customer_id, agent_id, failure_type)
);
CREATE SEQUENCE issue_effect_seq;

-- Totals, kept as runs are judged; `rebuild` proves them equal to a recount.
CREATE TABLE agents (
    customer_id TEXT NOT NULL DEFAULT 'default',
    agent_id    TEXT NOT NULL,
    first_seen  TIMESTAMPTZ NOT NULL,
    last_seen   TIMESTAMPTZ NOT NULL,
    run_count   BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (customer_id, agent_id)
);
CREATE TABLE agent_hours (
    customer_id   TEXT NOT NULL DEFAULT 'default',
    agent_id      TEXT NOT NULL,
    agent_version TEXT NOT NULL,
    hour          TIMESTAMPTZ NOT NULL,                  -- the hour the run started
    run_count     BIGINT NOT NULL DEFAULT 0,
    total_tokens  BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (customer_id, agent_id, hour, agent_version)
);
CREATE TABLE signal_hours (
    customer_id   TEXT NOT NULL DEFAULT 'default',
    agent_id      TEXT NOT NULL,
    agent_version TEXT NOT NULL,
    failure_type  TEXT NOT NULL,
    severity      TEXT NOT NULL,
    hour          TIMESTAMPTZ NOT NULL,                  -- the hour of detected_at
    signal_count  BIGINT NOT NULL DEFAULT 0,             -- live signals
    PRIMARY KEY (customer_id, agent_id, hour, failure_type, severity, agent_version)
);

-- first_seen bounds what a destination is told: nothing older than itself.
CREATE TABLE destinations (
    name       TEXT PRIMARY KEY,
    kind       TEXT NOT NULL,
    first_seen TIMESTAMPTZ NOT NULL DEFAULT now(),
    circuit_open_since TIMESTAMPTZ,                      -- NULL = closed
    failed_rounds INTEGER NOT NULL DEFAULT 0,            -- of probes, since the circuit opened
    probe_at   TIMESTAMPTZ                               -- while open: when the next probe may go
);

CREATE TABLE deliveries (
    id              UUID PRIMARY KEY,                    -- uuid5 of what it is: stays the same over every retry
    customer_id     TEXT NOT NULL DEFAULT 'default',
    run_id          TEXT NOT NULL,
    failure_type    TEXT NOT NULL,
    destination     TEXT NOT NULL,
    kind            TEXT NOT NULL CHECK (kind IN ('first', 'update', 'resolved', 'escalated')),
    seq             INTEGER NOT NULL DEFAULT 0,
    state           TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'done', 'refused', 'expired')),
    round           INTEGER NOT NULL DEFAULT 0,
    attempt         INTEGER NOT NULL DEFAULT 0,          -- attempts spent in this round
    next_attempt_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    lease_until     TIMESTAMPTZ,
    last_status     INTEGER,
    last_error      TEXT,                                -- an error class, never a body or an address
    created_at      TIMESTAMPTZ NOT NULL DEFAULT now(),
    done_at         TIMESTAMPTZ,
    UNIQUE (customer_id, run_id, failure_type, destination, kind, seq)
);
CREATE INDEX deliveries_due ON deliveries (destination, created_at, id) WHERE state = 'pending';

CREATE TABLE digest_log (
    id          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest_type TEXT NOT NULL DEFAULT 'weekly',
    sent_at     TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE TABLE fixes (
    id                   BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id          TEXT NOT NULL DEFAULT 'default',
    run_id               TEXT NOT NULL,
    signal_id            BIGINT NOT NULL,
    fix_content          TEXT NOT NULL,                  -- the one text kept, because a person chose to
    fix_type             TEXT NOT NULL DEFAULT 'prompt_addition',
    applied_via          TEXT NOT NULL CHECK (applied_via IN ('langfuse', 'clipboard')),
    langfuse_prompt_name TEXT,
    langfuse_version     INTEGER,
    applied_at           TIMESTAMPTZ NOT NULL DEFAULT now()
);

-- Facts of this installation that every host must agree on, such as the random hash key.
CREATE TABLE installation (
    name  TEXT PRIMARY KEY,
    value BYTEA NOT NULL
);
INSERT INTO installation (name, value) SELECT 'hash_key', uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid());
