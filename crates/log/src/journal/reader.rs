//! Finding out which rounds of the journal can be trusted.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use sapwood_model::DirectoryId;

use super::{
    PAGE_BYTES,
    frame::{Entry, FILE_HEADER_BYTES, FileHeader, ROUND_HEADER_BYTES, RoundHeader, salted},
};
use crate::io::{Disk, File, OpenMode};

/// One journal file as it was found.
#[derive(Debug, Clone)]
pub(crate) struct FoundFile {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn File>,
    pub(crate) bytes: u64,
    /// `None` when it was never begun, or its header never reached the disk.
    pub(crate) header: Option<FileHeader>,
}

/// A round that checks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FoundRound {
    /// Index in [`Scan::files`].
    pub(crate) file: usize,
    pub(crate) position: u64,
    pub(crate) header: RoundHeader,
}

/// A place where a round that is needed cannot be read, although a later one can.
#[derive(Debug, Clone)]
pub(crate) struct Damage {
    pub(crate) path: PathBuf,
    pub(crate) position: u64,
    /// Rounds that are missing, half-open.
    pub(crate) rounds: std::ops::Range<u64>,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            path,
            position,
            rounds,
        } = self;
        let (path, from, to) = (path.display(), rounds.start, rounds.end);
        write!(
            f,
            "rounds {from} to {to} (exclusive) are missing before {path} position {position}"
        )
    }
}

/// What a journal holds.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) files: Vec<FoundFile>,
    /// The needed rounds, in their order.
    pub(crate) rounds: Vec<FoundRound>,
    /// In the order of the rounds.
    pub(crate) damage: Vec<Damage>,
    /// The number that the next round gets.
    pub(crate) next_round: u64,
    /// The checksum that the next round names.
    pub(crate) last_crc: u32,
    pub(crate) generation_max: u64,
}

/// Finds the journal's files in `folder` and keeps the rounds from `first_round` on; `None` looks at
/// no round at all. Reads all of their bytes, in the memory of one round at a time.
///
/// A round that does not check is the torn tail when nothing valid follows it, and damage when
/// something does: at most one round is unsynced at any moment.
pub(crate) fn scan(
    disk: &dyn Disk,
    folder: &Path,
    directory: DirectoryId,
    first_round: Option<u64>,
    generation_needed: u64,
) -> io::Result<Scan> {
    let mut files = Vec::new();
    for entry in disk.read_dir(folder)? {
        if entry.name.ends_with(".journal") {
            let path = folder.join(&entry.name);
            files.push(find_file(disk, entry.name, path, directory)?);
        }
    }
    let mut order: Vec<(FileHeader, usize)> = files
        .iter()
        .enumerate()
        .filter_map(|(index, file)| file.header.map(|header| (header, index)))
        .collect();
    order.sort_by_key(|(header, _)| header.generation);

    let from = first_round.unwrap_or(0);
    let mut found = Found {
        first_round: from,
        next_round: from,
        ..Found::default()
    };
    let generation_max = order.last().map_or(0, |(header, _)| header.generation);
    if generation_max < generation_needed {
        let rounds = from..from;
        found.damage.push(Damage {
            path: folder.to_owned(),
            position: 0,
            rounds,
        });
    }
    for (header, index) in order.into_iter().filter(|_| first_round.is_some()) {
        scan_file(&files[index], &header, index, &mut found)?;
    }
    Ok(Scan {
        files,
        rounds: found.rounds,
        damage: found.damage,
        next_round: found.next_round,
        last_crc: found.last_crc,
        generation_max: generation_max.max(generation_needed),
    })
}

/// The entries of one round, in log order; its checksum is checked again.
pub(crate) fn read_entries(scan: &Scan, round: &FoundRound) -> io::Result<Vec<Entry>> {
    let found = &scan.files[round.file];
    let header = found.header.ok_or(io::ErrorKind::InvalidData)?;
    let Some(mut bytes) = read_round(&*found.file, &header, round.position, &round.header)? else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let mut entries = Vec::new();
    for _ in 0..round.header.entries {
        entries.push(Entry::decode(&mut bytes).ok_or(io::ErrorKind::InvalidData)?);
    }
    match bytes.is_empty() {
        true => Ok(entries),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[derive(Default)]
struct Found {
    first_round: u64,
    rounds: Vec<FoundRound>,
    damage: Vec<Damage>,
    next_round: u64,
    last_crc: u32,
}

impl Found {
    /// Takes the next valid round: it must follow the last one.
    fn push(&mut self, path: &Path, round: FoundRound) {
        let header = round.header;
        if header.round < self.first_round {
            self.last_crc = header.body_crc;
            return;
        }
        let chained = self.rounds.is_empty() || header.previous_crc == self.last_crc;
        if header.round != self.next_round || !chained {
            self.damage.push(Damage {
                path: path.to_owned(),
                position: round.position,
                rounds: self.next_round..header.round.max(self.next_round),
            });
        }
        if header.round >= self.next_round {
            self.next_round = header.round + 1;
            self.last_crc = header.body_crc;
            self.rounds.push(round);
        }
    }
}

fn find_file(
    disk: &dyn Disk,
    name: String,
    path: PathBuf,
    directory: DirectoryId,
) -> io::Result<FoundFile> {
    let file = disk.open(&path, OpenMode::Write)?;
    let bytes = file.len()?;
    let mut pages = vec![0; FILE_HEADER_BYTES as usize];
    let read = file.read_at(&mut pages, 0)?;
    pages.truncate(read);
    // Two copies, so that one unreadable page loses nothing. When they differ, a crash came between
    // the two writes, and no round of the newer one exists yet.
    let header = pages
        .chunks(PAGE_BYTES as usize)
        .filter_map(|page| FileHeader::decode(page, directory))
        .max_by_key(|header| header.generation);
    Ok(FoundFile {
        name,
        path,
        file,
        bytes,
        header,
    })
}

fn scan_file(
    found: &FoundFile,
    header: &FileHeader,
    index: usize,
    to: &mut Found,
) -> io::Result<()> {
    let mut position = FILE_HEADER_BYTES;
    let mut head = [0; ROUND_HEADER_BYTES];
    while position + ROUND_HEADER_BYTES as u64 <= found.bytes {
        let read = found.file.read_at(&mut head, position)?;
        let round = RoundHeader::decode(&head[..read], header)
            .filter(|round| position + round.size_bytes() <= found.bytes);
        let valid = match round {
            None => None,
            Some(round) if round.round < to.first_round => Some(round),
            Some(round) => read_round(&*found.file, header, position, &round)?.map(|_| round),
        };
        match valid {
            Some(round) => {
                to.push(
                    &found.path,
                    FoundRound {
                        file: index,
                        position,
                        header: round,
                    },
                );
                position += round.size_bytes();
            }
            None => position += PAGE_BYTES,
        }
    }
    Ok(())
}

fn read_round(
    file: &dyn File,
    header: &FileHeader,
    position: u64,
    round: &RoundHeader,
) -> io::Result<Option<Bytes>> {
    let mut body = vec![0; round.length as usize];
    let read = file.read_at(&mut body, position + ROUND_HEADER_BYTES as u64)?;
    let whole = read == body.len() && salted(header.salt, &[&body]) == round.body_crc;
    Ok(whole.then(|| body.into()))
}
