-- Remote shells: who may open them, and at which manager a host's stream is.

ALTER TABLE users ADD COLUMN may_shell BIGINT NOT NULL DEFAULT 0;
-- The machine of the manager that has the host's stream; for people.
ALTER TABLE hosts ADD COLUMN manager TEXT;
