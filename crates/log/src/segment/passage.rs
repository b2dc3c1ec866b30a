//! What a reader of old data leaves behind in memory.
//!
//! Somebody who reads a log from its start brings all of it into the page cache, where it takes the place of what
//! others need and is mostly not read again. So what a reader had to fetch from the disk is given up behind it, once:
//! whoever reads the same place for the second time finds use in keeping it, and it is kept (the second chance of
//! 2Q, Johnson and Shasha, VLDB 1994).

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// What is given up at a time.
const STEP_BYTES: u64 = 4 << 20;
/// A read this far from the last one is no part of the same way through the segment.
const REACH_BYTES: u64 = 16 << 20;

/// How far a sealed segment was read from the disk.
///
/// It follows one reader at a time, the last one that had to wait. Readers race here: what they get wrong is what is
/// kept in memory, and nothing else.
#[derive(Debug, Default)]
pub(crate) struct Passage {
    /// Where the last read of a way through the segment ended that had to wait for the disk; 0 before the first.
    upto: AtomicU64,
    /// From where on what was read on this way was not given up yet.
    since: AtomicU64,
    /// What lies below was given up once, or was passed over.
    given_up: AtomicU64,
}

impl Passage {
    /// Notes that a range was read, and whether that `waited` for the disk. Says what to give up.
    pub(crate) fn read(&self, range: &Range<u64>, waited: bool) -> Option<Range<u64>> {
        let upto = self.upto.load(Relaxed);
        let goes_on = upto > 0 && range.start.abs_diff(upto) <= REACH_BYTES;
        if goes_on {
            self.upto.store(range.end, Relaxed);
        } else {
            if waited {
                self.upto.store(range.end, Relaxed);
                self.since.store(range.start, Relaxed);
            }
            return None;
        }
        // Not what is read just now: the next read may begin before the end of this one.
        let end = range.start / STEP_BYTES * STEP_BYTES;
        let given_up = self.given_up.load(Relaxed);
        let start = self.since.load(Relaxed).max(given_up);
        if end <= start {
            return None;
        }
        self.since.store(end, Relaxed);
        self.given_up.store(end, Relaxed);
        Some(start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// What a reader that reads a MiB at a time makes the kernel give up: from and to, in MiB, as all of this.
    fn reads(passage: &Passage, range: Range<u64>, waited: bool) -> Vec<(u64, u64)> {
        let read = |at| passage.read(&(at * MIB..(at + 1) * MIB + 4096), waited);
        let given_up = range.filter_map(read);
        given_up
            .map(|range| (range.start / MIB, range.end / MIB))
            .collect()
    }

    #[test]
    fn what_had_to_be_fetched_is_given_up_behind_the_reader_and_no_byte_twice() {
        let passage = Passage::default();
        let given_up = reads(&passage, 0..20, true);
        assert_eq!(given_up, [(0, 4), (4, 8), (8, 12), (12, 16)]);
        let again = reads(&passage, 0..20, true);
        assert_eq!(again, [], "a second reader keeps it");
        assert_eq!(reads(&passage, 20..22, true), [(16, 20)]);
    }

    #[test]
    fn what_the_kernel_has_read_ahead_belongs_to_the_same_way() {
        let passage = Passage::default();
        assert_eq!(reads(&passage, 0..1, true), []);
        assert_eq!(reads(&passage, 1..5, false), [(0, 4)]);
    }

    #[test]
    fn what_was_in_memory_stays_there() {
        let passage = Passage::default();
        assert_eq!(reads(&passage, 0..100, false), []);
        // Somebody else is elsewhere.
        reads(&passage, 500..520, true);
        assert_eq!(reads(&passage, 0..100, false), []);
    }

    #[test]
    fn a_reader_that_begins_in_the_middle_gives_up_nothing_far_before_it() {
        let passage = Passage::default();
        assert_eq!(reads(&passage, 500..505, true), [(500, 504)]);
    }

    #[test]
    fn a_single_read_near_the_end_takes_nothing_from_a_reader_of_all() {
        let passage = Passage::default();
        assert_eq!(reads(&passage, 900..901, true), []);
        assert_eq!(reads(&passage, 0..9, true), [(0, 4), (4, 8)]);
    }

    #[test]
    fn large_reads_are_given_up_whole() {
        let passage = Passage::default();
        assert_eq!(passage.read(&(0..64 * MIB), true), None);
        let given_up = passage.read(&(64 * MIB..128 * MIB), true);
        assert_eq!(given_up, Some(0..64 * MIB));
    }
}
