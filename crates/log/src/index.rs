//! A segment's offset index and time index, in Kafka's form, and the sums beside them.
//!
//! Both indexes are sparse. Neither is trusted: what is looked up is the place to start walking batches
//! from, and a batch that is not what the index says makes the index wrong, not the log.
//! The byte tables are in docs/format.md.

use std::{io, path::Path, sync::Arc};

use sapwood_model::{Offset, Timestamp};
use sapwood_record::Header;

use crate::{
    io::{Disk, File, OpenMode, is_of_the_device},
    names,
    segment::SegmentKey,
    sums::{HeaderSums, SUM_ENTRY_BYTES},
};

/// One entry of a `.index` file: relative offset i32, position i32, big-endian.
pub(crate) const OFFSET_ENTRY_BYTES: usize = 8;
/// One entry of a `.timeindex` file: timestamp i64, relative offset i32, big-endian.
pub(crate) const TIME_ENTRY_BYTES: usize = 12;
/// Kafka's `segment.index.bytes`: a segment whose index is full is rolled.
const INDEX_BYTES_MAX: usize = 10 << 20;

const _: () = assert!(OFFSET_ENTRY_BYTES == 2 * size_of::<u32>());
const _: () = assert!(TIME_ENTRY_BYTES == size_of::<i64>() + size_of::<u32>());

/// A batch that the offset index knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    /// The last offset of the batch (inclusive).
    pub(crate) last_offset: Offset,
    /// Where the batch starts in the segment's file.
    pub(crate) position: u64,
}

/// A batch that the time index knows: the first one that carries this timestamp or a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeEntry {
    /// The largest timestamp up to and including the batch.
    pub(crate) timestamp: Timestamp,
    /// The last offset of the batch (inclusive).
    pub(crate) last_offset: Offset,
}

/// The largest timestamp of a batch's records: none where compaction has left none, whatever the batch had
/// before.
pub(crate) fn record_time(header: &Header) -> Timestamp {
    match header.records_count() {
        0 => Timestamp::NONE,
        _ => header.max_timestamp(),
    }
}

/// How many entries of each file there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct IndexCounts {
    pub(crate) offsets: u64,
    pub(crate) times: u64,
    /// Blocks of the [`HeaderSums`].
    pub(crate) sums: u64,
}

/// The indexes of one segment, in memory: 8 bytes for each 4 KiB of log by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentIndex {
    owner: SegmentKey,
    interval_bytes: u64,
    /// Relative last offset and position, both strictly rising.
    offsets: Vec<(u32, u32)>,
    /// Timestamp and relative last offset, both strictly rising.
    times: Vec<(i64, u32)>,
    /// The largest timestamp so far and the relative last offset of the batch that brought it.
    latest: Option<(i64, u32)>,
    sums: HeaderSums,
}

impl SegmentIndex {
    /// The index of a segment without batches. An entry is made for the first batch that starts more
    /// than `interval_bytes` behind the last entry's.
    pub(crate) fn new(owner: SegmentKey, interval_bytes: u64) -> Self {
        Self {
            owner,
            interval_bytes,
            offsets: Vec::new(),
            times: Vec::new(),
            latest: None,
            sums: HeaderSums::default(),
        }
    }

    /// Takes note of the next batch of the segment, which starts at `position`.
    ///
    /// # Panics
    /// When the batch is not the segment's: an offset or a position that does not fit an entry. The
    /// segment is rolled before that.
    pub(crate) fn push(&mut self, header: &Header, position: u64) {
        let relative = self.relative(header.last_offset());
        let timestamp = record_time(header).0;
        // Below 0 there is only Kafka's "no timestamp", which nobody looks up.
        if timestamp >= 0 && self.latest.is_none_or(|(latest, _)| timestamp > latest) {
            self.latest = Some((timestamp, relative));
        }
        self.sums.push(header, position, self.latest);
        // Kafka's rule: the entry is due once more than the interval lies behind the last one, and
        // it names the batch that is appended then.
        let last_position = self
            .offsets
            .last()
            .map_or(0, |&(_, position)| u64::from(position));
        if position - last_position > self.interval_bytes {
            let position = u32::try_from(position).expect("a segment stays below 2 GiB");
            self.offsets.push((relative, position));
            self.push_latest_time();
        }
    }

