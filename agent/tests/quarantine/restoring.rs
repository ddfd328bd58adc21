//! The way back: everything as it was, nothing overwritten, no link followed; and the export.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::{Cursor, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use holdfast_agent::quarantine::{Removal, VaultError};
use rustix::fs::{Timespec, Timestamps, XattrFlags};

use crate::scratch::{Scratch, names, run, seal};

/// `user::rwx user:4321:r-- group::r-x mask::r-x other::---` as the kernel stores it
/// (linux/posix_acl_xattr.h: version 2, then tag, permissions, id).
const ACL: [u8; 44] = [
    2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 4, 0, 0xe1, 0x10, 0, 0, 4, 0, 5, 0, 255, 255,
    255, 255, 0x10, 0, 5, 0, 255, 255, 255, 255, 0x20, 0, 0, 0, 255, 255, 255, 255,
];
/// `cap_net_raw=ep` (linux/capability.h: revision 2, effective).
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn xattr(path: &Path, name: &str) -> Vec<u8> {
    let mut value = Vec::with_capacity(4096);
    rustix::fs::lgetxattr(path, name, rustix::buffer::spare_capacity(&mut value)).expect(name);
    value
}

#[test]
fn a_restored_file_is_as_it_was_on_ext4() {
    let mut scratch = Scratch::folder();
    let files = scratch.ext4();
    everything_comes_back(&scratch, &files);
}

#[test]
fn a_restored_file_is_as_it_was_on_xfs() {
    let mut scratch = Scratch::folder();
    let files = scratch.loop_mount("xfs", "xfs", 320);
    everything_comes_back(&scratch, &files);
}

fn everything_comes_back(scratch: &Scratch, files: &Path) {
    let vault = scratch.vault();
    std::fs::remove_dir(files.join("lost+found")).ok();
    let path = files.join(OsStr::from_bytes(b"caf\xe9 \n\x1b[2J"));
    std::fs::write(&path, vec![3; 200_000]).expect("write");
    chown(&path, Some(1234), Some(5678)).expect("chown");
    let set = |name, value: &[u8]| {
        rustix::fs::setxattr(&path, name, value, XattrFlags::empty()).expect(name);
    };
    set("user.note", b"bytes \0\xff");
    set("user.empty", b"");
    set("system.posix_acl_access", &ACL);
    std::fs::set_permissions(&path, Permissions::from_mode(0o6750)).expect("chmod");
    set("security.capability", &CAPABILITY);
    let old = Timespec { tv_sec: 1_000_000_007, tv_nsec: 123_456_789 };
    let times = Timestamps { last_access: old, last_modification: old };
    rustix::fs::futimens(File::open(&path).expect("open"), &times).expect("times");
    run(Command::new("chattr").arg("+i").arg(&path));
    let before = std::fs::metadata(&path).expect("metadata");

    let sealed = seal(&vault, &path).expect("sealed");
    assert_eq!(sealed.removal, Removal::Removed);
    assert!(!vault.show(sealed.id).expect("show").path.contains('\n'));
    assert_eq!(vault.restore(sealed.id, None).expect("restored"), path);

    let after = std::fs::metadata(&path).expect("metadata");
    assert_eq!(after.mode(), before.mode());
    assert_eq!((after.uid(), after.gid()), (1234, 5678));
    assert_eq!((after.mtime(), after.mtime_nsec()), (1_000_000_007, 123_456_789));
    assert_eq!(after.atime(), 1_000_000_007);
    assert_eq!(xattr(&path, "user.note"), b"bytes \0\xff");
    assert_eq!(xattr(&path, "user.empty"), b"");
    assert_eq!(xattr(&path, "system.posix_acl_access"), ACL);
    assert_eq!(xattr(&path, "security.capability"), CAPABILITY);
    assert!(std::fs::write(&path, "x").is_err(), "immutable again");
    run(Command::new("chattr").arg("-i").arg(&path));
    assert_eq!(std::fs::read(&path).expect("read"), vec![3; 200_000]);
    assert_eq!(names(files).len(), 1, "the file alone");
    assert!(matches!(vault.show(sealed.id), Err(VaultError::NoItem { .. })));
    assert_eq!((vault.usage().items, vault.usage().bytes), (0, 0));
}

