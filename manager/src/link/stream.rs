//! One agent's stream: what it tells goes to the app, what the app has for it goes out.
//!
//! INVARIANT: events are acknowledged when the app has them on disk, in order; a progress and a
//! part of a file likewise. Every queue is bounded: an agent that sends faster than the store
//! takes is not read any more, one that does not read is ended, one that is silent too.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use holdfast_common::link::wire::{
    self, Chunk, ChunkStored, Events, EventsStored, FromAgent, FromManager, TaskStored, Welcome,
    from_agent, from_manager,
};
use holdfast_common::link::{CHUNK, Heartbeat, MOST_EVENTS, heartbeat_unpack};
use holdfast_common::task::Progress;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Status, Streaming};
use uuid::Uuid;

use super::service::Service;
use crate::app::{Admitted, ChunkAnswer, ShellError, StoreError};

/// Messages that wait for an agent to read.
const QUEUE: usize = 8;
/// Messages of events that wait for the store.
const WAITING: usize = 4;
/// An agent that takes nothing for so long is ended.
const UNREAD: Duration = Duration::from_secs(30);
/// Heartbeats that may be missing before a stream is ended; the host is red much sooner.
const MISSING: u32 = 4;
/// Between two looks at whether the certificate still stands.
const STANDS: Duration = Duration::from_secs(30);
/// Events in one call of the store.
const MOST_TOGETHER: usize = MOST_EVENTS * 4;

