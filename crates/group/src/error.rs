//! Why a group refuses what it is asked for.

use std::ops::RangeInclusive;

use sapwood_model::{Code, PartitionId, TopicName};

use crate::{Epoch, Generation, MemberId};

/// Why a request to a group was refused; the group is as it was. Each names the error of Kafka's
/// protocol that it corresponds to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// The request contradicts itself or lacks something (INVALID_REQUEST, 42).
    #[error("{0}")]
    InvalidRequest(&'static str),
    /// Too long, or empty where members are concerned (INVALID_GROUP_ID, 24).
    #[error(
        "the group id has {length} bytes; 1 to {} are allowed",
        crate::GROUP_ID_BYTES_MAX
    )]
    InvalidGroupId {
        /// Its length in bytes.
        length: usize,
    },
    /// There is no such group, or it is of the other kind and has members (GROUP_ID_NOT_FOUND, 69).
    /// OffsetCommit below version 9 says ILLEGAL_GENERATION (22) instead.
    #[error("there is no such group of this kind")]
    GroupNotFound,
    /// The group has no such member (UNKNOWN_MEMBER_ID, 25). It has to join again.
    #[error("the group has no such member")]
    UnknownMember,
    /// A classic member has to join again with this id (MEMBER_ID_REQUIRED, 79).
    #[error("join again as {member_id}")]
    MemberIdRequired {
        /// The id that the coordinator has made for it.
        member_id: MemberId,
    },
    /// The member speaks of a generation that is not the group's (ILLEGAL_GENERATION, 22).
    #[error("generation {given} is not the group's, which is {current}")]
    IllegalGeneration {
        /// The generation of the request; none when it came without one.
        given: Generation,
        /// The group's.
        current: Generation,
    },
    /// Wait for the members to be gathered anew, and join (REBALANCE_IN_PROGRESS, 27).
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    /// No assignment protocol that all members support, or not the protocol type of the group
    /// (INCONSISTENT_GROUP_PROTOCOL, 23).
    #[error("the member's protocols do not fit those of the group")]
    InconsistentProtocol,
    /// Outside of what the operator allows (INVALID_SESSION_TIMEOUT, 26).
    #[error("a session timeout of {given} ms is outside of {} to {} ms", allowed.start(), allowed.end())]
    InvalidSessionTimeout {
        /// The timeout asked for, in milliseconds.
        given: u32,
        /// What is allowed, in milliseconds.
        allowed: RangeInclusive<u32>,
    },
    /// Another process has joined under the same instance id since (FENCED_INSTANCE_ID, 82).
    #[error("the instance id belongs to a newer member")]
    FencedInstance,
    /// The instance id is in use by a member that has not left (UNRELEASED_INSTANCE_ID, 111).
    #[error("the instance id is held by a member that has not left")]
    UnreleasedInstance,
    /// The group takes no more members (GROUP_MAX_SIZE_REACHED, 81).
    #[error("the group has its {limit} members")]
    GroupFull {
        /// How many members a group may have.
        limit: usize,
    },
    /// Only an empty group can be treated like this (NON_EMPTY_GROUP, 68).
    #[error("the group has members")]
    NonEmptyGroup,
    /// A heartbeat with an epoch that the member cannot have: it has to give up its partitions and
    /// join with epoch 0 (FENCED_MEMBER_EPOCH, 110).
    #[error("member epoch {given} is not {current}")]
    FencedMemberEpoch {
        /// The epoch of the request.
        given: Epoch,
        /// The member's.
        current: Epoch,
    },
    /// A commit or a read of offsets with an epoch that is not the member's: it has to learn its
    /// epoch by a heartbeat and try again (STALE_MEMBER_EPOCH, 113).
    #[error("member epoch {given} is not {current}")]
    StaleMemberEpoch {
        /// The epoch of the request.
        given: Epoch,
        /// The member's.
        current: Epoch,
    },
    /// There is no such assignor on this side (UNSUPPORTED_ASSIGNOR, 112).
    #[error("there is no assignor {given:?}; there are uniform and range")]
    UnsupportedAssignor {
        /// The name asked for.
        given: String,
    },
    /// The pattern does not parse, or would be too big (INVALID_REGULAR_EXPRESSION, 128).
    #[error("the regular expression is refused: {reason}")]
    InvalidRegularExpression {
        /// What is wrong with it.
        reason: String,
    },
    /// Members of the group read the topic (GROUP_SUBSCRIBED_TO_TOPIC, 86).
    #[error("the group is subscribed to {topic}")]
    SubscribedToTopic {
        /// The topic whose offsets were to be deleted.
        topic: TopicName,
    },
    /// There is no such partition (UNKNOWN_TOPIC_OR_PARTITION, 3).
    #[error("{topic} has no partition {partition}, or there is no such topic")]
    UnknownPartition {
        /// The topic.
        topic: TopicName,
        /// The partition's number.
        partition: PartitionId,
    },
    /// The text beside the offset is too long (OFFSET_METADATA_TOO_LARGE, 12).
    #[error("the metadata of the offset is {length} bytes; the limit is {limit} bytes")]
    MetadataTooLarge {
        /// Its length in bytes.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
}

impl GroupError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::InvalidRequest(_)
            | Self::InconsistentProtocol
            | Self::InvalidSessionTimeout { .. } => Code::InvalidArgument,
            Self::InvalidGroupId { .. } => Code::InvalidGroupId,
            Self::GroupNotFound => Code::UnknownGroup,
            Self::UnknownMember => Code::UnknownMember,
            Self::MemberIdRequired { .. } | Self::RebalanceInProgress => Code::GroupRebalancing,
            Self::IllegalGeneration { .. } | Self::FencedMemberEpoch { .. } => Code::MemberFenced,
            Self::FencedInstance => Code::InstanceFenced,
            Self::UnreleasedInstance => Code::InstanceInUse,
            Self::GroupFull { .. } => Code::GroupFull,
            Self::NonEmptyGroup => Code::GroupNotEmpty,
            Self::StaleMemberEpoch { .. } => Code::StaleMemberEpoch,
            Self::UnsupportedAssignor { .. } => Code::UnknownAssignor,
            Self::InvalidRegularExpression { .. } => Code::InvalidTopicRegex,
            Self::SubscribedToTopic { .. } => Code::GroupReadsTopic,
            Self::UnknownPartition { .. } => Code::UnknownPartition,
            Self::MetadataTooLarge { .. } => Code::OffsetMetadataTooLarge,
        }
    }
}
