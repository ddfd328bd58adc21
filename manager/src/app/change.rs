//! What changed, told to whoever looks: open pages, agents' streams, other managers.
//!
//! A change is told after it is on disk. On PostgreSQL it also travels by NOTIFY, in the same
//! transaction; a manager that lost that channel wakes everybody when it is back, so nothing that
//! waits for a signal waits for ever.

use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::{broadcast, watch};
use uuid::Uuid;

use super::{App, StoreError};
use crate::store::Tx;
use crate::store::notify::notify;

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// An alert is new, or was counted on or changed.
    Alert(Uuid),
    /// A task of a host is new, or went on.
    Task {
        /// The host.
        host: Uuid,
        /// The task.
        task: Uuid,
    },
    /// A host's health or stream.
    Host(Uuid),
    /// A policy, its versions or its roll-out.
    Policy(Uuid),
    /// What is denied on many hosts at once.
    Denials(Uuid),
    /// What a host is to run, or says that it runs.
    Wanted {
        /// The host.
        host: Uuid,
        /// Its policy.
        policy: Option<Uuid>,
    },
}

impl Change {
    fn to_text(self) -> String {
        match self {
            Self::Alert(id) => format!("alert {id} {id}"),
            Self::Task { host, task } => format!("task {host} {task}"),
            Self::Host(id) => format!("host {id} {id}"),
            Self::Policy(id) => format!("policy {id} {id}"),
            Self::Denials(id) => format!("denials {id} {id}"),
            Self::Wanted { host, policy } => {
                format!("wanted {host} {}", policy.unwrap_or(Uuid::nil()))
            }
        }
    }

    fn of_text(text: &str) -> Option<Self> {
        let mut parts = text.split(' ');
        let kind = parts.next()?;
        let first = parts.next()?.parse().ok()?;
        let second = parts.next()?.parse().ok()?;
        match kind {
            "alert" => Some(Self::Alert(first)),
            "task" => Some(Self::Task { host: first, task: second }),
            "host" => Some(Self::Host(first)),
            "policy" => Some(Self::Policy(first)),
            "denials" => Some(Self::Denials(first)),
            "wanted" => {
                let policy = Some(second).filter(|policy| !policy.is_nil());
                Some(Self::Wanted { host: first, policy })
            }
            _ => None,
        }
    }
}

impl App {
    /// Changes from now on; whoever is too slow is told how many it missed.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.0.changes.subscribe()
    }

    /// Makes a transaction last and tells what it changed.
    pub(super) async fn commit(&self, mut tx: Tx, changes: &[Change]) -> Result<(), StoreError> {
        for change in changes {
            notify(&mut tx, format!("{} {}", self.0.instance, change.to_text())).await?;
        }
        tx.commit().await?;
        changes.iter().for_each(|change| self.tell(*change));
        Ok(())
    }

    fn tell(&self, change: Change) {
        if let Change::Task { host, .. } | Change::Wanted { host, .. } = change {
            let signals = self.0.signals.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(signal) = signals.get(&host) {
                signal.send_modify(|count| *count = count.wrapping_add(1));
            }
        }
        if let Change::Denials(_) = change {
            self.tell_all();
        }
        // Nobody listens: fine.
        let _ = self.0.changes.send(change);
    }

    fn tell_all(&self) {
        let signals = self.0.signals.lock().unwrap_or_else(PoisonError::into_inner);
        for signal in signals.values() {
            signal.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// Wakes when a host's tasks, its policy or what it is to deny change.
    pub(super) fn signal(&self, host: Uuid) -> watch::Receiver<u64> {
        let mut signals = self.0.signals.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody waits for are forgotten now and then.
        if signals.len() > 1024 && signals.len().is_power_of_two() {
            signals.retain(|_, signal| signal.receiver_count() > 0);
        }
        let signal = signals.entry(host).or_insert_with(|| watch::channel(0).0);
        let mut receiver = signal.subscribe();
        // What was filed before is news to whoever begins to look.
        receiver.mark_changed();
        receiver
    }
}

/// Hears what other managers tell, until the manager ends. Ends at once on SQLite.
pub(super) async fn listen(app: App) {
    let mut ending = app.ending();
    loop {
        let heard = tokio::select! {
            _ = ending.wait_for(|ending| *ending) => return,
            heard = hear(&app) => heard,
        };
        match heard {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, "no word from other managers"),
        }
        tokio::select! {
            _ = ending.wait_for(|ending| *ending) => return,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}

async fn hear(app: &App) -> Result<(), StoreError> {
    let Some(mut listener) = app.store().listen().await? else { return Ok(()) };
    loop {
        app.tell_all();
        while let Some(text) = listener.next().await? {
            let Some((from, text)) = text.split_once(' ') else { continue };
            if from.parse() == Ok(app.0.instance) {
                continue;
            }
            if let Some(change) = Change::of_text(text) {
                app.tell(change);
            }
        }
    }
}
