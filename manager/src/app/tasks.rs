//! Response tasks: filed by people, told to agents, and what was observed.
//!
//! ```text
//! queued ──▶ delivered ──▶ executed ──▶ verified
//!    │           │             │
//!    ├──▶ expired (may still turn out to have been taken: what the agent saw counts)
//!    └──▶ cancelled, failed
//! ```
//! Invariant: a stage is what was observed. A cancel of a task that an agent may have is a wish
//! until the agent tells the end.

use holdfast_common::denial::{self, DenialKind};
use holdfast_common::scans::ScanScope;
use holdfast_common::task::{Action, Progress, Stage, until};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use uuid::Uuid;

use super::change::Change;
use super::{App, AppError, StoreError, audit, cut, now_ms};
use crate::store::tasks::{self as store, NewTask, Task, TaskFilter};

/// Longest time that a task may wait for its host, and the usual one, milliseconds.
const LONGEST_WAIT_MS: i64 = 30 * 86_400_000;
const USUAL_WAIT_MS: i64 = 86_400_000;
/// Bytes of a reason, an observation, a result, a key.
const REASON: usize = 1000;
const OBSERVED: usize = 4000;
const RESULT: usize = 2 << 20;
const KEY: usize = 200;
/// Bytes of an action's text.
const ACTION: usize = 64 << 10;
/// Largest file that may be asked for.
const FILE: u64 = 4 << 30;

/// A task for an agent.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskOrder {
    /// Which.
    pub id: Uuid,
    /// What to do.
    pub action: Action,
    /// Not to be begun after this, milliseconds since the epoch.
    pub expires_ms: i64,
    /// Who filed it.
    pub filed_by: String,
    /// Why.
    pub reason: String,
    /// Taken back: send a cancel, not the task.
    pub cancelled: bool,
}

/// Tells that a host's tasks changed.
#[derive(Debug)]
pub struct TaskSignal(watch::Receiver<u64>);

impl TaskSignal {
    /// Returns once something changed since the last call (at once the first time); then ask
    /// [`App::tasks_waiting`]. False when the manager ends. Safe to drop and call again.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

/// What somebody wants done.
#[derive(Debug, Clone)]
pub struct NewOrder {
    /// Where.
    pub host: Uuid,
    /// What.
    pub action: Action,
    /// Why.
    pub reason: String,
    /// The alert that it belongs to.
    pub alert: Option<Uuid>,
    /// How long it may wait for the host, seconds; a day without it.
    pub wait_s: Option<u64>,
    /// The caller's own key: the same call again files nothing and gets the same task.
    pub key: Option<String>,
}

/// A task that was filed, now or by the same call before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filed {
    /// The task.
    pub task: Task,
    /// False when it was there already.
    pub new: bool,
}

impl App {
    /// Files a task.
    ///
    /// # Errors
    /// [`AppError`]; `Conflict` when the key was used for something else.
    pub async fn task_file(&self, order: NewOrder, actor: &str) -> Result<Filed, AppError> {
        order_check(&order)?;
        if matches!(order.action, Action::Shell { .. }) {
            let message = "a shell is opened by POST /api/v1/shells".to_owned();
            return Err(AppError::Invalid(message));
        }
        self.task_file_as(Uuid::now_v7(), order, actor).await
    }

    /// Files a task that was checked, with this id.
    pub(super) async fn task_file_as(
        &self,
        id: Uuid,
        order: NewOrder,
        actor: &str,
    ) -> Result<Filed, AppError> {
        let host = self.host_get(order.host).await?;
        if host.revoked_ms.is_some() {
            return Err(AppError::Conflict("the host is revoked".to_owned()));
        }
        if let Some(alert) = order.alert {
            let alert = self.store().alert_get(alert).await?;
            if alert.is_none_or(|alert| alert.host != order.host) {
                return Err(AppError::NotFound("alert of this host"));
            }
        }
        let action = action_json(&order.action)?;
        let now_ms = now_ms();
        let wait = order
            .wait_s
            .map_or(USUAL_WAIT_MS, |s| i64::try_from(s.saturating_mul(1000)).unwrap_or(i64::MAX));
        let task = NewTask {
            id,
            name: order.action.name(),
            request_hash: request_hash(&order, &action),
            action,
            filed_by: actor.to_owned(),
            reason: order.reason.clone(),
            alert: order.alert,
            idempotency: order.key.clone(),
            filed_ms: now_ms,
            expires_ms: now_ms.saturating_add(wait.min(LONGEST_WAIT_MS)),
        };
        let mut tx = self.store().begin().await?;
        if !store::task_insert(&mut tx, host.number, &task).await? {
            drop(tx);
            return self.filed_before(actor, &order, &task.request_hash).await;
        }
        let detail = json!({
            "host": host.id, "action": redacted(&task.action), "reason": task.reason,
            "alert": task.alert,
        });
        let target = task.id.to_string();
        let shell = matches!(order.action, Action::Shell { .. });
        let what = if shell { "shell.open" } else { "task.file" };
        let head = audit::append(&mut tx, actor, what, &target, &detail).await?;
        self.commit(tx, &[Change::Task { host: host.id, task: task.id }]).await?;
        self.audit_remember(&head);
        Ok(Filed { task: self.task_get(task.id).await?, new: true })
    }

