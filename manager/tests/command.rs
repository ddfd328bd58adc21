//! The program itself: its exit codes, its first start, HTTP over a Unix socket, its end.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use tempfile::TempDir;

/// For what takes a moment.
const PATIENCE: Duration = Duration::from_secs(30);

fn manager(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast-manager"));
    command.args(arguments).env_remove("HOLDFAST_MANAGER_CONFIG");
    command
}

fn output(arguments: &[&str]) -> Output {
    manager(arguments).output().expect("run")
}

struct Home {
    folder: TempDir,
    config: String,
}

impl Home {
    fn new() -> Self {
        let folder = TempDir::new().expect("folder");
        let config = folder.path().join("manager.toml");
        let text = format!(
            "data_dir = \"{0}/data\"\n[api]\nsocket = \"{0}/api.sock\"\n[link]\nlisten = \"127.0.0.1:0\"\n",
            folder.path().display()
        );
        std::fs::write(&config, text).expect("config");
        let config = config.to_str().expect("path").to_owned();
        Self { folder, config }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("api.sock")
    }

    fn run(&self, arguments: &[&str]) -> Output {
        output(&[arguments, &["--config", &self.config]].concat())
    }

    fn serve(&self) -> Child {
        let mut child = manager(&["serve", "--config", &self.config])
            .env_remove("HOLDFAST_LOG")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("serve");
        let stderr = BufReader::new(child.stderr.take().expect("stderr"));
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            // Read to its end, so that nobody waits to write there.
            for line in stderr.lines().map_while(Result::ok) {
                if line.contains("listening") {
                    let _ = tell.send(());
                }
            }
        });
        told.recv_timeout(PATIENCE).expect("never listened");
        child
    }
}

fn http(socket: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream.write_all(request.as_bytes()).expect("send");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answer");
    answer
}

fn end(mut child: Child, signal: &str) -> Option<i32> {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().expect("kill").success());
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || tell.send(child.wait().expect("wait").code()));
    told.recv_timeout(PATIENCE).expect("never ended")
}

#[test]
fn wrong_usage_exits_64_and_help_shows_examples() {
    assert_eq!(output(&["explode"]).status.code(), Some(64));
    assert_eq!(output(&[]).status.code(), Some(64));
    let help = output(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&help.stdout).contains("Examples:"));
}

#[test]
fn a_wrong_config_exits_78_and_names_the_line() {
    let home = Home::new();
    let wrong = home.folder.path().join("wrong.toml");
    std::fs::write(&wrong, "data_dir = \"/x\"\nlisten = 1\n").expect("config");
    let refused = output(&["serve", "--config", wrong.to_str().expect("path")]);
    assert_eq!(refused.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("line 2"), "{refused:?}");
    let missing = output(&["audit", "verify", "--config", "/nowhere.toml"]);
    assert_eq!(missing.status.code(), Some(78));
}

#[test]
fn the_first_start_prints_a_password_that_opens_its_change_and_sigterm_ends_in_order() {
    let home = Home::new();
    let mut child = home.serve();
    let mut line = String::new();
    let stdout = child.stdout.take().expect("stdout");
    BufReader::new(stdout).read_line(&mut line).expect("line");
    let password = line.trim().rsplit(' ').next().expect("password").to_owned();
    assert!(line.contains("user admin"), "{line}");
    let body = format!(r#"{{"name":"admin","password":"{password}"}}"#);
    let answer = http(
        &home.socket(),
        &format!(
            "POST /api/v1/session HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ),
    );
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(answer.contains("\"must_change_password\":true"), "{answer}");
    // Another one on the same socket, and commands beside the running manager.
    assert_eq!(home.run(&["serve"]).status.code(), Some(1));
    let token = home.run(&["token", "create", "--group", "web", "--uses", "3"]);
    assert!(String::from_utf8_lossy(&token.stdout).starts_with("hfe_"), "{token:?}");
    let reset = home.run(&["user", "reset", "admin"]);
    assert_eq!(reset.status.code(), Some(0), "{reset:?}");
    let backup = home.folder.path().join("backup");
    let backup = backup.to_str().expect("path");
    assert_eq!(home.run(&["backup", backup]).status.code(), Some(0));
    assert_eq!(end(child, "-TERM"), Some(0));
    assert!(!home.socket().exists());
    let verified = home.run(&["audit", "verify"]);
    assert!(String::from_utf8_lossy(&verified.stdout).contains("whole"), "{verified:?}");
    let over = home.run(&["restore", backup]);
    assert_eq!(over.status.code(), Some(1), "over what is there");
    std::fs::remove_dir_all(home.folder.path().join("data")).expect("lose it");
    assert_eq!(home.run(&["restore", backup]).status.code(), Some(0));
    let again = home.serve();
    assert_eq!(end(again, "-INT"), Some(0));
}

#[test]
fn what_was_answered_survives_kill_9() {
    let home = Home::new();
    for round in 1..=3 {
        let child = home.serve();
        let made = home.run(&["token", "create"]);
        assert_eq!(made.status.code(), Some(0), "{made:?}");
        assert_eq!(end(child, "-KILL"), None);
        let verified = home.run(&["audit", "verify"]);
        let text = String::from_utf8_lossy(&verified.stdout).into_owned();
        // The first admin, and one token a round.
        assert!(text.starts_with(&format!("{} rows, whole", round + 1)), "{text}");
    }
}
