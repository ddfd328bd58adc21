-- What lies in the hosts' quarantines, and what became of it: put together from their events.
CREATE TABLE quarantine_items (
    number BIGINT NOT NULL PRIMARY KEY,
    host BIGINT NOT NULL REFERENCES hosts (number),
    item BYTEA NOT NULL,
    path TEXT NOT NULL,
    size BIGINT NOT NULL,
    sha256 TEXT NOT NULL,
    md5 TEXT NOT NULL,
    signature TEXT NOT NULL,
    -- The detection's place among the events; NULL as long as only later events of the item came.
    event BIGINT,
    sealed_ms BIGINT NOT NULL,
    state TEXT NOT NULL,
    state_ms BIGINT NOT NULL,
    UNIQUE (host, item)
);
CREATE INDEX quarantine_items_state ON quarantine_items (state, number);
CREATE INDEX quarantine_items_sha256 ON quarantine_items (sha256);
