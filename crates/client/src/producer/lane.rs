//! One partition's records on their way to the sending task.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use sapwood_model::{Code, PartitionId, Timestamp};
use sapwood_record::{BatchBuilder, BatchError, Codec, RecordInput};
use tokio::{sync::oneshot, time::Instant};

use super::receipt::{Outcome, Receipt, Resolution};
use crate::{Error, Record};

/// The buffer of one partition: `send` pushes into it, the sending task takes batches out.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) topic: Arc<str>,
    pub(super) partition: u32,
    /// Its place in the producer's list of lanes.
    pub(super) slot: usize,
    buffer: Mutex<Buffer>,
}

#[derive(Debug, Default)]
struct Buffer {
    /// Full batches, or ones that shall not wait, the oldest first.
    full: VecDeque<Gathered>,
    /// Takes records.
    open: Option<Gathered>,
    /// Results of all batches that have none yet, the oldest first, with the batches' numbers.
    unresolved: VecDeque<(u64, Outcome)>,
    next_number: u64,
}

/// Records that will be one batch.
#[derive(Debug)]
pub(super) struct Gathered {
    /// Counts this lane's batches.
    pub(super) number: u64,
    pub(super) builder: BatchBuilder,
    /// When its first record came.
    pub(super) opened: Instant,
    /// Bytes of the producer's buffer that it holds.
    pub(super) held_bytes: usize,
    pub(super) settle: oneshot::Sender<Resolution>,
    outcome: Outcome,
}

/// What pushing a record did.
pub(super) struct Pushed {
    pub(super) receipt: Receipt,
    /// A batch was begun or became full: the sending task has something to do.
    pub(super) wake: bool,
}

/// How a lane makes batches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) codec: Codec,
    pub(super) batch_bytes: usize,
}

impl Lane {
    pub(super) fn new(topic: Arc<str>, partition: u32, slot: usize) -> Self {
        Self {
            topic,
            partition,
            slot,
            buffer: Mutex::default(),
        }
    }

    /// Adds a record, which holds `held_bytes` of the producer's buffer.
    pub(super) fn push(
        &self,
        record: &Record,
        time: Timestamp,
        held_bytes: usize,
        shape: Shape,
    ) -> Result<Pushed, Error> {
        let input = RecordInput {
            timestamp: record.timestamp.unwrap_or(time),
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &record.headers,
        };
        let mut buffer = self.buffer.lock();
        let fits =
            |batch: &Gathered| batch.builder.uncompressed_bytes_with(&input) <= shape.batch_bytes;
        if buffer.open.as_ref().is_some_and(|batch| !fits(batch)) {
            let batch = buffer.open.take();
            buffer.full.extend(batch);
        }
        let mut wake = false;
        let mut batch = buffer.open.take().unwrap_or_else(|| {
            wake = true;
            Gathered::new(buffer.next_number, shape.codec)
        });
        let pushed = batch.builder.push(input);
        if batch.builder.records_count() == 0 {
            return Err(refused(pushed.err(), self));
        }
        if wake {
            buffer.next_number += 1;
            buffer
                .unresolved
                .push_back((batch.number, batch.outcome.clone()));
        }
        let answer = pushed
            .map_err(|error| refused(Some(error), self))
            .map(|()| {
                batch.held_bytes += held_bytes;
                Receipt {
                    outcome: batch.outcome.clone(),
                    partition: PartitionId(self.partition),
                    index: batch.builder.records_count() - 1,
                }
            });
        if batch.builder.uncompressed_bytes() >= shape.batch_bytes {
            buffer.full.push_back(batch);
            wake = true;
        } else {
            buffer.open = Some(batch);
        }
        // A batch that made way above needs no wake of its own: the new one's comes with it.
        answer.map(|receipt| Pushed { receipt, wake })
    }

    /// The next batch to send: a full one, or the open one if it was begun before `opened_before`.
    pub(super) fn take(&self, opened_before: Instant) -> Option<Gathered> {
        let mut buffer = self.buffer.lock();
        if let Some(batch) = buffer.full.pop_front() {
            return Some(batch);
        }
        buffer.open.take_if(|batch| batch.opened <= opened_before)
    }

    /// When the oldest batch was begun, if there is one.
    pub(super) fn opened(&self) -> Option<Instant> {
        let buffer = self.buffer.lock();
        let oldest = buffer.full.front().or(buffer.open.as_ref());
        oldest.map(|batch| batch.opened)
    }

