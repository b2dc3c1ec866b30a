//! ListOffsets: where partitions begin and end, and which record a time leads to.

use sapwood_broker::{LookupReadError, TimestampedOffset, TopicRef};
use sapwood_kafka_wire::messages::{
    ListOffsetsRequest, ListOffsetsRequestPartition, ListOffsetsResponse,
    ListOffsetsResponsePartition, ListOffsetsResponseTopic,
};
use sapwood_model::{Offset, PartitionId, Timestamp};

use super::lookup;
use crate::{
    context::Context,
    convert::{wire_epoch, wire_offset},
    errors::ErrorCode,
};

/// Places that have a number instead of a time, each with the first version that knows it.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const PLACES: [(i64, i16); 5] = [
    (LATEST, 1),
    (EARLIEST, 1),
    (MAX_TIMESTAMP, 7),
    (EARLIEST_LOCAL, 8),
    (LATEST_TIERED, 9),
];

/// Nothing is there.
const NOTHING: Found = Found {
    timestamp: -1,
    offset: -1,
    leader_epoch: -1,
};

/// An answer as the wire has it.
struct Found {
    timestamp: i64,
    offset: i64,
    leader_epoch: i32,
}

pub(crate) async fn handle(
    context: &Context,
    request: ListOffsetsRequest,
    _version: i16,
) -> ListOffsetsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            partitions.push(one(context, &topic.name, partition).await);
        }
        topics.push(ListOffsetsResponseTopic {
            name: topic.name,
            partitions,
        });
    }
    ListOffsetsResponse {
        topics,
        ..ListOffsetsResponse::default()
    }
}

async fn one(
    context: &Context,
    topic: &str,
    asked: ListOffsetsRequestPartition,
) -> ListOffsetsResponsePartition {
    let partition_index = asked.partition_index;
    match find(context, topic, asked).await {
        Ok(found) => ListOffsetsResponsePartition {
            partition_index,
            timestamp: found.timestamp,
            offset: found.offset,
            leader_epoch: found.leader_epoch,
            ..ListOffsetsResponsePartition::default()
        },
        Err(error_code) => ListOffsetsResponsePartition {
            partition_index,
            error_code,
            ..ListOffsetsResponsePartition::default()
        },
    }
}

/// What was asked for, or the number of an error.
async fn find(
    context: &Context,
    topic: &str,
    asked: ListOffsetsRequestPartition,
) -> Result<Found, i16> {
    let at = asked.timestamp;
    let leader = lookup::leader(
        context,
        TopicRef::Name(topic),
        asked.partition_index,
        asked.current_leader_epoch,
    );
    let leader = leader.map_err(|refusal| context.refuse(refusal.code(), &refusal))?;
    let is_known = |(place, from): &(i64, i16)| *place == at && context.version() >= *from;
    if at < 0 && !PLACES.iter().any(is_known) {
        let version = context.version();
        let reason = format_args!("version {version} has no place {at}");
        return Err(context.refuse(ErrorCode::UnsupportedVersion, &reason));
    }
    let partition = leader.partition;
    let failed = |error: LookupReadError| context.failed(&error);
    match at {
        LATEST => {
            let bounds = bounds(context, topic, partition)?;
            Ok(place(bounds.1, wire_epoch(leader.leader_epoch)))
        }
        EARLIEST | EARLIEST_LOCAL => {
            let bounds = bounds(context, topic, partition)?;
            Ok(place(
                bounds.0,
                epoch_of(context, topic, partition, bounds.0),
            ))
        }
        LATEST_TIERED => Ok(NOTHING),
        MAX_TIMESTAMP => {
            let found = context.broker().find_max_timestamp(topic, partition).await;
            Ok(record(found.map_err(failed)?))
        }
        time => {
            let at = Timestamp(time);
            let found = context.broker().find_timestamp(topic, partition, at).await;
            Ok(record(found.map_err(failed)?))
        }
    }
}

/// Log start and high watermark, which is also the last stable offset: there are no transactions.
fn bounds(context: &Context, topic: &str, partition: PartitionId) -> Result<(Offset, Offset), i16> {
    let bounds = context.broker().bounds(topic, partition);
    let bounds = bounds.map_err(|error| context.failed(&error))?;
    Ok((bounds.log_start, bounds.high_watermark))
}

/// The leader epoch to which an offset belongs, or -1.
fn epoch_of(context: &Context, topic: &str, partition: PartitionId, offset: Offset) -> i32 {
    let epochs = context.broker().leader_epochs(topic, partition);
    let epochs = epochs.unwrap_or_default();
    let below = epochs.iter().rev().find(|start| start.start <= offset);
    below.map_or(-1, |start| wire_epoch(start.epoch))
}

fn place(offset: Offset, leader_epoch: i32) -> Found {
    Found {
        timestamp: -1,
        offset: wire_offset(offset),
        leader_epoch,
    }
}

fn record(found: Option<TimestampedOffset>) -> Found {
    found.map_or(NOTHING, |found| Found {
        timestamp: found.timestamp.0,
        offset: wire_offset(found.offset),
        leader_epoch: wire_epoch(found.leader_epoch),
    })
}
