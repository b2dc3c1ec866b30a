//! The store on a machine that stops: what design calls promises is checked after every durability
//! event of random workloads, for several legal survivors of each.
//!
//! `SAPWOOD_SIM_SEEDS` says how many seeds to run (each test prints those it runs), `SAPWOOD_SIM_SEED`
//! runs that one, and `SAPWOOD_SIM_STEPS=1` stops not only at durability events but at every write,
//! store and rename. `SAPWOOD_SIM_TRACE=1` shows the steps of what failed.
#![allow(clippy::unwrap_used)] // clippy knows test functions, not their helpers

mod damage;
mod disks;
mod forger;
mod model;
mod records;
mod workload;
mod world;

use std::env;

use sapwood_log::io::TailKind;
use sapwood_sim::{Capture, Machine, Rng, Stop};

use model::{End, Model};
use workload::Leaning;
use world::{Outcome, Survivor, World};

/// Runs a test for its seeds. A failure names the seed and the way to run it alone.
fn for_seeds(test: &str, seeds: u64, run: impl Fn(u64) -> Outcome<String>) {
    let number = |name: &str| {
        env::var(name)
            .ok()
            .and_then(|value| value.parse::<u64>().ok())
    };
    let seeds = match number("SAPWOOD_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..1 + number("SAPWOOD_SIM_SEEDS").unwrap_or(seeds),
    };
    for seed in seeds {
        println!("{test}: seed {seed}");
        match run(seed) {
            Ok(report) => println!("{test}: seed {seed}: {report}"),
            Err(error) => panic!(
                "{error}\nrun again with SAPWOOD_SIM_SEED={seed} cargo test -p sapwood-sim --test crash {test}"
            ),
        }
    }
}

/// Every third seed has a file system on which a mapped tail is not safe.
fn machine(seed: u64) -> Machine {
    let machine = Machine::new(seed);
    if seed.is_multiple_of(3) {
        machine.disk.set_tail_kind(TailKind::Pwrite);
    }
    machine
}

/// Failures show every step of the operation and of the recovery.
fn trace() -> bool {
    env::var_os("SAPWOOD_SIM_TRACE").is_some()
}

fn capture() -> Capture {
    if env::var_os("SAPWOOD_SIM_STEPS").is_some() {
        Capture::Steps
    } else {
        Capture::Syncs
    }
}

/// Runs a workload and gives every survivor to `check` as soon as it is there.
fn run(seed: u64, leaning: Leaning, mut check: impl FnMut(Survivor) -> Outcome) -> Outcome<World> {
    let mut rng = Rng::new(seed);
    let mut world = World::new(machine(seed), Model::default());
    world.machine.disk.capture(Some(capture()));
    if trace() {
        world.machine.disk.record();
    }
    for operation in 0..=leaning.operations() {
        if trace() {
            println!("operation {operation}");
        }
        let done = match operation {
            0 => workload::begin(&mut world),
            _ => workload::step(&mut world, &mut rng, leaning),
        };
        let steps = format!("{:#?}", world.machine.disk.take_history());
        if trace() {
            println!("{steps}");
        }
        done.map_err(|error| format!("operation {operation}: {error}\n{steps}"))?;
        for survivor in std::mem::take(&mut world.survivors) {
            let at = survivor.at.clone();
            let told = |error| format!("operation {operation}, {at}: {error}\n{steps}");
            check(survivor).map_err(told)?;
        }
    }
    Ok(world)
}

