//! What the store's threads and partitions share.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use parking_lot::{Mutex, RwLock};
use sapwood_model::TopicId;
use tracing::{error, info};

use super::{
    DataDir, JournalStep, OpenError, StoreError, StoreOptions,
    ballast::Ballast,
    checkpointing::TouchedFile,
    commit::{CommitQueue, RoundWriter},
    removal::Removals,
    work::{Task, Work},
};
use crate::{
    checkpoint::{Checkpoint, PartitionKey},
    durability::{Durability, Retired, Space},
    io::{Clock, Disk, TailKind, lacks_descriptors},
    metrics::StoreMetrics,
    partition::{OfflineReason, Partition, PartitionParts},
    recovery::Recovered,
    segment::OpenFiles,
};

/// Above this many files, one sync of the file system replaces one of each at the start.
const FILE_SYNCS_MAX: usize = 8;

/// Why the data directory is read-only.
#[must_use = "those who wait have to be told"]
pub(super) struct Failure {
    reason: Arc<str>,
    is_first: bool,
}

/// With less free space than this the first allocation of a segment cannot succeed.
const FULL_BYTES: u64 = 64 << 10;

/// One data directory, without the threads that work on it.
pub(crate) struct Inner {
    pub(super) dir: DataDir,
    pub(super) options: StoreOptions,
    pub(super) tail: TailKind,
    pub(super) open_files: Arc<OpenFiles>,
    pub(super) partitions: RwLock<BTreeMap<PartitionKey, Arc<Partition>>>,
    pub(super) commit: CommitQueue,
    pub(super) writer: Mutex<RoundWriter>,
    pub(super) work: Work,
    pub(super) removals: Removals,
    /// The last good one. Held while the next one is taken.
    pub(super) checkpoint: Mutex<Checkpoint>,
    /// Deleted topics whose folders are gone; the next checkpoint passes their entries.
    pub(super) deleted: Mutex<BTreeSet<TopicId>>,
    pub(super) forgotten: Mutex<Vec<TopicId>>,
    pub(super) ballast: Ballast,
    pub(super) failed: OnceLock<Arc<str>>,
    /// The leader epoch of the next partition that is made: no two share one.
    pub(super) next_epoch: AtomicU32,
    /// Held while a folder is synced and its failure is noted: the next sync of the folder would
    /// succeed, and must not come before that.
    pub(super) folder_syncs: Mutex<()>,
    /// The size of the last append that was refused for want of space, unless one found space since.
    pub(super) lacking: AtomicU64,
    pub(super) metrics: StoreMetrics,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("path", &self.dir.path())
            .finish_non_exhaustive()
    }
}

impl Inner {
    /// Takes over what recovery found, and syncs what it wrote.
    pub(super) fn adopt(self: &Arc<Self>, recovered: Vec<Recovered>) -> Result<(), OpenError> {
        let files: usize = recovered
            .iter()
            .map(|recovered| recovered.touched.len())
            .sum();
        let together =
            files > FILE_SYNCS_MAX && self.disk().sync_filesystem(self.dir.path()).is_ok();
        for Recovered {
            parts,
            mut offline,
            touched,
            has_removed,
        } in recovered
        {
            let key = (parts.spec.topic_id, parts.spec.partition);
            let folder = parts.folder.clone();
            for TouchedFile { path, file, .. } in &touched {
                // A sync of the file system may have told its failure to another program.
                let (operation, synced) = match together {
                    true => ("write out", file.check_write_out()),
                    false => ("sync", file.sync_data()),
                };
                if let Err(error) = synced {
                    offline.get_or_insert(OfflineReason::Io {
                        operation,
                        file: path.clone(),
                        error,
                    });
                }
            }
            if !together && (has_removed || !touched.is_empty()) {
                self.disk()
                    .sync_dir(&folder)
                    .map_err(OpenError::io(&folder))?;
            }
            let partition = self.assemble(parts);
            if let Some(reason) = offline {
                partition.take_offline(reason);
            }
            self.partitions.write().insert(key, partition);
        }
        Ok(())
    }

    pub(super) fn assemble(self: &Arc<Self>, parts: PartitionParts) -> Arc<Partition> {
        let durability: Arc<dyn Durability> = Arc::clone(self) as _;
        Partition::assemble(
            parts,
            self.dir.environment().clone(),
            self.tail,
            Arc::clone(&self.open_files),
            durability,
        )
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        &*self.dir.environment().disk
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.dir.environment().clock
    }

    pub(super) fn refuse_if_read_only(&self) -> Result<(), StoreError> {
        match self.failed.get() {
            Some(reason) => Err(StoreError::ReadOnly {
                reason: Arc::clone(reason),
            }),
            None => Ok(()),
        }
    }

    /// Makes the data directory read-only. The first reason is kept, and returned.
    pub(super) fn fail(&self, reason: &str) -> Arc<str> {
        let failure = self.mark_failed(reason);
        self.tell_failed(&failure);
        failure.reason
    }

    /// The first half of [`Self::fail`], for whoever holds a lock: from here on nothing is written.
    pub(super) fn mark_failed(&self, reason: &str) -> Failure {
        let mut is_first = false;
        let kept = self.failed.get_or_init(|| {
            is_first = true;
            reason.into()
        });
        Failure {
            reason: Arc::clone(kept),
            is_first,
        }
    }

