//! OffsetDelete (47): forgetting offsets of a group.

use crate::Wire;

/// Deletes a group's offsets of some partitions.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 47, versions = "0-0", response = OffsetDeleteResponse)]
pub struct OffsetDeleteRequest {
    /// The group's name.
    pub group_id: String,
    /// The topics.
    pub topics: Vec<OffsetDeleteRequestTopic>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct OffsetDeleteRequestTopic {
    /// The topic's name.
    pub name: String,
    /// The partitions.
    pub partitions: Vec<OffsetDeleteRequestPartition>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct OffsetDeleteRequestPartition {
    /// Its number.
    pub partition_index: i32,
}

/// What became of each offset.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 47, versions = "0-0")]
pub struct OffsetDeleteResponse {
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
    /// How long the client should wait before its next request, in milliseconds.
    pub throttle_time_ms: i32,
    /// The topics.
    pub topics: Vec<OffsetDeleteResponseTopic>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct OffsetDeleteResponseTopic {
    /// The topic's name.
    pub name: String,
    /// The partitions.
    pub partitions: Vec<OffsetDeleteResponsePartition>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct OffsetDeleteResponsePartition {
    /// Its number.
    pub partition_index: i32,
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
}
