//! What a checkpoint takes from a partition.

use std::{
    fmt, io,
    sync::{Arc, atomic::Ordering},
};

use sapwood_model::{LeaderEpoch, Offset};

use super::Partition;
use crate::{
    epochs::EpochList,
    index::{EncodedIndex, IndexCounts},
    io::File,
};

/// A partition as it was at one moment, for a checkpoint: captured, then its indexes written, its
/// files synced, the checkpoint written, and the partition told by [`Partition::cut_synced`].
pub(crate) struct Cut {
    /// The log's end.
    pub(crate) end: Offset,
    /// The base offset of the active segment.
    pub(crate) segment: Offset,
    /// Where its last batch ends.
    pub(crate) position: u64,
    pub(crate) leader_epoch: LeaderEpoch,
    /// `ProducerTable::encode`.
    pub(crate) producers: Vec<u8>,
    pub(crate) epochs: EpochList,
    /// Entries of the active segment's `.index` file that belong to the cut.
    pub(crate) index_entries: u64,
    /// The same for its `.timeindex` file.
    pub(crate) time_index_entries: u64,
    /// Blocks in its `.sums` file.
    sums: u64,
    /// The entries that are not in the files yet.
    index: Option<EncodedIndex>,
    unflushed_bytes: u64,
    files: Vec<Arc<dyn File>>,
    partition: Arc<Partition>,
}

impl Cut {
    /// Seals the rolled segments below the cut, and writes the index entries of the active one. Blocks.
    /// Where the segment was rolled and sealed since, there is nothing to do.
    ///
    /// # Errors
    /// What the disk reports; a full disk among it, when the ballast did not help. A segment that could
    /// not be synced has taken the partition offline.
    pub(crate) fn write_indexes(&mut self) -> io::Result<()> {
        let partition = Arc::clone(&self.partition);
        let outcome = self.write_indexes_of(&partition);
        partition.tell_failure();
        outcome
    }

    fn write_indexes_of(&mut self, partition: &Partition) -> io::Result<()> {
        let upkeep = partition.upkeep.lock();
        partition.seal_for_cut(&upkeep, self.segment)?;
        if let Some(index) = &self.index
            && partition.is_unsealed(self.segment)
        {
            let disk = &*partition.environment.disk;
            let mut files = None;
            partition.durability.with_ballast(&mut || {
                files = Some(index.write(disk, &partition.folder, self.segment)?);
                Ok(())
            })?;
            partition.names_have_changed();
            self.files.extend(files.into_iter().flatten());
        }
        // Only now: where this failed for want of space, the caller may try once more.
        self.index = None;
        Ok(())
    }

    /// The files to sync before the checkpoint that holds this cut is written. They stay open until
    /// then: closing one would lose the failure of a write.
    pub(crate) fn files(&self) -> &[Arc<dyn File>] {
        &self.files
    }

    /// They are synced.
    pub(crate) fn close_files(&mut self) {
        self.files = Vec::new();
    }
}

impl fmt::Debug for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cut")
            .field("end", &self.end)
            .field("segment", &self.segment)
            .field("position", &self.position)
            .field("leader_epoch", &self.leader_epoch)
            .field("index_entries", &self.index_entries)
            .field("time_index_entries", &self.time_index_entries)
            .finish_non_exhaustive()
    }
}

impl Partition {
    /// Captures the partition for a checkpoint. Takes the writer's lock for as long as it takes to copy
    /// the producers and the new index entries.
    pub(crate) fn cut(&self) -> Cut {
        self.capture(false)
    }

    /// As [`Partition::cut`]; the active file is to be synced even if nothing was appended to it.
    pub(super) fn cut_with_file(&self) -> Cut {
        self.capture(true)
    }

    /// Everything up to the cut is synced and its checkpoint is durable.
    pub(crate) fn cut_synced(&self, cut: &Cut) {
        let mut writer = self.writer.lock();
        let same_segment = writer.active.base_offset() == cut.segment;
        let checkpointed = &mut writer.checkpointed;
        if cut.end < checkpointed.end {
            return;
        }
        checkpointed.end = cut.end;
        checkpointed.segment = cut.segment;
        checkpointed.unflushed_bytes = checkpointed
            .unflushed_bytes
            .saturating_sub(cut.unflushed_bytes);
        if same_segment {
            checkpointed.index = IndexCounts {
                offsets: cut.index_entries,
                times: cut.time_index_entries,
                sums: cut.sums,
            };
        }
    }

    /// Whether something was appended, or the active segment was rolled, since the last cut that was synced.
    pub(crate) fn is_dirty(&self) -> bool {
        let writer = self.writer.lock();
        let checkpointed = &writer.checkpointed;
        checkpointed.end.0 < self.log_end.load(Ordering::Acquire)
            || checkpointed.segment < writer.active.base_offset()
    }

    fn capture(&self, with_file: bool) -> Cut {
        let partition = self
            .me
            .upgrade()
            .expect("whoever calls holds the partition");
        let mut writer = self.writer.lock();
        let end = Offset(self.log_end.load(Ordering::Acquire));
        let written = writer.checkpointed.index;
        let (counts, index) = {
            let mut index = writer.active.shared().index.write();
            // So that whoever reads the entries back knows the largest timestamp and all sums before
            // the cut.
            index.complete();
            let counts = index.counts();
            (
                counts,
                (counts != written).then(|| index.encode_from(written)),
            )
        };
        let unflushed_bytes = writer.checkpointed.unflushed_bytes;
        writer.checkpointed.captured = writer.checkpointed.captured.max(end);
        let file = writer
            .active
            .file()
            .filter(|_| with_file || unflushed_bytes > 0);
        Cut {
            end,
            segment: writer.active.base_offset(),
            position: writer.active.position(),
            leader_epoch: self.leader_epoch,
            producers: writer.producers.encode(),
            epochs: writer.epochs.clone(),
            index_entries: counts.offsets,
            time_index_entries: counts.times,
            sums: counts.sums,
            index,
            unflushed_bytes,
            files: file.cloned().into_iter().collect(),
            partition,
        }
    }

    /// Whether the segment is open and its index files are not final. The caller holds `upkeep`.
    fn is_unsealed(&self, base: Offset) -> bool {
        let writer = self.writer.lock();
        writer.active.base_offset() == base
            || writer
                .waiting
                .iter()
                .any(|w| w.segment.base_offset == base && !w.sealed)
    }
}
