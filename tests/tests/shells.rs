//! Remote shells from the manager's HTTP interface to a real agent and back: who may, what is
//! recorded, how each of them ends, and whoever tries to get around.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use holdfast_tests::agent::{Agent, PATIENCE, Setup, binary};
use holdfast_tests::manager::{Manager, PASSWORD};
use holdfast_tests::rest::{Place, Request};
use holdfast_tests::scratch::Scratch;
use holdfast_tests::terminal::Terminal;
use holdfast_tests::{require_root, until};
use serde_json::{Value, json};

const FULL: &str = "[sensor]\nenabled = false\n[shell]\nmode = \"full\"\n";

struct World {
    manager: Manager,
    host: String,
    agent: Agent,
    _scratch: Scratch,
}

/// A host whose config has these tables, and a manager whose admin may open shells.
fn world(tables: &str) -> World {
    require_root();
    let scratch = Scratch::tmpfs(16 << 20).expect("scratch");
    let agent = Setup::protect([scratch.path()]).tables(tables).start().expect("agent");
    let manager = Manager::start().expect("manager");
    let host = manager.enroll(&agent, &[]).expect("enrolled");
    let world = World { manager, host, agent, _scratch: scratch };
    let admin = world.manager.get("/api/v1/users").expect("users")[0]["id"].clone();
    world.permit(world.manager.secret(), admin.as_str().expect("id"), true);
    world
}

impl World {
    fn permit(&self, token: &str, user: &str, may: bool) {
        let (path, body) = (format!("/api/v1/users/{user}"), json!({ "may_shell": may }));
        let (status, answer) = self.ask(token, "PATCH", &path, &body);
        assert_eq!(status, 200, "{answer}");
    }

    fn ask(&self, token: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
        self.manager.place().ask(&Request { method, path, token, body }).expect("answer")
    }

    fn sign_in(&self, name: &str, password: &str) -> String {
        let body = json!({ "name": name, "password": password });
        let (status, answer) = self.ask("", "POST", "/api/v1/session", &body);
        assert_eq!(status, 201, "{answer}");
        answer["token"].as_str().expect("token").to_owned()
    }

    /// A token of the first admin, who may open shells.
    fn admin(&self) -> String {
        self.sign_in("admin", PASSWORD)
    }

    fn open(&self, token: &str, restricted: bool) -> String {
        let body = json!({ "host": self.host, "reason": "a test", "restricted": restricted });
        let (status, answer) = self.ask(token, "POST", "/api/v1/shells", &body);
        assert_eq!(status, 201, "{answer}");
        answer["id"].as_str().expect("id").to_owned()
    }

    fn join(&self, token: &str, shell: &str) -> Terminal {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        Terminal::join(self.manager.place(), shell, &headers).expect("joined")
    }

    fn task(&self, token: &str, shell: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let path = format!("/api/v1/tasks/{shell}");
        let mut last = Value::Null;
        let found = until(PATIENCE, || {
            last = self.ask(token, "GET", &path, &Value::Null).1;
            fits(&last).then(|| last.clone())
        });
        found.unwrap_or_else(|| panic!("never; last {last}"))
    }

    fn ended(&self, token: &str, shell: &str) -> Value {
        self.task(token, shell, |task| !task["ended_ms"].is_null())
    }

    /// The file on the manager's disk: whole, and named so.
    fn recording(&self, shell: &str) -> Vec<(String, String)> {
        let file = self.manager.folder().join(format!("shells/{shell}.cast"));
        let text = until(PATIENCE, || fs::read_to_string(&file).ok()).expect("a recording");
        let lines = text.lines().skip(1);
        let event = |line| serde_json::from_str::<(f64, String, String)>(line).expect(line);
        lines.map(event).map(|(_, kind, text)| (kind, text)).collect()
    }

    fn told(&self, action: &str) -> Option<Value> {
        let events = self.agent.json(&["events", "--kind", "shell"]).expect("events");
        events.into_iter().find(|event| event["action"] == action)
    }
}

fn all(recording: &[(String, String)], kind: &str) -> String {
    recording.iter().filter(|(one, _)| one == kind).map(|(_, text)| text.as_str()).collect()
}

fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

