//! Walking one segment as the next start would find it: the file, with the journal's entries laid
//! over it.

use std::{io, ops::Range, sync::Arc};

use bytes::Bytes;
use sapwood_model::{LeaderEpoch, Offset, Timestamp};
use sapwood_record::{CRC_START, Crc32c, HEADER_BYTES, Header, LENGTH_POSITION};

use super::replay::Overlay;
use crate::io::File;

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
        Self { base, file, file_bytes, overlay, window, window_start }
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

impl Walk {
    /// At the start of the segment `base`.
    pub(super) fn new(base: Offset, epoch: Option<LeaderEpoch>) -> Self {
        Self { position: 0, offset: base, epoch, batches: 0, records: 0, max_timestamp: None }
    }

    /// Checks what stands here, and goes behind it when it is a batch.
    pub(super) fn step(&mut self, segment: &mut SegmentBytes<'_, '_>, checksums: bool) -> Step {
        self.try_step(segment, checksums).unwrap_or_else(Step::Unreadable)
    }

    fn try_step(
        &mut self,
        segment: &mut SegmentBytes<'_, '_>,
        checksums: bool,
    ) -> io::Result<Step> {
        let left = segment.bytes().saturating_sub(self.position);
        if left == 0 {
            return Ok(Step::EndOfFile);
        }
        let window = if checksums { WINDOW_BYTES } else { HEADER_WINDOW_BYTES };
        let head = segment.read(self.position, HEADER_BYTES as u64, window)?;
        let word = &head[LENGTH_POSITION.min(head.len())..head.len().min(LENGTH_POSITION + 4)];
        if word.iter().all(|byte| *byte == 0) {
            return Ok(Step::Nothing);
        }
        let Some(header) = Header::read(&head) else {
            return Ok(Step::Bad("the file ends inside of a batch's header".into()));
        };
        if let Some(problem) = self.problem(&header, left) {
            return Ok(Step::Bad(problem));
        }
        let end = self.position + header.size_bytes() as u64;
        let mut crc = None;
        if checksums {
            let (stored, position) = (header.crc(), self.position);
            let computed = segment.checksum(position + CRC_START as u64..end)?;
            if stored != computed {
                crc = Some(format!("its CRC is {stored:08x}; its bytes have {computed:08x}"));
            }
        }
        self.position = end;
        self.offset = header.next_offset();
        self.epoch = Some(header.leader_epoch());
        self.batches += 1;
        self.records += u64::from(header.records_count());
        if header.max_timestamp().0 >= 0 {
            self.max_timestamp = self.max_timestamp.max(Some(header.max_timestamp()));
        }
        Ok(Step::Batch { header, crc })
    }

    /// Which rule a header breaks. Nothing here is in a checksum but the counts.
    fn problem(&self, header: &Header, left: u64) -> Option<String> {
        let (length, size_bytes) = (header.length(), header.size_bytes() as u64);
        if length < LENGTH_MIN {
            return Some(format!("a batch has the length word {length}; the least is {LENGTH_MIN}"));
        }
        if size_bytes > left {
            return Some(format!("a batch of {size_bytes} bytes starts where {left} are left"));
        }
        if header.magic() != 2 {
            return Some(format!("a batch has magic {}; 2 is the only one", header.magic()));
        }
        let (expected, found) = (self.offset, header.base_offset());
        if found != expected {
            return Some(format!("a batch starts with offset {found}; {expected} comes next"));
        }
        let (delta, records) = (header.last_offset_delta(), header.records_count());
        if delta < 0 || i64::from(records) > i64::from(delta) + 1 {
            return Some(format!("a batch has {records} records up to offset delta {delta}"));
        }
        let epoch = header.leader_epoch();
        match self.epoch {
            Some(last) if epoch < last => {
                Some(format!("a batch has leader epoch {epoch} after one of {last}"))
            }
            _ => None,
        }
    }
}
