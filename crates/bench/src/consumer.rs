//! What consumers do with records: count, check, measure.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use bytes::Bytes;

use crate::{clock::Clock, ledger::Ledger, producer::Tally, shape::Stamp, watch::Watch};

/// Where a partition is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The next offset.
    pub(crate) next: i64,
    /// The first offset that is not read; `None` reads on.
    pub(crate) until: Option<i64>,
    /// Whether the records of each producer have to begin with number 0 here.
    pub(crate) is_whole: bool,
}

/// Takes in the records of one consumer.
#[derive(Debug)]
pub(crate) struct Sink {
    /// Whose records are held against all that were sent, together with those of its other sinks.
    pub(crate) reader: usize,
    pub(crate) tally: Tally,
    pub(crate) ledger: Ledger,
    is_checked: bool,
    /// Whether records are of this run, so that their latency can be told.
    is_timed: bool,
    shared: Arc<Progress>,
    /// What was not told to `shared` yet.
    untold: u64,
    due: Vec<u64>,
    records: u64,
    bytes: u64,
}

/// Where all consumers are together, and whether they go on.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    records: AtomicU64,
    is_over: AtomicBool,
}

impl Progress {
    pub(crate) fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

impl Sink {
    /// `run` is the only run whose records count, and whose clock this is; `None` takes those of all.
    pub(crate) fn new(
        reader: usize,
        run: Option<u32>,
        is_checked: bool,
        clock: Clock,
        watch: &Arc<Watch>,
        shared: &Arc<Progress>,
    ) -> Self {
        Self {
            reader,
            tally: Tally::new(clock, Arc::clone(watch)),
            ledger: Ledger::new(run),
            is_checked,
            is_timed: run.is_some(),
            shared: Arc::clone(shared),
            untold: 0,
            due: Vec::new(),
            records: 0,
            bytes: 0,
        }
    }

    /// Takes a record that has just arrived. `is_whole` is its place's.
    pub(crate) fn enter(&mut self, key: Option<&Bytes>, value: Option<&Bytes>, is_whole: bool) {
        let value = value.map_or(&[][..], |value| &value[..]);
        let is_ours = match Stamp::read(value, self.is_checked) {
            Some(stamp) => {
                let is_ours = !self.is_checked || self.ledger.enter(&stamp, is_whole);
                if is_ours && self.is_timed {
                    self.due.push(stamp.due_ns);
                }
                is_ours
            }
            None if self.is_checked => {
                self.ledger.enter_corrupt();
                false
            }
            None => true,
        };
        self.records += u64::from(is_ours || !self.is_timed);
        self.bytes += (key.map_or(0, Bytes::len) + value.len()) as u64;
    }

    /// Counts what was entered since the last turn: call it after each batch, so that latencies are right.
    pub(crate) fn turn(&mut self) {
        if self.records > 0 {
            self.tally.count(&self.due, self.records, self.bytes);
            self.untold += self.records;
        }
        if self.untold > 0 {
            self.shared
                .records
                .fetch_add(self.untold, Ordering::Relaxed);
        }
        (self.records, self.bytes, self.untold) = (0, 0, 0);
        self.due.clear();
    }

    pub(crate) fn is_over(&self) -> bool {
        self.shared.is_over()
    }
}
