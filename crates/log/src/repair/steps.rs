//! From what a log is to be to the files that have to change for it.

use std::{collections::BTreeSet, path::PathBuf};

use bytes::Bytes;
use sapwood_model::{LeaderEpoch, Offset};

use super::{
    Action, ActionKind, PartitionRepair, Restored,
    salvage::{Part, Salvaged, Segment},
};
use crate::{
    checkpoint::PartitionCheckpoint,
    index::IndexCounts,
    io::{Disk, OpenMode},
    names,
    sums::HeaderSums,
};

/// One change of one file.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) path: PathBuf,
    pub(super) change: Change,
    pub(super) why: String,
}

/// What becomes of a file.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// These are its bytes.
    Write(Vec<Part>),
    Remove,
    /// A folder of this name is there.
    MakeFolder,
}

impl Step {
    pub(super) fn write(path: PathBuf, bytes: Vec<u8>, why: impl Into<String>) -> Self {
        let change = Change::Write(vec![Part::Bytes(bytes.into())]);
        let why = why.into();
        Self { path, change, why }
    }

    pub(super) fn remove(path: PathBuf, why: impl Into<String>) -> Self {
        let (change, why) = (Change::Remove, why.into());
        Self { path, change, why }
    }

    pub(super) fn action(&self, disk: &dyn Disk) -> Action {
        let kind = match self.change {
            Change::Remove => ActionKind::Remove,
            Change::MakeFolder => ActionKind::Create,
            Change::Write(_) if length(disk, &self.path).is_some() => ActionKind::Rewrite,
            Change::Write(_) => ActionKind::Create,
        };
        let (file, why) = (self.path.clone(), self.why.clone());
        Action { file, kind, why }
    }
}

impl Part {
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::File { range, .. } => range.end - range.start,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }
}

/// The length of a file; `None` when it is not there.
pub(super) fn length(disk: &dyn Disk, path: &std::path::Path) -> Option<u64> {
    disk.open(path, OpenMode::Read)
        .and_then(|file| file.len())
        .ok()
}

/// What is known about a partition's files when its steps are made.
#[derive(Debug)]
pub(super) struct Files<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) topic: String,
    pub(super) partition: sapwood_model::PartitionId,
    pub(super) folder: PathBuf,
    /// Files in the folder that an inspection found wrong.
    pub(super) wrong: BTreeSet<PathBuf>,
    /// From this segment on, what can be read may never have reached the disk, and is written again.
    pub(super) unsettled_from: Option<Offset>,
    /// Behind this offset, nobody has looked at snapshots.
    pub(super) unchecked_from: Option<Offset>,
}

/// The steps of one partition, what to tell about them, and its entry in the next checkpoint.
pub(super) struct Planned {
    pub(super) steps: Vec<Step>,
    pub(super) repair: PartitionRepair,
    pub(super) entry: Option<PartitionCheckpoint>,
}

