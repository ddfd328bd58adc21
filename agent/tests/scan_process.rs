//! Real workers: what they find, and what happens when they crash, hang, or get a strange file.
//! Needs root.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use holdfast_agent::config::{self, ByteSize};
use holdfast_agent::scan::{ScanError, ScanFailed, Scanned, Worker, WorkerDied, WorkerFactory};
use holdfast_common::verdict::{Engine, Signature, Verdict};
use holdfast_common::wire::{Answer, Finding, RawHashes};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};

const WORKER: &str = env!("CARGO_BIN_EXE_holdfast-scan");
const LIMIT: Duration = Duration::from_secs(30);

fn factory_of(config: &config::Scan) -> Result<WorkerFactory, ScanError> {
    WorkerFactory::new(config, WORKER.into())
}

fn factory(files: &[(&str, &str)]) -> (WorkerFactory, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("folder");
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).expect("rule file");
    }
    let config = config::Scan { bundle: Some(folder.path().to_owned()), ..config::Scan::default() };
    (factory_of(&config).expect("factory"), folder)
}

/// A factory that keeps its good rules in `state`.
fn keeping(folder: &Path, state: &Path, binary: &Path) -> Result<WorkerFactory, ScanError> {
    let config = config::Scan { bundle: Some(folder.to_owned()), ..config::Scan::default() };
    WorkerFactory::keeping(&config, binary.to_owned(), state, String::new())
}

fn builtin() -> Worker {
    factory_of(&config::Scan::default()).expect("factory").spawn().expect("worker")
}

fn memfd(content: &[u8]) -> File {
    let memfd = rustix::fs::memfd_create("content", MemfdFlags::CLOEXEC).expect("memfd");
    let mut file = File::from(memfd);
    file.write_all(content).expect("write");
    file
}

fn eicar() -> Vec<u8> {
    [&br"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR"[..], b"-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"].concat()
}

fn scan(worker: &Worker, content: &[u8]) -> Scanned {
    worker.scan(false, memfd(content).as_fd(), LIMIT).expect("scan")
}

fn found(scanned: &Scanned) -> Option<(&str, Engine)> {
    match &scanned.verdict {
        Verdict::Clean => None,
        Verdict::Malicious(Signature { name, engine }) => Some((name, *engine)),
    }
}

fn pid(worker: &Worker) -> Pid {
    Pid::from_raw(i32::try_from(worker.pid()).expect("pid")).expect("pid")
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "not within 10 s: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn the_test_file_is_found_with_its_published_hashes() {
    let worker = builtin();
    let scanned = scan(&worker, &eicar());
    assert_eq!(found(&scanned), Some(("Eicar-Test-File", Engine::Eicar)));
    let hashes = scanned.hashes.as_ref().map(RawHashes::to_hex).expect("hashes");
    assert_eq!(hashes.md5, "44d88612fea8a8f36de82e1278abb02f");
    assert_eq!(hashes.sha1, "3395856ce81f2b7382dee72602f798b642f14140");
    assert_eq!(hashes.sha256, "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f");
    assert!(found(&scan(&worker, &[&eicar()[..], &[b' '; 60]].concat())).is_some());
    for clean in [&[&eicar()[..], &[b' '; 61]].concat()[..], &[0; 4096], b""] {
        let scanned = scan(&worker, clean);
        assert_eq!((found(&scanned), scanned.hashes), (None, None));
    }
}

#[test]
fn hashes_are_sent_for_a_clean_file_when_asked_for() {
    let worker = builtin();
    let content = vec![7; 3 << 20];
    let scanned = worker.scan(true, memfd(&content).as_fd(), LIMIT).expect("scan");
    assert_eq!(scanned.read, content.len() as u64);
    let expected: [u8; 32] = Sha256::digest(&content).into();
    assert_eq!(scanned.hashes.map(|hashes| hashes.sha256), Some(expected));
}

