//! The isolation without a running agent: put back at boot before the network comes up, and
//! released by root when no agent is there to be asked.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::cut::{Cut, Needs as CutNeeds};
use super::netlink::ROUTE;
use super::programs::{self, Programs};
use super::record::Record;
use super::{IsolateError, agent_runs, cut, guard, links, netlink};
use crate::config::{self, Config};
use crate::now_ms;

/// Between two looks at whether the agent has taken over.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// Cuts off what the record says, in place of an older cut without a gap.
pub(super) fn cut_again(config: &config::Isolation, record: &Record) -> Result<Cut, String> {
    let again = programs::left_behind(&config.pins);
    let needs = CutNeeds {
        programs: Programs::load(&config.pins)?,
        cgroup: guard::cgroup(config.cgroup.as_deref())?,
        part_of_host: config.cgroup.is_some(),
        allowed: record.allowed(),
        queues: record.queues.clone(),
        pins: &config.pins,
    };
    // What stands is left standing: half a cut is more than none.
    Cut::make(needs, again).map_err(|failed| failed.why)
}

/// Puts back what the record says, calls `ready`, and with `stay` looks after new interfaces
/// until an agent takes over. True when the host is cut off.
///
/// # Errors
/// [`IsolateError`]; what could be cut off is.
pub fn restore(config: &Config, stay: bool, ready: impl FnOnce()) -> Result<bool, IsolateError> {
    if agent_runs(&config.state_dir) {
        return Err(IsolateError::AgentRuns);
    }
    let record_error = |source| IsolateError::Record { path: config.state_dir.clone(), source };
    let Some(record) = Record::load(&config.state_dir).map_err(record_error)? else {
        ready();
        return Ok(false);
    };
    if record.expired(now_ms()) {
        // The agent tells of it when it comes.
        ready();
        return Ok(false);
    }
    // Interfaces that come between the two are told of.
    let told = netlink::listen(ROUTE, links::LINK_GROUP).ok();
    let mut cut = cut_again(&config.isolation, &record).map_err(IsolateError::Cut)?;
    cut.finish();
    ready();
    while stay && !agent_runs(&config.state_dir) {
        match &told {
            Some(socket) => {
                // An interrupted wait is one that ended early.
                let _ = poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&LOOK));
                netlink::drain(socket);
            }
            None => std::thread::sleep(Duration::from_millis(200)),
        }
        if let Err(why) = cut.follow_interfaces() {
            tracing::error!(why, "isolation");
        }
    }
    Ok(true)
}

/// Takes everything down; false when nothing stood.
///
/// # Errors
/// [`IsolateError`]; an agent that runs must be asked instead.
pub fn release(config: &Config) -> Result<bool, IsolateError> {
    if agent_runs(&config.state_dir) {
        return Err(IsolateError::AgentRuns);
    }
    let record = Record::load(&config.state_dir).ok().flatten();
    let stood = record.is_some() || programs::left_behind(&config.isolation.pins);
    let queues = record.map(|record| record.queues).unwrap_or_default();
    cut::remove(&config.isolation.pins, &queues).map_err(IsolateError::Remove)?;
    Record::remove(&config.state_dir)
        .map_err(|source| IsolateError::Record { path: config.state_dir.clone(), source })?;
    Ok(stood)
}
