//! DescribeCluster: the one broker, which is the controller too.

use sapwood_kafka_wire::messages::{
    DescribeClusterRequest, DescribeClusterResponse, DescribeClusterResponseBroker,
};

use super::{CLUSTER_OPERATIONS, admin::Refused};
use crate::{context::Context, errors::ErrorCode};

/// Kafka's numbers for what a client believes to talk to.
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub(crate) async fn handle(
    context: &Context,
    request: DescribeClusterRequest,
    _version: i16,
) -> DescribeClusterResponse {
    let refused = match request.endpoint_type {
        BROKERS => None,
        CONTROLLERS => Some(Refused::new(
            ErrorCode::MismatchedEndpointType,
            "this is an endpoint of brokers; there are none of controllers alone",
        )),
        other => Some(Refused::new(
            ErrorCode::UnsupportedEndpointType,
            format!("endpoint type {other} is not known"),
        )),
    };
    if let Some(refused) = refused {
        return DescribeClusterResponse {
            error_code: context.refuse(refused.code, &refused.message),
            error_message: Some(refused.message),
            endpoint_type: BROKERS,
            ..DescribeClusterResponse::default()
        };
    }
    let advertised = context.advertised();
    DescribeClusterResponse {
        endpoint_type: BROKERS,
        cluster_id: context.cluster_id().to_owned(),
        controller_id: context.broker_id(),
        brokers: vec![DescribeClusterResponseBroker {
            broker_id: context.broker_id(),
            host: advertised.host.clone(),
            port: advertised.port.into(),
            ..DescribeClusterResponseBroker::default()
        }],
        cluster_authorized_operations: match request.include_cluster_authorized_operations {
            true => CLUSTER_OPERATIONS,
            false => i32::MIN,
        },
        ..DescribeClusterResponse::default()
    }
}
