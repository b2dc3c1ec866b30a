//! What the broker counts. Plain atomics: whoever exports metrics reads them when asked, and counting
//! costs a few nanoseconds.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use sapwood_log::{Bounds, Counter, Histogram, PartitionStats, compaction::CompactionStats};
use sapwood_model::{Code, LeaderEpoch, PartitionId, Timestamp, TopicId, TopicName};

use crate::groups::GroupMetrics;

/// The counters and histograms of a broker since its start.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Batches that were produced, by result.
    pub produce: Results,
    /// Partitions that were fetched from, by result.
    pub fetch: Results,
    /// Checking and appending one batch.
    pub produce_append: Histogram,
    /// From the append to the durability that the producer asked for; only where it had to wait.
    pub produce_durable: Histogram,
    /// Reading for one fetch, without the time it was parked.
    pub fetch_read: Histogram,
    /// The time that a fetch was parked; only those that were.
    pub fetch_parked: Histogram,
    /// What retention does.
    pub retention: RetentionMetrics,
    /// What compaction does.
    pub compaction: CompactionMetrics,
    /// What groups do. Shared with those who host them.
    pub groups: Arc<GroupMetrics>,
    /// Fetches that are parked now are those that came minus those that left.
    pub(crate) fetches_came: Counter,
    pub(crate) fetches_left: Counter,
}

impl Metrics {
    /// How many fetches are parked now.
    pub fn fetches_parked(&self) -> u64 {
        // A fetch that comes in between must not make it negative.
        let left = self.fetches_left.get();
        self.fetches_came.get().saturating_sub(left)
    }
}

/// What retention has done since the start.
#[derive(Debug, Default)]
pub struct RetentionMetrics {
    /// Planning all partitions once. No file is read for it.
    pub pass: Histogram,
    /// Segments whose records were deleted.
    pub segments: Counter,
    /// Bytes of their batches.
    pub bytes: Counter,
    /// Partitions with which something failed, each time that it did.
    pub failures: Counter,
}

/// What compaction has done since the start, in the background and when it was asked for.
#[derive(Debug, Default)]
pub struct CompactionMetrics {
    /// Logs that were compacted to the end.
    pub runs: Counter,
    /// Partitions with which something failed, each time that it did.
    pub failures: Counter,
    /// Bytes of batches that were read.
    pub read_bytes: Counter,
    /// Bytes of batches that were written.
    pub written_bytes: Counter,
    /// Records that are gone.
    pub removed_records: Counter,
    /// Segments that were replaced.
    pub replaced_segments: Counter,
    /// Their bytes.
    pub bytes_before: Counter,
    /// Bytes of the segments in their place.
    pub bytes_after: Counter,
    /// Batches that nobody can decompress; they stay as they are.
    pub unreadable_batches: Counter,
    levels: Mutex<CompactionLevels>,
}

/// What rises and falls.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct CompactionLevels {
    /// The dirty part of the log that is dirtiest, 0 to 1, when all were looked at last.
    pub dirty_ratio_max: f64,
    /// Partitions that are left alone for a while because something failed with them.
    pub uncleanable: u64,
    /// The most bytes that noting the keys of a log has taken so far.
    pub map_bytes_max: u64,
}

impl CompactionMetrics {
    /// As it stands.
    pub fn levels(&self) -> CompactionLevels {
        *self.levels.lock()
    }

    pub(crate) fn looked(&self, dirty_ratio_max: f64, uncleanable: u64) {
        let mut levels = self.levels.lock();
        levels.dirty_ratio_max = dirty_ratio_max;
        levels.uncleanable = uncleanable;
    }

    /// Counts what a run has done between two looks at it.
    pub(crate) fn count(&self, before: &CompactionStats, now: &CompactionStats) {
        self.read_bytes.add(now.read_bytes - before.read_bytes);
        self.written_bytes
            .add(now.written_bytes - before.written_bytes);
        self.removed_records
            .add(now.removed_records - before.removed_records);
        self.replaced_segments
            .add(now.replaced_segments - before.replaced_segments);
        self.bytes_before
            .add(now.bytes_before - before.bytes_before);
        self.bytes_after.add(now.bytes_after - before.bytes_after);
        self.unreadable_batches
            .add(now.unreadable_batches - before.unreadable_batches);
        let mut levels = self.levels.lock();
        levels.map_bytes_max = levels.map_bytes_max.max(now.map_bytes);
    }
}