/// Why a stream ends.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the agent has hung up")]
    HungUp,
    #[error("a newer stream of this host has come")]
    Replaced,
    #[error("nothing was heard of the agent")]
    Silent,
    #[error("the agent does not read")]
    Unread,
    #[error("not understood: {0}")]
    Garbled(&'static str),
    #[error(transparent)]
    Status(Status),
    #[error("the store: {0}")]
    Store(#[from] StoreError),
    #[error("the manager is ending")]
    Ending,
}

impl End {
    fn status(&self) -> Status {
        match self {
            Self::HungUp => Status::ok(""),
            Self::Replaced => Status::aborted(self.to_string()),
            Self::Silent | Self::Unread => Status::deadline_exceeded(self.to_string()),
            Self::Garbled(_) => Status::invalid_argument(self.to_string()),
            Self::Status(status) => status.clone(),
            Self::Store(_) | Self::Ending => Status::unavailable(self.to_string()),
        }
    }
}

/// Boxed: a channel keeps room for 32 of what it carries.
type Outgoing = mpsc::Sender<Box<Result<FromManager, Status>>>;

/// Begins to serve a stream; the other direction is returned.
pub(super) fn start(
    service: Service,
    admitted: Admitted,
    serial: Arc<str>,
    incoming: Streaming<FromAgent>,
) -> impl Stream<Item = Result<FromManager, Status>> + Send {
    let (out, outgoing) = mpsc::channel(QUEUE);
    service.counters.agents.fetch_add(1, Ordering::Relaxed);
    tokio::spawn(async move {
        let stream = Live { service, admitted, serial, out };
        let end = stream.run(incoming).await;
        stream.over(&end).await;
    });
    ReceiverStream::new(outgoing).map(|message| *message)
}

struct Live {
    service: Service,
    admitted: Admitted,
    serial: Arc<str>,
    out: Outgoing,
}

impl Live {
    async fn run(&self, incoming: Streaming<FromAgent>) -> End {
        let host = self.admitted.host;
        let seat = self.service.roster.take(host, self.admitted.session);
        if let Err(end) = self.send(self.welcome()).await {
            return end;
        }
        let (events, waiting) = mpsc::channel(WAITING);
        tokio::select! {
            end = self.listen(incoming, events) => end,
            end = self.store_events(waiting) => end,
            end = self.hand_out_tasks() => end,
            end = self.carry_shells() => end,
            end = self.stands() => end,
            () = seat.replaced() => End::Replaced,
            // tonic dropped the other direction.
            () = self.out.closed() => End::HungUp,
        }
    }

    async fn over(&self, end: &End) {
        let (host, counters) = (self.admitted.host, &self.service.counters);
        counters.agents.fetch_sub(1, Ordering::Relaxed);
        match end {
            End::HungUp | End::Replaced | End::Ending => {
                tracing::info!(%host, why = %end, "an agent's stream is over");
            }
            End::Silent | End::Unread | End::Garbled(_) | End::Status(_) | End::Store(_) => {
                counters.ended.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%host, why = %end, "an agent's stream was ended");
            }
        }
        if !matches!(end, End::HungUp) {
            // It is told why if there is room.
            let _ = self.out.try_send(Box::new(Err(end.status())));
        }
        Box::pin(self.service.app.host_left(self.admitted)).await;
    }

    fn welcome(&self) -> from_manager::Message {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        from_manager::Message::Welcome(Welcome {
            host: self.admitted.host.to_string(),
            time_ms: i64::try_from(time.as_millis()).unwrap_or(i64::MAX),
            heartbeat_s: u32::try_from(self.service.heartbeat.as_secs()).unwrap_or(u32::MAX).max(1),
        })
    }

    async fn send(&self, message: from_manager::Message) -> Result<(), End> {
        let message = Box::new(Ok(FromManager { message: Some(message) }));
        match tokio::time::timeout(UNREAD, self.out.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::HungUp),
            Err(_) => Err(End::Unread),
        }
    }

    /// Reads what the agent tells.
    async fn listen(
        &self,
        mut incoming: Streaming<FromAgent>,
        events: mpsc::Sender<Events>,
    ) -> End {
        let patience = self.service.heartbeat * MISSING + Duration::from_secs(5);
        loop {
            let message = match tokio::time::timeout(patience, incoming.message()).await {
                Ok(Ok(Some(message))) => message.message,
                Ok(Ok(None)) => return End::HungUp,
                Ok(Err(status)) if is_hang_up(&status) => return End::HungUp,
                Ok(Err(status)) => return End::Status(status),
                Err(_) => return End::Silent,
            };
            let taken = match message {
                Some(from_agent::Message::Events(message)) => {
                    if message.events.len() > MOST_EVENTS {
                        return End::Garbled("too many events in one message");
                    }
                    // Not read on while the store is behind.
                    events.send(message).await.map_err(|_| End::Ending)
                }
                // Boxed, here and below: what a stream does now and then takes no room while idle.
                Some(message) => Box::pin(self.take(message)).await,
                None => Err(End::Garbled("a message of an unknown kind")),
            };
            if let Err(end) = taken {
                return end;
            }
        }
    }

    async fn take(&self, message: from_agent::Message) -> Result<(), End> {
        use from_agent::Message;
        match message {
            Message::Heartbeat(came) => {
                let json = heartbeat_unpack(&came).ok_or(End::Garbled("a heartbeat"))?;
                let heartbeat: Heartbeat =
                    serde_json::from_slice(&json).map_err(|_| End::Garbled("a heartbeat"))?;
                Ok(self.service.app.heartbeat_store(self.admitted, heartbeat).await?)
            }
            Message::Task(told) => self.take_progress(told).await,
            Message::Chunk(chunk) => self.take_chunk(chunk).await,
            Message::Hello(_) => Err(End::Garbled("another Hello")),
            Message::Events(_) => Err(End::Garbled("events out of place")),
            Message::Shell(output) => {
                let taken = self.service.app.shell_output(self.admitted.host, output).await;
                taken.map_err(|error| match error {
                    ShellError::Garbled(why) => End::Garbled(why),
                    ShellError::Store(error) => End::Store(error),
                })
            }
        }
    }

    async fn take_progress(&self, told: wire::TaskProgress) -> Result<(), End> {
        let task = id(&told.id)?;
        let progress: Progress =
            serde_json::from_slice(&told.progress).map_err(|_| End::Garbled("a progress"))?;
        self.service.app.task_progress(self.admitted.host, task, progress).await?;
        self.send(from_manager::Message::Progress(TaskStored { number: told.number })).await
    }

    async fn take_chunk(&self, chunk: Chunk) -> Result<(), End> {
        let task = id(&chunk.task)?;
        if chunk.data.len() > CHUNK {
            return Err(End::Garbled("a part of a file that is too large"));
        }
        let sha256 = match chunk.sha256.len() {
            0 => None,
            32 => <[u8; 32]>::try_from(&chunk.sha256[..]).ok(),
            _ => return Err(End::Garbled("a hash")),
        };
        let (app, host) = (&self.service.app, self.admitted.host);
        let answer = Box::pin(app.task_chunk(host, task, chunk.offset, chunk.data, sha256)).await?;
        let mut stored = ChunkStored { task: chunk.task, ..ChunkStored::default() };
        match answer {
            ChunkAnswer::Next(offset) => stored.offset = offset,
            ChunkAnswer::Complete(offset) => (stored.offset, stored.complete) = (offset, true),
            ChunkAnswer::Refused(why) => stored.refused = why,
        }
        self.send(from_manager::Message::Chunk(stored)).await
    }

    /// Stores events as they come, several messages together when the store is behind.
    async fn store_events(&self, mut waiting: mpsc::Receiver<Events>) -> End {
        while let Some(first) = waiting.recv().await {
            let mut last = first.last;
            let mut events: Vec<Bytes> = first.events;
            while events.len() < MOST_TOGETHER
                && let Ok(more) = waiting.try_recv()
            {
                if more.last <= last {
                    return End::Garbled("messages of events out of order");
                }
                last = more.last;
                events.extend(more.events);
            }
            if let Err(error) =
                Box::pin(self.service.app.events_store(self.admitted.host, events)).await
            {
                return End::Store(error);
            }
            if let Err(end) = self.send(from_manager::Message::Stored(EventsStored { last })).await
            {
                return end;
            }
        }
        End::Ending
    }

    /// Hands out tasks and cancellations as they are filed, each once in a stream, and policies.
    async fn hand_out_tasks(&self) -> End {
        let (app, host) = (&self.service.app, self.admitted.host);
        let mut signal = app.task_signal(host);
        let mut sent: HashSet<(Uuid, bool)> = HashSet::new();
        let (mut given, mut denied) = (None, None);
        loop {
            let waiting = match Box::pin(app.tasks_waiting(host)).await {
                Ok(waiting) => waiting,
                Err(error) => return End::Store(error),
            };
            let there: HashSet<_> = waiting.iter().map(|one| (one.id, one.cancelled)).collect();
            sent.retain(|one| there.contains(one));
            for order in waiting {
                if !sent.insert((order.id, order.cancelled)) {
                    continue;
                }
                let id = order.id.to_string();
                let message = if order.cancelled {
                    from_manager::Message::Cancel(wire::TaskCancel { id })
                } else {
                    let Ok(action) = serde_json::to_vec(&order.action) else { continue };
                    from_manager::Message::Task(wire::Task {
                        id,
                        action: action.into(),
                        expires_ms: order.expires_ms,
                        filed_by: order.filed_by,
                        reason: order.reason,
                    })
                };
                if let Err(end) = self.send(message).await {
                    return end;
                }
            }
            if let Err(end) = Box::pin(self.hand_out_policy(&mut given)).await {
                return end;
            }
            if let Err(end) = Box::pin(self.hand_out_denials(&mut denied)).await {
                return end;
            }
            if !signal.changed().await {
                return End::Ending;
            }
        }
    }

    /// Sends what is typed on the host's terminals, and how far what they show was taken.
    async fn carry_shells(&self) -> End {
        let mut shells = self.service.app.shell_stream(self.admitted.host);
        loop {
            let input = shells.next().await;
            if let Err(end) = self.send(from_manager::Message::Shell(input)).await {
                return end;
            }
        }
    }

    /// Gives the host the version that it is to run, each once in a stream.
    async fn hand_out_policy(&self, given: &mut Option<(Option<Uuid>, i64)>) -> Result<(), End> {
        let Some(wanted) = self.service.app.policy_for(self.admitted.host).await? else {
            return Ok(());
        };
        let this = Some((wanted.policy, wanted.version));
        if *given == this {
            return Ok(());
        }
        *given = this;
        self.send(from_manager::Message::Policy(wire::Policy {
            version: wanted.version.unsigned_abs(),
            document: wanted.document.into(),
            id: wanted.policy.map(|policy| policy.to_string()).unwrap_or_default(),
            name: wanted.name,
        }))
        .await
    }

    /// Gives the host what is denied on it, each state of the list once in a stream.
    async fn hand_out_denials(&self, given: &mut Option<i64>) -> Result<(), End> {
        let Some(list) = self.service.app.denials_for(self.admitted.host).await? else {
            return Ok(());
        };
        if *given == Some(list.through) {
            return Ok(());
        }
        *given = Some(list.through);
        let list = serde_json::to_vec(&list).unwrap_or_default();
        self.send(from_manager::Message::Denials(list.into())).await
    }

    /// Returns when the certificate does not stand any more.
    async fn stands(&self) -> End {
        loop {
            tokio::time::sleep(STANDS).await;
            match Box::pin(self.service.app.certificate_host(&self.serial)).await {
                // A store that fails now and then ends no stream.
                Ok(_) | Err(crate::app::AdmitError::Store(_)) => {}
                Err(error) => return End::Status(self.service.admit(error)),
            }
        }
    }
}

fn id(text: &str) -> Result<Uuid, End> {
    Uuid::try_parse(text).map_err(|_| End::Garbled("a task's id"))
}

/// The connection broke, which is nobody's fault.
fn is_hang_up(status: &Status) -> bool {
    matches!(
        status.code(),
        tonic::Code::Cancelled | tonic::Code::Unknown | tonic::Code::Unavailable
    )
}
