//! A process and everything that it started, and their end.
//!
//! Members are found by their parents in `/proc`, and in the process table, which still knows the
//! parents of those whose own have ended. INVARIANT: a signal goes through a pidfd that was
//! opened before the process's start time was compared, so that it never meets another process
//! under the same pid. The agent, its workers, pid 1 and kernel threads are never members.
//!
//! All are stopped before any is killed, so that none makes more in the meantime; looked for
//! again until none is left, for at most [`PATIENCE`].

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use holdfast_common::process::{ProcessInfo, ProcessKey};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::sensor::ProcessTable;
use crate::sensor::proc::ProcDir;
use crate::sensor::table::pids;

/// After it, what is left is reported.
const PATIENCE: Duration = Duration::from_secs(5);
/// Members of one tree; more are left for the next round.
const MEMBERS_MAX: usize = 20_000;

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// How many were killed.
    pub killed: usize,
    /// Members that were still there at the end.
    pub left: Vec<ProcessKey>,
}

/// One process of a listing.
struct Row {
    key: ProcessKey,
    parent: u32,
}

/// Living descendants that are known, the process itself not among them.
#[must_use]
pub fn descendants(root: ProcessKey, table: &ProcessTable, most: usize) -> Vec<ProcessInfo> {
    let mut members = HashSet::from([root]);
    let found = grow(&mut members, table, std::process::id());
    let others = found.into_iter().filter(|key| *key != root).take(most);
    others
        .filter_map(|key| {
            table.get(key).or_else(|| {
                let folder = ProcDir::open_key(key)?;
                Some(folder.facts())
            })
        })
        .collect()
}

