//! One connection to the manager, from Hello to its end.
//!
//! Each direction of work is a future of its own, all polled together: what the manager sends is
//! always read, so neither side waits for the other. Whichever ends, ends the session; nothing is
//! lost by that, since all that matters is on disk until it is acknowledged.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use holdfast_common::denial::FleetDenials;
use holdfast_common::link::wire::{
    self, ChunkStored, FromAgent, FromManager, Hello, from_agent, from_manager,
};
use holdfast_common::link::{Heartbeat, heartbeat_pack};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::connect::{ConnectError, Way};
use super::enroll::{self, EnrollError, client};
use super::identity::{self, Identity, IdentityError};
use super::outbox::{self, Outbox, OutboxError};
use super::store::StoreError;
use super::tasks::Tasks;
use super::{LOOK, Shared, blocking, identity_mark};
use crate::now_ms;
use crate::policy::Offer;

/// The manager's first answer.
const ANSWER: Duration = Duration::from_secs(20);
/// Messages that wait for the connection.
const QUEUE: usize = 8;
/// A session that lasted so long was a good one.
const LASTING: Duration = Duration::from_secs(20);
/// Between two tries to renew a certificate.
const RENEW: Duration = Duration::from_secs(600);
/// Without a word of new events the outbox is looked at all the same.
const IDLE: Duration = Duration::from_secs(10);
/// Progress read at once.
const PROGRESS: usize = 64;
/// Bounds of what the manager may ask for.
const HEARTBEAT: std::ops::RangeInclusive<u64> = 1..=60;
/// Bytes of a heartbeat: its lists are cut until it fits.
const LARGEST_HEARTBEAT: usize = 200 << 10;

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With a new certificate: connect again with that.
    Renewed,
    /// Somebody enrolled this host anew.
    Replaced,
    /// The manager ended it.
    Closed {
        /// It had lasted.
        lasting: bool,
    },
}

/// Why a session did not begin or go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the spool cannot be used")]
    Spool(#[from] std::io::Error),
    #[error("the manager does not answer")]
    Silent,
    #[error("the manager refuses this host: {0}")]
    Refused(String),
    #[error("the connection broke: {message}")]
    Broken { message: String, lasted: bool },
    #[error("the manager sends what is not understood: {0}")]
    Garbled(&'static str),
    #[error("the agent is ending")]
    Ended,
}

impl SessionError {
    /// Trying again soon is of no use.
    pub(super) const fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_))
    }

    /// The session was a good one before.
    pub(super) const fn lasted(&self) -> bool {
        matches!(self, Self::Broken { lasted: true, .. })
    }

    fn status(status: &tonic::Status, since: Instant) -> Self {
        let message = status.message().to_owned();
        match status.code() {
            tonic::Code::Unauthenticated | tonic::Code::PermissionDenied => Self::Refused(message),
            _ => Self::Broken { message, lasted: since.elapsed() >= LASTING },
        }
    }
}

/// What the futures of a session share.
struct Session {
    shared: Arc<Shared>,
    tasks: Arc<Tasks>,
    out: mpsc::Sender<FromAgent>,
    outbox: Arc<Mutex<Outbox>>,
    acknowledged: Notify,
    host: String,
}