/// How often an operation succeeded, and how often it failed with which code.
#[derive(Debug, Default)]
pub struct Results {
    ok: Counter,
    errors: Mutex<BTreeMap<u16, u64>>,
}

impl Results {
    pub(crate) fn count(&self, code: Option<Code>) {
        match code {
            None => self.ok.add(1),
            Some(code) => *self.errors.lock().entry(code.number()).or_default() += 1,
        }
    }

    /// How often it succeeded.
    pub fn ok(&self) -> u64 {
        self.ok.get()
    }

    /// How often it failed, by code, in the order of the codes' numbers.
    pub fn errors(&self) -> Vec<(Code, u64)> {
        let errors = self.errors.lock();
        errors
            .iter()
            .filter_map(|(number, count)| Some((Code::from_number(*number)?, *count)))
            .collect()
    }
}

/// What a topic's partitions took in and gave out.
#[derive(Debug, Default)]
pub(crate) struct TopicCounters {
    pub(crate) records_in: Counter,
    pub(crate) bytes_in: Counter,
    pub(crate) batches_in: Counter,
    pub(crate) records_out: Counter,
    pub(crate) bytes_out: Counter,
}

/// One topic's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicMetrics {
    /// Its name.
    pub name: TopicName,
    /// Its id.
    pub id: TopicId,
    /// Records appended, duplicates not counted.
    pub records_in: u64,
    /// Bytes of batches appended.
    pub bytes_in: u64,
    /// Batches appended.
    pub batches_in: u64,
    /// Records that fetches were answered with; one that was fetched twice counts twice.
    pub records_out: u64,
    /// Bytes of batches that fetches were answered with.
    pub bytes_out: u64,
    /// Its partitions, from 0.
    pub partitions: Vec<PartitionMetrics>,
}

/// One partition's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionMetrics {
    /// Its number.
    pub partition: PartitionId,
    /// Its ends.
    pub bounds: Bounds,
    /// Its leader epoch.
    pub leader_epoch: LeaderEpoch,
    /// Its size.
    pub stats: PartitionStats,
    /// Whether it serves.
    pub online: bool,
}

/// One row of the background table. Times are by the broker's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskMetrics {
    /// Its name.
    pub name: &'static str,
    /// What it does, in a few words.
    pub about: &'static str,
    /// What makes it run before its interval is over; `None` if nothing does.
    pub trigger: Option<&'static str>,
    /// At most so long between two runs while there is something to do; `None` where only the trigger
    /// counts, or when it is switched off.
    pub interval: Option<Duration>,
    /// How many bytes a second it reads and writes at most; `None` where that is next to nothing.
    pub bytes_per_second: Option<u64>,
    /// Ticks that succeeded.
    pub runs: u64,
    /// Ticks that failed.
    pub failures: u64,
    /// A tick is under way.
    pub is_running: bool,
    /// When the last tick began.
    pub last_run: Option<Timestamp>,
    /// How long it took.
    pub last_took: Duration,
    /// When it runs next, if nothing triggers it before.
    pub next_run: Option<Timestamp>,
    /// The last failure and when it was, also when it went well since.
    pub last_error: Option<(Timestamp, String)>,
    /// How far it is; `None` when it has begun nothing that takes several ticks, or is in one right now.
    pub progress: Option<TaskProgress>,
}

/// How far a row of the background table is with what it has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskProgress {
    /// Partitions that are done.
    pub done: u64,
    /// Of so many.
    pub total: u64,
}

/// Everything that is counted by topic, and what is in use, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsSnapshot {
    /// The topics, in the order of their names.
    pub topics: Vec<TopicMetrics>,
    /// The background work.
    pub tasks: Vec<TaskMetrics>,
    /// Bytes of requests that are held now.
    pub request_bytes: u64,
    /// The budget for them.
    pub request_bytes_max: u64,
    /// How often a request waited for room in the budget.
    pub request_waits: u64,
    /// Fetches that are parked now.
    pub fetches_parked: u64,
}
