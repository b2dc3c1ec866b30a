//! Checksums over the headers of a segment's batches, block by block: what ties the batches to their
//! log.
//!
//! Nothing in a batch says which log it belongs to, and its own CRC covers neither its offset nor its
//! leader epoch. Two segments of the same shape may change places, or a sector may be written into the
//! wrong one, and every batch still checks. So each segment has a `.sums` file beside its index files:
//! which log and segment it belongs to, and for each block of batches a checksum over what stands in
//! front of their records, with the CRC of the rest in it, and the largest timestamp so far. Unlike an
//! index it is believed where it checks; where it does not, it is made anew. The byte table is in docs/format.md.

use std::{
    io,
    ops::Range,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use sapwood_model::Offset;
use sapwood_record::{CRC_START, Header, LENGTH_POSITION};

use crate::{
    index::read_bytes,
    io::{Disk, File},
    names,
    segment::SegmentKey,
};

/// A block ends with the first batch that makes it this long.
const BLOCK_BYTES: u64 = 64 << 10;
/// What of a header is in a sum: all up to and with the batch's own CRC, which covers the rest.
const COVERED_BYTES: usize = CRC_START;
/// What a batch's length does not count.
const PREFIX_BYTES: u64 = 12;

const MAGIC: [u8; 4] = *b"SWHS";
const VERSION: u32 = 1;
/// Magic, version, topic id, partition, base offset, checksum.
const HEAD_BYTES: usize = 4 + 4 + 16 + 4 + 8 + 4;
/// One entry: end of the block u32, sum u32, largest timestamp so far i64 and the relative last offset of
/// its batch u32, checksum of the entry u32, big-endian.
pub(crate) const SUM_ENTRY_BYTES: usize = 24;
/// Where there is no timestamp so far.
const NO_TIMESTAMP: (i64, u32) = (-1, 0);

/// A run of batches and the checksum over their headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) range: Range<u64>,
    pub(crate) sum: u32,
}

/// The sums of one segment: 20 bytes for each 64 KiB of it, and for each checkpoint that came by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HeaderSums {
    /// Where each block ends, strictly rising, and its sum. The first begins at position 0.
    blocks: Vec<(u32, u32)>,
    /// The largest timestamp up to the end of each block and the relative last offset of the batch that
    /// brought it.
    latests: Vec<(i64, u32)>,
    /// Where the batches behind the last block end, and their sum.
    end: u64,
    sum: u32,
    /// The largest timestamp up to there.
    latest: Option<(i64, u32)>,
}

impl HeaderSums {
    /// Takes note of the next batch of the segment, which starts at `position`. `latest`: the largest
    /// timestamp up to and with it, and the relative last offset of the batch that brought that.
    ///
    /// # Panics
    /// When the segment has 4 GiB or more. It is rolled before that.
    pub(crate) fn push(&mut self, header: &Header, position: u64, latest: Option<(i64, u32)>) {
        self.latest = latest;
        self.sum = extend(self.sum, &header.as_bytes()[..COVERED_BYTES]);
        self.end = position + header.size_bytes() as u64;
        if self.end - self.start() >= BLOCK_BYTES {
            self.close();
        }
    }

    /// Ends the block behind the last batch, as it is done when a segment is sealed and when a checkpoint
    /// counts the entries.
    pub(crate) fn close(&mut self) {
        if self.end > self.start() {
            let end = u32::try_from(self.end).expect("a segment stays below 2 GiB");
            self.blocks.push((end, std::mem::take(&mut self.sum)));
            self.latests.push(self.latest.unwrap_or(NO_TIMESTAMP));
        }
    }

    /// The number of closed blocks.
    pub(crate) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// The largest timestamp up to the end, and the relative last offset of the batch that brought it.
    pub(crate) fn latest(&self) -> Option<(i64, u32)> {
        self.latest
    }

