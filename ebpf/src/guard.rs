//! Self-protection: denies to everybody but the agent, process 1 and the package managers what
//! would stop the agent, look into it or change what is its own.
//!
//! An object of its own, since kernels without BPF LSM refuse it. INVARIANT: whatever does not
//! concern the agent is let through after a few reads, and nothing that cannot be read is denied.
//! Kernel memory is read with `bpf_probe_read_kernel` at offsets from the agent's table; so are
//! the hooks' arguments, whose number differs between kernels.
//!
//! Files are known by what the agent shows: while its teacher thread opens one, `guard_file_open`
//! notes the inode as the hooks see it, in all the layers that the open goes through.
#![no_std]
#![no_main]

mod end;
mod read;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{
    bpf_get_current_pid_tgid, bpf_get_current_task, bpf_probe_read_kernel_str,
};
use aya_ebpf::macros::{lsm, map};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, RingBuf};
use aya_ebpf::programs::LsmContext;
use holdfast_common::guard::{
    ABSENT, ACTS, Act, CLASS_BITS, Class, Count, DEPTH, Denial, FIELD_COUNT, Field, FileKey,
    MOST_FILES, MOST_OBJECTS, NAME, ObjectKey, Own, RING, Settings, object,
};

use crate::read::{Address, at};

#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

#[map]
static OWN: Array<Own> = Array::with_max_entries(1, 0);

/// Protected files: class and label.
#[map]
static FILES: HashMap<FileKey, u32> = HashMap::with_max_entries(MOST_FILES, 0);

/// Executables of package managers.
#[map]
static UPGRADERS: HashMap<FileKey, u32> = HashMap::with_max_entries(MOST_FILES, 0);

/// Devices that hold protected files: what is on others is not looked up.
#[map]
static DEVICES: HashMap<u32, u32> = HashMap::with_max_entries(MOST_FILES, 0);

/// The agent's maps and links.
#[map]
static OBJECTS: HashMap<ObjectKey, u32> = HashMap::with_max_entries(MOST_OBJECTS, 0);

#[map]
static DENIALS: RingBuf = RingBuf::with_byte_size(RING, 0);

#[map]
static COUNTS: PerCpuArray<Count> = PerCpuArray::with_max_entries(ACTS.len() as u32, 0);

/// Offsets of [`Field`]s, frozen before the programs are loaded.
#[unsafe(no_mangle)]
static GUARD_OFFSETS: [u32; FIELD_COUNT] = [ABSENT; FIELD_COUNT];

/// `-EPERM`
const DENIED: i32 = -1;
const SIGHUP: u32 = 1;
/// `PTRACE_MODE_ATTACH`
const ATTACH: u32 = 2;
/// `FMODE_WRITE`
const WRITE: u32 = 2;
/// linux/magic.h
const PROC: u64 = 0x9fa0;
const CGROUP2: u64 = 0x6367_7270;
const BPF_FS: u64 = 0xcafe_4a11;
/// `FS_IOC_SETFLAGS`, `FS_IOC32_SETFLAGS`, `FS_IOC_FSSETXATTR`
const SET_FLAGS: [u32; 3] = [0x4008_6602, 0x4004_6602, 0x401c_5820];
/// `enum bpf_cmd`
const LINK_UPDATE: u32 = 29;
const LINK_GET_FD_BY_ID: u32 = 30;
const LINK_DETACH: u32 = 34;
const MAP_FROM_FD: u32 = 14;
/// In [`DEVICES`]: a BPF file system with pins.
const HOLDS_PINS: u32 = 1;
/// Ancestors among which a package manager is looked for.
const ANCESTORS: u32 = 16;
/// cgroups above the agent's own.
const CGROUPS: u32 = 16;

/// The file that something is done to.
#[derive(Clone, Copy, Default)]
struct File {
    mark: u32,
    depth: u32,
    dentry: Address,
}

