//! Seeded random numbers.

use std::hash::{BuildHasher, RandomState};

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// Seeded by `SAPWOOD_TEST_SEED`, or anew. The seed is printed either way.
    pub(crate) fn of_test() -> Self {
        let seed = match std::env::var("SAPWOOD_TEST_SEED") {
            Ok(text) => text.parse().expect("SAPWOOD_TEST_SEED is a number"),
            Err(_) => RandomState::new().hash_one(0) % 1_000_000_007,
        };
        eprintln!("SAPWOOD_TEST_SEED={seed}");
        Self(seed)
    }

    /// Any number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end as u64)).unwrap()
    }
}
