//! Background work on one partition: allocating ahead, preparing the next segment, write-out,
//! sealing, removing.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
};

use sapwood_model::{Offset, Timestamp};
use tracing::{debug, warn};

use super::{Cut, OfflineReason, Partition, Upkeep, Waiting};
use crate::{
    durability::Space,
    index::IndexCounts,
    io::{File, OpenMode, lacks_descriptors},
    names,
    segment::{Prepared, Segment},
};

/// After the next segment could not be prepared, appends make it themselves for this long.
const PREPARE_PAUSE_MS: i64 = 1000;

/// The names in a partition's folder as they were at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FolderVersion(u64);

/// Why a rolled segment is not sealed.
enum SealError {
    /// The disk is full, or no descriptor is left: later.
    NoSpace(io::Error),
    Offline(Arc<OfflineReason>),
}

impl Partition {
    /// One pass of background work; blocks on the disk. Returns whether the next pass is due at once,
    /// because the writer outruns this one. A failed write-out, sync or cut of a segment takes the
    /// partition offline; a full disk leaves things for a later pass.
    pub(crate) fn maintain(self: &Arc<Self>, now: Timestamp) -> bool {
        let again = self.maintain_locked(now);
        self.tell_failure();
        again
    }

    fn maintain_locked(&self, now: Timestamp) -> bool {
        let mut upkeep = self.upkeep.lock();
        self.maintenance_wanted.store(false, Ordering::Release);
        if self.closed.load(Ordering::Acquire) || self.offline.get().is_some() {
            return false;
        }
        let again = self.allocate_ahead();
        self.prepare_next(&mut upkeep, now);
        self.start_write_out(now);
        self.seal_durable(&upkeep);
        self.remove_trimmed(&mut upkeep);
        if let Err(error) = self.name_empty_end(&mut upkeep) {
            debug!(folder = %self.folder.display(), %error, "could not name the end of a log");
        }
        self.write_epochs(&mut upkeep);
        again && self.offline.get().is_none()
    }

    /// `Some` while a name in the folder, such as a rolled segment's, is not synced. Sync the folder,
    /// then hand the version to [`Partition::folder_synced`].
    pub(crate) fn folder_dirty(&self) -> Option<FolderVersion> {
        let changed = self.names_changed.load(Ordering::Acquire);
        (self.names_synced.load(Ordering::Acquire) < changed).then_some(FolderVersion(changed))
    }

    /// The folder was synced after `version` was asked for.
    pub(crate) fn folder_synced(&self, version: FolderVersion) {
        self.names_synced.fetch_max(version.0, Ordering::AcqRel);
    }

    /// Refuses appends from now on, seals what waits, cuts the active file to its length, and takes
    /// the last cut, which covers everything. Reads go on. Blocks.
    ///
    /// # Errors
    /// The partition is offline, perhaps because of this call.
    pub(crate) fn close(&self) -> Result<Cut, Arc<OfflineReason>> {
        self.closed.store(true, Ordering::Release);
        let outcome = self.close_locked();
        self.tell_failure();
        outcome
    }

    fn close_locked(&self) -> Result<Cut, Arc<OfflineReason>> {
        let mut upkeep = self.upkeep.lock();
        if let Some(reason) = self.offline.get() {
            return Err(Arc::clone(reason));
        }
        self.name_empty_end(&mut upkeep)
            .map_err(|error| self.fail("name the end of", &self.folder, error))?;
        if upkeep.removed {
            // A start after a clean stop believes the names; those that went must not come back.
            self.names_have_changed();
        }
        self.seal_below(&upkeep, Offset(u64::MAX))
            .map_err(|error| match error {
                SealError::Offline(reason) => reason,
                SealError::NoSpace(error) => self.fail("seal segments of", &self.folder, error),
            })?;
        let mut writer = self.writer.lock();
        if writer.next.take().is_some() {
            self.remove(names::NEXT_SEGMENT_FILE);
        }
        if let Some(file) = writer.active.file()
            && let Err(error) = file.set_len(writer.active.position())
        {
            let path = self.segment_path(writer.active.base_offset());
            return Err(self.fail("cut", &path, error));
        }
        drop(writer);
        Ok(self.cut_with_file())
    }

