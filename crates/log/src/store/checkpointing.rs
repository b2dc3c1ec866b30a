//! Taking a checkpoint: sync what was appended, write down how far each partition is safe, and give
//! the journal's files back.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use sapwood_model::{Offset, TopicId};
use tracing::{info, warn};

use super::{ASIDE, CHECKPOINT, Inner, JOURNAL, StoreError, TOPICS, aside};
use crate::{
    checkpoint::{Checkpoint, PartitionCheckpoint, PartitionKey},
    framed,
    io::{File, lacks_descriptors},
    journal,
    partition::{Cut, OfflineReason, Partition, PartitionState},
};

/// Above this many dirty files, one sync of the file system is cheaper than one of each file
/// (1,000 files: 42 ms against 280 ms on ext4).
const SINGLE_SYNCS_MAX: usize = 64;
/// How long to wait for a file descriptor before trying again.
const DESCRIPTOR_PAUSE: Duration = Duration::from_millis(50);
/// How long in all: the end of the broker waits for whoever waits for this.
pub(super) const DESCRIPTOR_PATIENCE: Duration = Duration::from_secs(30);

/// A file that must be synced before the checkpoint that relies on it.
#[derive(Debug, Clone)]
pub(crate) struct TouchedFile {
    /// The segment that it belongs to, if it is one's.
    pub(crate) segment: Option<Offset>,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn File>,
}

/// Which partitions a checkpoint cuts; it carries the entries of the others over.
#[derive(Debug)]
pub(super) enum Scope {
    /// Those that changed since the last one.
    Dirty,
    /// All: after a recovery, which has raised their leader epochs.
    All,
    /// None that is running: these cuts were taken by closing them.
    Closing(BTreeMap<PartitionKey, Cut>),
}

/// A partition on its way through a checkpoint.
struct Cutting {
    key: PartitionKey,
    partition: Arc<Partition>,
    cut: Cut,
    failed: bool,
}

impl Inner {
    /// Takes a checkpoint of everything. Durable when it returns. Blocks, for as long as the disk
    /// needs to take what is dirty.
    ///
    pub(super) fn take_checkpoint(&self, scope: Scope) -> Result<(), StoreError> {
        let mut last = self.checkpoint.lock();
        if let Some(reason) = self.failed.get() {
            return Err(StoreError::ReadOnly {
                reason: Arc::clone(reason),
            });
        }
        let started = self.clock().elapsed();
        // Before the ends: what is appended in between is in the journal and in the checkpoint.
        let (first_round, generation, stalled) = {
            let writer = self.writer.lock();
            (
                writer.journal.next_round(),
                writer.journal.generation(),
                writer.is_stalled(),
            )
        };
        self.work.begin_checkpoint();
        // A stalled round may hold entries of a deleted topic, and is not passed by this checkpoint.
        let deleted: Vec<TopicId> = match stalled {
            true => Vec::new(),
            false => self.deleted.lock().iter().copied().collect(),
        };
        let mut next = Checkpoint {
            boot_id: self.options.boot_id.clone(),
            first_round,
            generation,
            ..Checkpoint::default()
        };
        let cuts = self.cut_and_sync(scope, &last, &mut next)?;
        for cutting in cuts.iter().filter(|cutting| !cutting.failed) {
            next.partitions
                .insert(cutting.key, self.entry(&cutting.cut));
        }
        self.set_aside(&last, &mut next)?;
        // A failure of somebody else since this began: the syncs above may have succeeded only because
        // it was told to the other one.
        self.refuse_if_read_only()?;
        let path = self.dir.path().join(CHECKPOINT);
        let bytes = next.encode();
        let disk = self.disk();
        self.relieved(&mut || framed::replace(disk, &path, &bytes))
            .map_err(|e| self.failure(&path, "write", e))?;
        for cutting in cuts.iter().filter(|cutting| !cutting.failed) {
            cutting.partition.cut_synced(&cutting.cut);
        }
        self.writer.lock().journal.recycle(first_round);
        *last = next;
        self.remove_unnamed_aside(&last);
        self.forget(&deleted);
        self.metrics
            .checkpoint
            .record(self.clock().elapsed().saturating_sub(started));
        self.commit.checkpointed();
        Ok(())
    }

