//! The link as strangers and hostile agents meet it: real TLS on a loopback port, the app and its
//! store behind it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use holdfast_common::link::wire::link_client::LinkClient;
use holdfast_common::link::wire::{
    self, EnrollRequest, FromAgent, FromManager, Hello, RenewRequest, from_agent, from_manager,
};
use holdfast_common::link::{HostFacts, MAX_HEARTBEAT, MAX_MESSAGE, MOST_EVENTS, heartbeat_pack};
use holdfast_manager::app::{App, Content, Course, Keep, NewToken, Retention, Settings};
use holdfast_manager::link::{Authority, Config, Counters, Link};
use holdfast_manager::store::Place;
use rcgen::{CertificateParams, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Streaming};

const PATIENCE: Duration = Duration::from_secs(30);

struct World {
    app: App,
    authority: Arc<Authority>,
    counters: Arc<Counters>,
    address: SocketAddr,
    served: tokio::task::JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.served.abort();
    }
}

/// An enrolled host.
struct Host {
    identity: Identity,
    generation: u64,
}

/// A stream of it.
struct Stream {
    out: mpsc::Sender<FromAgent>,
    incoming: Streaming<FromManager>,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let settings = Settings {
            place: Place::File(folder.path().join("manager.db")),
            data_dir: folder.path().to_owned(),
            retention: Retention {
                default: Keep { days: 30, bytes: 0 },
                kinds: Default::default(),
                file_days: 30,
            },
            max_files: 1 << 20,
            notify: Default::default(),
            providers: Vec::new(),
        };
        let app = App::start(settings).await.expect("app");
        let listen = "127.0.0.1:0".parse().expect("address");
        let names = vec!["127.0.0.1".to_owned()];
        let mut config = Config::new(listen, names, folder.path().to_owned());
        config.heartbeat = Duration::from_secs(1);
        let link = Link::bind(config, app.clone()).await.expect("link");
        let (authority, counters) = (link.authority(), link.counters());
        let address = link.address();
        let served = tokio::spawn(async move {
            link.run(Box::pin(std::future::pending())).await.expect("served");
        });
        Self { app, authority, counters, address, served, _folder: folder }
    }

    async fn channel(
        &self,
        identity: Option<&Identity>,
    ) -> Result<Channel, tonic::transport::Error> {
        let mut tls =
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(self.authority.pem()));
        if let Some(identity) = identity {
            tls = tls.identity(identity.clone());
        }
        let endpoint = Endpoint::from_shared(format!("https://{}", self.address)).expect("url");
        endpoint.tls_config(tls).expect("tls").connect().await
    }

    async fn client(&self, identity: Option<&Identity>) -> LinkClient<Channel> {
        let channel = self.channel(identity).await.expect("connected");
        LinkClient::new(channel).max_encoding_message_size(MAX_MESSAGE * 2)
    }

    async fn token(&self) -> String {
        let new = NewToken { group: "g".into(), note: String::new(), uses: 1, valid_s: 60 };
        self.app.token_create(new, "test").await.expect("token").1
    }

    async fn enroll(&self) -> Host {
        let token = self.token().await;
        let (key, csr) = request();
        let request = EnrollRequest { token, csr, facts: facts() };
        let certificate = self.client(None).await.enroll(request).await.expect("enrolled");
        let identity = Identity::from_pem(certificate.into_inner().chain, key);
        Host { identity, generation: 0 }
    }

    async fn stream(&self, host: &mut Host) -> Stream {
        host.generation += 1;
        let (out, outgoing) = mpsc::channel(8);
        let hello = Hello { facts: facts(), generation: host.generation };
        send(&out, from_agent::Message::Hello(hello)).await;
        let mut client = self.client(Some(&host.identity)).await;
        let answer = client.connect(ReceiverStream::new(outgoing)).await.expect("admitted");
        let mut stream = Stream { out, incoming: answer.into_inner() };
        let first = stream.incoming.message().await.expect("open").expect("a message");
        assert!(matches!(first.message, Some(from_manager::Message::Welcome(_))), "{first:?}");
        stream
    }

    async fn until(&self, what: &str, holds: impl Fn(&Counters) -> bool) {
        let end = tokio::time::Instant::now() + PATIENCE;
        while !holds(&self.counters) {
            assert!(tokio::time::Instant::now() < end, "{what}: {:?}", self.counters);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Stream {
    /// The next policy that comes.
    async fn policy(&mut self) -> wire::Policy {
        let next = async {
            loop {
                let came = self.incoming.message().await.expect("open").expect("a message");
                if let Some(from_manager::Message::Policy(policy)) = came.message {
                    return policy;
                }
            }
        };
        tokio::time::timeout(PATIENCE, next).await.expect("a policy")
    }

    /// The status that the stream ends with.
    async fn end(mut self) -> Code {
        let end = async {
            loop {
                match self.incoming.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return Code::Ok,
                    Err(status) => return status.code(),
                }
            }
        };
        tokio::time::timeout(PATIENCE, end).await.expect("it ends")
    }
}

async fn send(out: &mpsc::Sender<FromAgent>, message: from_agent::Message) {
    // A stream that is over takes nothing.
    let _ = out.send(FromAgent { message: Some(message) }).await;
}

fn request() -> (String, Bytes) {
    let key = KeyPair::generate().expect("key");
    let csr = CertificateParams::default().serialize_request(&key).expect("request");
    (key.serialize_pem(), Bytes::copy_from_slice(csr.der()))
}

fn facts() -> Bytes {
    let facts = HostFacts { host: "web1".to_owned(), ..HostFacts::default() };
    serde_json::to_vec(&facts).expect("json").into()
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_certificate_nothing_but_enrollment_is_open() {
    let world = World::new().await;
    let mut client = world.client(None).await;
    let (_, csr) = request();
    let renew = client.renew(RenewRequest { csr: csr.clone() }).await.expect_err("refused");
    assert_eq!(renew.code(), Code::Unauthenticated);
    let (out, outgoing) = mpsc::channel(1);
    send(&out, from_agent::Message::Hello(Hello { facts: facts(), generation: 1 })).await;
    let connect = client.connect(ReceiverStream::new(outgoing)).await.expect_err("refused");
    assert_eq!(connect.code(), Code::Unauthenticated);
    let token = world.token().await;
    let enroll = |token: &str, csr: Bytes, facts: Bytes| {
        let token = token.to_owned();
        EnrollRequest { token, csr, facts }
    };
    for (request, code) in [
        (enroll("wrong", csr.clone(), facts()), Code::PermissionDenied),
        (enroll(&"x".repeat(10_000), csr.clone(), facts()), Code::PermissionDenied),
        (enroll(&token, Bytes::from_static(b"junk"), facts()), Code::InvalidArgument),
        (enroll(&token, csr.clone(), Bytes::from_static(b"{")), Code::InvalidArgument),
        (enroll(&token, csr.clone(), vec![b' '; 100_000].into()), Code::InvalidArgument),
    ] {
        let refused = client.enroll(request).await.expect_err("refused");
        assert_eq!(refused.code(), code, "{refused}");
    }
    // None of it took the token's use.
    client.enroll(enroll(&token, csr.clone(), facts())).await.expect("enrolled");
    let again = client.enroll(enroll(&token, csr, facts())).await.expect_err("used up");
    assert_eq!(again.code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_another_authority_is_worth_nothing() {
    let world = World::new().await;
    let elsewhere = tempfile::tempdir().expect("folder");
    let other = Authority::open(elsewhere.path()).expect("authority");
    let (key, csr) = request();
    let issued = other.issue(&csr, uuid::Uuid::now_v7(), PATIENCE).expect("issued");
    let identity = Identity::from_pem(issued.chain, key);
    // TLS 1.3 tells with the first answer.
    let refused = match world.channel(Some(&identity)).await {
        Err(_) => true,
        Ok(channel) => {
            let (_, csr) = request();
            LinkClient::new(channel).renew(RenewRequest { csr }).await.is_err()
        }
    };
    assert!(refused);
    world.until("counted", |counters| read(&counters.failed) >= 1).await;
    // One of ours that the store does not know is refused, too.
    let (key, csr) = request();
    let issued = world.authority.issue(&csr, uuid::Uuid::now_v7(), PATIENCE).expect("issued");
    let identity = Identity::from_pem(issued.chain, key);
    let mut client = world.client(Some(&identity)).await;
    let refused = client.renew(RenewRequest { csr }).await.expect_err("refused");
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_never_shake_hands_keep_no_host_of_another_address_out() {
    let world = World::new().await;
    let mut host = world.enroll().await;
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(TcpStream::connect(world.address).await.expect("connect"));
    }
    world.until("turned away", |counters| read(&counters.turned_away) > 0).await;
    // From 127.0.0.2 there is room.
    let socket = tokio::net::TcpSocket::new_v4().expect("socket");
    socket.bind("127.0.0.2:0".parse().expect("address")).expect("bind");
    let mut other = socket.connect(world.address).await.expect("connect");
    let failed = read(&world.counters.failed);
    other.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("write");
    // It is listened to, and answered by an alert, at once.
    let mut alert = Vec::new();
    let _ = other.read_to_end(&mut alert).await;
    world.until("a failed handshake", |counters| read(&counters.failed) > failed).await;
    // The silent ones are given up after a while.
    world.until("given up", |counters| read(&counters.failed) >= 64).await;
    drop(idle);
    world.stream(&mut host).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_says_what_it_must_not_is_ended_and_the_next_one_is_served() {
    let world = World::new().await;
    let mut host = world.enroll().await;
    let many = vec![Bytes::from_static(b"{}"); MOST_EVENTS + 1];
    let chunk = wire::Chunk {
        task: uuid::Uuid::now_v7().to_string(),
        data: vec![0; 1 << 20].into(),
        ..wire::Chunk::default()
    };
    let told = |id: &str, progress: &'static [u8]| {
        let (id, progress) = (id.to_owned(), Bytes::from_static(progress));
        from_agent::Message::Task(wire::TaskProgress { id, progress, number: 1 })
    };
    let hostile = [
        from_agent::Message::Events(wire::Events { last: 1, events: many }),
        from_agent::Message::Hello(Hello { facts: facts(), generation: 9 }),
        from_agent::Message::Heartbeat(Bytes::from_static(b"\xff{")),
        from_agent::Message::Heartbeat(Bytes::from_static(b"\x78\x01\xff\xff")),
        from_agent::Message::Heartbeat(heartbeat_pack(&vec![b' '; MAX_HEARTBEAT + 1])),
        from_agent::Message::Heartbeat(vec![b'['; MAX_MESSAGE + 1].into()),
        from_agent::Message::Chunk(chunk),
        told("not an id", b"{}"),
        told("0197a2c4-0000-7000-8000-000000000000", b"{"),
        from_agent::Message::Shell(wire::ShellOutput::default()),
    ];
    for message in hostile {
        let name = format!("{message:?}").chars().take(60).collect::<String>();
        let stream = world.stream(&mut host).await;
        send(&stream.out, message).await;
        let code = stream.end().await;
        assert!(matches!(code, Code::InvalidArgument | Code::OutOfRange), "{name}: {code:?}");
    }
    world.until("nobody is left", |counters| read(&counters.agents) == 0).await;
    assert_eq!(read(&world.counters.ended), 10);
    // Junk among events is counted on the host and takes nobody along.
    let mut stream = world.stream(&mut host).await;
    let events = vec![Bytes::from_static(b"junk"), Bytes::from_static(b"{\"kind\":1}")];
    send(&stream.out, from_agent::Message::Events(wire::Events { last: 7, events })).await;
    let answer = stream.incoming.message().await.expect("open").expect("a message");
    let Some(from_manager::Message::Stored(stored)) = answer.message else {
        panic!("{answer:?}");
    };
    assert_eq!(stored.last, 7);
    assert_eq!(read(&world.counters.agents), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_stream_is_ended_and_a_newer_one_takes_its_hosts_place() {
    let world = World::new().await;
    let mut host = world.enroll().await;
    let first = world.stream(&mut host).await;
    let second = world.stream(&mut host).await;
    assert_eq!(first.end().await, Code::Aborted);
    assert_eq!(read(&world.counters.agents), 1);
    // It keeps its end open and says nothing.
    let out = second.out.clone();
    assert_eq!(second.end().await, Code::DeadlineExceeded);
    drop(out);
    // The same generation again is a copy.
    let (out, outgoing) = mpsc::channel(1);
    let hello = Hello { facts: facts(), generation: host.generation };
    send(&out, from_agent::Message::Hello(hello)).await;
    let mut client = world.client(Some(&host.identity)).await;
    let refused = client.connect(ReceiverStream::new(outgoing)).await.expect_err("refused");
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(read(&world.counters.refused), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_at_the_port_stands_in_the_metrics() {
    let world = World::new().await;
    let mut host = world.enroll().await;
    let _stream = world.stream(&mut host).await;
    let mut stranger = TcpStream::connect(world.address).await.expect("connect");
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("write");
    world.until("a failed handshake", |counters| read(&counters.failed) == 1).await;
    let first = world.app.first_admin().await.expect("store").expect("first start");
    let signed_in = world.app.sign_in(&first.name, &first.password, "here").await.expect("in");
    let new = "correct horse battery";
    let who = &signed_in.principal;
    world.app.password_change(who, &first.password, new).await.expect("changed");
    let request = axum::http::Request::get("/metrics")
        .header("authorization", format!("Bearer {}", signed_in.secret))
        .body(axum::body::Body::empty())
        .expect("request");
    let router = holdfast_manager::api::router(world.app.clone());
    let answer = tower::ServiceExt::oneshot(router, request).await.expect("answer");
    let text = axum::body::to_bytes(answer.into_body(), 1 << 20).await.expect("body");
    let text = String::from_utf8_lossy(&text).into_owned();
    for line in [
        "holdfast_link_agents 1\n",
        // To enroll, to connect, the stranger.
        "holdfast_link_accepted_total 3\n",
        "holdfast_link_failed_total 1\n",
        "holdfast_link_turned_away_total 0\n",
        "holdfast_link_refused_total 0\n",
        "holdfast_link_ended_total 0\n",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

/// A sign of life of a host that takes policies and runs none.
fn heartbeat() -> Bytes {
    let now_ms = holdfast_manager::app::now_ms();
    let json = serde_json::json!({
        "time_ms": now_ms,
        "capabilities": [{"name": "x", "state": "ok", "evidence": "seen", "time_ms": now_ms}],
        "outbox": {"events": 0, "bytes": 0, "oldest_s": 0, "dropped": 0},
        "status": {
            "version": "0", "host": "h", "pid": 1, "uptime_s": 1, "mode": "block", "problems": [],
            "file_systems": [], "workers": 1, "sensor": [], "journal_events": 0,
            "journal_dropped": 0,
            "policy": {"accepts": true, "running": null, "refused": null, "problem": null},
            "on_access": {"held": 0, "allowed": 0, "denied": 0, "own": 0, "cached": 0,
                "excluded": 0, "closed_scanned": 0, "closed_skipped": 0, "failures": [],
                "past_deadline": 0, "longest_held_us": 0, "rescans_waiting": 0,
                "rescans_done": 0, "rescans_dropped": 0},
            "bundle": {"path": "", "digest": "", "loaded_ms": 0, "hashes": 0, "yara_rules": 0,
                "refused": null},
            "quarantine": {"items": 0, "bytes": 0}
        }
    });
    heartbeat_pack(&serde_json::to_vec(&json).expect("json"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_comes_when_it_is_put_and_again_to_whoever_connects() {
    let world = World::new().await;
    let mut host = world.enroll().await;
    let mut stream = world.stream(&mut host).await;
    // Who was never heard of is given none.
    send(&stream.out, from_agent::Message::Heartbeat(heartbeat())).await;
    let course = Course { stages: vec![100], soak_s: 0, roll_back: true };
    let policy = world.app.policy_create("web", &course, "test").await.expect("policy").policy.id;
    let groups = ["g".to_owned()];
    world.app.policy_assign(policy, &groups, "a test", "test").await.expect("assigned");
    let document = "[scan]\ncpu_share = 5\n";
    for version in 1..=2_u64 {
        let content = Content::Document(document.to_owned());
        world.app.policy_put(policy, content, false, "a test", "test").await.expect("put");
        let came = stream.policy().await;
        assert_eq!((came.id.as_str(), came.version), (policy.to_string().as_str(), version));
        assert_eq!((&came.document[..], came.name.as_str()), (document.as_bytes(), "web"));
    }
    // It never said that it runs it.
    let mut again = world.stream(&mut host).await;
    assert_eq!(again.policy().await.version, 2);
    world.app.policy_assign(policy, &[], "a test", "test").await.expect("assigned");
    // Nor that it runs any: there is nothing to take from it, and the next one is the next.
    world.app.policy_assign(policy, &groups, "a test", "test").await.expect("assigned");
    let copy = Content::CopyOf(1);
    world.app.policy_put(policy, copy, true, "a test", "test").await.expect("put");
    loop {
        let came = again.policy().await;
        if came.version == 3 {
            break;
        }
        assert_eq!(came.version, 2);
    }
}
