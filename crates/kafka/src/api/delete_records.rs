//! DeleteRecords: the starts of logs move up.

use std::collections::HashSet;

use sapwood_broker::{ConfigEntry, TopicInfo, TrimError};
use sapwood_kafka_wire::messages::{
    DeleteRecordsRequest, DeleteRecordsRequestPartition, DeleteRecordsResponse,
    DeleteRecordsResponsePartition, DeleteRecordsResponseTopic,
};
use sapwood_model::Offset;

use super::admin::{self, Deadline, Refused};
use crate::{
    context::Context,
    errors::{AsKafka, ErrorCode},
};

/// Kafka's offset for all that can be read now.
const HIGH_WATERMARK: i64 = -1;
/// Kafka's low watermark when there is none to tell.
const UNKNOWN: i64 = -1;

pub(crate) async fn handle(
    context: &Context,
    request: DeleteRecordsRequest,
    _version: i16,
) -> DeleteRecordsResponse {
    let deadline = Deadline::after(request.timeout_ms);
    let mut seen = HashSet::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let found = find(context, &topic.name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let trimmed = match &found {
                _ if !seen.insert((topic.name.as_str(), asked.partition_index)) => {
                    Err(Refused::new(
                        ErrorCode::InvalidRequest,
                        "the partition is named twice in one request",
                    ))
                }
                _ if deadline.has_passed() => Err(Refused::timed_out()),
                Ok(info) => trim(context, info, asked).await,
                Err(refused) => Err(refused.clone()),
            };
            let (low_watermark, error_code) = match trimmed {
                Ok(start) => (i64::try_from(start.0).unwrap_or(i64::MAX), 0),
                Err(refused) => (UNKNOWN, context.refuse(refused.code, &refused.message)),
            };
            partitions.push(DeleteRecordsResponsePartition {
                partition_index: asked.partition_index,
                low_watermark,
                error_code,
            });
        }
        topics.push(DeleteRecordsResponseTopic {
            name: topic.name.clone(),
            partitions,
        });
    }
    DeleteRecordsResponse {
        topics,
        ..DeleteRecordsResponse::default()
    }
}

/// A topic whose records may be deleted.
fn find(context: &Context, name: &str) -> Result<TopicInfo, Refused> {
    let broker = context.broker();
    let configs = broker.topic_configs(name)?;
    let keeps_keys = |entry: &ConfigEntry| {
        entry.key == "cleanup.policy" && !entry.value.split(',').any(|policy| policy == "delete")
    };
    if configs.iter().any(keeps_keys) {
        let message = format!("topic {name:?} is compacted and does not delete by offset");
        return Err(Refused::new(ErrorCode::PolicyViolation, message));
    }
    broker.topic(name).ok_or_else(|| {
        let message = format!("topic {name:?} does not exist");
        Refused::new(ErrorCode::UnknownTopicOrPartition, message)
    })
}

async fn trim(
    context: &Context,
    topic: &TopicInfo,
    asked: &DeleteRecordsRequestPartition,
) -> Result<Offset, Refused> {
    let before = match asked.offset {
        HIGH_WATERMARK => None,
        offset => Some(Offset(u64::try_from(offset).map_err(|_| {
            let message = format!("offset {offset} is negative");
            Refused::new(ErrorCode::OffsetOutOfRange, message)
        })?)),
    };
    let partition = admin::partition(asked.partition_index);
    Ok(context.broker().trim(topic.id, partition, before).await?)
}

impl From<TrimError> for Refused {
    fn from(error: TrimError) -> Self {
        Self::new(error.kafka(), error.to_string())
    }
}
