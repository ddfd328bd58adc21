//! The journal as its callers see it: bounds, refusals, crashes, a full disk.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::process::{Command, Stdio};
use std::time::Instant;

use holdfast_common::event::{CoverageEvent, ExecEvent, LossEvent};
use holdfast_common::process::ProcessInfo;

use super::*;

fn open(folder: &Path, max_telemetry: u64, max_events: u64) -> Result<Journal, JournalError> {
    Journal::open(folder, "host".into(), &config::Journal { max_telemetry, max_events })
}

fn fact(number: usize) -> EventBody {
    EventBody::Loss(LossEvent { queue: "test".into(), count: number as u64 })
}

fn exec(argument: &str) -> EventBody {
    let process = ProcessInfo { args: vec![argument.into()], ..ProcessInfo::default() };
    EventBody::Exec(Box::new(ExecEvent { process, parents: Vec::new(), count: 1 }))
}

fn kinds(journal: &Journal, kind: &str, limit: u64) -> Vec<Event> {
    let filter = Filter { kind: Some(kind.into()), limit, ..Filter::default() };
    journal.query(&filter).expect("query")
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn what_is_recorded_can_be_read_at_once_and_after_reopening() {
    let folder = tempfile::tempdir().expect("folder");
    let journal = open(folder.path(), 10, 10).expect("open");
    let id = journal.record(fact(7));
    journal.record(EventBody::AgentStopped);
    let found = journal.query(&Filter { id: Some(id), ..Filter::default() }).expect("query");
    assert_eq!((found.len(), &found[0].body), (1, &fact(7)));
    assert_eq!(journal.query(&Filter::default()).expect("query").len(), 2);
    let mode = folder.path().join("journal.db").metadata().expect("file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(journal);
    let journal = open(folder.path(), 10, 10).expect("open again");
    assert_eq!(journal.counts().events, 2);
    assert_eq!(kinds(&journal, "agent_stopped", 0).len(), 1);
    let later = Filter { since_ms: Some(i64::MAX), ..Filter::default() };
    assert!(journal.query(&later).expect("query").is_empty());
}

#[test]
fn the_newest_are_returned_oldest_first() {
    let folder = tempfile::tempdir().expect("folder");
    let journal = open(folder.path(), 10, 1000).expect("open");
    for number in 0..700 {
        journal.record(fact(number));
    }
    let bodies = |limit| kinds(&journal, "loss", limit).into_iter().map(|event| event.body);
    assert!(bodies(3).eq([fact(697), fact(698), fact(699)]));
    assert!(bodies(0).eq((0..700).map(fact)));
    assert_eq!(bodies(u64::MAX).count(), 700);
    assert_eq!(bodies(701).count(), 700);
}

#[test]
fn the_oldest_go_first_and_telemetry_never_pushes_out_detections() {
    let folder = tempfile::tempdir().expect("folder");
    let journal = open(folder.path(), 50, 20).expect("open");
    for number in 0..30 {
        journal.record(fact(number));
    }
    for number in 0..500 {
        journal.record(exec(&number.to_string()));
        if number % 100 == 0 {
            journal.flush();
        }
    }
    journal.flush();
    let facts = kinds(&journal, "loss", 0);
    assert_eq!((facts.len(), &facts[0].body), (20, &fact(10)));
    let execs = kinds(&journal, "exec", 0);
    assert_eq!((execs.len(), &execs[49].body), (50, &exec("499")));
    assert_eq!(journal.counts(), JournalCounts { events: 70, dropped: 0 });
}

#[test]
fn long_command_lines_are_bounded_by_bytes() {
    let folder = tempfile::tempdir().expect("folder");
    let journal = open(folder.path(), 200, 20).expect("open");
    let long = "x".repeat(100_000);
    for _ in 0..100 {
        journal.record(exec(&long));
    }
    journal.record(fact(1));
    // 200 events at 2 KiB make room for four of 100 KB.
    assert_eq!(kinds(&journal, "exec", 0).len(), 4);
    assert_eq!(kinds(&journal, "loss", 0).len(), 1);
}

#[test]
fn a_newer_version_is_refused_and_not_changed() {
    for in_log in [false, true] {
        let folder = tempfile::tempdir().expect("folder");
        drop(open(folder.path(), 10, 10).expect("open"));
        let file = folder.path().join("journal.db");
        let writer = rusqlite::Connection::open(&file).expect("sqlite");
        writer.pragma_update(None, "user_version", 9).expect("version");
        if in_log {
            // As a newer agent leaves it when it is killed: the version is in the log alone.
            for part in ["", "-wal"] {
                let name = format!("journal.db{part}");
                let copy = folder.path().join(format!("copy{part}"));
                std::fs::copy(folder.path().join(name), copy).expect("copy");
            }
        }
        drop(writer);
        if in_log {
            for part in ["", "-wal"] {
                let name = format!("journal.db{part}");
                let copy = folder.path().join(format!("copy{part}"));
                std::fs::rename(copy, folder.path().join(name)).expect("copy back");
            }
        }
        let read = |name: &str| std::fs::read(folder.path().join(name)).ok();
        let before = (read("journal.db"), read("journal.db-wal"));
        let error = open(folder.path(), 10, 10).expect_err("newer");
        assert!(matches!(error, JournalError::Newer { found: 9, known: 1, .. }), "{error}");
        assert!(error.to_string().contains("journal.db"), "{error}");
        assert!(before == (read("journal.db"), read("journal.db-wal")), "changed ({in_log})");
    }
}

#[test]
fn what_is_no_journal_is_moved_aside_and_reported() {
    type Spoil = fn(&Path);
    let spoils: [(&str, Spoil); 6] = [
        ("garbage", |file| std::fs::write(file, "garbage".repeat(1000)).expect("write")),
        ("short", |file| std::fs::write(file, "SQLite format 3\0").expect("write")),
        ("first page", |file| {
            let file = std::fs::OpenOptions::new().write(true).open(file).expect("open");
            file.write_all_at(&[0x5a; 3000], 100).expect("write");
        }),
        ("link", |file| {
            std::fs::remove_file(file).expect("remove");
            std::os::unix::fs::symlink("/etc/passwd", file).expect("link");
        }),
        ("folder", |file| {
            std::fs::remove_file(file).expect("remove");
            std::fs::create_dir(file).expect("folder");
        }),
        ("fifo", |file| {
            std::fs::remove_file(file).expect("remove");
            nix::unistd::mkfifo(file, nix::sys::stat::Mode::S_IRWXU).expect("fifo");
        }),
    ];
    let passwd = std::fs::read("/etc/passwd").expect("passwd");
    for (name, spoil) in spoils {
        let folder = tempfile::tempdir().expect("folder");
        drop(open(folder.path(), 10, 10).expect("open"));
        spoil(&folder.path().join("journal.db"));
        let journal = open(folder.path(), 10, 10).expect(name);
        journal.record(EventBody::AgentStopped);
        let told = kinds(&journal, "loss", 0);
        assert!(
            matches!(&told[..], [Event { body: EventBody::Loss(loss), .. }]
                if loss.queue.contains("corrupt")),
            "{name}: {told:?}"
        );
        let aside = std::fs::read_dir(folder.path()).expect("folder").filter(|entry| {
            let name = entry.as_ref().expect("entry").file_name();
            name.to_string_lossy().starts_with("journal.db.corrupt-")
        });
        assert_eq!(aside.count(), 1, "{name}");
    }
    assert_eq!(passwd, std::fs::read("/etc/passwd").expect("passwd"));
}

#[test]
fn corruption_while_running_begins_a_new_file_and_keeps_the_event() {
    let folder = tempfile::tempdir().expect("folder");
    let journal = open(folder.path(), 10, 1000).expect("open");
    for number in 0..300 {
        journal.record(fact(number));
    }
    journal.flush();
    let file = folder.path().join("journal.db");
    let other = rusqlite::Connection::open(&file).expect("sqlite");
    other.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("checkpoint");
    let raw = std::fs::OpenOptions::new().write(true).open(&file).expect("open");
    let length = raw.metadata().expect("size").len();
    raw.write_all_at(&vec![0xa5; usize::try_from(length).expect("size") - 4096], 4096)
        .expect("spoil");
    // The writer's page cache is dropped when somebody else commits.
    other.pragma_update(None, "user_version", 1).expect("commit");
    drop(other);
    let id = journal.record(EventBody::AgentStopped);
    until("a new file is begun", || {
        let found = journal.query(&Filter { id: Some(id), ..Filter::default() });
        found.is_ok_and(|found| found.len() == 1)
    });
    until("the problem is over", || journal.problem().is_none());
    assert_eq!(kinds(&journal, "loss", 0).len(), 1);
}

#[test]
fn writers_and_followers_at_once_lose_nothing_and_see_nothing_twice() {
    let folder = tempfile::tempdir().expect("folder");
    let journal = open(folder.path(), 10, 100_000).expect("open");
    let (writers, each) = (4, 500);
    let seen = std::thread::scope(|scope| {
        for writer in 0..writers {
            let journal = &journal;
            scope.spawn(move || {
                for number in 0..each {
                    journal.record(fact(writer * each + number));
                }
            });
        }
        let reader = scope.spawn(|| {
            let mut seen = Vec::new();
            let follower = journal
                .tail(&Filter::default(), &mut |event| {
                    seen.push(event.id);
                    true
                })
                .expect("tail");
            while seen.len() < writers * each {
                match follower.next(Duration::from_secs(30)) {
                    Next::Event(event) => seen.push(event.id),
                    Next::Nothing | Next::Closed => break,
                }
            }
            seen
        });
        reader.join().expect("reader")
    });
    assert_eq!(seen.len(), writers * each);
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), writers * each);
    let stored = journal.query(&Filter::default()).expect("query");
    assert!(stored.iter().map(|event| event.id).eq(seen));
}

