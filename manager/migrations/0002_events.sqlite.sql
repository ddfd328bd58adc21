-- Events. `number` is the time and some bits of the id: it orders by time, and the same event of
-- the same host always comes to the same place.
CREATE TABLE events (
    number INTEGER NOT NULL PRIMARY KEY,
    host BIGINT NOT NULL,
    id BYTEA NOT NULL,
    kind TEXT NOT NULL,
    received_ms BIGINT NOT NULL,
    size BIGINT NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX events_kind ON events (kind, number);
CREATE INDEX events_host ON events (host, number);

-- Words come cut and in lower case: `ascii` takes what is not ASCII as letters, and cuts at spaces.
CREATE VIRTUAL TABLE events_text USING fts5 (
    cmdline, path, other, facts,
    content = '', contentless_delete = 1,
    tokenize = 'ascii'
);

CREATE TRIGGER audit_update BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_delete BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
