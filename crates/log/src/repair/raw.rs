//! A segment's file as it is, damage and all: which bytes of it are a batch that checks.

use std::{collections::BTreeMap, io, ops::Range, path::PathBuf, sync::Arc};

use sapwood_model::Offset;
use sapwood_record::{CRC_START, Crc32c, HEADER_BYTES, Header, LENGTH_POSITION};

use crate::io::{Disk, File, OpenMode};

const WINDOW_BYTES: u64 = 1 << 20;
/// What is given up around a place that the disk cannot read.
const SECTOR_BYTES: usize = 4096;
/// Where the bytes begin that a batch's length counts.
const BODY_START: u64 = 12;
/// A header without records.
const LENGTH_MIN: u32 = (HEADER_BYTES - 12) as u32;
const MAGIC_POSITION: usize = 16;

/// One file. What the disk cannot read of it reads as zeros, which are no batch.
#[derive(Debug)]
pub(super) struct Raw {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    /// Some of it could not be read.
    pub(super) unreadable: bool,
    /// What stands there was never appended here: it holds no batch.
    pub(super) foreign: Vec<Range<u64>>,
    file: Option<Arc<dyn File>>,
    window: Vec<u8>,
    window_start: u64,
}

impl Raw {
    /// Opens a file; one that cannot be opened holds nothing.
    pub(super) fn open(disk: &dyn Disk, path: PathBuf) -> Self {
        let opened = disk.open(&path, OpenMode::Read);
        let (file, bytes) = match opened.and_then(|file| Ok((file.len()?, file))) {
            Ok((bytes, file)) => (Some(file), bytes),
            Err(_) => (None, 0),
        };
        Self {
            path,
            bytes,
            unreadable: file.is_none(),
            foreign: Vec::new(),
            file,
            window: Vec::new(),
            window_start: 0,
        }
    }

    /// The header of a batch at `position` that is whole and whose checksum is right. Its offset and its
    /// leader epoch are in no checksum, and are the caller's to judge.
    pub(super) fn batch_at(&mut self, position: u64) -> Option<Header> {
        self.body_at(position)
            .filter(|header| header.magic() == 2 && header.base_offset().0 < 1 << 62)
    }

    /// As [`Raw::batch_at`], for a batch whose magic and offset may be wrong as well.
    pub(super) fn body_at(&mut self, position: u64) -> Option<Header> {
        let header = Header::read(self.read(position, HEADER_BYTES as u64))?;
        let fits = header.length() >= LENGTH_MIN
            && position + header.size_bytes() as u64 <= self.bytes
            && holds_offsets(&header);
        let end = position + header.size_bytes() as u64;
        (fits && self.checks(&header, position, end)).then_some(header)
    }

    /// The header of a batch that fills the whole range by its checksum, whatever its length says.
    pub(super) fn body_between(&mut self, range: Range<u64>) -> Option<Header> {
        let header = Header::read(self.read(range.start, HEADER_BYTES as u64))?;
        let fits = range.end >= range.start + HEADER_BYTES as u64
            && range.end <= self.bytes
            && holds_offsets(&header);
        (fits && self.checks(&header, range.start, range.end)).then_some(header)
    }

    /// A header at `position` whose batch would lie inside of the file, whatever its checksum and its
    /// magic say, and the checksum that its bytes have.
    pub(super) fn header_at(&mut self, position: u64) -> Option<(Header, u32)> {
        let header = Header::read(self.read(position, HEADER_BYTES as u64))?;
        let end = position + header.size_bytes() as u64;
        let fits = header.length() >= LENGTH_MIN && end <= self.bytes && holds_offsets(&header);
        let crc = fits.then(|| self.crc_of(position, end)).flatten()?;
        Some((header, crc))
    }

    /// Whether what stands there is another log's.
    pub(super) fn is_foreign(&self, position: u64) -> bool {
        self.foreign.iter().any(|range| range.contains(&position))
    }

    /// Whether the file has no batch from here on: its end, or a length word of zero.
    pub(super) fn ends_at(&mut self, position: u64) -> bool {
        let head = self.read(position, BODY_START);
        match head.get(LENGTH_POSITION..BODY_START as usize) {
            None => head.iter().all(|byte| *byte == 0),
            Some(word) => word.iter().all(|byte| *byte == 0),
        }
    }

    /// Where, from `position` on, the last byte is that is not zero, exclusive.
    pub(super) fn content_end(&mut self, position: u64) -> u64 {
        let (mut at, mut last) = (position, position);
        while at < self.bytes {
            let piece = self.read(at, 1);
            if piece.is_empty() {
                break;
            }
            let length = piece.len() as u64;
            if let Some(index) = piece.iter().rposition(|byte| *byte != 0) {
                last = at + index as u64 + 1;
            }
            at += length;
        }
        last
    }

