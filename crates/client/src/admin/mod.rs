//! Topics, groups, offsets, and single records and batches.

mod convert;
mod group_types;
mod groups;
mod storage;
mod types;

use std::sync::Arc;

#[cfg(doc)]
use sapwood_model::Code;
use sapwood_model::{Acks, Offset, PartitionId, Timestamp};
use sapwood_rpc::v1::{
    self, fetch_service_client::FetchServiceClient, produce_request::Payload, produce_response,
    produce_service_client::ProduceServiceClient, topic_service_client::TopicServiceClient,
    trim_result,
};

use crate::{
    Bounds, Error, Message,
    connection::{ANSWER_BYTES_MAX, Connections},
};
use convert::{
    appended_from, compression_into, config_from, empty_answer, message_from, partition_from,
    record_into, topic_from,
};

pub(crate) use convert::acks_into;
pub use group_types::{
    CommittedOffset, Group, GroupDescription, GroupKind, GroupListing, GroupMember, GroupPartition,
    GroupState, PartitionOffset, SeekPartitions, SeekResult, SeekTarget, SeekTo, TopicPartition,
};
pub(crate) use groups::partitions_into;
pub use storage::{
    BackgroundTask, Compacted, CompactionProgress, CompactionState, NextRemoval, Retained,
    StorageUsage, TopicUsage,
};
pub use types::{
    Append, Appended, ConfigChange, ConfigEntry, NewTopic, OffsetAnswer, OffsetQuery, Partition,
    RawBatch, ReadRun, Topic, TopicDescription,
};

/// Manages topics and groups, and reads and writes single records and batches. Cheap to clone. Every call is
/// one request with the client's request timeout; nothing is retried but reading calls whose
/// connection broke.
///
/// ```no_run
/// use sapwood_client::{Client, NewTopic, Offset, PartitionId};
///
/// # async fn example() -> Result<(), sapwood_client::Error> {
/// let admin = Client::new("127.0.0.1:9092")?.admin();
/// let topic = NewTopic::new("orders").partitions(6).config("retention.ms", "86400000");
/// admin.create_topic(&topic).await?;
/// let bounds = admin.bounds("orders", PartitionId(0)).await?;
/// println!("{} to {}", bounds.log_start, bounds.high_watermark);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Admin {
    connections: Arc<Connections>,
}

impl Admin {
    pub(crate) fn new(connections: Arc<Connections>) -> Self {
        Self { connections }
    }

    /// Creates a topic. Durable when it returns.
    ///
    /// # Errors
    /// [`Code::TopicExists`], [`Code::InvalidTopicName`], [`Code::InvalidPartitions`],
    /// [`Code::InvalidTopicConfig`], [`Code::UnknownTopicConfig`] with a `suggestion`,
    /// [`Code::InvalidReplication`], or what every call may meet.
    pub async fn create_topic(&self, topic: &NewTopic) -> Result<Topic, Error> {
        let request = v1::CreateTopicRequest {
            name: topic.name.clone(),
            partitions: topic.partitions,
            replication_factor: topic.replication_factor,
            configs: topic.configs.iter().cloned().collect(),
            validate_only: topic.validate_only,
        };
        let answer = self
            .connections
            .call(false, |channel| {
                let request = request.clone();
                async move { TopicServiceClient::new(channel).create_topic(request).await }
            })
            .await?;
        Ok(topic_from(answer.into_inner().topic))
    }

    /// The topics in the order of their names.
    ///
    /// # Errors
    /// What every call may meet: [`Code::Unreachable`], [`Code::TimedOut`].
    pub async fn list_topics(&self) -> Result<Vec<Topic>, Error> {
        let answer = self
            .connections
            .call(true, |channel| async move {
                let request = v1::ListTopicsRequest {};
                TopicServiceClient::new(channel)
                    .max_decoding_message_size(ANSWER_BYTES_MAX)
                    .list_topics(request)
                    .await
            })
            .await?;
        Ok(answer
            .into_inner()
            .topics
            .into_iter()
            .map(|topic| topic_from(Some(topic)))
            .collect())
    }

