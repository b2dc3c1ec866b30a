//! AlterConfigs (33): replacing whole configurations.

use crate::Wire;

/// Replaces configurations: what is not named goes back to its default.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 33, versions = "0-2", flexible = 2, response = AlterConfigsResponse)]
pub struct AlterConfigsRequest {
    /// The resources.
    pub resources: Vec<AlterConfigsRequestResource>,
    /// Whether to check only, and change nothing.
    pub validate_only: bool,
}

/// What has a configuration: a topic, a broker...
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct AlterConfigsRequestResource {
    /// What kind of resource it is: 2 topic, 4 broker, 8 broker logger, 16 client metrics, 32
    /// group.
    pub resource_type: i8,
    /// The resource's name.
    pub resource_name: String,
    /// All that is to differ from the defaults.
    pub configs: Vec<AlterConfigsRequestConfig>,
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct AlterConfigsRequestConfig {
    /// The key.
    pub name: String,
    /// The value.
    pub value: Option<String>,
}

/// What became of each resource.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 33, versions = "0-2", flexible = 2)]
pub struct AlterConfigsResponse {
    /// How long the client should wait before its next request, in milliseconds.
    pub throttle_time_ms: i32,
    /// What became of each.
    pub responses: Vec<AlterConfigsResponseResource>,
}

/// What has a configuration: a topic, a broker...
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct AlterConfigsResponseResource {
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
