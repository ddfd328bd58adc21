//! The isolation's eBPF programs: loaded ahead, attached when the host is cut off, pinned so that
//! they stay without the agent.
//!
//! INVARIANT: a program is attached and pinned under a name of its own before an older one of the
//! same place goes, so that an agent that takes over (restart, upgrade) leaves no gap. The pin is
//! the only holder of a link: what somebody unpins is detached, and seen by [`Programs::missing`].

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use aya::maps::{Array, HashMap, MapData, PerCpuArray, PerCpuValues};
use aya::programs::links::FdLink;
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle};
use aya::programs::{
    CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, LinkOrder, Lsm, SchedClassifier, TcAttachType,
};
use aya::{Btf, Ebpf, EbpfLoader};
use holdfast_common::cut::{Endpoint, HOOKS, Hook, REASONS, Reason, counter};

use super::egress::Allowed;
use super::links::{self, Interface};
use crate::sys::bpf::{self, attached_programs};
use crate::verifier_chain;

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("HOLDFAST_ISOLATION_OBJECT"));

/// The first filter of an interface (before Linux 6.6).
const PRIORITY: u16 = 1;
const HANDLE: TcHandle = TcHandle::new(0, 1);
/// Name of the counters' pin; it changes with their layout.
const COUNTS_PIN: &str = "counts_1";

const SOCKETS: [(&str, &str, CgroupSkbAttachType, bpf::Hook); 2] = [
    ("cut_socket_out", "socket_out", CgroupSkbAttachType::Egress, bpf::Hook::CgroupEgress),
    ("cut_socket_in", "socket_in", CgroupSkbAttachType::Ingress, bpf::Hook::CgroupIngress),
];

/// Programs of the links: for frames, for bare packets. The same order as [`WAYS`].
const LINKS: [[&str; 2]; 2] =
    [["cut_frame_out", "cut_plain_out"], ["cut_frame_in", "cut_plain_in"]];

/// Out first: that is what counts.
const WAYS: [(TcAttachType, bpf::Hook, &str); 2] = [
    (TcAttachType::Egress, bpf::Hook::TcxEgress, "out"),
    (TcAttachType::Ingress, bpf::Hook::TcxIngress, "in"),
];

/// How programs hang on interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mechanism {
    /// By links of their own, from 6.6 on.
    Tcx,
    /// As filters below a `clsact` queue.
    Clsact,
}

/// Packets and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

/// The loaded programs.
pub(super) struct Programs {
    object: Ebpf,
    pins: PathBuf,
    mechanism: Option<Mechanism>,
}

impl std::fmt::Debug for Programs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Programs").field("mechanism", &self.mechanism).finish_non_exhaustive()
    }
}

impl Programs {
    /// Loads everything but the socket program, and attaches nothing. Counters that are pinned
    /// by an earlier agent go on counting.
    ///
    /// # Errors
    /// What the kernel refused.
    pub(super) fn load(pins: &Path) -> Result<Self, String> {
        let counts = pins.join(COUNTS_PIN);
        let mut loader = EbpfLoader::new();
        loader.btf(None);
        if counts.exists() {
            loader.map_pin_path("COUNTS", counts);
        }
        let mut object = loader.load(OBJECT).map_err(|error| verifier_chain(&error))?;
        for (name, ..) in SOCKETS {
            let program: &mut CgroupSkb = find(&mut object, name)?;
            program.load().map_err(|error| format!("{name}: {}", verifier_chain(&error)))?;
        }
        for name in LINKS.as_flattened() {
            let program: &mut SchedClassifier = find(&mut object, name)?;
            program.load().map_err(|error| format!("{name}: {}", verifier_chain(&error)))?;
        }
        Ok(Self { object, pins: pins.to_owned(), mechanism: None })
    }

    /// How programs hang on interfaces here; `None` until one does.
    pub(super) const fn mechanism(&self) -> Option<Mechanism> {
        self.mechanism
    }

    /// Sets what is let through.
    ///
    /// # Errors
    /// What the kernel refused.
    pub(super) fn allow(&mut self, allowed: &Allowed) -> Result<(), String> {
        let endpoints: Vec<Endpoint> = allowed
            .endpoints
            .iter()
            .map(|endpoint| Endpoint {
                address: mapped(endpoint.ip()),
                port: endpoint.port().to_be_bytes(),
                reserved: [0; 2],
            })
            .collect();
        let words: Vec<[u8; 20]> = endpoints.iter().map(key).collect();
        replace(&mut self.object, "ENDPOINTS", &words)?;
        let hosts: Vec<[u8; 16]> = endpoints.iter().map(|endpoint| endpoint.address).collect();
        replace(&mut self.object, "HOSTS", &hosts)?;
        let dhcp: Vec<[u8; 16]> = allowed.dhcp.iter().map(|address| mapped(*address)).collect();
        replace(&mut self.object, "DHCP", &dhcp)
    }

