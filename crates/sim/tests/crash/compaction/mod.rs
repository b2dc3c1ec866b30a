//! Compaction against a plain reference, on a machine that stops and fails at every step of it.

mod log;

use std::time::Duration;

use sapwood_model::Offset;
use sapwood_sim::{ReadFault, Rng, StepKind, Stop, WriteFault};

use crate::faulty::Fault;
use crate::model::End;
use crate::runs::{Trial, either, for_seeds, sample_factor};
use crate::world::Outcome;
use log::{Found, Log, RETENTION};

fn new_log(trial: &Trial, rng: &mut Rng) -> Outcome<Log> {
    let mut log = Log::new(trial.world().machine, rng);
    log.open()?;
    Ok(log)
}

/// Reads all of it in pieces of some size and holds it against the reference.
fn check(log: &Log, rng: &mut Rng) -> Outcome<Found> {
    let found = log.read(*rng.pick(&[1, 700, 5000, 1 << 20]))?;
    log.check(&found)?;
    Ok(found)
}

fn restart(log: &mut Log, rng: &mut Rng) -> Outcome {
    match rng.below(5) {
        0 => log.stop()?,
        _ => log.crash(either(rng), rng),
    }
    if log.files().iter().any(|name| name.ends_with(".swap")) {
        log.verify()?;
    }
    log.open()
}

#[test]
fn what_is_left_of_a_log_is_what_a_plain_reference_says() {
    for_seeds(
        "what_is_left_of_a_log_is_what_a_plain_reference_says",
        8,
        |trial| {
            let mut rng = Rng::new(trial.seed);
            let mut log = new_log(trial, &mut rng)?;
            let mut removed = 0;
            for _ in 0..120 {
                match rng.below(40) {
                    0..18 => log.append(&mut rng)?,
                    18..20 => log.settle()?,
                    20..24 => log.sync()?,
                    24..26 => log.roll()?,
                    26 => log.trim(&mut rng)?,
                    27 => log.machine.clock.advance(RETENTION / 3),
                    28..30 => log.machine.clock.advance(Duration::from_secs(1)),
                    30..32 => {
                        restart(&mut log, &mut rng)?;
                        trial.tried.survivors += 1;
                    }
                    32 => log.dedupe_bytes = *rng.pick(&[0, 1, 3000, 1 << 20]),
                    33..35 => {
                        // Given up somewhere.
                        let steps = rng.below(12);
                        let given_up = log.compact_in_steps(1 + rng.below(3000), steps, |_| Ok(()));
                        given_up.map_err(|error| error.to_string())?;
                    }
                    35 => {
                        let mut readers = rng.split();
                        let read = log.compact_in_steps(1 + rng.below(3000), u64::MAX, |log| {
                            check(log, &mut readers).map(drop)
                        });
                        read.map_err(|error| error.to_string())?;
                    }
                    _ => {
                        let stats = log.compact()?;
                        removed += stats.map_or(0, |stats| stats.removed_records);
                        trial.tried.events += 1;
                    }
                }
                check(&log, &mut rng)?;
            }
            trial.tried.workloads = 1;
            if removed == 0 && trial.seed == 1 {
                return Err("nothing was ever removed".to_owned());
            }
            Ok(())
        },
    );
}

#[test]
fn no_segment_is_compacted_that_a_recovery_writes_anew_from_the_journal() {
    for_seeds(
        "no_segment_is_compacted_that_a_recovery_writes_anew_from_the_journal",
        8,
        |trial| {
            let mut rng = Rng::new(trial.seed);
            let mut log = new_log(trial, &mut rng)?;
            for _ in 0..20 {
                log.append(&mut rng)?;
            }
            log.settle()?;
            // No checkpoint from here on: the journal has everything.
            for _ in 0..8 {
                for _ in 0..1 + rng.below(12) {
                    log.append(&mut rng)?;
                }
                log.sync()?;
                log.compact()?;
                check(&log, &mut rng)?;
                let mut crashed = log.fork();
                crashed.crash(either(&mut rng), &mut rng);
                crashed.open()?;
                check(&crashed, &mut rng)?;
                trial.tried.survivors += 1;
            }
            trial.tried.workloads = 1;
            Ok(())
        },
    );
}

/// A log with several segments to compact, of which some were compacted before.
fn prepared(trial: &Trial, rng: &mut Rng) -> Outcome<Log> {
    let mut log = new_log(trial, rng)?;
    for round in 0..2 {
        for _ in 0..20 + rng.below(20) {
            log.append(rng)?;
        }
        log.settle()?;
        if round == 0 && rng.chance(2, 3) {
            log.compact()?;
            log.machine.clock.advance(RETENTION * 2);
        }
    }
    log.roll()?;
    if rng.chance(1, 3) {
        log.trim(rng)?;
    }
    log.settle()?;
    Ok(log)
}

/// The same log in a process of its own.
fn opened(log: &Log) -> Outcome<Log> {
    let mut copy = log.fork();
    copy.open()?;
    Ok(copy)
}

/// What there was before a compaction and what is there after it, segment by segment of the outcome.
struct Course {
    before: Found,
    after: Found,
    groups: Vec<std::ops::Range<Offset>>,
    steps: std::ops::Range<u64>,
    syncs: std::ops::Range<u64>,
    reads: std::ops::Range<u64>,
    kinds: Vec<(u64, StepKind)>,
}

