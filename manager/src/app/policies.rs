//! Policies: what people do with them, and what follows of it on the hosts.
//!
//! INVARIANT: a document is kept only when it is a policy; a version's number is never given again;
//! going back is a new version. Each change is in the audit log with its reason. What a host runs
//! is what it says, not what it was given.

use std::time::Duration;

use holdfast_common::policy::Document;
use holdfast_common::ruled::PolicyState;
use serde_json::json;
use uuid::Uuid;

use super::change::Change;
use super::detection::group_key;
use super::rollout;
use super::{Admitted, App, AppError, RECONCILE, StoreError, audit, cut, now_ms};
use crate::store::Tx;
use crate::store::alerts::{Raise, alert_raise};
use crate::store::policies::{self as store, HostPolicy, Member, Policy, Version, Wanted};

/// Policies at most.
const MOST: usize = 200;
/// Groups of one policy.
const MOST_GROUPS: usize = 200;
/// Stages of a roll-out.
const MOST_STAGES: usize = 10;
/// Longest soak time.
const SOAK: Duration = Duration::from_secs(30 * 86_400);
/// Bytes of a reason.
const REASON: usize = 1000;
/// Bytes of what a host says.
const TEXT: usize = 500;
/// Hosts that are given something else in one transaction.
const TOGETHER: usize = 1000;
/// Between two looks at least.
const REST: Duration = Duration::from_millis(200);
/// Who rolls back by himself.
const MANAGER: &str = "manager";

/// How roll-outs of a policy go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Course {
    /// Percents, growing, the last one 100.
    pub stages: Vec<u32>,
    /// How long all connected hosts of a stage must have run it before the next one begins.
    pub soak_s: u32,
    /// When it stops, hosts go back to the version before.
    pub roll_back: bool,
}

impl Default for Course {
    fn default() -> Self {
        Self { stages: vec![5, 25, 100], soak_s: 600, roll_back: true }
    }
}

/// A policy with what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyDetail {
    /// The policy.
    pub policy: Policy,
    /// How its next roll-outs go.
    pub course: Course,
    /// Groups whose hosts it rules.
    pub groups: Vec<String>,
    /// Its newest version.
    pub newest: Option<Version>,
}

/// What a new version holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// This document.
    Document(String),
    /// That of an older version.
    CopyOf(i64),
}

/// A version that was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// The version.
    pub version: Version,
    /// What of it weakens hosts much.
    pub warnings: Vec<String>,
}

/// What is to become of a roll-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steer {
    /// No further host gets it.
    Pause,
    /// It goes on.
    Resume,
    /// It ends here; hosts go back where the policy says so.
    Stop,
}

/// How the roll-out of the newest version stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutState {
    /// The version.
    pub version: Version,
    /// Hosts of the policy's groups.
    pub members: Vec<Member>,
}

/// Looks at roll-outs when hosts say something, and now and then, until the manager ends.
pub(super) async fn run(app: App) {
    let mut ending = app.ending();
    loop {
        tokio::select! {
            _ = ending.wait_for(|ending| *ending) => return,
            () = app.0.rollouts.notified() => {}
            () = tokio::time::sleep(RECONCILE) => {}
        }
        if let Err(error) = app.policies_look(now_ms()).await {
            tracing::error!(%error, "cannot look at roll-outs");
        }
        tokio::select! {
            _ = ending.wait_for(|ending| *ending) => return,
            () = tokio::time::sleep(REST) => {}
        }
    }
}

