//! File systems of a test's own, mounted below a temporary folder.
//!
//! Invariant: what was mounted is unmounted on drop, after a panic too, and the loop device goes
//! with the mount. What a killed test left is swept by the next. Never hands out a path on one of
//! the machine's own file systems.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

/// Temporary folders start so, followed by the pid of their test.
const PREFIX: &str = "holdfast-scratch-";

/// mkfs.xfs refuses less than 300 MiB (xfsprogs 5.19). The image is sparse.
const XFS_SIZE: u64 = 320 << 20;

/// Bytes of an ext4 where nobody asks for a size.
const EXT4_SIZE: u64 = 256 << 20;

/// A mounted file system and the folder that it lies in.
#[derive(Debug)]
pub struct Scratch {
    /// In the order of mounting.
    mounts: Vec<PathBuf>,
    root: PathBuf,
    /// Of an overlay; else empty.
    layers: PathBuf,
    /// Unmounting comes first: it is dropped after the mounts are gone.
    folder: TempDir,
}

impl Scratch {
    /// ext4 of 256 MiB on a loop device.
    ///
    /// # Errors
    /// When mkfs.ext4 or the mount fails; without root always.
    pub fn ext4() -> Result<Self> {
        Self::ext4_sized(EXT4_SIZE)
    }

    /// ext4 of so many bytes on a loop device; sparse, so that 5 GiB cost nothing until written.
    ///
    /// # Errors
    /// As [`Scratch::ext4`].
    pub fn ext4_sized(bytes: u64) -> Result<Self> {
        let mut scratch = Self::empty()?;
        scratch.mount_image("mkfs.ext4", &["-q", "-F", "-E", "lazy_itable_init=1"], bytes)?;
        Ok(scratch)
    }

    /// xfs on a loop device.
    ///
    /// # Errors
    /// When mkfs.xfs or the mount fails; [`kernel_mounts`] tells whether the kernel can.
    pub fn xfs() -> Result<Self> {
        let mut scratch = Self::empty()?;
        scratch.mount_image("mkfs.xfs", &["-q"], XFS_SIZE)?;
        Ok(scratch)
    }

    /// tmpfs of so many bytes.
    ///
    /// # Errors
    /// When the mount fails.
    pub fn tmpfs(bytes: u64) -> Result<Self> {
        let mut scratch = Self::empty()?;
        let options = format!("size={bytes},mode=0755");
        scratch.mount_on(scratch.root.clone(), "tmpfs", &options)?;
        Ok(scratch)
    }

    /// overlayfs whose layers lie on an ext4 of their own; see [`Scratch::lower`].
    ///
    /// # Errors
    /// As [`Scratch::ext4`], and when the kernel has no overlayfs.
    pub fn overlay() -> Result<Self> {
        let mut scratch = Self::empty()?;
        let merged = scratch.root.clone();
        scratch.root = scratch.base().join("layers");
        fs::create_dir(&scratch.root)?;
        scratch.mount_image("mkfs.ext4", &["-q", "-F"], EXT4_SIZE)?;
        scratch.layers = std::mem::replace(&mut scratch.root, merged);
        scratch.mount_layers()?;
        Ok(scratch)
    }

    /// overlayfs whose layers are made in this folder, which the caller removes.
    ///
    /// # Errors
    /// When the kernel has no overlayfs, or the folder holds layers already.
    pub fn overlay_on(layers: &Path) -> Result<Self> {
        let mut scratch = Self::empty()?;
        layers.clone_into(&mut scratch.layers);
        scratch.mount_layers()?;
        Ok(scratch)
    }

    /// The mount point.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Whether it is of this kind, as the kernel names it.
    #[must_use]
    pub fn is(&self, kind: &str) -> bool {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let root = self.root.display().to_string();
        mounts.lines().any(|line| {
            let mut fields = line.split(' ').skip(1);
            fields.next() == Some(root.as_str()) && fields.next() == Some(kind)
        })
    }

