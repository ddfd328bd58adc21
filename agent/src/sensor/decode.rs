//! From the bytes of a ring buffer to records: no I/O, no table, no panic on any input.

use bytes::Buf;
use holdfast_common::abi::{COMM_LEN, Kind, action, flags};
use holdfast_common::process::{ProcessKey, printable};

use super::proc::{cut_to_tick, split_arguments};

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

/// One decoded record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A program started.
    Exec(Exec),
    /// A process was made by the second.
    Fork(Who, ProcessKey),
    /// A process ended.
    Exit(Who),
    /// A socket.
    Socket(Socket),
    /// A process uses `CAP_NET_RAW`.
    Capability(Who),
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

/// A packet or raw socket was made or set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// The process.
    pub who: Who,
    /// Inode number of the socket, 0 when unknown.
    pub inode: u64,
    /// `socket`, `bind`, `promiscuous`, `ring`.
    pub action: &'static str,
    /// `AF_PACKET`…
    pub family: String,
    /// `SOCK_RAW`…
    pub socket_type: String,
    /// Host order.
    pub protocol: u32,
    /// Interface index.
    pub interface: u32,
}

impl Record {
    /// Decodes one item of a ring buffer.
    ///
    /// # Errors
    /// [`Malformed`] when it is too short or its tag or lengths are not possible.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, Malformed> {
        let kind = u32_of(&mut bytes)?;
        let who = who(&mut bytes)?;
        match kind {
            kind if kind == Kind::Exec as u32 => exec(who, bytes).map(Self::Exec),
            kind if kind == Kind::Fork as u32 => {
                let start_ns = u64_of(&mut bytes)?;
                Ok(Self::Fork(who, key(u32_of(&mut bytes)?, start_ns)))
            }
            kind if kind == Kind::Exit as u32 => Ok(Self::Exit(who)),
            kind if kind == Kind::Socket as u32 => socket(who, bytes).map(Self::Socket),
            kind if kind == Kind::Capability as u32 => Ok(Self::Capability(who)),
            _ => Err(Malformed),
        }
    }

    /// The counters' row.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Exec(_) => Kind::Exec,
            Self::Fork(..) => Kind::Fork,
            Self::Exit(_) => Kind::Exit,
            Self::Socket(_) => Kind::Socket,
            Self::Capability(_) => Kind::Capability,
        }
    }
}

/// Name of an address family that the sensor reports.
pub fn family_name(family: u32) -> String {
    match family {
        2 => "AF_INET".to_owned(),
        10 => "AF_INET6".to_owned(),
        17 => "AF_PACKET".to_owned(),
        other => format!("AF_{other}"),
    }
}

/// Name of a socket type.
pub fn type_name(socket_type: u32) -> String {
    match socket_type {
        2 => "SOCK_DGRAM".to_owned(),
        3 => "SOCK_RAW".to_owned(),
        10 => "SOCK_PACKET".to_owned(),
        other => format!("SOCK_{other}"),
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

fn exec(who: Who, mut bytes: &[u8]) -> Result<Exec, Malformed> {
    let parent_start_ns = u64_of(&mut bytes)?;
    let parent = u32_of(&mut bytes)?;
    let login_uid = u32_of(&mut bytes)?;
    let path_len = u32_of(&mut bytes)? as usize;
    let args_len = u32_of(&mut bytes)? as usize;
    let args_total = u32_of(&mut bytes)? as usize;
    let bits = u32_of(&mut bytes)?;
    let path = take(&mut bytes, path_len)?;
    let (args, cut) = split_arguments(take(&mut bytes, args_len)?, args_total);
    Ok(Exec {
        who,
        parent: (parent != 0).then(|| key(parent, parent_start_ns)),
        login_uid: (login_uid != u32::MAX).then_some(login_uid),
        exe: path_of(path, bits),
        args,
        args_truncated: cut || bits & flags::ARGS_UNREADABLE != 0,
    })
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

fn socket(who: Who, mut bytes: &[u8]) -> Result<Socket, Malformed> {
    let inode = u64_of(&mut bytes)?;
    let action = match u32_of(&mut bytes)? {
        action::SOCKET => "socket",
        action::BIND => "bind",
        action::PROMISCUOUS => "promiscuous",
        action::RING => "ring",
        _ => return Err(Malformed),
    };
    Ok(Socket {
        who,
        inode,
        action,
        family: family_name(u32_of(&mut bytes)?),
        socket_type: type_name(u32_of(&mut bytes)?),
        protocol: u32_of(&mut bytes)?,
        interface: u32_of(&mut bytes)?,
    })
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
    use holdfast_common::abi::{ExecRecord, ExitRecord, ForkRecord, Head, SocketRecord};
    use proptest::prelude::*;

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
            Ok(Record::Exec(exec)) => exec,
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
        fn arbitrary_bytes_never_panic(kind in 0u32..6, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut record = kind.to_ne_bytes().to_vec();
            record.extend(bytes);
            let _ = Record::decode(&record);
        }
    }
}
