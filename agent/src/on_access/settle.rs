//! What a scan comes to: the decision is made, the kernel answered, and what follows begun.
//!
//! INVARIANT: each way through here ends in exactly one answer, or leaves the waiter in the table,
//! where the deadline finds it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use holdfast_common::verdict::{
    Decision, Engine, FailureReason, Hashes, ScanType, Signature, Verdict,
};
use holdfast_common::wire::{Finding, RawHashes};

use crate::config::Mode;
use crate::on_access::Shared;
use crate::on_access::cache::Epoch;
use crate::on_access::condemned::Sentence;
use crate::on_access::counters::count;
use crate::on_access::decide::{FollowUp, Outcome, Resolution, decide};
use crate::on_access::hold::{Loop, lock};
use crate::on_access::inbox::Message;
use crate::on_access::places::inode_of;
use crate::on_access::waiting::{Ticket, Waiter};
use crate::respond::{BootTime, Failed, Found, LookedUp};
use crate::sys::fanotify::Pending;
use crate::sys::identity::{Facts, has_writer};

/// Clean files that may wait to be remembered; each holds a descriptor.
pub(super) const MOST_ANSWERED: usize = 64;

/// A program that is being written is looked at again after this pause, so many times: a child of
/// its builder may hold it open for some milliseconds more.
const PAUSE: Duration = Duration::from_millis(3);
const MOST_CHANGES: u8 = 40;

/// A file that was found clean.
pub(super) struct Clean {
    file: OwnedFd,
    facts: Facts,
    epoch: Epoch,
    generation: u64,
}

impl Clean {
    /// Keeps the verdict, if nothing can have changed since.
    pub(super) fn remember(&self, shared: &Shared) {
        shared.remember(self.file.as_fd(), &self.facts, self.epoch, self.generation);
    }
}

impl Loop {
    /// The whole product in one function: a scan has ended, somebody waits.
    pub(super) fn settle(
        &mut self,
        ticket: Ticket,
        finding: Finding,
        hashes: Option<RawHashes>,
        generation: u64,
    ) {
        let Some(waiter) = lock(&self.waiting).remove(ticket) else { return };
        match finding {
            Finding::Clean if waiter.program && changed(&waiter) => self.try_again(waiter),
            Finding::Clean => self.clear(waiter, generation),
            Finding::Malicious(signature) => {
                let hashes = hashes.map(|hashes| hashes.to_hex()).unwrap_or_default();
                let sentence = Sentence { signature, hashes };
                let current = generation == self.shared.generation.load(Relaxed);
                if waiter.written_long_ago && current {
                    self.shared.condemned.add(&waiter.facts, sentence.clone());
                }
                self.condemn(waiter, sentence);
            }
            Finding::Unreadable(_) => self.fail(waiter, FailureReason::Unreadable),
        }
    }

    /// The content is clean: the answer first, then what spares the next open a scan.
    fn clear(&mut self, waiter: Waiter, generation: u64) {
        let outcome = Outcome::Verdict(Verdict::Clean);
        let resolution = decide(&outcome, false, &self.rules.config);
        let Waiter { pending, facts, epoch, since, settled, .. } = waiter;
        let file = self.answer(pending, since, resolution.decision);
        if resolution.follow_up == FollowUp::Remember && settled {
            self.answered.push(Clean { file, facts, epoch, generation });
            if self.answered.len() == MOST_ANSWERED {
                self.answered.drain(..).for_each(|clean| clean.remember(&self.shared));
            }
        }
    }

    /// The content is malicious, by a scan just now or a moment ago.
    pub(super) fn condemn(&self, waiter: Waiter, Sentence { signature, hashes }: Sentence) {
        let allowed = self.shared.exclusions.allow_content(&hashes.sha256);
        let outcome = Outcome::Verdict(Verdict::Malicious(signature.clone()));
        let resolution = decide(&outcome, allowed, &self.rules.config);
        match resolution.follow_up {
            FollowUp::Report | FollowUp::Quarantine => {
                self.found(waiter, signature, hashes, resolution);
            }
            FollowUp::Nothing | FollowUp::Remember | FollowUp::ReportFailure | FollowUp::Rescan => {
                drop(self.answer(waiter.pending, waiter.since, resolution.decision));
            }
        }
    }

    /// It lies at a denied path, and its content does not matter. Given back where nothing is denied:
    /// in `detect` mode, and the prover's own markers, which are to be scanned.
    pub(super) fn deny_place(
        &self,
        pending: Pending,
        facts: Facts,
        since: Instant,
    ) -> Option<Pending> {
        if self.shared.is_own_marker(&pending) {
            return Some(pending);
        }
        count(&self.shared.counters.denied_paths);
        let news = self.shared.told.is_news(inode_of(&facts), since);
        let name = "Holdfast.DeniedPath".to_owned();
        let signature = Signature { name, engine: Engine::DeniedPath };
        if self.rules.config.mode == Mode::Detect {
            if news {
                self.tell_of_place(&pending, facts, signature);
            }
            return Some(pending);
        }
        if !news || lock(&self.waiting).len() >= self.shared.most_held {
            drop(self.answer(pending, since, Decision::Deny));
            return None;
        }
        let waiter = Waiter {
            pending,
            facts,
            settled: false,
            written_long_ago: false,
            epoch: self.shared.cache.epoch(&facts.identity),
            since,
            program: false,
            changes: 0,
            attempts: 0,
            decided: None,
        };
        let resolution = Resolution { decision: Decision::Deny, follow_up: FollowUp::Report };
        self.found(waiter, signature, Hashes::default(), resolution);
        None
    }

