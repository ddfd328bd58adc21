//! The README's first command, run as it stands there; what it prints is done as it is printed.
//!
//! The run lasts in `target/run` of this repository and protects a file system of its own, so one
//! test at a time may do it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use holdfast_tests::agent::finish;
use holdfast_tests::{require_root, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// One run at a time, in one repository.
static RUN: Mutex<()> = Mutex::new(());

/// Cargo may have to build before anything starts.
const BUILD: Duration = Duration::from_secs(540);

/// What follows is quick.
const SOON: Duration = Duration::from_secs(60);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository")
}

/// The first line of the README's first block of shell commands.
fn first_command() -> String {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
    let mut lines = readme.lines().skip_while(|line| line.trim() != "```sh").skip(1);
    let command = lines.find(|line| !line.trim().is_empty() && !line.starts_with('#'));
    command.expect("a ```sh block with a command").trim().to_owned()
}

/// A shell line in the repository's top folder, as somebody types it.
fn shell(line: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(root());
    command
}

/// The run in the foreground of a terminal of its own.
struct Run {
    process: Child,
    output: Arc<Mutex<String>>,
    /// The manager's first one, once the commands are printed.
    password: String,
}

impl Run {
    fn start(command: &str) -> Self {
        // The shell makes way for cargo, and cargo for xtask: signals reach it under this pid.
        let mut process = shell(&format!("exec {command} 2>&1"))
            .env("CI", "true")
            .env_remove("CARGO_MANIFEST_DIR")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh");
        let stdout = process.stdout.take().expect("a pipe");
        let output = Arc::<Mutex<String>>::default();
        let kept = Arc::clone(&output);
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        Self { process, output, password: String::new() }
    }

    fn output(&self) -> String {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The commands to try, once they are printed.
    fn commands(&mut self) -> Vec<String> {
        let printed = until(BUILD, || {
            if self.output().contains("Ctrl-C stops it") {
                return Some(true);
            }
            self.process.try_wait().expect("wait").map(|_| false)
        });
        let output = self.output();
        assert_eq!(printed, Some(true), "it printed no commands:\n{output}");
        let (before, commands) =
            output.split_once("Try, in another terminal:").expect("the commands");
        let (_, password) = before.split_once("one-time password ").expect("a first password");
        self.password = password.trim().to_owned();
        let (commands, _) = commands.split_once("Ctrl-C stops it").expect("their end");
        commands.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("signal the run");
    }

    fn wait(&mut self) -> ExitStatus {
        let ended = until(SOON, || self.process.try_wait().expect("wait"));
        ended.unwrap_or_else(|| panic!("it did not end:\n{}", self.output()))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // It may have ended; the agent ends with it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Where the printed command downloads to.
fn download(command: &str) -> PathBuf {
    let mut words = command.split_whitespace().skip_while(|word| *word != "-P").skip(1);
    PathBuf::from(words.next().expect("a folder")).join("eicar.com")
}

/// What a command prints that reads this from its standard input.
fn typed(command: &mut Command, input: &str) -> String {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a command");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("type");
    let output = child.wait_with_output().expect("its end");
    text(&output.stdout).into_owned()
}

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

#[test]
fn first_command_protects_and_every_command_that_it_prints_works() {
    require_root();
    let _one = RUN.lock().unwrap_or_else(PoisonError::into_inner);
    let first = first_command();
    assert_eq!(first, "cargo xtask run");
    let mut run = Run::start(&first);
    let commands = run.commands();
    let [fetch, list, sniff, place, sign_in, alerts] = commands.as_slice() else {
        panic!("six commands: {commands:?}")
    };

    let file = download(fetch);
    assert!(file.parent().is_some_and(Path::is_dir), "{}", file.display());
    // wget may be told that the file was taken from under it.
    let fetched = finish(&mut shell(fetch), SOON).expect("wget");
    assert!(text(&fetched.stderr).contains("200 OK"), "{}", text(&fetched.stderr));
    until(SOON, || (!file.exists()).then_some(())).expect("the file is gone");
    let listed = until(SOON, || {
        let listed = finish(&mut shell(list), SOON).expect("holdfast");
        assert!(listed.status.success(), "{}", text(&listed.stderr));
        text(&listed.stdout).contains("eicar.com").then_some(())
    });
    assert!(listed.is_some(), "the quarantine does not list it:\n{}", run.output());
    let events = finish(&mut shell(sniff), SOON).expect("tcpdump and holdfast");
    let events = text(&events.stdout).into_owned();
    assert!(events.contains("Network Sniffing") && events.contains("tcpdump"), "{events}");
    assert!(events.contains("Eicar"), "{events}");

    // The manager has both, as one who was just told the first password sees them.
    let passwords = format!("{}\na password of one's own\n", run.password);
    let script = format!("{place} && {sign_in} && echo $HOLDFAST_TOKEN");
    let token = typed(&mut shell(&script), &passwords);
    let mut said = String::new();
    let shown = until(SOON, || {
        let mut command = shell(&format!("{place} && {alerts}"));
        command.env("HOLDFAST_TOKEN", token.trim());
        said = text(&finish(&mut command, SOON).expect("holdfast-ctl").stdout).into_owned();
        (said.contains("Eicar") && said.contains("Network Sniffing")).then_some(())
    });
    assert!(shown.is_some(), "the manager shows no alerts:\n{said}\n{}", run.output());

    run.signal(Signal::SIGINT);
    let status = run.wait();
    assert!(status.success(), "{status}\n{}", run.output());
    assert!(!root().join("target/run/manager").exists(), "the manager's data is gone");
    assert!(!file.parent().is_some_and(Path::exists), "the file system is gone");
}

#[test]
fn killed_run_is_cleared_by_the_next() {
    require_root();
    let _one = RUN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut run = Run::start("cargo xtask run");
    let folder = download(&run.commands()[0]).parent().expect("a folder").to_owned();
    run.signal(Signal::SIGKILL);
    assert_eq!(run.wait().signal(), Some(9));
    assert!(mounted(&folder) > 0, "nobody could unmount it");

    let mut run = Run::start("cargo xtask run");
    run.commands();
    assert_eq!(mounted(&folder), 1);
    run.signal(Signal::SIGTERM);
    let status = run.wait();
    assert!(status.success(), "{status}\n{}", run.output());
    assert_eq!(mounted(&folder), 0);
}

/// How many file systems are mounted exactly there.
fn mounted(folder: &Path) -> usize {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc");
    mounts.lines().filter(|line| line.split(' ').nth(1) == folder.to_str()).count()
}
