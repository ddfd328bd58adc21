//! Policies, their versions with their roll-outs, and how each host stands to its policy.
//!
//! Invariants: a version's document never changes and its number is never given again; whoever
//! changes a policy, its versions or what its hosts are to run holds the policy's row.

use sqlx::any::AnyRow;
use uuid::Uuid;

use super::{
    Backend, Store, StoreError, Tx, clean, column, failed, id_column, id_column_maybe, id_value,
};

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Its id.
    pub id: Uuid,
    /// For people; unique.
    pub name: String,
    /// When it was made.
    pub created_ms: i64,
    /// The last version whose roll-out ended well; 0 for none.
    pub stable: i64,
    /// Stages of its next roll-outs, percent, as a JSON list.
    pub stages: String,
    /// How long a stage is watched.
    pub soak_ms: i64,
    /// Whether hosts go back when a roll-out stops by itself.
    pub roll_back: bool,
}

/// A version, and its roll-out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Whose.
    pub policy: Uuid,
    /// Its number, from 1.
    pub version: i64,
    /// TOML.
    pub document: String,
    /// Who put it.
    pub author: String,
    /// Why.
    pub reason: String,
    /// When.
    pub created_ms: i64,
    /// `rolling`, `paused`, `done`, `stopped`, `superseded`.
    pub state: String,
    /// Percents, as a JSON list.
    pub stages: String,
    /// How long a stage is watched.
    pub soak_ms: i64,
    /// Which stage it is in, from 0.
    pub stage: i64,
    /// Since when all connected hosts of the stage run it.
    pub settled_ms: Option<i64>,
    /// When the roll-out last changed.
    pub changed_ms: i64,
    /// Why it was stopped.
    pub why: String,
    /// By which host.
    pub host: Option<Uuid>,
}

/// How a host stands to its policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostPolicy {
    /// The host's number.
    pub number: i64,
    /// Its policy; nothing where its group has none.
    pub policy: Option<Uuid>,
    /// The version that it is to run; 0 for none.
    pub wanted: i64,
    /// The version that it was last given.
    pub given: i64,
    /// When.
    pub given_ms: i64,
    /// Why it was red then, a JSON list of reasons.
    pub given_reasons: String,
    /// It takes policies.
    pub accepts: bool,
    /// The policy that it says it runs; empty for none.
    pub running_id: String,
    /// And its version.
    pub running: i64,
    /// The policy that it refused; empty for none.
    pub refused_id: String,
    /// And its version.
    pub refused: i64,
    /// Why.
    pub why: String,
}

/// A host of a policy's groups that was heard of: of others it is not known what is red anyhow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// It is red, and since when.
    pub red_ms: Option<i64>,
    /// Why, a JSON list of reasons.
    pub reasons: String,
    /// It has a stream.
    pub connected: bool,
    /// How it stands; `policy` is nothing before it was looked at.
    pub state: HostPolicy,
}

/// What a host is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The policy; nothing when it is to run none.
    pub policy: Option<Uuid>,
    /// Its name.
    pub name: String,
    /// The version.
    pub version: i64,
    /// Its document.
    pub document: String,
    /// It was given this.
    pub given: bool,
    /// It runs this already, as it says.
    pub runs: bool,
}

/// Adds a policy. False when the name is taken.
///
/// # Errors
/// [`StoreError`]
pub async fn policy_insert(tx: &mut Tx, policy: &Policy) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "INSERT INTO policies (id, name, created_ms, stable, stages, soak_ms, roll_back) \
         VALUES ($1, $2, $3, 0, $4, $5, $6) ON CONFLICT DO NOTHING",
    )
    .bind(id_value(policy.id))
    .bind(clean(&policy.name))
    .bind(policy.created_ms)
    .bind(clean(&policy.stages))
    .bind(policy.soak_ms)
    .bind(i64::from(policy.roll_back))
    .execute(tx.conn())
    .await
    .map_err(failed("add a policy"))?;
    Ok(done.rows_affected() == 1)
}

/// Gives a policy another name. False when that is taken.
///
/// # Errors
/// [`StoreError`]
pub async fn policy_rename(tx: &mut Tx, id: Uuid, name: &str) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE policies SET name = $1 WHERE id = $2 AND NOT EXISTS \
         (SELECT 1 FROM policies o WHERE o.name = $1 AND o.id <> $2)",
    )
    .bind(clean(name))
    .bind(id_value(id))
    .execute(tx.conn())
    .await
    .map_err(failed("rename a policy"))?;
    Ok(done.rows_affected() == 1)
}