/// Connects and works until something ends it.
pub(super) async fn run(
    shared: &Arc<Shared>,
    tasks: &Arc<Tasks>,
    way: &Way,
    identity: Identity,
) -> Result<End, SessionError> {
    let mark = identity_mark(&shared.state_dir);
    let channel = way.connect(&identity).await?;
    shared.keep_reachable(way);
    remember(shared, tasks, way).await?;
    if identity.is_due(now_ms()) && renewed(shared, channel.clone(), &identity).await {
        return Ok(End::Renewed);
    }
    let since = Instant::now();
    let (out, outgoing) = mpsc::channel(QUEUE);
    let mut incoming = greet(shared, &channel, &out, outgoing, since).await?;
    let Some(from_manager::Message::Welcome(welcome)) = next(&mut incoming, since).await? else {
        return Err(SessionError::Garbled("no welcome"));
    };
    tasks.set_clock(welcome.time_ms.saturating_sub(now_ms()));
    let (store, journal, host) = (tasks.store(), shared.journal.clone(), identity.host.clone());
    let max_age_ms = shared.config.max_age_ms();
    let outbox = blocking(move || Outbox::open(store, &journal, &host, max_age_ms)).await?;
    shared.connected();
    let session = Session {
        shared: Arc::clone(shared),
        tasks: Arc::clone(tasks),
        out,
        outbox: Arc::new(Mutex::new(outbox)),
        acknowledged: Notify::new(),
        host: identity.host.clone(),
    };
    let pace = u64::from(welcome.heartbeat_s).clamp(*HEARTBEAT.start(), *HEARTBEAT.end());
    let (answers, mut answered) = mpsc::channel(16);
    tokio::select! {
        end = session.listen(&mut incoming, &answers, since) => end,
        end = session.feed() => end,
        end = session.beat(Duration::from_secs(pace)) => end,
        end = session.tell() => end,
        end = session.show() => end,
        end = super::deliver::run(&session.tasks, &session.out, &mut answered) => end,
        () = replaced(shared, mark) => Ok(End::Replaced),
        () = renewal(shared, channel, &identity) => Ok(End::Renewed),
    }
}

/// Hello, with a generation that was never told before.
async fn greet(
    shared: &Arc<Shared>,
    channel: &Channel,
    out: &mpsc::Sender<FromAgent>,
    outgoing: mpsc::Receiver<FromAgent>,
    since: Instant,
) -> Result<Streaming<FromManager>, SessionError> {
    let state_dir = shared.state_dir.clone();
    let (generation, facts) = blocking(move || {
        let facts = serde_json::to_vec(&super::host_facts()).unwrap_or_default();
        identity::next_generation(&state_dir).map(|generation| (generation, facts))
    })
    .await?;
    send(out, from_agent::Message::Hello(Hello { facts: facts.into(), generation })).await?;
    let mut client = client(channel.clone());
    let connecting = client.connect(ReceiverStream::new(outgoing));
    match tokio::time::timeout(ANSWER, connecting).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(SessionError::status(&status, since)),
        Err(_) => Err(SessionError::Silent),
    }
}

/// The first message, within a limit.
async fn next(
    incoming: &mut Streaming<FromManager>,
    since: Instant,
) -> Result<Option<from_manager::Message>, SessionError> {
    match tokio::time::timeout(ANSWER, incoming.message()).await {
        Ok(Ok(message)) => Ok(message.and_then(|message| message.message)),
        Ok(Err(status)) => Err(SessionError::status(&status, since)),
        Err(_) => Err(SessionError::Silent),
    }
}

pub(super) async fn send(
    out: &mpsc::Sender<FromAgent>,
    message: from_agent::Message,
) -> Result<(), SessionError> {
    let message = FromAgent { message: Some(message) };
    out.send(message)
        .await
        .map_err(|_| SessionError::Broken { message: "it was closed".to_owned(), lasted: false })
}

/// Where the manager was reached, for a time without name servers.
async fn remember(shared: &Shared, tasks: &Tasks, way: &Way) -> Result<(), SessionError> {
    let (store, hop) = (tasks.store(), way.first_hop());
    let addresses: Vec<String> = shared.addresses.get().iter().map(ToString::to_string).collect();
    let addresses = addresses.join(" ");
    blocking(move || {
        if store.note("addresses")?.as_ref() != Some(&addresses)
            || store.note("hop")?.as_ref() != Some(&hop)
        {
            store.set_note("addresses", &addresses)?;
            store.set_note("hop", &hop)?;
        }
        Ok::<_, StoreError>(())
    })
    .await
}

/// Returns when somebody enrolled this host anew.
async fn replaced(shared: &Shared, mark: Option<(u64, i64, i64)>) {
    while identity_mark(&shared.state_dir) == mark {
        tokio::time::sleep(LOOK).await;
    }
}

