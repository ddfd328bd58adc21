//! `holdfast-ctl` against a real manager, and where a host is needed a real agent: each command,
//! whoever may not, and whatever is not there.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;

use holdfast_tests::agent::{Agent, PATIENCE, Setup, binary};
use holdfast_tests::manager::{Manager, PASSWORD};
use holdfast_tests::rest::Place;
use holdfast_tests::scratch::Scratch;
use holdfast_tests::{eicar, require_root, until};
use serde_json::{Value, json};

/// A command that knows nobody.
fn bare() -> Command {
    let mut command = Command::new(binary("holdfast-ctl"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HOLDFAST_") {
            command.env_remove(name);
        }
    }
    command.env_remove("SSL_CERT_FILE").stdin(Stdio::null());
    command
}

/// A command that knows the manager and who it must be, and asks as this one.
fn ctl_as(manager: &Manager, token: &str) -> Command {
    let mut command = bare();
    match manager.place() {
        Place::Https(address, _) => command
            .env("HOLDFAST_MANAGER", format!("https://{address}"))
            .env("HOLDFAST_CA_FINGERPRINT", manager.fingerprint()),
        Place::Socket(path) => command.env("HOLDFAST_MANAGER_SOCKET", path),
    };
    command.env("HOLDFAST_TOKEN", token);
    command
}

fn ctl(manager: &Manager, words: &[&str]) -> Output {
    ctl_as(manager, manager.secret()).args(words).output().expect("holdfast-ctl")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What it prints for people, when it does it.
fn said(manager: &Manager, words: &[&str]) -> String {
    let output = ctl(manager, words);
    assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// What it prints for programs, when it does it.
fn told(manager: &Manager, words: &[&str]) -> Vec<Value> {
    let output = ctl(manager, &[&["--json"], words].concat());
    assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
    lines(&output)
}

fn lines(output: &Output) -> Vec<Value> {
    let lines = text(&output.stdout);
    lines.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// Why it does not.
fn refused(output: &Output, code: i32) -> String {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}\n{}", text(&output.stdout));
    assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
    said
}

/// One that reads this from its standard input.
fn typed(mut command: Command, words: &[&str], input: &str) -> Output {
    let command = command.args(words).stdin(Stdio::piped());
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("holdfast-ctl");
    // It may have refused already.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    child.wait_with_output().expect("its end")
}

/// One that stays, line by line.
struct Followed {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Followed {
    fn start(manager: &Manager, words: &[&str]) -> Self {
        let mut command = ctl_as(manager, manager.secret());
        let command = command.arg("--json").args(words);
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start");
        let (tell, lines) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let began = tell.clone();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = began.send(format!("# {line}"));
            }
        });
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        let followed = Self { child, lines };
        followed.wait(|line| line.contains("following"));
        followed
    }

    fn wait(&self, fits: impl Fn(&str) -> bool) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).expect("it never came");
            if fits(&line) {
                return line;
            }
        }
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn detect(scratch: &Scratch, name: &str) -> PathBuf {
    let path = scratch.join(name);
    fs::write(&path, eicar()).expect("write");
    path
}

const QUIET: &str = "[sensor]\nenabled = false";

fn host() -> (Scratch, Agent, Manager, String) {
    require_root();
    let scratch = Scratch::ext4().expect("scratch");
    let agent = Setup::protect([scratch.path()]).tables(QUIET).start().expect("agent");
    let manager = Manager::start().expect("manager");
    let host = manager.enroll(&agent, &[]).expect("enrolled");
    (scratch, agent, manager, host)
}

/// The first alert or event that fits.
fn found(manager: &Manager, words: &[&str], fits: impl Fn(&Value) -> bool) -> Value {
    let found = until(PATIENCE, || told(manager, words).into_iter().find(|one| fits(one)));
    found.unwrap_or_else(|| panic!("{words:?} never showed it\n{}", manager.log()))
}

