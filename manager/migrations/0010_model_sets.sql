-- What hosts say of the detection models that their agents bring along. Most hosts of a fleet say the
-- same: it is kept once, by its hash.
CREATE TABLE model_sets (
    hash BYTEA NOT NULL PRIMARY KEY,
    body TEXT NOT NULL,
    seen_ms BIGINT NOT NULL
);
ALTER TABLE hosts ADD COLUMN models BYTEA;
CREATE INDEX hosts_models ON hosts (models);