#[test]
fn a_shell_is_opened_typed_in_recorded_and_closed_with_all_that_it_started() {
    let world = world(FULL);
    let token = world.admin();
    let shell = world.open(&token, false);
    let mut terminal = world.join(&token, &shell);
    terminal.write("PS1=; echo $((6*7)) $HOLDFAST_SHELL $(tty)\r").expect("typed");
    terminal.wait(&format!("42 {shell} /dev/pts/")).expect("answered");
    // Both ends show it.
    let status = world.agent.json(&["status"]).expect("status").remove(0);
    assert_eq!(
        (&status["shells"][0]["task"], &status["shells"][0]["by"]),
        (&json!(shell), &json!("admin"))
    );
    let open = world.task(&token, &shell, |task| task["stage"] == "delivered");
    assert!(open["observed"].as_str().is_some_and(|said| said.contains("is open on")), "{open}");
    assert_eq!(world.told("opened").expect("event")["task"], json!(shell));
    // Its size is ours.
    terminal.tell(&json!({ "resize": [123, 45] })).expect("resized");
    terminal.write("stty size\r").expect("typed");
    terminal.wait("45 123").expect("resized");
    // A password is not in the recording: the terminal asks for a line and does not show it.
    let asks = "stty -echo; echo as''ked; read x; stty echo; echo got ${#x}\r";
    terminal.write(asks).expect("typed");
    terminal.wait("asked").expect("asked");
    terminal.write("hunter2\r").expect("typed");
    terminal.wait("got 7").expect("typed hidden");
    // What it started ends with it; what began a session of its own does not hold it.
    terminal
        .write("sleep 1001 & echo pid $! end; (trap '' HUP; exec sleep 1002) & echo pid $! end\r")
        .expect("typed");
    let mut pids = Vec::new();
    while pids.len() < 2 {
        terminal.wait("pid ").expect("a pid");
        let said = terminal.wait(" end").expect("a pid");
        let number = said.trim_end_matches(" end").trim().to_owned();
        if number.parse::<u32>().is_ok() {
            pids.push(number);
        }
    }
    terminal.write("exit 3\r").expect("typed");
    let why = terminal.closed().expect("closed");
    assert!(why.contains("ended by itself") && why.contains('3'), "{why}");
    let task = world.ended(&token, &shell);
    assert_eq!(
        (&task["stage"], &task["result"]["exit"]),
        (&json!("verified"), &json!(3)),
        "{task}"
    );
    for pid in &pids {
        assert!(!runs(pid), "{pid} runs on");
    }
    assert_eq!(world.agent.json(&["status"]).expect("status")[0]["shells"], json!([]));
    assert!(world.told("closed").is_some());
    let recording = world.recording(&shell);
    let (shown, typed) = (all(&recording, "o"), all(&recording, "i"));
    assert!(shown.contains("42 ") && typed.contains("stty size\r"), "{recording:?}");
    assert!(typed.contains("*******\r") && !typed.contains("hunter2"), "{typed:?}");
    assert_eq!(all(&recording, "r"), "123x45");
    // The hash that the audit log has is the file's.
    let file = world.manager.folder().join(format!("shells/{shell}.cast"));
    let sum = Command::new("sha256sum").arg(&file).output().expect("sha256sum").stdout;
    let sum = String::from_utf8_lossy(&sum).split(' ').next().unwrap_or_default().to_owned();
    let audit = world.ask(&token, "GET", "/api/v1/audit?limit=100", &Value::Null).1;
    let audit = audit["items"].as_array().expect("rows");
    let row = |action: &str| audit.iter().find(|row| row["action"] == action).cloned();
    let (opened, closed) =
        (row("shell.open").expect("opened"), row("shell.close").expect("closed"));
    assert!(closed.to_string().contains(&sum), "{closed}");
    assert!(opened.to_string().contains("a test") && opened.to_string().contains(&world.host));
    // It is listed, and can be had.
    let list = world.ask(&token, "GET", "/api/v1/shells", &Value::Null).1;
    assert_eq!(list["items"][0]["id"], json!(shell));
    assert_eq!(
        list["items"][0]["recording_bytes"].as_u64(),
        Some(fs::metadata(&file).expect("file").len())
    );
}

