//! ListConfigResources (74): which resources have configurations.

use crate::Wire;

/// Asks for the resources that have configurations.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 74, versions = "0-1", flexible = 0, response = ListConfigResourcesResponse)]
pub struct ListConfigResourcesRequest {
    /// The kinds of resources: 2 topic, 4 broker, 8 broker logger, 16 client metrics, 32 group;
    /// empty for all.
    #[kafka(versions = "1+")]
    pub resource_types: Vec<i8>,
}

/// The resources.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 74, versions = "0-1", flexible = 0)]
pub struct ListConfigResourcesResponse {
    /// How long the client should wait before its next request, in milliseconds.
    pub throttle_time_ms: i32,
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
    /// The resources.
    pub config_resources: Vec<ListConfigResourcesResponseResource>,
}

/// What has a configuration: a topic, a broker...
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct ListConfigResourcesResponseResource {
    /// The resource's name.
    pub resource_name: String,
    /// What kind of resource it is: 2 topic, 4 broker, 8 broker logger, 16 client metrics, 32
    /// group.
    #[kafka(versions = "1+", default = 16)]
    pub resource_type: i8,
}
