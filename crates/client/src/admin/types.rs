//! What admin calls take and give.

use bytes::Bytes;
use sapwood_model::{Acks, Durability, LeaderEpoch, Offset, PartitionId, Timestamp};
use sapwood_record::Codec;

use super::{CompactionState, NextRemoval};
use crate::{Bounds, Error, Message, Position, Record};

/// The topic to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    /// 1 to 249 of `a-z A-Z 0-9 . _ -`, and neither `.` nor `..`.
    pub name: String,
    /// 1 to 100,000; `None` takes the broker's default.
    pub partitions: Option<u32>,
    /// `None` takes 1.
    pub replication_factor: Option<u32>,
    /// Configuration by Kafka's names, and `durability`.
    pub configs: Vec<(String, String)>,
    /// Check everything, create nothing.
    pub validate_only: bool,
}

impl NewTopic {
    /// A topic with the broker's defaults.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            partitions: None,
            replication_factor: None,
            configs: Vec::new(),
            validate_only: false,
        }
    }

    /// Sets the number of partitions.
    #[must_use]
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// Sets one configuration key.
    #[must_use]
    pub fn config(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.configs.push((key.into(), value.into()));
        self
    }
}

/// What a topic is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its identity from creation to deletion: 22 characters of URL-safe base64.
    pub id: String,
    /// The number of partitions.
    pub partitions: u32,
    /// The number of copies.
    pub replication_factor: u32,
    /// What acknowledged records survive.
    pub durability: Durability,
    /// When it was created, by the broker's clock.
    pub created_at: Timestamp,
}

/// A topic with its partitions and its configuration.
#[derive(Debug, Clone)]
pub struct TopicDescription {
    /// What it is.
    pub topic: Topic,
    /// In the order of their numbers.
    pub partitions: Vec<Partition>,
    /// All keys, in the order of their names.
    pub configs: Vec<ConfigEntry>,
}

/// The state of one partition.
#[derive(Debug, Clone)]
pub struct Partition {
    /// Its number.
    pub partition: PartitionId,
    /// What it holds.
    pub bounds: Bounds,
    /// Counts the takeovers of the log.
    pub leader_epoch: LeaderEpoch,
    /// Bytes of its segments.
    pub size_bytes: u64,
    /// The number of segments.
    pub segments: u32,
    /// `None` while it is online, otherwise why it is not.
    pub offline: Option<Error>,
    /// What retention removes next; `None`: nothing, or the partition is offline.
    pub next_removal: Option<NextRemoval>,
    /// How far it is compacted; `None` if its topic is not, or while it is offline.
    pub compaction: Option<CompactionState>,
}

/// One configuration key of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Kafka's name.
    pub key: String,
    /// The value in force.
    pub value: String,
    /// The value in force when the topic does not set one.
    pub default_value: String,
    /// `topic` when the topic sets it, otherwise `default` or `broker`.
    pub source: String,
    /// True when it cannot be changed.
    pub read_only: bool,
}

/// A change of a topic's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigChange {
    /// Sets a key.
    Set(String, String),
    /// Gives a key its default back.
    Unset(String),
}

/// A question about one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetQuery {
    /// The topic's name.
    pub topic: String,
    /// The partition.
    pub partition: PartitionId,
    /// The place to find; `None` asks for the bounds only.
    pub at: Option<Position>,
}

/// The answer to an [`OffsetQuery`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetAnswer {
    /// What the partition holds.
    pub bounds: Bounds,
    /// The offset of the place, if one was asked for.
    pub offset: Option<Offset>,
    /// The time of the record there, when it was asked for by time and there is one.
    pub timestamp: Option<Timestamp>,
}

/// Some records to append to one partition at once.
#[derive(Debug, Clone)]
pub struct Append {
    /// The topic's name.
    pub topic: String,
    /// The partition.
    pub partition: PartitionId,
    /// Key, value and headers of each; at least 1 record. Their topic and partition are not used.
    pub records: Vec<Record>,
    /// What to wait for.
    pub acks: Acks,
    /// Append only if the first record gets this offset.
    pub expected_end: Option<Offset>,
    /// How the batch is compressed.
    pub compression: Codec,
}

/// Where a batch was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The offset of its first record.
    pub base_offset: Offset,
    /// The offset of its last record.
    pub last_offset: Offset,
    /// The partition's log start at that time.
    pub log_start: Offset,
}

/// One batch, as bytes.
#[derive(Debug, Clone)]
pub struct RawBatch {
    /// The topic's name.
    pub topic: String,
    /// The partition.
    pub partition: PartitionId,
    /// Exactly one Kafka record batch v2.
    pub batch: Bytes,
    /// What to wait for.
    pub acks: Acks,
    /// Append only if the first record gets this offset.
    pub expected_end: Option<Offset>,
}

/// A run of records by offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRun {
    /// In the order of their offsets; none when nothing is there yet.
    pub messages: Vec<Message>,
    /// Where to read on.
    pub next_offset: Offset,
    /// What the partition held.
    pub bounds: Bounds,
}
