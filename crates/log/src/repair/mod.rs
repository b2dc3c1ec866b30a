//! Repairing a stopped data directory: a plan that says what would be lost, then the plan carried out.
//!
//! [`plan`] changes nothing. It inspects the directory, and for each partition that is not sound it reads
//! the log batch by batch, from the segments and from the journal, and decides what the files are to be
//! (`salvage`). Every batch that checks stays, with its offset. Where none can be had, an empty batch
//! takes the place of the lost offsets, so that no offset is ever given twice and readers pass over them.
//! Only what nobody was promised is cut off. Indexes, producers and leader epochs are made anew from the
//! batches, and the checkpoint gets an entry that ends with the log, so that the next start needs nothing
//! of the journal for it.
//!
//! [`Plan::apply`] keeps a copy of every file that it changes (`apply`). Partitions that are sound are
//! left alone, unless the checkpoint or the journal is lost: what all partitions rely on can be made anew
//! only from all of them.
//!
//! The catalog is the broker's, and nothing here writes it. What it knows decides a few things that the
//! files of a partition do not say: where its log begins, and whose folder it is.

mod apply;
mod foreign;
mod raw;
mod report;
mod restore;
mod salvage;
mod steps;
mod survey;

use std::{
    collections::BTreeSet,
    fmt, io,
    path::{Path, PathBuf},
};

use sapwood_model::{DirectoryId, PartitionId};

pub use report::{Action, ActionKind, Loss, PartitionRepair, Repaired, Restored};

pub(crate) use apply::pending_path;

use self::{
    apply::{Apply, Pending},
    steps::{Planned, Step},
    survey::{Survey, Target},
};
use crate::{
    Known, OpenError, Progress,
    checkpoint::{Checkpoint, PartitionCheckpoint, PartitionKey},
    framed,
    inspect::{self, Finding, Severity},
    io::Environment,
    store::{CHECKPOINT, LOCK_FILE, TOPICS, read_meta},
};

/// Folder of the copies, one folder in it for each repair.
pub(crate) const REPAIR: &str = "repair";

/// What is said of a directory with a repair that has to be finished.
pub(crate) const INTERRUPTED: &str =
    "a repair was interrupted; `sapwood storage repair --yes` finishes it";

/// What to repair, and what is known beside the files.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options<'a> {
    /// The kernel's boot id: as long as it is the one in which the last process ran, what stands behind
    /// the last promised record may have been acknowledged, and is kept as far as it checks.
    pub boot_id: Option<&'a str>,
    /// Only this topic.
    pub topic: Option<&'a str>,
    /// Only this partition of it.
    pub partition: Option<PartitionId>,
    /// What the catalog says. Without it a log is taken to begin with its first file, and a folder
    /// without its metadata cannot be repaired.
    pub known: Option<&'a Known>,
}

impl Options<'_> {
    fn wants(&self, topic: &str, partition: PartitionId) -> bool {
        self.topic.is_none_or(|wanted| wanted == topic)
            && self.partition.is_none_or(|wanted| wanted == partition)
    }
}

