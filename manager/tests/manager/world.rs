//! A manager for one test, and what its hosts send.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_common::event::{
    Event, EventBody, ExecEvent, FileFacts, MalwareDetection, ModelDetection,
};
use holdfast_common::link::{Capability, CapabilityState, Heartbeat, HostFacts, OutboxState};
use holdfast_common::process::{ProcessInfo, ProcessKey};
use holdfast_common::verdict::{Decision, Disposition, Engine, Hashes, ScanType, Signature};
use holdfast_manager::app::{Admitted, App, Keep, NewToken, Retention, Settings, now_ms};
use holdfast_manager::reach::address::Allowed;
use holdfast_manager::store::Place;
use sqlx::AssertSqlSafe;
use tempfile::TempDir;
use uuid::Uuid;

use crate::cluster;

/// Which database a test runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    Sqlite,
    Postgres,
}

/// A manager, and how to make another one beside it.
pub struct World {
    pub app: App,
    pub settings: Settings,
}

/// Runs a test on both databases, as two tests.
macro_rules! on_both {
    ($(async fn $name:ident($world:ident: World) $body:block)*) => { $(
        mod $name {
            use super::*;
            async fn body($world: World) $body
            #[test]
            fn on_sqlite() {
                $crate::world::run($crate::world::On::Sqlite, body);
            }
            #[test]
            fn on_postgres() {
                $crate::world::run($crate::world::On::Postgres, body);
            }
        }
    )* };
}
pub(crate) use on_both;

/// Runs one test.
pub fn run<F: Future<Output = ()>>(on: On, body: impl FnOnce(World) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("runtime");
    runtime.block_on(async {
        let folder = TempDir::new().expect("folder");
        let world = World::new(on, &folder).await;
        let app = world.app.clone();
        body(world).await;
        app.stop().await;
    });
}

impl World {
    async fn new(on: On, folder: &TempDir) -> Self {
        let data_dir = folder.path().join("data");
        let place = match on {
            On::Sqlite => Place::File(data_dir.join("manager.db")),
            On::Postgres => Place::Server(cluster::database()),
        };
        let settings = settings(place, data_dir);
        let app = App::start(settings.clone()).await.expect("start");
        Self { app, settings }
    }

    pub const fn on(&self) -> On {
        match self.settings.place {
            Place::File(_) => On::Sqlite,
            Place::Server(_) => On::Postgres,
        }
    }

    pub fn data_dir(&self) -> PathBuf {
        self.settings.data_dir.clone()
    }

    /// Statements on the database, as somebody runs them who owns it.
    pub async fn raw(&self, sql: &str) -> Result<(), sqlx::Error> {
        sqlx::any::install_default_drivers();
        let url = match &self.settings.place {
            Place::File(path) => format!("sqlite://{}", path.display()),
            Place::Server(url) => url.clone(),
        };
        let pool = sqlx::AnyPool::connect(&url).await?;
        let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&pool).await;
        pool.close().await;
        done.map(|_| ())
    }

    /// An enrolled host with a certificate of this serial.
    pub async fn host(&self, name: &str) -> Uuid {
        let new = NewToken { group: "test".to_owned(), note: String::new(), uses: 1, valid_s: 60 };
        let (_, secret) = self.app.token_create(new, "test").await.expect("token");
        let host = self.app.host_enroll(&secret, &facts(name)).await.expect("enroll");
        let end = now_ms() + 1_000_000;
        self.app.certificate_issued(host, name, end).await.expect("certificate");
        host
    }

    /// A host with a stream.
    pub async fn connected(&self, name: &str) -> Admitted {
        self.host(name).await;
        self.app.host_admit(name, &facts(name), 1).await.expect("admit")
    }

    pub async fn store(&self, host: Uuid, events: &[Event]) {
        self.app.events_store(host, bytes(events)).await.expect("store");
    }

    pub async fn find(&self, query: &str) -> Vec<Uuid> {
        let query = holdfast_manager::query::parse(query).expect("query");
        let period = (0, i64::MAX);
        let page = self.app.event_search(query, period, None, 500).await.expect("search");
        page.events.iter().map(|event| event.id).collect()
    }
}

