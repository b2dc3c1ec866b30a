//! ConsumerGroupHeartbeat (68): all that a member of a consumer group of the newer kind says to
//! its coordinator (KIP-848).

use crate::{Uuid, Wire};

/// Joins a group, stays in it or leaves it. Fields that are null have not changed since the last
/// heartbeat.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 68, versions = "0-1", flexible = 0, response = ConsumerGroupHeartbeatResponse)]
pub struct ConsumerGroupHeartbeatRequest {
    /// The group's name.
    pub group_id: String,
    /// The member's id, which the client makes up itself from version 1 on.
    pub member_id: String,
    /// The member's epoch: 0 joins, -1 leaves, -2 leaves for a while and keeps a static member's
    /// place.
    pub member_epoch: i32,
    /// The member's own name for itself; null for a member that is not static.
    pub instance_id: Option<String>,
    /// Where the member stands.
    pub rack_id: Option<String>,
    /// How long a member may take to give partitions up and join again, in milliseconds; -1 when
    /// unchanged.
    #[kafka(default = -1)]
    pub rebalance_timeout_ms: i32,
    /// The topics that it wants to read.
    pub subscribed_topic_names: Option<Vec<String>>,
    /// The pattern of the names of topics that it wants to read.
    #[kafka(versions = "1+")]
    pub subscribed_topic_regex: Option<String>,
    /// The assignor that the group should use; null for any.
    pub server_assignor: Option<String>,
    /// What the member reads at present.
    pub topic_partitions: Option<Vec<ConsumerGroupHeartbeatRequestTopicPartitions>>,
}

/// Partitions of a topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct ConsumerGroupHeartbeatRequestTopicPartitions {
    /// The topic's id; zero for none.
    pub topic_id: Uuid,
    /// Their numbers.
    pub partitions: Vec<i32>,
}

/// The member's state as the coordinator sees it.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 68, versions = "0-1", flexible = 0)]
pub struct ConsumerGroupHeartbeatResponse {
    /// How long the client should wait before its next request, in milliseconds.
    pub throttle_time_ms: i32,
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
    /// What went wrong, for people.
    pub error_message: Option<String>,
    /// The member's id.
    pub member_id: Option<String>,
    /// The member's epoch.
    pub member_epoch: i32,
    /// When to send the next heartbeat, in milliseconds.
    pub heartbeat_interval_ms: i32,
    /// What the member has to read; null when that has not changed.
    pub assignment: Option<ConsumerGroupHeartbeatResponseAssignment>,
}

/// What a member has to read.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct ConsumerGroupHeartbeatResponseAssignment {
    /// The partitions, by topic.
    pub topic_partitions: Vec<ConsumerGroupHeartbeatResponseTopicPartitions>,
}

/// Partitions of a topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct ConsumerGroupHeartbeatResponseTopicPartitions {
    /// The topic's id; zero for none.
    pub topic_id: Uuid,
    /// Their numbers.
    pub partitions: Vec<i32>,
}
