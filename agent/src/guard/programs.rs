//! Loads and attaches the self-protection programs, each on its own: one that the kernel refuses
//! leaves the others standing and says why.
//!
//! Nothing is pinned: the kernel takes the programs off when the agent ends, however it ends.
//! Dropping [`Programs`] does the same.

use aya::maps::{Array, HashMap, MapData, PerCpuArray, RingBuf};
use aya::programs::{Lsm, ProgramError};
use aya::{Btf, Ebpf, EbpfLoader};
use holdfast_common::guard::{ACTS, Act, Field, Own, Settings};

use super::layout::Layout;
use crate::verifier_chain;

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("HOLDFAST_GUARD_OBJECT"));

/// A hook and the program for it.
struct Hook {
    /// The kernel's name.
    name: &'static str,
    function: &'static str,
    /// For kernels whose hook has other arguments.
    instead: Option<&'static str>,
    /// Not in every kernel that is supported; where it is not, nothing needs it.
    newer: bool,
}

const fn hook(name: &'static str, function: &'static str) -> Hook {
    Hook { name, function, instead: None, newer: false }
}

/// `file_open` first: it learns what is protected. Signals last: nothing but the programs is to
/// be in between when somebody is denied.
static HOOKS: [Hook; 21] = [
    hook("file_open", "guard_file_open"),
    hook("inode_create", "guard_inode_create"),
    hook("inode_mkdir", "guard_inode_mkdir"),
    hook("inode_mknod", "guard_inode_mknod"),
    hook("inode_symlink", "guard_inode_symlink"),
    hook("inode_unlink", "guard_inode_unlink"),
    hook("inode_rmdir", "guard_inode_rmdir"),
    hook("inode_rename", "guard_inode_rename"),
    hook("inode_link", "guard_inode_link"),
    Hook {
        name: "inode_setattr",
        function: "guard_inode_setattr",
        instead: Some("guard_inode_setattr_two"),
        newer: false,
    },
    hook("inode_setxattr", "guard_inode_setxattr"),
    hook("file_ioctl", "guard_file_ioctl"),
    Hook {
        name: "inode_file_setattr",
        function: "guard_inode_file_setattr",
        instead: None,
        newer: true,
    },
    hook("sb_umount", "guard_sb_umount"),
    hook("bpf", "guard_bpf"),
    hook("bpf_map", "guard_bpf_map"),
    hook("ptrace_access_check", "guard_ptrace_access_check"),
    hook("task_setrlimit", "guard_task_setrlimit"),
    hook("task_setscheduler", "guard_task_setscheduler"),
    hook("task_setnice", "guard_task_setnice"),
    hook("file_send_sigiotask", "guard_file_send_sigiotask"),
];

/// Attached after all others stand.
static SIGNALS: Hook = hook("task_kill", "guard_task_kill");

/// Without one of these nothing is known well enough to deny it.
const NEEDED: [Field; 14] = [
    Field::TaskTgid,
    Field::TaskLeader,
    Field::TaskParent,
    Field::TaskStart,
    Field::TaskMm,
    Field::MmExeFile,
    Field::FileInode,
    Field::FileMode,
    Field::DentryParent,
    Field::DentryInode,
    Field::DentrySuper,
    Field::InodeNumber,
    Field::InodeSuper,
    Field::SuperDevice,
];

/// What became of the hooks.
#[derive(Debug, Clone, Default)]
pub(super) struct Hooks {
    /// Attached.
    pub(super) active: Vec<&'static str>,
    /// Refused, and why.
    pub(super) refused: Vec<(&'static str, String)>,
    /// Not in this kernel, which has nothing that needs them.
    pub(super) absent: Vec<&'static str>,
}

/// What is in the kernel.
pub(super) struct Programs {
    object: Ebpf,
    pub(super) hooks: Hooks,
    /// What was denied.
    pub(super) denials: RingBuf<MapData>,
}

/// Sums over all processors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) denied: u64,
    pub(super) lost: u64,
    pub(super) exempt: u64,
}

