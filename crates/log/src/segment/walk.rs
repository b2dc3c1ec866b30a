//! Walking the batches of a segment by their headers.
//!
//! Offsets and lengths are in no checksum, so each header is checked against its surroundings: the
//! offsets are contiguous, the lengths stay inside of the segment.

use std::{
    io,
    ops::Range,
    sync::{Arc, LazyLock},
};

use bytes::Bytes;
use sapwood_model::Offset;
use sapwood_record::{Batch, CRC_START, HEADER_BYTES, Header, crc32c};

use super::Passage;
use crate::{
    buffers::BufferPool,
    io::{File, TailReader},
    partition::ReadMode,
    sums::{Block, Noted, with_crc},
};

/// Magic of the only batch version that is written.
const MAGIC: u8 = 2;

/// What is read from files passes through these, in all stores of the process. They are lent for as
/// long as a reader holds what it got.
static READ_BUFFERS: LazyLock<Arc<BufferPool>> = LazyLock::new(|| BufferPool::new(8 << 20));

/// Where the bytes of a segment come from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// The tail of an open segment. When it is `mapped`, a range costs nothing, whatever its size.
    Tail {
        reader: Arc<dyn TailReader>,
        mapped: bool,
    },
    /// Positional reads, below the end of the batches. Of a sealed segment it is known which offset
    /// they end with (exclusive). Where the file is mapped all the same, what is in memory is taken from
    /// the mapping, without a copy. Blocks that were noted are held against what was noted before
    /// anything in them is believed.
    File {
        file: Arc<dyn File>,
        mapped: Option<Arc<dyn TailReader>>,
        end: u64,
        end_offset: Option<Offset>,
        noted: Arc<Noted>,
        /// Of a sealed segment.
        passage: Option<Arc<Passage>>,
    },
}

impl Source {
    /// Where the batches end.
    pub(crate) fn end(&self) -> u64 {
        match self {
            Self::Tail { reader, .. } => reader.end(),
            Self::File { end, .. } => *end,
        }
    }

    /// The bytes of a range below the end; `None` when they are not in memory and `mode` says not to
    /// wait.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file is shorter than it was, and what the disk reports.
    pub(crate) fn bytes(&self, range: Range<u64>, mode: ReadMode) -> io::Result<Option<Bytes>> {
        match self {
            Self::Tail { reader, .. } => reader.bytes(range).map(Some),
            Self::File {
                mapped: Some(reader),
                ..
            } if reader.is_resident(range.clone()) => reader.bytes(range).map(Some),
            Self::File { file, passage, .. } => {
                let wanted = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
                let mut buffer = READ_BUFFERS.take(wanted);
                let mut read = match mode {
                    // Nobody asks how it was read.
                    ReadMode::Blocking if passage.is_none() => None,
                    _ => file.read_resident_at(buffer.bytes_mut(), range.start)?,
                };
                let waited = read.is_none();
                if waited && mode == ReadMode::Blocking {
                    read = Some(file.read_at(buffer.bytes_mut(), range.start)?);
                }
                if read.is_some()
                    && let Some(behind) = passage.as_ref().and_then(|way| way.read(&range, waited))
                {
                    file.give_up(behind);
                }
                match read {
                    None => Ok(None),
                    Some(read) if read == wanted => Ok(Some(buffer.freeze())),
                    Some(_) => Err(io::ErrorKind::UnexpectedEof.into()),
                }
            }
        }
    }
}

/// Why a walk ended before its time.
#[derive(Debug)]
pub(crate) enum WalkError {
    /// Not in memory, and the walk may not wait.
    Cold,
    /// The first batch is not the one that the index names.
    WrongIndex,
    /// The segment has another file since it was compacted: look again at what there is.
    Replaced,
    /// The bytes at `position` are not the batch that starts with the offset `expected`.
    Damage {
        position: u64,
        expected: Offset,
        problem: String,
    },
    Io(io::Error),
}

impl From<io::Error> for WalkError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What is known of the batch that a walk begins with.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expected {
    /// Its base offset.
    Base(Offset),
    /// Its last offset, from an index.
    Last(Offset),
}

/// Goes from batch to batch. Holds a window of the segment: all of it when it is mapped, otherwise a
/// buffer.
#[derive(Debug)]
pub(crate) struct Walker<'s> {
    source: &'s Source,
    mode: ReadMode,
    /// Where the batches of this walk end. Behind it may be others, which are not looked at.
    end: u64,
    position: u64,
    expected: Expected,
    /// Below it, the blocks from where the walk began on hold what was noted.
    checked_to: u64,
    /// The batch before: where it starts, and its base offset.
    previous: Option<(u64, Offset)>,
    window: Bytes,
    window_start: u64,
    window_bytes: u64,
}

