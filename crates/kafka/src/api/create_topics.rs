//! CreateTopics: a topic or a refusal for each entry, one after the other.

use std::collections::{HashMap, HashSet};

use sapwood_broker::{ConfigEntry, CreateTopicError, NewTopic};
use sapwood_kafka_wire::{
    Uuid,
    messages::{
        CreateTopicsRequest, CreateTopicsRequestTopic, CreateTopicsResponse,
        CreateTopicsResponseConfig, CreateTopicsResponseTopic,
    },
};
use sapwood_model::Code;

use super::{
    admin::{Deadline, PARTITIONS_PER_REQUEST_MAX, Refused, TOLD_WHY_MAX, replicas_of_one},
    configs::source,
};
use crate::{
    context::Context,
    errors::{AsKafka, ErrorCode},
};

/// From this version the answer says what the topic got.
const DESCRIBES_FROM: i16 = 5;

pub(crate) async fn handle(
    context: &Context,
    request: CreateTopicsRequest,
    version: i16,
) -> CreateTopicsResponse {
    let deadline = Deadline::after(request.timeout_ms);
    let mut named: HashMap<&str, usize> = HashMap::new();
    for topic in &request.topics {
        *named.entry(&topic.name).or_default() += 1;
    }
    let default = context.broker().options().default_partitions;
    let partitions: u64 = request
        .topics
        .iter()
        .map(|topic| partitions_asked(topic, default))
        .sum();
    let excessive =
        (partitions > PARTITIONS_PER_REQUEST_MAX).then(|| Refused::too_many_partitions(partitions));

    let mut seen = HashSet::new();
    let mut answers = Vec::new();
    for topic in &request.topics {
        // One answer for each name, also for one that is given twice.
        if !seen.insert(topic.name.as_str()) {
            continue;
        }
        let planned = match &excessive {
            Some(refused) => Err(refused.clone()),
            None if named[topic.name.as_str()] > 1 => Err(Refused::new(
                ErrorCode::InvalidRequest,
                format!("topic {:?} is named twice in one request", topic.name),
            )),
            None if deadline.has_passed() => Err(Refused::timed_out()),
            None => plan(context, topic, request.validate_only),
        };
        let created = match planned {
            Ok(new) => create(context, new, version).await,
            Err(refused) => Err(refused),
        };
        answers.push(created.unwrap_or_else(|refused| {
            let told = excessive.is_none() || answers.len() < TOLD_WHY_MAX;
            CreateTopicsResponseTopic {
                name: topic.name.clone(),
                error_code: context.refuse(refused.code, &refused.message),
                error_message: told.then_some(refused.message),
                ..CreateTopicsResponseTopic::default()
            }
        }));
    }
    CreateTopicsResponse {
        topics: answers,
        ..CreateTopicsResponse::default()
    }
}

/// How many partitions an entry asks for, as far as it can be meant.
fn partitions_asked(topic: &CreateTopicsRequestTopic, default: u32) -> u64 {
    match (topic.assignments.len(), topic.num_partitions) {
        (0, -1) => default.into(),
        (0, partitions) => u64::try_from(partitions).unwrap_or(1),
        (assignments, _) => assignments as u64,
    }
}

/// What the broker is to be asked for.
fn plan(
    context: &Context,
    topic: &CreateTopicsRequestTopic,
    validate_only: bool,
) -> Result<NewTopic, Refused> {
    let mut configs = Vec::with_capacity(topic.configs.len());
    for config in &topic.configs {
        let value = config.value.clone().ok_or_else(|| {
            let message = format!("{} has no value (null)", config.name);
            Refused::new(ErrorCode::InvalidConfig, message)
        })?;
        configs.push((config.name.clone(), value));
    }
    let (partitions, replication_factor) = match topic.assignments.is_empty() {
        true => counts(topic)?,
        false => (Some(assigned(context, topic)?), None),
    };
    Ok(NewTopic {
        name: topic.name.clone(),
        partitions,
        replication_factor,
        configs,
        validate_only,
    })
}

/// The numbers of partitions and replicas, where the entry gives no places for them.
fn counts(topic: &CreateTopicsRequestTopic) -> Result<(Option<u32>, Option<i16>), Refused> {
    let partitions = match topic.num_partitions {
        -1 => None,
        number => Some(u32::try_from(number).map_err(|_| {
            let message = format!("{number} partitions are not possible; a topic has at least 1");
            Refused::new(ErrorCode::InvalidPartitions, message)
        })?),
    };
    let replicas = Some(topic.replication_factor).filter(|replicas| *replicas != -1);
    Ok((partitions, replicas))
}

/// How many partitions the entry assigns: all of them, from 0, to the one broker.
fn assigned(context: &Context, topic: &CreateTopicsRequestTopic) -> Result<u32, Refused> {
    for (what, number) in [
        ("number of partitions", topic.num_partitions),
        ("replication factor", topic.replication_factor.into()),
    ] {
        if number != -1 {
            let message = format!("the {what} is {number}; with replica assignments it must be -1");
            return Err(Refused::new(ErrorCode::InvalidRequest, message));
        }
    }
    let invalid = |message| Refused::new(ErrorCode::InvalidReplicaAssignment, message);
    let mut numbers = HashSet::new();
    for assignment in &topic.assignments {
        let partition = assignment.partition_index;
        replicas_of_one(context.broker_id(), &assignment.broker_ids)
            .map_err(|message| invalid(format!("partition {partition}: {message}")))?;
        if !numbers.insert(partition) {
            return Err(invalid(format!("partition {partition} is assigned twice")));
        }
    }
    let count = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
    let has = |partition: u32| i32::try_from(partition).is_ok_and(|p| numbers.contains(&p));
    match (0..count).find(|partition| !has(*partition)) {
        None => Ok(count),
        Some(missing) => Err(invalid(format!(
            "partition {missing} is not assigned; {count} assignments are for partitions 0 to {}",
            count - 1
        ))),
    }
}

async fn create(
    context: &Context,
    new: NewTopic,
    version: i16,
) -> Result<CreateTopicsResponseTopic, Refused> {
    let broker = context.broker();
    let (values, validate_only) = (new.configs.clone(), new.validate_only);
    let topic = broker.create_topic(new).await?;
    let mut answer = CreateTopicsResponseTopic {
        name: topic.name.to_string(),
        // A topic that was only planned has no id.
        topic_id: Uuid(if validate_only { 0 } else { topic.id.0 }),
        ..CreateTopicsResponseTopic::default()
    };
    if version >= DESCRIBES_FROM {
        // What it was created with, whatever has become of it since.
        let configs = broker.preview_configs(&values);
        let configs = configs.map_err(CreateTopicError::from)?;
        answer.num_partitions = i32::try_from(topic.partitions).unwrap_or(i32::MAX);
        answer.replication_factor = 1;
        answer.configs = Some(configs.into_iter().map(config).collect());
    }
    Ok(answer)
}

fn config(entry: ConfigEntry) -> CreateTopicsResponseConfig {
    CreateTopicsResponseConfig {
        name: entry.key.to_owned(),
        value: Some(entry.value),
        read_only: false,
        config_source: source(entry.source),
        is_sensitive: false,
    }
}

impl From<CreateTopicError> for Refused {
    fn from(error: CreateTopicError) -> Self {
        let message = match error.code() {
            // Clients of clusters ask for 3 by habit; their users see nothing but this.
            Code::InvalidReplication => format!(
                "{error}; ask for 1, or set topics.replication_factor = \"as-one\" in the broker's \
                 configuration"
            ),
            _ => error.to_string(),
        };
        Self::new(error.kafka(), message)
    }
}