    /// Lets the open batch wait no longer. Returns the results of all batches that have none yet.
    pub(super) fn flush(&self) -> Vec<Outcome> {
        let mut buffer = self.buffer.lock();
        let batch = buffer.open.take();
        buffer.full.extend(batch);
        buffer
            .unresolved
            .iter()
            .map(|(_, outcome)| outcome.clone())
            .collect()
    }

    /// The batch has its result.
    pub(super) fn resolved(&self, number: u64) {
        self.buffer
            .lock()
            .unresolved
            .retain(|(unresolved, _)| *unresolved != number);
    }
}

impl Gathered {
    fn new(number: u64, codec: Codec) -> Self {
        let (settle, outcome) = Outcome::new();
        Self {
            number,
            builder: BatchBuilder::new(codec),
            opened: Instant::now(),
            held_bytes: 0,
            settle,
            outcome,
        }
    }
}

/// The builder's reason as an error of this lane.
fn refused(error: Option<BatchError>, lane: &Lane) -> Error {
    let error = match error {
        Some(error) => Error::local(error.code(), error.to_string()),
        None => Error::local(Code::Internal, "a batch without records"),
    };
    error.about(&lane.topic, lane.partition)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        codec: Codec::None,
        batch_bytes: 200,
    };

    fn push(lane: &Lane, value: &'static str) -> Pushed {
        let record = Record::to("t").value(value);
        lane.push(&record, Timestamp(5), 10, SHAPE).unwrap()
    }

    fn lane() -> Lane {
        Lane::new("t".into(), 3, 0)
    }

    #[tokio::test]
    async fn the_first_record_of_a_batch_and_the_one_that_fills_it_wake_the_sender() {
        let lane = lane();
        let wakes: Vec<bool> = (0..30).map(|_| push(&lane, "0123456789").wake).collect();
        assert!(wakes[0] && !wakes[1]);
        let now = Instant::now();
        let mut taken = 0;
        while let Some(batch) = lane.take(now) {
            assert!(batch.builder.uncompressed_bytes() <= 200);
            assert_eq!(
                batch.held_bytes,
                10 * batch.builder.records_count() as usize
            );
            taken += batch.builder.records_count();
        }
        assert_eq!(taken, 30);
    }

    #[tokio::test]
    async fn an_open_batch_is_taken_only_when_it_has_waited_or_is_flushed() {
        let lane = lane();
        let before = Instant::now() - std::time::Duration::from_secs(1);
        push(&lane, "a");
        assert!(lane.take(before).is_none());
        assert_eq!(lane.flush().len(), 1);
        let batch = lane.take(before).expect("flushed");
        lane.resolved(batch.number);
        assert!(lane.flush().is_empty());
    }

    #[tokio::test]
    async fn receipts_name_the_offset_of_their_record() {
        let lane = lane();
        let first = push(&lane, "a").receipt;
        let second = push(&lane, "b").receipt;
        let batch = lane.take(Instant::now()).unwrap();
        batch
            .settle
            .send(Ok(Some(sapwood_model::Offset(40))))
            .unwrap();
        assert_eq!(second.await.unwrap().offset.unwrap().0, 41);
        assert_eq!(first.await.unwrap().offset.unwrap().0, 40);
    }

    #[tokio::test]
    async fn a_record_larger_than_a_batch_is_a_batch_of_its_own() {
        let lane = lane();
        push(&lane, "a");
        let large = Record::to("t").value(vec![0u8; 1000]);
        assert!(lane.push(&large, Timestamp(5), 1000, SHAPE).unwrap().wake);
        push(&lane, "b");
        let counts: Vec<u32> = std::iter::from_fn(|| lane.take(Instant::now()))
            .map(|batch| batch.builder.records_count())
            .collect();
        assert_eq!(counts, [1, 1, 1]);
    }

    #[tokio::test]
    async fn a_refused_record_leaves_the_batch_as_it_was() {
        let lane = lane();
        let mut bad = Record::to("t").value("x");
        bad.headers.push(sapwood_record::RecordHeader {
            key: bytes::Bytes::from_static(&[0xff]),
            value: None,
        });
        assert!(lane.push(&bad, Timestamp(5), 10, SHAPE).is_err());
        assert!(lane.flush().is_empty());
        push(&lane, "a");
        assert!(lane.push(&bad, Timestamp(5), 10, SHAPE).is_err());
        let batch = lane.take(Instant::now()).unwrap();
        assert_eq!((batch.builder.records_count(), batch.held_bytes), (1, 10));
    }
}
