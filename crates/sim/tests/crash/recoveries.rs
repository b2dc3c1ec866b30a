//! Recoveries that stop or fail, at every step and every read.

use std::path::Path;

use sapwood_log::{AppendOptions, PartitionState};
use sapwood_model::{Durability, PartitionId};
use sapwood_sim::{ReadFault, Rng, StepKind, Stop, WriteFault};

use crate::clients;
use crate::faulty::Fault;
use crate::model::End;
use crate::runs::{Trial, either, for_seeds, run, sample_factor};
use crate::workload::{self, Leaning};
use crate::world::{DATA, Outcome, World};

/// A machine that has crashed, and what its recovery does when nothing fails.
struct Crashed {
    world: World,
    steps: Vec<(u64, StepKind)>,
    syncs: std::ops::Range<u64>,
    reads: std::ops::Range<u64>,
}

impl Crashed {
    /// Recovers a copy to see what that takes.
    fn of(world: World) -> Outcome<Crashed> {
        let mut probe = World::new(world.machine.fork(), world.model.clone());
        let disk = probe.machine.disk.clone();
        let (syncs, reads) = (disk.syncs(), disk.reads());
        disk.record_kinds();
        probe.open()?;
        let mut steps = disk.take_kinds();
        steps.retain(|(step, _)| *step < probe.steps_opened);
        Ok(Crashed {
            world,
            steps,
            syncs: syncs..disk.syncs(),
            reads: reads..probe.reads_opened,
        })
    }

    fn copy(&self) -> World {
        World::new(self.world.machine.fork(), self.world.model.clone())
    }
}

/// Some machines that crashed in the middle of a workload.
fn crashed(trial: &Trial, rng: &mut Rng) -> Outcome<Vec<Crashed>> {
    let each = (400 / sample_factor()).max(1);
    let mut found = Vec::new();
    run(trial, Leaning::Mixed, |survivor| {
        // One at least: the first that has something to recover.
        let is_first = found.is_empty() && survivor.model.has_records();
        if !is_first && !rng.chance(1, each) {
            return Ok(());
        }
        let mut world = World::new(survivor.machine.fork(), survivor.model.clone());
        world.crash(either(rng), rng);
        found.push(Crashed::of(world)?);
        Ok(())
    })?;
    Ok(found)
}

/// A recovery with one fault. It may come to nothing, or leave the partition offline that the fault
/// hit. The next one finds everything.
fn fail_once(trial: &mut Trial, crashed: &Crashed, fault: Fault, rng: &mut Rng) -> Outcome {
    trial.tried.events += 1;
    trial.tried.survivors += 1;
    let mut world = crashed.copy();
    let disk = world.machine.disk.clone();
    fault.arm(&disk);
    world.faulty = true;
    let opened = world.open();
    let places = disk.take_failed_places();
    match opened {
        Ok(_) => {}
        Err(error) if world.is_open() => return Err(error),
        Err(error) => {
            trial.tried.refused += 1;
            if let [place] = &places[..]
                && is_in_a_partition(place)
            {
                return Err(format!("{} stops the start: {error}", place.display()));
            }
        }
    }
    let offline: Vec<_> = world
        .partitions
        .iter()
        .filter_map(|(key, partition)| match partition.state() {
            PartitionState::Offline { reason } => Some(format!("{key:?}: {reason}")),
            PartitionState::Online => None,
        })
        .collect();
    trial.tried.offline += offline.len() as u64;
    let may_hit_many = matches!(fault, Fault::Sync(_)); // one sync of the file system
    if offline.len() > 1 && !may_hit_many {
        return Err(format!("more than one partition is offline: {offline:?}"));
    }
    if matches!(fault, Fault::Full(..)) && !offline.is_empty() {
        return Err(format!("a full disk took partitions offline: {offline:?}"));
    }
    if world.is_open() && rng.chance(1, 2) {
        workload::go_on(&mut world, rng)?;
        world.checkpoint()?;
    }
    world.mend();
    world.faulty = false;
    let end = either(rng);
    workload::restart(&mut world, end, rng)?;
    workload::retry_all(&mut world)
}

