//! DeleteTopics (20): deleting topics.

use crate::{Uuid, Wire};

/// Deletes topics: by name, or from version 6 on by name or id.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 20, versions = "1-6", flexible = 4, response = DeleteTopicsResponse)]
pub struct DeleteTopicsRequest {
    /// The topics, from version 6 on.
    #[kafka(versions = "6+")]
    pub topics: Vec<DeleteTopicsRequestTopic>,
    /// The topics, up to version 5.
    #[kafka(versions = "0-5")]
    pub topic_names: Vec<String>,
    /// How long the broker may take, in milliseconds.
    pub timeout_ms: i32,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct DeleteTopicsRequestTopic {
    /// The topic's name; null when it is named by its id.
    pub name: Option<String>,
    /// The topic's id; zero for none.
    pub topic_id: Uuid,
}

/// What became of each topic.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 20, versions = "1-6", flexible = 4)]
pub struct DeleteTopicsResponse {
    /// How long the client should wait before its next request, in milliseconds.
    pub throttle_time_ms: i32,
    /// The topics.
    pub responses: Vec<DeleteTopicsResponseTopic>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct DeleteTopicsResponseTopic {
    /// The topic's name; null for an id that is not known.
    #[kafka(nullable = "6+", default = Some(String::new()))]
    pub name: Option<String>,
    /// The topic's id; zero for none.
    #[kafka(versions = "6+")]
    pub topic_id: Uuid,
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
    /// What went wrong, for people.
    #[kafka(versions = "5+")]
    pub error_message: Option<String>,
}
