-- The second factor of users: codes by time, and recovery codes.

-- Sealed by the key in the manager's data folder; NULL: there is none.
ALTER TABLE users ADD COLUMN totp BYTEA;
ALTER TABLE users ADD COLUMN totp_ms BIGINT;
-- The newest step whose code was taken: none up to it is taken again.
ALTER TABLE users ADD COLUMN totp_step BIGINT NOT NULL DEFAULT 0;
-- Offered, and not confirmed by a code yet.
ALTER TABLE users ADD COLUMN totp_pending BYTEA;
ALTER TABLE users ADD COLUMN totp_pending_ms BIGINT;

-- Hashes; a row goes when its code is taken.
CREATE TABLE recovery_codes (
    account BYTEA NOT NULL REFERENCES users (id),
    hash BYTEA NOT NULL,
    PRIMARY KEY (account, hash)
);
