//! The whole broker on a machine that stops: catalog, topics, logs, producers and groups are checked
//! after every durability event of random workloads, for several legal survivors of each.
//!
//! `SAPWOOD_SIM_SEEDS` says how many seeds to run (each test prints those it runs), `SAPWOOD_SIM_SEED`
//! runs that one, `SAPWOOD_SIM_SAMPLE` above 1 tries more with each, and `SAPWOOD_SIM_STEPS=1` stops not only at durability events but at every write,
//! store and rename. `SAPWOOD_SIM_TRACE=1` shows the steps of what failed.
#![allow(clippy::unwrap_used)] // clippy knows test functions, not their helpers

mod clients;
mod found;
mod log;
mod model;
mod retention;
mod workload;
mod world;

use std::env;
use std::time::Duration;

use sapwood_broker::Driver;
use sapwood_log::io::TailKind;
use sapwood_sim::{Capture, Machine, Rng, SimDisk, Stop, WriteFault};

use model::{End, Model, Outcome};
use workload::Leaning;
use world::{Survivor, World};

/// `cargo test` tries a part of what tools/crash tries, which sets `SAPWOOD_SIM_SAMPLE`.
fn is_long() -> bool {
    let sample = env::var("SAPWOOD_SIM_SAMPLE").ok();
    sample.and_then(|value| value.parse::<u64>().ok()) > Some(1)
}

fn operations() -> usize {
    if is_long() { 40 } else { 24 }
}

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
                "{error}\nrun again with SAPWOOD_SIM_SEED={seed} cargo test -p sapwood-sim --test broker {test}"
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

fn trace() -> bool {
    env::var_os("SAPWOOD_SIM_TRACE").is_some()
}

fn capture() -> Capture {
    match env::var_os("SAPWOOD_SIM_STEPS") {
        Some(_) => Capture::Steps,
        None => Capture::Syncs,
    }
}

