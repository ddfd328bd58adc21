//! From the bytes of a ring buffer to records: no I/O, no table, no panic on any input.
//!
//! One module a subject; a new [`Kind`] gets its row in [`Record::decode`].

pub mod activity;
pub mod dns;
pub mod network;
pub mod process;
pub mod traffic;

use bytes::Buf;
use holdfast_common::abi::{COMM_LEN, Kind};
use holdfast_common::process::{ProcessKey, printable};

use super::proc::cut_to_tick;

/// A record that is not one of ours: the object and the agent are not of one build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed record from the eBPF programs")]
pub struct Malformed;

/// Who a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Who {
    /// The process.
    pub key: ProcessKey,
    /// Real user id.
    pub uid: u32,
    /// Effective user id.
    pub euid: u32,
    /// `comm`, ended by NUL.
    pub comm: [u8; COMM_LEN],
}

impl Who {
    /// `comm` as text.
    pub fn name(&self) -> String {
        printable(until_nul(&self.comm))
    }
}

/// One decoded record, by subject. Long parts stay where they are until somebody asks for them,
/// since in a storm nobody does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record<'a> {
    /// See [`process`].
    Process(process::Record<'a>),
    /// See [`activity`].
    Activity(activity::Record<'a>),
    /// See [`network`].
    Network(network::Record),
    /// See [`traffic`].
    Traffic(traffic::Record<'a>),
}

impl<'a> Record<'a> {
    /// Decodes one item of a ring buffer; the kind is the row of the counters.
    ///
    /// # Errors
    /// [`Malformed`] when it is too short or its tag or lengths are not possible.
    pub fn decode(mut bytes: &'a [u8]) -> Result<(Kind, Self), Malformed> {
        let kind = Kind::from_number(u32_of(&mut bytes)?).ok_or(Malformed)?;
        let who = who(&mut bytes)?;
        let record = match kind {
            Kind::Exec => Self::Process(process::exec(who, bytes)?),
            Kind::Fork => Self::Process(process::fork(who, bytes)?),
            Kind::Exit => Self::Process(process::exit(who, bytes)?),
            Kind::Socket => Self::Network(network::socket(who, bytes)?),
            Kind::Capability => Self::Network(network::capability(who, bytes)?),
            Kind::Connect => Self::Traffic(traffic::of(kind, "connect", who, bytes)?),
            Kind::Accept => Self::Traffic(traffic::of(kind, "accept", who, bytes)?),
            Kind::Bind => Self::Traffic(traffic::of(kind, "bind", who, bytes)?),
            Kind::Listen => Self::Traffic(traffic::of(kind, "listen", who, bytes)?),
            Kind::Send => Self::Traffic(traffic::of(kind, "send", who, bytes)?),
            Kind::Dns => Self::Traffic(traffic::Record::Dns(traffic::dns(who, bytes)?)),
            Kind::Credentials
            | Kind::Ptrace
            | Kind::MemoryWrite
            | Kind::Signal
            | Kind::ModuleLoad
            | Kind::BpfLoad
            | Kind::Memfd
            | Kind::Mount
            | Kind::Namespaces => Self::Activity(activity::record(kind, who, bytes)?),
        };
        Ok((kind, record))
    }
}

/// Turns the names of a path, leaf first, each ended by NUL, into text.
pub fn path_text(names: &[u8]) -> String {
    let mut path = String::with_capacity(names.len() + 1);
    if let Some(names) = names.strip_suffix(&[0]) {
        for name in names.rsplit(|byte| *byte == 0) {
            path.push('/');
            path.push_str(&printable(name));
        }
    }
    if path.is_empty() {
        path.push('/');
    }
    path
}

/// The bytes before the first NUL.
pub fn until_nul(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    &bytes[..end]
}

fn who(bytes: &mut &[u8]) -> Result<Who, Malformed> {
    let pid = u32_of(bytes)?;
    let start_ns = u64_of(bytes)?;
    let uid = u32_of(bytes)?;
    let euid = u32_of(bytes)?;
    let comm = array(bytes)?;
    Ok(Who { key: key(pid, start_ns), uid, euid, comm })
}

fn key(pid: u32, start_ns: u64) -> ProcessKey {
    ProcessKey { pid, start_ns: cut_to_tick(start_ns) }
}

fn u16_of(bytes: &mut &[u8]) -> Result<u16, Malformed> {
    bytes.try_get_u16_ne().map_err(|_| Malformed)
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

fn array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (head, rest) = bytes.split_first_chunk().ok_or(Malformed)?;
    *bytes = rest;
    Ok(*head)
}

#[cfg(test)]
mod tests {
    use holdfast_common::abi::{
        ActivityRecord, ExecRecord, ExitRecord, ForkRecord, Head, KINDS, SocketRecord, TEXT_MAX,
        flags,
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

    /// path, cwd, control group, script, environment, arguments
    fn exec_bytes(parts: [&[u8]; 6], total: u32, bits: u32) -> Vec<u8> {
        let mut bytes = head(Kind::Exec);
        for long in [5_000_000_000u64, 11, 4096, 1_700_000_000, 9, 0xffff_8880_0000_1000] {
            bytes.extend(long.to_ne_bytes());
        }
        // As since 6.13, when somebody has asked for the times.
        bytes.extend(words(&[1 << 31 | 77, 8 << 20 | 3, 3, u32::MAX, 42, bits]));
        bytes.extend(b"pts3\0old name\0\0\0");
        bytes.extend(words(&parts.map(|part| part.len() as u32)));
        bytes.extend(words(&[total, 0]));
        bytes.extend(parts.concat());
        bytes
    }

    fn exec_of(bytes: &[u8]) -> Exec<'_> {
        match Record::decode(bytes) {
            Ok((Kind::Exec, Record::Process(process::Record::Exec(exec)))) => exec,
            other => panic!("not an exec: {other:?}"),
        }
    }

    fn activity_bytes(path: &[u8]) -> Vec<u8> {
        let mut bytes = head(Kind::Mount);
        bytes.extend(words(&[30, 1]));
        for long in [1u64, 2, 3, 4, 5_000_000_000] {
            bytes.extend(long.to_ne_bytes());
        }
        bytes.extend(words(&[3, path.len() as u32]));
        for text in [b"/dev/sda\0rest".as_slice(), b"\0", &[b'x'; TEXT_MAX]] {
            let mut text = text.to_vec();
            text.resize(TEXT_MAX, 0);
            bytes.extend(text);
        }
        bytes.extend(path);
        bytes
    }

    #[test]
    fn records_have_no_padding_and_the_size_that_is_decoded() {
        assert_eq!(size_of::<Head>(), head(Kind::Exit).len());
        assert_eq!(size_of::<ExitRecord>(), size_of::<Head>() + 8);
        assert_eq!(size_of::<ForkRecord>(), size_of::<Head>() + 24);
        assert_eq!(size_of::<ExecRecord>(), exec_bytes([b""; 6], 0, 0).len());
        assert_eq!(size_of::<SocketRecord>(), size_of::<Head>() + 32);
        assert_eq!(size_of::<ActivityRecord>(), activity_bytes(b"").len());
    }

    #[test]
    fn an_exec_record_becomes_paths_arguments_and_environment() {
        let parts: [&[u8]; 6] = [
            b"sh\0bin\0usr\0",
            b"tmp\0",
            b"x.scope\0user.slice\0",
            b"./run me",
            b"LD_PRELOAD=/tmp/x=y.so\0LD_PREFIX=no\0HISTFILE=\0",
            b"sh\0-c\0a\nb\0",
        ];
        let bytes = exec_bytes(parts, 9, 0);
        let exec = exec_of(&bytes);
        assert_eq!(exec.who.key, ProcessKey { pid: 7, start_ns: 12_340_000_000 });
        assert_eq!(exec.who.name(), r"a\x0a)\x1b\xff");
        assert_eq!(exec.parent, Some(ProcessKey { pid: 3, start_ns: 5_000_000_000 }));
        assert_eq!(exec.exe().as_deref(), Some("/usr/bin/sh"));
        assert_eq!(exec.cwd().as_deref(), Some("/tmp"));
        assert_eq!(path_text(exec.cgroup), "/user.slice/x.scope");
        assert_eq!(exec.script, b"./run me");
        assert_eq!(exec.args(), (vec!["sh".into(), "-c".into(), r"a\x0ab".into()], false));
        let environment: Vec<_> = exec.environment().into_iter().collect();
        let expected = [("HISTFILE", ""), ("LD_PRELOAD", "/tmp/x=y.so")];
        assert_eq!(environment, expected.map(|(name, value)| (name.into(), value.into())));
        assert_eq!(exec.login_uid, None);
        assert_eq!((exec.session, exec.terminal().as_str()), (42, "pts/3"));
        let file = &exec.file;
        assert_eq!((file.device, file.inode, file.size), ((8, 3), 11, 4096));
        assert_eq!(file.changed, (1_700_000_000, 77));
    }

    #[test]
    fn what_was_cut_is_marked_and_never_invented() {
        let bytes = exec_bytes([b"sh\0bin\0", b"", b"", b"", b"", b"sh\0lon"], 9000, 0);
        let cut = exec_of(&bytes);
        assert_eq!(cut.args(), (vec!["sh".into(), "lon".into()], true));
        assert_eq!(cut.cwd().as_deref(), Some("/"));
        let bits = flags::PATH_TRUNCATED | flags::CWD_TRUNCATED | flags::ENVIRONMENT_TRUNCATED;
        let bytes = exec_bytes([b"x\0y\0", b"z\0", b"", b"", b"", b""], 0, bits);
        let deep = exec_of(&bytes);
        assert_eq!((deep.exe(), deep.cwd()), (None, None));
        assert_eq!(deep.environment().keys().next().map(String::as_str), Some("(cut)"));
        let bits = flags::PATH_DELETED | flags::ARGS_UNREADABLE;
        let bytes = exec_bytes([b"memfd:x\0", b"", b"", b"", b"", b""], 7, bits);
        let memfd = exec_of(&bytes);
        assert_eq!(memfd.exe().as_deref(), Some("/memfd:x (deleted)"));
        assert_eq!(memfd.args(), (Vec::new(), true));
    }

    #[test]
    fn an_activity_record_has_its_names_and_its_path() {
        let bytes = activity_bytes(b"mnt\0");
        let Ok((Kind::Mount, Record::Activity(record))) = Record::decode(&bytes) else {
            panic!("not an activity");
        };
        assert!(record.attempt && record.values == [1, 2, 3, 4]);
        assert_eq!(record.target, Some(ProcessKey { pid: 3, start_ns: 5_000_000_000 }));
        assert_eq!(record.texts[0], b"/dev/sda");
        assert_eq!((record.texts[1], record.texts[2].len()), (b"".as_slice(), TEXT_MAX));
        assert_eq!(path_text(record.path), "/mnt");
    }

    #[test]
    fn every_cut_of_a_record_is_refused() {
        for whole in [
            exec_bytes([b"sh\0", b"a\0", b"b\0", b"c", b"D=e\0", b"sh\0"], 3, 0),
            activity_bytes(b"mnt\0"),
        ] {
            for cut in 0..whole.len() {
                assert_eq!(Record::decode(&whole[..cut]), Err(Malformed), "cut at {cut}");
            }
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            kind in 0u32..KINDS as u32 + 1,
            bytes in proptest::collection::vec(any::<u8>(), 0..1200),
        ) {
            let mut record = kind.to_ne_bytes().to_vec();
            record.extend(bytes);
            if let Ok((_, Record::Process(process::Record::Exec(exec)))) = Record::decode(&record) {
                let _ = (exec.exe(), exec.cwd(), exec.args(), exec.environment());
            }
        }
    }
}
