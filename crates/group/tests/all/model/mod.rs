//! Random lives of groups: members join, leave, fall silent, come back, lie, are late; appends fail;
//! topics come and go; the coordinator is restarted. What must hold is checked at every step.
//!
//! `SAPWOOD_GROUP_SEQUENCES` says how many lives, `SAPWOOD_GROUP_FIRST` from which one on.

mod checks;
mod classic;
mod consumer;
mod offsets;
mod world;

use crate::random::{Random, seed};

/// How many lives unless the environment says otherwise.
const SEQUENCES: u64 = 2_000;

#[test]
fn no_life_of_a_group_breaks_what_must_hold() {
    let number = |name: &str, otherwise: u64| {
        let given = std::env::var(name).ok();
        given.map_or(otherwise, |text| {
            text.parse().expect("a number of sequences")
        })
    };
    let sequences = number("SAPWOOD_GROUP_SEQUENCES", SEQUENCES);
    let first = number("SAPWOOD_GROUP_FIRST", 0);
    let seed = seed();
    let began = std::time::Instant::now();
    let mut seen = world::Seen::default();
    for sequence in first..first + sequences {
        let life =
            std::panic::AssertUnwindSafe(|| world::World::new(Random::new(seed, sequence)).live());
        match std::panic::catch_unwind(life) {
            Ok(life) => seen.add(&life),
            Err(cause) => {
                eprintln!("sequence {sequence} of SAPWOOD_TEST_SEED={seed} failed");
                std::panic::resume_unwind(cause);
            }
        }
    }
    eprintln!("{sequences} sequences in {:?}: {seen:?}", began.elapsed());
    assert!(
        sequences < 1_000 || seen.has_everything(),
        "too little happened: {seen:?}"
    );
}
