//! A repair that is stopped at every step, by a kill or by the power: afterwards the directory is as it
//! was, or as it is to be, or a further repair makes it so and no broker opens it before.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use sapwood_log::{Progress, repair::Plan};
use sapwood_sim::{Rng, Stop};

use crate::support::*;

const CUTS_PER_STEP: u64 = 3;

/// What is damaged, before any repair.
fn damaged() -> Vec<(&'static str, World)> {
    let mut worlds = Vec::new();
    for (what, clean) in [("clean", true), ("unclean", false)] {
        let dir = directory(clean);
        dir.change(&dir.segment(1, 20), |bytes| bytes[700] ^= 1);
        dir.remove(&dir.segment(1, 40));
        worlds.push((what, dir));
    }
    let dir = directory(false);
    dir.remove(&dir.path("checkpoint"));
    dir.change(&dir.segment(1, 0), |bytes| bytes[6] ^= 1);
    worlds.push(("without its checkpoint", dir));
    let dir = directory(false);
    dir.remove(&dir.folder(1));
    worlds.push(("without a folder", dir));
    let dir = directory(true);
    let path = dir.folder(1).join("00000000000000000020.index");
    dir.change(&path, |bytes| bytes.fill(7));
    worlds.push(("with a wrong index", dir));
    let dir = directory(false);
    for number in 0..2 {
        let path = dir.path(&format!("journal/{number:02}.journal"));
        dir.change(&path, |bytes| bytes[..8192].fill(0));
    }
    worlds.push(("without its journal", dir));
    worlds
}

/// All files but those that a repair keeps for itself, and what is made anew under a temporary name.
fn files(world: &World) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = world.contents(Path::new(ROOT));
    files.retain(|path, _| !path.starts_with(world.path("repair")));
    let is_temporary = |path: &Path| {
        let text = path.to_str().unwrap();
        text.ends_with(".repair.tmp") || text.contains(".new/")
    };
    files.retain(|path, _| !path.ends_with("sapwood.lock") && !is_temporary(path));
    files
}

fn assert_same(world: &World, expected: &BTreeMap<PathBuf, Vec<u8>>, what: &str) {
    let found = files(world);
    let differing: Vec<_> = expected
        .keys()
        .chain(found.keys())
        .filter(|path| found.get(*path) != expected.get(*path))
        .collect();
    assert!(differing.is_empty(), "{what}: {differing:?} differ");
}

fn is_pending(world: &World) -> bool {
    world.read(&world.path("repair/pending")).is_ok()
}

/// Plans and applies until there is nothing to do. How often something was.
fn finish(world: &World) -> u32 {
    for round in 0.. {
        let plan: Plan = plan(world);
        if plan.is_empty() {
            return round;
        }
        plan.apply(&Progress::default()).unwrap();
        assert!(round < 5, "a repair comes to an end");
    }
    unreachable!()
}

#[test]
fn a_repair_that_is_stopped_anywhere_is_undone_or_finished_by_the_next() {
    let (mut stops, mut survivors, mut refused, mut untouched, mut whole) = (0, 0, 0, 0, 0);
    for (what, world) in damaged() {
        let before = files(&world);
        let done = World(world.0.fork());
        assert_eq!(finish(&done), 1, "{what}");
        let after = files(&done);
        assert_ne!(before, after);
        for step in 1.. {
            let stopped = World(world.0.fork());
            let plan = plan(&stopped);
            let first = stopped.0.steps();
            stopped.0.stop_at(Stop::Step(first + step));
            if plan.apply(&Progress::default()).is_ok() {
                assert!(step > 20, "{what}: {step} steps");
                break;
            }
            stops += 1;
            for cut in 0..=CUTS_PER_STEP {
                let survivor = World(stopped.0.fork());
                match cut {
                    0 => survivor.0.kill(),
                    seed => survivor.0.power_cut(&mut Rng::new(step * 100 + seed)),
                }
                survivors += 1;
                if is_pending(&survivor) {
                    refused += 1;
                    let error = try_open(&survivor, known()).unwrap_err().to_string();
                    assert!(error.contains("a repair was interrupted"), "{error}");
                    assert!(!verify(&survivor).is_sound());
                } else if files(&survivor) == after {
                    whole += 1;
                } else {
                    assert_same(
                        &survivor,
                        &before,
                        &format!("{what}, step {step}, cut {cut}"),
                    );
                    untouched += 1;
                }
                finish(&survivor);
                assert_same(
                    &survivor,
                    &after,
                    &format!("{what}, step {step}, cut {cut}"),
                );
                // What is there now is on the disk, too.
                survivor.0.power_cut(&mut Rng::new(step));
                assert!(files(&survivor) == after, "{what}, step {step}, cut {cut}");
            }
        }
    }
    println!(
        "{stops} stops, {survivors} survivors: {untouched} as before, {refused} half done and \
         refused, {whole} done"
    );
    assert!(untouched > 0 && refused > 0 && whole > 0);
}

