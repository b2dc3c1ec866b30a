//! What there is to repair: the inspection's findings, the checkpoint, the journal's entries, and which
//! partitions they concern.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use sapwood_model::{DirectoryId, LeaderEpoch, Offset, PartitionId, TopicId};

use super::{
    Options, is_newer,
    salvage::Found,
    steps::{Change, Files, Planned, Step, snapshot_offset},
};
use crate::{
    Known, OpenError, PartitionSpec,
    checkpoint::{self, Checkpoint, PartitionCheckpoint, PartitionKey},
    framed,
    inspect::{Finding, Report, Severity},
    io::{Disk, Environment},
    journal::{self, Entry, Scan},
    names,
    partition::LogConfig,
    recovery::folder_of,
    store::{ASIDE, CHECKPOINT, JOURNAL, TOPICS, aside},
};

/// Rounds are skipped when the journal is given up, so that a file of it that comes back some day holds
/// none that is needed.
const ROUNDS_SKIPPED: u64 = 1 << 32;

/// A partition that may need repair.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) topic: String,
    pub(super) partition: PartitionId,
    pub(super) folder: PathBuf,
    pub(super) key: PartitionKey,
    /// Whether the folder says itself whose it is.
    has_metadata: bool,
    is_there: bool,
    spec: Option<PartitionSpec>,
}

/// Everything that is known before a partition is read.
#[derive(Debug)]
pub(super) struct Survey<'a> {
    disk: &'a dyn Disk,
    pub(super) root: &'a Path,
    pub(super) report: Report,
    known: Option<&'a Known>,
    same_boot: Option<&'a str>,
    /// `None` when it is lost, or when there never was one.
    pub(super) checkpoint: Option<Checkpoint>,
    /// The checkpoint is missing or damaged.
    pub(super) is_lost: bool,
    scan: Option<Scan>,
    /// Rounds that are needed are not there.
    pub(super) journal_is_damaged: bool,
    entries: BTreeMap<PartitionKey, Vec<Entry>>,
    /// Files of entries that cannot be read, and whose they are.
    pub(super) bad_aside: BTreeSet<PathBuf>,
    unsound: BTreeSet<PartitionKey>,
    /// The highest leader epoch of any partition so far.
    last_epoch: Cell<LeaderEpoch>,
}

impl<'a> Survey<'a> {
    /// Reads the checkpoint and the journal. Blocks.
    pub(super) fn take(
        environment: &'a Environment,
        root: &'a Path,
        id: DirectoryId,
        report: Report,
        options: &Options<'a>,
    ) -> Result<Self, OpenError> {
        let disk = &*environment.disk;
        let checkpoint = read_checkpoint(disk, &root.join(CHECKPOINT))?;
        let has_partitions = !report.partitions.is_empty();
        let mut survey = Self {
            disk,
            root,
            known: options.known,
            same_boot: options.boot_id,
            is_lost: checkpoint.is_none() && has_partitions,
            checkpoint,
            scan: None,
            journal_is_damaged: false,
            entries: BTreeMap::new(),
            bad_aside: BTreeSet::new(),
            unsound: BTreeSet::new(),
            last_epoch: Cell::default(),
            report,
        };
        let entries = survey
            .checkpoint
            .iter()
            .flat_map(|known| known.partitions.values());
        let epochs = entries.map(|entry| entry.leader_epoch);
        survey.last_epoch.set(epochs.max().unwrap_or_default());
        survey.read_journal(id)?;
        Ok(survey)
    }