impl App {
    /// All policies, by name.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn policy_list(&self) -> Result<Vec<PolicyDetail>, AppError> {
        let mut list = Vec::new();
        for policy in self.store().policy_list().await? {
            list.push(self.policy_detail(policy).await?);
        }
        Ok(list)
    }

    /// A policy.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn policy_get(&self, id: Uuid) -> Result<PolicyDetail, AppError> {
        let policy = self.store().policy_get(id).await?;
        self.policy_detail(policy.ok_or(AppError::NotFound("policy"))?).await
    }

    async fn policy_detail(&self, policy: Policy) -> Result<PolicyDetail, AppError> {
        let groups = self.store().policy_groups(policy.id).await?;
        let newest = self.store().version_list(policy.id, i64::MAX, 1).await?.pop();
        let course = Course {
            stages: serde_json::from_str(&policy.stages)
                .map_err(|error| StoreError::corrupt("read a policy", error))?,
            soak_s: u32::try_from(policy.soak_ms / 1000).unwrap_or(u32::MAX),
            roll_back: policy.roll_back,
        };
        Ok(PolicyDetail { policy, course, groups, newest })
    }

    /// Makes a policy. It rules nobody and holds nothing yet.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn policy_create(
        &self,
        name: &str,
        course: &Course,
        actor: &str,
    ) -> Result<PolicyDetail, AppError> {
        line("name", name, 100)?;
        course_check(course)?;
        if self.store().policy_list().await?.len() >= MOST {
            return Err(AppError::Conflict(format!("there are {MOST} policies already")));
        }
        let policy = Policy {
            id: Uuid::now_v7(),
            name: name.to_owned(),
            created_ms: now_ms(),
            stable: 0,
            stages: json!(course.stages).to_string(),
            soak_ms: i64::from(course.soak_s) * 1000,
            roll_back: course.roll_back,
        };
        let mut tx = self.store().begin().await?;
        if !store::policy_insert(&mut tx, &policy).await? {
            return Err(AppError::Conflict("this name is taken".to_owned()));
        }
        let detail = json!({ "name": name, "stages": course.stages, "soak_s": course.soak_s,
            "roll_back": course.roll_back });
        let target = policy.id.to_string();
        let head = audit::append(&mut tx, actor, "policy.create", &target, &detail).await?;
        self.commit(tx, &[Change::Policy(policy.id)]).await?;
        self.audit_remember(&head);
        self.policy_get(policy.id).await
    }

    /// Changes how its next roll-outs go. One that is under way goes on as it began, but for going
    /// back.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn policy_edit(
        &self,
        id: Uuid,
        course: &Course,
        actor: &str,
    ) -> Result<PolicyDetail, AppError> {
        course_check(course)?;
        let mut tx = self.store().begin().await?;
        let mut policy = held(&mut tx, id).await?;
        policy.stages = json!(course.stages).to_string();
        policy.soak_ms = i64::from(course.soak_s) * 1000;
        policy.roll_back = course.roll_back;
        store::policy_update(&mut tx, &policy).await?;
        let detail = json!({ "stages": course.stages, "soak_s": course.soak_s,
            "roll_back": course.roll_back });
        let head = audit::append(&mut tx, actor, "policy.edit", &id.to_string(), &detail).await?;
        self.commit(tx, &[Change::Policy(id)]).await?;
        self.audit_remember(&head);
        self.policy_get(id).await
    }

    /// Gives it another name. Hosts show it from its next version on.
    ///
    /// # Errors
    /// [`AppError`]; `Conflict` when the name is taken.
    pub async fn policy_rename(
        &self,
        id: Uuid,
        name: &str,
        actor: &str,
    ) -> Result<PolicyDetail, AppError> {
        line("name", name, 100)?;
        let mut tx = self.store().begin().await?;
        let before = held(&mut tx, id).await?.name;
        if !store::policy_rename(&mut tx, id, name).await? {
            return Err(AppError::Conflict("this name is taken".to_owned()));
        }
        let detail = json!({ "name": name, "before": before });
        let head = audit::append(&mut tx, actor, "policy.rename", &id.to_string(), &detail).await?;
        self.commit(tx, &[Change::Policy(id)]).await?;
        self.audit_remember(&head);
        self.policy_get(id).await
    }

    /// Takes it away with its versions. One that rules groups is refused, unless these go to
    /// another one (`reassign`) first: no group is without a policy by the way.
    ///
    /// # Errors
    /// [`AppError`]; `Conflict` with the groups' names.
    pub async fn policy_delete(
        &self,
        id: Uuid,
        reassign: Option<Uuid>,
        reason: &str,
        actor: &str,
    ) -> Result<(), AppError> {
        line("reason", reason, REASON)?;
        let PolicyDetail { groups, .. } = self.policy_get(id).await?;
        if let Some(other) = reassign.filter(|_| !groups.is_empty()) {
            if other == id {
                return Err(AppError::Invalid("reassign: to another policy".to_owned()));
            }
            let mut all = self.policy_get(other).await?.groups;
            all.extend(groups);
            self.policy_assign(other, &all, reason, actor).await?;
        }
        let mut tx = self.store().begin().await?;
        let policy = held(&mut tx, id).await?;
        let groups = store::groups_of(&mut tx, id).await?;
        if !groups.is_empty() {
            let names = groups.join(", ");
            return Err(AppError::Conflict(format!(
                "it is assigned to {names}: give them another policy, or none, first"
            )));
        }
        let newest = store::version_newest(&mut tx, id).await?.map_or(0, |newest| newest.version);
        store::policy_delete(&mut tx, id).await?;
        let detail = json!({ "name": policy.name, "versions": newest, "reassigned": reassign,
            "reason": reason });
        let head = audit::append(&mut tx, actor, "policy.delete", &id.to_string(), &detail).await?;
        self.commit(tx, &[Change::Policy(id)]).await?;
        self.audit_remember(&head);
        Ok(())
    }

    /// Says whose hosts it rules. A group that had another policy has this one then.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn policy_assign(
        &self,
        id: Uuid,
        groups: &[String],
        reason: &str,
        actor: &str,
    ) -> Result<PolicyDetail, AppError> {
        line("reason", reason, REASON)?;
        if groups.len() > MOST_GROUPS {
            return Err(AppError::Invalid(format!("groups: at most {MOST_GROUPS}")));
        }
        groups.iter().try_for_each(|group| line("groups", group, 100))?;
        let before = self.store().policy_groups(id).await?;
        let mut tx = self.store().begin().await?;
        held(&mut tx, id).await?;
        store::groups_set(&mut tx, id, groups).await?;
        let detail = json!({ "groups": groups, "before": before, "reason": reason });
        let head = audit::append(&mut tx, actor, "policy.assign", &id.to_string(), &detail).await?;
        self.commit(tx, &[Change::Policy(id)]).await?;
        self.audit_remember(&head);
        self.policies_look(now_ms()).await?;
        self.policy_get(id).await
    }

    /// Versions before one of them, newest first.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn policy_versions(
        &self,
        id: Uuid,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Version>, AppError> {
        self.policy_get(id).await?;
        Ok(self.store().version_list(id, before.unwrap_or(i64::MAX), limit).await?)
    }

    /// A version.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn policy_version(&self, id: Uuid, number: i64) -> Result<Version, AppError> {
        self.store().version_get(id, number).await?.ok_or(AppError::NotFound("version"))
    }

    /// What differs from one version to another, as a unified diff; version 0 is empty.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn policy_diff(&self, id: Uuid, from: i64, to: i64) -> Result<String, AppError> {
        let mut documents = Vec::new();
        for number in [from, to] {
            documents.push(match number {
                0 => String::new(),
                number => self.policy_version(id, number).await?.document,
            });
        }
        let (old, new) = (&documents[0], &documents[1]);
        let diff = similar::TextDiff::configure()
            .timeout(Duration::from_secs(2))
            .diff_lines(old.as_str(), new.as_str());
        let names = (format!("version {from}"), format!("version {to}"));
        Ok(diff.unified_diff().header(&names.0, &names.1).to_string())
    }

    /// Puts a new version and begins its roll-out; one that is under way ends where it is.
    /// `at_once`: in one stage, without soaking.
    ///
    /// # Errors
    /// [`AppError`]; `Invalid` with line, column and key when the document is no policy.
    pub async fn policy_put(
        &self,
        id: Uuid,
        content: Content,
        at_once: bool,
        reason: &str,
        actor: &str,
    ) -> Result<Put, AppError> {
        line("reason", reason, REASON)?;
        let mut tx = self.store().begin().await?;
        let policy = held(&mut tx, id).await?;
        let newest = store::version_newest(&mut tx, id).await?;
        let (document, copy_of) = match content {
            Content::Document(document) => (document, None),
            Content::CopyOf(number) => {
                let document = store::version_document(&mut tx, id, number).await?;
                (document.ok_or(AppError::NotFound("version"))?, Some(number))
            }
        };
        let parsed = Document::parse(document.as_bytes());
        let warnings = match parsed {
            Ok(parsed) => parsed.warnings(),
            Err(error) => return Err(AppError::Invalid(format!("document: {error}"))),
        };
        let now_ms = now_ms();
        let version = Version {
            policy: id,
            version: newest.as_ref().map_or(0, |newest| newest.version) + 1,
            document,
            author: actor.to_owned(),
            reason: reason.to_owned(),
            created_ms: now_ms,
            state: "rolling".to_owned(),
            stages: if at_once { "[100]".to_owned() } else { policy.stages.clone() },
            soak_ms: if at_once { 0 } else { policy.soak_ms },
            stage: 0,
            settled_ms: None,
            changed_ms: now_ms,
            why: String::new(),
            host: None,
        };
        supersede(&mut tx, newest, now_ms).await?;
        store::version_insert(&mut tx, &version).await?;
        let detail = json!({ "version": version.version, "copy_of": copy_of, "at_once": at_once,
            "reason": reason, "warnings": warnings });
        let head = audit::append(&mut tx, actor, "policy.put", &id.to_string(), &detail).await?;
        self.commit(tx, &[Change::Policy(id)]).await?;
        self.audit_remember(&head);
        self.policy_look(id, now_ms).await?;
        Ok(Put { version, warnings })
    }

    /// How the roll-out of the newest version stands.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn policy_rollout(&self, id: Uuid) -> Result<RolloutState, AppError> {
        let newest = self.policy_get(id).await?.newest;
        let version = newest.ok_or(AppError::NotFound("version of this policy"))?;
        Ok(RolloutState { version, members: self.store().policy_members(id).await? })
    }

    /// Lets the newest version's roll-out wait, go on or end.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn policy_steer(
        &self,
        id: Uuid,
        steer: Steer,
        reason: &str,
        actor: &str,
    ) -> Result<RolloutState, AppError> {
        line("reason", reason, REASON)?;
        let now_ms = now_ms();
        let mut tx = self.store().begin().await?;
        let mut policy = held(&mut tx, id).await?;
        let newest = store::version_newest(&mut tx, id).await?;
        let mut version = newest.ok_or(AppError::NotFound("version of this policy"))?;
        let action = match (steer, version.state.as_str()) {
            (Steer::Pause, "rolling") => "pause",
            (Steer::Resume, "paused") => "resume",
            (Steer::Stop, "rolling" | "paused") => "stop",
            (_, state) => {
                return Err(AppError::Conflict(format!(
                    "the roll-out of version {} is {state}",
                    version.version
                )));
            }
        };
        match steer {
            Steer::Pause => version.state = "paused".to_owned(),
            Steer::Resume => version.state = "rolling".to_owned(),
            Steer::Stop => {
                let why = format!("stopped by {actor}: {reason}");
                stop(&mut tx, &mut policy, &mut version, (None, &why), now_ms).await?;
            }
        }
        version.settled_ms = None;
        version.changed_ms = now_ms;
        store::rollout_update(&mut tx, &version).await?;
        let detail = json!({ "version": version.version, "reason": reason });
        let action = format!("policy.{action}");
        let head = audit::append(&mut tx, actor, &action, &id.to_string(), &detail).await?;
        self.commit(tx, &[Change::Policy(id)]).await?;
        self.audit_remember(&head);
        self.policy_look(id, now_ms).await?;
        self.policy_rollout(id).await
    }

    /// How hosts stand, by number from one to another, with the names of their policies.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn policy_states(
        &self,
        first: i64,
        last: i64,
    ) -> Result<Vec<(HostPolicy, Option<String>)>, AppError> {
        Ok(self.store().policy_states(first, last).await?)
    }

    /// What an agent's stream is to be given; noted as given before it is sent.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn policy_for(&self, host: Uuid) -> Result<Option<Wanted>, StoreError> {
        let Some(known) = self.host_ref(host).await? else { return Ok(None) };
        let Some(wanted) = self.store().policy_wanted(known.number).await? else {
            return Ok(None);
        };
        if let Some(policy) = wanted.policy.filter(|_| !wanted.given) {
            let mut tx = self.store().begin().await?;
            store::given_set(&mut tx, known.number, policy, wanted.version, now_ms()).await?;
            tx.commit().await?;
        }
        Ok(Some(wanted).filter(|wanted| !wanted.runs))
    }

    /// Keeps what a host says that it runs, where it differs from what is known.
    pub(super) async fn policy_reported(
        &self,
        admitted: Admitted,
        said: &PolicyState,
    ) -> Result<(), StoreError> {
        let Some(known) = self.host_ref(admitted.host).await? else { return Ok(()) };
        let number = known.number;
        let there = self.store().policy_states(number, number).await?.pop();
        let old = there.map(|(state, _)| state);
        let old = old.unwrap_or(HostPolicy { number, accepts: true, ..HostPolicy::default() });
        let mut new = HostPolicy { accepts: said.accepts, ..old.clone() };
        let running = said.running.as_ref();
        new.running_id = text(running.map(|one| one.id.as_str()));
        new.running = number_of(running.map(|one| one.version));
        let refused = said.refused.as_ref();
        new.refused_id = text(refused.map(|one| one.id.as_str()));
        new.refused = number_of(refused.map(|one| one.version));
        new.why = text(refused.map(|one| one.why.as_str()));
        if new == old {
            return Ok(());
        }
        let mut tx = self.store().begin().await?;
        store::reported_set(&mut tx, &new).await?;
        // Who runs one and is to run none is told so.
        self.commit(tx, &[Change::Wanted { host: known.id, policy: new.policy }]).await?;
        // Not here: a whole fleet may say so at once.
        self.0.rollouts.notify_one();
        Ok(())
    }

    /// Looks at every roll-out, and at hosts that came to a group or left one.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn policies_look(&self, now_ms: i64) -> Result<(), StoreError> {
        loop {
            let mut tx = self.store().begin().await?;
            let strays = store::strays(&mut tx).await?;
            if strays.is_empty() {
                break;
            }
            let mut changes = Vec::new();
            for (number, host) in strays {
                store::wanted_set(&mut tx, number, None, 0).await?;
                changes.push(Change::Wanted { host, policy: None });
            }
            self.commit(tx, &changes).await?;
        }
        for policy in self.store().policy_list().await? {
            self.policy_look(policy.id, now_ms).await?;
        }
        Ok(())
    }

    /// Looks at one until nothing is left to do now.
    async fn policy_look(&self, id: Uuid, now_ms: i64) -> Result<(), StoreError> {
        while self.policy_step(id, now_ms).await? {}
        Ok(())
    }

    /// True when there may be more to do at once.
    async fn policy_step(&self, id: Uuid, now_ms: i64) -> Result<bool, StoreError> {
        let mut tx = self.store().begin().await?;
        let Some(mut policy) = store::policy_hold(&mut tx, id).await? else { return Ok(false) };
        let Some(mut version) = store::version_newest(&mut tx, id).await? else {
            return Ok(false);
        };
        let mut changes = Vec::new();
        let before = version.clone();
        let mut behind = Vec::new();
        if ["done", "stopped", "superseded"].contains(&version.state.as_str()) {
            let list = store::members_behind(&mut tx, id, policy.stable).await?;
            behind.extend(list.into_iter().map(|one| (one, policy.stable)));
        } else {
            let members = store::members(&mut tx, id).await?;
            if let Some((host, why)) = rollout::fault(&members, &version) {
                let said = format!("{}: {why}", host.name);
                changes.push(alarm(&mut tx, &policy, &version, host, &why, now_ms).await?);
                stop(&mut tx, &mut policy, &mut version, (Some(host.id), &said), now_ms).await?;
            } else {
                behind = stage(&members, &mut policy, &mut version, now_ms);
            }
            store::policy_update(&mut tx, &policy).await?;
        }
        let more = behind.len() > TOGETHER
            || version.state != before.state
            || version.stage != before.stage;
        for (member, number) in behind.into_iter().take(TOGETHER) {
            store::wanted_set(&mut tx, member.state.number, Some(id), number).await?;
            changes.push(Change::Wanted { host: member.id, policy: Some(id) });
        }
        if version != before {
            version.changed_ms = now_ms;
            store::rollout_update(&mut tx, &version).await?;
            changes.push(Change::Policy(id));
        }
        if changes.is_empty() {
            // Nothing to write: the row was held for nothing.
            return Ok(false);
        }
        self.commit(tx, &changes).await?;
        Ok(more)
    }
}

