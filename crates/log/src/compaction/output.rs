//! The segment that compaction writes.

use std::{io, ops::Range, path::PathBuf, sync::Arc};

use sapwood_model::{LeaderEpoch, Offset};
use sapwood_record::{Batch, HEADER_BYTES};

use crate::{index::SegmentIndex, io::File};

/// Written at a time.
const BUFFER_BYTES: usize = 1 << 20;
/// Write-out is started for whole steps of this, so that the sync at the end finds little to do.
const WRITE_OUT_BYTES: u64 = 8 << 20;
/// No batch covers more offsets.
const OFFSETS_MAX: u64 = 1 << 31;

/// Offsets of which no record is left, behind the last batch.
#[derive(Debug)]
struct Gap {
    offsets: Range<Offset>,
    epoch: LeaderEpoch,
}

/// A file that batches are written to, one behind the other. Not synced.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn File>,
    pub(crate) index: SegmentIndex,
    buffer: Vec<u8>,
    /// Bytes of the file; what is in the buffer comes behind them.
    written: u64,
    written_out: u64,
    gap: Option<Gap>,
}

impl Output {
    pub(crate) fn new(path: PathBuf, file: Arc<dyn File>, index: SegmentIndex) -> Self {
        Self {
            path,
            file,
            index,
            buffer: Vec::with_capacity(BUFFER_BYTES + (64 << 10)),
            written: 0,
            written_out: 0,
            gap: None,
        }
    }

    /// The bytes of all batches so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Whether the buffer is due to be written.
    pub(crate) fn is_full(&self) -> bool {
        self.buffer.len() >= BUFFER_BYTES
    }

    /// How many bytes the next [`Output::flush`] writes.
    pub(crate) fn unwritten(&self) -> u64 {
        self.buffer.len() as u64
    }

    /// The next batch.
    pub(crate) fn push(&mut self, batch: &Batch) {
        self.close_gap();
        self.index.push(batch.header(), self.bytes());
        self.buffer.extend_from_slice(batch.header().as_bytes());
        self.buffer.extend_from_slice(batch.record_bytes());
    }

    /// No record of these offsets is left. A batch without records is to cover them, one for as many as
    /// follow each other in one leader epoch.
    pub(crate) fn leave_out(&mut self, offsets: Range<Offset>, epoch: LeaderEpoch) {
        if let Some(gap) = &mut self.gap
            && gap.epoch == epoch
            && offsets.end.0 - gap.offsets.start.0 <= OFFSETS_MAX
        {
            gap.offsets.end = offsets.end;
            return;
        }
        self.close_gap();
        self.gap = Some(Gap { offsets, epoch });
    }

    /// Covers what was left out so far.
    pub(crate) fn close_gap(&mut self) {
        if let Some(Gap { offsets, epoch }) = self.gap.take() {
            let batch = Batch::without_records(offsets, epoch);
            debug_assert_eq!(batch.size_bytes(), HEADER_BYTES);
            self.index.push(batch.header(), self.bytes());
            self.buffer.extend_from_slice(batch.header().as_bytes());
        }
    }

    /// Writes what was pushed.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.file.write_at(&[&self.buffer], self.written)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        let whole = self.written / WRITE_OUT_BYTES * WRITE_OUT_BYTES;
        if whole > self.written_out {
            self.file.start_write_out(self.written_out..whole)?;
            self.written_out = whole;
        }
        Ok(())
    }
}
