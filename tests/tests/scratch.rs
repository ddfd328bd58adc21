//! The scratch file systems themselves: mounted as named, gone afterwards.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use holdfast_tests::scratch::{Scratch, kernel_mounts};
use holdfast_tests::{require_root, skip};

/// The type of what is mounted exactly here.
fn mounted(path: &Path) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("proc is mounted");
    let path = path.to_str().expect("temporary names are UTF-8");
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        (fields.next()? == path).then(|| fields.next().map(str::to_owned))?
    })
}

fn stands_and_goes(scratch: Scratch, kind: &str) {
    let path = scratch.path().to_owned();
    assert_eq!(mounted(&path).as_deref(), Some(kind));
    fs::write(scratch.join("file"), b"content").expect("it can be written");
    drop(scratch);
    assert_eq!(mounted(&path), None);
    assert!(!path.exists(), "the folder goes with it");
}

#[test]
fn ext4_stands_and_goes() {
    require_root();
    stands_and_goes(Scratch::ext4().expect("ext4"), "ext4");
}

#[test]
fn xfs_stands_and_goes() {
    require_root();
    if !kernel_mounts("xfs") {
        return skip("xfs_stands_and_goes", "kernel lacks xfs");
    }
    stands_and_goes(Scratch::xfs().expect("xfs"), "xfs");
}

#[test]
fn tmpfs_stands_and_goes() {
    require_root();
    stands_and_goes(Scratch::tmpfs(1 << 20).expect("tmpfs"), "tmpfs");
}

#[test]
fn overlay_shows_its_lower_layer_and_goes_with_it() {
    require_root();
    if !kernel_mounts("overlay") {
        return skip("overlay_shows_its_lower_layer_and_goes_with_it", "kernel lacks overlay");
    }
    let scratch = Scratch::overlay().expect("overlay");
    fs::write(scratch.lower().join("below"), b"content").expect("the layer can be written");
    assert_eq!(fs::read(scratch.join("below")).expect("seen through the overlay"), b"content");
    let layers = scratch.lower().parent().expect("layers").to_owned();
    stands_and_goes(scratch, "overlay");
    assert_eq!(mounted(&layers), None);
}

#[test]
fn a_panic_and_an_open_file_leave_no_mount_behind() {
    require_root();
    let scratch = Scratch::ext4_sized(16 << 20).expect("ext4");
    let path = scratch.path().to_owned();
    let held = fs::File::create(scratch.join("held")).expect("it can be written");
    let result = catch_unwind(AssertUnwindSafe(move || {
        let _scratch = scratch;
        panic!("as a failed assertion does");
    }));
    assert!(result.is_err());
    assert_eq!(mounted(&path), None);
    drop(held);
}
