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
/// Longest environment variable (name, `=`, value and NUL) that an exec record carries, in bytes.
pub const VARIABLE_MAX: usize = 1024;
/// Environment variables that are looked at; a longer one counts once for each
/// [`VARIABLE_MAX`] bytes.
pub const VARIABLES: usize = 256;
/// Deepest control group path that an exec record carries, in components.
pub const CGROUP_DEPTH: usize = 12;
/// Longest text of an activity record, in bytes with its NUL.
pub const TEXT_MAX: usize = 256;
/// A woken reader is not woken again by this CPU for this long, in ns: exec.
pub const WAKE_EXEC_NS: u64 = 5_000_000;
/// The same for fork and exit, for which nobody waits.
pub const WAKE_OTHER_NS: u64 = 100_000_000;
/// Bytes of the ring buffer for exec, fork and exit.
pub const PROCESS_RING: u32 = 4 << 20;
/// Bytes of the ring buffer for sockets.
pub const NETWORK_RING: u32 = 512 << 10;
/// Bytes of the ring buffer for what processes do beside.
pub const ACTIVITY_RING: u32 = 256 << 10;
/// Bytes of the ring buffer for connections and DNS: a storm of those costs no other record.
pub const TRAFFIC_RING: u32 = 1 << 20;
/// Longest part of a DNS message that a record carries, in bytes.
pub const DNS_MAX: usize = 511;
/// Peers of UDP that are remembered, sockets whose owner is, and listeners.
pub const TRAFFIC_MEMORY: u32 = 8192;
/// Value in the offset table for "this kernel does not have it".
pub const ABSENT: u32 = u32::MAX;

