//! All layers of the isolation together: put up in the order in which they are quick, looked
//! after, taken down.
//!
//! ```text
//!   socket ──▶ cgroup programs ──▶ egress chain ──▶ interface programs ──▶ wire
//!              (sockets)           (egress)         (interfaces)
//!   packet socket ──────────────▶ egress chain ──▶ interface programs ──▶ wire
//!   packet socket, no queue ────▶ egress chain ─────────────────────────▶ wire
//!   AF_XDP ──────────────────────────────────────────────────────────────▶ wire
//!          └ new ones denied by a security hook, where the kernel runs it
//! ```
//!
//! The first and the third must stand; the others are told when they cannot. Decides nothing.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use holdfast_common::control::{IsolationCount, IsolationLayer};
use holdfast_common::cut::{Hook, Reason};

use super::egress::{self, Allowed, Standing};
use super::links::{self, Interface};
use super::programs::{self, Mechanism, Programs};
use crate::sys::packet::Sender;

/// The file system that pins need.
const BPF_MAGIC: i64 = 0xcafe_4a11;
const BPF_MOUNT: &str = "/sys/fs/bpf";

const HOOKS: [(Hook, &str); 5] = [
    (Hook::SocketOut, "socket_out"),
    (Hook::SocketIn, "socket_in"),
    (Hook::LinkOut, "interface_out"),
    (Hook::LinkIn, "interface_in"),
    (Hook::SocketCreate, "socket_create"),
];

const REASONS: [(Reason, &str); 9] = [
    (Reason::Management, "management"),
    (Reason::Loopback, "loopback"),
    (Reason::Neighbour, "neighbour"),
    (Reason::Dhcp, "dhcp"),
    (Reason::PathMtu, "path_mtu"),
    (Reason::Ipv4, "ipv4"),
    (Reason::Ipv6, "ipv6"),
    (Reason::Fragment, "fragment"),
    (Reason::Other, "other"),
];

/// The layers in force.
#[derive(Debug)]
pub(super) struct Cut {
    programs: Programs,
    cgroup: File,
    cgroup_path: PathBuf,
    whole_host: bool,
    allowed: Allowed,
    interfaces: Vec<Interface>,
    /// Interfaces that could not be cut off, and why.
    open: Vec<String>,
    /// Queues that were made, by interface.
    queues: Vec<(u32, String)>,
    /// The egress table as it was put up, or why it could not be.
    egress: Result<Standing, String>,
    /// What its counters said before it was last replaced.
    egress_before: (u64, u64),
    /// The socket program, or why it could not be attached.
    sockets: Result<(), String>,
}

/// What a cut is made of.
pub(super) struct Needs<'a> {
    /// What it is for.
    pub(super) programs: Programs,
    /// Whose sockets.
    pub(super) cgroup: (File, PathBuf),
    /// The configured one: not the whole host.
    pub(super) part_of_host: bool,
    /// What stays reachable.
    pub(super) allowed: Allowed,
    /// Queues that an earlier agent made.
    pub(super) queues: Vec<(u32, String)>,
    /// Where pins lie.
    pub(super) pins: &'a Path,
}

/// Why a layer that must stand does not. What was put up is left: the caller takes it down.
pub(super) struct Failed {
    /// In words.
    pub(super) why: String,
    /// For another try.
    pub(super) programs: Programs,
    /// Queues that were made.
    pub(super) queues: Vec<(u32, String)>,
}

impl Cut {
    /// Cuts off. `again` when an older cut stands, which is replaced without a gap.
    ///
    /// # Errors
    /// [`Failed`]
    pub(super) fn make(needs: Needs<'_>, again: bool) -> Result<Self, Box<Failed>> {
        let Needs { mut programs, cgroup: (cgroup, cgroup_path), allowed, queues, .. } = needs;
        let begun = prepare_pins(needs.pins)
            .and_then(|()| programs.allow(&allowed))
            .and_then(|()| if again { Ok(()) } else { programs.reset_counts() })
            .and_then(|()| programs.attach_sockets(&cgroup))
            .and_then(|()| links::list().map_err(|error| format!("list interfaces: {error}")));
        let interfaces = match begun {
            Ok(interfaces) => interfaces,
            Err(why) => return Err(Box::new(Failed { why, programs, queues })),
        };
        let before =
            if again { egress::standing().map(|standing| standing.dropped) } else { Ok((0, 0)) };
        let egress = egress::apply(&interfaces, &allowed)
            .and_then(|()| egress::standing())
            .map_err(|error| egress_note(&error));
        let mut cut = Self {
            programs,
            cgroup,
            cgroup_path,
            whole_host: !needs.part_of_host,
            allowed,
            interfaces: Vec::new(),
            open: Vec::new(),
            queues,
            egress,
            egress_before: before.unwrap_or_default(),
            sockets: Err("not yet".to_owned()),
        };
        for interface in interfaces {
            cut.cut_off(interface);
        }
        let whole = match cut.open.first() {
            Some(first) => Err(format!("an interface could not be cut off: {first}")),
            None => cut.programs.pin_counts(),
        };
        match whole {
            Ok(()) => Ok(cut),
            Err(why) => Err(Box::new(Failed { why, programs: cut.programs, queues: cut.queues })),
        }
    }

