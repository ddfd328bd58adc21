//! The guest's root file system: a cpio archive in the kernel's "newc" format, built in memory.
//!
//! Holds our own binaries as they are shipped, with the dynamic libraries that they name, busybox,
//! and the kernel's modules. See Documentation/driver-api/early-userspace/buffer-format.rst.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use super::kernels::Kernel;
use crate::shell;

/// Our binaries in target/release and where they lie in the guest.
const BINARIES: &[(&str, &str)] = &[
    ("guest", "/init"),
    ("holdfastd", "/usr/bin/holdfastd"),
    ("holdfast", "/usr/bin/holdfast"),
    ("holdfast-scan", "/usr/bin/holdfast-scan"),
];

/// Programs of this machine that guests run too; those that are missing are left out.
const PROGRAMS: &[&str] = &["tcpdump", "ip", "tc"];

/// Folders that the guest mounts on or writes to.
const FOLDERS: &[&str] =
    &["/proc", "/sys", "/dev", "/run", "/tmp", "/mnt", "/etc", "/root", "/var"];

/// Debian's tcpdump changes to a user of its own.
const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n\
    tcpdump:x:100:100::/:/bin/false\n\
    nobody:x:65534:65534::/:/bin/false\n";

const GROUP: &[u8] = b"root:x:0:\ntcpdump:x:100:\nnogroup:x:65534:\n";

/// The archive for one kernel.
pub(super) fn build(root: &Path, kernel: &Kernel) -> anyhow::Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in FOLDERS {
        archive.folder(Path::new(folder))?;
    }
    archive.entry("/dev/console", Node { mode: 0o020_600, device: (5, 1) }, &[])?;
    archive.entry("/etc/passwd", Node::file(0o644), PASSWD)?;
    archive.entry("/etc/group", Node::file(0o644), GROUP)?;

    let release = root.join("target/release");
    let mut programs: Vec<(PathBuf, PathBuf)> =
        BINARIES.iter().map(|(from, to)| (release.join(from), PathBuf::from(to))).collect();
    for program in PROGRAMS {
        if let Some(from) = shell::find(program) {
            programs.push((from, Path::new("/usr/bin").join(program)));
        }
    }
    let busybox = shell::require("busybox")?;
    programs.push((busybox.clone(), "/bin/busybox".into()));
    for (from, to) in &programs {
        archive.file(from, to)?;
    }
    for library in libraries(programs.iter().map(|(from, _)| from.as_path()))? {
        archive.file(&library, &library)?;
    }
    for applet in shell::output(Command::new(&busybox).arg("--list-full"))?.lines() {
        let link = Path::new("/").join(applet);
        if link != Path::new("/bin/busybox") {
            archive.link(&link, "/bin/busybox")?;
        }
    }
    archive.tree(&kernel.modules(), Path::new("/"))?;
    archive.finish()
}

/// The dynamic libraries, and the loader, that these programs name, as ldd(1) resolves them.
fn libraries<'a>(programs: impl Iterator<Item = &'a Path>) -> anyhow::Result<BTreeSet<PathBuf>> {
    let mut libraries = BTreeSet::new();
    for program in programs {
        // ldd fails on static programs, which need nothing.
        let Ok(lines) = shell::output(Command::new("ldd").arg(program)) else { continue };
        for line in lines.lines() {
            let place = line.split_once("=>").map_or(line, |(_, place)| place);
            let place = place.split_whitespace().next().unwrap_or_default();
            if place.starts_with('/') {
                libraries.insert(PathBuf::from(place));
            }
        }
    }
    Ok(libraries)
}

/// Mode with the file type bits, and the device number of a device node.
#[derive(Clone, Copy)]
struct Node {
    mode: u32,
    device: (u32, u32),
}

impl Node {
    const fn file(permissions: u32) -> Self {
        Self { mode: 0o100_000 | permissions, device: (0, 0) }
    }
}

/// A newc archive being written. Parents are made before what lies in them, each once.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    names: BTreeSet<PathBuf>,
    inode: u32,
}

impl Archive {
    fn folder(&mut self, path: &Path) -> anyhow::Result<()> {
        if path == Path::new("/") || self.names.contains(path) {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.folder(parent)?;
        }
        self.entry(path, Node { mode: 0o040_755, device: (0, 0) }, &[])
    }

    fn file(&mut self, from: &Path, to: &Path) -> anyhow::Result<()> {
        let data = fs::read(from).with_context(|| format!("read {}", from.display()))?;
        let permissions = fs::metadata(from)?.permissions().mode() & 0o777;
        self.entry(to, Node::file(permissions), &data)
    }

    fn link(&mut self, path: &Path, target: &str) -> anyhow::Result<()> {
        if self.names.contains(path) {
            return Ok(());
        }
        self.entry(path, Node { mode: 0o120_777, device: (0, 0) }, target.as_bytes())
    }

    fn tree(&mut self, from: &Path, to: &Path) -> anyhow::Result<()> {
        for entry in fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
            let entry = entry?;
            let target = to.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                self.tree(&entry.path(), &target)?;
            } else {
                self.file(&entry.path(), &target)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: impl AsRef<Path>, node: Node, data: &[u8]) -> anyhow::Result<()> {
        let path = path.as_ref();
        if let Some(parent) = path.parent() {
            self.folder(parent)?;
        }
        self.names.insert(path.to_owned());
        let name = path.strip_prefix("/").context("paths in the archive are absolute")?;
        self.record(name.as_os_str().as_bytes(), node, data)
    }

    fn record(&mut self, name: &[u8], node: Node, data: &[u8]) -> anyhow::Result<()> {
        self.inode += 1;
        let size = u32::try_from(data.len()).context("newc holds files below 4 GiB")?;
        let name_size = u32::try_from(name.len() + 1)?;
        let (major, minor) = node.device;
        // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        let fields = [self.inode, node.mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            write!(self.bytes, "{field:08x}")?;
        }
        self.bytes.extend_from_slice(name);
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> anyhow::Result<Vec<u8>> {
        self.record(b"TRAILER!!!", Node { mode: 0, device: (0, 0) }, &[])?;
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_aligned_and_parents_come_first() {
        let mut archive = Archive::default();
        archive.entry("/a/b/c", Node::file(0o644), b"hello").expect("fits");
        let bytes = archive.finish().expect("fits");
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        let starts: Vec<usize> = text.match_indices("070701").map(|(at, _)| at).collect();
        assert_eq!(starts.len(), 4, "a, a/b, a/b/c and the trailer");
        assert!(starts.iter().all(|at| at % 4 == 0));
        let names: Vec<&str> = starts
            .iter()
            .map(|at| text[at + 110..].split('\0').next().expect("ends with NUL"))
            .collect();
        assert_eq!(names, ["a", "a/b", "a/b/c", "TRAILER!!!"]);
    }
}
