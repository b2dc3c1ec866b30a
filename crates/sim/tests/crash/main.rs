//! The store on a machine that stops and fails: what design calls promises is checked after every
//! durability event of random workloads, for several legal survivors of each, and after faults of every
//! kind.
//!
//! `SAPWOOD_SIM_SEEDS` says how many seeds to run (each test prints those it runs), `SAPWOOD_SIM_SEED`
//! runs that one, `SAPWOOD_SIM_SAMPLE=N` tries N times as many faults of those that a seed allows, and
//! `SAPWOOD_SIM_STEPS=1` stops not only at durability events but at every write, store and rename.
//! `SAPWOOD_SIM_TRACE=1` shows the steps of what failed. `tools/crash` runs all of it at length.
#![allow(clippy::unwrap_used)] // clippy knows test functions, not their helpers

mod clients;
mod compaction;
mod damage;
mod disks;
mod faulty;
mod forger;
mod lookups;
mod model;
mod records;
mod recoveries;
mod runs;
mod workload;
mod world;

use sapwood_model::Durability;
use sapwood_sim::{Rng, Stop};

use model::{End, Key, PartitionModel};
use runs::{Trial, either, for_seeds, run, survive, ways};
use workload::Leaning;
use world::{Outcome, World};

/// Every survivor of a workload, one after the other.
fn check_every_stop(trial: &mut Trial, leaning: Leaning) -> Outcome {
    let mut rng = Rng::new(trial.seed ^ 0x00C0_FFEE);
    let (mut events, mut survivors) = (0, 0);
    let world = run(trial, leaning, |survivor| {
        events += 1;
        for way in ways(&mut rng) {
            survivors += 1;
            let told = |error| format!("{way:?}: {error}");
            let mut world = survive(&survivor, &way, &mut rng).map_err(told)?;
            if rng.chance(1, 4) {
                workload::retry_all(&mut world).map_err(told)?;
            }
            if rng.chance(1, 6) {
                recover_again(&mut world, &mut rng).map_err(told)?;
            }
            if rng.chance(1, 6) {
                let end = either(&mut rng);
                workload::go_on(&mut world, &mut rng).map_err(told)?;
                workload::restart(&mut world, end, &mut rng).map_err(told)?;
            }
        }
        Ok(())
    });
    trial.tried.events = events;
    trial.tried.survivors = survivors;
    trial.tried.workloads = 1;
    let mut world = world?;
    world.tally();
    let tally = world.tally;
    trial.tried.rounds = tally.rounds;
    trial.tried.journal_files = tally.journal_files;
    // Chance may keep one of many seeds from it.
    let is_known = !runs::is_one_seed();
    if is_known && (tally.rounds == 0 || (leaning == Leaning::Mixed && tally.segments < 2)) {
        return Err(format!("the workload reaches too little: {tally:?}"));
    }
    Ok(())
}

/// A recovery that finds what the one before it left changes nothing but the leader epoch.
fn recover_again(world: &mut World, rng: &mut Rng) -> Outcome {
    let state = |world: &World| -> Vec<String> {
        let partitions = world.partitions.iter().map(|(key, partition)| {
            // A new epoch begins at the end, unless the stop before was a clean one.
            let end = partition.bounds().log_end;
            let mut epochs = partition.epochs();
            epochs.retain(|entry| entry.start < end);
            let producers = partition.producers().into_iter();
            let producers: Vec<_> = producers
                .map(|state| {
                    (
                        state.id,
                        state.epoch,
                        state.last_sequence,
                        state.last_offset,
                    )
                })
                .collect();
            let log = world
                .model
                .partitions
                .get(key)
                .map(PartitionModel::describe);
            format!(
                "{key:?}: {:?} {epochs:?} {producers:?} {log:?}",
                partition.bounds()
            )
        });
        partitions.collect()
    };
    let before = state(world);
    let end = either(rng);
    workload::restart(world, end, rng)?;
    let after = state(world);
    match before
        .iter()
        .zip(&after)
        .find(|(before, after)| before != after)
    {
        Some((before, after)) => Err(format!(
            "recovered twice, the second time after {end:?}: {before}, then {after}"
        )),
        None => Ok(()),
    }
}

#[test]
fn promises_hold_after_a_stop_at_every_event() {
    for_seeds("promises_hold_after_a_stop_at_every_event", 1, |trial| {
        check_every_stop(trial, Leaning::Mixed)
    });
}

#[test]
fn a_client_that_forges_journal_rounds_gains_nothing() {
    for_seeds(
        "a_client_that_forges_journal_rounds_gains_nothing",
        1,
        |trial| {
            check_every_stop(trial, Leaning::Forgery)?;
            let (real, forged) = forgeries(trial)?;
            if real == 0 || forged == 0 {
                return Err(format!(
                    "{real} real and {forged} forged rounds: the forger is blind"
                ));
            }
            Ok(())
        },
    );
}

/// Counts rounds, real and forged, on the disk after some rounds of a forging client.
fn forgeries(trial: &Trial) -> Outcome<(usize, usize)> {
    let mut world = trial.world();
    workload::begin(&mut world)?;
    let key = *world
        .model
        .partitions
        .keys()
        .next()
        .ok_or("no partitions")?;
    for _ in 0..3 {
        workload::forge(&mut world, key)?;
    }
    forger::check_format(&world.machine.disk, &world.journal_folder())
}

