//! The port of the link: accepts, shakes hands within a limit, bounds who is let in.
//!
//! INVARIANT: a peer without a certificate has one of few places, for a short time; so hosts that
//! are enrolled are never kept out by strangers. Whatever is refused is counted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::app::LinkCounters as Counters;

/// Handshakes at once, and of one address: one that opens many keeps only its neighbours out.
const HANDSHAKES: usize = 1024;
const HANDSHAKES_OF_ONE: usize = 64;
/// One handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Peers without a certificate at once, and how long each may stay.
const STRANGERS: usize = 128;
const STRANGER: Duration = Duration::from_secs(30);
/// After a failed accept, for want of descriptors most likely.
const PAUSE: Duration = Duration::from_millis(50);

/// Who is at the other end.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// Lower-case hex, of the certificate that was verified.
    pub(super) serial: Option<Arc<str>>,
}

/// A connection behind its handshake. It keeps its place until it is dropped.
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    /// A stranger's end.
    end: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

/// What the listening side needs.
pub(super) struct Port {
    pub(super) listener: TcpListener,
    pub(super) tls: Arc<rustls::ServerConfig>,
    pub(super) counters: Arc<Counters>,
    pub(super) most_agents: usize,
}

impl Port {
    /// Accepts until nobody takes connections any more.
    pub(super) async fn run(self, connections: mpsc::Sender<io::Result<Connection>>) {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.tls));
        let places = Places {
            handshakes: Arc::default(),
            strangers: Arc::new(Semaphore::new(STRANGERS)),
            agents: Arc::new(Semaphore::new(self.most_agents)),
        };
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = connections.closed() => return,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            self.counters.accepted.fetch_add(1, Ordering::Relaxed);
            let Some(handshake) = places.handshake(address.ip()) else {
                self.counters.turned_away.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let (acceptor, connections) = (acceptor.clone(), connections.clone());
            let (places, counters) = (places.clone(), Arc::clone(&self.counters));
            tokio::spawn(async move {
                let shaken = shake_hands(acceptor, stream, address).await;
                drop(handshake);
                let counter = match shaken.map(|(stream, peer)| places.seat(stream, peer)) {
                    Ok(Some(connection)) => {
                        // The server is ending when nobody takes it.
                        let _ = connections.send(Ok(connection)).await;
                        return;
                    }
                    Ok(None) => &counters.turned_away,
                    Err(error) => {
                        tracing::debug!(%address, %error, "no handshake");
                        &counters.failed
                    }
                };
                counter.fetch_add(1, Ordering::Relaxed);
            });
        }
    }
}

#[derive(Clone)]
struct Places {
    handshakes: Arc<Mutex<HashMap<IpAddr, usize>>>,
    strangers: Arc<Semaphore>,
    agents: Arc<Semaphore>,
}

/// A handshake's place.
struct Handshake(Arc<Mutex<HashMap<IpAddr, usize>>>, IpAddr);

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = all.entry(self.1) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

impl Places {
    fn handshake(&self, address: IpAddr) -> Option<Handshake> {
        let mut all = self.handshakes.lock().unwrap_or_else(PoisonError::into_inner);
        if all.values().sum::<usize>() >= HANDSHAKES {
            return None;
        }
        let of_one = all.entry(address).or_default();
        if *of_one >= HANDSHAKES_OF_ONE {
            return None;
        }
        *of_one += 1;
        Some(Handshake(Arc::clone(&self.handshakes), address))
    }

    fn seat(&self, stream: TlsStream<TcpStream>, peer: Peer) -> Option<Connection> {
        let (places, end) = match peer.serial {
            Some(_) => (&self.agents, None),
            None => {
                let end = Instant::now() + STRANGER;
                (&self.strangers, Some(Box::pin(sleep_until(end))))
            }
        };
        let place = Arc::clone(places).try_acquire_owned().ok()?;
        Some(Connection { stream, peer, end, _place: place })
    }
}

async fn shake_hands(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
) -> io::Result<(TlsStream<TcpStream>, Peer)> {
    stream.set_nodelay(true)?;
    let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    // Verified by the handshake; only read here.
    let serial = match stream.get_ref().1.peer_certificates().and_then(<[_]>::first) {
        None => None,
        Some(der) => {
            let (_, certificate) = x509_parser::parse_x509_certificate(der)
                .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            Some(holdfast_common::wire::hex(certificate.raw_serial()).into())
        }
    };
    Ok((stream, Peer { address, serial }))
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(end) = &mut self.end
            && end.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