#[test]
fn a_slow_follower_is_told_what_it_missed_and_stops_nobody() {
    let folder = tempfile::tempdir().expect("folder");
    let journal = open(folder.path(), 20_000, 10).expect("open");
    let follower = journal.follow();
    for _ in 0..3 {
        for _ in 0..2000 {
            journal.record(exec("x"));
        }
        journal.flush();
    }
    let mut seen = 0;
    let missed = loop {
        match follower.next(Duration::ZERO) {
            Next::Event(event) => match &event.body {
                EventBody::Loss(loss) => break loss.count,
                _ => seen += 1,
            },
            Next::Nothing | Next::Closed => panic!("no word of the loss"),
        }
    };
    assert_eq!((seen, missed), (4096, 6000 - 4096));
    let id = journal.record(fact(1));
    assert!(matches!(follower.next(Duration::from_secs(30)),
        Next::Event(event) if event.id == id));
    drop(journal);
    assert_eq!(follower.next(Duration::from_secs(30)), Next::Closed);
}

/// Runs only as the child of the test below.
#[test]
fn child_that_records_until_it_is_killed() {
    let Some(folder) = std::env::var_os("HOLDFAST_TEST_JOURNAL") else { return };
    let journal = open(Path::new(&folder), 1_000_000, 1_000_000).expect("open");
    for number in 0.. {
        let ids = [journal.record(fact(number)), journal.record(exec("x"))];
        if number % 10 == 0 {
            assert!(journal.flush());
            println!("{} {}", ids[0], ids[1]);
        }
    }
}