/// Runs a workload and gives every survivor to `check` as soon as it is there.
fn run(seed: u64, driver: Driver, mut check: impl FnMut(Survivor) -> Outcome) -> Outcome<World> {
    let mut rng = Rng::new(seed);
    let mut world = World::new(machine(seed), Model::ageing(), seed);
    world.driver = driver;
    world.machine.disk.capture(Some(capture()));
    if trace() {
        world.machine.disk.record();
    }
    for operation in 0..=operations() {
        let done = match operation {
            0 => workload::begin(&mut world),
            _ => workload::step(&mut world, &mut rng, Leaning::Mixed),
        };
        let steps = format!("{:#?}", world.machine.disk.take_history());
        if trace() {
            println!("operation {operation}\n{steps}");
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
    let seed = rng.below(1 << 16);
    let mut world = World::new(survivor.machine.fork(), survivor.model.clone(), seed);
    world.next_number = (1 << 40) + (seed << 16);
    if trace() {
        world.machine.disk.record();
    }
    for (index, crash) in crashes.iter().enumerate() {
        let disk = world.machine.disk.clone();
        world.crash(*crash, rng)?;
        let is_last = index + 1 == crashes.len();
        if !is_last {
            disk.stop_at(match rng.chance(1, 2) {
                true => Stop::Sync(disk.syncs() + rng.below(14)),
                false => Stop::Step(disk.steps() + rng.below(50)),
            });
        }
        match world.open() {
            Ok(()) => {}
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
    let mut ways = vec![vec![End::Kill], vec![End::PowerCut]];
    ways.push(vec![either(rng), either(rng)]);
    if is_long() || rng.chance(1, 2) {
        ways.push(vec![End::PowerCut]);
    }
    if rng.chance(1, 4) {
        ways.push(vec![either(rng), either(rng), either(rng)]);
    }
    ways
}

/// Every survivor of a workload, one after the other.
/// It costs less to check one in `every`.
fn check_every_stop(seed: u64, driver: Driver, every: u64) -> Outcome<String> {
    let mut rng = Rng::new(seed ^ 0x00C0_FFEE);
    let (mut events, mut survivors) = (0, 0);
    let mut world = run(seed, driver, |survivor| {
        events += 1;
        if !rng.chance(1, every) {
            return Ok(());
        }
        for way in ways(&mut rng) {
            survivors += 1;
            let told = |error| format!("{way:?}: {error}");
            let mut world = survive(&survivor, &way, &mut rng).map_err(told)?;
            match rng.below(12) {
                0 => open_again(&mut world, &mut rng).map_err(told)?,
                1 => {
                    let end = either(&mut rng);
                    workload::go_on(&mut world, &mut rng).map_err(told)?;
                    workload::restart(&mut world, end, &mut rng).map_err(told)?;
                }
                _ => {}
            }
        }
        Ok(())
    })?;
    world.tally_up();
    let (syncs, steps) = (world.machine.disk.syncs(), world.machine.disk.steps());
    let tally = world.tally;
    Ok(format!(
        "{syncs} durability events of {steps} steps, {events} stops, {survivors} survivors, {tally:?}"
    ))
}

/// What a recovery has found is there again after the next crash, whatever it is.
fn open_again(world: &mut World, rng: &mut Rng) -> Outcome {
    // So that nothing is left that retention is yet to remove.
    let find = |world: &mut World| {
        for _ in 0..4 {
            world.pass(Duration::from_secs(2))?;
        }
        world.find()
    };
    let first = find(world)?;
    workload::restart(world, End::PowerCut, rng)?;
    let mut second = find(world)?;
    for (topic, before) in second.topics.values_mut().zip(first.topics.values()) {
        for (log, before) in topic.logs.iter_mut().zip(&before.logs) {
            // It may rise.
            log.epoch = log.epoch.max(before.epoch).min(before.epoch);
        }
    }
    match first == second {
        true => Ok(()),
        false => Err(format!("found {first:?}, and then {second:?}")),
    }
}

#[test]
fn promises_of_the_broker_hold_after_a_stop_at_every_event() {
    for_seeds(
        "promises_of_the_broker_hold_after_a_stop_at_every_event",
        1,
        |seed| check_every_stop(seed, Driver::Caller, 1),
    );
}

#[test]
fn the_same_seed_repeats_every_step_of_the_broker() {
    for_seeds(
        "the_same_seed_repeats_every_step_of_the_broker",
        1,
        |seed| {
            let history = || {
                let mut rng = Rng::new(seed);
                let mut world = World::new(machine(seed), Model::ageing(), seed);
                world.machine.disk.record();
                workload::begin(&mut world)?;
                for _ in 0..operations() {
                    workload::step(&mut world, &mut rng, Leaning::Mixed)?;
                }
                Outcome::Ok(world.machine.disk.take_history())
            };
            let (first, second) = (history()?, history()?);
            if let Some(at) = (0..first.len()).find(|at| first.get(*at) != second.get(*at)) {
                let (one, other) = (&first[at], second.get(at));
                return Err(format!("step {at} was {one}, and then {other:?}"));
            }
            Ok(format!("{} steps, twice", first.len()))
        },
    );
}

#[test]
fn promises_of_the_broker_hold_after_a_sync_that_failed() {
    let test = "promises_of_the_broker_hold_after_a_sync_that_failed";
    for_seeds(test, 1, |seed| {
        let mut rng = Rng::new(seed ^ 0x0BAD_5EED);
        let baseline = run(seed, Driver::Caller, |_| Ok(()))?;
        let (first, _) = first_of_work(seed)?;
        let syncs = baseline.machine.disk.syncs();
        let mut tried = 0;
        for sync in first..syncs {
            if !rng.chance(1, 4) && !is_long() {
                continue;
            }
            tried += 1;
            fail_one(seed, &mut rng, |disk| {
                disk.fail_sync(sync);
                Box::new(move |disk: &SimDisk| disk.syncs() > sync)
            })
            .map_err(|error| format!("sync {sync} fails: {error}"))?;
        }
        tell(test, seed, tried);
        Ok(format!("{tried} of {syncs} syncs failed"))
    });
}

#[test]
fn promises_of_the_broker_hold_after_a_write_that_failed() {
    let test = "promises_of_the_broker_hold_after_a_write_that_failed";
    for_seeds(test, 1, |seed| {
        let mut rng = Rng::new(seed ^ 0x0BAD_F00D);
        let baseline = run(seed, Driver::Caller, |_| Ok(()))?;
        let (_, first) = first_of_work(seed)?;
        let steps = baseline.machine.disk.steps();
        let mut tried = 0;
        for _ in 0..30 {
            let step = first + rng.below(steps - first);
            let fault = *rng.pick(&[WriteFault::Io, WriteFault::NoSpace]);
            tried += 1;
            fail_one(seed, &mut rng, |disk| {
                disk.fail_step(step, fault);
                Box::new(move |disk: &SimDisk| disk.steps() > step)
            })
            .map_err(|error| format!("step {step} fails with {fault:?}: {error}"))?;
        }
        tell(test, seed, tried);
        Ok(format!("{tried} of {steps} steps failed"))
    });
}

/// Before this sync and step there is no data directory that anybody could have used.
fn first_of_work(seed: u64) -> Outcome<(u64, u64)> {
    let mut world = World::new(machine(seed), Model::ageing(), seed);
    world.open()?;
    Ok((world.machine.disk.syncs(), world.machine.disk.steps()))
}

/// What tools/crash adds up: each workload with a fault ends in two crashes.
fn tell(test: &str, seed: u64, tried: u64) {
    let survivors = 2 * tried;
    println!(
        "sim-tally test={test} seed={seed} workloads={tried} events={tried} survivors={survivors}"
    );
}

type Passed = Box<dyn Fn(&SimDisk) -> bool>;

/// Runs the workload with one failure, goes on for a while, then crashes, twice.
fn fail_one(seed: u64, rng: &mut Rng, fail: impl FnOnce(&SimDisk) -> Passed) -> Outcome {
    let mut work = Rng::new(seed);
    let mut world = World::new(machine(seed), Model::ageing(), seed);
    let disk = world.machine.disk.clone();
    if trace() {
        disk.record();
    }
    let has_passed = fail(&disk);
    world.faulty = true;
    let mut after = rng.below(6);
    let mut done = workload::begin(&mut world);
    for _ in 0..operations() {
        if done.is_err() || (has_passed(&disk) && after == 0) {
            break;
        }
        after -= u64::from(has_passed(&disk));
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

/// The folders of many partitions are synced at once, then renamed; the sync that is to make that durable
/// fails.
#[test]
fn a_new_topic_whose_names_failed_to_sync_is_whole_after_the_next_power_cut() {
    let test = "a_new_topic_whose_names_failed_to_sync_is_whole_after_the_next_power_cut";
    for_seeds(test, 10, |seed| {
        let mut rng = Rng::new(seed);
        let made = |failing: Option<u64>| {
            let mut world = World::new(Machine::new(seed), Model::ageing(), seed);
            world.faulty = failing.is_some();
            workload::begin(&mut world)?;
            if let Some(sync) = failing {
                world.machine.disk.fail_sync(sync);
            }
            let groups = world.broker()?.groups();
            // The topic of groups.
            let _ = world.run(async move { groups.prepare().await })?;
            Outcome::Ok(world)
        };
        let mut baseline = World::new(Machine::new(seed), Model::ageing(), seed);
        workload::begin(&mut baseline)?;
        let syncs = baseline.machine.disk.syncs()..made(None)?.machine.disk.syncs();
        let mut tried = 0;
        for sync in syncs {
            let mut world = made(Some(sync))?;
            tried += u64::from(world.broker()?.read_only().is_some());
            for end in [End::Kill, End::PowerCut, End::Kill] {
                workload::restart(&mut world, end, &mut rng)?;
            }
        }
        match tried {
            0 => Err("no sync failed".to_owned()),
            _ => Ok(format!("{tried} syncs failed")),
        }
    });
}

#[test]
fn a_full_disk_refuses_produce_and_commits_and_deletes_go_on() {
    for_seeds(
        "a_full_disk_refuses_produce_and_commits_and_deletes_go_on",
        2,
        |seed| {
            let mut rng = Rng::new(seed);
            let mut world = World::new(machine(seed), Model::ageing(), seed);
            workload::begin(&mut world)?;
            for _ in 0..20 {
                workload::step(&mut world, &mut rng, Leaning::Running)?;
            }
            for _ in 0..3 {
                world.fill_disk(rng.below(12))?;
                for _ in 0..20 {
                    workload::step(&mut world, &mut rng, Leaning::Running)?;
                }
                workload::check_full(&mut world, &mut rng)?;
                world.machine.disk.set_capacity(None);
                world.faulty = false;
                world.rest()?;
                workload::go_on(&mut world, &mut rng)?;
                let end = either(&mut rng);
                workload::restart(&mut world, end, &mut rng)?;
            }
            if world.tally.refused == 0 {
                return Err("the disk was never full".to_owned());
            }
            Ok(format!("{} requests were refused", world.tally.refused))
        },
    );
}

/// The store's threads and the blocking pool do the work, so that a failure may not repeat.
#[test]
fn promises_of_the_broker_hold_when_threads_do_the_work() {
    for_seeds(
        "promises_of_the_broker_hold_when_threads_do_the_work",
        1,
        |seed| check_every_stop(seed, Driver::Threads, 8),
    );
}
