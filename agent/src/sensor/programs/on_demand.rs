//! The socket program's switch: it costs every system call of the host while it is attached, so
//! it is attached only while somebody uses `CAP_NET_RAW`, where the kernel tells (6.14 on).

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::programs::RawTracePoint;
use aya::programs::raw_trace_point::RawTracePointLinkId;
use holdfast_common::abi::Kind;

use super::attach::{Link, chain};
use super::{Loaded, lock};

/// Attaches the socket program while it is wanted: each system call of the whole host costs more
/// (about 200 ns on the machine where it was measured) as long as it is there.
pub(in crate::sensor) struct OnDemand {
    object: Arc<Mutex<Option<Ebpf>>>,
    attached: Option<(RawTracePointLinkId, Instant)>,
}

impl OnDemand {
    /// Attached this long after the last wish.
    const STAY: Duration = Duration::from_secs(30);

    pub(super) fn new(object: Arc<Mutex<Option<Ebpf>>>) -> Self {
        Self { object, attached: None }
    }

    /// Attaches it, or lets it stay.
    pub(in crate::sensor) fn want(&mut self) {
        let until = Instant::now() + Self::STAY;
        if let Some((_, end)) = &mut self.attached {
            *end = until;
            return;
        }
        let mut object = lock(&self.object);
        let Some(program) = object.as_mut().and_then(sockets) else { return };
        match program.attach("sys_exit") {
            Ok(link) => self.attached = Some((link, until)),
            Err(error) => tracing::error!(error = chain(&error), "cannot attach to sys_exit"),
        }
    }

    /// Detaches it when nobody wants it any more.
    pub(in crate::sensor) fn tick(&mut self) {
        let Some((link, end)) = self.attached.take() else { return };
        if Instant::now() < end {
            self.attached = Some((link, end));
            return;
        }
        if let Some(program) = lock(&self.object).as_mut().and_then(sockets)
            && let Err(error) = program.detach(link)
        {
            tracing::error!(error = chain(&error), "cannot detach from sys_exit");
        }
    }
}

/// Takes the socket program off again when the kernel tells who uses `CAP_NET_RAW`. Before 6.14
/// it does not, and the program stays.
pub(super) fn detach_until_wanted(object: &mut Ebpf, loaded: &mut [Loaded]) -> bool {
    let active =
        |kind| loaded.iter().position(|one| one.active && one.program.kinds.contains(&kind));
    let (Some(_), Some(at)) = (active(Kind::Capability), active(Kind::Socket)) else {
        return false;
    };
    match loaded[at].link.take() {
        Some(Link::RawTracepoint(link)) => {
            sockets(object).is_some_and(|program| program.detach(link).is_ok())
        }
        Some(Link::Object) | None => false,
    }
}

fn sockets(object: &mut Ebpf) -> Option<&mut RawTracePoint> {
    object.program_mut("network_sockets")?.try_into().ok()
}
