//! The small files in a partition's folder.

use std::{io, path::Path};

use crate::io::{Disk, OpenMode};

/// No text file or snapshot in a folder comes near this.
const SMALL_FILE_BYTES_MAX: u64 = 64 << 20;

/// Kafka's text: a version, a count, then `epoch start` on as many lines, both rising.
pub(super) fn is_epoch_list(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let mut lines = text.lines();
    let version = lines.next();
    let count = lines.next().and_then(|count| count.parse().ok());
    let entry = |line: &str| {
        let (epoch, start) = line.split_once(' ')?;
        Some((epoch.parse::<u32>().ok()?, start.parse::<u64>().ok()?))
    };
    let entries: Option<Vec<(u32, u64)>> = lines.map(entry).collect();
    entries.is_some_and(|entries| {
        version == Some("0")
            && count == Some(entries.len())
            && entries
                .windows(2)
                .all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1)
    })
}

pub(super) fn read_small(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, OpenMode::Read)?;
    let length = file.len()?;
    if length > SMALL_FILE_BYTES_MAX {
        let problem = format!("it has {length} bytes; the limit is {SMALL_FILE_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}
