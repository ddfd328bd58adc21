//! The table of Debian packages: which, for what, and the file that proves it is there.
//!
//! A package is looked for by what it brings, not by its name, so that the same thing from another
//! source counts. Names are those of Debian 12 and 13.

use std::path::Path;
use std::process::Command;

use crate::shell;

/// What a package is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Every build.
    Build,
    /// The manager's web page, and so the manager.
    Console,
    /// The checks: no package, but parts of the Rust toolchain.
    Check,
    /// The eBPF object by the distribution's toolchain.
    Bpf,
    /// The tests.
    Test,
    /// The demonstration run.
    Run,
}

/// What shows that a package is there.
#[derive(Debug, Clone, Copy)]
enum Proof {
    /// A program.
    Program(&'static str),
    /// A program whose name differs between the releases.
    OneOf(&'static [&'static str]),
    /// Node.js, of a version that the console's tools run on.
    Node,
    /// A file at this place.
    File(&'static str),
    /// Debian's package itself: what it brings has the same place as another's.
    Dpkg,
    /// A folder entry that starts with a prefix: (folder, prefix).
    Entry(&'static str, &'static str),
}

/// One row.
pub(crate) struct Package {
    /// Debian's name.
    pub(crate) name: &'static str,
    /// For which commands.
    pub(crate) need: Need,
    /// Shown before it is installed.
    pub(crate) why: &'static str,
    /// Packages that cannot stand beside it.
    pub(crate) conflicts: &'static [&'static str],
    proof: Proof,
}

impl Package {
    const fn new(name: &'static str, need: Need, proof: Proof, why: &'static str) -> Self {
        Self { name, need, why, conflicts: &[], proof }
    }

    /// Whether this machine has it.
    pub(crate) fn present(&self) -> bool {
        match self.proof {
            Proof::Program(program) => shell::find(program).is_some(),
            Proof::OneOf(names) => names.iter().any(|name| shell::find(name).is_some()),
            Proof::Node => node_major() >= Some(NODE),
            Proof::File(file) => Path::new(file).exists(),
            Proof::Dpkg => dpkg_installed(self.name),
            Proof::Entry(folder, prefix) => std::fs::read_dir(folder).is_ok_and(|entries| {
                entries
                    .filter_map(Result::ok)
                    .any(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
            }),
        }
    }
}

/// Oldest Node.js that builds the console: Debian 12's.
const NODE: u32 = 18;

/// Major version of the Node.js that is here.
fn node_major() -> Option<u32> {
    let version = shell::output(Command::new("node").arg("--version")).ok()?;
    version.trim().strip_prefix('v')?.split('.').next()?.parse().ok()
}

/// Whether dpkg says that a package is installed; no where there is no dpkg.
pub(crate) fn dpkg_installed(package: &str) -> bool {
    shell::output(Command::new("dpkg-query").args(["-W", "-f=${db:Status-Status}", package]))
        .is_ok_and(|status| status == "installed")
}

/// Folder of the compiled `core` that `libstd-rust-web-dev-bpf` brings.
const BPF_CORE: &str = "/usr/lib/rustlib/bpfel-unknown-none/lib";

/// All of them.
pub(crate) const PACKAGES: &[Package] = &[
    Package::new("gcc", Need::Build, Proof::Program("cc"), "links Rust programs, compiles SQLite"),
    Package::new(
        "libc6-dev",
        Need::Build,
        Proof::File("/usr/include/stdio.h"),
        "C library headers for the same",
    ),
    Package {
        conflicts: &["rustc", "rustup"],
        ..Package::new(
            "rustc-web",
            Need::Bpf,
            Proof::Dpkg,
            "the compiler that has a ready core library for BPF",
        )
    },
    Package::new(
        "libstd-rust-web-dev-bpf",
        Need::Bpf,
        Proof::Entry(BPF_CORE, "libcore-"),
        "Rust's core library, compiled for BPF",
    ),
    Package::new(
        "llvm-22-dev",
        Need::Bpf,
        Proof::File("/usr/lib/llvm-22/bin/llvm-config"),
        "LLVM, which bpf-linker is built on",
    ),
    Package::new(
        "libzstd-dev",
        Need::Bpf,
        Proof::File("/usr/include/zstd.h"),
        "a library that LLVM links to",
    ),
    Package::new(
        "g++",
        Need::Bpf,
        Proof::Entry("/usr/include/c++", "1"),
        "the C++ library that LLVM links to",
    ),
    Package::new(
        "nodejs",
        Need::Console,
        Proof::Node,
        "runs what builds the manager's web page (18 or newer)",
    ),
    Package::new(
        "npm",
        Need::Console,
        Proof::Program("npm"),
        "fetches what that is built with, by the hashes of its lock file",
    ),
    Package::new(
        "chromium",
        Need::Test,
        Proof::Program("chromium"),
        "the browser that the console is tested in",
    ),
    Package::new(
        "qemu-system-x86",
        Need::Test,
        Proof::Program("qemu-system-x86_64"),
        "virtual machines with other kernels",
    ),
    Package::new(
        "busybox-static",
        Need::Test,
        Proof::Program("busybox"),
        "the tools inside the virtual machines",
    ),
    Package::new(
        "kmod",
        Need::Test,
        Proof::Program("depmod"),
        "kernel modules of the virtual machines",
    ),
    Package::new("xz-utils", Need::Test, Proof::Program("xz"), "unpacks those modules"),
    Package::new("xfsprogs", Need::Test, Proof::Program("mkfs.xfs"), "scratch xfs file systems"),
    Package::new(
        "libarchive-tools",
        Need::Test,
        Proof::Program("bsdtar"),
        "opens exported zips as an analyst would",
    ),
    Package::new(
        "7zip",
        Need::Test,
        // Debian 12 and 13.
        Proof::OneOf(&["7zz", "7z"]),
        "opens exported zips as an analyst would",
    ),
    Package::new(
        "iproute2",
        Need::Test,
        Proof::Program("ip"),
        "network namespaces of the sniffing and isolation tests",
    ),
    Package::new(
        "nftables",
        Need::Test,
        Proof::Program("nft"),
        "other people's rules, which the isolation must not change",
    ),
    Package::new(
        "tinyproxy-bin",
        Need::Test,
        Proof::Program("tinyproxy"),
        "the proxy between an agent and its manager",
    ),
    Package::new(
        "postgresql",
        Need::Test,
        // The server's own programs are on no path.
        Proof::Entry("/usr/lib/postgresql", "1"),
        "a PostgreSQL of the manager's tests, in a folder of its own",
    ),
    Package::new(
        "util-linux",
        Need::Test,
        Proof::Program("setpriv"),
        "runs that server as another user, and ends it with the tests",
    ),
    Package::new(
        "python3-aiosmtpd",
        Need::Test,
        Proof::Dpkg,
        "the mail server that the manager's tests send alerts to",
    ),
    Package::new(
        "faketime",
        Need::Test,
        Proof::Program("faketime"),
        "sets the clock of a manager under test, and of nobody else",
    ),
    Package::new(
        "e2fsprogs",
        Need::Run,
        Proof::Program("mkfs.ext4"),
        "the file system that is protected",
    ),
    Package::new("tcpdump", Need::Run, Proof::Program("tcpdump"), "the sniffer that must be seen"),
    Package::new(
        "python3",
        Need::Run,
        Proof::Program("python3"),
        "a sniffer in four lines that must be seen",
    ),
    Package::new("wget", Need::Run, Proof::Program("wget"), "the download that must be held"),
    Package::new("curl", Need::Run, Proof::Program("curl"), "the download that must be held"),
];
