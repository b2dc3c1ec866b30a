//! InitProducerId (22): an identity for an idempotent producer.

use crate::Wire;

/// Asks for a producer id, or for a new epoch of one.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 22, versions = "0-5", flexible = 2, response = InitProducerIdResponse)]
pub struct InitProducerIdRequest {
    /// The producer's transactional id; null without transactions.
    pub transactional_id: Option<String>,
    /// How long a transaction may stay open, in milliseconds.
    pub transaction_timeout_ms: i32,
    /// The producer id that the client has, or -1.
    #[kafka(versions = "3+", default = -1)]
    pub producer_id: i64,
    /// The epoch that the client has, or -1.
    #[kafka(versions = "3+", default = -1)]
    pub producer_epoch: i16,
}

/// The producer's identity.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 22, versions = "0-5", flexible = 2)]
pub struct InitProducerIdResponse {
    /// How long the client should wait before its next request, in milliseconds.
    pub throttle_time_ms: i32,
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
    /// The producer id, or -1.
    #[kafka(default = -1)]
    pub producer_id: i64,
    /// The producer's epoch.
    pub producer_epoch: i16,
}
