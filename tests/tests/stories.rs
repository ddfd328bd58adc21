//! Stories from the first click to the last: a real browser, manager and agent, and what else plays
//! a part in them. The first one, the download, is `quarantine.mjs` of `console.rs`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use holdfast_tests::agent::{PATIENCE, Setup};
use holdfast_tests::browser::Browser;
use holdfast_tests::lab::{HOST_INTERFACE, Lab};
use holdfast_tests::manager::Manager;
use holdfast_tests::scratch::Scratch;
use holdfast_tests::{Owned, eicar, require_root, until};
use serde_json::{Value, json};

const USER: &str = "ann";
const PASSWORD: &str = "a password of her own";
/// What the mail server takes.
const MAIL_PASSWORD: &str = "correct horse";

#[test]
fn an_intrusion_is_seen_followed_searched_for_collected_looked_at_and_cut_off() {
    require_root();
    let lab = Lab::new().expect("lab");
    let scratch = Scratch::tmpfs(16 << 20).expect("scratch");
    let setup = Setup::protect([scratch.path()]).tables("[shell]\nmode = \"restricted\"\n");
    let agent = setup.on_host_of(&lab, "").start().expect("agent");
    let manager = Manager::outside_by_https(&lab).expect("manager");
    manager.person(USER, "operator", PASSWORD).expect("person");
    let users = manager.get("/api/v1/users").expect("users");
    let own = users.as_array().and_then(|all| all.iter().find(|user| user["name"] == USER));
    let path = format!("/api/v1/users/{}", own.expect("a user")["id"].as_str().expect("an id"));
    manager.ask("PATCH", &path, &json!({ "may_shell": true })).expect("permitted");
    let host = manager.enroll(&agent, &[]).expect("enrolled");
    let host = manager.host(&host).expect("host")["name"].as_str().expect("a name").to_owned();
    let mut running = Vec::new();
    let words = [("USER", USER), ("PASSWORD", PASSWORD), ("HOST", host.as_str())];
    let browser = Browser::start(&manager, "intrusion.mjs", &words).expect("browser");
    let ended = browser.run(|step| match step {
        "intrude" => {
            let mut tcpdump = lab.command("host", "tcpdump");
            tcpdump.args(["-c", "5", "-nnni", HOST_INTERFACE]);
            let quiet = tcpdump.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let child = quiet.spawn().context("start tcpdump")?;
            let pid = child.id().to_string();
            running.push(Owned(child));
            Ok(pid)
        }
        "reached" => reached(&lab, true),
        "cut off" => reached(&lab, false),
        other => bail!("nobody knows {other}"),
    });
    ended.unwrap_or_else(|error| panic!("{error:#}\n{}", agent.log()));
}

/// Waits until another host is reached, or is not. Nobody listens there: who gets that far is
/// refused.
fn reached(lab: &Lab, wanted: bool) -> Result<String> {
    let call = || -> Result<bool> {
        let mut call = lab.command("host", "curl");
        let said = call.args(["-sv", "--max-time", "2", "http://10.77.0.3:9/"]).output();
        Ok(String::from_utf8_lossy(&said.context("start curl")?.stderr)
            .contains("Connection refused"))
    };
    let so = until(PATIENCE, || match call() {
        Ok(reaches) => (reaches == wanted).then_some(Ok(())),
        Err(error) => Some(Err(error)),
    });
    so.with_context(|| format!("never: reached is {wanted}"))??;
    Ok(String::new())
}

/// A mail server in a process of its own; mails become files in its folder.
struct Mail {
    _server: Owned,
    folder: tempfile::TempDir,
    port: String,
    authority: String,
}