#[test]
fn users_tokens_and_sign_ins_are_made_changed_and_ended() {
    let manager = Manager::start().expect("manager");
    let folder = tempfile::tempdir().expect("folder");
    let kept = folder.path().join("token");
    let kept_text = kept.to_str().expect("text");
    // A user is made, signs in with a password that must be changed, and keeps the token.
    let create = ["users", "create", "anna", "--role", "operator"];
    let made = typed(ctl_as(&manager, manager.secret()), &create, "the first of hers 1\n");
    assert!(made.status.success(), "{}", text(&made.stderr));
    assert!(said(&manager, &["users", "list"]).contains("anna"));
    let sign_in = ["sign-in", "anna", "--save", kept_text];
    let passwords = "the first of hers 1\nthe second of hers 2\n";
    let signed_in = typed(ctl_as(&manager, ""), &["sign-in", "anna"], "wrong\n");
    assert!(refused(&signed_in, 1).contains("401"), "an empty token is none");
    let signed_in = typed(ctl_as(&manager, ""), &sign_in, passwords);
    assert!(signed_in.status.success(), "{}", text(&signed_in.stderr));
    let mode = fs::metadata(&kept).expect("kept").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let secret = fs::read_to_string(&kept).expect("read");
    assert!(!text(&signed_in.stdout).contains(secret.trim()), "kept, not shown");
    let by_file = |words: &[&str]| {
        let mut command = ctl_as(&manager, "");
        command.env("HOLDFAST_TOKEN_FILE", &kept);
        command.args(words).output().expect("holdfast-ctl")
    };
    let who = lines(&by_file(&["whoami", "--json"])).remove(0);
    assert_eq!((&who["name"], &who["role"]), (&json!("anna"), &json!("operator")));
    // A file that others may read is not taken.
    fs::set_permissions(&kept, fs::Permissions::from_mode(0o644)).expect("chmod");
    assert!(refused(&by_file(&["whoami"]), 78).contains("chmod 600"));
    fs::set_permissions(&kept, fs::Permissions::from_mode(0o600)).expect("chmod");
    // An API token of a sign-in can do what its scope says.
    let words = ["api-tokens", "create", "reader", "--scope", "read", "--valid", "1h"];
    let token = text(&by_file(&words).stdout).trim().to_owned();
    let reader = |words: &[&str]| ctl_as(&manager, &token).args(words).output().expect("run");
    assert!(reader(&["hosts", "list"]).status.success());
    let words = ["alerts", "note", "0197a2c4-0000-7000-8000-000000000000", "x"];
    assert!(refused(&reader(&words), 1).contains("403 Forbidden: this token has no scope respond"));
    let listed = lines(&by_file(&["api-tokens", "list", "--json"])).remove(0);
    assert_eq!(listed["name"], "reader");
    assert!(listed["token"].is_null());
    let id = listed["id"].as_str().expect("id");
    assert!(by_file(&["api-tokens", "delete", id]).status.success());
    assert!(refused(&reader(&["hosts", "list"]), 1).contains("401"));
    // A viewer may look and not touch; one who is disabled may nothing.
    let edited = told(&manager, &["users", "edit", "anna", "--role", "viewer"]).remove(0);
    assert_eq!(edited["role"], "viewer");
    assert!(refused(&by_file(&["whoami"]), 1).contains("401"), "its sign-ins end");
    let viewer = typed(ctl_as(&manager, ""), &["sign-in", "anna"], "the second of hers 2\n");
    let viewer = text(&viewer.stdout).trim().to_owned();
    let as_viewer = |words: &[&str]| ctl_as(&manager, &viewer).args(words).output().expect("run");
    assert!(as_viewer(&["alerts", "list"]).status.success());
    for words in [
        &["hosts", "revoke", "0197a2c4-0000-7000-8000-000000000000", "--reason", "x"][..],
        &["users", "list"],
        &["audit"],
        &["enrollment-tokens", "create"],
    ] {
        assert!(refused(&as_viewer(words), 1).contains("403 Forbidden: needs the role admin"));
    }
    told(&manager, &["users", "edit", "anna", "--disable"]);
    assert!(refused(&as_viewer(&["whoami"]), 1).contains("401"));
    // One's own password, and out.
    let change = format!("{PASSWORD}\nanother password of tests\n");
    let changed = typed(ctl_as(&manager, manager.secret()), &["password"], &change);
    assert!(changed.status.success(), "{}", text(&changed.stderr));
    let audit = told(&manager, &["audit", "--limit", "0"]);
    assert!(audit.iter().any(|row| row["action"].as_str().is_some_and(|a| a.contains("user"))));
    assert_eq!(told(&manager, &["audit", "--limit", "2"]).len(), 2);
    said(&manager, &["sign-out"]);
    assert!(refused(&ctl(&manager, &["whoami"]), 1).contains("holdfast-ctl sign-in"));
}

