//! What the gRPC front door is told.

use std::time::Duration;

/// Settings of [`serve`](crate::serve).
#[derive(Debug, Clone)]
pub struct GrpcOptions {
    /// The largest request message in bytes. It bounds what one stream may hold while a message
    /// arrives. 33 MiB by default: the largest batch of an fsync topic with default journals fits.
    pub message_bytes_max: usize,
    /// How many calls one connection may have at once. 256 by default.
    pub streams_per_connection_max: u32,
    /// How many produce requests of one stream may wait for durability while further ones are being
    /// appended; then the stream is not read. 1,024 by default.
    pub produce_in_flight_max: usize,
    /// How many partitions one fetch stream may read. 20,000 by default.
    pub subscriptions_max: usize,
    /// How often a quiet connection is asked whether its client is still there. 60 s by default.
    pub keep_alive_interval: Duration,
    /// How long the answer to that may take before the connection is closed. 20 s by default.
    pub keep_alive_timeout: Duration,
    /// How long connections may take to end after the shutdown; then they are cut. 5 s by default.
    pub shutdown_grace: Duration,
}

impl Default for GrpcOptions {
    fn default() -> Self {
        Self {
            message_bytes_max: 33 << 20,
            streams_per_connection_max: 256,
            produce_in_flight_max: 1024,
            subscriptions_max: 20_000,
            keep_alive_interval: Duration::from_secs(60),
            keep_alive_timeout: Duration::from_secs(20),
            shutdown_grace: Duration::from_secs(5),
        }
    }
}