#[test]
fn lists_and_rules_of_a_bundle_are_applied_to_small_and_large_files() {
    let large = vec![b'x'; (1 << 20) + 3];
    let list = format!("{}  Large.Test\n", holdfast_common::wire::hex(&Sha256::digest(&large)));
    let (factory, _folder) = factory(&[
        ("a.sha256", &list),
        ("b.md5", "# of \"abc\"\n900150983cd24fb0d6963f7d28e17f72 Abc.Test\n"),
        ("c.yar", "rule Needle { strings: $a = \"needle\" condition: $a }"),
    ]);
    let state = factory.bundle();
    assert_eq!((state.hashes, state.yara_rules, state.refused), (2, 1, None));
    assert_eq!(factory.missing_layers(), Vec::<&str>::new());
    let worker = factory.spawn().expect("worker");
    assert_eq!(found(&scan(&worker, &large)), Some(("Large.Test", Engine::Hash)));
    let scanned = scan(&worker, b"abc");
    assert_eq!(found(&scanned), Some(("Abc.Test", Engine::Hash)));
    assert_eq!(
        scanned.hashes.map(|hashes| hashes.to_hex().sha1),
        Some("a9993e364706816aba3e25717850c26c9cd0d89d".to_owned())
    );
    let hay = [&vec![b'.'; 5 << 20][..], b"needle"].concat();
    let scanned = scan(&worker, &hay);
    assert_eq!(found(&scanned), Some(("Needle", Engine::Yara)));
    let expected: [u8; 32] = Sha256::digest(&hay).into();
    assert_eq!(scanned.hashes.map(|hashes| hashes.sha256), Some(expected));
    assert_eq!(found(&scan(&worker, b"hay")), None);
}

#[test]
fn a_bad_bundle_is_refused_as_a_whole_and_the_good_one_stays() {
    let (factory, folder) = factory(&[("a.yar", "rule Good { condition: filesize == 1 }")]);
    let (good, generation) = (factory.bundle(), factory.generation());
    for (name, content, place) in [
        ("b.yar", "\n\nrule Bad { condition: $nothing }", "b.yar:3"),
        ("b.md5", "# x\n12 short\n", "b.md5:2"),
        ("b.yar", "\ninclude \"a.yar\"", "b.yar:2"),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("bad file");
        let error = factory.reload().expect_err("refused").to_string();
        assert!(error.contains(place), "{error}");
        let state = factory.bundle();
        assert!(state.refused.as_deref().is_some_and(|text| text.contains(place)), "{state:?}");
        assert_eq!((&state.digest, state.yara_rules), (&good.digest, 1));
        assert_eq!(factory.generation(), generation);
        std::fs::remove_file(&path).expect("remove");
    }
    assert_eq!(found(&scan(&factory.spawn().expect("worker"), b"1")), Some(("Good", Engine::Yara)));
    std::fs::remove_file(folder.path().join("a.yar")).expect("remove");
    let empty = factory.reload().expect("an empty folder is fine");
    assert_eq!((empty.yara_rules, empty.refused), (0, None));
    assert_eq!(factory.generation(), generation + 1);
    assert_eq!(factory.spawn().expect("worker").generation(), generation + 1);
    folder.close().expect("remove folder");
    assert!(factory.reload().is_err());
    assert!(factory.bundle().refused.is_some_and(|text| text.contains("cannot read")));
}

#[test]
fn a_worker_that_is_killed_is_seen_and_a_dropped_one_leaves_no_zombie() {
    let worker = builtin();
    kill_process(pid(&worker), Signal::KILL).expect("kill");
    let mut ends = [PollFd::new(&worker, PollFlags::IN)];
    poll(&mut ends, None).expect("the socket wakes up");
    assert_eq!(worker.poll_answer(), Err(WorkerDied::Gone));
    let file = memfd(b"x");
    assert_eq!(worker.order(1, false, file.as_fd()), Err(WorkerDied::Gone));
    let folder = format!("/proc/{}", worker.pid());
    assert!(Path::new(&folder).exists(), "unreaped, so that its pid is not reused");
    drop(worker);
    until("the process is reaped", || !Path::new(&folder).exists());
}

#[test]
fn a_stopped_worker_times_out_and_dies_when_dropped() {
    let worker = builtin();
    let folder = format!("/proc/{}", worker.pid());
    kill_process(pid(&worker), Signal::STOP).expect("stop");
    let file = memfd(b"x");
    let scanned = worker.scan(false, file.as_fd(), Duration::from_millis(50));
    assert_eq!(scanned, Err(ScanFailed::TimedOut));
    let begin = Instant::now();
    drop(worker);
    assert!(begin.elapsed() < Duration::from_millis(50), "dropping never waits");
    until("the process is reaped", || !Path::new(&folder).exists());
}

