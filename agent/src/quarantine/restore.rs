//! Puts an item back as a file: bytes, owner, mode, ACL, extended attributes, times, inode flags.
//!
//! The file is made without a name (`O_TMPFILE`, or under a temporary one where the file system
//! cannot), and gets its name when it is complete and on disk, never in place of another entry.
//! No link is followed in any component: since the file was taken, somebody may have put one there.
//!
//! Invariant: nobody ever sees half a file, and an error leaves nothing behind. Everything that
//! was recorded comes back or the restore fails and says what did not. Does not delete the item.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use holdfast_common::container::{Metadata, from_hex};
use holdfast_common::process::printable;
use rustix::fs::{
    AtFlags, CWD, Gid, IFlags, Mode, OFlags, RenameFlags, Timespec, Timestamps, Uid, XattrFlags,
    fchmod, fchown, fsetxattr, fsync, futimens, ioctl_getflags, ioctl_setflags, linkat, openat,
    renameat_with, statat, unlinkat,
};
use rustix::io::Errno;
use uuid::Uuid;

use super::error::{UnsealError, VaultError};
use super::facts::Inode;
use super::locate::{open_folder, split};
use super::remove::sync_folder;
use super::unseal;

/// Inode flags that an administrator sets and that come back.
const FLAGS: IFlags = IFlags::IMMUTABLE.union(IFlags::APPEND).union(IFlags::NODUMP);

/// Where an item goes.
pub(super) struct Target {
    parent: OwnedFd,
    name: OsString,
    path: PathBuf,
}

impl Target {
    /// The folder must exist; the entry must not, which is checked again when it is made.
    pub(super) fn resolve(metadata: &Metadata, to: Option<&Path>) -> Result<Self, VaultError> {
        let recorded = || metadata.path_bytes().map(|bytes| OsString::from_vec(bytes).into());
        let path: PathBuf = to.map(Path::to_owned).or_else(recorded).unwrap_or_default();
        let Some((folder, name)) = split(&path) else {
            return Err(VaultError::BadTarget { path });
        };
        let parent = open_folder(folder)
            .map_err(|source| VaultError::NoFolder { path: folder.to_owned(), source })?;
        let name = name.to_owned();
        match statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(Self { parent, name, path }),
            Ok(_) => Err(VaultError::Exists { path }),
            Err(source) => Err(VaultError::NoFolder { path: folder.to_owned(), source }),
        }
    }

    /// Unseals `container` into a new file with the recorded metadata; on disk when it returns.
    pub(super) fn fill(
        &self,
        container: File,
        key: &super::HostKey,
        metadata: &Metadata,
    ) -> Result<PathBuf, VaultError> {
        let draft = Draft::make(self, metadata.id)?;
        unseal(container, key, &draft.file).map_err(|error| self.unseal_failed(metadata, error))?;
        self.dress(&draft.file, metadata)?;
        draft.publish(self)?;
        let flags = IFlags::from_bits_retain(metadata.inode_flags) & FLAGS;
        if !flags.is_empty()
            && let Err(errno) = ioctl_getflags(&draft.file)
                .and_then(|present| ioctl_setflags(&draft.file, present | flags))
        {
            tracing::warn!(item = %metadata.id, error = %errno, "a restored file lacks its inode flags");
        }
        sync_folder(self.parent.as_fd()).map_err(|errno| self.failed("fsync", errno))?;
        Ok(self.path.clone())
    }

    /// The order matters: chown clears set-uid bits and capabilities, an ACL rewrites the mode's
    /// group bits, and set-uid bits come when everything else is right.
    fn dress(&self, file: &File, metadata: &Metadata) -> Result<(), VaultError> {
        let facts = &metadata.file;
        let (owner, group) = (Uid::from_raw(facts.uid), Gid::from_raw(facts.gid));
        fchown(file, Some(owner), Some(group)).map_err(|errno| self.failed("chown", errno))?;
        fchmod(file, Mode::from_raw_mode(facts.mode & 0o777))
            .map_err(|errno| self.failed("chmod", errno))?;
        for (name, value) in &metadata.xattrs {
            let (Some(name), Some(value)) = (from_hex(name), from_hex(value)) else {
                return Err(self.failed("decoding an extended attribute", Errno::INVAL));
            };
            fsetxattr(file, name.as_slice(), &value, XattrFlags::empty()).map_err(|errno| {
                self.failed(format!("setting extended attribute {}", printable(&name)), errno)
            })?;
        }
        fchmod(file, Mode::from_raw_mode(facts.mode & 0o7777))
            .map_err(|errno| self.failed("chmod", errno))?;
        let time = |(seconds, nanoseconds): (i64, u32)| Timespec {
            tv_sec: seconds,
            tv_nsec: i64::from(nanoseconds),
        };
        let times = Timestamps {
            last_access: time(metadata.atime),
            last_modification: time(metadata.mtime),
        };
        futimens(file, &times).map_err(|errno| self.failed("setting times", errno))?;
        fsync(file).map_err(|errno| self.failed("fsync", errno))
    }

    fn failed(&self, operation: impl Into<String>, source: Errno) -> VaultError {
        VaultError::Restore { path: self.path.clone(), operation: operation.into(), source }
    }

    fn unseal_failed(&self, metadata: &Metadata, error: UnsealError) -> VaultError {
        use holdfast_common::container::OpenError;
        match error {
            UnsealError::Container(OpenError::Write(source)) => {
                let errno = Errno::from_io_error(&source).unwrap_or(Errno::IO);
                self.failed("writing", errno)
            }
            source => VaultError::Open { id: metadata.id, source },
        }
    }
}

