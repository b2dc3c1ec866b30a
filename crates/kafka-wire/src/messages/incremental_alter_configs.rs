//! IncrementalAlterConfigs (44): changing single keys of configurations.

use crate::Wire;

/// Changes keys of configurations; what is not named stays.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 44, versions = "0-1", flexible = 1, response = IncrementalAlterConfigsResponse)]
pub struct IncrementalAlterConfigsRequest {
    /// The resources.
    pub resources: Vec<IncrementalAlterConfigsRequestResource>,
    /// Whether to check only, and change nothing.
    pub validate_only: bool,
}

/// What has a configuration: a topic, a broker...
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct IncrementalAlterConfigsRequestResource {
    /// What kind of resource it is: 2 topic, 4 broker, 8 broker logger, 16 client metrics, 32
    /// group.
    pub resource_type: i8,
    /// The resource's name.
    pub resource_name: String,
    /// The changes.
    pub configs: Vec<IncrementalAlterConfigsRequestConfig>,
}

/// A change to a key.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct IncrementalAlterConfigsRequestConfig {
    /// The key.
    pub name: String,
    /// 0 sets, 1 deletes, 2 appends to a list, 3 takes out of a list.
    pub config_operation: i8,
    /// What to set, append or take out.
    pub value: Option<String>,
}

/// What became of each resource.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 44, versions = "0-1", flexible = 1)]
pub struct IncrementalAlterConfigsResponse {
    /// How long the client should wait before its next request, in milliseconds.
    pub throttle_time_ms: i32,
    /// What became of each.
    pub responses: Vec<IncrementalAlterConfigsResponseResource>,
}

/// What has a configuration: a topic, a broker...
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct IncrementalAlterConfigsResponseResource {
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
    /// What went wrong, for people.
    pub error_message: Option<String>,
    /// What kind of resource it is: 2 topic, 4 broker, 8 broker logger, 16 client metrics, 32
    /// group.
    pub resource_type: i8,
    /// The resource's name.
    pub resource_name: String,
}
