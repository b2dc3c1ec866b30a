//! Fetch (1): reading records, waiting for them when there are none.

use bytes::Bytes;

use crate::{Uuid, Wire};

/// Asks for records from offsets on. With a session, only what changed since the last request is
/// named.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 1, versions = "4-18", flexible = 12, response = FetchResponse)]
pub struct FetchRequest {
    /// The cluster that the replica believes to be in.
    #[kafka(versions = "12+", tag = 0)]
    pub cluster_id: Option<String>,
    /// The broker that asks, or -1 for a client; `replica_state` has it from version 15 on.
    #[kafka(versions = "0-14", default = -1)]
    pub replica_id: i32,
    /// Which replica asks.
    #[kafka(versions = "15+", tag = 1)]
    pub replica_state: FetchRequestReplicaState,
    /// How long to wait for `min_bytes`, in milliseconds.
    pub max_wait_ms: i32,
    /// How many bytes of records to wait for.
    pub min_bytes: i32,
    /// How many bytes of records to return; a first batch that is larger is returned all the same.
    #[kafka(default = i32::MAX)]
    pub max_bytes: i32,
    /// 0 to see all records, 1 to see committed ones only.
    pub isolation_level: i8,
    /// The session, or 0 for none.
    #[kafka(versions = "7+")]
    pub session_id: i32,
    /// The number of the request in its session: 0 opens one, -1 ends it or wants none.
    #[kafka(versions = "7+", default = -1)]
    pub session_epoch: i32,
    /// What to read; with a session, what is new or changed.
    pub topics: Vec<FetchRequestTopic>,
    /// What to take out of the session.
    #[kafka(versions = "7+")]
    pub forgotten_topics_data: Vec<FetchRequestForgottenTopic>,
    /// Where the client stands.
    #[kafka(versions = "11+")]
    pub rack_id: String,
}

/// What a replica says of itself when it fetches.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct FetchRequestReplicaState {
    /// The broker that asks, or -1 for a client.
    #[kafka(default = -1)]
    pub replica_id: i32,
    /// The replica's epoch, or -1.
    #[kafka(default = -1)]
    pub replica_epoch: i64,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct FetchRequestTopic {
    /// The topic's name.
    #[kafka(versions = "0-12")]
    pub topic: String,
    /// The topic's id; zero for none.
    #[kafka(versions = "13+")]
    pub topic_id: Uuid,
    /// The partitions.
    pub partitions: Vec<FetchRequestPartition>,
}

/// A partition and where to read on.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct FetchRequestPartition {
    /// Its number.
    pub partition: i32,
    /// The leader's epoch as the client knows it, or -1 for any.
    #[kafka(versions = "9+", default = -1)]
    pub current_leader_epoch: i32,
    /// The offset to read from.
    pub fetch_offset: i64,
    /// The epoch of the last record that the reader has, or -1.
    #[kafka(versions = "12+", default = -1)]
    pub last_fetched_epoch: i32,
    /// Where the log of the replica that asks starts; -1 for a client.
    #[kafka(versions = "5+", default = -1)]
    pub log_start_offset: i64,
    /// How many bytes of records to return for this partition.
    pub partition_max_bytes: i32,
    /// The directory of the replica that asks.
    #[kafka(versions = "17+", tag = 0)]
    pub replica_directory_id: Uuid,
    /// The high watermark that a replica knows; `i64::MAX` for none.
    #[kafka(versions = "18+", default = i64::MAX, tag = 1)]
    pub high_watermark: i64,
}

/// Partitions to take out of the session.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct FetchRequestForgottenTopic {
    /// The topic's name.
    #[kafka(versions = "0-12")]
    pub topic: String,
    /// The topic's id; zero for none.
    #[kafka(versions = "13+")]
    pub topic_id: Uuid,
    /// Their numbers.
    pub partitions: Vec<i32>,
}

