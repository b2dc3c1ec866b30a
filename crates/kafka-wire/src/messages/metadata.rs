//! Metadata (3): which brokers there are, and which of them leads each partition.

use crate::{Uuid, Wire};

/// Asks for brokers and topics.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 3, versions = "0-13", flexible = 9, response = MetadataResponse)]
pub struct MetadataRequest {
    /// The topics; null for all of them. In version 0 an empty list is all.
    #[kafka(nullable = "1+", default = Some(Vec::new()))]
    pub topics: Option<Vec<MetadataRequestTopic>>,
    /// Whether topics that are not there may be made.
    #[kafka(versions = "4+", default = true)]
    pub allow_auto_topic_creation: bool,
    /// Whether to say what the client may do with the cluster.
    #[kafka(versions = "8-10")]
    pub include_cluster_authorized_operations: bool,
    /// Whether to say what the client may do with each topic.
    #[kafka(versions = "8+")]
    pub include_topic_authorized_operations: bool,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct MetadataRequestTopic {
    /// The topic's id; zero for none.
    #[kafka(versions = "10+")]
    pub topic_id: Uuid,
    /// The topic's name; null when it is asked for by its id.
    #[kafka(nullable = "10+", default = Some(String::new()))]
    pub name: Option<String>,
}

/// Brokers and topics.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 3, versions = "0-13", flexible = 9)]
pub struct MetadataResponse {
    /// How long the client should wait before its next request, in milliseconds.
    #[kafka(versions = "3+")]
    pub throttle_time_ms: i32,
    /// The brokers that live.
    pub brokers: Vec<MetadataResponseBroker>,
    /// The cluster's name.
    #[kafka(versions = "2+")]
    pub cluster_id: Option<String>,
    /// The broker that controls the cluster, or -1.
    #[kafka(versions = "1+", default = -1)]
    pub controller_id: i32,
    /// The topics.
    pub topics: Vec<MetadataResponseTopic>,
    /// What the client may do with the cluster, a bit each; `i32::MIN` when nobody asked.
    #[kafka(versions = "8-10", default = i32::MIN)]
    pub cluster_authorized_operations: i32,
    /// Kafka's code of what is wrong with the whole request, or 0.
    #[kafka(versions = "13+")]
    pub error_code: i16,
}

/// A broker.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct MetadataResponseBroker {
    /// Its number.
    pub node_id: i32,
    /// Its host name or address.
    pub host: String,
    /// Its port.
    pub port: i32,
    /// Where it stands, if that is known.
    #[kafka(versions = "1+")]
    pub rack: Option<String>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct MetadataResponseTopic {
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
    /// The topic's name; null for an id that is not known.
    #[kafka(nullable = "12+", default = Some(String::new()))]
    pub name: Option<String>,
    /// The topic's id; zero for none.
    #[kafka(versions = "10+")]
    pub topic_id: Uuid,
    /// Whether the topic is the broker's own.
    #[kafka(versions = "1+")]
    pub is_internal: bool,
    /// The partitions.
    pub partitions: Vec<MetadataResponsePartition>,
    /// What the client may do with the topic, a bit each; `i32::MIN` when nobody asked.
    #[kafka(versions = "8+", default = i32::MIN)]
    pub topic_authorized_operations: i32,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct MetadataResponsePartition {
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
    /// Its number.
    pub partition_index: i32,
    /// The broker that leads it, or -1.
    pub leader_id: i32,
    /// The leader's epoch, or -1 when it is not known.
    #[kafka(versions = "7+", default = -1)]
    pub leader_epoch: i32,
    /// The brokers that hold it.
    pub replica_nodes: Vec<i32>,
    /// Those of them that are in sync.
    pub isr_nodes: Vec<i32>,
    /// Those of them that are not there.
    #[kafka(versions = "5+")]
    pub offline_replicas: Vec<i32>,
}
