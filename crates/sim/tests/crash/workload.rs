//! Random work for a store.

use std::time::Duration;

use sapwood_log::AppendOptions;
use sapwood_log::io::Clock;
use sapwood_model::{Durability, Offset, ProducerId, Timestamp};
use sapwood_sim::Rng;

use crate::clients::{self, build};
use crate::forger;
use crate::model::{End, Key};
use crate::world::{Outcome, World, roll};

/// The topics that a workload starts with.
const TOPICS: [(&str, Durability); 3] = [
    ("flights", Durability::Fsync),
    ("clicks", Durability::Os),
    ("audit", Durability::Fsync),
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
            Leaning::Forgery => 30,
        }
    }
}

pub(crate) fn begin(world: &mut World) -> Outcome {
    world.open()?;
    for ((name, durability), partitions) in TOPICS.into_iter().zip(world.model.shape.partitions) {
        world.create_topic(name, partitions, durability)?;
    }
    Ok(())
}

/// One random operation, and a look at what can be read.
pub(crate) fn step(world: &mut World, rng: &mut Rng, leaning: Leaning) -> Outcome {
    let keys: Vec<Key> = world.model.partitions.keys().copied().collect();
    let key = *rng.pick(&keys);
    match rng.below(120) {
        0..60 if leaning == Leaning::Forgery => forge(world, key)?,
        0..34 => {
            for _ in 0..1 + rng.below(4) {
                clients::append(world, key, rng)?;
            }
        }
        34..40 => burst(world, &keys, rng)?,
        40..46 => clients::retry(world, key, rng)?,
        46..49 => clients::be_refused(world, key, rng)?,
        49..64 => drop(world.step_journal()?),
        64..72 => world.step_maintenance()?,
        72..76 => world.flush()?,
        76..80 => world.checkpoint()?,
        80..86 => {
            if rng.chance(1, 2) {
                roll(world, key)?;
            }
            trim(world, key, rng)?;
        }
        86..89 => replace_topic(world, key, rng)?,
        89..93 => switch(world, key, rng)?,
        93..97 => truncate(world, key, rng)?,
        97..99 => configure(world, key, rng)?,
        99 => roll(world, key)?,
        100..104 => move_clock(world, rng),
        104..106 => world.expire(key),
        106 => world.add_partition(key.0)?,
        107..120 if leaning == Leaning::Running => {}
        107 | 108 => restart(world, End::Kill, rng)?,
        109 | 110 => restart(world, End::PowerCut, rng)?,
        111 | 112 => {
            let end = if world.stop()? { End::Clean } else { End::Kill };
            restart(world, end, rng)?;
        }
        _ => clients::append(world, key, rng)?,
    }
    world.forget()?;
    let key = *rng.pick(&world.model.partitions.keys().copied().collect::<Vec<_>>());
    world.check_live(key, [1, 3000, 1 << 20][rng.below(3) as usize])
}

/// Ends the process and starts another one. With a faulty disk the first tries may fail; then it is
/// mended.
pub(crate) fn restart(world: &mut World, end: End, rng: &mut Rng) -> Outcome {
    const TRIES: usize = 6;
    world.crash(end, rng);
    for attempt in 0..TRIES {
        match world.open() {
            Err(_) if world.faulty && !world.is_open() => {
                world.crash(End::Kill, rng);
                if attempt > 2 {
                    world.mend();
                }
            }
            Err(error) => return Err(error),
            Ok(report) if end == End::Clean && !report.clean && !world.faulty => {
                return Err("the marker of the clean stop was not found".to_owned());
            }
            Ok(_) => return Ok(()),
        }
    }
    Err("the store does not open".to_owned())
}

/// Large batches, each a round and a segment of its own: files of the journal are used again.
fn burst(world: &mut World, keys: &[Key], rng: &mut Rng) -> Outcome {
    for _ in 0..2 + rng.below(4) {
        let key = *rng.pick(keys);
        let size = 4000 + rng.below(8000) as usize;
        let value = clients::bytes(rng, size);
        let batch = build(world, None, &[value], rng)?;
        world.append(key, &batch, AppendOptions::default())?;
        world.step_journal()?;
    }
    Ok(())
}

fn trim(world: &mut World, key: Key, rng: &mut Rng) -> Outcome {
    let Some(partition) = world.partition(key) else {
        return Ok(());
    };
    let bounds = partition.bounds();
    let room = bounds.high_watermark.0 - bounds.log_start.0;
    let to = match rng.below(4) {
        0 => bounds.high_watermark.0,
        1 => bounds.log_start.0 + room.min(1),
        _ => bounds.log_start.0 + rng.below(room + 1),
    };
    world.trim(key, Offset(to))
}