fn is_in_a_partition(place: &Path) -> bool {
    let topics = Path::new(DATA).join("topics");
    place
        .strip_prefix(topics)
        .is_ok_and(|inside| inside.components().count() > 1)
}

fn sweep(test: &str, faults: impl Fn(&Crashed, &mut Rng) -> Vec<Fault>) {
    for_seeds(test, 1, |trial| {
        let mut rng = Rng::new(trial.seed ^ 0x00DE_C0DE);
        for crashed in crashed(trial, &mut rng)? {
            for fault in faults(&crashed, &mut rng) {
                if sample_factor() == 1 && !rng.chance(1, 4) {
                    continue;
                }
                fail_once(trial, &crashed, fault, &mut rng)
                    .map_err(|error| format!("{fault}: {error}"))?;
            }
        }
        Ok(())
    });
}

#[test]
fn a_read_that_fails_in_a_recovery_takes_its_partition_offline_and_loses_nothing() {
    let test = "a_read_that_fails_in_a_recovery_takes_its_partition_offline_and_loses_nothing";
    sweep(test, |crashed, rng| {
        let reads = crashed.reads.clone();
        reads
            .map(|read| match rng.chance(1, 2) {
                true => Fault::Read(read, ReadFault::Once),
                false => Fault::Read(read, ReadFault::Sticky),
            })
            .collect()
    });
}

#[test]
fn a_step_that_fails_in_a_recovery_loses_nothing() {
    sweep(
        "a_step_that_fails_in_a_recovery_loses_nothing",
        |crashed, _| {
            let steps = crashed.steps.iter();
            let steps = steps.filter(|(_, kind)| *kind != StepKind::Sync);
            let syncs = crashed.syncs.clone().map(Fault::Sync);
            steps
                .map(|(step, _)| Fault::Step(*step, WriteFault::Io))
                .chain(syncs)
                .collect()
        },
    );
}

#[test]
fn a_recovery_without_room_loses_nothing_and_takes_nothing_offline() {
    let test = "a_recovery_without_room_loses_nothing_and_takes_nothing_offline";
    sweep(test, |crashed, rng| {
        let steps = crashed.steps.iter();
        let steps = steps.filter(|(_, kind)| kind.takes_room());
        steps
            .map(|(step, _)| Fault::Full(*step, rng.below(3)))
            .collect()
    });
}

/// Stops the recovery at a step, and recovers again.
fn stop_once(
    trial: &mut Trial,
    crashed: &Crashed,
    step: (u64, StepKind),
    end: End,
    rng: &mut Rng,
) -> Outcome {
    trial.tried.events += 1;
    trial.tried.survivors += 1;
    let mut world = crashed.copy();
    let disk = world.machine.disk.clone();
    disk.stop_at(Stop::Step(step.0));
    if world.open().is_ok() {
        return Err(format!("{step:?} was not reached"));
    }
    workload::restart(&mut world, end, rng).map_err(|error| format!("{step:?}, {end:?}: {error}"))
}

#[test]
fn a_recovery_that_stops_at_any_step_is_begun_again() {
    let test = "a_recovery_that_stops_at_any_step_is_begun_again";
    for_seeds(test, 1, |trial| {
        let mut rng = Rng::new(trial.seed ^ 0x0057_0951);
        for crashed in crashed(trial, &mut rng)? {
            for step in &crashed.steps {
                if sample_factor() == 1 && !rng.chance(1, 4) {
                    continue;
                }
                for end in [End::Kill, End::PowerCut] {
                    stop_once(trial, &crashed, *step, end, &mut rng)?;
                }
            }
        }
        Ok(())
    });
}

