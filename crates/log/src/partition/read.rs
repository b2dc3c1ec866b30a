//! The way out: whole batches by offset, without the writer's lock.

use std::sync::Arc;

use bytes::Bytes;
use sapwood_model::Offset;
use sapwood_record::{Batch, Header};

use super::{
    Bounds, OfflineReason, Partition, Read, ReadError, ReadLimits, ReadMode, is_exhaustion,
};
use crate::{
    index::{IndexEntry, IndexedSegment, SegmentIndex},
    io::{File, OpenMode, TailKind},
    names,
    segment::{
        Expected, FileKey, OpenSegment, Passage, SealedSegment, Segment, SegmentHandle, SegmentKey,
        SharedTail, Source, WalkError, Walker,
    },
    sums::{HeaderSums, Noted},
};

/// No read answers with more than this and one batch, whatever it asks for: the bytes of a sealed
/// segment are copied to memory.
const READ_BYTES_MAX: usize = 64 << 20;

/// Bytes read on top of what was asked for, to cover the way from the indexed batch to the wanted
/// one. Larger gaps cost a second read.
const LEAD_BYTES: u64 = 8 << 10;

/// Behind the end of an open segment its pages are taken as resident for this many bytes, if they were
/// written since the start. What lies further back is read like a sealed segment.
const HOT_BYTES: u64 = 16 << 20;

/// What rebuilding an index reads at a time.
const REBUILD_WINDOW_BYTES: u64 = 256 << 10;

impl Partition {
    /// Whole batches from the one that holds `from`, up to the limits and never past the high
    /// watermark. Never waits for an append, and for the disk only in [`ReadMode::Blocking`].
    ///
    /// # Errors
    /// [`ReadError::OutOfRange`] below the log start or above the log's end. Between the high watermark
    /// and the log's end there is nothing to read yet, which is no error. Damage and failures of the
    /// disk take the partition offline.
    pub fn read(
        &self,
        from: Offset,
        limits: ReadLimits,
        mode: ReadMode,
    ) -> Result<Read, ReadError> {
        let bounds = self.check_readable(from)?;
        let upto = limits.upto.min(bounds.high_watermark);
        if from >= upto {
            return Ok(Read::Batches {
                bytes: Bytes::new(),
                next: from,
            });
        }
        let mut run = Run {
            from,
            upto,
            high_watermark: bounds.high_watermark,
            bytes_max: limits.bytes_max.min(READ_BYTES_MAX),
            skips_empty: true,
        };
        let metrics = self.durability.metrics();
        loop {
            let view = self.view.load_full();
            let Some((segment, next_base)) = view.floor(run.from) else {
                return Err(self.out_of_range(from)); // trimmed just now
            };
            match self.read_run(segment, &run, mode) {
                Ok(Some((bytes, next))) => {
                    match mode {
                        ReadMode::Resident => metrics.reads_resident.add(1),
                        ReadMode::Blocking => metrics.reads_cold.add(1),
                    }
                    return Ok(Read::Batches { bytes, next });
                }
                Ok(None) => match next_base.filter(|next| *next < upto) {
                    Some(next) => run.from = next,
                    // There is nothing else to read: they take the reader to the end.
                    None => (run.from, run.skips_empty) = (from, false),
                },
                Err(WalkError::Cold) => return Ok(Read::Cold),
                Err(_) if self.was_replaced(segment) => {}
                Err(error) => {
                    let end = next_base.unwrap_or(upto);
                    return Err(self.read_failed(segment, end, run.from, error));
                }
            }
        }
    }

    /// Whether the segment was compacted since it was taken from the view. Then its file may be gone, and
    /// what there is instead is in the view of now.
    pub(super) fn was_replaced(&self, segment: &Segment) -> bool {
        let view = self.view.load();
        let now = view.floor(segment.base_offset());
        now.is_some_and(|(now, _)| now.generation() != segment.generation())
    }