/// Takes some batches back that nobody was told of.
fn truncate(world: &mut World, key: Key, rng: &mut Rng) -> Outcome {
    for _ in 0..rng.below(4) {
        clients::append(world, key, rng)?;
    }
    let Some(partition) = world.partition(key) else {
        return Ok(());
    };
    let high_watermark = partition.bounds().high_watermark;
    let model = &world.model.partitions[&key];
    let bases = model.log.iter().map(|batch| batch.base);
    let above: Vec<Offset> = bases.filter(|base| *base >= high_watermark).collect();
    if above.is_empty() {
        return Ok(());
    }
    world.truncate(key, *rng.pick(&above))?;
    clients::append(world, key, rng)
}

/// Deletes a topic and makes another one of the same name.
fn replace_topic(world: &mut World, key: Key, rng: &mut Rng) -> Outcome {
    let name = world.model.names[&key.0].to_string();
    let partitions = world.model.partitions_of(key.0).len() as u32;
    world.delete_topic(key.0)?;
    if rng.chance(1, 3) {
        world.checkpoint()?;
    }
    let durability = *rng.pick(&[Durability::Fsync, Durability::Os]);
    world.create_topic(&name, partitions, durability)?;
    Ok(())
}

fn switch(world: &mut World, key: Key, rng: &mut Rng) -> Outcome {
    let to = match world.model.partitions[&key].durability() {
        Durability::Fsync => Durability::Os,
        Durability::Os => Durability::Fsync,
    };
    world.switch(key, to, |world| {
        for _ in 0..rng.below(3) {
            clients::append(world, key, rng)?;
            if rng.chance(1, 2) {
                world.step_journal()?;
            }
        }
        Ok(())
    })
}

fn configure(world: &mut World, key: Key, rng: &mut Rng) -> Outcome {
    let segment_bytes = *rng.pick(&[3 << 10, 6 << 10, 20 << 10, 64 << 10]);
    let index_interval_bytes = *rng.pick(&[0, 256, 1024, 4096]);
    let segment_ms = *rng.pick(&[1000, 60_000, 7 * 24 * 60 * 60 * 1000]);
    let producer_expiration_ms = *rng.pick(&[1, 10_000, 24 * 60 * 60 * 1000]);
    world.configure(key.0, |config| {
        config.segment_bytes = segment_bytes;
        config.index_interval_bytes = index_interval_bytes;
        config.segment_ms = segment_ms;
        config.producer_expiration_ms = producer_expiration_ms;
    });
    Ok(())
}

/// Time goes on; the wall clock may also jump by days, both ways.
fn move_clock(world: &mut World, rng: &mut Rng) {
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    let clock = &world.machine.clock;
    clock.advance(Duration::from_millis(rng.below(8000)));
    if rng.chance(1, 3) {
        let by = rng.below(6 * DAY_MS) as i64 - 3 * DAY_MS as i64;
        clock.set(Timestamp((clock.now().0 + by).max(0)));
    }
}

/// The value has to stand alone in its round, so what waits is written first.
pub(crate) fn forge(world: &mut World, key: Key) -> Outcome {
    world.flush()?;
    let folder = world.journal_folder();
    let mut rng = Rng::new(1);
    let urgent = AppendOptions {
        expected_end: None,
        urgent: true,
    };
    let Some(known) = forger::spy(&world.machine.disk, &folder) else {
        // Nothing was written to the journal yet.
        let batch = build(world, None, &[b"first".to_vec()], &mut rng)?;
        world.append(key, &batch, urgent)?;
        return world.flush();
    };
    let batch = build(world, None, &[forger::value(&known)], &mut rng)?;
    world.append(key, &batch, urgent)?;
    world.step_journal()?;
    Ok(())
}

/// What clients do with a store that has just been opened: send again what they have no answer to, and
/// go on.
pub(crate) fn go_on(world: &mut World, rng: &mut Rng) -> Outcome {
    let keys: Vec<Key> = world.model.partitions.keys().copied().collect();
    for key in &keys {
        clients::retry(world, *key, rng)?;
        clients::append(world, *key, rng)?;
    }
    world.flush()?;
    for key in keys {
        world.check_live(key, 1 << 20)?;
    }
    Ok(())
}

/// Every producer sends every batch again that has to be recognised.
pub(crate) fn retry_all(world: &mut World) -> Outcome {
    let keys: Vec<Key> = world.model.partitions.keys().copied().collect();
    for key in keys {
        for id in (1..=crate::model::PRODUCERS).map(ProducerId) {
            clients::retry_all_of(world, key, id)?;
        }
    }
    Ok(())
}