#[test]
fn nobody_opens_or_joins_a_shell_without_the_permission_from_another_site_or_beyond_the_config() {
    let world = world("[sensor]\nenabled = false\n");
    let token = world.admin();
    // By default a host allows restricted ones.
    let refused = world.open(&token, false);
    let task = world.ended(&token, &refused);
    assert_eq!(task["stage"], "failed");
    assert!(task["observed"].as_str().is_some_and(|why| why.contains("restricted shells only")));
    assert!(world.told("refused").is_some());
    // Not by way of tasks.
    let action = json!({ "action": "shell", "restricted": true, "columns": 80, "rows": 24 });
    let body = json!({ "host": world.host, "action": action, "reason": "x" });
    let (status, answer) = world.ask(&token, "POST", "/api/v1/tasks", &body);
    assert!(status == 400 && answer.to_string().contains("/api/v1/shells"), "{answer}");
    let shell = world.open(&token, true);
    let mut terminal = world.join(&token, &shell);
    terminal.wait("holdfast> ").expect("a prompt");
    // An operator without the permission, an admin's token without the scope.
    let body = json!({ "name": "bob", "role": "operator", "password": "the first of his 1" });
    let (status, bob) = world.ask(&token, "POST", "/api/v1/users", &body);
    assert_eq!(status, 201, "{bob}");
    let first = world.sign_in("bob", "the first of his 1");
    let change = json!({ "old": "the first of his 1", "new": "the second of his 2" });
    world.ask(&first, "POST", "/api/v1/session/password", &change);
    let bob_token = world.sign_in("bob", "the second of his 2");
    let body = json!({ "name": "t", "scopes": ["read", "respond", "administer"], "valid_s": 600 });
    let narrow = world.ask(&token, "POST", "/api/v1/api-tokens", &body).1;
    let narrow = narrow["token"].as_str().expect("token").to_owned();
    let opening = json!({ "host": world.host, "reason": "x", "restricted": true });
    for other in [&bob_token, &narrow] {
        assert_eq!(world.ask(other, "POST", "/api/v1/shells", &opening).0, 403);
        let path = format!("/api/v1/shells/{shell}/recording");
        assert_eq!(world.ask(other, "GET", &path, &Value::Null).0, 403);
        let bearer = format!("Bearer {other}");
        let headers = [("authorization", bearer.as_str())];
        let error = Terminal::join(world.manager.place(), &shell, &headers).expect_err("refused");
        assert!(error.to_string().contains("403"), "{error}");
    }
    // A page of another site, with the browser's cookie; one that names no site; the own one.
    let cookie = format!("__Host-holdfast={token}");
    for (origin, fine) in
        [(Some("https://evil.example"), false), (None, false), (Some("https://manager"), true)]
    {
        let mut headers = vec![("cookie", cookie.as_str())];
        headers.extend(origin.map(|origin| ("origin", origin)));
        let joined = Terminal::join(world.manager.place(), &shell, &headers);
        assert_eq!(joined.is_ok(), fine, "{origin:?} {joined:?}");
    }
    // Whoever may and did not open it looks, and does not type.
    world.permit(&token, bob["id"].as_str().expect("id"), true);
    let bob_token = world.sign_in("bob", "the second of his 2");
    let mut watcher = world.join(&bob_token, &shell);
    watcher.wait("holdfast> ").expect("what was shown before");
    watcher.write("pwd\r").expect("sent");
    watcher.tell(&json!({ "resize": [1, 1] })).expect("sent");
    let mut terminal = world.join(&token, &shell);
    terminal.write("hash nothing-of-the-kind\r").expect("typed");
    let shown = watcher.wait("nothing-of-the-kind: No such file").expect("shown to both");
    assert!(!shown.contains("pwd"), "{shown}");
    assert!(!watcher.told.contains(&json!({ "writes": true })), "{:?}", watcher.told);
    let person = |name: &str, writes: bool| json!({ "name": name, "writes": writes });
    let lists = watcher.told.iter().filter_map(|said| said["people"].as_array());
    let both = [person("bob", false), person("admin", true)];
    let named = lists.into_iter().any(|list| both.iter().all(|one| list.contains(one)));
    assert!(named, "{:?}", watcher.told);
    // The last one of the opener types; the one before was told.
    let mut second = world.join(&token, &shell);
    until(PATIENCE, || {
        terminal.look();
        terminal.told.contains(&json!({ "writes": false })).then_some(())
    })
    .expect("told");
    terminal.write("mounts of the first\r").expect("sent");
    second.write("exit\r").expect("typed");
    watcher.closed().expect("closed");
    world.ended(&token, &shell);
    let typed = all(&world.recording(&shell), "i");
    assert!(!typed.contains("pwd") && !typed.contains("mounts"), "{typed}");
    let error = Terminal::join(
        world.manager.place(),
        &shell,
        &[("authorization", &format!("Bearer {token}"))],
    );
    assert!(error.expect_err("over").to_string().contains("409"), "it has ended");
    // More than four are refused at once; a task's cancel closes one; a lost permission, too.
    let four: Vec<String> = (0..4).map(|_| world.open(&token, true)).collect();
    for one in &four {
        world.task(&token, one, |task| task["stage"] == "delivered");
    }
    let fifth = world.ended(&token, &world.open(&token, true));
    assert!(
        fifth["observed"].as_str().is_some_and(|why| why.contains("4 shells are open")),
        "{fifth}"
    );
    for one in &four {
        let path = format!("/api/v1/tasks/{one}/cancel");
        world.ask(&token, "POST", &path, &json!({ "reason": "x" }));
        let task = world.ended(&token, one);
        assert!(task["observed"].as_str().is_some_and(|how| how.contains("cancelled")), "{task}");
    }
}