/// Takes a policy away, with its versions. Its groups must be gone.
///
/// # Errors
/// [`StoreError`]
pub async fn policy_delete(tx: &mut Tx, id: Uuid) -> Result<(), StoreError> {
    for sql in [
        // Hosts that nobody looked at since, e.g. revoked ones.
        "UPDATE policy_hosts SET policy = NULL, wanted = 0 WHERE policy = $1",
        "DELETE FROM policy_versions WHERE policy = $1",
        "DELETE FROM policies WHERE id = $1",
    ] {
        sqlx::query(sql)
            .bind(id_value(id))
            .execute(tx.conn())
            .await
            .map_err(failed("delete a policy"))?;
    }
    Ok(())
}

/// Groups of a policy, by name, as this transaction sees them.
///
/// # Errors
/// [`StoreError`]
pub async fn groups_of(tx: &mut Tx, id: Uuid) -> Result<Vec<String>, StoreError> {
    let rows = sqlx::query(GROUPS)
        .bind(id_value(id))
        .fetch_all(tx.conn())
        .await
        .map_err(failed("list a policy's groups"))?;
    rows.iter().map(|row| column(row, "group_name")).collect()
}

/// Writes what changes of a policy.
///
/// # Errors
/// [`StoreError`]
pub async fn policy_update(tx: &mut Tx, policy: &Policy) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE policies SET stable = $1, stages = $2, soak_ms = $3, roll_back = $4 WHERE id = $5",
    )
    .bind(policy.stable)
    .bind(clean(&policy.stages))
    .bind(policy.soak_ms)
    .bind(i64::from(policy.roll_back))
    .bind(id_value(policy.id))
    .execute(tx.conn())
    .await
    .map_err(failed("change a policy"))?;
    Ok(())
}

/// A policy, held until the end of the transaction.
///
/// # Errors
/// [`StoreError`]
pub async fn policy_hold(tx: &mut Tx, id: Uuid) -> Result<Option<Policy>, StoreError> {
    let sql = match tx.backend() {
        Backend::Postgres => "SELECT * FROM policies WHERE id = $1 FOR UPDATE",
        Backend::Sqlite => "SELECT * FROM policies WHERE id = $1",
    };
    let row = sqlx::query(sql)
        .bind(id_value(id))
        .fetch_optional(tx.conn())
        .await
        .map_err(failed("read a policy"))?;
    row.as_ref().map(policy).transpose()
}

/// The newest version of a policy.
///
/// # Errors
/// [`StoreError`]
pub async fn version_newest(tx: &mut Tx, policy: Uuid) -> Result<Option<Version>, StoreError> {
    let row = sqlx::query(
        "SELECT * FROM policy_versions WHERE policy = $1 ORDER BY version DESC LIMIT 1",
    )
    .bind(id_value(policy))
    .fetch_optional(tx.conn())
    .await
    .map_err(failed("read a policy's version"))?;
    row.as_ref().map(version).transpose()
}

/// A version's document; empty for version 0.
///
/// # Errors
/// [`StoreError`]
pub async fn version_document(
    tx: &mut Tx,
    policy: Uuid,
    version: i64,
) -> Result<Option<String>, StoreError> {
    if version == 0 {
        return Ok(Some(String::new()));
    }
    let row =
        sqlx::query("SELECT document FROM policy_versions WHERE policy = $1 AND version = $2")
            .bind(id_value(policy))
            .bind(version)
            .fetch_optional(tx.conn())
            .await
            .map_err(failed("read a policy's version"))?;
    row.map(|row| column(&row, "document")).transpose()
}

/// Keeps a new version.
///
/// # Errors
/// [`StoreError`]
pub async fn version_insert(tx: &mut Tx, version: &Version) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO policy_versions (policy, version, document, author, reason, created_ms, \
         state, stages, soak_ms, stage, settled_ms, changed_ms, why, host) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $6, $12, $13)",
    )
    .bind(id_value(version.policy))
    .bind(version.version)
    .bind(version.document.clone())
    .bind(clean(&version.author))
    .bind(clean(&version.reason))
    .bind(version.created_ms)
    .bind(version.state.clone())
    .bind(version.stages.clone())
    .bind(version.soak_ms)
    .bind(version.stage)
    .bind(version.settled_ms)
    .bind(clean(&version.why))
    .bind(version.host.map(id_value))
    .execute(tx.conn())
    .await
    .map_err(failed("keep a policy's version"))?;
    Ok(())
}

