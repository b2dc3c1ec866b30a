//! Group commit: everything that waits goes into one round of the journal and shares its sync.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::{Condvar, Mutex};

use super::{Inner, checkpointing::DESCRIPTOR_PATIENCE};
use crate::{
    io::Clock,
    journal::{Entry, Journal, JournalError},
    partition::Partition,
};

/// A round takes about this many bytes, so that the first of many waiters is not held up by all.
const ROUND_BYTES: u64 = 8 << 20;

/// The partitions whose appends wait for the journal.
#[derive(Debug, Default)]
pub(super) struct CommitQueue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    partitions: VecDeque<Arc<Partition>>,
    bytes: u64,
    urgent: bool,
    /// When the first of them came.
    since: Option<Duration>,
    /// Checkpoints taken: a stalled round waits for the next one.
    checkpoints: u64,
    stopped: bool,
}

/// The journal, and a round that did not fit into it yet.
#[derive(Debug)]
pub(super) struct RoundWriter {
    pub(super) journal: Journal,
    stalled: Vec<(Arc<Partition>, Entry)>,
}

/// What came of a call of [`Store::step_journal`](crate::Store::step_journal).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalStep {
    /// Nothing waits.
    Idle,
    /// A round is durable, and its waiters were told.
    Synced,
    /// Every journal file is still needed: the round waits for a checkpoint.
    Full,
    /// The data directory is read-only.
    ReadOnly,
}

impl CommitQueue {
    pub(super) fn push(
        &self,
        partition: &Arc<Partition>,
        bytes: u64,
        urgent: bool,
        clock: &dyn Clock,
    ) {
        let mut waiting = self.waiting.lock();
        let first = waiting.partitions.is_empty();
        waiting.partitions.push_back(Arc::clone(partition));
        waiting.bytes += bytes;
        if first {
            waiting.since = Some(clock.elapsed());
        }
        let newly_urgent = urgent && !waiting.urgent;
        waiting.urgent |= urgent;
        drop(waiting);
        if first || newly_urgent {
            self.changed.notify_all();
        }
    }

    /// Waits until a round is due. `false`: stopped. Blocks.
    pub(super) fn wait(&self, delay: Duration, bytes: u64, clock: &dyn Clock) -> bool {
        let mut waiting = self.waiting.lock();
        loop {
            if waiting.stopped {
                return false;
            }
            let Some(since) = waiting.since.filter(|_| !waiting.partitions.is_empty()) else {
                self.changed.wait(&mut waiting);
                continue;
            };
            let age = clock.elapsed().saturating_sub(since);
            if waiting.urgent || waiting.bytes >= bytes || age >= delay {
                return true;
            }
            self.changed.wait_for(&mut waiting, delay - age);
        }
    }

    /// How many checkpoints were taken.
    pub(super) fn checkpoints(&self) -> u64 {
        self.waiting.lock().checkpoints
    }

    /// A checkpoint was taken: there may be room in the journal.
    pub(super) fn checkpointed(&self) {
        self.waiting.lock().checkpoints += 1;
        self.changed.notify_all();
    }

    /// Waits for one more checkpoint than `seen`. `false`: stopped. Blocks.
    pub(super) fn wait_for_checkpoint(&self, seen: u64) -> bool {
        let mut waiting = self.waiting.lock();
        while waiting.checkpoints == seen && !waiting.stopped {
            self.changed.wait(&mut waiting);
        }
        !waiting.stopped
    }