#[test]
fn a_host_can_forbid_shells_and_one_where_nobody_types_is_closed() {
    let mut world = world("[sensor]\nenabled = false\n[shell]\nmode = \"full\"\nidle_s = 5\n");
    let token = world.admin();
    let shell = world.open(&token, false);
    let mut terminal = world.join(&token, &shell);
    // What it shows is no sign of anybody.
    terminal.write("while :; do echo tick; sleep 0.2; done\r").expect("typed");
    assert!(terminal.closed().expect("closed").contains("nobody typed"));
    assert_eq!(world.ended(&token, &shell)["stage"], "verified");
    world.agent.stop().expect("stop");
    let config = fs::read_to_string(world.agent.config()).expect("config");
    let off = config.replace("mode = \"full\"", "mode = \"off\"");
    fs::write(world.agent.config(), off).expect("write");
    world.agent.start().expect("start");
    let path = format!("/api/v1/hosts/{}", world.host);
    until(PATIENCE, || {
        (world.ask(&token, "GET", &path, &Value::Null).1["connected"] == true).then_some(())
    })
    .expect("connected");
    for restricted in [true, false] {
        let task = world.ended(&token, &world.open(&token, restricted));
        assert!(task["observed"].as_str().is_some_and(|why| why.contains("allows no shells")));
    }
}

#[test]
fn a_policy_takes_shells_away_also_from_who_has_one_open_and_gives_no_more_than_the_host() {
    let world = world(&format!("{FULL}idle_s = 600\n"));
    let token = world.admin();
    let full = world.open(&token, false);
    let mut terminal = world.join(&token, &full);
    terminal.write("PS1=; echo rea''dy\r").expect("typed");
    terminal.wait("ready").expect("shown");
    let restricted = world.open(&token, true);
    let mut fixed = world.join(&token, &restricted);
    fixed.wait("holdfast> ").expect("a prompt");
    let body = json!({ "name": "shells", "stages": [100], "soak_s": 0 });
    let (status, made) = world.ask(&token, "POST", "/api/v1/policies", &body);
    assert_eq!(status, 201, "{made}");
    let policy = format!("/api/v1/policies/{}", made["id"].as_str().expect("id"));
    let body = json!({ "groups": ["tests"], "reason": "a test" });
    assert_eq!(world.ask(&token, "PUT", &format!("{policy}/groups"), &body).0, 200);
    let put = |document: &str| {
        let body = json!({ "document": document, "reason": "a test" });
        let (status, put) = world.ask(&token, "POST", &format!("{policy}/versions"), &body);
        assert_eq!(status, 201, "{put}");
    };
    put("[shell]\nmode = \"restricted\"\nidle_s = 601\n");
    let why = terminal.closed().expect("closed");
    assert!(why.contains("policy"), "{why}");
    let ended = world.ended(&token, &full);
    assert_eq!(ended["stage"], "verified", "nothing of it runs any more: {ended}");
    assert!(world.told("closed").is_some_and(|event| event["reason"] == why), "{why}");
    // What it still allows goes on, and what is longer than the host's own stays the host's.
    fixed.write("pwd\r").expect("typed");
    fixed.wait("\n").expect("its echo");
    fixed.wait("holdfast> ").expect("it answers");
    let refused = world.ended(&token, &world.open(&token, false));
    let said = refused["observed"].as_str().expect("why").to_owned();
    assert!(said.contains("policy") && said.contains("restricted shells only"), "{said}");
    let report = world.agent.json(&["policy"]).expect("policy").remove(0);
    assert_eq!(report["state"]["running"]["kept"], json!(["shell.idle_s"]), "{report}");
    put("[shell]\nmode = \"off\"\n");
    let why = fixed.closed().expect("closed");
    assert!(why.contains("policy"), "{why}");
    let refused = world.ended(&token, &world.open(&token, true));
    let said = refused["observed"].as_str().expect("why").to_owned();
    assert!(said.contains("policy") && said.contains("no shells"), "{said}");
}

