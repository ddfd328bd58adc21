//! Others change names, content and folders while a file is sealed. Nothing else is ever lost.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use holdfast_agent::quarantine::{Removal, Sealing};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::scratch::{Scratch, seal, sealing};

/// Runs `disturb` again and again in another thread while `work` runs.
fn disturbed(mut disturb: impl FnMut() + Send, work: impl FnOnce()) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                disturb();
            }
        });
        work();
        done.store(true, Ordering::Relaxed);
    });
}

/// Contents of all files below a folder.
fn contents(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.push(std::fs::read_to_string(path).expect("read"));
        }
    }
    found
}

#[test]
fn a_name_that_is_swapped_all_the_time_costs_nobody_a_file() {
    let mut scratch = Scratch::folder();
    let vault = scratch.vault();
    let files = scratch.tmpfs("files", "size=64m");
    let (path, spare) = (files.join("name"), files.join("spare"));
    let swap = || {
        // Exchanges when both are there, else moves whichever is there: never over another one.
        for flags in [RenameFlags::EXCHANGE, RenameFlags::NOREPLACE] {
            let _ = renameat_with(CWD, &spare, CWD, &path, flags);
        }
        let _ = renameat_with(CWD, &path, CWD, &spare, RenameFlags::EXCHANGE);
    };
    let rounds = 400;
    let mut removed = 0;
    disturbed(swap, || {
        for round in 0..rounds {
            let (evil, innocent) = (format!("evil {round}"), format!("innocent {round}"));
            std::fs::write(files.join("draft"), &evil).expect("write");
            let file = File::open(files.join("draft")).expect("open");
            place(&files, &[&path, &spare]);
            std::fs::write(files.join("draft"), &innocent).expect("write");
            place(&files, &[&spare, &path]);
            let sealed = vault.seal(file.as_fd(), &sealing(&path)).expect("sealed");
            removed += usize::from(sealed.removal == Removal::Removed);
            // The names are made free again for the next round.
            for (n, name) in [&path, &spare].into_iter().enumerate() {
                let away = files.join(format!("away {round} {n}"));
                let _ = renameat_with(CWD, name, CWD, &away, RenameFlags::NOREPLACE);
            }
            let away = files.join(format!("away {round} 2"));
            let _ = renameat_with(CWD, &path, CWD, &away, RenameFlags::NOREPLACE);
        }
    });
    let left: BTreeSet<String> = contents(&files).into_iter().collect();
    let sealed = vault.list().expect("list").len();
    for round in 0..rounds {
        assert!(left.contains(&format!("innocent {round}")), "innocent {round} is lost");
    }
    println!("{removed} of {rounds} removed under swapping, {sealed} items");
    assert!(removed > 0);
    let hidden = std::fs::read_dir(&files).expect("folder").filter(|entry| {
        entry.as_ref().expect("entry").file_name().to_string_lossy().starts_with(".holdfast")
    });
    assert_eq!(hidden.count(), 0, "nothing of ours is left beside the files");
}

/// Gives the draft the first name that is free, whatever happens meanwhile.
fn place(files: &Path, names: &[&PathBuf]) {
    let draft = files.join("draft");
    for name in names.iter().cycle().take(1000) {
        if renameat_with(CWD, &draft, CWD, *name, RenameFlags::NOREPLACE).is_ok() {
            return;
        }
    }
    panic!("no name is free: {:?}", std::fs::read_dir(files).expect("folder").count());
}

#[test]
fn a_folder_that_is_swapped_for_a_link_all_the_time_misleads_nobody() {
    let scratch = Scratch::folder();
    let vault = scratch.vault();
    let (folder, link) = (scratch.make_folder("folder"), scratch.path("link"));
    let victims = scratch.make_folder("victims");
    std::os::unix::fs::symlink(&victims, &link).expect("symlink");
    for n in 0..200 {
        std::fs::write(victims.join(format!("evil{n}")), "innocent").expect("write");
        std::fs::write(folder.join(format!("evil{n}")), format!("malicious {n}")).expect("write");
    }
    let opened: Vec<File> =
        (0..200).map(|n| File::open(folder.join(format!("evil{n}"))).expect("open")).collect();
    let mut removed = 0;
    let swap = || {
        let _ = renameat_with(CWD, &folder, CWD, &link, RenameFlags::EXCHANGE);
    };
    disturbed(swap, || {
        for (n, file) in opened.iter().enumerate() {
            let path = folder.join(format!("evil{n}"));
            let sealed = vault.seal(file.as_fd(), &sealing(&path)).expect("sealed");
            removed += u64::from(sealed.removal == Removal::Removed);
        }
    });
    // Folder and link may have changed places.
    let real = if folder.is_symlink() { &link } else { &folder };
    assert_eq!(contents(&victims), vec!["innocent"; 200]);
    assert_eq!(contents(real).len() as u64 + removed, 200);
    assert_eq!(vault.usage().items, removed);
    assert!(removed > 0);
}

#[test]
fn content_that_was_not_judged_is_never_listed() {
    let mut scratch = Scratch::folder();
    let vault = scratch.vault();
    let path = scratch.tmpfs("files", "size=16m").join("name");
    std::fs::write(&path, "written since").expect("write");
    let file = File::open(&path).expect("open");
    let judged = Sealing { sha256: Some("of something else".to_owned()), ..sealing(&path) };
    let list = || assert!(vault.list().expect("list").is_empty());
    disturbed(list, || {
        for _ in 0..400 {
            let sealed = vault.seal(file.as_fd(), &judged).expect("sealed");
            assert!(matches!(sealed.removal, Removal::StillThere(_)), "{:?}", sealed.removal);
        }
    });
    assert_eq!(std::fs::read_to_string(&path).expect("read"), "written since");
}

#[test]
fn two_hundred_openers_of_one_file_make_one_item() {
    let scratch = Scratch::folder();
    let vault = scratch.vault();
    let path = scratch.path("evil");
    std::fs::write(&path, vec![7; 100_000]).expect("write");
    let opened: Vec<File> = (0..200).map(|_| File::open(&path).expect("open")).collect();
    let ids: BTreeSet<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = opened
            .iter()
            .map(|file| {
                let (vault, path) = (&vault, &path);
                scope.spawn(move || vault.seal(file.as_fd(), &sealing(path)).expect("sealed"))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                let sealed = thread.join().expect("thread");
                assert_eq!(sealed.removal, Removal::Removed);
                sealed.id
            })
            .collect()
    });
    assert_eq!(ids.len(), 1);
    assert_eq!(vault.list().expect("list").len(), 1);
}

#[test]
fn a_file_that_is_written_while_it_is_sealed_has_the_hash_of_what_was_sealed() {
    let scratch = Scratch::folder();
    let vault = scratch.vault();
    let path = scratch.path("evil");
    std::fs::write(&path, vec![0; 4 << 20]).expect("write");
    let writer = File::options().write(true).open(&path).expect("open");
    let mut byte = 0_u8;
    let write = || {
        byte = byte.wrapping_add(1);
        let at = u64::from(byte) * 16_000;
        writer.write_all_at(&[byte; 100], at).expect("write");
    };
    let mut id = None;
    disturbed(write, || id = Some(seal(&vault, &path).expect("sealed").id));
    let id = id.expect("sealed");
    assert!(vault.show(id).expect("show").changed_while_sealed);
    // Unsealing compares the content with the metadata's hash.
    vault.restore(id, None).expect("restored");
}
