-- Events, one partition a day (made by the manager ahead of time), the rest in `events_other`.
-- `number` is the time and some bits of the id: it orders by time, and the same event of the same
-- host always comes to the same place.
CREATE TABLE events (
    number BIGINT NOT NULL PRIMARY KEY,
    host BIGINT NOT NULL,
    id BYTEA NOT NULL,
    kind TEXT NOT NULL,
    received_ms BIGINT NOT NULL,
    size BIGINT NOT NULL,
    body TEXT NOT NULL,
    words TSVECTOR NOT NULL
) PARTITION BY RANGE (number);
CREATE INDEX events_kind ON events (kind, number);
CREATE INDEX events_host ON events (host, number);
CREATE INDEX events_words ON events USING GIN (words);
CREATE TABLE events_other PARTITION OF events DEFAULT;

CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$;
CREATE TRIGGER audit_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();
