//! The console in a real browser, against a real manager and a real agent. A violation of its
//! policy, an error in its console or a dialog that nobody opened fails the test.

use std::cell::RefCell;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail, ensure};
use holdfast_tests::agent::{Agent, Setup};
use holdfast_tests::browser::Browser;
use holdfast_tests::fill::fill;
use holdfast_tests::manager::Manager;
use holdfast_tests::rest::Request;
use holdfast_tests::scratch::Scratch;
use holdfast_tests::terminal::Terminal;
use holdfast_tests::{Owned, copy_program, eicar, require_root};
use serde_json::{Value, json};

/// Turns the text behind it round, and would be a picture with a script where it were markup.
const NAME: &str = "invoice\u{202e}fdp<img src=x onerror=alert(1)>.com";
/// What is downloaded.
const FETCHED: &str = "report.com";
const FIRST: &str = "a one-time password";

#[test]
fn an_operator_signs_in_sees_an_alert_arrive_and_acts_and_a_viewer_only_looks() {
    require_root();
    let scratch = Scratch::ext4().expect("scratch");
    let agent = Setup::protect([scratch.path()]).start().expect("agent");
    let manager = Manager::start().expect("manager");
    let host = manager.enroll(&agent, &[]).expect("enrolled");
    let host = manager.host(&host).expect("host")["name"].as_str().expect("a name").to_owned();
    let user = |name: &str, role: &str| {
        let body = json!({ "name": name, "role": role, "password": FIRST });
        manager.post("/api/v1/users", &body)
    };
    user("ann", "admin").expect("user");
    user("vic", "viewer").expect("user");
    let words = [("USER", "ann"), ("PASSWORD", FIRST), ("HOST", &host)];
    let browser = Browser::start(&manager, "first.mjs", &words).expect("browser");
    let manager = RefCell::new(manager);
    let ended = browser.run(|step| {
        match step {
            "eicar" => fs::write(scratch.join(NAME), eicar()).context("write")?,
            "stop" => manager.borrow_mut().kill()?,
            "start" => manager.borrow_mut().run()?,
            "viewer" => return Ok(json!({ "name": "vic", "password": FIRST }).to_string()),
            other => bail!("nobody knows {other}"),
        }
        Ok(".com".to_owned())
    });
    ended.unwrap_or_else(|error| panic!("{error:#}\n{}", agent.log()));
}

/// A password that is somebody's own.
const OWN: &str = "another password of tests";

/// Signs somebody in, for requests beside the browser's.
fn token(manager: &Manager, name: &str) -> Result<String> {
    let (path, body) = ("/api/v1/session", json!({ "name": name, "password": OWN }));
    let request = Request { method: "POST", path, token: "", body: &body };
    let (status, answer) = manager.place().ask(&request)?;
    ensure!(status < 300, "{answer}");
    Ok(answer["token"].as_str().context("no token")?.to_owned())
}

/// A manager, an agent that protects a file system, another file system that nobody watches, an
/// admin and a viewer.
///
/// INVARIANT: who uses a file system is gone before it is: fields are dropped in their order.
struct Stage {
    manager: Manager,
    agent: Agent,
    host: String,
    password: &'static str,
    scratch: Scratch,
    unwatched: Scratch,
}

impl Stage {
    /// With people who have one-time passwords, or their own.
    fn new(password: &'static str) -> Self {
        require_root();
        let scratch = Scratch::ext4().expect("scratch");
        let unwatched = Scratch::tmpfs(64 << 20).expect("scratch");
        let agent = Setup::protect([scratch.path()]).start().expect("agent");
        let manager = Manager::start().expect("manager");
        let host = manager.enroll(&agent, &[]).expect("enrolled");
        let host = manager.host(&host).expect("host")["name"].as_str().expect("a name").to_owned();
        for (name, role) in [("ann", "admin"), ("vic", "viewer")] {
            if password == OWN {
                manager.person(name, role, password).expect("person");
            } else {
                let body = json!({ "name": name, "role": role, "password": password });
                manager.post("/api/v1/users", &body).expect("user");
            }
        }
        Self { manager, agent, host, password, scratch, unwatched }
    }

    /// Plays a script to its end, which asks for what everybody knows.
    fn play(&self, name: &str) {
        self.run(&format!("{name}.mjs"), &[], |step| self.act(step));
    }

    /// Runs a script; it asks for the viewer, and for what `act` knows.
    fn run(
        &self,
        script: &str,
        more: &[(&str, &str)],
        mut act: impl FnMut(&str) -> Result<String>,
    ) {
        let mut words = vec![("USER", "ann"), ("PASSWORD", self.password), ("HOST", &self.host)];
        words.extend(more);
        let browser = Browser::start(&self.manager, script, &words).expect("browser");
        let ended = browser.run(|step| match step {
            "viewer" => Ok(json!({ "name": "vic", "password": self.password }).to_string()),
            other => act(other),
        });
        ended.unwrap_or_else(|error| panic!("{error:#}\n{}", self.agent.log()));
    }