macro_rules! kinds {
    ($($(#[$about:meta])* $name:ident = $title:literal,)*) => {
        /// What a record is, and the row of the counters that it is counted in.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
    /// [`ConnectionRecord`]
    Connect = "connections made",
    /// [`ConnectionRecord`]
    Accept = "connections accepted",
    /// [`ConnectionRecord`]
    Bind = "binds",
    /// [`ConnectionRecord`]
    Listen = "listens",
    /// [`ConnectionRecord`]
    Send = "UDP to new peers",
    /// [`DnsRecord`]
    Dns = "DNS by UDP",
    /// [`ActivityRecord`]: user ids changed.
    Credentials = "credentials",
    /// [`ActivityRecord`]: another process was attached to, or its memory opened or read.
    Ptrace = "ptrace",
    /// [`ActivityRecord`]: another process's memory was written.
    MemoryWrite = "writes to other processes' memory",
    /// [`ActivityRecord`]: the agent or a worker got a signal.
    Signal = "signals to the agent",
    /// [`ActivityRecord`]: a kernel module was loaded.
    ModuleLoad = "kernel modules",
    /// [`ActivityRecord`]: an eBPF program was loaded.
    BpfLoad = "eBPF programs",
    /// [`ActivityRecord`]: `memfd_create`.
    Memfd = "memfd",
    /// [`ActivityRecord`]: mounts.
    Mount = "mounts",
    /// [`ActivityRecord`]: `setns`, `unshare`.
    Namespaces = "setns and unshare",
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

/// A program started. Behind the record, each as long as its `_len` says: the components of the
/// executable's path, of the working directory and of the control group (leaf first, each ended
/// by NUL), the script, the watched environment variables, the argument vector.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ExecRecord {
    /// Who.
    pub head: Head,
    /// `start_boottime` of the parent, ns.
    pub parent_start_ns: u64,
    /// Inode of the executable.
    pub inode: u64,
    /// Its size, bytes.
    pub size: u64,
    /// Its status change, seconds since the epoch.
    pub changed_s: u64,
    /// Number of the control group in the v2 hierarchy.
    pub cgroup_id: u64,
    /// Names the set of control groups of all hierarchies, as long as it lives.
    pub cgroup_set: u64,
    /// Status change, the nanoseconds.
    pub changed_ns: u32,
    /// Its device, as the kernel packs it: 12 bits major, 20 bits minor.
    pub device: u32,
    /// The parent's thread-group id, 0 when unknown.
    pub parent: u32,
    /// Login user id, `u32::MAX` when unset.
    pub login_uid: u32,
    /// Session id, 0 when unknown.
    pub session: u32,
    /// Bits of [`flags`].
    pub flags: u32,
    /// Name of the controlling terminal, ended by NUL.
    pub terminal: [u8; 16],
    /// Bytes of the executable's components.
    pub path_len: u32,
    /// Bytes of the working directory's components.
    pub cwd_len: u32,
    /// Bytes of the control group's components.
    pub cgroup_len: u32,
    /// Bytes of the script's path as the caller named it.
    pub script_len: u32,
    /// Bytes of environment variables.
    pub environment_len: u32,
    /// Bytes of arguments.
    pub args_len: u32,
    /// Bytes that the whole argument vector has.
    pub args_total: u32,
    /// 0
    pub reserved: u32,
}

/// A process was made. `head` is the child.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ForkRecord {
    /// The child.
    pub head: Head,
    /// `start_boottime` of its parent, ns.
    pub parent_start_ns: u64,
    /// Flags of `clone`.
    pub clone_flags: u64,
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
    /// As `wait` reports it: signal in the low 7 bits, exit status in bits 8 to 15.
    pub code: u32,
    /// 0
    pub reserved: u32,
}

/// Something that a process did beside; which of the fields mean what depends on the kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct ActivityRecord {
    /// Who.
    pub head: Head,
    /// One of [`call`].
    pub call: u32,
    /// 1 when it was only tried: the record was made before the kernel decided.
    pub attempt: u32,
    /// Flags, requests, user ids.
    pub values: [u64; 4],
    /// `start_boottime` of the other process, ns; 0 when unknown.
    pub target_start_ns: u64,
    /// The other process, 0 for none or unknown.
    pub target: u32,
    /// Bytes of the path's components behind the record (leaf first, each ended by NUL).
    pub path_len: u32,
    /// Names, each ended by NUL.
    pub texts: [[u8; TEXT_MAX]; 3],
}

/// Values of [`ActivityRecord::call`], and what `values` holds.
pub mod call {
    /// `ptrace`: the request; the machine's number.
    pub const PTRACE: u32 = 1;
    /// Memory of another process read: `process_vm_readv`.
    pub const MEMORY_READ: u32 = 2;
    /// `process_vm_writev`
    pub const MEMORY_WRITE: u32 = 3;
    /// `/proc/PID/mem` opened.
    pub const MEMORY_OPEN: u32 = 4;
    /// `/proc/PID/mem` written.
    pub const MEMORY_FILE: u32 = 5;
    /// Another way to attach; the system call's number.
    pub const ATTACH: u32 = 6;
    /// `setuid`: uid, euid wanted (attempt: the argument), uid, euid before.
    pub const SETUID: u32 = 10;
    /// `setreuid`
    pub const SETREUID: u32 = 11;
    /// `setresuid`
    pub const SETRESUID: u32 = 12;
    /// `setfsuid`
    pub const SETFSUID: u32 = 13;
    /// A signal: its number.
    pub const SIGNAL: u32 = 20;
    /// A module: its taints.
    pub const MODULE: u32 = 21;
    /// `bpf(BPF_PROG_LOAD)`: the program type.
    pub const BPF_LOAD: u32 = 22;
    /// `memfd_create`
    pub const MEMFD: u32 = 23;
    /// `mount`: its flags. Texts: source, target (attempts), type.
    pub const MOUNT: u32 = 30;
    /// `move_mount`
    pub const MOVE_MOUNT: u32 = 31;
    /// `umount`: its flags.
    pub const UMOUNT: u32 = 32;
    /// `fsmount`
    pub const FSMOUNT: u32 = 33;
    /// `open_tree`: its flags.
    pub const OPEN_TREE: u32 = 34;
    /// `pivot_root`
    pub const PIVOT_ROOT: u32 = 35;
    /// `unshare`: its flags.
    pub const UNSHARE: u32 = 40;
    /// `setns`: its flags. Text: the kind of namespace.
    pub const SETNS: u32 = 41;
}

/// A process was found to have a capability: `CAP_NET_RAW` (13), about to make such a socket, or
/// `CAP_NET_ADMIN` (12), about to change an interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CapabilityRecord {
    /// Who.
    pub head: Head,
    /// Which.
    pub capability: u32,
    /// 0
    pub reserved: u32,
}

/// A socket of the internet families was used. Addresses are in network order, those of IPv4 in
/// the first four bytes; ports in host order. What is not known is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ConnectionRecord {
    /// Who; for accepted ones who began to listen, with pid 0 when that was not seen.
    pub head: Head,
    /// This host's address.
    pub local: [u8; 16],
    /// The other side's.
    pub remote: [u8; 16],
    /// This host's port.
    pub local_port: u16,
    /// The other side's.
    pub remote_port: u16,
    /// Address family of the addresses, 2 or 10.
    pub family: u16,
    /// 6, 17 …
    pub protocol: u16,
    /// Number of the network namespace, 0 when unknown.
    pub namespace: u32,
    /// 0
    pub reserved: u32,
}

