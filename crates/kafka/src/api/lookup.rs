//! Finding the partition that a request names, and holding the epoch that it knows against ours.

use std::fmt;

use sapwood_broker::{LookupError, PartitionLeader, TopicRef};
use sapwood_model::LeaderEpoch;

use crate::{
    context::Context,
    convert::{leader_epoch, partition_id},
    errors::ErrorCode,
};

/// Why a partition is not one to ask.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// There is no such topic or partition.
    Unknown(ErrorCode, String),
    /// The client knows an older epoch or a newer one.
    Epoch {
        asked: LeaderEpoch,
        current: LeaderEpoch,
    },
}

impl Refusal {
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Unknown(code, _) => *code,
            Self::Epoch { asked, current } if asked < current => ErrorCode::FencedLeaderEpoch,
            Self::Epoch { .. } => ErrorCode::UnknownLeaderEpoch,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(_, reason) => f.write_str(reason),
            Self::Epoch { asked, current } => {
                write!(f, "the client knows leader epoch {asked}; it is {current}")
            }
        }
    }
}

/// Finds a partition that a client believes to be led in `epoch` (-1: it does not say).
pub(crate) fn leader(
    context: &Context,
    topic: TopicRef<'_>,
    partition: i32,
    epoch: i32,
) -> Result<PartitionLeader, Refusal> {
    let id = partition_id(partition).ok_or_else(|| {
        let reason = format!("there is no partition {partition}");
        Refusal::Unknown(ErrorCode::UnknownTopicOrPartition, reason)
    })?;
    let found = context.broker().leader(topic, id);
    let leader =
        found.map_err(|error| Refusal::Unknown(unknown(topic, &error), error.to_string()))?;
    match leader_epoch(epoch) {
        Some(asked) if asked != leader.leader_epoch => Err(Refusal::Epoch {
            asked,
            current: leader.leader_epoch,
        }),
        _ => Ok(leader),
    }
}

/// What an unknown topic is, depending on how it was named.
pub(crate) fn unknown(topic: TopicRef<'_>, error: &LookupError) -> ErrorCode {
    match (topic, error) {
        (TopicRef::Id(_), LookupError::UnknownTopic { .. }) => ErrorCode::UnknownTopicId,
        _ => ErrorCode::UnknownTopicOrPartition,
    }
}
