//! The bytes of the journal: file headers, rounds and entries. Pure.

use bytes::Bytes;
use sapwood_model::{DirectoryId, LeaderEpoch, Offset, PartitionId, TopicId};

use super::PAGE_BYTES;

/// Rounds begin here; before it stand two copies of the file's header, a page each.
pub(crate) const FILE_HEADER_BYTES: u64 = 2 * PAGE_BYTES;
pub(crate) const ROUND_HEADER_BYTES: usize = 64;
pub(crate) const ENTRY_HEADER_BYTES: usize = 64;

const FILE_MAGIC: [u8; 4] = *b"SWJF";
const ROUND_MAGIC: [u8; 4] = *b"SWJR";
const VERSION: u32 = 1;
const FLAG_STARTS_RUN: u32 = 1;

/// A journal file's identity for one turn of its use. Written and synced, twice, before the first
/// round: a torn first round can then still be told from bytes that a client made up, because the
/// salt that they would have to know is known apart from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub(crate) directory: DirectoryId,
    /// Rises by one with every file that is begun.
    pub(crate) generation: u64,
    /// Random, never sent anywhere: the seed of the checksums of this file's rounds.
    pub(crate) salt: u64,
}

impl FileHeader {
    /// One page.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(PAGE_BYTES as usize);
        page.extend_from_slice(&FILE_MAGIC);
        page.extend_from_slice(&VERSION.to_be_bytes());
        page.extend_from_slice(&self.directory.0.to_be_bytes());
        page.extend_from_slice(&self.generation.to_be_bytes());
        page.extend_from_slice(&self.salt.to_be_bytes());
        let crc = crc32fast::hash(&page);
        page.extend_from_slice(&crc.to_be_bytes());
        page.resize(PAGE_BYTES as usize, 0);
        page
    }

    /// `None` when the page holds no header of this directory.
    pub(crate) fn decode(page: &[u8], directory: DirectoryId) -> Option<Self> {
        let (head, crc) = page.get(..44)?.split_at(40);
        let header = Self {
            directory: DirectoryId(u128::from_be_bytes(array(head, 8))),
            generation: u64::from_be_bytes(array(head, 24)),
            salt: u64::from_be_bytes(array(head, 32)),
        };
        let known = head[..4] == FILE_MAGIC
            && u32::from_be_bytes(array(head, 4)) == VERSION
            && u32::from_be_bytes(array(crc, 0)) == crc32fast::hash(head)
            && header.directory == directory;
        known.then_some(header)
    }
}

/// What stands before a round's entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RoundHeader {
    /// Never repeats, has no gaps.
    pub(crate) round: u64,
    /// Bytes of the entries.
    pub(crate) length: u32,
    /// How many entries.
    pub(crate) entries: u32,
    /// Checksum of the round before this one, 0 for the first of all.
    pub(crate) previous_crc: u32,
    /// Checksum of the entries, seeded with the salt. Names this round for the next one.
    pub(crate) body_crc: u32,
}

impl RoundHeader {
    /// The header has a checksum of its own, also seeded with the salt, so that a length that a
    /// client made up never makes anybody read that many bytes.
    pub(crate) fn encode(&self, file: &FileHeader) -> [u8; ROUND_HEADER_BYTES] {
        let mut bytes = [0; ROUND_HEADER_BYTES];
        bytes[..4].copy_from_slice(&ROUND_MAGIC);
        bytes[4..8].copy_from_slice(&VERSION.to_be_bytes());
        bytes[8..24].copy_from_slice(&file.directory.0.to_be_bytes());
        bytes[24..32].copy_from_slice(&file.generation.to_be_bytes());
        bytes[32..40].copy_from_slice(&self.round.to_be_bytes());
        bytes[40..44].copy_from_slice(&self.length.to_be_bytes());
        bytes[44..48].copy_from_slice(&self.entries.to_be_bytes());
        bytes[48..52].copy_from_slice(&self.previous_crc.to_be_bytes());
        bytes[52..56].copy_from_slice(&self.body_crc.to_be_bytes());
        let crc = salted(file.salt, &[&bytes[..60]]);
        bytes[60..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// `None` when these bytes are not the header of a round of this file.
    pub(crate) fn decode(bytes: &[u8], file: &FileHeader) -> Option<Self> {
        let bytes = bytes.get(..ROUND_HEADER_BYTES)?;
        let ours = bytes[..4] == ROUND_MAGIC
            && u32::from_be_bytes(array(bytes, 4)) == VERSION
            && u128::from_be_bytes(array(bytes, 8)) == file.directory.0
            && u64::from_be_bytes(array(bytes, 24)) == file.generation
            && u32::from_be_bytes(array(bytes, 60)) == salted(file.salt, &[&bytes[..60]]);
        ours.then(|| Self {
            round: u64::from_be_bytes(array(bytes, 32)),
            length: u32::from_be_bytes(array(bytes, 40)),
            entries: u32::from_be_bytes(array(bytes, 44)),
            previous_crc: u32::from_be_bytes(array(bytes, 48)),
            body_crc: u32::from_be_bytes(array(bytes, 52)),
        })
    }

    /// How far the next round is behind the start of this one.
    pub(crate) fn size_bytes(&self) -> u64 {
        (ROUND_HEADER_BYTES as u64 + u64::from(self.length)).next_multiple_of(PAGE_BYTES)
    }
}

/// A run of batches of one partition, where they stand in its segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) topic_id: TopicId,
    pub(crate) partition: PartitionId,
    pub(crate) leader_epoch: LeaderEpoch,
    /// Of the first batch.
    pub(crate) base_offset: Offset,
    /// Behind the last batch.
    pub(crate) end_offset: Offset,
    /// Base offset of the segment.
    pub(crate) segment: Offset,
    /// Of the first batch in the segment's file.
    pub(crate) position: u64,
    /// The first entry after a time in which this partition's appends did not enter the journal.
    pub(crate) starts_run: bool,
    /// The batches.
    pub(crate) bytes: Bytes,
}

impl Entry {
    /// What the entry takes in a round.
    pub(crate) fn size_bytes(&self) -> u64 {
        (ENTRY_HEADER_BYTES + self.bytes.len()) as u64
    }

