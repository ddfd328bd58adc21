//! The thread that looks after a cut: new interfaces, missing parts, the end of its time.
//!
//! An interface is seen when the kernel tells of it, and cut off within milliseconds. Until then
//! its sockets are cut off by the cgroup's programs; what others forward over it, and packet
//! sockets on it, are not.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::netlink::{NETFILTER, ROUTE};
use super::{Shared, egress, links, netlink};
use crate::now_ms;

/// Between two looks at whether all parts stand.
const LOOK: Duration = Duration::from_secs(1);

/// Watches until the end.
pub(super) fn run(shared: &Shared) {
    let mut told = Sources::default();
    let mut looked = Instant::now();
    while !shared.stop.load(Ordering::Relaxed) {
        let isolated = shared.lock().current.is_some();
        told.open(isolated);
        if !isolated {
            told.wait(&shared.wake, None);
            continue;
        }
        let some = told.wait(&shared.wake, Some(LOOK));
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        expire(shared);
        follow(shared);
        // Somebody else's changes to rules are looked at, but not more often than that.
        if looked.elapsed() >= LOOK || (some && looked.elapsed() >= LOOK / 20) {
            looked = Instant::now();
            repair(shared);
        }
    }
}

/// What the kernel tells of; open only while the host is cut off.
#[derive(Default)]
struct Sources {
    links: Option<OwnedFd>,
    rules: Option<OwnedFd>,
}

impl Sources {
    fn open(&mut self, isolated: bool) {
        if !isolated {
            *self = Self::default();
        } else if self.links.is_none() {
            let warn = |error: &std::io::Error| {
                tracing::warn!(%error, "isolation: interfaces are looked for once a second only");
            };
            self.links = netlink::listen(ROUTE, links::LINK_GROUP).inspect_err(warn).ok();
            // Without it missing rules are seen a second later.
            self.rules = netlink::listen(NETFILTER, egress::RULES_GROUP).ok();
        }
    }

    /// Waits for news; true when there were some.
    fn wait(&self, wake: &OwnedFd, limit: Option<Duration>) -> bool {
        let mut all = vec![PollFd::new(wake, PollFlags::IN)];
        all.extend(self.links.iter().map(|socket| PollFd::new(socket, PollFlags::IN)));
        all.extend(self.rules.iter().map(|socket| PollFd::new(socket, PollFlags::IN)));
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        // An interrupted wait is one that ended early.
        let woken = poll(&mut all, limit.as_ref()).is_ok_and(|ready| ready > 0);
        if all[0].revents().contains(PollFlags::IN) {
            let _ = rustix::io::read(wake, &mut [0; 8]);
        }
        for socket in self.links.iter().chain(&self.rules) {
            netlink::drain(socket);
        }
        woken
    }
}

fn expire(shared: &Shared) {
    let over = {
        let inner = shared.lock();
        inner
            .current
            .as_ref()
            .filter(|current| current.record.expired(now_ms()))
            .map(|current| current.record.reason.clone())
    };
    if let Some(reason) = over
        && let Err(error) = shared.release("expired", &reason)
    {
        tracing::error!(error = crate::error_chain(&error), "isolation: not released in time");
    }
}

fn follow(shared: &Shared) {
    let mut inner = shared.lock();
    let Some(current) = &mut inner.current else { return };
    match current.cut.follow_interfaces() {
        Ok(false) => {}
        Ok(true) => {
            if current.record.queues != current.cut.queues() {
                current.record.queues = current.cut.queues().to_vec();
                if let Err(error) = current.record.store(&shared.state_dir) {
                    tracing::error!(%error, "isolation: a queue is not written down");
                }
            }
        }
        Err(why) => tracing::error!(why, "isolation"),
    }
}

fn repair(shared: &Shared) {
    let mut inner = shared.lock();
    let Some(current) = &mut inner.current else { return };
    let broken = current.cut.repair();
    let places = current.record.places.clone();
    let new: Vec<String> =
        broken.iter().filter(|what| !inner.broken.contains(what)).cloned().collect();
    inner.broken = broken;
    drop(inner);
    for what in new {
        shared.tell("broken", &what, &places);
    }
}
