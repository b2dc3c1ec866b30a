//! OffsetFetch (9): how far a group has read.

use crate::Wire;

/// Asks for the offsets of one group, or from version 8 on of several.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 9, versions = "1-9", flexible = 6, response = OffsetFetchResponse)]
pub struct OffsetFetchRequest {
    /// The group, up to version 7.
    #[kafka(versions = "0-7")]
    pub group_id: String,
    /// The topics, up to version 7; null for all of them.
    #[kafka(versions = "0-7", nullable = "2+", default = Some(Vec::new()))]
    pub topics: Option<Vec<OffsetFetchRequestTopic>>,
    /// The groups, from version 8 on.
    #[kafka(versions = "8+")]
    pub groups: Vec<OffsetFetchRequestGroup>,
    /// Whether to be refused while a transaction has offsets pending.
    #[kafka(versions = "7+")]
    pub require_stable: bool,
}

/// A topic, up to version 7.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct OffsetFetchRequestTopic {
    /// The topic's name.
    pub name: String,
    /// Their numbers.
    pub partition_indexes: Vec<i32>,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct OffsetFetchRequestGroup {
    /// The group's name.
    pub group_id: String,
    /// The member's id, in a group of the newer kind.
    #[kafka(versions = "9+")]
    pub member_id: Option<String>,
    /// The member's epoch in a group of the newer kind, or -1.
    #[kafka(versions = "9+", default = -1)]
    pub member_epoch: i32,
    /// The topics; null for all of them.
    pub topics: Option<Vec<OffsetFetchRequestGroupTopic>>,
}

/// A topic of a group's.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct OffsetFetchRequestGroupTopic {
    /// The topic's name.
    pub name: String,
    /// Their numbers.
    pub partition_indexes: Vec<i32>,
}

/// The offsets that groups have committed.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 9, versions = "1-9", flexible = 6)]
pub struct OffsetFetchResponse {
    /// How long the client should wait before its next request, in milliseconds.
    #[kafka(versions = "3+")]
    pub throttle_time_ms: i32,
    /// The topics, up to version 7.
    #[kafka(versions = "0-7")]
    pub topics: Vec<OffsetFetchResponseTopic>,
    /// Kafka's code of what went wrong, or 0.
    #[kafka(versions = "2-7")]
    pub error_code: i16,
    /// The groups, from version 8 on.
    #[kafka(versions = "8+")]
    pub groups: Vec<OffsetFetchResponseGroup>,
}

/// A topic, up to version 7.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct OffsetFetchResponseTopic {
    /// The topic's name.
    pub name: String,
    /// The partitions.
    pub partitions: Vec<OffsetFetchResponsePartition>,
}

/// A partition, up to version 7.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct OffsetFetchResponsePartition {
    /// Its number.
    pub partition_index: i32,
    /// The next offset to read, or -1 when nothing was committed.
    pub committed_offset: i64,
    /// The epoch of the last record read, or -1.
    #[kafka(versions = "5+", default = -1)]
    pub committed_leader_epoch: i32,
    /// The client's own remark.
    pub metadata: Option<String>,
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct OffsetFetchResponseGroup {
    /// The group's name.
    pub group_id: String,
    /// The topics.
    pub topics: Vec<OffsetFetchResponseGroupTopic>,
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
}

/// A topic of a group's.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct OffsetFetchResponseGroupTopic {
    /// The topic's name.
    pub name: String,
    /// The partitions.
    pub partitions: Vec<OffsetFetchResponseGroupPartition>,
}

/// A partition of a group's.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct OffsetFetchResponseGroupPartition {
    /// Its number.
    pub partition_index: i32,
    /// The next offset to read, or -1 when nothing was committed.
    pub committed_offset: i64,
    /// The epoch of the last record read, or -1.
    #[kafka(default = -1)]
    pub committed_leader_epoch: i32,
    /// The client's own remark.
    pub metadata: Option<String>,
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
}
