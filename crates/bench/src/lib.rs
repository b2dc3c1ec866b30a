//! How fast a broker is, measured from outside: over the Kafka protocol any broker that speaks it, over gRPC
//! Sapwood.
//!
//! A load is **open-loop** unless its rate is [`Rate::Max`]: the n-th record is due at a time that was fixed before
//! the run, and its latency counts from that time, also when the generator or the broker was late. A broker that
//! stands still for a second is thereby charged with the wait of every record that was due in that second
//! (G. Tene calls the opposite "coordinated omission"). With [`Rate::Max`] the loop is closed: the next record is
//! made when there is room for it, which shows the ceiling and says little about latency.
//!
//! Every record carries who made it, its number and a checksum ([`stamp`](self)), so that a run says how many
//! records were lost, came twice, came out of order or were changed.
//!
//! ```text
//! plan        what to do, and its bounds
//! shape       how long records and which keys; the bytes of a record, and their check
//! clock       time of a run, and when which record is due
//! producer    one thread for each producer: makes records when they are due, in batches
//! consumer    one thread for each consumer: reads, checks, measures
//! kafka/      connections, metadata, produce and fetch of the Kafka protocol, with blocking sockets
//! grpc        the same through sapwood-client
//! watch       CPU time and memory of the broker's process, throughput over time
//! run         the three runs: produce, consume, e2e
//! report/     what came out: JSON, a table, a page with plots, the comparison of two
//! null        a listener that only acknowledges: the generator's own ceiling
//! ```
//!
//! Threads block and sleep with a timer slack of 1 ns: an asynchronous timer of 1 ms would be the largest part of
//! a latency of 100 us.

mod clock;
mod consumer;
mod error;
mod grpc;
mod kafka;
mod latency;
mod ledger;
mod null;
mod plan;
mod producer;
mod report;
mod run;
mod shape;
mod watch;

pub use error::Error;
pub use null::NullBroker;
pub use plan::{Keys, Load, Payload, Plan, Protocol, Rate, Sizes, Topic};
pub use report::{Change, Comparison, Report, Verdict};
pub use run::{consume, e2e, produce};
