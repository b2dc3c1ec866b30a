//! One fault in a workload, whatever it hits, and what is left of it after a crash.

use std::fmt;
use std::path::Path;

use sapwood_log::PartitionState;
use sapwood_log::io::Disk;
use sapwood_sim::{ReadFault, Rng, SimDisk, StepKind, WriteFault};

use crate::model::End;
use crate::runs::{Trial, either, for_seeds, sample_factor, trace};
use crate::workload::{self, Leaning};
use crate::world::{DATA, Outcome, World};

/// What goes wrong, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    Sync(u64),
    Step(u64, WriteFault),
    /// From a step on, the disk has room for some pages.
    Full(u64, u64),
    Read(u64, ReadFault),
    /// After a step, the kernel writes some file out on its own and cannot.
    WriteOut(u64),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Sync(at) => write!(f, "sync {at} fails"),
            Fault::Step(at, fault) => write!(f, "step {at} fails with {fault:?}"),
            Fault::Full(at, pages) => write!(f, "full from step {at} on but for {pages} pages"),
            Fault::Read(at, fault) => write!(f, "read {at} fails, {fault:?}"),
            Fault::WriteOut(at) => write!(f, "a write-out after step {at} fails"),
        }
    }
}

impl Fault {
    pub(crate) fn arm(self, disk: &SimDisk) {
        match self {
            Fault::Sync(at) => disk.fail_sync(at),
            Fault::Step(at, fault) => disk.fail_step(at, fault),
            Fault::Full(at, pages) => disk.fill_at_step(at, pages),
            Fault::Read(at, fault) => disk.fail_read(at, fault),
            Fault::WriteOut(_) => {}
        }
    }

    fn has_come(self, disk: &SimDisk) -> bool {
        match self {
            Fault::Sync(at) => disk.syncs() > at,
            Fault::Step(at, _) | Fault::Full(at, _) | Fault::WriteOut(at) => disk.steps() > at,
            Fault::Read(at, _) => disk.reads() > at,
        }
    }
}

/// What a workload does when nothing fails: where faults can be put.
pub(crate) struct Course {
    pub(crate) steps: Vec<(u64, StepKind)>,
    pub(crate) syncs: std::ops::Range<u64>,
    pub(crate) reads: std::ops::Range<u64>,
}

impl Course {
    /// Runs the workload once. What it does before there is a data directory does not count: nobody
    /// could have used that.
    fn of(trial: &Trial) -> Outcome<Course> {
        let mut world = trial.world();
        let disk = world.machine.disk.clone();
        world.open()?;
        let (syncs, reads) = (disk.syncs(), disk.reads());
        let mut world = trial.world();
        let disk = world.machine.disk.clone();
        disk.record_kinds();
        let first = world_steps(trial)?;
        let mut work = Rng::new(trial.seed);
        workload::begin(&mut world)?;
        for _ in 0..Leaning::Mixed.operations() {
            workload::step(&mut world, &mut work, Leaning::Mixed)?;
        }
        let mut steps = disk.take_kinds();
        steps.retain(|(step, _)| *step >= first);
        Ok(Course {
            steps,
            syncs: syncs..disk.syncs(),
            reads: reads..disk.reads(),
        })
    }
}

fn world_steps(trial: &Trial) -> Outcome<u64> {
    let mut world = trial.world();
    world.open()?;
    Ok(world.machine.disk.steps())
}

/// Runs the workload with one fault, goes on for a while, then crashes, twice.
fn fail_once(trial: &Trial, fault: Fault, rng: &mut Rng) -> Outcome {
    let mut work = Rng::new(trial.seed);
    let mut world = trial.world();
    let disk = world.machine.disk.clone();
    if trace() {
        disk.record();
    }
    fault.arm(&disk);
    world.faulty = true;
    let mut after = rng.below(8);
    let mut hit = false;
    let mut done = workload::begin(&mut world);
    for _ in 0..Leaning::Mixed.operations() {
        let come = fault.has_come(&disk);
        if done.is_err() || (come && after == 0) {
            break;
        }
        if come && !hit {
            hit = true;
            if matches!(fault, Fault::WriteOut(_)) {
                fail_a_write_out(&disk, rng);
            }
        }
        after -= u64::from(come);
        done = workload::step(&mut world, &mut work, Leaning::Mixed);
    }
    if matches!(fault, Fault::Full(..)) && world.is_open() {
        done = done.and_then(|()| goes_on(&world));
    }
    let end = either(rng);
    done = done.and_then(|()| workload::restart(&mut world, end, rng));
    // Recovery has made everything durable that it found, whatever the kernel thinks is clean.
    world.mend();
    world.faulty = false;
    done = done.and_then(|()| workload::restart(&mut world, End::PowerCut, rng));
    done = done.and_then(|()| workload::retry_all(&mut world));
    done = done.and_then(|()| workload::go_on(&mut world, rng));
    done.map_err(|error| format!("{error}\n{:#?}", disk.take_history()))
}

