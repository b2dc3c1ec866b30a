//! FindCoordinator (10): which broker keeps a group or a transactional id.

use crate::Wire;

/// Asks for the broker that coordinates groups or transactions.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 10, versions = "0-6", flexible = 3, response = FindCoordinatorResponse)]
pub struct FindCoordinatorRequest {
    /// The group or transactional id, up to version 3.
    #[kafka(versions = "0-3")]
    pub key: String,
    /// 0 for groups, 1 for transactions, 2 for share groups.
    #[kafka(versions = "1+")]
    pub key_type: i8,
    /// The groups or transactional ids, from version 4 on.
    #[kafka(versions = "4+")]
    pub coordinator_keys: Vec<String>,
}

/// The coordinators.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 10, versions = "0-6", flexible = 3)]
pub struct FindCoordinatorResponse {
    /// How long the client should wait before its next request, in milliseconds.
    #[kafka(versions = "1+")]
    pub throttle_time_ms: i32,
    /// Kafka's code of what went wrong, or 0.
    #[kafka(versions = "0-3")]
    pub error_code: i16,
    /// What went wrong, for people.
    #[kafka(versions = "1-3")]
    pub error_message: Option<String>,
    /// The number of the broker, or -1.
    #[kafka(versions = "0-3")]
    pub node_id: i32,
    /// Its host name or address.
    #[kafka(versions = "0-3")]
    pub host: String,
    /// Its port.
    #[kafka(versions = "0-3")]
    pub port: i32,
    /// The coordinators, from version 4 on.
    #[kafka(versions = "4+")]
    pub coordinators: Vec<FindCoordinatorResponseCoordinator>,
}

/// A coordinator.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct FindCoordinatorResponseCoordinator {
    /// The group or transactional id.
    pub key: String,
    /// The number of the broker, or -1.
    pub node_id: i32,
    /// Its host name or address.
    pub host: String,
    /// Its port.
    pub port: i32,
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
    /// What went wrong, for people.
    pub error_message: Option<String>,
}
