//! What the machine writes down: typed mirrors of the records of Kafka's `__consumer_offsets`.
//!
//! Each record is a key and a value; a value of `None` is a tombstone. The fields are those of Kafka's
//! schemas, with numbers and names as types; the bytes are the business of whoever hosts the machine.
//! Kafka's `ConsumerGroupPartitionMetadata` is deprecated and not written (the metadata hash took its
//! place), and `ClassicMemberMetadata` in a member's metadata is always null here, because groups do
//! not change their kind while they have members.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use sapwood_model::{LeaderEpoch, Offset, PartitionId, Timestamp, TopicId, TopicName};

use crate::{Epoch, Generation, GroupId, InstanceId, MemberId, Partitions};

/// A record of `__consumer_offsets`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// How far a group has read a partition (OffsetCommitKey and -Value).
    Offset {
        /// The group.
        group: GroupId,
        /// The partition's topic.
        topic: TopicName,
        /// The partition's number.
        partition: PartitionId,
        /// How far.
        value: Option<CommittedOffset>,
    },
    /// A classic group, with its members (GroupMetadataKey and -Value).
    Classic {
        /// The group.
        group: GroupId,
        /// The group as its last completed rebalance left it.
        value: Option<ClassicMetadata>,
    },
    /// A group of the newer kind (ConsumerGroupMetadataKey and -Value).
    Consumer {
        /// The group.
        group: GroupId,
        /// Its epoch.
        value: Option<ConsumerMetadata>,
    },
    /// What a member of it says about itself (ConsumerGroupMemberMetadataKey and -Value).
    Member {
        /// The group.
        group: GroupId,
        /// The member.
        member: MemberId,
        /// What it says.
        value: Option<MemberMetadata>,
    },
    /// Up to which epoch the target assignment is worked out
    /// (ConsumerGroupTargetAssignmentMetadataKey and -Value).
    Target {
        /// The group.
        group: GroupId,
        /// The epoch of the assignment.
        value: Option<Epoch>,
    },
    /// What a member is to own in the end (ConsumerGroupTargetAssignmentMemberKey and -Value).
    TargetMember {
        /// The group.
        group: GroupId,
        /// The member.
        member: MemberId,
        /// Its partitions.
        value: Option<Partitions>,
    },
    /// What a member owns now (ConsumerGroupCurrentMemberAssignmentKey and -Value).
    Current {
        /// The group.
        group: GroupId,
        /// The member.
        member: MemberId,
        /// Its partitions.
        value: Option<CurrentAssignment>,
    },
    /// Which topics a regular expression stands for (ConsumerGroupRegularExpressionKey and -Value).
    Regex {
        /// The group.
        group: GroupId,
        /// The expression.
        regex: Arc<str>,
        /// Its topics.
        value: Option<ResolvedRegex>,
    },
}

impl Record {
    /// The group that the record belongs to.
    pub fn group(&self) -> &GroupId {
        match self {
            Self::Offset { group, .. }
            | Self::Classic { group, .. }
            | Self::Consumer { group, .. }
            | Self::Member { group, .. }
            | Self::Target { group, .. }
            | Self::TargetMember { group, .. }
            | Self::Current { group, .. }
            | Self::Regex { group, .. } => group,
        }
    }
}

/// How far a group has read a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The topic that it was committed for. It counts for no other one of the same name. None: written
    /// before there was this field, or with an expiry; then the name has to do.
    pub topic_id: Option<TopicId>,
    /// The next offset to read.
    pub offset: Offset,
    /// The leader epoch of the last record that was read, if the client said so.
    pub leader_epoch: Option<LeaderEpoch>,
    /// Whatever the client wanted to be kept with it.
    pub metadata: Arc<str>,
    /// When it was committed.
    pub commit_timestamp: Timestamp,
    /// When it expires, if its commit said so; only clients of before 2018 do.
    pub expire_timestamp: Option<Timestamp>,
}

