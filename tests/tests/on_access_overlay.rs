//! Overlays as container engines mount them: layers named relative to a folder of the engine's.
//!
//! The options do not tell that folder. It must be found, and a folder that only looks like it
//! must not be taken.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{assert_blocked, assert_quarantined, settle};
use holdfast_tests::agent::{Agent, Setup};
use holdfast_tests::scratch::{Scratch, kernel_mounts};
use holdfast_tests::{eicar, require_root, skip};
use serde_json::Value;

/// A mounted overlay; unmounted on drop, before the scratch file systems that it lies on.
struct Overlay(PathBuf);

impl Overlay {
    /// Mounts as an engine does: standing in its folder, which the options then need not name.
    fn mount(base: &Path, options: &str, point: &Path) -> Self {
        let status = Command::new("mount")
            .current_dir(base)
            .args(["-t", "overlay", "overlay", "-o", options])
            .arg(point)
            .status();
        assert!(status.expect("mount").success(), "mount {options}");
        Self(point.to_owned())
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn folders(base: &Path, names: &[&str]) {
    for name in names {
        fs::create_dir_all(base.join(name)).expect("folder");
    }
}

/// An engine's folder: two image layers by short links, one container.
fn engine(base: &Path) {
    folders(base, &["one/diff/etc", "two/diff/etc", "two/diff/usr", "c/diff", "c/work", "l"]);
    fs::write(base.join("one/diff/etc/below"), eicar()).expect("write");
    for (link, layer) in [("A", "../one/diff"), ("B", "../two/diff")] {
        std::os::unix::fs::symlink(layer, base.join("l").join(link)).expect("link");
    }
}

fn protect(point: &Path) -> Agent {
    let setup = Setup::protect([point]).tables("[sensor]\nenabled = false");
    setup.start().expect("agent")
}

/// What status says of this mount point.
fn state(agent: &Agent, point: &Path) -> Value {
    // Its exit says that something is red, which is one of the things to be seen.
    let status = agent.cli(&["--json", "status"]).expect("status").stdout;
    let status: Value = serde_json::from_slice(&status).expect("JSON");
    let all = status["file_systems"].as_array().expect("list").clone();
    let shown = point.display().to_string();
    all.into_iter().find(|fs| fs["mount"] == shown.as_str()).expect("the mount is named")
}

fn assert_held(agent: &Agent, point: &Path) {
    let state = state(agent, point);
    assert_eq!(state["protected"], true, "{state}");
    let path = point.join("download");
    fs::write(&path, eicar()).expect("write");
    assert_blocked(&path);
    assert_quarantined(agent, &path);
    let clean = point.join("clean");
    fs::write(&clean, "nothing to see here\n").expect("write");
    settle(&clean);
    assert!(fs::read(&clean).is_ok(), "a clean file opens");
}

/// Before 6.5 the overlay itself is marked and its layers do not matter.
fn layers_matter(test: &str) -> bool {
    require_root();
    if !kernel_mounts("overlay") {
        skip(test, "kernel lacks overlay");
        return false;
    }
    true
}

#[test]
fn layers_named_relative_to_the_engines_folder_are_found_and_a_look_alike_is_not_taken() {
    if !layers_matter("layers_named_relative_to_the_engines_folder_are_found") {
        return;
    }
    let scratch = Scratch::ext4().expect("scratch");
    engine(scratch.path());
    // Nearer to the mount point than the engine's folder, and with folders of the same names, but
    // on a file system of its own: were it taken, the real one would not be held.
    let near = scratch.join("near");
    fs::create_dir(&near).expect("folder");
    let tmpfs = Command::new("mount").args(["-t", "tmpfs", "near"]).arg(&near).status();
    assert!(tmpfs.expect("mount").success());
    let _near = Overlay(near.clone());
    engine(&near);
    let point = near.join("merged");
    fs::create_dir(&point).expect("folder");
    let options = "lowerdir=l/A:l/B,upperdir=c/diff,workdir=c/work";
    let _overlay = Overlay::mount(scratch.path(), options, &point);
    let agent = protect(&point);
    assert_held(&agent, &point);
    // A file of a lower layer, which nobody has written to since.
    assert_blocked(&point.join("etc/below"));
}

#[test]
fn relative_lower_layers_are_found_by_the_upper_layers_full_name() {
    if !layers_matter("relative_lower_layers_are_found_by_the_upper_layers_full_name") {
        return;
    }
    let engines = Scratch::ext4().expect("scratch");
    engine(engines.path());
    let elsewhere = Scratch::tmpfs(1 << 20).expect("scratch");
    let point = elsewhere.join("rootfs");
    fs::create_dir(&point).expect("folder");
    let upper = engines.join("c");
    let options =
        format!("lowerdir=one/diff:two/diff,upperdir={0}/diff,workdir={0}/work", upper.display());
    let _overlay = Overlay::mount(engines.path(), &options, &point);
    let agent = protect(&point);
    assert_held(&agent, &point);
    assert_blocked(&point.join("etc/below"));
}

#[test]
fn overlay_whose_layers_cannot_be_found_is_named_as_not_protected() {
    if !layers_matter("overlay_whose_layers_cannot_be_found_is_named_as_not_protected") {
        return;
    }
    let engines = Scratch::ext4().expect("scratch");
    engine(engines.path());
    let elsewhere = Scratch::tmpfs(1 << 20).expect("scratch");
    // The names are there too, but it is not what the overlay shows.
    engine(elsewhere.path());
    let point = elsewhere.join("rootfs");
    fs::create_dir(&point).expect("folder");
    let options = "lowerdir=l/A:l/B,upperdir=c/diff,workdir=c/work";
    let _overlay = Overlay::mount(engines.path(), options, &point);
    let agent = protect(&point);
    let state = state(&agent, &point);
    assert_eq!(state["protected"], false, "{state}");
    let reason = state["reason"].as_str().expect("a reason");
    assert!(reason.contains("relative to a folder that is not known"), "{reason}");
}