#[test]
fn a_shell_outlives_its_manager_for_a_while_and_not_its_agent() {
    let mut world = world(FULL);
    let token = world.admin();
    let shell = world.open(&token, false);
    let mut terminal = world.join(&token, &shell);
    terminal.write("PS1=; marker=kept; echo rea''dy\r").expect("typed");
    terminal.wait("ready").expect("shown");
    world.manager.kill().expect("kill");
    assert!(terminal.closed().is_err() || terminal.told.is_empty(), "it just breaks");
    world.manager.run().expect("run");
    let path = format!("/api/v1/hosts/{}", world.host);
    until(PATIENCE, || {
        (world.ask(&token, "GET", &path, &Value::Null).1["connected"] == true).then_some(())
    })
    .expect("connected");
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let joined = until(PATIENCE, || Terminal::join(world.manager.place(), &shell, &headers).ok());
    let mut terminal = joined.expect("joined again");
    terminal.wait("ready").expect("what was shown before");
    terminal.write("echo $marker $$ and\r").expect("typed");
    terminal.wait("kept ").expect("it is the same shell");
    let leader = terminal.wait(" and").expect("its pid").replace(" and", "");
    world.agent.kill().expect("kill");
    until(PATIENCE, || (!runs(leader.trim())).then_some(())).expect("it ends with the agent");
    world.agent.start().expect("start");
    let task = world.ended(&token, &shell);
    assert_eq!(task["stage"], "failed");
    assert!(task["observed"].as_str().is_some_and(|how| how.contains("the agent ended")), "{task}");
    let recording = world.recording(&shell);
    assert!(all(&recording, "m").contains("began anew"), "{recording:?}");
    assert!(all(&recording, "o").contains("kept"));
    // An agent that stops closes them in order.
    let path = format!("/api/v1/hosts/{}", world.host);
    until(PATIENCE, || {
        (world.ask(&token, "GET", &path, &Value::Null).1["connected"] == true).then_some(())
    })
    .expect("connected");
    let shell = world.open(&token, false);
    world.task(&token, &shell, |task| task["stage"] == "delivered");
    let mut terminal = world.join(&token, &shell);
    world.agent.stop().expect("stop");
    assert!(terminal.closed().expect("closed").contains("the agent is ending"));
}

