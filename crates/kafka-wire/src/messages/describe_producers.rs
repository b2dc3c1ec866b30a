//! DescribeProducers (61): the idempotent producers that partitions know.

use crate::Wire;

/// Asks for the producers of partitions.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 61, versions = "0-0", flexible = 0, response = DescribeProducersResponse)]
pub struct DescribeProducersRequest {
    /// The topics.
    pub topics: Vec<DescribeProducersRequestTopic>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct DescribeProducersRequestTopic {
    /// The topic's name.
    pub name: String,
    /// Their numbers.
    pub partition_indexes: Vec<i32>,
}

/// The producers of each partition.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 61, versions = "0-0", flexible = 0)]
pub struct DescribeProducersResponse {
    /// How long the client should wait before its next request, in milliseconds.
    pub throttle_time_ms: i32,
    /// The topics.
    pub topics: Vec<DescribeProducersResponseTopic>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct DescribeProducersResponseTopic {
    /// The topic's name.
    pub name: String,
    /// The partitions.
    pub partitions: Vec<DescribeProducersResponsePartition>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct DescribeProducersResponsePartition {
    /// Its number.
    pub partition_index: i32,
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
    /// What went wrong, for people.
    pub error_message: Option<String>,
    /// The producers.
    pub active_producers: Vec<DescribeProducersResponseProducer>,
}

/// A producer.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct DescribeProducersResponseProducer {
    /// The number of the producer.
    pub producer_id: i64,
    /// The producer's epoch.
    pub producer_epoch: i32,
    /// The sequence number of its last record, or -1.
    #[kafka(default = -1)]
    pub last_sequence: i32,
    /// The timestamp of its last record in milliseconds since 1970, or -1.
    #[kafka(default = -1)]
    pub last_timestamp: i64,
    /// The epoch of the coordinator that last ended a transaction of it, or -1.
    pub coordinator_epoch: i32,
    /// Where its open transaction starts, or -1.
    #[kafka(default = -1)]
    pub current_txn_start_offset: i64,
}