#[test]
fn enrollment_tokens_are_made_listed_and_taken_back_and_hostile_text_stays_text() {
    let manager = Manager::start().expect("manager");
    let note = "a\u{1b}]0;owned\u{7}\u{202e}b";
    let words = ["enrollment-tokens", "create", "--group", "web", "--uses", "3", "--valid", "2h"];
    let made = said(&manager, &[&words[..], &["--note", note]].concat());
    assert!(made.starts_with("hfe_") && made.lines().count() == 1, "{made}");
    let shown = said(&manager, &["enrollment-tokens", "list"]);
    let hostile = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!shown.contains(hostile), "{shown:?}");
    assert!(shown.contains(r"a\x1b]0;owned\x07\xe2\x80\xaeb"), "{shown}");
    let output = ctl(&manager, &["--json", "enrollment-tokens", "list"]);
    assert!(!text(&output.stdout).contains(hostile), "{:?}", text(&output.stdout));
    let listed = lines(&output).remove(0);
    assert_eq!((&listed["note"], &listed["uses_left"]), (&json!(note), &json!(3)), "nothing lost");
    assert!(listed["token"].is_null());
    let id = listed["id"].as_str().expect("id");
    said(&manager, &["enrollment-tokens", "revoke", id]);
    let listed = told(&manager, &["enrollment-tokens", "list"]).remove(0);
    assert!(!listed["revoked_ms"].is_null());
    // What is wrong with a query is shown with its place; what is not there, too.
    let wrong = refused(&ctl(&manager, &["search", "kind:("]), 1);
    assert!(
        wrong.contains("400 Bad Request: query: ") && wrong.contains("at character"),
        "{wrong}"
    );
    assert!(refused(&ctl(&manager, &["events", "show", "7"]), 1).contains("404"));
    assert!(
        refused(&ctl(&manager, &["hosts", "show", "nobody"]), 1).contains("no host has the name")
    );
    // Any request.
    let answer = told(&manager, &["api", "get", "/api/v1/hosts?limit=1"]).remove(0);
    assert_eq!(answer["items"], json!([]));
    assert_eq!(said(&manager, &["api", "GET", "/healthz"]), "ok\n");
    let body = r#"{"group":"g","uses":1}"#;
    let words = ["api", "POST", "/api/v1/enrollment-tokens", "--data", "-"];
    let made = typed(ctl_as(&manager, manager.secret()), &words, body);
    assert_eq!(lines(&made).remove(0)["group"], "g");
}

#[test]
fn a_document_is_checked_at_its_place_and_nothing_is_kept() {
    let manager = Manager::start().expect("manager");
    let check = |document: &str| {
        typed(ctl_as(&manager, manager.secret()), &["policies", "check", "-"], document)
    };
    let wrong = refused(&check("\n[on_access]\nmod = 1\n"), 78);
    assert!(wrong.contains("line 3") && wrong.contains("unknown field"), "{wrong}");
    let weak = check("[on_access]\nmode = \"detect\"\n");
    assert!(weak.status.success(), "{}", text(&weak.stderr));
    assert!(text(&weak.stdout).contains("warning: on_access.mode is detect"));
    let body = json!({ "document": "# \u{e9}\n[scan]\n cpu_share = 0" });
    let said = manager.post("/api/v1/policies/check", &body).expect("an answer");
    assert_eq!((&said["line"], &said["column"]), (&json!(3), &json!(14)), "{said}");
    assert_eq!(manager.get("/api/v1/policies").expect("policies"), json!([]));
}