    pub(super) fn check_readable(&self, from: Offset) -> Result<Bounds, ReadError> {
        if self.is_abandoned() {
            return Err(ReadError::Closed);
        }
        if let Some(reason) = self.offline.get() {
            return Err(ReadError::Offline {
                reason: Arc::clone(reason),
            });
        }
        let bounds = self.bounds();
        if from < bounds.log_start || from > bounds.log_end {
            return Err(self.out_of_range(from));
        }
        Ok(bounds)
    }

    fn read_run(
        &self,
        segment: &Segment,
        run: &Run,
        mode: ReadMode,
    ) -> Result<Option<(Bytes, Offset)>, WalkError> {
        let window_bytes = LEAD_BYTES + run.bytes_max as u64;
        self.with_start(segment, run.from, mode, |source, position, expected| {
            run.walk(Walker::new(source, position, expected, window_bytes, mode))
        })
    }

    /// Gives `walk` the place to start from for a batch that holds `offset`. A sealed segment's index
    /// that proves wrong is built anew, and `walk` called once more.
    pub(super) fn with_start<T>(
        &self,
        segment: &Segment,
        offset: Offset,
        mode: ReadMode,
        walk: impl Fn(&Source, u64, Expected) -> Result<T, WalkError>,
    ) -> Result<T, WalkError> {
        match segment {
            Segment::Open(open) => {
                let entry = open.index.read().lookup(offset);
                let (position, expected) = start_of(open.base_offset, entry);
                let source = self.open_source(open, position, mode)?;
                match walk(&source, position, expected) {
                    // Entries that were read from a file after a restart may be wrong. The segment
                    // gets a right index file at the latest when it is read after it was sealed.
                    Err(WalkError::WrongIndex) => {
                        let source = self.open_source(open, 0, mode)?;
                        walk(&source, 0, Expected::Base(open.base_offset))
                    }
                    outcome => outcome,
                }
            }
            Segment::Sealed(sealed) => {
                let handle = self.sealed_handle(sealed, mode)?;
                let outcome = walk_sealed(&handle, sealed, offset, &walk);
                match (outcome, mode) {
                    // Building it anew has to wait for the disk.
                    (Err(WalkError::WrongIndex), ReadMode::Resident) => Err(WalkError::Cold),
                    (Err(WalkError::WrongIndex), ReadMode::Blocking) => {
                        let handle = self.rebuild_index(sealed)?;
                        walk_sealed(&handle, sealed, offset, &walk)
                    }
                    (outcome, _) => outcome,
                }
            }
        }
    }

    /// Where to read an open segment from: the mapping near its end, the file further back, where not
    /// everything is in memory, and while nothing was appended to it.
    fn open_source(
        &self,
        segment: &OpenSegment,
        position: u64,
        mode: ReadMode,
    ) -> Result<Source, WalkError> {
        let Some(tail) = segment.tail() else {
            let name = names::segment_file_name(segment.base_offset);
            let key = self.file_key_of(segment.base_offset, 0);
            let handle = self.handle(key, || name, mode, || Ok(None))?;
            return Ok(Source::File {
                file: Arc::clone(&handle.file),
                mapped: None,
                end: segment.bytes(),
                end_offset: None,
                noted: Arc::clone(segment.noted()),
                passage: None,
            });
        };
        let end = tail.reader.end();
        if position < segment.found_bytes() || end - position.min(end) > HOT_BYTES {
            return Ok(Source::File {
                file: Arc::clone(&tail.file),
                mapped: (self.tail == TailKind::Mmap).then(|| Arc::clone(&tail.reader)),
                end,
                end_offset: None,
                noted: Arc::clone(segment.noted()),
                passage: None,
            });
        }
        Ok(self.tail_source(tail))
    }