    /// The closed blocks, in order.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = Block> + '_ {
        (0..self.blocks.len()).filter_map(|at| block(&self.blocks, at))
    }

    /// The bytes of memory that the blocks take.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.blocks.capacity() * size_of::<(u32, u32)>()
            + self.latests.capacity() * size_of::<(i64, u32)>()
    }

    /// The bytes of the `.sums` file from this entry on, and where in the file they belong.
    pub(crate) fn encode_from(&self, owner: SegmentKey, from: usize) -> (u64, Vec<u8>) {
        let head = head(owner);
        let mut bytes = Vec::new();
        let mut at = (HEAD_BYTES + from * SUM_ENTRY_BYTES) as u64;
        if from == 0 {
            bytes.extend_from_slice(&head);
            at = 0;
        }
        for (block, latest) in self.blocks().zip(&self.latests).skip(from) {
            bytes.extend_from_slice(&entry(&head, &block, *latest));
        }
        (at, bytes)
    }

    /// Reads the blocks of a segment whose batches end at `end`. `Ok(None)`: the file is missing,
    /// unreadable, another segment's, damaged, or has no block that ends there.
    pub(crate) fn load(
        disk: &dyn Disk,
        folder: &Path,
        owner: SegmentKey,
        end: u64,
    ) -> io::Result<Option<Self>> {
        if end == 0 {
            return Ok(Some(Self::default()));
        }
        let sums = Self::load_upto(disk, folder, owner, end)?;
        Ok((sums.end == end).then_some(sums))
    }

    /// As [`HeaderSums::load`]: the blocks up to the first entry that does not check or that reaches
    /// beyond `end`, and none if the file is missing, unreadable or another segment's.
    pub(crate) fn load_upto(
        disk: &dyn Disk,
        folder: &Path,
        owner: SegmentKey,
        end: u64,
    ) -> io::Result<Self> {
        let path = folder.join(names::sums_file_name(owner.base_offset));
        let bytes = read_bytes(disk, &path, |len| usize::try_from(len).ok())?;
        Ok(bytes.map_or_else(Self::default, |bytes| Self::decode(&bytes, owner, end)))
    }

    fn decode(bytes: &[u8], owner: SegmentKey, end: u64) -> Self {
        let mut sums = Self::default();
        let head = head(owner);
        let Some((found, entries)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
            return sums;
        };
        if *found != head {
            return sums;
        }
        let (entries, _) = entries.as_chunks::<SUM_ENTRY_BYTES>();
        for found in entries {
            let &[
                e0,
                e1,
                e2,
                e3,
                s0,
                s1,
                s2,
                s3,
                ref latest @ ..,
                o0,
                o1,
                o2,
                o3,
                _,
                _,
                _,
                _,
            ] = found;
            let block_end = u32::from_be_bytes([e0, e1, e2, e3]);
            let latest = (
                i64::from_be_bytes(*latest),
                u32::from_be_bytes([o0, o1, o2, o3]),
            );
            let block = Block {
                range: sums.start()..u64::from(block_end),
                sum: u32::from_be_bytes([s0, s1, s2, s3]),
            };
            if *found != entry(&head, &block, latest)
                || block.range.is_empty()
                || block.range.end > end
            {
                break;
            }
            sums.blocks.push((block_end, block.sum));
            sums.latests.push(latest);
            sums.end = block.range.end;
            sums.latest = Some(latest).filter(|latest| latest.0 >= 0);
        }
        sums
    }

    /// Where the block that is not closed begins.
    fn start(&self) -> u64 {
        self.blocks.last().map_or(0, |&(end, _)| u64::from(end))
    }
}

/// The blocks of a segment as they were read from its file, and which of them were held against the
/// batches since.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    blocks: Vec<(u32, u32)>,
    checked: Vec<AtomicU64>,
}