#[test]
fn descriptors_that_are_no_files_are_unreadable_and_do_no_harm() {
    let worker = builtin();
    let open = |path: &Path, flags| -> OwnedFd {
        rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).expect("open")
    };
    let folder = tempfile::tempdir().expect("folder");
    let regular = folder.path().join("file");
    std::fs::write(&regular, eicar()).expect("file");
    let (pipe, _other_end) = rustix::pipe::pipe().expect("pipe");
    let (stream, _peer) = std::os::unix::net::UnixStream::pair().expect("sockets");
    for (what, descriptor, errno) in [
        ("folder", open(folder.path(), OFlags::RDONLY), libc::EISDIR),
        ("device without end", open(Path::new("/dev/zero"), OFlags::RDONLY), libc::EINVAL),
        ("pipe", pipe, libc::EINVAL),
        ("socket", stream.into(), libc::EINVAL),
        ("O_PATH", open(&regular, OFlags::PATH), libc::EBADF),
        ("write-only", open(&regular, OFlags::WRONLY), libc::EBADF),
    ] {
        let scanned = worker.scan(true, descriptor.as_fd(), LIMIT);
        assert_eq!(scanned, Err(ScanFailed::Unreadable(errno)), "{what}");
    }
    let mut file = File::open(&regular).expect("file");
    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(5)).expect("seek");
    let scanned = worker.scan(false, file.as_fd(), LIMIT).expect("scan");
    assert!(found(&scanned).is_some(), "the whole file counts, wherever its offset stands");
    assert_eq!(std::io::Seek::stream_position(&mut file).expect("offset"), 5);
}

#[test]
fn files_that_state_no_size_are_read_to_their_end() {
    let worker = builtin();
    let file = File::open("/proc/self/maps").expect("procfs");
    assert_eq!(file.metadata().expect("metadata").len(), 0);
    let scanned = worker.scan(true, file.as_fd(), LIMIT).expect("scan");
    assert!(scanned.read > 1000, "{scanned:?}");
}

#[test]
fn a_file_that_grows_while_it_is_read_ends_or_is_unreadable() {
    let worker = builtin();
    let file = memfd(&[0; 1 << 20]);
    worker.order(1, true, file.as_fd()).expect("order");
    let end = Instant::now() + LIMIT;
    let mut size = 1 << 20;
    let finding = loop {
        // One that grows for ever, but not faster than a test should.
        if size < 256 << 20 {
            size += 1 << 20;
            rustix::fs::ftruncate(&file, size).expect("grow");
        }
        if let Some(answer) = worker.poll_answer().expect("alive") {
            let Answer::Scanned { finding, .. } = answer else { panic!("{answer:?}") };
            break finding;
        }
        assert!(Instant::now() < end, "the worker never came back");
    };
    assert!(matches!(finding, Finding::Clean | Finding::Unreadable(libc::EFBIG)), "{finding:?}");
}

#[test]
fn a_sparse_4_gib_file_is_clean_at_once_without_lists_and_bounded_with_rules() {
    let sparse = memfd(b"");
    rustix::fs::ftruncate(&sparse, 4 << 30).expect("sparse");
    let scanned = builtin().scan(false, sparse.as_fd(), LIMIT).expect("scan");
    assert_eq!((found(&scanned), scanned.read), (None, 129));
    let (factory, _folder) =
        factory(&[("a.yar", "rule R { strings: $a = \"needle\" condition: $a }")]);
    let worker = factory.spawn().expect("worker");
    let scanned = worker.scan(false, sparse.as_fd(), LIMIT).expect("scan");
    assert_eq!((found(&scanned), scanned.read), (None, 256 << 20));
    assert_eq!(found(&scan(&worker, b"a needle")), Some(("R", Engine::Yara)), "still of use");
}

