//! `holdfast` as an operator meets it: the built binary against a socket whose other end says
//! exactly what each test wants, rogue and broken answers included.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use holdfast_common::control::{
    BundleState, DoctorLine, FileSystemState, ModelState, OnAccessCounters, ProofState,
    QuarantineState, Reply, Request, ScanProgress, SensorState, ShellState, StatusReport,
    Suppression,
};
use holdfast_common::event::{Event, EventBody, FileFacts, LossEvent, MalwareDetection};
use holdfast_common::process::ProcessInfo;
use holdfast_common::verdict::{Disposition, Engine, FailureReason, Hashes, ScanType, Signature};
use serde_json::Value;
use uuid::Uuid;

/// The other end: answers each request with raw bytes, and tells the test what was asked.
struct Agent {
    folder: tempfile::TempDir,
    socket: PathBuf,
    asked: std::sync::mpsc::Receiver<Request>,
}

impl Agent {
    fn new(answer: impl Fn(&Request) -> Vec<u8> + Send + 'static) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let socket = folder.path().join("s.sock");
        let listener = UnixListener::bind(&socket).expect("bind");
        let (tell, asked) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.expect("accept"));
                let mut line = String::new();
                stream.read_line(&mut line).expect("request");
                let request: Request = serde_json::from_str(&line).expect("a request");
                let answer = answer(&request);
                if tell.send(request).is_err() {
                    return;
                }
                let _ = stream.get_mut().write_all(&answer);
            }
        });
        Self { folder, socket, asked }
    }

    fn command(&self) -> Command {
        let mut command = holdfast();
        command.arg("--socket").arg(&self.socket).current_dir(self.folder.path());
        command
    }

    fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Output {
        self.command().args(arguments).output().expect("run")
    }

    /// On a terminal, by `script` of bsdutils, which every Debian has.
    fn on_terminal(&self, arguments: &str, typed: &str) -> (i32, String) {
        let line = format!("{} --socket {} {arguments}", binary().display(), self.socket.display());
        let mut child = Command::new("script")
            .args(["-qefc", &line, "/dev/null"])
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .current_dir(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script");
        child.stdin.take().expect("stdin").write_all(typed.as_bytes()).expect("type");
        let output = child.wait_with_output().expect("script");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code().expect("exit code"), text)
    }
}

fn binary() -> PathBuf {
    let mut path = std::env::current_exe().expect("own path");
    path.pop();
    path.pop();
    path.push("holdfast");
    assert!(path.exists(), "{} is not built", path.display());
    path
}

fn holdfast() -> Command {
    let mut command = Command::new(binary());
    command.env("TZ", "UTC").env_remove("HOLDFAST_SOCKET").stdin(Stdio::null());
    command
}

fn lines(replies: &[Reply]) -> Vec<u8> {
    let line = |reply| serde_json::to_string(reply).expect("json") + "\n";
    replies.iter().map(line).collect::<String>().into_bytes()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("killed: {output:?}"))
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

const HOSTILE: &str = "/srv/a\u{1b}[2J\u{202e}\n\u{9b}b";

fn detection() -> Box<MalwareDetection> {
    Box::new(MalwareDetection {
        path: HOSTILE.into(),
        file: FileFacts::default(),
        hashes: Hashes { sha256: "ab".repeat(32), ..Hashes::default() },
        signature: Signature { name: "EICAR-Test-File".into(), engine: Engine::Eicar },
        scan_type: ScanType::OnDemand,
        process: Some(ProcessInfo {
            args: vec!["cat".into(), HOSTILE.into()],
            ..Default::default()
        }),
        parents: Vec::new(),
        decision: None,
        disposition: Disposition::Quarantined,
        quarantine_id: None,
        reason: None,
        late: None,
    })
}

