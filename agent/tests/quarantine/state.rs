//! The state folder: what is refused, what is swept, what a damaged item looks like.

use std::fs::{File, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;

use holdfast_agent::quarantine::{Vault, VaultError};
use rustix::fs::{FlockOperation, flock};

use crate::scratch::{Scratch, containers, names, seal};

#[test]
fn the_folder_and_the_key_are_for_root_alone() {
    let scratch = Scratch::folder();
    drop(scratch.vault());
    let mode = |name: &str| std::fs::metadata(scratch.path(name)).expect(name).mode() & 0o7777;
    assert_eq!(mode("state"), 0o700);
    assert_eq!(mode("state/quarantine"), 0o700);
    assert_eq!(mode("state/host.key"), 0o600);
    std::fs::set_permissions(scratch.path("state"), Permissions::from_mode(0o777)).expect("chmod");
    let refused = Vault::open(&scratch.path("state"), 1);
    assert!(matches!(refused, Err(VaultError::Own { operation: "trust", .. })));
}

#[test]
fn a_newer_folder_is_refused_and_not_changed() {
    let scratch = Scratch::folder();
    let state = scratch.make_folder("state");
    std::fs::create_dir(state.join("quarantine")).expect("folder");
    for version in ["2\n", "", "99999999999999999999", "1 and more"] {
        std::fs::write(state.join("quarantine/version"), version).expect("write");
        let refused = Vault::open(&state, 1);
        assert!(matches!(refused, Err(VaultError::Newer { .. })), "{version}");
    }
    assert_eq!(names(&state), ["quarantine"]);
    assert_eq!(names(&state.join("quarantine")), ["version"]);
}

#[test]
fn a_missing_or_wrong_key_is_never_replaced() {
    let scratch = Scratch::folder();
    let path = scratch.path("evil");
    std::fs::write(&path, "malicious").expect("write");
    seal(&scratch.vault(), &path).map(drop).expect("sealed");
    let key = scratch.path("state/host.key");
    let good = std::fs::read(&key).expect("key");
    std::fs::remove_file(&key).expect("remove");
    let refused = Vault::open(&scratch.path("state"), 1 << 20);
    assert!(matches!(refused, Err(VaultError::KeyMissing { .. })));
    for bad in [&good[..39], &[&good[..], b"x"].concat(), b"", &[0; 40]] {
        std::fs::write(&key, bad).expect("write");
        let refused = Vault::open(&scratch.path("state"), 1 << 20);
        assert!(matches!(refused, Err(VaultError::BadKey { .. })));
    }
    std::fs::write(&key, good).expect("write");
    assert_eq!(scratch.vault().list().expect("list").len(), 1);
}

#[test]
fn a_damaged_item_is_listed_and_can_be_deleted() {
    let scratch = Scratch::folder();
    let vault = scratch.vault();
    for name in ["one", "two"] {
        std::fs::write(scratch.path(name), name).expect("write");
    }
    let one = seal(&vault, &scratch.path("one")).expect("sealed").id;
    let two = seal(&vault, &scratch.path("two")).expect("sealed").id;
    let folder = scratch.path("state/quarantine");
    let container = |id| folder.join(format!("{id}.hfq"));
    // Another item's container under this one's name is refused as well.
    let (good, other) = (
        std::fs::read(container(one)).expect("read"),
        std::fs::read(container(two)).expect("read"),
    );
    for bad in [&b""[..], &good[..100], &other] {
        std::fs::write(container(one), bad).expect("write");
        let list = vault.list().expect("list");
        assert_eq!(list.len(), 2);
        let damaged: Vec<_> = list.iter().filter(|item| item.damaged.is_some()).collect();
        assert_eq!(damaged.len(), 1);
        assert_eq!(damaged[0].id, one);
        assert!(damaged[0].sealed_ms > 0);
        assert!(matches!(vault.show(one), Err(VaultError::Open { .. })));
        assert!(matches!(vault.restore(one, None), Err(VaultError::Open { .. })));
    }
    assert!(vault.delete(one).expect("deleted").damaged.is_some());
    assert_eq!(vault.list().expect("list").len(), 1);
}

#[test]
fn a_half_written_container_is_swept_unless_somebody_writes_it() {
    let scratch = Scratch::folder();
    drop(scratch.vault());
    let folder = scratch.path("state/quarantine");
    let dead = folder.join("0190a1b2-0000-7000-8000-000000000001.part");
    let live = folder.join("0190a1b2-0000-7000-8000-000000000002.part");
    let foreign = folder.join("notes.txt");
    std::fs::write(&dead, "half").expect("write");
    std::fs::write(&foreign, "an operator's").expect("write");
    let writer = File::create(&live).expect("create");
    flock(&writer, FlockOperation::LockExclusive).expect("lock");
    let vault = scratch.vault();
    assert!(!dead.exists() && live.exists() && foreign.exists());
    assert_eq!(vault.list().expect("list"), []);
    drop(writer);
    drop(scratch.vault());
    assert_eq!(containers(&scratch), ["notes.txt"]);
}

/// An item as a kill between moving and unlinking leaves it: pending, its original's folder there.
fn interrupted(scratch: &Scratch) -> (PathBuf, PathBuf) {
    let vault = scratch.vault();
    let (path, other) = (scratch.path("files/evil"), scratch.path("files/other"));
    std::fs::create_dir(scratch.path("files")).expect("folder");
    std::fs::write(&path, "malicious").expect("write");
    // The inode lives on under another name, so that it can be put aside again.
    std::fs::hard_link(&path, &other).expect("link");
    let id = seal(&vault, &path).expect("sealed").id;
    let container = scratch.path("state/quarantine").join(format!("{id}.hfq"));
    std::fs::rename(&container, container.with_extension("pending")).expect("rename");
    let aside = scratch.path("files").join(format!(".holdfast-{id}"));
    std::fs::DirBuilder::new().mode(0o700).create(&aside).expect("folder");
    (other, aside.join("original"))
}

#[test]
fn a_removal_that_was_interrupted_is_finished() {
    let scratch = Scratch::folder();
    let (other, aside) = interrupted(&scratch);
    std::fs::rename(other, aside).expect("rename");
    let vault = scratch.vault();
    assert_eq!(names(&scratch.path("files")), Vec::<String>::new());
    assert_eq!(vault.list().expect("list").len(), 1);
    assert!(containers(&scratch)[0].ends_with(".hfq"));
}

#[test]
fn another_file_that_was_aside_at_a_kill_comes_back() {
    for taken in [false, true] {
        let scratch = Scratch::folder();
        let (other, aside) = interrupted(&scratch);
        std::fs::remove_file(other).expect("remove");
        std::fs::write(&aside, "innocent").expect("write");
        if taken {
            std::fs::write(scratch.path("files/evil"), "third").expect("write");
        }
        let vault = scratch.vault();
        let found = names(&scratch.path("files"));
        let kept = format!("holdfast-kept-{}", vault.list().expect("list")[0].id);
        let (names, at) =
            if taken { (vec!["evil", &kept], kept.as_str()) } else { (vec!["evil"], "evil") };
        assert_eq!(found, names);
        assert_eq!(std::fs::read(scratch.path("files").join(at)).expect("read"), b"innocent");
        assert!(containers(&scratch)[0].ends_with(".hfq"));
    }
}
