//! Records that cross from the eBPF programs to the agent, `repr(C)` and `no_std`.
//!
//! Invariant: no implicit padding, so that a record can be read from any aligned byte slice.
//! Also the list of kernel fields whose offsets the agent finds at load time. Both sides are
//! built from this one file; the object's stamp covers it.

/// Longest part of an argument vector that an exec record carries, in bytes.
pub const ARGS_MAX: usize = 8192;
/// Longest executable path that an exec record carries, in bytes.
pub const PATH_MAX: usize = 2048;
/// Deepest executable path that an exec record carries, in components.
pub const PATH_DEPTH: usize = 48;
/// `TASK_COMM_LEN`.
pub const COMM_LEN: usize = 16;
/// Bytes of the ring buffer for exec, fork and exit.
pub const PROCESS_RING: u32 = 4 << 20;
/// Bytes of the ring buffer for sockets.
pub const NETWORK_RING: u32 = 512 << 10;
/// Value in the offset table for "this kernel does not have it".
pub const ABSENT: u32 = u32::MAX;

macro_rules! kinds {
    ($($(#[$about:meta])* $name:ident = $title:literal,)*) => {
        /// What a record is, and the row of the counters that it is counted in.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Kind { $($(#[$about])* $name),* }

        impl Kind {
            /// All of them, each at its number.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// What is seen, for people.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title),* }
            }

            /// The kind of this number.
            #[must_use]
            pub fn from_number(number: u32) -> Option<Self> {
                Self::ALL.get(number as usize).copied()
            }
        }
    };
}

kinds! {
    /// [`ExecRecord`] and its data.
    Exec = "exec",
    /// [`ForkRecord`]
    Fork = "fork",
    /// [`ExitRecord`]
    Exit = "exit",
    /// [`SocketRecord`]
    Socket = "packet and raw sockets",
    /// [`CapabilityRecord`]
    Capability = "use of CAP_NET_RAW",
}

/// Number of [`Kind`]s.
pub const KINDS: usize = Kind::ALL.len();

/// Per-CPU counters of one [`Kind`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// Records made.
    pub generated: u64,
    /// Records that found no place in their ring buffer.
    pub lost: u64,
}

/// First bytes of every record: who it is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Head {
    /// [`Kind`]
    pub kind: u32,
    /// Thread-group id in the initial pid namespace.
    pub pid: u32,
    /// `start_boottime` of the group's leader, ns; 0 when unknown.
    pub start_ns: u64,
    /// Real user id.
    pub uid: u32,
    /// Effective user id.
    pub euid: u32,
    /// The group's name.
    pub comm: [u8; COMM_LEN],
}

/// A program started. The path's components follow (leaf first, each ended by NUL), then
/// `args_len` bytes of the argument vector.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ExecRecord {
    /// Who.
    pub head: Head,
    /// `start_boottime` of the parent, ns.
    pub parent_start_ns: u64,
    /// The parent's thread-group id, 0 when unknown.
    pub parent: u32,
    /// Login user id, `u32::MAX` when unset.
    pub login_uid: u32,
    /// Bytes of path components behind the record.
    pub path_len: u32,
    /// Bytes of arguments behind the path.
    pub args_len: u32,
    /// Bytes that the whole argument vector has.
    pub args_total: u32,
    /// Bits of [`flags`].
    pub flags: u32,
}

/// A process was made. `head` is the child.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ForkRecord {
    /// The child.
    pub head: Head,
    /// `start_boottime` of its parent, ns.
    pub parent_start_ns: u64,
    /// Its parent's thread-group id.
    pub parent: u32,
    /// 0
    pub reserved: u32,
}

/// The last thread of a process ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ExitRecord {
    /// Who.
    pub head: Head,
}

/// A process was found to have `CAP_NET_RAW`: it is about to make such a socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CapabilityRecord {
    /// Who.
    pub head: Head,
}

/// A packet or raw socket was made or set up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SocketRecord {
    /// Who.
    pub head: Head,
    /// Inode number of the socket, 0 when unknown.
    pub inode: u64,
    /// One of [`action`].
    pub action: u32,
    /// Address family.
    pub family: u32,
    /// Socket type.
    pub socket_type: u32,
    /// Protocol in host order.
    pub protocol: u32,
    /// Interface index, 0 for all.
    pub interface: u32,
    /// 0
    pub reserved: u32,
}