    /// A path in it.
    #[must_use]
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    /// The lower layer of an overlay; write to it before reading through the overlay.
    #[must_use]
    pub fn lower(&self) -> PathBuf {
        self.layers.join("lower")
    }

    fn empty() -> Result<Self> {
        sweep();
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir()?;
        let root = folder.path().join("root");
        fs::create_dir(&root)?;
        Ok(Self { mounts: Vec::new(), root, layers: PathBuf::new(), folder })
    }

    fn base(&self) -> &Path {
        self.folder.path()
    }

    fn mount_image(&mut self, mkfs: &str, options: &[&str], bytes: u64) -> Result<()> {
        let image = self.base().join("image");
        File::create(&image)?.set_len(bytes)?;
        run(Command::new(mkfs).args(options).arg(&image))?;
        // `loop` frees the device with the mount, a lazy one too.
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&self.root))?;
        self.mounts.push(self.root.clone());
        Ok(())
    }

    fn mount_layers(&mut self) -> Result<()> {
        for layer in ["lower", "upper", "work"] {
            fs::create_dir(self.layers.join(layer))?;
        }
        let at = |layer: &str| self.layers.join(layer).display().to_string();
        let options =
            format!("lowerdir={},upperdir={},workdir={}", at("lower"), at("upper"), at("work"));
        self.mount_on(self.root.clone(), "overlay", &options)
    }

    fn mount_on(&mut self, target: PathBuf, kind: &str, options: &str) -> Result<()> {
        mount(Some(kind), &target, Some(kind), MsFlags::empty(), Some(options))
            .with_context(|| format!("mount {kind} on {}", target.display()))?;
        self.mounts.push(target);
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        while let Some(target) = self.mounts.pop() {
            if let Err(error) = unmount(&target) {
                eprintln!("{} stays mounted: {error}", target.display());
            }
        }
    }
}

/// Whether the running kernel knows a file system now, its module being loaded or built in, or can
/// load it.
#[must_use]
pub fn kernel_mounts(kind: &str) -> bool {
    let known = || {
        fs::read_to_string("/proc/filesystems")
            .is_ok_and(|list| list.lines().any(|line| line.split_whitespace().last() == Some(kind)))
    };
    // A missing modprobe or module leaves it unknown, which is the answer.
    known() || (Command::new("modprobe").args(["-q", kind]).status().is_ok() && known())
}

/// In order while nobody uses it; after a short wait the name alone goes, the rest when the last
/// user ends.
fn unmount(target: &Path) -> nix::Result<()> {
    let freed = crate::until(Duration::from_secs(2), || match umount2(target, MntFlags::empty()) {
        Err(Errno::EBUSY) => None,
        result => Some(result),
    });
    freed.unwrap_or_else(|| umount2(target, MntFlags::MNT_DETACH))
}

/// Unmount and remove what tests that were killed left behind.
fn sweep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        // Later mounts lie on earlier ones.
        for target in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
            if Path::new(target)
                .components()
                .any(|part| is_orphan(&part.as_os_str().to_string_lossy()))
            {
                let _ = umount2(target, MntFlags::MNT_DETACH);
            }
        }
        for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
            if is_orphan(&entry.file_name().to_string_lossy()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    });
}

/// Whether a folder's name is of a scratch whose process is gone.
fn is_orphan(name: &str) -> bool {
    name.strip_prefix(PREFIX)
        .and_then(|rest| rest.split('-').next()?.parse::<u32>().ok())
        .is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_of_gone_processes_are_swept() {
        assert!(is_orphan("holdfast-scratch-4294967290-abc"));
        assert!(!is_orphan(&format!("holdfast-scratch-{}-abc", std::process::id())));
        assert!(!is_orphan("holdfast-scratch-x-abc"));
        assert!(!is_orphan("home"));
    }
}
