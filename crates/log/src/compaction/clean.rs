//! What compaction does with one batch.

use std::collections::HashMap;

use sapwood_model::{Offset, ProducerId, Timestamp};
use sapwood_record::{Batch, Compacted, KeyedRecord};

use super::{key_map::KeyMap, output::Output};

/// What decides about records, the same for all of a pass.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) latest: KeyMap,
    /// Records from here on are not in the map: they stay.
    pub(super) upto: Offset,
    /// Records below are deleted already.
    pub(super) log_start: Offset,
    pub(super) now: Timestamp,
    /// Tombstones that stay may go from then on.
    pub(super) horizon: Timestamp,
    /// Where the last batch of each producer ends (inclusive): it stays, so that the producer is known.
    pub(super) producers: HashMap<ProducerId, Offset>,
    pub(super) decompressed_bytes_max: usize,
}

/// What has become of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is as it was.
    Same,
    /// It is written with other bytes, or not at all. So many records are gone.
    Changed { removed: u64 },
    /// Its records cannot be read: it is as it was.
    Unreadable,
}

impl Rules {
    /// Whether a batch is none of compaction's business: a transaction's, whose fate nobody knows here.
    pub(super) fn is_left_alone(batch: &Batch) -> bool {
        batch.header().is_control() || batch.header().is_transactional()
    }

    /// Writes what stays of a batch.
    pub(super) fn clean(&self, batch: &Batch, to: &mut Output) -> Outcome {
        let header = batch.header();
        if Self::is_left_alone(batch) {
            to.push(batch);
            return Outcome::Same;
        }
        let count = u64::from(header.records_count());
        if header.next_offset() <= self.log_start {
            to.leave_out(
                header.base_offset()..header.next_offset(),
                header.leader_epoch(),
            );
            return Outcome::Changed { removed: count };
        }
        let may_go = header.has_delete_horizon() && header.base_timestamp() <= self.now;
        let horizon = (header.last_offset() < self.upto).then_some(self.horizon);
        let mut removed = 0;
        let keep = |record: KeyedRecord<'_>| {
            let stays = self.keeps(record, may_go);
            removed += u64::from(!stays);
            stays
        };
        match batch.compact(self.decompressed_bytes_max, horizon, keep) {
            Ok(Compacted::Unchanged) => {
                to.push(batch);
                Outcome::Same
            }
            Ok(Compacted::Changed(some)) => {
                to.push(&some);
                Outcome::Changed { removed }
            }
            Ok(Compacted::Empty) => self.empty(batch, removed, to),
            Err(_) => {
                to.push(batch);
                Outcome::Unreadable
            }
        }
    }

    fn keeps(&self, record: KeyedRecord<'_>, tombstones_may_go: bool) -> bool {
        if record.offset < self.log_start {
            return false;
        }
        if record.offset >= self.upto {
            return true;
        }
        // Without a key nothing follows it, and nobody would find it: Kafka drops it too.
        let Some(key) = record.key else { return false };
        let is_latest = (self.latest.get(key)).is_none_or(|latest| latest <= record.offset);
        is_latest && !(record.is_tombstone && tombstones_may_go)
    }

    fn empty(&self, batch: &Batch, removed: u64, to: &mut Output) -> Outcome {
        let header = batch.header();
        let last_of = header
            .producer()
            .and_then(|one| self.producers.get(&one.id));
        if last_of != Some(&header.last_offset()) {
            let is_empty = header.records_count() == 0 && header.producer().is_none();
            to.leave_out(
                header.base_offset()..header.next_offset(),
                header.leader_epoch(),
            );
            return match is_empty {
                true => Outcome::Same,
                false => Outcome::Changed { removed },
            };
        }
        if header.records_count() == 0 {
            to.push(batch);
            return Outcome::Same;
        }
        to.push(&batch.emptied());
        Outcome::Changed { removed }
    }
}
