//! One partition's batches on their way to the broker: numbered, sent, answered, sent again.
//! Decides only; the sending task does the I/O.
//!
//! The broker recognises a batch by its sequence numbers as long as it is one of the last five of its
//! producer, and refuses one that does not follow the batch before it. Hence the rules here:
//!
//! - At most [`IN_FLIGHT_MAX`] batches are unanswered, so each that is sent again is recognised.
//! - After a new connection or a failure the first batch goes alone until it is written. A broker
//!   that does not know the producer (its state expired, or this is its first batch) takes any
//!   sequence number: if the first were refused and the second taken, the first could never follow.
//! - After a failure nothing is sent until everything unanswered is answered. What was refused is
//!   then sent again in the old order.
//! - When a batch is given up, those behind it close the gap. If it is certain that it was not
//!   written they take its numbers; otherwise they begin at 0 with the next epoch, which the broker
//!   allows at any time, and which only concerns this partition.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use sapwood_model::{Code, Offset, ProducerEpoch, ProducerId};
use sapwood_record::ProducerStamp;
use tokio::{sync::oneshot, time::Instant};

use super::receipt::Resolution;
use crate::{Error, connection::Backoff};

/// The broker remembers the last 5 batches of a producer.
pub(super) const IN_FLIGHT_MAX: usize = 5;

/// A batch that is not yet written, or not known to be.
#[derive(Debug)]
pub(super) struct Batch {
    /// Chosen by the sending task, unique within the producer.
    pub(super) correlation: u64,
    /// The lane's number for it.
    pub(super) number: u64,
    pub(super) bytes: Bytes,
    pub(super) records: u32,
    pub(super) held_bytes: usize,
    /// When it is given up.
    pub(super) deadline: Instant,
    pub(super) settle: oneshot::Sender<Resolution>,
    base_sequence: u32,
    /// Sent on the present connection and not answered.
    sent: bool,
    /// Was ever sent without a definite answer: it may have been written.
    doubtful: bool,
}

/// The batches of one partition, oldest first.
#[derive(Debug)]
pub(super) struct Queue {
    batches: VecDeque<Batch>,
    /// `None` for a producer that is not idempotent.
    producer: Option<(ProducerId, ProducerEpoch)>,
    next_sequence: u32,
    /// A batch was written since the connection was made and since the last failure.
    confirmed: bool,
    /// Something was refused: nothing is sent until `unanswered` is 0 and the pause is over.
    stalled: bool,
    /// Requests of this connection without an answer, given-up ones included.
    unanswered: usize,
    /// A batch that may have been written was given up: begin a new epoch.
    new_epoch: bool,
    /// The last failure is one that a pause may cure.
    pause_due: bool,
    backoff: Backoff,
}

/// What an answer came to.
#[derive(Debug)]
pub(super) enum Answered {
    /// This batch has its result.
    Done(Batch, Resolution),
    /// The batch stays and is sent again later, or was given up before.
    Kept,
}

