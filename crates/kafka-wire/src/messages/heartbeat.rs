//! Heartbeat (12): staying in a group of the classic kind.

use crate::Wire;

/// Says that a member lives.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 12, versions = "0-4", flexible = 4, response = HeartbeatResponse)]
pub struct HeartbeatRequest {
    /// The group's name.
    pub group_id: String,
    /// The group's generation.
    pub generation_id: i32,
    /// The member's id.
    pub member_id: String,
    /// The member's own name for itself; null for a member that is not static.
    #[kafka(versions = "3+")]
    pub group_instance_id: Option<String>,
}

/// Whether the member's generation still stands.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 12, versions = "0-4", flexible = 4)]
pub struct HeartbeatResponse {
    /// How long the client should wait before its next request, in milliseconds.
    #[kafka(versions = "1+")]
    pub throttle_time_ms: i32,
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
}
