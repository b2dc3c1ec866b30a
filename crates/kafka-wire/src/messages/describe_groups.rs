//! DescribeGroups (15): groups of the classic kind in detail.

use bytes::Bytes;

use crate::Wire;

/// Asks for groups.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 15, versions = "0-6", flexible = 5, response = DescribeGroupsResponse)]
pub struct DescribeGroupsRequest {
    /// The groups.
    pub groups: Vec<String>,
    /// Whether to say what the client may do with each.
    #[kafka(versions = "3+")]
    pub include_authorized_operations: bool,
}

/// The groups and their members.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 15, versions = "0-6", flexible = 5)]
pub struct DescribeGroupsResponse {
    /// How long the client should wait before its next request, in milliseconds.
    #[kafka(versions = "1+")]
    pub throttle_time_ms: i32,
    /// The groups.
    pub groups: Vec<DescribeGroupsResponseGroup>,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct DescribeGroupsResponseGroup {
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
    /// What went wrong, for people.
    #[kafka(versions = "6+")]
    pub error_message: Option<String>,
    /// The group's name.
    pub group_id: String,
    /// The group's state: `Stable`, `Empty`...
    pub group_state: String,
    /// What kind of group it is: `consumer`, or empty.
    pub protocol_type: String,
    /// The assignor that was chosen.
    pub protocol_data: String,
    /// The members.
    pub members: Vec<DescribeGroupsResponseMember>,
    /// What the client may do with it, a bit each; `i32::MIN` when nobody asked.
    #[kafka(versions = "3+", default = i32::MIN)]
    pub authorized_operations: i32,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct DescribeGroupsResponseMember {
    /// The member's id.
    pub member_id: String,
    /// The member's own name for itself; null for a member that is not static.
    #[kafka(versions = "4+")]
    pub group_instance_id: Option<String>,
    /// What the client calls itself.
    pub client_id: String,
    /// The client's address.
    pub client_host: String,
    /// What it said of itself when it joined.
    pub member_metadata: Bytes,
    /// What it has to read.
    pub member_assignment: Bytes,
}
