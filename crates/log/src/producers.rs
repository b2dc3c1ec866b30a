//! What a partition remembers of its idempotent producers.
//!
//! Kafka's rules: the last five batches of each producer, so that a retry is answered with the
//! offset that it got the first time; an older epoch is fenced; a new epoch starts at sequence 0; a
//! gap is out of sequence; a producer that is not known may start anywhere, because its state may
//! have expired.

use std::collections::HashMap;

use sapwood_model::{Offset, ProducerEpoch, ProducerId, Timestamp};
use sapwood_record::{Header, ProducerStamp};

use crate::framed::{self, FramedError, Kind};

/// How many of a producer's batches a retry is recognised in. Clients keep at most this many in
/// flight.
const BATCHES_KEPT: usize = 5;

/// A client may make up producer ids. Above this many in one partition the ones that were silent for
/// longest are forgotten, as if they had expired.
const PRODUCERS_MAX: usize = 16_384;

/// How many are forgotten at once, so that finding them costs little for each append.
const PRODUCERS_FORGOTTEN: usize = PRODUCERS_MAX / 8;

/// `.snapshot` files and the producers in a checkpoint.
const KIND: Kind = Kind {
    magic: *b"SWps",
    version: 1,
};

/// One producer of a partition, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerState {
    /// The producer.
    pub id: ProducerId,
    /// Its newest epoch here.
    pub epoch: ProducerEpoch,
    /// The sequence number of its last record (inclusive).
    pub last_sequence: i32,
    /// The offset of its last record (inclusive).
    pub last_offset: Offset,
    /// The broker's clock when its last batch was appended.
    pub last_append: Timestamp,
}

/// What an append of a producer's batch means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sequenced {
    /// It comes next.
    Next,
    /// It was appended before, at these offsets (both inclusive).
    Duplicate {
        base_offset: Offset,
        last_offset: Offset,
    },
}

/// Why a producer's batch cannot be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// A newer instance of the producer has appended.
    Fenced { current: ProducerEpoch },
    /// Batches before this one are missing, or it is an old one.
    OutOfSequence { expected: i32 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Appended {
    base_sequence: i32,
    last_sequence: i32,
    base_offset: Offset,
    last_offset: Offset,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Producer {
    epoch: ProducerEpoch,
    last_append: Timestamp,
    /// Oldest first; 1 to [`BATCHES_KEPT`].
    batches: Vec<Appended>,
}

/// The producers of one partition. At most [`PRODUCERS_MAX`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ProducerTable(HashMap<ProducerId, Producer>);

impl ProducerTable {
    /// What appending a batch with this stamp would mean. Changes nothing.
    pub(crate) fn check(&self, stamp: &ProducerStamp) -> Result<Sequenced, Refused> {
        let Some(producer) = self.0.get(&stamp.id) else {
            return Ok(Sequenced::Next);
        };
        if stamp.epoch < producer.epoch {
            return Err(Refused::Fenced {
                current: producer.epoch,
            });
        }
        if stamp.epoch > producer.epoch {
            return match stamp.base_sequence {
                0 => Ok(Sequenced::Next),
                _ => Err(Refused::OutOfSequence { expected: 0 }),
            };
        }
        let same = |batch: &&Appended| {
            batch.base_sequence == stamp.base_sequence && batch.last_sequence == stamp.last_sequence
        };
        if let Some(batch) = producer.batches.iter().rev().find(same) {
            return Ok(Sequenced::Duplicate {
                base_offset: batch.base_offset,
                last_offset: batch.last_offset,
            });
        }
        let expected = producer.next_sequence();
        if stamp.base_sequence == expected {
            Ok(Sequenced::Next)
        } else {
            Err(Refused::OutOfSequence { expected })
        }
    }

    /// Takes note of a batch as it was appended, whatever its sequence numbers are: the log has it.
    /// A batch without a producer changes nothing. `now` is the time of the append; recovery, which
    /// does not know it, gives its own.
    pub(crate) fn apply(&mut self, header: &Header, now: Timestamp) {
        let Some(stamp) = header.producer() else {
            return;
        };
        if !self.0.contains_key(&stamp.id) && self.0.len() >= PRODUCERS_MAX {
            self.forget_silent();
        }
        let producer = self.0.entry(stamp.id).or_insert_with(|| Producer {
            epoch: stamp.epoch,
            last_append: now,
            batches: Vec::with_capacity(BATCHES_KEPT),
        });
        if producer.epoch != stamp.epoch {
            producer.epoch = stamp.epoch;
            producer.batches.clear();
        }
        if producer.batches.len() == BATCHES_KEPT {
            producer.batches.remove(0);
        }
        producer.last_append = now;
        producer.batches.push(Appended {
            base_sequence: stamp.base_sequence,
            last_sequence: stamp.last_sequence,
            base_offset: header.base_offset(),
            last_offset: header.last_offset(),
        });
    }

    /// Forgets producers that appended nothing for `expiration_ms`, and says how many.
    pub(crate) fn expire(&mut self, now: Timestamp, expiration_ms: u64) -> usize {
        let before = self.0.len();
        let silent_since = now.0.saturating_sub_unsigned(expiration_ms);
        self.0
            .retain(|_, producer| producer.last_append.0 > silent_since);
        before - self.0.len()
    }

    /// How many producers there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Every producer, by id.
    pub(crate) fn states(&self) -> Vec<ProducerState> {
        let mut states: Vec<ProducerState> = self
            .0
            .iter()
            .map(|(id, producer)| {
                let last = producer.last();
                ProducerState {
                    id: *id,
                    epoch: producer.epoch,
                    last_sequence: last.last_sequence,
                    last_offset: last.last_offset,
                    last_append: producer.last_append,
                }
            })
            .collect();
        states.sort_unstable_by_key(|state| state.id.0);
        states
    }

    /// The table as the bytes of a `.snapshot` file, by id. See docs/format.md.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut producers: Vec<(&ProducerId, &Producer)> = self.0.iter().collect();
        producers.sort_unstable_by_key(|(id, _)| id.0);
        let mut payload = Vec::new();
        for (id, producer) in producers {
            payload.extend_from_slice(&id.0.to_be_bytes());
            payload.extend_from_slice(&producer.epoch.0.to_be_bytes());
            payload.extend_from_slice(&producer.last_append.0.to_be_bytes());
            payload.push(u8::try_from(producer.batches.len()).expect("at most five batches"));
            for batch in &producer.batches {
                payload.extend_from_slice(&batch.base_sequence.to_be_bytes());
                payload.extend_from_slice(&batch.last_sequence.to_be_bytes());
                payload.extend_from_slice(&batch.base_offset.0.to_be_bytes());
                payload.extend_from_slice(&batch.last_offset.0.to_be_bytes());
            }
        }
        framed::encode(KIND, &payload)
    }

    /// Reads what [`ProducerTable::encode`] wrote.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FramedError> {
        let mut payload = framed::decode(KIND, bytes)?;
        let mut producers = HashMap::new();
        while !payload.is_empty() {
            let (id, producer) = decode_producer(&mut payload)
                .ok_or(FramedError::Damaged("a producer's entry is not whole"))?;
            if producers.insert(id, producer).is_some() {
                return Err(FramedError::Damaged("a producer is listed twice"));
            }
        }
        Ok(Self(producers))
    }

    fn forget_silent(&mut self) {
        let mut by_age: Vec<(Timestamp, ProducerId)> = self
            .0
            .iter()
            .map(|(id, producer)| (producer.last_append, *id))
            .collect();
        by_age.select_nth_unstable_by_key(PRODUCERS_FORGOTTEN, |(age, id)| (*age, id.0));
        for (_, id) in &by_age[..PRODUCERS_FORGOTTEN] {
            self.0.remove(id);
        }
    }
}

