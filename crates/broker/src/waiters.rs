//! Who waits at a partition: producers for durability, fetches for bytes.
//!
//! Both wait for the high watermark, and both are woken by whoever moves it, with no lock held. Every
//! append leaves an entry (where it ends, how many bytes it has, perhaps its producer); when the
//! watermark passes the entry, the producer is told, and the bytes are taken off what each parked
//! fetch still misses. A fetch is woken once, by the bytes that satisfy it.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use sapwood_log::PartitionObserver;
use sapwood_model::Offset;
use tokio::sync::{Notify, oneshot};

use crate::drain::Accepted;

/// From this many on, entries without a producer are merged.
const ENTRIES_MAX: usize = 4096;
/// A merged entry stands for about this many bytes at most.
const MERGED_BYTES_MAX: u64 = 1 << 20;

/// How a producer's wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The high watermark passed the batch.
    Durable,
    /// The partition went offline before, or the data directory read-only.
    Failed,
    /// The topic was deleted before.
    Deleted,
}

/// The waiters of one partition.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By `end`, ascending. Appends come almost in order.
    appended: VecDeque<Entry>,
    parked: HashMap<u64, Arc<Parked>>,
    /// Set when there is nothing to wait for any more.
    ended: Option<Outcome>,
}

#[derive(Debug)]
struct Entry {
    end: Offset,
    bytes: u64,
    producer: Option<Producer>,
}

#[derive(Debug)]
struct Producer {
    sender: oneshot::Sender<Outcome>,
    /// Counts as work in progress until the producer is told.
    _accepted: Accepted,
}

/// A fetch that waits for bytes, at one partition or at many.
#[derive(Debug)]
pub(crate) struct Parked {
    id: u64,
    missing_bytes: AtomicI64,
    woken: Notify,
}

impl Parked {
    /// A fetch that is satisfied by `missing_bytes` more bytes.
    pub(crate) fn new(missing_bytes: u64) -> Arc<Self> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            missing_bytes: AtomicI64::new(i64::try_from(missing_bytes).unwrap_or(i64::MAX)),
            woken: Notify::new(),
        })
    }

    /// Returns when the bytes are there or a partition has no more to give.
    pub(crate) async fn woken(&self) {
        self.woken.notified().await;
    }

    fn wake(&self) {
        self.woken.notify_one();
    }

    /// True for the call that makes it satisfied, and for no other.
    fn take(&self, bytes: u64) -> bool {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let before = self.missing_bytes.fetch_sub(bytes, Ordering::AcqRel);
        before > 0 && before <= bytes
    }
}

/// Who is to be woken once the lock is released.
#[derive(Default)]
struct Wake {
    producers: Vec<(Producer, Outcome)>,
    fetches: Vec<Arc<Parked>>,
}

impl Wake {
    fn run(self) {
        for (producer, outcome) in self.producers {
            // A producer that hung up is not told.
            let _ = producer.sender.send(outcome);
        }
        for fetch in self.fetches {
            fetch.wake();
        }
    }
}

impl Waiters {
    /// Notes an append that ends at `end` (exclusive). `high_watermark` is read after the entry is in
    /// place, so that a watermark which passes at the same moment misses nothing.
    ///
    /// With `accepted`, the producer waits and gets a receiver.
    pub(crate) fn appended(
        &self,
        end: Offset,
        bytes: u64,
        accepted: Option<Accepted>,
        high_watermark: impl FnOnce() -> Offset,
    ) -> Option<oneshot::Receiver<Outcome>> {
        let (producer, receiver) = match accepted {
            Some(accepted) => {
                let (sender, receiver) = oneshot::channel();
                (
                    Some(Producer {
                        sender,
                        _accepted: accepted,
                    }),
                    Some(receiver),
                )
            }
            None => (None, None),
        };
        let wake = {
            let mut inner = self.inner.lock();
            inner.insert(Entry {
                end,
                bytes,
                producer,
            });
            let mut wake = inner.settle(high_watermark());
            if let Some(outcome) = inner.ended {
                inner.end_all(outcome, &mut wake);
            }
            wake
        };
        wake.run();
        receiver
    }

