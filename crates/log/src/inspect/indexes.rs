//! A segment's index files, held against its batches.

use std::{io, ops::Range, path::Path};

use sapwood_model::Offset;
use sapwood_record::Header;

use crate::{
    index::{OFFSET_ENTRY_BYTES, TIME_ENTRY_BYTES, record_time},
    io::{Disk, OpenMode},
    names,
    segment::SegmentKey,
    sums::{Block, HeaderSums, SumCheck},
};

/// Twice the size at which a segment is rolled because of an index: more is not read.
const INDEX_BYTES_MAX: u64 = 20 << 20;

/// How much of the index files must be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of both: the segment was sealed.
    Whole,
    /// As many entries as a checkpoint counted; what follows was not synced.
    Counted { offsets: u64, times: u64 },
    /// Nothing: the next start makes them anew.
    Nothing,
}

/// What the index files and the sums of a segment say, checked batch by batch. The first thing that is
/// wrong with each is kept.
#[derive(Debug)]
pub(super) struct IndexCheck {
    base: Offset,
    offsets: Entries<(u32, u32)>,
    times: Entries<(i64, u32)>,
    /// The largest timestamp so far; below 0 there is none.
    latest: i64,
    sums: SumCheck,
    sums_problem: Option<String>,
    /// A block whose batches were never appended there, and their offsets.
    foreign: Option<(Block, Range<Offset>)>,
}

/// One file's entries that were not met yet.
#[derive(Debug)]
struct Entries<T> {
    entries: Vec<T>,
    next: usize,
    problem: Option<(u64, String)>,
}

impl IndexCheck {
    pub(super) fn read(disk: &dyn Disk, folder: &Path, base: Offset, extent: Extent) -> Self {
        let (offsets, times) = match extent {
            Extent::Whole => (None, None),
            Extent::Counted { offsets, times } => (Some(offsets), Some(times)),
            Extent::Nothing => (Some(0), Some(0)),
        };
        let index = folder.join(names::index_file_name(base));
        let time_index = folder.join(names::time_index_file_name(base));
        Self {
            base,
            offsets: Entries::read(
                disk,
                &index,
                offsets,
                |&[r0, r1, r2, r3, p0, p1, p2, p3]| {
                    (
                        u32::from_be_bytes([r0, r1, r2, r3]),
                        u32::from_be_bytes([p0, p1, p2, p3]),
                    )
                },
            ),
            times: Entries::read(
                disk,
                &time_index,
                times,
                |entry: &[u8; TIME_ENTRY_BYTES]| {
                    let [timestamp @ .., r0, r1, r2, r3] = *entry;
                    (
                        i64::from_be_bytes(timestamp),
                        u32::from_be_bytes([r0, r1, r2, r3]),
                    )
                },
            ),
            latest: -1,
            sums: SumCheck::default(),
            sums_problem: None,
            foreign: None,
        }
    }

    /// Reads the sums as well, up to `end` of the segment's batches.
    pub(super) fn read_sums(
        &mut self,
        disk: &dyn Disk,
        folder: &Path,
        owner: SegmentKey,
        end: u64,
    ) {
        match HeaderSums::load(disk, folder, owner, end) {
            Ok(Some(sums)) => self.sums = SumCheck::new(&sums),
            Ok(None) => {
                let problem = "it is missing, damaged, or another segment's";
                self.sums_problem = Some(problem.to_owned());
            }
            Err(error) => self.sums_problem = Some(format!("it cannot be read: {error}")),
        }
    }

    /// The entries that are looked at, of the offset index and of the time index.
    pub(super) fn counts(&self) -> (u64, u64) {
        (
            self.offsets.entries.len() as u64,
            self.times.entries.len() as u64,
        )
    }