impl Files<'_> {
    /// Everything: segments, indexes, and an entry of the checkpoint that ends with the log.
    pub(super) fn settle(&self, mut log: Salvaged, epoch: LeaderEpoch, boot_id: &str) -> Planned {
        let mut steps = Vec::new();
        let active = log.segments.last().map(|last| last.base);
        let mut counts = IndexCounts::default();
        for segment in &mut log.segments {
            steps.extend(self.segment_step(segment));
            segment.index.complete();
            if Some(segment.base) == active {
                counts = segment.index.counts();
            }
            // Behind damage an inspection does not compare the entries of the index files.
            self.index_steps(segment, true, &mut steps);
        }
        for base in &log.unused {
            let why = "nothing in it follows the records before it";
            for name in companions(*base) {
                let path = self.folder.join(name);
                if length(self.disk, &path).is_some() {
                    steps.push(Step::remove(path, why));
                }
            }
        }
        self.snapshot_steps(&log, &mut steps);
        // Clients that track epochs see that something may have changed.
        log.epochs.truncate(log.end);
        log.epochs.push(epoch, log.end);
        let last = log.segments.last();
        let entry = PartitionCheckpoint {
            boot_id: boot_id.into(),
            end: log.end,
            segment: last.map_or(log.end, |last| last.base),
            position: last.map_or(0, |last| last.bytes),
            leader_epoch: epoch,
            index_entries: counts.offsets,
            time_index_entries: counts.times,
            producers: log.producers.encode(),
            epochs: log.epochs.encode(),
            aside: Vec::new(),
        };
        self.planned(steps, log, Some(entry))
    }

    /// Only the index files and snapshots of sealed segments that are wrong.
    pub(super) fn rebuild(&self, mut log: Salvaged) -> Planned {
        let mut steps = Vec::new();
        for segment in &mut log.segments {
            segment.index.complete();
            self.index_steps(segment, false, &mut steps);
        }
        self.snapshot_steps(&log, &mut steps);
        self.planned(steps, log, None)
    }

    fn planned(
        &self,
        steps: Vec<Step>,
        log: Salvaged,
        entry: Option<PartitionCheckpoint>,
    ) -> Planned {
        let in_folder = |mut loss: super::Loss| {
            if loss.file.as_os_str().is_empty() {
                loss.file.clone_from(&self.folder);
            }
            loss
        };
        let settled = entry.is_some();
        let restored = log.restored.into_iter();
        let repair = PartitionRepair {
            topic: self.topic.clone(),
            partition: self.partition,
            folder: self.folder.clone(),
            offsets: log.first..log.end,
            losses: match settled {
                true => log.losses.into_iter().map(in_folder).collect(),
                false => Vec::new(),
            },
            restored: restored
                .map(|(file, position, offset)| Restored {
                    file,
                    position,
                    offset,
                })
                .collect(),
            replayed: if settled { log.replayed } else { 0 },
            actions: steps.iter().map(|step| step.action(self.disk)).collect(),
        };
        Planned {
            steps,
            repair,
            entry,
        }
    }

    /// `None`: the file is as it is to be.
    fn segment_step(&self, segment: &Segment) -> Option<Step> {
        let path = self.folder.join(names::segment_file_name(segment.base));
        let is_whole = self.is_whole(segment);
        let same = is_whole && length(self.disk, &path) == Some(segment.bytes);
        let settled = self.unsettled_from.is_none_or(|from| segment.base < from);
        if same && settled {
            return None;
        }
        let why = match is_whole {
            true => "what lies behind its records is cut off",
            false => "its records, and empty batches for those that are lost",
        };
        let taken = segment.parts.iter().all(|part| {
            matches!(part, Part::File { path: from, .. } if *from == path)
                || matches!(part, Part::Bytes(_))
        });
        let why = match taken {
            true => why,
            false => "its records, which were in a file of another name",
        };
        Some(Step {
            path,
            change: Change::Write(segment.parts.clone()),
            why: why.into(),
        })
    }

    /// Whether everything in it was taken from its own file, as it stands there.
    fn is_whole(&self, segment: &Segment) -> bool {
        let path = self.folder.join(names::segment_file_name(segment.base));
        let range = 0..segment.bytes;
        segment.parts == [Part::File { path, range }]
    }

    fn index_steps(&self, segment: &Segment, changed: bool, steps: &mut Vec<Step>) {
        let index = self.folder.join(names::index_file_name(segment.base));
        let times = self.folder.join(names::time_index_file_name(segment.base));
        let sums = self.folder.join(names::sums_file_name(segment.base));
        let paths = [index, times, sums];
        if !changed && !paths.iter().any(|path| self.wrong.contains(path)) {
            return;
        }
        // Where blocks end is not the same in each file that is right.
        let owner = segment.index.owner();
        let is_whole = self.is_whole(segment)
            && HeaderSums::load(self.disk, &self.folder, owner, segment.bytes)
                .is_ok_and(|sums| sums.is_some());
        let encoded = segment.index.encode_from(IndexCounts::default());
        for (at, (path, bytes)) in paths.into_iter().zip(encoded.into_bytes()).enumerate() {
            let is_kept = at == 2 && is_whole && !self.wrong.contains(&path);
            if !is_kept && !self.holds(&path, &bytes) {
                steps.push(Step::write(path, bytes, "made anew from the batches"));
            }
        }
    }

    fn snapshot_steps(&self, log: &Salvaged, steps: &mut Vec<Step>) {
        for (at, bytes) in &log.snapshots {
            let path = self.folder.join(names::snapshot_file_name(*at));
            if !self.holds(&path, bytes) {
                let why = "made anew from the batches before it";
                steps.push(Step::write(path, bytes.clone(), why));
            }
        }
        // Those of segments that are not there any more go, too: nobody has looked at them.
        let is_unchecked = |at| self.unchecked_from.is_some_and(|from| at > from);
        for entry in self.disk.read_dir(&self.folder).unwrap_or_default() {
            let path = self.folder.join(entry.name);
            let at = snapshot_offset(&path).filter(|at| !log.snapshots.contains_key(at));
            if at.is_some_and(|at| is_unchecked(at) || self.wrong.contains(&path)) {
                let why = "no segment begins where it was taken";
                steps.push(Step::remove(path, why));
            }
        }
    }

    fn holds(&self, path: &std::path::Path, bytes: &[u8]) -> bool {
        let read = || {
            let file = self.disk.open(path, OpenMode::Read)?;
            let mut found = vec![0; bytes.len() + 1];
            let read = file.read_at(&mut found, 0)?;
            found.truncate(read);
            std::io::Result::Ok(Bytes::from(found))
        };
        read().is_ok_and(|found| found == bytes)
    }
}

/// The offset in the name of a producer snapshot.
pub(super) fn snapshot_offset(path: &std::path::Path) -> Option<Offset> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix(".snapshot")?.parse().ok().map(Offset)
}

fn companions(base: Offset) -> [String; 4] {
    [
        names::segment_file_name(base),
        names::index_file_name(base),
        names::time_index_file_name(base),
        names::sums_file_name(base),
    ]
}
