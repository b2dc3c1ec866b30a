//! A client's connection and its slot under the connection limit.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use sapwood_grpc::Remote;
use sapwood_http::ConnectionCounters;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

/// A place under the connection limit, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    _permit: OwnedSemaphorePermit,
    counters: Arc<ConnectionCounters>,
    serves: Option<Door>,
}

/// Who serves a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// The native API.
    Grpc,
    /// Kafka's protocol.
    Kafka,
}

impl Slot {
    pub(crate) fn new(permit: OwnedSemaphorePermit, counters: Arc<ConnectionCounters>) -> Self {
        counters.opened();
        Self {
            _permit: permit,
            counters,
            serves: None,
        }
    }

    /// From here on it counts among the connections of a door.
    ///
    /// # Panics
    /// When it does already.
    pub(crate) fn goes_to(&mut self, door: Door) {
        assert_eq!(
            self.serves.replace(door),
            None,
            "a connection goes through one door"
        );
        match door {
            Door::Grpc => self.counters.grpc_opened(),
            Door::Kafka => self.counters.kafka_opened(),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.counters.closed();
        match self.serves {
            Some(Door::Grpc) => self.counters.grpc_closed(),
            Some(Door::Kafka) => self.counters.kafka_closed(),
            None => {}
        }
    }
}

/// A TCP stream that holds its slot for as long as it lives.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    _slot: Slot,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream, slot: Slot) -> Self {
        Self {
            stream,
            _slot: slot,
        }
    }
}

impl Remote for Connection {
    fn remote_address(&self) -> Option<SocketAddr> {
        self.stream.remote_address()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
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

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