    /// One topic with its partitions and its configuration.
    ///
    /// # Errors
    /// [`Code::UnknownTopic`], or what every call may meet.
    pub async fn describe_topic(&self, name: &str) -> Result<TopicDescription, Error> {
        let request = v1::DescribeTopicRequest {
            name: name.to_owned(),
            auto_create: false,
            brief: false,
        };
        let answer = self.describe(true, request).await?;
        Ok(TopicDescription {
            topic: topic_from(answer.topic),
            partitions: answer.partitions.into_iter().map(partition_from).collect(),
            configs: answer.configs.into_iter().map(config_from).collect(),
        })
    }

    /// How many partitions a topic has, asking for as little as possible.
    pub(crate) async fn partition_count(&self, name: &str, create: bool) -> Result<u32, Error> {
        let request = v1::DescribeTopicRequest {
            name: name.to_owned(),
            auto_create: create,
            brief: true,
        };
        let answer = self.describe(true, request).await?;
        Ok(topic_from(answer.topic).partitions)
    }

    async fn describe(
        &self,
        repeatable: bool,
        request: v1::DescribeTopicRequest,
    ) -> Result<v1::DescribeTopicResponse, Error> {
        let answer = self
            .connections
            .call(repeatable, |channel| {
                let request = request.clone();
                async move {
                    TopicServiceClient::new(channel)
                        .max_decoding_message_size(ANSWER_BYTES_MAX)
                        .describe_topic(request)
                        .await
                }
            })
            .await?;
        Ok(answer.into_inner())
    }

    /// Changes a topic's configuration: all the changes or none. Durable when it returns.
    ///
    /// # Errors
    /// [`Code::UnknownTopic`], [`Code::InvalidTopicConfig`], [`Code::UnknownTopicConfig`], or what
    /// every call may meet.
    pub async fn alter_topic(&self, name: &str, changes: &[ConfigChange]) -> Result<(), Error> {
        self.alter(name, changes, false).await
    }

    /// Whether [`Admin::alter_topic`] would do it. Changes nothing.
    ///
    /// # Errors
    /// Those of [`Admin::alter_topic`].
    pub async fn validate_alter_topic(
        &self,
        name: &str,
        changes: &[ConfigChange],
    ) -> Result<(), Error> {
        self.alter(name, changes, true).await
    }

    async fn alter(
        &self,
        name: &str,
        changes: &[ConfigChange],
        validate_only: bool,
    ) -> Result<(), Error> {
        let mut request = v1::AlterTopicRequest {
            name: name.to_owned(),
            validate_only,
            ..v1::AlterTopicRequest::default()
        };
        for change in changes {
            match change {
                ConfigChange::Set(key, value) => {
                    request.set.insert(key.clone(), value.clone());
                }
                ConfigChange::Unset(key) => request.unset.push(key.clone()),
            }
        }
        self.connections
            .call(false, |channel| {
                let request = request.clone();
                async move { TopicServiceClient::new(channel).alter_topic(request).await }
            })
            .await?;
        Ok(())
    }

    /// Deletes a topic and its records, for good. Durable when it returns.
    ///
    /// # Errors
    /// [`Code::UnknownTopic`], or what every call may meet.
    pub async fn delete_topic(&self, name: &str) -> Result<(), Error> {
        self.connections
            .call(false, |channel| async move {
                let request = v1::DeleteTopicRequest {
                    name: name.to_owned(),
                };
                TopicServiceClient::new(channel).delete_topic(request).await
            })
            .await?;
        Ok(())
    }

    /// Gives a topic `total` partitions in all. Keys may map to other partitions afterwards.
    /// Durable when it returns.
    ///
    /// # Errors
    /// [`Code::UnknownTopic`], [`Code::InvalidPartitions`], or what every call may meet.
    pub async fn add_partitions(&self, name: &str, total: u32) -> Result<Topic, Error> {
        self.partitions(name, total, false).await
    }

    /// Whether [`Admin::add_partitions`] would do it: the topic as it would be. Changes nothing.
    ///
    /// # Errors
    /// Those of [`Admin::add_partitions`].
    pub async fn validate_add_partitions(&self, name: &str, total: u32) -> Result<Topic, Error> {
        self.partitions(name, total, true).await
    }

