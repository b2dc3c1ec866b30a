//! DeleteRecords (21): moving the starts of logs up.

use crate::Wire;

/// Deletes the records before given offsets.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 21, versions = "0-2", flexible = 2, response = DeleteRecordsResponse)]
pub struct DeleteRecordsRequest {
    /// The topics.
    pub topics: Vec<DeleteRecordsRequestTopic>,
    /// How long the broker may take, in milliseconds.
    pub timeout_ms: i32,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct DeleteRecordsRequestTopic {
    /// The topic's name.
    pub name: String,
    /// The partitions.
    pub partitions: Vec<DeleteRecordsRequestPartition>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct DeleteRecordsRequestPartition {
    /// Its number.
    pub partition_index: i32,
    /// The first offset to keep; -1 for the high watermark.
    pub offset: i64,
}

/// Where the logs start now.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 21, versions = "0-2", flexible = 2)]
pub struct DeleteRecordsResponse {
    /// How long the client should wait before its next request, in milliseconds.
    pub throttle_time_ms: i32,
    /// The topics.
    pub topics: Vec<DeleteRecordsResponseTopic>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct DeleteRecordsResponseTopic {
    /// The topic's name.
    pub name: String,
    /// The partitions.
    pub partitions: Vec<DeleteRecordsResponsePartition>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct DeleteRecordsResponsePartition {
    /// Its number.
    pub partition_index: i32,
    /// Where the log starts now, or -1.
    pub low_watermark: i64,
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
}
