//! CreatePartitions: more partitions for topics that are there.

use std::collections::{HashMap, HashSet};

use sapwood_broker::TopicRef;
use sapwood_kafka_wire::messages::{
    CreatePartitionsRequest, CreatePartitionsRequestTopic, CreatePartitionsResponse,
    CreatePartitionsResponseTopic,
};

use super::admin::{Deadline, PARTITIONS_PER_REQUEST_MAX, Refused, TOLD_WHY_MAX, replicas_of_one};
use crate::{context::Context, errors::ErrorCode};

pub(crate) async fn handle(
    context: &Context,
    request: CreatePartitionsRequest,
    _version: i16,
) -> CreatePartitionsResponse {
    let deadline = Deadline::after(request.timeout_ms);
    let mut named: HashMap<&str, usize> = HashMap::new();
    let mut added = 0;
    for topic in &request.topics {
        *named.entry(&topic.name).or_default() += 1;
        added += partitions_added(context, topic);
    }
    let excessive =
        (added > PARTITIONS_PER_REQUEST_MAX).then(|| Refused::too_many_partitions(added));

    let mut seen = HashSet::new();
    let mut results: Vec<CreatePartitionsResponseTopic> = Vec::new();
    for topic in &request.topics {
        if !seen.insert(topic.name.as_str()) {
            continue;
        }
        let result = match &excessive {
            Some(refused) => Err(refused.clone()),
            None if named[topic.name.as_str()] > 1 => Err(Refused::new(
                ErrorCode::InvalidRequest,
                format!("topic {:?} is named twice in one request", topic.name),
            )),
            None if deadline.has_passed() => Err(Refused::timed_out()),
            None => add(context, topic, request.validate_only).await,
        };
        let mut answer = CreatePartitionsResponseTopic {
            name: topic.name.clone(),
            ..CreatePartitionsResponseTopic::default()
        };
        if let Err(refused) = result {
            let told = excessive.is_none() || results.len() < TOLD_WHY_MAX;
            answer.error_code = context.refuse(refused.code, &refused.message);
            answer.error_message = told.then_some(refused.message);
        }
        results.push(answer);
    }
    CreatePartitionsResponse {
        results,
        ..CreatePartitionsResponse::default()
    }
}

/// How many partitions an entry adds, as far as it can be meant.
fn partitions_added(context: &Context, topic: &CreatePartitionsRequestTopic) -> u64 {
    let total = u64::try_from(topic.count).unwrap_or(0);
    let info = context.broker().topic(topic.name.as_str());
    info.map_or(0, |info| total.saturating_sub(info.partitions.into()))
}

async fn add(
    context: &Context,
    topic: &CreatePartitionsRequestTopic,
    validate_only: bool,
) -> Result<(), Refused> {
    let broker = context.broker();
    let name = TopicRef::Name(&topic.name);
    let Some(info) = broker.topic(name) else {
        let message = format!("topic {name} does not exist");
        return Err(Refused::new(ErrorCode::UnknownTopicOrPartition, message));
    };
    let total = u32::try_from(topic.count).unwrap_or(0);
    if let Some(assignments) = &topic.assignments
        && total > info.partitions
    {
        let added = total - info.partitions;
        let invalid = |message| Refused::new(ErrorCode::InvalidReplicaAssignment, message);
        if assignments.len() as u64 != u64::from(added) {
            return Err(invalid(format!(
                "{added} partitions are added, and {} are assigned",
                assignments.len()
            )));
        }
        for (partition, assignment) in (info.partitions..).zip(assignments) {
            replicas_of_one(context.broker_id(), &assignment.broker_ids)
                .map_err(|message| invalid(format!("partition {partition}: {message}")))?;
        }
    }
    broker.add_partitions(info.id, total, validate_only).await?;
    Ok(())
}
