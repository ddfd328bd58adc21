-- Whom other parties (OpenID Connect) vouch for, and which user that is. An issuer never gives a
-- subject to somebody else (OpenID Connect Core 1.0, section 2).
CREATE TABLE identities (
    issuer TEXT NOT NULL,
    subject TEXT NOT NULL,
    account BYTEA NOT NULL REFERENCES users (id),
    created_ms BIGINT NOT NULL,
    PRIMARY KEY (issuer, subject)
);
CREATE INDEX identities_account ON identities (account);
