//! One run of compaction over a log, step by step.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

use sapwood_model::{Code, Offset, Timestamp};
use sapwood_record::Batch;

use super::{
    clean::{Outcome, Rules},
    key_map::KeyMap,
    output::Output,
};
use crate::{
    durability::Space,
    index::SegmentIndex,
    io::OpenMode,
    names,
    partition::{Partition, ReadError},
    segment::{SealedSegment, WalkError, Walker},
};

/// No segment covers more offsets: its index counts them in 31 bits.
const OFFSETS_MAX: u64 = i32::MAX as u64;
/// Segments are not put together into one whose index could be larger.
const INDEX_BYTES_MAX: u64 = 8 << 20;
/// What an index may take for each interval: an entry of each kind.
const INDEX_ENTRY_BYTES: u64 = 24;

/// How to compact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionOptions {
    /// Records below are compacted; they must be in segments that may be.
    pub upto: Offset,
    /// So many bytes are taken for the map of keys at most. With more keys it takes several passes.
    pub dedupe_bytes: usize,
    /// A tombstone stays for so long after the first time that it was compacted, in milliseconds.
    pub delete_retention_ms: u64,
    /// No batch is decompressed to more bytes. One that would be is left as it is.
    pub decompressed_bytes_max: usize,
}

/// What a run has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompactionStats {
    /// Passes over the log that were begun.
    pub passes: u64,
    /// Bytes of batches that were read.
    pub read_bytes: u64,
    /// Bytes of batches that were written, also to segments that were given up.
    pub written_bytes: u64,
    /// Records that are gone from segments that were replaced.
    pub removed_records: u64,
    /// Segments that were replaced.
    pub replaced_segments: u64,
    /// Their bytes.
    pub bytes_before: u64,
    /// Bytes of the segments in their place.
    pub bytes_after: u64,
    /// Batches that nobody can decompress; they stay as they are.
    pub unreadable_batches: u64,
    /// The most bytes that the map of keys took.
    pub map_bytes: u64,
}

/// Whether there is more to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stepped {
    /// Yes.
    More,
    /// No: the run is over.
    Done,
}

/// Why a run ended early. The log is as it was before the segment that was being written.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// The log was trimmed, closed or deleted meanwhile, or somebody else compacts it.
    #[error("the log has changed meanwhile")]
    Changed,
    /// A segment could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There is no room for the compacted segment.
    #[error("no space left to write {}", path.display())]
    NoSpace {
        /// The file.
        path: PathBuf,
    },
    /// The compacted segment could not be written. It was given up.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system reported.
        error: io::Error,
    },
    /// The data directory takes no changes until a restart.
    #[error("the data directory is read-only: {reason}")]
    ReadOnly {
        /// The first failure.
        reason: Arc<str>,
    },
}

impl CompactError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Changed => Code::Draining,
            Self::Read(error) => error.code(),
            Self::NoSpace { .. } => Code::StorageFull,
            Self::Io { .. } => Code::IoFailed,
            Self::ReadOnly { .. } => Code::ReadOnly,
        }
    }
}

/// A run over one log: as many passes as the map of keys needs. Dropping it gives up what is not finished.
#[derive(Debug)]
pub struct Compactor {
    partition: Arc<Partition>,
    options: CompactionOptions,
    now: Timestamp,
    phase: Phase,
    stats: CompactionStats,
    /// Bytes that the passes so far read, all of them.
    total: u64,
}

#[derive(Debug)]
enum Phase {
    /// Noting the latest offset of each key of the dirty part.
    Map {
        map: KeyMap,
        next: Offset,
    },
    /// Writing segments anew.
    Clean(Box<Cleaning>),
    Done,
}

#[derive(Debug)]
struct Cleaning {
    rules: Rules,
    groups: VecDeque<Vec<Arc<SealedSegment>>>,
    current: Option<Current>,
}

/// Segments that become one.
#[derive(Debug)]
struct Current {
    sources: Vec<Arc<SealedSegment>>,
    next: Offset,
    output: Output,
    /// So far it is what the one source is.
    is_same: bool,
    removed_records: u64,
}

impl Partition {
    /// Begins a run over the log. One at a time.
    ///
    /// # Errors
    /// [`CompactError::Changed`] while another one is under way.
    pub fn compactor(
        self: &Arc<Self>,
        options: CompactionOptions,
    ) -> Result<Compactor, CompactError> {
        if self.is_compacting.swap(true, Ordering::AcqRel) {
            return Err(CompactError::Changed);
        }
        let mut compactor = Compactor {
            partition: Arc::clone(self),
            options,
            now: self.now(),
            phase: Phase::Done,
            stats: CompactionStats::default(),
            total: 0,
        };
        compactor.begin_pass()?;
        Ok(compactor)
    }
}

