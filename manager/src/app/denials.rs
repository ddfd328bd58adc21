//! What is denied on all hosts at once: orders, and what follows of them on the hosts.
//!
//! INVARIANT: an order reaches every host that it is for, also one that is away or comes later: what
//! a host is given is the whole list as it stands. In force is what the host says is.

use holdfast_common::denial::{self as common, DenialKind, DenialState, FleetDenials};
use holdfast_common::task::until;
use serde_json::json;
use uuid::Uuid;

use super::change::Change;
use super::{Admitted, App, AppError, StoreError, audit, cut, now_ms};
use crate::store::denials::{self as store, Denial, DenialHost, Reach};

/// Bytes of a reason.
const REASON: usize = 1000;
/// Bytes of a group's name.
const GROUP: usize = 100;
/// What was taken back is kept for so long.
const KEEP_MS: i64 = 365 * 86_400_000;

/// What is to be denied.
#[derive(Debug, Clone)]
pub struct NewDenial {
    /// Content or path.
    pub kind: DenialKind,
    /// SHA-256 in hex, or an absolute path.
    pub value: String,
    /// Whose hosts; nothing for all.
    pub group: Option<String>,
    /// Why.
    pub reason: String,
    /// Until it ends by itself, seconds; without it not.
    pub duration_s: Option<u64>,
}

impl App {
    /// Denies something on all hosts, or on those of a group. One that stands already is given as it
    /// is; false then.
    ///
    /// # Errors
    /// [`AppError`]; `Invalid` for what no host can run without.
    pub async fn denial_add(
        &self,
        new: NewDenial,
        actor: &str,
    ) -> Result<(Denial, bool), AppError> {
        let NewDenial { kind, value, group, reason, duration_s } = new;
        let value = common::check(kind, &value)
            .map_err(|why| AppError::Invalid(format!("{}: {why}", kind.name())))?;
        line("reason", &reason, REASON)?;
        group.iter().try_for_each(|group| line("group", group, GROUP))?;
        let now_ms = now_ms();
        let until_ms = until(now_ms, duration_s)
            .map_err(|why| AppError::Invalid(format!("duration_s: {why}")))?;
        let mut tx = self.store().begin().await?;
        // Held from here on: two equal ones at once are one.
        let number = store::change_next(&mut tx, now_ms).await?;
        let standing = store::denials_standing(&mut tx).await?;
        let same = |one: &Denial| {
            one.kind == kind.name()
                && one.value == value
                && one.group == group
                && common::outlasts(one.until_ms, until_ms)
        };
        if let Some(there) = standing.iter().find(|one| same(one)) {
            return Ok((there.clone(), false));
        }
        if standing.len() >= common::MOST {
            let message = format!("{} are denied already: take some back", common::MOST);
            return Err(AppError::Conflict(message));
        }
        let pattern = |kind: &str, value: &str| kind == "path" && !common::is_exact(value);
        let patterns = standing.iter().filter(|one| pattern(&one.kind, &one.value)).count();
        if pattern(kind.name(), &value) && patterns >= common::MOST_PATTERNS {
            let most = common::MOST_PATTERNS;
            let message = format!("{most} patterns are denied already: take some back");
            return Err(AppError::Conflict(message));
        }
        let denial = Denial {
            number,
            id: Uuid::now_v7(),
            kind: kind.name().to_owned(),
            value,
            group,
            filed_by: actor.to_owned(),
            reason,
            filed_ms: now_ms,
            until_ms,
            removed: None,
            removed_by: String::new(),
            removed_why: String::new(),
            removed_ms: None,
        };
        store::denial_insert(&mut tx, &denial, now_ms.saturating_sub(KEEP_MS)).await?;
        let detail = json!({ "kind": denial.kind, "value": denial.value, "group": denial.group,
            "reason": denial.reason, "until_ms": denial.until_ms });
        let target = denial.id.to_string();
        let head = audit::append(&mut tx, actor, "denial.add", &target, &detail).await?;
        self.commit(tx, &[Change::Denials(denial.id)]).await?;
        self.audit_remember(&head);
        Ok((denial, true))
    }