/// Records, whole batches. With a session, only partitions with something new.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 1, versions = "4-18", flexible = 12)]
pub struct FetchResponse {
    /// How long the client should wait before its next request, in milliseconds.
    pub throttle_time_ms: i32,
    /// Kafka's code of what is wrong with the session, or 0.
    #[kafka(versions = "7+")]
    pub error_code: i16,
    /// The session, or 0 for none.
    #[kafka(versions = "7+")]
    pub session_id: i32,
    /// The topics.
    pub responses: Vec<FetchResponseTopic>,
    /// Where the leaders named above can be reached.
    #[kafka(versions = "16+", tag = 0)]
    pub node_endpoints: Vec<FetchResponseNodeEndpoint>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct FetchResponseTopic {
    /// The topic's name.
    #[kafka(versions = "0-12")]
    pub topic: String,
    /// The topic's id; zero for none.
    #[kafka(versions = "13+")]
    pub topic_id: Uuid,
    /// The partitions.
    pub partitions: Vec<FetchResponsePartition>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct FetchResponsePartition {
    /// Its number.
    pub partition_index: i32,
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
    /// The first offset that readers do not see yet.
    pub high_watermark: i64,
    /// The first offset of the oldest open transaction, or the high watermark; -1 when it is not
    /// known.
    #[kafka(default = -1)]
    pub last_stable_offset: i64,
    /// The first offset that is there; -1 when it is not known.
    #[kafka(versions = "5+", default = -1)]
    pub log_start_offset: i64,
    /// Where log and reader part, when the reader's last epoch says that they do.
    #[kafka(versions = "12+", tag = 0)]
    pub diverging_epoch: FetchResponseEpochEndOffset,
    /// Who leads the partition; said when the client asked the wrong broker.
    #[kafka(versions = "12+", tag = 1)]
    pub current_leader: FetchResponseLeaderIdAndEpoch,
    /// A snapshot to fetch instead; only a log of metadata has these.
    #[kafka(versions = "12+", tag = 2)]
    pub snapshot_id: FetchResponseSnapshotId,
    /// Transactions among these records that were aborted; null unless committed records only were
    /// asked for.
    pub aborted_transactions: Option<Vec<FetchResponseAbortedTransaction>>,
    /// The broker to read from instead, or -1.
    #[kafka(versions = "11+", default = -1)]
    pub preferred_read_replica: i32,
    /// Whole record batches. Readers expect empty bytes, not null, where there are none.
    pub records: Option<Bytes>,
}

/// The last epoch that reader and log have in common, and where it ends in the log.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct FetchResponseEpochEndOffset {
    /// The epoch, or -1.
    #[kafka(default = -1)]
    pub epoch: i32,
    /// Where the epoch ends: the first offset behind it.
    #[kafka(default = -1)]
    pub end_offset: i64,
}

/// Who leads a partition.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct FetchResponseLeaderIdAndEpoch {
    /// The broker that leads it, or -1.
    #[kafka(default = -1)]
    pub leader_id: i32,
    /// The leader's epoch, or -1 when it is not known.
    #[kafka(default = -1)]
    pub leader_epoch: i32,
}

/// A snapshot to fetch instead; only a log of metadata has these.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct FetchResponseSnapshotId {
    /// Where the snapshot ends: the first offset that is not in it.
    #[kafka(default = -1)]
    pub end_offset: i64,
    /// The epoch of its last record.
    #[kafka(default = -1)]
    pub epoch: i32,
}

/// A transaction that was aborted.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct FetchResponseAbortedTransaction {
    /// The number of the producer.
    pub producer_id: i64,
    /// The first offset of the transaction.
    pub first_offset: i64,
}

/// Where a broker can be reached.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct FetchResponseNodeEndpoint {
    /// Its number.
    pub node_id: i32,
    /// Its host name or address.
    pub host: String,
    /// Its port.
    pub port: i32,
    /// Where it stands, if that is known.
    pub rack: Option<String>,
}