    async fn filed_before(
        &self,
        actor: &str,
        order: &NewOrder,
        hash: &[u8],
    ) -> Result<Filed, AppError> {
        let key = order.key.as_deref().unwrap_or_default();
        let task = self.store().task_by_key(actor, key).await?;
        let task = task.ok_or(AppError::NotFound("task with this key"))?;
        if task.request_hash != hash {
            let message = "this Idempotency-Key was used for another task".to_owned();
            return Err(AppError::Conflict(message));
        }
        Ok(Filed { task, new: false })
    }

    /// A task.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn task_get(&self, id: Uuid) -> Result<Task, AppError> {
        self.store().task_get(id).await?.ok_or(AppError::NotFound("task"))
    }

    /// Tasks, those filed last first.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn task_list(&self, filter: &TaskFilter) -> Result<Vec<Task>, AppError> {
        Ok(self.store().task_list(filter).await?)
    }

    /// How many tasks are not at their end.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn task_open_count(&self) -> Result<i64, AppError> {
        Ok(self.store().task_open_count().await?)
    }

    /// Takes a task back. One that no agent can have ends at once; else the agent is told, and its
    /// word decides.
    ///
    /// # Errors
    /// [`AppError`]; `Conflict` when it is at its end.
    pub async fn task_cancel(&self, id: Uuid, actor: &str, why: &str) -> Result<Task, AppError> {
        let mut tx = self.store().begin().await?;
        let task = store::task_lock(&mut tx, id).await?;
        let mut task = task.ok_or(AppError::NotFound("task"))?;
        if task.stage.is_end() {
            let message = format!("the task is {} already", store::stage_name(task.stage));
            return Err(AppError::Conflict(message));
        }
        let now_ms = now_ms();
        task.cancel_ms = Some(now_ms);
        task.cancel_by = Some(actor.to_owned());
        if task.stage == Stage::Queued && task.sent_ms.is_none() {
            task.stage = Stage::Cancelled;
            task.ended_ms = Some(now_ms);
            task.observed = format!("cancelled before any agent had it: {}", cut(why, REASON));
            password_forget(&mut task);
        }
        store::task_update(&mut tx, &task).await?;
        let detail = json!({ "reason": cut(why, REASON) });
        let head = audit::append(&mut tx, actor, "task.cancel", &id.to_string(), &detail).await?;
        self.commit(tx, &[Change::Task { host: task.host, task: id }]).await?;
        self.audit_remember(&head);
        Ok(task)
    }

    /// Tasks of a host that its agent does not have yet, oldest first, and those that were
    /// cancelled after it may have got them (`cancelled`), until it tells their end. Cheap when
    /// there are none; the same task comes again until a progress tells that it was delivered.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn tasks_waiting(&self, host: Uuid) -> Result<Vec<TaskOrder>, StoreError> {
        let waiting = self.store().tasks_waiting(host).await?;
        let now_ms = now_ms();
        let mut orders = Vec::with_capacity(waiting.len());
        for mut task in waiting {
            let cancelled = task.cancel_ms.is_some();
            if !cancelled && task.expires_ms <= now_ms {
                continue;
            }
            if !cancelled && task.sent_ms.is_none() {
                // From now on the agent may have it: a cancel has to ask. A cancel that was faster
                // wins.
                let mut tx = self.store().begin().await?;
                let Some(fresh) = store::task_lock(&mut tx, task.id).await? else { continue };
                task = fresh;
                if task.stage != Stage::Queued || task.cancel_ms.is_some() {
                    continue;
                }
                task.sent_ms = Some(now_ms);
                store::task_update(&mut tx, &task).await?;
                self.commit(tx, &[]).await?;
            }
            let action = serde_json::from_str(&task.action)
                .map_err(|error| StoreError::corrupt("read a task's action", error))?;
            orders.push(TaskOrder {
                id: task.id,
                action,
                expires_ms: task.expires_ms,
                filed_by: task.filed_by,
                reason: task.reason,
                cancelled,
            });
        }
        Ok(orders)
    }

    /// Wakes when a host's tasks or its policy change, at whichever manager.
    #[must_use]
    pub fn task_signal(&self, host: Uuid) -> TaskSignal {
        TaskSignal(self.signal(host))
    }

    /// What the agent tells of a task. Of a task of another host, or after its end, it is counted
    /// and dropped.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn task_progress(
        &self,
        host: Uuid,
        task: Uuid,
        progress: Progress,
    ) -> Result<(), StoreError> {
        let mut tx = self.store().begin().await?;
        let known = store::task_lock(&mut tx, task).await?.filter(|known| known.host == host);
        let Some(mut known) = known else {
            self.counters().progress_refused.add(1);
            return Ok(());
        };
        if !progress_apply(&mut known, &progress, now_ms()) {
            self.counters().progress_refused.add(1);
            return Ok(());
        }
        store::task_update(&mut tx, &known).await?;
        self.commit(tx, &[Change::Task { host, task }]).await?;
        if known.name == super::shells::NAME
            && known.stage.is_end()
            && let Err(error) = self.shell_finish(&known).await
        {
            // The next look does it.
            tracing::error!(%error, %task, "a shell's recording is not closed");
        }
        Ok(())
    }
}

