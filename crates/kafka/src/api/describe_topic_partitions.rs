//! DescribeTopicPartitions: topics and their partitions, page by page in the order of the names.

use std::collections::BTreeSet;

use sapwood_broker::{PartitionLeader, TopicInfo, TopicRef};
use sapwood_kafka_wire::{
    Uuid,
    messages::{
        DescribeTopicPartitionsRequest, DescribeTopicPartitionsRequestCursor,
        DescribeTopicPartitionsResponse, DescribeTopicPartitionsResponseCursor,
        DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
    },
};
use sapwood_model::TopicName;

use super::TOPIC_OPERATIONS;
use crate::{context::Context, errors::ErrorCode};

/// How many partitions one page has, whatever the client asks for.
pub(super) const PARTITIONS_MAX: usize = 2000;

pub(crate) async fn handle(
    context: &Context,
    request: DescribeTopicPartitionsRequest,
    _version: i16,
) -> DescribeTopicPartitionsResponse {
    let limit = usize::try_from(request.response_partition_limit)
        .unwrap_or(0)
        .clamp(1, PARTITIONS_MAX);
    let asks_for_all = request.topics.is_empty();
    let names: BTreeSet<String> = match asks_for_all {
        true => {
            let topics = context.broker().topics().into_iter();
            topics.map(|topic| topic.name.to_string()).collect()
        }
        false => request.topics.into_iter().map(|topic| topic.name).collect(),
    };
    let mut page = Page {
        topics: Vec::new(),
        room: limit,
    };
    let from = Cursor::from(request.cursor);
    let mut next_cursor = None;
    for name in names.range(from.topic.clone()..) {
        let first = match *name == from.topic {
            true => from.partition,
            false => 0,
        };
        if page.room == 0 {
            next_cursor = Some(cursor(name, 0));
            break;
        }
        if let Some(next) = page.add(context, name, first, asks_for_all) {
            next_cursor = Some(cursor(name, next));
            break;
        }
    }
    DescribeTopicPartitionsResponse {
        topics: page.topics,
        next_cursor,
        ..DescribeTopicPartitionsResponse::default()
    }
}

/// Where a page begins.
#[derive(Debug, Default)]
struct Cursor {
    topic: String,
    partition: usize,
}

impl From<Option<DescribeTopicPartitionsRequestCursor>> for Cursor {
    /// Without one, before the first topic.
    fn from(cursor: Option<DescribeTopicPartitionsRequestCursor>) -> Self {
        cursor.map_or_else(Self::default, |cursor| Self {
            topic: cursor.topic_name,
            partition: usize::try_from(cursor.partition_index).unwrap_or(0),
        })
    }
}

fn cursor(topic: &str, partition: usize) -> DescribeTopicPartitionsResponseCursor {
    DescribeTopicPartitionsResponseCursor {
        topic_name: topic.to_owned(),
        partition_index: i32::try_from(partition).unwrap_or(i32::MAX),
    }
}

/// A page that is being filled.
struct Page {
    topics: Vec<DescribeTopicPartitionsResponseTopic>,
    /// How many more partitions it takes.
    room: usize,
}

impl Page {
    /// Adds a topic's partitions from `first`; the partition that had no room any more, if there is
    /// one.
    fn add(
        &mut self,
        context: &Context,
        name: &str,
        first: usize,
        asks_for_all: bool,
    ) -> Option<usize> {
        let (topic, leaders) = match context.broker().leaders(TopicRef::Name(name)) {
            Ok(found) => found,
            // Deleted in this moment: it is not one of all.
            Err(_) if asks_for_all => return None,
            Err(error) => {
                let error_code = match TopicName::new(name) {
                    Ok(_) => context.failed(&error),
                    Err(error) => context.refuse(ErrorCode::InvalidTopicException, &error),
                };
                self.topics.push(DescribeTopicPartitionsResponseTopic {
                    error_code,
                    name: Some(name.to_owned()),
                    ..DescribeTopicPartitionsResponseTopic::default()
                });
                return None;
            }
        };
        let end = leaders.len().min(first.saturating_add(self.room));
        let shown = leaders.get(first..end).unwrap_or_default();
        self.room -= shown.len();
        let broker_id = context.broker_id();
        self.topics.push(describe(
            &topic,
            shown
                .iter()
                .map(|leader| partition(broker_id, leader))
                .collect(),
        ));
        (end < leaders.len()).then_some(end)
    }
}

fn describe(
    topic: &TopicInfo,
    partitions: Vec<DescribeTopicPartitionsResponsePartition>,
) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic {
        error_code: 0,
        name: Some(topic.name.to_string()),
        topic_id: Uuid(topic.id.0),
        is_internal: topic.is_internal,
        partitions,
        topic_authorized_operations: TOPIC_OPERATIONS,
    }
}

fn partition(broker_id: i32, leader: &PartitionLeader) -> DescribeTopicPartitionsResponsePartition {
    let described = DescribeTopicPartitionsResponsePartition {
        partition_index: leader.partition.0.cast_signed(),
        leader_id: broker_id,
        leader_epoch: leader.leader_epoch.0.cast_signed(),
        replica_nodes: vec![broker_id],
        isr_nodes: vec![broker_id],
        eligible_leader_replicas: Some(Vec::new()),
        last_known_elr: Some(Vec::new()),
        ..DescribeTopicPartitionsResponsePartition::default()
    };
    if leader.online {
        return described;
    }
    DescribeTopicPartitionsResponsePartition {
        error_code: ErrorCode::LeaderNotAvailable.number(),
        leader_id: -1,
        isr_nodes: Vec::new(),
        offline_replicas: vec![broker_id],
        ..described
    }
}