impl Drop for Compactor {
    fn drop(&mut self) {
        if let Phase::Clean(cleaning) = &mut self.phase
            && let Some(current) = cleaning.current.take()
        {
            self.partition.remove_path(&current.output.path);
        }
        self.partition.is_compacting.store(false, Ordering::Release);
    }
}

impl Compactor {
    /// Reads about `bytes_max` bytes, at least one batch, and writes what stays of them. The end of a segment
    /// brings syncs. Blocks.
    ///
    /// # Errors
    /// [`CompactError`]; the run is over then.
    pub fn step(&mut self, bytes_max: u64) -> Result<Stepped, CompactError> {
        let stepped = match &mut self.phase {
            Phase::Done => return Ok(Stepped::Done),
            Phase::Map { .. } => self.map_some(bytes_max),
            Phase::Clean(_) => self.clean_some(bytes_max),
        };
        if stepped.is_err() {
            self.give_up();
        }
        stepped
    }

    /// What was done so far.
    pub fn stats(&self) -> CompactionStats {
        self.stats
    }

    /// Whose log it is.
    pub fn partition(&self) -> &Arc<Partition> {
        &self.partition
    }

    /// Bytes that were read and bytes to be read, as far as that is known: another pass may come.
    pub fn progress(&self) -> (u64, u64) {
        (self.stats.read_bytes, self.total.max(self.stats.read_bytes))
    }

    fn begin_pass(&mut self) -> Result<(), CompactError> {
        let (cleaned, log_start) = (self.partition.cleaned()?, self.partition.bounds().log_start);
        let from = cleaned.max(log_start).min(self.options.upto);
        let segments = self.partition.compactable_segments();
        let sum = |from: Offset| -> u64 {
            let some = segments.iter().filter(|one| one.end_offset > from);
            some.map(|one| one.bytes).sum()
        };
        self.total = self.stats.read_bytes + sum(from) + sum(log_start);
        let keys = self.options.upto.0 - from.0;
        let seed = self.partition.random();
        let map = KeyMap::new(keys, self.options.dedupe_bytes, seed);
        self.stats.map_bytes = self.stats.map_bytes.max(map.memory_bytes() as u64);
        self.stats.passes += 1;
        self.phase = Phase::Map { map, next: from };
        Ok(())
    }

    fn map_some(&mut self, bytes_max: u64) -> Result<Stepped, CompactError> {
        let upto = self.options.upto;
        let cap = self.options.decompressed_bytes_max;
        let Phase::Map { map, next, .. } = &mut self.phase else {
            return Ok(Stepped::More);
        };
        let begin = (*next).max(self.partition.bounds().log_start);
        let segments = self.partition.compactable_segments();
        let at = segments.partition_point(|one| one.end_offset <= begin);
        let segment = segments.get(at).filter(|_| begin < upto);
        let Some(segment) = segment else {
            return self.begin_cleaning(begin.min(upto));
        };
        let map = RefCell::new(map);
        let walked = self
            .partition
            .walk_batches(segment, begin, bytes_max, |batch| {
                let mut full_at = None;
                if Rules::is_left_alone(batch) {
                    return Ok(full_at);
                }
                let mut map = map.borrow_mut();
                // What nobody can read is left alone when it is its turn.
                let _ = batch.look_at_keys(cap, |record| {
                    let Some(key) = record.key else { return true };
                    if record.offset < begin || record.offset >= upto {
                        return true;
                    }
                    if map.put(key, record.offset).is_err() {
                        full_at = Some(record.offset);
                    }
                    full_at.is_none()
                });
                Ok(full_at)
            })?;
        self.stats.read_bytes += walked.bytes;
        let Phase::Map { next, .. } = &mut self.phase else {
            return Ok(Stepped::More);
        };
        *next = walked.next;
        match walked.stopped {
            Some(full_at) => self.begin_cleaning(full_at),
            None => Ok(Stepped::More),
        }
    }

    /// Everything below `upto` is in the map.
    fn begin_cleaning(&mut self, upto: Offset) -> Result<Stepped, CompactError> {
        let Phase::Map { map, .. } = std::mem::replace(&mut self.phase, Phase::Done) else {
            return Ok(Stepped::More);
        };
        let partition = &self.partition;
        let log_start = partition.bounds().log_start;
        let producers = partition.producers().into_iter();
        let retention_ms = i64::try_from(self.options.delete_retention_ms).unwrap_or(i64::MAX);
        let rules = Rules {
            latest: map,
            upto,
            log_start,
            now: self.now,
            horizon: Timestamp(self.now.0.saturating_add(retention_ms)),
            producers: producers.map(|one| (one.id, one.last_offset)).collect(),
            decompressed_bytes_max: self.options.decompressed_bytes_max,
        };
        let segments = partition.compactable_segments().into_iter();
        let segments = segments.filter(|one| one.end_offset > log_start && one.base_offset < upto);
        let config = partition.spec().config;
        self.phase = Phase::Clean(Box::new(Cleaning {
            rules,
            groups: groups(segments, config.segment_bytes, config.index_interval_bytes),
            current: None,
        }));
        Ok(Stepped::More)
    }