    /// Begins to count from 0.
    ///
    /// # Errors
    /// What the kernel refused.
    pub(super) fn reset_counts(&mut self) -> Result<(), String> {
        let map = self.object.map_mut("COUNTS").ok_or("no COUNTS in the object")?;
        let mut counts: PerCpuArray<&mut MapData, [u64; 2]> =
            PerCpuArray::try_from(map).map_err(|error| verifier_chain(&error))?;
        let cpus = aya::util::nr_cpus().map_err(|(what, error)| format!("{what}: {error}"))?;
        for index in 0..(HOOKS * REASONS) as u32 {
            let zeros = PerCpuValues::try_from(vec![[0; 2]; cpus]).map_err(|e| e.to_string())?;
            counts.set(index, zeros, 0).map_err(|error| verifier_chain(&error))?;
        }
        Ok(())
    }

    /// What was counted at a hook for a reason.
    pub(super) fn count(&self, hook: Hook, reason: Reason) -> Counted {
        let counts = self.object.map("COUNTS").and_then(|map| PerCpuArray::try_from(map).ok());
        let counts: Option<PerCpuArray<&MapData, [u64; 2]>> = counts;
        let values = counts.and_then(|counts| counts.get(&counter(hook, reason), 0).ok());
        let mut sum = Counted::default();
        for [packets, bytes] in values.iter().flat_map(|values| values.iter()) {
            sum.packets += packets;
            sum.bytes += bytes;
        }
        sum
    }

    /// Cuts the sockets of a cgroup off.
    ///
    /// # Errors
    /// What the kernel refused.
    pub(super) fn attach_sockets(&mut self, cgroup: &File) -> Result<(), String> {
        for (name, pin, way, _) in SOCKETS {
            let program: &mut CgroupSkb = find(&mut self.object, name)?;
            let attached = program
                .attach(cgroup, way, CgroupAttachMode::Single)
                .and_then(|id| program.take_link(id))
                .map_err(|error| format!("{name}: {}", verifier_chain(&error)))?;
            let link = FdLink::try_from(attached).map_err(|error| verifier_chain(&error))?;
            self.pin(link, pin)?;
        }
        Ok(())
    }

    /// Cuts an interface off. True when it got a `clsact` queue for that.
    ///
    /// # Errors
    /// What the kernel refused; also when the interface has gone.
    pub(super) fn attach_link(&mut self, interface: &Interface) -> Result<bool, String> {
        let mut made = false;
        for way in 0..WAYS.len() {
            if self.mechanism != Some(Mechanism::Clsact) {
                match self.attach_tcx(interface, way) {
                    Ok(()) => {
                        self.mechanism = Some(Mechanism::Tcx);
                        continue;
                    }
                    Err(error) if self.mechanism == Some(Mechanism::Tcx) => return Err(error),
                    // Before 6.6 the kernel does not know this kind of link.
                    Err(_) => {}
                }
            }
            made |= self.attach_filter(interface, way)?;
            self.mechanism = Some(Mechanism::Clsact);
        }
        Ok(made)
    }

    fn attach_tcx(&mut self, interface: &Interface, way: usize) -> Result<(), String> {
        let name = LINKS[way][usize::from(!interface.framed)];
        let (attach_type, _, word) = WAYS[way];
        let program: &mut SchedClassifier = find(&mut self.object, name)?;
        let order = TcAttachOptions::TcxOrder(LinkOrder::first());
        let attached = program
            .attach_with_options(&interface.name, attach_type, order)
            .and_then(|id| program.take_link(id))
            .map_err(|error| format!("{}: {}", interface.name, verifier_chain(&error)))?;
        let link = FdLink::try_from(attached).map_err(|error| verifier_chain(&error))?;
        self.pin(link, &format!("link_{}_{word}", interface.index))
    }

