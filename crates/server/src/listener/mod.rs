//! The port that serves both protocols: each connection goes where its first bytes say.
//!
//! A connection that opens with HTTP/2's preface is gRPC and is handed over, with its slot under the
//! connection limit, to the gRPC server. TLS and HTTP/1 are mistakes that are named: in the log, and
//! to an HTTP/1 client with an answer. Whatever is left goes to the Kafka server, which knows its own
//! from garbage.

mod accept;
mod connection;
mod sniff;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sapwood_broker::Throttle;
use sapwood_http::{ConnectionCounters, ConnectionEnd};
use sapwood_kafka::{Advertised, ConnectionInfo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, warn};

pub(crate) use accept::Acceptor;
use connection::Door;
pub(crate) use connection::{Connection, Slot};

use crate::kafka::KafkaConnection;
use sniff::{Protocol, sniff};

/// How long a client that speaks the wrong protocol may take to read its answer.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);
/// How much more of it is read meanwhile, so that closing does not reset the answer away.
const FAREWELL_BYTES_MAX: u64 = 16 << 10;
/// Mistakes of one kind are logged at most this often.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// What all listeners share.
#[derive(Debug)]
pub(crate) struct Shared {
    slots: Arc<Semaphore>,
    connections_max: u64,
    handshake_timeout: Duration,
    counters: Arc<ConnectionCounters>,
    http: Option<SocketAddr>,
    /// What the throttles count from.
    began: Instant,
    full: Throttle,
    tls: Throttle,
    http1: Throttle,
}

/// The limits of [`Shared`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct ListenerLimits {
    /// Connections at a time over all listeners.
    pub(crate) connections: u64,
    /// How long a connection may take to show its protocol.
    pub(crate) handshake_timeout: Duration,
}

impl Shared {
    /// `http` is where HTTP is served, for the hint to a client that asks here for it.
    pub(crate) fn new(
        limits: ListenerLimits,
        counters: Arc<ConnectionCounters>,
        http: Option<SocketAddr>,
    ) -> Self {
        let slots = usize::try_from(limits.connections).unwrap_or(usize::MAX);
        Self {
            slots: Arc::new(Semaphore::new(slots.min(Semaphore::MAX_PERMITS))),
            connections_max: limits.connections,
            handshake_timeout: limits.handshake_timeout,
            counters,
            http,
            began: Instant::now(),
            full: Throttle::new(WARN_INTERVAL),
            tls: Throttle::new(WARN_INTERVAL),
            http1: Throttle::new(WARN_INTERVAL),
        }
    }
}

/// Where one listener's connections go, and what the listener is called.
#[derive(Debug, Clone)]
pub(crate) struct Doors {
    pub(crate) grpc: mpsc::Sender<Connection>,
    pub(crate) kafka: mpsc::Sender<KafkaConnection>,
    /// The listener's name.
    pub(crate) name: Arc<str>,
    /// What Kafka clients are told to connect to, if not what they did connect to.
    pub(crate) advertised: Option<Advertised>,
}

/// Accepts on `listener` until `stop` turns true or its sender goes, and sends connections to their
/// doors. Connections whose protocol is not known by then are closed.
pub(crate) async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    doors: Doors,
    mut stop: watch::Receiver<bool>,
) {
    let mut acceptor = Acceptor::new(listener);
    let mut unknown = JoinSet::new();
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            Some(_) = unknown.join_next() => {}
            (stream, peer) = acceptor.accept() => {
                if let Some(slot) = take_slot(&shared, peer) {
                    unknown.spawn(greet(stream, peer, slot, Arc::clone(&shared), doors.clone()));
                }
            }
        }
    }
}

/// A place under the connection limit; `None` closes the connection, so that the client knows at
/// once instead of waiting in a queue.
fn take_slot(shared: &Shared, peer: SocketAddr) -> Option<Slot> {
    if let Ok(permit) = Arc::clone(&shared.slots).try_acquire_owned() {
        return Some(Slot::new(permit, Arc::clone(&shared.counters)));
    }
    shared.counters.turned_away(ConnectionEnd::Limit);
    if let Some(suppressed) = shared.full.pass(shared.began.elapsed()) {
        warn!(
            event = "connections.limit_reached",
            %peer,
            limits.connections = shared.connections_max,
            suppressed,
            "connection closed: too many are open"
        );
    }
    None
}

/// Finds out what `stream` speaks and sends it there.
async fn greet(
    stream: TcpStream,
    peer: SocketAddr,
    mut slot: Slot,
    shared: Arc<Shared>,
    doors: Doors,
) {
    let protocol = match timeout(shared.handshake_timeout, sniff(&stream)).await {
        Ok(Ok(Some(protocol))) => protocol,
        Ok(Ok(None)) => {
            shared.counters.turned_away(ConnectionEnd::ClosedEarly);
            debug!(%peer, "connection closed before it sent a request");
            return;
        }
        Ok(Err(error)) => {
            shared.counters.turned_away(ConnectionEnd::ClosedEarly);
            debug!(%peer, %error, "connection lost before it sent a request");
            return;
        }
        Err(_elapsed) => {
            shared.counters.turned_away(ConnectionEnd::HandshakeTimeout);
            debug!(%peer, handshake_timeout = ?shared.handshake_timeout, "connection sent no request in time");
            return;
        }
    };
    match protocol {
        Protocol::Http2 => {
            slot.goes_to(Door::Grpc);
            // The receiver goes only when the gRPC server has stopped: then this one closes too.
            let _ = doors.grpc.send(Connection::new(stream, slot)).await;
        }
        Protocol::Kafka => {
            slot.goes_to(Door::Kafka);
            let info = ConnectionInfo {
                listener: doors.name,
                advertised: doors.advertised,
                peer,
            };
            let connection = KafkaConnection { stream, info, slot };
            let _ = doors.kafka.send(connection).await;
        }
        Protocol::Tls => {
            shared.counters.turned_away(ConnectionEnd::Tls);
            if let Some(suppressed) = shared.tls.pass(shared.began.elapsed()) {
                warn!(
                    event = "connections.tls_refused",
                    %peer,
                    suppressed,
                    "connection closed: the client speaks TLS and this listener does not"
                );
            }
        }
        Protocol::Http1 => {
            shared.counters.turned_away(ConnectionEnd::Http1);
            if let Some(suppressed) = shared.http1.pass(shared.began.elapsed()) {
                warn!(
                    event = "connections.http1_refused",
                    %peer,
                    suppressed,
                    "connection closed: the client speaks HTTP/1 and this listener does not"
                );
            }
            // Whether the hint arrives matters to nobody but the client.
            let _ = timeout(FAREWELL_TIMEOUT, answer_http1(stream, shared.http)).await;
        }
    }
}

/// Answers an HTTP/1 request with where HTTP is.
async fn answer_http1(mut stream: TcpStream, http: Option<SocketAddr>) -> std::io::Result<()> {
    let place = match http {
        Some(address) => format!("HTTP (health and metrics) is on http://{address}"),
        None => "HTTP is switched off (http.address)".to_owned(),
    };
    let body = format!("This port speaks gRPC over HTTP/2 and Kafka's protocol. {place}.\n");
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await?;
    // Closing with unread bytes sends a reset, which may overtake the answer.
    let mut rest = stream.take(FAREWELL_BYTES_MAX);
    let mut sink = [0; 1024];
    while rest.read(&mut sink).await? > 0 {}
    Ok(())
}