impl Mail {
    fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
        let authority = made.cert.pem();
        let pem = folder.path().join("server.pem");
        fs::write(&pem, format!("{authority}{}", made.signing_key.serialize_pem()))?;
        // Free a moment ago; nobody else asks for it.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("a workspace")?;
        // Debian's own, which has Debian's aiosmtpd.
        let mut server = Command::new("/usr/bin/python3")
            .arg(root.join("manager/tests/notify/smtp_server.py"))
            .args([port.as_ref(), pem.as_os_str(), folder.path().as_os_str()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("python3 with aiosmtpd: cargo xtask setup")?;
        let mut line = String::new();
        BufReader::new(server.stdout.take().context("a pipe")?).read_line(&mut line)?;
        ensure!(line.trim() == "ready", "the mail server said {line:?}");
        Ok(Self { _server: Owned(server), folder, port, authority })
    }

    /// The mail that tells of this.
    fn about(&self, word: &str) -> Result<Option<Value>> {
        for entry in fs::read_dir(self.folder.path())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let mail: Value = serde_json::from_slice(&fs::read(&path)?)?;
                if mail["text"].as_str().is_some_and(|text| text.contains(word)) {
                    return Ok(Some(mail));
                }
            }
        }
        Ok(None)
    }
}

/// Each field has a value; those that a scan knows have the right one.
fn whole(mail: &Value, host: &str, path: &str) -> Result<()> {
    let text = mail["text"].as_str().context("text")?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(": "));
        line.with_context(|| format!("no {name} in {text}"))
    };
    let md5 = "44d88612fea8a8f36de82e1278abb02f";
    let sha256 = "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f";
    for (name, value) in [
        ("Host", host),
        ("Path", path),
        ("MD5", md5),
        ("SHA-256", sha256),
        ("Scan type", "scheduled"),
        ("Creator", "uid 0, gid 0 (its owner)"),
        ("Family", "Eicar"),
        // Nobody held the file: the mail says so and leaves nothing out.
        ("Process id", "not known"),
        ("Command line", "not known"),
        ("User", "not known"),
    ] {
        ensure!(field(name)?.contains(value), "{name}: {}", field(name)?);
    }
    for name in ["Addresses", "Time", "Change time", "Advice"] {
        ensure!(!["", "not known"].contains(&field(name)?), "{name} is empty: {text}");
    }
    Ok(())
}

#[test]
fn a_scheduled_scan_finds_what_lay_there_and_a_mail_tells_of_it_until_it_is_cleaned_up() {
    require_root();
    let scratch = Scratch::tmpfs(16 << 20).expect("scratch");
    let old = Scratch::tmpfs(16 << 20).expect("scratch");
    let schedule = format!(
        "[sensor]\nenabled = false\n[[scan.schedule]]\nname = \"each minute\"\npaths = [{:?}]\n\
         every = \"1 minutes\"\n",
        old.path()
    );
    let agent = Setup::protect([scratch.path()]).tables(&schedule).start().expect("agent");
    let manager = Manager::with_tables("[notify]\nallow_loopback = true\n").expect("manager");
    manager.person(USER, "admin", PASSWORD).expect("person");
    let host = manager.enroll(&agent, &[]).expect("enrolled");
    let host = manager.host(&host).expect("host")["name"].as_str().expect("a name").to_owned();
    let mail = Mail::start().expect("mail");
    let path = old.join("four years.com");
    let shown = path.display().to_string();
    let words = [
        ("USER", USER),
        ("PASSWORD", PASSWORD),
        ("MAIL_PORT", mail.port.as_str()),
        ("MAIL_PASSWORD", MAIL_PASSWORD),
        ("MAIL_AUTHORITY", mail.authority.as_str()),
    ];
    let browser = Browser::start(&manager, "schedule.mjs", &words).expect("browser");
    let ended = browser.run(|step| {
        match step {
            "plant" => {
                fs::write(&path, eicar()).context("write")?;
                return Ok(shown.clone());
            }
            "mail" => {
                let told = until(PATIENCE, || mail.about(&shown).transpose());
                whole(&told.context("no mail")??, &host, &shown)?;
            }
            "gone" => ensure!(!path.exists(), "{shown} is there"),
            other => bail!("nobody knows {other}"),
        }
        Ok(Value::Null.to_string())
    });
    ended.unwrap_or_else(|error| panic!("{error:#}\n{}", agent.log()));
    let held = manager.get("/api/v1/quarantine?state=held").expect("quarantine");
    assert_eq!(held["items"], json!([]));
}