    /// Adds a fetch; false when there is nothing to wait for any more.
    pub(crate) fn park(&self, fetch: &Arc<Parked>) -> bool {
        let mut inner = self.inner.lock();
        if inner.ended.is_some() {
            return false;
        }
        inner.parked.insert(fetch.id, fetch.clone());
        true
    }

    /// Whether the topic was deleted.
    pub(crate) fn is_deleted(&self) -> bool {
        self.inner.lock().ended == Some(Outcome::Deleted)
    }

    /// Takes a fetch out again.
    pub(crate) fn leave(&self, fetch: &Parked) {
        let mut inner = self.inner.lock();
        inner.parked.remove(&fetch.id);
        if inner.parked.is_empty() && inner.parked.capacity() > 64 {
            inner.parked.shrink_to_fit();
        }
    }

    /// Tells everybody that there is nothing to wait for any more. `high_watermark` is the last one:
    /// what lies below it was made durable all the same.
    pub(crate) fn end(&self, outcome: Outcome, high_watermark: Offset) {
        let wake = {
            let mut inner = self.inner.lock();
            let mut wake = inner.settle(high_watermark);
            // A partition that failed can still be deleted; nothing comes after that.
            if inner.ended != Some(Outcome::Deleted) {
                inner.ended = Some(outcome);
            }
            inner.end_all(outcome, &mut wake);
            wake
        };
        wake.run();
    }
}

impl PartitionObserver for Waiters {
    fn high_watermark_moved(&self, high_watermark: Offset) {
        let wake = self.inner.lock().settle(high_watermark);
        wake.run();
    }

    fn failed(&self) {
        // Nothing below the watermark is waiting: it was settled when the watermark moved.
        self.end(Outcome::Failed, Offset::ZERO);
    }
}

impl Inner {
    fn insert(&mut self, entry: Entry) {
        // While the journal lags far behind appends that nobody waits for, their entries are put
        // together, so that the queue stays small beside the bytes it stands for.
        if self.appended.len() >= ENTRIES_MAX
            && entry.producer.is_none()
            && let Some(last) = self.appended.back_mut()
            && last.producer.is_none()
            && last.bytes < MERGED_BYTES_MAX
        {
            last.end = last.end.max(entry.end);
            last.bytes += entry.bytes;
            return;
        }
        let mut at = self.appended.len();
        while at > 0 && self.appended[at - 1].end > entry.end {
            at -= 1;
        }
        self.appended.insert(at, entry);
    }

    /// Takes out what the watermark has passed.
    fn settle(&mut self, high_watermark: Offset) -> Wake {
        let mut wake = Wake::default();
        let mut bytes = 0;
        while self
            .appended
            .front()
            .is_some_and(|entry| entry.end <= high_watermark)
        {
            let Some(entry) = self.appended.pop_front() else {
                break;
            };
            bytes += entry.bytes;
            wake.producers
                .extend(entry.producer.map(|producer| (producer, Outcome::Durable)));
        }
        if bytes > 0 {
            wake.fetches.extend(
                self.parked
                    .values()
                    .filter(|fetch| fetch.take(bytes))
                    .cloned(),
            );
        }
        wake
    }

