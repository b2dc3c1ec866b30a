//! What happened to a disk and to all its copies, counted: a test that injects nothing proves nothing.

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) power_cuts: Counter,
    pub(crate) pages_lost: Counter,
    pub(crate) pages_kept: Counter,
    pub(crate) pages_torn: Counter,
    pub(crate) pages_written_back: Counter,
    pub(crate) failed_syncs: Counter,
    pub(crate) failed_write_outs: Counter,
    pub(crate) failed_writes: Counter,
    pub(crate) failed_reads: Counter,
    pub(crate) full: Counter,
}

impl Counters {
    pub(crate) fn read(&self) -> Injected {
        Injected {
            power_cuts: self.power_cuts.read(),
            pages_lost: self.pages_lost.read(),
            pages_kept: self.pages_kept.read(),
            pages_torn: self.pages_torn.read(),
            pages_written_back: self.pages_written_back.read(),
            failed_syncs: self.failed_syncs.read(),
            failed_write_outs: self.failed_write_outs.read(),
            failed_writes: self.failed_writes.read(),
            failed_reads: self.failed_reads.read(),
            full: self.full.read(),
        }
    }
}

/// What a disk and all its copies went through, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Injected {
    /// Power cuts.
    pub power_cuts: u64,
    /// Dirty pages that a power cut or a failed sync lost.
    pub pages_lost: u64,
    /// Dirty pages that survived one.
    pub pages_kept: u64,
    /// Dirty pages of which some sectors survived one.
    pub pages_torn: u64,
    /// Dirty pages that the kernel wrote on its own.
    pub pages_written_back: u64,
    /// Syncs that failed.
    pub failed_syncs: u64,
    /// Write-outs that failed.
    pub failed_write_outs: u64,
    /// Other steps that failed with an error of the device.
    pub failed_writes: u64,
    /// Reads, openings and listings that failed.
    pub failed_reads: u64,
    /// Steps for which there was no room.
    pub full: u64,
}