    /// Nobody is held for it.
    fn tell_of_place(&self, pending: &Pending, facts: Facts, signature: Signature) {
        let Ok(file) = pending.file().try_clone_to_owned() else { return };
        let scan_type = if pending.is_exec() { ScanType::OnExec } else { ScanType::OnOpen };
        let found = Found {
            pid: pending.pid(),
            seen: BootTime::now(),
            answer_to: None,
            file,
            facts,
            signature,
            hashes: Hashes::default(),
            scan_type,
            decision: Some(Decision::Allow),
            quarantine: false,
        };
        // Too many wait: it is counted all the same.
        drop(self.shared.responder.found(found));
    }

    /// The file changed while its exec was held: what was scanned is not what would run.
    pub(super) fn try_again(&mut self, mut waiter: Waiter) {
        if waiter.changes >= MOST_CHANGES {
            return self.fail(waiter, FailureReason::ChangingExec);
        }
        let Ok(facts) = Facts::of(waiter.pending.file()) else {
            return self.fail(waiter, FailureReason::Unreadable);
        };
        waiter.facts = facts;
        waiter.settled = false;
        waiter.written_long_ago = false;
        waiter.changes += 1;
        waiter.attempts = 0;
        let ticket = lock(&self.waiting).insert(waiter);
        self.changing.push_back((Instant::now() + PAUSE, ticket));
    }

    /// A held detection: its opener stays held until the responder has looked it up, at most to
    /// the deadline. When the responder is flooded, it is answered at once, and the file found
    /// again by a rescan.
    pub(super) fn found(
        &self,
        mut waiter: Waiter,
        signature: Signature,
        hashes: Hashes,
        resolution: Resolution,
    ) {
        let Ok(file) = waiter.pending.file().try_clone_to_owned() else {
            drop(self.answer(waiter.pending, waiter.since, resolution.decision));
            return;
        };
        waiter.decided = Some(resolution.decision);
        let (pid, facts) = (waiter.pending.pid(), waiter.facts);
        let scan_type = if waiter.pending.is_exec() { ScanType::OnExec } else { ScanType::OnOpen };
        let ticket = lock(&self.waiting).insert(waiter);
        let inbox = Arc::clone(&self.inbox);
        let found = Found {
            pid,
            seen: BootTime::now(),
            answer_to: Some(LookedUp(Box::new(move || inbox.send(Message::LookedUp(ticket))))),
            file,
            facts,
            signature,
            hashes,
            scan_type,
            decision: Some(resolution.decision),
            quarantine: resolution.follow_up == FollowUp::Quarantine,
        };
        if let Err(found) = self.shared.responder.found(found) {
            self.release(ticket);
            self.shared.later.rescan(found.file, pid);
        }
    }

    /// Answers a waiter for whom everything is settled.
    pub(super) fn release(&self, ticket: Ticket) {
        let waiter = lock(&self.waiting).remove(ticket);
        if let Some(waiter) = waiter {
            self.shared.answer_overdue(&self.rules, waiter, FailureReason::Deadline);
        }
    }

    /// No verdict: the failure table decides.
    pub(super) fn fail(&self, waiter: Waiter, reason: FailureReason) {
        self.fail_unheld(waiter.pending, waiter.since, reason);
    }

    pub(super) fn fail_unheld(&self, pending: Pending, since: Instant, reason: FailureReason) {
        self.shared.fail(&self.rules, pending, since, reason);
    }

    pub(super) fn allow(&self, pending: Pending, since: Instant) {
        drop(self.answer(pending, since, Decision::Allow));
    }

    pub(super) fn answer(&self, pending: Pending, since: Instant, decision: Decision) -> OwnedFd {
        self.shared.answer(&self.rules, pending, since, decision)
    }

    pub(super) fn report_failure(&self, reason: FailureReason, decision: Option<Decision>) {
        self.shared.counters.count_failure(reason);
        self.shared.responder.failed(Failed {
            reason,
            decision,
            file: None,
            pid: 0,
            rescan: false,
        });
    }
}

/// True when the file is not what it was before the scan, or somebody can still change it.
fn changed(waiter: &Waiter) -> bool {
    has_writer(waiter.pending.file())
        || Facts::of(waiter.pending.file())
            .map_or(true, |now| now.identity != waiter.facts.identity)
}
