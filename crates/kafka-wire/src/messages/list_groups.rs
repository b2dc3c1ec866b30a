//! ListGroups (16): all groups.

use crate::Wire;

/// Asks for the groups that the broker keeps.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 16, versions = "0-5", flexible = 3, response = ListGroupsResponse)]
pub struct ListGroupsRequest {
    /// Only groups in these states; empty for all.
    #[kafka(versions = "4+")]
    pub states_filter: Vec<String>,
    /// Only groups of these kinds; empty for all.
    #[kafka(versions = "5+")]
    pub types_filter: Vec<String>,
}

/// The groups.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 16, versions = "0-5", flexible = 3)]
pub struct ListGroupsResponse {
    /// How long the client should wait before its next request, in milliseconds.
    #[kafka(versions = "1+")]
    pub throttle_time_ms: i32,
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
    /// The groups.
    pub groups: Vec<ListGroupsResponseGroup>,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct ListGroupsResponseGroup {
    /// The group's name.
    pub group_id: String,
    /// What kind of group it is: `consumer`.
    pub protocol_type: String,
    /// The group's state: `Stable`, `Empty`...
    #[kafka(versions = "4+")]
    pub group_state: String,
    /// `classic`, `consumer`...
    #[kafka(versions = "5+")]
    pub group_type: String,
}
