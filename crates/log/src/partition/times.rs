//! Looking records up by their timestamps.
//!
//! The time index names the batch to start from, headers lead to the batch, and its records are read
//! to answer with a record's offset. Timestamps are the clients' and need not rise. The index is not
//! trusted: an entry must be what its batch says, and the last one of a sealed segment the largest of
//! all behind it, or the index is built anew.

use std::sync::Arc;

use bytes::Bytes;
use sapwood_model::{Offset, Timestamp};
use sapwood_record::{Batch, Header};

use super::{Partition, ReadError, ReadMode, TimestampedOffset, View};
use crate::{
    index::{SegmentIndex, TimeEntry, record_time},
    segment::{Segment, Source, WalkError, Walker},
};

/// What a look-up reads at a time on its way.
const WINDOW_BYTES: u64 = 64 << 10;

/// No batch is decompressed to more than this for a look-up.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

/// The largest timestamp of a segment.
#[derive(Debug, Clone, Copy)]
pub(super) enum Latest {
    /// And the batch that brought it; `None` when no batch has one.
    Is(Option<TimeEntry>),
    /// The index of an open segment is wrong. It gets a right one when it is read after it was sealed.
    Unknown,
}

/// The part of the log that a look-up is about.
#[derive(Debug, Clone, Copy)]
struct Window {
    log_start: Offset,
    high_watermark: Offset,
}

impl Partition {
    /// The first record, by offset, whose timestamp is `at` or later, among those that can be read.
    /// Blocks on the disk.
    ///
    /// A batch whose records cannot be read (a client compressed something else) counts as one record
    /// with the batch's largest timestamp.
    ///
    /// # Errors
    /// As [`Partition::read`]; a batch that fails its checksum is damage.
    pub fn find_timestamp(&self, at: Timestamp) -> Result<Option<TimestampedOffset>, ReadError> {
        loop {
            if let Some(found) = self.try_find_timestamp(at)? {
                return Ok(found);
            }
        }
    }

    /// `None`: segments were compacted meanwhile; try again.
    fn try_find_timestamp(
        &self,
        at: Timestamp,
    ) -> Result<Option<Option<TimestampedOffset>>, ReadError> {
        let (view, window) = self.window()?;
        for (segment, end) in window.segments(&view) {
            let outcome = self.may_have(segment, at).and_then(|may| match may {
                true => self.find_in(segment, at, window),
                false => Ok(None),
            });
            match outcome {
                Ok(None) => {}
                Ok(found) => return Ok(Some(found)),
                Err(_) if end <= self.bounds().log_start => {} // removed meanwhile
                Err(_) if self.was_replaced(segment) => return Ok(None),
                Err(error) => return Err(self.read_failed(segment, end, end, error)),
            }
        }
        Ok(Some(None))
    }

    /// The record with the largest timestamp among those that can be read; the first of several.
    /// `None` when no record has a timestamp. Blocks on the disk.
    ///
    /// # Errors
    /// As [`Partition::find_timestamp`].
    pub fn find_max_timestamp(&self) -> Result<Option<TimestampedOffset>, ReadError> {
        loop {
            if let Some(found) = self.try_find_max_timestamp()? {
                return Ok(found);
            }
        }
    }

    /// `None`: segments were compacted meanwhile; try again.
    fn try_find_max_timestamp(&self) -> Result<Option<Option<TimestampedOffset>>, ReadError> {
        let (view, window) = self.window()?;
        let mut largest: Option<(&Segment, Offset, Timestamp)> = None;
        for (segment, end) in window.segments(&view) {
            let found = match self.max_in(segment, window) {
                Err(_) if end <= self.bounds().log_start => None, // removed meanwhile
                Err(_) if self.was_replaced(segment) => return Ok(None),
                found => found.map_err(|error| self.read_failed(segment, end, end, error))?,
            };
            if let Some(timestamp) = found
                && largest.is_none_or(|(.., largest)| timestamp > largest)
            {
                largest = Some((segment, end, timestamp));
            }
        }
        let Some((segment, end, timestamp)) = largest else {
            return Ok(Some(None));
        };
        match self.find_in(segment, timestamp, window) {
            Err(_) if self.was_replaced(segment) => Ok(None),
            Err(error) => Err(self.read_failed(segment, end, end, error)),
            found => Ok(found.ok()),
        }
    }

    fn window(&self) -> Result<(Arc<View>, Window), ReadError> {
        let log_start = self.bounds().log_start;
        let bounds = self.check_readable(log_start)?;
        let window = Window {
            log_start: bounds.log_start,
            high_watermark: bounds.high_watermark,
        };
        Ok((self.view.load_full(), window))
    }

    /// Whether a record of the segment may have a timestamp of `at` or later.
    fn may_have(&self, segment: &Segment, at: Timestamp) -> Result<bool, WalkError> {
        match self.latest_of(segment)? {
            Latest::Is(latest) => Ok(latest.is_some_and(|latest| latest.timestamp >= at)),
            Latest::Unknown => Ok(true),
        }
    }