/// What is done.
#[derive(Clone, Copy)]
struct Deed {
    act: Act,
    detail: u32,
    target: u32,
    file: File,
}

impl Deed {
    const fn on(act: Act, detail: u32, target: u32) -> Self {
        Self { act, detail, target, file: File { mark: 0, depth: 0, dentry: 0 } }
    }
}

#[inline(always)]
fn offset(field: Field) -> u64 {
    // SAFETY: in bounds, as `Field` numbers the table; volatile, since the loader replaces it.
    unsafe { u64::from(core::ptr::read_volatile(GUARD_OFFSETS.as_ptr().add(field as usize))) }
}

/// Reads a field of the structure at `base`; zeros when `base` is no kernel address. The agent
/// loads no program whose fields are absent.
#[inline(always)]
fn field<T: Copy + Default>(base: Address, of: Field) -> T {
    at(base.wrapping_add(offset(of)))
}

/// The hook's argument, not looked at by the verifier.
#[inline(always)]
fn argument(context: &LsmContext, index: u64) -> u64 {
    at((context.as_ptr() as u64).wrapping_add(index * 8))
}

/// The hook's argument of 32 bits. Read as such, never cut out of 64: where those 32 are found to
/// be 0, the compiler returns the whole register instead of a 0, and a kernel that checks what a
/// hook returns (7.3 does) refuses the program, since it does not know the upper half.
#[inline(always)]
fn number(context: &LsmContext, index: u64) -> u32 {
    const LOW: u64 = if cfg!(target_endian = "big") { 4 } else { 0 };
    at((context.as_ptr() as u64).wrapping_add(index * 8 + LOW))
}

#[inline(always)]
fn settings() -> Option<Settings> {
    SETTINGS.get(0).copied().filter(|settings| settings.agent != 0)
}

