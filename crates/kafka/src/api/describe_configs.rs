//! DescribeConfigs: the configurations of topics and of the broker, with the sources of all values.

use std::collections::HashSet;

use sapwood_broker::{ConfigEntry, ConfigSource};
use sapwood_kafka_wire::messages::{
    DescribeConfigsRequest, DescribeConfigsRequestResource, DescribeConfigsResponse,
    DescribeConfigsResponseConfig, DescribeConfigsResponseResult, DescribeConfigsResponseSynonym,
};

use super::{
    admin::Refused,
    broker_configs::{self, BrokerConfig},
    configs::{
        DEFAULT_SOURCE, Resource, STATIC_BROKER_SOURCE, TOPIC_SOURCE, kind, named_twice, source,
    },
};
use crate::context::Context;

/// What the client wants to know of each key.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    synonyms: bool,
    documentation: bool,
}

pub(crate) async fn handle(
    context: &Context,
    request: DescribeConfigsRequest,
    _version: i16,
) -> DescribeConfigsResponse {
    let wanted = Wanted {
        synonyms: request.include_synonyms,
        documentation: request.include_documentation,
    };
    let mut seen = HashSet::new();
    let mut results = Vec::with_capacity(request.resources.len());
    for resource in &request.resources {
        // An answer is much longer than a question: it is given once.
        let configs = if seen.insert((resource.resource_type, &resource.resource_name)) {
            describe(context, resource, wanted)
        } else {
            Err(named_twice())
        };
        let mut result = DescribeConfigsResponseResult {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            ..DescribeConfigsResponseResult::default()
        };
        match configs {
            Ok(configs) => result.configs = configs,
            Err(refused) => {
                result.error_code = context.refuse(refused.code, &refused.message);
                result.error_message = Some(refused.message);
            }
        }
        results.push(result);
    }
    DescribeConfigsResponse {
        results,
        ..DescribeConfigsResponse::default()
    }
}

fn describe(
    context: &Context,
    resource: &DescribeConfigsRequestResource,
    wanted: Wanted,
) -> Result<Vec<DescribeConfigsResponseConfig>, Refused> {
    let named = Resource::read(context, resource.resource_type, &resource.resource_name)?;
    let keys: Option<HashSet<&str>> = resource
        .configuration_keys
        .as_ref()
        // Some clients send an empty list and mean all.
        .filter(|keys| !keys.is_empty())
        .map(|keys| keys.iter().map(String::as_str).collect());
    let is_asked = |name: &str| keys.as_ref().is_none_or(|keys| keys.contains(name));
    Ok(match named {
        Resource::Topic(name) => {
            let entries = context.broker().topic_configs(name)?.into_iter();
            entries
                .filter(|entry| is_asked(entry.key))
                .map(|entry| of_topic(entry, wanted))
                .collect()
        }
        Resource::Broker => broker_configs::all(context)
            .into_iter()
            .filter(|config| is_asked(config.name))
            .map(|config| of_broker(config, wanted))
            .collect(),
        Resource::AllBrokers | Resource::BrokerLogger => Vec::new(),
    })
}

fn of_topic(entry: ConfigEntry, wanted: Wanted) -> DescribeConfigsResponseConfig {
    let config_source = source(entry.source);
    DescribeConfigsResponseConfig {
        name: entry.key.to_owned(),
        read_only: false,
        config_source,
        is_sensitive: false,
        synonyms: match wanted.synonyms {
            true => synonyms(&entry),
            false => Vec::new(),
        },
        config_type: kind(entry.kind),
        documentation: wanted.documentation.then(|| entry.documentation.to_owned()),
        value: Some(entry.value),
    }
}

/// The values that a key has at its levels, the one in force first: the topic's, the broker's,
/// Kafka's default.
fn synonyms(entry: &ConfigEntry) -> Vec<DescribeConfigsResponseSynonym> {
    let synonym = |name: &str, value: &str, source| DescribeConfigsResponseSynonym {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        source,
    };
    let broker_key = entry.broker_key.unwrap_or(entry.key);
    let mut synonyms = Vec::new();
    if entry.source == ConfigSource::Topic {
        synonyms.push(synonym(entry.key, &entry.value, TOPIC_SOURCE));
    }
    if entry.is_set_by_broker {
        synonyms.push(synonym(broker_key, &entry.default, STATIC_BROKER_SOURCE));
    }
    synonyms.push(synonym(broker_key, entry.built_in, DEFAULT_SOURCE));
    synonyms
}

fn of_broker(config: BrokerConfig, wanted: Wanted) -> DescribeConfigsResponseConfig {
    let config_source = match config.is_default() {
        true => DEFAULT_SOURCE,
        false => STATIC_BROKER_SOURCE,
    };
    let mut synonyms = Vec::new();
    if wanted.synonyms {
        let mut add = |value: &String, source| {
            synonyms.push(DescribeConfigsResponseSynonym {
                name: config.name.to_owned(),
                value: Some(value.clone()),
                source,
            });
        };
        if config_source == STATIC_BROKER_SOURCE {
            add(&config.value, STATIC_BROKER_SOURCE);
        }
        if let Some(default) = &config.default {
            add(default, DEFAULT_SOURCE);
        }
    }
    DescribeConfigsResponseConfig {
        name: config.name.to_owned(),
        value: Some(config.value),
        read_only: true,
        config_source,
        is_sensitive: false,
        synonyms,
        config_type: kind(config.kind),
        documentation: wanted.documentation.then_some(config.documentation),
    }
}
