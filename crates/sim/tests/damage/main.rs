//! Damage at rest, exhaustively: every bit, every length, every sector, every file of a small data
//! directory, after a clean stop, a kill and a power cut. The directory is checked, opened and read
//! each time, and held against what was appended.
//!
//! `cargo test` runs a sample. `SAPWOOD_DAMAGE=all cargo test --profile crash -p sapwood-sim --test
//! damage -- --nocapture` runs everything and prints the tables; `SAPWOOD_DAMAGE=kill:123` tells the
//! story of one case; `SAPWOOD_SIM_SEED` picks another directory and another sample.
#![allow(clippy::unwrap_used)] // The helpers of a test fail it by panicking.

mod cases;
mod named;
mod outcome;
mod scene;
mod table;

use std::{
    collections::BTreeMap,
    env, panic,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
    time::Instant,
};

use cases::Cases;
use sapwood_sim::Rng;
use scene::{Scene, scenes};
use table::Table;

/// How many cases of each file and damage kind a sample holds, for each scene, unless
/// `SAPWOOD_DAMAGE` says another number.
const SAMPLE: usize = 6;

/// How many violations of a sort are told in full.
const TOLD: usize = 2;

fn seed() -> u64 {
    let asked = env::var("SAPWOOD_SIM_SEED").ok();
    asked.map_or(1, |seed| seed.parse().unwrap())
}

#[test]
fn damage_is_survived_refused_or_reported_and_never_served() {
    let seed = seed();
    println!("seed {seed}");
    let asked = env::var("SAPWOOD_DAMAGE").ok();
    if let Some((name, number)) = asked.as_deref().and_then(|asked| asked.split_once(':')) {
        return tell(seed, name, number.parse().unwrap());
    }
    let all = asked.as_deref() == Some("all");
    let threads = env::var("SAPWOOD_DAMAGE_THREADS").ok();
    let threads: usize = threads.map_or(1, |threads| threads.parse().unwrap());
    let started = Instant::now();
    let mut table = Table::default();
    let mut violations = 0;
    panic::set_hook(Box::new(|_| {})); // a panic in a case is counted and told
    for scene in scenes(seed) {
        let cases = Cases::of(&scene, seed);
        let chosen: Vec<usize> = if all {
            (0..cases.damages.len()).collect()
        } else {
            let each = asked
                .as_deref()
                .map_or(SAMPLE, |each| each.parse().unwrap());
            sample(&cases, each, seed)
        };
        let (part, told) = try_all(&scene, &cases, &chosen, threads);
        table.add(part);
        println!(
            "{}: {} of {} cases, {} violations, {} s",
            scene.end.name(),
            chosen.len(),
            cases.damages.len(),
            told.len(),
            started.elapsed().as_secs()
        );
        let mut sorts: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for (index, text) in &told {
            let (kind, damage) = (cases.kind(cases.damages[*index]), cases.damages[*index]);
            let problem = text
                .split_once("gives: ")
                .map_or("", |(_, problem)| problem);
            let sort: String = problem.chars().filter(|c| !c.is_ascii_digit()).collect();
            let sort = format!("{kind}, {}: {sort}", damage.name());
            sorts.entry(sort).or_default().push(text);
        }
        for (sort, told) in sorts {
            println!("{} of {sort}", told.len());
            told.iter()
                .take(TOLD)
                .for_each(|text| println!("    {text}"));
        }
        violations += told.len();
    }
    drop(panic::take_hook());
    println!("{table}");
    assert_eq!(violations, 0, "seed {seed}");
}

/// Some cases of each kind.
fn sample(cases: &Cases, each: usize, seed: u64) -> Vec<usize> {
    let mut kinds: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
    for (index, damage) in cases.damages.iter().enumerate() {
        let kind = (cases.kind(*damage), damage.name());
        kinds.entry(kind).or_default().push(index);
    }
    let mut rng = Rng::new(seed);
    let mut chosen = Vec::new();
    for kind in kinds.values() {
        let picks = (0..each.min(kind.len())).map(|_| *rng.pick(kind));
        chosen.extend(picks);
    }
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

fn try_all(
    scene: &Scene,
    cases: &Cases,
    chosen: &[usize],
    threads: usize,
) -> (Table, Vec<(usize, String)>) {
    let sound = outcome::sound(scene);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut table = Table::default();
        let mut told = Vec::new();
        while let Some(&index) = chosen.get(next.fetch_add(1, Relaxed)) {
            let damage = cases.damages[index];
            let verdict = outcome::run(scene, cases, &sound, damage);
            for violation in &verdict.violations {
                let what = cases.describe(damage);
                let name = scene.end.name();
                told.push((index, format!("{name}:{index} {what} gives: {violation}")));
            }
            table.count(scene.end, cases.kind(damage), damage, &verdict);
        }
        (table, told)
    };
    let mut all = (Table::default(), Vec::new());
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            let (table, told) = worker.join().unwrap();
            all.0.add(table);
            all.1.extend(told);
        }
    });
    all.1.sort();
    all
}

fn tell(seed: u64, name: &str, number: usize) {
    for scene in scenes(seed).iter().filter(|scene| scene.end.name() == name) {
        let cases = Cases::of(scene, seed);
        let damage = cases.damages[number];
        println!("{}", cases.describe(damage));
        for (key, log) in &scene.logs {
            let (floor, checkpoint) = (log.floor, log.checkpoint);
            println!("{key:?}: promised to {floor}, checkpoint {checkpoint}");
        }
        let verdict = outcome::run(scene, &cases, &outcome::sound(scene), damage);
        println!("{:?}, verify: {:?}", verdict.class, verdict.verified);
        for line in verdict.story {
            println!("{line}");
        }
        for violation in verdict.violations {
            println!("VIOLATION {violation}");
        }
    }
}
