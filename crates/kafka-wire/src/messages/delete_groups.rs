//! DeleteGroups (42): deleting groups that have no members.

use crate::Wire;

/// Deletes groups and their offsets.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 42, versions = "0-2", flexible = 2, response = DeleteGroupsResponse)]
pub struct DeleteGroupsRequest {
    /// The groups.
    pub groups_names: Vec<String>,
}

/// What became of each group.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 42, versions = "0-2", flexible = 2)]
pub struct DeleteGroupsResponse {
    /// How long the client should wait before its next request, in milliseconds.
    pub throttle_time_ms: i32,
    /// What became of each.
    pub results: Vec<DeleteGroupsResponseGroup>,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct DeleteGroupsResponseGroup {
    /// The group's name.
    pub group_id: String,
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
}
