//! OffsetFetch: how far groups have read. What a group has not said is no error.

use std::collections::HashSet;

use sapwood_broker::{
    GroupRequestError,
    group::{Epoch, FetchOffsets, FetchedOffset, GroupId, MemberId},
};
use sapwood_kafka_wire::messages::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestGroupTopic,
    OffsetFetchRequestTopic, OffsetFetchResponse, OffsetFetchResponseGroup,
    OffsetFetchResponseGroupPartition, OffsetFetchResponseGroupTopic, OffsetFetchResponsePartition,
    OffsetFetchResponseTopic,
};

use super::groups;
use crate::{
    context::Context,
    convert::{wire_epoch, wire_offset},
    errors::ErrorCode,
};

/// From this version on a group can be refused as a whole.
const GROUP_ERRORS_FROM: i16 = 2;
/// From this version on several groups are asked for at once.
const GROUPS_FROM: i16 = 8;

pub(crate) async fn handle(
    context: &Context,
    request: OffsetFetchRequest,
    version: i16,
) -> OffsetFetchResponse {
    if version < GROUPS_FROM {
        return one_group(context, request, version).await;
    }
    let mut groups = Vec::with_capacity(request.groups.len());
    let mut seen = HashSet::with_capacity(request.groups.len());
    for asked in request.groups {
        let group_id = asked.group_id.clone();
        if !seen.insert(group_id.clone()) {
            // An answer is much longer than a question: no group is told twice.
            let reason = "the group is named twice in one request";
            groups.push(OffsetFetchResponseGroup {
                group_id,
                error_code: context.refuse(ErrorCode::InvalidRequest, &reason),
                ..OffsetFetchResponseGroup::default()
            });
            continue;
        }
        groups.push(match fetch(context, asked).await {
            Ok(topics) => OffsetFetchResponseGroup {
                group_id,
                topics,
                ..OffsetFetchResponseGroup::default()
            },
            Err(error) => OffsetFetchResponseGroup {
                group_id,
                error_code: context.failed(&error),
                ..OffsetFetchResponseGroup::default()
            },
        });
    }
    OffsetFetchResponse {
        groups,
        ..OffsetFetchResponse::default()
    }
}

/// The versions that ask for one group.
async fn one_group(
    context: &Context,
    request: OffsetFetchRequest,
    version: i16,
) -> OffsetFetchResponse {
    let asked_topics = request.topics.clone();
    let topic = |topic: OffsetFetchRequestTopic| OffsetFetchRequestGroupTopic {
        name: topic.name,
        partition_indexes: topic.partition_indexes,
    };
    let asked = OffsetFetchRequestGroup {
        group_id: request.group_id,
        topics: request
            .topics
            .map(|topics| topics.into_iter().map(topic).collect()),
        ..OffsetFetchRequestGroup::default()
    };
    match fetch(context, asked).await {
        Ok(topics) => OffsetFetchResponse {
            topics: topics.into_iter().map(old_topic).collect(),
            ..OffsetFetchResponse::default()
        },
        Err(error) => {
            let error_code = context.failed(&error);
            let topics = asked_topics.filter(|_| version < GROUP_ERRORS_FROM);
            let topics = topics.unwrap_or_default().into_iter();
            OffsetFetchResponse {
                error_code,
                topics: topics.map(|topic| refused(topic, error_code)).collect(),
                ..OffsetFetchResponse::default()
            }
        }
    }
}

fn old_topic(topic: OffsetFetchResponseGroupTopic) -> OffsetFetchResponseTopic {
    let partition = |partition: OffsetFetchResponseGroupPartition| OffsetFetchResponsePartition {
        partition_index: partition.partition_index,
        committed_offset: partition.committed_offset,
        committed_leader_epoch: partition.committed_leader_epoch,
        metadata: partition.metadata,
        error_code: partition.error_code,
    };
    OffsetFetchResponseTopic {
        name: topic.name,
        partitions: topic.partitions.into_iter().map(partition).collect(),
    }
}

