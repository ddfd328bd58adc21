//! What happens when something breaks while somebody waits.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use common::{
    SOON, assert_blocked, assert_quarantined, counter, failures, protect, python, settle,
    signal_workers, wait_event, workers, write_as_user,
};
use holdfast_tests::scratch::Scratch;
use holdfast_tests::{eicar, require_root, until};
use nix::sys::signal::Signal;

/// A file that somebody still writes: no close leads to a scan, and no verdict is kept.
fn unclosed(scratch: &Scratch, name: &str, content: &[u8]) -> (std::path::PathBuf, File) {
    let path = scratch.join(name);
    let writer = File::create(&path).expect("create");
    writer.write_all_at(content, 0).expect("write");
    (path, writer)
}

/// A malicious file that only an open finds.
fn unclosed_bait(scratch: &Scratch, name: &str) -> (std::path::PathBuf, File) {
    unclosed(scratch, name, &eicar())
}

#[test]
fn scanner_that_hangs_costs_a_deadline_and_the_rescan_finds_it() {
    require_root();
    let scratch = Scratch::ext4().expect("scratch");
    let mut agent = protect(&scratch).on_access("deadline_ms = 1000").start().expect("agent");
    let (path, writer) = unclosed_bait(&scratch, "bait");
    assert!(signal_workers(&agent, Signal::SIGSTOP) > 0, "workers to stop");
    let begin = Instant::now();
    let opened = File::open(&path);
    let waited = begin.elapsed();
    assert!(opened.is_ok(), "availability first: {opened:?}");
    assert!(waited <= Duration::from_millis(1000), "waited {waited:?}");
    assert_eq!(failures(&agent, "deadline"), 1);
    assert_eq!(counter(&agent, "past_deadline"), 0);
    let event = wait_event(&agent, "failure", |event| event["reason"] == "deadline");
    assert_eq!((&event["decision"], &event["rescan"]), (&"allow".into(), &true.into()));
    drop((opened, writer));
    assert_quarantined(&agent, &path);
    // New workers have taken the places of those that hung.
    let (path, _writer) = unclosed_bait(&scratch, "next");
    assert_blocked(&path);
    agent.stop().expect("clean stop");
}

#[test]
fn strict_denies_what_it_could_not_judge() {
    require_root();
    let scratch = Scratch::tmpfs(16 << 20).expect("scratch");
    let setup = protect(&scratch).on_access("deadline_ms = 500\nstrict = true");
    let agent = setup.start().expect("agent");
    let (path, _writer) = unclosed(&scratch, "clean", b"clean");
    signal_workers(&agent, Signal::SIGSTOP);
    let begin = Instant::now();
    assert_blocked(&path);
    assert!(begin.elapsed() <= Duration::from_millis(500), "{:?}", begin.elapsed());
    until(SOON, || fs::read(&path).ok()).expect("later it opens again");
}

#[test]
fn scanner_that_is_killed_costs_nobody_anything() {
    require_root();
    let scratch = Scratch::ext4().expect("scratch");
    let mut agent = protect(&scratch).start().expect("agent");
    for round in 0..20 {
        let clean = scratch.join(format!("clean-{round}"));
        fs::write(&clean, format!("clean {round}")).expect("write");
        let (bad, _writer) = unclosed_bait(&scratch, &format!("bad-{round}"));
        assert!(signal_workers(&agent, Signal::SIGKILL) > 0 || round > 0);
        assert!(fs::read(&clean).is_ok());
        assert_blocked(&bad);
    }
    assert_eq!(counter(&agent, "past_deadline"), 0);
    let answered_without_a_verdict = agent
        .json(&["events", "--kind", "failure"])
        .expect("events")
        .into_iter()
        .filter(|event| !event["decision"].is_null())
        .count();
    assert_eq!(answered_without_a_verdict, 0);
    agent.stop().expect("clean stop");
}

