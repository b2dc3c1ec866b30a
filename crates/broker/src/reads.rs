//! Single look-ups: a partition's ends, a record by offset or by time, leader epochs.

use std::sync::Arc;

use sapwood_log::{
    Bounds, EpochStart, PartitionState, ProducerState, ReadError, ReadLimits, TimestampedOffset,
};
use sapwood_model::{Code, LeaderEpoch, Offset, PartitionId, Timestamp};
use sapwood_record::{BatchError, Record, batches};

use crate::{
    Broker,
    registry::{LookupError, Partition, TopicInfo, TopicRef},
};

/// Why a look-up failed.
#[derive(Debug, thiserror::Error)]
pub enum LookupReadError {
    /// The topic or the partition is not there.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The log could not be read there.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The broker has shut down.
    #[error("the broker is shutting down")]
    Draining,
    /// The offset is within the log, and no record has it (any more).
    #[error("no record has offset {offset}; the next one that may is {next}")]
    NoRecord {
        /// What was asked for.
        offset: Offset,
        /// The first offset behind the batch that covers it.
        next: Offset,
    },
    /// The batch cannot be taken apart.
    #[error("the batch at offset {offset} cannot be read: {source}")]
    Batch {
        /// What was asked for.
        offset: Offset,
        /// What is wrong with the batch.
        source: BatchError,
    },
}

impl LookupReadError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Lookup(e) => e.code(),
            Self::Read(e) => e.code(),
            Self::Draining => Code::Draining,
            Self::NoRecord { .. } => Code::OffsetOutOfRange,
            Self::Batch { source, .. } => source.code(),
        }
    }
}

/// Who may be asked for a partition, as metadata says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionLeader {
    /// Its number.
    pub partition: PartitionId,
    /// The leader epoch that new batches get.
    pub leader_epoch: LeaderEpoch,
    /// Whether it serves.
    pub online: bool,
}

impl PartitionLeader {
    fn of(partition: &Partition) -> Self {
        Self {
            partition: partition.partition,
            leader_epoch: partition.log.leader_epoch(),
            online: matches!(partition.log.state(), PartitionState::Online),
        }
    }
}

impl Broker {
    pub(crate) fn find(
        &self,
        topic: TopicRef<'_>,
        partition: PartitionId,
    ) -> Result<Arc<Partition>, LookupError> {
        self.core.registry.find(topic)?.partition(partition)
    }

