//! Journal entries of partitions that are offline, copied aside before a checkpoint passes them, so
//! that one bad partition neither keeps the journal full nor loses its last good copy.

use std::path::Path;

use bytes::Bytes;

use super::{ASIDE, OpenError};
use crate::{
    checkpoint::PartitionKey,
    framed::{self, FramedError},
    io::{Disk, Environment},
    journal::{self, Entry, Scan},
};

const KIND: framed::Kind = framed::Kind {
    magic: *b"SWAS",
    version: 1,
};
/// One file holds about this many bytes of batches; what is above goes into another.
const FILE_BYTES: usize = 16 << 20;

/// Reads one such file.
pub(crate) fn read(disk: &dyn Disk, path: &Path) -> Result<Vec<Entry>, OpenError> {
    let payload = framed::read(disk, path, KIND).map_err(|e| match e {
        FramedError::Io(e) => OpenError::io(path)(e),
        e => OpenError::damaged(path, e),
    })?;
    let mut bytes = Bytes::from(payload);
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let entry = Entry::decode(&mut bytes);
        entries.push(entry.ok_or_else(|| OpenError::damaged(path, "an entry is cut"))?);
    }
    Ok(entries)
}

/// Copies the entries of `key` in the scanned rounds below `to_round`. Returns the files' names,
/// oldest first; they are durable.
pub(super) fn copy(
    environment: &Environment,
    root: &Path,
    scan: &Scan,
    to_round: u64,
    key: PartitionKey,
) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    let mut payload = Vec::new();
    let mut flush = |payload: &mut Vec<u8>, round: u64| {
        if !payload.is_empty() {
            let name = format!("{}-{}-{round}.entries", key.0, key.1);
            let bytes = framed::encode(KIND, payload);
            framed::replace(&*environment.disk, &root.join(ASIDE).join(&name), &bytes)?;
            payload.clear();
            names.push(name);
        }
        Ok::<_, std::io::Error>(())
    };
    let mut last = 0;
    for round in scan
        .rounds
        .iter()
        .filter(|round| round.header.round < to_round)
    {
        last = round.header.round;
        for entry in journal::read_entries(scan, round)? {
            if (entry.topic_id, entry.partition) == key {
                payload.extend_from_slice(&entry.encode_header());
                payload.extend_from_slice(&entry.bytes);
            }
        }
        if payload.len() >= FILE_BYTES {
            flush(&mut payload, last)?;
        }
    }
    flush(&mut payload, last)?;
    Ok(names)
}