/// A DNS message left or came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct DnsRecord {
    /// Who and with whom; pid 0 when the socket's owner is not known.
    pub connection: ConnectionRecord,
    /// Bytes that the message has.
    pub total: u32,
    /// Bytes of it in `message`.
    pub length: u16,
    /// 1 for one that came.
    pub incoming: u16,
    /// Its beginning, and a byte that is not used.
    pub message: [u8; DNS_MAX + 1],
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

/// Bits of [`ExecRecord::flags`] and of the flags of a path.
pub mod flags {
    /// The path was longer or deeper than the limits.
    pub const PATH_TRUNCATED: u32 = 1;
    /// The arguments could not be read although the process has some.
    pub const ARGS_UNREADABLE: u32 = 2;
    /// The file has no name any more, or never had one (memfd).
    pub const PATH_DELETED: u32 = 4;
    /// The working directory was longer or deeper than the limits.
    pub const CWD_TRUNCATED: u32 = 8;
    /// The working directory was removed.
    pub const CWD_DELETED: u32 = 16;
    /// Not every environment variable was looked at.
    pub const ENVIRONMENT_TRUNCATED: u32 = 32;
    /// The control group was longer or deeper than the limits.
    pub const CGROUP_TRUNCATED: u32 = 64;
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

crate::fields::fields! {
    SockPort = "sock"."__sk_common.skc_num": 2;
    SockPeerPort = "sock"."__sk_common.skc_dport": 2;
    SockAddress = "sock"."__sk_common.skc_rcv_saddr": 4;
    SockPeer = "sock"."__sk_common.skc_daddr": 4;
    SockAddress6 = "sock"."__sk_common.skc_v6_rcv_saddr": 16;
    SockPeer6 = "sock"."__sk_common.skc_v6_daddr": 16;
    SockNet = "sock"."__sk_common.skc_net.net": 8;
    NetNumber = "net"."ns.inum": 4;
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
    TaskFs = "task_struct"."fs": 8;
    TaskCgroups = "task_struct"."cgroups": 8;
    TaskThreadPid = "task_struct"."thread_pid": 8;
    TaskExitCode = "task_struct"."exit_code": 4;
    CredUid = "cred"."uid": 4;
    CredEuid = "cred"."euid": 4;
    SignalLive = "signal_struct"."live": 4;
    SignalExitCode = "signal_struct"."group_exit_code": 4;
    SignalPids = "signal_struct"."pids": 32;
    SignalTty = "signal_struct"."tty": 8;
    TtyName = "tty_struct"."name": 64;
    PidNumbers = "pid"."numbers": 0;
    PidLevel = "pid"."level": 4;
    FsPwdMount = "fs_struct"."pwd.mnt": 8;
    FsPwdDentry = "fs_struct"."pwd.dentry": 8;
    CssSetDefault = "css_set"."dfl_cgrp": 8;
    CgroupNode = "cgroup"."kn": 8;
    NodeParent = "kernfs_node"."__parent|parent": 8;
    NodeName = "kernfs_node"."name": 8;
    NodeId = "kernfs_node"."id": 8;
    BinprmFilename = "linux_binprm"."filename": 8;
    BinprmInterp = "linux_binprm"."interp": 8;
    MmEnvStart = "mm_struct"."env_start": 8;
    MmEnvEnd = "mm_struct"."env_end": 8;
    MmOwner = "mm_struct"."owner": 8;
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
    InodeSize = "inode"."i_size": 8;
    InodeChanged = "inode"."i_ctime_sec|__i_ctime.tv_sec|i_ctime.tv_sec": 8;
    InodeChangedNs = "inode"."i_ctime_nsec|__i_ctime.tv_nsec|i_ctime.tv_nsec": 0;
    InodePrivate = "inode"."i_private": 8;
    SuperDevice = "super_block"."s_dev": 4;
    SuperType = "super_block"."s_type": 8;
    TypeName = "file_system_type"."name": 8;
    VfsmountSuper = "vfsmount"."mnt_sb": 8;
    MountSource = "mount"."mnt_devname": 8;
    PathMount = "path"."mnt": 8;
    PathDentry = "path"."dentry": 8;
    ModuleName = "module"."name": 56;
    ModuleTaints = "module"."taints": 8;
    NamespaceOps = "ns_common"."ops": 8;
    NamespaceName = "proc_ns_operations"."name": 8;
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
