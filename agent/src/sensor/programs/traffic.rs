//! The programs that see connections, listeners, datagrams and DNS.

use aya::programs::CgroupSkbAttachType;
use holdfast_common::abi::{Field, Kind};

use super::attach::Attach;
use super::{Program, Role};

const WHO: &[Field] = &[Field::TaskTgid, Field::TaskLeader, Field::TaskStart];
const WANTS: &[Field] = &[Field::TaskCred, Field::CredUid, Field::CredEuid, Field::TaskComm];

/// A hook of the root cgroup, which every socket of the host passes.
const fn hook(kinds: &'static [Kind], function: &'static str, attach: Attach) -> Program {
    Program { kinds, function, attach, role: Role::Main, needs: WHO, wants: WANTS }
}

const CONNECT: &[Kind] = &[Kind::Connect];
const SEND: &[Kind] = &[Kind::Send];
const BIND: &[Kind] = &[Kind::Bind];
const DNS: &[Kind] = &[Kind::Dns];

pub(super) static PROGRAMS: [Program; 9] = [
    hook(CONNECT, "traffic_connect4", Attach::CgroupSockAddr("connect4")),
    hook(CONNECT, "traffic_connect6", Attach::CgroupSockAddr("connect6")),
    hook(SEND, "traffic_sendmsg4", Attach::CgroupSockAddr("sendmsg4")),
    hook(SEND, "traffic_sendmsg6", Attach::CgroupSockAddr("sendmsg6")),
    hook(BIND, "traffic_bind4", Attach::CgroupSock("post_bind4")),
    hook(BIND, "traffic_bind6", Attach::CgroupSock("post_bind6")),
    hook(DNS, "traffic_packet_out", Attach::CgroupSkb(CgroupSkbAttachType::Egress)),
    hook(DNS, "traffic_packet_in", Attach::CgroupSkb(CgroupSkbAttachType::Ingress)),
    Program {
        kinds: &[Kind::Listen, Kind::Accept],
        function: "traffic_state",
        attach: Attach::RawTracepoint("inet_sock_set_state"),
        role: Role::Main,
        needs: &[
            Field::TaskTgid,
            Field::TaskLeader,
            Field::TaskStart,
            Field::SockFamily,
            Field::SockPort,
            Field::SockPeerPort,
            Field::SockAddress,
            Field::SockPeer,
        ],
        wants: &[Field::SockAddress6, Field::SockPeer6, Field::SockNet, Field::NetNumber],
    },
];