/// A classic group as its last completed rebalance left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassicMetadata {
    /// What kind of members it has: `consumer`, `connect`; empty when it never had any.
    pub protocol_type: Arc<str>,
    /// The generation.
    pub generation: Generation,
    /// The assignment protocol of the generation; none without members.
    pub protocol: Option<Arc<str>>,
    /// The member that assigns; none without members.
    pub leader: Option<MemberId>,
    /// When the group came into the state that it is in.
    pub current_state_timestamp: Option<Timestamp>,
    /// The members, by their ids.
    pub members: Vec<ClassicMemberMetadata>,
}

/// A member of a classic group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassicMemberMetadata {
    /// Its id.
    pub member_id: MemberId,
    /// The lasting name of a static member.
    pub instance_id: Option<InstanceId>,
    /// What the client calls itself.
    pub client_id: Arc<str>,
    /// Where it connected from.
    pub client_host: Arc<str>,
    /// How long it may take to join a rebalance, in milliseconds.
    pub rebalance_timeout_ms: u32,
    /// How long it may be silent, in milliseconds.
    pub session_timeout_ms: u32,
    /// What it said for the protocol of the generation.
    pub subscription: Bytes,
    /// What the leader gave it.
    pub assignment: Bytes,
}

/// A group of the newer kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConsumerMetadata {
    /// Rises whenever the target assignment has to be worked out again.
    pub epoch: Epoch,
    /// Tells whether the subscribed topics have changed since.
    pub metadata_hash: u64,
    /// When the epoch rose. Kafka's schema has no field for it; whoever hosts the machine reads it from
    /// the record's own timestamp, which is the time of the decision.
    pub changed_at: Timestamp,
}

/// What a member of a group of the newer kind says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberMetadata {
    /// The lasting name of a static member.
    pub instance_id: Option<InstanceId>,
    /// Where it stands. Kept and shown; assignments do not look at it.
    pub rack_id: Option<Arc<str>>,
    /// What the client calls itself.
    pub client_id: Arc<str>,
    /// Where it connected from.
    pub client_host: Arc<str>,
    /// The topics that it reads, by name. They need not exist.
    pub subscribed_topic_names: BTreeSet<TopicName>,
    /// Stands for more topics that it reads.
    pub subscribed_topic_regex: Option<Arc<str>>,
    /// How long it may take to give partitions up, in milliseconds.
    pub rebalance_timeout_ms: u32,
    /// The assignor that it prefers.
    pub server_assignor: Option<Arc<str>>,
}

/// How far a member is on its way to its target assignment.
///
/// Legal transitions: `Stable` to any; `UnrevokedPartitions` to any once the member has given its
/// revoked partitions up; `UnreleasedPartitions` to any as others give up theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MemberState {
    /// It owns what it is to own (0 in Kafka's schema).
    #[default]
    Stable,
    /// It has yet to give up partitions (1).
    UnrevokedPartitions,
    /// It waits for partitions that others have yet to give up (2).
    UnreleasedPartitions,
}

/// What a member of a group of the newer kind owns.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CurrentAssignment {
    /// The member's epoch. None: a static member that has left and is expected back (-2 in Kafka's
    /// schema); it keeps its partitions for as long as its session lasts.
    pub member_epoch: Option<Epoch>,
    /// The epoch before, which a member may repeat that missed a response. Kafka has -1 for a member
    /// that never had one, which is [`Epoch::ZERO`] here.
    pub previous_member_epoch: Epoch,
    /// How far the member is.
    pub state: MemberState,
    /// What it may read.
    pub assigned: Partitions,
    /// What it has to give up, and nobody else may read before it has.
    pub pending_revocation: Partitions,
}

/// The topics that a regular expression stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedRegex {
    /// The topics.
    pub topics: BTreeSet<TopicName>,
    /// The version of the topics that were looked at.
    pub version: u64,
    /// When they were looked at.
    pub timestamp: Timestamp,
}