    pub(crate) fn encode_header(&self) -> [u8; ENTRY_HEADER_BYTES] {
        let mut bytes = [0; ENTRY_HEADER_BYTES];
        bytes[..16].copy_from_slice(&self.topic_id.0.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.partition.0.to_be_bytes());
        bytes[20..24].copy_from_slice(&self.leader_epoch.0.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.base_offset.0.to_be_bytes());
        bytes[32..40].copy_from_slice(&self.end_offset.0.to_be_bytes());
        bytes[40..48].copy_from_slice(&self.segment.0.to_be_bytes());
        bytes[48..56].copy_from_slice(&self.position.to_be_bytes());
        let length = u32::try_from(self.bytes.len()).expect("an entry is smaller than its round");
        bytes[56..60].copy_from_slice(&length.to_be_bytes());
        let flags = if self.starts_run { FLAG_STARTS_RUN } else { 0 };
        bytes[60..].copy_from_slice(&flags.to_be_bytes());
        bytes
    }

    /// Takes the entry at the front of `bytes`. `None` when it is cut or runs backwards, which a
    /// round whose checksum is right never has.
    pub(crate) fn decode(bytes: &mut Bytes) -> Option<Self> {
        if bytes.len() < ENTRY_HEADER_BYTES {
            return None;
        }
        let head = bytes.split_to(ENTRY_HEADER_BYTES);
        let length = u32::from_be_bytes(array(&head, 56)) as usize;
        if length > bytes.len() {
            return None;
        }
        let entry = Self {
            topic_id: TopicId(u128::from_be_bytes(array(&head, 0))),
            partition: PartitionId(u32::from_be_bytes(array(&head, 16))),
            leader_epoch: LeaderEpoch(u32::from_be_bytes(array(&head, 20))),
            base_offset: Offset(u64::from_be_bytes(array(&head, 24))),
            end_offset: Offset(u64::from_be_bytes(array(&head, 32))),
            segment: Offset(u64::from_be_bytes(array(&head, 40))),
            position: u64::from_be_bytes(array(&head, 48)),
            starts_run: u32::from_be_bytes(array(&head, 60)) & FLAG_STARTS_RUN != 0,
            bytes: bytes.split_to(length),
        };
        (entry.base_offset < entry.end_offset).then_some(entry)
    }
}

/// The checksum of a round's parts, seeded with the file's salt.
pub(crate) fn salted(salt: u64, parts: &[&[u8]]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&salt.to_be_bytes());
    for part in parts {
        crc.update(part);
    }
    crc.finalize()
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N]
        .try_into()
        .expect("the caller checked the length")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: FileHeader = FileHeader {
        directory: DirectoryId(7),
        generation: 3,
        salt: 99,
    };

    #[test]
    fn a_file_header_is_read_back_and_belongs_to_its_directory() {
        let page = FILE.encode();
        assert_eq!(FileHeader::decode(&page, DirectoryId(7)), Some(FILE));
        assert_eq!(FileHeader::decode(&page, DirectoryId(8)), None);
        for at in 0..44 {
            let mut damaged = page.clone();
            damaged[at] ^= 1;
            assert_eq!(
                FileHeader::decode(&damaged, DirectoryId(7)),
                None,
                "byte {at}"
            );
        }
    }

    #[test]
    fn a_round_of_another_generation_salt_or_directory_is_not_ours() {
        let round = RoundHeader {
            round: 5,
            length: 10,
            entries: 1,
            previous_crc: 1,
            body_crc: 2,
        };
        let bytes = round.encode(&FILE);
        assert_eq!(RoundHeader::decode(&bytes, &FILE), Some(round));
        for other in [
            FileHeader {
                directory: DirectoryId(8),
                ..FILE
            },
            FileHeader {
                generation: 4,
                ..FILE
            },
            FileHeader { salt: 100, ..FILE },
        ] {
            assert_eq!(RoundHeader::decode(&bytes, &other), None);
        }
    }

    #[test]
    fn an_entry_whose_length_lies_is_refused() {
        let entry = Entry {
            topic_id: TopicId(1),
            partition: PartitionId(2),
            leader_epoch: LeaderEpoch(3),
            base_offset: Offset(4),
            end_offset: Offset(5),
            segment: Offset(0),
            position: 6,
            starts_run: true,
            bytes: Bytes::from_static(b"abc"),
        };
        let mut bytes = entry.encode_header().to_vec();
        bytes.extend_from_slice(b"abc");
        assert_eq!(Entry::decode(&mut Bytes::from(bytes.clone())), Some(entry));
        bytes[59] = 4;
        assert_eq!(Entry::decode(&mut Bytes::from(bytes)), None);
    }
}
