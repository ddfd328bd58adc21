//! The console in a real browser, against a real manager and a real agent. A violation of its
//! policy, an error in its console or a dialog that nobody opened fails the test.

use std::cell::RefCell;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::process::Command;

use anyhow::{Context, bail, ensure};
use holdfast_tests::agent::{Agent, Setup};
use holdfast_tests::browser::Browser;
use holdfast_tests::manager::Manager;
use holdfast_tests::rest::Place;
use holdfast_tests::scratch::Scratch;
use holdfast_tests::{eicar, require_root};
use serde_json::json;

/// Turns the text behind it round, and would be a picture with a script where it were markup.
const NAME: &str = "invoice\u{202e}fdp<img src=x onerror=alert(1)>.com";
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
    let Place::Https(address, _) = manager.place() else { panic!("not by HTTPS") };
    let url = format!("https://{address}");
    let words = [("URL", url.as_str()), ("USER", "ann"), ("PASSWORD", FIRST), ("HOST", &host)];
    let browser = Browser::start("first.mjs", "first", &words).expect("browser");
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

/// A manager, an agent that protects a file system, another file system that nobody watches, and
/// people with one-time passwords.
///
/// INVARIANT: who uses a file system is gone before it is: fields are dropped in their order.
struct Scene {
    manager: Manager,
    agent: Agent,
    host: String,
    scratch: Scratch,
    unwatched: Scratch,
}

impl Scene {
    fn new() -> Self {
        require_root();
        let scratch = Scratch::ext4().expect("scratch");
        let unwatched = Scratch::tmpfs(64 << 20).expect("scratch");
        let agent = Setup::protect([scratch.path()]).start().expect("agent");
        let manager = Manager::start().expect("manager");
        let host = manager.enroll(&agent, &[]).expect("enrolled");
        let host = manager.host(&host).expect("host")["name"].as_str().expect("a name").to_owned();
        for (name, role) in [("ann", "admin"), ("vic", "viewer")] {
            let body = json!({ "name": name, "role": role, "password": FIRST });
            manager.post("/api/v1/users", &body).expect("user");
        }
        Self { manager, agent, host, scratch, unwatched }
    }

    /// Plays a script to its end.
    fn play(&self, name: &str) {
        let Place::Https(address, _) = self.manager.place() else { panic!("not by HTTPS") };
        let url = format!("https://{address}");
        let words =
            [("URL", url.as_str()), ("USER", "ann"), ("PASSWORD", FIRST), ("HOST", &self.host)];
        let browser = Browser::start(&format!("{name}.mjs"), name, &words).expect("browser");
        let ended = browser.run(|step| self.act(step));
        ended.unwrap_or_else(|error| panic!("{error:#}\n{}", self.agent.log()));
    }

    fn act(&self, step: &str) -> anyhow::Result<String> {
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
            "open" => {
                return Ok(match fs::read(self.scratch.join(NAME)) {
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
                for number in 0..6_000 {
                    let path = folder.join(format!("file-{number}"));
                    fs::write(path, format!("clean {number}")).context("write")?;
                }
                return Ok(folder.display().to_string());
            }
            "viewer" => return Ok(json!({ "name": "vic", "password": FIRST }).to_string()),
            other => bail!("nobody knows {other}"),
        }
        Ok(".com".to_owned())
    }
}

#[test]
fn a_detection_appears_among_the_events_and_leads_to_its_alert_and_its_file() {
    Scene::new().play("events");
}

#[test]
fn a_quarantined_file_is_delivered_restored_allowed_and_deleted() {
    Scene::new().play("quarantine");
}

#[test]
fn a_search_is_completed_refused_at_its_place_and_narrowed_by_what_it_found() {
    Scene::new().play("search");
}

#[test]
fn a_scan_is_ordered_cancelled_and_told_with_what_it_found_and_left_out() {
    Scene::new().play("scans");
}

#[test]
fn somebody_changes_his_password_has_a_second_factor_and_makes_a_token() {
    Scene::new().play("account");
}