/// Bits of [`ExecRecord::flags`].
pub mod flags {
    /// The path was longer or deeper than the limits.
    pub const PATH_TRUNCATED: u32 = 1;
    /// The arguments could not be read although the process has some.
    pub const ARGS_UNREADABLE: u32 = 2;
    /// The file has no name any more, or never had one (memfd).
    pub const PATH_DELETED: u32 = 4;
}

/// Values of [`SocketRecord::action`].
pub mod action {
    /// `socket()`
    pub const SOCKET: u32 = 0;
    /// `bind()`
    pub const BIND: u32 = 1;
    /// `PACKET_ADD_MEMBERSHIP` with `PACKET_MR_PROMISC`
    pub const PROMISCUOUS: u32 = 2;
    /// `PACKET_RX_RING`
    pub const RING: u32 = 3;
}

macro_rules! fields {
    ($($name:ident = $structure:literal . $member:literal : $size:literal;)*) => {
        /// A kernel field that the eBPF programs read; its number is its place in the offset
        /// table. Members of anonymous structs and unions count as their holder's.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(usize)]
        #[allow(missing_docs, reason = "each variant is named after the field it stands for")]
        pub enum Field { $($name),* }

        /// The field, its structure, its path inside, its size in bytes (0: any).
        pub const FIELDS: &[(Field, &str, &str, u32)] =
            &[$((Field::$name, $structure, $member, $size)),*];
    };
}

fields! {
    TaskTgid = "task_struct"."tgid": 4;
    TaskPid = "task_struct"."pid": 4;
    TaskLeader = "task_struct"."group_leader": 8;
    TaskParent = "task_struct"."real_parent": 8;
    TaskStart = "task_struct"."start_boottime": 8;
    TaskComm = "task_struct"."comm": 16;
    TaskCred = "task_struct"."cred": 8;
    TaskLoginUid = "task_struct"."loginuid": 4;
    TaskMm = "task_struct"."mm": 8;
    TaskFiles = "task_struct"."files": 8;
    TaskSignal = "task_struct"."signal": 8;
    TaskStatus = "task_struct"."thread_info.status": 4;
    CredUid = "cred"."uid": 4;
    CredEuid = "cred"."euid": 4;
    SignalLive = "signal_struct"."live": 4;
    MmArgStart = "mm_struct"."arg_start": 8;
    MmArgEnd = "mm_struct"."arg_end": 8;
    MmExeFile = "mm_struct"."exe_file": 8;
    FileMount = "file"."f_path.mnt": 8;
    FileDentry = "file"."f_path.dentry": 8;
    FileInode = "file"."f_inode": 8;
    FilePrivate = "file"."private_data": 8;
    DentryParent = "dentry"."d_parent": 8;
    DentryHash = "dentry"."d_hash.pprev": 8;
    DentryName = "dentry"."d_name.name": 8;
    MountParent = "mount"."mnt_parent": 8;
    MountPoint = "mount"."mnt_mountpoint": 8;
    MountMnt = "mount"."mnt": 0;
    VfsmountRoot = "vfsmount"."mnt_root": 8;
    FilesFdt = "files_struct"."fdt": 8;
    FdtableMax = "fdtable"."max_fds": 4;
    FdtableFd = "fdtable"."fd": 8;
    InodeSuper = "inode"."i_sb": 8;
    InodeNumber = "inode"."i_ino": 8;
    SuperMagic = "super_block"."s_magic": 8;
    SocketSock = "socket"."sk": 8;
    SocketType = "socket"."type": 2;
    SockFamily = "sock"."__sk_common.skc_family": 2;
    SockProtocol = "sock"."sk_protocol": 2;
    PacketNum = "packet_sock"."num": 2;
    PacketInterface = "packet_sock"."ifindex": 4;
    PacketMemberships = "packet_sock"."mclist": 8;
    MembershipType = "packet_mclist"."type": 2;
    MembershipInterface = "packet_mclist"."ifindex": 4;
}

/// Length of the offset table.
pub const FIELD_COUNT: usize = FIELDS.len();