    /// Makes the largest timestamp so far the last entry of the time index and ends the block of sums,
    /// as it is done when a segment is sealed and when a checkpoint counts the entries: what follows can
    /// then be built on the entries alone.
    pub(crate) fn complete(&mut self) {
        self.push_latest_time();
        self.sums.close();
    }

    fn push_latest_time(&mut self) {
        if let Some(latest) = self.latest
            && self.times.last().is_none_or(|last| latest.0 > last.0)
        {
            self.times.push(latest);
        }
    }

    /// Whether Kafka would roll the segment because an index file has reached its size.
    pub(crate) fn is_full(&self) -> bool {
        (self.offsets.len() + 1) * OFFSET_ENTRY_BYTES > INDEX_BYTES_MAX
            // One entry is kept free for the seal.
            || (self.times.len() + 2) * TIME_ENTRY_BYTES > INDEX_BYTES_MAX
            || (self.sums.len() + 8) * SUM_ENTRY_BYTES > INDEX_BYTES_MAX
    }

    /// The last known batch whose last offset is not above `offset`. `None`: start at position 0.
    pub(crate) fn lookup(&self, offset: Offset) -> Option<IndexEntry> {
        let relative = offset.0.checked_sub(self.owner.base_offset.0)?;
        let at_or_below = self
            .offsets
            .partition_point(|&(last, _)| u64::from(last) <= relative);
        self.offset_entry(at_or_below.checked_sub(1)?)
    }

    /// The last entry whose timestamp is not above `at`: no batch before the one it names has a
    /// timestamp of `at` or later. `None`: start at position 0.
    pub(crate) fn lookup_time(&self, at: Timestamp) -> Option<TimeEntry> {
        let at_or_below = self
            .times
            .partition_point(|&(timestamp, _)| timestamp <= at.0);
        self.time_entry(*self.times.get(at_or_below.checked_sub(1)?)?)
    }

    /// The last entry of the time index whose batch ends below `end`.
    pub(crate) fn last_time_below(&self, end: Offset) -> Option<TimeEntry> {
        let relative = end.0.checked_sub(self.owner.base_offset.0)?;
        let below = self
            .times
            .partition_point(|&(_, last)| u64::from(last) < relative);
        self.time_entry(*self.times.get(below.checked_sub(1)?)?)
    }

    /// The largest timestamp so far and the batch that brought it first; `None` when no batch has one.
    pub(crate) fn latest(&self) -> Option<TimeEntry> {
        self.time_entry(self.latest?)
    }

    /// The number of entries.
    pub(crate) fn counts(&self) -> IndexCounts {
        IndexCounts {
            offsets: self.offsets.len() as u64,
            times: self.times.len() as u64,
            sums: self.sums.len() as u64,
        }
    }