    /// Cuts the partitions that changed, syncs them, and carries the others' entries over. Not more files
    /// are open at a time than for readers: a checkpoint of very many partitions syncs them in groups.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`] when the disk is full, the ballast included, and
    /// [`StoreError::NoDescriptors`]: these are no partition's fault, and there is no checkpoint until
    /// they pass.
    fn cut_and_sync(
        &self,
        scope: Scope,
        last: &Checkpoint,
        next: &mut Checkpoint,
    ) -> Result<Vec<Cutting>, StoreError> {
        let partitions: Vec<(PartitionKey, Arc<Partition>)> = {
            let partitions = self.partitions.read();
            partitions
                .iter()
                .map(|(key, partition)| (*key, Arc::clone(partition)))
                .collect()
        };
        let all = matches!(scope, Scope::All);
        let mut closing = match scope {
            Scope::Dirty | Scope::All => BTreeMap::new(),
            Scope::Closing(cuts) => cuts,
        };
        let mut cuts: Vec<Cutting> = Vec::new();
        let (mut synced, mut files) = (0, 0);
        for (key, partition) in partitions {
            if files >= self.options.open_files_max.max(1) {
                self.sync_all(&mut cuts[synced..])?;
                (synced, files) = (cuts.len(), 0);
            }
            let before = last.partitions.get(&key);
            let online = !is_offline(&partition);
            let closed = closing.remove(&key);
            let dirty = all || closed.is_some() || partition.is_dirty() || before.is_none();
            if !online || !dirty {
                // It keeps its old boot id with its old end as long as it is offline.
                let mut entry = before.cloned().unwrap_or_else(|| unknown_entry(last));
                if online {
                    entry.boot_id.clone_from(&self.options.boot_id);
                }
                next.partitions.insert(key, entry);
                continue;
            }
            let mut cut = closed.unwrap_or_else(|| partition.cut());
            let written = self.relieved(&mut || cut.write_indexes());
            let failed = written.is_err();
            if let Err(error) = written
                && self.holds(&partition)
            {
                let path = partition.folder();
                if error.kind() == io::ErrorKind::StorageFull {
                    return Err(StoreError::NoSpace { path });
                }
                if lacks_descriptors(&error) {
                    return Err(StoreError::NoDescriptors { path });
                }
                self.take_offline(&partition, "write the indexes of", error);
            }
            files += cut.files().len();
            cuts.push(Cutting {
                key,
                partition,
                cut,
                failed,
            });
        }
        self.sync_all(&mut cuts[synced..])?;
        Ok(cuts)
    }

    /// Syncs segments, indexes, the folders' names and the data directory, and closes the files. A
    /// partition whose files cannot be synced goes offline; the others go on.
    fn sync_all(&self, cuts: &mut [Cutting]) -> Result<(), StoreError> {
        self.sync_open(cuts)?;
        cuts.iter_mut()
            .for_each(|cutting| cutting.cut.close_files());
        Ok(())
    }

    fn sync_open(&self, cuts: &mut [Cutting]) -> Result<(), StoreError> {
        let files: usize = cuts.iter().map(|cutting| cutting.cut.files().len()).sum();
        let disk = self.disk();
        let root = self.dir.path();
        let together = files > SINGLE_SYNCS_MAX;
        if together {
            let versions: Vec<_> = cuts
                .iter()
                .map(|cutting| cutting.partition.folder_dirty())
                .collect();
            match disk.sync_filesystem(root) {
                Ok(()) => {
                    for (cutting, version) in cuts.iter().zip(versions) {
                        version
                            .into_iter()
                            .for_each(|v| cutting.partition.folder_synced(v));
                    }
                    self.check_write_outs(cuts);
                    return Ok(());
                }
                // It does not say which file failed; each of them does.
                Err(error) => warn!(%error, "syncing the file system failed; syncing file by file"),
            }
        }
        for cutting in cuts.iter_mut().filter(|cutting| !cutting.failed) {
            let synced = cutting
                .cut
                .files()
                .iter()
                .try_for_each(|file| file.sync_data());
            if let Err(error) = synced {
                cutting.failed = true;
                self.take_offline(&cutting.partition, "sync", error);
            }
            // It holds descriptors itself, and is tried again without them.
            self.sync_names(&cutting.partition, Duration::ZERO)?;
        }
        for folder in [root.join(TOPICS), root.to_owned()] {
            self.sync_folder(&folder, Duration::ZERO, || true)?;
        }
        Ok(())
    }