impl Programs {
    /// Loads what the kernel takes. Nothing is denied before [`Programs::set`].
    ///
    /// # Errors
    /// Why nothing could be loaded at all.
    pub(super) fn load() -> Result<Self, String> {
        let layout = Layout::of_running_kernel()?;
        let missing = layout.missing_of(&NEEDED);
        if !missing.is_empty() {
            return Err(format!("not in this kernel: {}", missing.join("; ")));
        }
        let types = Btf::from_sys_fs().map_err(|error| verifier_chain(&error))?;
        let mut object = EbpfLoader::new()
            .btf(None)
            .override_global("GUARD_OFFSETS", layout.offsets.as_slice(), true)
            .load(OBJECT)
            .map_err(|error| verifier_chain(&error))?;
        let mut hooks = Hooks::default();
        for hook in HOOKS.iter().chain([&SIGNALS]) {
            let missing = layout.missing_of(needs(hook.name));
            let done = if missing.is_empty() {
                attach(&mut object, hook, &types)
            } else {
                Err(Refusal::Why(missing.join("; ")))
            };
            match done {
                Ok(()) => hooks.active.push(hook.name),
                Err(Refusal::NoHook) if hook.newer => hooks.absent.push(hook.name),
                Err(Refusal::NoHook) => hooks.refused.push((hook.name, "no such hook".to_owned())),
                Err(Refusal::Why(why)) => hooks.refused.push((hook.name, why)),
            }
            // Everything is learned by it.
            if hooks.active.is_empty() {
                let why = hooks.refused.pop().map(|(_, why)| why).unwrap_or_default();
                return Err(format!("{}: {why}", hook.name));
            }
        }
        let ring = object.take_map("DENIALS").ok_or("no DENIALS in the object")?;
        let denials = RingBuf::try_from(ring).map_err(|error| verifier_chain(&error))?;
        Ok(Self { object, hooks, denials })
    }

    /// Says who the agent is, and what its teacher's opens mean.
    ///
    /// # Errors
    /// What the kernel refused.
    pub(super) fn set(&mut self, settings: Settings) -> Result<(), String> {
        let [low, high] = [settings.teacher as u32, (settings.teacher >> 32) as u32];
        let map = self.object.map_mut("SETTINGS").ok_or("no SETTINGS in the object")?;
        let mut table: Array<&mut MapData, [u32; 4]> =
            Array::try_from(map).map_err(|error| verifier_chain(&error))?;
        table
            .set(0, [low, high, settings.agent, settings.lesson], 0)
            .map_err(|error| verifier_chain(&error))
    }

    /// What the programs have noted of the agent.
    pub(super) fn own(&self) -> Own {
        let table = self.object.map("OWN").and_then(|map| Array::try_from(map).ok());
        let table: Option<Array<&MapData, [u64; 3]>> = table;
        let [task, parent_start, last] =
            table.and_then(|table| table.get(&0, 0).ok()).unwrap_or_default();
        let [parent, lessons] = halves(last);
        Own { task, parent_start, parent, lessons }
    }

    /// Forgets the files under a label.
    pub(super) fn forget(&mut self, is: impl Fn(u32) -> bool) {
        let map = self.object.map_mut("FILES").and_then(|map| HashMap::try_from(map).ok());
        let map: Option<HashMap<&mut MapData, [u32; 4], u32>> = map;
        let Some(mut table) = map else { return };
        let gone: Vec<[u32; 4]> =
            table.iter().flatten().filter(|(_, mark)| is(*mark)).map(|(key, _)| key).collect();
        for key in gone {
            // It was there a moment ago, and only this thread takes away.
            let _ = table.remove(&key);
        }
    }

    /// How many files and package managers the programs know.
    pub(super) fn known(&self) -> (usize, usize) {
        let count = |name: &str| {
            let map = self.object.map(name).and_then(|map| HashMap::try_from(map).ok());
            let map: Option<HashMap<&MapData, [u32; 4], u32>> = map;
            map.map_or(0, |map| map.keys().flatten().count())
        };
        (count("FILES"), count("UPGRADERS"))
    }