/// Takes an agent's word; false when it tells nothing new. Times are the manager's, since only
/// those compare with each other; the host's own stands in the result. Pure.
fn progress_apply(task: &mut Task, progress: &Progress, now_ms: i64) -> bool {
    let rank = |stage| match stage {
        Stage::Queued | Stage::Expired => 0,
        Stage::Delivered => 1,
        Stage::Executed => 2,
        Stage::Verified | Stage::Failed | Stage::Cancelled => 3,
    };
    // Repeated word of the same stage is taken while the task goes on: a scan's numbers.
    let goes_on = !task.stage.is_end() && progress.stage == task.stage;
    let ends = progress.stage == Stage::Expired && task.stage == Stage::Queued;
    if !(rank(progress.stage) > rank(task.stage) || goes_on || ends) {
        return false;
    }
    task.stage = progress.stage;
    task.observed = cut(&progress.observed, OBSERVED).to_owned();
    let result = progress.result.to_string();
    task.result = if result.len() <= RESULT {
        result
    } else {
        json!({ "too_large": result.len() }).to_string()
    };
    if rank(progress.stage) >= 1 {
        task.delivered_ms.get_or_insert(now_ms);
    }
    if matches!(progress.stage, Stage::Executed | Stage::Verified) {
        task.executed_ms.get_or_insert(now_ms);
    }
    task.ended_ms = progress.stage.is_end().then_some(now_ms);
    if progress.stage.is_end() {
        password_forget(task);
    }
    true
}

/// The password of a zip is needed on the host alone, and there until the end.
pub(super) fn password_forget(task: &mut Task) {
    task.action = redacted(&task.action).to_string();
}

/// An action as people may see it: without passwords.
#[must_use]
pub(crate) fn redacted(action: &str) -> Value {
    let mut action: Value = serde_json::from_str(action).unwrap_or(Value::Null);
    if let Some(password) = action.get_mut("password") {
        *password = Value::String(String::new());
    }
    action
}

fn action_json(action: &Action) -> Result<String, AppError> {
    let json = serde_json::to_string(action)
        .map_err(|error| AppError::Invalid(format!("the action cannot be written: {error}")))?;
    if json.len() > ACTION {
        return Err(AppError::Invalid(format!("the action has more than {ACTION} bytes")));
    }
    Ok(json)
}

fn request_hash(order: &NewOrder, action: &str) -> Vec<u8> {
    let mut hash = Sha256::new();
    for part in [
        order.host.to_string(),
        action.to_owned(),
        order.reason.clone(),
        order.alert.map(|id| id.to_string()).unwrap_or_default(),
        order.wait_s.map(|s| s.to_string()).unwrap_or_default(),
    ] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().to_vec()
}

