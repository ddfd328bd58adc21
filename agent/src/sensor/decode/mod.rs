//! From the bytes of a ring buffer to records: no I/O, no table, no panic on any input.
//!
//! One module a subject; a new [`Kind`] gets its row in [`Record::decode`].

pub mod network;
pub mod process;

use bytes::Buf;
use holdfast_common::abi::{COMM_LEN, Kind};
use holdfast_common::process::{ProcessKey, printable};

use super::proc::cut_to_tick;

/// A record that is not one of ours: the object and the agent are not of one build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed record from the eBPF programs")]
pub struct Malformed;

/// Who a record is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// The process.
    pub key: ProcessKey,
    /// Real user id.
    pub uid: u32,
    /// Effective user id.
    pub euid: u32,
    /// `comm`
    pub comm: String,
}

/// One decoded record, by subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// See [`process`].
    Process(process::Record),
    /// See [`network`].
    Network(network::Record),
}

impl Record {
    /// Decodes one item of a ring buffer; the kind is the row of the counters.
    ///
    /// # Errors
    /// [`Malformed`] when it is too short or its tag or lengths are not possible.
    pub fn decode(mut bytes: &[u8]) -> Result<(Kind, Self), Malformed> {
        let kind = Kind::from_number(u32_of(&mut bytes)?).ok_or(Malformed)?;
        let who = who(&mut bytes)?;
        let record = match kind {
            Kind::Exec => Self::Process(process::exec(who, bytes)?),
            Kind::Fork => Self::Process(process::fork(who, bytes)?),
            Kind::Exit => Self::Process(process::Record::Exit(who)),
            Kind::Socket => Self::Network(network::socket(who, bytes)?),
            Kind::Capability => Self::Network(network::Record::Capability(who)),
        };
        Ok((kind, record))
    }
}

fn who(bytes: &mut &[u8]) -> Result<Who, Malformed> {
    let pid = u32_of(bytes)?;
    let start_ns = u64_of(bytes)?;
    let uid = u32_of(bytes)?;
    let euid = u32_of(bytes)?;
    let comm = take(bytes, COMM_LEN)?;
    let end = comm.iter().position(|byte| *byte == 0).unwrap_or(COMM_LEN);
    Ok(Who { key: key(pid, start_ns), uid, euid, comm: printable(&comm[..end]) })
}

fn key(pid: u32, start_ns: u64) -> ProcessKey {
    ProcessKey { pid, start_ns: cut_to_tick(start_ns) }
}

fn u32_of(bytes: &mut &[u8]) -> Result<u32, Malformed> {
    bytes.try_get_u32_ne().map_err(|_| Malformed)
}

fn u64_of(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    bytes.try_get_u64_ne().map_err(|_| Malformed)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (head, rest) = bytes.split_at_checked(length).ok_or(Malformed)?;
    *bytes = rest;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use holdfast_common::abi::{
        ExecRecord, ExitRecord, ForkRecord, Head, KINDS, SocketRecord, flags,
    };
    use proptest::prelude::*;

    use super::process::Exec;
    use super::*;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    /// kind, pid 7, start 12 345 678 901 ns, uid 1000, euid 0, a hostile name.
    fn head(kind: Kind) -> Vec<u8> {
        let mut bytes = words(&[kind as u32, 7]);
        bytes.extend(12_345_678_901u64.to_ne_bytes());
        bytes.extend(words(&[1000, 0]));
        bytes.extend(b"a\n)\x1b\xff\0leftover\0\0");
        bytes
    }

    fn exec_bytes(path: &[u8], args: &[u8], total: u32, bits: u32) -> Vec<u8> {
        let mut bytes = head(Kind::Exec);
        bytes.extend(5_000_000_000u64.to_ne_bytes());
        bytes.extend(words(&[3, u32::MAX, path.len() as u32, args.len() as u32, total, bits]));
        bytes.extend(path);
        bytes.extend(args);
        bytes
    }

    fn exec_of(bytes: &[u8]) -> Exec {
        match Record::decode(bytes) {
            Ok((Kind::Exec, Record::Process(process::Record::Exec(exec)))) => exec,
            other => panic!("not an exec: {other:?}"),
        }
    }

    #[test]
    fn records_have_no_padding_and_the_size_that_is_decoded() {
        assert_eq!(size_of::<Head>(), head(Kind::Exit).len());
        assert_eq!(size_of::<ExitRecord>(), size_of::<Head>());
        assert_eq!(size_of::<ForkRecord>(), size_of::<Head>() + 16);
        assert_eq!(size_of::<ExecRecord>(), exec_bytes(b"", b"", 0, 0).len());
        assert_eq!(size_of::<SocketRecord>(), size_of::<Head>() + 32);
    }

    #[test]
    fn an_exec_record_becomes_a_path_and_arguments() {
        let exec = exec_of(&exec_bytes(b"sh\0bin\0usr\0", b"sh\0-c\0a\nb\0", 9, 0));
        assert_eq!(exec.who.key, ProcessKey { pid: 7, start_ns: 12_340_000_000 });
        assert_eq!(exec.who.comm, r"a\x0a)\x1b\xff");
        assert_eq!(exec.parent, Some(ProcessKey { pid: 3, start_ns: 5_000_000_000 }));
        assert_eq!(exec.exe.as_deref(), Some("/usr/bin/sh"));
        assert_eq!(exec.args, ["sh", "-c", r"a\x0ab"]);
        assert!(!exec.args_truncated);
        assert_eq!(exec.login_uid, None);
    }

    #[test]
    fn what_was_cut_is_marked_and_never_invented() {
        let cut = exec_of(&exec_bytes(b"sh\0bin\0", b"sh\0lon", 9000, 0));
        assert!(cut.args_truncated);
        assert_eq!(cut.args, ["sh", "lon"]);
        let deep = exec_of(&exec_bytes(b"x\0y\0", b"", 0, flags::PATH_TRUNCATED));
        assert_eq!(deep.exe, None);
        let memfd = exec_of(&exec_bytes(
            b"memfd:x\0",
            b"",
            7,
            flags::PATH_DELETED | flags::ARGS_UNREADABLE,
        ));
        assert_eq!(memfd.exe.as_deref(), Some("/memfd:x (deleted)"));
        assert!(memfd.args_truncated && memfd.args.is_empty());
    }

    #[test]
    fn every_cut_of_a_record_is_refused() {
        let whole = exec_bytes(b"sh\0", b"sh\0", 3, 0);
        for cut in 0..whole.len() {
            assert_eq!(Record::decode(&whole[..cut]), Err(Malformed), "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(kind in 0u32..KINDS as u32 + 1, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut record = kind.to_ne_bytes().to_vec();
            record.extend(bytes);
            let _ = Record::decode(&record);
        }
    }
}
