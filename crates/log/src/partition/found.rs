//! A partition as recovery or its creation found it.

use std::{path::PathBuf, sync::Arc};

use sapwood_model::{LeaderEpoch, Offset, Timestamp};

use super::PartitionSpec;
use crate::{
    checkpoint::PartitionKey,
    epochs::EpochList,
    index::SegmentIndex,
    producers::ProducerTable,
    segment::{ActiveSegment, OpenSegment, SealedSegment, Segment, SegmentKey, View},
};

/// What recovery, or the creation of a partition, found.
#[derive(Debug)]
pub(crate) struct PartitionParts {
    pub(crate) spec: PartitionSpec,
    pub(crate) folder: PathBuf,
    /// Ascending and contiguous; at least one. The last one is the active one. All are synced.
    pub(crate) segments: Vec<SegmentParts>,
    pub(crate) log_end: Offset,
    /// The epoch of what is appended from now on.
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

/// The segments in memory. Panics when they contradict each other.
pub(super) fn assemble_segments(
    (topic_id, partition): PartitionKey,
    segments: Vec<SegmentParts>,
    log_end: Offset,
    interval_bytes: u64,
    now: Timestamp,
) -> (ActiveSegment, View) {
    let ends: Vec<Offset> = segments.iter().skip(1).map(|s| s.base_offset).collect();
    let mut view = Vec::with_capacity(segments.len());
    let mut active = None;
    for (at, found) in segments.into_iter().enumerate() {
        let end_offset = ends.get(at).copied();
        assert!(
            found.base_offset <= end_offset.unwrap_or(log_end),
            "segments ascend"
        );
        if let Some(end_offset) = end_offset {
            let sealed = SealedSegment::found(found.base_offset..end_offset, found.bytes);
            view.push(Segment::Sealed(Arc::new(sealed)));
        } else {
            let owner = SegmentKey {
                topic_id,
                partition,
                base_offset: found.base_offset,
            };
            let index = found
                .index
                .unwrap_or_else(|| SegmentIndex::new(owner, interval_bytes));
            let shared = OpenSegment::new(index, found.base_offset, found.bytes);
            view.push(Segment::Open(Arc::clone(&shared)));
            active = Some(ActiveSegment::found(shared, found.bytes, now));
        }
    }
    (
        active.expect("a log has at least one segment"),
        View { segments: view },
    )
}
