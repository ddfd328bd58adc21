//! A manager for one test, real receivers beside it, and what its hosts send.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_common::event::{Event, EventBody, FileFacts, MalwareDetection};
use holdfast_common::link::HostFacts;
use holdfast_common::process::{ProcessInfo, ProcessKey};
use holdfast_common::verdict::{Decision, Disposition, Engine, Hashes, ScanType, Signature};
use holdfast_manager::app::{
    App, ChannelState, Keep, NewChannel, NewToken, Retention, Settings, now_ms,
};
use holdfast_manager::notify::{ChannelConfig, EmailConfig};
use holdfast_manager::reach::address::Allowed;
use holdfast_manager::store::Place;
use serde_json::Value;
use tempfile::TempDir;
use uuid::Uuid;

/// The password that the mail server takes.
pub const PASSWORD: &str = "correct horse";

/// A folder, a certificate for 127.0.0.1 in it, and a manager.
pub struct World {
    pub folder: Arc<TempDir>,
    pub pem: PathBuf,
    pub certificate: String,
    pub app: App,
}

/// Runs one test.
pub fn run<F: Future<Output = ()>>(body: impl FnOnce(World) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("runtime");
    runtime.block_on(async {
        // Kept here too: a test that uses only a part of its world drops the rest at once.
        let folder = Arc::new(TempDir::new().expect("folder"));
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]);
        let made = made.expect("certificate");
        let certificate = made.cert.pem();
        let pem = folder.path().join("server.pem");
        let both = format!("{certificate}{}", made.signing_key.serialize_pem());
        std::fs::write(&pem, both).expect("write");
        let app = app(folder.path()).await;
        body(World { folder: Arc::clone(&folder), pem, certificate, app: app.clone() }).await;
        app.stop().await;
    });
}

pub async fn app(folder: &Path) -> App {
    let data_dir = folder.join("data");
    let keep = Keep { days: 30, bytes: 0 };
    let settings = Settings {
        place: Place::File(data_dir.join("manager.db")),
        data_dir,
        retention: Retention { default: keep, kinds: BTreeMap::new(), file_days: 30 },
        max_files: 1 << 20,
        notify: Allowed { loopback: true, addresses: Vec::new() },
        providers: Vec::new(),
    };
    App::start(settings).await.expect("start")
}

pub async fn host(app: &App, name: &str) -> Uuid {
    let new = NewToken { group: "test".to_owned(), note: String::new(), uses: 1, valid_s: 60 };
    let (_, secret) = app.token_create(new, "test").await.expect("token");
    let facts = HostFacts {
        host: name.to_owned(),
        machine_id: "0123".to_owned(),
        addresses: vec!["192.0.2.1".to_owned(), "2001:db8::1".to_owned()],
        ..HostFacts::default()
    };
    app.host_enroll(&secret, &facts).await.expect("enroll")
}

pub async fn store(app: &App, host: Uuid, events: &[Event]) {
    let json = |event| Bytes::from(serde_json::to_vec(event).expect("json"));
    app.events_store(host, events.iter().map(json).collect()).await.expect("store");
}

pub fn malware(path: &str, content: u64) -> Event {
    let process = ProcessInfo {
        key: ProcessKey { pid: 4242, start_ns: 7 },
        exe: "/usr/bin/wget".to_owned(),
        comm: "wget".to_owned(),
        args: ["wget", "http://192.0.2.9/<b>x"].map(str::to_owned).to_vec(),
        user: "alice".to_owned(),
        uid: 1000,
        ..ProcessInfo::default()
    };
    let body = EventBody::Malware(Box::new(MalwareDetection {
        path: path.to_owned(),
        file: FileFacts {
            size: 68,
            uid: 1000,
            changed_ms: 1_700_000_000_123,
            ..Default::default()
        },
        hashes: Hashes {
            sha256: format!("{content:064x}"),
            sha1: format!("{content:040x}"),
            md5: format!("{content:032x}"),
        },
        signature: Signature { name: "Unix.Trojan.Mirai-1-0".to_owned(), engine: Engine::Hash },
        scan_type: ScanType::OnClose,
        process: Some(process),
        parents: Vec::new(),
        decision: Some(Decision::Deny),
        disposition: Disposition::Quarantined,
        quarantine_id: Some(Uuid::now_v7()),
        reason: None,
        late: None,
    }));
    Event { id: Uuid::now_v7(), time_ms: now_ms(), host: "web1".to_owned(), body }
}

/// So many detections of so many contents.
pub fn burst(count: u64) -> Vec<Event> {
    (0..count).map(|number| malware(&format!("/srv/file{number}"), number)).collect()
}

/// A port that nobody listens on.
pub fn port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    listener.local_addr().expect("address").port()
}

/// A receiver in a process of its own. Ends when it is dropped.
pub struct Server {
    child: Child,
    folder: PathBuf,
}

impl Server {
    pub fn start(script: &str, port: u16, pem: &Path, folder: &Path) -> Self {
        std::fs::create_dir_all(folder).expect("folder");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/notify").join(script);
        // Debian's own, which has Debian's aiosmtpd.
        let mut child = Command::new("/usr/bin/python3")
            .arg(script)
            .arg(port.to_string())
            .arg(pem)
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 with aiosmtpd: cargo xtask setup");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout");
        BufReader::new(stdout).read_line(&mut line).expect("read");
        assert_eq!(line.trim(), "ready", "{}", folder.display());
        Self { child, folder: folder.to_owned() }
    }

    /// What it got.
    pub fn got(&self) -> Vec<Value> {
        got(&self.folder)
    }
}

pub fn got(folder: &Path) -> Vec<Value> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    let read =
        |path: &PathBuf| serde_json::from_slice(&std::fs::read(path).expect("read")).expect("json");
    paths.iter().map(read).collect()
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl World {
    /// A channel for mail to a port.
    pub async fn mail(&self, port: u16, window_s: u32) -> ChannelState {
        let new = mail(port, window_s, &self.certificate);
        self.app.notification_create(new, "test").await.expect("channel")
    }
}

pub fn mail(port: u16, window_s: u32, certificate: &str) -> NewChannel {
    let config = ChannelConfig::Email(EmailConfig {
        server: "127.0.0.1".to_owned(),
        port,
        tls: holdfast_manager::notify::email::MailTls::Starttls,
        user: Some("holdfast".to_owned()),
        from: "Holdfast <holdfast@example.org>".to_owned(),
        to: vec!["ops@example.org".to_owned(), "second@example.org".to_owned()],
        authority: Some(certificate.to_owned()),
    });
    channel("mail", config, Some(PASSWORD), window_s)
}

pub fn channel(
    name: &str,
    config: ChannelConfig,
    secret: Option<&str>,
    window_s: u32,
) -> NewChannel {
    NewChannel {
        name: name.to_owned(),
        config,
        secret: secret.map(|secret| secret.to_owned().into()),
        enabled: true,
        min_level: "low".to_owned(),
        window_s,
    }
}

/// Waits until something holds, at most a minute.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
