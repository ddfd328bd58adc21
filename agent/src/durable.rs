//! Small files of the agent's own, replaced so that a crash leaves the old content or the new.
//!
//! Root's alone (0600). The folder is root's too, so that nobody else chooses what lies there.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes the parts, one after the other, beside the file, flushes them and puts them in its
/// place; it is on disk when this returns.
///
/// # Errors
/// As the file system's; the old file is still there.
pub fn replace(path: &Path, parts: &[&[u8]]) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC)
        .open(&beside)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_is_its_owners_alone() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("state.json");
        for content in ["one", "another"] {
            replace(&path, &[content.as_bytes(), b"\n"]).expect("written");
            let text = std::fs::read_to_string(&path).expect("read");
            assert_eq!(text, format!("{content}\n"));
        }
        let mode = std::fs::metadata(&path).expect("facts").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).expect("list").count(), 1);
        std::os::unix::fs::symlink("/nonexistent", folder.path().join("state.json.new"))
            .expect("link");
        assert!(replace(&path, &[b"x"]).is_err(), "a link is not followed");
    }
}
