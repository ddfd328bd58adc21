//! The programs that see processes begin, change and end.

use holdfast_common::abi::{Field, Kind};

use super::Program;
use super::attach::Attach;

pub(super) static PROGRAMS: [Program; 3] = [
    Program {
        kinds: &[Kind::Exec],
        function: "process_exec",
        attach: Attach::RawTracepoint("sched_process_exec"),
        needs: &[Field::TaskTgid, Field::TaskLeader, Field::TaskStart],
        wants: &[
            Field::TaskCred,
            Field::CredUid,
            Field::CredEuid,
            Field::TaskComm,
            Field::TaskLoginUid,
            Field::TaskParent,
            Field::TaskMm,
            Field::MmArgStart,
            Field::MmArgEnd,
            Field::MmExeFile,
            Field::FileMount,
            Field::FileDentry,
            Field::DentryParent,
            Field::DentryName,
            Field::DentryHash,
            Field::MountParent,
            Field::MountPoint,
            Field::MountMnt,
            Field::VfsmountRoot,
        ],
    },
    Program {
        kinds: &[Kind::Fork],
        function: "process_fork",
        attach: Attach::RawTracepoint("sched_process_fork"),
        needs: &[Field::TaskTgid, Field::TaskLeader, Field::TaskStart],
        wants: &[Field::TaskPid, Field::TaskParent],
    },
    Program {
        kinds: &[Kind::Exit],
        function: "process_exit",
        attach: Attach::RawTracepoint("sched_process_exit"),
        needs: &[
            Field::TaskTgid,
            Field::TaskLeader,
            Field::TaskStart,
            Field::TaskSignal,
            Field::SignalLive,
        ],
        wants: &[],
    },
];