/// Returns when the certificate was renewed.
async fn renewal(shared: &Arc<Shared>, channel: Channel, identity: &Identity) {
    loop {
        if identity.is_due(now_ms()) && renewed(shared, channel.clone(), identity).await {
            return;
        }
        let life = identity.ends_ms.saturating_sub(identity.begins_ms).max(0).unsigned_abs();
        // A short life is looked at more often.
        tokio::time::sleep(RENEW.min(Duration::from_millis(life / 20 + 100))).await;
    }
}

/// Gets and keeps the next certificate. A failure is told and tried again later.
async fn renewed(shared: &Arc<Shared>, channel: Channel, identity: &Identity) -> bool {
    let kept = async {
        let next = enroll::renew(channel, identity).await?;
        let state_dir = shared.state_dir.clone();
        blocking(move || identity::store(&state_dir, &next))
            .await
            .map_err(|error| EnrollError::Keep(crate::error_chain(&error)))
    };
    match kept.await {
        Ok(()) => {
            tracing::info!("the certificate was renewed");
            true
        }
        Err(error) => {
            tracing::error!(error = crate::error_chain(&error), "the certificate is not renewed");
            false
        }
    }
}

impl Session {
    /// Reads what the manager sends.
    async fn listen(
        &self,
        incoming: &mut Streaming<FromManager>,
        answers: &mpsc::Sender<ChunkStored>,
        since: Instant,
    ) -> Result<End, SessionError> {
        use from_manager::Message;
        loop {
            let message = match incoming.message().await {
                Ok(Some(message)) => message.message,
                Ok(None) => return Ok(End::Closed { lasting: since.elapsed() >= LASTING }),
                Err(status) => return Err(SessionError::status(&status, since)),
            };
            match message {
                Some(Message::Stored(stored)) => self.acknowledge(stored.last).await?,
                Some(Message::Task(task)) => {
                    let tasks = Arc::clone(&self.tasks);
                    blocking(move || tasks.take(task)).await?;
                }
                Some(Message::Cancel(cancel)) => {
                    let tasks = Arc::clone(&self.tasks);
                    blocking(move || tasks.cancel(&cancel.id)).await?;
                }
                Some(Message::Progress(told)) => {
                    let store = self.tasks.store();
                    let number = i64::try_from(told.number).unwrap_or(i64::MAX);
                    blocking(move || store.progress_told(number)).await?;
                }
                Some(Message::Chunk(stored)) => answers
                    .try_send(stored)
                    .map_err(|_| SessionError::Garbled("answers to parts that were not sent"))?,
                Some(Message::Welcome(_)) => return Err(SessionError::Garbled("another welcome")),
                Some(Message::Shell(input)) => self.shared.shells.input(&input),
                Some(Message::Policy(policy)) => self.rule(policy),
                Some(Message::Denials(list)) => {
                    let list: FleetDenials = serde_json::from_slice(&list)
                        .map_err(|_| SessionError::Garbled("a list of denials"))?;
                    let host = Arc::clone(&self.shared.host);
                    // Not waited for, as a policy.
                    drop(tokio::task::spawn_blocking(move || host.denials(list)));
                }
                None => tracing::warn!("the manager sends something that this agent does not know"),
            }
        }
    }

    /// Not waited for: whatever came last is what counts, and nothing else is to wait for it.
    fn rule(&self, policy: wire::Policy) {
        let wire::Policy { version, document, id, name } = policy;
        let offer = Offer { id, name, version, document: document.into() };
        let host = Arc::clone(&self.shared.host);
        drop(tokio::task::spawn_blocking(move || host.policy(offer)));
    }

    async fn acknowledge(&self, last: u64) -> Result<(), SessionError> {
        let outbox = Arc::clone(&self.outbox);
        blocking(move || outbox.lock().unwrap_or_else(PoisonError::into_inner).acknowledged(last))
            .await?;
        self.acknowledged.notify_one();
        Ok(())
    }

