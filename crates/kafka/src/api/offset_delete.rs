//! OffsetDelete: forgetting how far a group has read topics that it does not read any more.

use sapwood_broker::{
    GroupRequestError,
    group::{DeleteOffsets, GroupError},
};
use sapwood_kafka_wire::messages::{
    OffsetDeleteRequest, OffsetDeleteResponse, OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
};

use super::groups::{self, Entry};
use crate::{context::Context, errors::ErrorCode};

pub(crate) async fn handle(
    context: &Context,
    request: OffsetDeleteRequest,
    _version: i16,
) -> OffsetDeleteResponse {
    let mut partitions = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let is_known = context.broker().topic(&topic.name).is_some();
        let mut entries = Vec::with_capacity(topic.partitions.len());
        for index in topic.partitions.iter().map(|asked| asked.partition_index) {
            let place = groups::topic_partition(&topic.name, index).filter(|_| is_known);
            let entry = match place {
                Some(place) => {
                    partitions.push((place.topic, place.partition));
                    Entry::Asked
                }
                None => {
                    let reason = "there is no such topic, or it cannot have such a partition";
                    let code = ErrorCode::UnknownTopicOrPartition;
                    Entry::Refused(context.refuse(code, &reason))
                }
            };
            entries.push((index, entry));
        }
        topics.push((topic.name, entries));
    }
    let results = match delete(context, request.group_id, partitions).await {
        Ok(results) => results,
        Err(error) => {
            return OffsetDeleteResponse {
                error_code: context.failed(&error),
                ..OffsetDeleteResponse::default()
            };
        }
    };
    let mut results = results.into_iter();
    let mut number = |entry| match entry {
        Entry::Refused(number) => number,
        Entry::Asked => match results.next() {
            Some(Err(error)) => context.failed(&error),
            Some(Ok(())) | None => 0,
        },
    };
    let topics = topics.into_iter().map(|(name, entries)| {
        let partitions = entries.into_iter();
        let partitions = partitions.map(|(partition_index, entry)| OffsetDeleteResponsePartition {
            partition_index,
            error_code: number(entry),
        });
        OffsetDeleteResponseTopic {
            name,
            partitions: partitions.collect(),
        }
    });
    OffsetDeleteResponse {
        topics: topics.collect(),
        ..OffsetDeleteResponse::default()
    }
}

async fn delete(
    context: &Context,
    group: String,
    partitions: Vec<(sapwood_model::TopicName, sapwood_model::PartitionId)>,
) -> Result<Vec<Result<(), GroupError>>, GroupRequestError> {
    if group.is_empty() {
        return Err(GroupError::InvalidGroupId { length: 0 }.into());
    }
    let request = DeleteOffsets {
        group: group.into(),
        partitions,
    };
    context.broker().groups().delete_offsets(request).await
}