#[test]
fn agent_killed_while_fifty_opens_are_held_lets_all_go_within_a_second() {
    require_root();
    let scratch = Scratch::ext4().expect("scratch");
    let setup = protect(&scratch).on_access("deadline_ms = 30000");
    let mut agent = setup.start().expect("agent");
    let (path, _writer) = unclosed(&scratch, "clean", b"clean");
    signal_workers(&agent, Signal::SIGSTOP);
    let held = counter(&agent, "held");
    std::thread::scope(|scope| {
        let openers: Vec<_> = (0..50).map(|_| scope.spawn(|| File::open(&path))).collect();
        until(SOON, || (counter(&agent, "held") >= held + 50).then_some(())).expect("50 held");
        assert!(openers.iter().all(|opener| !opener.is_finished()), "all wait");
        let begin = Instant::now();
        agent.kill().expect("kill");
        for opener in openers {
            assert!(opener.join().expect("opener").is_ok());
        }
        assert!(begin.elapsed() < Duration::from_secs(1), "took {:?}", begin.elapsed());
    });
    agent.start().expect("again");
    let gap = wait_event(&agent, "protection_gap", |_| true);
    assert!(gap["until_ms"].as_i64() >= gap["from_ms"].as_i64());
    assert_eq!(workers_of_others(), 0, "no worker outlives its agent");
    let (path, _writer) = unclosed_bait(&scratch, "bait");
    assert_blocked(&path);

    /// Workers whose parent is init: their agent has died.
    fn workers_of_others() -> usize {
        until(SOON, || {
            let orphans = fs::read_dir("/proc").ok()?.flatten().filter(|entry| {
                let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
                stat.contains("(holdfast-scan) T 1 ") || stat.contains("(holdfast-scan) S 1 ")
            });
            (orphans.count() == 0).then_some(0)
        })
        .unwrap_or(1)
    }
}

#[test]
fn agent_that_stops_lets_everybody_go() {
    require_root();
    let scratch = Scratch::tmpfs(16 << 20).expect("scratch");
    let setup = protect(&scratch).on_access("deadline_ms = 30000");
    let mut agent = setup.start().expect("agent");
    let (path, _writer) = unclosed(&scratch, "clean", b"clean");
    signal_workers(&agent, Signal::SIGSTOP);
    let held = counter(&agent, "held");
    std::thread::scope(|scope| {
        let opener = scope.spawn(|| File::open(&path));
        until(SOON, || (counter(&agent, "held") > held).then_some(())).expect("held");
        let begin = Instant::now();
        let status = agent.stop().expect("stop");
        assert!(status.success(), "{status}");
        assert!(opener.join().expect("opener").is_ok());
        assert!(begin.elapsed() < Duration::from_secs(5), "took {:?}", begin.elapsed());
    });
}

#[test]
fn full_quarantine_loses_nothing_and_leaves_nothing_readable() {
    require_root();
    let scratch = Scratch::ext4().expect("scratch");
    let small = Scratch::tmpfs(1 << 20).expect("small disk");
    let mut agent = protect(&scratch).home_in(small.path()).start().expect("agent");
    let filler = File::create(small.join("filler")).expect("filler");
    let mut at = 0;
    while filler.write_all_at(&[0; 4096], at).is_ok() {
        at += 4096;
    }
    let (bait, writer) = unclosed_bait(&scratch, "bait");
    assert_blocked(&bait);
    drop(writer);
    assert_blocked(&bait);
    assert!(bait.exists(), "it stays where it is");
    assert_blocked(&bait);
    drop(filler);
    fs::remove_file(small.join("filler")).expect("room again");
    // The journal, too, had no room: it kept the event and writes it now.
    let event = wait_event(&agent, "malware", |event| event["disposition"] == "blocked");
    assert!(event["reason"].as_str().is_some_and(|reason| reason.contains("space")), "{event}");
    until(SOON, || {
        assert_blocked(&bait);
        (!bait.exists()).then_some(())
    })
    .expect("with room again it is quarantined");
    agent.stop().expect("clean stop");
}

#[test]
fn four_gigabytes_are_allowed_by_the_table_and_scanned_later() {
    require_root();
    let scratch = Scratch::ext4_sized(6 << 30).expect("scratch");
    let agent = protect(&scratch).start().expect("agent");
    let path = scratch.join("huge");
    File::create(&path).expect("create").set_len(4 << 30).expect("grow");
    let begin = Instant::now();
    File::open(&path).expect("allowed by failure");
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    let event = wait_event(&agent, "failure", |event| event["reason"] == "too_large");
    assert_eq!(event["rescan"], true);
    until(Duration::from_secs(120), || (counter(&agent, "rescans_done") >= 1).then_some(()))
        .expect("the rescan ends");
    assert_eq!(counter(&agent, "past_deadline"), 0);
}

