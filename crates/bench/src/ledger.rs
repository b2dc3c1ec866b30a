//! What came, against what was sent: lost, twice, out of order, changed.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
};

use crate::shape::Stamp;

/// How many stretches of missing records a lane remembers; behind that, late ones count as duplicates.
const MISSING_MAX: usize = 100_000;

/// What one producer sent, by partition.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sent {
    /// How many records, the failed ones included.
    pub(crate) counts: HashMap<u32, u64>,
    /// Those that the broker did not acknowledge: they may be there or not.
    pub(crate) failed: HashMap<u32, Vec<Range<u64>>>,
}

/// What consumers found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) disordered: u64,
    pub(crate) corrupt: u64,
    /// Records of other runs and of other programs.
    pub(crate) foreign: u64,
}

/// Keeps what came. One for each consumer; partitions do not change hands.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// The only run that is looked at; `None` looks at all.
    run: Option<u32>,
    lanes: HashMap<(u32, u32, u32), Lane>,
    found: Findings,
}

/// The records of one producer for one partition.
#[derive(Debug, Default)]
struct Lane {
    next: u64,
    /// By their beginning; they do not touch.
    missing: BTreeMap<u64, u64>,
}

impl Ledger {
    pub(crate) fn new(run: Option<u32>) -> Self {
        Self {
            run,
            ..Self::default()
        }
    }

    /// Whether the record belongs to the run. `is_whole` says that a lane has to begin with 0.
    pub(crate) fn enter(&mut self, stamp: &Stamp, is_whole: bool) -> bool {
        if self.run.is_some_and(|run| run != stamp.run) {
            self.found.foreign += 1;
            return false;
        }
        let key = (stamp.run, stamp.producer, stamp.partition);
        let lane = self.lanes.entry(key).or_insert_with(|| Lane {
            next: if is_whole { 0 } else { stamp.sequence },
            ..Lane::default()
        });
        let sequence = stamp.sequence;
        if sequence >= lane.next {
            if sequence > lane.next && lane.missing.len() < MISSING_MAX {
                lane.missing.insert(lane.next, sequence);
            }
            lane.next = sequence + 1;
        } else if lane.fill(sequence) {
            self.found.disordered += 1;
        } else {
            self.found.duplicated += 1;
        }
        true
    }

    /// A record that is not what was made.
    pub(crate) fn enter_corrupt(&mut self) {
        self.found.corrupt += 1;
    }

    /// The findings when nobody knows what was sent: what is missing between the records that came.
    pub(crate) fn close(self) -> Findings {
        let gaps = self.lanes.values().flat_map(|lane| &lane.missing);
        let lost = gaps.map(|(start, end)| end - start).sum();
        Findings { lost, ..self.found }
    }

    /// The findings of all consumers of a run against what its producers sent.
    pub(crate) fn settle(ledgers: Vec<Self>, run: u32, sent: &[Sent]) -> Findings {
        let mut found = Findings::default();
        let mut lanes = HashMap::new();
        for ledger in ledgers {
            found = found.plus(ledger.found);
            lanes.extend(ledger.lanes);
        }
        for (producer, sent) in (0..).zip(sent) {
            for (&partition, &count) in &sent.counts {
                let none = Vec::new();
                let failed = sent.failed.get(&partition).unwrap_or(&none);
                let lane = lanes.remove(&(run, producer, partition));
                found.lost += lane.unwrap_or_default().acknowledged_missing(count, failed);
            }
        }
        found
    }
}

impl Findings {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            lost: self.lost + other.lost,
            duplicated: self.duplicated + other.duplicated,
            disordered: self.disordered + other.disordered,
            corrupt: self.corrupt + other.corrupt,
            foreign: self.foreign + other.foreign,
        }
    }
}

impl Lane {
    /// Takes a record off the missing ones, if it is one.
    fn fill(&mut self, sequence: u64) -> bool {
        let Some((&start, &end)) = self.missing.range(..=sequence).next_back() else {
            return false;
        };
        if sequence >= end {
            return false;
        }
        self.missing.remove(&start);
        for (from, to) in [(start, sequence), (sequence + 1, end)] {
            if from < to {
                self.missing.insert(from, to);
            }
        }
        true
    }

    /// How many of `count` records did not come, those that were not acknowledged left out.
    fn acknowledged_missing(&self, count: u64, failed: &[Range<u64>]) -> u64 {
        let tail = (self.next < count).then_some((self.next, count));
        let gaps = self.missing.iter().map(|(&start, &end)| (start, end));
        gaps.chain(tail)
            .map(|(start, end)| {
                let excused: u64 = failed
                    .iter()
                    .map(|range| range.end.min(end).saturating_sub(range.start.max(start)))
                    .sum();
                (end - start).saturating_sub(excused)
            })
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(sequences: &[u64], count: u64, failed: &[Range<u64>]) -> Findings {
        let mut ledger = Ledger::new(Some(1));
        for &sequence in sequences {
            let stamp = Stamp {
                run: 1,
                producer: 0,
                partition: 5,
                sequence,
                due_ns: 0,
            };
            assert!(ledger.enter(&stamp, true));
        }
        let sent = Sent {
            counts: HashMap::from([(5, count)]),
            failed: HashMap::from([(5, failed.to_vec())]),
        };
        Ledger::settle(vec![ledger], 1, &[sent])
    }

    #[test]
    fn each_kind_of_fault_is_counted_as_what_it_is() {
        let found = |lost, duplicated, disordered| Findings {
            lost,
            duplicated,
            disordered,
            ..Findings::default()
        };
        assert_eq!(findings(&[0, 1, 2], 3, &[]), found(0, 0, 0));
        assert_eq!(findings(&[], 3, &[]), found(3, 0, 0));
        assert_eq!(findings(&[0, 1], 3, &[]), found(1, 0, 0));
        assert_eq!(findings(&[0, 2], 3, &[]), found(1, 0, 0));
        assert_eq!(findings(&[0, 0, 1, 2, 1], 3, &[]), found(0, 2, 0));
        assert_eq!(findings(&[0, 2, 1], 3, &[]), found(0, 0, 1));
        assert_eq!(findings(&[4, 1, 2, 1, 0, 3], 5, &[]), found(0, 1, 4));
    }

    #[test]
    fn what_was_not_acknowledged_is_not_lost() {
        assert_eq!(findings(&[0, 3, 4], 6, &[1..3, 5..6]), Findings::default());
        let lost = findings(&[0, 3], 6, &[1..2, 2..2]);
        assert_eq!(lost.lost, 3);
    }

    #[test]
    fn records_of_another_run_are_left_alone() {
        let mut ledger = Ledger::new(Some(1));
        let stamp = Stamp {
            run: 2,
            producer: 0,
            partition: 0,
            sequence: 9,
            due_ns: 0,
        };
        assert!(!ledger.enter(&stamp, true));
        let found = ledger.close();
        assert_eq!((found.foreign, found.lost), (1, 0));
    }

    #[test]
    fn a_partition_that_is_not_read_from_its_first_offset_begins_anywhere() {
        let stamp = Stamp {
            run: 2,
            producer: 0,
            partition: 0,
            sequence: 9,
            due_ns: 0,
        };
        for (is_whole, lost) in [(true, 9), (false, 0)] {
            let mut ledger = Ledger::new(None);
            ledger.enter(&stamp, is_whole);
            assert_eq!(ledger.close().lost, lost);
        }
    }
}
