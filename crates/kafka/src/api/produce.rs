//! Produce, in two stages: batches are appended in the order in which they come, and answered when
//! they are as durable as the request asks.

use std::time::Duration;

use bytes::Bytes;
use sapwood_broker::{Pending, Produce, ProduceError, Produced, TopicRef};
use sapwood_kafka_wire::{
    Reader, Uuid,
    messages::{
        ProduceRequest, ProduceRequestPartition, ProduceRequestTopic, ProduceResponse,
        ProduceResponsePartition, ProduceResponseRecordError, ProduceResponseTopic,
    },
};
use sapwood_model::{Acks, TopicId};
use sapwood_record::{BatchError, Codec, Header};
use tokio::time::{Instant, timeout_at};

use super::{lookup, produce_refused};
use crate::{
    connection::Disconnect,
    context::Context,
    convert::{partition_id, wire_offset},
    dispatch::{Answer, Reply},
    errors::{AsKafka, ErrorCode},
};

/// Before this version, record batches have another format.
pub(crate) const BATCHES_FROM: i16 = 3;
/// From this version on batches may be compressed with zstd.
const ZSTD_FROM: i16 = 7;
/// From this version on topics are named by id.
const TOPIC_IDS_FROM: i16 = 13;
/// The only format of record batches that there is.
const MAGIC: u8 = 2;

/// A batch behind its first stage.
enum Staged {
    Pending(Pending),
    Refused(Refused),
}

/// Why a batch was not appended, or is not known to be durable.
struct Refused {
    code: ErrorCode,
    message: String,
    /// The record that is at fault.
    record: Option<u32>,
}

impl Refused {
    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            record: None,
        }
    }

    fn of(topic: TopicRef<'_>, error: &ProduceError) -> Self {
        let code = match error {
            ProduceError::Lookup(lookup) => lookup::unknown(topic, lookup),
            other => other.kafka(),
        };
        let record = match error {
            ProduceError::Batch(BatchError::Record { index, .. })
            | ProduceError::Batch(BatchError::KeyMissing { index }) => Some(*index),
            _ => None,
        };
        Self {
            code,
            message: error.to_string(),
            record,
        }
    }
}

/// A topic's partitions behind their first stage.
struct StagedTopic {
    name: String,
    topic_id: Uuid,
    partitions: Vec<(i32, Staged)>,
}

/// The first stage: everything is appended, or refused.
pub(crate) async fn handle(context: Context, body: Reader) -> Result<Reply, Disconnect> {
    if context.version() < BATCHES_FROM {
        return produce_refused::handle(&context, body);
    }
    let request: ProduceRequest = context.decode(body)?;
    let wait = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let deadline = Instant::now() + wait;
    let rules = Rules::of(&request);
    let mut topics = Vec::with_capacity(request.topic_data.len());
    for topic in request.topic_data {
        topics.push(stage(&context, topic, &rules).await);
    }
    if matches!(rules, Rules::Append(Acks::None)) {
        return unanswered(&context, topics);
    }
    Ok(Reply::later(answer(context, topics, deadline)))
}

