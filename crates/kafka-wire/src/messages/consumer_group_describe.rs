//! ConsumerGroupDescribe (69): groups of the newer kind in detail (KIP-848).

use crate::{Uuid, Wire};

/// Asks for groups.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 69, versions = "0-1", flexible = 0, response = ConsumerGroupDescribeResponse)]
pub struct ConsumerGroupDescribeRequest {
    /// The groups.
    pub group_ids: Vec<String>,
    /// Whether to say what the client may do with each.
    pub include_authorized_operations: bool,
}

/// The groups and their members.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 69, versions = "0-1", flexible = 0)]
pub struct ConsumerGroupDescribeResponse {
    /// How long the client should wait before its next request, in milliseconds.
    pub throttle_time_ms: i32,
    /// The groups.
    pub groups: Vec<ConsumerGroupDescribeResponseGroup>,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct ConsumerGroupDescribeResponseGroup {
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
    /// What went wrong, for people.
    pub error_message: Option<String>,
    /// The group's name.
    pub group_id: String,
    /// The group's state: `Stable`, `Empty`...
    pub group_state: String,
    /// Counts the changes of the group's members and subscriptions.
    pub group_epoch: i32,
    /// The group epoch that the assignment was made for.
    pub assignment_epoch: i32,
    /// The assignor in use.
    pub assignor_name: String,
    /// The members.
    pub members: Vec<ConsumerGroupDescribeResponseMember>,
    /// What the client may do with it, a bit each; `i32::MIN` when nobody asked.
    #[kafka(default = i32::MIN)]
    pub authorized_operations: i32,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct ConsumerGroupDescribeResponseMember {
    /// The member's id.
    pub member_id: String,
    /// The member's own name for itself; null for a member that is not static.
    pub instance_id: Option<String>,
    /// Where the client stands.
    pub rack_id: Option<String>,
    /// The member's epoch.
    pub member_epoch: i32,
    /// What the client calls itself.
    pub client_id: String,
    /// The client's address.
    pub client_host: String,
    /// The topics that it wants to read.
    pub subscribed_topic_names: Vec<String>,
    /// The pattern of the names of topics that it wants to read.
    pub subscribed_topic_regex: Option<String>,
    /// What it has to read.
    pub assignment: ConsumerGroupDescribeResponseAssignment,
    /// What it is to read in the end.
    pub target_assignment: ConsumerGroupDescribeResponseAssignment,
    /// 0 classic, 1 consumer, -1 when it is not known.
    #[kafka(versions = "1+", default = -1)]
    pub member_type: i8,
}

/// What a member has to read.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct ConsumerGroupDescribeResponseAssignment {
    /// The partitions, by topic.
    pub topic_partitions: Vec<ConsumerGroupDescribeResponseTopicPartitions>,
}

/// Partitions of a topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct ConsumerGroupDescribeResponseTopicPartitions {
    /// The topic's id; zero for none.
    pub topic_id: Uuid,
    /// The topic's name.
    pub topic_name: String,
    /// Their numbers.
    pub partitions: Vec<i32>,
}
