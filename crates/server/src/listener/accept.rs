//! Accepting connections without spinning when the process or the machine is out of something.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tracing::{debug, warn};

const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A listening socket that survives errors of `accept`.
#[derive(Debug)]
pub(crate) struct Acceptor {
    listener: TcpListener,
    pause: Duration,
}

impl Acceptor {
    pub(crate) fn new(listener: TcpListener) -> Self {
        Self {
            listener,
            pause: PAUSE_MIN,
        }
    }

    /// The next connection. Cancel safe. A connection that died in the queue is passed over; when
    /// descriptors or memory are short this waits, longer each time, because the same error would
    /// come back at once: the connection stays in the queue.
    pub(crate) async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    self.pause = PAUSE_MIN;
                    // An answer must not wait for more bytes to fill a segment.
                    if let Err(error) = stream.set_nodelay(true) {
                        debug!(%peer, %error, "connection closed before it was accepted");
                        continue;
                    }
                    return (stream, peer);
                }
                Err(error) if is_of_the_connection(&error) => {
                    debug!(%error, "connection closed before it was accepted");
                }
                Err(error) => {
                    let pause = self.pause;
                    self.pause = (pause * 2).min(PAUSE_MAX);
                    warn!(event = "connections.accept_failed", %error, ?pause, "cannot accept connections");
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}

/// Whether an error of `accept` concerns only the connection that it would have returned.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