    /// In place of an older one of ours, else as the first filter of the interface.
    fn attach_filter(&mut self, interface: &Interface, way: usize) -> Result<bool, String> {
        let name = LINKS[way][usize::from(!interface.framed)];
        let (attach_type, ..) = WAYS[way];
        let failed = |error: &dyn std::error::Error| {
            format!("{}: {}", interface.name, verifier_chain(error))
        };
        let made = links::add_clsact(interface.index).map_err(|error| failed(&error))?;
        let program: &mut SchedClassifier = find(&mut self.object, name)?;
        let older =
            SchedClassifierLink::attached(&interface.name, attach_type, PRIORITY, HANDLE, None)
                .map_err(|error| failed(&error))?;
        let ours = links::filters(interface.index, usize::from(way == 0))
            .map_err(|error| failed(&error))?
            .iter()
            .any(|filter| filter.name == name);
        let attached = if ours {
            program.attach_to_link(older)
        } else {
            std::mem::forget(older);
            let options = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
            program.attach_with_options(
                &interface.name,
                attach_type,
                TcAttachOptions::Netlink(options),
            )
        };
        let link = attached
            .and_then(|id| program.take_link(id))
            .map_err(|error| format!("{}: {}", interface.name, verifier_chain(&error)))?;
        // The interface holds its filters; dropping this would take it off.
        std::mem::forget(link);
        Ok(made)
    }

    /// Denies the making of sockets that go below everything else. Loads its program, since it
    /// needs the kernel's type information, which is large.
    ///
    /// # Errors
    /// What the kernel refused, or that its program does not take effect.
    pub(super) fn attach_socket_create(
        &mut self,
        cgroup: Option<(u64, u32)>,
        packet_sockets: bool,
    ) -> Result<(), String> {
        let list = fs::read_to_string("/sys/kernel/security/lsm");
        if list.is_ok_and(|list| !list.trim().split(',').any(|name| name == "bpf")) {
            return Err("the kernel's list of security modules lacks bpf".to_owned());
        }
        let map = self.object.map_mut("POLICY").ok_or("no POLICY in the object")?;
        let mut policy: Array<&mut MapData, [u32; 4]> =
            Array::try_from(map).map_err(|error| verifier_chain(&error))?;
        let (id, level) = cgroup.unwrap_or_default();
        let [low, high] = [id as u32, (id >> 32) as u32];
        policy
            .set(0, [low, high, level, u32::from(packet_sockets)], 0)
            .map_err(|error| verifier_chain(&error))?;
        let program: &mut Lsm = find(&mut self.object, "cut_socket_create")?;
        if program.fd().is_err() {
            let types = Btf::from_sys_fs().map_err(|error| verifier_chain(&error))?;
            program.load("socket_create", &types).map_err(|error| verifier_chain(&error))?;
        }
        let attached = program
            .attach()
            .and_then(|id| program.take_link(id))
            .map_err(|error| verifier_chain(&error))?;
        self.pin(FdLink::from(attached), "socket_create")
    }

    fn pin(&self, link: FdLink, name: &str) -> Result<(), String> {
        // A BPF file system keeps names with a dot for itself.
        let (new, name) = (self.pins.join(format!("{name}_new")), self.pins.join(name));
        // Left by an agent that died in between.
        let _ = fs::remove_file(&new);
        let pinned = link
            .pin(&new)
            .map_err(|error| format!("{}: {}", new.display(), verifier_chain(&error)))?;
        fs::rename(&new, &name).map_err(|error| format!("{}: {error}", name.display()))?;
        drop(pinned);
        Ok(())
    }

    /// Pins the counters, so that another agent goes on with them.
    ///
    /// # Errors
    /// What the kernel refused.
    pub(super) fn pin_counts(&self) -> Result<(), String> {
        let path = self.pins.join(COUNTS_PIN);
        if path.exists() {
            return Ok(());
        }
        let map = self.object.map("COUNTS").ok_or("no COUNTS in the object")?;
        map.pin(&path).map_err(|error| format!("{}: {}", path.display(), verifier_chain(&error)))
    }

