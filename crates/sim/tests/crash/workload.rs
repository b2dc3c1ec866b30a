//! Random work for a store.

use std::time::Duration;

use sapwood_log::io::Clock;
use sapwood_model::{Durability, Offset, ProducerEpoch, ProducerId};
use sapwood_record::{Batch, BatchBuilder, Codec, ProducerStamp, RecordInput};
use sapwood_sim::Rng;

use crate::forger;
use crate::model::{End, Key, PRODUCERS};
use crate::world::{Outcome, World};

/// The topics that a workload starts with.
const TOPICS: [(&str, u32, Durability); 3] = [
    ("flights", 2, Durability::Fsync),
    ("clicks", 2, Durability::Os),
    ("audit", 1, Durability::Fsync),
];

/// What a workload leans towards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaning {
    /// A bit of everything.
    Mixed,
    /// A client that forges rounds.
    Forgery,
    /// As mixed, in one process.
    Running,
}

impl Leaning {
    /// How long a workload runs.
    pub(crate) fn operations(self) -> usize {
        match self {
            Leaning::Mixed | Leaning::Running => 120,
            Leaning::Forgery => 50,
        }
    }
}

pub(crate) fn begin(world: &mut World) -> Outcome {
    world.open()?;
    for (name, partitions, durability) in TOPICS {
        world.create_topic(name, partitions, durability)?;
    }
    Ok(())
}

/// One random operation, and a look at what can be read.
pub(crate) fn step(world: &mut World, rng: &mut Rng, leaning: Leaning) -> Outcome {
    let keys: Vec<Key> = world.model.partitions.keys().copied().collect();
    let key = *rng.pick(&keys);
    match rng.below(100) {
        0..50 if leaning == Leaning::Forgery => forge(world, key)?,
        0..40 => {
            for _ in 0..1 + rng.below(4) {
                append(world, key, rng)?;
            }
        }
        40..46 => retry(world, key, rng)?,
        46..66 => drop(world.step_journal()?),
        66..74 => world.step_maintenance()?,
        74..78 => world.flush()?,
        78..81 => world.checkpoint()?,
        81..86 => trim(world, key, rng)?,
        86..89 => replace_topic(world, key, rng)?,
        89..93 => {
            let to = match world.model.partitions[&key].durability() {
                Durability::Fsync => Durability::Os,
                Durability::Os => Durability::Fsync,
            };
            world.switch(key, to)?;
        }
        93..96 => world
            .machine
            .clock
            .advance(Duration::from_secs(rng.below(8))),
        96..100 if leaning == Leaning::Running => {}
        96 => restart(world, End::Kill, rng)?,
        97 => restart(world, End::PowerCut, rng)?,
        _ => {
            let end = if world.stop()? { End::Clean } else { End::Kill };
            restart(world, end, rng)?;
        }
    }
    world.forget()?;
    let key = *rng.pick(&world.model.partitions.keys().copied().collect::<Vec<_>>());
    world.check_live(key, [1, 3000, 1 << 20][rng.below(3) as usize])
}

/// Ends the process and starts another one. With a faulty disk the first tries may fail.
pub(crate) fn restart(world: &mut World, end: End, rng: &mut Rng) -> Outcome {
    const TRIES: usize = 4;
    world.crash(end, rng);
    for _ in 0..TRIES {
        match world.open() {
            Err(_) if world.faulty && !world.is_open() => world.crash(End::Kill, rng),
            Err(error) => return Err(error),
            Ok(report) if end == End::Clean && !report.clean && !world.faulty => {
                return Err("the marker of the clean stop was not found".to_owned());
            }
            Ok(_) => return Ok(()),
        }
    }
    Err("the store does not open".to_owned())
}

