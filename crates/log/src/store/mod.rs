//! The store: one data directory with its partitions, its journal and its checkpoints.
//!
//! An append goes into its partition's active segment and from there, with everybody else's, into
//! the next round of the journal ([`commit`]). Checkpoints ([`checkpointing`]) sync the segments
//! themselves, so that the journal's files can be used again. Three threads do this; the simulator
//! calls the same steps itself.

pub(crate) mod aside;
mod ballast;
mod checkpointing;
mod commit;
mod data_dir;
mod error;
mod inner;
mod options;
mod removal;
mod scrub;
mod work;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use parking_lot::{Mutex, RwLock};
use sapwood_model::{Durability, LeaderEpoch, PartitionId, TopicId, TopicName};
use tracing::{error, info};

use checkpointing::Scope;
pub(crate) use checkpointing::TouchedFile;
pub use commit::JournalStep;
use commit::{CommitQueue, RoundWriter};
pub(crate) use data_dir::{
    ASIDE, BALLAST, CATALOG, CHECKPOINT, CLEAN, JOURNAL, QUARANTINE, TOPICS, read_meta,
};
pub use data_dir::{DataDir, FORMAT_VERSION, LOCK_FILE, OpenError};
pub use error::StoreError;
use inner::Inner;
pub use options::StoreOptions;
use removal::Removals;
use work::Work;

use crate::{
    checkpoint::Checkpoint,
    epochs::EpochList,
    journal::Journal,
    metrics::StoreMetrics,
    partition::{Partition, PartitionParts, PartitionSpec, PartitionState, SegmentParts},
    producers::ProducerTable,
    recovery::{self, RecoveryReport, marker},
    segment::OpenFiles,
};

/// Above this many new folders, one sync of the file system replaces one of each.
const FOLDER_SYNCS_MAX: usize = 8;

/// What the catalog knows when a store is opened.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Every partition of every topic.
    pub partitions: Vec<PartitionSpec>,
    /// Topics that were deleted and not yet reported by [`Store::forgotten`].
    pub deleted: Vec<TopicId>,
}

/// How far opening a store has come. Read it from any thread.
#[derive(Debug, Default)]
pub struct Progress {
    /// Partitions to recover; 0 before they are known.
    pub total: AtomicU64,
    /// Partitions that are done.
    pub done: AtomicU64,
    /// Bytes of batches replayed from the journal.
    pub bytes: AtomicU64,
}

/// One data directory, open. Dropping it without [`Store::close`] is like a killed process: the next
/// opening recovers.
pub struct Store {
    inner: Arc<Inner>,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
}

impl Store {
    /// Opens a data directory: recovers what the last process left, checkpoints it, and is ready to
    /// append. Blocks for as long as recovery takes; `progress` tells how far it is.
    ///
    /// # Errors
    /// [`OpenError`]. Damage in single partitions is not an error here: they are offline
    /// ([`Partition::state`]), and the report counts them.
    pub fn open(
        dir: DataDir,
        options: StoreOptions,
        known: Known,
        progress: &Progress,
    ) -> Result<(Arc<Self>, RecoveryReport), OpenError> {
        options.check()?;
        let environment = dir.environment().clone();
        let root = dir.path().to_owned();
        let checkpoint_path = root.join(CHECKPOINT);
        let clean = marker::is_there(&environment, &root)?;
        let checkpoint = match Checkpoint::read(&*environment.disk, &checkpoint_path)? {
            Some(checkpoint) => checkpoint,
            None if known.partitions.is_empty() && is_unused(&dir)? => Checkpoint {
                boot_id: options.boot_id.clone(),
                first_round: 1,
                ..Checkpoint::default()
            },
            None => return Err(OpenError::damaged(&checkpoint_path, "it is missing")),
        };
        let outcome = recovery::recover(&recovery::Input {
            environment: &environment,
            root: &root,
            directory: dir.id(),
            options: &options,
            known: &known,
            checkpoint: &checkpoint,
            clean,
            progress,
        })?;
        let journal_folder = root.join(JOURNAL);
        let journal = Journal::open(
            environment.clone(),
            &journal_folder,
            dir.id(),
            options.journal_files,
            options.journal_file_bytes,
            &outcome.scan,
        )
        .map_err(OpenError::io(&journal_folder))?;
        let ballast = ballast::Ballast::open(&dir, options.ballast_bytes);
        let tail = options
            .tail
            .unwrap_or_else(|| environment.disk.tail_kind(&root));
        let inner = Arc::new(Inner {
            tail,
            open_files: Arc::new(OpenFiles::new(options.open_files_max)),
            partitions: RwLock::default(),
            commit: CommitQueue::default(),
            writer: Mutex::new(RoundWriter::new(journal)),
            work: Work::default(),
            removals: Removals::default(),
            checkpoint: Mutex::new(checkpoint),
            // What may still be there is remembered until a start has removed it.
            deleted: Mutex::new(match outcome.has_unread {
                true => BTreeSet::new(),
                false => known.deleted.into_iter().collect(),
            }),
            forgotten: Mutex::default(),
            ballast,
            failed: OnceLock::new(),
            next_epoch: AtomicU32::new(outcome.next_epoch.0),
            folder_syncs: Mutex::new(()),
            lacking: AtomicU64::new(0),
            metrics: StoreMetrics::default(),
            dir,
            options,
        });
        inner.adopt(outcome.partitions)?;
        let scope = if clean { Scope::Dirty } else { Scope::All };
        let checkpointed = inner.take_checkpoint(scope);
        checkpointed.map_err(|e| OpenError::io(&checkpoint_path)(io::Error::other(e)))?;
        if clean {
            marker::remove(&environment, &root).map_err(OpenError::io(&root))?;
        }
        inner.work.want_prewrite();
        let report = outcome.report;
        info!(
            clean = report.clean,
            rounds = report.rounds,
            bytes = report.replayed_bytes,
            offline = report.offline,
            "opened the data directory"
        );
        Ok((
            Arc::new(Self {
                inner,
                threads: Mutex::default(),
            }),
            report,
        ))
    }

