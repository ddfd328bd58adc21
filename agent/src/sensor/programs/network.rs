//! The programs that see the network used.

use holdfast_common::abi::{Field, Kind};

use super::attach::Attach;
use super::{Program, Role};

pub(super) static PROGRAMS: [Program; 2] = [
    Program {
        kinds: &[Kind::Capability],
        function: "network_capability",
        attach: Attach::RawTracepoint("cap_capable"),
        role: Role::Main,
        needs: &[Field::TaskTgid, Field::TaskLeader, Field::TaskStart],
        wants: &[],
    },
    Program {
        kinds: &[Kind::Socket],
        function: "network_sockets",
        attach: Attach::RawTracepoint("sys_exit"),
        role: Role::Main,
        needs: &[
            Field::TaskTgid,
            Field::TaskLeader,
            Field::TaskStart,
            Field::TaskFiles,
            Field::FilesFdt,
            Field::FdtableMax,
            Field::FdtableFd,
            Field::FileInode,
            Field::FilePrivate,
            Field::InodeSuper,
            Field::SuperMagic,
            Field::SocketSock,
            Field::SocketType,
            Field::SockFamily,
        ],
        wants: &[
            Field::TaskCred,
            Field::CredUid,
            Field::CredEuid,
            Field::TaskComm,
            Field::TaskStatus,
            Field::InodeNumber,
            Field::SockProtocol,
            Field::PacketNum,
            Field::PacketInterface,
            Field::PacketMemberships,
            Field::MembershipType,
            Field::MembershipInterface,
        ],
    },
];
