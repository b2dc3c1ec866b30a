//! DescribeProducers: the idempotent producers that partitions remember.

use std::collections::{BTreeMap, BTreeSet};

use sapwood_broker::{ProducerState, TopicRef};
use sapwood_kafka_wire::messages::{
    DescribeProducersRequest, DescribeProducersResponse, DescribeProducersResponsePartition,
    DescribeProducersResponseProducer, DescribeProducersResponseTopic,
};
use sapwood_model::TopicName;

use super::admin::{self, Refused};
use crate::{context::Context, errors::ErrorCode};

pub(crate) async fn handle(
    context: &Context,
    request: DescribeProducersRequest,
    _version: i16,
) -> DescribeProducersResponse {
    // An answer is much longer than a question: each partition is answered once.
    let mut asked: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
    for topic in request.topics {
        asked
            .entry(topic.name)
            .or_default()
            .extend(topic.partition_indexes);
    }
    let topics = asked.into_iter();
    DescribeProducersResponse {
        topics: topics
            .map(|(name, partitions)| DescribeProducersResponseTopic {
                partitions: partitions
                    .into_iter()
                    .map(|partition| describe(context, &name, partition))
                    .collect(),
                name,
            })
            .collect(),
        ..DescribeProducersResponse::default()
    }
}

fn describe(
    context: &Context,
    topic: &str,
    partition_index: i32,
) -> DescribeProducersResponsePartition {
    let mut answer = DescribeProducersResponsePartition {
        partition_index,
        ..DescribeProducersResponsePartition::default()
    };
    match producers(context, topic, partition_index) {
        Ok(producers) => answer.active_producers = producers.iter().map(producer).collect(),
        Err(refused) => {
            answer.error_code = context.refuse(refused.code, &refused.message);
            answer.error_message = Some(refused.message);
        }
    }
    answer
}

fn producers(
    context: &Context,
    topic: &str,
    partition: i32,
) -> Result<Vec<ProducerState>, Refused> {
    if let Err(error) = TopicName::new(topic) {
        return Err(Refused::new(
            ErrorCode::InvalidTopicException,
            error.to_string(),
        ));
    }
    let partition = admin::partition(partition);
    Ok(context
        .broker()
        .producers(TopicRef::Name(topic), partition)?)
}

fn producer(state: &ProducerState) -> DescribeProducersResponseProducer {
    DescribeProducersResponseProducer {
        producer_id: i64::try_from(state.id.0).unwrap_or(i64::MAX),
        producer_epoch: state.epoch.0.into(),
        last_sequence: state.last_sequence,
        last_timestamp: state.last_append.0,
        // Without transactions there is no coordinator and nothing open.
        coordinator_epoch: -1,
        current_txn_start_offset: -1,
    }
}