    /// Makes a partition. Call it once the catalog's record is durable. Blocks; the folder is
    /// durable when it returns.
    ///
    /// # Errors
    /// [`StoreError`]; the catalog's record then makes the next opening try again.
    pub fn create_partition(&self, spec: PartitionSpec) -> Result<Arc<Partition>, StoreError> {
        let mut made = self.create_partitions(vec![spec])?;
        Ok(made.pop().expect("one was asked for"))
    }

    /// As [`Store::create_partition`], for many at once with few syncs.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn create_partitions(
        &self,
        specs: Vec<PartitionSpec>,
    ) -> Result<Vec<Arc<Partition>>, StoreError> {
        let inner = &self.inner;
        inner.refuse_if_read_only()?;
        let (disk, topics) = (inner.disk(), inner.dir.path().join(TOPICS));
        let each = specs.len() <= FOLDER_SYNCS_MAX;
        let next_epoch = || LeaderEpoch(inner.next_epoch.fetch_add(1, Relaxed));
        let specs: Vec<(PartitionSpec, LeaderEpoch)> =
            specs.into_iter().map(|spec| (spec, next_epoch())).collect();
        let made = inner.relieved(&mut || {
            for (spec, epoch) in &specs {
                recovery::make(disk, &topics, spec, *epoch, each)?;
            }
            if !each {
                disk.sync_filesystem(&topics)?;
            }
            for (spec, _) in &specs {
                recovery::publish(disk, inner.dir.path(), spec)?;
            }
            disk.sync_dir(&topics)
        });
        made.map_err(|e| inner.failure(&topics, "make a partition in", e))?;
        let mut partitions = Vec::with_capacity(specs.len());
        for (spec, leader_epoch) in specs {
            let key = (spec.topic_id, spec.partition);
            let partition = inner.assemble(PartitionParts {
                folder: topics.join(recovery::folder_of(&spec)),
                segments: vec![SegmentParts {
                    base_offset: spec.log_start,
                    bytes: 0,
                    index: None,
                }],
                log_end: spec.log_start,
                leader_epoch,
                epochs: EpochList::default(),
                producers: ProducerTable::default(),
                spec,
            });
            inner.partitions.write().insert(key, Arc::clone(&partition));
            partitions.push(partition);
        }
        Ok(partitions)
    }

    /// A partition of this store.
    pub fn partition(&self, topic: TopicId, partition: PartitionId) -> Option<Arc<Partition>> {
        self.inner
            .partitions
            .read()
            .get(&(topic, partition))
            .cloned()
    }

    /// Every partition, by topic id and number.
    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        self.inner.partitions.read().values().cloned().collect()
    }

    /// Removes a topic's partitions and their files. Call it once the catalog's record is durable.
    /// Blocks, for longer the more there is to remove; readers go on with what they hold.
    ///
    /// # Errors
    /// [`StoreError`]; the next opening finishes the deletion.
    pub fn delete_topic(&self, name: &TopicName, topic: TopicId) -> Result<(), StoreError> {
        let inner = &self.inner;
        let (disk, topics) = (inner.disk(), inner.dir.path().join(TOPICS));
        let mut removed = Vec::new();
        for partition in self
            .partitions()
            .into_iter()
            .filter(|p| p.spec().topic_id == topic)
        {
            partition.abandon();
            let number = partition.spec().partition;
            inner.partitions.write().remove(&(topic, number));
            let folder = partition.folder();
            let marked = topics.join(format!(
                "{name}-{number}.{topic}{}",
                recovery::DELETE_SUFFIX
            ));
            inner
                .relieved(&mut || disk.rename(&folder, &marked))
                .map_err(|e| inner.failure(&folder, "rename", e))?;
            removed.push(marked);
        }
        let gone = inner.relieved(&mut || {
            disk.sync_dir(&topics)?;
            removed
                .iter()
                .try_for_each(|folder| recovery::remove_tree(disk, folder))?;
            disk.sync_dir(&topics)
        });
        gone.map_err(|e| inner.failure(&topics, "remove a topic from", e))?;
        inner.deleted.lock().insert(topic);
        Ok(())
    }

    /// Deleted topics that the catalog may forget: their folders are gone and no journal entry of
    /// theirs is needed any more. Each is reported once.
    pub fn forgotten(&self) -> Vec<TopicId> {
        std::mem::take(&mut self.inner.forgotten.lock())
    }

    /// The first half of changing a live topic's durability; the catalog's record comes between it
    /// and [`Store::finish_durability`]. Blocks.
    ///
    /// To fsync: from now on appends enter the journal and wait for it; returns once everything
    /// before is synced. To os: returns once what waits in the journal is durable, and its segments
    /// are synced.
    ///
    /// # Errors
    /// [`StoreError`]; the partition then is as durable as before or more so.
    pub fn begin_durability(
        &self,
        partition: &Arc<Partition>,
        to: Durability,
    ) -> Result<(), StoreError> {
        self.inner.refuse_if_read_only()?;
        match to {
            Durability::Fsync => {
                partition.begin_journaling();
                self.inner.take_checkpoint(Scope::Dirty)?;
            }
            Durability::Os => {
                let end = partition.bounds().log_end;
                while partition.bounds().high_watermark < end
                    && matches!(partition.state(), PartitionState::Online)
                {
                    self.inner.refuse_if_read_only()?;
                    self.inner
                        .commit
                        .push(partition, 0, true, self.inner.clock());
                    if self.inner.commit_round() == JournalStep::Full {
                        self.inner.take_checkpoint(Scope::Dirty)?;
                    }
                }
                // An os topic must not need the journal: where that is damaged, nobody would miss the
                // topic's entries in it.
                self.inner.take_checkpoint(Scope::Dirty)?;
            }
        }
        // A checkpoint passes over what is offline: nothing of it was synced.
        match partition.state() {
            PartitionState::Online => Ok(()),
            PartitionState::Offline { reason } => Err(StoreError::Offline {
                partition: partition.spec().partition,
                reason,
            }),
        }
    }

    /// The second half: call it once the catalog's record is durable.
    pub fn finish_durability(&self, partition: &Partition, to: Durability) {
        if to == Durability::Os {
            partition.end_journaling();
        }
    }

    /// Syncs everything and lets the journal's files be used again. Durable when it returns. Blocks.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        self.inner.take_checkpoint(Scope::Dirty)
    }

    /// Runs `op`; when the disk is full, gives up the ballast's space and tries once more. For
    /// writes that must succeed on a full disk: the catalog's, deletes. Blocks.
    ///
    /// # Errors
    /// What `op` fails with.
    pub fn with_ballast<T>(&self, mut op: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let mut result = None;
        self.inner.relieved(&mut || {
            result = Some(op()?);
            Ok(())
        })?;
        Ok(result.expect("it was set where op succeeded"))
    }

    /// Whether the ballast's space is given up: the disk is, or was until now, full.
    pub fn is_out_of_ballast(&self) -> bool {
        self.inner.ballast.is_released()
    }

    /// Whether the disk is full: an append was refused for want of space, and there is still none. A
    /// file system that cannot be asked counts as full until an append succeeds. One system call at
    /// most.
    pub fn is_full(&self) -> bool {
        self.inner.is_full()
    }

    /// The bytes that the ballast holds; 0 while they are given up.
    pub fn ballast_bytes(&self) -> u64 {
        let ballast = &self.inner.ballast;
        match ballast.is_released() {
            true => 0,
            false => ballast.bytes(),
        }
    }

    /// Makes the data directory read-only until it is opened again: a write or a sync of a file that
    /// belongs to it, but not to the store, has failed. The first reason is kept.
    pub fn make_read_only(&self, reason: &str) {
        self.inner.fail(reason);
    }

    /// Why the data directory takes no more appends, once it does not.
    pub fn read_only(&self) -> Option<Arc<str>> {
        self.inner.failed.get().cloned()
    }

    /// Starts the threads that commit, maintain and checkpoint. Without them whoever drives the store
    /// calls [`Store::step_journal`] and [`Store::step_maintenance`].
    pub fn start(&self) {
        let mut threads = self.threads.lock();
        if !threads.is_empty() {
            return;
        }
        let mut spawn = |name: &str, run: fn(&Inner)| {
            let inner = Arc::clone(&self.inner);
            let thread = thread::Builder::new()
                .name(name.into())
                .spawn(move || run(&inner));
            threads.push(thread.expect("the system has room for four more threads"));
        };
        spawn("sapwood-journal", Inner::journal_loop);
        spawn("sapwood-maintain", Inner::maintenance_loop);
        spawn("sapwood-remove", Inner::removal_loop);
        spawn("sapwood-checkpoint", Inner::checkpoint_loop);
    }

    /// One round of the journal, if anything waits. Blocks.
    pub fn step_journal(&self) -> JournalStep {
        self.inner.commit_round()
    }

    /// Background work that is due: partitions' maintenance, a file of the journal written ahead, a
    /// checkpoint. Blocks.
    ///
    /// # Errors
    /// [`StoreError`] of the checkpoint.
    pub fn step_maintenance(&self) -> Result<(), StoreError> {
        let inner = &self.inner;
        while let Some(task) = inner.work.take() {
            inner.run(task);
        }
        while let Some(retired) = inner.removals.take() {
            inner.remove_retired(&retired, || {});
        }
        let stalled = inner.writer.lock().is_stalled();
        if stalled
            || inner
                .work
                .checkpoint_is_due(&inner.options, inner.clock().elapsed())
        {
            inner.take_checkpoint(Scope::Dirty)?;
        }
        Ok(())
    }

    /// A clean stop: what waits becomes durable, everything is synced, and the next opening scans
    /// nothing. Appends are refused from its start on. Blocks.
    ///
    /// # Errors
    /// [`StoreError`]; the next opening then recovers.
    pub fn close(&self) -> Result<(), StoreError> {
        let inner = &self.inner;
        loop {
            match inner.commit_round() {
                JournalStep::Synced => {}
                JournalStep::Full => inner.take_checkpoint(Scope::Dirty)?,
                JournalStep::Idle | JournalStep::ReadOnly => break,
            }
        }
        self.stop_threads();
        inner.refuse_if_read_only()?;
        let mut cuts = BTreeMap::new();
        let mut clean = true;
        for partition in self.partitions() {
            let spec = partition.spec();
            match partition.close() {
                Ok(cut) => drop(cuts.insert((spec.topic_id, spec.partition), cut)),
                Err(_) => clean = false,
            }
        }
        inner.remove_all_retired();
        // An append may have come between the last round and the closing of its partition.
        while inner.commit_round() == JournalStep::Synced {}
        inner.take_checkpoint(Scope::Closing(cuts))?;
        let offline = |partition: &Arc<Partition>| {
            matches!(partition.state(), PartitionState::Offline { .. })
        };
        // A partition that is offline needs recovery; the marker would skip it.
        if clean && !self.partitions().iter().any(offline) {
            let (environment, root) = (inner.dir.environment(), inner.dir.path());
            inner
                .relieved(&mut || marker::set(environment, root, inner.dir.id()))
                .map_err(|e| inner.failure(&root.join(CLEAN), "write", e))?;
        }
        Ok(())
    }

    /// The counters.
    pub fn metrics(&self) -> &StoreMetrics {
        &self.inner.metrics
    }

    /// The data directory.
    pub fn dir(&self) -> &DataDir {
        &self.inner.dir
    }

    /// The settings that it was opened with.
    pub fn options(&self) -> &StoreOptions {
        &self.inner.options
    }

    fn stop_threads(&self) {
        self.inner.commit.stop();
        self.inner.work.stop();
        self.inner.removals.stop();
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                error!("a background thread of the store has panicked");
            }
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.stop_threads();
        self.inner.commit.clear();
        self.inner.work.clear();
        while self.inner.removals.take().is_some() {}
        self.inner.writer.lock().clear();
        self.inner.partitions.write().clear();
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.inner.dir.path())
            .finish_non_exhaustive()
    }
}

/// Whether nothing was ever kept in this directory.
fn is_unused(dir: &DataDir) -> Result<bool, OpenError> {
    let topics = dir.path().join(TOPICS);
    let folders = dir
        .environment()
        .disk
        .read_dir(&topics)
        .map_err(OpenError::io(&topics))?;
    Ok(folders.is_empty())
}
