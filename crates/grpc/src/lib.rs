//! The native API's tonic services over the broker's core.
//!
//! [`serve`] serves connections that the caller accepted: the server crate tells gRPC from Kafka by
//! a connection's first bytes and hands over what opens with the HTTP/2 preface. Batches travel as
//! the bytes that are stored: a produced batch is a slice of the received message until it is copied
//! into its segment, and nothing here is done once for each record of one.
//!
//! What clients can make the broker hold: a connection's flow-control window, one message of
//! [`GrpcOptions::message_bytes_max`] for each of its streams while it arrives, and then, until it is
//! in the log, its length in the broker's budget, of which each connection gets a share.

mod options;
mod serve;
mod storage;

mod fetch;
mod groups;
mod produce;
mod topics;

mod convert;
mod cut;
mod error;

pub use cut::Remote;
pub use options::GrpcOptions;
pub use serve::{ServeError, serve};