    async fn partitions(
        &self,
        name: &str,
        total: u32,
        validate_only: bool,
    ) -> Result<Topic, Error> {
        let answer = self
            .connections
            .call(false, |channel| async move {
                let request = v1::AddPartitionsRequest {
                    name: name.to_owned(),
                    total,
                    validate_only,
                };
                TopicServiceClient::new(channel)
                    .add_partitions(request)
                    .await
            })
            .await?;
        Ok(topic_from(answer.into_inner().topic))
    }

    /// Removes the records below an offset (`None`: the high watermark) from each partition named.
    /// The answers are the new log starts, in the order of `partitions`; one that fails does not
    /// stop the others. Durable when it returns.
    ///
    /// # Errors
    /// [`Code::UnknownTopic`], or what every call may meet. In the answers:
    /// [`Code::OffsetOutOfRange`], [`Code::UnknownPartition`], [`Code::PartitionOffline`].
    pub async fn trim(
        &self,
        topic: &str,
        partitions: &[(PartitionId, Option<Offset>)],
    ) -> Result<Vec<Result<Offset, Error>>, Error> {
        let request = v1::TrimRequest {
            topic: topic.to_owned(),
            partitions: partitions
                .iter()
                .map(|(partition, offset)| v1::TrimPartition {
                    partition: partition.0,
                    offset: offset.map(|offset| offset.0),
                })
                .collect(),
        };
        let answer = self
            .connections
            .call(false, |channel| {
                let request = request.clone();
                async move { TopicServiceClient::new(channel).trim(request).await }
            })
            .await?;
        let results = answer.into_inner().results.into_iter();
        let results = results.map(|result| match result.result {
            Some(trim_result::Result::LogStartOffset(offset)) => Ok(Offset(offset)),
            Some(trim_result::Result::Error(error)) => Err(Error::from(error)),
            None => Err(empty_answer()),
        });
        Ok(results.collect())
    }

    /// What a partition holds.
    ///
    /// # Errors
    /// [`Code::UnknownTopic`], [`Code::UnknownPartition`], or what every call may meet.
    pub async fn bounds(&self, topic: &str, partition: PartitionId) -> Result<Bounds, Error> {
        let query = OffsetQuery {
            topic: topic.to_owned(),
            partition,
            at: None,
        };
        let mut answers = self.offsets(&[query]).await?;
        answers
            .pop()
            .unwrap_or_else(|| Err(empty_answer()))
            .map(|answer| answer.bounds)
    }

    /// Finds places in partitions. The answers are in the order of the queries (at most 10,000).
    ///
    /// # Errors
    /// What every call may meet. In the answers: [`Code::UnknownTopic`],
    /// [`Code::UnknownPartition`], [`Code::OffsetOutOfRange`], [`Code::PartitionOffline`].
    pub async fn offsets(
        &self,
        queries: &[OffsetQuery],
    ) -> Result<Vec<Result<OffsetAnswer, Error>>, Error> {
        let request = v1::ListOffsetsRequest {
            queries: queries
                .iter()
                .map(|query| v1::OffsetQuery {
                    topic: query.topic.clone(),
                    partition: query.partition.0,
                    at: query.at.map(Into::into),
                })
                .collect(),
        };
        let answer = self
            .connections
            .call(true, |channel| {
                let request = request.clone();
                async move {
                    FetchServiceClient::new(channel)
                        .max_decoding_message_size(ANSWER_BYTES_MAX)
                        .list_offsets(request)
                        .await
                }
            })
            .await?;
        let results = answer.into_inner().results.into_iter();
        let results = results.map(|result| match (result.error, result.bounds) {
            (Some(error), _) => Err(Error::from(error)),
            (None, Some(bounds)) => Ok(OffsetAnswer {
                bounds: bounds.into(),
                offset: result.offset.map(Offset),
                timestamp: result.timestamp_ms.map(Timestamp),
            }),
            (None, None) => Err(empty_answer()),
        });
        Ok(results.collect())
    }

    /// Reads the record with this offset; `None` when it is not there (not written yet, or removed
    /// by compaction).
    ///
    /// # Errors
    /// [`Code::OffsetOutOfRange`] with the range that is there, [`Code::UnknownTopic`],
    /// [`Code::UnknownPartition`], [`Code::PartitionOffline`], or what every call may meet.
    pub async fn read(
        &self,
        topic: &str,
        partition: PartitionId,
        offset: Offset,
    ) -> Result<Option<Message>, Error> {
        let run = self.read_run(topic, partition, offset, 1).await?;
        Ok(run
            .messages
            .into_iter()
            .find(|message| message.offset == offset))
    }

