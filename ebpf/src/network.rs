//! Packet and raw sockets: made, bound, made promiscuous, given a receive ring.
//!
//! One program on the way out of system calls, attached only while it is wanted where the kernel
//! tells (second program) that somebody uses `CAP_NET_RAW`. What is reported is the kernel's own
//! state of the socket behind the descriptor, not the caller's memory, which another thread may
//! change. Both call tables of x86-64 are known. Not seen here: sockets made through io_uring or
//! received from another process, which the agent's /proc poll finds.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use holdfast_common::abi::{CapabilityRecord, Field, Kind, SocketRecord, action};

use crate::calls::{X32_BIT, is_compat, regs};
use crate::kernel::{Address, at, current, field, file_of, has, head, user};
use crate::maps::send_network;

const SOCKFS_MAGIC: u64 = 0x534f_434b;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const AF_PACKET: u32 = 17;
const SOCK_RAW: u32 = 3;
const SOL_PACKET: u32 = 263;
const PACKET_ADD_MEMBERSHIP: u32 = 1;
const PACKET_RX_RING: u32 = 5;
const PACKET_MR_PROMISC: u32 = 1;
const AF_XDP: u32 = 44;
const CAP_NET_ADMIN: u64 = 12;
const CAP_NET_RAW: u64 = 13;

#[derive(Clone, Copy)]
enum Call {
    Socket,
    Bind(u32),
    SetOption { descriptor: u32, level: u32, name: u32, value: u64 },
}

/// `TP_PROTO(const struct cred *cred, struct user_namespace *target_ns,
/// const struct user_namespace *capable_ns, int cap, int ret)`, from 6.14 on.
///
/// Tells the agent to attach the program below, which costs every system call of the host, and who
/// may have changed an interface.
#[raw_tracepoint(tracepoint = "cap_capable")]
pub fn network_capability(context: RawTracePointContext) -> i32 {
    let capability: u64 = context.arg(3);
    let refused: u64 = context.arg(4);
    let capability = capability & 0xffff_ffff;
    if matches!(capability, CAP_NET_RAW | CAP_NET_ADMIN) && refused & 0xffff_ffff == 0 {
        let head = head(Kind::Capability, current());
        let record = CapabilityRecord { head, capability: capability as u32, reserved: 0 };
        send_network(Kind::Capability, &record);
    }
    0
}

/// `TP_PROTO(struct pt_regs *regs, long ret)`
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn network_sockets(context: RawTracePointContext) -> i32 {
    let registers: Address = context.arg(0);
    let number: u64 = at(registers.wrapping_add(regs::ORIG_AX));
    // Every call of the system comes by: leave at once unless the number is one of ours.
    match number & !X32_BIT {
        41 | 49 | 54 | 541 | 102 | 359 | 361 | 366 => {}
        _ => return 0,
    }
    let returned: u64 = context.arg(1);
    if (returned as i64) < 0 {
        return 0;
    }
    let task = current();
    let call =
        if is_compat(task) { call_32(number, registers) } else { call_64(number, registers) };
    match call {
        None => {}
        Some(Call::Socket) => report(task, returned as u32, action::SOCKET, 0),
        Some(Call::Bind(descriptor)) => report(task, descriptor, action::BIND, 0),
        Some(Call::SetOption { level, .. }) if level != SOL_PACKET => {}
        Some(Call::SetOption { descriptor, name, value, .. }) => match name {
            PACKET_ADD_MEMBERSHIP => report(task, descriptor, action::PROMISCUOUS, value),
            PACKET_RX_RING => report(task, descriptor, action::RING, 0),
            _ => {}
        },
    }
    0
}

#[inline(always)]
fn register(registers: Address, which: u64) -> u64 {
    at(registers.wrapping_add(which))
}

#[inline(always)]
fn call_64(number: u64, registers: Address) -> Option<Call> {
    match number & !X32_BIT {
        41 => Some(Call::Socket),
        49 => Some(Call::Bind(register(registers, regs::DI) as u32)),
        54 | 541 => Some(Call::SetOption {
            descriptor: register(registers, regs::DI) as u32,
            level: register(registers, regs::SI) as u32,
            name: register(registers, regs::DX) as u32,
            value: register(registers, regs::R10),
        }),
        _ => None,
    }
}

/// The 32-bit table, with `socketcall(call, args)`.
#[inline(always)]
fn call_32(number: u64, registers: Address) -> Option<Call> {
    let first = register(registers, regs::BX) as u32;
    let second = register(registers, regs::CX) as u32;
    match number {
        359 => Some(Call::Socket),
        361 => Some(Call::Bind(first)),
        366 => Some(Call::SetOption {
            descriptor: first,
            level: second,
            name: register(registers, regs::DX) as u32,
            value: register(registers, regs::SI) as u32 as u64,
        }),
        102 => {
            let [descriptor, level, name, value]: [u32; 4] = user(u64::from(second))?;
            match first {
                1 => Some(Call::Socket),
                2 => Some(Call::Bind(descriptor)),
                14 => Some(Call::SetOption { descriptor, level, name, value: u64::from(value) }),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Reports what is behind the descriptor, when it is a packet or raw socket. `request` is the
/// user's `struct packet_mreq` for a membership.
#[inline(always)]
fn report(task: Address, descriptor: u32, action: u32, request: u64) {
    let Some((socket, inode)) = socket(task, descriptor) else { return };
    let sock: Address = field(socket, Field::SocketSock);
    let family = u32::from(field::<u16>(sock, Field::SockFamily));
    let socket_type = u32::from(field::<u16>(socket, Field::SocketType));
    let (protocol, mut interface) = match family {
        AF_PACKET => {
            let number: u16 = field(sock, Field::PacketNum);
            (u32::from(u16::from_be(number)), field(sock, Field::PacketInterface))
        }
        AF_INET | AF_INET6 if socket_type == SOCK_RAW => {
            (u32::from(field::<u16>(sock, Field::SockProtocol)), 0)
        }
        AF_XDP => (0, 0),
        _ => return,
    };
    if action == action::PROMISCUOUS {
        match membership(sock, request) {
            Some((PACKET_MR_PROMISC, member)) => interface = member,
            _ => return,
        }
    }
    let head = head(Kind::Socket, task);
    let record =
        SocketRecord { head, inode, action, family, socket_type, protocol, interface, reserved: 0 };
    send_network(Kind::Socket, &record);
}

/// Type and interface of the newest membership; of the request where the kernel's list is not
/// known.
#[inline(always)]
fn membership(sock: Address, request: u64) -> Option<(u32, u32)> {
    if has(Field::PacketMemberships) && has(Field::MembershipType) {
        let newest: Address = field(sock, Field::PacketMemberships);
        let kind: u16 = field(newest, Field::MembershipType);
        return Some((u32::from(kind), field(newest, Field::MembershipInterface)));
    }
    let [interface, kind]: [u32; 2] = user(request)?;
    Some((kind & 0xffff, interface))
}

/// The `struct socket` behind a descriptor, and its inode number.
#[inline(always)]
fn socket(task: Address, descriptor: u32) -> Option<(Address, u64)> {
    let file = file_of(task, descriptor);
    let inode: Address = field(file, Field::FileInode);
    let super_block: Address = field(inode, Field::InodeSuper);
    if field::<u64>(super_block, Field::SuperMagic) != SOCKFS_MAGIC {
        return None;
    }
    Some((field(file, Field::FilePrivate), field(inode, Field::InodeNumber)))
}