/// What the request as a whole allows.
enum Rules {
    Append(Acks),
    Refuse(ErrorCode, &'static str),
}

impl Rules {
    fn of(request: &ProduceRequest) -> Self {
        if request.transactional_id.is_some() {
            // Clients take it for the end of the transaction and of the producer, and say so.
            let message = "transactions are not supported";
            return Self::Refuse(ErrorCode::UnsupportedVersion, message);
        }
        match request.acks {
            0 => Self::Append(Acks::None),
            1 => Self::Append(Acks::Leader),
            -1 => Self::Append(Acks::All),
            _ => Self::Refuse(ErrorCode::InvalidRequiredAcks, "acks is -1, 0 or 1"),
        }
    }
}

async fn stage(context: &Context, topic: ProduceRequestTopic, rules: &Rules) -> StagedTopic {
    let to = match context.version() >= TOPIC_IDS_FROM {
        true => TopicRef::Id(TopicId(topic.topic_id.0)),
        false => TopicRef::Name(&topic.name),
    };
    let mut partitions = Vec::with_capacity(topic.partition_data.len());
    for partition in topic.partition_data {
        let index = partition.index;
        let staged = match append(context, to, partition, rules).await {
            Ok(pending) => Staged::Pending(pending),
            Err(refused) => Staged::Refused(refused),
        };
        partitions.push((index, staged));
    }
    StagedTopic {
        name: topic.name,
        topic_id: topic.topic_id,
        partitions,
    }
}

async fn append(
    context: &Context,
    topic: TopicRef<'_>,
    partition: ProduceRequestPartition,
    rules: &Rules,
) -> Result<Pending, Refused> {
    let acks = match *rules {
        Rules::Append(acks) => acks,
        Rules::Refuse(code, message) => return Err(Refused::new(code, message)),
    };
    let records = partition.records.unwrap_or_default();
    check_format(&records, context.version())?;
    let Some(id) = partition_id(partition.index) else {
        let message = format!("there is no partition {}", partition.index);
        return Err(Refused::new(ErrorCode::UnknownTopicOrPartition, message));
    };
    let produce = Produce {
        topic,
        partition: id,
        batch: records,
        acks,
        expected_end: None,
        // Clients ask for metadata first, and that creates topics.
        auto_create: false,
    };
    let produced = context.broker().produce(produce).await;
    produced.map_err(|error| Refused::of(topic, &error))
}

/// What depends on the request's version; the batch itself is the broker's to check.
fn check_format(records: &Bytes, version: i16) -> Result<(), Refused> {
    if records.is_empty() {
        let message = "a partition has exactly one record batch; there is none";
        return Err(Refused::new(ErrorCode::InvalidRecord, message));
    }
    let Some(header) = Header::read(records) else {
        // Said by the broker, with the sizes.
        return Ok(());
    };
    if header.magic() != MAGIC {
        let message = format!("record batches have magic {MAGIC}, not {}", header.magic());
        return Err(Refused::new(ErrorCode::InvalidRecord, message));
    }
    if header.is_transactional() {
        let message = "transactions are not supported";
        return Err(Refused::new(ErrorCode::InvalidTxnState, message));
    }
    if version < ZSTD_FROM && header.codec() == Ok(Codec::Zstd) {
        let message = format!("zstd needs version {ZSTD_FROM} of the request");
        return Err(Refused::new(ErrorCode::UnsupportedCompressionType, message));
    }
    Ok(())
}

/// Nobody waits for an answer; a failure is told by closing the connection.
fn unanswered(context: &Context, topics: Vec<StagedTopic>) -> Result<Reply, Disconnect> {
    let mut has_failed = false;
    for (_, staged) in topics.into_iter().flat_map(|topic| topic.partitions) {
        if let Staged::Refused(refused) = staged {
            context.refuse(refused.code, &refused.message);
            has_failed = true;
        }
    }
    match has_failed {
        true => Err(Disconnect::UnansweredFailure),
        false => Ok(Reply::None),
    }
}

/// The second stage.
async fn answer(
    context: Context,
    topics: Vec<StagedTopic>,
    deadline: Instant,
) -> Result<Answer, Disconnect> {
    let names_topics = context.version() < TOPIC_IDS_FROM;
    let mut responses = Vec::with_capacity(topics.len());
    for topic in topics {
        let to = match names_topics {
            true => TopicRef::Name(&topic.name),
            false => TopicRef::Id(TopicId(topic.topic_id.0)),
        };
        let mut partition_responses = Vec::with_capacity(topic.partitions.len());
        for (index, staged) in topic.partitions {
            let refused = match staged {
                Staged::Pending(pending) => match timeout_at(deadline, pending).await {
                    Ok(Ok(produced)) => {
                        partition_responses.push(success(index, &produced));
                        continue;
                    }
                    Ok(Err(error)) => Refused::of(to, &error),
                    Err(_elapsed) => Refused::new(
                        ErrorCode::RequestTimedOut,
                        "the batch was appended; it was not durable in time",
                    ),
                },
                Staged::Refused(refused) => refused,
            };
            partition_responses.push(failure(&context, index, refused));
        }
        responses.push(ProduceResponseTopic {
            name: topic.name,
            topic_id: topic.topic_id,
            partition_responses,
        });
    }
    let response = ProduceResponse {
        responses,
        ..ProduceResponse::default()
    };
    Ok(Answer::from(context.encode(&response)?))
}

fn success(index: i32, produced: &Produced) -> ProduceResponsePartition {
    ProduceResponsePartition {
        index,
        base_offset: wire_offset(produced.base_offset),
        log_append_time_ms: produced.log_append_time.map_or(-1, |time| time.0),
        log_start_offset: wire_offset(produced.log_start),
        ..ProduceResponsePartition::default()
    }
}

fn failure(context: &Context, index: i32, refused: Refused) -> ProduceResponsePartition {
    let error = |record: u32| ProduceResponseRecordError {
        batch_index: i32::try_from(record).unwrap_or(i32::MAX),
        batch_index_error_message: Some(refused.message.clone()),
    };
    ProduceResponsePartition {
        index,
        error_code: context.refuse(refused.code, &refused.message),
        base_offset: -1,
        record_errors: refused.record.map(error).into_iter().collect(),
        error_message: Some(refused.message),
        ..ProduceResponsePartition::default()
    }
}
