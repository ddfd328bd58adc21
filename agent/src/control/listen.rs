//! Making the socket file: root-only from its first moment, a dead agent's replaced, a live
//! one's left alone.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::ControlError;

/// A listening socket; its file goes when this is dropped, if it is still ours.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // A newer agent may have put its own socket there.
        if std::fs::symlink_metadata(&self.path).is_ok_and(|now| identity(&now) == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(metadata: &std::fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Listens at `path`.
pub(super) fn listen(path: &Path) -> Result<(UnixListener, SocketFile), ControlError> {
    let failed = |source| ControlError::Listen { path: path.to_owned(), source };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(failed)?;
    refuse_what_lives(path)?;
    // Made under another name and renamed when it is root-only: nobody finds it open to others,
    // and a dead agent's socket is replaced in one step.
    let fresh = parent.join(format!(".hf-{}", std::process::id()));
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&fresh).map_err(failed)?;
    let finish = || {
        std::fs::set_permissions(&fresh, Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        let identity = identity(&std::fs::symlink_metadata(&fresh)?);
        std::fs::rename(&fresh, path)?;
        Ok(SocketFile { path: path.to_owned(), identity })
    };
    match finish() {
        Ok(file) => Ok((listener, file)),
        Err(error) => {
            let _ = std::fs::remove_file(&fresh);
            Err(failed(error))
        }
    }
}

fn refuse_what_lives(path: &Path) -> Result<(), ControlError> {
    let failed = |source| ControlError::Listen { path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(ControlError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    let address = SocketAddrUnix::new(path).map_err(|error| failed(error.into()))?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(|error| failed(error.into()))?;
    match rustix::net::connect(&probe, &address) {
        // unix(7): nobody listens any more.
        Err(rustix::io::Errno::CONNREFUSED | rustix::io::Errno::NOENT) => Ok(()),
        // Also when its queue is full (EAGAIN): somebody is there.
        Ok(()) | Err(rustix::io::Errno::AGAIN) => {
            Err(ControlError::InUse { path: path.to_owned() })
        }
        Err(error) => Err(failed(error.into())),
    }
}
