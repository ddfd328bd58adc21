//! Simulated agents: each with its own certificate from its own enrollment, its own TCP connection
//! and TLS session, and the stream that `link.proto` describes.
//!
//! What they share is one private key (the manager signs any number of requests for it) and this
//! process. Each calls from one of 64 loopback addresses, since the manager bounds handshakes by
//! address. They keep nothing on disk: a task is "executed" at once.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use holdfast_common::link::MAX_MESSAGE;
use holdfast_common::link::wire::link_client::LinkClient;
use holdfast_common::link::wire::{
    self, EnrollRequest, FromAgent, FromManager, Hello, from_agent, from_manager,
};
use holdfast_common::task::{Progress, Stage};
use rcgen::{CertificateParams, KeyPair};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::serve::Served;
use super::{content, now_ms};

/// Source addresses.
const ADDRESSES: usize = 64;
/// Enrollments or connections that are made at once.
const AT_ONCE: usize = 32;
/// Attempts at one of them.
const ATTEMPTS: u64 = 5;

/// Where agents call, and by what they know it.
#[derive(Clone)]
pub struct Target {
    address: SocketAddr,
    authority: Certificate,
    key: Arc<str>,
    request: Bytes,
}

/// An enrolled agent that is not connected.
pub struct Enrolled {
    index: usize,
    /// The host's id.
    pub host: String,
    identity: Identity,
}

/// What agents that live share with who watches them.
pub struct Shared {
    /// When each task came, by its id.
    pub arrived: Mutex<HashMap<String, Instant>>,
    /// Streams that ended by themselves.
    pub ended: AtomicU64,
    beat: watch::Sender<Bytes>,
}

/// A stream behind its Welcome.
pub struct Stream {
    /// What goes to the manager.
    pub out: mpsc::Sender<FromAgent>,
    /// What comes from it.
    pub incoming: Streaming<FromManager>,
    heartbeat: Duration,
}

impl Stream {
    /// Sends a heartbeat as often as the manager wants one, until the stream is over: who has
    /// nothing to tell lives too.
    pub fn live(&self) {
        let (out, mut ticks) = (self.out.clone(), tokio::time::interval(self.heartbeat));
        tokio::spawn(async move {
            loop {
                ticks.tick().await;
                let beat = from_agent::Message::Heartbeat(content::heartbeat(now_ms()));
                if out.send(message(beat)).await.is_err() {
                    return;
                }
            }
        });
    }
}

impl Target {
    /// This manager.
    ///
    /// # Errors
    /// When there is no key to be had.
    pub fn new(served: &Served) -> Result<Self> {
        let key = KeyPair::generate()?;
        let request = CertificateParams::default().serialize_request(&key)?;
        Ok(Self {
            address: served.address(),
            authority: Certificate::from_pem(served.authority()?),
            key: key.serialize_pem().into(),
            request: Bytes::copy_from_slice(request.der()),
        })
    }

    async fn call(&self, index: usize, identity: Option<Identity>) -> Result<LinkClient<Channel>> {
        let mut tls = ClientTlsConfig::new().ca_certificate(self.authority.clone());
        if let Some(identity) = identity {
            tls = tls.identity(identity);
        }
        let last = u8::try_from(index % ADDRESSES)? + 1;
        let channel = Endpoint::from_shared(format!("https://{}", self.address))?
            .tls_config(tls)?
            .local_address(Some(IpAddr::V4(Ipv4Addr::new(127, 0, 1, last))))
            .tcp_nodelay(true)
            .connect()
            .await?;
        Ok(LinkClient::new(channel).max_encoding_message_size(MAX_MESSAGE * 2))
    }

    async fn enroll_one(&self, index: usize, token: &str) -> Result<Enrolled> {
        let request = EnrollRequest {
            token: token.to_owned(),
            csr: self.request.clone(),
            facts: content::facts(index),
        };
        let mut client = self.call(index, None).await?;
        let certificate = client.enroll(request).await?.into_inner();
        let identity = Identity::from_pem(certificate.chain, &*self.key);
        Ok(Enrolled { index, host: certificate.host, identity })
    }

    /// Enrolls so many agents, each over a connection of its own.
    ///
    /// # Errors
    /// When one is refused.
    pub async fn enroll(&self, count: usize, token: &str) -> Result<Vec<Enrolled>> {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut running = JoinSet::new();
        for index in 0..count {
            let place = Arc::clone(&places).acquire_owned().await?;
            let (target, token) = (self.clone(), token.to_owned());
            running.spawn(async move {
                let _place = place;
                target.enroll_one(index, &token).await
            });
        }
        let mut all = running.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
        all.sort_by_key(|agent| agent.index);
        Ok(all)
    }

