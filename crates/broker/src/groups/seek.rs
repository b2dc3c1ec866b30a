//! Sending a group to other places: where each partition would go, and going there.

use std::collections::{BTreeMap, BTreeSet};

use sapwood_group::{Commit, CommitOffset, Committer, FetchedOffset, GroupError, GroupId, Groups};
use sapwood_log::Bounds;
use sapwood_model::{Code, Offset, PartitionId, Timestamp, TopicName, TopicPartition};
use tracing::{debug, info};

use super::{GroupCoordinator, GroupRequestError, overview::committed_offsets};
use crate::{
    broker::Core,
    reads::LookupReadError,
    registry::{LookupError, Registry, TopicRef},
};

/// Where some partitions of a group are to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeekTarget {
    /// Which partitions.
    pub partitions: SeekPartitions,
    /// Where to.
    pub to: SeekPosition,
}

/// Which partitions of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeekPartitions {
    /// All that the group has committed offsets for.
    Committed,
    /// Every partition of a topic, whether or not the group has read any of it.
    Topic(TopicName),
    /// One partition.
    One(TopicPartition),
}

/// A place for a group to go to.
///
/// Places that are said relative to something, and times, end at the ends of the log, as Kafka's do.
/// An offset that is not in the log is refused, since whoever names one means that record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeekPosition {
    /// The log start: the first record that is there.
    Start,
    /// The high watermark: records that come later.
    End,
    /// This offset, which has to be from the log start to the high watermark (inclusive).
    Offset(Offset),
    /// The first record of this time or later; the end when there is none.
    Time(Timestamp),
    /// So many records before the end, but not before the log start.
    Last(u64),
    /// So many records on from what is committed, back if negative, but not beyond the ends. Refused
    /// where nothing is committed.
    By(i64),
}

/// Where a partition goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeekResult {
    /// The partition.
    pub partition: TopicPartition,
    /// What the group had committed; none if nothing.
    pub from: Option<Offset>,
    /// The next offset that it reads.
    pub to: Offset,
    /// The partition's ends when that was worked out.
    pub bounds: Bounds,
}

/// Why a group was not sent elsewhere. It is where it was, in all partitions.
#[derive(Debug, thiserror::Error)]
pub enum SeekError {
    /// The group refuses, [`GroupError::NonEmptyGroup`] when it has members, or its coordinator cannot
    /// say.
    #[error(transparent)]
    Group(#[from] GroupRequestError),
    /// A topic or partition is not there.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// A partition could not be searched for a time.
    #[error("{partition}: {source}")]
    Read {
        /// The partition.
        partition: TopicPartition,
        /// Why not.
        source: LookupReadError,
    },
    /// An offset is not in the log.
    #[error(
        "offset {requested} is not in {partition}, which holds {} to {} (exclusive)",
        bounds.log_start, bounds.high_watermark
    )]
    OutOfRange {
        /// The partition.
        partition: TopicPartition,
        /// What was asked for.
        requested: Offset,
        /// The partition's ends.
        bounds: Bounds,
    },
    /// There is nothing to count from.
    #[error("the group has committed nothing for {partition} that it could be moved from")]
    NothingCommitted {
        /// The partition.
        partition: TopicPartition,
    },
    /// A partition is given two places.
    #[error("{partition} is given two places to go to")]
    Twice {
        /// The partition.
        partition: TopicPartition,
    },
}

impl SeekError {
    /// The stable code, for all but the refusals of a group.
    pub fn code(&self) -> Code {
        match self {
            Self::Group(e) => e.code(),
            Self::Lookup(e) => e.code(),
            Self::Read { source, .. } => source.code(),
            Self::OutOfRange { .. } => Code::OffsetOutOfRange,
            Self::NothingCommitted { .. } | Self::Twice { .. } => Code::InvalidArgument,
        }
    }

    fn group(error: GroupError) -> Self {
        Self::Group(error.into())
    }
}

impl GroupCoordinator {
    /// Works out where each partition goes and, unless it is a dry run, has the group go there: by
    /// committing these offsets, in one step, durable when it is answered. Partitions come back in
    /// order.
    ///
    /// A group that is not there has committed nothing; sending it somewhere makes it.
    /// Searches for a time wait for the disk, on the blocking pool. Nothing keeps members from joining
    /// in between: then the commit is refused, and nothing is changed.
    ///
    /// # Errors
    /// See [`SeekError`]. [`GroupError::NonEmptyGroup`] while the group has members, in a dry run
    /// too; [`GroupError::GroupNotFound`] when its committed partitions are asked for and there is no
    /// such group.
    pub async fn seek(
        &self,
        group: &GroupId,
        targets: Vec<SeekTarget>,
        dry_run: bool,
    ) -> Result<Vec<SeekResult>, SeekError> {
        let id = group.clone();
        let topics = self.broker.core.registry.clone();
        let look = move |groups: &Groups| Seen::of(groups, &topics, &id);
        let seen = self.look(group, look).await;
        let seen = seen.map_err(GroupRequestError::from)?;
        let seen = seen.map_err(SeekError::group)?;
        let core = &self.broker.core;
        let mut results = Vec::new();
        for (partition, to) in places(core, &seen, targets)? {
            let from = seen.committed.get(&partition).copied();
            results.push(self.place(partition, from, to).await?);
        }
        if !dry_run && !results.is_empty() {
            self.go(group, &results).await?;
        }
        Ok(results)
    }