impl Course {
    fn of(log: &Log) -> Outcome<Course> {
        let mut log = opened(log)?;
        let before = log.read(1 << 20)?;
        let disk = log.machine.disk.clone();
        let (steps, syncs, reads) = (disk.steps(), disk.syncs(), disk.reads());
        disk.record_kinds();
        log.compact()?;
        log.settle()?;
        let kinds = disk.take_kinds();
        let (steps, syncs, reads) = (
            steps..disk.steps(),
            syncs..disk.syncs(),
            reads..disk.reads(),
        );
        let after = log.read(1 << 20)?;
        log.check(&after)?;
        let partition = log.partition.clone().ok_or("not open")?;
        let summary = partition.retention_summary().ok_or("offline")?;
        Ok(Course {
            before,
            after,
            groups: summary
                .segments
                .into_iter()
                .map(|one| one.offsets)
                .collect(),
            steps,
            syncs,
            reads,
            kinds,
        })
    }

    /// Every segment is as it was or as it becomes.
    fn check(&self, found: &Found) -> Outcome {
        for group in &self.groups {
            let part = |all: &Found| -> Vec<Offset> {
                all.range(group.clone())
                    .map(|(offset, _)| *offset)
                    .collect()
            };
            let now = part(found);
            if now != part(&self.before) && now != part(&self.after) {
                return Err(format!(
                    "{group:?} has {now:?}; it had {:?}, and gets {:?}",
                    part(&self.before),
                    part(&self.after)
                ));
            }
        }
        Ok(())
    }
}

/// The machine has stopped in a compaction. It starts again, perhaps not at once, and the next run finishes
/// the work.
fn survive(log: &mut Log, course: &Course, rng: &mut Rng) -> Outcome {
    log.verify()?;
    for _ in 0..rng.below(3) {
        // A recovery that stops, too.
        let disk = log.machine.disk.clone();
        disk.stop_at(Stop::Step(disk.steps() + rng.below(30)));
        let _ = log.open();
        log.crash(either(rng), rng);
    }
    log.open()?;
    let left: Vec<String> = log.files();
    if let Some(name) = left
        .iter()
        .find(|name| name.contains("swap") || name.contains("clean") && name.ends_with("tmp"))
    {
        return Err(format!("{name} is left"));
    }
    let found = check(log, rng)?;
    course.check(&found)?;
    log.compact()?;
    let found = check(log, rng)?;
    if found != course.after {
        return Err("the next run does not finish it".to_owned());
    }
    Ok(())
}

#[test]
fn a_compaction_that_stops_at_any_step_leaves_each_segment_before_or_after() {
    for_seeds(
        "a_compaction_that_stops_at_any_step_leaves_each_segment_before_or_after",
        4,
        |trial| {
            let mut rng = Rng::new(trial.seed);
            let mut log = prepared(trial, &mut rng)?;
            log.stop()?;
            let course = Course::of(&log)?;
            for step in course.steps.clone() {
                let mut stopped = opened(&log)?;
                let disk = stopped.machine.disk.clone();
                disk.stop_at(Stop::Step(step));
                let _ = stopped.compact();
                let _ = stopped.settle();
                if !disk.is_off() {
                    return Err(format!("nothing stopped at step {step}"));
                }
                trial.tried.events += 1;
                let ends = [End::Kill, End::PowerCut, End::PowerCut];
                for end in &ends[..2 + usize::from(sample_factor() > 1)] {
                    let mut survivor = stopped.fork();
                    survivor.crash(*end, &mut rng);
                    trial.tried.survivors += 1;
                    survive(&mut survivor, &course, &mut rng)
                        .map_err(|error| format!("step {step}, {end:?}: {error}"))?;
                }
            }
            trial.tried.workloads = 1;
            Ok(())
        },
    );
}

#[test]
fn a_compaction_in_which_anything_fails_loses_nothing() {
    for_seeds(
        "a_compaction_in_which_anything_fails_loses_nothing",
        3,
        |trial| {
            let mut rng = Rng::new(trial.seed);
            let mut log = prepared(trial, &mut rng)?;
            log.stop()?;
            let course = Course::of(&log)?;
            let syncs = course.syncs.clone().map(Fault::Sync);
            let steps = course.kinds.iter().flat_map(|(step, _)| {
                [WriteFault::Io, WriteFault::NoSpace].map(|fault| Fault::Step(*step, fault))
            });
            let reads = course.reads.clone().flat_map(|at| {
                [ReadFault::Once, ReadFault::Sticky].map(|fault| Fault::Read(at, fault))
            });
            for fault in syncs.chain(steps).chain(reads) {
                let mut faulty = opened(&log)?;
                fault.arm(&faulty.machine.disk);
                let compacted = faulty.compact();
                trial.tried.events += 1;
                let told = |error| format!("{fault}, {compacted:?}: {error}");
                // It goes on as well as it can.
                let _ = faulty.settle();
                faulty.machine.disk.make_readable();
                faulty.crash(either(&mut rng), &mut rng);
                trial.tried.survivors += 1;
                survive(&mut faulty, &course, &mut rng).map_err(told)?;
            }
            trial.tried.workloads = 1;
            Ok(())
        },
    );
}
