//! Single requests of Kafka's protocol, so that the code of an answer can be seen: real clients retry
//! and keep it to themselves.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use bytes::Bytes;
use sapwood_kafka_wire::{
    Request, decode_response, encode_request,
    messages::{
        DeleteRecordsRequest, DeleteRecordsRequestPartition, DeleteRecordsRequestTopic,
        FetchRequest, FetchRequestPartition, FetchRequestTopic, OffsetCommitRequest,
        OffsetCommitRequestPartition, OffsetCommitRequestTopic, ProduceRequest,
        ProduceRequestPartition, ProduceRequestTopic,
    },
};
use sapwood_record::{BatchBuilder, Codec, RecordInput};

use super::Settings;

const TIMEOUT: Duration = Duration::from_secs(60);
const BYTES_MAX: i32 = 1 << 20;

/// Kafka's code for a partition whose disk has no room or fails. Clients retry.
pub(crate) const KAFKA_STORAGE_ERROR: i16 = 56;
/// Kafka's code for a group that is being loaded.
const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;

/// A connection.
#[derive(Debug)]
pub(crate) struct Kafka(TcpStream);

/// A code that is not 0, and the text with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) code: i16,
    pub(crate) message: String,
}

impl Kafka {
    pub(crate) fn connect(settings: &Settings) -> Self {
        let stream = TcpStream::connect(settings.address()).expect("the broker listens");
        let limited = stream.set_read_timeout(Some(TIMEOUT));
        limited.expect("the limit is not zero");
        Self(stream)
    }

    /// Appends one record with acks=all to partition 0 and returns its offset.
    pub(crate) fn produce(&mut self, topic: &str, value: &[u8]) -> Result<i64, Refused> {
        let mut builder = BatchBuilder::new(Codec::None);
        let record = RecordInput {
            timestamp: sapwood_model::Timestamp(1_700_000_000_000),
            key: None,
            value: Some(value),
            headers: &[],
        };
        builder.push(record).expect("one record fits");
        let batch = builder.build().expect("one record is a batch");
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: 30_000,
            topic_data: vec![ProduceRequestTopic {
                name: topic.to_owned(),
                partition_data: vec![ProduceRequestPartition {
                    index: 0,
                    records: Some(batch.to_bytes()),
                }],
                ..ProduceRequestTopic::default()
            }],
            ..ProduceRequest::default()
        };
        let mut response = self.ask(9, &request);
        let partition = response.responses.remove(0).partition_responses.remove(0);
        let message = partition.error_message.unwrap_or_default();
        refused(partition.error_code, message).map(|()| partition.base_offset)
    }

    /// The bytes of the batches of partition 0 from this offset on, without waiting.
    pub(crate) fn fetch(&mut self, topic: &str, offset: i64) -> Result<Bytes, Refused> {
        let request = FetchRequest {
            topics: vec![FetchRequestTopic {
                topic: topic.to_owned(),
                partitions: vec![FetchRequestPartition {
                    fetch_offset: offset,
                    partition_max_bytes: BYTES_MAX,
                    ..FetchRequestPartition::default()
                }],
                ..FetchRequestTopic::default()
            }],
            ..FetchRequest::default()
        };
        let mut response = self.ask(11, &request);
        let partition = response.responses.remove(0).partitions.remove(0);
        refused(partition.error_code, String::new()).map(|()| partition.records.unwrap_or_default())
    }

    /// Commits an offset of partition 0 for a group without members. Waits while groups are loaded.
    pub(crate) fn commit(&mut self, group: &str, topic: &str, offset: i64) -> Result<(), Refused> {
        let request = OffsetCommitRequest {
            group_id: group.to_owned(),
            generation_id_or_member_epoch: -1,
            topics: vec![OffsetCommitRequestTopic {
                name: topic.to_owned(),
                partitions: vec![OffsetCommitRequestPartition {
                    committed_offset: offset,
                    ..OffsetCommitRequestPartition::default()
                }],
            }],
            ..OffsetCommitRequest::default()
        };
        loop {
            let mut response = self.ask(8, &request);
            let partition = response.topics.remove(0).partitions.remove(0);
            if partition.error_code != COORDINATOR_LOAD_IN_PROGRESS {
                return refused(partition.error_code, String::new());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Deletes the records of partition 0 below an offset, and returns the log's start.
    pub(crate) fn delete_records(&mut self, topic: &str, below: i64) -> Result<i64, Refused> {
        let request = DeleteRecordsRequest {
            topics: vec![DeleteRecordsRequestTopic {
                name: topic.to_owned(),
                partitions: vec![DeleteRecordsRequestPartition {
                    offset: below,
                    ..DeleteRecordsRequestPartition::default()
                }],
            }],
            timeout_ms: 30_000,
        };
        let mut response = self.ask(2, &request);
        let partition = response.topics.remove(0).partitions.remove(0);
        refused(partition.error_code, String::new()).map(|()| partition.low_watermark)
    }

    fn ask<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        let frame = encode_request(1, version, Some("tests"), request);
        let frame = frame.expect("the request is well formed").concat();
        self.0.write_all(&frame).expect("the broker reads");
        let mut length = [0; 4];
        self.0.read_exact(&mut length).expect("the broker answers");
        let length = usize::try_from(i32::from_be_bytes(length)).expect("a length");
        let mut answer = vec![0; length];
        self.0.read_exact(&mut answer).expect("a whole answer");
        let decoded = decode_response(answer.into(), version);
        decoded.expect("an answer of this version").1
    }
}

fn refused(code: i16, message: String) -> Result<(), Refused> {
    match code {
        0 => Ok(()),
        code => Err(Refused { code, message }),
    }
}
