//! One partition on its way back: the journal's entries are written to its segments again, then
//! the log is walked from the checkpoint to where it ends.

use std::{collections::BTreeMap, io, path::PathBuf};

use sapwood_model::{Durability, LeaderEpoch, Offset};

use super::{
    folders, swap,
    walk::{Cursor, SegmentOnDisk, Unreadable},
};
use crate::{
    checkpoint::PartitionCheckpoint,
    epochs::EpochList,
    index::SegmentIndex,
    io::{Disk, OpenMode, is_of_the_device},
    journal::Entry,
    names,
    partition::{OfflineReason, PartitionParts, PartitionSpec, SegmentParts},
    producers::ProducerTable,
    store::TouchedFile,
};

/// A partition that is being recovered.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) spec: PartitionSpec,
    pub(super) folder: PathBuf,
    /// Where its segments are known to be safe; all zero, but for the epoch that it began with, for one
    /// that no checkpoint covers.
    pub(super) checkpoint: PartitionCheckpoint,
    pub(super) segments: BTreeMap<Offset, SegmentOnDisk>,
    /// The journal's entries above the checkpoint, in log order. Their bytes are written already.
    pub(super) entries: Vec<Place>,
    /// Round of the last entry, also of one that the checkpoint covers.
    last_round: u64,
    /// The checkpoint's segment was shorter than the checkpoint says before any entry was written.
    prefix_is_missing: bool,
    /// The journal was damaged behind the entries that were copied aside.
    pub(super) journal_was_damaged: bool,
    pub(super) failure: Option<OfflineReason>,
    /// Names were removed from the folder.
    pub(super) has_removed: bool,
}

/// Where an entry stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) base_offset: Offset,
    pub(super) end_offset: Offset,
    pub(super) segment: Offset,
    pub(super) position: u64,
    pub(super) bytes: u64,
    pub(super) leader_epoch: LeaderEpoch,
    pub(super) starts_run: bool,
}

/// What recovery does beyond the journal's end, and why.
#[derive(Debug, Clone, Copy)]
pub(super) struct Circumstances {
    /// The page cache is that of the process that wrote the log.
    pub(super) same_boot: bool,
    /// The longest unfinished batch that may lie behind the last one, in bytes.
    pub(super) batch_bytes_max: u64,
    /// After this round the journal has no damage; 0 when it has none at all.
    pub(super) damaged_below: u64,
    /// Above that of every partition, and this one's from now on.
    pub(super) next_epoch: LeaderEpoch,
}

/// A partition that was recovered, or is offline.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) parts: PartitionParts,
    pub(super) offline: Option<OfflineReason>,
    /// Files to sync before the checkpoint.
    pub(super) touched: Vec<TouchedFile>,
    /// The folder is to be synced before it, too: after a clean stop its names are believed.
    pub(super) has_removed: bool,
    /// Offsets of whole batches that were found and cut off.
    pub(super) cut: Option<(Offset, String)>,
}

impl Replay {
    /// Looks at what is on disk. `problem`: the folder itself cannot be trusted.
    pub(super) fn begin(
        disk: &dyn Disk,
        spec: PartitionSpec,
        folder: PathBuf,
        checkpoint: PartitionCheckpoint,
        problem: Option<String>,
    ) -> io::Result<Self> {
        let mut replay = Self {
            spec,
            folder,
            checkpoint,
            segments: BTreeMap::new(),
            entries: Vec::new(),
            last_round: 0,
            prefix_is_missing: false,
            journal_was_damaged: false,
            failure: None,
            has_removed: false,
        };
        if let Some(problem) = problem {
            replay.failure = Some(replay.folder_damage(problem));
            return Ok(replay);
        }
        folders::remove_temporary(disk, &replay.folder)?;
        swap::finish(disk, &replay.folder)?;
        for entry in disk.read_dir(&replay.folder)? {
            if let Some(base) = names::parse_segment_file_name(&entry.name) {
                let path = replay.folder.join(&entry.name);
                let opened = disk.open(&path, OpenMode::Write);
                let (bytes, file) = match opened.and_then(|file| Ok((file.len()?, file))) {
                    Err(error) if is_of_the_device(&error) => {
                        replay.failure = Some(failed("open", path, error));
                        return Ok(replay);
                    }
                    opened => opened?,
                };
                replay
                    .segments
                    .insert(base, SegmentOnDisk { path, file, bytes });
            }
        }
        let PartitionCheckpoint {
            end,
            segment,
            position,
            ..
        } = replay.checkpoint;
        // Retention removes what lies wholly below the log start, and nothing else.
        let log_start = replay.spec.log_start;
        let first = replay.segments.keys().next().copied();
        if end > log_start && first.is_none_or(|first| first > log_start) {
            let found = first.map_or("none".to_owned(), |first| first.to_string());
            let file = replay.folder.clone();
            replay.failure = Some(OfflineReason::Damage {
                file,
                position: 0,
                offsets: log_start..first.unwrap_or(end).min(end),
                problem: format!(
                    "the segment that holds its start is missing; the first that is there: {found}"
                ),
            });
            return Ok(replay);
        }
        // Below the log start, retention may have removed it.
        let needed = end > replay.spec.log_start && position > 0;
        let there = replay
            .segments
            .get(&segment)
            .map_or(0, |segment| segment.bytes);
        replay.prefix_is_missing = there < position;
        if needed && there < position {
            let file = replay.folder.join(names::segment_file_name(segment));
            let problem = format!("it has {there} bytes; {position} were synced");
            let offsets = replay.spec.log_start.max(segment)..end;
            replay.failure = Some(OfflineReason::Damage {
                file,
                position: there,
                offsets,
                problem,
            });
        }
        Ok(replay)
    }