/// Writes how a version's roll-out stands.
///
/// # Errors
/// [`StoreError`]
pub async fn rollout_update(tx: &mut Tx, version: &Version) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE policy_versions SET state = $1, stage = $2, settled_ms = $3, changed_ms = $4, \
         why = $5, host = $6 WHERE policy = $7 AND version = $8",
    )
    .bind(version.state.clone())
    .bind(version.stage)
    .bind(version.settled_ms)
    .bind(version.changed_ms)
    .bind(clean(&version.why))
    .bind(version.host.map(id_value))
    .bind(id_value(version.policy))
    .bind(version.version)
    .execute(tx.conn())
    .await
    .map_err(failed("keep a roll-out"))?;
    Ok(())
}

/// Gives groups to a policy, each of which has no other then, and takes all others from it.
///
/// # Errors
/// [`StoreError`]
pub async fn groups_set(tx: &mut Tx, policy: Uuid, groups: &[String]) -> Result<(), StoreError> {
    let operation = "assign a policy";
    sqlx::query("DELETE FROM policy_groups WHERE policy = $1")
        .bind(id_value(policy))
        .execute(tx.conn())
        .await
        .map_err(failed(operation))?;
    for group in groups {
        sqlx::query(
            "INSERT INTO policy_groups (group_name, policy) VALUES ($1, $2) \
             ON CONFLICT (group_name) DO UPDATE SET policy = $2",
        )
        .bind(clean(group))
        .bind(id_value(policy))
        .execute(tx.conn())
        .await
        .map_err(failed(operation))?;
    }
    Ok(())
}

const GROUPS: &str = "SELECT group_name FROM policy_groups WHERE policy = $1 ORDER BY group_name";

const STATE: &str = "COALESCE(p.host, h.number) AS number, p.policy AS policy, \
    COALESCE(p.wanted, 0) AS wanted, COALESCE(p.given, 0) AS given, \
    COALESCE(p.given_ms, 0) AS given_ms, COALESCE(p.given_reasons, '[]') AS given_reasons, \
    COALESCE(p.accepts, 1) AS accepts, \
    COALESCE(p.running_id, '') AS running_id, COALESCE(p.running, 0) AS running, \
    COALESCE(p.refused_id, '') AS refused_id, COALESCE(p.refused, 0) AS refused, \
    COALESCE(p.why, '') AS why";

fn members_sql(only: &str) -> sqlx::AssertSqlSafe<String> {
    sqlx::AssertSqlSafe(format!(
        "SELECT h.id AS id, h.name AS name, h.health AS health, h.health_ms AS health_ms, \
         h.reasons AS reasons, h.session AS session, {STATE} FROM hosts h \
         JOIN policy_groups g ON g.group_name = h.group_name \
         LEFT JOIN policy_hosts p ON p.host = h.number \
         WHERE g.policy = $1 AND h.revoked_ms IS NULL AND h.health <> 'new' {only} \
         ORDER BY h.number"
    ))
}

/// Every host of a policy's groups.
///
/// # Errors
/// [`StoreError`]
pub async fn members(tx: &mut Tx, policy: Uuid) -> Result<Vec<Member>, StoreError> {
    let rows = sqlx::query(members_sql(""))
        .bind(id_value(policy))
        .fetch_all(tx.conn())
        .await
        .map_err(failed("read a policy's hosts"))?;
    rows.iter().map(member).collect()
}

/// Those of them that are to run another policy, or an older version.
///
/// # Errors
/// [`StoreError`]
pub async fn members_behind(
    tx: &mut Tx,
    policy: Uuid,
    version: i64,
) -> Result<Vec<Member>, StoreError> {
    let only = "AND (p.host IS NULL OR p.policy IS NULL OR p.policy <> $1 OR p.wanted < $2)";
    let rows = sqlx::query(members_sql(only))
        .bind(id_value(policy))
        .bind(version)
        .fetch_all(tx.conn())
        .await
        .map_err(failed("read a policy's hosts"))?;
    rows.iter().map(member).collect()
}

/// Says what a host is to run.
///
/// # Errors
/// [`StoreError`]
pub async fn wanted_set(
    tx: &mut Tx,
    host: i64,
    policy: Option<Uuid>,
    version: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO policy_hosts (host, policy, wanted, given, given_ms, given_reasons, accepts, \
         running_id, running, refused_id, refused, why) \
         VALUES ($1, $2, $3, 0, 0, '[]', 1, '', 0, '', 0, '') \
         ON CONFLICT (host) DO UPDATE SET policy = $2, wanted = $3",
    )
    .bind(host)
    .bind(policy.map(id_value))
    .bind(version)
    .execute(tx.conn())
    .await
    .map_err(failed("say what a host is to run"))?;
    Ok(())
}