    /// The bytes of memory that the entries take.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.offsets.capacity() * size_of::<(u32, u32)>()
            + self.times.capacity() * size_of::<(i64, u32)>()
            + self.sums.memory_bytes()
    }

    /// Which segment it is of.
    pub(crate) fn owner(&self) -> SegmentKey {
        self.owner
    }

    /// The sums of the headers so far.
    pub(crate) fn sums(&self) -> &HeaderSums {
        &self.sums
    }

    /// The bytes of the `.index`, `.timeindex` and `.sums` files from these entries on.
    pub(crate) fn encode_from(&self, from: IndexCounts) -> EncodedIndex {
        let offsets =
            &self.offsets[usize::try_from(from.offsets).expect("counts are of this index")..];
        let times = &self.times[usize::try_from(from.times).expect("counts are of this index")..];
        let offsets = offsets.iter().flat_map(|&(relative, position)| {
            let mut entry = [0; OFFSET_ENTRY_BYTES];
            entry[..4].copy_from_slice(&relative.to_be_bytes());
            entry[4..].copy_from_slice(&position.to_be_bytes());
            entry
        });
        let times = times.iter().flat_map(|&(timestamp, relative)| {
            let mut entry = [0; TIME_ENTRY_BYTES];
            entry[..8].copy_from_slice(&timestamp.to_be_bytes());
            entry[8..].copy_from_slice(&relative.to_be_bytes());
            entry
        });
        EncodedIndex {
            from,
            offsets: offsets.collect(),
            times: times.collect(),
            sums: self
                .sums
                .encode_from(self.owner, usize::try_from(from.sums).expect("as above")),
        }
    }

    /// Reads the first `counts` entries of the segment's index files, as a checkpoint counted them.
    /// `Ok(None)`: a file is missing, short, or its entries are not rising or not inside of the segment;
    /// or the sums do not check or do not end where the segment does.
    pub(crate) fn load(
        disk: &dyn Disk,
        folder: &Path,
        segment: &IndexedSegment,
        counts: IndexCounts,
    ) -> io::Result<Option<Self>> {
        let base_offset = segment.owner.base_offset;
        let index = folder.join(names::index_file_name(base_offset));
        let time_index = folder.join(names::time_index_file_name(base_offset));
        let Some(offsets) = read_prefix(disk, &index, counts.offsets, OFFSET_ENTRY_BYTES)? else {
            return Ok(None);
        };
        let Some(times) = read_prefix(disk, &time_index, counts.times, TIME_ENTRY_BYTES)? else {
            return Ok(None);
        };
        let sums = HeaderSums::load(disk, folder, segment.owner, segment.bytes)?;
        Ok(sums.and_then(|sums| Self::decode(segment, &offsets, &times, sums)))
    }

    /// As [`SegmentIndex::load`], for a sealed segment: all that the files hold.
    pub(crate) fn load_sealed(
        disk: &dyn Disk,
        folder: &Path,
        segment: &IndexedSegment,
    ) -> io::Result<Option<Self>> {
        let base_offset = segment.owner.base_offset;
        let index = folder.join(names::index_file_name(base_offset));
        let time_index = folder.join(names::time_index_file_name(base_offset));
        let (Some(offsets), Some(times)) = (read_all(disk, &index)?, read_all(disk, &time_index)?)
        else {
            return Ok(None);
        };
        let sums = HeaderSums::load(disk, folder, segment.owner, segment.bytes)?;
        Ok(sums.and_then(|sums| Self::decode(segment, &offsets, &times, sums)))
    }

    fn decode(
        segment: &IndexedSegment,
        offsets: &[u8],
        times: &[u8],
        sums: HeaderSums,
    ) -> Option<Self> {
        let (offsets, offsets_rest) = offsets.as_chunks::<OFFSET_ENTRY_BYTES>();
        let (times, times_rest) = times.as_chunks::<TIME_ENTRY_BYTES>();
        if !offsets_rest.is_empty() || !times_rest.is_empty() {
            return None;
        }
        let offsets: Vec<(u32, u32)> = offsets
            .iter()
            .map(|&[r0, r1, r2, r3, p0, p1, p2, p3]| {
                (
                    u32::from_be_bytes([r0, r1, r2, r3]),
                    u32::from_be_bytes([p0, p1, p2, p3]),
                )
            })
            .collect();
        let times: Vec<(i64, u32)> = times
            .iter()
            .map(|entry| {
                let [timestamp @ .., r0, r1, r2, r3] = *entry;
                (
                    i64::from_be_bytes(timestamp),
                    u32::from_be_bytes([r0, r1, r2, r3]),
                )
            })
            .collect();
        let records = segment
            .end_offset
            .0
            .checked_sub(segment.owner.base_offset.0)?;
        let offsets_rise = offsets
            .windows(2)
            .all(|w| w[0].0 < w[1].0 && w[0].1 < w[1].1);
        let offsets_inside = offsets.last().is_none_or(|&(relative, position)| {
            u64::from(relative) < records && u64::from(position) < segment.bytes
        });
        let times_rise = times.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 < w[1].1);
        let times_inside = times.first().is_none_or(|&(timestamp, _)| timestamp >= 0)
            && times
                .last()
                .is_none_or(|&(_, relative)| u64::from(relative) < records);
        // Entries of another time are right one by one, but the largest timestamp may be missing.
        let is_complete = times.last().copied() == sums.latest();
        if !(offsets_rise && offsets_inside && times_rise && times_inside && is_complete) {
            return None;
        }
        Some(Self {
            owner: segment.owner,
            interval_bytes: segment.interval_bytes,
            latest: times.last().copied(),
            sums,
            offsets,
            times,
        })
    }

    fn relative(&self, offset: Offset) -> u32 {
        offset
            .0
            .checked_sub(self.owner.base_offset.0)
            .and_then(|relative| i32::try_from(relative).ok())
            .map(i32::cast_unsigned)
            .expect("a segment is rolled before a relative offset passes 2^31")
    }

    fn offset_entry(&self, at: usize) -> Option<IndexEntry> {
        let &(relative, position) = self.offsets.get(at)?;
        let last_offset = self.owner.base_offset.add(u64::from(relative));
        Some(IndexEntry {
            last_offset,
            position: u64::from(position),
        })
    }

    fn time_entry(&self, (timestamp, relative): (i64, u32)) -> Option<TimeEntry> {
        let last_offset = self.owner.base_offset.add(u64::from(relative));
        Some(TimeEntry {
            timestamp: Timestamp(timestamp),
            last_offset,
        })
    }
}

