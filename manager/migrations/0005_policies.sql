-- Policies: versioned documents for groups of hosts, and which version each host is to run and runs.

CREATE TABLE policies (
    id BYTEA NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created_ms BIGINT NOT NULL,
    -- The last version whose roll-out ended well; 0: none.
    stable BIGINT NOT NULL,
    -- A JSON list of percents.
    stages TEXT NOT NULL,
    soak_ms BIGINT NOT NULL,
    roll_back BIGINT NOT NULL
);

-- Numbers only grow; a version never changes.
CREATE TABLE policy_versions (
    policy BYTEA NOT NULL REFERENCES policies (id),
    version BIGINT NOT NULL,
    document TEXT NOT NULL,
    author TEXT NOT NULL,
    reason TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    -- Its roll-out: rolling, paused, done, stopped, superseded.
    state TEXT NOT NULL,
    -- As the policy had them when this was put.
    stages TEXT NOT NULL,
    soak_ms BIGINT NOT NULL,
    stage BIGINT NOT NULL,
    -- Since when all connected hosts of the stage run it.
    settled_ms BIGINT,
    changed_ms BIGINT NOT NULL,
    -- Why it was stopped, and by which host.
    why TEXT NOT NULL,
    host BYTEA,
    PRIMARY KEY (policy, version)
);

-- One policy a group.
CREATE TABLE policy_groups (
    group_name TEXT NOT NULL PRIMARY KEY,
    policy BYTEA NOT NULL REFERENCES policies (id)
);
CREATE INDEX policy_groups_policy ON policy_groups (policy);

CREATE TABLE policy_hosts (
    host BIGINT NOT NULL PRIMARY KEY REFERENCES hosts (number),
    -- What it is to run; NULL: none.
    policy BYTEA,
    wanted BIGINT NOT NULL,
    -- What it was last given of that policy, and when.
    given BIGINT NOT NULL,
    given_ms BIGINT NOT NULL,
    -- Why it was red then, as hosts.reasons.
    given_reasons TEXT NOT NULL,
    -- What it says.
    accepts BIGINT NOT NULL,
    running_id TEXT NOT NULL,
    running BIGINT NOT NULL,
    refused_id TEXT NOT NULL,
    refused BIGINT NOT NULL,
    why TEXT NOT NULL
);
CREATE INDEX policy_hosts_policy ON policy_hosts (policy, wanted);
