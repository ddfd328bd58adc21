-- What is denied on all hosts or on those of a group, and how far each host has it in force.

-- The number of the last change of the list; one row, held by whoever changes it.
CREATE TABLE denial_changes (
    one BIGINT NOT NULL PRIMARY KEY,
    last BIGINT NOT NULL
);
INSERT INTO denial_changes (one, last) VALUES (1, 0);

CREATE TABLE denials (
    -- The change that brought it.
    number BIGINT NOT NULL PRIMARY KEY,
    id BYTEA NOT NULL UNIQUE,
    -- hash or path.
    kind TEXT NOT NULL,
    value TEXT NOT NULL,
    -- NULL: all hosts.
    group_name TEXT,
    filed_by TEXT NOT NULL,
    reason TEXT NOT NULL,
    filed_ms BIGINT NOT NULL,
    -- When it is taken back by itself; NULL: never.
    until_ms BIGINT,
    -- The change that took it back.
    removed BIGINT,
    removed_by TEXT NOT NULL,
    removed_why TEXT NOT NULL,
    removed_ms BIGINT
);

-- What each host says.
CREATE TABLE denial_hosts (
    host BIGINT NOT NULL PRIMARY KEY REFERENCES hosts (number),
    -- The last change that is in force there.
    through BIGINT NOT NULL,
    -- A JSON list of what is not: id and why.
    refused TEXT NOT NULL
);