#[test]
fn alerts_events_and_hosts_are_shown_searched_and_changed() {
    let (scratch, _agent, manager, host) = host();
    let hostile = detect(&scratch, "a\u{1b}[2Jb\u{202e}c");
    let alert = found(&manager, &["alerts", "list"], |alert| alert["kind"] == "malware");
    let id = alert["id"].as_str().expect("id");
    assert_eq!(alert["host_id"], host.as_str());
    for words in [
        &["alerts", "list"][..],
        &["alerts", "show", id],
        &["alerts", "events", id],
        &["events", "list", "kind:malware"],
        &["hosts", "list"],
        &["hosts", "show", &host],
        &["audit"],
    ] {
        let shown = said(&manager, words);
        assert!(!shown.contains(|c: char| (c.is_control() && c != '\n') || c == '\u{202e}'));
        assert!(!shown.is_empty(), "{words:?}");
    }
    // Filters are the manager's.
    assert_eq!(told(&manager, &["alerts", "list", "--kind", "model"]), [] as [Value; 0]);
    let name = alert["host"].as_str().expect("name");
    let words = ["alerts", "list", "--host", name, "--state", "new", "--kind", "malware"];
    assert_eq!(told(&manager, &words).len(), 1);
    // An event by search, and by its number.
    let event = found(&manager, &["search", "kind:malware", "--since", "1h"], |_| true);
    let number = event["number"].as_str().expect("number");
    let shown = told(&manager, &["events", "show", number]).remove(0);
    assert_eq!((&shown["id"], &shown["kind"]), (&event["id"], &json!("malware")));
    assert_eq!(told(&manager, &["search", "kind:malware", "--until", "1h"]), [] as [Value; 0]);
    let all = told(&manager, &["events", "list", "--limit", "0"]);
    let output = ctl(&manager, &["events", "list", "--limit", "1", "--json"]);
    assert_eq!(lines(&output).len(), 1);
    assert!(all.len() > 1 && text(&output.stderr).contains("--limit 0 shows all"));
    // The quarantined file, until it is deleted.
    let held = ["quarantine", "list", "--host", name, "--state", "held"];
    let item = found(&manager, &held, |item| item["host_id"] == host.as_str());
    assert_eq!(item["event"], *number);
    let item = item["item"].as_str().expect("item").to_owned();
    let delete = ["tasks", "file", name, "--reason", "x", "--wait", "delete", &item];
    assert_eq!(told(&manager, &delete).remove(0)["stage"], "verified");
    found(&manager, &["quarantine", "list"], |item| item["state"] == "deleted");
    assert_eq!(told(&manager, &["quarantine", "show", name, &item]).remove(0)["state"], "deleted");
    assert!(
        refused(&ctl(&manager, &["quarantine", "list", "--state", "lost"]), 1).contains("held")
    );
    // Notes and ends.
    said(&manager, &["alerts", "note", id, "seen\u{1b}[2J"]);
    let words = ["alerts", "edit", id, "--state", "resolved", "--resolution", "true_positive"];
    assert_eq!(told(&manager, &words).remove(0)["state"], "resolved");
    let shown = told(&manager, &["alerts", "show", id]).remove(0);
    assert_eq!(shown["notes"][0]["text"], "seen\u{1b}[2J");
    assert!(refused(&ctl(&manager, &["alerts", "edit", id]), 64).contains("nothing to change"));
    let by_name = told(&manager, &["hosts", "show", name]).remove(0);
    assert!(by_name["heartbeat"].is_object() && by_name["id"] == host.as_str());
    said(&manager, &["hosts", "revoke", name, "--reason", "a test"]);
    assert!(!told(&manager, &["hosts", "list"]).remove(0)["revoked_ms"].is_null());
    assert!(!hostile.exists());
}

