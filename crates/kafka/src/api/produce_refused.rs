//! Produce in its first three versions, whose records have a format that Kafka itself has given up.
//!
//! The versions are advertised all the same: old librdkafka turns compression off when the first one
//! is not 0. It never uses them with a broker that has later ones. Whoever does is told in each
//! partition that the version is not supported.

use bytes::Bytes;
use sapwood_kafka_wire::{Reader, Wire};

use crate::{connection::Disconnect, context::Context, dispatch::Reply, errors::ErrorCode};

/// A request in versions 0 to 2.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 0, versions = "0-2", response = OldResponse)]
struct OldRequest {
    acks: i16,
    timeout_ms: i32,
    topics: Vec<OldRequestTopic>,
}

#[derive(Debug, Clone, PartialEq, Wire)]
struct OldRequestTopic {
    name: String,
    partitions: Vec<OldRequestPartition>,
}

#[derive(Debug, Clone, PartialEq, Wire)]
struct OldRequestPartition {
    index: i32,
    messages: Option<Bytes>,
}

/// A response in versions 0 to 2.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 0, versions = "0-2")]
struct OldResponse {
    topics: Vec<OldResponseTopic>,
    #[kafka(versions = "1+")]
    throttle_time_ms: i32,
}

#[derive(Debug, Clone, PartialEq, Wire)]
struct OldResponseTopic {
    name: String,
    partitions: Vec<OldResponsePartition>,
}

#[derive(Debug, Clone, PartialEq, Wire)]
struct OldResponsePartition {
    index: i32,
    error_code: i16,
    #[kafka(default = -1)]
    base_offset: i64,
    #[kafka(versions = "2+", default = -1)]
    log_append_time_ms: i64,
}

/// Refuses every partition.
pub(super) fn handle(context: &Context, body: Reader) -> Result<Reply, Disconnect> {
    let request: OldRequest = context.decode(body)?;
    let reason = "versions 0 to 2 of Produce are not served";
    if request.acks == 0 {
        context.refuse(ErrorCode::UnsupportedVersion, &reason);
        return Err(Disconnect::UnansweredFailure);
    }
    let partition = |partition: OldRequestPartition| OldResponsePartition {
        index: partition.index,
        error_code: context.refuse(ErrorCode::UnsupportedVersion, &reason),
        base_offset: -1,
        ..OldResponsePartition::default()
    };
    let topics = request.topics.into_iter().map(|topic| OldResponseTopic {
        name: topic.name,
        partitions: topic.partitions.into_iter().map(partition).collect(),
    });
    let response = OldResponse {
        topics: topics.collect(),
        ..OldResponse::default()
    };
    Ok(Reply::Ready(context.encode(&response)?))
}
