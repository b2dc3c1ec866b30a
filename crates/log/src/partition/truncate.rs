//! Taking back the end of the log.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
};

use sapwood_model::Offset;

use super::{KeptProducers, Partition, ReadMode, TruncateError, View, Writer};
use crate::{
    index::{IndexCounts, SegmentIndex},
    io::OpenMode,
    names,
    producers::ProducerTable,
    segment::{ActiveSegment, Expected, OpenSegment, Segment, Source, WalkError, Walker},
};

/// What walking a segment from a file reads at a time.
const WINDOW_BYTES: u64 = 256 << 10;

/// What is left of a segment that is cut.
struct FoundCut {
    position: u64,
    index: SegmentIndex,
    /// The producers' state at the cut.
    producers: ProducerTable,
}

impl Partition {
    /// Cuts the log: records from `offset` on are gone, with what they did to the producers' state, the
    /// epochs and the indexes; the next append gets `offset`. An offset at the log's end or above
    /// changes nothing. Appends wait meanwhile. What was cut is not there after a crash of the process;
    /// whether it is after a power cut is for recovery to settle, as for everything above the
    /// watermark.
    ///
    /// Batches at [0, 10, 20], watermark 10: truncate_to(20) removes the batch at 20, truncate_to(15)
    /// is refused (inside of a batch), and so is truncate_to(0).
    ///
    /// # Errors
    /// [`TruncateError::BelowHighWatermark`], and [`TruncateError::Recorded`] for offsets that the
    /// journal or a checkpoint has taken. Any error of the disk takes the partition offline.
    pub fn truncate_to(&self, offset: Offset) -> Result<(), TruncateError> {
        let outcome = self.truncate_locked(offset);
        self.tell_failure();
        outcome
    }

    fn truncate_locked(&self, offset: Offset) -> Result<(), TruncateError> {
        let _upkeep = self.upkeep.lock();
        let cursor = self.cursor.lock();
        let mut writer = self.writer.lock();
        if self.closed.load(Ordering::Acquire) {
            return Err(TruncateError::Closed);
        }
        if let Some(reason) = self.offline.get() {
            return Err(TruncateError::Offline {
                reason: Arc::clone(reason),
            });
        }
        let bounds = self.bounds();
        if offset < bounds.high_watermark {
            let high_watermark = bounds.high_watermark;
            return Err(TruncateError::BelowHighWatermark {
                requested: offset,
                high_watermark,
            });
        }
        if offset >= bounds.log_end {
            return Ok(());
        }
        let taken = cursor.as_ref().map_or(Offset::ZERO, |cursor| cursor.offset);
        let recorded = taken.max(writer.checkpointed.captured);
        if offset < recorded {
            return Err(TruncateError::Recorded {
                requested: offset,
                recorded,
            });
        }
        self.cut_off(&mut writer, offset)
    }