    /// A sync of the file system tells a failure to whoever asks first, which may be another program: each
    /// file is asked as well.
    fn check_write_outs(&self, cuts: &mut [Cutting]) {
        for cutting in cuts.iter_mut().filter(|cutting| !cutting.failed) {
            let files = cutting.cut.files();
            if let Err(error) = files.iter().try_for_each(|file| file.check_write_out()) {
                cutting.failed = true;
                self.take_offline(&cutting.partition, "write out", error);
            }
        }
    }

    /// Syncs a partition's folder if a name in it is not: a crash can lose a new file's name.
    pub(super) fn sync_names(
        &self,
        partition: &Partition,
        patience: Duration,
    ) -> Result<(), StoreError> {
        let Some(version) = partition.folder_dirty() else {
            return Ok(());
        };
        // If its topic was deleted meanwhile, the folder has another name or is gone.
        self.sync_folder(&partition.folder(), patience, || self.holds(partition))?;
        partition.folder_synced(version);
        Ok(())
    }

    /// Syncs the folder of a partition that a segment's name was taken from.
    pub(super) fn sync_removal(&self, partition: &Partition) -> Result<(), StoreError> {
        self.sync_folder(&partition.folder(), DESCRIPTOR_PATIENCE, || {
            self.holds(partition)
        })
    }

    /// Syncs a folder. A failure makes the data directory read-only if it `matters`, also one for want
    /// of space: what was not written is not tried again. Where no file descriptor is left to open the
    /// folder with, nothing was tried: it is tried again for so long.
    fn sync_folder(
        &self,
        folder: &Path,
        patience: Duration,
        matters: impl Fn() -> bool,
    ) -> Result<(), StoreError> {
        let began = self.clock().elapsed();
        let mut has_waited = false;
        loop {
            let turn = self.folder_syncs.lock();
            self.refuse_if_read_only()?;
            let error = match self.disk().sync_dir(folder) {
                Err(error) if matters() => error,
                Ok(()) | Err(_) => return Ok(()),
            };
            let lacks_descriptors = lacks_descriptors(&error);
            if lacks_descriptors && patience.is_zero() {
                let path = folder.to_owned();
                return Err(StoreError::NoDescriptors { path });
            }
            let waited = self.clock().elapsed().saturating_sub(began);
            if !lacks_descriptors || waited >= patience {
                let failure =
                    self.mark_failed(&format!("could not sync {}: {error}", folder.display()));
                drop(turn);
                self.tell_failed(&failure);
                return self.refuse_if_read_only();
            }
            drop(turn);
            if !std::mem::replace(&mut has_waited, true) {
                warn!(folder = %folder.display(), %error, "waiting to sync a folder");
            }
            thread::sleep(DESCRIPTOR_PAUSE);
        }
    }

    /// Whether the partition was not deleted.
    fn holds(&self, partition: &Partition) -> bool {
        let key = (partition.spec().topic_id, partition.spec().partition);
        self.partitions.read().contains_key(&key)
    }