    /// A topic and who leads each of its partitions, from partition 0. Takes no lock of a
    /// partition's.
    ///
    /// # Errors
    /// The topic is not there.
    pub fn leaders<'a>(
        &self,
        topic: impl Into<TopicRef<'a>>,
    ) -> Result<(TopicInfo, Vec<PartitionLeader>), LookupError> {
        let topic = self.core.registry.find(topic.into())?;
        let partitions = topic.partitions.load();
        let leaders = partitions
            .iter()
            .map(|partition| PartitionLeader::of(partition))
            .collect();
        Ok((topic.info(), leaders))
    }

    /// Who leads one partition. Takes no lock of the partition's.
    ///
    /// # Errors
    /// The topic or the partition is not there.
    pub fn leader<'a>(
        &self,
        topic: impl Into<TopicRef<'a>>,
        partition: PartitionId,
    ) -> Result<PartitionLeader, LookupError> {
        Ok(PartitionLeader::of(&*self.find(topic.into(), partition)?))
    }

    /// A partition's ends. Does not block.
    ///
    /// # Errors
    /// The topic or the partition is not there.
    pub fn bounds<'a>(
        &self,
        topic: impl Into<TopicRef<'a>>,
        partition: PartitionId,
    ) -> Result<Bounds, LookupError> {
        Ok(self.find(topic.into(), partition)?.log.bounds())
    }

    /// The first record whose timestamp is `at` or later, below the high watermark; `None` when there
    /// is none.
    ///
    /// # Errors
    /// See [`LookupReadError`].
    pub async fn find_timestamp<'a>(
        &self,
        topic: impl Into<TopicRef<'a>>,
        partition: PartitionId,
        at: Timestamp,
    ) -> Result<Option<TimestampedOffset>, LookupReadError> {
        let log = self.find(topic.into(), partition)?.log.clone();
        Ok(self
            .core
            .blocking_read(move || log.find_timestamp(at))
            .await?)
    }

    /// The record with the largest timestamp below the high watermark, the first of them when they
    /// are many; `None` when the log is empty.
    ///
    /// # Errors
    /// See [`LookupReadError`].
    pub async fn find_max_timestamp<'a>(
        &self,
        topic: impl Into<TopicRef<'a>>,
        partition: PartitionId,
    ) -> Result<Option<TimestampedOffset>, LookupReadError> {
        let log = self.find(topic.into(), partition)?.log.clone();
        Ok(self
            .core
            .blocking_read(move || log.find_max_timestamp())
            .await?)
    }

    /// The record that has this offset.
    ///
    /// # Errors
    /// [`ReadError::OutOfRange`] below the log start and from the high watermark on;
    /// [`LookupReadError::NoRecord`] where compaction removed it or a control record stands.
    pub async fn read_record<'a>(
        &self,
        topic: impl Into<TopicRef<'a>>,
        partition: PartitionId,
        offset: Offset,
    ) -> Result<Record, LookupReadError> {
        let topic = topic.into();
        let partition = self.find(topic, partition)?;
        let bounds = partition.log.bounds();
        if offset < bounds.log_start || offset >= bounds.high_watermark {
            let available = bounds.log_start..bounds.high_watermark;
            return Err(ReadError::OutOfRange {
                requested: offset,
                available,
            }
            .into());
        }
        // One batch, whatever its size.
        let limits = ReadLimits {
            bytes_max: 1,
            upto: bounds.high_watermark,
        };
        let read = self.core.read(&partition.log, offset, limits).await;
        let (bytes, next) = read.map_err(|e| read_error(e, topic, &partition))?;
        let damaged = |source| LookupReadError::Batch { offset, source };
        for batch in batches(bytes) {
            let batch = batch.map_err(damaged)?;
            if batch.header().is_control() {
                continue;
            }
            let cap = self.core.options.decompressed_bytes_max;
            for record in batch.records(cap).map_err(damaged)? {
                let record = record.map_err(damaged)?;
                if record.offset == offset {
                    return Ok(record);
                }
            }
        }
        Err(LookupReadError::NoRecord { offset, next })
    }

    /// The partition's leader epochs with the offsets at which they begin, ascending.
    ///
    /// # Errors
    /// The topic or the partition is not there.
    pub fn leader_epochs<'a>(
        &self,
        topic: impl Into<TopicRef<'a>>,
        partition: PartitionId,
    ) -> Result<Vec<EpochStart>, LookupError> {
        Ok(self.find(topic.into(), partition)?.log.epochs())
    }

    /// The idempotent producers that a partition remembers, by id. Takes the partition's lock for as
    /// long as it takes to copy them, at most 16,384.
    ///
    /// # Errors
    /// The topic or the partition is not there.
    pub fn producers<'a>(
        &self,
        topic: impl Into<TopicRef<'a>>,
        partition: PartitionId,
    ) -> Result<Vec<ProducerState>, LookupError> {
        Ok(self.find(topic.into(), partition)?.log.producers())
    }

    /// Where a leader epoch ended: the largest epoch that is not above `epoch`, and the offset at
    /// which the next one begins (the log end for the current one). `None` for an epoch below all.
    ///
    /// # Errors
    /// The topic or the partition is not there.
    pub fn leader_epoch_end<'a>(
        &self,
        topic: impl Into<TopicRef<'a>>,
        partition: PartitionId,
        epoch: LeaderEpoch,
    ) -> Result<Option<(LeaderEpoch, Offset)>, LookupError> {
        Ok(self.find(topic.into(), partition)?.log.epoch_end(epoch))
    }
}

/// A closed log means that the topic was deleted in the meantime, or that the broker is closed.
fn read_error(error: ReadError, topic: TopicRef<'_>, partition: &Partition) -> LookupReadError {
    match error {
        ReadError::Closed if partition.waiters.is_deleted() => {
            LookupError::unknown_topic(topic).into()
        }
        ReadError::Closed => LookupReadError::Draining,
        other => other.into(),
    }
}