#[test]
fn tasks_are_filed_once_waited_for_taken_back_and_their_files_kept() {
    let (scratch, mut agent, manager, host) = host();
    let folder = tempfile::tempdir().expect("folder");
    let listed = ["tasks", "file", &host, "--reason", "x", "--wait", "process-list"];
    let ended = told(&manager, &listed).remove(0);
    assert_eq!(ended["stage"], "verified", "{ended}");
    assert!(ended["result"]["processes"].is_array());
    // The same key again files nothing.
    let keyed = ["tasks", "file", &host, "--reason", "x", "--key", "one", "process-list"];
    let (first, again) = (told(&manager, &keyed).remove(0), told(&manager, &keyed).remove(0));
    assert_eq!(first["id"], again["id"]);
    let other = ["tasks", "file", &host, "--reason", "y", "--key", "one", "process-list"];
    assert!(refused(&ctl(&manager, &other), 1).contains("409 Conflict"));
    // A file of the host, whole, for nobody else, over nothing.
    let wanted = scratch.join("wanted");
    fs::write(&wanted, "evidence").expect("write");
    let output = folder.path().join("wanted.zip");
    let output = output.to_str().expect("text");
    let collect = [
        "tasks",
        "file",
        &host,
        "--reason",
        "x",
        "--output",
        output,
        "collect",
        wanted.to_str().expect("text"),
    ];
    let collected = told(&manager, &collect);
    let task = collected[0]["id"].as_str().expect("id");
    assert_eq!(collected[1]["sha256"], collected[0]["file_sha256"]);
    assert_eq!(fs::metadata(output).expect("kept").permissions().mode() & 0o777, 0o600);
    assert_eq!(unzipped(Path::new(output)), b"evidence");
    assert!(refused(&ctl(&manager, &collect), 1).contains("--force replaces it"));
    fs::write(output, "old").expect("write");
    let again = ["tasks", "download", task, "--output", output];
    assert!(refused(&ctl(&manager, &again), 1).contains("--force replaces it"));
    assert_eq!(fs::read(output).expect("read"), b"old");
    said(&manager, &[&again[..], &["--force"]].concat());
    assert_eq!(unzipped(Path::new(output)), b"evidence");
    assert_eq!(fs::read_dir(folder.path()).expect("list").count(), 1, "no parts are left");
    // What has no file, and what fails.
    let none = ended["id"].as_str().expect("id");
    let none = ["tasks", "download", none, "--output", "/tmp/holdfast-ctl-none"];
    assert!(refused(&ctl(&manager, &none), 1).contains("404"));
    let bad = ["--json", "tasks", "file", &host, "--reason", "x", "--wait", "collect", "/none"];
    let failed = ctl(&manager, &bad);
    assert_eq!(failed.status.code(), Some(1), "{}", text(&failed.stderr));
    assert_eq!(lines(&failed).remove(0)["stage"], "failed");
    // A host that is away: under way, and taken back.
    agent.stop().expect("stop");
    let late = ["tasks", "file", &host, "--reason", "x", "--expires", "1h", "diagnostics"];
    let late = told(&manager, &late).remove(0)["id"].as_str().expect("id").to_owned();
    let waited = ctl(&manager, &["tasks", "wait", &late, "--timeout", "1s"]);
    assert_eq!(waited.status.code(), Some(2), "{}", text(&waited.stderr));
    let cancel = ["tasks", "cancel", &late, "--reason", "x"];
    assert_eq!(told(&manager, &cancel).remove(0)["stage"], "cancelled");
    assert_eq!(ctl(&manager, &["tasks", "wait", &late]).status.code(), Some(1));
    let cancelled = ["tasks", "list", "--stage", "cancelled", "--host", &host];
    assert_eq!(told(&manager, &cancelled).len(), 1);
    assert!(said(&manager, &["tasks", "show", &late]).contains("stage: cancelled"));
}

fn unzipped(zip: &Path) -> Vec<u8> {
    let mut unzip = Command::new("bsdtar");
    unzip.args(["--passphrase", "infected", "-xOf"]).arg(zip);
    unzip.stderr(Stdio::inherit()).output().expect("bsdtar").stdout
}

#[test]
fn who_follows_sees_what_comes_and_what_came_while_the_manager_was_away() {
    let (scratch, _agent, mut manager, _host) = host();
    let alerts = Followed::start(&manager, &["alerts", "list", "--follow", "--kind", "malware"]);
    let events = Followed::start(&manager, &["events", "list", "kind:malware", "--follow"]);
    detect(&scratch, "first");
    alerts.wait(|line| line.contains("\"count\":1"));
    events.wait(|line| line.contains("first"));
    manager.kill().expect("kill");
    alerts.wait(|line| line.starts_with("# the connection broke"));
    detect(&scratch, "second");
    manager.run().expect("again");
    // The same content: the same alert, counted.
    alerts.wait(|line| line.contains("\"count\":2"));
}