    /// What is not urgent: the proof of the lowest layer, and the layer that needs the kernel's
    /// types, which takes a moment.
    pub(super) fn finish(&mut self) {
        if self.egress.is_ok()
            && let Err(why) = self.prove_egress()
        {
            self.egress = Err(why);
        }
        self.deny_new_sockets();
    }

    /// Sends one harmless frame past the queues: it must be counted as dropped.
    fn prove_egress(&self) -> Result<(), String> {
        // For local experiments (IEEE 802), from nobody to nobody.
        let mut frame = [0; 60];
        frame[12..14].copy_from_slice(&[0x88, 0xb5]);
        let dropped = || egress::standing().map(|now| now.dropped.0).map_err(|e| e.to_string());
        for interface in self.interfaces.iter().filter(|interface| interface.framed) {
            let before = dropped()?;
            let sent = Sender::open(interface.index, true).and_then(|to| to.send(&frame));
            match sent {
                Err(error) if error.raw_os_error() != Some(libc::ENOBUFS) => {
                    // Down, or gone: the next one tells.
                    tracing::debug!(%error, interface = interface.name, "no proof of egress");
                }
                _ if dropped()? > before => return Ok(()),
                _ => return Err("the chain stands and does not drop".to_owned()),
            }
        }
        Ok(())
    }

    fn deny_new_sockets(&mut self) {
        let cgroup = if self.whole_host { Ok(None) } else { self.cgroup_number().map(Some) };
        let packet_sockets = self.egress.is_err();
        self.sockets = cgroup
            .and_then(|cgroup| self.programs.attach_socket_create(cgroup, packet_sockets))
            .and_then(|()| self.prove_new_sockets());
    }

    /// A security program may load, attach and never run: one socket tells.
    fn prove_new_sockets(&self) -> Result<(), String> {
        if !self.whole_host {
            // This process is not one of those that are cut off.
            return Ok(());
        }
        let flags = rustix::net::SocketFlags::CLOEXEC;
        let family = rustix::net::AddressFamily::XDP;
        match rustix::net::socket_with(family, rustix::net::SocketType::RAW, flags, None) {
            Err(rustix::io::Errno::PERM) => Ok(()),
            Ok(_) => Err("the program is attached and has no effect".to_owned()),
            Err(error) => Err(format!("its effect cannot be seen: {error}")),
        }
    }

    /// Number and depth of the cgroup.
    fn cgroup_number(&self) -> Result<(u64, u32), String> {
        let id = self.cgroup.metadata().map_err(|error| error.to_string())?.ino();
        let mut level = 0;
        let mut folder = self.cgroup_path.as_path();
        // The root alone has no such file.
        while folder.join("cgroup.type").exists() {
            level += 1;
            folder = folder.parent().ok_or("the cgroup has no parent")?;
        }
        Ok((id, level))
    }

    fn cut_off(&mut self, interface: Interface) {
        match self.programs.attach_link(&interface) {
            Ok(made) => {
                let queue = (interface.index, interface.name.clone());
                if made && !self.queues.contains(&queue) {
                    self.queues.push(queue);
                }
                self.interfaces.push(interface);
            }
            // It may have gone since it was listed.
            Err(why) if links::list().is_ok_and(|now| now.contains(&interface)) => {
                self.open.push(why);
            }
            Err(_) => {}
        }
    }