#[test]
fn restoring_never_overwrites_and_never_follows_a_link() {
    let scratch = Scratch::folder();
    let vault = scratch.vault();
    let folder = scratch.make_folder("folder");
    let path = folder.join("evil");
    std::fs::write(&path, "malicious").expect("write");
    let id = seal(&vault, &path).expect("sealed").id;

    std::fs::write(&path, "innocent").expect("write");
    assert!(matches!(vault.restore(id, None), Err(VaultError::Exists { .. })));
    assert_eq!(std::fs::read(&path).expect("read"), b"innocent");
    std::fs::remove_file(&path).expect("remove");

    let outside = scratch.path("outside");
    symlink(&outside, &path).expect("symlink");
    assert!(matches!(vault.restore(id, None), Err(VaultError::Exists { .. })));
    assert!(!outside.exists());
    std::fs::remove_file(&path).expect("remove");

    std::fs::remove_dir(&folder).expect("remove");
    assert!(matches!(vault.restore(id, None), Err(VaultError::NoFolder { .. })));
    let etc = scratch.make_folder("etc");
    symlink(&etc, &folder).expect("symlink");
    assert!(matches!(vault.restore(id, None), Err(VaultError::NoFolder { .. })));
    assert_eq!(names(&etc), Vec::<String>::new());

    for bad in ["relative", "/", "", "/tmp/"] {
        let refused = vault.restore(id, Some(Path::new(bad)));
        assert!(matches!(refused, Err(VaultError::BadTarget { .. })), "{bad}");
    }
    let refused = vault.restore(id, Some(&etc));
    assert!(matches!(refused, Err(VaultError::Exists { .. })), "a folder");
    let elsewhere = etc.join("evil");
    assert_eq!(vault.restore(id, Some(&elsewhere)).expect("restored"), elsewhere);
    assert_eq!(std::fs::read(&elsewhere).expect("read"), b"malicious");
}

#[test]
fn a_failed_restore_leaves_nothing_and_keeps_the_item() {
    let mut scratch = Scratch::folder();
    let vault = scratch.vault();
    let path = scratch.path("evil");
    std::fs::write(&path, vec![7; 3 << 20]).expect("write");
    let id = seal(&vault, &path).expect("sealed").id;
    let full = scratch.tmpfs("full", "size=1m");
    let refused = vault.restore(id, Some(&full.join("evil")));
    assert!(matches!(refused, Err(VaultError::Restore { .. })), "{refused:?}");
    assert_eq!(names(&full), Vec::<String>::new());

    let container = scratch.path("state/quarantine").join(format!("{id}.hfq"));
    let mut raw = std::fs::read(&container).expect("container");
    let last = raw.len() - 1;
    raw[last] ^= 1;
    std::fs::write(&container, raw).expect("damage");
    assert!(matches!(vault.restore(id, None), Err(VaultError::Open { .. })));
    assert!(!path.exists());
    let export = vault.export(id, "infected", Cursor::new(Vec::new()));
    assert!(matches!(export, Err(VaultError::Open { .. })));
    assert!(vault.show(id).is_ok());
}

#[test]
fn an_export_opens_in_common_tools_and_only_with_the_password() {
    let scratch = Scratch::folder();
    let vault = scratch.vault();
    let path = scratch.path(OsStr::from_bytes(b"-ev\xffil\\..\\x"));
    let content: Vec<u8> = (0..300_000_u32).map(|n| (n % 253) as u8).collect();
    std::fs::write(&path, &content).expect("write");
    let id = seal(&vault, &path).expect("sealed").id;
    let no_password = vault.export(id, "", Cursor::new(Vec::new()));
    assert!(matches!(no_password, Err(VaultError::NoPassword)));

    let mut zip = Cursor::new(Vec::new());
    vault.export(id, "infected", &mut zip).expect("exported");
    let archive = scratch.path("export.zip");
    File::create(&archive).expect("create").write_all(zip.get_ref()).expect("write");
    let mut readers = 0;
    for (tool, before, after) in [
        ("bsdtar", &["-xOf"][..], &["--passphrase"][..]),
        ("7zz", &["x", "-so"][..], &["-p"][..]),
        ("7z", &["x", "-so"][..], &["-p"][..]),
    ] {
        let read = |password: &str| {
            let mut command = Command::new(tool);
            command.args(before).arg(&archive);
            match after {
                ["-p"] => command.arg(format!("-p{password}")),
                _ => command.args(after).arg(password),
            };
            command.output()
        };
        let Ok(output) = read("infected") else { continue };
        let problem = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && output.stdout == content, "{tool}: {problem}");
        let wrong = read("wrong").expect("runs");
        assert!(!wrong.status.success() && wrong.stdout != content, "{tool} without password");
        readers += 1;
    }
    assert!(readers > 0, "cargo xtask setup installs bsdtar (libarchive-tools) and 7zip");
    assert!(vault.show(id).is_ok(), "an export takes nothing away");
}