#[test]
fn a_full_disk_leaves_everything_as_it_was_at_any_step() {
    let (mut refusals, mut failures) = (0, 0);
    for (what, world) in damaged() {
        let before = files(&world);
        let done = World(world.0.fork());
        finish(&done);
        let after = files(&done);
        for step in 1.. {
            let full = World(world.0.fork());
            let plan = plan(&full);
            let first = full.0.steps();
            full.0.fill_at_step(first + step, 0);
            match plan.apply(&Progress::default()) {
                Ok(_) => {
                    assert!(files(&full) == after, "{what}, step {step}");
                    if full.0.steps() < first + step {
                        break;
                    }
                }
                Err(error) => {
                    failures += 1;
                    assert_eq!(error.code(), sapwood_model::Code::StorageFull, "{error}");
                    assert!(
                        is_pending(&full) || files(&full) == before,
                        "{what}, step {step}"
                    );
                    full.0.set_capacity(None);
                    finish(&full);
                    assert!(files(&full) == after, "{what}, step {step}");
                }
            }
        }
        let full = World(world.0.fork());
        let used = before.values().map(|bytes| bytes.len() as u64).sum::<u64>();
        full.0.set_capacity(Some(used + (8 << 10)));
        let plan = plan(&full);
        if plan.bytes_needed > plan.bytes_free {
            refusals += 1;
            let error = plan.apply(&Progress::default()).unwrap_err();
            assert!(error.to_string().contains("bytes; "), "{error}");
            assert!(
                full.contents(Path::new(ROOT))
                    .keys()
                    .all(|path| !path.starts_with("/data/repair"))
            );
        }
    }
    println!("{failures} full disks in the middle, {refusals} before anything was written");
    assert!(failures > 0 && refusals > 0);
}

#[test]
fn a_failing_sync_or_write_is_an_error_and_the_next_repair_is_right() {
    let mut failures = 0;
    for (what, world) in damaged() {
        let before = files(&world);
        let done = World(world.0.fork());
        finish(&done);
        let after = files(&done);
        for sync in 1.. {
            let failing = World(world.0.fork());
            let plan = plan(&failing);
            failing.0.fail_sync(failing.0.syncs() + sync);
            let applied = plan.apply(&Progress::default());
            if applied.is_ok() {
                assert!(files(&failing) == after, "{what}, sync {sync}");
                break;
            }
            failures += 1;
            let as_it_was = files(&failing) == before;
            assert!(
                as_it_was || is_pending(&failing) || files(&failing) == after,
                "{what}, sync {sync}"
            );
            finish(&failing);
            assert!(files(&failing) == after, "{what}, sync {sync}");
            failing.0.power_cut(&mut Rng::new(sync));
            assert!(
                files(&failing) == after,
                "{what}, sync {sync}: what a sync did not write"
            );
        }
    }
    println!("{failures} failed syncs");
    assert!(failures > 20);
}