    fn cut_off(&self, writer: &mut Writer, offset: Offset) -> Result<(), TruncateError> {
        let offline = |error, segment: &OpenSegment| TruncateError::Offline {
            reason: self.walk_failed(segment, Offset(self.log_end.load(Ordering::Acquire)), error),
        };
        // Everything above the watermark is open: the waiting segments, then the active one.
        let mut open: Vec<Arc<OpenSegment>> = writer
            .waiting
            .iter()
            .map(|waiting| Arc::clone(&waiting.segment))
            .collect();
        open.push(Arc::clone(writer.active.shared()));
        let kept = open.partition_point(|segment| segment.base_offset <= offset);
        let cut_at = kept
            .checked_sub(1)
            .expect("the first open segment begins at or below the watermark");
        let segment = Arc::clone(&open[cut_at]);

        // Decide first: nothing has changed when this fails.
        let before = match cut_at.checked_sub(1) {
            Some(before) => writer.waiting[before].end_producers(),
            None => writer.kept_producers.clone(),
        };
        let found = match self.find_cut(&segment, &before, offset) {
            Ok(Ok(found)) => found,
            Ok(Err(batch_start)) => {
                return Err(TruncateError::InsideBatch {
                    requested: offset,
                    batch_start,
                });
            }
            Err(error) => return Err(offline(error, &segment)),
        };
        let FoundCut {
            position,
            index,
            producers,
        } = found;

        // The later segments first: a crash in between leaves a log that ends higher, not a gap.
        for later in open[kept..].iter().rev() {
            self.unlink(later)?;
        }
        // A new mapping: the old one's readers keep what they have, below the watermark.
        let shared = OpenSegment::new(index, segment.base_offset, position);
        let mut active =
            ActiveSegment::found(Arc::clone(&shared), position, writer.active.opened_at);
        if position == 0 {
            self.unlink(&segment)?;
        } else {
            // The same file stays open: it has writes that no checkpoint has synced.
            let file = &segment
                .tail()
                .expect("what is cut was appended to a file")
                .file;
            let layout = self.layout(&self.config.load());
            let cut = file
                .set_len(position)
                .and_then(|()| active.adopt(&layout, Arc::clone(file)));
            cut.map_err(|error| {
                let path = self.segment_path(segment.base_offset);
                TruncateError::Offline {
                    reason: self.fail("cut", &path, error),
                }
            })?;
        }

        let mut segments = self.view.load().segments.clone();
        segments.retain(|s| s.base_offset() < shared.base_offset);
        segments.push(Segment::Open(shared));
        let bytes_before: u64 = open[cut_at..].iter().map(|segment| segment.bytes()).sum();
        writer.active = active;
        writer.waiting.truncate(cut_at);
        writer.producers = producers;
        writer.epochs.truncate(offset);
        writer.epochs.push(self.leader_epoch, offset);
        writer.checkpointed.index = IndexCounts::default();
        writer.checkpointed.unflushed_bytes = writer
            .checkpointed
            .unflushed_bytes
            .saturating_sub(bytes_before - position);
        self.view.store(Arc::new(View { segments }));
        self.log_end.store(offset.0, Ordering::Release);
        self.open_files
            .forget(&self.file_key_of(segment.base_offset, 0));
        tracing::info!(
            topic = %self.spec.topic,
            partition = %self.spec.partition,
            log_end_offset = %offset,
            "truncated the log"
        );
        Ok(())
    }

    /// Walks the segment up to the batch that starts with `offset`. The inner error is the base offset
    /// of a batch that `offset` is inside of.
    fn find_cut(
        &self,
        segment: &OpenSegment,
        before: &KeptProducers,
        offset: Offset,
    ) -> Result<Result<FoundCut, Offset>, WalkError> {
        let interval_bytes = self.config.load().index_interval_bytes;
        let mut index = SegmentIndex::new(self.key(segment.base_offset), interval_bytes);
        let mut producers = ProducerTable::decode(&before.encoded).expect("it was encoded here");
        let now = self.environment.clock.now();
        let source = self.source_of(segment)?;
        if let Some(tail) = segment.tail()
            && let Some(wrong) = segment.noted().first_wrong(&*tail.file)?
        {
            // What is summed up anew below is believed from then on.
            return Err(WalkError::Damage {
                position: wrong.range.start,
                expected: segment.base_offset,
                problem: wrong.describe(),
            });
        }
        let expected = Expected::Base(segment.base_offset);
        let mut walker = Walker::new(&source, 0, expected, WINDOW_BYTES, ReadMode::Blocking);
        let mut next = segment.base_offset;
        while next < offset {
            let header = walker.peek()?;
            if header.next_offset() > offset {
                return Ok(Err(header.base_offset()));
            }
            index.push(&header, walker.position());
            if header.base_offset() >= before.end {
                producers.apply(&header, now);
            }
            walker.skip(&header);
            next = header.next_offset();
        }
        Ok(Ok(FoundCut {
            position: walker.position(),
            index,
            producers,
        }))
    }

    fn source_of(&self, segment: &OpenSegment) -> Result<Source, WalkError> {
        if let Some(tail) = segment.tail() {
            return Ok(self.tail_source(tail));
        }
        let path = self.segment_path(segment.base_offset);
        let file = self.environment.disk.open(&path, OpenMode::Read)?;
        Ok(Source::File {
            file,
            mapped: None,
            end: segment.bytes(),
            end_offset: None,
            noted: Arc::clone(segment.noted()),
            passage: None,
        })
    }

    fn unlink(&self, segment: &OpenSegment) -> Result<(), TruncateError> {
        let path = self.segment_path(segment.base_offset);
        match self.environment.disk.remove_file(&path) {
            // A segment that was cut to nothing has no file until the next append.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let reason = self.fail("remove", &path, error);
                return Err(TruncateError::Offline { reason });
            }
            _ => {}
        }
        self.names_have_changed();
        self.remove(&names::index_file_name(segment.base_offset));
        self.remove(&names::time_index_file_name(segment.base_offset));
        self.remove(&names::sums_file_name(segment.base_offset));
        Ok(())
    }
}