/// Who is to run something else now, in a roll-out that nothing stops; moves it on.
fn stage(
    members: &[Member],
    policy: &mut Policy,
    version: &mut Version,
    now_ms: i64,
) -> Vec<(Member, i64)> {
    let stages = rollout::stages(version);
    let percent = usize::try_from(version.stage).ok().and_then(|stage| stages.get(stage).copied());
    let chosen = match version.state.as_str() {
        "rolling" => rollout::chosen(members, percent.unwrap_or(100), version),
        _ => Vec::new(),
    };
    let mut behind = Vec::new();
    for member in members {
        let own = member.state.policy == Some(version.policy);
        if chosen.contains(&member.state.number) && !rollout::is_in(member, version) {
            behind.push((member.clone(), version.version));
        } else if !own {
            // It has come since: what all others run.
            behind.push((member.clone(), policy.stable));
        }
    }
    if version.state != "rolling" || !behind.is_empty() {
        version.settled_ms = None;
        return behind;
    }
    if !rollout::is_settled(members, version) {
        version.settled_ms = None;
        return behind;
    }
    let since = *version.settled_ms.get_or_insert(now_ms);
    if now_ms.saturating_sub(since) >= version.soak_ms {
        version.settled_ms = None;
        version.stage += 1;
        if usize::try_from(version.stage).is_ok_and(|stage| stage >= stages.len()) {
            version.stage -= 1;
            version.state = "done".to_owned();
            policy.stable = version.version;
        }
    }
    behind
}

