//! Taking files away: which entry goes, and what stays when it cannot.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::Command;

use holdfast_agent::quarantine::{HostKey, Removal, Vault, VaultError, unseal};
use rustix::mount::{MountFlags, MountPropagationFlags, mount_bind, mount_change, mount_remount};

use crate::scratch::{Scratch, containers, names, run, seal, sealing};

#[test]
fn a_sealed_file_is_gone_and_encrypted_and_opens_anywhere_with_the_key() {
    let scratch = Scratch::folder();
    let vault = scratch.vault();
    let files = scratch.make_folder("files");
    let path = files.join("evil");
    std::fs::write(&path, "malicious marker".repeat(10_000)).expect("write");
    let sealed = seal(&vault, &path).expect("sealed");
    assert_eq!(sealed.removal, Removal::Removed);
    assert_eq!(names(&files), Vec::<String>::new());

    let container = scratch.path("state/quarantine").join(format!("{}.hfq", sealed.id));
    let raw = std::fs::read(&container).expect("container");
    assert!(!raw.windows(16).any(|window| window == b"malicious marker"));
    assert!(!raw.windows(4).any(|window| window == b"evil"));
    assert_eq!(std::fs::metadata(&container).expect("container").mode() & 0o777, 0o600);

    let key = HostKey::load(&scratch.path("state/host.key")).expect("key");
    let mut plain = Vec::new();
    let metadata = unseal(raw.as_slice(), &key, &mut plain).expect("unsealed");
    assert_eq!(plain, "malicious marker".repeat(10_000).as_bytes());
    assert_eq!(metadata.hashes, sealed.hashes);
    assert_eq!(vault.list().expect("list"), std::slice::from_ref(&metadata));
    assert_eq!(vault.show(sealed.id).expect("show"), metadata);
    assert_eq!((vault.usage().items, vault.usage().bytes), (1, raw.len() as u64));

    assert_eq!(vault.delete(sealed.id).expect("deleted"), metadata);
    assert!(matches!(vault.delete(sealed.id), Err(VaultError::NoItem { .. })));
    assert_eq!(containers(&scratch), Vec::<String>::new());
    assert_eq!((vault.usage().items, vault.usage().bytes), (0, 0));
}

#[test]
fn an_empty_file_and_one_with_holes_are_sealed() {
    let scratch = Scratch::folder();
    let vault = scratch.vault();
    let path = scratch.path("file");
    for size in [0, 1, 10 << 20] {
        File::create(&path).expect("create").set_len(size).expect("size");
        let sealed = seal(&vault, &path).expect("sealed");
        assert!(!path.exists());
        assert_eq!(vault.show(sealed.id).expect("show").file.size, size);
    }
}

#[test]
fn another_hard_link_stays_and_is_counted() {
    let scratch = Scratch::folder();
    let vault = scratch.vault();
    let (path, other) = (scratch.path("evil"), scratch.path("other"));
    std::fs::write(&path, "malicious").expect("write");
    std::fs::hard_link(&path, &other).expect("link");
    let first = seal(&vault, &path).expect("sealed");
    assert_eq!(first.removal, Removal::Removed);
    assert_eq!(vault.show(first.id).expect("show").links, 2);
    assert!(!path.exists() && other.exists());
    // Its next open is denied too, and gets an item with that name.
    let second = seal(&vault, &other).expect("sealed");
    assert_ne!(first.id, second.id);
    assert!(!other.exists());
}

#[test]
fn a_file_that_was_deleted_meanwhile_is_kept_as_vanished() {
    let scratch = Scratch::folder();
    let vault = scratch.vault();
    let path = scratch.path("evil");
    std::fs::write(&path, "malicious").expect("write");
    let file = File::open(&path).expect("open");
    std::fs::remove_file(&path).expect("remove");
    let named = scratch.path("evil (deleted)");
    let sealed = vault.seal(file.as_fd(), &sealing(&named)).expect("sealed");
    assert_eq!(sealed.removal, Removal::Vanished);
    assert_eq!(vault.show(sealed.id).expect("show").path, path.display().to_string());
    // Asked again for the same inode, the same item stands for it.
    let again = vault.seal(file.as_fd(), &sealing(&named)).expect("sealed");
    assert_eq!(again, sealed);
    assert_eq!(vault.usage().items, 1);
}