/// Lets a machine crash in these ways, one after the other, each but the first at a random event of the
/// recovery from the one before, and checks what is left.
fn survive(survivor: &Survivor, crashes: &[End], rng: &mut Rng) -> Outcome<World> {
    let mut world = World::new(survivor.machine.fork(), survivor.model.clone());
    if trace() {
        world.machine.disk.record();
    }
    for (index, crash) in crashes.iter().enumerate() {
        let disk = world.machine.disk.clone();
        world.crash(*crash, rng);
        let is_last = index + 1 == crashes.len();
        if !is_last {
            disk.stop_at(match rng.chance(1, 2) {
                true => Stop::Sync(disk.syncs() + rng.below(12)),
                false => Stop::Step(disk.steps() + rng.below(40)),
            });
        }
        match world.open() {
            Ok(_) => {}
            Err(_) if disk.is_off() => {}
            Err(error) => return Err(format!("{error}\n{:#?}", disk.take_history())),
        }
    }
    Ok(world)
}

fn either(rng: &mut Rng) -> End {
    *rng.pick(&[End::Kill, End::PowerCut])
}

/// The ways in which one stop is survived: a kill, power cuts, and crashes during the recovery.
fn ways(rng: &mut Rng) -> Vec<Vec<End>> {
    let mut ways = vec![vec![End::Kill], vec![End::PowerCut], vec![End::PowerCut]];
    ways.push(vec![either(rng), either(rng)]);
    if rng.chance(1, 4) {
        ways.push(vec![either(rng), either(rng), either(rng)]);
    }
    ways
}

/// Every survivor of a workload, one after the other.
fn check_every_stop(seed: u64, leaning: Leaning) -> Outcome<String> {
    let mut rng = Rng::new(seed ^ 0x00C0_FFEE);
    let (mut events, mut survivors) = (0, 0);
    let mut world = run(seed, leaning, |survivor| {
        events += 1;
        for way in ways(&mut rng) {
            survivors += 1;
            let told = |error| format!("{way:?}: {error}");
            let mut world = survive(&survivor, &way, &mut rng).map_err(told)?;
            if rng.chance(1, 6) {
                let end = either(&mut rng);
                workload::go_on(&mut world, &mut rng).map_err(told)?;
                workload::restart(&mut world, end, &mut rng).map_err(told)?;
            }
        }
        Ok(())
    })?;
    world.tally();
    let tally = world.tally;
    if tally.rounds == 0 || (leaning == Leaning::Mixed && tally.segments < 2) {
        return Err(format!("the workload reaches too little: {tally:?}"));
    }
    let (syncs, steps) = (world.machine.disk.syncs(), world.machine.disk.steps());
    Ok(format!(
        "{syncs} durability events of {steps} steps, {events} stops, {survivors} survivors, {tally:?}"
    ))
}

#[test]
fn promises_hold_after_a_stop_at_every_event() {
    for_seeds("promises_hold_after_a_stop_at_every_event", 3, |seed| {
        check_every_stop(seed, Leaning::Mixed)
    });
}

#[test]
fn a_client_that_forges_journal_rounds_gains_nothing() {
    for_seeds(
        "a_client_that_forges_journal_rounds_gains_nothing",
        2,
        |seed| {
            let report = check_every_stop(seed, Leaning::Forgery)?;
            let (real, forged) = forgeries(seed)?;
            if real == 0 || forged == 0 {
                return Err(format!(
                    "{real} real and {forged} forged rounds: the forger is blind"
                ));
            }
            Ok(format!(
                "{report}; {real} real and {forged} forged rounds on page boundaries"
            ))
        },
    );
}

