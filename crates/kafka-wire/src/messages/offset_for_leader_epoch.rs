//! OffsetForLeaderEpoch (23): where epochs end; how clients find out that a log was cut.

use crate::Wire;

/// Asks for the end offsets of epochs.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 23, versions = "2-4", flexible = 4, response = OffsetForLeaderEpochResponse)]
pub struct OffsetForLeaderEpochRequest {
    /// The broker that asks, -1 for a client, or -2 where that is not said.
    #[kafka(versions = "3+", default = -2)]
    pub replica_id: i32,
    /// The topics.
    pub topics: Vec<OffsetForLeaderEpochRequestTopic>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct OffsetForLeaderEpochRequestTopic {
    /// The topic's name.
    pub topic: String,
    /// The partitions.
    pub partitions: Vec<OffsetForLeaderEpochRequestPartition>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct OffsetForLeaderEpochRequestPartition {
    /// Its number.
    pub partition: i32,
    /// The leader's epoch as the client knows it, or -1 for any.
    #[kafka(default = -1)]
    pub current_leader_epoch: i32,
    /// The epoch whose end is asked for.
    pub leader_epoch: i32,
}

/// The epochs' end offsets.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 23, versions = "2-4", flexible = 4)]
pub struct OffsetForLeaderEpochResponse {
    /// How long the client should wait before its next request, in milliseconds.
    pub throttle_time_ms: i32,
    /// The topics.
    pub topics: Vec<OffsetForLeaderEpochResponseTopic>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct OffsetForLeaderEpochResponseTopic {
    /// The topic's name.
    pub topic: String,
    /// The partitions.
    pub partitions: Vec<OffsetForLeaderEpochResponsePartition>,
}

/// A partition and the end of an epoch.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct OffsetForLeaderEpochResponsePartition {
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
    /// Its number.
    pub partition: i32,
    /// The highest epoch up to the one that was asked for, or -1.
    #[kafka(default = -1)]
    pub leader_epoch: i32,
    /// Where that epoch ends: the first offset behind it, or -1.
    #[kafka(default = -1)]
    pub end_offset: i64,
}
