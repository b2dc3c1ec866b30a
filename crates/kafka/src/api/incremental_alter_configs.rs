//! IncrementalAlterConfigs: single keys of a topic's configuration are set, given their defaults
//! back, or have items of their lists added and removed; all changes of a topic or none.

use std::collections::HashSet;

use sapwood_broker::ConfigChange;
use sapwood_kafka_wire::messages::{
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsRequestConfig,
    IncrementalAlterConfigsRequestResource, IncrementalAlterConfigsResponse,
    IncrementalAlterConfigsResponseResource,
};

use super::{
    admin::Refused,
    configs::{Resource, duplicate, named_twice, not_changeable, times},
};
use crate::{context::Context, errors::ErrorCode};

/// Kafka's numbers for the operations.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

pub(crate) async fn handle(
    context: &Context,
    request: IncrementalAlterConfigsRequest,
    _version: i16,
) -> IncrementalAlterConfigsResponse {
    let named = times(
        request
            .resources
            .iter()
            .map(|resource| (resource.resource_type, resource.resource_name.as_str())),
    );
    let mut answered = HashSet::new();
    let mut responses = Vec::new();
    for resource in &request.resources {
        let key = (resource.resource_type, resource.resource_name.as_str());
        if !answered.insert(key) {
            continue;
        }
        let altered = match named[&key] {
            1 => alter(context, resource, request.validate_only).await,
            _ => Err(named_twice()),
        };
        let mut answer = IncrementalAlterConfigsResponseResource {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            ..IncrementalAlterConfigsResponseResource::default()
        };
        if let Err(refused) = altered {
            answer.error_code = context.refuse(refused.code, &refused.message);
            answer.error_message = Some(refused.message);
        }
        responses.push(answer);
    }
    IncrementalAlterConfigsResponse {
        responses,
        ..IncrementalAlterConfigsResponse::default()
    }
}

async fn alter(
    context: &Context,
    resource: &IncrementalAlterConfigsRequestResource,
    validate_only: bool,
) -> Result<(), Refused> {
    let named = Resource::read(context, resource.resource_type, &resource.resource_name)?;
    let Resource::Topic(topic) = named else {
        // Tools clear by habit what they never set. Nothing is ever set here, so it is cleared.
        let clears =
            |config: &IncrementalAlterConfigsRequestConfig| config.config_operation == DELETE;
        return match resource.configs.iter().all(clears) {
            true => Ok(()),
            false => Err(not_changeable(named)),
        };
    };
    if let Some(key) = duplicate(resource.configs.iter().map(|config| config.name.as_str())) {
        let message = format!("{key} is given twice");
        return Err(Refused::new(ErrorCode::InvalidRequest, message));
    }
    let changes = resource.configs.iter().map(change);
    let changes = changes.collect::<Result<Vec<_>, _>>()?;
    context
        .broker()
        .alter_topic(topic, changes, validate_only)
        .await?;
    Ok(())
}

fn change(config: &IncrementalAlterConfigsRequestConfig) -> Result<ConfigChange, Refused> {
    let invalid = |message| Refused::new(ErrorCode::InvalidRequest, message);
    let key = config.name.clone();
    let value = || {
        let value = config.value.clone();
        value.ok_or_else(|| invalid(format!("{} has no value (null)", config.name)))
    };
    Ok(match config.config_operation {
        SET => ConfigChange::Set {
            key,
            value: value()?,
        },
        DELETE => ConfigChange::Reset { key },
        APPEND => ConfigChange::Append {
            key,
            value: value()?,
        },
        SUBTRACT => ConfigChange::Subtract {
            key,
            value: value()?,
        },
        other => return Err(invalid(format!("operation {other} on {key} is not known"))),
    })
}