#[test]
fn a_file_that_cannot_be_reached_by_any_path_stays_and_costs_no_room() {
    let scratch = Scratch::folder();
    let vault = scratch.vault();
    let mut folder = File::open(scratch.path("")).expect("open");
    let name = "d".repeat(250);
    // Deeper than any path can name (PATH_MAX is 4096).
    for _ in 0..20 {
        use rustix::fs::{Mode, OFlags, mkdirat, openat};
        mkdirat(&folder, &name, Mode::RWXU).expect("mkdir");
        folder = openat(&folder, &name, OFlags::RDONLY, Mode::empty()).expect("open").into();
    }
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CREATE;
    let file = rustix::fs::openat(&folder, "evil", flags, rustix::fs::Mode::RUSR).expect("create");
    let named = std::path::Path::new("/").join("evil");
    let sealed = vault.seal(file.as_fd(), &sealing(&named)).expect("sealed");
    assert!(matches!(sealed.removal, Removal::StillThere(_)), "{sealed:?}");
    assert_eq!(File::from(file).metadata().expect("metadata").nlink(), 1);
    assert_eq!(containers(&scratch), Vec::<String>::new());
}

#[test]
fn a_name_that_ends_like_a_deleted_one_is_taken_as_it_is() {
    let scratch = Scratch::folder();
    let vault = scratch.vault();
    let (path, innocent) = (scratch.path("a (deleted)"), scratch.path("a"));
    std::fs::write(&path, "malicious").expect("write");
    std::fs::write(&innocent, "innocent").expect("write");
    assert_eq!(seal(&vault, &path).expect("sealed").removal, Removal::Removed);
    assert!(!path.exists() && innocent.exists());
}

#[test]
fn another_file_under_the_name_is_left_alone() {
    let scratch = Scratch::folder();
    let vault = scratch.vault();
    let path = scratch.path("evil");
    std::fs::write(&path, "malicious").expect("write");
    let file = File::open(&path).expect("open");
    std::fs::remove_file(&path).expect("remove");
    std::fs::write(&path, "innocent").expect("write");
    let sealed = vault.seal(file.as_fd(), &sealing(&path)).expect("sealed");
    assert_eq!(sealed.removal, Removal::Vanished);
    assert_eq!(std::fs::read(&path).expect("read"), b"innocent");
}

#[test]
fn a_file_that_was_moved_is_removed_under_its_new_name() {
    let scratch = Scratch::folder();
    let vault = scratch.vault();
    let (folder, moved) = (scratch.make_folder("folder"), scratch.path("moved"));
    std::fs::write(folder.join("evil"), "malicious").expect("write");
    let file = File::open(folder.join("evil")).expect("open");
    std::fs::rename(&folder, &moved).expect("rename");
    // A link in the old place is not followed; the kernel's present path is used.
    symlink(&moved, &folder).expect("symlink");
    let sealed = vault.seal(file.as_fd(), &sealing(&folder.join("evil"))).expect("sealed");
    assert_eq!(sealed.removal, Removal::Removed);
    assert_eq!(names(&moved), Vec::<String>::new());
    let path = moved.join("evil").display().to_string();
    assert_eq!(vault.show(sealed.id).expect("show").path, path);
}

#[test]
fn a_file_named_through_a_mount_of_another_namespace_is_found() {
    let mut scratch = Scratch::folder();
    let vault = scratch.vault();
    let files = scratch.ext4();
    std::fs::create_dir(files.join("sub")).expect("folder");
    std::fs::write(files.join("sub/evil"), "malicious").expect("write");
    let (from, private) = (files.join("sub"), scratch.make_folder("private"));
    let path = private.join("evil");
    let opened = path.clone();
    let file = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("unshare");
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .expect("private");
        mount_bind(&from, &private).expect("bind");
        File::open(opened).expect("open")
    })
    .join()
    .expect("thread");
    let sealed = vault.seal(file.as_fd(), &sealing(&path)).expect("sealed");
    assert_eq!(sealed.removal, Removal::Removed);
    assert_eq!(names(&files.join("sub")), Vec::<String>::new());
    let real = files.join("sub/evil").display().to_string();
    assert_eq!(vault.show(sealed.id).expect("show").path, real);
}

