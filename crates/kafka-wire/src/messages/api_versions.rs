//! ApiVersions (18): what a broker speaks; a client's first request.

use crate::Wire;

/// Asks what the broker speaks.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 18, versions = "0-4", flexible = 3, response = ApiVersionsResponse)]
pub struct ApiVersionsRequest {
    /// The name of the client's library.
    #[kafka(versions = "3+")]
    pub client_software_name: String,
    /// The library's version.
    #[kafka(versions = "3+")]
    pub client_software_version: String,
}

/// The APIs and versions that the broker speaks. A client that asked in an unknown version gets it
/// in version 0, with an error code.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 18, versions = "0-4", flexible = 3)]
pub struct ApiVersionsResponse {
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
    /// The APIs.
    pub api_keys: Vec<ApiVersionsResponseApiVersion>,
    /// How long the client should wait before its next request, in milliseconds.
    #[kafka(versions = "1+")]
    pub throttle_time_ms: i32,
    /// The features that the broker could have.
    #[kafka(versions = "3+", tag = 0)]
    pub supported_features: Vec<ApiVersionsResponseSupportedFeature>,
    /// Counts the changes of `finalized_features`; -1 when they are not known.
    #[kafka(versions = "3+", default = -1, tag = 1)]
    pub finalized_features_epoch: i64,
    /// The features that the cluster has.
    #[kafka(versions = "3+", tag = 2)]
    pub finalized_features: Vec<ApiVersionsResponseFinalizedFeature>,
    /// Whether the cluster can leave ZooKeeper.
    #[kafka(versions = "3+", tag = 3)]
    pub zk_migration_ready: bool,
}

/// An API and its versions.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct ApiVersionsResponseApiVersion {
    /// Its number.
    pub api_key: i16,
    /// The first version.
    pub min_version: i16,
    /// The last version.
    pub max_version: i16,
}

/// A feature that the broker could have.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct ApiVersionsResponseSupportedFeature {
    /// The feature's name.
    pub name: String,
    /// Its lowest level.
    pub min_version: i16,
    /// Its highest level.
    pub max_version: i16,
}

/// A feature that the cluster has.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct ApiVersionsResponseFinalizedFeature {
    /// The feature's name.
    pub name: String,
    /// The highest level that all brokers have.
    pub max_version_level: i16,
    /// The lowest level that all brokers have.
    pub min_version_level: i16,
}