    /// Takes notice of interfaces that came, went or were renamed. True when something changed.
    ///
    /// # Errors
    /// Interfaces cannot be listed.
    pub(super) fn follow_interfaces(&mut self) -> Result<bool, String> {
        let now = links::list().map_err(|error| format!("list interfaces: {error}"))?;
        let new: Vec<Interface> =
            now.iter().filter(|interface| !self.knows(interface)).cloned().collect();
        let open_before = std::mem::take(&mut self.open);
        let gone = self.interfaces.len();
        self.interfaces.retain(|known| now.iter().any(|interface| interface.index == known.index));
        let gone = gone - self.interfaces.len();
        for known in &mut self.interfaces {
            if let Some(interface) = now.iter().find(|interface| interface.index == known.index) {
                known.name.clone_from(&interface.name);
            }
        }
        if !new.is_empty() {
            // The quick layer first.
            let missing: Vec<&Interface> = new.iter().collect();
            if self.egress.is_ok() {
                self.egress = egress::add(&missing)
                    .and_then(|()| egress::standing())
                    .map_err(|error| egress_note(&error));
            }
        }
        let some_new = !new.is_empty();
        for interface in new {
            self.cut_off(interface);
        }
        if gone > 0 {
            self.forget_gone(&now);
        }
        Ok(some_new || gone > 0 || open_before != self.open)
    }

    fn knows(&self, interface: &Interface) -> bool {
        self.interfaces.iter().any(|known| known.index == interface.index)
    }

    /// Pins and chains of interfaces that are no more.
    fn forget_gone(&mut self, now: &[Interface]) {
        let lives = |index: u32| now.iter().any(|interface| interface.index == index);
        self.queues.retain(|(index, _)| lives(*index));
        self.programs.forget_links(lives);
        let Ok(standing) = egress::standing() else { return };
        let stale: Vec<String> = standing
            .chains
            .iter()
            .filter(|chain| egress::index_of(chain).is_some_and(|index| !lives(index)))
            .cloned()
            .collect();
        // The kernel may have been quicker.
        let _ = egress::forget(&stale);
        if self.egress.is_ok() {
            self.egress = egress::standing().map_err(|error| egress_note(&error));
        }
    }

    /// Puts back what somebody took away; what it was, empty when all stood.
    pub(super) fn repair(&mut self) -> Vec<String> {
        let mut broken = Vec::new();
        match self.programs.missing_at_sockets(&self.cgroup) {
            Ok(missing) if missing.is_empty() => {}
            Ok(missing) => {
                let done = self.programs.attach_sockets(&self.cgroup);
                broken.push(told(&format!("{} at the cgroup", missing.join(", ")), done));
            }
            Err(error) => broken.push(format!("the cgroup cannot be looked at: {error}")),
        }
        for interface in self.interfaces.clone() {
            // One that has gone meanwhile is no loss.
            if self.programs.missing_at_link(&interface).is_ok_and(|missing| missing) {
                let done = self.programs.attach_link(&interface).map(|made| {
                    let queue = (interface.index, interface.name.clone());
                    if made && !self.queues.contains(&queue) {
                        self.queues.push(queue);
                    }
                });
                broken.push(told(&format!("a program at {}", interface.name), done));
            }
        }
        if let Ok(expected) = &self.egress
            && let Ok(now) = egress::standing()
            && (!now.chains.is_superset(&expected.chains)
                || !now.rules.is_superset(&expected.rules))
        {
            self.egress_before.0 += now.dropped.0;
            self.egress_before.1 += now.dropped.1;
            self.egress = egress::apply(&self.interfaces, &self.allowed)
                .and_then(|()| egress::standing())
                .map_err(|error| egress_note(&error));
            let done = self.egress.as_ref().map(|_| ()).map_err(Clone::clone);
            broken.push(told("rules of the egress table", done));
        }
        if self.sockets.is_ok() && !self.programs.socket_create_stands() {
            self.deny_new_sockets();
            broken.push(told("the program at new sockets", self.sockets.clone()));
        }
        broken
    }

    /// Queues that were made, for the record.
    pub(super) fn queues(&self) -> &[(u32, String)] {
        &self.queues
    }

