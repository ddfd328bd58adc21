//! Netlink messages: put together, sent, and their answers taken apart (netlink(7)).
//!
//! Knows the framing alone. One socket for each exchange, of the network namespace of the calling
//! thread, so that no answer of an earlier one can be taken for its own. Every wait is bounded.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto,
    socket_with, sockopt,
};

/// `NETLINK_ROUTE` is number 0.
pub(super) const ROUTE: Option<Protocol> = None;
pub(super) const NETFILTER: Option<Protocol> = Some(rustix::net::netlink::NETFILTER);

pub(super) const REQUEST: u16 = 0x1;
pub(super) const ACK: u16 = 0x4;
pub(super) const EXCLUSIVE: u16 = 0x200;
pub(super) const DUMP: u16 = 0x300;
pub(super) const CREATE: u16 = 0x400;
pub(super) const APPEND: u16 = 0x800;

const HEADER: usize = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const DUMP_INTERRUPTED: u16 = 0x10;
const NESTED: u16 = 0x8000;
const KIND: u16 = 0x3fff;

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// A kernel's answer fits: it sends at most 32 KiB at once.
const ANSWER: usize = 64 << 10;
/// A dump that changed under our hands is asked for again this often.
const TRIES: usize = 5;

/// Messages that are sent together, numbered from 1.
#[derive(Debug, Default)]
pub(super) struct Messages {
    bytes: Vec<u8>,
    count: u32,
    /// Where the last one begins.
    last: usize,
}

impl Messages {
    /// Adds a message: the kernel's header of its kind, then the attributes that `fill` adds.
    pub(super) fn add(
        &mut self,
        kind: u16,
        flags: u16,
        header: &[u8],
        fill: impl FnOnce(&mut Attributes<'_>),
    ) {
        let start = self.bytes.len();
        self.last = start;
        self.count += 1;
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&self.count.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(header);
        pad(&mut self.bytes);
        fill(&mut Attributes(&mut self.bytes));
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// How many there are.
    pub(super) const fn count(&self) -> u32 {
        self.count
    }

    /// Asks for an answer to the last one: what goes wrong before it is told in any case, and
    /// hundreds of answers would not fit in the socket.
    pub(super) fn acknowledge_last(&mut self) {
        if let Some(flags) = self.bytes.get_mut(self.last + 6) {
            *flags |= ACK as u8;
        }
    }
}

/// Where attributes are added.
pub(super) struct Attributes<'a>(&'a mut Vec<u8>);

impl Attributes<'_> {
    pub(super) fn bytes(&mut self, kind: u16, value: &[u8]) {
        // An attribute's length has 16 bits; everything here is far shorter.
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        pad(self.0);
    }

    /// A text, ended by NUL.
    pub(super) fn text(&mut self, kind: u16, value: &str) {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat());
    }

    /// A number in network order, as nftables has them.
    pub(super) fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub(super) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 2]);
        self.0.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        fill(&mut Attributes(self.0));
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// A socket that also gets what these multicast groups tell.
pub(super) fn listen(protocol: Option<Protocol>, groups: u32) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
    bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

/// Reads away what a listening socket has; true when there was something. A full one (`ENOBUFS`)
/// has lost some, which is something too.
pub(super) fn drain(socket: &OwnedFd) -> bool {
    let mut answer = [0; 8192];
    let mut some = false;
    loop {
        match recv(socket, &mut answer, RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
            Ok(_) | Err(rustix::io::Errno::NOBUFS) => some = true,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return some,
        }
    }
}

/// Sends messages whose last asks for an acknowledgement, and waits for it.
///
/// # Errors
/// The first refusal; the kernel's error number.
pub(super) fn transact(protocol: Option<Protocol>, messages: &Messages) -> io::Result<()> {
    transact_batch(protocol, messages, &Messages::default())
}

/// The same, with an end behind it that is not acknowledged.
///
/// # Errors
/// The first refusal; the kernel's error number.
pub(super) fn transact_batch(
    protocol: Option<Protocol>,
    messages: &Messages,
    end: &Messages,
) -> io::Result<()> {
    let socket = sent(protocol, &[messages.bytes.as_slice(), &end.bytes].concat())?;
    let mut answer = vec![0; ANSWER];
    loop {
        let (length, _) = recv(&socket, answer.as_mut_slice(), RecvFlags::empty())?;
        for message in (Each { bytes: &answer[..length] }) {
            if message.kind != ERROR {
                continue;
            }
            let code = message.body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
            if code != 0 {
                return Err(io::Error::from_raw_os_error(-code));
            }
            if message.sequence == messages.count {
                return Ok(());
            }
        }
    }
}