#[test]
fn the_token_goes_to_the_right_manager_and_to_nobody_else() {
    let manager = Manager::start().expect("manager");
    let other = Manager::start().expect("another");
    let Place::Https(address, ca) = manager.place() else { panic!("over TLS") };
    let Place::Https(_, wrong_ca) = other.place() else { panic!("over TLS") };
    let url = format!("https://{address}");
    let at = |url: &str, words: &[&str]| {
        let mut command = bare();
        command.env("HOLDFAST_TOKEN", manager.secret()).args(["--manager", url]).args(words);
        command.output().expect("holdfast-ctl")
    };
    let with = |words: &[&str]| at(&url, words);
    let file = |path: &Path| path.to_str().expect("text").to_owned();
    assert!(with(&["whoami", "--ca", &file(ca)]).status.success());
    assert!(with(&["whoami", "--ca-fingerprint", manager.fingerprint()]).status.success());
    let said = refused(&with(&["whoami", "--ca-fingerprint", other.fingerprint()]), 1);
    assert!(said.contains(manager.fingerprint()) && said.contains(other.fingerprint()), "{said}");
    let said = refused(&with(&["whoami", "--ca", &file(wrong_ca)]), 1);
    assert!(
        said.contains("cannot reach the manager") && !said.contains(manager.secret()),
        "{said}"
    );
    let said = refused(&with(&["whoami"]), 1);
    assert!(said.contains("--ca or --ca-fingerprint"), "{said}");
    // Files that are none.
    refused(&with(&["whoami", "--ca", "/nowhere.pem"]), 78);
    refused(&with(&["whoami", "--ca", &file(&manager.config())]), 78);
    refused(&with(&["whoami", "--ca-fingerprint", "abc"]), 64);
    // A name that the certificate does not have, a manager in the clear, a token that is none.
    let port = address.port();
    let named = format!("https://localhost:{port}");
    let said = refused(&at(&named, &["whoami", "--ca", &file(ca)]), 1);
    assert!(said.contains("NotValidForName") || said.contains("not valid for name"), "{said}");
    let said = refused(&at("http://192.0.2.1:8443", &["whoami"]), 64);
    assert!(said.contains("as it is"), "{said}");
    let bad = ctl_as(&manager, "hfs_wrong").arg("whoami").output().expect("run");
    let said = refused(&bad, 1);
    assert!(said.contains("401 Unauthorized") && said.contains("HOLDFAST_TOKEN"), "{said}");
    let bad = ctl_as(&manager, "two\nlines").arg("whoami").output().expect("run");
    assert!(refused(&bad, 78).contains("token"));
    // A manager that is gone.
    drop(other);
    let mut manager = manager;
    manager.kill().expect("kill");
    let said = refused(&ctl(&manager, &["hosts", "list"]), 1);
    assert!(said.contains("cannot reach the manager at https://127.0.0.1"), "{said}");
}

#[test]
fn the_local_manager_is_asked_over_its_socket() {
    let manager = Manager::local().expect("manager");
    assert!(said(&manager, &["whoami"]).contains("admin"));
    let Place::Socket(path) = manager.place() else { panic!("a socket") };
    let gone = path.with_extension("gone");
    let mut command = bare();
    command.arg("--socket").arg(&gone).arg("whoami");
    let said = refused(&command.output().expect("run"), 1);
    assert!(said.contains("api.gone"), "{said}");
}

/// A manager that is none: one answer to whoever comes.
fn rogue(answer: &'static [u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("folder");
    let socket = folder.path().join("rogue.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("bind");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.expect("accept"));
            let mut line = String::new();
            while stream.read_line(&mut line).is_ok_and(|read| read > 2) {
                line.clear();
            }
            let _ = stream.get_mut().write_all(answer);
        }
    });
    (folder, socket)
}

