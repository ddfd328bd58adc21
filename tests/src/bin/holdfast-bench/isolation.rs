//! How long packets still leave after `isolate`: in a lab's namespaces, on its veth.
//!
//! Two senders flood all the time, one by UDP and one by a packet socket that goes past the
//! queues, the worst case. What counts is when the last of their packets arrives outside, seen
//! from the call.

use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use holdfast_agent::config;
use holdfast_agent::isolate::Isolation;
use holdfast_agent::sys::packet::Sender;
use holdfast_tests::lab::{HOST_INTERFACE, Lab, udp_frame};
use holdfast_tests::until;

use crate::figures::{Figures, percentile};

/// Rounds of one measurement.
const ROUNDS: usize = 20;
/// Where the senders send.
const TARGET: &str = "10.77.0.3:7001";
/// And at the latest after this.
const LONGEST: Duration = Duration::from_secs(15);
/// A round is over when nothing has arrived for this long.
const QUIET: Duration = Duration::from_millis(300);

/// Adds the figure.
///
/// # Errors
/// As [`isolate_latency_ms`].
pub fn measure_into(figures: &mut Figures) -> Result<()> {
    let value = isolate_latency_ms()?;
    let meaning = "isolate to the last packet out, p95 of 20, ms";
    figures.add("isolate_latency_ms", value, meaning, Some("<= 50"));
    Ok(())
}

/// From the call of `isolate` to the last packet out: the value, in ms, below which 95 of 100
/// lie, of 20 rounds.
///
/// # Errors
/// When the lab cannot be built, or a round does not go as it should.
pub fn isolate_latency_ms() -> Result<f64> {
    let lab = Lab::new()?;
    let state = tempfile::tempdir()?;
    // These sockets are the outside's: made before this process is in the cgroup that is cut off.
    let listen = || Ok(TcpListener::bind("10.77.0.2:8443")?);
    let _manager = lab.inside("outside", listen)?;
    let observer = lab.inside("outside", || Ok(UdpSocket::bind(TARGET)?))?;
    observer.set_read_timeout(Some(Duration::from_millis(1)))?;
    std::fs::write(lab.cgroup().join("cgroup.procs"), std::process::id().to_string())?;
    let measured = measure(&lab, state.path(), &observer);
    let root = lab.cgroup().parent().context("the root cgroup")?;
    std::fs::write(root.join("cgroup.procs"), std::process::id().to_string())?;
    let rounds = measured?;
    eprintln!("isolate, ms: {rounds:.1?}");
    Ok(percentile(&rounds, 0.95))
}

fn measure(lab: &Lab, state: &Path, observer: &UdpSocket) -> Result<Vec<f64>> {
    let config = config::Isolation {
        allow: vec!["10.77.0.2:8443".to_owned()],
        dhcp: Some(Vec::new()),
        cgroup: Some(lab.cgroup().to_owned()),
        pins: lab.pins(),
    };
    let start = || Ok(Isolation::start(config, state.to_owned(), Box::new(|_| {}))?);
    let isolation = lab.inside("host", start)?;
    let _senders = [flood(lab, "udp")?, flood(lab, "frames")?];
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(round(lab, &isolation, observer)?);
    }
    Ok(rounds)
}

fn round(lab: &Lab, isolation: &Isolation, observer: &UdpSocket) -> Result<f64> {
    both_arrive(observer)?;
    let over = AtomicBool::new(false);
    let (called, last) = std::thread::scope(|scope| -> Result<(Instant, Instant)> {
        let last = scope.spawn(|| last_arrival(observer, &over));
        let isolated = lab.inside("host", || {
            let called = Instant::now();
            isolation.isolate("bench", None)?;
            Ok(called)
        });
        over.store(true, Ordering::Relaxed);
        let last = last.join().map_err(|_| anyhow::anyhow!("the observer panicked"))?;
        Ok((isolated?, last))
    })?;
    lab.inside("host", || Ok(isolation.release("bench")?))?;
    Ok(last.saturating_duration_since(called).as_secs_f64() * 1000.0)
}

fn both_arrive(observer: &UdpSocket) -> Result<()> {
    for kind in ["udp", "frames"] {
        let mut buffer = [0; 2048];
        let arrives = || {
            let length = observer.recv(&mut buffer).ok()?;
            (&buffer[..length] == kind.as_bytes()).then_some(())
        };
        until(Duration::from_secs(10), arrives).with_context(|| format!("{kind} do not arrive"))?;
    }
    Ok(())
}

/// When the last one of either kind arrived, once it is quiet.
fn last_arrival(observer: &UdpSocket, over: &AtomicBool) -> Instant {
    let begin = Instant::now();
    let mut last = begin;
    let mut buffer = [0; 2048];
    loop {
        if observer.recv(&mut buffer).is_ok() {
            last = Instant::now();
        }
        let over = over.load(Ordering::Relaxed);
        // Never quiet: it was not cut off, and the last one is as late as it was looked for.
        if over && (last.elapsed() >= QUIET || begin.elapsed() >= LONGEST) {
            return last;
        }
    }
}

struct Flood(Child);

impl Drop for Flood {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn flood(lab: &Lab, kind: &str) -> Result<Flood> {
    let own = std::env::current_exe()?;
    let mut command: Command = lab.command("host", own.to_str().context("a path")?);
    Ok(Flood(command.args(["flood", kind]).spawn().context("start a sender")?))
}

/// The sender's process: sends until it is killed.
pub fn send_all_the_time(kind: &str) -> Result<()> {
    let pause = Duration::from_micros(200);
    if kind == "udp" {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        loop {
            // Refused while the host is cut off.
            let _ = socket.send_to(kind.as_bytes(), TARGET);
            std::thread::sleep(pause);
        }
    }
    let any = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )?;
    let index = rustix::net::netdevice::name_to_index(any, HOST_INTERFACE)?;
    let sender = Sender::open(index, true)?;
    let frame = udp_frame(kind.as_bytes());
    loop {
        // As above.
        let _ = sender.send(&frame);
        std::thread::sleep(pause);
    }
}
