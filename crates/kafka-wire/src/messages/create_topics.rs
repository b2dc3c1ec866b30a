//! CreateTopics (19): making topics.

use crate::{Uuid, Wire};

/// Makes topics.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 19, versions = "2-7", flexible = 5, response = CreateTopicsResponse)]
pub struct CreateTopicsRequest {
    /// The topics.
    pub topics: Vec<CreateTopicsRequestTopic>,
    /// How long the broker may take, in milliseconds.
    #[kafka(default = 60_000)]
    pub timeout_ms: i32,
    /// Whether to check only, and change nothing.
    pub validate_only: bool,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct CreateTopicsRequestTopic {
    /// The topic's name.
    pub name: String,
    /// How many partitions it is to have; -1 for what the broker does by default, or when
    /// `assignments` says it.
    pub num_partitions: i32,
    /// How many copies a partition is to have; -1 for what the broker does by default, or when
    /// `assignments` says it.
    pub replication_factor: i16,
    /// Which brokers are to hold which partition; empty to let the broker choose.
    pub assignments: Vec<CreateTopicsRequestAssignment>,
    /// What is to differ from the defaults.
    pub configs: Vec<CreateTopicsRequestConfig>,
}

/// Which brokers are to hold a partition.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct CreateTopicsRequestAssignment {
    /// The number of the partition.
    pub partition_index: i32,
    /// The brokers, the preferred leader first.
    pub broker_ids: Vec<i32>,
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct CreateTopicsRequestConfig {
    /// The key.
    pub name: String,
    /// The value.
    pub value: Option<String>,
}

/// What became of each topic.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 19, versions = "2-7", flexible = 5)]
pub struct CreateTopicsResponse {
    /// How long the client should wait before its next request, in milliseconds.
    pub throttle_time_ms: i32,
    /// The topics.
    pub topics: Vec<CreateTopicsResponseTopic>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct CreateTopicsResponseTopic {
    /// The topic's name.
    pub name: String,
    /// The topic's id; zero for none.
    #[kafka(versions = "7+")]
    pub topic_id: Uuid,
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
    /// What went wrong, for people.
    pub error_message: Option<String>,
    /// Why `configs` is null, or 0.
    #[kafka(versions = "5+", tag = 0)]
    pub topic_config_error_code: i16,
    /// How many partitions the topic has; -1 when the client may not know.
    #[kafka(versions = "5+", default = -1)]
    pub num_partitions: i32,
    /// How many copies a partition has; -1 when the client may not know.
    #[kafka(versions = "5+", default = -1)]
    pub replication_factor: i16,
    /// Its keys and their values; null when the client may not know.
    #[kafka(versions = "5+")]
    pub configs: Option<Vec<CreateTopicsResponseConfig>>,
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct CreateTopicsResponseConfig {
    /// The key.
    pub name: String,
    /// The value.
    pub value: Option<String>,
    /// Whether it cannot be changed.
    pub read_only: bool,
    /// Where the value comes from: 1 the topic, 4 the configuration file, 5 the default...
    #[kafka(default = -1)]
    pub config_source: i8,
    /// Whether the value is a secret; it is null then.
    pub is_sensitive: bool,
}
