//! What the on-access tests share on this host; [`holdfast_tests::observe`] has the rest.

#![allow(dead_code, unused_imports, reason = "each test binary uses its own part of it")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use holdfast_tests::agent::{Agent, Setup};
pub use holdfast_tests::observe::*;
use holdfast_tests::require_root;
use holdfast_tests::scratch::{Scratch, kernel_mounts};

/// Runs a test on an ext4, an xfs, a tmpfs and an overlayfs of its own, one after the other.
pub fn on_each_file_system(test: impl Fn(&Scratch, &mut Agent)) {
    require_root();
    for name in ["ext4", "xfs", "tmpfs", "overlay"] {
        assert!(kernel_mounts(name), "this kernel cannot mount {name}");
        println!("-- {name}");
        let scratch = match name {
            "ext4" => Scratch::ext4(),
            "xfs" => Scratch::xfs(),
            "tmpfs" => Scratch::tmpfs(256 << 20),
            _ => Scratch::overlay(),
        }
        .expect("scratch file system");
        let mut agent = protect(&scratch).start().expect("agent");
        test(&scratch, &mut agent);
        agent.stop().expect("clean stop");
    }
}

pub fn protect(scratch: &Scratch) -> Setup {
    Setup::protect([scratch.path()]).tables("[sensor]\nenabled = false")
}

/// Runs a few lines of Python with arguments: the calls that std has no safe function for.
#[track_caller]
pub fn python(script: &str, arguments: &[&Path]) -> Output {
    let output = Command::new("python3")
        .arg("-c")
        .arg(script)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("python3");
    println!("{}", String::from_utf8_lossy(&output.stderr));
    output
}