    /// Allocates the active segment's next step. Returns whether one more is due already.
    fn allocate_ahead(&self) -> bool {
        let due = {
            let writer = self.writer.lock();
            writer
                .active
                .allocation_due()
                .zip(writer.active.file().cloned())
        };
        let Some((range, file)) = due else {
            return false;
        };
        // A full disk, or any other failure, is met again by the append that needs the room.
        let is_scarce = self.durability.bytes_of(Space::Ahead) < range.end - range.start;
        if is_scarce || file.allocate(range.clone()).is_err() {
            return false;
        }
        let mut writer = self.writer.lock();
        // It may have been rolled meanwhile: then the seal cuts it.
        if writer
            .active
            .file()
            .is_some_and(|active| Arc::ptr_eq(active, &file))
        {
            writer.active.allocated(&range);
        }
        writer.active.allocation_due().is_some()
    }

    fn prepare_next(&self, upkeep: &mut Upkeep, now: Timestamp) {
        let config = self.config.load();
        let due = {
            let writer = self.writer.lock();
            writer.next.is_none() && self.is_next_due(&writer, &config)
        };
        let paused = upkeep
            .prepare_failed_at
            .is_some_and(|failed| (0..PREPARE_PAUSE_MS).contains(&(now.0 - failed.0)));
        if !due || paused {
            return;
        }
        let step_bytes = Prepared::step_ahead_bytes(config.segment_bytes);
        if self.durability.bytes_of(Space::Ahead) < step_bytes {
            return;
        }
        match Prepared::new(&self.layout(&config), names::NEXT_SEGMENT_FILE, 1, true) {
            Ok(prepared) => {
                upkeep.prepare_failed_at = None;
                self.writer.lock().next = Some(prepared);
            }
            Err(error) => {
                // The append that needs the segment makes it, and reports what is wrong.
                debug!(folder = %self.folder.display(), %error, "could not prepare a segment");
                upkeep.prepare_failed_at = Some(now);
            }
        }
    }

    /// Starts writing out what is complete behind the tail, so that a checkpoint finds little to sync.
    fn start_write_out(&self, now: Timestamp) {
        let due = {
            let writer = self.writer.lock();
            let range = writer.active.write_out_due(now);
            range
                .zip(writer.active.file().cloned())
                .map(|due| (due, writer.active.base_offset()))
        };
        let Some(((range, file), base_offset)) = due else {
            return;
        };
        if let Err(error) = file.start_write_out(range.clone()) {
            self.fail(
                "start the write-out of",
                &self.segment_path(base_offset),
                error,
            );
            return;
        }
        let mut writer = self.writer.lock();
        if writer
            .active
            .file()
            .is_some_and(|active| Arc::ptr_eq(active, &file))
        {
            writer.active.written_out(&range, now);
        }
    }

    /// Seals the rolled segments whose end is durable, and gives up their mappings.
    fn seal_durable(&self, upkeep: &Upkeep) {
        let high_watermark = self.bounds().high_watermark;
        if self.seal_below(upkeep, high_watermark).is_err() {
            return; // offline, or later when there is space again
        }
        let mut writer = self.writer.lock();
        while let Some(waiting) = writer.waiting.front()
            && waiting.end_offset <= high_watermark
        {
            debug_assert!(
                waiting.sealed,
                "everything below the watermark was sealed above"
            );
            let sealed = self.sealed(waiting);
            // A handle from the time when the segment was open has no index.
            let sealed = Segment::Sealed(Arc::new(sealed));
            self.open_files.forget(&self.file_key(&sealed));
            let view = self.view.load().replace(sealed);
            self.view.store(Arc::new(view));
            writer.kept_producers = waiting.end_producers();
            writer.waiting.pop_front();
        }
    }

