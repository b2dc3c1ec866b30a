//! Consumers, which share the partitions of a topic and hold what they read against its order.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use crate::{
    load::{Load, Seen},
    pace::Clock,
    peer::{Peer, Receiver},
    record::Check,
};

/// Stands for a number of records that is not known yet.
pub(crate) const UNKNOWN: u64 = u64::MAX;

/// How long readers wait for the next record before those that are missing count as lost.
const SILENCE_NANOS: u64 = 10_000_000_000;

pub(crate) struct Consumers<'a> {
    receivers: Vec<Box<dyn Receiver>>,
    shared: Shared<'a>,
}

/// What all readers see.
struct Shared<'a> {
    load: &'a Load,
    clock: Clock,
    start: u64,
    /// When they have read so many together, they end.
    expected: &'a AtomicU64,
    found: AtomicU64,
    /// When a record came last, or it became known how many there are.
    moved_at: AtomicU64,
}

impl<'a> Consumers<'a> {
    /// Connects; from then on the server may send.
    pub(crate) fn start(
        peer: &dyn Peer,
        load: &'a Load,
        clock: Clock,
        expected: &'a AtomicU64,
    ) -> io::Result<Self> {
        let (partitions, count) = (load.topic.partitions, load.consumers);
        let start = clock.now();
        let receiver = |number| {
            let range = partitions * number / count..partitions * (number + 1) / count;
            peer.receiver(&load.topic, range)
        };
        Ok(Self {
            receivers: (0..count).map(receiver).collect::<io::Result<_>>()?,
            shared: Shared {
                load,
                clock,
                start,
                expected,
                found: AtomicU64::new(0),
                moved_at: AtomicU64::new(start),
            },
        })
    }

    /// Reads in threads while `meanwhile` runs, and until everything was read.
    pub(crate) fn run(self, meanwhile: impl FnOnce()) -> Seen {
        let Self { receivers, shared } = self;
        let mut seen = Seen::nothing();
        thread::scope(|scope| {
            let read = |mut receiver: Box<dyn Receiver>| {
                let shared = &shared;
                scope.spawn(move || shared.read(receiver.as_mut()))
            };
            let threads: Vec<_> = receivers.into_iter().map(read).collect();
            meanwhile();
            let now = shared.clock.now();
            shared.moved_at.fetch_max(now, Ordering::Relaxed);
            for thread in threads {
                seen.join(thread.join().expect("a consumer does not panic"));
            }
        });
        let expected = shared.expected.load(Ordering::Acquire);
        seen.lost = expected.saturating_sub(seen.records);
        seen
    }
}

impl Shared<'_> {
    fn read(&self, receiver: &mut dyn Receiver) -> Seen {
        let mut seen = Seen::nothing();
        let mut check = Check::new(self.load.topic.partitions);
        while !self.is_over() {
            let before = check.records;
            let outcome = receiver.read(&mut |partition, record, at| {
                if let Some(header) = check.take(partition, record) {
                    seen.took(at.saturating_sub(header.due));
                    seen.nanos = at.saturating_sub(self.start);
                }
            });
            if let Err(e) = outcome {
                seen.complain(e);
                break;
            }
            if check.records > before {
                self.found
                    .fetch_add(check.records - before, Ordering::Relaxed);
                self.moved_at.fetch_max(self.clock.now(), Ordering::Relaxed);
            }
        }
        seen.records = check.records;
        seen.duplicated = check.repeated;
        seen.errors += check.foreign;
        if check.skipped > 0 {
            seen.complain(format!("{} records were jumped over", check.skipped));
        }
        seen
    }

    fn is_over(&self) -> bool {
        let expected = self.expected.load(Ordering::Acquire);
        let silent = self
            .clock
            .now()
            .saturating_sub(self.moved_at.load(Ordering::Relaxed));
        self.found.load(Ordering::Relaxed) >= expected
            || expected != UNKNOWN && silent > SILENCE_NANOS
    }
}
