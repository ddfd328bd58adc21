//! The socket with hostile and clumsy peers, in front of an operator that answers with what
//! each test needs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use holdfast_common::control::MAX_REQUEST;

use super::client::ClientError;
use super::*;

/// Events with `follow` go on until the peer is gone; `Doctor` panics; the rest is short.
#[derive(Default)]
struct Desk {
    followers: AtomicUsize,
}

impl Operator for Desk {
    fn carry_out(&self, request: Request, answer: &mut dyn Answerer) -> Result<(), String> {
        match request {
            Request::Events { follow: true, .. } => {
                self.followers.fetch_add(1, Ordering::SeqCst);
                while !answer.gone() {
                    std::thread::yield_now();
                }
                self.followers.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
            Request::QuarantineExport { password, .. } => {
                let text = |error: io::Error| error.to_string();
                answer.reply(Reply::Data { length: 6 }).map_err(text)?;
                answer.data(b"abc").map_err(text)?;
                assert!(answer.reply(Reply::Done).is_err(), "no line inside data");
                assert!(answer.data(b"12345").is_err(), "more than announced");
                if password == "broken" {
                    return Err("cannot go on".into());
                }
                answer.data(b"\n{}").map_err(text)
            }
            Request::Doctor => panic!("as asked"),
            Request::BundleReload => Err("line 3: no such rule".into()),
            _ => Ok(()),
        }
    }
}

struct Place {
    desk: Arc<Desk>,
    socket: PathBuf,
    server: Option<Server>,
    _folder: tempfile::TempDir,
}

fn place() -> Place {
    let folder = tempfile::tempdir().expect("folder");
    let socket = folder.path().join("run/holdfast/s.sock");
    let desk = Arc::new(Desk::default());
    let server = Server::start(&socket, Arc::clone(&desk) as Arc<dyn Operator>).expect("start");
    Place { desk, socket, server: Some(server), _folder: folder }
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::yield_now();
    }
}