    /// Which sockets' programs are not attached to this cgroup.
    ///
    /// # Errors
    /// The kernel's refusal to tell.
    pub(super) fn missing_at_sockets(&mut self, cgroup: &File) -> io::Result<Vec<&'static str>> {
        let mut missing = Vec::new();
        for (name, _, _, hook) in SOCKETS {
            let id = id_of::<CgroupSkb>(&mut self.object, name);
            let target = u32::try_from(cgroup.as_fd().as_raw_fd()).unwrap_or(u32::MAX);
            if !attached_programs(target, hook)?.iter().any(|program| Some(*program) == id) {
                missing.push(name);
            }
        }
        Ok(missing)
    }

    /// Whether an interface lacks a program, or another one runs before it and may let packets
    /// go by.
    ///
    /// # Errors
    /// The kernel's refusal to tell; also when the interface has gone.
    pub(super) fn missing_at_link(&mut self, interface: &Interface) -> io::Result<bool> {
        for (way, (_, hook, _)) in WAYS.iter().enumerate() {
            let name = LINKS[way][usize::from(!interface.framed)];
            let id = id_of::<SchedClassifier>(&mut self.object, name);
            let first = match self.mechanism {
                Some(Mechanism::Tcx) => attached_programs(interface.index, *hook)?.first().copied(),
                Some(Mechanism::Clsact) | None => {
                    links::filters(interface.index, usize::from(way == 0))?
                        .first()
                        .map(|filter| filter.program)
                }
            };
            if first.is_none() || first != id {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes away the pins of interfaces that are no more.
    pub(super) fn forget_links(&self, lives: impl Fn(u32) -> bool) {
        for entry in fs::read_dir(&self.pins).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let index = name.to_str().and_then(|name| name.strip_prefix("link_"));
            let index = index.and_then(|rest| rest.split('_').next()?.parse().ok());
            if index.is_some_and(|index| !lives(index)) {
                // Gone already is as good.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Whether the socket program's pin is there.
    pub(super) fn socket_create_stands(&self) -> bool {
        self.pins.join("socket_create").exists()
    }
}

/// Takes everything off that an agent of this version or another has attached: the pins, and the
/// filters of older kernels with the queues that were made for them.
///
/// # Errors
/// The first refusal; the rest is taken off all the same.
pub(super) fn remove(pins: &Path, queues: &[(u32, String)]) -> io::Result<()> {
    let mut result = Ok(());
    let mut note = |done: io::Result<()>| {
        if result.is_ok() {
            result = done;
        }
    };
    match fs::read_dir(pins) {
        Ok(entries) => {
            for entry in entries.flatten() {
                // What is no link, or a link that cannot be taken off, goes with its pin.
                let _ = bpf::detach_pinned(&entry.path());
                note(fs::remove_file(entry.path()));
            }
            // Another's pin in it, or gone: nothing to do.
            let _ = fs::remove_dir(pins);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => note(Err(error)),
    }
    for interface in links::list()? {
        for (way, (attach_type, ..)) in WAYS.iter().enumerate() {
            let name = LINKS[way][usize::from(!interface.framed)];
            let standing =
                links::filters(interface.index, usize::from(way == 0)).unwrap_or_default();
            if standing.iter().any(|filter| filter.name == name) {
                let gone =
                    aya::programs::tc::qdisc_detach_program(&interface.name, *attach_type, name);
                note(gone.map_err(io::Error::other));
            }
        }
        if queues.contains(&(interface.index, interface.name.clone())) {
            note(links::remove_empty_clsact(interface.index));
        }
    }
    result
}

/// Whether an agent has left something in force.
pub(super) fn left_behind(pins: &Path) -> bool {
    fs::read_dir(pins).is_ok_and(|mut entries| entries.next().is_some())
}

fn find<'a, P>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut P, String>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program>,
{
    let program = object.program_mut(name).ok_or_else(|| format!("no {name} in the object"))?;
    program.try_into().map_err(|_| format!("{name} is of another kind"))
}

/// The kernel's number of a loaded program.
fn id_of<P>(object: &mut Ebpf, name: &str) -> Option<u32>
where
    for<'a> &'a mut P: TryFrom<&'a mut aya::programs::Program>,
    P: Known,
{
    let program: &mut P = find(object, name).ok()?;
    program.number()
}

/// A program that can say its number.
trait Known {
    fn number(&self) -> Option<u32>;
}

impl Known for CgroupSkb {
    fn number(&self) -> Option<u32> {
        self.info().ok().map(|info| info.id())
    }
}

impl Known for SchedClassifier {
    fn number(&self) -> Option<u32> {
        self.info().ok().map(|info| info.id())
    }
}

/// Makes a table's keys exactly these.
fn replace<const N: usize>(object: &mut Ebpf, name: &str, keys: &[[u8; N]]) -> Result<(), String> {
    let map = object.map_mut(name).ok_or_else(|| format!("no {name} in the object"))?;
    let mut table: HashMap<&mut MapData, [u8; N], u32> =
        HashMap::try_from(map).map_err(|error| verifier_chain(&error))?;
    let standing: Vec<[u8; N]> = table.keys().flatten().collect();
    for key in standing.iter().filter(|key| !keys.contains(key)) {
        table.remove(key).map_err(|error| verifier_chain(&error))?;
    }
    for key in keys {
        table.insert(key, 1, 0).map_err(|error| verifier_chain(&error))?;
    }
    Ok(())
}

fn key(endpoint: &Endpoint) -> [u8; 20] {
    let mut key = [0; 20];
    key[..16].copy_from_slice(&endpoint.address);
    key[16..18].copy_from_slice(&endpoint.port);
    key
}

fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}
