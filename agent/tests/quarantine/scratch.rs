//! File systems of the tests' own, files on them, and what the tests look at.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use holdfast_agent::quarantine::{Sealed, Sealing, Vault, VaultError};
use holdfast_common::verdict::{Engine, ScanType, Signature};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// A mount that goes with the test.
pub(crate) struct Scratch {
    root: tempfile::TempDir,
    mounted: Vec<PathBuf>,
}

impl Scratch {
    pub(crate) fn folder() -> Self {
        let root = tempfile::Builder::new().prefix("vault-test-").tempdir().expect("scratch");
        Self { root, mounted: Vec::new() }
    }

    pub(crate) fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.root.path().join(name.as_ref())
    }

    pub(crate) fn make_folder(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir(&path).expect("folder");
        path
    }

    pub(crate) fn tmpfs(&mut self, name: &str, options: &str) -> PathBuf {
        let path = self.make_folder(name);
        let options = std::ffi::CString::new(options).expect("options");
        mount("tmpfs", &path, "tmpfs", MountFlags::empty(), options.as_c_str()).expect("tmpfs");
        self.mounted.push(path.clone());
        path
    }

    pub(crate) fn overlay(&mut self, name: &str) -> PathBuf {
        let layers = self.tmpfs(&format!("{name}-layers"), "size=16m,mode=700");
        for layer in ["lower", "upper", "work"] {
            std::fs::create_dir(layers.join(layer)).expect("layer");
        }
        let path = self.make_folder(name);
        let at = layers.display();
        let options = format!("lowerdir={at}/lower,upperdir={at}/upper,workdir={at}/work");
        let options = std::ffi::CString::new(options).expect("options");
        mount("overlay", &path, "overlay", MountFlags::empty(), options.as_c_str())
            .expect("overlay");
        self.mounted.push(path.clone());
        path
    }

    /// A file system on a loop device.
    pub(crate) fn loop_mount(&mut self, name: &str, fs: &str, mebibytes: u64) -> PathBuf {
        let image = self.path(format!("{name}.img"));
        File::create(&image).expect("image").set_len(mebibytes << 20).expect("size");
        run(Command::new(format!("mkfs.{fs}")).arg("-q").arg(&image));
        let path = self.make_folder(name);
        run(Command::new("mount").args(["-o", "loop"]).args([&image, &path]));
        self.mounted.push(path.clone());
        path
    }

    pub(crate) fn ext4(&mut self) -> PathBuf {
        self.loop_mount("ext4", "ext4", 32)
    }

    pub(crate) fn vault(&self) -> Vault {
        Vault::open(&self.path("state"), 1 << 30).expect("vault")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for path in self.mounted.iter().rev() {
            let _ = unmount(path, UnmountFlags::DETACH);
        }
    }
}

pub(crate) fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

pub(crate) fn sealing(path: &Path) -> Sealing {
    Sealing {
        path: path.to_owned(),
        signature: Signature { name: "Test.Marker".to_owned(), engine: Engine::Hash },
        scan_type: ScanType::OnOpen,
        process: None,
        sha256: None,
    }
}

pub(crate) fn seal(vault: &Vault, path: &Path) -> Result<Sealed, VaultError> {
    let file = File::open(path).expect("open");
    vault.seal(file.as_fd(), &sealing(path))
}

/// Names in a folder, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("folder")
        .map(|entry| String::from_utf8_lossy(entry.expect("entry").file_name().as_bytes()).into())
        .collect();
    names.sort();
    names
}

/// Containers of a vault, by their file names.
pub(crate) fn containers(scratch: &Scratch) -> Vec<String> {
    let mut names = names(&scratch.path("state").join("quarantine"));
    names.retain(|name| name != "version");
    names
}