#[test]
fn a_flood_in_either_direction_holds_up_nothing_but_its_own_terminal() {
    let world = world(FULL);
    let token = world.admin();
    let shell = world.open(&token, false);
    let mut terminal = world.join(&token, &shell);
    // Garbage does nothing but appear.
    terminal
        .write("printf '\\377\\376\\000\\033[2J\\033]0;x\\007'; echo aft''er\r")
        .expect("typed");
    terminal.wait("after").expect("shown");
    // The one who types does not read: the program waits, and nobody else does.
    terminal.write("yes\r").expect("typed");
    let size = || {
        let file = world.manager.folder().join(format!("shells/{shell}.part"));
        fs::metadata(file).map(|facts| facts.len()).unwrap_or(0)
    };
    until(PATIENCE, || (size() > 200_000).then_some(())).expect("it floods");
    let mut last = 0;
    until(PATIENCE, || {
        let now = size();
        std::mem::replace(&mut last, now).eq(&now).then_some(())
    });
    for _ in 0..3 {
        let listed = world.manager_file(&token, &json!({ "action": "process_list" }));
        assert_eq!(world.ended(&token, &listed)["stage"], "verified");
    }
    assert!(size() < 32 << 20, "{}", size());
    // Ctrl-C comes through as soon as somebody reads.
    terminal.write("\x03").expect("typed");
    terminal.write("echo sto''pped\r").expect("typed");
    terminal.wait("stopped").expect("it goes on");
    // A program that does not read what is typed.
    terminal.write("sleep 1004\r").expect("typed");
    let flood = vec![b'x'; 16 << 10];
    for _ in 0..12 {
        terminal.write(&flood).expect("sent");
    }
    let listed = world.manager_file(&token, &json!({ "action": "process_list" }));
    assert_eq!(world.ended(&token, &listed)["stage"], "verified");
    let path = format!("/api/v1/tasks/{shell}/cancel");
    world.ask(&token, "POST", &path, &json!({ "reason": "x" }));
    let task = world.ended(&token, &shell);
    assert_eq!(task["stage"], "verified", "{task}");
    assert!(!all(&world.recording(&shell), "o").is_empty());
}

impl World {
    fn manager_file(&self, token: &str, action: &Value) -> String {
        let body = json!({ "host": self.host, "action": action, "reason": "a test" });
        let (status, answer) = self.ask(token, "POST", "/api/v1/tasks", &body);
        assert_eq!(status, 201, "{answer}");
        answer["id"].as_str().expect("id").to_owned()
    }
}

#[test]
fn the_restricted_shell_has_its_commands_and_no_way_out_of_them() {
    let world = world("[sensor]\nenabled = false\n");
    let token = world.admin();
    let shell = world.open(&token, true);
    let mut terminal = world.join(&token, &shell);
    terminal.wait("holdfast> ").expect("a prompt");
    let folder = tempfile::tempdir().expect("folder");
    let path = |name: &str| folder.path().join(name);
    let text = |path: PathBuf| path.to_str().expect("text").to_owned();
    fs::write(path("plain"), "one\n\x1b[31mtwo\n").expect("write");
    fs::write(path(".hidden"), "x").expect("write");
    std::os::unix::fs::symlink("/proc/self/mem", path("link")).expect("link");
    let victim = Command::new("sleep").arg("1005").stdin(Stdio::null()).spawn().expect("sleep");
    let mut victim = victim;
    let marker = path("marker");
    let mut ask = |line: &str| {
        terminal.write(format!("{line}\r")).expect("typed");
        // The terminal shows the line itself first.
        terminal.wait("\n").unwrap_or_else(|error| panic!("{line}: {error}"));
        let said = terminal.wait("holdfast> ").unwrap_or_else(|error| panic!("{line}: {error}"));
        said.trim_end_matches("holdfast> ").replace('\r', "")
    };
    ask(&format!("cd {}", text(folder.path().to_owned())));
    assert_eq!(ask("pwd").trim(), text(folder.path().to_owned()));
    assert_eq!(ask("ls").trim(), "link\nplain");
    assert!(ask("ls -la").contains(".hidden") && ask("ls -l").contains("link -> /proc/self/mem"));
    assert_eq!(ask("cat plain").trim(), "one\n\\x1b[31mtwo", "nothing moves the cursor");
    assert!(ask("stat plain").contains("regular file, 13 bytes"));
    assert!(ask("hash plain").contains("  plain"));
    assert_eq!(ask("find . -name 'pl*' -type f").trim(), "./plain");
    assert!(ask(&format!("ps {}", "sleep 1005")).contains("usage"), "two words");
    assert!(ask("ps 'sleep 1005'").contains(&victim.id().to_string()));
    assert!(ask("mounts").contains("/proc") && ask("users").contains("root"));
    assert!(ask("env").contains("HOLDFAST_SHELL=") && ask("help").contains("journal"));
    assert!(ask("ss -tl").contains("Local Address") && ask("ip -br link").contains("lo"));
    ask("journal 5");
    // The ways out.
    let mark = text(marker.clone());
    for line in [
        format!("find . -name plain -exec touch {mark} \\;"),
        format!("find . -delete {mark}"),
        format!("ls; touch {mark}"),
        format!("ls `touch {mark}` $(touch {mark})"),
        format!("ls | tee {mark}"),
        format!("cat plain > {mark}"),
        format!("sh -c 'touch {mark}'"),
        format!("/bin/touch {mark}"),
        format!("ls\x0btouch {mark}"),
        format!("ss -D {mark}"),
        "ip netns exec x sh".to_owned(),
        "ip -b /etc/passwd".to_owned(),
        "journal --file=/etc/shadow".to_owned(),
        "bash".to_owned(),
        "exec sh".to_owned(),
        "cat /proc/self/mem".to_owned(),
        "cat link".to_owned(),
        format!("cat /proc/{}/mem", world.agent.pid()),
        "cat /proc/../proc/kcore".to_owned(),
        "cat /dev/zero".to_owned(),
        "hash /dev/zero".to_owned(),
        "cat .".to_owned(),
        "cat 'open".to_owned(),
    ] {
        let said = ask(&line);
        assert!(!marker.exists(), "{line}: {said}");
        assert!(!said.contains("root:x:0"), "{line}: {said}");
    }
    assert!(ask("cat /proc/self/mem").contains("not read here"));
    assert!(ask("cat link").contains("not read here"), "a link is what it leads to");
    for spared in ["1", "2", &world.agent.pid().to_string(), "-1", "0", "-9 -1", "'1 2'"] {
        let said = ask(&format!("kill {spared}"));
        assert!(said.contains("not killed") || said.contains("usage"), "{spared}: {said}");
    }
    let said = ask(&format!("kill -KILL {}", victim.id()));
    assert!(said.contains("sleep 1005") && said.contains("SIGKILL was sent"), "{said}");
    assert!(!victim.wait().expect("wait").success());
    // Ctrl-C ends a command, and what was typed of the next, not the shell.
    terminal.write("find /\r\x03").expect("typed");
    terminal.wait("holdfast> ").expect("a prompt");
    terminal.write("pw\x03").expect("typed");
    terminal.wait("holdfast> ").expect("a prompt");
    terminal.write("\x1a\x1c").expect("typed");
    terminal.write(format!("{}\r", "x".repeat(3000))).expect("typed");
    terminal.wait("there is no command").expect("it still answers");
    terminal.write("\x04").expect("typed");
    assert!(terminal.closed().expect("closed").contains("ended by itself"));
    assert_eq!(world.ended(&token, &shell)["result"]["exit"], 0);
}

