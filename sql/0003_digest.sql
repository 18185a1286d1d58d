-- The weekly digest: what each destination is owed, and a record of what it got.

CREATE TABLE digests (
    destination     TEXT NOT NULL,
    digest_type     TEXT NOT NULL DEFAULT 'weekly',
    due_at          TIMESTAMPTZ NOT NULL,                -- the last moment that was, or is being, taken care of
    state           TEXT NOT NULL CHECK (state IN ('pending', 'done', 'refused')),
    round           INTEGER NOT NULL DEFAULT 0,          -- as in deliveries
    attempt         INTEGER NOT NULL DEFAULT 0,
    next_attempt_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    lease_until     TIMESTAMPTZ,
    last_status     INTEGER,
    last_error      TEXT,                                -- an error class, never a body or an address
    PRIMARY KEY (destination, digest_type)
);

ALTER TABLE digest_log ADD COLUMN destination TEXT, ADD COLUMN due_at TIMESTAMPTZ;
CREATE UNIQUE INDEX digest_log_once ON digest_log (destination, digest_type, due_at);