#[test]
fn a_worker_stays_below_its_memory_limit() {
    let folder = tempfile::tempdir().expect("folder");
    std::fs::write(
        folder.path().join("a.yar"),
        "rule R { strings: $a = \"needle\" condition: $a }",
    )
    .expect("rule");
    let config = config::Scan {
        bundle: Some(folder.path().to_owned()),
        memory_limit: ByteSize(64 << 20),
        ..config::Scan::default()
    };
    let worker = factory_of(&config).expect("factory").spawn().expect("worker");
    let sparse = memfd(b"");
    rustix::fs::ftruncate(&sparse, 200 << 20).expect("sparse");
    let scanned = worker.scan(true, sparse.as_fd(), LIMIT).expect("scan");
    assert_eq!(scanned.read, 200 << 20);
    let status = std::fs::read_to_string(format!("/proc/{}/status", worker.pid())).expect("status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).expect("peak");
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().expect("number");
    assert!(peak <= 64 << 10, "{peak} kB");
}

#[test]
fn a_program_that_is_no_worker_is_an_error() {
    let start = |binary: &str| {
        WorkerFactory::new(&config::Scan::default(), binary.into()).expect_err("no worker")
    };
    assert!(matches!(start("/nonexistent/holdfast-scan"), ScanError::Start { .. }));
    assert!(matches!(start("/bin/true"), ScanError::Died(WorkerDied::Gone)));
}

#[test]
fn rules_that_need_more_memory_than_a_worker_has_harm_nobody_else() {
    let folder = tempfile::tempdir().expect("folder");
    let rule = |number| {
        let text = format!("{number:08}").repeat(12);
        format!(
            "rule R{number} {{ strings: $a = \"{text}\" $b = /{text}[a-z]+/ condition: any of them }}\n"
        )
    };
    let rules: String = (0..20_000).map(rule).collect();
    std::fs::write(folder.path().join("a.yar"), &rules).expect("rules");
    let config = config::Scan {
        bundle: Some(folder.path().to_owned()),
        memory_limit: ByteSize(24 << 20),
        ..config::Scan::default()
    };
    assert!(rules.len() < 6 << 20, "small enough to be read");
    let error = factory_of(&config).expect_err("too large for the worker");
    assert!(matches!(error, ScanError::Died(WorkerDied::Gone)), "{error:?}");
}

#[test]
fn rules_that_went_bad_while_nobody_ran_leave_the_last_good_ones_in_use() {
    let (folder, state) =
        (tempfile::tempdir().expect("rules"), tempfile::tempdir().expect("state"));
    let (path, worker) = (folder.path(), Path::new(WORKER));
    std::fs::write(path.join("a.md5"), "5eb63bbbe01eeed093cb22bb8f5acdc3 Known\n").expect("rule");
    let first = keeping(path, state.path(), worker).expect("good rules");
    let digest = first.bundle().digest;
    drop(first);
    std::fs::write(path.join("bad.yar"), "rule bad { strings: }\n").expect("rule");
    let second = keeping(path, state.path(), worker).expect("the last good rules");
    let bundle = second.bundle();
    assert_eq!((bundle.digest, bundle.hashes), (digest, 1));
    assert!(bundle.refused.is_some_and(|refused| refused.contains("bad.yar")));
    let scanned = scan(&second.spawn().expect("worker"), b"hello world");
    assert_eq!(found(&scanned), Some(("Known", Engine::Hash)));
    // A folder that cannot be read at all is no better, and no other folder's rules are used.
    drop(second);
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777))
        .expect("mode");
    assert!(keeping(path, state.path(), worker).is_ok());
    let other = tempfile::tempdir().expect("rules");
    std::fs::write(other.path().join("bad.yar"), "rule").expect("rule");
    assert!(matches!(keeping(other.path(), state.path(), worker), Err(ScanError::Rules(_))));
    // What is repaired is taken again.
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("mode");
    std::fs::remove_file(path.join("bad.yar")).expect("remove");
    assert_eq!(keeping(path, state.path(), worker).expect("repaired").bundle().refused, None);
}

#[test]
fn first_worker_that_dies_is_tried_again_and_not_for_ever() {
    let folder = tempfile::tempdir().expect("folder");
    let binary = |name: &str, tries: u32| {
        let path = folder.path().join(name);
        let script = format!(
            "#!/bin/sh\n/bin/echo >>{0}.tries\n\
             [ $(/usr/bin/wc -l <{0}.tries) -gt {tries} ] || exit 1\nexec {WORKER} \"$@\"\n",
            path.display()
        );
        std::fs::write(&path, script).expect("script");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("mode");
        path
    };
    let config = config::Scan::default();
    WorkerFactory::new(&config, binary("slow", 2)).expect("the third starts");
    let error = WorkerFactory::new(&config, binary("broken", 1000)).expect_err("none starts");
    assert!(matches!(error, ScanError::Died(_)), "{error}");
    let tries = std::fs::read_to_string(folder.path().join("broken.tries")).expect("tries");
    assert_eq!(tries.lines().count(), 3);
}
