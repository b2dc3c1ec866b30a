//! Reading a stopped data directory, and saying what is wrong with it.
//!
//! Nothing is written, and nothing is decided from memory: segments, indexes, journal and checkpoint
//! are held against each other as they are on disk. How strictly a place is judged depends on what
//! the files promise about it:
//!
//! - Below the checkpoint, and everywhere after a clean stop, every batch must be there and check.
//! - Above it, after an unclean stop, the next start writes what the journal holds to the segments
//!   once more. So the log is read with the journal's entries laid over it, and as far as they reach
//!   every batch must be there and check.
//! - Behind that, the end of the log may be torn. When the kernel was not restarted since (the same
//!   boot id), the page cache is whole, and only one unfinished batch may lie there.
//!
//! Which topics there are and where their logs start is the catalog's to say, and the catalog is not
//! the log's to read. So a whole log that is missing is noticed only where the checkpoint or the
//! journal has something of it.

mod indexes;
mod partition;
mod read_only;
mod replay;
mod report;
mod segment;
mod small_files;

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use sapwood_model::{DirectoryId, LeaderEpoch, PartitionId, TopicId};

use self::{
    partition::{Circumstances, Known},
    read_only::ReadOnly,
    replay::Replay,
};
use crate::{
    OpenError, Progress,
    checkpoint::{Checkpoint, PartitionKey},
    io::{Disk, Environment, OpenMode},
    journal::{self, Scan},
    names,
    recovery::{DELETE_SUFFIX, NEW_SUFFIX, marker},
    repair,
    store::{
        ASIDE, BALLAST, CATALOG, CHECKPOINT, JOURNAL, LOCK_FILE, QUARANTINE, TOPICS, read_meta,
    },
};

pub use report::{
    CheckpointSummary, Finding, JournalFileSummary, JournalSummary, PartitionSummary, Report,
    SegmentSummary, Severity,
};

/// The catalog's file in its folder; the broker writes it.
const CATALOG_FILE: &str = "catalog.log";

const METADATA_BYTES_MAX: usize = 4096;

/// The least that is taken for the longest unfinished batch, in bytes.
const BATCH_BYTES_MAX_LEAST: u64 = 1 << 20;

/// How deep to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options<'a> {
    /// Read every byte of every batch and check its CRC. Without it, batches are walked by their
    /// headers, which reads little of them.
    pub checksums: bool,
    /// The kernel's boot id. When it is known to be the one in which the last process ran, the end
    /// of each log is judged as strictly as the next start will.
    pub boot_id: Option<&'a str>,
}

/// Looks at a data directory that no process uses. Holds its lock meanwhile. Blocks, for as long as
/// the disk takes to read what is asked for. `progress` counts partitions, and bytes of batches.
///
/// # Errors
/// [`OpenError`] when the path is not a data directory of a known format, is in use, or cannot be
/// read at all. Everything else that is wrong is a finding of the report.
pub fn inspect(
    environment: &Environment,
    path: &Path,
    options: &Options<'_>,
    progress: &Progress,
) -> Result<Report, OpenError> {
    read_meta(environment, path)?;
    let _lock = lock(environment, path)?;
    look(environment, path, options, progress)
}

/// As [`inspect`], for a caller that holds the directory's lock.
pub(crate) fn look(
    environment: &Environment,
    path: &Path,
    options: &Options<'_>,
    progress: &Progress,
) -> Result<Report, OpenError> {
    let read_only = Environment {
        disk: Arc::new(ReadOnly(environment.disk.clone())),
        ..environment.clone()
    };
    let id = read_meta(&read_only, path)?;
    let report = Report {
        path: path.to_owned(),
        id,
        clean_stop: marker::is_there(&read_only, path)?,
        catalog_bytes: None,
        ballast_bytes: file_bytes(&*read_only.disk, &path.join(BALLAST)),
        checkpoint: None,
        journal: JournalSummary::default(),
        partitions: Vec::new(),
        quarantined: Vec::new(),
        findings: Vec::new(),
    };
    let mut inspection = Inspection {
        disk: &*read_only.disk,
        root: path,
        id,
        options,
        progress,
        report,
    };
    inspection.run();
    Ok(inspection.report)
}

