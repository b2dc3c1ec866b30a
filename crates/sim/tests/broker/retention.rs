//! Retention passes on a machine that stops: at every durability event of them, each log starts where it
//! started before or where the pass moves it, nothing else is gone, and the next pass finishes the work.

use std::collections::BTreeMap;
use std::time::Duration;

use sapwood_log::io::Disk;
use sapwood_model::{Durability, PartitionId};
use sapwood_sim::Rng;

use crate::clients::Request;
use crate::log::Fate;
use crate::model::{At, Change, End, Model, Outcome, Settings};
use crate::workload::{self, ask_all};
use crate::world::{DATA, Survivor, World};
use crate::{capture, either, for_seeds, machine, survive};

const RETENTION: Duration = Duration::from_secs(60);
const TOPICS: [(&str, Durability); 2] = [("orders", Durability::Fsync), ("events", Durability::Os)];

/// Topics of which everything was produced long enough ago to go, and in some something later, too.
fn begin(seed: u64) -> Outcome<World> {
    let mut rng = Rng::new(seed);
    let mut world = World::new(machine(seed), Model::default(), seed);
    world.open()?;
    for (name, durability) in TOPICS {
        let settings = Settings {
            durability,
            retention_ms: RETENTION.as_millis() as u64,
        };
        let create = Change::Create {
            partitions: 3,
            settings,
        };
        ask_all(&mut world, vec![Request::Change(name.to_owned(), create)])?;
    }
    for _ in 0..12 + rng.below(12) {
        workload::produce_everywhere(&mut world, &mut rng)?;
        match rng.below(12) {
            0 => workload::restart(&mut world, End::Kill, &mut rng)?,
            1 => workload::restart(&mut world, End::PowerCut, &mut rng)?,
            2 => {
                let end = if world.stop()? { End::Clean } else { End::Kill };
                workload::restart(&mut world, end, &mut rng)?;
            }
            3..6 => drop(world.broker()?.step_maintenance()),
            _ => {}
        }
    }
    world.rest()?;
    world.pass(RETENTION - Duration::from_secs(10))?;
    let requests = workload::produce(&mut world, &mut rng)?;
    ask_all(&mut world, requests)?;
    world.rest()?;
    Ok(world)
}

/// Time passes until everything of the first part is due, and retention does its work. Returns where the
/// logs started at any time.
fn retain(world: &mut World) -> Outcome<Vec<BTreeMap<At, u64>>> {
    let mut seen = vec![starts(world)?];
    world.pass(Duration::from_secs(20))?;
    seen.push(starts(world)?);
    for _ in 0..12 {
        world.pass(Duration::from_millis(500))?;
        seen.push(starts(world)?);
        let done = world.broker()?.step_maintenance();
        done.map_err(|error| error.to_string())?;
    }
    world.rest()?;
    Ok(seen)
}

fn starts(world: &World) -> Outcome<BTreeMap<At, u64>> {
    let broker = world.broker()?;
    let mut starts = BTreeMap::new();
    for (name, topic) in &world.model.topics {
        for number in 0..topic.logs.len() as u32 {
            let bounds = broker.bounds(name, PartitionId(number));
            let bounds = bounds.map_err(|error| error.to_string())?;
            starts.insert((name.clone(), number), bounds.log_start.0);
        }
    }
    Ok(starts)
}

/// What is due by the model: every log up to the first batch that was made later.
fn check_due(world: &World, starts: &BTreeMap<At, u64>) -> Outcome {
    for (at, start) in starts {
        let log = &world.model.topics[&at.0].logs[at.1 as usize];
        let kept = log.sent.values().filter_map(|sent| match sent.fate {
            Fate::At(base) if base >= *start => Some(&sent.bytes),
            _ => None,
        });
        let header = |bytes: &bytes::Bytes| sapwood_record::Header::read(bytes);
        let newest = kept
            .filter_map(header)
            .map(|header| header.max_timestamp().0);
        let oldest = world.now_ms() - RETENTION.as_millis() as i64;
        if newest.max().is_some_and(|newest| newest < oldest) {
            return Err(format!(
                "{at:?} keeps overdue records from offset {start} on"
            ));
        }
    }
    Ok(())
}

