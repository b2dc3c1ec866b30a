//! DescribeQuorum (55): who votes on the cluster's metadata.

use crate::{Uuid, Wire};

/// Asks for the state of a quorum.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 55, versions = "0-2", flexible = 0, response = DescribeQuorumResponse)]
pub struct DescribeQuorumRequest {
    /// The topics.
    pub topics: Vec<DescribeQuorumRequestTopic>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct DescribeQuorumRequestTopic {
    /// The topic's name.
    pub topic_name: String,
    /// The partitions.
    pub partitions: Vec<DescribeQuorumRequestPartition>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct DescribeQuorumRequestPartition {
    /// Its number.
    pub partition_index: i32,
}

/// The quorum's state.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 55, versions = "0-2", flexible = 0)]
pub struct DescribeQuorumResponse {
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
    /// What went wrong, for people.
    #[kafka(versions = "2+")]
    pub error_message: Option<String>,
    /// The topics.
    pub topics: Vec<DescribeQuorumResponseTopic>,
    /// Where they can be reached.
    #[kafka(versions = "2+")]
    pub nodes: Vec<DescribeQuorumResponseNode>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct DescribeQuorumResponseTopic {
    /// The topic's name.
    pub topic_name: String,
    /// The partitions.
    pub partitions: Vec<DescribeQuorumResponsePartition>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct DescribeQuorumResponsePartition {
    /// Its number.
    pub partition_index: i32,
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
    /// What went wrong, for people.
    #[kafka(versions = "2+")]
    pub error_message: Option<String>,
    /// The broker that leads it, or -1.
    pub leader_id: i32,
    /// The leader's epoch, or -1 when it is not known.
    pub leader_epoch: i32,
    /// The first offset that is not agreed on yet.
    pub high_watermark: i64,
    /// Those who vote.
    pub current_voters: Vec<DescribeQuorumResponseReplica>,
    /// Those who follow.
    pub observers: Vec<DescribeQuorumResponseReplica>,
}

/// A voter or an observer.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct DescribeQuorumResponseReplica {
    /// The number of its node.
    pub replica_id: i32,
    /// Its directory.
    #[kafka(versions = "2+")]
    pub replica_directory_id: Uuid,
    /// Where its log ends, or -1.
    pub log_end_offset: i64,
    /// When it fetched last, in milliseconds since 1970, or -1.
    #[kafka(versions = "1+", default = -1)]
    pub last_fetch_timestamp: i64,
    /// When it last had everything, in milliseconds since 1970, or -1.
    #[kafka(versions = "1+", default = -1)]
    pub last_caught_up_timestamp: i64,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct DescribeQuorumResponseNode {
    /// Its number.
    pub node_id: i32,
    /// Where it can be reached.
    pub listeners: Vec<DescribeQuorumResponseListener>,
}

/// Where a node can be reached.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct DescribeQuorumResponseListener {
    /// The listener's name.
    pub name: String,
    /// Its host name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
}
