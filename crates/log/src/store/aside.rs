//! Journal entries of partitions that are offline, copied aside before a checkpoint passes them, so
//! that one bad partition neither keeps the journal full nor loses its last good copy.

use std::path::Path;

use bytes::Bytes;
use sapwood_model::{LeaderEpoch, Offset};

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

/// What one such file holds.
#[derive(Debug, Default)]
pub(crate) struct Aside {
    pub(crate) entries: Vec<Entry>,
    /// Behind these entries the journal was damaged when they were copied, and may have held more of
    /// the partition. Nothing else tells so once the journal's file is used again.
    pub(crate) journal_was_damaged: bool,
}

/// The entries of one such file.
pub(crate) fn read(disk: &dyn Disk, path: &Path) -> Result<Vec<Entry>, OpenError> {
    read_all(disk, path).map(|aside| aside.entries)
}

/// Reads one such file.
pub(crate) fn read_all(disk: &dyn Disk, path: &Path) -> Result<Aside, OpenError> {
    let payload = framed::read(disk, path, KIND).map_err(|e| match e {
        FramedError::Io(e) => OpenError::io(path)(e),
        e => OpenError::damaged(path, e),
    })?;
    let mut bytes = Bytes::from(payload);
    let mut aside = Aside::default();
    while !bytes.is_empty() {
        let entry = Entry::decode(&mut bytes);
        let entry = entry.ok_or_else(|| OpenError::damaged(path, "an entry is cut"))?;
        match entry.bytes.is_empty() {
            true => aside.journal_was_damaged = true,
            false => aside.entries.push(entry),
        }
    }
    Ok(aside)
}

/// An entry without batches: the mark for [`Aside::journal_was_damaged`].
fn mark(key: PartitionKey) -> Entry {
    Entry {
        topic_id: key.0,
        partition: key.1,
        leader_epoch: LeaderEpoch(0),
        base_offset: Offset::ZERO,
        end_offset: Offset(1),
        segment: Offset::ZERO,
        position: 0,
        starts_run: false,
        bytes: Bytes::new(),
    }
}

/// Copies the entries of `key` in the scanned rounds below `to_round`, and that some may be missing.
/// Returns the files' names, oldest first; they are durable.
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
    let (mut last, mut last_of_key) = (0, 0);
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
                last_of_key = round.header.round;
            }
        }
        if payload.len() >= FILE_BYTES {
            flush(&mut payload, last)?;
        }
    }
    let damaged_below = scan.damage.iter().map(|damage| damage.rounds.end).max();
    if damaged_below.is_some_and(|end| last_of_key < end) {
        payload.extend_from_slice(&mark(key).encode_header());
        last = last.max(damaged_below.unwrap_or(0));
    }
    flush(&mut payload, last)?;
    Ok(names)
}
