//! What can be proposed to the catalog.

use std::collections::BTreeMap;

use sapwood_model::{Offset, PartitionId, Timestamp, TopicId, TopicName};

/// One change of the catalog. Names, values and bounds of configurations are checked before a command
/// is made; the state machine checks what depends on the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// A topic comes into being. Rejected when the name, or one that differs from it only in `.` for
    /// `_`, is taken, or when the id was ever used and not forgotten.
    CreateTopic(NewTopicRecord),
    /// A topic is gone for its users. Its id is remembered as deleted until it is forgotten.
    DeleteTopic {
        /// The topic.
        topic: TopicId,
    },
    /// The topic's own configuration values from now on; keys that are not here have their defaults.
    AlterConfigs {
        /// The topic.
        topic: TopicId,
        /// Every key that has a value of its own.
        configs: BTreeMap<String, String>,
    },
    /// The topic has this many partitions from now on. Rejected unless it is more than before.
    AddPartitions {
        /// The topic.
        topic: TopicId,
        /// The number of partitions afterwards.
        total: u32,
    },
    /// Records below `log_start` are gone. Rejected unless it is higher than before.
    MoveLogStart {
        /// The topic.
        topic: TopicId,
        /// The partition.
        partition: PartitionId,
        /// The first offset that is left.
        log_start: Offset,
    },
    /// Takes the next `count` producer ids out of circulation: they are the proposer's.
    ReserveProducerIds {
        /// How many, at least 1.
        count: u64,
    },
    /// Nothing of these deleted topics is left on the disk; their ids need not be remembered.
    ForgetDeleted {
        /// The ids. Those that are not remembered are passed over.
        topics: Vec<TopicId>,
    },
}

/// A topic as it is created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewTopicRecord {
    /// Its identity for life.
    pub(crate) id: TopicId,
    /// Its name.
    pub(crate) name: TopicName,
    /// When it was created, by the broker's clock.
    pub(crate) created_at: Timestamp,
    /// How many partitions it has, at least 1.
    pub(crate) partitions: u32,
    /// Configuration values that differ from the defaults.
    pub(crate) configs: BTreeMap<String, String>,
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Applied {
    /// Done, and there is nothing to say about it.
    Done,
    /// These producer ids belong to the proposer: `first..first + count`.
    ProducerIds {
        /// The first of them.
        first: u64,
    },
}

/// Why a command changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Rejected {
    /// A topic of this name is there.
    #[error("topic {name:?} already exists ({partitions} partitions)")]
    TopicExists {
        /// The name.
        name: TopicName,
        /// How many partitions the one that is there has.
        partitions: u32,
    },
    /// A topic whose name differs only in `.` and `_` is there.
    #[error("topic name {name:?} collides with {other:?}: they differ only in '.' and '_'")]
    NameCollides {
        /// What was asked for.
        name: TopicName,
        /// The topic that is there.
        other: TopicName,
    },
    /// The id is in use or was.
    #[error("topic id {id} is or was in use")]
    IdTaken {
        /// The id.
        id: TopicId,
    },
    /// No topic has this id.
    #[error("no topic has the id {id}")]
    UnknownTopic {
        /// The id.
        id: TopicId,
    },
    /// The topic has fewer partitions.
    #[error("topic {name:?} has {partitions} partitions; there is no partition {partition}")]
    UnknownPartition {
        /// The topic.
        name: TopicName,
        /// How many partitions it has.
        partitions: u32,
        /// What was asked for.
        partition: PartitionId,
    },
    /// Partitions are added, never removed.
    #[error("topic {name:?} has {partitions} partitions; {total} are not more")]
    NotMorePartitions {
        /// The topic.
        name: TopicName,
        /// How many it has.
        partitions: u32,
        /// What was asked for.
        total: u32,
    },
    /// A log start only rises.
    #[error("the log start is {current} already; {requested} is not higher")]
    LogStartNotHigher {
        /// Where it is.
        current: Offset,
        /// What was asked for.
        requested: Offset,
    },
    /// Producer ids are used up, or none were asked for.
    #[error("{count} producer ids cannot be reserved from {next}")]
    NoProducerIds {
        /// How many were asked for.
        count: u64,
        /// The next free one.
        next: u64,
    },
    /// A topic has at least one partition.
    #[error("a topic has at least 1 partition")]
    NoPartitions,
}