#[test]
fn holdfast_ctl_opens_a_shell_lists_it_and_has_its_recording() {
    let world = world(FULL);
    let token = world.admin();
    let ctl = |words: &[&str], input: &str| {
        let mut command = Command::new(binary("holdfast-ctl"));
        let Place::Https(address, _) = world.manager.place() else { panic!("by HTTPS") };
        let mut child = command
            .env("HOLDFAST_MANAGER", format!("https://{address}"))
            .env("HOLDFAST_CA_FINGERPRINT", world.manager.fingerprint())
            .env("HOLDFAST_TOKEN", &token)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("holdfast-ctl");
        use std::io::Write;
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("typed");
        child.wait_with_output().expect("its end")
    };
    let words = ["shell", &world.host, "--reason", "by hand"];
    let output = ctl(&words, "PS1=; echo $((40+2)) he''re\nexit 7\n");
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    let noted = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(7), "{shown} {noted}");
    assert!(shown.contains("42 here") && noted.contains("it is recorded"), "{shown} {noted}");
    let listed = ctl(&["--json", "shells", "list"], "");
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("json");
    let id = listed["id"].as_str().expect("id").to_owned();
    assert_eq!(listed["reason"], "by hand");
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("x.cast");
    let had = ctl(&["shells", "recording", &id, "-o", file.to_str().expect("text")], "");
    assert!(had.status.success(), "{}", String::from_utf8_lossy(&had.stderr));
    let whole = fs::read(world.manager.folder().join(format!("shells/{id}.cast")));
    assert_eq!(fs::read(&file).expect("file"), whole.expect("recording"));
    let refused = ctl(&["shells", "join", &id], "");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("409"), "it has ended");
}
