//! OffsetCommit (8): remembering how far a group has read.

use crate::Wire;

/// Keeps a group's offsets.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 8, versions = "2-9", flexible = 8, response = OffsetCommitResponse)]
pub struct OffsetCommitRequest {
    /// The group's name.
    pub group_id: String,
    /// The group's generation or, in a group of the newer kind, the member's epoch; -1 outside of a
    /// group.
    #[kafka(default = -1)]
    pub generation_id_or_member_epoch: i32,
    /// The member's id.
    pub member_id: String,
    /// The member's own name for itself; null for a member that is not static.
    #[kafka(versions = "7+")]
    pub group_instance_id: Option<String>,
    /// How long to keep the offsets, in milliseconds; -1 for as long as the broker likes.
    #[kafka(versions = "0-4", default = -1)]
    pub retention_time_ms: i64,
    /// The topics.
    pub topics: Vec<OffsetCommitRequestTopic>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct OffsetCommitRequestTopic {
    /// The topic's name.
    pub name: String,
    /// The partitions.
    pub partitions: Vec<OffsetCommitRequestPartition>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct OffsetCommitRequestPartition {
    /// Its number.
    pub partition_index: i32,
    /// The next offset to read.
    pub committed_offset: i64,
    /// The epoch of the last record read, or -1.
    #[kafka(versions = "6+", default = -1)]
    pub committed_leader_epoch: i32,
    /// The client's own remark.
    pub committed_metadata: Option<String>,
}

/// Whether the offsets are kept, a partition each.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 8, versions = "2-9", flexible = 8)]
pub struct OffsetCommitResponse {
    /// How long the client should wait before its next request, in milliseconds.
    #[kafka(versions = "3+")]
    pub throttle_time_ms: i32,
    /// The topics.
    pub topics: Vec<OffsetCommitResponseTopic>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct OffsetCommitResponseTopic {
    /// The topic's name.
    pub name: String,
    /// The partitions.
    pub partitions: Vec<OffsetCommitResponsePartition>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct OffsetCommitResponsePartition {
    /// Its number.
    pub partition_index: i32,
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
}