    /// Reads up to `records_max` (1 to 10,000) records from an offset on, at most about 1 MiB of
    /// them. Does not wait for records that are not there.
    ///
    /// # Errors
    /// As [`Admin::read`].
    pub async fn read_run(
        &self,
        topic: &str,
        partition: PartitionId,
        offset: Offset,
        records_max: u32,
    ) -> Result<ReadRun, Error> {
        let request = v1::ReadRequest {
            topic: topic.to_owned(),
            partition: partition.0,
            offset: offset.0,
            records_max,
            bytes_max: 0,
        };
        let answer = self
            .connections
            .call(true, |channel| {
                let request = request.clone();
                async move {
                    FetchServiceClient::new(channel)
                        .max_decoding_message_size(ANSWER_BYTES_MAX)
                        .read(request)
                        .await
                }
            })
            .await?
            .into_inner();
        let topic: Arc<str> = topic.into();
        Ok(ReadRun {
            messages: answer
                .records
                .into_iter()
                .map(|record| message_from(&topic, partition, record))
                .collect(),
            next_offset: Offset(answer.next_offset),
            bounds: answer.bounds.unwrap_or_default().into(),
        })
    }

    /// Appends some records to one partition as one batch. With [`Acks::All`] they are as durable as
    /// the topic promises when it returns; with [`Acks::None`] the answer is `None`. Sent once: after
    /// a broken connection it is not known whether they were written. `expected_end` makes repeating
    /// safe; [`Producer`](crate::Producer) repeats by itself.
    ///
    /// # Errors
    /// [`Code::ExpectedEndConflict`] with [`Error::actual_end`], [`Code::UnknownTopic`],
    /// [`Code::UnknownPartition`], [`Code::RecordTooLarge`], [`Code::InvalidRecord`],
    /// [`Code::InvalidTimestamp`], [`Code::StorageFull`], [`Code::PartitionOffline`], or what every
    /// call may meet.
    pub async fn append(&self, append: Append) -> Result<Option<Appended>, Error> {
        let request = v1::AppendRequest {
            topic: append.topic,
            partition: append.partition.0,
            records: append.records.into_iter().map(record_into).collect(),
            acks: acks_into(append.acks).into(),
            expected_end_offset: append.expected_end.map(|offset| offset.0),
            compression: compression_into(append.compression).into(),
            producer: None,
        };
        let answer = self
            .connections
            .call(false, |channel| {
                let request = request.clone();
                async move { ProduceServiceClient::new(channel).append(request).await }
            })
            .await?;
        Ok(answer.into_inner().produced.map(appended_from))
    }

    /// Writes one batch byte for byte. Otherwise as [`Admin::append`].
    ///
    /// # Errors
    /// As [`Admin::append`], and [`Code::CorruptBatch`], [`Code::OutOfSequence`],
    /// [`Code::ProducerFenced`].
    pub async fn produce_batch(&self, batch: RawBatch) -> Result<Option<Appended>, Error> {
        let acks = batch.acks;
        let request = v1::ProduceRequest {
            correlation_id: 0,
            topic: batch.topic,
            partition: batch.partition.0,
            acks: acks_into(acks).into(),
            expected_end_offset: batch.expected_end.map(|offset| offset.0),
            payload: Some(Payload::Batch(batch.batch)),
        };
        let answer = self
            .connections
            .call(false, |channel| {
                let request = request.clone();
                async move {
                    let requests = tokio_stream::iter([request]);
                    let answers = ProduceServiceClient::new(channel).produce(requests).await?;
                    answers.into_inner().message().await
                }
            })
            .await?;
        match answer.and_then(|answer| answer.result) {
            Some(produce_response::Result::Produced(produced)) => Ok(Some(appended_from(produced))),
            Some(produce_response::Result::Error(error)) => Err(error.into()),
            None if acks == Acks::None => Ok(None),
            None => Err(Error::transport(
                "the broker ended the stream without an answer",
            )),
        }
    }
}