/// Hosts that are to run a policy that their group does not have any more: number and id.
///
/// # Errors
/// [`StoreError`]
pub async fn strays(tx: &mut Tx) -> Result<Vec<(i64, Uuid)>, StoreError> {
    let rows = sqlx::query(
        "SELECT h.number AS number, h.id AS id FROM policy_hosts p \
         JOIN hosts h ON h.number = p.host WHERE p.policy IS NOT NULL AND NOT EXISTS \
         (SELECT 1 FROM policy_groups g WHERE g.group_name = h.group_name) \
         ORDER BY h.number LIMIT 500",
    )
    .fetch_all(tx.conn())
    .await
    .map_err(failed("look for hosts without a policy"))?;
    rows.iter().map(|row| Ok((column(row, "number")?, id_column(row, "id")?))).collect()
}

/// A host was given a version.
///
/// # Errors
/// [`StoreError`]
pub async fn given_set(
    tx: &mut Tx,
    host: i64,
    policy: Uuid,
    version: i64,
    now_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE policy_hosts SET given = $1, given_ms = $2, \
         given_reasons = (SELECT reasons FROM hosts WHERE number = $3) \
         WHERE host = $3 AND policy = $4 AND wanted = $1 AND given <> $1",
    )
    .bind(version)
    .bind(now_ms)
    .bind(host)
    .bind(id_value(policy))
    .execute(tx.conn())
    .await
    .map_err(failed("note what a host was given"))?;
    Ok(())
}

/// What a host says that it runs and refused.
///
/// # Errors
/// [`StoreError`]
pub async fn reported_set(tx: &mut Tx, state: &HostPolicy) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO policy_hosts (host, policy, wanted, given, given_ms, given_reasons, accepts, \
         running_id, running, refused_id, refused, why) \
         VALUES ($1, NULL, 0, 0, 0, '[]', $2, $3, $4, $5, $6, $7) \
         ON CONFLICT (host) DO UPDATE SET accepts = $2, running_id = $3, running = $4, \
         refused_id = $5, refused = $6, why = $7",
    )
    .bind(state.number)
    .bind(i64::from(state.accepts))
    .bind(clean(&state.running_id))
    .bind(state.running)
    .bind(clean(&state.refused_id))
    .bind(state.refused)
    .bind(clean(&state.why))
    .execute(tx.conn())
    .await
    .map_err(failed("keep what a host runs"))?;
    Ok(())
}