#[inline(always)]
fn current_group() -> u32 {
    // SAFETY: takes nothing.
    (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32
}

#[inline(always)]
fn current_task() -> Address {
    // SAFETY: takes nothing.
    unsafe { bpf_get_current_task() }
}

/// `LSM_HOOK(int, 0, task_kill, struct task_struct *p, struct kernel_siginfo *info, int sig,
/// const struct cred *cred)`. The kernel's own signals do not come here. SIGHUP makes the agent
/// load its rules again, and harms nobody.
#[lsm(hook = "task_kill")]
pub fn guard_task_kill(context: LsmContext) -> i32 {
    let (task, signal) = (argument(&context, 0), number(&context, 2));
    if signal == 0 {
        return 0;
    }
    if signal == SIGHUP
        && let Some(settings) = settings()
        && field::<u32>(task, Field::TaskTgid) == settings.agent
    {
        return 0;
    }
    at_process(task, Act::Signal, signal)
}

/// `LSM_HOOK(int, 0, file_send_sigiotask, struct task_struct *tsk, struct fown_struct *fown,
/// int sig)`. Whoever runs now has often nothing to do with it, so that nobody is exempt; the
/// agent has no such descriptors.
#[lsm(hook = "file_send_sigiotask")]
pub fn guard_file_send_sigiotask(context: LsmContext) -> i32 {
    let Some(settings) = settings() else { return 0 };
    let task = argument(&context, 0);
    if !is_ours(&settings, task) {
        return 0;
    }
    let target = field(task, Field::TaskTgid);
    deny(&Deed::on(Act::DescriptorSignal, number(&context, 2), target))
}

/// `LSM_HOOK(int, 0, ptrace_access_check, struct task_struct *child, unsigned int mode)`
#[lsm(hook = "ptrace_access_check")]
pub fn guard_ptrace_access_check(context: LsmContext) -> i32 {
    if number(&context, 1) & ATTACH == 0 {
        return 0;
    }
    at_process(argument(&context, 0), Act::Ptrace, 0)
}

/// `LSM_HOOK(int, 0, task_setrlimit, struct task_struct *p, unsigned int resource,
/// struct rlimit *new_rlim)`. Not `task_prlimit`, which knows only the target's credentials.
#[lsm(hook = "task_setrlimit")]
pub fn guard_task_setrlimit(context: LsmContext) -> i32 {
    at_process(argument(&context, 0), Act::Limits, number(&context, 1))
}

/// `LSM_HOOK(int, 0, task_setscheduler, struct task_struct *p)`; processors too.
#[lsm(hook = "task_setscheduler")]
pub fn guard_task_setscheduler(context: LsmContext) -> i32 {
    at_process(argument(&context, 0), Act::Scheduling, 0)
}

/// `LSM_HOOK(int, 0, task_setnice, struct task_struct *p, int nice)`
#[lsm(hook = "task_setnice")]
pub fn guard_task_setnice(context: LsmContext) -> i32 {
    at_process(argument(&context, 0), Act::Scheduling, 0)
}

/// `LSM_HOOK(int, 0, file_open, struct file *file)`
#[lsm(hook = "file_open")]
pub fn guard_file_open(context: LsmContext) -> i32 {
    let Some(settings) = settings() else { return 0 };
    let file = argument(&context, 0);
    // SAFETY: takes nothing.
    let current = unsafe { bpf_get_current_pid_tgid() };
    if settings.lesson != 0 && current == settings.teacher {
        learn(settings.lesson, field(file, Field::FileInode));
        return 0;
    }
    if field::<u32>(file, Field::FileMode) & WRITE == 0 || (current >> 32) as u32 == settings.agent
    {
        return 0;
    }
    let inode: Address = field(file, Field::FileInode);
    let dentry: Address = field(file, Field::FileDentry);
    let magic: u64 = field(field(inode, Field::InodeSuper), Field::SuperMagic);
    if magic == PROC {
        return at_process_file(&settings, inode, dentry);
    }
    if magic == CGROUP2 {
        return at_cgroup_file(dentry);
    }
    at_file(dentry, Act::Write, 0)
}

/// `LSM_HOOK(int, 0, inode_create, struct inode *dir, struct dentry *dentry, umode_t mode)`
#[lsm(hook = "inode_create")]
pub fn guard_inode_create(context: LsmContext) -> i32 {
    at_name(argument(&context, 1), Act::Create)
}

/// `LSM_HOOK(int, 0, inode_mkdir, struct inode *dir, struct dentry *dentry, umode_t mode)`
#[lsm(hook = "inode_mkdir")]
pub fn guard_inode_mkdir(context: LsmContext) -> i32 {
    at_name(argument(&context, 1), Act::Create)
}

/// `LSM_HOOK(int, 0, inode_mknod, struct inode *dir, struct dentry *dentry, umode_t mode,
/// dev_t dev)`
#[lsm(hook = "inode_mknod")]
pub fn guard_inode_mknod(context: LsmContext) -> i32 {
    at_name(argument(&context, 1), Act::Create)
}

/// `LSM_HOOK(int, 0, inode_symlink, struct inode *dir, struct dentry *dentry, const char *old)`
#[lsm(hook = "inode_symlink")]
pub fn guard_inode_symlink(context: LsmContext) -> i32 {
    at_name(argument(&context, 1), Act::Create)
}

/// `LSM_HOOK(int, 0, inode_unlink, struct inode *dir, struct dentry *dentry)`
#[lsm(hook = "inode_unlink")]
pub fn guard_inode_unlink(context: LsmContext) -> i32 {
    at_name(argument(&context, 1), Act::Unlink)
}

/// `LSM_HOOK(int, 0, inode_rmdir, struct inode *dir, struct dentry *dentry)`
#[lsm(hook = "inode_rmdir")]
pub fn guard_inode_rmdir(context: LsmContext) -> i32 {
    at_name(argument(&context, 1), Act::Unlink)
}

/// `LSM_HOOK(int, 0, inode_rename, struct inode *old_dir, struct dentry *old_dentry,
/// struct inode *new_dir, struct dentry *new_dentry)`
#[lsm(hook = "inode_rename")]
pub fn guard_inode_rename(context: LsmContext) -> i32 {
    match at_name(argument(&context, 1), Act::Rename) {
        0 => at_name(argument(&context, 3), Act::Rename),
        denied => denied,
    }
}

/// `LSM_HOOK(int, 0, inode_link, struct dentry *old_dentry, struct inode *dir,
/// struct dentry *new_dentry)`
#[lsm(hook = "inode_link")]
pub fn guard_inode_link(context: LsmContext) -> i32 {
    match at_name(argument(&context, 0), Act::Link) {
        0 => at_name(argument(&context, 2), Act::Link),
        denied => denied,
    }
}

/// `LSM_HOOK(int, 0, inode_setattr, struct mnt_idmap *idmap, struct dentry *dentry,
/// struct iattr *attr)`, from 6.9 on. What an earlier program said stands at 3: where the hook
/// has two arguments the verifier refuses that, and the agent takes the next program.
#[lsm(hook = "inode_setattr")]
pub fn guard_inode_setattr(context: LsmContext) -> i32 {
    let earlier: i32 = context.arg(3);
    if earlier != 0 {
        return earlier;
    }
    at_name(argument(&context, 1), Act::Attributes)
}

/// `LSM_HOOK(int, 0, inode_setattr, struct dentry *dentry, struct iattr *attr)`, before 6.9.
#[lsm(hook = "inode_setattr")]
pub fn guard_inode_setattr_two(context: LsmContext) -> i32 {
    at_name(argument(&context, 0), Act::Attributes)
}

/// `LSM_HOOK(int, 0, inode_setxattr, struct mnt_idmap *idmap, struct dentry *dentry,
/// const char *name, const void *value, size_t size, int flags)`; a user namespace before 6.3.
#[lsm(hook = "inode_setxattr")]
pub fn guard_inode_setxattr(context: LsmContext) -> i32 {
    at_name(argument(&context, 1), Act::Attributes)
}

/// `LSM_HOOK(int, 0, file_ioctl, struct file *file, unsigned int cmd, unsigned long arg)`:
/// `chattr`.
#[lsm(hook = "file_ioctl")]
pub fn guard_file_ioctl(context: LsmContext) -> i32 {
    let command = number(&context, 1);
    if command != SET_FLAGS[0] && command != SET_FLAGS[1] && command != SET_FLAGS[2] {
        return 0;
    }
    at_name(field(argument(&context, 0), Field::FileDentry), Act::Attributes)
}

/// `LSM_HOOK(int, 0, inode_file_setattr, struct dentry *dentry, struct file_kattr *fa)`, from
/// 6.17 on: the same by `file_setattr(2)`.
#[lsm(hook = "inode_file_setattr")]
pub fn guard_inode_file_setattr(context: LsmContext) -> i32 {
    at_name(argument(&context, 0), Act::Attributes)
}

/// `LSM_HOOK(int, 0, sb_umount, struct vfsmount *mnt, int flags)`
#[lsm(hook = "sb_umount")]
pub fn guard_sb_umount(context: LsmContext) -> i32 {
    let Some(settings) = settings() else { return 0 };
    let super_block: Address = field(argument(&context, 0), Field::VfsmountSuper);
    let device: u32 = field(super_block, Field::SuperDevice);
    let Some(kind) = DEVICES.get_ptr(&device) else { return 0 };
    // SAFETY: values of a map stay readable while the program runs.
    if unsafe { *kind } & HOLDS_PINS == 0 {
        return 0;
    }
    judge(&settings, &Deed::on(Act::Unmount, 0, 0))
}

/// `LSM_HOOK(int, 0, bpf, int cmd, union bpf_attr *attr, unsigned int size)`; `attr` is the
/// kernel's copy.
#[lsm(hook = "bpf")]
pub fn guard_bpf(context: LsmContext) -> i32 {
    let command = number(&context, 0);
    if command != LINK_GET_FD_BY_ID && command != LINK_DETACH && command != LINK_UPDATE {
        return 0;
    }
    let Some(settings) = settings() else { return 0 };
    let first: u32 = at(argument(&context, 1));
    let id = if command == LINK_GET_FD_BY_ID { first } else { link_of(first) };
    at_object(&settings, object::LINK, id, command)
}

/// `LSM_HOOK(int, 0, bpf_map, struct bpf_map *map, fmode_t fmode)`: every new descriptor, by id
/// or from a pin. Reading is let through.
#[lsm(hook = "bpf_map")]
pub fn guard_bpf_map(context: LsmContext) -> i32 {
    if number(&context, 1) & WRITE == 0 {
        return 0;
    }
    let Some(settings) = settings() else { return 0 };
    at_object(&settings, object::MAP, field(argument(&context, 0), Field::MapId), MAP_FROM_FD)
}

/// Something is done to a process.
#[inline(always)]
fn at_process(task: Address, act: Act, detail: u32) -> i32 {
    let Some(settings) = settings() else { return 0 };
    if !is_ours(&settings, task) {
        return 0;
    }
    let target: u32 = field(task, Field::TaskTgid);
    if target == current_group() {
        return 0;
    }
    judge(&settings, &Deed::on(act, detail, target))
}

/// A file of /proc is opened for writing: `oom_score_adj`, `mem`, `attr`…
#[inline(always)]
fn at_process_file(settings: &Settings, inode: Address, dentry: Address) -> i32 {
    let holder = inode.wrapping_sub(offset(Field::ProcInode));
    let pid: Address = field(holder, Field::ProcPid);
    if pid == 0 {
        return 0;
    }
    // `hlist_head` and `hlist_node` begin with the pointer to the first; of `PIDTYPE_PID`.
    let first: Address = field(pid, Field::PidTasks);
    if first == 0 {
        return 0;
    }
    let task = first.wrapping_sub(offset(Field::TaskPidLinks));
    if !is_ours(settings, task) {
        return 0;
    }
    let target: u32 = field(task, Field::TaskTgid);
    if target == current_group() {
        return 0;
    }
    let file = File { mark: 0, depth: 0, dentry };
    judge(settings, &Deed { act: Act::ProcessFile, detail: 0, target, file })
}

/// A file of the agent's cgroup is opened for writing, or what freezes or kills one above it.
#[inline(always)]
fn at_cgroup_file(dentry: Address) -> i32 {
    let Some(settings) = settings() else { return 0 };
    let Some(own) = OWN.get(0) else { return 0 };
    let name: [u8; 8] = at(field(dentry, Field::DentryName));
    let folder: Address = field(field(dentry, Field::DentryParent), Field::DentryInode);
    let node: Address = field(folder, Field::InodePrivate);
    let mut cgroup: Address = field(field(own.task, Field::TaskCgroups), Field::CssSetDefault);
    for level in 0..CGROUPS {
        let parent: Address = field(cgroup, Field::CgroupParent);
        // The root has nothing that could stop a process.
        if parent == 0 {
            return 0;
        }
        if field::<Address>(cgroup, Field::CgroupNode) == node {
            let forbidden = if level == 0 {
                name != *b"cgroup.p"
            } else {
                name == *b"cgroup.k" || name == *b"cgroup.f"
            };
            if !forbidden {
                return 0;
            }
            let file = File { mark: 0, depth: level, dentry };
            return judge(&settings, &Deed { act: Act::Cgroup, detail: 0, target: 0, file });
        }
        cgroup = field(parent, Field::CssCgroup);
    }
    0
}

/// Something is done to a file by its name.
#[inline(always)]
fn at_name(dentry: Address, act: Act) -> i32 {
    at_file(dentry, act, 0)
}

#[inline(always)]
fn at_file(dentry: Address, act: Act, detail: u32) -> i32 {
    let Some(settings) = settings() else { return 0 };
    if current_group() == settings.agent {
        return 0;
    }
    let moves = matches!(act, Act::Unlink | Act::Rename);
    let Some(file) = protected(dentry, moves) else { return 0 };
    judge(&settings, &Deed { act, detail, target: 0, file })
}

/// Whether a file is the agent's, or lies in a folder of the agent.
#[inline(always)]
fn protected(dentry: Address, moves: bool) -> Option<File> {
    let device: u32 = field(field(dentry, Field::DentrySuper), Field::SuperDevice);
    DEVICES.get_ptr(&device)?;
    let mut place = dentry;
    for depth in 0..DEPTH {
        let inode: Address = field(place, Field::DentryInode);
        if inode != 0
            && let Some(mark) = FILES.get_ptr(&key_of(inode))
        {
            // SAFETY: values of a map stay readable while the program runs.
            let mark = unsafe { *mark };
            let class = mark & ((1 << CLASS_BITS) - 1);
            let counts = class == Class::Folder as u32
                || (depth == 0 && (class == Class::File as u32 || moves));
            if counts {
                return Some(File { mark, depth, dentry });
            }
        }
        let parent: Address = field(place, Field::DentryParent);
        if parent == place {
            return None;
        }
        place = parent;
    }
    None
}

/// Something is done to an eBPF object.
#[inline(always)]
fn at_object(settings: &Settings, kind: u32, id: u32, command: u32) -> i32 {
    if id == 0 || OBJECTS.get_ptr(&ObjectKey { kind, id }).is_none() {
        return 0;
    }
    judge(settings, &Deed::on(Act::Bpf, command, id))
}

/// The id of the link behind a descriptor of the caller. Of no use for others' descriptors: the
/// bytes there are no id of ours but by chance.
#[inline(always)]
fn link_of(descriptor: u32) -> u32 {
    let table: Address = field(field(current_task(), Field::TaskFiles), Field::FilesFdt);
    if descriptor >= field::<u32>(table, Field::FdtableMax) {
        return 0;
    }
    let list: Address = field(table, Field::FdtableFd);
    let file: Address = at(list.wrapping_add(u64::from(descriptor) * 8));
    field(field(file, Field::FilePrivate), Field::LinkId)
}

/// The agent, or a child or grandchild of it.
#[inline(always)]
fn is_ours(settings: &Settings, task: Address) -> bool {
    let agent = settings.agent;
    if field::<u32>(task, Field::TaskTgid) == agent {
        return true;
    }
    let parent: Address = field(task, Field::TaskParent);
    if field::<u32>(parent, Field::TaskTgid) == agent {
        return true;
    }
    field::<u32>(field(parent, Field::TaskParent), Field::TaskTgid) == agent
}

#[inline(always)]
fn judge(settings: &Settings, deed: &Deed) -> i32 {
    if is_exempt(settings, deed.act) {
        if let Some(count) = COUNTS.get_ptr_mut(deed.act as u32) {
            // SAFETY: this CPU's own element of a per-CPU array.
            unsafe { (*count).exempt += 1 };
        }
        return 0;
    }
    deny(deed)
}

/// The agent, process 1, a package manager and what it starts; signals also come from whoever
/// started the agent.
#[inline(always)]
fn is_exempt(settings: &Settings, act: Act) -> bool {
    let group = current_group();
    if group == settings.agent || group == 1 {
        return true;
    }
    let mut task = current_task();
    if matches!(act, Act::Signal)
        && let Some(own) = OWN.get(0)
        && own.parent == group
        && own.parent_start == field::<u64>(field(task, Field::TaskLeader), Field::TaskStart)
    {
        return true;
    }
    for _ in 0..ANCESTORS {
        let exe: Address = field(field(task, Field::TaskMm), Field::MmExeFile);
        let inode: Address = field(exe, Field::FileInode);
        if inode != 0 && UPGRADERS.get_ptr(&key_of(inode)).is_some() {
            return true;
        }
        task = field(task, Field::TaskParent);
        if field::<u32>(task, Field::TaskTgid) <= 1 {
            return false;
        }
    }
    false
}

#[inline(always)]
fn key_of(inode: Address) -> FileKey {
    FileKey {
        inode: field(inode, Field::InodeNumber),
        device: field(field(inode, Field::InodeSuper), Field::SuperDevice),
        generation: field(inode, Field::InodeGeneration),
    }
}

/// The agent shows a file, or itself.
#[inline(always)]
fn learn(lesson: u32, inode: Address) {
    let class = lesson & ((1 << CLASS_BITS) - 1);
    if let Some(own) = OWN.get_ptr_mut(0) {
        // SAFETY: only the teacher thread writes this.
        let own = unsafe { &mut *own };
        own.lessons += 1;
        if class == Class::Agent as u32 {
            let leader: Address = field(current_task(), Field::TaskLeader);
            let parent: Address = field(field(leader, Field::TaskParent), Field::TaskLeader);
            own.task = leader;
            own.parent = field(parent, Field::TaskTgid);
            own.parent_start = field(parent, Field::TaskStart);
            return;
        }
    }
    let key = key_of(inode);
    // A full table shows in the agent's count of what it has shown.
    if class == Class::Upgrader as u32 {
        let _ = UPGRADERS.insert(&key, &lesson, 0);
        return;
    }
    let magic: u64 = field(field(inode, Field::InodeSuper), Field::SuperMagic);
    let kind = if magic == BPF_FS { HOLDS_PINS } else { 0 };
    let _ = DEVICES.insert(&key.device, &kind, 0);
    let _ = FILES.insert(&key, &lesson, 0);
}

/// Counts, tells, denies.
#[inline(always)]
fn deny(deed: &Deed) -> i32 {
    let mut lost = 0;
    match DENIALS.reserve::<Denial>(0) {
        Some(mut entry) => {
            let record = entry.as_mut_ptr();
            // SAFETY: the place has the record's size; every byte of it is written.
            unsafe { fill(record, deed) };
            entry.submit(0);
        }
        None => lost = 1,
    }
    if let Some(count) = COUNTS.get_ptr_mut(deed.act as u32) {
        // SAFETY: this CPU's own element of a per-CPU array.
        let count = unsafe { &mut *count };
        count.denied += 1;
        count.lost += lost;
    }
    DENIED
}

/// # Safety
/// `record` must point to writable memory of its size.
#[inline(always)]
unsafe fn fill(record: *mut Denial, deed: &Deed) {
    let task = current_task();
    let leader: Address = field(task, Field::TaskLeader);
    let cred: Address = field(task, Field::TaskCred);
    let known = !matches!(deed.act, Act::DescriptorSignal);
    // SAFETY: as the caller says.
    unsafe {
        (&raw mut (*record).start_ns).write(if known {
            field(leader, Field::TaskStart)
        } else {
            0
        });
        (&raw mut (*record).pid).write(if known { current_group() } else { 0 });
        (&raw mut (*record).uid).write(field(cred, Field::CredUid));
        (&raw mut (*record).euid).write(field(cred, Field::CredEuid));
        (&raw mut (*record).act).write(deed.act as u32);
        (&raw mut (*record).detail).write(deed.detail);
        (&raw mut (*record).target).write(deed.target);
        (&raw mut (*record).mark).write(deed.file.mark);
        (&raw mut (*record).depth).write(deed.file.depth);
        (&raw mut (*record).comm).write(field(leader, Field::TaskComm));
        (&raw mut (*record).name).write([0; NAME]);
        if deed.file.dentry != 0 {
            let name: Address = field(deed.file.dentry, Field::DentryName);
            bpf_probe_read_kernel_str(
                (&raw mut (*record).name).cast(),
                NAME as u32,
                name as *const _,
            );
        }
    }
}
