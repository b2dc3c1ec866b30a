//! Counts of connections, kept by whoever accepts them and shown by `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why a connection ended before it was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// Too many were open.
    Limit,
    /// It showed no protocol in time.
    HandshakeTimeout,
    /// The client closed it, or lost it, before it showed its protocol.
    ClosedEarly,
    /// The client speaks TLS.
    Tls,
    /// The client speaks HTTP/1 on a port that does not.
    Http1,
}

impl ConnectionEnd {
    const ALL: [Self; 5] = [
        Self::Limit,
        Self::HandshakeTimeout,
        Self::ClosedEarly,
        Self::Tls,
        Self::Http1,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::ClosedEarly => "closed_early",
            Self::Tls => "tls",
            Self::Http1 => "http1",
        }
    }
}

/// Connections of all listeners since the start. Counting never blocks.
#[derive(Debug, Default)]
pub struct ConnectionCounters {
    opened: AtomicU64,
    closed: AtomicU64,
    grpc_opened: AtomicU64,
    grpc_closed: AtomicU64,
    kafka_opened: AtomicU64,
    kafka_closed: AtomicU64,
    turned_away: [AtomicU64; ConnectionEnd::ALL.len()],
}

impl ConnectionCounters {
    /// Counts a connection that was accepted and holds a place under the limit.
    pub fn opened(&self) {
        self.opened.fetch_add(1, Relaxed);
    }

    /// Counts the end of a connection that [`ConnectionCounters::opened`] counted.
    pub fn closed(&self) {
        self.closed.fetch_add(1, Relaxed);
    }

    /// Counts an open connection that turned out to be gRPC.
    pub fn grpc_opened(&self) {
        self.grpc_opened.fetch_add(1, Relaxed);
    }

    /// Counts the end of a gRPC connection.
    pub fn grpc_closed(&self) {
        self.grpc_closed.fetch_add(1, Relaxed);
    }

    /// Counts an open connection that turned out to be Kafka's.
    pub fn kafka_opened(&self) {
        self.kafka_opened.fetch_add(1, Relaxed);
    }

    /// Counts the end of a Kafka connection.
    pub fn kafka_closed(&self) {
        self.kafka_closed.fetch_add(1, Relaxed);
    }

    /// Counts a connection that was not served.
    pub fn turned_away(&self, end: ConnectionEnd) {
        self.turned_away[end as usize].fetch_add(1, Relaxed);
    }

    /// Connections accepted since the start.
    pub fn accepted(&self) -> u64 {
        self.opened.load(Relaxed)
    }

    /// Connections open now, whatever they speak.
    pub fn open(&self) -> u64 {
        // `closed` first: a connection that opens and closes in between must not count below zero.
        let closed = self.closed.load(Relaxed);
        self.opened.load(Relaxed).saturating_sub(closed)
    }

    /// gRPC connections open now.
    pub fn open_grpc(&self) -> u64 {
        let closed = self.grpc_closed.load(Relaxed);
        self.grpc_opened.load(Relaxed).saturating_sub(closed)
    }

    /// Kafka connections open now.
    pub fn open_kafka(&self) -> u64 {
        let closed = self.kafka_closed.load(Relaxed);
        self.kafka_opened.load(Relaxed).saturating_sub(closed)
    }

    /// Connections that were not served, by reason, as `(label, count)`.
    pub fn ends(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        ConnectionEnd::ALL
            .into_iter()
            .map(|end| (end.label(), self.turned_away[end as usize].load(Relaxed)))
    }

    /// Connections that were not served for this reason.
    pub fn ended(&self, end: ConnectionEnd) -> u64 {
        self.turned_away[end as usize].load(Relaxed)
    }
}
