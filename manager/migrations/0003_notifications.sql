-- Where alerts are told (e-mail, webhooks, syslog), and what waits to be told.

CREATE TABLE notifications (
    id BYTEA NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    config TEXT NOT NULL,
    -- Sealed by the key in the manager's data folder.
    secret BYTEA,
    enabled BIGINT NOT NULL,
    min_level BIGINT NOT NULL,
    window_ms BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    changed_ms BIGINT NOT NULL,
    -- Not before this; moves on with each failure.
    next_ms BIGINT NOT NULL,
    -- In a row.
    failures BIGINT NOT NULL,
    error TEXT NOT NULL,
    error_ms BIGINT,
    sent_ms BIGINT,
    messages BIGINT NOT NULL,
    detections BIGINT NOT NULL,
    -- Group of the alert that says that this one fails, while it stands.
    alarm BYTEA,
    -- Which manager delivers, and until when.
    lease BIGINT NOT NULL,
    lease_ms BIGINT NOT NULL
);

-- Detections that nobody was told of yet, counted by alert. Rows with a delivery are on their way.
CREATE TABLE notification_queue (
    channel BYTEA NOT NULL REFERENCES notifications (id),
    alert BIGINT NOT NULL,
    delivery BYTEA,
    host BIGINT NOT NULL,
    kind TEXT NOT NULL,
    model TEXT NOT NULL,
    count BIGINT NOT NULL,
    first_ms BIGINT NOT NULL,
    last_ms BIGINT NOT NULL,
    due_ms BIGINT NOT NULL
);
CREATE UNIQUE INDEX notification_waiting ON notification_queue (channel, alert)
    WHERE delivery IS NULL;
CREATE INDEX notification_due ON notification_queue (channel, due_ms) WHERE delivery IS NULL;
CREATE INDEX notification_taken ON notification_queue (delivery);

-- Messages that are to be sent, each until it was taken.
CREATE TABLE notification_deliveries (
    id BYTEA NOT NULL PRIMARY KEY,
    channel BYTEA NOT NULL REFERENCES notifications (id),
    created_ms BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    next_ms BIGINT NOT NULL,
    -- The other side said that it will never take it.
    refused BIGINT NOT NULL,
    error TEXT NOT NULL
);
CREATE INDEX notification_deliveries_next ON notification_deliveries (channel, next_ms);
