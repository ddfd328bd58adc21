//! The listening side: accepts, checks who asks, bounds how many ask at once.

use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, oneshot};

use super::listen::SocketFile;
use super::{ControlError, Operator, connection, listen};

/// Requests carried out at once; the next one is told so.
const MAX_CONNECTIONS: usize = 32;
/// Pause after a failed accept (no descriptors left, for one).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long running requests are waited for when the server stops.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// The running server. Dropping it ends the requests and removes the socket.
#[derive(Debug)]
pub struct Server {
    stop: Option<oneshot::Sender<()>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    _file: SocketFile,
}

impl Server {
    /// Listens at `socket` and serves from a thread of its own.
    ///
    /// # Errors
    /// [`ControlError`]
    pub fn start(socket: &Path, operator: Arc<dyn Operator>) -> Result<Self, ControlError> {
        let (listener, file) = listen::listen(socket)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(MAX_CONNECTIONS)
            .build()
            .map_err(ControlError::Start)?;
        let stopping = Arc::new(AtomicBool::new(false));
        let (stop, stopped) = oneshot::channel();
        let flag = Arc::clone(&stopping);
        let thread = std::thread::Builder::new()
            .name("control".into())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = accept(listener, operator, flag) => {}
                        _ = stopped => {}
                    }
                });
                runtime.shutdown_timeout(STOP_LIMIT);
            })
            .map_err(ControlError::Start)?;
        Ok(Self { stop: Some(stop), stopping, thread: Some(thread), _file: file })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: StdListener, operator: Arc<dyn Operator>, stopping: Arc<AtomicBool>) {
    let listener = match UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the control socket cannot be served"),
    };
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a control connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if let Err(message) = admit(&stream) {
            tracing::warn!("{message}");
            connection::refuse(&stream, message);
            continue;
        }
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            let message =
                format!("the agent carries out {MAX_CONNECTIONS} requests already; try again");
            connection::refuse(&stream, message);
            continue;
        };
        let (operator, stopping) = (Arc::clone(&operator), Arc::clone(&stopping));
        tokio::spawn(async move {
            connection::serve(stream, operator, stopping).await;
            drop(place);
        });
    }
}

/// Root alone, by the credentials that the kernel noted at `connect` (`SO_PEERCRED`, unix(7)).
fn admit(stream: &UnixStream) -> Result<(), String> {
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == 0 => Ok(()),
        Ok(peer) => Err(format!("permission denied: uid {} is not root", peer.uid())),
        Err(error) => Err(format!("permission denied: the peer is unknown ({error})")),
    }
}
