//! Files of tasks on their way to the manager: parts with a window, resumed where the manager says.
//!
//! INVARIANT: a task is verified when the manager has told that it has the whole file with the
//! right hash. The file stays in the spool until then.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use holdfast_common::link::CHUNK;
use holdfast_common::link::wire::{Chunk, ChunkStored, FromAgent, from_agent};
use tokio::sync::mpsc;

use super::blocking;
use super::session::{End, SessionError, send};
use super::store::{Order, Spooled, State};
use super::tasks::Tasks;

/// Parts on the way.
const WINDOW: u64 = 4;
/// The manager's answer to a part.
const ANSWER: Duration = Duration::from_secs(60);
/// Whole rounds without a byte more at the manager.
const STUCK: u32 = 3;

/// Delivers what waits in the spool, one file after the other.
pub(super) async fn run(
    tasks: &Arc<Tasks>,
    out: &mpsc::Sender<FromAgent>,
    answers: &mut mpsc::Receiver<ChunkStored>,
) -> Result<End, SessionError> {
    loop {
        let store = tasks.store();
        let waiting = blocking(move || store.tasks(State::Delivering)).await?;
        let Some((order, spooled)) = waiting.into_iter().next() else {
            tasks.spooled().await;
            continue;
        };
        let outcome = match &spooled {
            Some(spooled) => deliver(&order, spooled, out, answers).await?,
            None => Err("its file is not known".to_owned()),
        };
        let tasks = Arc::clone(tasks);
        blocking(move || tasks.delivered(&order, spooled.as_ref(), outcome)).await?;
    }
}

/// One file. The inner error is for the task, the outer one ends the session.
async fn deliver(
    order: &Order,
    spooled: &Spooled,
    out: &mpsc::Sender<FromAgent>,
    answers: &mut mpsc::Receiver<ChunkStored>,
) -> Result<Result<(), String>, SessionError> {
    let file = match File::open(&spooled.path) {
        Ok(file) => Arc::new(file),
        Err(error) => return Ok(Err(format!("its file in the spool is gone: {error}"))),
    };
    let Some(sha256) = from_hex(&spooled.sha256) else {
        return Ok(Err("its file in the spool has no hash".to_owned()));
    };
    let part = |offset, data: Vec<u8>, last: bool| Chunk {
        task: order.id.clone(),
        offset,
        data: data.into(),
        sha256: if last { sha256.clone().into() } else { Vec::new().into() },
        size: spooled.size,
    };
    let first = part(0, Vec::new(), false);
    send(out, from_agent::Message::Chunk(first)).await?;
    let mut answer = answered(order, answers).await?;
    let (mut stuck, mut furthest) = (0, None);
    loop {
        if !answer.refused.is_empty() {
            return Ok(Err(format!("the manager refuses it: {}", answer.refused)));
        }
        if answer.complete {
            return Ok(Ok(()));
        }
        if answer.offset > spooled.size || (furthest >= Some(answer.offset) && stuck >= STUCK) {
            return Ok(Err("the manager does not take it".to_owned()));
        }
        stuck = if furthest >= Some(answer.offset) { stuck + 1 } else { 0 };
        furthest = furthest.max(Some(answer.offset));
        let mut at = answer.offset;
        let mut sent = 0;
        // At the end one more, for the hash.
        while sent < WINDOW && (at < spooled.size || sent == 0) {
            let length = (spooled.size - at).min(CHUNK as u64);
            let data = match read(&file, at, length).await? {
                Ok(data) => data,
                Err(why) => return Ok(Err(why)),
            };
            let chunk = part(at, data, at + length == spooled.size);
            send(out, from_agent::Message::Chunk(chunk)).await?;
            at += length;
            sent += 1;
        }
        for _ in 0..sent {
            answer = answered(order, answers).await?;
            if !answer.refused.is_empty() {
                break;
            }
        }
    }
}

async fn read(
    file: &Arc<File>,
    at: u64,
    length: u64,
) -> Result<Result<Vec<u8>, String>, SessionError> {
    let file = Arc::clone(file);
    blocking(move || {
        let mut data = vec![0; usize::try_from(length).unwrap_or(CHUNK)];
        let read = file.read_exact_at(&mut data, at);
        let told = read.map(|()| data);
        Ok::<_, SessionError>(told.map_err(|error| format!("the spool cannot be read: {error}")))
    })
    .await
}

/// The next answer for this task; late ones of another are passed over.
async fn answered(
    order: &Order,
    answers: &mut mpsc::Receiver<ChunkStored>,
) -> Result<ChunkStored, SessionError> {
    loop {
        match tokio::time::timeout(ANSWER, answers.recv()).await {
            Ok(Some(answer)) if answer.task == order.id => return Ok(answer),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return Err(SessionError::Silent),
        }
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (text.len() == 64).then(|| (0..64).step_by(2).map(digit).collect())?
}
