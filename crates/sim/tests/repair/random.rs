//! Random damage to a data directory, repaired: what is served afterwards are records that were there,
//! at their offsets, and what is missing was named.

use std::{collections::BTreeSet, path::PathBuf};

use sapwood_log::{PartitionState, Progress};
use sapwood_sim::Rng;

use crate::support::*;

const SEEDS: u64 = 150;

/// Damages something, and says what in words.
fn damage(world: &World, rng: &mut Rng) -> String {
    let all: Vec<(PathBuf, Vec<u8>)> = world
        .contents(std::path::Path::new(ROOT))
        .into_iter()
        .filter(|(path, bytes)| {
            let text = path.to_str().unwrap();
            let kept = [
                "sapwood.meta",
                "sapwood.lock",
                "catalog.log",
                "partition.metadata",
            ];
            !bytes.is_empty() && !kept.iter().any(|name| text.ends_with(name))
        })
        .collect();
    // Most files are indexes; most damage that matters is in segments.
    let segments: Vec<_> = all
        .iter()
        .filter(|(path, _)| path.to_str().unwrap().ends_with(".log"))
        .cloned()
        .collect();
    let from = if rng.chance(2, 3) { &segments } else { &all };
    let (path, bytes) = rng.pick(from).clone();
    let length = bytes.len() as u64;
    let name = path.display();
    match rng.below(7) {
        0 => {
            world.remove(&path);
            format!("{name} is removed")
        }
        1 => {
            let cut = rng.below(length);
            world.change(&path, |bytes| bytes.truncate(usize::try_from(cut).unwrap()));
            format!("{name} is cut to {cut} bytes")
        }
        2 => {
            let at = rng.below(length);
            let end = (at + 1 + rng.below(600)).min(length);
            let range = usize::try_from(at).unwrap()..usize::try_from(end).unwrap();
            world.change(&path, |bytes| bytes[range].fill(0));
            format!("{name} is zero from {at} to {end}")
        }
        3 => {
            let other = rng.pick(from).0.clone();
            let at = rng.below(length) / 512 * 512;
            let source = world.read(&other).unwrap();
            world.change(&path, |bytes| {
                let at = usize::try_from(at).unwrap();
                let count = 512.min(bytes.len() - at).min(source.len());
                bytes[at..at + count].copy_from_slice(&source[..count]);
            });
            format!("{name} has a sector of {} at {at}", other.display())
        }
        4 if path.starts_with(world.path("topics")) => {
            world.0.make_unreadable(&path, 0..length.min(4096)).unwrap();
            format!("the first sector of {name} cannot be read")
        }
        _ => {
            let at = rng.below(length);
            let bit = rng.below(8);
            world.change(&path, |bytes| {
                bytes[usize::try_from(at).unwrap()] ^= 1 << bit
            });
            format!("bit {bit} of byte {at} of {name} is flipped")
        }
    }
}

/// One directory with one to four kinds of damage. `None`: the repair said that it leaves something.
fn repaired(seed: u64) -> Option<(u64, u64)> {
    let mut rng = Rng::new(seed);
    let clean = rng.chance(1, 2);
    let world = directory(clean);
    let what: Vec<String> = (0..1 + rng.below(4))
        .map(|_| damage(&world, &mut rng))
        .collect();
    let what = format!("seed {seed}, clean {clean}: {what:?}");
    let is_promised = clean && !what.contains("/data/checkpoint");
    let plan = plan(&world);
    let mut named = [BTreeSet::new(), BTreeSet::new()];
    let mut ends = [None, None];
    for one in &plan.partitions {
        let topic = usize::from(one.topic == "topic-2");
        ends[topic] = Some(one.offsets.end.0);
        for loss in &one.losses {
            named[topic].extend(loss.offsets.start.0..loss.offsets.end.0);
        }
    }
    let left = !plan.left.is_empty();
    let shown = format!("{what}\n{plan:#?}");
    plan.apply(&Progress::default()).unwrap();
    world.0.make_readable();
    if left {
        return None;
    }
    let report = verify(&world);
    assert!(report.is_sound(), "{shown}\n{:#?}", report.findings);
    let store = try_open(&world, known()).unwrap_or_else(|error| panic!("{shown}\n{error}"));
    let mut lost = 0;
    for (topic, spec) in specs().into_iter().enumerate() {
        let partition = store.partition(spec.topic_id, spec.partition).unwrap();
        let state = partition.state();
        assert!(
            !matches!(state, PartitionState::Offline { .. }),
            "{shown}\n{state:?}"
        );
        let end = partition.bounds().log_end.0;
        // Nobody can tell that the end of a log is missing behind what a checkpoint promised.
        assert!(end == 100 || (end < 100 && !is_promised), "{shown}");
        assert!(ends[topic].is_none_or(|planned| end == planned), "{shown}");
        let found = try_read(&partition).unwrap_or_else(|error| panic!("{shown}\n{error}"));
        for (offset, text) in &found {
            assert!(
                *text == value(*offset),
                "{shown}\noffset {offset} has {text}"
            );
        }
        for offset in 0..end {
            let is_named = named[topic].contains(&offset);
            assert_eq!(
                !found.contains_key(&offset),
                is_named,
                "{shown}\noffset {offset}"
            );
            lost += u64::from(is_named);
        }
        lost += 100 - end;
        fill(&partition, end..end + 5);
    }
    commit(&store);
    store.close().unwrap();
    drop(store);
    let report = verify(&world);
    assert!(report.is_sound(), "{shown}\n{:#?}", report.findings);
    Some((lost, 200 - lost))
}

#[test]
fn what_is_served_after_a_repair_was_there_and_what_is_missing_was_named() {
    let variable = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first = variable("SAPWOOD_SIM_SEED").unwrap_or(1);
    let seeds = first..first + variable("SAPWOOD_REPAIR_SEEDS").unwrap_or(SEEDS);
    println!("seeds {seeds:?}");
    let (mut left, mut lost, mut kept, mut lossless) = (0, 0, 0, 0);
    for seed in seeds.clone() {
        match repaired(seed) {
            None => left += 1,
            Some((gone, there)) => {
                lost += gone;
                kept += there;
                lossless += u64::from(gone == 0);
            }
        }
    }
    println!(
        "{} directories: {left} with something left to the operator, {lossless} without a loss; {kept} \
         records served, {lost} lost and named, 0 wrong",
        seeds.end - seeds.start
    );
}
