//! The Kafka door: existing Kafka clients work with the broker unmodified.
//!
//! [`Kafka::serve_connection`] runs one connection that somebody else accepted. A connection reads
//! frames ([`KafkaOptions`] has its bounds), the table in `dispatch` says who handles them, and
//! `api` has one file for each API. Only this crate knows Kafka's error codes ([`ErrorCode`]).

mod kafka;
mod options;

mod connection;
mod context;
mod dispatch;

mod api;
mod convert;
mod errors;
mod fetched;
mod sessions;

mod metrics;

pub use connection::{Advertised, ConnectionInfo};
pub use errors::ErrorCode;
pub use kafka::Kafka;
pub use metrics::{ApiMetrics, Metrics};
pub use options::KafkaOptions;