impl Noted {
    pub(crate) fn new(sums: &HeaderSums) -> Self {
        let words = sums.blocks.len().div_ceil(64);
        Self {
            blocks: sums.blocks.clone(),
            checked: (0..words).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// The block that `position` lies in and its number; `None` where nothing was noted.
    pub(crate) fn block_at(&self, position: u64) -> Option<(usize, Block)> {
        let at = self
            .blocks
            .partition_point(|&(end, _)| u64::from(end) <= position);
        Some((at, block(&self.blocks, at)?))
    }

    /// Whether the block of this number was found right. Once is enough while the segment is open.
    pub(crate) fn is_checked(&self, number: usize) -> bool {
        self.checked[number / 64].load(Ordering::Relaxed) & (1 << (number % 64)) != 0
    }

    /// It was found right.
    pub(crate) fn set_checked(&self, number: usize) {
        self.checked[number / 64].fetch_or(1 << (number % 64), Ordering::Relaxed);
    }

    /// The first block whose batches in `file` are not those that were noted. Reads all their headers.
    pub(crate) fn first_wrong(&self, file: &dyn File) -> io::Result<Option<Block>> {
        for number in 0..self.blocks.len() {
            let Some(block) = block(&self.blocks, number).filter(|_| !self.is_checked(number))
            else {
                continue;
            };
            let mut bytes = vec![0; usize::try_from(block.header_bytes()).unwrap_or(0)];
            let read = file.read_at(&mut bytes, block.range.start)?;
            if !block.holds(&bytes[..read]) {
                return Ok(Some(block));
            }
            self.set_checked(number);
        }
        Ok(None)
    }
}

impl Block {
    /// So many bytes from the start hold all headers of the block.
    pub(crate) fn header_bytes(&self) -> u64 {
        let length = self.range.end - self.range.start;
        length.min(BLOCK_BYTES + COVERED_BYTES as u64)
    }

    /// Whether these are the headers of its batches.
    pub(crate) fn is_sum_of(&self, headers: &[Header]) -> bool {
        let covered = headers
            .iter()
            .map(|header| &header.as_bytes()[..COVERED_BYTES]);
        covered.fold(0, extend) == self.sum
    }

    /// What is wrong when every batch of it checks, but they do not [hold](Self::holds).
    pub(crate) fn describe(&self) -> String {
        format!(
            "up to byte {}, every batch checks, but they are not those that were appended here: they \
             are another log's, or the offset or leader epoch of one was changed",
            self.range.end
        )
    }

    /// Whether these are its batches. `bytes` begin with the block and hold all its headers.
    pub(crate) fn holds(&self, bytes: &[u8]) -> bool {
        let length = self.range.end - self.range.start;
        let (mut at, mut sum) = (0, 0);
        while at < length {
            let start = usize::try_from(at).unwrap_or(usize::MAX);
            let Some(head) = bytes.get(start..start.saturating_add(COVERED_BYTES)) else {
                return false;
            };
            sum = extend(sum, head);
            let word = &head[LENGTH_POSITION..LENGTH_POSITION + 4];
            let counted = u32::from_be_bytes([word[0], word[1], word[2], word[3]]);
            at += PREFIX_BYTES + u64::from(counted);
        }
        at == length && sum == self.sum
    }
}

/// Sums up batches as they are read, against the blocks that were noted.
#[derive(Debug, Default)]
pub(crate) struct SumCheck {
    blocks: Vec<Block>,
    next: usize,
    sum: u32,
    first: Option<Offset>,
}

impl SumCheck {
    pub(crate) fn new(sums: &HeaderSums) -> Self {
        Self {
            blocks: sums.blocks().collect(),
            next: 0,
            sum: 0,
            first: None,
        }
    }

    /// Goes on with the next batch, which starts at `position`. `Err`: a block that it ends has other
    /// batches than were noted, and where their offsets begin. Nothing is checked after that.
    pub(crate) fn batch(&mut self, header: &Header, position: u64) -> Result<(), (Block, Offset)> {
        let Some(block) = self.blocks.get(self.next) else {
            return Ok(());
        };
        let first = *self.first.get_or_insert(header.base_offset());
        self.sum = extend(self.sum, &header.as_bytes()[..COVERED_BYTES]);
        let end = position + header.size_bytes() as u64;
        if end < block.range.end {
            return Ok(());
        }
        if end > block.range.end || self.sum != block.sum {
            let block = block.clone();
            self.blocks.clear();
            return Err((block, first));
        }
        (self.sum, self.first) = (0, None);
        self.next += 1;
        Ok(())
    }
}

/// The same header with another checksum.
pub(crate) fn with_crc(header: &Header, crc: u32) -> Header {
    let mut bytes = *header.as_bytes();
    bytes[CRC_START - 4..CRC_START].copy_from_slice(&crc.to_be_bytes());
    Header::read(&bytes).unwrap_or(*header)
}

fn block(blocks: &[(u32, u32)], at: usize) -> Option<Block> {
    let &(end, sum) = blocks.get(at)?;
    let before = at.checked_sub(1).map_or(0, |before| blocks[before].0);
    Some(Block {
        range: u64::from(before)..u64::from(end),
        sum,
    })
}

fn extend(sum: u32, bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new_with_initial(sum);
    crc.update(bytes);
    crc.finalize()
}

fn head(owner: SegmentKey) -> [u8; HEAD_BYTES] {
    let mut bytes = Vec::with_capacity(HEAD_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes.extend_from_slice(&owner.topic_id.0.to_be_bytes());
    bytes.extend_from_slice(&owner.partition.0.to_be_bytes());
    bytes.extend_from_slice(&owner.base_offset.0.to_be_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_be_bytes());
    bytes.try_into().expect("the fields make up the head")
}

fn entry(head: &[u8; HEAD_BYTES], block: &Block, latest: (i64, u32)) -> [u8; SUM_ENTRY_BYTES] {
    let position = |at: u64| {
        let at = u32::try_from(at).expect("a segment stays below 2 GiB");
        at.to_be_bytes()
    };
    let mut crc = crc32fast::Hasher::new();
    crc.update(&head[HEAD_BYTES - 4..]);
    crc.update(&position(block.range.start));
    let mut entry = [0; SUM_ENTRY_BYTES];
    entry[..4].copy_from_slice(&position(block.range.end));
    entry[4..8].copy_from_slice(&block.sum.to_be_bytes());
    entry[8..16].copy_from_slice(&latest.0.to_be_bytes());
    entry[16..20].copy_from_slice(&latest.1.to_be_bytes());
    crc.update(&entry[..20]);
    entry[20..].copy_from_slice(&crc.finalize().to_be_bytes());
    entry
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sapwood_model::{PartitionId, TopicId};
    use sapwood_record::{Batch, BatchBuilder, Codec, RecordInput};

    use super::*;
    use crate::io::Environment;

    const OWNER: SegmentKey = SegmentKey {
        topic_id: TopicId(7),
        partition: PartitionId(1),
        base_offset: Offset(100),
    };

    fn batch(base_offset: u64, value_bytes: usize) -> Batch {
        let mut builder = BatchBuilder::new(Codec::None);
        let value = vec![base_offset as u8; value_bytes];
        let record = RecordInput {
            timestamp: sapwood_model::Timestamp(1),
            key: None,
            value: Some(&value),
            headers: &[],
        };
        builder.push(record).unwrap();
        let mut batch = builder.build().unwrap();
        batch.header_mut().set_base_offset(Offset(base_offset));
        batch
    }

    /// Batches of this size, one after the other, and their sums.
    fn segment(value_bytes: usize, count: u64) -> (Vec<u8>, HeaderSums) {
        let (mut bytes, mut sums) = (Vec::new(), HeaderSums::default());
        for n in 0..count {
            let batch = batch(100 + n, value_bytes);
            sums.push(batch.header(), bytes.len() as u64, Some((1, n as u32)));
            bytes.extend_from_slice(&batch.to_bytes());
        }
        sums.close();
        (bytes, sums)
    }

    fn wrong(bytes: &[u8], sums: &HeaderSums) -> Option<Range<u64>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("segment");
        std::fs::write(&path, bytes).unwrap();
        let disk = Environment::real().disk;
        let file = disk.open(&path, crate::io::OpenMode::Read).unwrap();
        let wrong = Noted::new(sums).first_wrong(&*file).unwrap();
        wrong.map(|block| block.range)
    }

    #[test]
    fn blocks_end_with_the_batch_that_makes_them_long_enough() {
        for value_bytes in [1, 1000, 60_000, 200_000] {
            let (bytes, sums) = segment(value_bytes, 20);
            let blocks: Vec<Block> = sums.blocks().collect();
            assert_eq!(blocks[0].range.start, 0);
            assert_eq!(blocks.last().unwrap().range.end, bytes.len() as u64);
            assert!(
                blocks
                    .windows(2)
                    .all(|pair| pair[0].range.end == pair[1].range.start)
            );
            let lengths = blocks
                .iter()
                .rev()
                .skip(1)
                .map(|b| b.range.end - b.range.start);
            for length in lengths {
                assert!(length >= BLOCK_BYTES && length < BLOCK_BYTES + 100 + value_bytes as u64);
            }
            assert_eq!(wrong(&bytes, &sums), None);
        }
    }

    #[test]
    fn every_byte_in_front_of_the_records_counts() {
        let (bytes, sums) = segment(30_000, 5);
        let batch_bytes = bytes.len() / 5;
        for number in 0..5 {
            let block = sums
                .blocks()
                .find(|block| block.range.contains(&((number * batch_bytes) as u64)))
                .unwrap();
            for byte in 0..COVERED_BYTES {
                let mut flipped = bytes.clone();
                flipped[number * batch_bytes + byte] ^= 1;
                assert_eq!(
                    wrong(&flipped, &sums),
                    Some(block.range.clone()),
                    "{number}/{byte}"
                );
            }
        }
        assert!(wrong(&bytes[..bytes.len() - batch_bytes], &sums).is_some());
    }

    #[test]
    fn the_file_is_read_back_in_steps_and_up_to_a_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Environment::real().disk;
        let path = folder.path().join(names::sums_file_name(Offset(100)));
        let (mut sums, mut written, mut file) = (HeaderSums::default(), 0, Vec::new());
        let mut ends = Vec::new();
        let mut position = 0;
        for n in 0..12 {
            let batch = batch(100 + n, 30_000);
            sums.push(batch.header(), position, Some((n as i64, n as u32)));
            position += batch.size_bytes() as u64;
            if n % 4 == 3 {
                sums.close();
                let (at, bytes) = sums.encode_from(OWNER, written);
                assert_eq!(at, file.len() as u64);
                file.extend_from_slice(&bytes);
                (written, ends) = (sums.len(), [ends, vec![(position, sums.clone())]].concat());
            }
        }
        std::fs::write(&path, &file).unwrap();
        let load = |owner, end| HeaderSums::load(&*disk, folder.path(), owner, end).unwrap();
        for (end, sums) in &ends {
            assert_eq!(load(OWNER, *end).as_ref(), Some(sums));
            assert_eq!(load(OWNER, *end - 1), None, "no block ends there");
        }
        assert_eq!(load(OWNER, position + 1), None);
        let other = SegmentKey {
            topic_id: TopicId(8),
            ..OWNER
        };
        assert_eq!(load(other, position), None, "another topic's");
    }

    #[test]
    fn damage_of_the_file_is_told_from_damage_of_the_segment() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Environment::real().disk;
        let path = folder.path().join(names::sums_file_name(Offset(100)));
        let (segment, sums) = segment(30_000, 12);
        let (_, bytes) = sums.encode_from(OWNER, 0);
        let end = segment.len() as u64;
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                std::fs::write(&path, &flipped).unwrap();
                let found = HeaderSums::load(&*disk, folder.path(), OWNER, end).unwrap();
                assert_eq!(found, None, "{at}/{bit}");
                // What stands before it is still believed.
                let some = HeaderSums::load_upto(&*disk, folder.path(), OWNER, end).unwrap();
                assert!(some.blocks().zip(sums.blocks()).all(|(a, b)| a == b));
            }
            std::fs::write(&path, &bytes[..at]).unwrap();
            let found = HeaderSums::load(&*disk, folder.path(), OWNER, end).unwrap();
            assert_eq!(found, None, "cut to {at}");
        }
        // Two entries in each other's place.
        let mut swapped = bytes.clone();
        swapped[HEAD_BYTES..HEAD_BYTES + 2 * SUM_ENTRY_BYTES].rotate_left(SUM_ENTRY_BYTES);
        std::fs::write(&path, &swapped).unwrap();
        let found = HeaderSums::load(&*disk, folder.path(), OWNER, end).unwrap();
        assert_eq!(found, None);
    }

    #[test]
    fn a_block_is_checked_once() {
        let (bytes, sums) = segment(30_000, 12);
        let noted = Arc::new(Noted::new(&sums));
        let (number, block) = noted.block_at(100_000).unwrap();
        assert!(block.range.contains(&100_000) && !noted.is_checked(number));
        noted.set_checked(number);
        assert!(noted.is_checked(number) && !noted.is_checked(number + 1));
        assert_eq!(noted.block_at(bytes.len() as u64), None);
    }
}
