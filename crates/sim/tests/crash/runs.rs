//! Seeds, workloads and survivors: what all tests of this binary have in common.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};

use sapwood_log::io::TailKind;
use sapwood_sim::{Capture, Injected, Machine, Rng, Stop, TailSwitch};

use crate::model::{End, Model, Shape};
use crate::workload::{self, Leaning};
use crate::world::{Outcome, Survivor, World};

/// What a test did with one seed. Printed for people, and for tools/crash.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tried {
    /// Workloads that were run, whole or until a fault was over.
    pub(crate) workloads: u64,
    /// Events that a workload or a recovery was stopped at, or failed at.
    pub(crate) events: u64,
    /// Disks that were recovered and checked.
    pub(crate) survivors: u64,
    /// Starts that a fault prevented.
    pub(crate) refused: u64,
    /// Partitions that a fault took offline.
    pub(crate) offline: u64,
    /// Changes at rest: flipped bits, sectors zeroed or misdirected.
    pub(crate) damages: u64,
    pub(crate) rounds: u64,
    /// Files of the journal that were begun.
    pub(crate) journal_files: u64,
}

impl Tried {
    fn print(&self, test: &str, seed: u64, injected: &Injected) {
        let Tried {
            workloads,
            events,
            survivors,
            refused,
            offline,
            damages,
            rounds,
            journal_files,
        } = self;
        let Injected {
            power_cuts,
            pages_lost,
            pages_kept,
            pages_torn,
            pages_written_back,
            failed_syncs,
            failed_write_outs,
            failed_writes,
            failed_reads,
            full,
        } = injected;
        println!(
            "sim-tally test={test} seed={seed} workloads={workloads} events={events} \
             survivors={survivors} refused={refused} offline={offline} damages={damages} \
             rounds={rounds} journal_files={journal_files} power_cuts={power_cuts} \
             pages_lost={pages_lost} pages_kept={pages_kept} pages_torn={pages_torn} \
             pages_written_back={pages_written_back} failed_syncs={failed_syncs} \
             failed_write_outs={failed_write_outs} failed_writes={failed_writes} \
             failed_reads={failed_reads} full={full}"
        );
    }
}

/// A machine and what is tried on it; every other machine of a seed is a copy of its.
pub(crate) struct Trial {
    pub(crate) seed: u64,
    pub(crate) tried: Tried,
    origin: Machine,
}

impl Trial {
    /// An empty machine that belongs to this seed, and a model of it.
    pub(crate) fn world(&self) -> World {
        let model = Model {
            shape: Shape::of(self.seed),
            ..Model::default()
        };
        World::new(self.origin.fork(), model)
    }
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().and_then(|value| value.parse().ok())
}

/// Whether somebody asked for one seed, such as `tools/crash`, which tries many one by one.
pub(crate) fn is_one_seed() -> bool {
    number("SAPWOOD_SIM_SEED").is_some()
}

/// How many times more faults are tried than `cargo test` has time for.
pub(crate) fn sample_factor() -> u64 {
    number("SAPWOOD_SIM_SAMPLE").unwrap_or(1).max(1)
}

/// Runs a test for its seeds. A failure names the seed and the way to run it alone; the other seeds are
/// tried all the same.
pub(crate) fn for_seeds(test: &str, seeds: u64, run: impl Fn(&mut Trial) -> Outcome) {
    let seeds = match number("SAPWOOD_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..1 + number("SAPWOOD_SIM_SEEDS").unwrap_or(seeds),
    };
    let mut failed = Vec::new();
    for seed in seeds {
        println!("{test}: seed {seed}");
        let mut trial = Trial {
            seed,
            tried: Tried::default(),
            origin: machine(seed),
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| run(&mut trial)));
        let injected = trial.origin.disk.injected();
        trial.tried.print(test, seed, &injected);
        let error = match outcome {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error,
            Err(_) => "it panicked".to_owned(),
        };
        let sample = match sample_factor() {
            1 => String::new(),
            factor => format!(" SAPWOOD_SIM_SAMPLE={factor}"),
        };
        println!(
            "sim-violation test={test} seed={seed} rerun=\"SAPWOOD_SIM_SEED={seed}{sample} cargo test -p sapwood-sim --test crash {test}\""
        );
        println!("{error}");
        failed.push(seed);
    }
    assert!(
        failed.is_empty(),
        "{test} failed with seeds {failed:?}; run one of them again with SAPWOOD_SIM_SEED={} cargo test -p sapwood-sim --test crash {test}",
        failed[0]
    );
}

/// Every third seed has a file system on which a mapped tail is not safe. Elsewhere most batches at the
/// beginning of a segment are written, and the others stored. Half of the machines write back on their
/// own.
fn machine(seed: u64) -> Machine {
    let machine = Machine::new(seed);
    if seed.is_multiple_of(3) {
        machine.disk.set_tail_kind(TailKind::Pwrite);
    }
    machine.disk.set_tail_switch(TailSwitch {
        below: 4 << 10,
        bytes_min: 300,
    });
    if seed % 4 == 3 {
        machine.disk.set_write_back(8 + seed % 64);
    }
    machine
}

/// Failures show every step of the operation and of the recovery.
pub(crate) fn trace() -> bool {
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
pub(crate) fn run(
    trial: &Trial,
    leaning: Leaning,
    mut check: impl FnMut(Survivor) -> Outcome,
) -> Outcome<World> {
    let mut rng = Rng::new(trial.seed);
    let mut world = trial.world();
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
pub(crate) fn survive(survivor: &Survivor, crashes: &[End], rng: &mut Rng) -> Outcome<World> {
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
                true => Stop::Sync(disk.syncs() + rng.below(24)),
                false => {
                    let within = *rng.pick(&[20, 80, 300]);
                    Stop::Step(disk.steps() + rng.below(within))
                }
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

pub(crate) fn either(rng: &mut Rng) -> End {
    *rng.pick(&[End::Kill, End::PowerCut])
}

/// The ways in which one stop is survived: a kill, power cuts, and crashes during the recovery.
pub(crate) fn ways(rng: &mut Rng) -> Vec<Vec<End>> {
    let power_cuts = if sample_factor() == 1 { 1 } else { 3 };
    let mut ways = vec![vec![End::Kill]];
    ways.extend((0..power_cuts).map(|_| vec![End::PowerCut]));
    ways.push(vec![either(rng), either(rng)]);
    if rng.chance(1, 4) {
        ways.push(vec![either(rng), either(rng), either(rng)]);
    }
    ways
}