    /// Where one partition goes.
    async fn place(
        &self,
        partition: TopicPartition,
        from: Option<Offset>,
        to: SeekPosition,
    ) -> Result<SeekResult, SeekError> {
        let topic = &partition.topic;
        let bounds = self.broker.bounds(topic, partition.partition)?;
        let within =
            |offset: u64| Offset(offset.clamp(bounds.log_start.0, bounds.high_watermark.0));
        let to = match to {
            SeekPosition::Start => bounds.log_start,
            SeekPosition::End => bounds.high_watermark,
            SeekPosition::Offset(requested) if within(requested.0) == requested => requested,
            SeekPosition::Offset(requested) => {
                return Err(SeekError::OutOfRange {
                    partition,
                    requested,
                    bounds,
                });
            }
            SeekPosition::Last(records) => within(bounds.high_watermark.0.saturating_sub(records)),
            SeekPosition::By(records) => match from {
                Some(from) => within(from.0.saturating_add_signed(records)),
                None => return Err(SeekError::NothingCommitted { partition }),
            },
            SeekPosition::Time(at) => {
                let found = self.broker.find_timestamp(topic, partition.partition, at);
                let found = match found.await {
                    Ok(found) => found,
                    Err(LookupReadError::Lookup(e)) => return Err(e.into()),
                    Err(source) => return Err(SeekError::Read { partition, source }),
                };
                found.map_or(bounds.high_watermark, |found| found.offset)
            }
        };
        Ok(SeekResult {
            partition,
            from,
            to,
            bounds,
        })
    }

    /// Commits where each partition goes, of one or more.
    async fn go(&self, group: &GroupId, results: &[SeekResult]) -> Result<(), SeekError> {
        let offset = |result: &SeekResult| CommitOffset {
            partition: result.partition.clone(),
            offset: result.to,
            leader_epoch: None,
            metadata: "".into(),
            expire_timestamp: None,
        };
        let commit = Commit {
            group: group.clone(),
            by: Committer::Alone,
            offsets: results.iter().map(offset).collect(),
        };
        let committed = match self.commit(commit).await {
            // Somebody has joined since: only members commit now.
            Err(GroupRequestError::Group(GroupError::UnknownMember)) => {
                return Err(SeekError::group(GroupError::NonEmptyGroup));
            }
            committed => committed?,
        };
        for (result, committed) in results.iter().zip(committed) {
            committed.map_err(SeekError::group)?;
            debug!(
                %group,
                topic = %result.partition.topic,
                partition = %result.partition.partition,
                from = result.from.map(|from| from.0),
                to = result.to.0,
                "reset an offset"
            );
        }
        // One line, however many partitions there are.
        info!(
            event = "offsets.reset",
            %group,
            partitions = results.len(),
            first = %results[0].partition,
            from = results[0].from.map(|from| from.0),
            to = results[0].to.0,
            "sent a group to other offsets"
        );
        Ok(())
    }
}

/// What a group has committed, seen at one moment at which it had no members.
struct Seen {
    exists: bool,
    committed: BTreeMap<TopicPartition, Offset>,
}

impl Seen {
    fn of(groups: &Groups, topics: &Registry, group: &GroupId) -> Result<Self, GroupError> {
        let listed = groups.listed(group);
        if listed.as_ref().is_some_and(|listed| listed.members > 0) {
            return Err(GroupError::NonEmptyGroup);
        }
        let fetched = committed_offsets(groups, topics, group);
        let committed =
            |fetched: FetchedOffset| Some((fetched.partition, fetched.committed?.offset));
        Ok(Self {
            exists: listed.is_some(),
            committed: fetched.into_iter().filter_map(committed).collect(),
        })
    }
}

/// Every partition that is meant, with where it is to go.
fn places(
    core: &Core,
    seen: &Seen,
    targets: Vec<SeekTarget>,
) -> Result<BTreeMap<TopicPartition, SeekPosition>, SeekError> {
    let mut places = BTreeMap::new();
    for SeekTarget { partitions, to } in targets {
        let meant: BTreeSet<TopicPartition> = match partitions {
            SeekPartitions::Committed if !seen.exists => {
                return Err(SeekError::group(GroupError::GroupNotFound));
            }
            SeekPartitions::Committed => seen.committed.keys().cloned().collect(),
            SeekPartitions::Topic(topic) => {
                let found = core.registry.find(TopicRef::from(&topic))?;
                let partitions = 0..found.info().partitions;
                let partition = |number| TopicPartition {
                    topic: topic.clone(),
                    partition: PartitionId(number),
                };
                partitions.map(partition).collect()
            }
            SeekPartitions::One(partition) => [partition].into(),
        };
        for partition in meant {
            if places.insert(partition.clone(), to).is_some() {
                return Err(SeekError::Twice { partition });
            }
        }
    }
    Ok(places)
}
