//! Produce in the versions before record batches, which the codec does not know.

use bytes::Bytes;
use sapwood_kafka_wire::Wire;

/// A produce request in the versions before record batches.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 0, versions = "0-2", response = OldResponse)]
pub(crate) struct OldRequest {
    pub(crate) acks: i16,
    pub(crate) timeout_ms: i32,
    pub(crate) topics: Vec<OldTopic>,
}

#[derive(Debug, Clone, PartialEq, Wire)]
pub(crate) struct OldTopic {
    pub(crate) name: String,
    pub(crate) partitions: Vec<OldPartition>,
}

#[derive(Debug, Clone, PartialEq, Wire)]
pub(crate) struct OldPartition {
    pub(crate) index: i32,
    pub(crate) messages: Option<Bytes>,
}

#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 0, versions = "0-2")]
pub(crate) struct OldResponse {
    pub(crate) topics: Vec<OldAnswer>,
    #[kafka(versions = "1+")]
    pub(crate) throttle_time_ms: i32,
}

#[derive(Debug, Clone, PartialEq, Wire)]
pub(crate) struct OldAnswer {
    pub(crate) name: String,
    pub(crate) partitions: Vec<OldResult>,
}

#[derive(Debug, Clone, PartialEq, Wire)]
pub(crate) struct OldResult {
    pub(crate) index: i32,
    pub(crate) error_code: i16,
    pub(crate) base_offset: i64,
    #[kafka(versions = "2+", default = -1)]
    pub(crate) log_append_time: i64,
}