#[test]
fn a_file_on_an_overlay_is_removed_from_the_overlay() {
    let mut scratch = Scratch::folder();
    let vault = scratch.vault();
    let merged = scratch.overlay("merged");
    let layers = scratch.path("merged-layers");
    std::fs::write(layers.join("lower/image"), "malicious").expect("write");
    std::fs::write(merged.join("own"), "malicious").expect("write");
    for name in ["own", "image"] {
        let sealed = seal(&vault, &merged.join(name)).expect("sealed");
        assert_eq!(sealed.removal, Removal::Removed, "{name}");
        assert!(!merged.join(name).exists());
    }
    assert!(layers.join("lower/image").exists(), "an image's layer is not changed");
}

#[test]
fn a_file_named_by_its_layer_is_removed_through_the_overlay() {
    let mut scratch = Scratch::folder();
    let vault = scratch.vault();
    let merged = scratch.overlay("merged");
    let layers = scratch.path("merged-layers");
    std::fs::write(layers.join("lower/changed"), "malicious").expect("write");
    std::fs::write(layers.join("lower/image"), "malicious").expect("write");
    let mut copied_up = OpenOptions::new().append(true).open(merged.join("changed")).expect("open");
    copied_up.write_all(b"more").expect("write");
    std::fs::create_dir(merged.join("sub")).expect("folder");
    std::fs::write(merged.join("sub/own"), "malicious").expect("write");
    for (layer, name) in [("upper", "changed"), ("upper", "sub/own"), ("lower", "image")] {
        // Open in the overlay's memory, as it is when a container uses it.
        drop(File::open(merged.join(name)).expect("open"));
        let file = File::open(layers.join(layer).join(name)).expect("open");
        let named = std::path::Path::new("/").join(name);
        let sealed = vault.seal(file.as_fd(), &sealing(&named)).expect("sealed");
        assert_eq!(sealed.removal, Removal::Removed, "{name}");
        assert_eq!(file.metadata().expect("metadata").nlink(), 0, "{name}");
        if layer == "upper" {
            assert!(File::open(merged.join(name)).is_err(), "{name}");
            let path = merged.join(name);
            assert_eq!(vault.show(sealed.id).expect("show").path, path.display().to_string());
            std::fs::remove_file(layers.join("lower").join(name)).ok();
            assert_eq!(vault.restore(sealed.id, None).expect("restored"), path);
            assert!(File::open(merged.join(name)).is_ok(), "{name}");
        }
    }
    assert_eq!(names(&layers.join("upper")), ["changed", "sub"]);
    assert_eq!(names(&layers.join("upper/sub")), ["own"]);
}

#[test]
fn an_immutable_and_an_append_only_file_are_removed() {
    let mut scratch = Scratch::folder();
    let vault = scratch.vault();
    let files = scratch.ext4();
    for flag in ["+i", "+a"] {
        let path = files.join("evil");
        std::fs::write(&path, "malicious").expect("write");
        run(Command::new("chattr").arg(flag).arg(&path));
        assert_eq!(seal(&vault, &path).expect("sealed").removal, Removal::Removed, "{flag}");
        assert!(!path.exists());
    }
}