impl Store {
    /// All policies, by name.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn policy_list(&self) -> Result<Vec<Policy>, StoreError> {
        let rows = sqlx::query("SELECT * FROM policies ORDER BY name")
            .fetch_all(&self.readers)
            .await
            .map_err(failed("list policies"))?;
        rows.iter().map(policy).collect()
    }

    /// A policy.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn policy_get(&self, id: Uuid) -> Result<Option<Policy>, StoreError> {
        let row = sqlx::query("SELECT * FROM policies WHERE id = $1")
            .bind(id_value(id))
            .fetch_optional(&self.readers)
            .await
            .map_err(failed("read a policy"))?;
        row.as_ref().map(policy).transpose()
    }

    /// Groups of a policy, by name.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn policy_groups(&self, id: Uuid) -> Result<Vec<String>, StoreError> {
        let rows = sqlx::query(GROUPS)
            .bind(id_value(id))
            .fetch_all(&self.readers)
            .await
            .map_err(failed("list a policy's groups"))?;
        rows.iter().map(|row| column(row, "group_name")).collect()
    }

    /// Versions before one of them, newest first.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn version_list(
        &self,
        id: Uuid,
        before: i64,
        limit: u32,
    ) -> Result<Vec<Version>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM policy_versions WHERE policy = $1 AND version < $2 \
             ORDER BY version DESC LIMIT $3",
        )
        .bind(id_value(id))
        .bind(before)
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await
        .map_err(failed("list a policy's versions"))?;
        rows.iter().map(version).collect()
    }

    /// A version.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn version_get(&self, id: Uuid, number: i64) -> Result<Option<Version>, StoreError> {
        let row = sqlx::query("SELECT * FROM policy_versions WHERE policy = $1 AND version = $2")
            .bind(id_value(id))
            .bind(number)
            .fetch_optional(&self.readers)
            .await
            .map_err(failed("read a policy's version"))?;
        row.as_ref().map(version).transpose()
    }

    /// Every host of a policy's groups.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn policy_members(&self, id: Uuid) -> Result<Vec<Member>, StoreError> {
        let rows = sqlx::query(members_sql(""))
            .bind(id_value(id))
            .fetch_all(&self.readers)
            .await
            .map_err(failed("read a policy's hosts"))?;
        rows.iter().map(member).collect()
    }

    /// How hosts with numbers from one to another stand, with the names of their policies.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn policy_states(
        &self,
        first: i64,
        last: i64,
    ) -> Result<Vec<(HostPolicy, Option<String>)>, StoreError> {
        let sql = format!(
            "SELECT {STATE}, o.name AS name FROM policy_hosts p JOIN hosts h ON h.number = p.host \
             LEFT JOIN policies o ON o.id = p.policy WHERE p.host >= $1 AND p.host <= $2"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(first)
            .bind(last)
            .fetch_all(&self.readers)
            .await
            .map_err(failed("read hosts' policies"))?;
        rows.iter().map(|row| Ok((state(row)?, column(row, "name")?))).collect()
    }

    /// What a host is to run; nothing where that is not known, or it runs none and is to run none.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn policy_wanted(&self, host: i64) -> Result<Option<Wanted>, StoreError> {
        let row = sqlx::query(
            "SELECT p.policy AS policy, p.wanted AS wanted, p.running_id AS running_id, \
             p.running AS running, p.given AS given, o.name AS name, v.document AS document FROM policy_hosts p \
             LEFT JOIN policies o ON o.id = p.policy \
             LEFT JOIN policy_versions v ON v.policy = p.policy AND v.version = p.wanted \
             WHERE p.host = $1",
        )
        .bind(host)
        .fetch_optional(&self.readers)
        .await
        .map_err(failed("read what a host is to run"))?;
        let Some(row) = row else { return Ok(None) };
        let version: i64 = column(&row, "wanted")?;
        let name: Option<String> = column(&row, "name")?;
        // One that was deleted is none.
        let policy = id_column_maybe(&row, "policy")?.filter(|_| version > 0 && name.is_some());
        let running_id: String = column(&row, "running_id")?;
        let running: i64 = column(&row, "running")?;
        let Some(policy) = policy else {
            let none = Wanted {
                policy: None,
                name: String::new(),
                version: 0,
                document: String::new(),
                given: true,
                runs: running_id.is_empty(),
            };
            return Ok(Some(none).filter(|none| !none.runs));
        };
        Ok(Some(Wanted {
            policy: Some(policy),
            name: name.unwrap_or_default(),
            version,
            document: column::<Option<String>>(&row, "document")?.unwrap_or_default(),
            given: column::<i64>(&row, "given")? == version,
            runs: running_id == policy.to_string() && running == version,
        }))
    }
}

fn policy(row: &AnyRow) -> Result<Policy, StoreError> {
    Ok(Policy {
        id: id_column(row, "id")?,
        name: column(row, "name")?,
        created_ms: column(row, "created_ms")?,
        stable: column(row, "stable")?,
        stages: column(row, "stages")?,
        soak_ms: column(row, "soak_ms")?,
        roll_back: column::<i64>(row, "roll_back")? != 0,
    })
}

fn version(row: &AnyRow) -> Result<Version, StoreError> {
    Ok(Version {
        policy: id_column(row, "policy")?,
        version: column(row, "version")?,
        document: column(row, "document")?,
        author: column(row, "author")?,
        reason: column(row, "reason")?,
        created_ms: column(row, "created_ms")?,
        state: column(row, "state")?,
        stages: column(row, "stages")?,
        soak_ms: column(row, "soak_ms")?,
        stage: column(row, "stage")?,
        settled_ms: column(row, "settled_ms")?,
        changed_ms: column(row, "changed_ms")?,
        why: column(row, "why")?,
        host: id_column_maybe(row, "host")?,
    })
}

fn state(row: &AnyRow) -> Result<HostPolicy, StoreError> {
    Ok(HostPolicy {
        number: column(row, "number")?,
        policy: id_column_maybe(row, "policy")?,
        wanted: column(row, "wanted")?,
        given: column(row, "given")?,
        given_ms: column(row, "given_ms")?,
        given_reasons: column(row, "given_reasons")?,
        accepts: column::<i64>(row, "accepts")? != 0,
        running_id: column(row, "running_id")?,
        running: column(row, "running")?,
        refused_id: column(row, "refused_id")?,
        refused: column(row, "refused")?,
        why: column(row, "why")?,
    })
}

fn member(row: &AnyRow) -> Result<Member, StoreError> {
    let red = column::<String>(row, "health")? == "red";
    Ok(Member {
        id: id_column(row, "id")?,
        name: column(row, "name")?,
        red_ms: Some(column(row, "health_ms")?).filter(|_| red),
        reasons: column(row, "reasons")?,
        connected: id_column_maybe(row, "session")?.is_some(),
        state: state(row)?,
    })
}
