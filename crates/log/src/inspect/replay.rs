//! What the next start would write: the journal's entries, and those that were copied aside, by
//! partition, laid over the segments without writing anything.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use sapwood_model::{LeaderEpoch, Offset};

use super::{Finding, Severity};
use crate::{
    checkpoint::{Checkpoint, PartitionKey},
    io::Disk,
    journal::{self, Entry, Scan},
    store::{ASIDE, aside},
};

/// Where the bytes of an entry are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Index of a round in the scan.
    Round(usize),
    /// Index of a file of entries that were copied aside.
    Aside(usize),
}

/// An entry without its bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) base_offset: Offset,
    pub(super) end_offset: Offset,
    pub(super) segment: Offset,
    pub(super) position: u64,
    pub(super) bytes: u64,
    pub(super) starts_run: bool,
    leader_epoch: LeaderEpoch,
    origin: Origin,
    /// Which entry of its round or file.
    index: usize,
}

/// All entries that the next start reads.
#[derive(Debug, Default)]
pub(super) struct Replay<'a> {
    scan: Option<&'a Scan>,
    aside: Vec<PathBuf>,
    places: BTreeMap<PartitionKey, Vec<Place>>,
    pub(super) entries: u64,
    pub(super) batch_bytes: u64,
}

impl<'a> Replay<'a> {
    /// Reads every entry once. What cannot be read is a finding.
    pub(super) fn read(
        disk: &dyn Disk,
        root: &Path,
        checkpoint: &Checkpoint,
        scan: Option<&'a Scan>,
        findings: &mut Vec<Finding>,
    ) -> Self {
        let mut replay = Self {
            scan,
            ..Self::default()
        };
        for (key, entry) in &checkpoint.partitions {
            for name in &entry.aside {
                let path = root.join(ASIDE).join(name);
                let origin = Origin::Aside(replay.aside.len());
                match aside::read_all(disk, &path) {
                    Ok(aside) => {
                        let ours = |entry: &&Entry| (entry.topic_id, entry.partition) == *key;
                        let entries = aside.entries.iter().enumerate();
                        replay.add(origin, entries.filter(|(_, e)| ours(e)));
                        if aside.journal_was_damaged {
                            findings.push(journal_was_damaged(*key, path.clone()));
                        }
                    }
                    Err(error) => findings.push(Finding {
                        severity: Severity::Damage,
                        file: path.clone(),
                        position: None,
                        offsets: None,
                        problem: error.to_string(),
                    }),
                }
                replay.aside.push(path);
            }
        }
        for (index, round) in scan.iter().flat_map(|scan| scan.rounds.iter().enumerate()) {
            let Some(scan) = scan else { break };
            match journal::read_entries(scan, round) {
                Ok(entries) => {
                    replay.entries += entries.len() as u64;
                    replay.batch_bytes += entries.iter().map(|e| e.bytes.len() as u64).sum::<u64>();
                    replay.add(Origin::Round(index), entries.iter().enumerate());
                }
                Err(error) => findings.push(Finding {
                    severity: Severity::Damage,
                    file: scan.files[round.file].path.clone(),
                    position: Some(round.position),
                    offsets: None,
                    problem: format!("round {} cannot be read: {error}", round.header.round),
                }),
            }
        }
        replay
    }

    fn add<'e>(&mut self, origin: Origin, entries: impl Iterator<Item = (usize, &'e Entry)>) {
        for (index, entry) in entries {
            self.places
                .entry((entry.topic_id, entry.partition))
                .or_default()
                .push(Place {
                    base_offset: entry.base_offset,
                    end_offset: entry.end_offset,
                    segment: entry.segment,
                    position: entry.position,
                    bytes: entry.bytes.len() as u64,
                    starts_run: entry.starts_run,
                    leader_epoch: entry.leader_epoch,
                    origin,
                    index,
                });
        }
    }

    /// The partitions that have entries.
    pub(super) fn keys(&self) -> impl Iterator<Item = &PartitionKey> {
        self.places.keys()
    }

    /// The partition's entries above its checkpoint, in log order, up to the first that contradicts
    /// what comes before it; that one is a finding.
    pub(super) fn places(
        &self,
        key: PartitionKey,
        checkpoint_end: Offset,
        findings: &mut Vec<Finding>,
    ) -> Vec<Place> {
        let mut places: Vec<Place> = Vec::new();
        let all = self.places.get(&key).map(Vec::as_slice).unwrap_or_default();
        for place in all.iter().filter(|place| place.end_offset > checkpoint_end) {
            let expected = places.last().map_or(checkpoint_end, |last| last.end_offset);
            if let Some(problem) = contradiction(place, places.last(), expected) {
                let (file, position) = self.origin(place.origin);
                let (topic, partition) = key;
                let problem = format!("topic {topic}, partition {partition}: {problem}");
                let offsets = Some(expected.min(place.base_offset)..place.end_offset);
                let severity = Severity::Damage;
                findings.push(Finding {
                    severity,
                    file,
                    position,
                    offsets,
                    problem,
                });
                break;
            }
            places.push(*place);
        }
        places
    }

    fn origin(&self, origin: Origin) -> (PathBuf, Option<u64>) {
        match origin {
            Origin::Round(index) => {
                let scan = self.scan();
                let round = &scan.rounds[index];
                (scan.files[round.file].path.clone(), Some(round.position))
            }
            Origin::Aside(index) => (self.aside[index].clone(), None),
        }
    }

    /// The entries of a round or of a file, once more.
    fn load(&self, disk: &dyn Disk, origin: Origin) -> io::Result<Vec<Entry>> {
        match origin {
            Origin::Round(index) => {
                let scan = self.scan();
                journal::read_entries(scan, &scan.rounds[index])
            }
            Origin::Aside(index) => aside::read(disk, &self.aside[index]).map_err(io::Error::other),
        }
    }

    fn scan(&self) -> &'a Scan {
        self.scan.expect("only a scan gives rounds")
    }
}

