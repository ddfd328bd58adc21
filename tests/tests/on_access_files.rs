//! Held opens on real file systems: every way to reach a file's content.

mod common;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use common::{
    SOON, assert_blocked, assert_quarantined, counter, on_each_file_system, protect, python,
    settle, wait_event, write_as_user,
};
use holdfast_tests::scratch::Scratch;
use holdfast_tests::{eicar, require_root, until};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

const CLEAN: &[u8] = b"nothing to see here\n";

#[test]
fn malicious_file_is_denied_quarantined_and_reported() {
    on_each_file_system(|scratch, agent| {
        let path = scratch.join("eicar.com");
        fs::write(&path, eicar()).expect("write");
        assert_blocked(&path);
        let item = assert_quarantined(agent, &path);
        assert_eq!(
            item["sha256"],
            "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f"
        );
        let event = wait_event(agent, "malware", |event| event["disposition"] == "quarantined");
        assert_eq!(event["md5"], "44d88612fea8a8f36de82e1278abb02f");
        assert_eq!(event["signature"]["engine"], "eicar");
        assert!(event["id"].is_string() && event["time_ms"].is_i64() && event["host"].is_string());
    });
}

#[test]
fn finished_download_is_quarantined_before_anybody_opens_it() {
    on_each_file_system(|scratch, agent| {
        let path = scratch.join("download");
        fs::write(&path, eicar()).expect("write");
        assert_quarantined(agent, &path);
        let event = wait_event(agent, "malware", |event| event["scan_type"] == "on_close");
        assert_eq!(event["disposition"], "quarantined");
    });
}

#[test]
fn denied_opener_is_named_with_command_line_user_and_ancestors() {
    on_each_file_system(|scratch, agent| {
        // Not closed by a writer after it became malicious: found by the open alone.
        let path = scratch.join("held-by-open.txt");
        let output = python(
            "import os,sys\n\
             fd=os.open(sys.argv[1],os.O_RDWR|os.O_CREAT,0o644)\n\
             os.write(fd,bytes.fromhex(sys.argv[2]))\n\
             try:\n  open(sys.argv[1]).read(); print('READ')\n\
             except PermissionError: print('DENIED')\n",
            &[&path, hex_eicar().as_ref()],
        );
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "DENIED");
        let event = wait_event(agent, "malware", |event| event["scan_type"] == "on_open");
        assert_eq!(event["decision"], "deny");
        let process = &event["process"];
        assert!(process["exe"].as_str().is_some_and(|exe| exe.contains("python")), "{process}");
        assert_eq!(process["args"][1], "-c");
        assert_eq!((&process["uid"], &process["user"]), (&0.into(), &"root".into()));
        let parent = &event["parents"][0];
        assert_eq!(parent["key"]["pid"], u64::from(std::process::id()), "{parent}");
    });
}

fn hex_eicar() -> String {
    eicar().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_way_to_open_is_held() {
    on_each_file_system(|scratch, _| {
        let path = scratch.join("openat2");
        fs::write(&path, eicar()).expect("write");
        let opened = rustix::fs::openat2(
            CWD,
            &path,
            OFlags::RDONLY,
            Mode::empty(),
            ResolveFlags::NO_SYMLINKS,
        );
        assert!(opened.is_err(), "openat2");

        let path = scratch.join("program");
        fs::write(&path, eicar()).expect("write");
        // May be in quarantine already, which is as good.
        let _ = fs::set_permissions(&path, fs::Permissions::from_mode(0o755));
        let error = Command::new(&path).status().expect_err("exec is denied");
        assert!(
            matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOENT)),
            "exec: {error} (ENOEXEC would mean that it was allowed)"
        );

        let path = scratch.join("mapped");
        fs::write(&path, eicar()).expect("write");
        let output = python(
            "import mmap,sys\nf=open(sys.argv[1],'rb')\nprint(mmap.mmap(f.fileno(),0,prot=1)[:8])",
            &[&path],
        );
        assert!(!output.status.success(), "mmap");

        let path = scratch.join("target");
        let link = scratch.join("symlink");
        std::os::unix::fs::symlink(&path, &link).expect("symlink");
        fs::write(&path, eicar()).expect("write");
        assert_blocked(&link);
    });
}