pub fn settings(place: Place, data_dir: PathBuf) -> Settings {
    let keep = Keep { days: 30, bytes: 0 };
    let retention = Retention { default: keep, kinds: BTreeMap::new(), file_days: 30 };
    Settings {
        place,
        data_dir,
        retention,
        max_files: 64 << 20,
        notify: Allowed { loopback: true, addresses: Vec::new() },
        providers: Vec::new(),
    }
}

pub fn facts(name: &str) -> HostFacts {
    HostFacts {
        host: name.to_owned(),
        machine_id: "0123".to_owned(),
        addresses: vec!["192.0.2.1".to_owned()],
        ..HostFacts::default()
    }
}

pub fn bytes(events: &[Event]) -> Vec<Bytes> {
    let json = |event| Bytes::from(serde_json::to_vec(event).expect("json"));
    events.iter().map(json).collect()
}

pub fn event(body: EventBody) -> Event {
    Event { id: Uuid::now_v7(), time_ms: now_ms(), host: "web1".to_owned(), body }
}

pub fn process(args: &[&str]) -> ProcessInfo {
    ProcessInfo {
        key: ProcessKey { pid: 4242, start_ns: 7 },
        exe: format!("/usr/bin/{}", args[0]),
        comm: args[0].to_owned(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        user: "root".to_owned(),
        ..ProcessInfo::default()
    }
}

pub fn exec(args: &[&str]) -> Event {
    event(EventBody::Exec(Box::new(ExecEvent {
        process: process(args),
        parents: Vec::new(),
        count: 1,
    })))
}

pub fn model(title: &str, program: &str) -> Event {
    event(EventBody::Model(Box::new(ModelDetection {
        model_id: Uuid::from_u128(title.len() as u128 + 1),
        title: title.to_owned(),
        level: "high".to_owned(),
        attack: vec!["T1040".to_owned()],
        process: process(&[program]),
        parents: Vec::new(),
        evidence: BTreeMap::new(),
        events: Vec::new(),
        advice: String::new(),
        response: "alert".to_owned(),
        responded: String::new(),
        simulated: false,
    })))
}

pub fn malware(path: &str, sha256: &str) -> Event {
    event(EventBody::Malware(Box::new(MalwareDetection {
        path: path.to_owned(),
        file: FileFacts::default(),
        hashes: Hashes { sha256: sha256.to_owned(), ..Hashes::default() },
        signature: Signature { name: "EICAR".to_owned(), engine: Engine::Eicar },
        scan_type: ScanType::OnOpen,
        process: None,
        parents: Vec::new(),
        decision: Some(Decision::Deny),
        disposition: Disposition::Quarantined,
        quarantine_id: None,
        reason: None,
        late: None,
    })))
}

pub fn heartbeat(capabilities: &[(&str, CapabilityState)]) -> Heartbeat {
    let status = serde_json::from_value(serde_json::json!({
        "version": "0", "host": "h", "pid": 1, "uptime_s": 1, "mode": "block", "problems": [],
        "file_systems": [], "workers": 1, "sensor": [], "journal_events": 0, "journal_dropped": 0,
        "on_access": {"held": 0, "allowed": 0, "denied": 0, "own": 0, "cached": 0, "excluded": 0,
            "closed_scanned": 0, "closed_skipped": 0, "failures": [], "past_deadline": 0,
            "longest_held_us": 0, "rescans_waiting": 0, "rescans_done": 0, "rescans_dropped": 0},
        "bundle": {"path": "", "digest": "", "loaded_ms": 0, "hashes": 0, "yara_rules": 0,
            "refused": null},
        "quarantine": {"items": 0, "bytes": 0}
    }));
    let capability = |(name, state): &(&str, CapabilityState)| Capability {
        name: (*name).to_owned(),
        state: *state,
        evidence: "seen".to_owned(),
        time_ms: now_ms(),
    };
    Heartbeat {
        time_ms: now_ms(),
        capabilities: capabilities.iter().map(capability).collect(),
        status: status.expect("status"),
        outbox: OutboxState::default(),
        models: None,
    }
}

/// Waits until something holds, at most ten seconds.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
