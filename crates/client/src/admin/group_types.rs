//! What admin calls about groups take and give.

use std::{fmt, sync::Arc, time::Duration};

use sapwood_model::{LeaderEpoch, Offset, PartitionId, Timestamp};

use crate::{Bounds, Error, Position};

/// One partition of one topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: PartitionId,
}

impl TopicPartition {
    /// A partition of a topic.
    pub fn new(topic: impl Into<Arc<str>>, partition: PartitionId) -> Self {
        Self {
            topic: topic.into(),
            partition,
        }
    }
}

impl fmt::Display for TopicPartition {
    /// `orders/0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// Of which kind a group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GroupKind {
    /// Its members assign partitions among themselves, as in Kafka's older protocol. Groups that only
    /// have offsets count as this.
    Classic,
    /// The broker assigns (Kafka's newer protocol, KIP-848).
    Consumer,
    /// A newer broker's.
    Unknown,
}

impl fmt::Display for GroupKind {
    /// `classic`, `consumer`: Kafka's names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Classic => "classic",
            Self::Consumer => "consumer",
            Self::Unknown => "unknown",
        })
    }
}

/// Where a group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GroupState {
    /// It has no members.
    Empty,
    /// Classic: members are joining.
    PreparingRebalance,
    /// Classic: the leader is working out who gets what.
    CompletingRebalance,
    /// The assignment is yet to be worked out.
    Assigning,
    /// Members are on their way to the assignment.
    Reconciling,
    /// Every member has what it is to have.
    Stable,
    /// A newer broker's.
    Unknown,
}

impl fmt::Display for GroupState {
    /// `Stable`, `PreparingRebalance`...: Kafka's names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The groups of the broker.
#[derive(Debug, Clone)]
pub struct GroupListing {
    /// In the order of their names.
    pub groups: Vec<Group>,
    /// Why some groups may be missing: after a start, or when a partition of the internal topic is
    /// offline. Empty when all are there.
    pub missing: Vec<Error>,
}

/// A group in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Of which kind it is.
    pub kind: GroupKind,
    /// Where it is.
    pub state: GroupState,
    /// What its members are: `consumer`, `connect`...; empty when it never had any.
    pub protocol_type: String,
    /// How many members it has.
    pub members: u32,
}

/// A group with its members, and how far it has read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    /// The group in short.
    pub group: Group,
    /// The assignor it goes by; of a classic group the protocol, empty unless it is stable.
    pub assignor: String,
    /// The group's epoch, or generation.
    pub epoch: u32,
    /// In the order of their ids.
    pub members: Vec<GroupMember>,
    /// What they read and what is committed, in order.
    pub partitions: Vec<GroupPartition>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// Its id.
    pub member_id: String,
    /// The lasting name of a static member.
    pub instance_id: Option<String>,
    /// What its client calls itself.
    pub client_id: String,
    /// Where it connected from.
    pub host: String,
    /// What it owns, in order.
    pub assigned: Vec<TopicPartition>,
}

/// How far a group has read one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupPartition {
    /// The partition.
    pub partition: TopicPartition,
    /// What is committed; `None` if nothing.
    pub committed: Option<CommittedOffset>,
    /// What the partition holds; `None` if it is offline, or not there any more.
    pub bounds: Option<Bounds>,
    /// How many offsets lie between what is committed (or the log start, if that is higher) and the
    /// high watermark; `None` if that is not known.
    pub lag: Option<u64>,
    /// How many offsets were deleted before the group had read them.
    pub lost: u64,
    /// The age of the first record that the group has not read; zero when it has read everything,
    /// `None` if it is not known.
    pub behind: Option<Duration>,
    /// How long it takes until retention deletes the first record that the group has not read; `None`
    /// when it has read everything, or nothing is deleted by age.
    pub retention_headroom: Option<Duration>,
    /// Who reads it: an index into [`GroupDescription::members`].
    pub member: Option<usize>,
}

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset to read.
    pub offset: Offset,
    /// The leader epoch of the last record that was read, if it was said.
    pub leader_epoch: Option<LeaderEpoch>,
    /// The text that was committed with it.
    pub metadata: String,
    /// When, by the broker's clock.
    pub committed_at: Timestamp,
}

/// An offset to commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionOffset {
    /// The partition.
    pub partition: TopicPartition,
    /// The next offset to read: that of the last record which is done, plus 1.
    pub offset: Offset,
    /// The leader epoch of that record, if known.
    pub leader_epoch: Option<LeaderEpoch>,
    /// A text to keep with it, up to 4,096 bytes by default.
    pub metadata: String,
}

impl PartitionOffset {
    /// An offset without leader epoch and text.
    pub fn new(topic: impl Into<Arc<str>>, partition: PartitionId, offset: Offset) -> Self {
        Self {
            partition: TopicPartition::new(topic, partition),
            offset,
            leader_epoch: None,
            metadata: String::new(),
        }
    }
}

/// Some partitions of a group, and where they are to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeekTarget {
    /// Which partitions.
    pub partitions: SeekPartitions,
    /// Where to.
    pub to: SeekTo,
}

/// Which partitions of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeekPartitions {
    /// All that the group has committed offsets for.
    Committed,
    /// Every partition of a topic, whether or not the group has read any of it.
    Topic(Arc<str>),
    /// One partition.
    One(TopicPartition),
}

/// A place for a group to go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeekTo {
    /// A place in the partition.
    Position(Position),
    /// So many offsets on from what is committed, back if negative, but not out of the log.
    By(i64),
}

/// Where a partition of a group goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeekResult {
    /// The partition.
    pub partition: TopicPartition,
    /// What was committed; `None` if nothing.
    pub from: Option<Offset>,
    /// The next offset that the group reads.
    pub to: Offset,
    /// What the partition holds.
    pub bounds: Bounds,
}