#[test]
fn path_descriptor_gives_no_content() {
    on_each_file_system(|scratch, _| {
        let path = scratch.join("by-path-descriptor");
        fs::write(&path, eicar()).expect("write");
        // O_PATH raises no event; whoever wants content opens again, and that is held.
        if let Ok(handle) = rustix::fs::open(&path, OFlags::PATH, Mode::empty()) {
            use std::os::fd::AsRawFd;
            assert_blocked(format!("/proc/self/fd/{}", handle.as_raw_fd()).as_ref());
        }
    });
}

#[test]
fn malicious_file_renamed_over_a_clean_one_is_denied() {
    on_each_file_system(|scratch, agent| {
        let path = scratch.join("document");
        fs::write(&path, CLEAN).expect("write");
        settle(&path);
        assert_eq!(fs::read(&path).expect("clean"), CLEAN);
        assert_eq!(fs::read(&path).expect("clean"), CLEAN);
        let new = scratch.join("new");
        fs::write(&new, eicar()).expect("write");
        // Unless the close was faster.
        if fs::rename(&new, &path).is_ok() {
            assert_blocked(&path);
        }
        agent.wait_for(&["quarantine", "list"], |_| true).expect("item");
        assert!(fs::read(&path).map_or(true, |content| content == CLEAN));
    });
}

#[test]
fn every_hard_link_of_a_malicious_file_is_denied() {
    on_each_file_system(|scratch, agent| {
        let (one, two) = (scratch.join("one"), scratch.join("two"));
        let output = python(
            "import os,sys\n\
             fd=os.open(sys.argv[1],os.O_RDWR|os.O_CREAT,0o644)\n\
             os.link(sys.argv[1],sys.argv[2])\n\
             os.write(fd,bytes.fromhex(sys.argv[3]))\n",
            &[&one, &two, hex_eicar().as_ref()],
        );
        assert!(output.status.success());
        assert_blocked(&one);
        assert_blocked(&two);
        assert_quarantined(agent, &one);
        assert_blocked(&two);
        until(SOON, || {
            assert_blocked(&two);
            (!two.exists()).then_some(())
        })
        .expect("the other name is quarantined too");
    });
}

#[test]
fn clean_file_opens_and_its_next_open_stays_inside_the_kernel() {
    on_each_file_system(|scratch, agent| {
        let path = scratch.join("clean");
        fs::write(&path, CLEAN).expect("write");
        settle(&path);
        assert_eq!(fs::read(&path).expect("first open"), CLEAN);
        until(SOON, || {
            let before = counter(agent, "held");
            assert_eq!(fs::read(&path).expect("later open"), CLEAN);
            (counter(agent, "held") == before).then_some(())
        })
        .expect("an ignore mark");
        // And a change drops it.
        fs::write(&path, eicar()).expect("write");
        assert_blocked(&path);
    });
}

#[test]
fn file_that_users_can_write_gets_no_mark_but_a_remembered_verdict() {
    on_each_file_system(|scratch, agent| {
        let path = write_as_user(&scratch.join("of-a-user"), CLEAN);
        settle(&path);
        let cached = || counter(agent, "cached");
        let before = cached();
        if scratch.is("tmpfs") {
            // Its pages can be pinned and written to with no writer to be seen.
            for _ in 0..5 {
                assert_eq!(fs::read(&path).expect("open"), CLEAN);
            }
            assert_eq!(cached(), before, "nothing is remembered on tmpfs");
        } else {
            until(SOON, || {
                assert_eq!(fs::read(&path).expect("open"), CLEAN);
                (cached() > before).then_some(())
            })
            .expect("a remembered verdict");
        }
        let held = counter(agent, "held");
        assert_eq!(fs::read(&path).expect("open"), CLEAN);
        assert!(counter(agent, "held") > held, "every open of it is looked at");
    });
}