/// A full disk takes nothing offline and makes nothing read-only.
fn goes_on(world: &World) -> Outcome {
    if let Some(reason) = world.store()?.read_only() {
        return Err(format!("a full disk made everything read-only: {reason}"));
    }
    for (key, partition) in &world.partitions {
        if let PartitionState::Offline { reason } = partition.state() {
            return Err(format!("a full disk took {key:?} offline: {reason}"));
        }
    }
    Ok(())
}

/// Some file that a log is written to: a segment, an index, a file of the journal.
fn fail_a_write_out(disk: &SimDisk, rng: &mut Rng) {
    let root = Path::new(DATA);
    let mut folders = vec![root.join("journal")];
    for entry in disk.read_dir(&root.join("topics")).unwrap_or_default() {
        folders.push(root.join("topics").join(entry.name));
    }
    let folder = rng.pick(&folders);
    let names = disk.read_dir(folder).unwrap_or_default();
    if !names.is_empty() {
        let _ = disk.fail_write_out(&folder.join(&rng.pick(&names).name));
    }
}

/// About so many of the faults.
fn sample(faults: Vec<Fault>, count: u64, rng: &mut Rng) -> Vec<Fault> {
    let all = faults.len() as u64;
    let count = count * sample_factor();
    faults
        .into_iter()
        .filter(|_| rng.chance(count.min(all), all.max(1)))
        .collect()
}

fn sweep(test: &str, count: u64, faults: impl Fn(&Course, &mut Rng) -> Vec<Fault>) {
    for_seeds(test, 1, |trial| {
        let mut rng = Rng::new(trial.seed ^ 0x0BAD_5EED);
        let course = Course::of(trial)?;
        let faults = faults(&course, &mut rng);
        for fault in sample(faults, count, &mut rng) {
            trial.tried.workloads += 1;
            trial.tried.events += 1;
            trial.tried.survivors += 2;
            fail_once(trial, fault, &mut rng).map_err(|error| format!("{fault}: {error}"))?;
        }
        Ok(())
    });
}

#[test]
fn promises_hold_after_a_sync_that_failed() {
    sweep("promises_hold_after_a_sync_that_failed", 14, |course, _| {
        course.syncs.clone().map(Fault::Sync).collect()
    });
}

#[test]
fn promises_hold_after_any_step_that_failed() {
    let test = "promises_hold_after_any_step_that_failed";
    sweep(test, 14, |course, _| {
        let steps = course.steps.iter();
        let steps = steps.filter(|(_, kind)| *kind != StepKind::Sync);
        steps
            .map(|(step, _)| Fault::Step(*step, WriteFault::Io))
            .collect()
    });
}

#[test]
fn promises_hold_after_any_step_for_which_there_was_no_room() {
    let test = "promises_hold_after_any_step_for_which_there_was_no_room";
    sweep(test, 14, |course, _| {
        let steps = course.steps.iter();
        let steps = steps.filter(|(_, kind)| kind.takes_room());
        steps
            .map(|(step, _)| Fault::Step(*step, WriteFault::NoSpace))
            .collect()
    });
}

#[test]
fn promises_hold_on_a_disk_that_fills_up_at_any_step() {
    let test = "promises_hold_on_a_disk_that_fills_up_at_any_step";
    sweep(test, 10, |course, rng| {
        let steps = course.steps.iter();
        let steps = steps.filter(|(_, kind)| kind.takes_room());
        steps
            .map(|(step, _)| Fault::Full(*step, rng.below(5)))
            .collect()
    });
}

#[test]
fn promises_hold_after_any_read_that_failed() {
    let test = "promises_hold_after_any_read_that_failed";
    sweep(test, 14, |course, rng| {
        let reads = course.reads.clone();
        reads
            .map(|read| match rng.chance(1, 2) {
                true => Fault::Read(read, ReadFault::Once),
                false => Fault::Read(read, ReadFault::Sticky),
            })
            .collect()
    });
}

#[test]
fn promises_hold_after_a_write_out_that_failed() {
    let test = "promises_hold_after_a_write_out_that_failed";
    sweep(test, 14, |course, _| {
        let steps = course.steps.iter();
        steps.map(|(step, _)| Fault::WriteOut(*step)).collect()
    });
}
