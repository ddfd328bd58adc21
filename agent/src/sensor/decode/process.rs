//! Records of `ebpf/src/process.rs`.

use holdfast_common::abi::flags;
use holdfast_common::process::{ProcessKey, printable};

use super::{Malformed, Who, key, take, u32_of, u64_of};
use crate::sensor::proc::split_arguments;

/// What the process programs report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A program started.
    Exec(Exec),
    /// A process was made by the second.
    Fork(Who, ProcessKey),
    /// A process ended.
    Exit(Who),
}

/// A program started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    /// The process.
    pub who: Who,
    /// Its parent.
    pub parent: Option<ProcessKey>,
    /// Login user id.
    pub login_uid: Option<u32>,
    /// The executable's path; `None` when it was too long or could not be read.
    pub exe: Option<String>,
    /// The argument vector.
    pub args: Vec<String>,
    /// It was cut, or could not be read.
    pub args_truncated: bool,
}

pub(super) fn fork(who: Who, mut bytes: &[u8]) -> Result<Record, Malformed> {
    let start_ns = u64_of(&mut bytes)?;
    Ok(Record::Fork(who, key(u32_of(&mut bytes)?, start_ns)))
}

pub(super) fn exec(who: Who, mut bytes: &[u8]) -> Result<Record, Malformed> {
    let parent_start_ns = u64_of(&mut bytes)?;
    let parent = u32_of(&mut bytes)?;
    let login_uid = u32_of(&mut bytes)?;
    let path_len = u32_of(&mut bytes)? as usize;
    let args_len = u32_of(&mut bytes)? as usize;
    let args_total = u32_of(&mut bytes)? as usize;
    let bits = u32_of(&mut bytes)?;
    let path = take(&mut bytes, path_len)?;
    let (args, cut) = split_arguments(take(&mut bytes, args_len)?, args_total);
    Ok(Record::Exec(Exec {
        who,
        parent: (parent != 0).then(|| key(parent, parent_start_ns)),
        login_uid: (login_uid != u32::MAX).then_some(login_uid),
        exe: path_of(path, bits),
        args,
        args_truncated: cut || bits & flags::ARGS_UNREADABLE != 0,
    }))
}

/// Turns the components, leaf first, into a path as `/proc/PID/exe` would show it.
fn path_of(components: &[u8], bits: u32) -> Option<String> {
    if bits & flags::PATH_TRUNCATED != 0 {
        return None;
    }
    let names = components.strip_suffix(&[0])?;
    let mut path = String::new();
    for name in names.rsplit(|byte| *byte == 0) {
        path.push('/');
        path.push_str(&printable(name));
    }
    if bits & flags::PATH_DELETED != 0 {
        path.push_str(" (deleted)");
    }
    Some(path)
}