    /// Takes one back.
    ///
    /// # Errors
    /// [`AppError`]; `Conflict` when it was taken back before.
    pub async fn denial_remove(
        &self,
        id: Uuid,
        reason: &str,
        actor: &str,
    ) -> Result<Denial, AppError> {
        line("reason", reason, REASON)?;
        let known = self.denial_get(id).await?;
        let now_ms = now_ms();
        let mut tx = self.store().begin().await?;
        let change = store::change_next(&mut tx, now_ms).await?;
        if !store::denial_remove(&mut tx, id, change, (actor, reason), now_ms).await? {
            return Err(AppError::Conflict("it was taken back before".to_owned()));
        }
        let detail = json!({ "kind": known.kind, "value": known.value, "group": known.group,
            "reason": reason });
        let target = id.to_string();
        let head = audit::append(&mut tx, actor, "denial.remove", &target, &detail).await?;
        self.commit(tx, &[Change::Denials(id)]).await?;
        self.audit_remember(&head);
        self.denial_get(id).await
    }

    /// Takes back what has ended by this time. Hosts have ended it by their own clocks.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn denials_look(&self, now_ms: i64) -> Result<(), StoreError> {
        let mut tx = self.store().begin().await?;
        let ended = store::denials_end(&mut tx, now_ms).await?;
        let changes: Vec<Change> = ended.into_iter().map(Change::Denials).collect();
        if changes.is_empty() {
            return Ok(());
        }
        self.commit(tx, &changes).await
    }

    /// Denials, newest first, with how the hosts stand.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn denial_list(
        &self,
        removed: bool,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<(Denial, Reach)>, AppError> {
        let mut list = Vec::new();
        for one in self.store().denial_list(removed, before, limit).await? {
            let reach = self.store().denial_reach(&one).await?;
            list.push((one, reach));
        }
        Ok(list)
    }

    /// A denial.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn denial_get(&self, id: Uuid) -> Result<Denial, AppError> {
        self.store().denial_get(id).await?.ok_or(AppError::NotFound("denial"))
    }

    /// How the hosts stand that it is for.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn denial_reach(&self, one: &Denial) -> Result<Reach, AppError> {
        Ok(self.store().denial_reach(one).await?)
    }

    /// These hosts one by one, after one of them.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn denial_hosts(
        &self,
        id: Uuid,
        after: Option<i64>,
        limit: u32,
    ) -> Result<(Denial, Vec<DenialHost>), AppError> {
        let one = self.denial_get(id).await?;
        let hosts = self.store().denial_hosts(&one, after.unwrap_or(0), limit).await?;
        Ok((one, hosts))
    }

    /// What an agent's stream is to be given: nothing where the host has the last change in force,
    /// or has not said yet what it has.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn denials_for(&self, host: Uuid) -> Result<Option<FleetDenials>, StoreError> {
        let Some(known) = self.host_ref(host).await? else { return Ok(None) };
        // The number first: what comes in between is given too much, never too little.
        let (through, reported) = self.store().denial_changes(known.number).await?;
        if reported.is_none_or(|reported| reported == through) {
            return Ok(None);
        }
        let denials = self.store().denials_for(known.number).await?;
        let given = |one: Denial| common::Denial {
            id: Some(one.id),
            kind: if one.kind == "hash" { DenialKind::Hash } else { DenialKind::Path },
            why: cut(&format!("{}: {}", one.filed_by, one.reason), common::WHY).to_owned(),
            value: one.value,
            since_ms: one.filed_ms,
            until_ms: one.until_ms,
        };
        let denials = denials.into_iter().map(given).collect();
        Ok(Some(FleetDenials { through, denials }))
    }

    /// Keeps what a host says that it denies.
    pub(super) async fn denials_reported(
        &self,
        admitted: Admitted,
        said: &DenialState,
    ) -> Result<(), StoreError> {
        let Some(known) = self.host_ref(admitted.host).await? else { return Ok(()) };
        let refused: Vec<_> = said
            .refused
            .iter()
            .take(common::MOST)
            .map(|one| json!({ "id": one.id, "why": cut(&one.why, common::WHY) }))
            .collect();
        let refused = serde_json::Value::from(refused).to_string();
        let mut tx = self.store().begin().await?;
        store::denials_reported(&mut tx, known.number, said.through, &refused).await?;
        // Who has not the last change in force is told of it.
        self.commit(tx, &[Change::Wanted { host: known.id, policy: None }]).await
    }
}

fn line(what: &str, text: &str, most: usize) -> Result<(), AppError> {
    if text.trim().is_empty() || text.len() > most || text.chars().any(char::is_control) {
        return Err(AppError::Invalid(format!("{what}: 1 to {most} bytes, one line")));
    }
    Ok(())
}