    /// The largest timestamp of a segment, above the watermark too.
    pub(super) fn latest_of(&self, segment: &Segment) -> Result<Latest, WalkError> {
        match segment {
            Segment::Open(open) => {
                let latest = open.index.read().latest();
                Ok(match latest {
                    Some(entry) if !self.is_right(segment, entry)? => Latest::Unknown,
                    latest => Latest::Is(latest),
                })
            }
            Segment::Sealed(sealed) => {
                if let Some(latest) = sealed.latest.get() {
                    return Ok(Latest::Is(*latest));
                }
                let handle = self.sealed_handle(sealed, ReadMode::Blocking)?;
                let mut latest = handle.index.as_ref().and_then(SegmentIndex::latest);
                if !self.is_largest(segment, latest)? {
                    let handle = self.rebuild_index(sealed)?;
                    latest = handle.index.as_ref().and_then(SegmentIndex::latest);
                }
                Ok(Latest::Is(*sealed.latest.get_or_init(|| latest)))
            }
        }
    }

    /// Whether the batch that an entry names has its timestamp.
    fn is_right(&self, segment: &Segment, entry: TimeEntry) -> Result<bool, WalkError> {
        let from = entry.last_offset;
        if from >= self.bounds().high_watermark {
            // Of an append of this process, not from a file. The log may be cut there.
            return Ok(true);
        }
        self.with_start(
            segment,
            from,
            ReadMode::Blocking,
            |source, position, expected| {
                let mut walker = walker(source, position, expected);
                while !walker.at_end() {
                    let header = walker.peek()?;
                    if header.last_offset() >= from {
                        let right = header.last_offset() == from;
                        return Ok(right && record_time(&header) == entry.timestamp);
                    }
                    walker.skip(&header);
                }
                Ok(false)
            },
        )
    }

    /// Whether no batch of a sealed segment from the one that the entry names on has a larger
    /// timestamp, and that one has it. Where there is no entry, no batch has any.
    fn is_largest(&self, segment: &Segment, entry: Option<TimeEntry>) -> Result<bool, WalkError> {
        let from = entry.map_or(segment.base_offset(), |entry| entry.last_offset);
        self.with_start(
            segment,
            from,
            ReadMode::Blocking,
            |source, position, expected| {
                let mut walker = walker(source, position, expected);
                let mut found = entry.is_none();
                while !walker.at_end() {
                    let header = walker.peek()?;
                    let (last, timestamp) = (header.last_offset(), record_time(&header));
                    match entry {
                        None if timestamp.0 >= 0 => return Ok(false),
                        Some(entry) if last == from => found = timestamp == entry.timestamp,
                        Some(entry) if last > from && timestamp > entry.timestamp => {
                            return Ok(false);
                        }
                        _ => {}
                    }
                    walker.skip(&header);
                }
                Ok(found)
            },
        )
    }

    /// What the index says of a segment; the index of a sealed one is loaded.
    fn ask_index<T>(
        &self,
        segment: &Segment,
        ask: impl FnOnce(&SegmentIndex) -> T,
    ) -> Result<Option<T>, WalkError> {
        match segment {
            Segment::Open(open) => Ok(Some(ask(&open.index.read()))),
            Segment::Sealed(sealed) => {
                let handle = self.sealed_handle(sealed, ReadMode::Blocking)?;
                Ok(handle.index.as_ref().map(ask))
            }
        }
    }

    /// An entry of the segment's time index; `None` as well when the batches do not bear it out, so
    /// that the walk begins at the segment's start.
    fn right_entry(
        &self,
        segment: &Segment,
        ask: impl FnOnce(&SegmentIndex) -> Option<TimeEntry>,
    ) -> Result<Option<TimeEntry>, WalkError> {
        match self.ask_index(segment, ask)?.flatten() {
            Some(entry) if self.is_right(segment, entry)? => Ok(Some(entry)),
            _ => Ok(None),
        }
    }

    /// The first record of the segment with a timestamp of `at` or later.
    fn find_in(
        &self,
        segment: &Segment,
        at: Timestamp,
        window: Window,
    ) -> Result<Option<TimestampedOffset>, WalkError> {
        let entry = self.right_entry(segment, |index| index.lookup_time(at))?;
        let from = entry.map_or(segment.base_offset(), |entry| entry.last_offset);
        self.with_start(
            segment,
            from.max(window.log_start),
            ReadMode::Blocking,
            |source, position, expected| {
                let mut walker = walker(source, position, expected);
                while !walker.at_end() {
                    let header = walker.peek()?;
                    if header.next_offset() > window.high_watermark {
                        break;
                    }
                    if record_time(&header) >= at && header.last_offset() >= window.log_start {
                        let batch = read_batch(&mut walker, &header)?;
                        if let Some(found) = find_record(&batch, at, window.log_start) {
                            return Ok(Some(found));
                        }
                    }
                    walker.skip(&header);
                    // The next header would lie above the watermark, where the log may be cut.
                    if header.next_offset() >= window.high_watermark {
                        break;
                    }
                }
                Ok(None)
            },
        )
    }

