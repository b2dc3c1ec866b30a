//! Damage: one byte somewhere in the data directory.

use std::fmt;
use std::path::{Path, PathBuf};

use sapwood_log::io::{Disk, OpenMode};
use sapwood_sim::{Rng, SimDisk};

use crate::forger;
use crate::world::{DATA, Outcome};

/// Where it is.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    position: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {} of {}", self.position, self.path.display())
    }
}

/// Changes one byte that is not zero, so that more than unused space is hit. The last round of the
/// journal is spared: one that was torn looks the same.
pub(crate) fn flip_a_byte(disk: &SimDisk, rng: &mut Rng) -> Outcome<Place> {
    let files = files(disk, Path::new(DATA)).map_err(|error| error.to_string())?;
    let last = forger::last_round(disk, &Path::new(DATA).join("journal"));
    for _ in 0..1000 {
        let path = rng.pick(&files).clone();
        let file = disk
            .open(&path, OpenMode::Read)
            .map_err(|error| error.to_string())?;
        let len = file.len().map_err(|error| error.to_string())?;
        let mut bytes = vec![0; len as usize];
        file.read_at(&mut bytes, 0)
            .map_err(|error| error.to_string())?;
        let upto = match &last {
            Some((journal, position)) if *journal == path => *position,
            _ => len,
        };
        let used: Vec<u64> = (0..upto).filter(|at| bytes[*at as usize] != 0).collect();
        if used.is_empty() {
            continue;
        }
        let position = *rng.pick(&used);
        let mask = 1 << rng.below(8);
        disk.corrupt(&path, position, mask)
            .map_err(|error| error.to_string())?;
        return Ok(Place { path, position });
    }
    Err("there is nothing to damage".to_owned())
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
