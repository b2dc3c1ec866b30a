//! One partition: its segments, its producers, its ends.
//!
//! One lock, [`Partition::writer`], orders appends and protects what they change. Readers never take
//! it: they see the published [`View`] of segments, three atomic offsets, and the index of an open
//! segment behind a lock of its own that is held for a look-up. Files are allocated, sealed and
//! unlinked by [`Partition::maintain`], outside of the writer's lock.
//!
//! Locks are taken in this order, each of them may be left out: `upkeep`, `cursor`, `files`, `writer`.

mod append;
mod compact;
mod cut;
mod errors;
mod found;
mod journaling;
mod maintain;
mod read;
mod removal;
mod retain;
mod scrub;
mod times;
mod truncate;
mod types;

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use sapwood_model::{Durability as Kept, LeaderEpoch, Offset, Timestamp};
use tracing::error;

pub(crate) use cut::Cut;
pub use errors::{AppendError, OfflineReason, PartitionState, ReadError, TrimError, TruncateError};
pub(crate) use found::{PartitionParts, SegmentParts};
pub use scrub::Scrubbed;
pub use types::{
    AppendOptions, Appended, Bounds, LogConfig, PartitionObserver, PartitionSpec, PartitionStats,
    Read, ReadLimits, ReadMode, TimestampedOffset,
};

use self::journaling::{Cursor, Queued};
use crate::{
    durability::Durability,
    epochs::{EpochList, EpochStart},
    index::IndexCounts,
    io::{Environment, TailKind, lacks_descriptors},
    names,
    producers::{ProducerState, ProducerTable},
    segment::{
        ActiveSegment, FileKey, Layout, OpenFiles, OpenSegment, Prepared, Segment, SegmentKey, View,
    },
};

/// One partition's log. All methods may be called from any thread.
pub struct Partition {
    /// For handing itself over to its store.
    me: Weak<Self>,
    spec: PartitionSpec,
    folder: PathBuf,
    /// Rises with each start, and never while it runs.
    leader_epoch: LeaderEpoch,
    environment: Environment,
    tail: TailKind,
    open_files: Arc<OpenFiles>,
    durability: Arc<dyn Durability>,

    config: ArcSwap<LogConfig>,
    view: ArcSwap<View>,
    log_start: AtomicU64,
    high_watermark: AtomicU64,
    log_end: AtomicU64,

    /// Serialises whatever changes files outside of the append path.
    upkeep: Mutex<Upkeep>,
    /// Up to where the journal has taken the log; `None` while the partition is not journaled.
    cursor: Mutex<Option<Cursor>>,
    writer: Mutex<Writer>,

    offline: OnceLock<Arc<OfflineReason>>,
    /// Refuses appends.
    closed: AtomicBool,
    /// The topic is deleted: refuses everything.
    abandoned: AtomicBool,
    observer: OnceLock<Arc<dyn PartitionObserver>>,
    /// The observer was told that the partition does not go on.
    failure_told: AtomicBool,
    /// Whether the store knows that [`Partition::maintain`] is wanted.
    maintenance_wanted: AtomicBool,
    /// Held by readers while they open a segment's file, and by compaction while it changes which file a
    /// segment has.
    files: RwLock<()>,
    /// Up to where the log was compacted, once somebody asked.
    cleaned: Mutex<Option<Offset>>,
    /// A [`Compactor`](crate::compaction::Compactor) is under way.
    pub(crate) is_compacting: AtomicBool,
    /// How often a name in the folder changed, and up to which change the folder is synced.
    names_changed: AtomicU64,
    names_synced: AtomicU64,
}

/// What appends change.
#[derive(Debug)]
struct Writer {
    active: ActiveSegment,
    /// Rolled segments that are not sealed yet, ascending.
    waiting: VecDeque<Waiting>,
    /// The segment after the active one.
    next: Option<Prepared>,
    producers: ProducerTable,
    /// As they were at the start, or at the end of the last segment that was sealed: where
    /// [`Partition::truncate_to`] begins.
    kept_producers: KeptProducers,
    epochs: EpochList,
    /// Appends enter the journal, and something else moves the high watermark.
    journaled: bool,
    /// Whether the store knows that something waits for the journal.
    queued: Queued,
    /// Bytes for the journal that the store was not told of.
    untold_bytes: u64,
    checkpointed: Checkpointed,
}

