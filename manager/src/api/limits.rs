//! How often somebody may ask: by the address that the connection comes from.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::http::Extensions;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::problem::Problem;

/// Requests a second from one address, and at once.
const REQUESTS: NonZeroU32 = NonZeroU32::new(100).expect("not zero");
const AT_ONCE: NonZeroU32 = NonZeroU32::new(400).expect("not zero");
/// Sign-ins from one address: ten at once, then one every six seconds.
const SIGN_INS: NonZeroU32 = NonZeroU32::new(10).expect("not zero");
const SIGN_IN_S: u64 = 6;
/// Requests between two times that old addresses are forgotten.
const FORGET: u32 = 4096;

/// The address that a connection comes from; nothing for a Unix socket.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub Option<SocketAddr>);

pub(super) struct Limits {
    requests: DefaultKeyedRateLimiter<IpAddr>,
    sign_ins: DefaultKeyedRateLimiter<IpAddr>,
    asked: AtomicU32,
}

/// The address to count for. One IPv6 network of 64 bits counts as one.
pub(super) fn peer(extensions: &Extensions) -> IpAddr {
    let peer = extensions.get::<ConnectInfo<Peer>>().and_then(|info| info.0.0);
    match peer.map(|peer| peer.ip().to_canonical()) {
        None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Some(IpAddr::V6(address)) => {
            let mut segments = address.segments();
            segments[4..].fill(0);
            IpAddr::from(segments)
        }
        Some(address) => address,
    }
}

impl Limits {
    pub(super) fn new() -> Self {
        let requests = Quota::per_second(REQUESTS).allow_burst(AT_ONCE);
        let sign_ins = Quota::with_period(Duration::from_secs(SIGN_IN_S))
            .unwrap_or(Quota::per_minute(SIGN_INS))
            .allow_burst(SIGN_INS);
        Self {
            requests: RateLimiter::keyed(requests),
            sign_ins: RateLimiter::keyed(sign_ins),
            asked: AtomicU32::new(0),
        }
    }

    pub(super) fn request(&self, peer: IpAddr) -> Result<(), Problem> {
        if self.asked.fetch_add(1, Ordering::Relaxed) % FORGET == FORGET - 1 {
            self.requests.retain_recent();
            self.sign_ins.retain_recent();
        }
        match self.requests.check_key(&peer) {
            Ok(()) => Ok(()),
            Err(_) => Err(Problem::later("too many requests from this address", 1)),
        }
    }

    pub(super) fn sign_in(&self, peer: IpAddr) -> Result<(), Problem> {
        let seconds = i64::try_from(SIGN_IN_S).unwrap_or(i64::MAX);
        match self.sign_ins.check_key(&peer) {
            Ok(()) => Ok(()),
            Err(_) => Err(Problem::later("too many sign-ins from this address", seconds)),
        }
    }
}
