//! A client that sends records whose values look like rounds of the journal. It knows the directory's
//! id, the generation, the number of the next round and the format; it does not know the salt.

use std::path::{Path, PathBuf};

use sapwood_log::io::{Disk, OpenMode};
use sapwood_sim::PAGE_BYTES;

const PAGE: usize = PAGE_BYTES as usize;
const FILE_MAGIC: [u8; 4] = *b"SWJF";
const ROUND_MAGIC: [u8; 4] = *b"SWJR";
const ROUND_HEADER_BYTES: usize = 64;
/// Round header, entry header, batch header: what stands before the records of a round's first batch.
const BEFORE_RECORDS_BYTES: usize = 64 + 64 + 61;
/// Length, attributes, deltas, key length and value length of a record of some pages without a key.
const BEFORE_VALUE_BYTES: usize = 3 + 1 + 1 + 1 + 1 + 3;
const FORGED_PAGES: usize = 4;

/// What the client found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Knowledge {
    directory: u128,
    pub(crate) generation: u64,
    /// The number of the newest round; 0 when there is none.
    round: u64,
}

/// Reads the journal as it is on the disk. Only the salt is not taken from it.
pub(crate) fn spy(disk: &dyn Disk, journal: &Path) -> Option<Knowledge> {
    let mut knowledge: Option<Knowledge> = None;
    for (_, bytes) in files(disk, journal) {
        let Some(page) = bytes.get(..PAGE).filter(|page| page[..4] == FILE_MAGIC) else {
            continue;
        };
        let directory = u128::from_be_bytes(page[8..24].try_into().ok()?);
        let generation = u64::from_be_bytes(page[24..32].try_into().ok()?);
        let rounds = rounds_of(&bytes, generation);
        let round = rounds.map(|header| number(header, 32)).max().unwrap_or(0);
        if knowledge.is_none_or(|known| known.generation < generation) {
            let before = knowledge.map_or(0, |known| known.round);
            knowledge = Some(Knowledge {
                directory,
                generation,
                round: round.max(before),
            });
        }
    }
    knowledge
}

fn files(disk: &dyn Disk, journal: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let names = disk.read_dir(journal).unwrap_or_default();
    let read = |name: &str| {
        let path = journal.join(name);
        let file = disk.open(&path, OpenMode::Read).ok()?;
        let mut bytes = vec![0; file.len().ok()? as usize];
        file.read_at(&mut bytes, 0).ok()?;
        Some((path, bytes))
    };
    names.iter().filter_map(|entry| read(&entry.name)).collect()
}

fn rounds_of(bytes: &[u8], generation: u64) -> impl Iterator<Item = &[u8]> {
    bytes.chunks(PAGE).filter_map(move |page| {
        let header = page.get(..ROUND_HEADER_BYTES)?;
        (header[..4] == ROUND_MAGIC && number(header, 24) == generation).then_some(header)
    })
}

/// The file and position of the round that was written last.
pub(crate) fn last_round(disk: &dyn Disk, journal: &Path) -> Option<(PathBuf, u64)> {
    let mut last: Option<(u64, PathBuf, u64)> = None;
    for (path, bytes) in files(disk, journal) {
        if bytes.get(..4) != Some(&FILE_MAGIC) {
            continue;
        }
        let generation = number(&bytes, 24);
        for (index, page) in bytes.chunks(PAGE).enumerate() {
            let Some(header) = rounds_of(page, generation).next() else {
                continue;
            };
            let round = number(header, 32);
            if last.as_ref().is_none_or(|(highest, _, _)| *highest < round) {
                last = Some((round, path.clone(), (index * PAGE) as u64));
            }
        }
    }
    last.map(|(_, path, position)| (path, position))
}

fn number(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].try_into().map_or(0, u64::from_be_bytes)
}

/// A value that, alone in a round, puts forged rounds on page boundaries: the round that is being
/// written now, later ones, and rounds of later generations, for when the file is used again.
pub(crate) fn value(known: &Knowledge) -> Vec<u8> {
    let mut value = vec![b'.'; PAGE - BEFORE_RECORDS_BYTES - BEFORE_VALUE_BYTES];
    for page in 0..FORGED_PAGES {
        let (generation, round) = match page {
            0 => (known.generation, known.round + 1),
            1 => (known.generation, known.round + 2),
            2 => (known.generation, known.round + 40),
            _ => (known.generation + 3, known.round + 20),
        };
        let mut forged = round_header(known.directory, generation, round).to_vec();
        forged.resize(PAGE, b'.');
        value.extend_from_slice(&forged);
    }
    value
}

/// An empty round, with the checksums that it would have without a salt.
fn round_header(directory: u128, generation: u64, round: u64) -> [u8; ROUND_HEADER_BYTES] {
    let mut bytes = [0; ROUND_HEADER_BYTES];
    bytes[..4].copy_from_slice(&ROUND_MAGIC);
    bytes[4..8].copy_from_slice(&1_u32.to_be_bytes());
    bytes[8..24].copy_from_slice(&directory.to_be_bytes());
    bytes[24..32].copy_from_slice(&generation.to_be_bytes());
    bytes[32..40].copy_from_slice(&round.to_be_bytes());
    // Length, entries and the previous round's checksum stay 0; so does the checksum of nothing.
    let crc = crc32fast::hash(&bytes[..60]);
    bytes[60..].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// Whether the forger's idea of the format is the journal's: with the salt, which it may use here, its
/// checksums are those of the real rounds. Returns how many real and forged rounds it saw on page
/// boundaries.
///
/// # Errors
///
/// Names the first round that differs.
pub(crate) fn check_format(disk: &dyn Disk, journal: &Path) -> Result<(usize, usize), String> {
    let (mut real, mut forged) = (0, 0);
    for (_, bytes) in files(disk, journal) {
        let Some(page) = bytes.get(..PAGE).filter(|page| page[..4] == FILE_MAGIC) else {
            continue;
        };
        let (generation, salt) = (number(page, 24), &page[32..40]);
        for header in rounds_of(&bytes, generation) {
            let stored = u32::from_be_bytes([header[60], header[61], header[62], header[63]]);
            let mut salted = crc32fast::Hasher::new();
            salted.update(salt);
            salted.update(&header[..60]);
            if salted.finalize() == stored {
                real += 1;
            } else if crc32fast::hash(&header[..60]) == stored {
                forged += 1;
            } else {
                return Err(format!("round {} has another checksum", number(header, 32)));
            }
        }
    }
    Ok((real, forged))
}