    fn clean_some(&mut self, bytes_max: u64) -> Result<Stepped, CompactError> {
        let Phase::Clean(cleaning) = &mut self.phase else {
            return Ok(Stepped::More);
        };
        let Cleaning {
            rules,
            groups,
            current,
        } = &mut **cleaning;
        let Some(now) = current else {
            let Some(sources) = groups.pop_front() else {
                return self.end_pass();
            };
            *current = Some(self.partition.begin_group(sources)?);
            return Ok(Stepped::More);
        };
        let at = now
            .sources
            .partition_point(|one| one.end_offset <= now.next);
        let Some(source) = now.sources.get(at) else {
            let done = current.take().expect("it is the current one");
            return self.end_group(done);
        };
        let written = now.output.bytes();
        let output = RefCell::new(&mut now.output);
        let tally = RefCell::new((0_u64, 0_u64, false));
        let walked = self
            .partition
            .walk_batches(source, now.next, bytes_max, |batch| {
                let mut output = output.borrow_mut();
                let mut tally = tally.borrow_mut();
                match rules.clean(batch, &mut output) {
                    Outcome::Same => {}
                    Outcome::Changed { removed } => {
                        tally.0 += removed;
                        tally.2 = true;
                    }
                    Outcome::Unreadable => tally.1 += 1,
                }
                if output.is_full() {
                    self.partition.flush(&mut output)?;
                }
                Ok(None)
            })?;
        let (removed, unreadable, is_changed) = tally.into_inner();
        now.next = walked.next;
        now.is_same &= !is_changed;
        now.removed_records += removed;
        self.stats.read_bytes += walked.bytes;
        self.stats.written_bytes += now.output.bytes() - written;
        self.stats.unreadable_batches += unreadable;
        Ok(Stepped::More)
    }

    /// The compacted segment takes the place of its sources, unless it is the same.
    fn end_group(&mut self, mut done: Current) -> Result<Stepped, CompactError> {
        done.output.close_gap();
        let before: u64 = done.sources.iter().map(|one| one.bytes).sum();
        let is_same = done.is_same && done.sources.len() == 1 && done.output.bytes() == before;
        let after = done.output.bytes();
        if is_same {
            self.partition.remove_path(&done.output.path);
            return Ok(Stepped::More);
        }
        let path = done.output.path.clone();
        let sealed = self.partition.flush(&mut done.output).and_then(|()| {
            done.output.index.complete();
            let synced = done.output.file.sync_data();
            synced.map_err(|error| CompactError::Io {
                path: path.clone(),
                error,
            })
        });
        let swapped = sealed.and_then(|()| self.partition.swap_in(&done.sources, done.output));
        if let Err(error) = swapped {
            self.partition.remove_path(&path);
            return Err(error);
        }
        self.stats.removed_records += done.removed_records;
        self.stats.replaced_segments += done.sources.len() as u64;
        self.stats.bytes_before += before;
        self.stats.bytes_after += after;
        Ok(Stepped::More)
    }

    fn end_pass(&mut self) -> Result<Stepped, CompactError> {
        let Phase::Clean(cleaning) = std::mem::replace(&mut self.phase, Phase::Done) else {
            return Ok(Stepped::More);
        };
        let cleaned = cleaning.rules.upto;
        drop(cleaning); // the map, before another one is made
        self.partition.set_cleaned(cleaned)?;
        if cleaned >= self.options.upto {
            return Ok(Stepped::Done);
        }
        self.begin_pass()?;
        Ok(Stepped::More)
    }

    fn give_up(&mut self) {
        if let Phase::Clean(cleaning) = std::mem::replace(&mut self.phase, Phase::Done)
            && let Some(current) = cleaning.current
        {
            self.partition.remove_path(&current.output.path);
        }
    }
}

/// How far [`Partition::walk_batches`] came.
struct Walked {
    bytes: u64,
    next: Offset,
    /// What the caller said to stop for.
    stopped: Option<Offset>,
}

/// A walk that was ended by what the caller does with the batches.
enum Stop {
    Walk(WalkError),
    Caller(CompactError),
}