pub(super) fn order_check(order: &NewOrder) -> Result<(), AppError> {
    let invalid = |message: &str| Err(AppError::Invalid(message.to_owned()));
    if order.reason.trim().is_empty() || order.reason.len() > REASON {
        return invalid("reason: 1 to 1000 bytes that say why");
    }
    if order.key.as_ref().is_some_and(|key| key.is_empty() || key.len() > KEY) {
        return invalid("Idempotency-Key: 1 to 200 bytes");
    }
    if order.wait_s == Some(0) {
        return invalid("wait_s: at least one second");
    }
    match &order.action {
        Action::Scan { scope: ScanScope::Paths, paths, .. }
            if paths.is_empty() || paths.len() > 1000 =>
        {
            invalid("paths: 1 to 1000 of them")
        }
        Action::Scan { scope: ScanScope::Quick | ScanScope::Full, paths, .. }
            if !paths.is_empty() =>
        {
            invalid("paths: with the scope paths alone")
        }
        Action::Scan { cpu_share: Some(share), .. } if !(1..=100).contains(share) => {
            invalid("cpu_share: 1 to 100")
        }
        Action::Scan { paths, .. } if paths.iter().any(|path| !path.is_absolute()) => {
            invalid("paths: absolute ones only")
        }
        Action::Collect { path: None, .. } => invalid("path: which file"),
        Action::Collect { path: Some(path), .. } if !path.is_absolute() => {
            invalid("path: an absolute one")
        }
        Action::Collect { limit, .. } if *limit == 0 || *limit > FILE => {
            invalid("limit: 1 byte to 4 GiB")
        }
        Action::Collect { password, .. } | Action::Download { password, .. }
            if password.len() < 4 || password.len() > 200 =>
        {
            invalid("password: 4 to 200 bytes, for the zip")
        }
        Action::Restore { allow: false, duration_s: Some(_), .. } => {
            invalid("duration_s: only with allow")
        }
        Action::Restore { duration_s, .. } => ends(*duration_s),
        Action::DenyHash { sha256, duration_s } => {
            denial(DenialKind::Hash, ("sha256", sha256), *duration_s)
        }
        Action::DenyPath { path, duration_s } => {
            denial(DenialKind::Path, ("path", path), *duration_s)
        }
        // One that would not be taken today can still be taken back.
        Action::Undeny { value, .. } if value.is_empty() || value.len() > denial::LONGEST => {
            invalid("value: as it was denied")
        }
        Action::Kill { process } if process.pid <= 1 || process.start_ns == 0 => {
            invalid("process: a pid above 1 and its start time")
        }
        Action::Simulate { simulation } if simulation.is_empty() || simulation.len() > 100 => {
            invalid("simulation: its name")
        }
        Action::Isolate { .. }
        | Action::Release
        | Action::Scan { .. }
        | Action::Delete { .. }
        | Action::Download { .. }
        | Action::Collect { .. }
        | Action::Kill { .. }
        | Action::Undeny { .. }
        | Action::Simulate { .. }
        | Action::Shell { .. }
        | Action::ProcessList
        | Action::Diagnostics => Ok(()),
    }
}

fn ends(duration_s: Option<u64>) -> Result<(), AppError> {
    let invalid = |why| AppError::Invalid(format!("duration_s: {why}"));
    until(0, duration_s).map(drop).map_err(invalid)
}

fn denial(
    kind: DenialKind,
    (field, value): (&str, &str),
    duration_s: Option<u64>,
) -> Result<(), AppError> {
    let invalid = |field: &str, why| AppError::Invalid(format!("{field}: {why}"));
    ends(duration_s)?;
    denial::check(kind, value).map(drop).map_err(|why| invalid(field, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(stage: Stage) -> Task {
        Task {
            number: 1,
            id: Uuid::nil(),
            host: Uuid::nil(),
            host_name: String::new(),
            name: "collect".to_owned(),
            action: r#"{"action":"collect","password":"secret"}"#.to_owned(),
            stage,
            filed_by: String::new(),
            reason: String::new(),
            alert: None,
            request_hash: Vec::new(),
            filed_ms: 0,
            expires_ms: 0,
            sent_ms: None,
            delivered_ms: None,
            executed_ms: None,
            ended_ms: None,
            cancel_ms: None,
            cancel_by: None,
            observed: String::new(),
            result: "null".to_owned(),
            file_size: None,
            file_sha256: None,
        }
    }

    fn progress(stage: Stage) -> Progress {
        Progress { stage, time_ms: 5, observed: "seen".to_owned(), result: Value::Null }
    }

    #[test]
    fn stages_go_forward_only_and_an_end_is_an_end() {
        let table = [
            (Stage::Queued, Stage::Delivered, true),
            (Stage::Queued, Stage::Verified, true),
            (Stage::Queued, Stage::Expired, true),
            (Stage::Delivered, Stage::Delivered, true),
            (Stage::Executed, Stage::Delivered, false),
            (Stage::Verified, Stage::Failed, false),
            (Stage::Failed, Stage::Verified, false),
            (Stage::Cancelled, Stage::Executed, false),
            // It was taken after all.
            (Stage::Expired, Stage::Executed, true),
            (Stage::Expired, Stage::Expired, false),
            (Stage::Delivered, Stage::Queued, false),
        ];
        for (from, to, taken) in table {
            let mut task = task(from);
            assert_eq!(progress_apply(&mut task, &progress(to), 9), taken, "{from:?} {to:?}");
            assert_eq!(task.stage, if taken { to } else { from });
        }
    }

    #[test]
    fn the_password_is_gone_at_the_end_and_times_are_kept() {
        let mut one = task(Stage::Queued);
        assert!(progress_apply(&mut one, &progress(Stage::Executed), 9));
        assert!(one.action.contains("secret"));
        assert!(progress_apply(&mut one, &progress(Stage::Verified), 12));
        assert!(!one.action.contains("secret"));
        assert_eq!((one.delivered_ms, one.executed_ms, one.ended_ms), (Some(9), Some(9), Some(12)));
    }
}
