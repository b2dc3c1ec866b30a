//! What clients send: batches of idempotent producers and others, retries, and what has to be refused.

use sapwood_log::AppendOptions;
use sapwood_log::io::Clock;
use sapwood_model::{Offset, ProducerEpoch, ProducerId, Timestamp};
use sapwood_record::{Batch, BatchBuilder, Codec, ProducerStamp, RecordInput};
use sapwood_sim::Rng;

use crate::model::{Key, LogBatch, PRODUCERS, PartitionModel};
use crate::records::Verdict;
use crate::world::{Outcome, World};

/// Who sends a batch, and with which sequence number it begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sender {
    id: ProducerId,
    epoch: ProducerEpoch,
    base_sequence: i32,
}

pub(crate) fn append(world: &mut World, key: Key, rng: &mut Rng) -> Outcome {
    let Some(model) = world.model.partitions.get(&key) else {
        return Ok(());
    };
    let sender = rng.chance(2, 3).then(|| next_of(model, rng));
    let expected_end = rng.chance(1, 6).then_some(model.end);
    let options = AppendOptions {
        expected_end,
        urgent: rng.chance(1, 2),
    };
    let values = values(rng);
    let batch = build(world, sender, &values, rng)?;
    world.append(key, &batch, options)
}

/// A producer's next batch. Now and then a new instance of it has begun, and always where it is not
/// known whether the partition remembers it.
fn next_of(model: &PartitionModel, rng: &mut Rng) -> Sender {
    let id = ProducerId(1 + rng.below(PRODUCERS));
    let sent = model.batches_of(id);
    let Some((last, _)) = sent.last() else {
        // Nobody knows it: it may begin anywhere, also where the numbers are about to begin anew.
        let base_sequence = if rng.chance(1, 3) {
            i32::MAX - rng.below(6) as i32
        } else {
            0
        };
        return Sender {
            id,
            epoch: ProducerEpoch(0),
            base_sequence,
        };
    };
    if model.is_unsure(id) || rng.chance(1, 12) {
        return Sender {
            id,
            epoch: ProducerEpoch(last.epoch.0 + 1),
            base_sequence: 0,
        };
    }
    Sender {
        id,
        epoch: last.epoch,
        base_sequence: last.next_sequence(),
    }
}

/// Batches that must not be appended: of an older instance, out of sequence, at another end.
pub(crate) fn be_refused(world: &mut World, key: Key, rng: &mut Rng) -> Outcome {
    let Some(model) = world.model.partitions.get(&key) else {
        return Ok(());
    };
    let id = ProducerId(1 + rng.below(PRODUCERS));
    let values = values(rng);
    let plain = AppendOptions::default();
    let last = model.batches_of(id).last().map(|(stamp, _)| *stamp);
    let last = last.filter(|_| !model.is_unsure(id));
    let (sender, options, verdict) = match (rng.below(3), last) {
        (0, Some(last)) if last.epoch.0 > 0 => {
            let epoch = ProducerEpoch(last.epoch.0 - 1);
            let base_sequence = last.next_sequence();
            (Some((epoch, base_sequence)), plain, Verdict::Fenced)
        }
        (1, Some(last)) => {
            let base_sequence = last.next_sequence().wrapping_add(7).max(0);
            (
                Some((last.epoch, base_sequence)),
                plain,
                Verdict::OutOfSequence,
            )
        }
        _ => {
            let expected_end = Some(Offset(model.end.0 + 1 + rng.below(3)));
            let options = AppendOptions {
                expected_end,
                urgent: true,
            };
            (None, options, Verdict::Conflict)
        }
    };
    let sender = sender.map(|(epoch, base_sequence)| Sender {
        id,
        epoch,
        base_sequence,
    });
    let batch = build(world, sender, &values, rng)?;
    world.refused_append(key, &batch, options, verdict)
}

/// A client whose answers were lost sends one of its last batches again.
pub(crate) fn retry(world: &mut World, key: Key, rng: &mut Rng) -> Outcome {
    let Some(model) = world.model.partitions.get(&key) else {
        return Ok(());
    };
    let sent = known_of(model, ProducerId(1 + rng.below(PRODUCERS)));
    if sent.is_empty() {
        return Ok(());
    }
    let batch = rng.pick(&sent).clone();
    send_again(world, key, &batch)
}

pub(crate) fn retry_all_of(world: &mut World, key: Key, id: ProducerId) -> Outcome {
    for batch in known_of(&world.model.partitions[&key], id) {
        send_again(world, key, &batch)?;
    }
    Ok(())
}

/// The batches of a producer that a partition has to recognise.
fn known_of(model: &PartitionModel, id: ProducerId) -> Vec<LogBatch> {
    if model.is_unsure(id) {
        return Vec::new();
    }
    let sent = model.batches_of(id).into_iter();
    sent.map(|(_, batch)| batch.clone())
        .filter(|batch| batch.base >= model.spec.log_start)
        .collect()
}

fn send_again(world: &mut World, key: Key, known: &LogBatch) -> Outcome {
    let mut batch = Batch::split(known.bytes.clone()).map_err(|error| error.to_string())?;
    batch.header_mut().set_base_offset(Offset::ZERO);
    world.retry(key, &batch, known.base)
}

fn values(rng: &mut Rng) -> Vec<Vec<u8>> {
    let count = 1 + rng.below(4);
    let size = if rng.chance(1, 8) {
        2000 + rng.below(2000)
    } else {
        rng.below(300)
    };
    (0..count).map(|_| bytes(rng, size as usize)).collect()
}

/// Random bytes. Some of them are zeros, which is what unwritten pages hold.
pub(crate) fn bytes(rng: &mut Rng, size: usize) -> Vec<u8> {
    if rng.chance(1, 5) {
        return vec![0; size];
    }
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        bytes.extend_from_slice(&rng.next_u64().to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// Clients' clocks differ from each other, and some batches have no timestamps.
pub(crate) fn build(
    world: &World,
    sender: Option<Sender>,
    values: &[Vec<u8>],
    rng: &mut Rng,
) -> Outcome<Batch> {
    const SKEW_MS: u64 = 5000;
    let mut builder = BatchBuilder::new(Codec::None);
    if let Some(Sender {
        id,
        epoch,
        base_sequence,
    }) = sender
    {
        builder = builder.with_producer(ProducerStamp {
            id,
            epoch,
            base_sequence,
            last_sequence: base_sequence, // the builder computes it
        });
    }
    let now = world.machine.clock.now();
    let timeless = rng.chance(1, 12);
    for value in values {
        let skew = rng.below(2 * SKEW_MS) as i64 - SKEW_MS as i64;
        let timestamp = if timeless {
            Timestamp::NONE
        } else {
            Timestamp((now.0 + skew).max(0))
        };
        let record = RecordInput {
            timestamp,
            key: None,
            value: Some(value),
            headers: &[],
        };
        builder.push(record).map_err(|error| error.to_string())?;
    }
    builder.build().map_err(|error| error.to_string())
}