#[test]
fn a_rogue_manager_moves_no_terminal_and_leads_nowhere() {
    let ask = |answer: &'static [u8], words: &[&str]| {
        let (_folder, socket) = rogue(answer);
        let mut command = bare();
        command.arg("--socket").arg(&socket).env("HOLDFAST_TOKEN", "hfs_x").args(words);
        let output = command.output().expect("holdfast-ctl");
        for bytes in [&output.stdout, &output.stderr] {
            let shown = text(bytes);
            assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
        }
        output
    };
    let head = b"HTTP/1.1 403 Forbidden\r\nconnection: close\r\n\r\n\
                 {\"detail\":\"a\\u001b]0;x\\u0007\"}";
    let said = refused(&ask(head, &["whoami"]), 1);
    assert!(said.contains("403"), "{said}");
    let moved =
        b"HTTP/1.1 302 Found\r\nlocation: https://evil.example/\r\ncontent-length: 0\r\n\r\n";
    assert!(refused(&ask(moved, &["whoami"]), 1).contains("302"));
    let page = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n<html>\x1b[2J</html>";
    assert!(refused(&ask(page, &["whoami"]), 1).contains("is no JSON"));
    let raw = ask(page, &["api", "GET", "/"]);
    assert!(text(&raw.stdout).contains(r"<html>\x1b[2J</html>"), "{}", text(&raw.stdout));
    // The same page for ever; a file that is not what the task says.
    let again = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"items\":[],\"next\":\"c1\"}";
    assert!(refused(&ask(again, &["hosts", "list"]), 1).contains("repeats a page"));
    let task = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n\
                 {\"id\":\"x\",\"ended_ms\":1,\"stage\":\"verified\",\"file_sha256\":\"00\"}";
    let folder = tempfile::tempdir().expect("folder");
    let output = folder.path().join("f.zip");
    let id = "0197a2c4-0000-7000-8000-000000000000";
    let words = ["tasks", "download", id, "--output", output.to_str().expect("text")];
    assert!(refused(&ask(task, &words), 1).contains("what came has the SHA-256"));
    assert_eq!(fs::read_dir(folder.path()).expect("list").count(), 0);
    // Nobody at all.
    assert!(refused(&ask(b"", &["whoami"]), 1).contains("cannot reach"));
}

#[test]
fn wrong_usage_exits_64_and_every_command_has_an_example() {
    for words in [
        &[][..],
        &["explode"],
        &["tasks", "file", "h", "isolate"],
        &["alerts", "show", "../users"],
        &["events", "show", "../users"],
        &["hosts", "list", "--limit", "x"],
        &["alerts", "list", "--since", "yesterday"],
        &["api", "TRACE", "/"],
        &["api", "GET", "//evil.example/"],
    ] {
        let mut command = bare();
        command.args(["--manager", "http://127.0.0.1:1"]).args(words);
        let output = command.output().expect("run");
        assert_eq!(output.status.code(), Some(64), "{words:?}: {}", text(&output.stderr));
    }
    let help = |words: &[String]| {
        let output = bare().args(words).arg("--help").output().expect("run");
        assert_eq!(output.status.code(), Some(0), "{words:?}");
        text(&output.stdout)
    };
    let mut paths = vec![Vec::<String>::new()];
    let mut seen = 0;
    while let Some(path) = paths.pop() {
        let help = help(&path);
        let commands = help.split_once("Commands:\n").map(|(_, rest)| rest);
        let commands = commands.map(|rest| rest.split("\n\n").next().unwrap_or_default());
        // Orders have theirs with `tasks file`.
        let file = path.last().is_some_and(|last| last == "file");
        for line in commands.filter(|_| !file).unwrap_or_default().lines() {
            let name = line.strip_prefix("  ").filter(|name| !name.starts_with(' '));
            let name = name.and_then(|name| name.split(' ').next()).unwrap_or_default();
            if !name.is_empty() && name != "help" {
                paths.push([&path[..], &[name.to_owned()]].concat());
            }
        }
        if commands.is_none() || file || path.is_empty() {
            assert!(help.contains("Example"), "{path:?} has no example:\n{help}");
            seen += 1;
        }
    }
    assert!(seen > 30, "{seen} commands");
}

#[test]
fn denials_and_policies_are_made_renamed_and_taken_back() {
    let manager = Manager::start().expect("manager");
    let add = ["denials", "add", "path", "/srv/x", "--group", "web", "--reason", "ticket 1"];
    let added = told(&manager, &add).remove(0);
    assert_eq!((&added["value"], &added["group"]), (&json!("/srv/x"), &json!("web")));
    let bad = ["denials", "add", "path", "/usr/**", "--reason", "x"];
    assert!(refused(&ctl(&manager, &bad), 1).contains("run or be mended"));
    let bad = ["denials", "add", "folder", "/srv/x", "--reason", "x"];
    refused(&ctl(&manager, &bad), 64);
    let id = added["id"].as_str().expect("id");
    assert!(said(&manager, &["denials", "list"]).contains("ticket 1"));
    assert!(told(&manager, &["denials", "hosts", id]).is_empty());
    told(&manager, &["denials", "remove", id, "--reason", "over & out"]);
    assert!(told(&manager, &["denials", "list"]).is_empty());
    let gone = told(&manager, &["denials", "list", "--removed"]).remove(0);
    assert_eq!(gone["removed_why"], "over & out");
    for name in ["one", "two"] {
        said(&manager, &["policies", "create", name]);
    }
    said(&manager, &["policies", "assign", "one", "--group", "web", "--reason", "x"]);
    let renamed = told(&manager, &["policies", "edit", "one", "--name", "first"]).remove(0);
    assert_eq!(renamed["name"], "first");
    let delete = ["policies", "delete", "first", "--reason", "x"];
    assert!(refused(&ctl(&manager, &delete), 1).contains("assigned to web"));
    said(&manager, &[&delete[..], &["--reassign", "two"]].concat());
    let left = told(&manager, &["policies", "list"]);
    assert_eq!((left.len(), &left[0]["groups"]), (1, &json!(["web"])), "{left:?}");
}