/// What an index is checked against when it is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IndexedSegment {
    pub(crate) owner: SegmentKey,
    /// The offset after the last one that the index may name.
    pub(crate) end_offset: Offset,
    /// Where the batches end that the entries speak of.
    pub(crate) bytes: u64,
    /// For the entries that are made from now on.
    pub(crate) interval_bytes: u64,
}

/// Entries on their way to the index files.
#[derive(Debug, Clone)]
pub(crate) struct EncodedIndex {
    from: IndexCounts,
    offsets: Vec<u8>,
    times: Vec<u8>,
    /// Where they belong, and the entries.
    sums: (u64, Vec<u8>),
}

impl EncodedIndex {
    /// The bytes of the `.index`, the `.timeindex` and the `.sums` file.
    pub(crate) fn into_bytes(self) -> [Vec<u8>; 3] {
        [self.offsets, self.times, self.sums.1]
    }

    /// Writes the entries into the segment's files behind those that come before them, cuts off
    /// whatever lies behind, and returns the files that it wrote, not synced. A file that gets no new
    /// entry is left alone unless it is written from its start.
    pub(crate) fn write(
        &self,
        disk: &dyn Disk,
        folder: &Path,
        base_offset: Offset,
    ) -> io::Result<Vec<Arc<dyn File>>> {
        let (sums_at, sums) = &self.sums;
        let parts = [
            (
                names::index_file_name(base_offset),
                self.from.offsets * OFFSET_ENTRY_BYTES as u64,
                &self.offsets,
            ),
            (
                names::time_index_file_name(base_offset),
                self.from.times * TIME_ENTRY_BYTES as u64,
                &self.times,
            ),
            (names::sums_file_name(base_offset), *sums_at, sums),
        ];
        let mut files = Vec::with_capacity(parts.len());
        for (name, start, bytes) in parts {
            if start > 0 && bytes.is_empty() {
                continue;
            }
            let file = disk.open(&folder.join(name), OpenMode::Create)?;
            file.write_at(&[bytes], start)?;
            file.set_len(start + bytes.len() as u64)?;
            files.push(file);
        }
        Ok(files)
    }
}

/// The first `entries` entries of a file; `None` if it is missing or shorter. A count that no index
/// file can hold is taken as such a file, before anything is allocated for it.
fn read_prefix(
    disk: &dyn Disk,
    path: &Path,
    entries: u64,
    entry_bytes: usize,
) -> io::Result<Option<Vec<u8>>> {
    let Some(bytes) = usize::try_from(entries)
        .ok()
        .and_then(|n| n.checked_mul(entry_bytes))
    else {
        return Ok(None);
    };
    if bytes == 0 {
        return Ok(Some(Vec::new()));
    }
    read_bytes(disk, path, |len| (bytes as u64 <= len).then_some(bytes))
}

fn read_all(disk: &dyn Disk, path: &Path) -> io::Result<Option<Vec<u8>>> {
    read_bytes(disk, path, |len| usize::try_from(len).ok())
}

/// What is wanted of a file, by its length; `None` if it is missing, unreadable, or larger than any
/// index.
pub(crate) fn read_bytes(
    disk: &dyn Disk,
    path: &Path,
    wanted: impl FnOnce(u64) -> Option<usize>,
) -> io::Result<Option<Vec<u8>>> {
    let read = || -> io::Result<Option<Vec<u8>>> {
        let file = disk.open(path, OpenMode::Read)?;
        let Some(wanted) = wanted(file.len()?).filter(|bytes| *bytes <= INDEX_BYTES_MAX) else {
            return Ok(None);
        };
        let mut bytes = vec![0; wanted];
        let read = file.read_at(&mut bytes, 0)?;
        Ok((read == wanted).then_some(bytes))
    };
    match read() {
        // The batches say the same.
        Err(e) if e.kind() == io::ErrorKind::NotFound || is_of_the_device(&e) => Ok(None),
        read => read,
    }
}

#[cfg(test)]
mod tests;
