//! DescribeCluster (60): the brokers of a cluster.

use crate::Wire;

/// Asks for the cluster.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 60, versions = "0-2", flexible = 0, response = DescribeClusterResponse)]
pub struct DescribeClusterRequest {
    /// Whether to say what the client may do with the cluster.
    pub include_cluster_authorized_operations: bool,
    /// 1 for brokers, 2 for controllers.
    #[kafka(versions = "1+", default = 1)]
    pub endpoint_type: i8,
    /// Whether to name brokers that are kept out.
    #[kafka(versions = "2+")]
    pub include_fenced_brokers: bool,
}

/// The cluster.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 60, versions = "0-2", flexible = 0)]
pub struct DescribeClusterResponse {
    /// How long the client should wait before its next request, in milliseconds.
    pub throttle_time_ms: i32,
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
    /// What went wrong, for people.
    pub error_message: Option<String>,
    /// 1 for brokers, 2 for controllers.
    #[kafka(versions = "1+", default = 1)]
    pub endpoint_type: i8,
    /// The cluster's name.
    pub cluster_id: String,
    /// The broker that controls the cluster, or -1.
    #[kafka(default = -1)]
    pub controller_id: i32,
    /// The brokers, or the controllers when they were asked for.
    pub brokers: Vec<DescribeClusterResponseBroker>,
    /// What the client may do with the cluster, a bit each; `i32::MIN` when nobody asked.
    #[kafka(default = i32::MIN)]
    pub cluster_authorized_operations: i32,
}

/// A broker.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct DescribeClusterResponseBroker {
    /// Its number.
    pub broker_id: i32,
    /// Its host name or address.
    pub host: String,
    /// Its port.
    pub port: i32,
    /// Where it stands, if that is known.
    pub rack: Option<String>,
    /// Whether it is kept out.
    #[kafka(versions = "2+")]
    pub is_fenced: bool,
}