impl Queue {
    pub(super) fn new(producer: Option<ProducerId>, seed: u64) -> Self {
        Self {
            batches: VecDeque::new(),
            producer: producer.map(|id| (id, ProducerEpoch(0))),
            next_sequence: 0,
            confirmed: false,
            stalled: false,
            unanswered: 0,
            new_epoch: false,
            pause_due: false,
            backoff: Backoff::new(seed),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// When the next batch is given up.
    pub(super) fn oldest_deadline(&self) -> Option<Instant> {
        self.batches.iter().map(|batch| batch.deadline).min()
    }

    /// True when one more batch may be sealed and sent.
    pub(super) fn has_room(&self) -> bool {
        let window = if self.confirmed { IN_FLIGHT_MAX } else { 1 };
        !self.stalled && self.unanswered.max(self.batches.len()) < window
    }

    /// The stamp of the next batch, of `records` records.
    pub(super) fn stamp(&self, records: u32) -> Option<ProducerStamp> {
        stamp(self.producer, self.next_sequence, records)
    }

    /// Adds a batch that was built with [`Queue::stamp`].
    pub(super) fn push(&mut self, new: NewBatch) {
        let base_sequence = self.next_sequence;
        self.next_sequence = sequence_after(base_sequence, new.records);
        self.batches.push_back(Batch {
            correlation: new.correlation,
            number: new.number,
            bytes: new.bytes,
            records: new.records,
            held_bytes: new.held_bytes,
            deadline: new.deadline,
            settle: new.settle,
            base_sequence,
            sent: false,
            doubtful: false,
        });
    }

    /// The next batch to send now, marked as sent.
    pub(super) fn next_to_send(&mut self) -> Option<(u64, Bytes)> {
        let window = if self.confirmed { IN_FLIGHT_MAX } else { 1 };
        if self.stalled || self.unanswered >= window {
            return None;
        }
        let batch = self.batches.iter_mut().find(|batch| !batch.sent)?;
        batch.sent = true;
        batch.doubtful = true;
        self.unanswered += 1;
        Some((batch.correlation, batch.bytes.clone()))
    }

    /// Takes the batch out: with `acks=0` it is done once it is handed over.
    pub(super) fn hand_over(&mut self, correlation: u64) -> Option<Batch> {
        self.unanswered -= 1;
        self.confirmed = true;
        self.remove(correlation)
    }

    /// The broker answered a request of this connection.
    pub(super) fn answered(&mut self, correlation: u64, answer: Result<Offset, Error>) -> Answered {
        self.unanswered -= 1;
        let Some(index) = self
            .batches
            .iter()
            .position(|b| b.correlation == correlation)
        else {
            // It was given up; the new epoch settles what it leaves.
            return Answered::Kept;
        };
        let error = match answer {
            Ok(base_offset) => {
                self.confirmed |= !self.stalled;
                self.backoff.reset();
                return match self.remove(correlation) {
                    Some(batch) => Answered::Done(batch, Ok(Some(base_offset))),
                    None => Answered::Kept,
                };
            }
            Err(error) => error,
        };
        let out_of_sequence = error.code() == Code::OutOfSequence && self.producer.is_some();
        let follows_failure = self.stalled;
        let batch = &mut self.batches[index];
        batch.sent = false;
        if out_of_sequence && (follows_failure || batch.base_sequence != 0) {
            // Not written, for certain. Behind a failure it follows from that one. Otherwise it says
            // that the broker has lost what it acknowledged before (a topic with durability=os after
            // a power cut): go on in a new epoch.
            batch.doubtful = false;
            self.new_epoch |= !follows_failure;
            self.stall();
            return Answered::Kept;
        }
        if error.is_retriable() {
            self.stall();
            self.pause_due = true;
            return Answered::Kept;
        }
        batch.doubtful = !is_definite(error.code());
        self.stall();
        match self.give_up(index) {
            Some(batch) => Answered::Done(batch, Err(error)),
            None => Answered::Kept,
        }
    }

    /// The connection is gone: nothing on it will be answered.
    pub(super) fn disconnected(&mut self) {
        self.unanswered = 0;
        for batch in &mut self.batches {
            batch.sent = false;
        }
        self.stalled = true;
        self.confirmed = false;
    }

    /// True when everything is answered after a failure: after [`Queue::pause`], call
    /// [`Queue::resume`].
    pub(super) fn is_settled_after_failure(&self) -> bool {
        self.stalled && self.unanswered == 0
    }

    /// How long to wait before the next try; nothing when the batch that failed is given up.
    pub(super) fn pause(&mut self) -> Duration {
        if std::mem::take(&mut self.pause_due) {
            self.backoff.next()
        } else {
            Duration::ZERO
        }
    }

    /// Sending goes on. Fails what cannot be numbered any more.
    pub(super) fn resume(&mut self) -> Vec<(Batch, Error)> {
        if !self.is_settled_after_failure() {
            return Vec::new();
        }
        self.stalled = false;
        self.confirmed = false;
        if self.new_epoch {
            self.new_epoch = false;
            if let Some((_, epoch)) = &mut self.producer {
                if epoch.0 >= i16::MAX as u16 {
                    let message = "the producer has used up its epochs; make a new one";
                    let error = Error::local(Code::ProducerFenced, message);
                    return self.batches.drain(..).map(|b| (b, error.clone())).collect();
                }
                epoch.0 += 1;
            }
            self.renumber(0, 0);
        }
        Vec::new()
    }

    /// Gives up what is older than its deadline.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Batch> {
        let mut expired = Vec::new();
        while let Some(index) = self.batches.iter().position(|batch| batch.deadline <= now) {
            expired.extend(self.give_up(index));
        }
        expired
    }

    /// Everything, for a producer that ends.
    pub(super) fn drain(&mut self) -> Vec<Batch> {
        self.batches.drain(..).collect()
    }

    fn stall(&mut self) {
        self.stalled = true;
        self.confirmed = false;
    }

    /// Removes a batch that gets no answer, or none that helps, and closes the gap it leaves.
    fn give_up(&mut self, index: usize) -> Option<Batch> {
        let batch = self.batches.remove(index)?;
        if batch.doubtful {
            self.new_epoch = true;
            self.stall();
        } else if !self.new_epoch {
            self.renumber(index, batch.base_sequence);
            // Those that were sent carry numbers that no longer hold: they are refused, then follow.
            if self.batches.iter().skip(index).any(|batch| batch.sent) {
                self.stall();
            }
        }
        Some(batch)
    }

    /// Numbers the batches from `index` on anew.
    fn renumber(&mut self, index: usize, first: u32) {
        let mut sequence = first;
        for batch in self.batches.iter_mut().skip(index) {
            batch.base_sequence = sequence;
            if let Some(stamp) = stamp(self.producer, sequence, batch.records) {
                batch.bytes = restamped(&batch.bytes, stamp);
            }
            sequence = sequence_after(sequence, batch.records);
        }
        self.next_sequence = sequence;
    }

    fn remove(&mut self, correlation: u64) -> Option<Batch> {
        let index = self
            .batches
            .iter()
            .position(|b| b.correlation == correlation)?;
        self.batches.remove(index)
    }
}

/// A batch as [`Queue::push`] takes it.
#[derive(Debug)]
pub(super) struct NewBatch {
    pub(super) correlation: u64,
    pub(super) number: u64,
    pub(super) bytes: Bytes,
    pub(super) records: u32,
    pub(super) held_bytes: usize,
    pub(super) deadline: Instant,
    pub(super) settle: oneshot::Sender<Resolution>,
}

/// Refused before anything was appended: its sequence numbers are free.
fn is_definite(code: Code) -> bool {
    matches!(
        code,
        Code::RecordTooLarge
            | Code::CorruptBatch
            | Code::InvalidRecord
            | Code::InvalidTimestamp
            | Code::InvalidArgument
            | Code::InvalidTopicName
            | Code::UnknownTopic
            | Code::UnknownPartition
            | Code::OutOfSequence
            | Code::ProducerFenced
    )
}

/// Sequence numbers are 31 bits and wrap to 0.
fn sequence_after(sequence: u32, records: u32) -> u32 {
    ((u64::from(sequence) + u64::from(records)) % (1 << 31)) as u32
}

fn stamp(
    producer: Option<(ProducerId, ProducerEpoch)>,
    base_sequence: u32,
    records: u32,
) -> Option<ProducerStamp> {
    let (id, epoch) = producer?;
    let last = sequence_after(base_sequence, records.saturating_sub(1));
    Some(ProducerStamp {
        id,
        epoch,
        base_sequence: base_sequence as i32,
        last_sequence: last as i32,
    })
}

/// A copy of a batch with another producer stamp: bytes 43 to 57, and the CRC at 17 over byte 21 to
/// the end.
fn restamped(bytes: &Bytes, stamp: ProducerStamp) -> Bytes {
    let mut copy = bytes.to_vec();
    copy[43..51].copy_from_slice(&stamp.id.0.to_be_bytes());
    copy[51..53].copy_from_slice(&stamp.epoch.0.to_be_bytes());
    copy[53..57].copy_from_slice(&stamp.base_sequence.to_be_bytes());
    let crc = sapwood_record::crc32c(&[&copy[21..]]);
    copy[17..21].copy_from_slice(&crc.to_be_bytes());
    copy.into()
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
