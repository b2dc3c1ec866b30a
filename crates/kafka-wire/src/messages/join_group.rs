//! JoinGroup (11): entering a consumer group of the classic kind.

use bytes::Bytes;

use crate::Wire;

/// Enters a group or stays in it when it begins a new generation.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 11, versions = "0-9", flexible = 6, response = JoinGroupResponse)]
pub struct JoinGroupRequest {
    /// The group's name.
    pub group_id: String,
    /// After how long without a heartbeat the member is dead, in milliseconds.
    pub session_timeout_ms: i32,
    /// How long members may take to join a new generation, in milliseconds; -1 for the session
    /// timeout.
    #[kafka(versions = "1+", default = -1)]
    pub rebalance_timeout_ms: i32,
    /// The member's id; empty for one that has none yet.
    pub member_id: String,
    /// The member's own name for itself; null for a member that is not static.
    #[kafka(versions = "5+")]
    pub group_instance_id: Option<String>,
    /// What kind of group it is: `consumer`.
    pub protocol_type: String,
    /// The ways to assign partitions that it knows, the one it likes best first.
    pub protocols: Vec<JoinGroupRequestProtocol>,
    /// Why, for people.
    #[kafka(versions = "8+")]
    pub reason: Option<String>,
}

/// A way to assign partitions that the member knows.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct JoinGroupRequestProtocol {
    /// The assignor's name.
    pub name: String,
    /// What the leader has to know of the member, in the form that the assignor wants.
    pub metadata: Bytes,
}

/// The generation that the member is in. Its leader learns who else is.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 11, versions = "0-9", flexible = 6)]
pub struct JoinGroupResponse {
    /// How long the client should wait before its next request, in milliseconds.
    #[kafka(versions = "2+")]
    pub throttle_time_ms: i32,
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
    /// The group's generation, or -1.
    #[kafka(default = -1)]
    pub generation_id: i32,
    /// What kind of group it is: `consumer`.
    #[kafka(versions = "7+")]
    pub protocol_type: Option<String>,
    /// The assignor that was chosen; null, or empty up to version 6, when there is none.
    #[kafka(nullable = "7+", default = Some(String::new()))]
    pub protocol_name: Option<String>,
    /// The leader's member id.
    pub leader: String,
    /// Whether the leader need not assign anything.
    #[kafka(versions = "9+")]
    pub skip_assignment: bool,
    /// The member's id.
    pub member_id: String,
    /// The members, for the leader; empty for others.
    pub members: Vec<JoinGroupResponseMember>,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct JoinGroupResponseMember {
    /// The member's id.
    pub member_id: String,
    /// The member's own name for itself; null for a member that is not static.
    #[kafka(versions = "5+")]
    pub group_instance_id: Option<String>,
    /// What the leader has to know of the member, in the form that the assignor wants.
    pub metadata: Bytes,
}