#[test]
fn everything_flushed_survives_kill_9() {
    let folder = tempfile::tempdir().expect("folder");
    for round in 0..3 {
        let mut child = Command::new(std::env::current_exe().expect("own path"))
            .args(["--exact", "--nocapture"])
            .arg("journal::tests::child_that_records_until_it_is_killed")
            .env("HOLDFAST_TEST_JOURNAL", folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("child");
        let lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        let mut ids = Vec::new();
        for line in lines.map_while(Result::ok) {
            // The harness writes its own words before the first line.
            ids.extend(line.split(' ').filter_map(|word| word.parse::<Uuid>().ok()));
            if ids.len() == 60 {
                child.kill().expect("kill");
            }
        }
        child.wait().expect("wait");
        assert!(ids.len() >= 60, "{}", ids.len());
        let journal = open(folder.path(), 1_000_000, 1_000_000).expect("open");
        let stored: HashSet<Uuid> =
            journal.query(&Filter::default()).expect("query").iter().map(|e| e.id).collect();
        assert!(ids.iter().all(|id| stored.contains(id)), "round {round}: lost after flush");
        assert_eq!(journal.counts().events, stored.len() as u64);
    }
}

#[test]
fn a_full_disk_is_reported_and_nothing_is_lost_when_there_is_room_again() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: mounting a tmpfs needs root");
        return;
    }
    let mount = Tmpfs::new();
    let journal = open(mount.0.path(), 1000, 1000).expect("open");
    journal.record(fact(0));
    assert!(journal.flush());
    let ballast = mount.0.path().join("ballast");
    // Fills the last byte: the write ends at ENOSPC.
    let _ = std::fs::write(&ballast, vec![0; 4 << 20]);
    for number in 1..200 {
        journal.record(EventBody::Coverage(CoverageEvent {
            mount: "x".repeat(2000),
            fs_type: number.to_string(),
            protected: true,
            reason: None,
        }));
        journal.record(exec("telemetry"));
    }
    assert!(!journal.flush());
    let problem = journal.problem().expect("reported");
    assert!(problem.contains("full") || problem.contains("I/O"), "{problem}");
    let dropped = journal.counts().dropped;
    assert!(dropped > 0, "telemetry is given up, and counted");
    assert!(journal.query(&Filter::default()).is_ok());
    std::fs::remove_file(&ballast).expect("room");
    until("the journal recovers", || journal.flush());
    assert_eq!(kinds(&journal, "coverage", 0).len(), 199);
    drop(journal);
    let journal = open(mount.0.path(), 1000, 1000).expect("open again");
    let told: u64 = kinds(&journal, "loss", 0)
        .iter()
        .map(|event| match &event.body {
            EventBody::Loss(loss) if loss.queue == "journal" => loss.count,
            _ => 0,
        })
        .sum();
    assert_eq!(told, dropped, "every loss is told");
}

#[test]
fn the_agent_can_start_on_a_full_disk() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: mounting a tmpfs needs root");
        return;
    }
    for existing in [false, true] {
        let mount = Tmpfs::new();
        if existing {
            let journal = open(mount.0.path(), 10, 10).expect("open");
            journal.record(fact(0));
        }
        let ballast = mount.0.path().join("ballast");
        let _ = std::fs::write(&ballast, vec![0; 4 << 20]);
        let journal = open(mount.0.path(), 10, 10).expect("open on a full disk");
        journal.record(fact(1));
        assert!(!journal.flush());
        assert!(journal.problem().is_some());
        std::fs::remove_file(&ballast).expect("room");
        until("the journal recovers", || journal.flush());
        let bodies = kinds(&journal, "loss", 0).into_iter().map(|event| event.body);
        assert!(bodies.eq((usize::from(!existing)..2).map(fact)), "existing: {existing}");
    }
}

struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        nix::mount::mount(
            Some("tmpfs"),
            folder.path(),
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            Some("size=2m,mode=700"),
        )
        .expect("tmpfs");
        Self(folder)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}