impl<'s> Walker<'s> {
    /// Begins at the batch at `position`. Reads `window_bytes` at a time where it has to read.
    pub(crate) fn new(
        source: &'s Source,
        position: u64,
        expected: Expected,
        window_bytes: u64,
        mode: ReadMode,
    ) -> Self {
        Self {
            source,
            mode,
            end: source.end(),
            position,
            expected,
            checked_to: position,
            previous: None,
            window: Bytes::new(),
            window_start: position,
            window_bytes: window_bytes.max(HEADER_BYTES as u64),
        }
    }

    /// Where the next batch starts.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Whether no batch is left in the segment.
    pub(crate) fn at_end(&self) -> bool {
        self.position >= self.end
    }

    /// The checked header of the next batch, which stays the next one. Not to be called at the end.
    pub(crate) fn peek(&mut self) -> Result<Header, WalkError> {
        debug_assert!(!self.at_end(), "the caller asks at_end first");
        if self.end - self.position < HEADER_BYTES as u64 {
            if matches!(self.expected, Expected::Last(_)) {
                return Err(WalkError::WrongIndex);
            }
            return Err(self.damage("the segment ends inside of a batch's header".into()));
        }
        self.check_noted()?;
        self.cover(self.position..self.position + HEADER_BYTES as u64)?;
        let start = self.in_window(self.position);
        let header = Header::read(&self.window[start..]).expect("the window covers the header");
        self.check(&header)?;
        Ok(header)
    }

    /// Goes on to the batch behind the one whose header [`Walker::peek`] gave.
    pub(crate) fn skip(&mut self, header: &Header) {
        self.previous = Some((self.position, header.base_offset()));
        self.position += header.size_bytes() as u64;
        self.expected = Expected::Base(header.next_offset());
    }

    /// Reads ahead so that everything up to `end` comes in one piece.
    pub(crate) fn prefetch(&mut self, end: u64) -> Result<(), WalkError> {
        self.cover(self.position..end.clamp(self.position, self.end))
    }

    /// The bytes of a range below the end, as a piece of the window where it has them.
    pub(crate) fn bytes(&mut self, range: Range<u64>) -> Result<Bytes, WalkError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        self.cover(range.clone())?;
        Ok(self
            .window
            .slice(self.in_window(range.start)..self.in_window(range.end)))
    }

    /// Holds the block that the next batch is in against what was noted, unless it was done before.
    fn check_noted(&mut self) -> Result<(), WalkError> {
        let source = self.source;
        let Source::File { noted, .. } = source else {
            return Ok(());
        };
        if self.position < self.checked_to {
            return Ok(());
        }
        let Some((number, block)) = noted.block_at(self.position) else {
            self.checked_to = u64::MAX;
            return Ok(());
        };
        self.checked_to = block.range.end;
        if noted.is_checked(number) {
            return Ok(());
        }
        let headers = block.range.start..block.range.start + block.header_bytes();
        let window = self.window_start..self.window_start + self.window.len() as u64;
        let bytes = if window.start <= headers.start && headers.end <= window.end {
            self.window
                .slice(self.in_window(headers.start)..self.in_window(headers.end))
        } else if headers.start == self.position {
            self.bytes(headers)?
        } else {
            match source.bytes(headers, self.mode) {
                Ok(Some(bytes)) => bytes,
                Ok(None) => return Err(WalkError::Cold),
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(self.damage("the file is shorter than its batches".into()));
                }
                Err(e) => return Err(e.into()),
            }
        };
        if !block.holds(&bytes) {
            if self.mode == ReadMode::Resident {
                return Err(WalkError::Cold); // finding out what is wrong has to wait for the disk
            }
            if let Some(error) = wrong_in(source, &block, self.expected) {
                return Err(error);
            }
        }
        noted.set_checked(number);
        Ok(())
    }

    /// Makes the window hold at least this range, which is below the end.
    fn cover(&mut self, range: Range<u64>) -> Result<(), WalkError> {
        let window_end = self.window_start + self.window.len() as u64;
        if self.window_start <= range.start && range.end <= window_end {
            return Ok(());
        }
        let wanted = match self.source {
            Source::Tail { mapped: true, .. } => self.end,
            _ => range.start.saturating_add(self.window_bytes),
        };
        let end = range.end.max(wanted.min(self.end));
        match self.source.bytes(range.start..end, self.mode) {
            Ok(Some(bytes)) => self.window = bytes,
            Ok(None) => return Err(WalkError::Cold),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(self.damage("the file is shorter than its batches".into()));
            }
            Err(e) => return Err(e.into()),
        }
        self.window_start = range.start;
        Ok(())
    }

    fn in_window(&self, position: u64) -> usize {
        usize::try_from(position - self.window_start).expect("a window fits memory")
    }

    fn check(&self, header: &Header) -> Result<(), WalkError> {
        if let Expected::Last(last) = self.expected
            && (header.last_offset() != last || !self.is_sound(header))
        {
            return Err(WalkError::WrongIndex);
        }
        if let Expected::Base(base) = self.expected
            && header.base_offset() != base
        {
            let found = header.base_offset();
            return Err(self.damage(format!(
                "a batch of offset {base} should be there, not {found}"
            )));
        }
        if !self.is_sound(header) {
            let (length, magic) = (header.length(), header.magic());
            return Err(self.damage(format!(
                "no batch has length {length}, magic {magic}, {} offsets and {} records there",
                i64::from(header.last_offset_delta()) + 1,
                header.records_count(),
            )));
        }
        Ok(())
    }

    /// What holds for each batch, wherever it is.
    fn is_sound(&self, header: &Header) -> bool {
        header.magic() == MAGIC
            && header.is_placed()
            && header.size_bytes() >= HEADER_BYTES
            && header.size_bytes() as u64 <= self.end - self.position
            && self.ends_soundly(header)
            && header.is_counted()
            // A batch without records is its header alone, so that no flipped bit makes one of another.
            && (header.records_count() > 0 || header.size_bytes() == HEADER_BYTES)
    }

    /// The last batch of a sealed segment ends with it.
    fn ends_soundly(&self, header: &Header) -> bool {
        let Source::File {
            end_offset: Some(end_offset),
            ..
        } = self.source
        else {
            return true;
        };
        let ends_here = header.size_bytes() as u64 == self.end - self.position;
        ends_here == (header.next_offset() == *end_offset)
    }

    /// The next batch is not what it has to be, or the one before it says wrongly where it ends.
    pub(crate) fn damage(&self, problem: String) -> WalkError {
        if let Some((position, expected)) = self.previous
            && let Ok(Some(bytes)) = self.source.bytes(position..self.position, self.mode)
            && let Err(error) = Batch::split(bytes).and_then(|batch| batch.verify_crc())
        {
            return WalkError::Damage {
                position,
                expected,
                problem: format!("{error}; behind it, {problem}"),
            };
        }
        let expected = match self.expected {
            Expected::Base(offset) | Expected::Last(offset) => offset,
        };
        WalkError::Damage {
            position: self.position,
            expected,
            problem,
        }
    }
}