/// A rolled segment until its end is durable. It stays mapped: the journal still takes from it, and it
/// may yet be cut.
#[derive(Debug, Clone)]
struct Waiting {
    segment: Arc<OpenSegment>,
    /// The next segment's base offset.
    end_offset: Offset,
    bytes: u64,
    /// The producers at its end, encoded.
    producers: Arc<[u8]>,
    /// Its files are cut, written and synced.
    sealed: bool,
}

/// The producers' state when the log ended at `end`.
#[derive(Debug, Clone)]
struct KeptProducers {
    end: Offset,
    encoded: Arc<[u8]>,
}

impl Waiting {
    fn end_producers(&self) -> KeptProducers {
        KeptProducers {
            end: self.end_offset,
            encoded: Arc::clone(&self.producers),
        }
    }
}

/// What checkpoints know of this partition.
#[derive(Debug, Clone, Copy)]
struct Checkpointed {
    /// Everything below is synced and in a checkpoint, or about to be.
    end: Offset,
    /// The segment that the last checkpoint begins with: those below it are not looked at by recovery.
    segment: Offset,
    /// The largest end that was ever captured for a checkpoint.
    captured: Offset,
    /// Entries of the active segment's index files that are written.
    index: IndexCounts,
    /// Bytes appended since `end`.
    unflushed_bytes: u64,
}

/// What background work remembers.
#[derive(Debug, Default)]
struct Upkeep {
    /// The list of epochs as it is in its file.
    epochs_written: Option<EpochList>,
    /// The empty segment at the log's end that has a file.
    named_end: Option<Offset>,
    /// Segments were removed since the start.
    removed: bool,
    /// When the next segment could not be prepared.
    prepare_failed_at: Option<Timestamp>,
}