/// Counts rounds, real and forged, on the disk after some rounds of a forging client.
fn forgeries(seed: u64) -> Outcome<(usize, usize)> {
    let mut world = World::new(machine(seed), Model::default());
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
fn promises_hold_after_a_sync_that_failed() {
    for_seeds("promises_hold_after_a_sync_that_failed", 2, |seed| {
        let mut rng = Rng::new(seed ^ 0x0BAD_5EED);
        let baseline = run(seed, Leaning::Mixed, |_| Ok(()))?;
        let syncs = baseline.machine.disk.syncs();
        let mut tried = 0;
        for sync in first_sync_of_work(seed)?..syncs {
            if !rng.chance(1, 2) {
                continue;
            }
            tried += 1;
            fail_one_sync(seed, sync, &mut rng)
                .map_err(|error| format!("sync {sync} fails: {error}"))?;
        }
        Ok(format!("{tried} of {syncs} syncs failed"))
    });
}

/// Before this sync there is no data directory that anybody could have used.
fn first_sync_of_work(seed: u64) -> Outcome<u64> {
    let mut world = World::new(machine(seed), Model::default());
    world.open()?;
    Ok(world.machine.disk.syncs())
}

/// Runs the workload with one sync that fails, goes on for a while, then crashes, twice.
fn fail_one_sync(seed: u64, sync: u64, rng: &mut Rng) -> Outcome {
    let mut work = Rng::new(seed);
    let mut world = World::new(machine(seed), Model::default());
    let disk = world.machine.disk.clone();
    if trace() {
        disk.record();
    }
    disk.fail_sync(sync);
    world.faulty = true;
    let mut after = rng.below(6);
    let mut done = workload::begin(&mut world);
    for _ in 0..Leaning::Mixed.operations() {
        if done.is_err() || (disk.syncs() > sync && after == 0) {
            break;
        }
        after -= u64::from(disk.syncs() > sync);
        done = workload::step(&mut world, &mut work, Leaning::Mixed);
    }
    let end = either(rng);
    done = done.and_then(|()| workload::restart(&mut world, end, rng));
    // Recovery has made everything durable that it found, whatever the kernel thinks is clean.
    done = done.and_then(|()| workload::restart(&mut world, End::PowerCut, rng));
    world.faulty = false;
    done = done.and_then(|()| workload::go_on(&mut world, rng));
    done.map_err(|error| format!("{error}\n{:#?}", disk.take_history()))
}

#[test]
fn a_full_disk_refuses_produce_and_everything_else_goes_on() {
    for_seeds(
        "a_full_disk_refuses_produce_and_everything_else_goes_on",
        6,
        |seed| {
            let mut rng = Rng::new(seed);
            let mut world = World::new(machine(seed), Model::default());
            workload::begin(&mut world)?;
            for _ in 0..20 {
                workload::step(&mut world, &mut rng, Leaning::Running)?;
            }
            let mut refused = 0;
            for _ in 0..3 {
                world.fill_disk(rng.below(12))?;
                for _ in 0..30 {
                    workload::step(&mut world, &mut rng, Leaning::Running)?;
                }
                refused += world.check_full()?;
                world.machine.disk.set_capacity(None);
                world.faulty = false;
                world.step_maintenance()?;
                workload::go_on(&mut world, &mut rng)?;
                let end = either(&mut rng);
                workload::restart(&mut world, end, &mut rng)?;
            }
            Ok(format!("{refused} appends were refused"))
        },
    );
}

#[test]
fn one_flipped_byte_anywhere_is_never_taken_for_the_end_of_a_log() {
    for_seeds(
        "one_flipped_byte_anywhere_is_never_taken_for_the_end_of_a_log",
        3,
        |seed| {
            let mut rng = Rng::new(seed);
            let mut world = World::new(machine(seed), Model::default());
            workload::begin(&mut world)?;
            for _ in 0..60 {
                workload::step(&mut world, &mut rng, Leaning::Running)?;
            }
            let (mut flips, mut offline, mut refused) = (0, 0, 0);
            for _ in 0..60 {
                flips += 1;
                let mut damaged = World::new(world.machine.fork(), world.model.clone());
                damaged.crash(either(&mut rng), &mut rng);
                let at = damage::flip_a_byte(&damaged.machine.disk, &mut rng)?;
                match damaged.open_damaged(&at.path) {
                    Ok(Some(count)) => offline += count,
                    Ok(None) => refused += 1,
                    Err(error) => return Err(format!("{at}: {error}")),
                }
            }
            Ok(format!(
                "{flips} flips: {offline} partitions offline, {refused} starts refused"
            ))
        },
    );
}