fn item(id: Uuid) -> Reply {
    Reply::QuarantineItem(Box::new(
        serde_json::from_value(serde_json::json!({
            "id": id, "sealed_ms": 0, "path_hex": "2f78", "path": HOSTILE,
            "file": FileFacts { size: 68, mode: 0o100_644, ..FileFacts::default() },
            "atime": [0, 0], "mtime": [0, 0], "xattrs": [], "links": 1,
            "sha256": "ab".repeat(32), "sha1": "", "md5": "",
            "signature": { "name": "EICAR-Test-File", "engine": "eicar" },
            "scan_type": "on_open", "process": null,
        }))
        .expect("metadata"),
    ))
}

const FIRST: Uuid = Uuid::from_u128(0x0197_a2c4_0000_7000_8000_0000_0000_0001);
const SECOND: Uuid = Uuid::from_u128(0x0197_a2c5_0000_7000_8000_0000_0000_0002);

fn quarantine(request: &Request) -> Vec<u8> {
    match request {
        Request::QuarantineList => lines(&[item(FIRST), item(SECOND), Reply::Done]),
        Request::QuarantineShow { id } => lines(&[item(*id), Reply::Done]),
        Request::QuarantineRestore { allow, duration_s, .. } => lines(&[
            Reply::Restored {
                path: HOSTILE.into(),
                allowed: *allow,
                until_ms: duration_s.map(|_| 1_700_000_000_000),
            },
            Reply::Done,
        ]),
        Request::QuarantineExport { id, .. } => {
            let mut answer = lines(&[Reply::Data { length: 100_000 }]);
            answer.extend(vec![b'z'; if *id == FIRST { 100_000 } else { 50_000 }]);
            if *id == FIRST {
                answer.extend(lines(&[Reply::Done]));
            }
            answer
        }
        _ => lines(&[Reply::Done]),
    }
}

fn status(problems: &[&str]) -> Reply {
    Reply::Status(Box::new(StatusReport {
        version: "0.1.0".into(),
        host: "host".into(),
        pid: 42,
        uptime_s: 90_000,
        mode: "block".into(),
        problems: problems.iter().map(ToString::to_string).collect(),
        file_systems: vec![FileSystemState {
            mount: HOSTILE.into(),
            fs_type: "ext4".into(),
            protected: false,
            reason: Some("no permission events".into()),
        }],
        on_access: OnAccessCounters {
            held: 7,
            failures: vec![(FailureReason::Deadline, 3)],
            ..OnAccessCounters::default()
        },
        workers: 2,
        bundle: BundleState { digest: "\u{e9}".repeat(20), ..BundleState::default() },
        proof: ProofState::default(),
        quarantine: QuarantineState { items: 1, bytes: 2048 },
        sensor: vec![SensorState {
            name: "exec".into(),
            mechanism: "tracepoint".into(),
            active: true,
            note: None,
            generated: 5,
            delivered: 4,
            aggregated: 0,
            lost: 1,
        }],
        journal_events: 9,
        journal_dropped: 0,
        isolated: false,
        manager: Default::default(),
        shells: vec![ShellState {
            task: Uuid::nil(),
            by: HOSTILE.into(),
            reason: HOSTILE.into(),
            restricted: true,
            since_ms: 1,
        }],
        policy: Default::default(),
        denials: Default::default(),
    }))
}

/// The number of lines, each of which is a JSON object.
fn objects(text: &str) -> u64 {
    text.lines().fold(0, |count, line| {
        assert!(serde_json::from_str::<Value>(line).expect("JSON").is_object());
        count + 1
    })
}

/// Nothing that moves a terminal, but line ends.
fn assert_tame(text: &str) {
    let wild = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!text.chars().any(wild), "{text:?}");
}

