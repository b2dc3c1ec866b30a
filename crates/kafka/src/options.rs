//! Settings and bounds of the Kafka door.

use std::time::Duration;

/// The settings of the Kafka door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaOptions {
    /// The id under which clients know this broker, 0 or more.
    pub broker_id: i32,
    /// A connection that sends nothing and waits for nothing, or that takes none of its answers, is
    /// closed after this (Kafka's `connections.max.idle.ms`).
    pub idle_timeout: Duration,
    /// How long the rest of a frame may take once its length is known; large frames get a second
    /// more for every 64 KiB.
    pub frame_timeout: Duration,
    /// Requests of one connection that are not answered yet. Past it, the socket is not read.
    pub requests_in_flight_max: usize,
    /// Bytes of answers that wait for one connection's socket, and of fetches that wait for their turn,
    /// before its next request is read. One answer or fetch may be more than that.
    pub response_bytes_max: usize,
    /// Bytes of fetched batches on their way to slow clients that the whole broker holds. When many
    /// are held, fetches are answered with fewer.
    pub fetched_bytes_max: usize,
    /// Fetch sessions kept at once. One that was not used for 2 minutes makes room for a new one; when
    /// there is none, clients name everything in each fetch.
    pub fetch_sessions_max: usize,
    /// Partitions in all fetch sessions together.
    pub fetch_session_partitions_max: usize,
}

impl Default for KafkaOptions {
    /// Broker 1; 10 minutes idle; 30 seconds for a frame; 128 requests in flight; 1 MiB of answers
    /// queued; 128 MiB fetched; 1,000 sessions with 500,000 partitions.
    fn default() -> Self {
        Self {
            broker_id: 1,
            idle_timeout: Duration::from_secs(10 * 60),
            frame_timeout: Duration::from_secs(30),
            requests_in_flight_max: 128,
            response_bytes_max: 1 << 20,
            fetched_bytes_max: 128 << 20,
            fetch_sessions_max: 1000,
            fetch_session_partitions_max: 500_000,
        }
    }
}