#[test]
fn a_file_that_cannot_be_removed_stays_whole_and_leaves_no_item() {
    let mut scratch = Scratch::folder();
    let vault = scratch.vault();
    let files = scratch.ext4();
    let folder = files.join("folder");
    let path = folder.join("evil");
    std::fs::create_dir(&folder).expect("folder");
    std::fs::write(&path, "malicious").expect("write");
    run(Command::new("chattr").arg("+i").arg(&folder));
    let refused = seal(&vault, &path).expect("sealed");
    run(Command::new("chattr").arg("-i").arg(&folder));
    assert!(matches!(refused.removal, Removal::StillThere(_)), "{refused:?}");

    mount_remount(&files, MountFlags::RDONLY, c"").expect("read-only");
    let refused = seal(&vault, &path).expect("sealed");
    assert!(matches!(&refused.removal, Removal::StillThere(why) if why.contains("Read-only")));

    assert_eq!(std::fs::read(&path).expect("read"), b"malicious");
    assert_eq!(names(&folder), ["evil"]);
    assert_eq!(containers(&scratch), Vec::<String>::new());
    assert_eq!((vault.usage().items, vault.usage().bytes), (0, 0));
}

#[test]
fn a_full_quarantine_leaves_the_file_and_nothing_half_written() {
    let mut scratch = Scratch::folder();
    let path = scratch.path("evil");
    std::fs::write(&path, vec![7; 3 << 20]).expect("write");
    let state = scratch.tmpfs("state", "size=2m,mode=700");
    let vault = Vault::open(&state, 1 << 30).expect("vault");
    assert!(matches!(seal(&vault, &path), Err(VaultError::NoSpace { .. })));

    // A size that is not known beforehand: the disk is full in the middle.
    let endless = std::path::Path::new("/proc/kallsyms");
    let refused = seal(&vault, endless);
    assert!(matches!(refused, Err(VaultError::NoSpace { .. })), "{refused:?}");

    let small = Vault::open(&scratch.path("small"), 1 << 20).expect("vault");
    assert!(matches!(seal(&small, &path), Err(VaultError::Full { .. })));
    assert!(matches!(seal(&small, endless), Err(VaultError::Full { .. })));

    assert_eq!(std::fs::metadata(&path).expect("whole").len(), 3 << 20);
    assert_eq!(containers(&scratch), Vec::<String>::new());
    assert_eq!(names(&scratch.path("small/quarantine")), ["version"]);
    assert_eq!(vault.usage().bytes + small.usage().bytes, 0);
}

#[test]
fn a_file_on_a_full_disk_is_removed() {
    let mut scratch = Scratch::folder();
    let vault = scratch.vault();
    let tmpfs = scratch.tmpfs("full", "size=2m");
    let path = tmpfs.join("evil");
    std::fs::write(&path, "malicious").expect("write");
    let mut filler = File::create(tmpfs.join("filler")).expect("filler");
    while filler.write_all(&[7; 4096]).is_ok() {}
    assert_eq!(seal(&vault, &path).expect("sealed").removal, Removal::Removed);
    assert_eq!(names(&tmpfs), ["filler"]);
}

#[test]
fn what_is_no_regular_file_is_refused() {
    let scratch = Scratch::folder();
    let vault = scratch.vault();
    let folder = File::open(scratch.path("")).expect("open");
    let refused = vault.seal(folder.as_fd(), &sealing(&scratch.path("")));
    assert!(matches!(refused, Err(VaultError::NotRegular)));
}

#[test]
fn extended_attributes_without_end_do_not_save_a_file() {
    let mut scratch = Scratch::folder();
    let vault = scratch.vault();
    let tmpfs = scratch.tmpfs("files", "size=64m");
    let path = tmpfs.join("evil");
    std::fs::write(&path, "malicious").expect("write");
    let file = OpenOptions::new().write(true).open(&path).expect("open");
    let mut set = 0;
    // Trusted ones: a tmpfs limits those of users.
    while set < 40 {
        let name = format!("trusted.{set}");
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::fsetxattr(&file, name.as_str(), &[7; 60_000], flags).expect("set");
        set += 1;
    }
    let sealed = seal(&vault, &path).expect("sealed");
    assert_eq!(sealed.removal, Removal::Removed);
    let metadata = vault.show(sealed.id).expect("show");
    assert_eq!(metadata.xattrs.len() as u64 + metadata.xattrs_left_out, 40);
    assert!(metadata.xattrs_left_out > 0);
}