    /// The largest timestamp of the segment's batches that can be read.
    fn max_in(&self, segment: &Segment, window: Window) -> Result<Option<Timestamp>, WalkError> {
        let first_kept = segment.base_offset() >= window.log_start;
        let Latest::Is(latest) = self.latest_of(segment)? else {
            return self.max_from(segment, None, window);
        };
        match latest {
            None => return Ok(None),
            Some(latest) if first_kept && latest.last_offset < window.high_watermark => {
                return Ok(Some(latest.timestamp));
            }
            Some(_) => {}
        }
        // The batch with the largest timestamp is above the watermark, or what is below the log start
        // may have the largest: the index is exact up to its last entry only, and knows no start.
        let entry = self
            .right_entry(segment, |index| {
                index.last_time_below(window.high_watermark)
            })?
            .filter(|_| first_kept);
        self.max_from(segment, entry, window)
    }

    /// The same, where everything below `entry` is known to have smaller timestamps.
    fn max_from(
        &self,
        segment: &Segment,
        entry: Option<TimeEntry>,
        window: Window,
    ) -> Result<Option<Timestamp>, WalkError> {
        let from = entry.map_or(segment.base_offset().max(window.log_start), |e| {
            e.last_offset
        });
        self.with_start(
            segment,
            from,
            ReadMode::Blocking,
            |source, position, expected| {
                let mut largest = entry.map(|entry| entry.timestamp);
                let mut walker = walker(source, position, expected);
                while !walker.at_end() {
                    let header = walker.peek()?;
                    if header.next_offset() > window.high_watermark {
                        break;
                    }
                    if header.last_offset() >= window.log_start {
                        let timestamp = if header.base_offset() < window.log_start {
                            largest_record(&read_batch(&mut walker, &header)?, window.log_start)
                        } else {
                            Some(record_time(&header))
                        };
                        largest = largest.max(timestamp.filter(|timestamp| timestamp.0 >= 0));
                    }
                    walker.skip(&header);
                    if header.next_offset() >= window.high_watermark {
                        break;
                    }
                }
                Ok(largest)
            },
        )
    }
}

impl Window {
    /// The segments that have something in the window, each with its end.
    fn segments(self, view: &View) -> impl Iterator<Item = (&Segment, Offset)> {
        let ends = view.segments.iter().skip(1).map(Segment::base_offset);
        let ends = ends.chain([self.high_watermark]);
        view.segments
            .iter()
            .zip(ends)
            .filter(move |(segment, end)| {
                *end > self.log_start && segment.base_offset() < self.high_watermark
            })
    }
}

fn walker(source: &Source, position: u64, expected: crate::segment::Expected) -> Walker<'_> {
    Walker::new(source, position, expected, WINDOW_BYTES, ReadMode::Blocking)
}

/// The next batch of a walk, with its checksum verified.
fn read_batch(walker: &mut Walker<'_>, header: &Header) -> Result<Batch, WalkError> {
    let start = walker.position();
    let bytes: Bytes = walker.bytes(start..start + header.size_bytes() as u64)?;
    let batch = Batch::split(bytes).map_err(|error| walker.damage(error.to_string()))?;
    batch
        .verify_crc()
        .map_err(|error| walker.damage(error.to_string()))?;
    Ok(batch)
}

/// The first record at `log_start` or above with a timestamp of `at` or later.
fn find_record(batch: &Batch, at: Timestamp, log_start: Offset) -> Option<TimestampedOffset> {
    let header = batch.header();
    let leader_epoch = header.leader_epoch();
    let found = |timestamp, offset| TimestampedOffset {
        timestamp,
        offset,
        leader_epoch,
    };
    let first = header.base_offset().max(log_start);
    let is_whole = i64::from(header.records_count()) == i64::from(header.last_offset_delta()) + 1;
    if header.is_log_append_time() && is_whole {
        return Some(found(header.max_timestamp(), first));
    }
    let unreadable = || Some(found(header.max_timestamp(), first));
    let Ok(records) = batch.records(DECOMPRESSED_BYTES_MAX) else {
        return unreadable();
    };
    for record in records {
        let Ok(record) = record else {
            return unreadable();
        };
        if record.timestamp >= at && record.offset >= log_start {
            return Some(found(record.timestamp, record.offset));
        }
    }
    None
}

/// The largest timestamp of a batch's records at `log_start` or above.
fn largest_record(batch: &Batch, log_start: Offset) -> Option<Timestamp> {
    let header = batch.header();
    let of_batch = Some(record_time(header));
    if header.is_log_append_time() {
        return of_batch;
    }
    let Ok(records) = batch.records(DECOMPRESSED_BYTES_MAX) else {
        return of_batch;
    };
    let mut largest = None;
    for record in records {
        let Ok(record) = record else { return of_batch };
        if record.offset >= log_start {
            largest = largest.max(Some(record.timestamp));
        }
    }
    largest
}