    fn act(&self, step: &str) -> Result<String> {
        match step {
            "eicar" => fs::write(self.scratch.join(NAME), eicar()).context("write")?,
            // The same by its standard, and other content than what was allowed.
            "others" => {
                for number in 1..=3 {
                    let content = [eicar(), vec![b' '; number]].concat();
                    let path = self.scratch.join(format!("other{number}.com"));
                    fs::write(path, content).context("write")?;
                }
            }
            // From a server on this machine, as a user of the host fetches it.
            "download" => {
                let web = TcpListener::bind("127.0.0.1:0").context("a web server")?;
                let url = format!("http://{}/{FETCHED}", web.local_addr()?);
                let serving = std::thread::spawn(move || serve_once(&web));
                let mut curl = Command::new("curl");
                curl.args(["-sS", "--max-time", "30", "-o"]).arg(self.scratch.join(FETCHED));
                let status = curl.arg(url).status().context("start curl")?;
                ensure!(status.success(), "curl: {status}");
                serving.join().map_err(|_| anyhow!("it panicked"))??;
                return Ok(FETCHED.to_owned());
            }
            open if open.starts_with("open ") => {
                let name = if open == "open report.com" { FETCHED } else { NAME };
                return Ok(match fs::read(self.scratch.join(name)) {
                    Ok(content) => format!("read {}", content.len()),
                    Err(error) if error.kind() == ErrorKind::NotFound => "gone".to_owned(),
                    Err(error) => error.to_string(),
                });
            }
            "exec" => {
                let hostile = ["<img src=x onerror=alert(1)>", "\u{202e}gnp.exe", "marker4711"];
                let status = Command::new("/bin/true").args(hostile).status().context("start")?;
                ensure!(status.success(), "{status}");
            }
            "plant" => {
                let folder = self.unwatched.join("planted");
                fs::create_dir(&folder).context("folder")?;
                fs::write(folder.join(NAME), eicar()).context("write")?;
                symlink("/etc/hosts", folder.join("link")).context("link")?;
                return Ok(folder.display().to_string());
            }
            "slow" => {
                let folder = self.unwatched.join("many");
                fs::create_dir(&folder).context("folder")?;
                for number in 0..6000 {
                    let path = folder.join(format!("file-{number}"));
                    fs::write(path, format!("clean {number}")).context("write")?;
                }
                return Ok(folder.display().to_string());
            }
            other => bail!("nobody knows {other}"),
        }
        Ok(".com".to_owned())
    }
}

/// Answers one request with the EICAR test file.
fn serve_once(web: &TcpListener) -> Result<()> {
    let (mut caller, _) = web.accept()?;
    let mut request = [0; 1024];
    // A request for one short name comes in one piece.
    ensure!(caller.read(&mut request)? > 0, "nobody asked");
    let content = eicar();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", content.len());
    caller.write_all(&[head.as_bytes(), &content].concat())?;
    Ok(())
}

#[test]
fn a_detection_appears_among_the_events_and_leads_to_its_alert_and_its_file() {
    Stage::new(FIRST).play("events");
}

#[test]
fn a_download_is_quarantined_restored_detected_again_delivered_and_deleted_or_allowed() {
    Stage::new(FIRST).play("quarantine");
}

#[test]
fn by_keys_alone_somebody_signs_in_resolves_an_alert_and_leaves_an_order() {
    Stage::new(OWN).play("keys");
}

