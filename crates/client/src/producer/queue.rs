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
//! - A batch whose time is over fails, but if it was ever sent it stays, without an owner, and is sent
//!   again until it is known what became of it: it may have been written, and those behind it follow
//!   it only if it was.
//! - When a batch was refused for good, those behind it take its numbers if no request with one of
//!   their old numbers can still reach the broker (on a connection that broke, one may). Otherwise
//!   they keep their numbers, and the first of them is refused as out of sequence.
//! - A first batch that is out of sequence was not written, nor was any behind it, nor will a stray
//!   request for one of them be: the numbers before it are missing for good. They begin at 0 with the
//!   next epoch, which the broker allows at any time. It only concerns this partition.

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
struct Batch {
    correlation: u64,
    bytes: Bytes,
    records: u32,
    /// When it fails.
    deadline: Instant,
    /// `None` once it has failed.
    owner: Option<Owner>,
    base_sequence: u32,
    /// Sent on the present connection and not answered.
    sent: bool,
    /// It may have been written.
    doubtful: bool,
    /// It was on its way when a connection broke: a request with its number may still arrive.
    stray: bool,
}

/// Who waits for a batch.
#[derive(Debug)]
pub(super) struct Owner {
    /// The lane's number for it.
    pub(super) number: u64,
    pub(super) held_bytes: usize,
    pub(super) settle: oneshot::Sender<Resolution>,
}

/// A batch as [`Queue::push`] takes it.
#[derive(Debug)]
pub(super) struct NewBatch {
    /// Chosen by the sending task, unique within the producer.
    pub(super) correlation: u64,
    pub(super) bytes: Bytes,
    pub(super) records: u32,
    pub(super) deadline: Instant,
    pub(super) owner: Owner,
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
    /// Requests of this connection without an answer.
    unanswered: usize,
    /// The first batch was out of sequence: begin a new epoch.
    new_epoch: bool,
    /// A batch that was not written is gone.
    gap: Option<Gap>,
    /// The last failure is one that a pause may cure.
    pause_due: bool,
    /// That failure, until a batch is written again.
    refusal: Option<Error>,
    backoff: Backoff,
}

/// Numbers that nobody uses.
#[derive(Debug, Clone, Copy)]
struct Gap {
    /// The first of them.
    sequence: u32,
    /// The index of the first batch behind them.
    behind: usize,
}

