//! A network of a test's own: a host that may be cut off, the world outside, a container.
//!
//! ```text
//!   container ── c0 │ hc0 ── host ── hp0 │ p0 ── outside
//!   10.78.0.2          10.78.0.1   10.77.0.1      10.77.0.2, .3
//!   fd78::2            fd78::1     fd77::1        fd77::2, ::3
//! ```
//!
//! INVARIANT: three network namespaces, a child cgroup and a BPF file system that live as long as
//! the [`Lab`]; nothing of the machine's own network is touched. What a killed test left is swept
//! by the next.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns};
use tempfile::TempDir;

/// Names of namespaces and cgroups start so, followed by the pid of their test.
const PREFIX: &str = "holdfast-lab-";

/// The host's side towards the outside, and the outside's.
pub const HOST_INTERFACE: &str = "hp0";
/// The outside's interface.
pub const OUTSIDE_INTERFACE: &str = "p0";

/// The network.
#[derive(Debug)]
pub struct Lab {
    name: String,
    /// Holds the BPF file system.
    folder: TempDir,
    cgroup: PathBuf,
}

impl Lab {
    /// Builds it.
    ///
    /// # Errors
    /// When iproute2, cgroups of version 2 or a kernel part is missing; without root always.
    pub fn new() -> Result<Self> {
        sweep();
        let unique = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{}-", std::process::id()))
            .tempdir()?;
        let name = unique
            .path()
            .file_name()
            .and_then(|name| name.to_str())
            .context("temporary names are UTF-8")?
            .to_owned();
        let cgroup = cgroup_root()?.join(&name);
        let lab = Self { name, folder: unique, cgroup };
        lab.build().inspect_err(|error| eprintln!("lab: {error:#}"))?;
        Ok(lab)
    }

    fn build(&self) -> Result<()> {
        fs::create_dir(&self.cgroup)?;
        let bpf = self.folder.path().join("bpf");
        fs::create_dir(&bpf)?;
        mount(Some("bpf"), &bpf, Some("bpf"), MsFlags::empty(), None::<&str>)
            .context("mount a BPF file system")?;
        for side in ["host", "outside", "container"] {
            ip(&["netns", "add", &self.side(side)])?;
            ip(&["-n", &self.side(side), "link", "set", "lo", "up"])?;
            // Link-local addresses are there at once.
            self.inside(side, || {
                fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0")?;
                Ok(fs::write("/proc/sys/net/ipv6/conf/all/accept_dad", "0")?)
            })?;
        }
        self.pair(("host", HOST_INTERFACE), ("outside", OUTSIDE_INTERFACE))?;
        self.pair(("host", "hc0"), ("container", "c0"))?;
        for (side, interface, addresses) in [
            ("host", HOST_INTERFACE, &["10.77.0.1/24", "fd77::1/64"][..]),
            ("host", "hc0", &["10.78.0.1/24", "fd78::1/64"]),
            (
                "outside",
                OUTSIDE_INTERFACE,
                &["10.77.0.2/24", "10.77.0.3/24", "fd77::2/64", "fd77::3/64"],
            ),
            ("container", "c0", &["10.78.0.2/24", "fd78::2/64"]),
        ] {
            for address in addresses {
                let mut words = vec!["-n", "", "addr", "add", address, "dev", interface];
                let side = self.side(side);
                words[1] = &side;
                if address.contains(':') {
                    // Duplicate address detection would take seconds.
                    words.push("nodad");
                }
                ip(&words)?;
            }
        }
        for (side, to, via) in [
            ("container", "10.77.0.0/24", "10.78.0.1"),
            ("container", "fd77::/64", "fd78::1"),
            ("outside", "10.78.0.0/24", "10.77.0.1"),
            ("outside", "fd78::/64", "fd77::1"),
        ] {
            ip(&["-n", &self.side(side), "route", "add", to, "via", via])?;
        }
        self.inside("host", || {
            fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
            fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
            Ok(())
        })
    }

    /// Two interfaces that are wired to each other, up.
    ///
    /// # Errors
    /// When the kernel has no veth.
    pub fn pair(&self, (side, one): (&str, &str), (other, two): (&str, &str)) -> Result<()> {
        let (side, other) = (self.side(side), self.side(other));
        let words = ["-n", &side, "link", "add", one, "type", "veth", "peer", "name", two];
        ip(&[&words[..], &["netns", &other]].concat())?;
        ip(&["-n", &side, "link", "set", one, "up"])?;
        ip(&["-n", &other, "link", "set", two, "up"])
    }

    /// The name of a namespace, as ip(8) knows it: of `host`, `outside` or `container`.
    #[must_use]
    pub fn side(&self, side: &str) -> String {
        format!("{}-{side}", self.name)
    }

