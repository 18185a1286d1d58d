-- Fixes that are put into prompts of Langfuse's.

-- Who is changing which prompt right now, so that two clicks, or two processes, do it one after the other. A claim ends
-- by itself; a holder that died leaves its row to the next one.
CREATE TABLE prompt_claims (
    customer_id          TEXT NOT NULL DEFAULT 'default',
    langfuse_prompt_name TEXT NOT NULL,
    holder               UUID NOT NULL,
    expires_at           TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (customer_id, langfuse_prompt_name)
);