/// Before any checkpoint knows a partition, a power cut tears its tail and the recovery cannot read it. The
/// next one, in the same boot, must not take the torn tail for damage.
#[test]
fn a_partition_that_no_checkpoint_knew_when_it_went_offline_keeps_the_boot_it_was_written_in() {
    let test =
        "a_partition_that_no_checkpoint_knew_when_it_went_offline_keeps_the_boot_it_was_written_in";
    for_seeds(test, 2, |trial| {
        let mut rng = Rng::new(trial.seed);
        let mut world = trial.world();
        world.open()?;
        let topic = world.create_topic("clicks", 1, Durability::Os)?;
        let key = (topic, PartitionId(0));
        for _ in 0..2 {
            // Some pages, of which some are lost.
            let batch = clients::build(&world, None, &[vec![b'x'; 14_000]], &mut rng)?;
            world.append(key, &batch, AppendOptions::default())?;
        }
        for _ in 0..8 {
            let mut torn = World::new(world.machine.fork(), world.model.clone());
            torn.crash(End::PowerCut, &mut rng);
            let crashed = Crashed::of(torn)?;
            for read in crashed.reads.clone() {
                let mut world = crashed.copy();
                world.faulty = true;
                world.machine.disk.fail_read(read, ReadFault::Once);
                let opened = world.open();
                trial.tried.events += 1;
                trial.tried.survivors += 1;
                trial.tried.refused += u64::from(opened.is_err());
                world.faulty = false;
                workload::restart(&mut world, End::Kill, &mut rng)
                    .map_err(|error| format!("read {read} failed: {error}"))?;
            }
        }
        Ok(())
    });
}

/// The recovery has raised the leader epoch when its sync fails: the next one must not miss it in the batches.
#[test]
fn a_partition_that_went_offline_in_its_first_recovery_comes_back_with_the_next() {
    let test = "a_partition_that_went_offline_in_its_first_recovery_comes_back_with_the_next";
    for_seeds(test, 2, |trial| {
        let mut rng = Rng::new(trial.seed);
        let mut world = trial.world();
        world.open()?;
        for durability in [Durability::Fsync, Durability::Os] {
            let topic = world.create_topic(&format!("{durability:?}"), 1, durability)?;
            for _ in 0..3 {
                clients::append(&mut world, (topic, PartitionId(0)), &mut rng)?;
            }
        }
        world.flush()?;
        world.crash(End::Kill, &mut rng);
        let first = world.machine.disk.syncs();
        let mut whole = World::new(world.machine.fork(), world.model.clone());
        whole.open()?;
        for sync in first..whole.machine.disk.syncs() {
            let mut failing = World::new(world.machine.fork(), world.model.clone());
            failing.faulty = true;
            failing.machine.disk.fail_sync(sync);
            let opened = failing.open();
            trial.tried.events += 1;
            trial.tried.survivors += 1;
            trial.tried.refused += u64::from(opened.is_err());
            failing.faulty = false;
            workload::restart(&mut failing, End::Kill, &mut rng)
                .map_err(|error| format!("sync {sync} failed: {error}"))?;
        }
        Ok(())
    });
}

/// Everything in the checkpoint's segment is deleted, and what would follow it is lost: recovery removes
/// the segment, which the journal brings back with a hole when it is interrupted.
#[test]
fn a_recovery_that_stops_after_it_removed_the_checkpoints_segment_is_begun_again() {
    let test = "a_recovery_that_stops_after_it_removed_the_checkpoints_segment_is_begun_again";
    for_seeds(test, 6, |trial| {
        let mut rng = Rng::new(trial.seed);
        let mut world = trial.world();
        world.open()?;
        let topic = world.create_topic("flights", 1, Durability::Fsync)?;
        let key = (topic, PartitionId(0));
        for _ in 0..3 {
            clients::append(&mut world, key, &mut rng)?;
        }
        world.flush()?;
        world.switch(key, Durability::Os, |world| {
            clients::append(world, key, &mut rng)?;
            world.flush()
        })?;
        clients::append(&mut world, key, &mut rng)?;
        let end = world.model.partitions[&key].end;
        world.trim(key, end)?;
        world.crash(End::PowerCut, &mut rng);
        let crashed = Crashed::of(world)?;
        for step in &crashed.steps {
            stop_once(trial, &crashed, *step, End::Kill, &mut rng)?;
        }
        Ok(())
    });
}
