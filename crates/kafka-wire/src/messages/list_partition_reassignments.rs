//! ListPartitionReassignments (46): partitions that are being moved.

use crate::Wire;

/// Asks which partitions are being moved.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 46, versions = "0-0", flexible = 0, response = ListPartitionReassignmentsResponse)]
pub struct ListPartitionReassignmentsRequest {
    /// How long the broker may take, in milliseconds.
    #[kafka(default = 60_000)]
    pub timeout_ms: i32,
    /// The topics; null for all of them.
    pub topics: Option<Vec<ListPartitionReassignmentsRequestTopic>>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct ListPartitionReassignmentsRequestTopic {
    /// The topic's name.
    pub name: String,
    /// Their numbers.
    pub partition_indexes: Vec<i32>,
}

/// The partitions that are being moved.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 46, versions = "0-0", flexible = 0)]
pub struct ListPartitionReassignmentsResponse {
    /// How long the client should wait before its next request, in milliseconds.
    pub throttle_time_ms: i32,
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
    /// What went wrong, for people.
    pub error_message: Option<String>,
    /// The topics.
    pub topics: Vec<ListPartitionReassignmentsResponseTopic>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct ListPartitionReassignmentsResponseTopic {
    /// The topic's name.
    pub name: String,
    /// The partitions.
    pub partitions: Vec<ListPartitionReassignmentsResponsePartition>,
}

/// A partition that is being moved.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct ListPartitionReassignmentsResponsePartition {
    /// Its number.
    pub partition_index: i32,
    /// The brokers that hold it, those that it comes to included.
    pub replicas: Vec<i32>,
    /// The brokers that it comes to.
    pub adding_replicas: Vec<i32>,
    /// The brokers that it leaves.
    pub removing_replicas: Vec<i32>,
}