    pub(super) fn stop(&self) {
        self.waiting.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Forgets everybody; breaks the circle of partitions and store.
    pub(super) fn clear(&self) {
        self.waiting.lock().partitions.clear();
    }

    fn take(&self) -> VecDeque<Arc<Partition>> {
        let mut waiting = self.waiting.lock();
        waiting.bytes = 0;
        waiting.urgent = false;
        waiting.since = None;
        std::mem::take(&mut waiting.partitions)
    }

    /// Puts those back whose turn did not come; somebody may wait for each of them.
    fn put_back(&self, partitions: VecDeque<Arc<Partition>>, clock: &dyn Clock) {
        if partitions.is_empty() {
            return;
        }
        let mut waiting = self.waiting.lock();
        for partition in partitions.into_iter().rev() {
            waiting.partitions.push_front(partition);
        }
        waiting.urgent = true;
        waiting.since.get_or_insert_with(|| clock.elapsed());
    }
}

impl RoundWriter {
    pub(super) fn new(journal: Journal) -> Self {
        Self {
            journal,
            stalled: Vec::new(),
        }
    }

    /// Whether a round waits for a checkpoint.
    pub(super) fn is_stalled(&self) -> bool {
        !self.stalled.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.stalled.clear();
    }
}

impl Inner {
    /// Writes one round of what waits, syncs it, moves the high watermarks. Blocks.
    pub(super) fn commit_round(&self) -> JournalStep {
        let mut writer = self.writer.lock();
        if self.failed.get().is_some() {
            writer.clear();
            self.commit.take();
            return JournalStep::ReadOnly;
        }
        if writer.stalled.is_empty() {
            writer.stalled = self.collect();
        }
        if writer.stalled.is_empty() {
            return JournalStep::Idle;
        }
        let entries: Vec<Entry> = writer
            .stalled
            .iter()
            .map(|(_, entry)| entry.clone())
            .collect();
        let started = self.clock().elapsed();
        let written = match writer.journal.write(&entries) {
            Ok(written) => written,
            Err(JournalError::Full) => {
                self.metrics.journal_full.add(1);
                drop(writer);
                self.work.want_checkpoint();
                return JournalStep::Full;
            }
            Err(e @ JournalError::Io { .. }) => {
                // Before anybody else gets at the round: it must not be written a second time.
                let failure = self.mark_failed(&format!("the journal could not be written: {e}"));
                drop(writer);
                self.tell_failed(&failure);
                return JournalStep::ReadOnly;
            }
        };
        let round = std::mem::take(&mut writer.stalled);
        let half_full = written.turned && writer.journal.is_half_full();
        let wants_prewrite = written.turned || writer.journal.is_prewrite_due();
        drop(writer);
        self.metrics.journal_rounds.add(1);
        self.metrics.journal_bytes.add(written.bytes);
        self.metrics
            .journal_sync
            .record(self.clock().elapsed().saturating_sub(started));
        for (partition, _) in &round {
            if self.sync_names(partition, DESCRIPTOR_PATIENCE).is_err() {
                return JournalStep::ReadOnly;
            }
        }
        for (partition, entry) in &round {
            partition.advance_durable(entry.end_offset);
        }
        if half_full {
            self.work.want_checkpoint();
        }
        if wants_prewrite {
            self.work.want_prewrite();
        }
        JournalStep::Synced
    }

    /// Takes what waits, in log order for each partition.
    fn collect(&self) -> Vec<(Arc<Partition>, Entry)> {
        let round_bytes = ROUND_BYTES.min(self.options.journal_file_bytes / 4);
        let mut waiting = self.commit.take();
        let mut taken = Vec::new();
        let mut bytes = 0;
        while bytes < round_bytes
            && let Some(partition) = waiting.pop_front()
        {
            let spec = partition.spec();
            for piece in partition.take_unjournaled(round_bytes - bytes) {
                let entry = Entry {
                    topic_id: spec.topic_id,
                    partition: spec.partition,
                    leader_epoch: piece.leader_epoch,
                    base_offset: piece.base_offset,
                    end_offset: piece.end_offset,
                    segment: piece.segment,
                    position: piece.position,
                    starts_run: piece.starts_run,
                    bytes: piece.bytes,
                };
                bytes += entry.size_bytes();
                taken.push((Arc::clone(&partition), entry));
            }
        }
        self.commit.put_back(waiting, self.clock());
        taken
    }
}