#[test]
fn file_swapped_while_it_is_held_is_judged_as_what_is_opened() {
    require_root();
    let scratch = Scratch::ext4().expect("scratch");
    let mut agent = protect(&scratch).on_access("deadline_ms = 20000").start().expect("agent");
    let (path, _writer) = unclosed_bait(&scratch, "swapped");
    let clean = scratch.join("clean");
    fs::write(&clean, "clean").expect("write");
    settle(&clean);
    assert!(fs::read(&clean).is_ok());
    signal_workers(&agent, Signal::SIGSTOP);
    let held = counter(&agent, "held");
    std::thread::scope(|scope| {
        let opener = scope.spawn(|| File::open(&path));
        until(SOON, || (counter(&agent, "held") > held).then_some(())).expect("held");
        fs::rename(&clean, &path).expect("swap");
        signal_workers(&agent, Signal::SIGCONT);
        let opened = opener.join().expect("opener");
        assert!(opened.is_err(), "the malicious inode was opened");
    });
    let event = wait_event(&agent, "malware", |_| true);
    assert_eq!(event["decision"], "deny");
    assert_eq!(fs::read(&path).expect("the clean file"), b"clean", "it is not lost");
    agent.stop().expect("clean stop");
}

#[test]
fn program_that_somebody_still_writes_does_not_run() {
    require_root();
    let scratch = Scratch::tmpfs(64 << 20).expect("scratch");
    let agent = protect(&scratch).start().expect("agent");
    let program = scratch.join("program");
    holdfast_tests::copy_program("/bin/true", &program);
    // Root's own file has an ignore mark by now, and the kernel itself says ETXTBSY.
    std::os::unix::fs::chown(&program, Some(1000), None).expect("chown");
    assert!(std::process::Command::new(&program).status().expect("runs").success());
    let output = python(
        "import os,subprocess,sys\n\
         fd=os.open(sys.argv[1],os.O_RDWR)\n\
         try: subprocess.run([sys.argv[1]]); print('RAN')\n\
         except OSError as e: print(e.errno)\n",
        &[&program],
    );
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert_eq!(said, libc::EPERM.to_string(), "denied, by the failure table");
    assert_eq!(failures(&agent, "changing_exec"), 1);
    assert!(std::process::Command::new(&program).status().expect("runs again").success());
}

#[test]
fn detect_mode_reports_and_leaves_everything_as_it_is() {
    require_root();
    let scratch = Scratch::tmpfs(16 << 20).expect("scratch");
    let agent = protect(&scratch).detect().start().expect("agent");
    let path = scratch.join("eicar");
    fs::write(&path, eicar()).expect("write");
    assert_eq!(fs::read(&path).expect("detect mode allows"), eicar());
    let event = wait_event(&agent, "malware", |event| event["scan_type"] == "on_open");
    assert_eq!((&event["decision"], &event["disposition"]), (&"allow".into(), &"allowed".into()));
    assert!(path.exists());
    assert!(agent.json(&["quarantine", "list"]).expect("list").is_empty());
}

#[test]
fn exclusions_let_through_by_path_process_and_hash() {
    require_root();
    let scratch = Scratch::tmpfs(16 << 20).expect("scratch");
    let root = scratch.path().canonicalize().expect("real path");
    let sha256 = "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f";
    for exclude in [
        format!("paths = [\"{}/**\"]", root.display()),
        "processes = [\"**/on_access_failures-*\"]".to_owned(),
        format!("hashes = [\"{sha256}\"]"),
    ] {
        let setup = protect(&scratch).tables(&format!("[on_access.exclude]\n{exclude}"));
        let agent = setup.start().expect("agent");
        let (path, _writer) = unclosed_bait(&scratch, "bait");
        assert_eq!(fs::read(&path).expect(&exclude), eicar());
        assert!(agent.json(&["quarantine", "list"]).expect("list").is_empty());
    }
}

#[test]
fn agent_works_with_its_own_state_on_the_file_system_that_it_protects() {
    require_root();
    let scratch = Scratch::ext4().expect("scratch");
    let mut agent = protect(&scratch).home_in(scratch.path()).start().expect("agent");
    let (path, writer) = unclosed_bait(&scratch, "bait");
    assert_blocked(&path);
    drop(writer);
    let item = assert_quarantined(&agent, &path);
    let id = item["id"].as_str().expect("id").to_owned();
    let restored = agent.cli(&["quarantine", "restore", &id]).expect("cli");
    assert!(restored.status.success(), "{restored:?}");
    assert!(path.exists());
    assert_blocked(&path);
    assert_quarantined(&agent, &path);
    agent.stop().expect("clean stop");
}