    /// What stands.
    pub(super) fn layers(&self) -> Vec<IsolationLayer> {
        let layer = |name: &str, mechanism: &str, standing: bool, note: String| IsolationLayer {
            name: name.to_owned(),
            mechanism: mechanism.to_owned(),
            standing,
            note,
        };
        let names: Vec<&str> =
            self.interfaces.iter().map(|interface| interface.name.as_str()).collect();
        let by = match self.programs.mechanism() {
            Some(Mechanism::Tcx) => "eBPF at tcx, in and out",
            Some(Mechanism::Clsact) => "eBPF filters below clsact, in and out",
            None => "eBPF at traffic control, in and out",
        };
        let covered = |names: Vec<&str>| match names.len() {
            0 => "there is no interface but the loopback".to_owned(),
            count => format!("{count} interfaces: {}", names.join(" ")),
        };
        vec![
            layer(
                "sockets",
                "eBPF at the cgroup, in and out",
                true,
                format!("every socket of {}", self.cgroup_path.display()),
            ),
            layer(
                "interfaces",
                by,
                self.open.is_empty(),
                if self.open.is_empty() { covered(names) } else { self.open.join("; ") },
            ),
            layer(
                "egress",
                "nftables, netdev egress chain of each interface",
                self.egress.is_ok(),
                match &self.egress {
                    Ok(_) => "packet sockets that go past the queues".to_owned(),
                    Err(why) => why.clone(),
                },
            ),
            layer(
                "new sockets",
                "eBPF security hook socket_create",
                self.sockets.is_ok(),
                match &self.sockets {
                    Ok(()) if self.egress.is_err() => "no AF_XDP, no AF_PACKET".to_owned(),
                    Ok(()) => "no AF_XDP".to_owned(),
                    Err(why) => format!("AF_XDP stays possible: {why}"),
                },
            ),
        ]
    }

    /// What was counted, without what is 0.
    pub(super) fn counts(&self) -> Vec<IsolationCount> {
        let mut counts = Vec::new();
        for (hook, at) in HOOKS {
            for (reason, name) in REASONS {
                let counted = self.programs.count(hook, reason);
                if counted.packets > 0 {
                    counts.push(IsolationCount {
                        at: at.to_owned(),
                        reason: name.to_owned(),
                        dropped: !reason.lets_through(),
                        packets: counted.packets,
                        bytes: counted.bytes,
                    });
                }
            }
        }
        let (packets, bytes) = egress::standing().map(|now| now.dropped).unwrap_or_default();
        let (packets, bytes) = (packets + self.egress_before.0, bytes + self.egress_before.1);
        if packets > 0 {
            let (at, reason) = ("egress".to_owned(), "other".to_owned());
            counts.push(IsolationCount { at, reason, dropped: true, packets, bytes });
        }
        counts
    }

    /// Takes everything down, or says what could not be; the programs stay loaded for the next
    /// time.
    pub(super) fn remove(self, pins: &Path) -> (Programs, Result<(), String>) {
        let removed = remove(pins, &self.queues);
        (self.programs, removed)
    }
}

/// Takes down whatever an agent has put up, this one or one before.
///
/// # Errors
/// What could not be taken down; the rest is.
pub(super) fn remove(pins: &Path, queues: &[(u32, String)]) -> Result<(), String> {
    let programs = programs::remove(pins, queues).map_err(|error| format!("programs: {error}"));
    let rules = egress::remove().map(drop).map_err(|error| format!("egress table: {error}"));
    programs.and(rules)
}

fn told(what: &str, done: Result<(), String>) -> String {
    match done {
        Ok(()) => format!("{what} had been taken away or pushed aside, and is in its place again"),
        Err(why) => {
            format!("{what} had been taken away or pushed aside, and cannot be put back: {why}")
        }
    }
}

fn egress_note(error: &std::io::Error) -> String {
    let known = matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::ENOENT | libc::EPROTONOSUPPORT | libc::EINVAL)
    );
    let kernel = if known { "; Linux 5.16 with NETFILTER_EGRESS and nf_tables has it" } else { "" };
    format!("packet sockets that go past the queues are not stopped: {error}{kernel}")
}

/// A folder for pins, on a BPF file system that is mounted for it if need be.
fn prepare_pins(pins: &Path) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", pins.display());
    let on_bpf = |path: &Path| {
        path.ancestors()
            .find(|path| path.exists())
            .and_then(|path| rustix::fs::statfs(path).ok())
            .is_some_and(|found| found.f_type == BPF_MAGIC)
    };
    if !on_bpf(pins) && pins.starts_with(BPF_MOUNT) {
        rustix::mount::mount("bpf", BPF_MOUNT, "bpf", rustix::mount::MountFlags::empty(), None)
            .map_err(|error| format!("mount {BPF_MOUNT}: {error}"))?;
    }
    if !on_bpf(pins) {
        return Err(failed(&"is not on a BPF file system"));
    }
    fs::create_dir_all(pins).map_err(|error| failed(&error))
}