    fn read_journal(&mut self, id: DirectoryId) -> Result<(), OpenError> {
        let folder = self.root.join(JOURNAL);
        let scan = |from, generation| {
            journal::scan(self.disk, &folder, id, Some(from), generation)
                .map_err(OpenError::io(&folder))
        };
        let scan = match &self.checkpoint {
            Some(checkpoint) => scan(checkpoint.first_round, checkpoint.generation)?,
            None => {
                // Nobody knows which rounds are needed: all that are there.
                let first = scan(0, 0)?
                    .rounds
                    .first()
                    .map_or(0, |round| round.header.round);
                scan(first, 0)?
            }
        };
        self.journal_is_damaged = !scan.damage.is_empty();
        if self.checkpoint.is_some() && self.report.clean_stop {
            self.scan = Some(scan);
            return Ok(());
        }
        for (key, entry) in self.checkpoint.iter().flat_map(|known| &known.partitions) {
            for name in &entry.aside {
                let path = self.root.join(ASIDE).join(name);
                match aside::read_all(self.disk, &path) {
                    Ok(read) => {
                        if read.journal_was_damaged {
                            self.unsound.insert(*key);
                        }
                        let ours = read.entries.into_iter();
                        let ours = ours.filter(|one| (one.topic_id, one.partition) == *key);
                        self.entries.entry(*key).or_default().extend(ours);
                    }
                    Err(_) => {
                        self.bad_aside.insert(path);
                        self.unsound.insert(*key);
                    }
                }
            }
        }
        for round in &scan.rounds {
            let path = &scan.files[round.file].path;
            let read = journal::read_entries(&scan, round).map_err(OpenError::io(path))?;
            for entry in read {
                let key = (entry.topic_id, entry.partition);
                self.entries.entry(key).or_default().push(entry);
            }
        }
        for (key, entries) in &mut self.entries {
            let end = match &self.checkpoint {
                Some(known) => known
                    .partitions
                    .get(key)
                    .map_or(Offset::ZERO, |entry| entry.end),
                None => Offset::ZERO,
            };
            entries.retain(|entry| entry.end_offset > end);
            if self.checkpoint.is_some() && contradict(entries, end) {
                self.unsound.insert(*key);
            }
        }
        self.scan = Some(scan);
        Ok(())
    }

    /// Every partition that has a folder or that the catalog knows.
    pub(super) fn targets(&self) -> Vec<Target> {
        let specs: BTreeMap<PathBuf, &PartitionSpec> = self
            .known
            .iter()
            .flat_map(|known| &known.partitions)
            .map(|spec| (self.root.join(TOPICS).join(folder_of(spec)), spec))
            .collect();
        let mut targets = Vec::new();
        let mut seen = BTreeSet::new();
        for one in &self.report.partitions {
            seen.insert(one.folder.clone());
            let spec = specs.get(&one.folder).copied();
            let id = one.topic_id.or(spec.map(|spec| spec.topic_id));
            targets.push(Target {
                topic: one.topic.clone(),
                partition: one.partition,
                folder: one.folder.clone(),
                key: (id.unwrap_or(TopicId(0)), one.partition),
                has_metadata: one.topic_id.is_some(),
                is_there: true,
                spec: spec.cloned(),
            });
        }
        for (folder, spec) in specs {
            if seen.insert(folder.clone()) {
                targets.push(Target {
                    topic: spec.topic.to_string(),
                    partition: spec.partition,
                    folder,
                    key: (spec.topic_id, spec.partition),
                    has_metadata: false,
                    is_there: false,
                    spec: Some(spec.clone()),
                });
            }
        }
        targets.sort_by(|one, two| (&one.topic, one.partition).cmp(&(&two.topic, two.partition)));
        targets
    }