/// Files of segments that are wholly below the log start.
fn left_over(world: &World, starts: &BTreeMap<At, u64>) -> Outcome<Vec<String>> {
    let mut left = Vec::new();
    for (at, start) in starts {
        let folder = format!("{DATA}/topics/{}-{}", at.0, at.1);
        let entries = world.machine.disk.read_dir(folder.as_ref());
        let entries = entries.map_err(|error| error.to_string())?;
        let bases: Vec<u64> = entries
            .iter()
            .filter_map(|entry| entry.name.strip_suffix(".log")?.parse().ok())
            .collect();
        let below = bases.windows(2).filter(|pair| pair[1] <= *start);
        left.extend(below.map(|pair| format!("{folder}/{}", pair[0])));
        let names = entries.into_iter().map(|entry| entry.name);
        left.extend(names.filter(|name| name.ends_with(".removed.tmp")));
    }
    Ok(left)
}

fn check(survivor: &Survivor, target: &BTreeMap<At, u64>, rng: &mut Rng) -> Outcome<u64> {
    let mut tried = 0;
    let ways = [
        vec![End::Kill],
        vec![End::PowerCut],
        vec![either(rng), either(rng)],
    ];
    for way in ways {
        tried += 1;
        let told = |error| format!("{}, {way:?}: {error}", survivor.at);
        // The model knows no other starts than those before and after.
        let mut world = survive(survivor, &way, rng).map_err(told)?;
        retain(&mut world).map_err(told)?;
        let found = starts(&world).map_err(told)?;
        for (at, start) in &found {
            if *start < target[at] {
                return Err(told(format!(
                    "{at:?} starts at {start}, not {}",
                    target[at]
                )));
            }
        }
        check_due(&world, &found).map_err(told)?;
        let left = left_over(&world, &found).map_err(told)?;
        if !left.is_empty() {
            return Err(told(format!("files are left: {left:?}")));
        }
        for (at, start) in found {
            let log = world.model.log_mut(&at).ok_or("no such partition")?;
            log.start = start;
        }
        match rng.below(4) {
            0 => {
                // What went does not come back, whatever the disk has forgotten.
                let stopped = world.stop().map_err(told)?;
                let end = if stopped { End::PowerCut } else { End::Kill };
                workload::restart(&mut world, end, rng).map_err(told)?;
            }
            1 => {
                let end = either(rng);
                workload::go_on(&mut world, rng).map_err(told)?;
                workload::restart(&mut world, end, rng).map_err(told)?;
            }
            _ => {}
        }
    }
    Ok(tried)
}

#[test]
fn a_stop_at_every_event_of_a_retention_pass_leaves_it_undone_or_done() {
    let test = "a_stop_at_every_event_of_a_retention_pass_leaves_it_undone_or_done";
    for_seeds(test, 4, |seed| {
        let seen = retain(&mut begin(seed)?)?;
        let (before, target) = (&seen[0], &seen[seen.len() - 1]);
        let moved = target.iter().filter(|(at, start)| before[at] < **start);
        let moved = moved.count();
        let mut world = begin(seed)?;
        for (at, start) in seen.iter().flatten() {
            let log = world.model.log_mut(at).ok_or("no such partition")?;
            log.trims.insert(*start);
        }
        world.machine.disk.capture(Some(capture()));
        world.machine.disk.record();
        retain(&mut world)?;
        check_due(&world, &starts(&world)?)?;
        let survivors = std::mem::take(&mut world.survivors);
        let steps = format!("{:#?}", world.machine.disk.take_history());
        let mut rng = Rng::new(seed ^ 0x0E7E);
        let mut tried = 0;
        for survivor in &survivors {
            tried += check(survivor, target, &mut rng).map_err(|e| format!("{e}\n{steps}"))?;
        }
        if !steps.contains(".removed.tmp") {
            return Err("no file was large enough to be removed in steps".to_owned());
        }
        if moved == 0 || survivors.is_empty() {
            return Err(format!(
                "{moved} log starts moved, {} stops",
                survivors.len()
            ));
        }
        println!(
            "sim-tally test={test} seed={seed} workloads=1 events={} survivors={tried}",
            survivors.len()
        );
        Ok(format!(
            "{moved} log starts moved, {} stops, {tried} survivors",
            survivors.len()
        ))
    });
}
