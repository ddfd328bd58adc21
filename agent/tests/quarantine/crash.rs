//! SIGKILL at any moment: every file is whole in its place or whole in quarantine.
//!
//! The test starts itself again as a child that seals and restores in a loop, and kills it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use holdfast_agent::quarantine::{HostKey, Vault, unseal};

use crate::scratch::{Scratch, names, seal};

const FOLDER: &str = "HOLDFAST_TEST_CRASH_FOLDER";
const FILES: u8 = 24;
const KILLS: usize = 80;

/// Sizes from empty to several chunks; no two files are equal.
fn content(n: u8) -> Vec<u8> {
    vec![n; usize::from(n) * 9_000]
}

/// Not a test of its own: what the child does. Without the variable it has nothing to do.
#[test]
fn child_seals_and_restores_until_it_is_killed() {
    let Some(root) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let vault = Vault::open(&root.join("state"), 1 << 30).expect("vault");
    println!("ready");
    loop {
        for n in 0..FILES {
            let path = root.join("files").join(format!("evil{n}"));
            if path.exists() {
                let _ = seal(&vault, &path).expect("sealed");
            }
        }
        for item in vault.list().expect("list") {
            // A crash after a restore may have left item and file.
            if vault.restore(item.id, None).is_err() {
                vault.delete(item.id).expect("deleted");
            }
        }
    }
}

#[test]
fn a_kill_at_any_moment_loses_no_file() {
    let mut scratch = Scratch::folder();
    let root = scratch.tmpfs("root", "size=128m,mode=700");
    let files = root.join("files");
    std::fs::create_dir(&files).expect("folder");
    for n in 0..FILES {
        std::fs::write(files.join(format!("evil{n}")), content(n)).expect("write");
    }
    let mut unfinished = 0;
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().expect("exe"))
            .args(["--exact", "crash::child_seals_and_restores_until_it_is_killed", "--nocapture"])
            .env(FOLDER, &root)
            .stdout(Stdio::piped())
            .spawn()
            .expect("child");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        let ready = lines.any(|line| line.is_ok_and(|line| line.contains("ready")));
        assert!(ready, "the child ended early");
        let mut random = [0_u8; 2];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .expect("random");
        let moment = Instant::now() + Duration::from_micros(u64::from(u16::from_le_bytes(random)));
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
        child.kill().expect("kill");
        child.wait().expect("wait");
        unfinished += names(&root.join("state/quarantine"))
            .iter()
            .filter(|name| name.ends_with(".part") || name.ends_with(".pending"))
            .count();
        check(&root, kill);
    }
    println!("{unfinished} unfinished containers were settled after {KILLS} kills");
    assert!(unfinished > 0, "no kill hit a file in between");
}

/// Before and after the sweep.
fn check(root: &Path, kill: usize) {
    every_file_is_somewhere(root, kill, "after the kill");
    let vault = Vault::open(&root.join("state"), 1 << 30).expect("vault");
    every_file_is_somewhere(root, kill, "after the sweep");
    assert_eq!(vault.list().expect("list").iter().filter(|i| i.damaged.is_some()).count(), 0);
    let beside: Vec<String> =
        names(&root.join("files")).into_iter().filter(|name| !name.starts_with("evil")).collect();
    assert_eq!(beside, Vec::<String>::new(), "kill {kill}");
}

fn every_file_is_somewhere(root: &Path, kill: usize, when: &str) {
    let key = HostKey::load(&root.join("state/host.key")).expect("key");
    let mut sealed = Vec::new();
    for entry in std::fs::read_dir(root.join("state/quarantine")).expect("folder") {
        let path = entry.expect("entry").path();
        if path.extension().is_some_and(|is| is == "hfq" || is == "pending") {
            let mut plain = Vec::new();
            let container = std::fs::File::open(&path).expect("open");
            unseal(container, &key, &mut plain).expect("a container is always whole");
            sealed.push(plain);
        }
    }
    for n in 0..FILES {
        let path = root.join("files").join(format!("evil{n}"));
        let in_place = match std::fs::read(&path) {
            Ok(bytes) => {
                assert_eq!(bytes, content(n), "kill {kill}: half a file {when}");
                true
            }
            Err(_) => false,
        };
        assert!(in_place || sealed.contains(&content(n)), "kill {kill}: file {n} is lost {when}");
    }
}