impl Partition {
    /// Builds the running partition from what recovery or creation found. Opens no file until one is
    /// needed. The high watermark is at the log's end: everything that was found is synced.
    ///
    /// # Panics
    /// When the parts contradict each other.
    pub(crate) fn assemble(
        parts: PartitionParts,
        environment: Environment,
        tail: TailKind,
        open_files: Arc<OpenFiles>,
        durability: Arc<dyn Durability>,
    ) -> Arc<Self> {
        let PartitionParts {
            spec,
            folder,
            segments,
            log_end,
            leader_epoch,
            mut epochs,
            producers,
        } = parts;
        let now = environment.clock.now();
        let config = spec.config.clone();
        let log = (spec.topic_id, spec.partition);
        let (active, view) =
            found::assemble_segments(log, segments, log_end, config.index_interval_bytes, now);
        epochs.push(leader_epoch, log_end);
        let journaled = config.durability == Kept::Fsync;
        let cursor = journaled.then(|| Cursor::found(&active, log_end));
        let active_base = active.base_offset();
        let writer = Writer {
            active,
            waiting: VecDeque::new(),
            next: None,
            kept_producers: KeptProducers {
                end: log_end,
                encoded: producers.encode().into(),
            },
            producers,
            epochs,
            journaled,
            queued: Queued::No,
            untold_bytes: 0,
            checkpointed: Checkpointed {
                end: log_end,
                segment: active_base,
                captured: log_end,
                index: IndexCounts::default(),
                unflushed_bytes: 0,
            },
        };
        let log_start = spec.log_start;
        assert!(log_start <= log_end, "a log does not end below its start");
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            spec,
            folder,
            leader_epoch,
            environment,
            tail,
            open_files,
            durability,
            config: ArcSwap::from_pointee(config),
            view: ArcSwap::from_pointee(view),
            log_start: AtomicU64::new(log_start.0),
            high_watermark: AtomicU64::new(log_end.0),
            log_end: AtomicU64::new(log_end.0),
            upkeep: Mutex::default(),
            cursor: Mutex::new(cursor),
            writer: Mutex::new(writer),
            offline: OnceLock::new(),
            closed: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            observer: OnceLock::new(),
            failure_told: AtomicBool::new(false),
            maintenance_wanted: AtomicBool::new(false),
            files: RwLock::default(),
            cleaned: Mutex::default(),
            is_compacting: AtomicBool::new(false),
            names_changed: AtomicU64::new(0),
            names_synced: AtomicU64::new(0),
        })
    }

    /// The ends of the log. Lock-free; the three are not of exactly the same moment, but always in
    /// order.
    pub fn bounds(&self) -> Bounds {
        // In this order: each of them only grows up to the next (the end is cut only above the
        // watermark), so what is loaded later is at or above what was loaded before.
        let log_start = Offset(self.log_start.load(Ordering::Acquire));
        let high_watermark = Offset(self.high_watermark.load(Ordering::Acquire));
        let log_end = Offset(self.log_end.load(Ordering::Acquire));
        Bounds {
            log_start,
            high_watermark,
            log_end,
        }
    }

    /// Moves the high watermark of a journaled partition to `offset`, unless it is there already.
    /// Everything below must be durable. Wakes the observer.
    pub fn advance_durable(&self, offset: Offset) {
        let offset = offset.0.min(self.log_end.load(Ordering::Acquire));
        let before = self.high_watermark.fetch_max(offset, Ordering::AcqRel);
        if before >= offset {
            return;
        }
        self.tell_high_watermark(Offset(offset));
        // Rolled segments whose end is durable now can be sealed.
        let active_base = self.view.load().segments.last().map(Segment::base_offset);
        if active_base.is_some_and(|base| before < base.0 && base.0 <= offset) {
            self.want_maintenance();
        }
    }

    /// Deletes the records below `log_start`: they cannot be read any more. The caller has made that
    /// durable before. Files of segments that are wholly below are removed in the background. A log
    /// start that is there already, or above, stays.
    ///
    /// # Errors
    /// Nothing above the high watermark can be deleted.
    pub fn trim(&self, log_start: Offset) -> Result<(), TrimError> {
        let high_watermark = self.bounds().high_watermark;
        if log_start > high_watermark {
            return Err(TrimError::AboveHighWatermark {
                requested: log_start,
                high_watermark,
            });
        }
        let before = self.log_start.fetch_max(log_start.0, Ordering::AcqRel);
        if before < log_start.0 {
            self.writer.lock().epochs.trim(log_start);
            self.want_maintenance();
        }
        Ok(())
    }

    /// The epoch that appended batches are stamped with.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }

    /// Where each leader epoch began, rising.
    pub fn epochs(&self) -> Vec<EpochStart> {
        self.writer.lock().epochs.starts().to_vec()
    }

    /// The largest epoch that is not above `epoch`, and the offset where it ends (exclusive): a client
    /// whose position is above that read something that was cut. `None` for an epoch that was not
    /// reached.
    pub fn epoch_end(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let writer = self.writer.lock();
        writer
            .epochs
            .end_of(epoch, Offset(self.log_end.load(Ordering::Acquire)))
    }

    /// The idempotent producers that are remembered, by id.
    pub fn producers(&self) -> Vec<ProducerState> {
        self.writer.lock().producers.states()
    }

    /// Forgets the producers that appended nothing for the configured time, and says how many.
    pub fn expire_producers(&self, now: Timestamp) -> usize {
        let expiration_ms = self.config.load().producer_expiration_ms;
        self.writer.lock().producers.expire(now, expiration_ms)
    }

    /// Whether the partition serves. Lock-free.
    pub fn state(&self) -> PartitionState {
        match self.offline.get() {
            None => PartitionState::Online,
            Some(reason) => PartitionState::Offline {
                reason: Arc::clone(reason),
            },
        }
    }

    /// Its size.
    pub fn stats(&self) -> PartitionStats {
        let view = self.view.load();
        let (segments, bytes) = (
            view.segments.len(),
            view.segments.iter().map(Segment::bytes).sum(),
        );
        let writer = self.writer.lock();
        PartitionStats {
            segments,
            bytes,
            unflushed_bytes: writer.checkpointed.unflushed_bytes,
            producers: writer.producers.len(),
        }
    }

    /// Sets everything but [`LogConfig::durability`], which is set by the store's switch.
    pub fn set_config(&self, config: LogConfig) {
        self.config.rcu(|now| LogConfig {
            durability: now.durability,
            ..config.clone()
        });
    }

    /// Which partition it is, with the log start and the configuration of now.
    pub fn spec(&self) -> PartitionSpec {
        PartitionSpec {
            log_start: self.bounds().log_start,
            config: LogConfig::clone(&self.config.load()),
            ..self.spec.clone()
        }
    }

    /// Sets who is told when the high watermark moves and when the partition fails. Only the first
    /// call counts. If the partition is offline already, the observer is told at once.
    pub fn observe(&self, observer: Arc<dyn PartitionObserver>) {
        let _ = self.observer.set(observer); // the first one stays
        self.tell_failure();
    }

    /// The partition's folder.
    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.clone()
    }

    /// Serves nothing from now on. The first reason is kept, logged and told to the observer; a later
    /// one is dropped. No lock of this partition may be held.
    pub(crate) fn take_offline(&self, reason: OfflineReason) -> Arc<OfflineReason> {
        let reason = self.mark_offline(reason);
        self.tell_failure();
        reason
    }

    /// As [`Partition::take_offline`]; the observer is told by [`Partition::tell_failure`], once the
    /// locks are released. Returns the first reason.
    fn mark_offline(&self, reason: OfflineReason) -> Arc<OfflineReason> {
        let reason = Arc::new(reason);
        if self.offline.set(Arc::clone(&reason)).is_ok() {
            error!(
                topic = %self.spec.topic,
                partition = %self.spec.partition,
                %reason,
                "partition is offline"
            );
        }
        Arc::clone(self.offline.get().expect("a set reason stays"))
    }

    /// Tells the observer, once, that the partition is offline, if it is. No lock may be held: whatever
    /// may have failed under a lock calls this when it has released it.
    fn tell_failure(&self) {
        if self.offline.get().is_some() {
            self.notify_failed();
        }
    }

    /// The whole data directory takes no more appends: tells the observer, as if the partition had
    /// failed. Reads go on.
    pub(crate) fn notify_failed(&self) {
        if let Some(observer) = self.observer.get()
            && !self.failure_told.swap(true, Ordering::AcqRel)
        {
            observer.failed();
        }
    }

    /// The topic is deleted: no appends and reads succeed from now on, and background work has ended
    /// when this returns. The caller may then rename the folder and remove it.
    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        self.closed.store(true, Ordering::Release);
        let _upkeep = self.upkeep.lock();
        // From here on no entry of it enters the journal: once the catalog has forgotten the topic,
        // recovery would not know whose it is.
        *self.cursor.lock() = None;
        let mut writer = self.writer.lock();
        writer.journaled = false;
        writer.next = None;
        let view = self.view.load();
        for segment in &view.segments {
            self.open_files.forget(&self.file_key(segment));
        }
    }

    /// Tells the observer. No lock may be held.
    fn tell_high_watermark(&self, high_watermark: Offset) {
        if let Some(observer) = self.observer.get() {
            observer.high_watermark_moved(high_watermark);
        }
    }

    /// Asks the store for [`Partition::maintain`], unless it was asked before. No lock may be held.
    fn want_maintenance(&self) {
        if !self.maintenance_wanted.swap(true, Ordering::AcqRel)
            && let Some(me) = self.me.upgrade()
        {
            self.durability.wants_maintenance(&me);
        }
    }

    fn layout<'a>(&'a self, config: &LogConfig) -> Layout<'a> {
        Layout {
            disk: &*self.environment.disk,
            folder: &self.folder,
            tail: self.tail,
            segment_bytes: config.segment_bytes,
        }
    }

    fn key(&self, base_offset: Offset) -> SegmentKey {
        SegmentKey {
            topic_id: self.spec.topic_id,
            partition: self.spec.partition,
            base_offset,
        }
    }

    fn file_key(&self, segment: &Segment) -> FileKey {
        self.file_key_of(segment.base_offset(), segment.generation())
    }

    fn file_key_of(&self, base_offset: Offset, generation: u32) -> FileKey {
        FileKey {
            segment: self.key(base_offset),
            generation,
        }
    }

    fn segment_path(&self, base_offset: Offset) -> PathBuf {
        self.folder.join(names::segment_file_name(base_offset))
    }

    /// A name in the folder has changed, which the next round or checkpoint makes durable.
    fn names_have_changed(&self) {
        self.names_changed.fetch_add(1, Ordering::AcqRel);
    }

    /// An operation on a file failed in a way that leaves its content unknown. Whoever calls this tells
    /// the observer when no lock is held.
    fn fail(&self, operation: &'static str, file: &Path, error: io::Error) -> Arc<OfflineReason> {
        self.mark_offline(OfflineReason::Io {
            operation,
            file: file.to_owned(),
            error,
        })
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partition")
            .field("topic", &self.spec.topic)
            .field("partition", &self.spec.partition)
            .field("bounds", &self.bounds())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// The system has no descriptor, no mapping or no memory left: nothing is wrong with the file.
fn is_exhaustion(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::OutOfMemory || lacks_descriptors(error)
}