/// The directory's lock, where there is one and this process may take it.
fn lock(environment: &Environment, root: &Path) -> Result<Option<Box<dyn Send + Sync>>, OpenError> {
    let path = root.join(LOCK_FILE);
    // Locking a file that is missing would make it.
    if file_bytes(&*environment.disk, &path).is_none() {
        return Ok(None);
    }
    match environment.disk.lock(&path) {
        Ok(lock) => Ok(Some(lock)),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock => Err(OpenError::InUse {
                path: root.to_owned(),
            }),
            // Whoever may only read, or looks at a snapshot, cannot be in anybody's way.
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Ok(None),
            _ => Err(OpenError::io(&path)(error)),
        },
    }
}

struct Inspection<'a> {
    disk: &'a dyn Disk,
    root: &'a Path,
    id: DirectoryId,
    options: &'a Options<'a>,
    progress: &'a Progress,
    report: Report,
}

/// A partition's folder, as its name and its metadata say.
struct Folder {
    topic: String,
    partition: PartitionId,
    path: PathBuf,
    topic_id: Option<TopicId>,
    /// The leader epoch that the partition began with.
    first_epoch: Option<LeaderEpoch>,
}

impl Inspection<'_> {
    fn run(&mut self) {
        let pending = repair::pending_path(self.root);
        if file_bytes(self.disk, &pending).is_some() {
            self.push(Severity::Damage, pending, repair::INTERRUPTED);
        }
        let folders = self.folders();
        self.compare_ids(&folders);
        self.look_at_catalog(!folders.is_empty());
        self.report.quarantined = self.names(QUARANTINE);
        self.names(ASIDE);
        let checkpoint = self.look_at_checkpoint(!folders.is_empty());
        let scan = self.look_at_journal(checkpoint.as_ref());
        // Without a checkpoint nobody knows what was stopped cleanly.
        let clean_stop = self.report.clean_stop && checkpoint.is_some();
        let is_lost = checkpoint.is_none();
        let checkpoint = checkpoint.unwrap_or_default();
        let scan = scan.as_ref().filter(|_| !self.report.clean_stop);
        let findings = &mut self.report.findings;
        let replay = Replay::read(self.disk, self.root, &checkpoint, scan, findings);
        self.report.journal.entries = replay.entries;
        self.report.journal.batch_bytes = replay.batch_bytes;
        self.look_for_missing(&folders, &checkpoint, &replay);

        let longest = self
            .report
            .journal
            .files
            .iter()
            .map(|file| file.bytes / 2)
            .max();
        let now = Circumstances {
            disk: self.disk,
            replay: &replay,
            checksums: self.options.checksums,
            clean_stop,
            batch_bytes_max: longest.unwrap_or(0).max(BATCH_BYTES_MAX_LEAST),
            progress: self.progress,
        };
        self.progress.total.store(folders.len() as u64, Relaxed);
        for Folder {
            topic,
            partition,
            path,
            topic_id,
            first_epoch,
        } in folders
        {
            let entry = topic_id.and_then(|id| checkpoint.partitions.get(&(id, partition)));
            let boot_id = entry.map_or(&checkpoint.boot_id, |entry| &entry.boot_id);
            let known = Known {
                topic,
                partition,
                folder: path,
                topic_id,
                checkpoint: entry.cloned(),
                first_epoch: first_epoch.filter(|_| !is_lost),
                checkpoint_path: self.root.join(CHECKPOINT),
                same_boot: self.options.boot_id == Some(boot_id),
            };
            let summary = partition::inspect(&now, &known, &mut self.report.findings);
            self.report.partitions.push(summary);
            self.progress.done.fetch_add(1, Relaxed);
        }
    }

    /// The folders of partitions, by topic and number.
    fn folders(&mut self) -> Vec<Folder> {
        let topics = self.root.join(TOPICS);
        let mut folders = Vec::new();
        for name in self.names(TOPICS) {
            let path = topics.join(&name);
            if name.ends_with(DELETE_SUFFIX) || name.ends_with(NEW_SUFFIX) {
                let problem = "a folder that was being made or removed; the next start removes it";
                self.push(Severity::Unsettled, path, problem);
                continue;
            }
            let parts = name.rsplit_once('-');
            let Some((topic, number)) =
                parts.and_then(|(topic, number)| Some((topic, number.parse().ok()?)))
            else {
                let problem = "this is not a partition's folder; the next start sets it aside";
                self.push(Severity::Unsettled, path, problem);
                continue;
            };
            let metadata = path.join(names::METADATA_FILE);
            let mut first_epoch = None;
            let topic_id = match read_metadata(self.disk, &metadata) {
                Ok(Some(found)) => {
                    let other = found
                        .partition
                        .filter(|found| *found != PartitionId(number));
                    if let Some(other) = other {
                        let problem = format!("it is that of partition {other}");
                        self.push(Severity::Damage, metadata, problem);
                    }
                    first_epoch = found.epoch;
                    Some(found.topic_id)
                }
                Ok(None) => {
                    self.push(Severity::Damage, metadata, "it holds no topic id");
                    None
                }
                Err(error) => {
                    self.push(
                        Severity::Damage,
                        metadata,
                        format!("it cannot be read: {error}"),
                    );
                    None
                }
            };
            let (topic, partition) = (topic.to_owned(), PartitionId(number));
            folders.push(Folder {
                topic,
                partition,
                path,
                topic_id,
                first_epoch,
            });
        }
        folders.sort_by(|one, two| (&one.topic, one.partition).cmp(&(&two.topic, two.partition)));
        folders
    }

    /// A topic has one id, and an id one topic.
    fn compare_ids(&mut self, folders: &[Folder]) {
        for folder in folders {
            let Some(id) = folder.topic_id else { continue };
            let contradicts = |other: &&Folder| {
                let same_topic = other.topic == folder.topic;
                other
                    .topic_id
                    .is_some_and(|other| (other == id) != same_topic)
            };
            if let Some(other) = folders.iter().find(contradicts) {
                let problem = format!(
                    "it says that the topic's id is {id}; that contradicts {}",
                    other.path.join(names::METADATA_FILE).display()
                );
                let metadata = folder.path.join(names::METADATA_FILE);
                self.push(Severity::Damage, metadata, problem);
            }
        }
    }

    /// The names in a folder of the data directory; what cannot be read is a finding.
    fn names(&mut self, folder: &str) -> Vec<String> {
        let path = self.root.join(folder);
        match self.disk.read_dir(&path) {
            Ok(entries) => entries.into_iter().map(|entry| entry.name).collect(),
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && [ASIDE, QUARANTINE].contains(&folder) =>
            {
                let problem = "it is missing; the next start makes it";
                self.push(Severity::Unsettled, path, problem);
                Vec::new()
            }
            Err(error) => {
                self.push(
                    Severity::Damage,
                    path,
                    format!("it cannot be read: {error}"),
                );
                Vec::new()
            }
        }
    }

    fn look_at_catalog(&mut self, has_partitions: bool) {
        let path = self.root.join(CATALOG).join(CATALOG_FILE);
        self.report.catalog_bytes = file_bytes(self.disk, &path);
        if self.report.catalog_bytes.is_none() && has_partitions {
            self.push(
                Severity::Damage,
                path,
                "it is missing, and there are partitions",
            );
        }
    }

    fn look_at_checkpoint(&mut self, has_partitions: bool) -> Option<Checkpoint> {
        let path = self.root.join(CHECKPOINT);
        match Checkpoint::read(self.disk, &path) {
            Ok(Some(checkpoint)) => {
                self.report.checkpoint = Some(CheckpointSummary {
                    boot_id: checkpoint.boot_id.clone(),
                    first_round: checkpoint.first_round,
                    journal_generation: checkpoint.generation,
                    partitions: checkpoint.partitions.len(),
                });
                return Some(checkpoint);
            }
            Ok(None) if has_partitions => {
                self.push(
                    Severity::Damage,
                    path,
                    "it is missing, and there are partitions",
                );
            }
            Ok(None) => {}
            Err(error) => self.push(Severity::Damage, path, error.to_string()),
        }
        None
    }

    /// Reads the rounds that the next start will need: none after a clean stop. Without a checkpoint
    /// nobody knows which those are.
    fn look_at_journal(&mut self, checkpoint: Option<&Checkpoint>) -> Option<Scan> {
        let folder = self.root.join(JOURNAL);
        let from = checkpoint.map(|checkpoint| checkpoint.first_round);
        let from = from.filter(|_| !self.report.clean_stop);
        let generation = checkpoint.map_or(0, |checkpoint| checkpoint.generation);
        let scan = match journal::scan(self.disk, &folder, self.id, from, generation) {
            Ok(scan) => scan,
            Err(error) => {
                self.push(
                    Severity::Damage,
                    folder,
                    format!("it cannot be read: {error}"),
                );
                return None;
            }
        };
        for damage in &scan.damage {
            self.report.findings.push(Finding {
                severity: Severity::Damage,
                file: damage.path.clone(),
                position: Some(damage.position),
                offsets: None,
                problem: damage.to_string(),
            });
        }
        let needed_in = |index| {
            scan.rounds
                .iter()
                .filter(|round| round.file == index)
                .count() as u64
        };
        let files = scan
            .files
            .iter()
            .enumerate()
            .map(|(index, file)| JournalFileSummary {
                name: file.name.clone(),
                bytes: file.bytes,
                generation: file.header.map(|header| header.generation),
                rounds_needed: needed_in(index),
            });
        self.report.journal.files = files.collect();
        if let (Some(first), Some(last)) = (scan.rounds.first(), scan.rounds.last()) {
            self.report.journal.rounds = first.header.round..last.header.round + 1;
        }
        Some(scan)
    }

    /// Partitions that the checkpoint or the journal knows and that have no folder.
    fn look_for_missing(
        &mut self,
        folders: &[Folder],
        checkpoint: &Checkpoint,
        replay: &Replay<'_>,
    ) {
        let there: BTreeSet<PartitionKey> = folders
            .iter()
            .filter_map(|folder| Some((folder.topic_id?, folder.partition)))
            .collect();
        let known: BTreeSet<PartitionKey> = checkpoint
            .partitions
            .keys()
            .chain(replay.keys())
            .copied()
            .collect();
        // A clean stop's checkpoint knows the partitions that there are.
        let severity = if self.report.clean_stop {
            Severity::Damage
        } else {
            Severity::Unsettled
        };
        for (topic, partition) in known.difference(&there) {
            let problem = format!(
                "no folder is there for topic {topic}, partition {partition}: the topic was \
                 deleted, or the folder lost"
            );
            self.push(severity, self.root.join(TOPICS), problem);
        }
    }

    fn push(&mut self, severity: Severity, file: PathBuf, problem: impl Into<String>) {
        let problem = problem.into();
        self.report.findings.push(Finding {
            severity,
            file,
            position: None,
            offsets: None,
            problem,
        });
    }
}

/// The length of a file; `None` when it is not there or cannot be opened.
fn file_bytes(disk: &dyn Disk, path: &Path) -> Option<u64> {
    disk.open(path, OpenMode::Read)
        .and_then(|file| file.len())
        .ok()
}

fn read_metadata(disk: &dyn Disk, path: &Path) -> io::Result<Option<names::Metadata>> {
    let file = disk.open(path, OpenMode::Read)?;
    let mut text = vec![0; METADATA_BYTES_MAX];
    let read = file.read_at(&mut text, 0)?;
    Ok(std::str::from_utf8(&text[..read])
        .ok()
        .and_then(names::parse_metadata))
}
