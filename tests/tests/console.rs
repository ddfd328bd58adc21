//! The console in a real browser, against a real manager and a real agent. A violation of its
//! policy, an error in its console or a dialog that nobody opened fails the test.

use std::cell::RefCell;
use std::fs;

use anyhow::{Context, bail};
use holdfast_tests::agent::Setup;
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