#[test]
fn a_first_start_that_is_killed_leaves_what_the_next_one_makes_durable() {
    for_seeds(
        "a_first_start_that_is_killed_leaves_what_the_next_one_makes_durable",
        12,
        |trial| {
            let mut rng = Rng::new(trial.seed);
            let mut probe = trial.world();
            probe.open()?;
            for step in 0..probe.steps_opened {
                let mut world = trial.world();
                world.machine.disk.stop_at(Stop::Step(step));
                if world.open().is_ok() {
                    return Err(format!("nothing stopped the start at step {step}"));
                }
                world.crash(End::Kill, &mut rng);
                a_second_start_that_stops_leaves_a_third(&world, step, &mut rng)?;
                let told = |error| format!("killed at step {step}: {error}");
                workload::begin(&mut world).map_err(told)?;
                workload::go_on(&mut world, &mut rng).map_err(told)?;
                workload::restart(&mut world, End::PowerCut, &mut rng).map_err(told)?;
                trial.tried.events += 1;
                trial.tried.survivors += 1;
            }
            trial.tried.workloads = 1;
            Ok(())
        },
    );
}

/// The power is cut in the second start, at every step of it.
fn a_second_start_that_stops_leaves_a_third(killed: &World, at: u64, rng: &mut Rng) -> Outcome {
    for step in 0.. {
        let mut world = World::new(killed.machine.fork(), killed.model.clone());
        let disk = world.machine.disk.clone();
        disk.stop_at(Stop::Step(disk.steps() + step));
        if world.open().is_ok() {
            return Ok(());
        }
        let told = |error| format!("killed at step {at}, and then at {step}: {error}");
        workload::restart(&mut world, End::PowerCut, rng).map_err(told)?;
    }
    Ok(())
}

#[test]
fn a_full_disk_refuses_produce_and_everything_else_goes_on() {
    for_seeds(
        "a_full_disk_refuses_produce_and_everything_else_goes_on",
        6,
        |trial| {
            let mut rng = Rng::new(trial.seed);
            let mut world = trial.world();
            workload::begin(&mut world)?;
            for _ in 0..20 {
                workload::step(&mut world, &mut rng, Leaning::Running)?;
            }
            for _ in 0..3 {
                world.fill_disk(rng.below(12))?;
                for _ in 0..30 {
                    workload::step(&mut world, &mut rng, Leaning::Running)?;
                }
                world.check_full()?;
                world.machine.disk.set_capacity(None);
                world.faulty = false;
                world.step_maintenance()?;
                workload::go_on(&mut world, &mut rng)?;
                let end = either(&mut rng);
                workload::restart(&mut world, end, &mut rng)?;
                trial.tried.events += 1;
                trial.tried.survivors += 1;
            }
            trial.tried.workloads = 1;
            Ok(())
        },
    );
}

#[test]
fn a_batch_that_lost_its_length_is_no_leftover_where_another_follows() {
    for_seeds(
        "a_batch_that_lost_its_length_is_no_leftover_where_another_follows",
        4,
        |trial| {
            let mut rng = Rng::new(trial.seed);
            let mut world = trial.world();
            workload::begin(&mut world)?;
            let keys = world.model.partitions.iter();
            let keys: Vec<Key> = keys
                .filter(|(_, model)| model.spec.config.durability == Durability::Os)
                .map(|(key, _)| *key)
                .collect();
            for key in &keys {
                while world.model.partitions[key].log.len() < 2 {
                    clients::append(&mut world, *key, &mut rng)?;
                }
            }
            world.crash(End::Kill, &mut rng);
            for key in keys {
                let mut damaged = World::new(world.machine.fork(), world.model.clone());
                let folder = disks::partition_folder(&world.model.partitions[&key]);
                let path = folder.join("00000000000000000000.log");
                damage::erase_first_length(&damaged.machine.disk, &path)?;
                let offline = damaged.open_damaged(&path)?;
                if offline != Some(1) {
                    return Err(format!("{offline:?} partitions are offline"));
                }
                trial.tried.damages += 1;
            }
            trial.tried.workloads = 1;
            Ok(())
        },
    );
}

#[test]
fn damage_anywhere_is_never_taken_for_the_end_of_a_log() {
    for_seeds(
        "damage_anywhere_is_never_taken_for_the_end_of_a_log",
        3,
        |trial| {
            let mut rng = Rng::new(trial.seed);
            let mut world = trial.world();
            workload::begin(&mut world)?;
            for _ in 0..60 {
                workload::step(&mut world, &mut rng, Leaning::Running)?;
            }
            for _ in 0..60 {
                let mut damaged = World::new(world.machine.fork(), world.model.clone());
                damaged.crash(either(&mut rng), &mut rng);
                let at = damage::hit(&damaged.machine.disk, &mut rng)?;
                trial.tried.damages += 1;
                match damaged.open_damaged(&at.path) {
                    Ok(Some(count)) => trial.tried.offline += count as u64,
                    Ok(None) => trial.tried.refused += 1,
                    Err(error) => return Err(format!("{at}: {error}")),
                }
            }
            trial.tried.workloads = 1;
            Ok(())
        },
    );
}