impl Partition {
    /// Gives the batches of a segment from the one that holds `from` on, checked, to `each`, about
    /// `bytes_max` bytes of them, until it says where to stop.
    fn walk_batches(
        &self,
        segment: &Arc<SealedSegment>,
        from: Offset,
        bytes_max: u64,
        each: impl FnMut(&Batch) -> Result<Option<Offset>, CompactError>,
    ) -> Result<Walked, CompactError> {
        let each = RefCell::new(each);
        let stop: RefCell<Option<CompactError>> = RefCell::new(None);
        let walked = self.with_batches(segment, from, |mut walker| {
            let mut each = each.borrow_mut();
            match walk(&mut walker, from, bytes_max, &mut *each) {
                Ok(walked) => Ok(Some(walked)),
                Err(Stop::Walk(error)) => Err(error),
                Err(Stop::Caller(error)) => {
                    *stop.borrow_mut() = Some(error);
                    Ok(None)
                }
            }
        })?;
        walked.ok_or_else(|| stop.into_inner().unwrap_or(CompactError::Changed))
    }

    /// Opens the file that these segments are written to.
    fn begin_group(&self, sources: Vec<Arc<SealedSegment>>) -> Result<Current, CompactError> {
        let base = sources[0].base_offset;
        let path = self.folder().join(names::cleaned_file_name(base));
        let opened = self.disk().open(&path, OpenMode::Create);
        let file = opened.and_then(|file| file.set_len(0).map(|()| file));
        let file = file.map_err(|error| failed(&path, error))?;
        let index = SegmentIndex::new(self.segment_key(base), self.index_interval_bytes());
        Ok(Current {
            sources,
            next: base,
            output: Output::new(path, file, index),
            is_same: true,
            removed_records: 0,
        })
    }

    /// Writes what is in the buffer, if records have no better use for the room.
    fn flush(&self, output: &mut Output) -> Result<(), CompactError> {
        let path = output.path.clone();
        if self.bytes_of(Space::Ahead) < output.unwritten() {
            return Err(CompactError::NoSpace { path });
        }
        output.flush().map_err(|error| failed(&path, error))
    }
}

fn walk(
    walker: &mut Walker<'_>,
    from: Offset,
    bytes_max: u64,
    each: &mut impl FnMut(&Batch) -> Result<Option<Offset>, CompactError>,
) -> Result<Walked, Stop> {
    let mut walked = Walked {
        bytes: 0,
        next: from,
        stopped: None,
    };
    while !walker.at_end() && (walked.bytes == 0 || walked.bytes < bytes_max) {
        let header = walker.peek().map_err(Stop::Walk)?;
        if header.next_offset() <= from {
            walker.skip(&header);
            continue;
        }
        let start = walker.position();
        let size = header.size_bytes() as u64;
        let bytes = walker.bytes(start..start + size).map_err(Stop::Walk)?;
        let checked = Batch::split(bytes).and_then(|batch| batch.verify_crc().map(|()| batch));
        let batch = checked.map_err(|problem| {
            // Its header is in the chain, so that this is the batch of those offsets.
            Stop::Walk(WalkError::Damage {
                position: start,
                expected: header.base_offset(),
                problem: problem.to_string(),
            })
        })?;
        walked.bytes += size;
        walked.stopped = each(&batch).map_err(Stop::Caller)?;
        if walked.stopped.is_some() {
            return Ok(walked);
        }
        walker.skip(&header);
        walked.next = header.next_offset();
    }
    Ok(walked)
}

/// Segments that follow each other are put together as long as the result cannot be too large.
fn groups(
    segments: impl Iterator<Item = Arc<SealedSegment>>,
    segment_bytes: u64,
    index_interval_bytes: u64,
) -> VecDeque<Vec<Arc<SealedSegment>>> {
    let mut groups: VecDeque<Vec<Arc<SealedSegment>>> = VecDeque::new();
    let interval = index_interval_bytes.max(64);
    let bytes_max = segment_bytes.min(INDEX_BYTES_MAX / INDEX_ENTRY_BYTES * interval);
    let mut bytes = 0_u64;
    for segment in segments {
        match groups.back_mut() {
            Some(group)
                if bytes + segment.bytes <= bytes_max
                    && segment.end_offset.0 - group[0].base_offset.0 <= OFFSETS_MAX =>
            {
                bytes += segment.bytes;
                group.push(segment);
            }
            _ => {
                bytes = segment.bytes;
                groups.push_back(vec![segment]);
            }
        }
    }
    groups
}

fn failed(path: &std::path::Path, error: io::Error) -> CompactError {
    let path = path.to_owned();
    match error.kind() {
        io::ErrorKind::StorageFull => CompactError::NoSpace { path },
        // Its topic was deleted.
        io::ErrorKind::NotFound => CompactError::Changed,
        _ => CompactError::Io { path, error },
    }
}
