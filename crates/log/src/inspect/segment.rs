//! Walking one segment as the next start would find it: the file, with the journal's entries laid
//! over it.

use std::{io, ops::Range, sync::Arc};

use bytes::Bytes;
use sapwood_model::{LeaderEpoch, Offset, Timestamp};
use sapwood_record::{CRC_START, Crc32c, HEADER_BYTES, Header, LENGTH_POSITION};

use super::replay::Overlay;
use crate::{index::record_time, io::File};

/// What is read at once when every byte is needed, and when only headers are.
const WINDOW_BYTES: u64 = 1 << 20;
const HEADER_WINDOW_BYTES: u64 = 16 << 10;

/// The smallest length word: a header without records.
const LENGTH_MIN: u32 = (HEADER_BYTES - 12) as u32;

/// A segment's file and what covers it.
#[derive(Debug)]
pub(super) struct SegmentBytes<'a, 'o> {
    pub(super) base: Offset,
    /// `None` when only the journal knows the segment.
    pub(super) file: Option<Arc<dyn File>>,
    pub(super) file_bytes: u64,
    pub(super) overlay: &'o mut Overlay<'a>,
    window: Bytes,
    window_start: u64,
}

/// Where a walk is, and what it has met.
#[derive(Debug, Clone)]
pub(super) struct Walk {
    /// Where the next batch would start.
    pub(super) position: u64,
    /// The offset that it would have.
    pub(super) offset: Offset,
    /// The leader epoch of the last batch; no later batch may have a lower one.
    pub(super) epoch: Option<LeaderEpoch>,
    pub(super) batches: u64,
    pub(super) records: u64,
    pub(super) max_timestamp: Option<Timestamp>,
    /// The base offset of the last batch when its checksum is wrong: the number of its offsets is
    /// then not known, and the next batch may start with any higher one.
    unknown_since: Option<Offset>,
}

/// Batches that follow each other and whose checksums are wrong.
#[derive(Debug)]
pub(super) struct BadRun {
    /// Of the first.
    pub(super) position: u64,
    pub(super) offsets: Range<Offset>,
    pub(super) batches: u64,
    /// What is wrong with the first.
    pub(super) problem: String,
}

/// What is known about a segment before it is walked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// The base offset of the segment behind it.
    pub(super) next: Option<Offset>,
    /// From here on the first batch that does not check is where the log ends.
    pub(super) promised_end: Offset,
    pub(super) checksums: bool,
}

/// A segment that was walked.
#[derive(Debug)]
pub(super) struct Walked {
    pub(super) walk: Walk,
    /// What stands where the walk ended; never a batch.
    pub(super) stop: Step,
    pub(super) bad: Vec<BadRun>,
}

/// What stands where a walk is.
#[derive(Debug)]
pub(super) enum Step {
    /// A batch, and the walk is behind it. `crc`: what is wrong with its checksum.
    Batch { header: Header, crc: Option<String> },
    /// The file ends here.
    EndOfFile,
    /// A length word of zero: nothing was published here.
    Nothing,
    /// Something that is no batch.
    Bad(String),
    /// The disk would not say.
    Unreadable(io::Error),
}

impl<'a, 'o> SegmentBytes<'a, 'o> {
    pub(super) fn new(
        base: Offset,
        file: Option<Arc<dyn File>>,
        file_bytes: u64,
        overlay: &'o mut Overlay<'a>,
    ) -> Self {
        let (window, window_start) = (Bytes::new(), 0);
        Self {
            base,
            file,
            file_bytes,
            overlay,
            window,
            window_start,
        }
    }

    /// Where the segment ends once the journal was replayed.
    pub(super) fn bytes(&self) -> u64 {
        self.file_bytes.max(self.overlay.end(self.base))
    }

    /// How far behind `position` the last byte that is not zero lies.
    pub(super) fn unfinished_bytes(&mut self, position: u64) -> io::Result<u64> {
        let (mut at, mut last) = (position, position);
        while at < self.bytes() {
            let piece = self.read(at, 1, WINDOW_BYTES)?;
            if piece.is_empty() {
                break;
            }
            if let Some(index) = piece.iter().rposition(|byte| *byte != 0) {
                last = at + index as u64 + 1;
            }
            at += piece.len() as u64;
        }
        Ok(last - position)
    }

