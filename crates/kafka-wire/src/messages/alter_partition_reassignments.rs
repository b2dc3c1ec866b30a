//! AlterPartitionReassignments (45): moving partitions to other brokers.

use crate::Wire;

/// Starts moving partitions, or calls it off.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 45, versions = "0-1", flexible = 0, response = AlterPartitionReassignmentsResponse)]
pub struct AlterPartitionReassignmentsRequest {
    /// How long the broker may take, in milliseconds.
    #[kafka(default = 60_000)]
    pub timeout_ms: i32,
    /// Whether a partition may get more or fewer copies.
    #[kafka(versions = "1+", default = true)]
    pub allow_replication_factor_change: bool,
    /// The topics.
    pub topics: Vec<AlterPartitionReassignmentsRequestTopic>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct AlterPartitionReassignmentsRequestTopic {
    /// The topic's name.
    pub name: String,
    /// The partitions.
    pub partitions: Vec<AlterPartitionReassignmentsRequestPartition>,
}

/// A partition and where it should go.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct AlterPartitionReassignmentsRequestPartition {
    /// Its number.
    pub partition_index: i32,
    /// The brokers that are to hold it; null to call a move off.
    pub replicas: Option<Vec<i32>>,
}

/// What became of each partition's move.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 45, versions = "0-1", flexible = 0)]
pub struct AlterPartitionReassignmentsResponse {
    /// How long the client should wait before its next request, in milliseconds.
    pub throttle_time_ms: i32,
    /// Whether a partition may get more or fewer copies.
    #[kafka(versions = "1+", default = true)]
    pub allow_replication_factor_change: bool,
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
    /// What went wrong, for people.
    pub error_message: Option<String>,
    /// The topics.
    pub responses: Vec<AlterPartitionReassignmentsResponseTopic>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct AlterPartitionReassignmentsResponseTopic {
    /// The topic's name.
    pub name: String,
    /// The partitions.
    pub partitions: Vec<AlterPartitionReassignmentsResponsePartition>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct AlterPartitionReassignmentsResponsePartition {
    /// Its number.
    pub partition_index: i32,
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
    /// What went wrong, for people.
    pub error_message: Option<String>,
}
