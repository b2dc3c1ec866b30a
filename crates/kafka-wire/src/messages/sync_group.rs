//! SyncGroup (14): from the leader's assignment to the members'.

use bytes::Bytes;

use crate::Wire;

/// Asks for the member's assignment; the leader brings everybody's.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 14, versions = "0-5", flexible = 4, response = SyncGroupResponse)]
pub struct SyncGroupRequest {
    /// The group's name.
    pub group_id: String,
    /// The group's generation.
    pub generation_id: i32,
    /// The member's id.
    pub member_id: String,
    /// The member's own name for itself; null for a member that is not static.
    #[kafka(versions = "3+")]
    pub group_instance_id: Option<String>,
    /// What kind of group it is: `consumer`.
    #[kafka(versions = "5+")]
    pub protocol_type: Option<String>,
    /// The assignor that was chosen.
    #[kafka(versions = "5+")]
    pub protocol_name: Option<String>,
    /// Everybody's assignments; empty unless it is the leader who asks.
    pub assignments: Vec<SyncGroupRequestAssignment>,
}

/// What one member has to read.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct SyncGroupRequestAssignment {
    /// The member's id.
    pub member_id: String,
    /// What the member has to read, in the assignor's form.
    pub assignment: Bytes,
}

/// What the member has to read.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 14, versions = "0-5", flexible = 4)]
pub struct SyncGroupResponse {
    /// How long the client should wait before its next request, in milliseconds.
    #[kafka(versions = "1+")]
    pub throttle_time_ms: i32,
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
    /// What kind of group it is: `consumer`.
    #[kafka(versions = "5+")]
    pub protocol_type: Option<String>,
    /// The assignor that was chosen.
    #[kafka(versions = "5+")]
    pub protocol_name: Option<String>,
    /// What the member has to read, in the assignor's form.
    pub assignment: Bytes,
}
