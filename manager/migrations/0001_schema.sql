-- What both databases share. Times are milliseconds since the epoch; ids are UUIDs, 16 bytes.
-- BYTEA is PostgreSQL's word; SQLite keeps blobs in a column of any name.

CREATE TABLE hosts (
    number BIGINT NOT NULL PRIMARY KEY,
    id BYTEA NOT NULL UNIQUE,
    name TEXT NOT NULL,
    machine_id TEXT NOT NULL,
    facts TEXT NOT NULL,
    group_name TEXT NOT NULL,
    enrolled_ms BIGINT NOT NULL,
    revoked_ms BIGINT,
    generation BIGINT NOT NULL,
    cloned_ms BIGINT,
    session BYTEA,
    seen_ms BIGINT NOT NULL,
    heartbeat TEXT,
    heartbeat_ms BIGINT,
    health TEXT NOT NULL,
    reasons TEXT NOT NULL,
    health_ms BIGINT NOT NULL,
    events_refused BIGINT NOT NULL
);
CREATE INDEX hosts_name ON hosts (name);
CREATE INDEX hosts_seen ON hosts (seen_ms);
CREATE INDEX hosts_session ON hosts (session);

CREATE TABLE certificates (
    serial TEXT NOT NULL PRIMARY KEY,
    host BIGINT NOT NULL REFERENCES hosts (number),
    issued_ms BIGINT NOT NULL,
    not_after_ms BIGINT NOT NULL,
    revoked_ms BIGINT
);
CREATE INDEX certificates_host ON certificates (host);

CREATE TABLE enrollment_tokens (
    id BYTEA NOT NULL PRIMARY KEY,
    hash BYTEA NOT NULL UNIQUE,
    group_name TEXT NOT NULL,
    note TEXT NOT NULL,
    uses_left BIGINT NOT NULL,
    uses BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    expires_ms BIGINT NOT NULL,
    revoked_ms BIGINT
);

CREATE TABLE alerts (
    number BIGINT NOT NULL PRIMARY KEY,
    id BYTEA NOT NULL UNIQUE,
    host BIGINT NOT NULL REFERENCES hosts (number),
    kind TEXT NOT NULL,
    group_key BYTEA NOT NULL,
    model TEXT NOT NULL,
    cause TEXT NOT NULL,
    title TEXT NOT NULL,
    level TEXT NOT NULL,
    attack TEXT NOT NULL,
    simulated BIGINT NOT NULL,
    count BIGINT NOT NULL,
    first_ms BIGINT NOT NULL,
    last_ms BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    updated_ms BIGINT NOT NULL,
    state TEXT NOT NULL,
    resolution TEXT,
    resolved_ms BIGINT,
    assignee TEXT,
    cleared_ms BIGINT,
    previous BYTEA,
    evidence TEXT NOT NULL
);
-- One open alert a group.
CREATE UNIQUE INDEX alerts_open ON alerts (group_key) WHERE state <> 'resolved';
CREATE INDEX alerts_group ON alerts (group_key, number);
CREATE INDEX alerts_state ON alerts (state, number);
CREATE INDEX alerts_host ON alerts (host, number);

CREATE TABLE alert_events (
    alert BIGINT NOT NULL,
    event BIGINT NOT NULL,
    PRIMARY KEY (alert, event)
);

CREATE TABLE alert_notes (
    alert BIGINT NOT NULL,
    number BIGINT NOT NULL,
    time_ms BIGINT NOT NULL,
    author TEXT NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (alert, number)
);

CREATE TABLE tasks (
    number BIGINT NOT NULL PRIMARY KEY,
    id BYTEA NOT NULL UNIQUE,
    host BIGINT NOT NULL REFERENCES hosts (number),
    name TEXT NOT NULL,
    action TEXT NOT NULL,
    stage TEXT NOT NULL,
    filed_by TEXT NOT NULL,
    reason TEXT NOT NULL,
    alert BYTEA,
    idempotency TEXT,
    request_hash BYTEA,
    filed_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL,
    sent_ms BIGINT,
    delivered_ms BIGINT,
    executed_ms BIGINT,
    ended_ms BIGINT,
    cancel_ms BIGINT,
    cancel_by TEXT,
    observed TEXT NOT NULL,
    result TEXT NOT NULL,
    file_size BIGINT,
    file_sha256 TEXT
);
CREATE UNIQUE INDEX tasks_idempotency ON tasks (filed_by, idempotency);
CREATE INDEX tasks_host ON tasks (host, number);
-- Those that are not at their end.
CREATE INDEX tasks_open ON tasks (host, stage) WHERE ended_ms IS NULL;

CREATE TABLE users (
    id BYTEA NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL,
    password TEXT NOT NULL,
    must_change BIGINT NOT NULL,
    failures BIGINT NOT NULL,
    locked_until_ms BIGINT NOT NULL,
    disabled BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    changed_ms BIGINT NOT NULL
);

-- Sign-ins (kind 'session') and API tokens (kind 'token').
CREATE TABLE credentials (
    id BYTEA NOT NULL PRIMARY KEY,
    hash BYTEA NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    account BYTEA NOT NULL REFERENCES users (id),
    name TEXT NOT NULL,
    scopes TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    used_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL
);
CREATE INDEX credentials_account ON credentials (account);

-- A chain: each row's hash covers its content and the hash before it.
CREATE TABLE audit (
    number BIGINT NOT NULL PRIMARY KEY,
    time_ms BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    detail TEXT NOT NULL,
    previous BYTEA NOT NULL,
    hash BYTEA NOT NULL
);

-- Events and their bytes by day and kind; each manager counts in rows of its own.
CREATE TABLE event_totals (
    day BIGINT NOT NULL,
    kind TEXT NOT NULL,
    writer BIGINT NOT NULL,
    events BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    PRIMARY KEY (kind, day, writer)
);
