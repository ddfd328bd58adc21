//! Starts workers for the loops, in a thread of its own: starting one takes milliseconds and
//! opens files, which the held path must not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::on_access::inbox::{Inbox, Message};
use crate::scan::WorkerFactory;

/// Between two attempts while workers do not start: first and last pause.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// Orders workers.
#[derive(Clone)]
pub(super) struct Nursery {
    orders: mpsc::Sender<(usize, usize)>,
}

impl Nursery {
    /// Begins the thread. It ends when the last loop has dropped its handle. `failing` is true
    /// while workers do not start.
    pub(super) fn start(
        factory: Arc<WorkerFactory>,
        inboxes: Vec<Arc<Inbox>>,
        failing: Arc<AtomicBool>,
    ) -> std::io::Result<Self> {
        let (orders, taken) = mpsc::channel();
        std::thread::Builder::new()
            .name("nursery".to_owned())
            .spawn(move || raise(&factory, &inboxes, &failing, &taken))?;
        Ok(Self { orders })
    }

    /// Asks for a worker for one seat of one loop. Each seat has at most one open order.
    pub(super) fn order(&self, of_loop: usize, seat: usize) {
        // The thread ends after the loops.
        let _ = self.orders.send((of_loop, seat));
    }
}

fn raise(
    factory: &WorkerFactory,
    inboxes: &[Arc<Inbox>],
    failing: &AtomicBool,
    orders: &mpsc::Receiver<(usize, usize)>,
) {
    let mut pause = FIRST_PAUSE;
    while let Ok((of_loop, seat)) = orders.recv() {
        let worker = loop {
            match factory.spawn() {
                Ok(worker) => break worker,
                Err(error) => {
                    if !failing.swap(true, Ordering::Relaxed) {
                        tracing::error!(error = %crate::error_chain(&error), "scan worker does not start");
                    }
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(LAST_PAUSE);
                }
            }
        };
        failing.store(false, Ordering::Relaxed);
        pause = FIRST_PAUSE;
        if let Some(inbox) = inboxes.get(of_loop) {
            inbox.send(Message::Worker { seat, worker });
        }
    }
}
