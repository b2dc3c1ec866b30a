//! The time of the first record that a group has not read.

use std::sync::Arc;

use bytes::Bytes;
use sapwood_log::{Partition, Read, ReadError, ReadLimits, ReadMode};
use sapwood_model::{Offset, PartitionId, Timestamp, TopicId};
use sapwood_record::{Batch, batches};
use tokio::time::Instant;

use super::overview::{PartitionOverview, Place};
use crate::broker::Core;

/// How many partitions are looked at in one go, so that a thread that waits for the disk is not held for
/// long.
const PARTITIONS_AT_ONCE: usize = 32;
/// How many batches are read to find a record: a batch may hold only markers, or only records before
/// the one that is looked for.
const BATCHES_MAX: usize = 8;

/// A partition with unread records.
#[derive(Debug, Clone)]
pub(super) struct Unread {
    topic_id: TopicId,
    partition: PartitionId,
    log: Arc<Partition>,
    from: Offset,
    upto: Offset,
}

impl Unread {
    /// None if nothing is unread, or that is not known.
    pub(super) fn of(row: &PartitionOverview, place: Option<&Place>) -> Option<Self> {
        let bounds = row.bounds?;
        let place = place?;
        row.lag.filter(|lag| *lag > 0)?;
        Some(Self {
            topic_id: place.topic_id,
            partition: row.partition,
            log: place.partition.log.clone(),
            from: row.committed.as_ref()?.offset.max(bounds.log_start),
            upto: bounds.high_watermark,
        })
    }

    /// The place of the first record.
    pub(super) fn key(&self) -> (TopicId, PartitionId, Offset) {
        (self.topic_id, self.partition, self.from)
    }

    /// The time of the first record from there on. None if it has none or cannot be read, or none was
    /// found in as many batches as are looked at. Blocks on the disk.
    fn time(&self, decompressed_bytes_max: usize) -> Option<Timestamp> {
        let mut from = self.from;
        for _ in 0..BATCHES_MAX {
            // One batch, whatever its size.
            let limits = ReadLimits {
                bytes_max: 1,
                upto: self.upto,
            };
            // Damage takes the partition offline, and the log says so there.
            let (bytes, next) = self.read(from, limits).ok()?;
            for batch in batches(bytes) {
                if let Some(time) = time_in(&batch.ok()?, from, decompressed_bytes_max) {
                    return Some(time).filter(|time| *time >= Timestamp(0));
                }
            }
            if next <= from || next >= self.upto {
                return None;
            }
            from = next;
        }
        None
    }

    fn read(&self, from: Offset, limits: ReadLimits) -> Result<(Bytes, Offset), ReadError> {
        for mode in [ReadMode::Resident, ReadMode::Blocking] {
            if let Read::Batches { bytes, next } = self.log.read(from, limits, mode)? {
                return Ok((bytes, next));
            }
        }
        unreachable!("a read that may wait is never cold")
    }
}

/// The time of the batch's first record at `from` or above; none if there is no such record. A batch
/// that cannot be taken apart within the limit has its largest time.
fn time_in(batch: &Batch, from: Offset, decompressed_bytes_max: usize) -> Option<Timestamp> {
    let header = batch.header();
    if header.is_control() || header.last_offset() < from {
        return None;
    }
    if header.is_log_append_time() {
        return Some(header.max_timestamp());
    }
    let is_whole = i64::from(header.records_count()) == i64::from(header.last_offset_delta()) + 1;
    if from <= header.base_offset() && is_whole && !header.has_delete_horizon() {
        // That of its first record, without taking the batch apart.
        return Some(header.base_timestamp());
    }
    let Ok(records) = batch.records(decompressed_bytes_max) else {
        return Some(header.max_timestamp());
    };
    for record in records {
        match record {
            Ok(record) if record.offset >= from => return Some(record.timestamp),
            Ok(_) => {}
            Err(_) => return Some(header.max_timestamp()),
        }
    }
    None
}

impl Core {
    /// The time of the first unread record of each partition, in their order; none where it is not
    /// known. If time runs out, the last ones are missing.
    pub(super) async fn first_unread(
        &self,
        mut partitions: Vec<Unread>,
        until: Option<Instant>,
    ) -> Vec<Option<Timestamp>> {
        let cap = self.options.decompressed_bytes_max;
        let mut times = Vec::with_capacity(partitions.len());
        while !partitions.is_empty() && until.is_none_or(|until| Instant::now() < until) {
            let rest = partitions.split_off(partitions.len().min(PARTITIONS_AT_ONCE));
            let now = std::mem::replace(&mut partitions, rest);
            let read = move || {
                let times = now.iter().map(|unread| unread.time(cap));
                times.collect::<Vec<_>>()
            };
            times.extend(self.blocking_read(read).await);
        }
        times
    }
}
