//! What the requests about configurations share: resources, sources, types.

use std::collections::HashMap;

use sapwood_broker::{ConfigSource, ValueKind};
use sapwood_model::TopicName;

use super::admin::Refused;
use crate::{context::Context, errors::ErrorCode};

/// Kafka's numbers for what has a configuration.
pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;
pub(super) const BROKER_LOGGER: i8 = 8;
pub(super) const CLIENT_METRICS: i8 = 16;
pub(super) const GROUP: i8 = 32;

/// Kafka's numbers for where a value comes from.
pub(super) const TOPIC_SOURCE: i8 = 1;
pub(super) const STATIC_BROKER_SOURCE: i8 = 4;
pub(super) const DEFAULT_SOURCE: i8 = 5;

/// Where a topic's value comes from, as Kafka says it.
pub(super) fn source(source: ConfigSource) -> i8 {
    match source {
        ConfigSource::Topic => TOPIC_SOURCE,
        ConfigSource::Broker => STATIC_BROKER_SOURCE,
        ConfigSource::Default => DEFAULT_SOURCE,
    }
}

/// Kafka's number for a kind of value.
pub(super) fn kind(kind: ValueKind) -> i8 {
    match kind {
        ValueKind::Boolean => 1,
        ValueKind::Text => 2,
        ValueKind::Int => 3,
        ValueKind::Long => 5,
        ValueKind::Double => 6,
        ValueKind::List => 7,
    }
}

/// What a resource of a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resource<'a> {
    /// A topic, whose name is valid. It may not be there.
    Topic(&'a str),
    /// This broker.
    Broker,
    /// What all brokers would share beside their own configurations.
    AllBrokers,
    /// The levels of this broker's log.
    BrokerLogger,
}

impl<'a> Resource<'a> {
    /// # Errors
    /// There can be no such resource here.
    pub(super) fn read(
        context: &Context,
        resource_type: i8,
        name: &'a str,
    ) -> Result<Self, Refused> {
        let invalid = |message: String| Err(Refused::new(ErrorCode::InvalidRequest, message));
        match resource_type {
            TOPIC => match TopicName::new(name) {
                Ok(_) => Ok(Self::Topic(name)),
                Err(error) => Err(Refused::new(
                    ErrorCode::InvalidTopicException,
                    error.to_string(),
                )),
            },
            BROKER if name.is_empty() => Ok(Self::AllBrokers),
            BROKER | BROKER_LOGGER => match name.parse() {
                Ok(id) if context.broker_id() == id && resource_type == BROKER => Ok(Self::Broker),
                Ok(id) if context.broker_id() == id => Ok(Self::BrokerLogger),
                Ok(_) => invalid(format!(
                    "there is no broker {name}; the only one is broker {}",
                    context.broker_id()
                )),
                Err(_) => invalid(format!("{name:?} is not the id of a broker")),
            },
            CLIENT_METRICS => {
                invalid("this broker keeps no subscriptions to client metrics".into())
            }
            GROUP => invalid("groups have no configuration of their own on this broker".into()),
            other => invalid(format!("resource type {other} is not known")),
        }
    }
}

/// How often each resource is named in one request.
pub(super) fn times<'a>(
    resources: impl Iterator<Item = (i8, &'a str)>,
) -> HashMap<(i8, &'a str), usize> {
    let mut times = HashMap::new();
    for resource in resources {
        *times.entry(resource).or_default() += 1;
    }
    times
}

/// The refusal of a resource that is named more than once.
pub(super) fn named_twice() -> Refused {
    Refused::new(
        ErrorCode::InvalidRequest,
        "the resource is named twice in one request",
    )
}

/// The refusal of a change of what is not a topic's.
pub(super) fn not_changeable(resource: Resource<'_>) -> Refused {
    let message = match resource {
        Resource::BrokerLogger => {
            "log levels are set by log.level in the broker's configuration file, not over the \
             protocol"
        }
        _ => {
            "the broker's settings come from its configuration file, its environment and its flags \
             and are not changed over the protocol; those of topics can be changed topic by topic"
        }
    };
    Refused::new(ErrorCode::InvalidRequest, message)
}

/// The first key that is given twice, if one is.
pub(super) fn duplicate<'a>(keys: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut seen = std::collections::HashSet::new();
    keys.into_iter().find(|key| !seen.insert(*key))
}