    /// Makes the protected maps and links exactly these; kind and id each.
    ///
    /// # Errors
    /// What the kernel refused.
    pub(super) fn set_objects(&mut self, objects: &[[u32; 2]]) -> Result<(), String> {
        let map = self.object.map_mut("OBJECTS").ok_or("no OBJECTS in the object")?;
        let mut table: HashMap<&mut MapData, [u32; 2], u32> =
            HashMap::try_from(map).map_err(|error| verifier_chain(&error))?;
        let standing: Vec<[u32; 2]> = table.keys().flatten().collect();
        for key in standing.iter().filter(|key| !objects.contains(key)) {
            table.remove(key).map_err(|error| verifier_chain(&error))?;
        }
        for key in objects.iter().filter(|key| !standing.contains(key)) {
            table.insert(key, 1, 0).map_err(|error| verifier_chain(&error))?;
        }
        Ok(())
    }

    /// What was counted for an act.
    pub(super) fn count(&self, act: Act) -> Counted {
        let counts = self.object.map("COUNTS").and_then(|map| PerCpuArray::try_from(map).ok());
        let counts: Option<PerCpuArray<&MapData, [u64; 3]>> = counts;
        let values = counts.and_then(|counts| counts.get(&(act as u32), 0).ok());
        let mut sum = Counted::default();
        for [denied, lost, exempt] in values.iter().flat_map(|values| values.iter()) {
            sum.denied += denied;
            sum.lost += lost;
            sum.exempt += exempt;
        }
        sum
    }

    /// Over all acts.
    pub(super) fn total(&self) -> Counted {
        ACTS.iter().fold(Counted::default(), |sum, act| {
            let one = self.count(*act);
            Counted {
                denied: sum.denied + one.denied,
                lost: sum.lost + one.lost,
                exempt: sum.exempt + one.exempt,
            }
        })
    }
}

fn halves(value: u64) -> [u32; 2] {
    let bytes = value.to_ne_bytes();
    let half =
        |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    [half(0), half(4)]
}

/// Fields that only this hook reads.
fn needs(hook: &str) -> &'static [Field] {
    match hook {
        "file_open" => &[
            Field::FileDentry,
            Field::SuperMagic,
            Field::ProcPid,
            Field::ProcInode,
            Field::PidTasks,
            Field::TaskPidLinks,
            Field::InodePrivate,
            Field::TaskCgroups,
            Field::CssSetDefault,
            Field::CgroupNode,
            Field::CgroupParent,
            Field::CssCgroup,
        ],
        "file_ioctl" => &[Field::FileDentry],
        "sb_umount" => &[Field::VfsmountSuper],
        "bpf" => &[
            Field::TaskFiles,
            Field::FilesFdt,
            Field::FdtableMax,
            Field::FdtableFd,
            Field::FilePrivate,
            Field::LinkId,
        ],
        "bpf_map" => &[Field::MapId],
        _ => &[],
    }
}

enum Refusal {
    NoHook,
    Why(String),
}

fn attach(object: &mut Ebpf, hook: &Hook, types: &Btf) -> Result<(), Refusal> {
    let first = load(object, hook.function, hook.name, types);
    match (first, hook.instead) {
        (Err(Refusal::Why(_)), Some(instead)) => load(object, instead, hook.name, types),
        (done, _) => done,
    }
}

fn load(object: &mut Ebpf, function: &str, hook: &str, types: &Btf) -> Result<(), Refusal> {
    let program: &mut Lsm = object
        .program_mut(function)
        .ok_or_else(|| Refusal::Why(format!("no {function} in the object")))?
        .try_into()
        .map_err(|error: ProgramError| Refusal::Why(verifier_chain(&error)))?;
    match program.load(hook, types) {
        Ok(()) => {}
        Err(ProgramError::Btf(_)) => return Err(Refusal::NoHook),
        Err(error) => return Err(Refusal::Why(verifier_chain(&error))),
    }
    program.attach().map(drop).map_err(|error| Refusal::Why(verifier_chain(&error)))
}
