//! Segment files: the one that is appended to, those that wait to be sealed, and sealed ones.
//!
//! A segment is *open* from its first batch until it is sealed. The last open one is active: it has a
//! writer ([`ActiveSegment`]). The others were rolled and wait for their end to be durable; then they
//! are cut to their length, synced, given their index files, and become a [`SealedSegment`], which
//! is never written again and not kept mapped.

mod active;
mod leftover;
mod open_files;
mod passage;
mod walk;

use std::{
    any::Any,
    ops::Range,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering::Acquire},
    },
};

use parking_lot::RwLock;
use sapwood_model::{Offset, Timestamp};

pub(crate) use active::{ActiveSegment, Layout, Prepared, Room};
pub(crate) use leftover::batch_behind;
pub(crate) use open_files::{FileKey, OpenFiles, SegmentHandle, SegmentKey};
pub(crate) use passage::Passage;
pub(crate) use walk::{Expected, Source, WalkError, Walker};

use crate::{
    index::{SegmentIndex, TimeEntry},
    io::{File, TailReader},
    names,
    sums::Noted,
};

/// Positions and relative offsets are i32 in Kafka's index files; no segment goes past them.
pub(crate) const SEGMENT_BYTES_MAX: u64 = i32::MAX as u64;

/// A segment as readers see it.
#[derive(Debug, Clone)]
pub(crate) enum Segment {
    Open(Arc<OpenSegment>),
    Sealed(Arc<SealedSegment>),
}

impl Segment {
    pub(crate) fn base_offset(&self) -> Offset {
        match self {
            Self::Open(segment) => segment.base_offset,
            Self::Sealed(segment) => segment.base_offset,
        }
    }

    /// How often it was compacted since the start: with each time it has another file.
    pub(crate) fn generation(&self) -> u32 {
        match self {
            Self::Open(_) => 0,
            Self::Sealed(segment) => segment.generation,
        }
    }

    /// The bytes of its batches.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Open(segment) => segment.bytes(),
            Self::Sealed(segment) => segment.bytes,
        }
    }
}

/// What the writer and the readers of an open segment share.
#[derive(Debug)]
pub(crate) struct OpenSegment {
    pub(crate) base_offset: Offset,
    /// The bytes of its batches when it was found at the start or cut; 0 for a new one.
    found_bytes: u64,
    /// Set by the first append after that. Until then the segment is read like a sealed one.
    tail: OnceLock<SharedTail>,
    /// The sums of what was found.
    noted: Arc<Noted>,
    pub(crate) index: RwLock<SegmentIndex>,
}

/// The file of an open segment and its readable end.
#[derive(Debug, Clone)]
pub(crate) struct SharedTail {
    pub(crate) file: Arc<dyn File>,
    pub(crate) reader: Arc<dyn TailReader>,
}

impl OpenSegment {
    pub(crate) fn new(index: SegmentIndex, base_offset: Offset, found_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            base_offset,
            found_bytes,
            tail: OnceLock::new(),
            noted: Arc::new(Noted::new(index.sums())),
            index: RwLock::new(index),
        })
    }

    /// The bytes of its batches. They only grow.
    pub(crate) fn bytes(&self) -> u64 {
        self.tail()
            .map_or(self.found_bytes, |tail| tail.reader.end())
    }

    /// The bytes that were there when it was found or cut.
    pub(crate) fn found_bytes(&self) -> u64 {
        self.found_bytes
    }

    /// The sums of the batches that were there when it was found.
    pub(crate) fn noted(&self) -> &Arc<Noted> {
        &self.noted
    }

    /// What lives as long as somebody has bytes of its mapping.
    pub(crate) fn mapping(&self) -> Weak<dyn Any + Send + Sync> {
        self.tail()
            .map_or_else(no_mapping, |tail| tail.reader.mapping())
    }

    /// The file and the reader, once something was appended.
    pub(crate) fn tail(&self) -> Option<&SharedTail> {
        self.tail.get()
    }
}

/// A segment that is never written again.
#[derive(Debug)]
pub(crate) struct SealedSegment {
    pub(crate) base_offset: Offset,
    /// The next segment's base offset.
    pub(crate) end_offset: Offset,
    pub(crate) bytes: u64,
    /// The largest timestamp and the batch that brought it, once somebody asked.
    pub(crate) latest: OnceLock<Option<TimeEntry>>,
    /// From when on retention counts its age, once that was looked up in the batches: the largest
    /// timestamp, or when it was last written if no batch has one.
    pub(crate) aged_from: OnceLock<Timestamp>,
    /// How often it was compacted since the start.
    pub(crate) generation: u32,
    /// Its file still has the name that says what it replaces.
    pub(crate) is_swap: AtomicBool,
    /// The timestamp of its first batch, once somebody asked; `None` if that has none.
    pub(crate) first: OnceLock<Option<Timestamp>>,
    /// Its mapping from the time when it was open, as long as a reader has bytes of it.
    pub(crate) mapping: Weak<dyn Any + Send + Sync>,
}

impl SealedSegment {
    /// One that was sealed before the start: what else there is to know of it is looked up.
    pub(crate) fn found(offsets: Range<Offset>, bytes: u64) -> Self {
        Self {
            base_offset: offsets.start,
            end_offset: offsets.end,
            bytes,
            latest: OnceLock::new(),
            aged_from: OnceLock::new(),
            generation: 0,
            is_swap: AtomicBool::new(false),
            first: OnceLock::new(),
            mapping: no_mapping(),
        }
    }
}

impl SealedSegment {
    /// The name of its file.
    pub(crate) fn file_name(&self) -> String {
        match self.is_swap.load(Acquire) {
            true => names::swap_file_name(&(self.base_offset..self.end_offset)),
            false => names::segment_file_name(self.base_offset),
        }
    }
}

/// Of a segment that was not written by this process.
fn no_mapping() -> Weak<dyn Any + Send + Sync> {
    Weak::<()>::new()
}

/// The segments of a partition as they were published: ascending, contiguous, at least one.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) segments: Vec<Segment>,
}

impl View {
    /// The segment that `offset` belongs to, and where it ends if another one follows. `None` below
    /// the first segment.
    pub(crate) fn floor(&self, offset: Offset) -> Option<(&Segment, Option<Offset>)> {
        let at_or_below = self.segments.partition_point(|s| s.base_offset() <= offset);
        let at = at_or_below.checked_sub(1)?;
        Some((
            &self.segments[at],
            self.segments.get(at_or_below).map(Segment::base_offset),
        ))
    }

    /// The same view with one segment exchanged for another with the same base offset.
    pub(crate) fn replace(&self, with: Segment) -> Self {
        let mut segments = self.segments.clone();
        if let Some(segment) = segments
            .iter_mut()
            .find(|s| s.base_offset() == with.base_offset())
        {
            *segment = with;
        }
        Self { segments }
    }
}
