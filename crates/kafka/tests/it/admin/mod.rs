//! The requests that administer topics and describe the cluster, at both ends of their versions.

mod altering;
mod cluster;
mod configs;
mod creating;
mod deleting;
mod describing;
mod records;

use sapwood_kafka::ErrorCode;

/// The name of an error on the wire.
fn error(number: i16) -> &'static str {
    ErrorCode::from_number(number).expect("a known code").name()
}

/// An error and its message, as answers with both have them.
fn refusal(number: i16, message: &Option<String>) -> (&'static str, String) {
    (error(number), message.clone().unwrap_or_default())
}