    /// Writes an entry where it belongs, even where the same bytes stand already: what is in the
    /// page cache may never have reached the disk.
    pub(super) fn write(&mut self, disk: &dyn Disk, entry: &Entry, round: u64) -> io::Result<()> {
        self.last_round = self.last_round.max(round);
        if entry.end_offset <= self.checkpoint.end || self.failure.is_some() {
            return Ok(());
        }
        let place = Place {
            base_offset: entry.base_offset,
            end_offset: entry.end_offset,
            segment: entry.segment,
            position: entry.position,
            bytes: entry.bytes.len() as u64,
            leader_epoch: entry.leader_epoch,
            starts_run: entry.starts_run,
        };
        if let Some(problem) = self.contradiction(&place) {
            let file = self.folder.join(names::segment_file_name(place.segment));
            let offsets = self.journal_end().min(place.base_offset)..place.end_offset;
            let position = place.position;
            self.failure = Some(OfflineReason::Damage {
                file,
                position,
                offsets,
                problem,
            });
            return Ok(());
        }
        match self.write_at(disk, &place, &entry.bytes) {
            Ok(()) => self.entries.push(place),
            // The journal keeps the entry until this partition is recovered.
            Err(error) if is_of_the_device(&error) => {
                let file = self.folder.join(names::segment_file_name(place.segment));
                let operation = "write";
                self.failure = Some(OfflineReason::Io {
                    operation,
                    file,
                    error,
                });
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn write_at(&mut self, disk: &dyn Disk, place: &Place, bytes: &[u8]) -> io::Result<()> {
        let segment = self.segment(disk, place.segment)?;
        segment.file.write_at(&[bytes], place.position)?;
        segment.bytes = segment.bytes.max(place.position + place.bytes);
        Ok(())
    }

    /// Finds the log's end, cuts off what is beyond it, and rebuilds what is kept in memory.
    pub(super) fn settle(mut self, disk: &dyn Disk, now: &Circumstances) -> io::Result<Settled> {
        if self.failure.is_none()
            && !now.same_boot
            && self.spec.config.durability == Durability::Fsync
            && (self.last_round < now.damaged_below || self.journal_was_damaged)
        {
            let problem = "the journal is damaged, and may have held records of this partition";
            self.failure = Some(self.folder_damage(problem.into()));
        }
        if let Some(reason) = self.failure.take() {
            return Ok(self.offline(reason));
        }
        let rebuilt = match self.walk(disk, now) {
            Ok(Ok(rebuilt)) => rebuilt,
            Ok(Err(reason)) => return Ok(self.offline(reason)),
            Err(error) => return self.unreadable(error),
        };
        let settled = self.finish(disk, rebuilt, now.next_epoch);
        settled.or_else(|error| self.unreadable(error))
    }

    /// After a clean stop: nothing is scanned, only looked at.
    pub(super) fn open_clean(mut self, disk: &dyn Disk) -> io::Result<Settled> {
        let PartitionCheckpoint {
            end,
            segment,
            position,
            ..
        } = self.checkpoint;
        let last = self
            .segments
            .last_key_value()
            .map(|(base, segment)| (*base, segment.bytes));
        if self.failure.is_none()
            && let Some((base, bytes)) = last
            && (base, bytes) != (segment, position)
        {
            let file = self.folder.join(names::segment_file_name(base));
            let problem = format!(
                "after a clean stop, the log ends at byte {bytes} of segment {base}; it ended at \
                 byte {position} of segment {segment}"
            );
            let offsets = segment.min(base)..end;
            let position = bytes.min(position);
            self.failure = Some(OfflineReason::Damage {
                file,
                position,
                offsets,
                problem,
            });
        }
        if let Some(reason) = self.failure.take() {
            return Ok(self.offline(reason));
        }
        let (producers, epochs) = self.decoded()?;
        let cursor = Cursor {
            segment,
            position,
            offset: end,
        };
        let index = match self.load_index(disk, &cursor) {
            Ok(Ok(index)) => index,
            Ok(Err(reason)) => return Ok(self.offline(reason)),
            Err(error) => return self.unreadable(error),
        };
        let leader_epoch = self.checkpoint.leader_epoch;
        let parts = self.parts(
            segment,
            [(segment, index)].into(),
            end,
            leader_epoch,
            epochs,
            producers,
        );
        Ok(Settled {
            parts,
            offline: None,
            touched: Vec::new(),
            has_removed: self.has_removed,
            cut: None,
        })
    }

    fn contradiction(&self, place: &Place) -> Option<String> {
        let expected = self.journal_end();
        if place.base_offset > expected && !place.starts_run {
            return Some(format!(
                "the journal has no record from offset {expected} to {}",
                place.base_offset
            ));
        }
        if place.position == 0 && place.segment != place.base_offset {
            return Some("a journal entry begins a segment of another offset".into());
        }
        let last = self.entries.last()?;
        if place.leader_epoch < last.leader_epoch {
            return Some("the leader epoch falls from one journal entry to the next".into());
        }
        if place.base_offset < expected {
            return Some(format!(
                "the journal has offset {} twice",
                place.base_offset
            ));
        }
        let follows = place.starts_run
            || place.position == 0
            || (place.segment, place.position) == (last.segment, last.position + last.bytes);
        (!follows).then(|| "two journal entries stand at places that do not meet".into())
    }

    /// Behind the last entry, or at the checkpoint.
    fn journal_end(&self) -> Offset {
        self.entries
            .last()
            .map_or(self.checkpoint.end, |last| last.end_offset)
    }

    fn segment(&mut self, disk: &dyn Disk, base: Offset) -> io::Result<&mut SegmentOnDisk> {
        use std::collections::btree_map::Entry as Slot;
        match self.segments.entry(base) {
            Slot::Occupied(found) => Ok(found.into_mut()),
            Slot::Vacant(free) => {
                let path = self.folder.join(names::segment_file_name(base));
                let file = disk.open(&path, OpenMode::Create)?;
                Ok(free.insert(SegmentOnDisk {
                    path,
                    file,
                    bytes: 0,
                }))
            }
        }
    }

    /// Where the walk begins: at the checkpoint, or at the start of the log start's segment if that
    /// is higher: between the two, retention may have removed segments.
    ///
    /// A log whose checkpoint lies in a segment that is gone, all of it below the log start, begins at
    /// the log start: see [`Self::is_emptied`].
    pub(super) fn start(&self) -> Cursor {
        let PartitionCheckpoint {
            end,
            segment,
            position,
            ..
        } = self.checkpoint;
        let at_checkpoint = Cursor {
            segment,
            position,
            offset: end,
        };
        if self.spec.log_start < end {
            return at_checkpoint;
        }
        match self.segments.range(..=self.spec.log_start).next_back() {
            Some((base, _)) if *base > segment => Cursor {
                segment: *base,
                position: 0,
                offset: *base,
            },
            _ if self.is_emptied() => Cursor {
                segment: self.spec.log_start,
                position: 0,
                offset: self.spec.log_start,
            },
            _ => at_checkpoint,
        }
    }

    /// Whether the checkpoint's segment was removed because everything in it lay below the log start, by
    /// retention or by a recovery that was interrupted before its checkpoint. What the journal has of it
    /// stands behind a hole then, and is not needed.
    pub(super) fn is_emptied(&self) -> bool {
        let log_start = self.spec.log_start;
        let PartitionCheckpoint { end, segment, .. } = self.checkpoint;
        let needed = |place: &Place| place.segment == segment && place.end_offset > log_start;
        self.prefix_is_missing && end <= log_start && !self.entries.iter().any(needed)
    }

    pub(super) fn parts(
        &mut self,
        active: Offset,
        mut indexes: BTreeMap<Offset, SegmentIndex>,
        log_end: Offset,
        leader_epoch: LeaderEpoch,
        epochs: EpochList,
        producers: ProducerTable,
    ) -> PartitionParts {
        let interval = self.spec.config.index_interval_bytes;
        let mut segments: Vec<SegmentParts> = self
            .segments
            .range(..active)
            .map(|(base, segment)| SegmentParts {
                base_offset: *base,
                bytes: segment.bytes,
                index: None,
            })
            .collect();
        let index = indexes
            .remove(&active)
            .unwrap_or_else(|| SegmentIndex::new(self.owner(active), interval));
        let bytes = self
            .segments
            .get(&active)
            .map_or(0, |segment| segment.bytes);
        segments.push(SegmentParts {
            base_offset: active,
            bytes,
            index: Some(index),
        });
        PartitionParts {
            spec: self.spec.clone(),
            folder: self.folder.clone(),
            segments,
            log_end,
            leader_epoch,
            epochs,
            producers,
        }
    }

    /// What is kept of a partition whose recovery may fail.
    pub(super) fn outline(&self) -> Self {
        Self {
            spec: self.spec.clone(),
            folder: self.folder.clone(),
            checkpoint: self.checkpoint.clone(),
            segments: self.segments.clone(),
            entries: Vec::new(),
            failure: None,
            ..*self
        }
    }

    /// The partition is offline: the device failed while it was recovered.
    pub(super) fn fail(mut self, operation: &'static str, error: io::Error) -> Settled {
        let file = self.folder.clone();
        self.offline(OfflineReason::Io {
            operation,
            file,
            error,
        })
    }

    /// What there is of a partition that serves nothing. Its files stay as they are.
    fn offline(&mut self, reason: OfflineReason) -> Settled {
        let PartitionCheckpoint {
            segment,
            end,
            leader_epoch,
            ..
        } = self.checkpoint;
        let log_end = end.max(self.spec.log_start);
        let active = if log_end == end { segment } else { log_end };
        let parts = self.parts(
            active,
            BTreeMap::new(),
            log_end,
            leader_epoch,
            EpochList::default(),
            ProducerTable::default(),
        );
        Settled {
            parts,
            offline: Some(reason),
            touched: Vec::new(),
            has_removed: self.has_removed,
            cut: None,
        }
    }

    /// The disk failed in a file of this partition: that is its own affair. Other errors are not.
    fn unreadable(&mut self, error: io::Error) -> io::Result<Settled> {
        let Unreadable { at, error } = error.downcast()?;
        let end = self.journal_end().max(self.checkpoint.end);
        let reason = self.damage(at, end, format!("it cannot be read: {error}"));
        Ok(self.offline(reason))
    }

    pub(super) fn decoded(&self) -> io::Result<(ProducerTable, EpochList)> {
        let PartitionCheckpoint {
            producers, epochs, ..
        } = &self.checkpoint;
        let producers = match producers.is_empty() {
            true => ProducerTable::default(),
            false => ProducerTable::decode(producers).map_err(io::Error::other)?,
        };
        let epochs = EpochList::decode(epochs).ok_or(io::ErrorKind::InvalidData)?;
        Ok((producers, epochs))
    }

    pub(super) fn damage(&self, at: Cursor, end: Offset, problem: String) -> OfflineReason {
        let file = self.folder.join(names::segment_file_name(at.segment));
        let offsets = at.offset..end.max(at.offset.add(1));
        OfflineReason::Damage {
            file,
            position: at.position,
            offsets,
            problem,
        }
    }

    fn folder_damage(&self, problem: String) -> OfflineReason {
        let offsets = self.spec.log_start..self.checkpoint.end.max(self.spec.log_start);
        OfflineReason::Damage {
            file: self.folder.clone(),
            position: 0,
            offsets,
            problem,
        }
    }
}

fn failed(operation: &'static str, file: PathBuf, error: io::Error) -> OfflineReason {
    OfflineReason::Io {
        operation,
        file,
        error,
    }
}