    /// Brings the files of the rolled segments that end at `end` or below it into their last state.
    /// They stay mapped until their end is durable.
    fn seal_below(&self, _upkeep: &Upkeep, end: Offset) -> Result<(), SealError> {
        loop {
            let next = {
                let writer = self.writer.lock();
                let mut waiting = writer.waiting.iter();
                waiting
                    .find(|waiting| !waiting.sealed && waiting.end_offset <= end)
                    .cloned()
            };
            let Some(waiting) = next else { return Ok(()) };
            self.seal(&waiting)?;
            let mut writer = self.writer.lock();
            let base = waiting.segment.base_offset;
            if let Some(waiting) = writer
                .waiting
                .iter_mut()
                .find(|waiting| waiting.segment.base_offset == base)
            {
                waiting.sealed = true;
            }
        }
    }

    /// As [`Partition::seal_below`], for a checkpoint whose cut lies in the segment at `base`.
    pub(super) fn seal_for_cut(&self, upkeep: &Upkeep, base: Offset) -> io::Result<()> {
        self.seal_below(upkeep, base).map_err(|error| match error {
            SealError::NoSpace(error) => error,
            SealError::Offline(reason) => io::Error::other(reason.to_string()),
        })
    }

    fn seal(&self, waiting: &Waiting) -> Result<(), SealError> {
        let base = waiting.segment.base_offset;
        let path = self.segment_path(base);
        let offline = |operation, error| SealError::Offline(self.fail(operation, &path, error));
        let tail = waiting
            .segment
            .tail()
            .expect("a segment that was rolled was appended to");
        tail.file
            .set_len(waiting.bytes)
            .map_err(|error| offline("cut", error))?;
        tail.file
            .sync_data()
            .map_err(|error| offline("sync", error))?;
        // The index and the producers can be rebuilt: without space for them nothing is lost.
        let encoded = {
            let mut index = waiting.segment.index.write();
            index.complete();
            index.encode_from(IndexCounts::default())
        };
        let disk = &*self.environment.disk;
        let snapshot = self
            .folder
            .join(names::snapshot_file_name(waiting.end_offset));
        let mut files: Vec<Arc<dyn File>> = Vec::new();
        let written = self.durability.with_ballast(&mut || {
            files.clear();
            files.extend(encoded.write(disk, &self.folder, base)?);
            let file = disk.open(&snapshot, OpenMode::Create)?;
            file.set_len(0)?;
            file.write_at(&[&waiting.producers], 0)?;
            files.push(file);
            Ok(())
        });
        self.names_have_changed();
        match written {
            Ok(()) => {}
            Err(error)
                if error.kind() == io::ErrorKind::StorageFull || lacks_descriptors(&error) =>
            {
                return Err(SealError::NoSpace(error));
            }
            Err(error) => return Err(offline("write the index of", error)),
        }
        for file in files {
            file.sync_data()
                .map_err(|error| offline("sync the index of", error))?;
        }
        Ok(())
    }

    /// Kafka's text file of the epochs, for Kafka's tools. Replaced as a whole; not synced, because
    /// the checkpoint has the list.
    fn write_epochs(&self, upkeep: &mut Upkeep) {
        let epochs = self.writer.lock().epochs.clone();
        if upkeep.epochs_written.as_ref() == Some(&epochs) {
            return;
        }
        let disk = &*self.environment.disk;
        let temporary = self.folder.join(format!("{}.tmp", names::EPOCHS_FILE));
        let text = epochs.to_text();
        let written = self.durability.with_ballast(&mut || {
            let file = disk.open(&temporary, OpenMode::Create)?;
            file.set_len(0)?;
            file.write_at(&[text.as_bytes()], 0)?;
            disk.rename(&temporary, &self.folder.join(names::EPOCHS_FILE))
        });
        self.names_have_changed();
        match written {
            Ok(()) => upkeep.epochs_written = Some(epochs),
            Err(error) => {
                warn!(path = %temporary.display(), %error, "could not write the list of epochs");
            }
        }
    }
}
