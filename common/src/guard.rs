//! What the self-protection programs and the agent share, `repr(C)` and `no_std`.
//!
//! Invariant: no implicit padding, since map keys are compared byte by byte and records are read
//! by position. Both sides are built from this one file; the object's stamp covers it.

/// Bytes of the ring buffer for denials.
pub const RING: u32 = 256 << 10;
/// Most files, folders and package managers that are known.
pub const MOST_FILES: u32 = 1024;
/// Most maps and links that are known.
pub const MOST_OBJECTS: u32 = 1024;
/// How many folders up a file is looked for below a protected one.
pub const DEPTH: u32 = 12;
/// Length of a file's name in a record; longer ones are cut.
pub const NAME: usize = 64;
/// Value in the offset table for "this kernel does not have it".
pub const ABSENT: u32 = u32::MAX;
/// Bits of a mark below its label.
pub const CLASS_BITS: u32 = 8;

/// What an inode that the agent shows to the programs is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Class {
    /// Nothing is shown.
    None = 0,
    /// A file of the agent.
    File = 1,
    /// A folder of the agent: everything in it, up to [`DEPTH`] below.
    Folder = 2,
    /// A folder above one of those: it must not be renamed or removed.
    Above = 3,
    /// The executable of a package manager.
    Upgrader = 4,
    /// Nothing of the file: the opener is the agent.
    Agent = 5,
}

/// A file, as the hooks see it: not always as stat(2) does (btrfs, overlays).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FileKey {
    /// `i_ino`
    pub inode: u64,
    /// `s_dev` of its super block.
    pub device: u32,
    /// `i_generation`: another one when the number is used again.
    pub generation: u32,
}

/// Which eBPF object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ObjectKey {
    /// One of [`object`].
    pub kind: u32,
    /// The kernel's id.
    pub id: u32,
}

/// Values of [`ObjectKey::kind`].
pub mod object {
    /// A map.
    pub const MAP: u32 = 1;
    /// A link.
    pub const LINK: u32 = 2;
}

/// What the agent tells the programs. One element.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Settings {
    /// The thread that shows files: process id in the upper half, thread id in the lower.
    pub teacher: u64,
    /// The agent's process id.
    pub agent: u32,
    /// What the teacher's opens are: a [`Class`], and above [`CLASS_BITS`] a label.
    pub lesson: u32,
}

/// What the programs note of the agent when it shows itself. One element.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Own {
    /// Address of its first task.
    pub task: u64,
    /// `start_boottime` of the process that started it.
    pub parent_start: u64,
    /// That process.
    pub parent: u32,
    /// How many lessons were taken.
    pub lessons: u32,
}

/// What was denied. The number is the row of the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Act {
    /// A signal; `detail` is its number.
    Signal = 0,
    /// A signal by way of a descriptor (`F_SETSIG`); `detail` is its number.
    DescriptorSignal = 1,
    /// Attaching, or reading or writing memory or descriptors.
    Ptrace = 2,
    /// A resource limit; `detail` is its number.
    Limits = 3,
    /// Priority, scheduler or processors.
    Scheduling = 4,
    /// A file in /proc was opened for writing.
    ProcessFile = 5,
    /// The agent's cgroup, or one above it, was to be changed.
    Cgroup = 6,
    /// Opened for writing.
    Write = 7,
    /// Made inside a folder.
    Create = 8,
    /// Removed.
    Unlink = 9,
    /// Renamed, or something else renamed over it.
    Rename = 10,
    /// A hard link.
    Link = 11,
    /// Mode, owner, size, times, extended attributes, flags.
    Attributes = 12,
    /// The file system that holds the pins was to be unmounted.
    Unmount = 13,
    /// An eBPF map or link; `detail` is the command, `target` the id.
    Bpf = 14,
}

/// All of them, by their number.
pub const ACTS: [Act; 15] = [
    Act::Signal,
    Act::DescriptorSignal,
    Act::Ptrace,
    Act::Limits,
    Act::Scheduling,
    Act::ProcessFile,
    Act::Cgroup,
    Act::Write,
    Act::Create,
    Act::Unlink,
    Act::Rename,
    Act::Link,
    Act::Attributes,
    Act::Unmount,
    Act::Bpf,
];

impl Act {
    /// As it stands in events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::DescriptorSignal => "descriptor_signal",
            Self::Ptrace => "ptrace",
            Self::Limits => "limits",
            Self::Scheduling => "scheduling",
            Self::ProcessFile => "process_file",
            Self::Cgroup => "cgroup",
            Self::Write => "write",
            Self::Create => "create",
            Self::Unlink => "unlink",
            Self::Rename => "rename",
            Self::Link => "link",
            Self::Attributes => "attributes",
            Self::Unmount => "unmount",
            Self::Bpf => "bpf",
        }
    }
}

