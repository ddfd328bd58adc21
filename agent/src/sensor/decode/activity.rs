//! Records of `ebpf/src/activity.rs`, `hooks.rs` and `calls.rs`.

use holdfast_common::abi::{Kind, TEXT_MAX};
use holdfast_common::process::ProcessKey;

use super::{Malformed, Who, key, take, u32_of, u64_of, until_nul};

/// What a process did; `abi::call` says what the values mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<'a> {
    /// Which.
    pub kind: Kind,
    /// Who.
    pub who: Who,
    /// One of `abi::call`.
    pub call: u32,
    /// It was only tried.
    pub attempt: bool,
    /// Flags, requests, user ids.
    pub values: [u64; 4],
    /// The other process; its start time is 0 when unknown.
    pub target: Option<ProcessKey>,
    /// Names, leaf first, each ended by NUL.
    pub path: &'a [u8],
    /// Names.
    pub texts: [&'a [u8]; 3],
}

pub(super) fn record(kind: Kind, who: Who, mut bytes: &[u8]) -> Result<Record<'_>, Malformed> {
    let call = u32_of(&mut bytes)?;
    let attempt = u32_of(&mut bytes)? != 0;
    let mut values = [0; 4];
    for value in &mut values {
        *value = u64_of(&mut bytes)?;
    }
    let target_start_ns = u64_of(&mut bytes)?;
    let target = u32_of(&mut bytes)?;
    let path_len = u32_of(&mut bytes)? as usize;
    let mut texts = [b"".as_slice(); 3];
    for text in &mut texts {
        *text = until_nul(take(&mut bytes, TEXT_MAX)?);
    }
    Ok(Record {
        kind,
        who,
        call,
        attempt,
        values,
        target: (target != 0).then(|| key(target, target_start_ns)),
        path: take(&mut bytes, path_len)?,
        texts,
    })
}