    fn end_all(&mut self, outcome: Outcome, wake: &mut Wake) {
        let producers = self.appended.drain(..).filter_map(|entry| entry.producer);
        wake.producers
            .extend(producers.map(|producer| (producer, outcome)));
        wake.fetches
            .extend(self.parked.drain().map(|(_, fetch)| fetch));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Waker},
    };

    use super::*;
    use crate::drain::Gate;

    fn is_woken(fetch: &Parked) -> bool {
        let mut woken = pin!(fetch.woken());
        woken
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    }

    fn producer(waiters: &Waiters, gate: &Gate, end: u64) -> oneshot::Receiver<Outcome> {
        let accepted = gate.accept();
        assert!(accepted.is_some());
        waiters
            .appended(Offset(end), 10, accepted, || Offset(0))
            .unwrap()
    }

    #[test]
    fn producers_are_told_when_the_watermark_passes_their_batch_and_not_before() {
        let (waiters, gate) = (Waiters::default(), Gate::default());
        // Appends may be noted out of order.
        let mut second = producer(&waiters, &gate, 20);
        let mut first = producer(&waiters, &gate, 10);
        waiters.high_watermark_moved(Offset(19));
        assert_eq!(first.try_recv(), Ok(Outcome::Durable));
        assert!(second.try_recv().is_err());
        assert_eq!(gate.in_progress(), 1);
        waiters.high_watermark_moved(Offset(20));
        assert_eq!(second.try_recv(), Ok(Outcome::Durable));
        assert_eq!(gate.in_progress(), 0);
    }

    #[test]
    fn an_append_that_is_durable_already_is_told_at_once() {
        let (waiters, gate) = (Waiters::default(), Gate::default());
        let mut receiver = waiters
            .appended(Offset(5), 10, gate.accept(), || Offset(5))
            .unwrap();
        assert_eq!(receiver.try_recv(), Ok(Outcome::Durable));
    }

    #[test]
    fn a_fetch_is_woken_once_by_the_bytes_that_satisfy_it() {
        let waiters = Waiters::default();
        let fetch = Parked::new(25);
        assert!(waiters.park(&fetch));
        for end in 1..=2 {
            waiters.appended(Offset(end), 10, None, || Offset(end));
            assert!(!is_woken(&fetch), "after {end} batches");
        }
        // Appended and not yet visible: these bytes do not count.
        waiters.appended(Offset(3), 10, None, || Offset(2));
        assert!(!is_woken(&fetch));
        waiters.high_watermark_moved(Offset(3));
        assert!(is_woken(&fetch));
        waiters.appended(Offset(4), 10, None, || Offset(4));
        assert!(!is_woken(&fetch));
    }

    #[test]
    fn one_fetch_adds_up_the_bytes_of_its_partitions() {
        let (left, right) = (Waiters::default(), Waiters::default());
        let fetch = Parked::new(20);
        assert!(left.park(&fetch) && right.park(&fetch));
        left.appended(Offset(1), 10, None, || Offset(1));
        assert!(!is_woken(&fetch));
        right.appended(Offset(1), 10, None, || Offset(1));
        assert!(is_woken(&fetch));
    }

    #[test]
    fn a_backlog_that_nobody_waits_for_stays_small_and_wakes_all_the_same() {
        let waiters = Waiters::default();
        let fetch = Parked::new(1_000_000);
        assert!(waiters.park(&fetch));
        for end in 1..=1_000_000 {
            waiters.appended(Offset(end), 100, None, || Offset(0));
        }
        let entries = waiters.inner.lock().appended.len();
        assert!(
            entries < ENTRIES_MAX + 1_000_000 * 100 / (1 << 20) + 2,
            "{entries} entries"
        );
        waiters.high_watermark_moved(Offset(4096));
        assert!(!is_woken(&fetch));
        waiters.high_watermark_moved(Offset(1_000_000));
        assert!(is_woken(&fetch));
    }

    #[test]
    fn a_fetch_that_left_is_not_kept() {
        let waiters = Waiters::default();
        let fetch = Parked::new(1);
        assert!(waiters.park(&fetch));
        waiters.leave(&fetch);
        assert_eq!(Arc::strong_count(&fetch), 1);
    }

    #[test]
    fn a_failure_tells_everybody_who_waits_and_everybody_who_comes_later() {
        let (waiters, gate) = (Waiters::default(), Gate::default());
        let mut durable = producer(&waiters, &gate, 10);
        let mut lost = producer(&waiters, &gate, 20);
        let fetch = Parked::new(1000);
        assert!(waiters.park(&fetch));
        waiters.high_watermark_moved(Offset(10));
        waiters.failed();
        assert_eq!(durable.try_recv(), Ok(Outcome::Durable));
        assert_eq!(lost.try_recv(), Ok(Outcome::Failed));
        assert!(is_woken(&fetch));
        assert!(!waiters.park(&Parked::new(1)));
        let mut late = producer(&waiters, &gate, 30);
        assert_eq!(late.try_recv(), Ok(Outcome::Failed));
        waiters.end(Outcome::Deleted, Offset(10));
        waiters.failed();
        assert!(waiters.is_deleted());
        assert_eq!(gate.in_progress(), 0);
    }
}
