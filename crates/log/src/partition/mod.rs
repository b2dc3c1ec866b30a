//! One partition: its segments, its producers, its ends.

mod cut;
mod errors;
mod types;

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use sapwood_model::{LeaderEpoch, Offset, Timestamp};
use sapwood_record::Batch;

pub(crate) use cut::Cut;
pub use errors::{AppendError, OfflineReason, PartitionState, ReadError, TrimError, TruncateError};
pub use types::{
    AppendOptions, Appended, Bounds, LogConfig, PartitionObserver, PartitionSpec, PartitionStats,
    Read, ReadLimits, ReadMode, TimestampedOffset,
};

use crate::{
    durability::Durability,
    epochs::{EpochList, EpochStart},
    index::SegmentIndex,
    io::{Environment, TailKind},
    producers::{ProducerState, ProducerTable},
    segment::OpenFiles,
};

/// What recovery, or the creation of a partition, found.
#[derive(Debug)]
pub(crate) struct PartitionParts {
    pub(crate) spec: PartitionSpec,
    pub(crate) folder: PathBuf,
    /// Ascending and contiguous; at least one. The last one is the active one.
    pub(crate) segments: Vec<SegmentParts>,
    pub(crate) log_end: Offset,
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) epochs: EpochList,
    pub(crate) producers: ProducerTable,
}

/// A segment as it was found.
#[derive(Debug)]
pub(crate) struct SegmentParts {
    pub(crate) base_offset: Offset,
    /// The bytes of its batches. Behind them the active segment's file reads as zeros.
    pub(crate) bytes: u64,
    /// Of the active segment; the others' are read from their files when they are needed.
    pub(crate) index: Option<SegmentIndex>,
}

/// A run of whole batches for the journal, of one segment and one leader epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JournalPiece {
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) base_offset: Offset,
    /// Exclusive.
    pub(crate) end_offset: Offset,
    /// The base offset of the segment.
    pub(crate) segment: Offset,
    /// Where the run starts in the segment's file.
    pub(crate) position: u64,
    pub(crate) bytes: Bytes,
    /// What lies before it is not in the journal: the topic was not durable by fsync then.
    pub(crate) starts_run: bool,
}

/// One partition's log.
#[derive(Debug)]
pub struct Partition {}

#[allow(missing_docs)]
impl Partition {
    pub(crate) fn assemble(
        parts: PartitionParts,
        environment: Environment,
        tail: TailKind,
        open_files: Arc<OpenFiles>,
        durability: Arc<dyn Durability>,
    ) -> Arc<Self> {
        let _ = (parts, environment, tail, open_files, durability);
        todo!()
    }
    pub fn append(
        &self,
        batch: &Batch,
        options: AppendOptions,
        now: Timestamp,
    ) -> Result<Appended, AppendError> {
        let _ = (batch, options, now);
        todo!()
    }
    pub fn bounds(&self) -> Bounds {
        todo!()
    }
    pub fn read(
        &self,
        from: Offset,
        limits: ReadLimits,
        mode: ReadMode,
    ) -> Result<Read, ReadError> {
        let _ = (from, limits, mode);
        todo!()
    }
    pub fn find_timestamp(&self, at: Timestamp) -> Result<Option<TimestampedOffset>, ReadError> {
        let _ = at;
        todo!()
    }
    pub fn find_max_timestamp(&self) -> Result<Option<TimestampedOffset>, ReadError> {
        todo!()
    }
    pub fn trim(&self, log_start: Offset) -> Result<(), TrimError> {
        let _ = log_start;
        todo!()
    }
    pub fn truncate_to(&self, offset: Offset) -> Result<(), TruncateError> {
        let _ = offset;
        todo!()
    }
    pub fn advance_durable(&self, offset: Offset) {
        let _ = offset;
        todo!()
    }
    pub fn leader_epoch(&self) -> LeaderEpoch {
        todo!()
    }
    pub fn epochs(&self) -> Vec<EpochStart> {
        todo!()
    }
    pub fn epoch_end(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let _ = epoch;
        todo!()
    }
    pub fn producers(&self) -> Vec<ProducerState> {
        todo!()
    }
    pub fn expire_producers(&self, now: Timestamp) -> usize {
        let _ = now;
        todo!()
    }
    pub fn state(&self) -> PartitionState {
        todo!()
    }
    pub fn stats(&self) -> PartitionStats {
        todo!()
    }
    pub fn set_config(&self, config: LogConfig) {
        let _ = config;
        todo!()
    }
    pub fn spec(&self) -> PartitionSpec {
        todo!()
    }
    pub fn observe(&self, observer: Arc<dyn PartitionObserver>) {
        let _ = observer;
        todo!()
    }

    pub(crate) fn take_unjournaled(self: &Arc<Self>, bytes_max: u64) -> Vec<JournalPiece> {
        let _ = bytes_max;
        todo!()
    }
    pub(crate) fn folder_dirty(&self) -> bool {
        todo!()
    }
    pub(crate) fn folder_synced(&self) {
        todo!()
    }
    pub(crate) fn folder(&self) -> PathBuf {
        todo!()
    }
    pub(crate) fn cut(&self) -> Cut {
        todo!()
    }
    pub(crate) fn cut_synced(&self, cut: &Cut) {
        let _ = cut;
        todo!()
    }
    pub(crate) fn is_dirty(&self) -> bool {
        todo!()
    }
    pub(crate) fn take_offline(&self, reason: OfflineReason) {
        let _ = reason;
        todo!()
    }
    pub(crate) fn maintain(self: &Arc<Self>, now: Timestamp) -> bool {
        let _ = now;
        todo!()
    }
    pub(crate) fn begin_journaling(&self) -> Offset {
        todo!()
    }
    pub(crate) fn end_journaling(&self) {
        todo!()
    }
    pub(crate) fn close(&self) -> Result<Cut, Arc<OfflineReason>> {
        todo!()
    }
    /// The topic is deleted: no appends, no reads, no background work from now on. Waits for background work in progress.
    pub(crate) fn abandon(&self) {
        todo!()
    }
}
