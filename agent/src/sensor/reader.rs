//! The thread that reads the ring buffers.
//!
//! Invariant: a process record is applied to the table before any record of another ring that
//! came after it. When records were lost, the table is made from /proc again.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use aya::maps::{MapData, RingBuf};

use super::decode::{Record, network};
use super::programs::{LossCounter, OnDemand};
use super::shared::Shared;

/// How often the reader looks for losses while nothing comes.
const TICK: Duration = Duration::from_secs(1);
/// Records read of one ring before a look at the others, so that no storm can starve them.
const BATCH: usize = 4096;

/// The reader thread.
pub(super) struct Reader {
    pub(super) shared: Arc<Shared>,
    /// Exec, fork, exit.
    pub(super) process: RingBuf<MapData>,
    /// All others.
    pub(super) rings: Vec<RingBuf<MapData>>,
    pub(super) lost: LossCounter,
    pub(super) on_demand: Option<OnDemand>,
}

impl Reader {
    pub(super) fn run(mut self) {
        let mut lost = 0;
        loop {
            drain_processes(&mut self.process, &self.shared);
            let more = self.drain_others();
            let now = self.lost.total();
            if now != lost {
                lost = now;
                tracing::warn!(lost, "sensor records were lost; reading /proc again");
                self.shared.table.sync_with_proc();
            }
            if let Some(on_demand) = &mut self.on_demand {
                on_demand.tick();
            }
            if self.shared.stopping() {
                return;
            }
            if !more {
                let mut sources = vec![self.process.as_fd()];
                sources.extend(self.rings.iter().map(AsFd::as_fd));
                self.shared.wait(sources, TICK);
            }
        }
    }

    /// Reads records of the other rings, each after the process records that came before it.
    /// True when there may be more.
    fn drain_others(&mut self) -> bool {
        let mut more = false;
        for ring in &mut self.rings {
            let mut left = BATCH;
            while left > 0
                && let Some(item) = ring.next()
            {
                left -= 1;
                let record = Record::decode(&item);
                drop(item);
                drain_processes(&mut self.process, &self.shared);
                match record {
                    Ok((kind, record)) => {
                        prepare(&mut self.on_demand, &self.shared, &record);
                        self.shared.apply(kind, record);
                    }
                    Err(error) => tracing::error!(%error, "record"),
                }
            }
            more |= left == 0;
        }
        more
    }
}

/// First the program, then the poll: what happens to a socket before the program is there,
/// the poll sees in its listing.
fn prepare(on_demand: &mut Option<OnDemand>, shared: &Shared, record: &Record) {
    if let (Record::Network(network::Record::Capability(who)), Some(on_demand)) =
        (record, on_demand)
    {
        on_demand.want();
        shared.nudge(who.key.pid);
    }
}

fn drain_processes(process: &mut RingBuf<MapData>, shared: &Shared) {
    for _ in 0..BATCH {
        let Some(item) = process.next() else { return };
        let record = Record::decode(&item);
        drop(item);
        match record {
            Ok((kind, record)) => shared.apply(kind, record),
            Err(error) => tracing::error!(%error, "process record"),
        }
    }
}
