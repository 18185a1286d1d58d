-- What each destination was told of each issue: the first signal at once, then only what is new, and the end of it.

ALTER TABLE issues
    ADD COLUMN times_reopened  INTEGER NOT NULL DEFAULT 0,     -- tells one life of an issue from the next
    ADD COLUMN note_due        BOOLEAN NOT NULL DEFAULT FALSE, -- it was resolved, and the dispatcher owes its notes
    ADD COLUMN acknowledged_at TIMESTAMPTZ,                    -- somebody knows: no updates until it is resolved or worse
    ADD COLUMN snoozed_until   TIMESTAMPTZ;
CREATE INDEX issues_note_due ON issues (id) WHERE note_due;

ALTER TABLE deliveries
    ADD COLUMN severity TEXT,                                  -- what is told of; NULL: made before this was kept
    ADD COLUMN reopened BOOLEAN NOT NULL DEFAULT FALSE;        -- the first of an issue that had been resolved

CREATE TABLE alert_threads (
    customer_id  TEXT NOT NULL DEFAULT 'default',
    agent_id     TEXT NOT NULL,
    failure_type TEXT NOT NULL,
    destination  TEXT NOT NULL,
    run_id       TEXT NOT NULL,                                -- the run it was told of last
    severity     TEXT,                                         -- the highest it was told of; NULL: of nothing that still goes on
    life         INTEGER NOT NULL,                             -- the issue's times_reopened then
    told_at      TIMESTAMPTZ NOT NULL,
    updates      INTEGER NOT NULL,                             -- since the first
    due_at       TIMESTAMPTZ,                                  -- when what was gathered is told; NULL: nothing was
    PRIMARY KEY (customer_id, agent_id, failure_type, destination)
);
CREATE INDEX alert_threads_due ON alert_threads (due_at) WHERE due_at IS NOT NULL;

-- Signals that a destination is told of together.
CREATE TABLE gathered_signals (
    customer_id  TEXT NOT NULL DEFAULT 'default',
    run_id       TEXT NOT NULL,
    failure_type TEXT NOT NULL,
    destination  TEXT NOT NULL,
    agent_id     TEXT NOT NULL,
    gathered_at  TIMESTAMPTZ NOT NULL DEFAULT now(),
    delivery_id  UUID,                                         -- the delivery that counts it; NULL: none yet
    PRIMARY KEY (run_id, customer_id, failure_type, destination)
);
CREATE INDEX gathered_signals_thread ON gathered_signals (customer_id, agent_id, failure_type, destination)
    WHERE delivery_id IS NULL;
CREATE INDEX gathered_signals_delivery ON gathered_signals (delivery_id) WHERE delivery_id IS NOT NULL;