/// Sends bytes as they are and reads all that comes back.
fn raw(socket: &Path, bytes: &[u8], shut: bool) -> String {
    let mut stream = UnixStream::connect(socket).expect("connect");
    let _ = stream.write_all(bytes);
    if shut {
        stream.shutdown(Shutdown::Write).expect("shutdown");
    }
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

fn ask(socket: &Path, request: &Request) -> Result<Option<Reply>, ClientError> {
    Client::ask(socket, request)?.next_reply()
}

const FOLLOW: &[u8] =
    b"{\"request\":\"events\",\"since_ms\":null,\"kind\":null,\"limit\":0,\"follow\":true}\n";

#[test]
fn requests_are_carried_out_and_errors_reach_the_peer() {
    let place = place();
    assert!(matches!(ask(&place.socket, &Request::Status), Ok(None)));
    let error = ask(&place.socket, &Request::BundleReload).expect_err("refused");
    assert_eq!(error.to_string(), "line 3: no such rule");
    let error = ask(&place.socket, &Request::Doctor).expect_err("panics");
    assert!(error.to_string().contains("failed inside"), "{error}");
    assert!(matches!(ask(&place.socket, &Request::Status), Ok(None)), "still alive");
    assert_eq!(raw(&place.socket, b"{\"request\":\"status\"}\n", true), "{\"reply\":\"done\"}\n");
}

#[test]
fn announced_bytes_arrive_whole_or_the_transfer_ends_early() {
    let place = place();
    for (password, whole) in [("fine", true), ("broken", false)] {
        let request =
            Request::QuarantineExport { id: uuid::Uuid::nil(), password: password.into() };
        let mut client = Client::ask(&place.socket, &request).expect("ask");
        let Ok(Some(Reply::Data { length: 6 })) = client.next_reply() else { panic!("no data") };
        let mut bytes = Vec::new();
        let copied = client.copy_data(6, &mut bytes);
        if whole {
            copied.expect("agent").expect("memory");
            assert_eq!(bytes, b"abc\n{}");
            assert!(matches!(client.next_reply(), Ok(None)));
        } else {
            assert!(matches!(copied, Err(ClientError::Broken(_))));
        }
    }
}

#[test]
fn garbage_and_oversized_lines_are_refused() {
    let place = place();
    for garbage in [&b"\n"[..], b"hello\n", b"{\"request\":\"rm\"}\n", b"\xff\xfe\n", b"[[[[[\n"] {
        assert!(raw(&place.socket, garbage, false).contains("not a request"), "{garbage:?}");
    }
    let extra = b"{\"request\":\"quarantine_show\",\"id\":\"no\",\"x\":1}\n";
    assert!(raw(&place.socket, extra, false).contains("not a request"));
    let deep = [vec![b'['; MAX_REQUEST - 1], b"\n".to_vec()].concat();
    assert!(raw(&place.socket, &deep, false).contains("not a request"));
    let long = vec![b' '; MAX_REQUEST + 100];
    assert!(raw(&place.socket, &long, false).contains("longer than"));
    assert!(raw(&place.socket, b"{\"request\":\"st", true).contains("middle of a line"));
    assert_eq!(raw(&place.socket, b"", true), "");
}

#[test]
fn half_a_line_and_silence_is_given_up() {
    let place = place();
    let begun = Instant::now();
    assert!(raw(&place.socket, b"{\"request\":", false).contains("no whole request"));
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_thousand_connections_do_not_stop_the_desk() {
    let place = place();
    let silent: Vec<_> =
        (0..1000).map(|_| UnixStream::connect(&place.socket).expect("connect")).collect();
    let busy = ask(&place.socket, &Request::Status);
    assert!(matches!(&busy, Err(ClientError::Refused(text)) if text.contains("already")));
    drop(silent);
    until("places are free again", || ask(&place.socket, &Request::Status).is_ok());
}

#[test]
fn a_follower_that_vanishes_or_outlives_the_server_is_let_go() {
    let mut place = place();
    let mut stream = UnixStream::connect(&place.socket).expect("connect");
    stream.write_all(FOLLOW).expect("send");
    // A peer that only closes its writing side still listens.
    stream.shutdown(Shutdown::Write).expect("shutdown");
    until("it follows", || place.desk.followers.load(Ordering::SeqCst) == 1);
    assert!(matches!(ask(&place.socket, &Request::Status), Ok(None)));
    assert_eq!(place.desk.followers.load(Ordering::SeqCst), 1);
    drop(stream);
    until("it is let go", || place.desk.followers.load(Ordering::SeqCst) == 0);
    let mut stream = UnixStream::connect(&place.socket).expect("connect");
    stream.write_all(FOLLOW).expect("send");
    until("it follows", || place.desk.followers.load(Ordering::SeqCst) == 1);
    drop(place.server.take());
    assert!(!place.socket.exists(), "the socket is gone");
    until("it is let go", || place.desk.followers.load(Ordering::SeqCst) == 0);
    let mut last = String::new();
    BufReader::new(stream).read_line(&mut last).expect("an end");
}

#[test]
fn the_socket_is_root_only_and_the_folder_is_made() {
    let place = place();
    let mode = |path: &Path| path.metadata().expect("metadata").permissions().mode() & 0o7777;
    assert_eq!(mode(&place.socket), 0o600);
    let parent = place.socket.parent().expect("parent");
    assert_eq!(std::fs::read_dir(parent).expect("folder").count(), 1, "nothing else is left");
}

#[test]
fn a_live_agent_is_left_alone_and_a_dead_ones_socket_is_replaced() {
    let place = place();
    let error = Server::start(&place.socket, Arc::new(Desk::default())).expect_err("in use");
    assert!(matches!(error, ControlError::InUse { .. }), "{error}");
    assert!(matches!(ask(&place.socket, &Request::Status), Ok(None)));

    let dead = place.socket.with_file_name("dead.sock");
    drop(UnixListener::bind(&dead).expect("bind"));
    let server = Server::start(&dead, Arc::new(Desk::default())).expect("replaces");
    assert!(matches!(ask(&dead, &Request::Status), Ok(None)));
    // What a newer agent put there is not taken away by the older one's end.
    std::fs::remove_file(&dead).expect("remove");
    let newer = UnixListener::bind(&dead).expect("bind");
    drop(server);
    assert!(dead.exists());
    drop(newer);

    let file = place.socket.with_file_name("file");
    std::fs::write(&file, "precious").expect("write");
    let error = Server::start(&file, Arc::new(Desk::default())).expect_err("no socket");
    assert!(matches!(error, ControlError::NotASocket { .. }), "{error}");
    assert_eq!(std::fs::read(&file).expect("read"), b"precious");
}

/// Runs only as the child of the test below.
#[test]
fn child_that_asks_for_status() {
    let Some(socket) = std::env::var_os("HOLDFAST_TEST_SOCKET") else { return };
    match ask(Path::new(&socket), &Request::Status) {
        Ok(_) => println!("answer: done"),
        Err(error) => println!("answer: {error}"),
    }
}

#[test]
fn nobody_but_root_is_answered() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: becoming another user needs root");
        return;
    }
    let place = place();
    let folder = place._folder.path();
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    // The test binary may lie where nobody else can reach it.
    let binary = folder.join("asks");
    // Not in this process, whose other threads start children (ETXTBSY).
    let own = std::env::current_exe().expect("own path");
    assert!(Command::new("cp").arg(own).arg(&binary).status().expect("cp").success());
    let ask_as = |uid| {
        let mut command = Command::new(&binary);
        command.args(["--exact", "--nocapture", "control::tests::child_that_asks_for_status"]);
        command.env("HOLDFAST_TEST_SOCKET", &place.socket).current_dir("/").uid(uid).gid(uid);
        String::from_utf8_lossy(&command.output().expect("child").stdout).into_owned()
    };
    assert!(ask_as(0).contains("answer: done"));
    assert!(ask_as(65534).contains("only root"), "by the mode of the socket");
    let mode = std::fs::Permissions::from_mode(0o666);
    std::fs::set_permissions(&place.socket, mode).expect("chmod");
    assert!(ask_as(65534).contains("uid 65534 is not root"), "by its credentials");
}
