//! Walking the batches of a log on disk, checking each one.

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc};

use bytes::Bytes;
use sapwood_model::{LeaderEpoch, Offset};
use sapwood_record::{Batch, HEADER_BYTES, Header};

use crate::io::{File, is_of_the_device};

const WINDOW_BYTES: u64 = 256 << 10;
/// Bytes before a batch's length ends: base offset and length word.
const PREFIX_BYTES: u64 = 12;
/// What a batch without records would measure behind its length word.
const LENGTH_MIN: u32 = HEADER_BYTES as u32 - PREFIX_BYTES as u32;

/// A segment's file as it is on disk, with whatever lies behind its last batch.
#[derive(Debug, Clone)]
pub(super) struct SegmentOnDisk {
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn File>,
    pub(super) bytes: u64,
}

/// A place in a log: the next batch has `offset` and stands at `position` of the segment `segment`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) segment: Offset,
    pub(super) position: u64,
    pub(super) offset: Offset,
}

/// What stands at a cursor.
#[derive(Debug)]
pub(super) enum Step {
    /// A batch that checks, and the cursor behind it.
    Batch(Header),
    /// A length word of zero, or the end of the file: this segment has no more.
    End,
    /// Something else.
    Bad(String),
}

/// A place in a segment that the disk cannot read, inside of an [`io::Error`].
#[derive(Debug, thiserror::Error)]
#[error("byte {} of segment {} cannot be read: {error}", at.position, at.segment)]
pub(super) struct Unreadable {
    pub(super) at: Cursor,
    pub(super) error: io::Error,
}

impl Cursor {
    /// Notes where an error came up, if it is the disk's.
    pub(super) fn unreadable(self) -> impl FnOnce(io::Error) -> io::Error {
        move |error| match is_of_the_device(&error) {
            true => io::Error::other(Unreadable { at: self, error }),
            false => error,
        }
    }
}

/// Reads batches one after another.
#[derive(Debug)]
pub(super) struct Walker<'a> {
    pub(super) segments: &'a BTreeMap<Offset, SegmentOnDisk>,
    pub(super) cursor: Cursor,
    /// No batch may have a lower one.
    pub(super) epoch: LeaderEpoch,
    /// Nor a higher one: an epoch is in a checkpoint before anything is appended in it.
    epoch_max: LeaderEpoch,
    window: Window,
}

#[derive(Debug, Default)]
struct Window {
    segment: Offset,
    start: u64,
    bytes: Bytes,
}

impl<'a> Walker<'a> {
    pub(super) fn new(
        segments: &'a BTreeMap<Offset, SegmentOnDisk>,
        cursor: Cursor,
        epoch_max: LeaderEpoch,
    ) -> Self {
        Self {
            segments,
            cursor,
            epoch: LeaderEpoch(0),
            epoch_max,
            window: Window::default(),
        }
    }