/// What version 1 says about a topic when the group is refused.
fn refused(topic: OffsetFetchRequestTopic, error_code: i16) -> OffsetFetchResponseTopic {
    let partitions = topic.partition_indexes.into_iter();
    let partitions = partitions.map(|partition_index| OffsetFetchResponsePartition {
        partition_index,
        committed_offset: -1,
        metadata: Some(String::new()),
        error_code,
        ..OffsetFetchResponsePartition::default()
    });
    OffsetFetchResponseTopic {
        name: topic.name,
        partitions: partitions.collect(),
    }
}

async fn fetch(
    context: &Context,
    asked: OffsetFetchRequestGroup,
) -> Result<Vec<OffsetFetchResponseGroupTopic>, GroupRequestError> {
    let group = GroupId::from(asked.group_id);
    let by = reader(asked.member_id, asked.member_epoch);
    let groups = context.broker().groups();
    let Some(topics) = asked.topics else {
        let partitions = None;
        let request = FetchOffsets {
            group,
            by,
            partitions,
        };
        return Ok(grouped(groups.fetch_offsets(request).await?));
    };
    let places = topics.iter().flat_map(|topic| {
        let indexes = topic.partition_indexes.iter();
        indexes.filter_map(|index| groups::topic_partition(&topic.name, *index))
    });
    let request = FetchOffsets {
        group,
        by,
        partitions: Some(places.collect()),
    };
    let mut fetched = groups.fetch_offsets(request).await?.into_iter();
    let topics = topics.into_iter().map(|topic| {
        let indexes = topic.partition_indexes.iter();
        let partitions = indexes.map(|index| {
            // What cannot be a partition was not asked for; nothing was committed for it.
            let found = groups::topic_partition(&topic.name, *index).and_then(|_| fetched.next());
            partition(*index, found)
        });
        OffsetFetchResponseGroupTopic {
            partitions: partitions.collect(),
            name: topic.name,
        }
    });
    Ok(topics.collect())
}

/// The member that asks, if it says so; an administrator does not. A negative epoch becomes one above
/// all that there are, so that it is nobody's.
fn reader(member_id: Option<String>, epoch: i32) -> Option<(MemberId, Epoch)> {
    if member_id.is_none() && epoch < 0 {
        return None;
    }
    let member_id = member_id.unwrap_or_default().into();
    Some((member_id, Epoch(epoch.cast_unsigned())))
}

/// Offsets that come topic by topic.
fn grouped(fetched: Vec<FetchedOffset>) -> Vec<OffsetFetchResponseGroupTopic> {
    let mut topics: Vec<OffsetFetchResponseGroupTopic> = Vec::new();
    for offset in fetched {
        let name = offset.partition.topic.as_str();
        let index = offset.partition.partition.0.cast_signed();
        if topics.last().is_none_or(|last| last.name != name) {
            topics.push(OffsetFetchResponseGroupTopic {
                name: name.to_owned(),
                ..OffsetFetchResponseGroupTopic::default()
            });
        }
        if let Some(topic) = topics.last_mut() {
            topic.partitions.push(partition(index, Some(offset)));
        }
    }
    topics
}

fn partition(
    partition_index: i32,
    fetched: Option<FetchedOffset>,
) -> OffsetFetchResponseGroupPartition {
    let nothing = OffsetFetchResponseGroupPartition {
        partition_index,
        committed_offset: -1,
        metadata: Some(String::new()),
        ..OffsetFetchResponseGroupPartition::default()
    };
    let Some(committed) = fetched.and_then(|fetched| fetched.committed) else {
        return nothing;
    };
    OffsetFetchResponseGroupPartition {
        committed_offset: wire_offset(committed.offset),
        committed_leader_epoch: committed.leader_epoch.map_or(-1, wire_epoch),
        metadata: Some(committed.metadata.as_ref().to_owned()),
        ..nothing
    }
}
