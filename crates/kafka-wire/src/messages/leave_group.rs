//! LeaveGroup (13): leaving a group of the classic kind.

use crate::Wire;

/// Takes members out of a group: the sender, or from version 3 on several.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 13, versions = "0-5", flexible = 4, response = LeaveGroupResponse)]
pub struct LeaveGroupRequest {
    /// The group's name.
    pub group_id: String,
    /// The member that leaves, up to version 2.
    #[kafka(versions = "0-2")]
    pub member_id: String,
    /// The members that leave, from version 3 on.
    #[kafka(versions = "3+")]
    pub members: Vec<LeaveGroupRequestMember>,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct LeaveGroupRequestMember {
    /// The member's id; may be empty for a static member.
    pub member_id: String,
    /// The member's own name for itself; null for a member that is not static.
    pub group_instance_id: Option<String>,
    /// Why, for people.
    #[kafka(versions = "5+")]
    pub reason: Option<String>,
}

/// Who has left.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 13, versions = "0-5", flexible = 4)]
pub struct LeaveGroupResponse {
    /// How long the client should wait before its next request, in milliseconds.
    #[kafka(versions = "1+")]
    pub throttle_time_ms: i32,
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
    /// The members.
    #[kafka(versions = "3+")]
    pub members: Vec<LeaveGroupResponseMember>,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct LeaveGroupResponseMember {
    /// The member's id.
    pub member_id: String,
    /// The member's own name for itself; null for a member that is not static.
    pub group_instance_id: Option<String>,
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
}
