//! Produce (0): appending records.

use bytes::Bytes;

use crate::{Uuid, Wire};

/// Appends records to partitions, one record batch a partition.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 0, versions = "3-13", flexible = 9, response = ProduceResponse)]
pub struct ProduceRequest {
    /// The producer's transactional id; null without transactions.
    pub transactional_id: Option<String>,
    /// What to wait for: -1 for records that are durable, 1 for the leader, 0 for nothing, not even
    /// a response.
    pub acks: i16,
    /// How long the broker may take, in milliseconds.
    pub timeout_ms: i32,
    /// The topics.
    pub topic_data: Vec<ProduceRequestTopic>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct ProduceRequestTopic {
    /// The topic's name.
    #[kafka(versions = "0-12")]
    pub name: String,
    /// The topic's id; zero for none.
    #[kafka(versions = "13+")]
    pub topic_id: Uuid,
    /// The partitions.
    pub partition_data: Vec<ProduceRequestPartition>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct ProduceRequestPartition {
    /// Its number.
    pub index: i32,
    /// A record batch, as the producer made it. Null is as good as empty.
    pub records: Option<Bytes>,
}

/// Where the records went, or why not. There is no response to a request with `acks` 0.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 0, versions = "3-13", flexible = 9)]
pub struct ProduceResponse {
    /// The topics.
    pub responses: Vec<ProduceResponseTopic>,
    /// How long the client should wait before its next request, in milliseconds.
    pub throttle_time_ms: i32,
    /// Where the leaders named above can be reached.
    #[kafka(versions = "10+", tag = 0)]
    pub node_endpoints: Vec<ProduceResponseNodeEndpoint>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct ProduceResponseTopic {
    /// The topic's name.
    #[kafka(versions = "0-12")]
    pub name: String,
    /// The topic's id; zero for none.
    #[kafka(versions = "13+")]
    pub topic_id: Uuid,
    /// The partitions.
    pub partition_responses: Vec<ProduceResponsePartition>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct ProduceResponsePartition {
    /// Its number.
    pub index: i32,
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
    /// The offset of the first record, or -1.
    pub base_offset: i64,
    /// When the broker appended the records, in milliseconds since 1970; -1 when the records keep
    /// their own times.
    #[kafka(default = -1)]
    pub log_append_time_ms: i64,
    /// The first offset that is there; -1 when it is not known.
    #[kafka(versions = "5+", default = -1)]
    pub log_start_offset: i64,
    /// The records that the batch was refused for.
    #[kafka(versions = "8+")]
    pub record_errors: Vec<ProduceResponseRecordError>,
    /// What went wrong, for people.
    #[kafka(versions = "8+")]
    pub error_message: Option<String>,
    /// Who leads the partition; said when the client asked the wrong broker.
    #[kafka(versions = "10+", tag = 0)]
    pub current_leader: ProduceResponseLeaderIdAndEpoch,
}

/// What is wrong with one record of a batch.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct ProduceResponseRecordError {
    /// The number of the record in its batch, from 0.
    pub batch_index: i32,
    /// What is wrong with it.
    pub batch_index_error_message: Option<String>,
}

/// Who leads a partition.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct ProduceResponseLeaderIdAndEpoch {
    /// The broker that leads it, or -1.
    #[kafka(default = -1)]
    pub leader_id: i32,
    /// The leader's epoch, or -1 when it is not known.
    #[kafka(default = -1)]
    pub leader_epoch: i32,
}

/// Where a broker can be reached.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct ProduceResponseNodeEndpoint {
    /// Its number.
    pub node_id: i32,
    /// Its host name or address.
    pub host: String,
    /// Its port.
    pub port: i32,
    /// Where it stands, if that is known.
    pub rack: Option<String>,
}
