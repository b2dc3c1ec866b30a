//! ListOffsets (2): from timestamps to offsets, and where partitions start and end.

use crate::Wire;

/// Asks for offsets by their timestamps, or for special places in a partition.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 2, versions = "1-10", flexible = 6, response = ListOffsetsResponse)]
pub struct ListOffsetsRequest {
    /// The broker that asks, or -1 for a client.
    pub replica_id: i32,
    /// 0 to see all records, 1 to see committed ones only.
    #[kafka(versions = "2+")]
    pub isolation_level: i8,
    /// The topics.
    pub topics: Vec<ListOffsetsRequestTopic>,
    /// How long the broker may take, in milliseconds.
    #[kafka(versions = "10+")]
    pub timeout_ms: i32,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct ListOffsetsRequestTopic {
    /// The topic's name.
    pub name: String,
    /// The partitions.
    pub partitions: Vec<ListOffsetsRequestPartition>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct ListOffsetsRequestPartition {
    /// Its number.
    pub partition_index: i32,
    /// The leader's epoch as the client knows it, or -1 for any.
    #[kafka(versions = "4+", default = -1)]
    pub current_leader_epoch: i32,
    /// The time in milliseconds since 1970, or a place: -1 the end, -2 the start, -3 the largest
    /// timestamp, -4 the start of what is local, -5 the end of what is tiered.
    pub timestamp: i64,
}

/// The offsets found.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 2, versions = "1-10", flexible = 6)]
pub struct ListOffsetsResponse {
    /// How long the client should wait before its next request, in milliseconds.
    #[kafka(versions = "2+")]
    pub throttle_time_ms: i32,
    /// The topics.
    pub topics: Vec<ListOffsetsResponseTopic>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct ListOffsetsResponseTopic {
    /// The topic's name.
    pub name: String,
    /// The partitions.
    pub partitions: Vec<ListOffsetsResponsePartition>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct ListOffsetsResponsePartition {
    /// Its number.
    pub partition_index: i32,
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
    /// The timestamp of the record there in milliseconds since 1970, or -1.
    #[kafka(default = -1)]
    pub timestamp: i64,
    /// The offset, or -1 for none.
    #[kafka(default = -1)]
    pub offset: i64,
    /// The epoch of the record there, or -1.
    #[kafka(versions = "4+", default = -1)]
    pub leader_epoch: i32,
}