/// Kills the process and all that it started, but not `own` and what that started: the agent.
#[must_use]
pub fn kill(root: ProcessKey, table: &ProcessTable, own: u32) -> Ended {
    let end = Instant::now() + PATIENCE;
    let mut members = HashSet::from([root]);
    let mut killed = HashSet::new();
    loop {
        // Stopped processes make no children, so this comes to an end.
        let mut stopped: HashSet<ProcessKey> = HashSet::new();
        let living = loop {
            let living = grow(&mut members, table, own);
            let new: Vec<_> = living.iter().filter(|key| !stopped.contains(*key)).collect();
            if new.is_empty() || Instant::now() >= end {
                break living;
            }
            for key in new {
                send(*key, Signal::STOP);
                stopped.insert(*key);
            }
        };
        for key in &living {
            if send(*key, Signal::KILL) {
                killed.insert(*key);
            }
        }
        if living.is_empty() {
            return Ended { killed: killed.len(), left: Vec::new() };
        }
        if Instant::now() >= end {
            return Ended { killed: killed.len(), left: living };
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Adds the children of members until there are none, and gives the members that live.
fn grow(members: &mut HashSet<ProcessKey>, table: &ProcessTable, own: u32) -> Vec<ProcessKey> {
    let rows: HashMap<u32, Row> = pids()
        .into_iter()
        .filter_map(|pid| {
            let folder = ProcDir::open(pid)?;
            (!has_ended(pid)).then_some((pid, Row { key: folder.key, parent: folder.parent }))
        })
        .collect();
    let spared = |row: &Row| spare(row, own, &rows);
    loop {
        let before = members.len();
        for row in rows.values() {
            if members.len() >= MEMBERS_MAX {
                break;
            }
            let by_parent =
                rows.get(&row.parent).is_some_and(|parent| members.contains(&parent.key));
            let by_table = || {
                table.get(row.key).is_some_and(|info| {
                    let line = table.ancestors(&info, 64);
                    info.parent.is_some_and(|parent| members.contains(&parent))
                        || line.iter().any(|one| members.contains(&one.key))
                })
            };
            if !members.contains(&row.key) && !spared(row) && (by_parent || by_table()) {
                members.insert(row.key);
            }
        }
        if members.len() == before {
            break;
        }
    }
    let mut living: Vec<_> = rows
        .values()
        .filter(|row| members.contains(&row.key) && !spared(row))
        .map(|row| row.key)
        .collect();
    living.sort_by_key(|key| (key.start_ns, key.pid));
    living
}

/// True for a process that only waits for its parent to take note (state Z or X of `stat`).
fn has_ended(pid: u32) -> bool {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in brackets may hold anything, brackets too.
    let close = stat.iter().rposition(|byte| *byte == b')');
    let state = close.and_then(|close| stat.get(close + 2));
    matches!(state, None | Some(b'Z' | b'X'))
}

/// pid 1, kernel threads (kthreadd is 2), the agent and whatever it started.
fn spare(row: &Row, own: u32, rows: &HashMap<u32, Row>) -> bool {
    let mut next = Some(row);
    for _ in 0..64 {
        let Some(one) = next else { break };
        if one.key.pid == own {
            return true;
        }
        next = rows.get(&one.parent);
    }
    row.key.pid <= 2 || row.parent == 2
}

/// False when it is gone.
fn send(key: ProcessKey, signal: Signal) -> bool {
    let Some(pid) = i32::try_from(key.pid).ok().and_then(Pid::from_raw) else { return false };
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
    let same = ProcDir::open(key.pid).is_some_and(|folder| folder.key == key);
    same && pidfd_send_signal(&process, signal).is_ok()
}

#[cfg(test)]
mod tests {
    use std::io::BufRead;
    use std::process::{Command, Stdio};

    use super::*;

    fn key_of(pid: u32) -> ProcessKey {
        ProcDir::open(pid).expect("process").key
    }

    /// A shell with a child that has children of its own, one of which lost its parent.
    #[test]
    fn the_whole_tree_ends_and_nobody_else_does() {
        let table = ProcessTable::from_proc();
        let mut outsider = Command::new("sleep").arg("100").spawn().expect("outsider");
        let script = "sh -c 'sleep 101 & sleep 102 & echo up; wait' & \
                      while :; do sleep 0.01; done";
        let mut shell =
            Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().expect("shell");
        let mut line = String::new();
        let output = shell.stdout.take().expect("piped");
        std::io::BufReader::new(output).read_line(&mut line).expect("the children are there");
        let root = key_of(shell.id());
        let own = outsider.id();
        assert!(grow(&mut HashSet::from([root]), &table, own).len() >= 4);
        let ended = kill(root, &table, own);
        assert!(ended.killed >= 4 && ended.left.is_empty(), "{ended:?}");
        assert!(grow(&mut HashSet::from([root]), &table, own).is_empty());
        assert!(outsider.try_wait().expect("wait").is_none(), "it was not in the tree");
        assert!(!shell.wait().expect("wait").success());
        outsider.kill().expect("kill");
        outsider.wait().expect("wait");
    }

    #[test]
    fn a_grandchild_whose_parent_has_ended_is_found_by_the_table() {
        // Older than all of them: it learns of them as the sensor tells it.
        let table = ProcessTable::from_proc();
        let mut shell = Command::new("sh")
            .args(["-c", "(sleep 103 & echo $!); read line"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("shell");
        let mut line = String::new();
        let output = shell.stdout.take().expect("piped");
        std::io::BufReader::new(output).read_line(&mut line).expect("pid");
        let root = key_of(shell.id());
        let orphan = key_of(line.trim().parse().expect("pid"));
        let between = ProcessKey { pid: u32::MAX, start_ns: root.start_ns };
        assert!(table.forked(root, key_of(std::process::id())));
        assert!(table.forked(between, root));
        assert!(table.forked(orphan, between));
        table.ended(between, std::time::Instant::now());
        let ended = kill(root, &table, std::process::id() + 1_000_000);
        assert_eq!(ended, Ended { killed: 2, left: Vec::new() });
        shell.wait().expect("wait");
    }

    #[test]
    fn the_agent_pid_1_and_a_reused_pid_are_spared() {
        let table = ProcessTable::from_proc();
        let own = std::process::id();
        assert_eq!(kill(key_of(own), &table, own), Ended::default());
        assert!(spare(&Row { key: key_of(1), parent: 0 }, own, &HashMap::new()));
        let mut child = Command::new("sleep").arg("100").spawn().expect("child");
        let other = ProcessKey { start_ns: 1, ..key_of(child.id()) };
        assert!(!send(other, Signal::KILL), "another process under that pid");
        assert_eq!(kill(key_of(child.id()), &table, own), Ended::default(), "the agent's own");
        assert!(child.try_wait().expect("wait").is_none());
        child.kill().expect("kill");
        child.wait().expect("wait");
    }
}