    /// The segment's file that the cursor is in.
    pub(super) fn here(&self) -> Option<&'a SegmentOnDisk> {
        self.segments.get(&self.cursor.segment)
    }

    /// Checks what stands at the cursor, and moves behind it if it is a batch.
    pub(super) fn step(&mut self) -> io::Result<Step> {
        let Some(segment) = self.here() else {
            return Ok(Step::End);
        };
        let left = segment.bytes.saturating_sub(self.cursor.position);
        if left == 0 {
            return Ok(Step::End);
        }
        let head = self.read(segment, left.min(HEADER_BYTES as u64))?;
        if head.len() < PREFIX_BYTES as usize || head[8..12] == [0; 4] {
            let nothing = head
                .iter()
                .take(PREFIX_BYTES as usize)
                .skip(8)
                .all(|byte| *byte == 0);
            return Ok(if nothing {
                Step::End
            } else {
                Step::Bad("a batch is cut short".into())
            });
        }
        let Some(header) = Header::read(&head) else {
            return Ok(Step::Bad("a batch's header is cut short".into()));
        };
        let expected = self.cursor.offset;
        let bad = match () {
            () if header.length() < LENGTH_MIN => Some("a batch's length is below the minimum"),
            () if header.size_bytes() as u64 > left => Some("a batch reaches beyond its file"),
            () if header.magic() != 2 => Some("a batch's magic number is not 2"),
            () if !header.is_placed() => Some("a batch's offset or leader epoch is negative"),
            () if header.leader_epoch() < self.epoch => Some("a batch's leader epoch falls"),
            () if header.leader_epoch() > self.epoch_max => {
                Some("a batch's leader epoch is above the partition's")
            }
            () => None,
        };
        if let Some(problem) = bad {
            return Ok(Step::Bad(problem.into()));
        }
        if header.base_offset() != expected {
            let found = header.base_offset();
            return Ok(Step::Bad(format!(
                "a batch has offset {found}; {expected} comes next"
            )));
        }
        let bytes = self.read(segment, header.size_bytes() as u64)?;
        if let Err(e) = Batch::split(bytes).and_then(|batch| batch.verify_crc()) {
            return Ok(Step::Bad(e.to_string()));
        }
        if header.next_offset() <= expected {
            return Ok(Step::Bad("a batch holds no offsets".into()));
        }
        self.cursor.position += header.size_bytes() as u64;
        self.cursor.offset = header.next_offset();
        self.epoch = header.leader_epoch();
        Ok(Step::Batch(header))
    }

    /// The next `count` bytes, fewer at the end of the file.
    pub(super) fn next(&self, count: u64) -> io::Result<Bytes> {
        let Some(segment) = self.here().filter(|_| count > 0) else {
            return Ok(Bytes::new());
        };
        let mut bytes = vec![0; usize::try_from(count).map_err(io::Error::other)?];
        let read = segment.file.read_at(&mut bytes, self.cursor.position);
        let read = read.map_err(self.cursor.unreadable())?;
        bytes.truncate(read);
        Ok(bytes.into())
    }

    /// How far behind the cursor the last byte that is not zero lies, in bytes.
    pub(super) fn unfinished_bytes(&self) -> io::Result<u64> {
        let Some(segment) = self.here() else {
            return Ok(0);
        };
        let (mut at, mut last) = (self.cursor.position, self.cursor.position);
        let mut buffer = vec![0; WINDOW_BYTES as usize];
        while at < segment.bytes {
            let step = (segment.bytes - at).min(WINDOW_BYTES) as usize;
            let here = Cursor {
                position: at,
                ..self.cursor
            };
            let read = segment.file.read_at(&mut buffer[..step], at);
            let read = read.map_err(here.unreadable())?;
            if read == 0 {
                break;
            }
            if let Some(index) = last_used(&buffer[..read]) {
                last = at + index as u64 + 1;
            }
            at += read as u64;
        }
        Ok(last - self.cursor.position)
    }

    /// `count` bytes at the cursor, fewer at the end of the file.
    fn read(&mut self, segment: &SegmentOnDisk, count: u64) -> io::Result<Bytes> {
        let Cursor {
            segment: base,
            position,
            ..
        } = self.cursor;
        let window = &self.window;
        let held = window.start..window.start + window.bytes.len() as u64;
        let inside =
            window.segment == base && held.start <= position && position + count <= held.end;
        if !inside {
            let want = count.max(WINDOW_BYTES).min(segment.bytes - position);
            let mut bytes = vec![0; want as usize];
            let read = segment.file.read_at(&mut bytes, position);
            let read = read.map_err(self.cursor.unreadable())?;
            bytes.truncate(read);
            self.window = Window {
                segment: base,
                start: position,
                bytes: bytes.into(),
            };
        }
        let from = (position - self.window.start) as usize;
        let to = (from + count as usize).min(self.window.bytes.len());
        Ok(self.window.bytes.slice(from..to))
    }
}

/// The place of the last byte that is not zero. Up to 32 MiB of zeros are allocated behind each log's
/// end, so that this decides how long a start after a kill takes: blocks are compared as wholes, by
/// `memcmp`, and only the one with the byte is looked at byte by byte.
fn last_used(bytes: &[u8]) -> Option<usize> {
    static ZEROS: [u8; 4096] = [0; 4096];
    let mut end = bytes.len();
    while end > 0 {
        let start = end.saturating_sub(ZEROS.len());
        let block = &bytes[start..end];
        if block != &ZEROS[..block.len()] {
            let index = block.iter().rposition(|byte| *byte != 0);
            return index.map(|index| start + index);
        }
        end = start;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::last_used;

    #[test]
    fn the_last_byte_that_is_not_zero_is_found_wherever_it_lies() {
        for length in [0, 1, 4095, 4096, 4097, 10_000] {
            let mut bytes = vec![0; length];
            assert_eq!(last_used(&bytes), None, "{length}");
            for at in [0, 1, 903, 1808, 4095, 4096, 5904, 5905, 9_999] {
                if at < length {
                    bytes[at] = 1;
                    assert_eq!(last_used(&bytes), Some(at), "{length}");
                }
            }
        }
    }
}
