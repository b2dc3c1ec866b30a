//! DescribeConfigs (32): configurations and where their values come from.

use crate::Wire;

/// Asks for configurations.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 32, versions = "1-4", flexible = 4, response = DescribeConfigsResponse)]
pub struct DescribeConfigsRequest {
    /// The resources.
    pub resources: Vec<DescribeConfigsRequestResource>,
    /// Whether to say where else values could have come from.
    pub include_synonyms: bool,
    /// Whether to say what keys mean.
    #[kafka(versions = "3+")]
    pub include_documentation: bool,
}

/// What has a configuration: a topic, a broker...
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct DescribeConfigsRequestResource {
    /// What kind of resource it is: 2 topic, 4 broker, 8 broker logger, 16 client metrics, 32
    /// group.
    pub resource_type: i8,
    /// The resource's name.
    pub resource_name: String,
    /// The keys; null for all.
    pub configuration_keys: Option<Vec<String>>,
}

/// Configurations.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 32, versions = "1-4", flexible = 4)]
pub struct DescribeConfigsResponse {
    /// How long the client should wait before its next request, in milliseconds.
    pub throttle_time_ms: i32,
    /// The resources.
    pub results: Vec<DescribeConfigsResponseResult>,
}

/// A resource and its configuration.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct DescribeConfigsResponseResult {
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
    /// What went wrong, for people.
    pub error_message: Option<String>,
    /// What kind of resource it is: 2 topic, 4 broker, 8 broker logger, 16 client metrics, 32
    /// group.
    pub resource_type: i8,
    /// The resource's name.
    pub resource_name: String,
    /// Its keys and their values.
    pub configs: Vec<DescribeConfigsResponseConfig>,
}

/// A key, its value and where that comes from.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct DescribeConfigsResponseConfig {
    /// The key.
    pub name: String,
    /// The value.
    pub value: Option<String>,
    /// Whether it cannot be changed.
    pub read_only: bool,
    /// Where the value comes from: 1 the topic, 4 the configuration file, 5 the default...
    #[kafka(default = -1)]
    pub config_source: i8,
    /// Whether the value is a secret; it is null then.
    pub is_sensitive: bool,
    /// Where the value could have come from, the one that counts first.
    pub synonyms: Vec<DescribeConfigsResponseSynonym>,
    /// What the value is: 1 boolean, 2 string, 3 int, 4 short, 5 long, 6 double, 7 list, 8 class, 9
    /// password.
    #[kafka(versions = "3+")]
    pub config_type: i8,
    /// What the key means.
    #[kafka(versions = "3+")]
    pub documentation: Option<String>,
}

/// A key that the value could have come from.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct DescribeConfigsResponseSynonym {
    /// The key.
    pub name: String,
    /// The value.
    pub value: Option<String>,
    /// Where the value comes from: 1 the topic, 4 the configuration file, 5 the default...
    pub source: i8,
}