/// Per-CPU counters of one [`Act`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Count {
    /// Denied.
    pub denied: u64,
    /// Of those, without a record: the ring buffer was full.
    pub lost: u64,
    /// Let through, since an exempt process did it.
    pub exempt: u64,
}

/// Something was denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Denial {
    /// `start_boottime` of the process, ns.
    pub start_ns: u64,
    /// The process; 0 when the kernel does not know it.
    pub pid: u32,
    /// Its real user.
    pub uid: u32,
    /// Its effective user.
    pub euid: u32,
    /// [`Act`]
    pub act: u32,
    /// As the act says.
    pub detail: u32,
    /// The process, or the object's id, that it was done to.
    pub target: u32,
    /// Of the file: class and label, as in [`Settings::lesson`].
    pub mark: u32,
    /// How far below the marked folder the file lies.
    pub depth: u32,
    /// The process's name.
    pub comm: [u8; 16],
    /// The file's last name, ended by NUL.
    pub name: [u8; NAME],
}

impl Denial {
    /// Reads a record as it lies in the ring buffer; `None` when it has another length.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != size_of::<Self>() {
            return None;
        }
        let word = |at: usize| -> Option<u32> {
            Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
        };
        Some(Self {
            start_ns: u64::from_ne_bytes(bytes.get(..8)?.try_into().ok()?),
            pid: word(8)?,
            uid: word(12)?,
            euid: word(16)?,
            act: word(20)?,
            detail: word(24)?,
            target: word(28)?,
            mark: word(32)?,
            depth: word(36)?,
            comm: bytes.get(40..56)?.try_into().ok()?,
            name: bytes.get(56..56 + NAME)?.try_into().ok()?,
        })
    }
}

crate::fields::fields! {
    TaskTgid = "task_struct"."tgid": 4;
    TaskLeader = "task_struct"."group_leader": 8;
    TaskParent = "task_struct"."real_parent": 8;
    TaskStart = "task_struct"."start_boottime": 8;
    TaskComm = "task_struct"."comm": 16;
    TaskCred = "task_struct"."cred": 8;
    TaskMm = "task_struct"."mm": 8;
    TaskFiles = "task_struct"."files": 8;
    TaskCgroups = "task_struct"."cgroups": 8;
    TaskPidLinks = "task_struct"."pid_links": 0;
    CredUid = "cred"."uid": 4;
    CredEuid = "cred"."euid": 4;
    MmExeFile = "mm_struct"."exe_file": 8;
    FilesFdt = "files_struct"."fdt": 8;
    FdtableMax = "fdtable"."max_fds": 4;
    FdtableFd = "fdtable"."fd": 8;
    FileMode = "file"."f_mode": 4;
    FileInode = "file"."f_inode": 8;
    FileDentry = "file"."f_path.dentry": 8;
    FilePrivate = "file"."private_data": 8;
    DentryParent = "dentry"."d_parent": 8;
    DentryInode = "dentry"."d_inode": 8;
    DentrySuper = "dentry"."d_sb": 8;
    DentryName = "dentry"."d_name.name": 8;
    InodeNumber = "inode"."i_ino": 8;
    InodeSuper = "inode"."i_sb": 8;
    InodeGeneration = "inode"."i_generation": 4;
    InodePrivate = "inode"."i_private": 8;
    SuperDevice = "super_block"."s_dev": 4;
    SuperMagic = "super_block"."s_magic": 8;
    VfsmountSuper = "vfsmount"."mnt_sb": 8;
    ProcPid = "proc_inode"."pid": 8;
    ProcInode = "proc_inode"."vfs_inode": 0;
    PidTasks = "pid"."tasks": 0;
    CssSetDefault = "css_set"."dfl_cgrp": 8;
    CgroupNode = "cgroup"."kn": 8;
    CgroupParent = "cgroup"."self.parent": 8;
    CssCgroup = "cgroup_subsys_state"."cgroup": 8;
    MapId = "bpf_map"."id": 4;
    LinkId = "bpf_link"."id": 4;
}

/// Length of the offset table.
pub const FIELD_COUNT: usize = FIELDS.len();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_no_padding() {
        assert_eq!(size_of::<Denial>(), 56 + NAME);
        assert_eq!(size_of::<FileKey>(), 16);
        assert_eq!(size_of::<Settings>(), 16);
        assert_eq!(size_of::<Own>(), 24);
    }

    #[test]
    fn each_act_and_field_stands_at_its_own_number() {
        assert!(ACTS.iter().enumerate().all(|(index, act)| *act as usize == index));
        assert!(FIELDS.iter().enumerate().all(|(index, (field, ..))| *field as usize == index));
    }

    #[test]
    fn a_record_of_another_length_is_refused() {
        assert_eq!(Denial::read(&[0; 55 + NAME]), None);
        let mut bytes = [0; 56 + NAME];
        bytes[8] = 7;
        bytes[56] = b'x';
        let denial = Denial::read(&bytes).expect("whole");
        assert_eq!((denial.pid, denial.name[0]), (7, b'x'));
    }
}
