//! DescribeTopicPartitions (75): topics and their partitions, page by page.

use crate::{Uuid, Wire};

/// Asks for topics, a page at a time.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 75, versions = "0-0", flexible = 0, response = DescribeTopicPartitionsResponse)]
pub struct DescribeTopicPartitionsRequest {
    /// The topics; empty for all of them.
    pub topics: Vec<DescribeTopicPartitionsRequestTopic>,
    /// How many partitions a page may have.
    #[kafka(default = 2000)]
    pub response_partition_limit: i32,
    /// Where to begin; null for the beginning.
    pub cursor: Option<DescribeTopicPartitionsRequestCursor>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct DescribeTopicPartitionsRequestTopic {
    /// The topic's name.
    pub name: String,
}

/// Where a page begins.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct DescribeTopicPartitionsRequestCursor {
    /// The topic to begin with.
    pub topic_name: String,
    /// The partition to begin with.
    pub partition_index: i32,
}

/// One page of topics.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 75, versions = "0-0", flexible = 0)]
pub struct DescribeTopicPartitionsResponse {
    /// How long the client should wait before its next request, in milliseconds.
    pub throttle_time_ms: i32,
    /// The topics.
    pub topics: Vec<DescribeTopicPartitionsResponseTopic>,
    /// Where the next page begins; null when there is none.
    pub next_cursor: Option<DescribeTopicPartitionsResponseCursor>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct DescribeTopicPartitionsResponseTopic {
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
    /// The topic's name; null when it is not known.
    pub name: Option<String>,
    /// The topic's id; zero for none.
    pub topic_id: Uuid,
    /// Whether the topic is the broker's own.
    pub is_internal: bool,
    /// The partitions.
    pub partitions: Vec<DescribeTopicPartitionsResponsePartition>,
    /// What the client may do with the topic, a bit each; `i32::MIN` when nobody asked.
    #[kafka(default = i32::MIN)]
    pub topic_authorized_operations: i32,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct DescribeTopicPartitionsResponsePartition {
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
    /// Its number.
    pub partition_index: i32,
    /// The broker that leads it, or -1.
    pub leader_id: i32,
    /// The leader's epoch, or -1 when it is not known.
    #[kafka(default = -1)]
    pub leader_epoch: i32,
    /// The brokers that hold it.
    pub replica_nodes: Vec<i32>,
    /// Those of them that are in sync.
    pub isr_nodes: Vec<i32>,
    /// Brokers that may lead although they are not in sync.
    pub eligible_leader_replicas: Option<Vec<i32>>,
    /// The last brokers that were in `eligible_leader_replicas`.
    pub last_known_elr: Option<Vec<i32>>,
    /// Those of them that are not there.
    pub offline_replicas: Vec<i32>,
}

/// Where a page begins.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct DescribeTopicPartitionsResponseCursor {
    /// The topic to go on with.
    pub topic_name: String,
    /// The partition to go on with.
    pub partition_index: i32,
}