fn append(world: &mut World, key: Key, rng: &mut Rng) -> Outcome {
    let count = 1 + rng.below(4);
    let size = if rng.chance(1, 8) {
        2000 + rng.below(2000)
    } else {
        rng.below(300)
    };
    let values: Vec<Vec<u8>> = (0..count).map(|_| bytes(rng, size as usize)).collect();
    let producer = rng.chance(2, 3).then(|| {
        let model = &world.model.partitions[&key];
        let id = ProducerId(model.producers_from + rng.below(PRODUCERS));
        let last = model
            .batches_of(id)
            .last()
            .map(|(stamp, _)| stamp.next_sequence());
        (id, last.unwrap_or(0))
    });
    let urgent = rng.chance(1, 2);
    let batch = build(world, producer, &values)?;
    world.append(key, &batch, urgent)
}

/// Random bytes. Some of them are zeros, which is what unwritten pages hold.
fn bytes(rng: &mut Rng, size: usize) -> Vec<u8> {
    let zeros = rng.chance(1, 5);
    (0..size)
        .map(|_| if zeros { 0 } else { rng.next_u64() as u8 })
        .collect()
}

fn build(world: &World, producer: Option<(ProducerId, i32)>, values: &[Vec<u8>]) -> Outcome<Batch> {
    let mut builder = BatchBuilder::new(Codec::None);
    if let Some((id, base_sequence)) = producer {
        let last_sequence = base_sequence; // the builder computes it
        let epoch = ProducerEpoch(0);
        builder = builder.with_producer(ProducerStamp {
            id,
            epoch,
            base_sequence,
            last_sequence,
        });
    }
    let timestamp = world.machine.clock.now();
    for value in values {
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

/// A client whose answers were lost sends its last batches again.
fn retry(world: &mut World, key: Key, rng: &mut Rng) -> Outcome {
    const REMEMBERED: usize = 5;
    let model = &world.model.partitions[&key];
    let id = ProducerId(model.producers_from + rng.below(PRODUCERS));
    let mut sent = model.batches_of(id);
    sent = sent.split_off(sent.len().saturating_sub(REMEMBERED));
    sent.retain(|(_, base)| *base >= model.spec.log_start);
    if sent.is_empty() {
        return Ok(());
    }
    let base = rng.pick(&sent).1;
    let known = model
        .log
        .iter()
        .find(|batch| batch.base == base)
        .ok_or("not in the log")?;
    let mut batch = Batch::split(known.bytes.clone()).map_err(|error| error.to_string())?;
    batch.header_mut().set_base_offset(Offset::ZERO);
    world.retry(key, &batch, base)
}

fn trim(world: &mut World, key: Key, rng: &mut Rng) -> Outcome {
    let Some(partition) = world.partition(key) else {
        return Ok(());
    };
    let bounds = partition.bounds();
    let room = bounds.high_watermark.0 - bounds.log_start.0;
    world.trim(key, Offset(bounds.log_start.0 + rng.below(room + 1)))
}

/// Deletes a topic and makes another one of the same name.
fn replace_topic(world: &mut World, key: Key, rng: &mut Rng) -> Outcome {
    let name = world.model.names[&key.0].to_string();
    let partitions = world.model.partitions_of(key.0).len() as u32;
    world.delete_topic(key.0)?;
    let durability = *rng.pick(&[Durability::Fsync, Durability::Os]);
    world.create_topic(&name, partitions, durability)?;
    Ok(())
}

/// The value has to stand alone in its round, so what waits is written first.
pub(crate) fn forge(world: &mut World, key: Key) -> Outcome {
    world.flush()?;
    let folder = world.journal_folder();
    let Some(known) = forger::spy(&world.machine.disk, &folder) else {
        // Nothing was written to the journal yet.
        let batch = build(world, None, &[b"first".to_vec()])?;
        world.append(key, &batch, true)?;
        return world.flush();
    };
    let batch = build(world, None, &[forger::value(&known)])?;
    world.append(key, &batch, true)?;
    world.step_journal()?;
    Ok(())
}

/// What a client does with a store that has just been opened: send again what it has no answer to, and
/// go on.
pub(crate) fn go_on(world: &mut World, rng: &mut Rng) -> Outcome {
    let keys: Vec<Key> = world.model.partitions.keys().copied().collect();
    for key in &keys {
        retry(world, *key, rng)?;
        append(world, *key, rng)?;
    }
    world.flush()?;
    for key in keys {
        world.check_live(key, 1 << 20)?;
    }
    Ok(())
}
