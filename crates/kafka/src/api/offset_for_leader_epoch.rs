//! OffsetForLeaderEpoch: where an epoch ended. A reader that is past that point read what was cut.

use sapwood_broker::TopicRef;
use sapwood_kafka_wire::messages::{
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochRequestPartition,
    OffsetForLeaderEpochResponse, OffsetForLeaderEpochResponsePartition,
    OffsetForLeaderEpochResponseTopic,
};

use super::lookup;
use crate::{
    context::Context,
    convert::{leader_epoch, wire_epoch, wire_offset},
};

pub(crate) async fn handle(
    context: &Context,
    request: OffsetForLeaderEpochRequest,
    _version: i16,
) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.into_iter();
    let topics = topics.map(|topic| OffsetForLeaderEpochResponseTopic {
        partitions: topic
            .partitions
            .into_iter()
            .map(|partition| one(context, &topic.topic, partition))
            .collect(),
        topic: topic.topic,
    });
    OffsetForLeaderEpochResponse {
        topics: topics.collect(),
        ..OffsetForLeaderEpochResponse::default()
    }
}

fn one(
    context: &Context,
    topic: &str,
    asked: OffsetForLeaderEpochRequestPartition,
) -> OffsetForLeaderEpochResponsePartition {
    let partition = asked.partition;
    match end(context, topic, asked) {
        Ok((leader_epoch, end_offset)) => OffsetForLeaderEpochResponsePartition {
            partition,
            leader_epoch,
            end_offset,
            ..OffsetForLeaderEpochResponsePartition::default()
        },
        Err(error_code) => OffsetForLeaderEpochResponsePartition {
            partition,
            error_code,
            ..OffsetForLeaderEpochResponsePartition::default()
        },
    }
}

/// The epoch and its end, -1 where there is none; or the number of an error.
fn end(
    context: &Context,
    topic: &str,
    asked: OffsetForLeaderEpochRequestPartition,
) -> Result<(i32, i64), i16> {
    let leader = lookup::leader(
        context,
        TopicRef::Name(topic),
        asked.partition,
        asked.current_leader_epoch,
    );
    let leader = leader.map_err(|refusal| context.refuse(refusal.code(), &refusal))?;
    let Some(epoch) = leader_epoch(asked.leader_epoch) else {
        return Ok((-1, -1));
    };
    let end = context
        .broker()
        .leader_epoch_end(topic, leader.partition, epoch);
    let end = end.map_err(|error| context.failed(&error))?;
    Ok(end.map_or((-1, -1), |(epoch, end)| {
        (wire_epoch(epoch), wire_offset(end))
    }))
}
