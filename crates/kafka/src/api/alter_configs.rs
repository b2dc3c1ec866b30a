//! AlterConfigs: a topic's whole configuration is replaced. Keys that are not given get their
//! defaults back; IncrementalAlterConfigs leaves them alone.

use std::collections::HashSet;

use sapwood_broker::{ConfigChange, ConfigKey};
use sapwood_kafka_wire::messages::{
    AlterConfigsRequest, AlterConfigsRequestConfig, AlterConfigsRequestResource,
    AlterConfigsResponse, AlterConfigsResponseResource,
};

use super::{
    admin::Refused,
    configs::{Resource, duplicate, named_twice, not_changeable, times},
};
use crate::{context::Context, errors::ErrorCode};

pub(crate) async fn handle(
    context: &Context,
    request: AlterConfigsRequest,
    _version: i16,
) -> AlterConfigsResponse {
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
        let mut answer = AlterConfigsResponseResource {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            ..AlterConfigsResponseResource::default()
        };
        if let Err(refused) = altered {
            answer.error_code = context.refuse(refused.code, &refused.message);
            answer.error_message = Some(refused.message);
        }
        responses.push(answer);
    }
    AlterConfigsResponse {
        responses,
        ..AlterConfigsResponse::default()
    }
}

async fn alter(
    context: &Context,
    resource: &AlterConfigsRequestResource,
    validate_only: bool,
) -> Result<(), Refused> {
    let named = Resource::read(context, resource.resource_type, &resource.resource_name)?;
    let Resource::Topic(topic) = named else {
        return Err(not_changeable(named));
    };
    let changes = replace(&resource.configs)?;
    context
        .broker()
        .alter_topic(topic, changes, validate_only)
        .await?;
    Ok(())
}

/// The changes that make these values the only ones of a topic's own.
fn replace(configs: &[AlterConfigsRequestConfig]) -> Result<Vec<ConfigChange>, Refused> {
    let invalid = |message| Refused::new(ErrorCode::InvalidRequest, message);
    if let Some(key) = duplicate(configs.iter().map(|config| config.name.as_str())) {
        return Err(invalid(format!("{key} is given twice")));
    }
    let mut changes = Vec::with_capacity(ConfigKey::all().len());
    let mut given = HashSet::new();
    for config in configs {
        let value = config.value.clone();
        given.insert(config.name.as_str());
        changes.push(ConfigChange::Set {
            key: config.name.clone(),
            value: value.ok_or_else(|| invalid(format!("{} has no value (null)", config.name)))?,
        });
    }
    let others = ConfigKey::all().iter().map(ConfigKey::name);
    changes.extend(
        others
            .filter(|key| !given.contains(key))
            .map(|key| ConfigChange::Reset {
                key: key.to_owned(),
            }),
    );
    Ok(changes)
}
