-- What keeps the poller's tables small while thousands of runs a second pass through them.

-- A run that goes on is written at each look, in columns that no index has: with room left in its page that touches no
-- index and leaves nothing for vacuum.
ALTER TABLE runs SET (fillfactor = 75);

-- A queue: every row is deleted within a second or so, and looking for the next ones means stepping over the dead.
ALTER TABLE run_touches SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 1000000);