/// Ends a roll-out. Where the policy says so, all hosts go back, by a new version.
async fn stop(
    tx: &mut Tx,
    policy: &mut Policy,
    version: &mut Version,
    (host, why): (Option<Uuid>, &str),
    now_ms: i64,
) -> Result<(), StoreError> {
    version.state = "stopped".to_owned();
    version.settled_ms = None;
    version.host = host;
    cut(why, REASON).clone_into(&mut version.why);
    if !policy.roll_back {
        return Ok(());
    }
    let document = store::version_document(tx, policy.id, policy.stable).await?;
    let back = Version {
        version: version.version + 1,
        document: document.unwrap_or_default(),
        author: MANAGER.to_owned(),
        reason: format!(
            "back to version {}, since version {} was stopped by {}",
            policy.stable,
            version.version,
            cut(why, REASON / 2)
        ),
        created_ms: now_ms,
        state: "done".to_owned(),
        stages: "[100]".to_owned(),
        soak_ms: 0,
        stage: 0,
        settled_ms: None,
        changed_ms: now_ms,
        why: String::new(),
        host: None,
        policy: policy.id,
    };
    store::version_insert(tx, &back).await?;
    policy.stable = back.version;
    store::policy_update(tx, policy).await
}

/// An alert about the host that stopped a roll-out.
async fn alarm(
    tx: &mut Tx,
    policy: &Policy,
    version: &Version,
    host: &Member,
    why: &str,
    now_ms: i64,
) -> Result<Change, StoreError> {
    const KIND: &str = "policy";
    let number = host.state.number;
    let (model, cause) = (policy.id.to_string(), version.version.to_string());
    let title = format!(
        "policy {} version {}: the roll-out is stopped by {}: {why}",
        policy.name, version.version, host.name
    );
    let raise = Raise {
        host: number,
        kind: KIND,
        group_key: group_key(number, KIND, &model, &cause),
        model: policy.name.clone(),
        cause,
        title: cut(&title, TEXT).to_owned(),
        level: "high".to_owned(),
        attack: String::new(),
        simulated: false,
        count: 1,
        first_ms: now_ms,
        last_ms: now_ms,
        evidence: json!({ "policy": policy.id, "name": policy.name, "version": version.version,
            "host": host.id, "why": why })
        .to_string(),
    };
    Ok(Change::Alert(alert_raise(tx, &raise, now_ms).await?.id))
}