    /// The other half. No lock may be held.
    pub(super) fn tell_failed(&self, failure: &Failure) {
        if !failure.is_first {
            return;
        }
        let reason = &failure.reason;
        error!(event = "disk.rejecting", %reason, "the data directory is read-only");
        for partition in self.partitions.read().values() {
            partition.notify_failed();
        }
    }

    /// As [`Self::fail`], but a full disk changes nothing.
    pub(super) fn failure(&self, path: &Path, operation: &str, error: io::Error) -> StoreError {
        if error.kind() == io::ErrorKind::StorageFull {
            return StoreError::NoSpace {
                path: path.to_owned(),
            };
        }
        if lacks_descriptors(&error) {
            return StoreError::NoDescriptors {
                path: path.to_owned(),
            };
        }
        let reason = self.fail(&format!(
            "could not {operation} {}: {error}",
            path.display()
        ));
        StoreError::ReadOnly { reason }
    }

    /// Whether appends are refused because there is no space for them. Ends by itself when there is
    /// again, also while nobody appends.
    pub(super) fn is_full(&self) -> bool {
        let lacking = self.lacking.load(Relaxed);
        if lacking == 0 {
            return false;
        }
        let kept = match self.ballast.is_released() {
            true => self.ballast.bytes(),
            false => 0,
        };
        self.free_bytes() < kept.saturating_add(lacking.max(FULL_BYTES))
    }

    /// 0 where the file system cannot be asked.
    fn free_bytes(&self) -> u64 {
        self.disk()
            .space(self.dir.path())
            .map_or(0, |space| space.free_bytes)
    }

    /// Runs `op`; when the disk is full, gives up the ballast and tries once more.
    pub(super) fn relieved(&self, op: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        let held = !self.ballast.is_released();
        let result = self.ballast.with(op);
        if held && self.ballast.is_released() {
            self.work.ballast_released();
        }
        result
    }

    pub(super) fn run(&self, task: Task) {
        match task {
            Task::Partition(partition) => {
                let now = self.dir.environment().clock.now();
                if partition.maintain(now) {
                    self.work.push(&partition);
                }
            }
            Task::Prewrite => {
                let Some(prewrite) = self.writer.lock().journal.begin_prewrite() else {
                    return;
                };
                let done = prewrite.run();
                if let Err(error) = &done {
                    info!(%error, "a journal file could not be written ahead");
                }
                let mut writer = self.writer.lock();
                writer.journal.end_prewrite(&prewrite, done.is_ok());
                drop(writer);
                // Partitions that wait come first.
                self.work.want_prewrite();
            }
            Task::RestoreBallast => drop(self.ballast.restore()),
        }
    }

    pub(super) fn journal_loop(&self) {
        let StoreOptions {
            commit_delay,
            commit_bytes,
            ..
        } = self.options;
        while self.commit.wait(commit_delay, commit_bytes, self.clock()) {
            let mut seen = self.commit.checkpoints();
            while self.commit_round() == JournalStep::Full {
                if !self.commit.wait_for_checkpoint(seen) {
                    return;
                }
                seen = self.commit.checkpoints();
            }
        }
    }

    pub(super) fn maintenance_loop(&self) {
        while let Some(task) = self.work.wait(|| self.ballast.is_released(), self.clock()) {
            self.run(task);
        }
    }
}

impl Durability for Inner {
    fn appended(&self, partition: &Arc<Partition>, bytes: u64, urgent: bool) {
        self.commit.push(partition, bytes, urgent, self.clock());
    }

    fn wants_maintenance(&self, partition: &Arc<Partition>) {
        self.work.push(partition);
    }

    fn dirtied(&self, _: &Arc<Partition>, bytes: u64) {
        self.work
            .dirtied(bytes, self.options.os_checkpoint_bytes, self.clock());
    }

    fn read_only(&self) -> Option<Arc<str>> {
        self.failed.get().cloned()
    }

    fn with_ballast(&self, op: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        self.relieved(op)
    }

    fn bytes_of(&self, space: Space) -> u64 {
        match (space, self.ballast.is_released()) {
            (Space::Ahead, true) => 0,
            (Space::Spare, true) => self.free_bytes().saturating_sub(self.ballast.bytes()),
            (Space::Ballast, true) => u64::MAX,
            (_, false) => match self.disk().space(self.dir.path()) {
                Ok(space) if space.total_bytes > 0 => space.free_bytes,
                // It cannot be asked, or does not count.
                _ => u64::MAX,
            },
        }
    }

    fn lacks(&self, bytes: u64) {
        if bytes != self.lacking.load(Relaxed) {
            self.lacking.store(bytes, Relaxed);
        }
    }

    fn removal_step_bytes(&self) -> u64 {
        self.options.removal_step_bytes
    }

    fn retire(&self, retired: Retired) {
        if let Err(retired) = self.removals.push(retired) {
            retired.partition.remove_path(&retired.path);
        }
    }

    fn sync_folder(&self, partition: &Partition) -> Result<(), Arc<str>> {
        let synced = self.sync_removal(partition);
        let reason = || self.failed.get().map_or_else(|| "".into(), Arc::clone);
        synced.map_err(|_| reason())
    }

    fn metrics(&self) -> &StoreMetrics {
        &self.metrics
    }
}