/// Why a block's headers do not have the sum that was noted, and where. `None`: all that is wrong is the
/// checksum of batches that are the right ones, which is for whoever reads them to find.
fn wrong_in(source: &Source, block: &Block, asked: Expected) -> Option<WalkError> {
    let Range { start, end } = block.range;
    let mode = ReadMode::Blocking;
    let mut expected = None;
    let mut asked = match asked {
        Expected::Base(offset) | Expected::Last(offset) => offset,
    };
    let mut headers = Vec::new();
    let mut damaged: Option<(u64, Offset, String)> = None;
    let mut at = start;
    while at < end {
        let head = source.bytes(at..end.min(at + HEADER_BYTES as u64), mode);
        let header = head.ok().flatten().and_then(|bytes| Header::read(&bytes));
        let sound = header.filter(|header| {
            let base = header.base_offset();
            header.size_bytes() as u64 <= end - at
                && header.size_bytes() >= HEADER_BYTES
                && header.is_placed()
                && expected.is_none_or(|expected| base == expected)
        });
        let bytes = sound.map(|header| source.bytes(at..at + header.size_bytes() as u64, mode));
        let (Some(mut header), Some(Ok(Some(bytes)))) = (sound, bytes) else {
            let (at, offset, problem) = damaged.unwrap_or((
                at,
                expected.unwrap_or(asked),
                "no batch that follows the one before it is there".to_owned(),
            ));
            return Some(WalkError::Damage {
                position: at,
                expected: offset,
                problem,
            });
        };
        let base = header.base_offset();
        asked = asked.min(base);
        if let Err(error) = Batch::split(bytes.clone()).and_then(|batch| batch.verify_crc()) {
            damaged.get_or_insert((at, base, error.to_string()));
            header = with_crc(&header, crc32c(&[&bytes[CRC_START..]]));
        }
        expected = Some(header.next_offset());
        at += header.size_bytes() as u64;
        headers.push(header);
    }
    if block.is_sum_of(&headers) {
        return None;
    }
    let (position, expected, problem) = damaged.unwrap_or((start, asked, block.describe()));
    Some(WalkError::Damage {
        position,
        expected,
        problem,
    })
}
