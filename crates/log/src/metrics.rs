//! What the store counts. Plain atomics: whoever exports metrics reads them when asked.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds of a [`Histogram`]'s buckets, in microseconds; the last bucket has no bound.
pub const BUCKET_BOUNDS_US: [u64; 18] = [
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000,
    500_000, 1_000_000, 2_500_000, 10_000_000,
];

/// Durations counted in fixed buckets. Recording never blocks.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKET_BOUNDS_US.len() + 1],
    sum_ns: AtomicU64,
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKET_BOUNDS_US.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_ns
            .fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// How many durations fell into each bucket (not cumulative); the last has no upper bound.
    pub fn counts(&self) -> [u64; BUCKET_BOUNDS_US.len() + 1] {
        self.buckets.each_ref().map(|bucket| bucket.load(Relaxed))
    }

    /// The sum of all durations.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_ns.load(Relaxed))
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    pub fn add(&self, by: u64) {
        self.0.fetch_add(by, Relaxed);
    }

    /// The total since the start.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The counters of one data directory, since its start.
#[derive(Debug, Default)]
pub struct StoreMetrics {
    /// Batches appended.
    pub appends: Counter,
    /// Bytes of batches appended.
    pub append_bytes: Counter,
    /// Rounds of the journal that were synced.
    pub journal_rounds: Counter,
    /// Bytes written to the journal, padding included.
    pub journal_bytes: Counter,
    /// One fdatasync of the journal.
    pub journal_sync: Histogram,
    /// Rounds that had to wait for a checkpoint, because every journal file was still needed.
    pub journal_full: Counter,
    /// One checkpoint, from its start to its file being durable.
    pub checkpoint: Histogram,
    /// Segments that were rolled.
    pub segments_rolled: Counter,
    /// Segments that were removed (below the log start).
    pub segments_removed: Counter,
    /// Appends that had to allocate on the append path, because allocation ahead was late.
    pub late_allocations: Counter,
    /// Reads answered from the active mapping or from resident pages.
    pub reads_resident: Counter,
    /// Reads that had to wait for the disk.
    pub reads_cold: Counter,
    /// Bytes of sealed segments whose checksums a scrub computed.
    pub scrubbed_bytes: Counter,
    /// Batches that failed a check when they were read, scrubbed or recovered.
    pub corrupt_batches: Counter,
    /// Appends refused because the disk is full.
    pub no_space: Counter,
}