    /// Goes on with the next batch, which starts at `position`.
    pub(super) fn batch(&mut self, header: &Header, position: u64) {
        if let Err((block, first)) = self.sums.batch(header, position) {
            self.foreign = Some((block, first..header.next_offset()));
        }
        let last = header.last_offset().0.saturating_sub(self.base.0);
        if let Some((relative, at)) = self.offsets.peek()
            && u64::from(at) <= position
        {
            let right = u64::from(at) == position && u64::from(relative) == last;
            self.offsets.met(right, OFFSET_ENTRY_BYTES, || {
                format!(
                    "an entry names offset {relative} at byte {at}, where no batch ends with it"
                )
            });
        }
        let timestamp = record_time(header).0;
        let raises = timestamp >= 0 && timestamp > self.latest;
        self.latest = self.latest.max(timestamp);
        if let Some((at, relative)) = self.times.peek()
            && u64::from(relative) <= last
        {
            let right = raises && at == timestamp && u64::from(relative) == last;
            self.times.met(right, TIME_ENTRY_BYTES, || {
                format!("an entry names offset {relative} as the first with the timestamp {at}")
            });
        }
    }

    /// Nobody is told of sums that could not be read.
    pub(super) fn forgive_sums(&mut self) {
        self.sums_problem = None;
    }

    /// The first block of batches that are not the ones that were appended there, and their offsets.
    pub(super) fn take_foreign(&mut self) -> Option<(Block, Range<Offset>)> {
        self.foreign.take()
    }

    /// What is wrong: file, position, problem. `complete`: every batch of the segment was met, so
    /// that an entry which is left over names none.
    pub(super) fn finish(mut self, complete: bool) -> Vec<(String, u64, String)> {
        if complete {
            self.offsets.left_over(OFFSET_ENTRY_BYTES);
            self.times.left_over(TIME_ENTRY_BYTES);
        }
        let index = self
            .offsets
            .problem
            .map(|at| (names::index_file_name(self.base), at));
        let times = self
            .times
            .problem
            .map(|at| (names::time_index_file_name(self.base), at));
        let sums = self
            .sums_problem
            .map(|problem| (names::sums_file_name(self.base), (0, problem)));
        let problems = index.into_iter().chain(times).chain(sums);
        problems
            .map(|(name, (position, problem))| (name, position, problem))
            .collect()
    }
}

impl<T: Copy> Entries<T> {
    /// Reads `count` entries, or all of them.
    fn read<const N: usize>(
        disk: &dyn Disk,
        path: &Path,
        count: Option<u64>,
        decode: impl Fn(&[u8; N]) -> T,
    ) -> Self {
        let mut entries = Self {
            entries: Vec::new(),
            next: 0,
            problem: None,
        };
        if count == Some(0) {
            return entries;
        }
        let bytes = match read_whole(disk, path) {
            Ok(bytes) => bytes,
            Err(error) => {
                entries.problem = Some((0, format!("it cannot be read: {error}")));
                return entries;
            }
        };
        let (chunks, rest) = bytes.as_chunks::<N>();
        let wanted = count.map_or(chunks.len(), |count| {
            usize::try_from(count).unwrap_or(usize::MAX)
        });
        if chunks.len() < wanted {
            let problem = format!("it has {} entries; {wanted} were synced", chunks.len());
            entries.problem = Some((bytes.len() as u64, problem));
        } else if count.is_none() && !rest.is_empty() {
            let problem = format!("it ends with {} bytes that are no entry", rest.len());
            entries.problem = Some(((bytes.len() - rest.len()) as u64, problem));
        }
        entries.entries = chunks.iter().take(wanted).map(decode).collect();
        entries
    }

    fn peek(&self) -> Option<T> {
        if self.problem.is_some() {
            None
        } else {
            self.entries.get(self.next).copied()
        }
    }

    /// The next entry was compared with its batch.
    fn met(&mut self, right: bool, entry_bytes: usize, problem: impl FnOnce() -> String) {
        if right {
            self.next += 1;
        } else {
            self.problem = Some(((self.next * entry_bytes) as u64, problem()));
        }
    }

    fn left_over(&mut self, entry_bytes: usize) {
        if self.peek().is_some() {
            let problem = "an entry names what lies behind the segment's last batch".into();
            self.problem = Some(((self.next * entry_bytes) as u64, problem));
        }
    }
}

fn read_whole(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, OpenMode::Read)?;
    let length = file.len()?;
    if length > INDEX_BYTES_MAX {
        let problem = format!("it has {length} bytes; the limit is {INDEX_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}