/// What an answer came to.
#[derive(Debug)]
pub(super) enum Answered {
    /// The batch has its result.
    Done(Owner, Resolution),
    /// The batch is sent again later, or nobody waits for it any more.
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
            gap: None,
            pause_due: false,
            refusal: None,
            backoff: Backoff::new(seed),
        }
    }

    /// True when nobody waits for anything.
    pub(super) fn is_settled(&self) -> bool {
        self.batches.iter().all(|batch| batch.owner.is_none())
    }

    /// When the next batch fails.
    pub(super) fn oldest_deadline(&self) -> Option<Instant> {
        let owned = self.batches.iter().filter(|batch| batch.owner.is_some());
        owned.map(|batch| batch.deadline).min()
    }

    /// True when one more batch may be sealed and sent.
    pub(super) fn has_room(&self) -> bool {
        !self.stalled && self.unanswered.max(self.batches.len()) < self.window()
    }

    fn window(&self) -> usize {
        if self.confirmed { IN_FLIGHT_MAX } else { 1 }
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
            bytes: new.bytes,
            records: new.records,
            deadline: new.deadline,
            owner: Some(new.owner),
            base_sequence,
            sent: false,
            doubtful: false,
            stray: false,
        });
    }

    /// The next batch to send now, marked as sent.
    pub(super) fn next_to_send(&mut self) -> Option<(u64, Bytes)> {
        if self.stalled || self.unanswered >= self.window() {
            return None;
        }
        let batch = self.batches.iter_mut().find(|batch| !batch.sent)?;
        batch.sent = true;
        batch.doubtful = true;
        self.unanswered += 1;
        Some((batch.correlation, batch.bytes.clone()))
    }

    /// Takes the batch out: with `acks=0` it is done once it is handed over.
    pub(super) fn hand_over(&mut self, correlation: u64) -> Option<Owner> {
        self.unanswered -= 1;
        self.confirmed = true;
        let index = self.index_of(correlation)?;
        self.remove(index).owner
    }

    /// The broker answered a request of this connection.
    pub(super) fn answered(&mut self, correlation: u64, answer: Result<Offset, Error>) -> Answered {
        self.unanswered -= 1;
        // Batches that are not certain stay, so it is there; a broker's answer is not relied on.
        let Some(index) = self.index_of(correlation) else {
            return Answered::Kept;
        };
        let error = match answer {
            Ok(base_offset) => {
                self.confirmed |= !self.stalled;
                self.backoff.reset();
                self.refusal = None;
                return done(self.remove(index), Ok(Some(base_offset)));
            }
            Err(error) => error,
        };
        let follows_failure = self.stalled;
        self.stall();
        let batch = &mut self.batches[index];
        batch.sent = false;
        batch.doubtful &= batch.stray || !is_definite(error.code());
        if error.code() == Code::OutOfSequence && self.producer.is_some() {
            if follows_failure {
                // The batch before it failed. It follows later.
                return Answered::Kept;
            }
            if index == 0 && batch.base_sequence != 0 {
                // A batch before it was refused, or the broker has lost what it acknowledged (a topic
                // with durability=os after a power cut).
                self.new_epoch = true;
                return Answered::Kept;
            }
        }
        if error.is_retriable() {
            self.pause_due = true;
            self.refusal = Some(error);
            return Answered::Kept;
        }
        done(self.give_up(index), Err(error))
    }

    /// Why batches are sent again and again, if the broker has refused the last one.
    pub(super) fn refusal(&self) -> Option<&Error> {
        self.refusal.as_ref()
    }

    /// The connection is gone: nothing on it will be answered.
    pub(super) fn disconnected(&mut self) {
        self.unanswered = 0;
        for batch in &mut self.batches {
            batch.stray |= batch.sent;
            batch.sent = false;
        }
        self.stall();
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
    pub(super) fn resume(&mut self) -> Vec<(Owner, Error)> {
        if !self.is_settled_after_failure() {
            return Vec::new();
        }
        self.stalled = false;
        self.confirmed = false;
        let gap = self.gap.take();
        if std::mem::take(&mut self.new_epoch) {
            return self.begin_epoch();
        }
        if let Some(Gap { sequence, behind }) = gap {
            let mut followers = self.batches.iter().skip(behind);
            if followers.all(|batch| !batch.doubtful && !batch.stray) {
                self.renumber(behind, sequence);
            }
        }
        Vec::new()
    }

    fn begin_epoch(&mut self) -> Vec<(Owner, Error)> {
        if let Some((_, epoch)) = &mut self.producer {
            if epoch.0 >= i16::MAX.unsigned_abs() {
                let message = "the producer has used up its epochs; make a new one";
                let error = Error::local(Code::ProducerFenced, message);
                let owners = self.drain().into_iter();
                return owners.map(|owner| (owner, error.clone())).collect();
            }
            epoch.0 += 1;
        }
        for batch in &mut self.batches {
            (batch.doubtful, batch.stray) = (false, false);
        }
        self.renumber(0, 0);
        Vec::new()
    }

    /// Fails what is older than its deadline. What may have been written stays without an owner; there
    /// are at most [`IN_FLIGHT_MAX`] such batches.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Owner> {
        let mut failed = Vec::new();
        let mut index = 0;
        while let Some(batch) = self.batches.get_mut(index) {
            if batch.deadline > now {
                index += 1;
            } else if batch.doubtful || batch.stray {
                failed.extend(batch.owner.take());
                index += 1;
            } else {
                failed.extend(self.give_up(index).owner);
            }
        }
        failed
    }

    /// Everybody who waits, for a producer that ends.
    pub(super) fn drain(&mut self) -> Vec<Owner> {
        self.batches
            .drain(..)
            .filter_map(|batch| batch.owner)
            .collect()
    }

    fn stall(&mut self) {
        self.stalled = true;
        self.confirmed = false;
    }

    /// Removes a batch that will not be sent again.
    fn give_up(&mut self, index: usize) -> Batch {
        let batch = self.remove(index);
        if !batch.doubtful && !batch.stray {
            // Batches may be given up in any order; the numbers are free from the first one on.
            if self.gap.is_none_or(|gap| index < gap.behind) {
                self.gap = Some(Gap {
                    sequence: batch.base_sequence,
                    behind: index,
                });
            }
            self.stall();
        }
        batch
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

    fn index_of(&self, correlation: u64) -> Option<usize> {
        self.batches
            .iter()
            .position(|batch| batch.correlation == correlation)
    }

    fn remove(&mut self, index: usize) -> Batch {
        if let Some(gap) = &mut self.gap
            && index < gap.behind
        {
            gap.behind -= 1;
        }
        self.batches
            .remove(index)
            .expect("the caller found the batch at this index")
    }
}

fn done(batch: Batch, resolution: Resolution) -> Answered {
    match batch.owner {
        Some(owner) => Answered::Done(owner, resolution),
        None => Answered::Kept,
    }
}

/// Refused before anything was appended.
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
            | Code::StorageFull
            | Code::Overloaded
            | Code::TooFewDescriptors
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
