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
use crate::io::{Disk, File, OpenMode, is_of_the_device};

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

/// A place where rounds that are needed do not check, although a later one does.
#[derive(Debug, Clone)]
pub(crate) struct Damage {
    /// The file in which they should begin, as far as that is known.
    pub(crate) path: PathBuf,
    pub(crate) position: u64,
    /// Rounds that are missing, half-open.
    pub(crate) rounds: std::ops::Range<u64>,
    pub(crate) why: String,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (from, to) = (self.rounds.start, self.rounds.end);
        let (path, position) = (self.path.display(), self.position);
        write!(
            f,
            "rounds {from} to {to} (exclusive) are missing from {path} position {position} on: {}",
            self.why
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
            why: format!(
                "the checkpoint knows a file of generation {generation_needed}; the newest that is \
                 there is of generation {generation_max}"
            ),
        });
    }
    for (header, index) in order.into_iter().filter(|_| first_round.is_some()) {
        if header.generation >= generation_needed && found.place.is_none() {
            found.place = Some((files[index].path.clone(), FILE_HEADER_BYTES));
        }
        scan_file(&files[index], &header, index, generation_needed, &mut found)?;
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
    /// Where the next round is expected.
    place: Option<(PathBuf, u64)>,
}

impl Found {
    /// Takes the next valid round: it must follow the last one.
    fn push(&mut self, path: &Path, round: FoundRound) {
        let header = round.header;
        let behind = (path.to_owned(), round.position + header.size_bytes());
        if header.round < self.first_round {
            self.last_crc = header.body_crc;
            self.place = Some(behind);
            return;
        }
        let chained = self.rounds.is_empty() || header.previous_crc == self.last_crc;
        if header.round != self.next_round || !chained {
            let here = (path.to_owned(), round.position);
            let (number, position) = (header.round, round.position);
            let why = format!(
                "round {number} is at {} position {position}",
                path.display()
            );
            let (path, position) = self.place.take().unwrap_or(here);
            self.damage.push(Damage {
                path,
                position,
                rounds: self.next_round..header.round.max(self.next_round),
                why,
            });
        }
        self.place = Some(behind);
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
    // Two copies, so that one unreadable page loses nothing. When they differ, a crash came between
    // the two writes, and no round of the newer one exists yet.
    let mut header: Option<FileHeader> = None;
    let (mut unreadable, mut is_begun) = (None, false);
    for position in (0..FILE_HEADER_BYTES).step_by(PAGE_BYTES as usize) {
        let mut page = vec![0; PAGE_BYTES as usize];
        match file.read_at(&mut page, position) {
            Ok(read) => {
                is_begun |= page.iter().any(|byte| *byte != 0);
                let copy = FileHeader::decode(&page[..read], directory);
                header = header.into_iter().chain(copy).max_by_key(|h| h.generation);
            }
            Err(error) if is_of_the_device(&error) => unreadable = Some(error),
            Err(error) => return Err(error),
        }
    }
    if let (None, true, Some(error)) = (&header, is_begun, unreadable) {
        let problem = format!("{}: {error}", path.display());
        return Err(io::Error::new(error.kind(), problem));
    }
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
    generation_needed: u64,
    to: &mut Found,
) -> io::Result<()> {
    let mut position = FILE_HEADER_BYTES;
    let mut head = [0; ROUND_HEADER_BYTES];
    while position + ROUND_HEADER_BYTES as u64 <= found.bytes {
        let valid = found_round(found, header, position, to.first_round, &mut head);
        let valid = match valid {
            // No round that is needed is in a file from before the checkpoint's.
            Err(error) if is_of_the_device(&error) && header.generation < generation_needed => None,
            // It may be read the next time. Going on without it would lose it for good.
            Err(error) if is_of_the_device(&error) => {
                let problem = format!("{} position {position}: {error}", found.path.display());
                return Err(io::Error::new(error.kind(), problem));
            }
            valid => valid?,
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

/// The round at `position`, if there is one that checks.
fn found_round(
    found: &FoundFile,
    header: &FileHeader,
    position: u64,
    first_round: u64,
    head: &mut [u8; ROUND_HEADER_BYTES],
) -> io::Result<Option<RoundHeader>> {
    let read = found.file.read_at(head, position)?;
    let round = RoundHeader::decode(&head[..read], header)
        .filter(|round| position + round.size_bytes() <= found.bytes);
    Ok(match round {
        None => None,
        Some(round) if round.round < first_round => Some(round),
        Some(round) => read_round(&*found.file, header, position, &round)?.map(|_| round),
    })
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