    /// The first place from `from` on where a batch stands that checks, begins with one of `offsets`,
    /// and is followed by the next batch or by nothing. A batch inside of another one's records, which a
    /// client may have sent, is not followed by either.
    pub(super) fn find(&mut self, from: u64, offsets: &Range<Offset>) -> Option<(u64, Header)> {
        let mut at = from;
        while at + HEADER_BYTES as u64 <= self.bytes {
            let window = self.read(at, HEADER_BYTES as u64);
            let last = window.len().checked_sub(HEADER_BYTES)?;
            let candidate = (0..=last).find(|start| {
                let head = &window[*start..];
                head[MAGIC_POSITION] == 2
                    && Header::read(head)
                        .is_some_and(|header| offsets.contains(&header.base_offset()))
            });
            let Some(start) = candidate else {
                at += last as u64 + 1;
                continue;
            };
            let position = at + start as u64;
            if let Some(header) = self.batch_at(position) {
                let end = position + header.size_bytes() as u64;
                let follows = |next: Header| next.base_offset() == header.next_offset();
                if self.ends_at(end) || self.batch_at(end).is_some_and(follows) {
                    return Some((position, header));
                }
            }
            at = position + 1;
        }
        None
    }

    fn checks(&mut self, header: &Header, position: u64, end: u64) -> bool {
        !self.is_foreign(position) && self.crc_of(position, end) == Some(header.crc())
    }

    /// Piece by piece: a length that is wrong must not take its size in memory.
    fn crc_of(&mut self, position: u64, end: u64) -> Option<u32> {
        let mut crc = Crc32c::new();
        let mut at = position + CRC_START as u64;
        while at < end {
            let piece = self.read(at, 1);
            let count = piece
                .len()
                .min(usize::try_from(end - at).unwrap_or(usize::MAX));
            if count == 0 {
                return None;
            }
            crc.update(&piece[..count]);
            at += count as u64;
        }
        Some(crc.finish())
    }

    /// At least `least` bytes at `position`, fewer at the end of the file.
    fn read(&mut self, position: u64, least: u64) -> &[u8] {
        let held = self.window_start..self.window_start + self.window.len() as u64;
        let least = least.min(self.bytes.saturating_sub(position));
        if !(held.start <= position && position + least <= held.end) {
            let wanted = least
                .max(WINDOW_BYTES)
                .min(self.bytes.saturating_sub(position));
            self.window = vec![0; usize::try_from(wanted).unwrap_or(0)];
            self.window_start = position;
            if let Some(file) = &self.file {
                self.unreadable |= !read_what_can_be(&**file, &mut self.window, position);
            }
        }
        let from = usize::try_from(position.saturating_sub(self.window_start)).unwrap_or(0);
        self.window.get(from..).unwrap_or_default()
    }
}

/// Files that bear each other's names get their own back: what a file begins with says which one it is.
pub(super) fn exchange(raws: &mut BTreeMap<Offset, Raw>) {
    // The second batch is asked, too: the offset of one alone may be what is damaged.
    let begins: BTreeMap<Offset, Option<(Offset, bool)>> = raws
        .iter_mut()
        .map(|(slot, raw)| {
            let first = raw.batch_at(0);
            let found = first.map(|header| {
                let follows = |next: Header| next.base_offset() == header.next_offset();
                let next = raw.batch_at(header.size_bytes() as u64);
                (header.base_offset(), next.is_some_and(follows))
            });
            (*slot, found)
        })
        .collect();
    let is_free = |slot: &Offset, sure: bool| match begins.get(slot) {
        None => sure,
        Some(found) => found.is_none_or(|(base, _)| base != *slot),
    };
    let mut owners: BTreeMap<Offset, Offset> = BTreeMap::new();
    for (slot, found) in &begins {
        if let Some((base, sure)) = found
            && base != slot
            && is_free(base, *sure)
        {
            owners.entry(*base).or_insert(*slot);
        }
    }
    let moved: Vec<(Offset, Raw)> = owners
        .iter()
        .filter_map(|(to, from)| Some((*to, raws.remove(from)?)))
        .collect();
    raws.extend(moved);
}

/// Fills `buf` from the file, with zeros for what cannot be read. False when there is such a place.
pub(super) fn read_what_can_be(file: &dyn File, buf: &mut [u8], position: u64) -> bool {
    if read_exact(file, buf, position).is_ok() {
        return true;
    }
    let mut whole = true;
    let mut at = position;
    let mut rest = buf;
    while !rest.is_empty() {
        let in_sector = SECTOR_BYTES - (at % SECTOR_BYTES as u64) as usize;
        let (piece, behind) = rest.split_at_mut(in_sector.min(rest.len()));
        if read_exact(file, piece, at).is_err() {
            piece.fill(0);
            whole = false;
        }
        at += piece.len() as u64;
        rest = behind;
    }
    whole
}

fn read_exact(file: &dyn File, buf: &mut [u8], position: u64) -> io::Result<()> {
    match file.read_at(buf, position)? {
        read if read == buf.len() => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn holds_offsets(header: &Header) -> bool {
    let (delta, records) = (header.last_offset_delta(), header.records_count());
    delta >= 0 && i64::from(records) <= i64::from(delta) + 1
}