    /// What is to be done to a partition; nothing for a sound one.
    ///
    /// # Errors
    /// Why it cannot be repaired, in words.
    pub(super) fn plan(&self, target: &Target) -> Result<Option<Planned>, String> {
        let spec = target.spec.as_ref();
        if let Some(problem) = self.ownership_problem(target) {
            return Err(problem);
        }
        let entry = self
            .checkpoint
            .as_ref()
            .and_then(|known| known.partitions.get(&target.key));
        if !target.is_there && entry.is_none_or(|entry| entry.end == Offset::ZERO) {
            return Ok(None); // the next start makes it
        }
        let Some(depth) = self.depth(target, entry) else {
            return Ok(None);
        };
        let config = spec.map_or_else(LogConfig::default, |spec| spec.config.clone());
        let wrong = self.wrong_files(target);
        let checkpoint = self
            .checkpoint
            .as_ref()
            .map(|_| entry.cloned().unwrap_or_default());
        let found = Found {
            log: target.key,
            segments: self.segments(target),
            entries: self.entries.get(&target.key).cloned().unwrap_or_default(),
            log_start: spec.map(|spec| spec.log_start),
            trust_tail: self.is_same_boot(entry) || self.is_lost || self.journal_is_damaged,
            index_interval_bytes: config.index_interval_bytes,
            checkpoint: checkpoint.clone(),
        };
        let snapshots = wrong
            .iter()
            .filter_map(|path| snapshot_offset(path))
            .collect();
        let unsettled_from = (!self.report.clean_stop)
            .then(|| entry.map_or(Offset::ZERO, |entry| entry.segment))
            .filter(|_| depth == Depth::Whole);
        let unchecked_from = match self.is_lost {
            true => Some(Offset::ZERO),
            false => unsettled_from,
        };
        let salvaged = found.salvage(self.disk, &snapshots, unchecked_from);
        let files = Files {
            disk: self.disk,
            topic: target.topic.clone(),
            partition: target.partition,
            folder: target.folder.clone(),
            wrong,
            unsettled_from,
            unchecked_from,
        };
        if !target.has_metadata && target.is_there && !salvaged.segments.is_empty() {
            let at = checkpoint.map(|entry| (entry.segment, entry.position));
            if at.is_none_or(|at| salvaged.checkpoint_at != Some(at)) {
                return Err(
                    "its partition.metadata is lost, and nothing proves that the records in it are \
                     the topic's; restore that file, or move the folder away"
                        .into(),
                );
            }
        }
        let mut planned = match depth {
            Depth::Sealed => files.rebuild(salvaged),
            Depth::Whole => {
                // No two partitions share one.
                let last = salvaged.epoch.max(self.last_epoch.get());
                let epoch = LeaderEpoch(last.0 + 1);
                self.last_epoch.set(epoch);
                files.settle(salvaged, epoch, self.boot_id())
            }
        };
        self.add_folder(target, &mut planned);
        Ok((!planned.steps.is_empty() || planned.entry.is_some()).then_some(planned))
    }

    fn ownership_problem(&self, target: &Target) -> Option<String> {
        match (&target.spec, target.has_metadata) {
            (Some(spec), true) if spec.topic_id != target.key.0 => Some(format!(
                "it belongs to topic id {}; the catalog says that topic {:?} has the id {}: move the \
                 folders back to their own names",
                target.key.0, target.topic, spec.topic_id
            )),
            (None, false) => Some(
                "its partition.metadata is lost, and without the catalog nobody knows whose folder it is"
                    .into(),
            ),
            _ => None,
        }
    }

    fn add_folder(&self, target: &Target, planned: &mut Planned) {
        if target.has_metadata {
            return;
        }
        let mut steps = Vec::new();
        if !target.is_there {
            steps.push(Step {
                path: target.folder.clone(),
                change: Change::MakeFolder,
                why: "the catalog and the checkpoint know the partition".into(),
            });
        }
        let text = names::metadata_text(target.key.0, target.key.1, None).into_bytes();
        let path = target.folder.join(names::METADATA_FILE);
        steps.push(Step::write(path, text, "the topic's id, from the catalog"));
        let actions = steps.iter().map(|step| step.action(self.disk));
        planned
            .repair
            .actions
            .splice(0..0, actions.collect::<Vec<_>>());
        planned.steps.splice(0..0, steps);
    }

    /// How much of a partition is to be made anew; `None` for a sound one.
    fn depth(&self, target: &Target, entry: Option<&PartitionCheckpoint>) -> Option<Depth> {
        let is_misplaced = |finding: &Finding| {
            let at = finding.offsets.as_ref().map(|offsets| offsets.start);
            finding.file == self.root.join(CHECKPOINT)
                && at.is_some()
                && at == entry.map(|entry| entry.end)
                && finding.problem.contains(&*target.folder.to_string_lossy())
        };
        // After a clean stop nobody needs the journal.
        let forced = self.is_lost
            || (self.journal_is_damaged && !self.report.clean_stop)
            || self.unsound.contains(&target.key)
            || !target.has_metadata
            || self.begins_too_late(target)
            || self.report.findings.iter().any(is_misplaced);
        if forced {
            return Some(Depth::Whole);
        }
        let from = entry.map_or(Offset::ZERO, |entry| entry.segment);
        let findings = self.report.findings.iter();
        findings
            .filter(|finding| finding.file.starts_with(&target.folder))
            .filter_map(|finding| match finding.severity {
                Severity::Damage => Some(Depth::Whole),
                Severity::Rebuildable if base_of(&finding.file) < Some(from) => Some(Depth::Sealed),
                Severity::Rebuildable => Some(Depth::Whole),
                Severity::Unsettled => None,
            })
            .max()
    }