    /// The open file and the index of a sealed segment.
    pub(super) fn sealed_handle(
        &self,
        segment: &SealedSegment,
        mode: ReadMode,
    ) -> Result<Arc<SegmentHandle>, WalkError> {
        let key = self.file_key_of(segment.base_offset, segment.generation);
        let name = || segment.file_name();
        let handle = self.handle(key, name, mode, || {
            let disk = &*self.environment.disk;
            let index = SegmentIndex::load_sealed(disk, &self.folder, &self.indexed(segment))?;
            Ok(index)
        })?;
        // It was opened while the segment was not sealed yet, or its index is missing or wrong.
        match (&handle.index, mode) {
            (Some(_), _) => Ok(handle),
            (None, ReadMode::Resident) => Err(WalkError::Cold),
            (None, ReadMode::Blocking) => self.rebuild_index(segment),
        }
    }

    fn handle(
        &self,
        key: FileKey,
        name: impl FnOnce() -> String,
        mode: ReadMode,
        load_index: impl FnOnce() -> std::io::Result<Option<SegmentIndex>>,
    ) -> Result<Arc<SegmentHandle>, WalkError> {
        if let Some(handle) = self.open_files.get(&key) {
            return Ok(handle);
        }
        if mode == ReadMode::Resident {
            return Err(WalkError::Cold); // opening a file may wait for the disk
        }
        let _files = self.files.read();
        if !self.has_file(key) {
            return Err(WalkError::Replaced);
        }
        let path = self.folder.join(name());
        let file = self.environment.disk.open(&path, OpenMode::Read)?;
        let handle = SegmentHandle::new(file, load_index()?);
        self.keep_open(key, &handle);
        Ok(handle)
    }

    /// Whether this is the file of a segment of now.
    fn has_file(&self, key: FileKey) -> bool {
        let view = self.view.load();
        let now = view.floor(key.segment.base_offset);
        now.is_some_and(|(segment, _)| self.file_key(segment) == key)
    }

    /// Keeps a file open for the readers to come, unless its segment was removed since it was opened: then
    /// nobody else would close it, and its space would stay taken.
    pub(super) fn keep_open(&self, key: FileKey, handle: &Arc<SegmentHandle>) {
        self.open_files.insert(key, Arc::clone(handle));
        // Whoever removes a segment says so here first, and then closes what is kept open.
        if self.is_abandoned() || !self.has_file(key) {
            self.open_files.forget(&key);
        }
    }

    /// Builds the index of a sealed segment from its batches and writes its files again. They are not
    /// synced: an index is checked whenever it is read.
    pub(super) fn rebuild_index(
        &self,
        segment: &SealedSegment,
    ) -> Result<Arc<SegmentHandle>, WalkError> {
        let key = self.file_key_of(segment.base_offset, segment.generation);
        let _files = self.files.read();
        if !self.has_file(key) {
            return Err(WalkError::Replaced);
        }
        let path = self.folder.join(segment.file_name());
        let file = self.environment.disk.open(&path, OpenMode::Read)?;
        let disk = &*self.environment.disk;
        let owner = self.key(segment.base_offset);
        // What is wrong may be an index: the sums are believed.
        let sums = HeaderSums::load(disk, &self.folder, owner, segment.bytes)?.unwrap_or_default();
        let source = sealed_source(&file, segment, Arc::new(Noted::new(&sums)), Arc::default());
        let interval_bytes = self.config.load().index_interval_bytes;
        let index = build_index(&source, segment, owner, interval_bytes)?;
        tracing::warn!(
            topic = %self.spec.topic,
            partition = %self.spec.partition,
            segment = %segment.base_offset,
            "rebuilt the index of a segment: its file was missing or wrong"
        );
        let encoded = index.encode_from(crate::index::IndexCounts::default());
        if let Err(error) = encoded.write(disk, &self.folder, segment.base_offset) {
            // It is kept in memory, and built again after the next start.
            tracing::warn!(path = %path.display(), %error, "could not write a rebuilt index");
        }
        let handle = SegmentHandle::new(file, Some(index));
        self.keep_open(key, &handle);
        Ok(handle)
    }

    fn indexed(&self, segment: &SealedSegment) -> IndexedSegment {
        IndexedSegment {
            owner: self.key(segment.base_offset),
            end_offset: segment.end_offset,
            bytes: segment.bytes,
            interval_bytes: self.config.load().index_interval_bytes,
        }
    }

