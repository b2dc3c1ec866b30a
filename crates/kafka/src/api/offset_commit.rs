//! OffsetCommit: how far a group has read, kept for good once it is answered.

use sapwood_broker::{
    CoordinatorError, GroupRequestError,
    group::{Commit, CommitOffset, Committer, GroupError},
};
use sapwood_kafka_wire::messages::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitResponse,
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use sapwood_model::{Offset, Timestamp};

use super::groups::{self, Entry};
use crate::{
    context::Context,
    convert::leader_epoch,
    errors::{AsKafka, ErrorCode},
};

/// From this version on the errors of the newer kind of groups can be said.
const EPOCHS_FROM: i16 = 9;

/// A topic with its partitions' numbers, and what becomes of them.
type Topic = (String, Vec<(i32, Entry)>);

pub(crate) async fn handle(
    context: &Context,
    request: OffsetCommitRequest,
    version: i16,
) -> OffsetCommitResponse {
    let by = committer(&request);
    let expire_timestamp = expiry(context, request.retention_time_ms);
    let mut offsets = Vec::new();
    let mut topics: Vec<Topic> = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut entries = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let index = partition.partition_index;
            let entry = match read(&topic.name, partition, expire_timestamp) {
                Ok(offset) => {
                    offsets.push(offset);
                    Entry::Asked
                }
                Err((code, reason)) => Entry::Refused(context.refuse(code, &reason)),
            };
            entries.push((index, entry));
        }
        topics.push((topic.name, entries));
    }
    let commit = Commit {
        group: request.group_id.into(),
        by,
        offsets,
    };
    let committed = context.broker().groups().commit(commit).await;
    let committed = committed.map_err(|error| context.refuse(refusal(&error, version), &error));
    answer(context, topics, committed)
}

/// Who commits. A client outside of the group's members says nothing of itself.
fn committer(request: &OffsetCommitRequest) -> Committer {
    let generation_or_epoch = u32::try_from(request.generation_id_or_member_epoch).ok();
    let is_alone = generation_or_epoch.is_none()
        && request.member_id.is_empty()
        && request.group_instance_id.is_none();
    if is_alone {
        return Committer::Alone;
    }
    Committer::Member {
        member_id: request.member_id.as_str().into(),
        instance_id: groups::instance_id(request.group_instance_id.clone()),
        generation_or_epoch,
    }
}

/// When the offsets expire, if the client says for how long they are to be kept.
fn expiry(context: &Context, retention_time_ms: i64) -> Option<Timestamp> {
    let now = context.broker().environment().clock.now();
    (retention_time_ms >= 0).then(|| Timestamp(now.0.saturating_add(retention_time_ms)))
}

/// What is committed, or what is wrong with it.
fn read(
    topic: &str,
    partition: OffsetCommitRequestPartition,
    expire_timestamp: Option<Timestamp>,
) -> Result<CommitOffset, (ErrorCode, &'static str)> {
    let Some(place) = groups::topic_partition(topic, partition.partition_index) else {
        let reason = "no partition has this name and number";
        return Err((ErrorCode::UnknownTopicOrPartition, reason));
    };
    let Ok(offset) = u64::try_from(partition.committed_offset) else {
        return Err((ErrorCode::InvalidRequest, "an offset is 0 or more"));
    };
    Ok(CommitOffset {
        partition: place,
        offset: Offset(offset),
        leader_epoch: leader_epoch(partition.committed_leader_epoch),
        metadata: partition.committed_metadata.unwrap_or_default().into(),
        expire_timestamp,
    })
}

/// What a commit that is refused as a whole is in this version.
fn refusal(error: &GroupRequestError, version: i16) -> ErrorCode {
    match error {
        GroupRequestError::Group(GroupError::GroupNotFound) if version < EPOCHS_FROM => {
            ErrorCode::IllegalGeneration
        }
        // A member of the newer kind has to speak of epochs.
        GroupRequestError::Group(GroupError::StaleMemberEpoch { .. }) if version < EPOCHS_FROM => {
            ErrorCode::UnsupportedVersion
        }
        GroupRequestError::Coordinator(CoordinatorError::TooLarge { .. }) => {
            ErrorCode::InvalidCommitOffsetSize
        }
        other => other.kafka(),
    }
}

/// Puts what the coordinator says, or the number of the error that it has for all, where it belongs.
fn answer(
    context: &Context,
    topics: Vec<Topic>,
    committed: Result<Vec<Result<(), GroupError>>, i16>,
) -> OffsetCommitResponse {
    let (results, refused) = match committed {
        Ok(results) => (results, 0),
        Err(number) => (Vec::new(), number),
    };
    let mut results = results.into_iter();
    let mut number = |entry| match entry {
        Entry::Refused(number) => number,
        Entry::Asked => match results.next() {
            Some(Err(error)) => context.failed(&error),
            Some(Ok(())) | None => refused,
        },
    };
    let topics = topics.into_iter().map(|(name, entries)| {
        let partitions = entries.into_iter();
        let partitions = partitions.map(|(partition_index, entry)| OffsetCommitResponsePartition {
            partition_index,
            error_code: number(entry),
        });
        OffsetCommitResponseTopic {
            name,
            partitions: partitions.collect(),
        }
    });
    OffsetCommitResponse {
        topics: topics.collect(),
        ..OffsetCommitResponse::default()
    }
}