/// What a repair would do. Holds the directory's lock.
pub struct Plan {
    /// The data directory.
    pub path: PathBuf,
    /// A repair was interrupted, the one with this number. Applying this plan finishes it, and does
    /// nothing else; plan once more afterwards.
    pub interrupted: Option<u64>,
    /// The partitions that are to be repaired, by topic and number.
    pub partitions: Vec<PartitionRepair>,
    /// What happens to files that belong to no partition.
    pub actions: Vec<Action>,
    /// What is damaged and stays so, with the reason as its problem.
    pub left: Vec<Finding>,
    /// What the copies and the new files take, in bytes.
    pub bytes_needed: u64,
    /// What is free, in bytes.
    pub bytes_free: u64,
    steps: Vec<Step>,
    pending: Option<Pending>,
    environment: Environment,
    _lock: Box<dyn Send + Sync>,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("path", &self.path)
            .field("interrupted", &self.interrupted)
            .field("partitions", &self.partitions)
            .field("actions", &self.actions)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

/// The identity of a data directory, which its catalog names too. Changes nothing, and takes no lock.
///
/// # Errors
/// [`OpenError`] when the path is not a data directory of a known format, or cannot be read.
pub fn directory_id(environment: &Environment, path: &Path) -> Result<DirectoryId, OpenError> {
    read_meta(environment, path)
}

/// Finds out what has to be done to a data directory that no process uses. Changes nothing. Blocks for as
/// long as the disk takes to read everything. `progress` counts partitions, and bytes of batches.
///
/// # Errors
/// [`OpenError`]: the path is not a data directory of a known format, is in use, or cannot be read at
/// all. [`OpenError::Damaged`] for what cannot be repaired from what is there: the directory's identity,
/// and a checkpoint or marker of a newer version.
pub fn plan(
    environment: &Environment,
    path: &Path,
    options: &Options<'_>,
    progress: &Progress,
) -> Result<Plan, OpenError> {
    let disk = &*environment.disk;
    let id = read_meta(environment, path)?;
    let lock_path = path.join(LOCK_FILE);
    let lock = disk.lock(&lock_path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::InUse {
            path: path.to_owned(),
        },
        _ => OpenError::io(&lock_path)(error),
    })?;
    let bytes_free = disk.space(path).map_err(OpenError::io(path))?.free_bytes;
    let mut plan = Plan {
        path: path.to_owned(),
        interrupted: None,
        partitions: Vec::new(),
        actions: Vec::new(),
        left: Vec::new(),
        bytes_needed: 0,
        bytes_free,
        steps: Vec::new(),
        pending: Pending::read(disk, path)?,
        environment: environment.clone(),
        _lock: lock,
    };
    plan.interrupted = plan.pending.as_ref().map(|pending| pending.number);
    if plan.interrupted.is_some() {
        return Ok(plan);
    }
    let look = inspect::Options {
        checksums: true,
        boot_id: options.boot_id,
    };
    let report = inspect::look(environment, path, &look, progress)?;
    let survey = Survey::take(environment, path, id, report, options)?;
    plan.decide(&survey, options);
    let apply = Apply {
        environment,
        root: path,
        progress,
    };
    plan.bytes_needed = apply.bytes_needed(&plan.steps);
    Ok(plan)
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.interrupted.is_none() && self.steps.is_empty()
    }

    /// How many offsets have no record afterwards that had one.
    pub fn offsets_lost(&self) -> u64 {
        self.partitions
            .iter()
            .map(PartitionRepair::offsets_lost)
            .sum()
    }

    /// Carries the plan out. Durable when it returns. Blocks. `progress` counts bytes written. `None` when
    /// there was nothing to do, or it was another repair that was finished.
    ///
    /// # Errors
    /// [`OpenError::Io`], with `StorageFull` before anything is written when the copies do not fit.
    /// After an error in the middle either nothing was changed, or [`plan`] says that the repair was
    /// interrupted, and goes on with it.
    pub fn apply(self, progress: &Progress) -> Result<Option<Repaired>, OpenError> {
        let disk = &*self.environment.disk;
        if let Some(pending) = &self.pending {
            let finished = pending.finish(disk, &self.path, true);
            return finished
                .map(|()| None)
                .map_err(OpenError::io(&pending_path(&self.path)));
        }
        if self.steps.is_empty() {
            return Ok(None);
        }
        let apply = Apply {
            environment: &self.environment,
            root: &self.path,
            progress,
        };
        apply.run(&self.steps).map(Some)
    }

    fn decide(&mut self, survey: &Survey<'_>, options: &Options<'_>) {
        let mut handled = BTreeSet::new();
        let mut entries: Vec<(PartitionKey, PartitionCheckpoint)> = Vec::new();
        for target in survey.targets() {
            if !options.wants(&target.topic, target.partition) {
                continue;
            }
            match survey.plan(&target) {
                Ok(None) => {}
                Ok(Some(Planned {
                    steps,
                    repair,
                    entry,
                })) => {
                    handled.insert(target.folder.clone());
                    self.steps.extend(steps);
                    self.partitions.push(repair);
                    entries.extend(entry.map(|entry| (target.key, entry)));
                }
                Err(problem) => self.leave(&target, problem),
            }
        }
        let whole = options.topic.is_none();
        self.plan_checkpoint(survey, entries, whole);
        for path in survey.bad_aside.iter().filter(|_| whole) {
            let why = "no entry can be read from it, and the checkpoint names it no more";
            self.directory_step(Step::remove(path.clone(), why));
        }
        let checkpoint = survey.root.join(CHECKPOINT);
        // A folder without its metadata is also one that is not there.
        let is_found = |finding: &Finding| {
            let mut targets = survey.targets().into_iter();
            finding.file == survey.root.join(TOPICS)
                && targets.any(|target| {
                    let (topic, partition) = target.key;
                    let name = format!("topic {topic}, partition {partition}:");
                    finding.problem.contains(&name)
                })
        };
        for finding in &survey.report.findings {
            let in_handled = |folder: &PathBuf| finding.file.starts_with(folder);
            let is_settled = finding.severity == Severity::Unsettled
                || handled.iter().any(in_handled)
                || is_found(finding)
                || self.left.iter().any(|left| left.file == finding.file)
                || finding.file == checkpoint && (whole || finding.offsets.is_some())
                || whole && survey.is_journals(finding);
            let wanted =
                options.topic.is_none() || self.left_out(survey, options, finding) == Some(false);
            if !is_settled && wanted {
                self.left.push(finding.clone());
            }
        }
    }

    /// Whether a finding lies in the folder of a partition that was not asked for; `None` when it is no
    /// partition's.
    fn left_out(
        &self,
        survey: &Survey<'_>,
        options: &Options<'_>,
        finding: &Finding,
    ) -> Option<bool> {
        let partitions = &survey.report.partitions;
        let owner = partitions
            .iter()
            .find(|one| finding.file.starts_with(&one.folder))?;
        Some(!options.wants(&owner.topic, owner.partition))
    }

    fn leave(&mut self, target: &Target, problem: String) {
        self.left.push(Finding {
            severity: Severity::Damage,
            file: target.folder.clone(),
            position: None,
            offsets: None,
            problem,
        });
    }

    fn plan_checkpoint(
        &mut self,
        survey: &Survey<'_>,
        entries: Vec<(PartitionKey, PartitionCheckpoint)>,
        whole: bool,
    ) {
        let lost = survey.checkpoint.is_none() && survey.is_lost;
        let anew = whole && (lost || survey.journal_is_damaged);
        if entries.is_empty() && !anew {
            return;
        }
        if survey.checkpoint.is_none() && !whole {
            let problem =
                "the checkpoint is lost: all partitions are repaired together, without --topic";
            self.steps.clear();
            self.partitions.clear();
            self.left.push(Finding {
                severity: Severity::Damage,
                file: survey.root.join(CHECKPOINT),
                position: None,
                offsets: None,
                problem: problem.into(),
            });
            return;
        }
        let mut next = survey.checkpoint.clone().unwrap_or_else(|| Checkpoint {
            boot_id: survey.boot_id().to_owned(),
            ..Checkpoint::default()
        });
        next.partitions.extend(entries);
        let why = match (lost, survey.journal_is_damaged) {
            (true, _) => {
                "made anew from the segments and the journal; what may be missing at the end of a log \
                 nobody knows"
            }
            (false, true) => "no round of the journal is needed any more",
            (false, false) => "the repaired partitions are safe in their segments to their ends",
        };
        if anew {
            (next.first_round, next.generation) = survey.journal_start();
        }
        let path = survey.root.join(CHECKPOINT);
        self.directory_step(Step::write(path, next.encode(), why));
    }

    fn directory_step(&mut self, step: Step) {
        self.actions.push(step.action(&*self.environment.disk));
        self.steps.push(step);
    }
}

/// Whether a framed file is whole and its version is only too new.
fn is_newer(error: &framed::FramedError) -> bool {
    matches!(error, framed::FramedError::Newer { .. })
}