    /// The catalog says that the log begins before its first file.
    fn begins_too_late(&self, target: &Target) -> bool {
        let Some(spec) = &target.spec else {
            return false;
        };
        let first = self.segments(target).keys().next().copied();
        let end = self
            .checkpoint
            .as_ref()
            .and_then(|known| known.partitions.get(&target.key))
            .map_or(Offset::ZERO, |entry| entry.end);
        first.is_some_and(|first| first > spec.log_start && spec.log_start < end)
    }

    fn is_same_boot(&self, entry: Option<&PartitionCheckpoint>) -> bool {
        let known = self.checkpoint.as_ref().map(|known| &known.boot_id);
        let boot = entry.map(|entry| &entry.boot_id).or(known);
        boot.is_some_and(|boot| self.same_boot == Some(boot))
    }

    fn wrong_files(&self, target: &Target) -> BTreeSet<PathBuf> {
        let findings = self.report.findings.iter();
        findings
            .filter(|finding| finding.severity == Severity::Rebuildable)
            .map(|finding| finding.file.clone())
            .filter(|file| file.starts_with(&target.folder))
            .collect()
    }

    fn segments(&self, target: &Target) -> BTreeMap<Offset, PathBuf> {
        let names = self.disk.read_dir(&target.folder).unwrap_or_default();
        names
            .into_iter()
            .filter_map(|entry| {
                let base = names::parse_segment_file_name(&entry.name)?;
                Some((base, target.folder.join(entry.name)))
            })
            .collect()
    }

    /// The boot that entries of the checkpoint name. Nothing is kept on the strength of it: the files
    /// end where these entries say.
    pub(super) fn boot_id(&self) -> &str {
        self.checkpoint
            .as_ref()
            .map_or("repaired", |known| &known.boot_id)
    }

    /// Whether a finding is about the journal or entries set aside.
    pub(super) fn is_journals(&self, finding: &Finding) -> bool {
        finding.file.starts_with(self.root.join(JOURNAL))
            || finding.file.starts_with(self.root.join(ASIDE))
    }

    /// The round and the generation from which a journal is needed of which no round is needed.
    pub(super) fn journal_start(&self) -> (u64, u64) {
        let Some(scan) = &self.scan else {
            return (ROUNDS_SKIPPED, 0);
        };
        let found = scan.files.iter().filter_map(|file| file.header);
        let generation = found.map(|header| header.generation).max().unwrap_or(0);
        (scan.next_round.saturating_add(ROUNDS_SKIPPED), generation)
    }
}

/// How much of a partition is to be made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Depth {
    /// Index files and snapshots of segments that were sealed.
    Sealed,
    /// Everything that is not as it should be.
    Whole,
}

/// The checkpoint; `None` when it is missing or damaged.
fn read_checkpoint(disk: &dyn Disk, path: &Path) -> Result<Option<Checkpoint>, OpenError> {
    if let Err(error) = framed::read(disk, path, checkpoint::KIND)
        && is_newer(&error)
    {
        return Err(OpenError::damaged(path, error));
    }
    match Checkpoint::read(disk, path) {
        Err(OpenError::Damaged { .. } | OpenError::Io { .. }) => Ok(None),
        read => read,
    }
}

/// The offset in the name of a file of a partition.
fn base_of(path: &Path) -> Option<Offset> {
    let name = path.file_name()?.to_str()?;
    name.split_once('.')?.0.parse().ok().map(Offset)
}

/// Whether a partition's entries cannot all be right: the rules of recovery.
fn contradict(entries: &[Entry], checkpoint_end: Offset) -> bool {
    let mut expected = checkpoint_end;
    let mut last: Option<&Entry> = None;
    for entry in entries {
        let gap = entry.base_offset > expected && !entry.starts_run;
        let elsewhere = entry.position == 0 && entry.segment != entry.base_offset;
        let behind = last.is_some_and(|last| {
            let follows = entry.starts_run
                || entry.position == 0
                || (entry.segment, entry.position)
                    == (last.segment, last.position + last.bytes.len() as u64);
            entry.leader_epoch < last.leader_epoch || entry.base_offset < expected || !follows
        });
        if gap || elsewhere || behind {
            return true;
        }
        expected = entry.end_offset;
        last = Some(entry);
    }
    false
}