    /// The cgroup that may be cut off.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// The folder for pins.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        self.folder.path().join("bpf/isolation")
    }

    /// The path of a namespace.
    #[must_use]
    pub fn namespace(&self, side: &str) -> PathBuf {
        Path::new("/run/netns").join(self.side(side))
    }

    /// A program in a namespace; on the host and in the container also in the cgroup. `guest` is
    /// the container without the cgroup.
    #[must_use]
    pub fn command(&self, side: &str, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        let namespace = self.namespace(if side == "guest" { "container" } else { side });
        command.arg(format!("--net={}", namespace.display()));
        if side == "outside" || side == "guest" {
            command.arg(program);
        } else {
            let script = r#"echo $$ > "$0/cgroup.procs" && exec "$@""#;
            command.args(["sh", "-c", script]).arg(&self.cgroup).arg(program);
        }
        command
    }

    /// Does something on a thread in a namespace.
    ///
    /// # Errors
    /// What it returns.
    pub fn inside<T: Send>(&self, side: &str, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        within(&self.namespace(side), act)
    }

    /// The `[isolation]` table of a config for this lab, with these lines in it.
    #[must_use]
    pub fn config(&self, lines: &str) -> String {
        format!(
            "[isolation]\ncgroup = \"{}\"\npins = \"{}\"\n{lines}\n",
            self.cgroup.display(),
            self.pins().display()
        )
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // What still runs in the cgroup was started by this test.
        let _ = fs::write(self.cgroup.join("cgroup.kill"), "1");
        for side in ["host", "outside", "container"] {
            let _ = ip(&["netns", "del", &self.side(side)]);
        }
        let _ = umount2(&self.folder.path().join("bpf"), MntFlags::MNT_DETACH);
        let _ =
            crate::until(std::time::Duration::from_secs(5), || fs::remove_dir(&self.cgroup).ok());
    }
}

/// iproute2's ip, to its end.
///
/// # Errors
/// What it says.
pub fn ip(words: &[&str]) -> Result<()> {
    let output =
        Command::new("ip").args(words).stdin(Stdio::null()).output().context("start ip")?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    ensure!(output.status.success(), "ip {}: {said}", words.join(" "));
    Ok(())
}

/// A UDP packet from the host to 10.77.0.3, port 7001, with its Ethernet header, to everybody on
/// the link. The payload is at most 200 bytes long.
#[must_use]
pub fn udp_frame(payload: &[u8]) -> Vec<u8> {
    let total = 28 + payload.len() as u8;
    let mut header =
        [0x45, 0, 0, total, 0, 1, 0, 0, 64, 17, 0, 0, 10, 77, 0, 1, 10, 77, 0, 3].to_vec();
    let sum: u32 = header.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut frame = vec![0xff; 6];
    frame.extend_from_slice(&[2, 0, 0, 0, 0, 1, 8, 0]);
    frame.extend_from_slice(&header);
    // From port 4000 to 7001, without a checksum.
    frame.extend_from_slice(&[0x0f, 0xa0, 0x1b, 0x59, 0, 8 + payload.len() as u8, 0, 0]);
    frame.extend_from_slice(payload);
    frame
}

/// Does something on a thread in a network namespace.
///
/// # Errors
/// What it returns.
pub fn within<T: Send>(namespace: &Path, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let opened =
                fs::File::open(namespace).with_context(|| namespace.display().to_string())?;
            setns(opened, CloneFlags::CLONE_NEWNET)?;
            act()
        });
        thread.join().map_err(|_| anyhow::anyhow!("it panicked"))?
    })
}

fn cgroup_root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((fields.next()?, fields.next()?))
        })
        .find_map(|(at, kind)| (kind == "cgroup2").then(|| PathBuf::from(at)))
        .context("no cgroup file system of version 2")
}

/// Removes what killed tests left.
fn sweep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_orphan(&name) {
                let _ = ip(&["netns", "del", &name]);
            }
        }
        let root = cgroup_root().unwrap_or_default();
        for entry in fs::read_dir(root).into_iter().flatten().flatten() {
            if is_orphan(&entry.file_name().to_string_lossy()) {
                let _ = fs::write(entry.path().join("cgroup.kill"), "1");
                let _ = fs::remove_dir(entry.path());
            }
        }
        for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
            if is_orphan(&entry.file_name().to_string_lossy()) {
                let _ = umount2(&entry.path().join("bpf"), MntFlags::MNT_DETACH);
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    });
}

fn is_orphan(name: &str) -> bool {
    name.strip_prefix(PREFIX)
        .and_then(|rest| rest.split('-').next()?.parse::<u32>().ok())
        .is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}