    /// The next `count` bytes at `position`, fewer at the end.
    pub(super) fn next(&mut self, position: u64, count: u64) -> io::Result<Bytes> {
        let bytes = self.read(position, count, 0)?;
        let count = usize::try_from(count).map_err(io::Error::other)?;
        Ok(bytes.slice(..bytes.len().min(count)))
    }

    /// At least `least` bytes at `position`, fewer only at the end; up to the window's end.
    fn read(&mut self, position: u64, least: u64, window_bytes: u64) -> io::Result<Bytes> {
        let held = self.window_start..self.window_start + self.window.len() as u64;
        if !(held.contains(&position) && position + least <= held.end) {
            let wanted = least.max(window_bytes).min(self.bytes() - position);
            let mut bytes = vec![0; usize::try_from(wanted).map_err(io::Error::other)?];
            if let Some(file) = &self.file
                && position < self.file_bytes
            {
                let in_file = usize::try_from(wanted.min(self.file_bytes - position));
                let in_file = in_file.map_err(io::Error::other)?;
                if file.read_at(&mut bytes[..in_file], position)? < in_file {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            self.overlay.apply(self.base, position, &mut bytes)?;
            self.window = bytes.into();
            self.window_start = position;
        }
        let from = usize::try_from(position - self.window_start).map_err(io::Error::other)?;
        Ok(self.window.slice(from..))
    }

    /// The checksum of a range, read piece by piece.
    fn checksum(&mut self, mut range: Range<u64>) -> io::Result<u32> {
        let mut crc = Crc32c::new();
        while !range.is_empty() {
            let piece = self.read(range.start, 1, WINDOW_BYTES)?;
            let wanted = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
            let piece = &piece[..wanted.min(piece.len())];
            crc.update(piece);
            range.start += piece.len() as u64;
        }
        Ok(crc.finish())
    }
}

impl BadRun {
    pub(super) fn describe(&self) -> String {
        match self.batches {
            1 => self.problem.clone(),
            batches => format!(
                "{batches} batches do not check; the first: {}",
                self.problem
            ),
        }
    }
}

impl Walk {
    /// At the start of the segment `base`.
    pub(super) fn new(base: Offset, epoch: Option<LeaderEpoch>) -> Self {
        Self {
            position: 0,
            offset: base,
            epoch,
            batches: 0,
            records: 0,
            max_timestamp: None,
            unknown_since: None,
        }
    }

    /// Whether the last batch did not check.
    pub(super) fn is_behind_bad(&self) -> bool {
        self.unknown_since.is_some()
    }

    /// Walks the segment to where its batches end. `good` is told of each batch that checks, with its
    /// position, and whether all before it did.
    pub(super) fn finish(
        mut self,
        segment: &mut SegmentBytes<'_, '_>,
        limits: Limits,
        mut good: impl FnMut(&Header, u64, bool),
    ) -> Walked {
        let mut bad: Vec<BadRun> = Vec::new();
        loop {
            let before = self.clone();
            let step = self
                .try_step(segment, limits)
                .unwrap_or_else(Step::Unreadable);
            if let Some(since) = before.unknown_since
                && let Some(run) = bad.last_mut()
            {
                // Now it shows where the batch with the wrong checksum ended.
                run.offsets.end = match (&step, limits.next) {
                    (Step::Batch { header, .. }, _) => header.base_offset(),
                    (_, Some(next)) => next,
                    (_, None) => limits.promised_end.max(since.add(1)),
                };
                if matches!(step, Step::EndOfFile | Step::Nothing) {
                    self.offset = run.offsets.end;
                }
            }
            let stop = match step {
                Step::Batch { header, crc: None } => {
                    good(&header, before.position, bad.is_empty());
                    continue;
                }
                Step::Batch {
                    header,
                    crc: Some(problem),
                } => {
                    let start = header.base_offset();
                    if start >= limits.promised_end {
                        self = Self {
                            offset: start,
                            ..before
                        };
                        return Walked {
                            walk: self,
                            stop: Step::Bad(problem),
                            bad,
                        };
                    }
                    match bad.last_mut() {
                        Some(run) if before.unknown_since.is_some() => run.batches += 1,
                        _ => bad.push(BadRun {
                            position: before.position,
                            offsets: start..header.next_offset(),
                            batches: 1,
                            problem,
                        }),
                    }
                    continue;
                }
                stop => stop,
            };
            return Walked {
                walk: self,
                stop,
                bad,
            };
        }
    }

    fn try_step(
        &mut self,
        segment: &mut SegmentBytes<'_, '_>,
        Limits {
            next, checksums, ..
        }: Limits,
    ) -> io::Result<Step> {
        let left = segment.bytes().saturating_sub(self.position);
        if left == 0 {
            return Ok(Step::EndOfFile);
        }
        let window = if checksums {
            WINDOW_BYTES
        } else {
            HEADER_WINDOW_BYTES
        };
        let head = segment.read(self.position, HEADER_BYTES as u64, window)?;
        let word = &head[LENGTH_POSITION.min(head.len())..head.len().min(LENGTH_POSITION + 4)];
        if word.iter().all(|byte| *byte == 0) {
            return Ok(Step::Nothing);
        }
        let Some(header) = Header::read(&head) else {
            return Ok(Step::Bad("the file ends inside of a batch's header".into()));
        };
        if let Some(problem) = self.problem(&header, left, next) {
            return Ok(Step::Bad(problem));
        }
        let end = self.position + header.size_bytes() as u64;
        let mut crc = None;
        if checksums {
            let (stored, position) = (header.crc(), self.position);
            let computed = segment.checksum(position + CRC_START as u64..end)?;
            if stored != computed {
                crc = Some(format!(
                    "its CRC is {stored:08x}; its bytes have {computed:08x}"
                ));
            }
        }
        self.position = end;
        self.offset = header.next_offset();
        self.batches += 1;
        if crc.is_some() {
            self.unknown_since = Some(header.base_offset());
            return Ok(Step::Batch { header, crc });
        }
        self.unknown_since = None;
        self.epoch = Some(header.leader_epoch());
        self.records += u64::from(header.records_count());
        let timestamp = record_time(&header);
        if timestamp.0 >= 0 {
            self.max_timestamp = self.max_timestamp.max(Some(timestamp));
        }
        Ok(Step::Batch { header, crc })
    }

    /// Which rule a header breaks. Nothing here is in a checksum but the counts.
    fn problem(&self, header: &Header, left: u64, next: Option<Offset>) -> Option<String> {
        let (length, size_bytes) = (header.length(), header.size_bytes() as u64);
        if length < LENGTH_MIN {
            return Some(format!(
                "a batch has the length word {length}; the least is {LENGTH_MIN}"
            ));
        }
        if size_bytes > left {
            return Some(format!(
                "a batch of {size_bytes} bytes starts where {left} are left"
            ));
        }
        if header.magic() != 2 {
            return Some(format!(
                "a batch has magic {}; 2 is the only one",
                header.magic()
            ));
        }
        if !header.is_placed() {
            return Some("a batch's offset or leader epoch is negative".into());
        }
        let (expected, found) = (self.offset, header.base_offset());
        let right = match self.unknown_since {
            Some(since) => found > since && next.is_none_or(|next| found < next),
            None => found == expected,
        };
        if !right {
            return Some(format!(
                "a batch starts with offset {found}; {expected} comes next"
            ));
        }
        let (delta, records) = (header.last_offset_delta(), header.records_count());
        if delta < 0 || i64::from(records) > i64::from(delta) + 1 {
            return Some(format!(
                "a batch has {records} records up to offset delta {delta}"
            ));
        }
        let epoch = header.leader_epoch();
        match self.epoch {
            Some(last) if epoch < last => Some(format!(
                "a batch has leader epoch {epoch} after one of {last}"
            )),
            _ => None,
        }
    }
}