/// A file that nobody can open by a name yet, or only under a temporary one.
struct Draft<'a> {
    file: File,
    named: Option<(&'a OwnedFd, String)>,
}

impl<'a> Draft<'a> {
    fn make(target: &'a Target, id: Uuid) -> Result<Self, VaultError> {
        let mode = Mode::RUSR | Mode::WUSR;
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        match openat(&target.parent, ".", flags | OFlags::TMPFILE, mode) {
            Ok(file) => return Ok(Self { file: file.into(), named: None }),
            // Both mean that the file system cannot make files without a name (open(2)).
            Err(Errno::NOTSUP | Errno::ISDIR) => {}
            Err(errno) => return Err(target.failed("creating a file", errno)),
        }
        Self::make_named(target, id)
    }

    fn make_named(target: &'a Target, id: Uuid) -> Result<Self, VaultError> {
        let name = format!(".holdfast-restore-{id}");
        let flags =
            OFlags::RDWR | OFlags::CLOEXEC | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let file = openat(&target.parent, &name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| target.failed(format!("creating {name}"), errno))?;
        Ok(Self { file: file.into(), named: Some((&target.parent, name)) })
    }

    /// Gives the file its name.
    fn publish(&self, target: &Target) -> Result<(), VaultError> {
        let done = match &self.named {
            None => {
                let link = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                linkat(CWD, link, &target.parent, &target.name, AtFlags::SYMLINK_FOLLOW)
            }
            Some((parent, name)) => {
                if !self.is_at(target, name.as_ref()) {
                    return Err(target.failed("finding the new file again", Errno::STALE));
                }
                let keep = RenameFlags::NOREPLACE;
                renameat_with(parent, name, &target.parent, &target.name, keep)
            }
        };
        match done {
            Ok(()) if self.is_at(target, &target.name) => Ok(()),
            Ok(()) => Err(target.failed("finding the new file again", Errno::STALE)),
            Err(Errno::EXIST) => Err(VaultError::Exists { path: target.path.clone() }),
            Err(errno) => Err(target.failed("naming the new file", errno)),
        }
    }

    fn is_at(&self, target: &Target, name: &OsStr) -> bool {
        let (Ok(own), Ok(found)) = (
            rustix::fs::fstat(&self.file),
            statat(&target.parent, name, AtFlags::SYMLINK_NOFOLLOW),
        ) else {
            return false;
        };
        Inode::from(&own) == Inode::from(&found)
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        // After a rename the temporary name is gone, and this does nothing.
        if let Some((parent, name)) = &self.named {
            let _ = unlinkat(parent, name, AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_under_a_temporary_name_is_published_whole_or_not_at_all() {
        let folder = tempfile::tempdir().expect("folder");
        let target = Target {
            parent: open_folder(folder.path()).expect("open"),
            name: "file".into(),
            path: folder.path().join("file"),
        };
        let names = || std::fs::read_dir(folder.path()).expect("folder").count();
        drop(Draft::make_named(&target, Uuid::nil()).expect("made"));
        assert_eq!(names(), 0);

        let draft = Draft::make_named(&target, Uuid::nil()).expect("made");
        let again = Draft::make_named(&target, Uuid::nil()).err();
        assert!(matches!(again, Some(VaultError::Restore { .. })), "never over another's");
        draft.publish(&target).expect("published");
        drop(draft);
        assert!(target.path.exists());
        assert_eq!(names(), 1);

        let draft = Draft::make_named(&target, Uuid::nil()).expect("made");
        assert!(matches!(draft.publish(&target), Err(VaultError::Exists { .. })));
        drop(draft);
        assert_eq!(names(), 1);

        let draft = Draft::make_named(&target, Uuid::nil()).expect("made");
        std::fs::remove_file(&target.path).expect("remove");
        std::fs::write(folder.path().join("other"), "").expect("write");
        let name = folder.path().join(format!(".holdfast-restore-{}", Uuid::nil()));
        std::fs::rename(folder.path().join("other"), name).expect("swap");
        assert!(draft.publish(&target).is_err(), "a swapped file is not published");
        assert!(!target.path.exists());
    }
}