    /// What a failed walk of `segment`, which ends at `end`, means for who asked for `from`.
    pub(super) fn read_failed(
        &self,
        segment: &Segment,
        end: Offset,
        from: Offset,
        error: WalkError,
    ) -> ReadError {
        // The segment may have been removed under the reader's hands: that is no damage.
        if self.is_abandoned() {
            return ReadError::Closed;
        }
        let log_start = self.bounds().log_start;
        if from < log_start || end <= log_start || matches!(error, WalkError::Replaced) {
            return self.out_of_range(from);
        }
        let reason = match error {
            WalkError::Io(error) if is_exhaustion(&error) => {
                return ReadError::Exhausted {
                    error: Arc::new(error),
                };
            }
            WalkError::Io(error) => {
                let path = self.segment_path(segment.base_offset());
                ReadError::Failed {
                    reason: self.fail("read", &path, error),
                }
            }
            error => {
                let reason = self.damaged(segment.base_offset(), end, error);
                ReadError::Corrupt { reason }
            }
        };
        self.tell_failure();
        reason
    }

    /// What a failed walk of an open segment means for the writer's side.
    pub(super) fn walk_failed(
        &self,
        segment: &OpenSegment,
        end: Offset,
        error: WalkError,
    ) -> Arc<OfflineReason> {
        match error {
            WalkError::Io(error) => {
                self.fail("read", &self.segment_path(segment.base_offset), error)
            }
            error => self.damaged(segment.base_offset, end, error),
        }
    }

    fn damaged(&self, base_offset: Offset, end: Offset, error: WalkError) -> Arc<OfflineReason> {
        let (position, expected, problem) = match error {
            WalkError::Damage {
                position,
                expected,
                problem,
            } => (position, expected, problem),
            // An index that was just built from the batches does not fit them: they changed.
            WalkError::WrongIndex => (
                0,
                base_offset,
                "the batches change while they are read".to_owned(),
            ),
            WalkError::Cold | WalkError::Replaced | WalkError::Io(_) => {
                unreachable!("these are no damage")
            }
        };
        self.durability.metrics().corrupt_batches.add(1);
        let start = if expected < end {
            expected
        } else {
            base_offset
        };
        self.mark_offline(OfflineReason::Damage {
            file: self.segment_path(base_offset),
            position,
            offsets: start..end.max(start.add(1)),
            problem,
        })
    }

    pub(super) fn out_of_range(&self, requested: Offset) -> ReadError {
        let bounds = self.bounds();
        ReadError::OutOfRange {
            requested,
            available: bounds.log_start..bounds.high_watermark,
        }
    }

    pub(super) fn tail_source(&self, tail: &SharedTail) -> Source {
        let mapped = self.tail == TailKind::Mmap;
        Source::Tail {
            reader: Arc::clone(&tail.reader),
            mapped,
        }
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned.load(std::sync::atomic::Ordering::Acquire)
    }
}

/// A run of batches to find.
struct Run {
    /// Below `upto`.
    from: Offset,
    upto: Offset,
    high_watermark: Offset,
    bytes_max: usize,
    /// Batches that compaction has left without records do not come first: there are clients that take
    /// an answer without records for the log's end.
    skips_empty: bool,
}