    /// Opens an agent's stream.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn open(&self, agent: &Enrolled, generation: u64) -> Result<Stream> {
        let mut client = self.call(agent.index, Some(agent.identity.clone())).await?;
        let (out, outgoing) = mpsc::channel(8);
        let hello = Hello { facts: content::facts(agent.index), generation };
        out.send(message(from_agent::Message::Hello(hello))).await?;
        let mut incoming = client.connect(ReceiverStream::new(outgoing)).await?.into_inner();
        let first = incoming.message().await?.and_then(|first| first.message);
        let Some(from_manager::Message::Welcome(welcome)) = first else {
            bail!("no Welcome but {first:?}");
        };
        let heartbeat = Duration::from_secs(u64::from(welcome.heartbeat_s));
        Ok(Stream { out, incoming, heartbeat })
    }

    /// Connects all of them and lets them live until the set is dropped.
    ///
    /// # Errors
    /// When one is refused again and again.
    pub async fn connect(
        &self,
        agents: Vec<Enrolled>,
        shared: &Arc<Shared>,
    ) -> Result<JoinSet<()>> {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let count = agents.len();
        let (tell, mut told) = mpsc::channel(AT_ONCE);
        let mut living = JoinSet::new();
        for agent in agents {
            let (places, target) = (Arc::clone(&places), self.clone());
            let (tell, shared) = (tell.clone(), Arc::clone(shared));
            living.spawn(async move {
                let place = places.acquire_owned().await;
                let opened = target.open_patiently(&agent).await;
                drop(place);
                let (result, stream) = match opened {
                    Ok(stream) => (Ok(()), Some(stream)),
                    Err(error) => (Err(error), None),
                };
                // Nobody listens any more: another one failed.
                let _ = tell.send(result).await;
                drop(tell);
                if let Some(stream) = stream {
                    live(agent.index, stream, shared).await;
                }
            });
        }
        for _ in 0..count {
            told.recv().await.context("an agent's task ended")??;
        }
        Ok(living)
    }

    async fn open_patiently(&self, agent: &Enrolled) -> Result<Stream> {
        let mut generation = 1;
        loop {
            match self.open(agent, generation).await {
                Err(error) if generation == ATTEMPTS => {
                    return Err(error).context("an agent is not let in");
                }
                Err(_) => generation += 1,
                opened => return opened,
            }
        }
    }
}

impl Shared {
    /// With a heartbeat that is made anew each second.
    pub fn new() -> Arc<Self> {
        let shared = Arc::new(Self {
            arrived: Mutex::default(),
            ended: AtomicU64::new(0),
            beat: watch::channel(content::heartbeat(now_ms())).0,
        });
        let held = Arc::downgrade(&shared);
        tokio::spawn(async move {
            while let Some(shared) = held.upgrade() {
                shared.beat.send_replace(content::heartbeat(now_ms()));
                drop(shared);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        shared
    }
}

/// A message on its way.
pub fn message(message: from_agent::Message) -> FromAgent {
    FromAgent { message: Some(message) }
}

async fn live(index: usize, mut stream: Stream, shared: Arc<Shared>) {
    // Spread over the pause between two.
    let phase = stream.heartbeat.mul_f64((index % 1000) as f64 / 1000.0);
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + phase, stream.heartbeat);
    loop {
        let over = tokio::select! {
            _ = ticks.tick() => {
                let beat = shared.beat.borrow().clone();
                stream.out.send(message(from_agent::Message::Heartbeat(beat))).await.is_err()
            }
            heard = stream.incoming.message() => match heard {
                Ok(Some(heard)) => hear(&stream.out, heard, &shared).await.is_err(),
                Ok(None) | Err(_) => true,
            },
        };
        if over {
            shared.ended.fetch_add(1, Ordering::Relaxed);
            return;
        }
    }
}

async fn hear(out: &mpsc::Sender<FromAgent>, heard: FromManager, shared: &Shared) -> Result<()> {
    let Some(from_manager::Message::Task(task)) = heard.message else { return Ok(()) };
    shared
        .arrived
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .entry(task.id.clone())
        .or_insert_with(Instant::now);
    for (number, stage) in [Stage::Delivered, Stage::Executed, Stage::Verified].iter().enumerate() {
        let progress = Progress {
            stage: *stage,
            time_ms: now_ms(),
            observed: "seen".to_owned(),
            result: serde_json::Value::Null,
        };
        let progress = wire::TaskProgress {
            id: task.id.clone(),
            progress: serde_json::to_vec(&progress)?.into(),
            number: number as u64 + 1,
        };
        out.send(message(from_agent::Message::Task(progress))).await?;
    }
    Ok(())
}
