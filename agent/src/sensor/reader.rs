//! The thread that reads the ring buffers.
//!
//! Invariant: a process record is applied to the table before any record of another ring that
//! came after it. When records were lost, the table is made from /proc again.
//!
//! The process programs wake the reader at most every [`WAKE_EXEC_NS`] for execs, so after each
//! round that found something the next one comes by the clock, and only a round that found nothing
//! goes to sleep (see `send_process` in `ebpf/src/maps.rs`).

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aya::maps::{MapData, RingBuf};
use holdfast_common::abi::WAKE_EXEC_NS;

use super::decode::{Record, network};
use super::kernel_log::KernelLog;
use super::programs::{LossCounter, OnDemand};
use super::shared::Shared;

/// How often the reader looks for losses and ended windows while nothing comes.
const TICK: Duration = Duration::from_secs(1);
/// Between two rounds while something comes: what wakes nobody is then in the ring.
const ROUND: Duration = Duration::from_nanos(WAKE_EXEC_NS);
/// How often while something comes, or waits to be told.
const CHECK: Duration = Duration::from_millis(200);
/// Records read of one ring before a look at the others, so that no storm can starve them.
const BATCH: usize = 4096;
/// linux/capability.h
const CAP_NET_RAW: u32 = 13;

/// The reader thread.
pub(super) struct Reader {
    pub(super) shared: Arc<Shared>,
    /// Exec, fork, exit, credentials.
    pub(super) process: RingBuf<MapData>,
    /// All others.
    pub(super) rings: Vec<RingBuf<MapData>>,
    pub(super) lost: LossCounter,
    /// Losses that are known.
    pub(super) seen_lost: u64,
    pub(super) log: Option<KernelLog>,
    pub(super) on_demand: Option<OnDemand>,
}

/// What a round found.
#[derive(PartialEq, Eq)]
enum Found {
    Nothing,
    Something,
    /// There may be more.
    TooMuch,
}

impl Reader {
    /// Reads until the sensor stops, then what is left.
    pub(super) fn run(mut self) {
        let mut checked = Instant::now();
        loop {
            // Looked at before the round: what was in the rings when it stopped is still read.
            let last = self.shared.stopping();
            let found = self.round();
            if checked.elapsed() >= CHECK {
                checked = Instant::now();
                self.check();
            }
            match found {
                Found::Nothing if last => return self.shared.tell_due(true),
                Found::Nothing => self.shared.wait(&self.sources(true), self.patience()),
                Found::Something if !last => self.shared.wait(&self.sources(false), ROUND),
                Found::Something | Found::TooMuch => {}
            }
        }
    }

    /// What need not be looked at in each round.
    fn check(&mut self) {
        let now = self.lost.total();
        if now != self.seen_lost {
            self.seen_lost = now;
            tracing::warn!(lost = now, "sensor records were lost; reading /proc again");
            self.shared.table.sync_with_proc();
        }
        if let Some(on_demand) = &mut self.on_demand {
            on_demand.tick();
        }
        if let Some(log) = &mut self.log {
            log.drain();
        }
        self.shared.tell_due(false);
    }

    /// A storm that has just ended is told soon.
    fn patience(&self) -> Duration {
        if self.shared.holds_something() { CHECK } else { TICK }
    }

    fn sources(&self, with_processes: bool) -> Vec<BorrowedFd<'_>> {
        let process = with_processes.then(|| self.process.as_fd());
        process.into_iter().chain(self.rings.iter().map(AsFd::as_fd)).collect()
    }

    /// Reads records of the other rings, each after the process records that came before it.
    fn round(&mut self) -> Found {
        let mut found = drain_processes(&mut self.process, &self.shared);
        for ring in &mut self.rings {
            let mut left = BATCH;
            while left > 0
                && let Some(item) = ring.next()
            {
                left -= 1;
                drain_processes(&mut self.process, &self.shared);
                match Record::decode(&item) {
                    Ok((kind, record)) => {
                        prepare(&mut self.on_demand, &self.shared, &record);
                        self.shared.apply(kind, record);
                    }
                    Err(_) => self.shared.lose(&item),
                }
            }
            if left == 0 {
                found = Found::TooMuch;
            } else if left < BATCH && found == Found::Nothing {
                found = Found::Something;
            }
        }
        found
    }
}

/// First the program, then the poll: what happens to a socket before the program is there,
/// the poll sees in its listing.
fn prepare(on_demand: &mut Option<OnDemand>, shared: &Shared, record: &Record<'_>) {
    if let (Record::Network(network::Record::Capability(who, CAP_NET_RAW)), Some(on_demand)) =
        (record, on_demand)
    {
        on_demand.want();
        shared.nudge(who.key.pid);
    }
}

fn drain_processes(process: &mut RingBuf<MapData>, shared: &Shared) -> Found {
    let mut found = Found::Nothing;
    for _ in 0..BATCH {
        let Some(item) = process.next() else { return found };
        found = Found::Something;
        match Record::decode(&item) {
            Ok((kind, record)) => shared.apply(kind, record),
            Err(_) => shared.lose(&item),
        }
    }
    Found::TooMuch
}
