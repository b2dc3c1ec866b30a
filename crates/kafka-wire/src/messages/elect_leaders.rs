//! ElectLeaders (43): electing leaders of partitions.

use crate::Wire;

/// Asks for elections.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 43, versions = "0-2", flexible = 2, response = ElectLeadersResponse)]
pub struct ElectLeadersRequest {
    /// 0 to make preferred leaders lead, 1 to have any leader at all.
    #[kafka(versions = "1+")]
    pub election_type: i8,
    /// The partitions, by topic; null for all of them.
    pub topic_partitions: Option<Vec<ElectLeadersRequestTopic>>,
    /// How long the elections may take, in milliseconds.
    #[kafka(default = 60_000)]
    pub timeout_ms: i32,
}

/// Partitions of a topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct ElectLeadersRequestTopic {
    /// The topic's name.
    pub topic: String,
    /// Their numbers.
    pub partitions: Vec<i32>,
}

/// What became of each election.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 43, versions = "0-2", flexible = 2)]
pub struct ElectLeadersResponse {
    /// How long the client should wait before its next request, in milliseconds.
    pub throttle_time_ms: i32,
    /// Kafka's code of what went wrong, or 0.
    #[kafka(versions = "1+")]
    pub error_code: i16,
    /// What became of each.
    pub replica_election_results: Vec<ElectLeadersResponseTopic>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct ElectLeadersResponseTopic {
    /// The topic's name.
    pub topic: String,
    /// The partitions.
    pub partition_result: Vec<ElectLeadersResponsePartition>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct ElectLeadersResponsePartition {
    /// Its number.
    pub partition_id: i32,
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
    /// What went wrong, for people.
    pub error_message: Option<String>,
}