#[test]
fn restored_and_allowed_content_opens_from_then_on_also_after_a_restart() {
    require_root();
    let scratch = Scratch::ext4().expect("scratch");
    let mut agent = protect(&scratch).start().expect("agent");
    let path = write_as_user(&scratch.join("false-positive"), &eicar());
    assert_blocked(&path);
    let item = assert_quarantined(&agent, &path);
    let id = item["id"].as_str().expect("id").to_owned();
    let restored = agent.cli(&["quarantine", "restore", &id, "--allow"]).expect("cli");
    assert!(restored.status.success(), "{restored:?}");
    assert_eq!(fs::read(&path).expect("allowed"), eicar());
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(&path).expect("metadata"));
    assert_eq!(owner, 1000);
    agent.stop().expect("stop");
    agent.start().expect("again");
    assert_eq!(fs::read(&path).expect("still allowed"), eicar());
    assert!(!workers(&agent).is_empty());
}

#[test]
fn content_that_is_allowed_for_a_time_is_denied_again_after_it_also_by_another_agent() {
    require_root();
    let scratch = Scratch::ext4().expect("scratch");
    let mut agent = protect(&scratch).start().expect("agent");
    let path = write_as_user(&scratch.join("for-a-moment"), &eicar());
    assert_blocked(&path);
    let item = assert_quarantined(&agent, &path);
    let id = item["id"].as_str().expect("id").to_owned();
    let bare = agent.cli(&["quarantine", "restore", &id, "--for", "1h"]).expect("cli");
    assert_eq!(bare.status.code(), Some(64), "for a time, but not allowed: {bare:?}");
    let begin = Instant::now();
    let arguments = ["quarantine", "restore", &id, "--allow", "--for", "10s"];
    let restored = agent.cli(&arguments).expect("cli");
    assert!(String::from_utf8_lossy(&restored.stdout).contains("allowed until"), "{restored:?}");
    assert_eq!(fs::read(&path).expect("allowed"), eicar());
    agent.stop().expect("stop");
    agent.start().expect("again");
    // Nobody reads it before its time is over: what was read does not matter.
    while begin.elapsed() < Duration::from_secs(11) {
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_blocked(&path);
    assert_quarantined(&agent, &path);
}

#[test]
fn rules_that_are_loaded_anew_judge_what_was_clean_before() {
    require_root();
    let scratch = Scratch::ext4().expect("scratch");
    let rules = tempfile::tempdir().expect("rules");
    let config = format!("[scan]\nbundle = \"{}\"", rules.path().display());
    let agent = protect(&scratch).tables(&config).start().expect("agent");
    let path = scratch.join("sample");
    fs::write(&path, "an ordinary file with the word purple-elephant in it").expect("write");
    settle(&path);
    for _ in 0..3 {
        assert!(fs::read(&path).is_ok());
    }
    let bad = "rule broken { strings: $a = \"x\" condition: $b }";
    fs::write(rules.path().join("a.yar"), bad).expect("write");
    let reload = agent.cli(&["bundle", "reload"]).expect("cli");
    assert!(!reload.status.success(), "a broken rule is refused");
    assert!(String::from_utf8_lossy(&reload.stderr).contains("a.yar"), "{reload:?}");
    assert!(fs::read(&path).is_ok(), "the last good rules stay");
    let good = "rule Purple { strings: $a = \"purple-elephant\" condition: $a }";
    fs::write(rules.path().join("a.yar"), good).expect("write");
    let reload = agent.cli(&["bundle", "reload"]).expect("cli");
    assert!(reload.status.success(), "{reload:?}");
    assert_blocked(&path);
    let event = wait_event(&agent, "malware", |_| true);
    assert_eq!(event["signature"]["engine"], "yara");
    assert_quarantined(&agent, &path);
}

#[test]
fn verdict_over_a_file_with_a_writer_is_used_once() {
    require_root();
    let scratch = Scratch::ext4().expect("scratch");
    let setup = protect(&scratch).on_access("deadline_ms = 30000");
    let agent = setup.start().expect("agent");
    let path = write_as_user(&scratch.join("written"), b"clean so far");
    settle(&path);
    let writer = fs::OpenOptions::new().write(true).open(&path).expect("writer");
    signal_workers(&agent, Signal::SIGSTOP);
    let held = counter(&agent, "held");
    std::thread::scope(|scope| {
        let opener = scope.spawn(|| fs::read(&path));
        until(SOON, || (counter(&agent, "held") > held).then_some(())).expect("held");
        // Gone before the scan ends: what it stored meanwhile would leave no trace.
        drop(writer);
        signal_workers(&agent, Signal::SIGCONT);
        assert!(opener.join().expect("opener").is_ok());
    });
    let cached = counter(&agent, "cached");
    assert!(fs::read(&path).is_ok());
    assert_eq!(counter(&agent, "cached"), cached, "the next open is scanned again");
}

#[test]
fn flood_of_denied_openers_is_answered_within_the_deadline() {
    require_root();
    let scratch = Scratch::ext4().expect("scratch");
    let mut agent = protect(&scratch).on_access("deadline_ms = 1000").start().expect("agent");
    let (path, _writer) = unclosed_bait(&scratch, "bait");
    let names: Vec<_> = (0..50).map(|index| scratch.join(format!("link-{index}"))).collect();
    for name in &names {
        fs::hard_link(&path, name).expect("link");
    }
    std::thread::scope(|scope| {
        for index in 0..400 {
            let name = &names[index % names.len()];
            scope.spawn(move || {
                let begin = Instant::now();
                assert_blocked(name);
                assert!(begin.elapsed() <= Duration::from_millis(1500), "{:?}", begin.elapsed());
            });
        }
    });
    assert_eq!(counter(&agent, "past_deadline"), 0);
    agent.stop().expect("clean stop");
}

#[test]
fn program_whose_builder_is_not_quite_done_runs_all_the_same() {
    require_root();
    let scratch = Scratch::ext4().expect("scratch");
    let agent = protect(&scratch).start().expect("agent");
    let program = scratch.join("just-built");
    // A child that was forked meanwhile keeps the descriptor for some milliseconds.
    let output = python(
        "import os,subprocess,sys,time\n\
         fd=os.open(sys.argv[1],os.O_WRONLY|os.O_CREAT,0o755)\n\
         os.write(fd,open('/bin/true','rb').read()); os.fchown(fd,1000,1000)\n\
         if os.fork()==0: time.sleep(0.01); os._exit(0)\n\
         os.close(fd)\n\
         for _ in range(200):\n\
         \x20 try: subprocess.run([sys.argv[1]],check=True); print('RAN'); break\n\
         \x20 except OSError as e:\n\
         \x20  if e.errno!=26: print(e.errno); break\n\
         \x20  time.sleep(0.001)\n",
        &[&program],
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "RAN");
    assert_eq!(failures(&agent, "changing_exec"), 0);
}

#[test]
fn content_that_is_not_what_was_judged_is_not_taken() {
    require_root();
    let scratch = Scratch::ext4().expect("scratch");
    let agent = protect(&scratch).start().expect("agent");
    for round in 0..20 {
        let (path, writer) = unclosed_bait(&scratch, &format!("bait-{round}"));
        assert_blocked(&path);
        writer.write_all_at(&[b'c'; 68], 0).expect("overwrite");
    }
    let items = agent.json(&["quarantine", "list"]).expect("list");
    for item in items {
        assert_eq!(
            item["sha256"], "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f",
            "{item}"
        );
    }
}

#[test]
fn log_that_nobody_reads_stops_nothing() {
    require_root();
    let scratch = Scratch::ext4().expect("scratch");
    let home = tempfile::tempdir().expect("temporary folder");
    let config = home.path().join("holdfast.toml");
    let text = format!(
        "state_dir = \"{0}/state\"\nsocket = \"{0}/socket\"\n[on_access]\nprotect = [\"{1}\"]\n\
         mode = \"block\"\n[sensor]\nenabled = false\n",
        home.path().display(),
        scratch.path().display()
    );
    fs::write(&config, text).expect("config");
    // A pipe that is full before the agent writes its first line, but for what says it is ready.
    let (reader, writer) = std::io::pipe().expect("pipe");
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).expect("a small pipe");
    let mut agent = std::process::Command::new(holdfast_tests::agent::binary("holdfastd"))
        .arg("--config")
        .arg(&config)
        .stderr(writer)
        .spawn()
        .expect("agent");
    let held = until(SOON, || {
        let (path, _writer) = unclosed_bait(&scratch, "probe");
        let denied = File::open(&path).is_err();
        let _ = fs::remove_file(&path);
        denied.then_some(())
    });
    for round in 0..100 {
        let path = scratch.join(format!("bait-{round}"));
        fs::write(&path, eicar()).expect("write");
        assert_blocked(&path);
    }
    let empty = until(SOON, || {
        let baits = fs::read_dir(scratch.path()).ok()?.flatten();
        (baits.filter(|entry| entry.file_name().to_string_lossy().starts_with("bait")).count() == 0)
            .then_some(())
    });
    agent.kill().expect("kill");
    agent.wait().expect("wait");
    drop(reader);
    held.expect("protected");
    empty.expect("all were quarantined");
}