/// Sends one dump request; the bodies of all its answers.
///
/// # Errors
/// The kernel's refusal.
pub(super) fn dump(protocol: Option<Protocol>, messages: &Messages) -> io::Result<Vec<Vec<u8>>> {
    for _ in 0..TRIES {
        if let Some(bodies) = dump_once(protocol, messages)? {
            return Ok(bodies);
        }
    }
    Err(io::Error::other("what is listed changes all the time"))
}

fn dump_once(protocol: Option<Protocol>, messages: &Messages) -> io::Result<Option<Vec<Vec<u8>>>> {
    let socket = sent(protocol, &messages.bytes)?;
    let mut answer = vec![0; ANSWER];
    let (mut bodies, mut whole) = (Vec::new(), true);
    loop {
        let (length, _) = recv(&socket, answer.as_mut_slice(), RecvFlags::empty())?;
        for message in (Each { bytes: &answer[..length] }) {
            whole &= message.flags & DUMP_INTERRUPTED == 0;
            let code = message.body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
            match message.kind {
                DONE | ERROR if code < 0 => return Err(io::Error::from_raw_os_error(-code)),
                DONE => return Ok(whole.then_some(bodies)),
                ERROR => {}
                _ => bodies.push(message.body.to_vec()),
            }
        }
    }
}

fn sent(protocol: Option<Protocol>, bytes: &[u8]) -> io::Result<OwnedFd> {
    let socket = listen(protocol, 0)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
    // A large batch is one datagram; the limit of unprivileged senders is too small for it.
    let size = bytes.len() * 2;
    if size > 200_000 {
        sockopt::set_socket_send_buffer_size_force(&socket, size)?;
    }
    let kernel = SocketAddrNetlink::new(0, 0);
    sendto(&socket, bytes, SendFlags::empty(), &kernel)?;
    Ok(socket)
}

struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

/// The messages of a datagram; ends at the first that is not whole.
struct Each<'a> {
    bytes: &'a [u8],
}

impl<'a> Iterator for Each<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let length = u32::from_ne_bytes(*self.bytes.first_chunk()?) as usize;
        let whole = self.bytes.get(..length)?;
        let body = whole.get(HEADER..)?;
        let half = |at: usize| u16::from_ne_bytes([whole[at], whole[at + 1]]);
        let sequence = u32::from_ne_bytes([whole[8], whole[9], whole[10], whole[11]]);
        let message = Message { kind: half(4), flags: half(6), sequence, body };
        self.bytes = self.bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    }
}

/// The attributes behind a header of this length; ends at the first that is not whole.
pub(super) fn attributes(body: &[u8], header: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body.get(header.next_multiple_of(4)..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let kind = u16::from_ne_bytes([*rest.get(2)?, *rest.get(3)?]);
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & KIND, value))
    })
}

/// One attribute.
pub(super) fn attribute(body: &[u8], header: usize, kind: u16) -> Option<&[u8]> {
    attributes(body, header).find_map(|(found, value)| (found == kind).then_some(value))
}

/// A text without its NUL.
pub(super) fn as_text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_together_comes_apart_again() {
        let mut messages = Messages::default();
        messages.add(7, ACK, &[1, 2, 3], |all| {
            all.text(1, "eth0");
            all.nest(2, |inner| inner.number(5, 0x0102_0304));
        });
        messages.add(8, 0, &[], |_| {});
        assert_eq!(messages.bytes.len() % 4, 0);
        let all: Vec<_> = Each { bytes: &messages.bytes }.collect();
        assert_eq!((all.len(), all[0].kind, all[1].kind, all[1].sequence), (2, 7, 8, 2));
        assert_eq!(as_text(attribute(all[0].body, 3, 1).expect("text")), "eth0");
        let nested = attribute(all[0].body, 3, 2).expect("nest");
        assert_eq!(attribute(nested, 0, 5), Some(&[1, 2, 3, 4][..]));
    }

    proptest::proptest! {
        #[test]
        fn no_answer_makes_it_panic_or_hang(bytes: Vec<u8>) {
            let seen = Each { bytes: &bytes }.count() + attributes(&bytes, 4).count();
            proptest::prop_assert!(seen <= bytes.len() + 2);
        }
    }
}