async fn supersede(tx: &mut Tx, newest: Option<Version>, now_ms: i64) -> Result<(), StoreError> {
    let under_way = |version: &Version| ["rolling", "paused"].contains(&version.state.as_str());
    let Some(mut version) = newest.filter(under_way) else { return Ok(()) };
    version.state = "superseded".to_owned();
    (version.settled_ms, version.changed_ms) = (None, now_ms);
    store::rollout_update(tx, &version).await
}

async fn held(tx: &mut Tx, id: Uuid) -> Result<Policy, AppError> {
    store::policy_hold(tx, id).await?.ok_or(AppError::NotFound("policy"))
}

fn course_check(course: &Course) -> Result<(), AppError> {
    let stages = &course.stages;
    let grows = stages.windows(2).all(|pair| pair[0] < pair[1]);
    let ends = stages.last() == Some(&100) && stages.first().is_some_and(|first| *first > 0);
    if !grows || !ends || stages.len() > MOST_STAGES {
        return Err(AppError::Invalid(
            "stages: percents that grow, the last one 100, ten at most".to_owned(),
        ));
    }
    if Duration::from_secs(course.soak_s.into()) > SOAK {
        return Err(AppError::Invalid("soak_s: 30 days at most".to_owned()));
    }
    Ok(())
}

fn line(what: &str, text: &str, most: usize) -> Result<(), AppError> {
    if text.trim().is_empty() || text.len() > most || text.chars().any(char::is_control) {
        return Err(AppError::Invalid(format!("{what}: 1 to {most} bytes, one line")));
    }
    Ok(())
}

fn text(said: Option<&str>) -> String {
    cut(said.unwrap_or_default(), TEXT).to_owned()
}

fn number_of(said: Option<u64>) -> i64 {
    said.map_or(0, |version| i64::try_from(version).unwrap_or(i64::MAX))
}
