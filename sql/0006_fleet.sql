-- Fleet signals: what is watched for a rise of a failure's rate, and the rises that were found. What failures cost.

-- A version or a deploy of an agent, or (subject '') its hours.
CREATE TABLE fleet_watches (
    customer_id TEXT NOT NULL DEFAULT 'default',
    agent_id    TEXT NOT NULL,
    scope       TEXT NOT NULL CHECK (scope IN ('version', 'deploy', 'hour')),
    subject     TEXT NOT NULL,
    since       TIMESTAMPTZ NOT NULL,                    -- when it appeared; of hours, the last one that was looked at
    next_runs   INTEGER,                                 -- judged runs at which it is looked at next; NULL = no more
    PRIMARY KEY (customer_id, agent_id, scope, subject)
);

-- Outbox as failure_signals: fanned_out_at NULL = its deliveries are owed. Their seq is its id.
CREATE TABLE fleet_signals (
    id              INTEGER GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id     TEXT NOT NULL DEFAULT 'default',
    agent_id        TEXT NOT NULL,
    failure_type    TEXT NOT NULL,
    scope           TEXT NOT NULL,
    subject         TEXT NOT NULL,                       -- the version, the deploy, or the hour as YYYY-MM-DDTHH:00Z
    since           TIMESTAMPTZ NOT NULL,
    severity        TEXT NOT NULL,                       -- the most frequent one of the signals counted
    run_id          TEXT NOT NULL,                       -- the newest affected run
    runs            BIGINT NOT NULL,
    affected        BIGINT NOT NULL,
    runs_before     BIGINT NOT NULL,
    affected_before BIGINT NOT NULL,
    found_at        TIMESTAMPTZ NOT NULL DEFAULT now(),
    over_at         TIMESTAMPTZ,                         -- when an hour was seen in which the rate was back below
    fanned_out_at   TIMESTAMPTZ,
    UNIQUE (customer_id, agent_id, failure_type, scope, subject)
);
CREATE INDEX fleet_signals_outbox ON fleet_signals (id) WHERE fanned_out_at IS NULL;

ALTER TABLE deliveries DROP CONSTRAINT deliveries_kind_check,
    ADD CONSTRAINT deliveries_kind_check CHECK (kind IN ('first', 'update', 'resolved', 'escalated', 'fleet'));

-- {model: [prompt, cached, completion]}: what the run's tokens were, so that prices can be put to them when they are
-- shown. NULL = no tokens known, or judged before there was this column.
ALTER TABLE runs ADD COLUMN token_mix JSONB;
