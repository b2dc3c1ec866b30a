//! CreatePartitions (37): more partitions for existing topics.

use crate::Wire;

/// Adds partitions to topics.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 37, versions = "0-3", flexible = 2, response = CreatePartitionsResponse)]
pub struct CreatePartitionsRequest {
    /// The topics.
    pub topics: Vec<CreatePartitionsRequestTopic>,
    /// How long the broker may take, in milliseconds.
    pub timeout_ms: i32,
    /// Whether to check only, and change nothing.
    pub validate_only: bool,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct CreatePartitionsRequestTopic {
    /// The topic's name.
    pub name: String,
    /// How many partitions the topic is to have.
    pub count: i32,
    /// Which brokers are to hold the new partitions; null to let the broker choose.
    pub assignments: Option<Vec<CreatePartitionsRequestAssignment>>,
}

/// Which brokers are to hold a new partition.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct CreatePartitionsRequestAssignment {
    /// The brokers, the preferred leader first.
    pub broker_ids: Vec<i32>,
}

/// What became of each topic.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 37, versions = "0-3", flexible = 2)]
pub struct CreatePartitionsResponse {
    /// How long the client should wait before its next request, in milliseconds.
    pub throttle_time_ms: i32,
    /// The topics.
    pub results: Vec<CreatePartitionsResponseTopic>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct CreatePartitionsResponseTopic {
    /// The topic's name.
    pub name: String,
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
    /// What went wrong, for people.
    pub error_message: Option<String>,
}