#[test]
fn change_through_a_shared_mapping_after_a_clean_verdict_is_seen() {
    on_each_file_system(|scratch, agent| {
        let path = write_as_user(&scratch.join("mapped-later"), &[b' '; 68]);
        settle(&path);
        for _ in 0..3 {
            assert_eq!(fs::read(&path).expect("open").len(), 68);
        }
        // The descriptor is closed before the store; the mapping alone keeps the file writable.
        let output = python(
            "import mmap,os,subprocess,sys\n\
             fd=os.open(sys.argv[1],os.O_RDWR)\n\
             m=mmap.mmap(fd,68)\n\
             m[0]\n\
             os.close(fd)\n\
             m[0:68]=bytes.fromhex(sys.argv[2])\n\
             r=subprocess.run(['cat',sys.argv[1]],capture_output=True)\n\
             sys.exit(0 if r.returncode else 1)\n",
            &[&path, hex_eicar().as_ref()],
        );
        assert!(output.status.success(), "cat could read what the mapping stored");
        assert_quarantined(agent, &path);
    });
}

#[test]
fn writer_that_still_holds_the_file_cannot_slip_content_past_a_verdict() {
    on_each_file_system(|scratch, _| {
        let path = write_as_user(&scratch.join("still-written"), CLEAN);
        settle(&path);
        let writer = fs::OpenOptions::new().write(true).open(&path).expect("writer");
        for _ in 0..3 {
            assert_eq!(fs::read(&path).expect("clean so far"), CLEAN);
        }
        writer.set_len(0).expect("truncate");
        std::os::unix::fs::FileExt::write_all_at(&writer, &eicar(), 0).expect("write");
        assert_blocked(&path);
        drop(writer);
        assert_blocked(&path);
    });
}

#[test]
fn names_that_are_not_text_and_odd_files_do_no_harm() {
    on_each_file_system(|scratch, agent| {
        let path = scratch.join(OsStr::from_bytes(b"new\nline-\xff\xfe-\x1b[2J"));
        fs::write(&path, eicar()).expect("write");
        assert_blocked(&path);
        until(SOON, || (!path.exists()).then_some(())).expect("quarantined");
        let event = wait_event(agent, "malware", |_| true);
        let shown = event["path"].as_str().expect("path").to_owned();
        assert!(shown.ends_with(r"new\x0aline-\xff\xfe-\x1b[2J"), "{shown}");

        let fifo = scratch.join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        rustix::fs::open(&fifo, flags, Mode::empty()).expect("a fifo opens");

        let sparse = scratch.join("sparse");
        File::create(&sparse).expect("create").set_len(32 << 20).expect("grow");
        assert_eq!(fs::read(&sparse).expect("sparse").len(), 32 << 20);
        fs::write(scratch.join("empty"), b"").expect("write");
        assert!(fs::read(scratch.join("empty")).expect("empty").is_empty());
    });
}

#[test]
fn two_hundred_openers_at_once_are_all_answered_right() {
    on_each_file_system(|scratch, agent| {
        let clean = scratch.join("popular");
        fs::write(&clean, vec![b'x'; 4096]).expect("write");
        let bad = scratch.join("bait");
        let writer = File::create(&bad).expect("create");
        std::os::unix::fs::FileExt::write_all_at(&writer, &eicar(), 0).expect("write");
        std::thread::scope(|scope| {
            for index in 0..200 {
                let (clean, bad) = (&clean, &bad);
                scope.spawn(move || {
                    if index % 4 == 0 {
                        assert_blocked(bad);
                    } else {
                        assert_eq!(fs::read(clean).expect("clean").len(), 4096);
                    }
                });
            }
        });
        drop(writer);
        assert_eq!(counter(agent, "past_deadline"), 0);
        assert_quarantined(agent, &bad);
        assert_eq!(agent.json(&["quarantine", "list"]).expect("list").len(), 1, "sealed once");
    });
}

