//! ListConfigResources: what has a configuration. Version 0 asks for subscriptions to client metrics
//! only, of which there are none.

use std::collections::BTreeSet;

use sapwood_kafka_wire::messages::{
    ListConfigResourcesRequest, ListConfigResourcesResponse, ListConfigResourcesResponseResource,
};

use super::configs::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};
use crate::{context::Context, errors::ErrorCode};

const KNOWN: [i8; 5] = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];

pub(crate) async fn handle(
    context: &Context,
    request: ListConfigResourcesRequest,
    version: i16,
) -> ListConfigResourcesResponse {
    let asked: BTreeSet<i8> = match version {
        0 => [CLIENT_METRICS].into(),
        _ if request.resource_types.is_empty() => KNOWN.into(),
        _ => request.resource_types.into_iter().collect(),
    };
    if let Some(unknown) = asked.iter().find(|one| !KNOWN.contains(one)) {
        let reason = format_args!("resource type {unknown} is not known");
        return ListConfigResourcesResponse {
            error_code: context.refuse(ErrorCode::UnsupportedVersion, &reason),
            ..ListConfigResourcesResponse::default()
        };
    }
    let mut config_resources = Vec::new();
    let mut add = |resource_type, resource_name| {
        config_resources.push(ListConfigResourcesResponseResource {
            resource_name,
            resource_type,
        });
    };
    for resource_type in asked {
        match resource_type {
            TOPIC => context
                .broker()
                .topics()
                .iter()
                .for_each(|topic| add(TOPIC, topic.name.to_string())),
            BROKER | BROKER_LOGGER => add(resource_type, context.broker_id().to_string()),
            // There are none.
            _ => {}
        }
    }
    ListConfigResourcesResponse {
        config_resources,
        ..ListConfigResourcesResponse::default()
    }
}