#[test]
fn a_long_list_is_scrolled_to_its_end_walked_by_keys_filtered_and_kept_current() {
    require_root();
    let mut manager = Manager::start().expect("manager");
    manager.person("ann", "operator", OWN).expect("person");
    manager.kill().expect("kill");
    fill(&manager.folder().join("manager.db"), 1200, 450).expect("filled");
    manager.run().expect("run");
    let words = [("USER", "ann"), ("PASSWORD", OWN)];
    let browser = Browser::start(&manager, "lists.mjs", &words).expect("browser");
    let ended = browser.run(|step| {
        ensure!(step == "burst", "nobody knows {step}");
        // More at once than are asked for one by one.
        let page = manager.get("/api/v1/alerts?from_ms=0&limit=100")?;
        for alert in page["items"].as_array().context("a list")? {
            let path = format!("/api/v1/alerts/{}", alert["id"].as_str().context("an id")?);
            manager.ask("PATCH", &path, &json!({ "state": "in_progress" }))?;
        }
        Ok(String::new())
    });
    ended.unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn a_search_is_completed_refused_at_its_place_and_narrowed_by_what_it_found() {
    Stage::new(FIRST).play("search");
}

#[test]
fn a_scan_is_ordered_cancelled_and_told_with_what_it_found_and_left_out() {
    Stage::new(FIRST).play("scans");
}

#[test]
fn somebody_changes_his_password_has_a_second_factor_and_makes_a_token() {
    Stage::new(FIRST).play("account");
}

#[test]
fn a_process_is_followed_from_its_alert_and_ended_and_its_arguments_are_text() {
    let stage = Stage::new(OWN);
    let mut running = None;
    stage.run("profile.mjs", &[], |step| {
        ensure!(step == "attack", "nobody knows {step}");
        // A shell under the name of systemctl, whose arguments say that it stops what protects.
        let program = stage.scratch.join("systemctl");
        copy_program("/bin/sh", &program);
        let script = "sleep 300; : stop auditd '<img src=x onerror=alert(1)>\u{202e}dne'";
        let child = Command::new(&program).args(["-c", script]).stdin(Stdio::null()).spawn()?;
        let pid = child.id().to_string();
        running = Some(Owned(child));
        let tells = |page: &Value| page["items"].as_array().is_some_and(|items| !items.is_empty());
        stage.manager.wait_for("/api/v1/alerts?kind=model&text=disable", tells)?;
        Ok(pid)
    });
}

#[test]
fn a_model_is_proven_on_a_host_and_seen_in_the_matrix() {
    let stage = Stage::new(OWN);
    stage.run("models.mjs", &[], |step| bail!("nobody knows {step}"));
}

#[test]
fn an_admin_keeps_users_tokens_and_channels_and_reads_the_audit_log() {
    let stage = Stage::new(OWN);
    let log = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = log.local_addr().expect("address").port().to_string();
    stage.run("admin.mjs", &[("HOOK", &port)], |step| bail!("nobody knows {step}"));
}

/// What a host calls itself: a picture with a script, were it markup.
const HOSTNAME: &str = "web<img src=x onerror=alert(1)>";

#[test]
fn a_shell_is_typed_in_watched_lost_found_again_and_played_and_does_nothing_but_show() {
    require_root();
    // This thread's name, and that of what it starts, alone.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUTS).expect("a name of its own");
    nix::unistd::sethostname(HOSTNAME).expect("a name");
    let scratch = Scratch::tmpfs(16 << 20).expect("scratch");
    let shells = "[shell]\nmode = \"full\"\n";
    let agent = Setup::protect([scratch.path()]).tables(shells).start().expect("agent");
    let manager = Manager::start().expect("manager");
    manager.enroll(&agent, &[]).expect("enrolled");
    for (name, role) in [("ann", "admin"), ("bob", "operator"), ("vic", "viewer")] {
        manager.person(name, role, OWN).expect("person");
    }
    let words = [("USER", "ann"), ("PASSWORD", OWN), ("HOST", HOSTNAME)];
    let browser = Browser::start(&manager, "shells.mjs", &words).expect("browser");
    let manager = RefCell::new(manager);
    let mut terminal = None;
    let ended = browser.run(|step| {
        if step == "stop" {
            manager.borrow_mut().kill()?;
            return Ok(String::new());
        }
        if step == "start" {
            manager.borrow_mut().run()?;
            return Ok(String::new());
        }
        let manager = manager.borrow();
        let join = |shell: &str, token: &str| {
            let bearer = format!("Bearer {token}");
            Terminal::join(manager.place(), shell, &[("authorization", &bearer)])
        };
        match step {
            "permit" => {
                let users = manager.get("/api/v1/users")?;
                let ann = users.as_array().and_then(|all| all.iter().find(|u| u["name"] == "ann"));
                let id = ann.and_then(|ann| ann["id"].as_str()).context("no ann")?;
                let path = format!("/api/v1/users/{id}");
                manager.ask("PATCH", &path, &json!({ "may_shell": true }))?;
            }
            "watch" => {
                let list = manager.get("/api/v1/shells")?;
                let shell = list["items"][0]["id"].as_str().context("no shell")?;
                terminal = Some(join(shell, &token(&manager, "bob")?)?);
            }
            "unwatch" => terminal = None,
            "open" => {
                let token = token(&manager, "ann")?;
                let host = manager.get("/api/v1/hosts")?["items"][0]["id"].clone();
                let body = json!({ "host": host, "reason": "watched", "restricted": false });
                let path = "/api/v1/shells";
                let request = Request { method: "POST", path, token: &token, body: &body };
                let (status, answer) = manager.place().ask(&request)?;
                ensure!(status < 300, "{answer}");
                let shell = answer["id"].as_str().context("no shell")?.to_owned();
                let mut typed = join(&shell, &token)?;
                typed.write("PS1=; echo shown-$((90+9))\r")?;
                typed.wait("shown-99")?;
                terminal = Some(typed);
                return Ok(shell);
            }
            "type" => {
                let typed = terminal.as_mut().context("nobody types")?;
                typed.write("echo shown-$((90+10))\r")?;
                typed.wait("shown-100")?;
            }
            "viewer" => return Ok(json!({ "name": "vic", "password": OWN }).to_string()),
            other => bail!("nobody knows {other}"),
        }
        Ok(String::new())
    });
    ended.unwrap_or_else(|error| panic!("{error:#}\n{}", agent.log()));
}

#[test]
fn a_policy_is_written_as_text_and_by_forms_rolled_out_compared_and_gone_back_from() {
    let stage = Stage::new(OWN);
    stage.run("policies.mjs", &[], |step| {
        ensure!(step == "schedules", "nobody knows {step}");
        let schedules = stage.agent.json(&["scans", "schedules", "list"])?;
        let names: Vec<&str> = schedules.iter().filter_map(|one| one["name"].as_str()).collect();
        Ok(names.join(" "))
    });
}