impl Producer {
    fn last(&self) -> &Appended {
        self.batches
            .last()
            .expect("a producer is made with its first batch")
    }

    /// After `i32::MAX` comes 0.
    fn next_sequence(&self) -> i32 {
        self.last().last_sequence.checked_add(1).unwrap_or(0)
    }
}

fn decode_producer(payload: &mut &[u8]) -> Option<(ProducerId, Producer)> {
    let id = ProducerId(u64::from_be_bytes(take(payload)?));
    let epoch = ProducerEpoch(u16::from_be_bytes(take(payload)?));
    let last_append = Timestamp(i64::from_be_bytes(take(payload)?));
    let [count] = take(payload)?;
    if !(1..=BATCHES_KEPT).contains(&usize::from(count)) {
        return None;
    }
    let mut batches = Vec::with_capacity(BATCHES_KEPT);
    for _ in 0..count {
        batches.push(Appended {
            base_sequence: i32::from_be_bytes(take(payload)?),
            last_sequence: i32::from_be_bytes(take(payload)?),
            base_offset: Offset(u64::from_be_bytes(take(payload)?)),
            last_offset: Offset(u64::from_be_bytes(take(payload)?)),
        });
    }
    Some((
        id,
        Producer {
            epoch,
            last_append,
            batches,
        },
    ))
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use sapwood_record::{Batch, BatchBuilder, Codec, RecordInput};

    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn stamp(id: u64, epoch: u16, base: i32, last: i32) -> ProducerStamp {
        ProducerStamp {
            id: ProducerId(id),
            epoch: ProducerEpoch(epoch),
            base_sequence: base,
            last_sequence: last,
        }
    }

    fn batch(id: u64, epoch: u16, base_sequence: i32, records: u32, base_offset: u64) -> Batch {
        let stamp = stamp(id, epoch, base_sequence, base_sequence);
        let mut builder = BatchBuilder::new(Codec::None).with_producer(stamp);
        for _ in 0..records {
            let record = RecordInput {
                timestamp: NOW,
                key: None,
                value: None,
                headers: &[],
            };
            builder.push(record).unwrap();
        }
        let mut batch = builder.build().unwrap();
        batch.header_mut().set_base_offset(Offset(base_offset));
        batch
    }

    fn table(batches: &[(u64, u16, i32, u32, u64)]) -> ProducerTable {
        let mut table = ProducerTable::default();
        for &(id, epoch, sequence, records, offset) in batches {
            table.apply(batch(id, epoch, sequence, records, offset).header(), NOW);
        }
        table
    }

    #[test]
    fn a_retry_of_one_of_the_last_five_batches_gets_its_first_offsets() {
        let table = table(&[
            (7, 0, 0, 2, 100),
            (7, 0, 2, 2, 102),
            (7, 0, 4, 2, 104),
            (7, 0, 6, 2, 106),
            (7, 0, 8, 2, 108),
            (7, 0, 10, 2, 110),
        ]);
        for (sequence, offset) in [(2, 102), (6, 106), (10, 110)] {
            assert_eq!(
                table.check(&stamp(7, 0, sequence, sequence + 1)),
                Ok(Sequenced::Duplicate {
                    base_offset: Offset(offset),
                    last_offset: Offset(offset + 1)
                })
            );
        }
        // The sixth last is not known any more, and not a part of one either.
        let refused = Err(Refused::OutOfSequence { expected: 12 });
        assert_eq!(table.check(&stamp(7, 0, 0, 1)), refused);
        assert_eq!(table.check(&stamp(7, 0, 10, 10)), refused);
    }

    #[test]
    fn a_gap_is_out_of_sequence_and_the_next_is_not() {
        let table = table(&[(7, 0, 0, 3, 0)]);
        assert_eq!(table.check(&stamp(7, 0, 3, 3)), Ok(Sequenced::Next));
        let refused = Err(Refused::OutOfSequence { expected: 3 });
        assert_eq!(table.check(&stamp(7, 0, 4, 4)), refused);
    }

    #[test]
    fn sequences_go_on_at_zero_after_the_largest() {
        let table = table(&[(7, 0, i32::MAX - 1, 2, 0)]);
        assert_eq!(table.check(&stamp(7, 0, 0, 5)), Ok(Sequenced::Next));
        let refused = Err(Refused::OutOfSequence { expected: 0 });
        assert_eq!(table.check(&stamp(7, 0, 1, 5)), refused);
    }

    #[test]
    fn an_older_epoch_is_fenced_and_a_newer_one_starts_at_zero() {
        let table = table(&[(7, 3, 0, 1, 0), (7, 3, 1, 1, 1)]);
        let fenced = Err(Refused::Fenced {
            current: ProducerEpoch(3),
        });
        assert_eq!(table.check(&stamp(7, 2, 2, 2)), fenced);
        assert_eq!(table.check(&stamp(7, 4, 0, 0)), Ok(Sequenced::Next));
        let refused = Err(Refused::OutOfSequence { expected: 0 });
        assert_eq!(table.check(&stamp(7, 4, 2, 2)), refused);
    }

    #[test]
    fn a_new_epoch_forgets_the_batches_of_the_old_one() {
        let table = table(&[(7, 0, 0, 1, 0), (7, 1, 0, 1, 1)]);
        let Ok(Sequenced::Duplicate { base_offset, .. }) = table.check(&stamp(7, 1, 0, 0)) else {
            panic!("the batch of the new epoch is known");
        };
        assert_eq!(base_offset, Offset(1));
    }

    #[test]
    fn an_unknown_producer_may_start_anywhere() {
        let table = table(&[(7, 0, 0, 1, 0)]);
        assert_eq!(table.check(&stamp(8, 5, 1234, 1234)), Ok(Sequenced::Next));
    }

    #[test]
    fn silent_producers_expire() {
        let mut table = table(&[(7, 0, 0, 1, 0), (8, 0, 0, 1, 1)]);
        table.apply(batch(8, 0, 1, 1, 2).header(), Timestamp(NOW.0 + 500));
        assert_eq!(table.expire(Timestamp(NOW.0 + 1000), 1000), 1);
        assert_eq!(
            table.states().iter().map(|s| s.id.0).collect::<Vec<_>>(),
            [8]
        );
    }

    #[test]
    fn made_up_producers_do_not_fill_the_memory() {
        let mut table = ProducerTable::default();
        for id in 0..PRODUCERS_MAX as u64 + 10 {
            table.apply(
                batch(id, 0, 0, 1, id).header(),
                Timestamp(NOW.0 + id as i64),
            );
        }
        assert!(table.len() <= PRODUCERS_MAX);
        assert!(
            table.0.contains_key(&ProducerId(PRODUCERS_MAX as u64 + 9)),
            "the newest stay"
        );
        assert!(
            !table.0.contains_key(&ProducerId(0)),
            "the most silent one goes"
        );
    }

    #[test]
    fn snapshots_round_trip_and_damage_is_noticed() {
        let table = table(&[(7, 3, 0, 2, 10), (7, 3, 2, 2, 12), (9, 0, 5, 1, 14)]);
        let bytes = table.encode();
        assert_eq!(ProducerTable::decode(&bytes).unwrap(), table);
        for cut in 0..bytes.len() {
            assert!(ProducerTable::decode(&bytes[..cut]).is_err(), "{cut}");
        }
        let cut_entry = framed::encode(KIND, &framed::decode(KIND, &bytes).unwrap()[1..]);
        assert!(ProducerTable::decode(&cut_entry).is_err());
    }
}