fn journal_was_damaged((topic, partition): PartitionKey, file: PathBuf) -> Finding {
    Finding {
        severity: Severity::Damage,
        file,
        position: None,
        offsets: None,
        problem: format!(
            "topic {topic}, partition {partition}: when these entries were copied aside, the journal \
             was damaged behind them, and may have held more"
        ),
    }
}

/// Why an entry cannot follow the one before it, or the checkpoint: the rules of recovery.
fn contradiction(place: &Place, last: Option<&Place>, expected: Offset) -> Option<String> {
    let base = place.base_offset;
    if base > expected && !place.starts_run {
        return Some(format!(
            "the journal has no record from offset {expected} to {base}"
        ));
    }
    if place.position == 0 && place.segment != base {
        return Some("a journal entry begins a segment of another offset".into());
    }
    let last = last?;
    if place.leader_epoch < last.leader_epoch {
        return Some("the leader epoch falls from one journal entry to the next".into());
    }
    if base < expected {
        return Some(format!("the journal has offset {base} twice"));
    }
    let follows = place.starts_run
        || place.position == 0
        || (place.segment, place.position) == (last.segment, last.position + last.bytes);
    (!follows).then(|| "two journal entries stand at places that do not meet".into())
}

/// Lays the bytes of entries over what was read from a segment. Keeps the last round that it needed.
#[derive(Debug)]
pub(super) struct Overlay<'a> {
    disk: &'a dyn Disk,
    replay: &'a Replay<'a>,
    places: &'a [Place],
    loaded: Option<(Origin, Vec<Entry>)>,
}

impl<'a> Overlay<'a> {
    pub(super) fn new(disk: &'a dyn Disk, replay: &'a Replay<'a>, places: &'a [Place]) -> Self {
        Self {
            disk,
            replay,
            places,
            loaded: None,
        }
    }

    /// Where the entries of this segment end; 0 without any.
    pub(super) fn end(&self, segment: Offset) -> u64 {
        let ours = self.places.iter().filter(|place| place.segment == segment);
        ours.map(|place| place.position + place.bytes)
            .max()
            .unwrap_or(0)
    }

    /// Replaces what the entries cover in `bytes`, which were read at `start` of the segment.
    pub(super) fn apply(
        &mut self,
        segment: Offset,
        start: u64,
        bytes: &mut [u8],
    ) -> io::Result<()> {
        let end = start + bytes.len() as u64;
        // Log order is the order of segments and positions.
        let behind =
            |place: &Place| (place.segment, place.position + place.bytes) <= (segment, start);
        let first = self.places.partition_point(behind);
        let within = |place: &&Place| place.segment == segment && place.position < end;
        for place in self.places[first..].iter().take_while(within) {
            let from = place.position.max(start);
            let to = (place.position + place.bytes).min(end);
            let held = self
                .loaded
                .as_ref()
                .is_some_and(|(origin, _)| *origin == place.origin);
            if !held {
                self.loaded = Some((place.origin, self.replay.load(self.disk, place.origin)?));
            }
            let entry = self
                .loaded
                .as_ref()
                .and_then(|(_, entries)| entries.get(place.index));
            let entry = entry.ok_or(io::ErrorKind::InvalidData)?;
            // Both ranges lie within buffers, whose lengths are usize.
            let target = (from - start) as usize..(to - start) as usize;
            let source = (from - place.position) as usize..(to - place.position) as usize;
            bytes[target].copy_from_slice(&entry.bytes[source]);
        }
        Ok(())
    }
}
