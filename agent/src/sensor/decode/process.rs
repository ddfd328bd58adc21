//! Records of `ebpf/src/process.rs`.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use holdfast_common::abi::{VARIABLE_MAX, flags};
use holdfast_common::process::{ProcessKey, WATCHED_ENVIRONMENT, printable};

use super::{Malformed, Who, array, key, path_text, take, u32_of, u64_of, until_nul};
use crate::sensor::images::FileState;
use crate::sensor::proc::split_arguments;

/// What the process programs report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record<'a> {
    /// A program started.
    Exec(Exec<'a>),
    /// A process was made.
    Fork(Fork),
    /// A process ended.
    Exit(Exit),
}

/// A program started. Paths are names, leaf first, each ended by NUL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec<'a> {
    /// The process.
    pub who: Who,
    /// Its parent.
    pub parent: Option<ProcessKey>,
    /// Login user id.
    pub login_uid: Option<u32>,
    /// Session id.
    pub session: u32,
    /// The executable, and in which state.
    pub file: FileState,
    /// Number of its control group.
    pub cgroup_id: u64,
    /// Names the set of its control groups.
    pub cgroup_set: u64,
    /// Path of its control group (v2).
    pub cgroup: &'a [u8],
    /// What `exe` interprets, as the caller named it; empty for a program.
    pub script: &'a [u8],
    bits: u32,
    terminal: [u8; 16],
    path: &'a [u8],
    cwd: &'a [u8],
    environment: &'a [u8],
    args: &'a [u8],
    args_total: usize,
}

/// A process was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fork {
    /// The child.
    pub who: Who,
    /// Who made it.
    pub parent: ProcessKey,
    /// Flags of `clone`.
    pub flags: u64,
}

/// A process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Which.
    pub who: Who,
    /// Exit status, 0 to 255.
    pub code: u32,
    /// Signal that ended it.
    pub signal: Option<u32>,
}

pub(super) fn fork(who: Who, mut bytes: &[u8]) -> Result<Record<'static>, Malformed> {
    let start_ns = u64_of(&mut bytes)?;
    let flags = u64_of(&mut bytes)?;
    let parent = key(u32_of(&mut bytes)?, start_ns);
    Ok(Record::Fork(Fork { who, parent, flags }))
}

pub(super) fn exit(who: Who, mut bytes: &[u8]) -> Result<Record<'static>, Malformed> {
    let code = u32_of(&mut bytes)?;
    let signal = code & 0x7f;
    Ok(Record::Exit(Exit { who, code: code >> 8 & 0xff, signal: (signal != 0).then_some(signal) }))
}

/// `I_CTIME_QUERIED`: since 6.13 the nanoseconds of an inode that somebody has asked for its times
/// carry this bit (multigrain timestamps, include/linux/fs.h), which `statx` does not show.
const CTIME_QUERIED: u32 = 1 << 31;

pub(super) fn exec(who: Who, mut bytes: &[u8]) -> Result<Record<'_>, Malformed> {
    let parent_start_ns = u64_of(&mut bytes)?;
    let inode = u64_of(&mut bytes)?;
    let size = u64_of(&mut bytes)?;
    let changed_s = u64_of(&mut bytes)?;
    let cgroup_id = u64_of(&mut bytes)?;
    let cgroup_set = u64_of(&mut bytes)?;
    let changed_ns = u32_of(&mut bytes)?;
    let device = u32_of(&mut bytes)?;
    let parent = u32_of(&mut bytes)?;
    let login_uid = u32_of(&mut bytes)?;
    let session = u32_of(&mut bytes)?;
    let bits = u32_of(&mut bytes)?;
    let terminal = array(&mut bytes)?;
    let mut lengths = [0; 6];
    for length in &mut lengths {
        *length = u32_of(&mut bytes)? as usize;
    }
    let args_total = u32_of(&mut bytes)? as usize;
    let _reserved = u32_of(&mut bytes)?;
    let mut part = |length| take(&mut bytes, length);
    let [path, cwd, cgroup, script, environment, args] = lengths;
    Ok(Record::Exec(Exec {
        who,
        parent: (parent != 0).then(|| key(parent, parent_start_ns)),
        login_uid: (login_uid != u32::MAX).then_some(login_uid),
        session,
        file: FileState {
            device: (device >> 20, device & 0xf_ffff),
            inode,
            size,
            changed: (changed_s.cast_signed(), changed_ns & !CTIME_QUERIED),
        },
        cgroup_id,
        cgroup_set,
        bits,
        terminal,
        path: part(path)?,
        cwd: part(cwd)?,
        cgroup: part(cgroup)?,
        script: until_nul(part(script)?),
        environment: part(environment)?,
        args: part(args)?,
        args_total,
    }))
}