    /// Copies the journal entries aside that this checkpoint passes, for partitions that are
    /// offline, and carries over what was copied before.
    fn set_aside(&self, last: &Checkpoint, next: &mut Checkpoint) -> Result<(), StoreError> {
        let offline: Vec<PartitionKey> = {
            let partitions = self.partitions.read();
            let offline = partitions
                .iter()
                .filter(|(_, partition)| is_offline(partition));
            offline.map(|(key, _)| *key).collect()
        };
        if offline.is_empty() {
            return Ok(());
        }
        let (disk, folder) = (self.disk(), self.dir.path().join(JOURNAL));
        let scan = journal::scan(disk, &folder, self.dir.id(), Some(last.first_round), 0)
            .map_err(|e| self.failure(&folder, "read", e))?;
        for key in offline {
            // One that went offline during this checkpoint keeps its last good entry, too.
            let before = last
                .partitions
                .get(&key)
                .or(next.partitions.get(&key))
                .cloned();
            let mut entry = before.unwrap_or_else(|| unknown_entry(last));
            let mut names = Vec::new();
            let environment = self.dir.environment();
            let root = self.dir.path();
            self.relieved(&mut || {
                names = aside::copy(environment, root, &scan, next.first_round, key)?;
                Ok(())
            })
            .map_err(|e| self.failure(&folder, "copy", e))?;
            entry.aside.extend(names);
            next.partitions.insert(key, entry);
        }
        Ok(())
    }

    /// Removes files of entries that no checkpoint names any more. What is left behind by a crash or
    /// an error goes with the next checkpoint.
    fn remove_unnamed_aside(&self, checkpoint: &Checkpoint) {
        let folder = self.dir.path().join(ASIDE);
        let named = |name: &String| {
            checkpoint
                .partitions
                .values()
                .any(|entry| entry.aside.contains(name))
        };
        for entry in self.disk().read_dir(&folder).unwrap_or_default() {
            if !named(&entry.name)
                && let Err(error) = self.disk().remove_file(&folder.join(&entry.name))
            {
                warn!(name = %entry.name, %error, "could not remove entries that were set aside");
            }
        }
    }

    /// Deleted topics whose entries this checkpoint has passed need not be remembered any more.
    fn forget(&self, passed: &[TopicId]) {
        let mut deleted = self.deleted.lock();
        let mut forgotten = self.forgotten.lock();
        for id in passed {
            if deleted.remove(id) {
                forgotten.push(*id);
            }
        }
    }

    fn entry(&self, cut: &Cut) -> PartitionCheckpoint {
        PartitionCheckpoint {
            boot_id: self.options.boot_id.clone(),
            end: cut.end,
            segment: cut.segment,
            position: cut.position,
            leader_epoch: cut.leader_epoch,
            index_entries: cut.index_entries,
            time_index_entries: cut.time_index_entries,
            producers: cut.producers.clone(),
            epochs: cut.epochs.encode(),
            aside: Vec::new(),
        }
    }

    fn take_offline(&self, partition: &Partition, operation: &'static str, error: io::Error) {
        partition.take_offline(OfflineReason::Io {
            operation,
            file: partition.folder(),
            error,
        });
    }

    /// What the checkpoint thread does: waits until one is due, takes it. Blocks until stopped.
    pub(super) fn checkpoint_loop(&self) {
        while self.work.wait_for_checkpoint(&self.options, self.clock()) {
            if let Err(error) = self.take_checkpoint(Scope::Dirty) {
                info!(%error, "no checkpoint was taken");
                // Whoever waits for it waits on; try again, but not at once.
                self.work.pause(Duration::from_millis(500));
                if self.failed.get().is_none() {
                    self.work.want_checkpoint();
                }
            }
        }
    }
}

/// For a partition that went offline before any checkpoint knew it: everything is to be found out by the
/// next recovery. The boot is the last checkpoint's: it may be this start that could not recover what an
/// earlier boot wrote, and the tail that a power cut tore would pass for damage in this one. Its batches are
/// of the epoch that it began with, also when a recovery had raised its epoch before it failed.
fn unknown_entry(last: &Checkpoint) -> PartitionCheckpoint {
    PartitionCheckpoint {
        boot_id: last.boot_id.clone(),
        ..PartitionCheckpoint::default()
    }
}

fn is_offline(partition: &Partition) -> bool {
    matches!(partition.state(), PartitionState::Offline { .. })
}