#[test]
fn file_system_mounted_later_below_a_protected_path_is_protected() {
    require_root();
    let scratch = Scratch::tmpfs(16 << 20).expect("scratch");
    let agent = protect(&scratch).start().expect("agent");
    let inner = scratch.join("inner");
    fs::create_dir(&inner).expect("folder");
    let status = Command::new("mount").args(["-t", "tmpfs", "later"]).arg(&inner).status();
    assert!(status.expect("mount").success());
    let shown = inner.display().to_string();
    let protected = until(SOON, || {
        let status = agent.json(&["status"]).ok()?;
        let all = status[0]["file_systems"].as_array()?.clone();
        all.iter().any(|fs| fs["mount"] == shown.as_str() && fs["protected"] == true).then_some(())
    });
    let path = inner.join("eicar");
    let outcome = protected.map(|()| {
        fs::write(&path, eicar()).expect("write");
        assert_blocked(&path);
    });
    let _ = Command::new("umount").arg("-l").arg(&inner).status();
    outcome.expect("the new mount is protected");
}

#[test]
fn owner_that_changes_takes_the_ignore_mark_away() {
    on_each_file_system(|scratch, agent| {
        let path = scratch.join("given-away");
        fs::write(&path, [b' '; 68]).expect("write");
        settle(&path);
        until(SOON, || {
            let before = counter(agent, "held");
            fs::read(&path).expect("open");
            (counter(agent, "held") == before).then_some(())
        })
        .expect("an ignore mark");
        std::os::unix::fs::chown(&path, Some(1000), Some(1000)).expect("chown");
        until(SOON, || {
            let before = counter(agent, "held");
            fs::read(&path).expect("open");
            (counter(agent, "held") > before).then_some(())
        })
        .expect("opens are held again");
        // So a store through a mapping is seen.
        let output = python(
            "import mmap,os,subprocess,sys\n\
             os.setgid(1000); os.setuid(1000)\n\
             fd=os.open(sys.argv[1],os.O_RDWR)\n\
             m=mmap.mmap(fd,68)\n\
             os.close(fd)\n\
             m[0:68]=bytes.fromhex(sys.argv[2])\n\
             r=subprocess.run(['cat',sys.argv[1]],capture_output=True)\n\
             sys.exit(0 if r.returncode else 1)\n",
            &[&path, hex_eicar().as_ref()],
        );
        assert!(output.status.success(), "cat could read what the new owner stored");
    });
}

#[test]
fn file_system_that_takes_the_place_of_another_is_protected_too() {
    require_root();
    let scratch = Scratch::tmpfs(16 << 20).expect("scratch");
    let agent = protect(&scratch).start().expect("agent");
    let inner = scratch.join("inner");
    fs::create_dir(&inner).expect("folder");
    let mount = |arguments: &[&str]| {
        let status = Command::new(arguments[0]).args(&arguments[1..]).arg(&inner).status();
        assert!(status.expect(arguments[0]).success());
    };
    mount(&["mount", "-t", "tmpfs", "first"]);
    let shown = inner.display().to_string();
    until(SOON, || {
        let status = agent.json(&["status"]).ok()?;
        let all = status[0]["file_systems"].as_array()?.clone();
        all.iter().any(|fs| fs["mount"] == shown.as_str() && fs["protected"] == true).then_some(())
    })
    .expect("the first is protected");
    // Back to back, so that it may get the same mount id and device number.
    mount(&["umount"]);
    mount(&["mount", "-t", "tmpfs", "second"]);
    let blocked = until(SOON, || {
        let path = inner.join("eicar");
        fs::write(&path, eicar()).ok()?;
        File::open(&path).is_err().then_some(())
    });
    let _ = Command::new("umount").arg("-l").arg(&inner).status();
    blocked.expect("the second is protected");
}
