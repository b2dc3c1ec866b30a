//! Random lives of groups: members join, leave, fall silent, come back, lie, are late; appends fail;
//! topics come and go; the coordinator is restarted. What must hold is checked at every step.
//!
//! `SAPWOOD_GROUP_SEQUENCES` says how many lives.

mod classic;
mod consumer;
mod offsets;
mod world;

use crate::random::{Random, seed};

/// How many lives unless the environment says otherwise.
const SEQUENCES: u64 = 3_000;

#[test]
fn no_life_of_a_group_breaks_what_must_hold() {
    let given = std::env::var("SAPWOOD_GROUP_SEQUENCES").ok();
    let sequences = given.map_or(SEQUENCES, |text| {
        text.parse().expect("a number of sequences")
    });
    let seed = seed();
    let began = std::time::Instant::now();
    let mut seen = world::Seen::default();
    for sequence in 0..sequences {
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