    /// Sends events as they are written, and as there is room.
    async fn feed(&self) -> Result<End, SessionError> {
        let mut written = self.shared.journal.written();
        loop {
            written.mark_unchanged();
            let outbox = Arc::clone(&self.outbox);
            let batch = blocking(move || {
                outbox.lock().unwrap_or_else(PoisonError::into_inner).next(now_ms())
            })
            .await?;
            if let Some(batch) = batch {
                let events = batch.events.into_iter().map(Into::into).collect();
                let message = wire::Events { last: batch.number, events };
                send(&self.out, from_agent::Message::Events(message)).await?;
                continue;
            }
            tokio::select! {
                // The journal outlives the session.
                _ = written.changed() => {}
                () = self.acknowledged.notified() => {}
                () = tokio::time::sleep(IDLE) => {}
            }
        }
    }

    /// Sends what terminals show.
    async fn show(&self) -> Result<End, SessionError> {
        let _link = self.shared.shells.linked();
        loop {
            match self.shared.shells.next() {
                Some(output) => send(&self.out, from_agent::Message::Shell(output)).await?,
                None => self.shared.shells.told().await,
            }
        }
    }

    /// Sends a sign of life, again and again.
    async fn beat(&self, pace: Duration) -> Result<End, SessionError> {
        let mut ticks = tokio::time::interval(pace);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut told = None;
        loop {
            ticks.tick().await;
            let tasks = Arc::clone(&self.tasks);
            blocking(move || tasks.look()).await?;
            let (shared, store) = (Arc::clone(&self.shared), self.tasks.store());
            let host = self.host.clone();
            let before = told.take();
            let (heartbeat, models) = blocking(move || {
                let mut reader = shared.journal.reader();
                let outbox = outbox::state(&store, &mut reader, &host, now_ms())?;
                shared.look_at_outbox(outbox);
                let mut capabilities = shared.host.capabilities();
                capabilities.push(outbox_capability(&shared, outbox));
                let Some(status) = shared.host.status() else { return Err(SessionError::Ended) };
                let models = shared.host.models();
                let heartbeat = Heartbeat {
                    time_ms: now_ms(),
                    capabilities,
                    status,
                    outbox,
                    models: (before.as_ref() != Some(&models)).then(|| models.clone()),
                };
                Ok((heartbeat_pack(&within_bounds(heartbeat)), models))
            })
            .await?;
            told = Some(models);
            send(&self.out, from_agent::Message::Heartbeat(heartbeat)).await?;
        }
    }

    /// Tells how tasks go on, until the manager has it.
    async fn tell(&self) -> Result<End, SessionError> {
        let mut last = 0;
        loop {
            let store = self.tasks.store();
            let rows = blocking(move || store.progress_after(last, PROGRESS)).await?;
            if rows.is_empty() {
                self.tasks.told().await;
            }
            for (number, id, progress) in rows {
                last = number;
                let number = number.unsigned_abs();
                let message = wire::TaskProgress { id, progress: progress.into(), number };
                send(&self.out, from_agent::Message::Task(message)).await?;
            }
        }
    }
}

fn outbox_capability(
    shared: &Shared,
    outbox: holdfast_common::link::OutboxState,
) -> holdfast_common::link::Capability {
    use holdfast_common::link::{Capability, CapabilityState};
    let problem = super::outbox_problem(&shared.state());
    let state = if problem.is_some() { CapabilityState::Red } else { CapabilityState::Ok };
    let evidence = format!(
        "{} events wait, {} bytes, the oldest for {} s; {} were given up",
        outbox.events, outbox.bytes, outbox.oldest_s, outbox.dropped
    );
    Capability { name: "outbox".to_owned(), state, evidence, time_ms: now_ms() }
}

/// JSON of a heartbeat that fits a message: a host may have thousands of mounts.
fn within_bounds(mut heartbeat: Heartbeat) -> Vec<u8> {
    let mut most = 2000;
    loop {
        let json = serde_json::to_vec(&heartbeat).unwrap_or_default();
        if json.len() <= LARGEST_HEARTBEAT || most == 0 {
            return json;
        }
        most /= 2;
        let status = &mut heartbeat.status;
        status.file_systems.truncate(most);
        status.problems.truncate(most);
        status.proof.lines.truncate(most);
        status.sensor.truncate(most);
        // Red ones tell more.
        heartbeat
            .capabilities
            .sort_by_key(|one| one.state != holdfast_common::link::CapabilityState::Red);
        heartbeat.capabilities.truncate(most);
    }
}