impl Exec<'_> {
    /// The executable as `/proc/PID/exe` would show it; `None` when its path was too long.
    pub fn exe(&self) -> Option<String> {
        let cut = self.bits & flags::PATH_TRUNCATED != 0 || self.path.is_empty();
        (!cut).then(|| deleted(path_text(self.path), self.bits & flags::PATH_DELETED))
    }

    /// The working directory; `None` when its path was too long.
    pub fn cwd(&self) -> Option<String> {
        let cut = self.bits & flags::CWD_TRUNCATED != 0;
        (!cut).then(|| deleted(path_text(self.cwd), self.bits & flags::CWD_DELETED))
    }

    /// The control group's path is whole.
    pub fn knows_cgroup(&self) -> bool {
        self.bits & flags::CGROUP_TRUNCATED == 0
    }

    /// The argument vector, and whether it is cut or could not be read.
    pub fn args(&self) -> (Vec<String>, bool) {
        let (args, cut) = split_arguments(self.args, self.args_total);
        (args, cut || self.bits & flags::ARGS_UNREADABLE != 0)
    }

    /// The controlling terminal as in `/dev`; empty for none.
    pub fn terminal(&self) -> String {
        let name = printable(until_nul(&self.terminal));
        match name.strip_prefix("pts") {
            Some(number) => format!("pts/{number}"),
            None => name,
        }
    }

    /// The watched variables. A value that was cut ends in `…`; where not all variables could be
    /// looked at, `(cut)` stands among them.
    pub fn environment(&self) -> BTreeMap<String, String> {
        let mut watched = BTreeMap::new();
        for variable in self.environment.split(|byte| *byte == 0) {
            let Some(at) = variable.iter().position(|byte| *byte == b'=') else { continue };
            let (name, value) = (&variable[..at], &variable[at + 1..]);
            if let Some(name) = WATCHED_ENVIRONMENT.iter().find(|one| one.as_bytes() == name) {
                let mut value = printable(value);
                if variable.len() >= VARIABLE_MAX - 1 {
                    value.push('…');
                }
                watched.insert((*name).to_owned(), value);
            }
        }
        if self.bits & flags::ENVIRONMENT_TRUNCATED != 0 {
            watched.insert("(cut)".to_owned(), "not all variables were looked at".to_owned());
        }
        watched
    }

    /// Everything that an image holds: equal for equal ones.
    pub fn hash_image(&self, hasher: &mut impl Hasher) {
        self.hash_command(hasher);
        (self.who.uid, self.who.euid, self.login_uid, self.session).hash(hasher);
        (self.cgroup_id, self.cgroup_set, &self.terminal, self.bits).hash(hasher);
        (self.cwd, self.cgroup, self.environment).hash(hasher);
    }

    /// The program with its arguments.
    pub fn hash_command(&self, hasher: &mut impl Hasher) {
        (&self.file, self.path, self.script, self.args, self.args_total).hash(hasher);
    }
}

fn deleted(mut path: String, bit: u32) -> String {
    if bit != 0 {
        path.push_str(" (deleted)");
    }
    path
}
