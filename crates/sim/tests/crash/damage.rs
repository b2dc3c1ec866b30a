//! Damage at rest: somewhere in the data directory a byte changes, or sectors turn into zeros or into
//! others.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use sapwood_log::io::{Disk, OpenMode};
use sapwood_record::{Header, LENGTH_POSITION};
use sapwood_sim::{Rng, SECTOR_BYTES, SimDisk};

use crate::forger;
use crate::world::{DATA, Outcome};

/// Where it is.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    what: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.what, self.path.display())
    }
}

/// Changes something that is not zero, so that more than unused space is hit. The last round of the
/// journal is spared: one that was torn looks the same. So is the length word of the last batch in a
/// segment, which is written last: above a checkpoint, and in no journal, a batch without one looks like
/// one whose append was not finished.
pub(crate) fn hit(disk: &SimDisk, rng: &mut Rng) -> Outcome<Place> {
    let files = files(disk, Path::new(DATA)).map_err(|error| error.to_string())?;
    let last = forger::last_round(disk, &Path::new(DATA).join("journal"));
    for _ in 0..1000 {
        let path = rng.pick(&files).clone();
        let bytes = read(disk, &path)?;
        let upto = match &last {
            Some((journal, position)) if *journal == path => *position,
            _ => bytes.len() as u64,
        };
        let used: Vec<u64> = (0..upto).filter(|at| bytes[*at as usize] != 0).collect();
        if used.is_empty() {
            continue;
        }
        let position = *rng.pick(&used);
        let sector = position / SECTOR_BYTES;
        let how = rng.below(4);
        if path.extension().is_some_and(|extension| extension == "log")
            && let Some(word) = last_length_word(&bytes)
        {
            let hit = match how {
                0 | 1 => sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES,
                _ => position..position + 1,
            };
            if word.start < hit.end && hit.start < word.end {
                continue;
            }
        }
        let what = match how {
            0 => {
                let zeroed = disk.zero_sectors(&path, sector..sector + 1);
                zeroed.map_err(|error| error.to_string())?;
                format!("sector {sector} (zeros)")
            }
            1 => {
                let from = rng.pick(&files);
                let sectors = read(disk, from)?.len() as u64 / SECTOR_BYTES;
                let other = rng.below(sectors + 1);
                let misdirected = disk.misdirect((from, other), (&path, sector));
                misdirected.map_err(|error| error.to_string())?;
                if read(disk, &path)? == bytes {
                    continue;
                }
                format!("sector {sector} (sector {other} of {})", from.display())
            }
            _ => {
                let mask = 1 << rng.below(8);
                let flipped = disk.corrupt(&path, position, mask);
                flipped.map_err(|error| error.to_string())?;
                format!("byte {position}")
            }
        };
        return Ok(Place { path, what });
    }
    Err("there is nothing to damage".to_owned())
}

/// Makes the length word of a segment's first batch zero.
pub(crate) fn erase_first_length(disk: &SimDisk, path: &Path) -> Outcome {
    let bytes = read(disk, path)?;
    for (at, byte) in bytes.iter().enumerate().skip(LENGTH_POSITION).take(4) {
        disk.corrupt(path, at as u64, *byte)
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Where the length of the last batch stands.
fn last_length_word(bytes: &[u8]) -> Option<Range<u64>> {
    let (mut at, mut last) = (0, None);
    while let Some(header) = bytes.get(at..).and_then(Header::read)
        && header.length() > 0
    {
        let word = (at + LENGTH_POSITION) as u64;
        last = Some(word..word + 4);
        at += header.size_bytes();
    }
    last
}

fn read(disk: &SimDisk, path: &Path) -> Outcome<Vec<u8>> {
    let read = || {
        let file = disk.open(path, OpenMode::Read)?;
        let mut bytes = vec![0; file.len()? as usize];
        file.read_at(&mut bytes, 0)?;
        Ok(bytes)
    };
    read().map_err(|error: std::io::Error| error.to_string())
}

fn files(disk: &SimDisk, folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in disk.read_dir(folder)? {
        let path = folder.join(&entry.name);
        if entry.is_dir {
            found.extend(files(disk, &path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}