#[test]
fn status_says_healthy_or_names_the_problems_first() {
    let agent = Agent::new(|_| lines(&[status(&[]), Reply::Done]));
    let output = agent.run(["status"]);
    let text = out(&output);
    assert_eq!((code(&output), text.lines().next()), (0, Some("healthy")));
    for part in [
        "up 1d 1h",
        "deadline 3",
        "1 files, 2.0 KiB",
        "tracepoint",
        "no permission",
        "REMOTE SHELL",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_tame(&text);
    let agent = Agent::new(|_| lines(&[status(&["/srv is \u{1b}[8mnot protected"]), Reply::Done]));
    let output = agent.run(["status"]);
    assert_eq!(code(&output), 1);
    assert!(out(&output).starts_with("PROBLEM  /srv is \\x1b[8mnot protected\n"));
    let json: Value =
        serde_json::from_slice(&agent.run(["status", "--json"]).stdout).expect("json");
    assert_eq!(json["file_systems"][0]["mount"], HOSTILE);
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let agent = Agent::new(|_| lines(&[status(&[]), Reply::Done]));
    let (code, text) = agent.on_terminal("status", "");
    assert!(code == 0 && text.starts_with("\u{1b}[32mhealthy"), "{text:?}");
    let line =
        format!("env NO_COLOR=1 {} --socket {} status", binary().display(), agent.socket.display());
    let plain =
        Command::new("script").args(["-qefc", &line, "/dev/null"]).output().expect("script");
    assert!(!String::from_utf8_lossy(&plain.stdout).contains('\u{1b}'));
}

#[test]
fn doctor_fails_when_a_check_does() {
    let line = |ok: bool| {
        let advice = (!ok).then(|| "mount it".to_owned());
        Reply::DoctorLine(DoctorLine { check: "bpffs".into(), ok, evidence: "seen".into(), advice })
    };
    let agent = Agent::new(move |_| lines(&[line(true), line(false), Reply::Done]));
    let output = agent.run(["doctor"]);
    assert_eq!(code(&output), 1);
    assert_eq!(out(&output), "ok    bpffs: seen\nFAIL  bpffs: seen\n      -> mount it\n");
    assert_eq!(out(&agent.run(["doctor", "--json"])).lines().count(), 2);
}

#[test]
fn scan_exits_by_what_was_found_and_makes_paths_absolute() {
    for (found, failed, expected) in [(0, 0, 0), (1, 0, 1), (1, 2, 1), (0, 2, 2)] {
        let agent = Agent::new(move |_| {
            let total = ScanProgress { files: 5, found, failed, ..ScanProgress::default() };
            let mut replies = vec![Reply::ScanProgress(total)];
            replies.extend((0..found).map(|_| Reply::ScanFound(detection())));
            let reason = "no permission".to_owned();
            replies.extend(
                (0..failed)
                    .map(|_| Reply::ScanFailed { path: HOSTILE.into(), reason: reason.clone() }),
            );
            replies.extend([Reply::ScanDone(total), Reply::Done]);
            lines(&replies)
        });
        let name = OsStr::from_bytes(b"sub/\xff\n");
        let output = agent.run([OsStr::new("scan"), name]);
        assert_eq!(code(&output), expected, "{output:?}");
        assert_tame(&out(&output));
        assert!(output.stderr.is_empty(), "no progress without a terminal");
        let folder = agent.folder.path().canonicalize().expect("folder");
        let paths = vec![folder.join(name)];
        assert_eq!(agent.asked.recv().expect("asked"), Request::Scan { paths });
        let output = agent.run(["scan", "/", "--json"]);
        assert_eq!(objects(&out(&output)), found + failed + 1);
    }
    let agent = Agent::new(|_| lines(&[Reply::Done]));
    assert_eq!(code(&agent.run(["scan", "/x"])), 2, "no numbers came");
    let (code, text) = agent.on_terminal("scan /x", "");
    assert!(code == 2 && text.contains("without its numbers"), "{text}");
}

#[test]
fn events_are_asked_for_as_told_and_printed_one_a_line() {
    let agent = Agent::new(|_| {
        let body = EventBody::Loss(LossEvent { queue: "q\nforged line".into(), count: 2 });
        let event = |body| Event { id: FIRST, time_ms: 0, host: "h".into(), body };
        let found = Reply::Event(Box::new(event(EventBody::Malware(detection()))));
        lines(&[found, Reply::Event(Box::new(event(body))), Reply::Done])
    });
    let output = agent.run(["events", "--since", "1970-01-01T00:00:05Z", "--limit", "3", "-f"]);
    let text = out(&output);
    assert_eq!((code(&output), text.lines().count()), (0, 2), "{text}");
    assert!(text.starts_with("1970-01-01 00:00:00 +00:00  malware         quarantined EICAR"));
    assert_tame(&text);
    let expected = Request::Events { since_ms: Some(5000), kind: None, limit: 3, follow: true };
    assert_eq!(agent.asked.recv().expect("asked"), expected);
    for (arguments, limit) in [(&["events", "-f"][..], 10), (&["events"], 0)] {
        assert_eq!(code(&agent.run(arguments)), 0);
        let asked = agent.asked.recv().expect("asked");
        assert!(matches!(asked, Request::Events { limit: l, .. } if l == limit), "{asked:?}");
    }
    let json = out(&agent.run(["events", "--json", "--kind", "malware"]));
    assert_tame(&json);
    let event: Event = serde_json::from_str(json.lines().next().expect("line")).expect("event");
    assert_eq!(event.body, EventBody::Malware(detection()), "nothing is lost in JSON");
}

#[test]
fn a_reader_that_stops_early_is_no_crash() {
    let agent = Agent::new(|_| {
        let body = EventBody::AgentStopped;
        let event = Event { id: FIRST, time_ms: 0, host: "h".into(), body };
        lines(&vec![Reply::Event(Box::new(event)); 20_000])
    });
    let mut child = agent
        .command()
        .arg("events")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run");
    let mut stdout = BufReader::new(child.stdout.take().expect("stdout"));
    stdout.read_line(&mut String::new()).expect("a line");
    drop(stdout);
    let output = child.wait_with_output().expect("wait");
    assert!(code(&output) == 1 && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn quarantine_items_are_found_by_the_beginning_of_their_id() {
    let agent = Agent::new(quarantine);
    let list = out(&agent.run(["quarantine", "list"]));
    assert!(list.lines().count() == 3 && list.contains(&FIRST.to_string()), "{list}");
    assert_tame(&list);
    let shown = agent.run(["quarantine", "show", "0197A2C5"]);
    assert!(out(&shown).contains(&SECOND.to_string()) && out(&shown).contains("mode 0644"));
    assert_tame(&out(&shown));
    let both = agent.run(["quarantine", "show", "0197"]);
    assert!(code(&both) == 1 && err(&both).contains("fits 2 items"), "{both:?}");
    let none = agent.run(["quarantine", "show", "ffff"]);
    assert!(code(&none) == 1 && err(&none).contains("begins with ffff"));
    for bad in ["", "xyz", "../../etc"] {
        assert_eq!(code(&agent.run(["quarantine", "show", bad])), 64, "{bad:?}");
    }
    let json = out(&agent.run(["--json", "quarantine", "list"]));
    assert_eq!(objects(&json), 2);
    assert_tame(&json);
}

#[test]
fn restore_says_where_and_whether_it_is_allowed() {
    let agent = Agent::new(quarantine);
    let id = FIRST.to_string();
    let output = agent.run(["quarantine", "restore", &id, "--to", "back"]);
    assert!(out(&output).contains("--allow prevents"), "{output:?}");
    assert_tame(&out(&output));
    let to = Some(agent.folder.path().canonicalize().expect("folder").join("back"));
    let expected = Request::QuarantineRestore { id: FIRST, allow: false, duration_s: None, to };
    assert_eq!(agent.asked.recv().expect("asked"), expected);
    assert!(out(&agent.run(["quarantine", "restore", &id, "--allow"])).contains("is allowed"));
    agent.asked.try_iter().for_each(drop);
    let output = agent.run(["quarantine", "restore", &id, "--allow", "--for", "2h"]);
    assert!(out(&output).contains("is allowed until 2023-11-1"), "{}", out(&output));
    let expected =
        Request::QuarantineRestore { id: FIRST, allow: true, duration_s: Some(7200), to: None };
    assert!(agent.asked.try_iter().any(|asked| asked == expected));
    let wrong = agent.run(["quarantine", "restore", &id, "--for", "2h"]);
    assert_eq!(wrong.status.code(), Some(64));
}

#[test]
fn delete_asks_on_a_terminal_and_needs_yes_elsewhere() {
    let agent = Agent::new(quarantine);
    let id = FIRST.to_string();
    let output = agent.run(["quarantine", "delete", &id]);
    assert!(code(&output) == 64 && err(&output).contains("--yes"), "{output:?}");
    assert!(agent.asked.try_recv().is_err(), "nothing was asked of the agent");
    let (code_no, text) = agent.on_terminal(&format!("quarantine delete {id}"), "n\n");
    assert!(code_no == 1 && text.contains("Nothing was deleted"), "{text}");
    assert!(!text.contains("\u{1b}[2J"), "{text:?}");
    assert!(!agent.asked.try_iter().any(|r| matches!(r, Request::QuarantineDelete { .. })));
    let (code_yes, text) = agent.on_terminal(&format!("quarantine delete {id}"), "y\n");
    assert!(code_yes == 0 && text.contains("Deleted"), "{text}");
    assert_eq!(agent.asked.try_iter().last(), Some(Request::QuarantineDelete { id: FIRST }));
    assert_eq!(code(&agent.run(["quarantine", "delete", &id, "--yes"])), 0);
}

#[test]
fn export_writes_a_new_root_only_file_or_none() {
    let agent = Agent::new(quarantine);
    let folder = agent.folder.path();
    let output = agent.run(["quarantine", "export", "0197a2c4"]);
    assert!(code(&output) == 0 && out(&output).contains("password: infected"), "{output:?}");
    let zip = folder.join(format!("{FIRST}.zip"));
    let metadata = zip.metadata().expect("zip");
    assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (100_000, 0o600));

    let again = agent.run(["quarantine", "export", "0197a2c4"]);
    assert!(code(&again) == 1 && err(&again).contains("exists"), "{again:?}");
    assert_eq!(zip.metadata().expect("zip").len(), 100_000, "left as it was");

    let target = folder.join("target");
    std::os::unix::fs::symlink(&target, folder.join("link")).expect("link");
    let id = FIRST.to_string();
    assert_eq!(code(&agent.run(["quarantine", "export", &id, "--output", "link"])), 1);
    assert!(!target.exists(), "no link is followed");

    let broken = agent.run(["quarantine", "export", "0197a2c5", "--output", "broken.zip"]);
    assert!(code(&broken) == 1 && err(&broken).contains("broke off"), "{broken:?}");
    assert!(!folder.join("broken.zip").exists(), "half a zip is removed");
    let full = agent.run(["quarantine", "export", &id, "--output", "/dev/full"]);
    assert!(code(&full) == 1 && Path::new("/dev/full").exists(), "{full:?}");
    assert_eq!(code(&agent.run(["quarantine", "export", &id, "--password", ""])), 64);
}

#[test]
fn models_are_listed_and_switched_by_title_or_id() {
    let state = |enabled| ModelState {
        id: FIRST,
        title: "Network Sniffing".into(),
        enabled,
        level: "high".into(),
        attack: vec!["T1040".into()],
        can_fire: false,
        why_not: Some("no BTF".into()),
        last_fired_ms: None,
        fired: 0,
        origin: "shipped".into(),
        response: "alert, kill".into(),
        advice: "Look.".into(),
        suppressed: 0,
    };
    let agent = Agent::new(move |request| match request {
        Request::ModelSwitch { enabled, .. } => {
            lines(&[Reply::Model(state(*enabled)), Reply::Done])
        }
        _ => lines(&[Reply::Model(state(true)), Reply::Done]),
    });
    let list = out(&agent.run(["models", "list"]));
    assert!(list.contains("NO: no BTF") && list.contains("T1040"), "{list}");
    assert!(list.contains("alert, kill"), "{list}");
    for name in ["network sniffing", "0197a2"] {
        let output = agent.run(["models", "disable", name]);
        assert_eq!(out(&output), "Network Sniffing: off\n");
        let model = FIRST.to_string();
        let asked = agent.asked.try_iter().last();
        assert_eq!(asked, Some(Request::ModelSwitch { model, enabled: false }));
    }
    assert_eq!(code(&agent.run(["models", "enable", "nothing such"])), 1);
}

#[test]
fn suppressions_are_made_for_a_time_with_a_reason_and_ended_by_id() {
    let suppression = Suppression {
        id: FIRST,
        model: FIRST,
        field: "Image".into(),
        value: "/x=y".into(),
        reason: "roll-out\u{1b}[2J".into(),
        since_ms: 0,
        until_ms: 1,
        kept_back: 3,
    };
    let agent = Agent::new(move |request| match request {
        Request::ModelList => {
            let model = ModelState {
                id: FIRST,
                title: "Cron".into(),
                enabled: true,
                level: "medium".into(),
                attack: Vec::new(),
                can_fire: true,
                why_not: None,
                last_fired_ms: None,
                fired: 0,
                origin: String::new(),
                response: String::new(),
                advice: String::new(),
                suppressed: 0,
            };
            lines(&[Reply::Model(model), Reply::Done])
        }
        Request::SuppressionRemove { .. } => lines(&[Reply::Done]),
        _ => lines(&[Reply::Suppression(suppression.clone()), Reply::Done]),
    });
    let suppress = |what: &str, span: &str| {
        agent.run(["models", "suppress", "cron", what, "--for", span, "--reason", "x"])
    };
    assert!(out(&suppress("Image=/x=y", "7d")).contains("suppressed until"));
    let asked = agent.asked.try_iter().last();
    let Some(Request::ModelSuppress { model, field, value, until_ms, .. }) = asked else {
        panic!("{asked:?}");
    };
    assert_eq!((model, field.as_str(), value.as_str()), (FIRST.to_string(), "Image", "/x=y"));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("clock");
    let ahead = until_ms - i64::try_from(now.as_millis()).expect("time");
    assert!((6 * 86_400_000..=7 * 86_400_000).contains(&ahead), "{ahead}");
    for (what, span) in [("Image", "7d"), ("Image=x", "0d"), ("Image=x", "soon"), ("a=b", "1y")] {
        assert_eq!(code(&suppress(what, span)), 64, "{what} {span}");
    }
    let list = out(&agent.run(["models", "suppressions", "list"]));
    assert!(list.contains("Image=/x=y") && list.contains("Cron") && !list.contains('\u{1b}'));
    let id = FIRST.to_string();
    assert!(out(&agent.run(["models", "suppressions", "remove", &id[..6]])).contains("ended"));
    assert_eq!(agent.asked.try_iter().last(), Some(Request::SuppressionRemove { id: FIRST }));
    assert_eq!(code(&agent.run(["models", "suppressions", "remove", "ffff"])), 1);
}

#[test]
fn what_the_agent_refuses_is_said_in_its_words_and_tamed() {
    let message = "/rules/\u{1b}[2Jx.yar line 3: no such module".to_owned();
    let agent = Agent::new(move |_| lines(&[Reply::Error { message: message.clone() }]));
    let output = agent.run(["bundle", "reload"]);
    assert_eq!(code(&output), 1);
    assert_eq!(err(&output), "holdfast: /rules/\\x1b[2Jx.yar line 3: no such module\n");
    for rogue in
        [&b"garbage\n"[..], b"", b"{\"reply\":\"don", b"{\"reply\":\"model\"}\n", b"\xff\n"]
    {
        let rogue = rogue.to_vec();
        let agent = Agent::new(move |_| rogue.clone());
        for command in ["status", "doctor", "events"] {
            let output = agent.run([command]);
            assert!(code(&output) == 1 && err(&output).starts_with("holdfast: "), "{output:?}");
        }
        assert_eq!(code(&agent.run(["scan", "/"])), 2);
    }
    let agent = Agent::new(|_| {
        lines(&[Reply::Restored { path: "x".into(), allowed: true, until_ms: None }, Reply::Done])
    });
    let output = agent.run(["status"]);
    assert!(code(&output) == 1 && err(&output).contains("do the versions match"), "{output:?}");
}

#[test]
fn an_agent_that_is_not_there_is_said_clearly() {
    let folder = tempfile::tempdir().expect("folder");
    let socket = folder.path().join("none.sock");
    for (arguments, expected) in [(&["status"][..], 1), (&["scan", "/"], 2)] {
        let output =
            holdfast().env("HOLDFAST_SOCKET", &socket).args(arguments).output().expect("run");
        let text = err(&output);
        assert_eq!(code(&output), expected);
        assert!(text.contains("cannot reach the agent at") && text.contains("none.sock"), "{text}");
        assert!(text.contains("Is holdfastd running?"), "{text}");
    }
}

/// A scan whose every text is hostile.
fn scan_record() -> Reply {
    Reply::Scan(Box::new(
        serde_json::from_value(serde_json::json!({
            "scan_id": Uuid::from_u128(7), "scope": "paths", "places": [HOSTILE, HOSTILE],
            "started_by": HOSTILE, "state": "running", "note": HOSTILE, "cpu_share": 25,
            "asked_ms": 0, "began_ms": 0, "running_ms": 61_000, "at": HOSTILE, "bundle": HOSTILE,
            "progress": { "files": 5, "bytes": 2048, "found": 3, "failed": 1, "skipped": 0 },
            "estimate": { "files": 10, "percent": 50, "left_s": 61, "basis": HOSTILE },
            "left_out": [{ "reason": "unreadable", "count": 1, "examples": [HOSTILE] }],
            "finds": [{
                "path": HOSTILE, "signature": HOSTILE, "sha256": "ab", "disposition": "quarantined",
                "late": {
                    "since_ms": 0, "by": "ctime", "lain_s": 126_230_400,
                    "rule": { "name": HOSTILE, "bundle": HOSTILE, "path": HOSTILE,
                        "since_ms": 0, "newer_than_file": true },
                },
            }],
        }))
        .expect("a record"),
    ))
}

#[test]
fn scans_are_shown_with_progress_and_their_texts_are_tame() {
    let agent = Agent::new(|_| lines(&[scan_record(), Reply::Done]));
    for arguments in [
        &["scans"][..],
        &["scans", "list"],
        &["scans", "show", "00000000"],
        &["scans", "pause", "00000000"],
        &["scan", "--full", "--background"],
    ] {
        let output = agent.run(arguments);
        let text = out(&output);
        assert_eq!(code(&output), 0, "{arguments:?}: {output:?}");
        assert_tame(&text);
        assert!(text.contains("50%") && text.contains("1m 1s left"), "{arguments:?}: {text}");
    }
    let text = out(&agent.run(["scans", "show", &Uuid::from_u128(7).to_string()]));
    for part in ["unreadable, 1", "unchanged for 1461d", "by ctime", "newer than the file"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.contains("and 2 more"), "{text}");
    let output = agent.run(["scans", "--json"]);
    assert_eq!(objects(&out(&output)), 1);
    for wrong in [
        &["scan", "--quick", "--full"][..],
        &["scan", "--quick", "/x"],
        &["scan", "/x", "--cpu-share", "0"],
        &["scan", "/x", "--name", "n"],
        &["scan", "/x", "--schedule", "every blue moon"],
        &["scans", "show", "no-id"],
    ] {
        assert_eq!(code(&agent.run(wrong)), 64, "{wrong:?}");
    }
}

#[test]
fn wrong_usage_is_64_and_help_is_not() {
    let agent = Agent::new(|_| lines(&[Reply::Done]));
    for wrong in [
        &[][..],
        &["scan"],
        &["nothing"],
        &["events", "--since", "yesterday"],
        &["events", "--kind", "malwear"],
        &["events", "--limit", "-1"],
        &["status", "--bogus"],
    ] {
        let output = agent.run(wrong);
        assert!(code(&output) == 64 && !output.stderr.is_empty(), "{wrong:?}: {output:?}");
    }
    assert!(agent.asked.try_recv().is_err(), "nothing was asked of the agent");
    for fine in [&["--help"][..], &["--version"], &["quarantine", "export", "--help"]] {
        let output = agent.run(fine);
        assert!(code(&output) == 0 && !output.stdout.is_empty(), "{fine:?}");
    }
}