impl Run {
    /// The bytes, and where to read on. `None`: none of the segment's batches from there on has a record
    /// below `upto`.
    fn walk(&self, mut walker: Walker<'_>) -> Result<Option<(Bytes, Offset)>, WalkError> {
        let mut is_found = false;
        loop {
            if walker.at_end() {
                if is_found {
                    return Ok(None);
                }
                return Err(walker.damage(format!("the batch of offset {} is missing", self.from)));
            }
            let header = walker.peek()?;
            is_found |= header.next_offset() > self.from;
            let is_empty = header.records_count() == 0;
            if is_found && !(self.skips_empty && is_empty) {
                break;
            }
            if is_found {
                check_empty(&mut walker, &header)?;
            }
            walker.skip(&header);
            if is_found && header.next_offset() >= self.upto {
                return Ok(None);
            }
        }
        let start = walker.position();
        let end_max = start.saturating_add(self.bytes_max as u64);
        walker.prefetch(end_max)?;
        let mut next = self.from;
        // `upto` is behind a batch or inside of one. What lies behind it is not looked at: it may be
        // cut while this runs.
        while !walker.at_end() && next < self.upto {
            let is_first = walker.position() == start;
            if !is_first && walker.position() >= end_max {
                break;
            }
            let header = walker.peek()?;
            let end = walker.position() + header.size_bytes() as u64;
            if header.next_offset() > self.high_watermark {
                // It begins below the high watermark, which stands between two batches. Without this,
                // a reader would wait here for ever.
                let (from, to) = (header.base_offset(), header.next_offset());
                let what = format!("the batch reaches from {from} to {to}, beyond what there is");
                return Err(walker.damage(what));
            }
            if header.next_offset() > self.upto || (!is_first && end > end_max) {
                break;
            }
            walker.skip(&header);
            next = header.next_offset();
        }
        let end = walker.position();
        Ok(Some((walker.bytes(start..end)?, next)))
    }
}

/// What is served is checked by whoever reads it. A batch that is passed over is seen by nobody, and a flipped bit
/// can make a batch of one record look like one without any.
fn check_empty(walker: &mut Walker<'_>, header: &Header) -> Result<(), WalkError> {
    let start = walker.position();
    let bytes = walker.bytes(start..start + header.size_bytes() as u64)?;
    let checked = Batch::split(bytes).and_then(|batch| batch.verify_crc());
    checked.map_err(|error| walker.damage(format!("a batch without records: {error}")))
}

fn walk_sealed<T>(
    handle: &SegmentHandle,
    segment: &SealedSegment,
    offset: Offset,
    walk: &impl Fn(&Source, u64, Expected) -> Result<T, WalkError>,
) -> Result<T, WalkError> {
    let entry = handle.index.as_ref().and_then(|index| index.lookup(offset));
    let (position, expected) = start_of(segment.base_offset, entry);
    let (noted, passage) = (Arc::clone(&handle.noted), Arc::clone(&handle.passage));
    let source = sealed_source(&handle.file, segment, noted, passage);
    walk(&source, position, expected)
}

fn sealed_source(
    file: &Arc<dyn File>,
    segment: &SealedSegment,
    noted: Arc<Noted>,
    passage: Arc<Passage>,
) -> Source {
    Source::File {
        file: Arc::clone(file),
        mapped: None,
        end: segment.bytes,
        end_offset: Some(segment.end_offset),
        noted,
        passage: Some(passage),
    }
}

fn start_of(base_offset: Offset, entry: Option<IndexEntry>) -> (u64, Expected) {
    match entry {
        Some(entry) => (entry.position, Expected::Last(entry.last_offset)),
        None => (0, Expected::Base(base_offset)),
    }
}

fn build_index(
    source: &Source,
    segment: &SealedSegment,
    owner: SegmentKey,
    interval_bytes: u64,
) -> Result<SegmentIndex, WalkError> {
    let mut index = SegmentIndex::new(owner, interval_bytes);
    let expected = Expected::Base(segment.base_offset);
    let mut walker = Walker::new(
        source,
        0,
        expected,
        REBUILD_WINDOW_BYTES,
        ReadMode::Blocking,
    );
    let mut end_offset = segment.base_offset;
    while !walker.at_end() {
        let header = walker.peek()?;
        index.push(&header, walker.position());
        walker.skip(&header);
        end_offset = header.next_offset();
    }
    if end_offset != segment.end_offset {
        return Err(walker.damage(format!(
            "the segment ends with offset {end_offset} (exclusive), not {}",
            segment.end_offset
        )));
    }
    index.complete();
    Ok(index)
}
