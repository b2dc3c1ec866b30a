//! Seeded random numbers.

use std::{
    hash::{BuildHasher, RandomState},
    ops::Range,
};

/// The seed of a test: `SAPWOOD_TEST_SEED`, or a new one. Printed either way.
pub(crate) fn seed() -> u64 {
    let seed = match std::env::var("SAPWOOD_TEST_SEED") {
        Ok(text) => text.parse().expect("SAPWOOD_TEST_SEED is a number"),
        Err(_) => RandomState::new().hash_one(0) % 1_000_000_007,
    };
    let thread = std::thread::current();
    eprintln!(
        "{}: SAPWOOD_TEST_SEED={seed}",
        thread.name().unwrap_or("a test")
    );
    seed
}

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// The numbers of one stream of a seed.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut random = Self(seed ^ stream.wrapping_mul(0xD134_2543_DE82_EF95));
        random.next();
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number of a range that is not empty.
    pub(crate) fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// A place in a list that is not empty.
    pub(crate) fn below(&mut self, length: usize) -> usize {
        usize::try_from(self.within(0..u64::try_from(length).unwrap())).unwrap()
    }

    /// True in one of `n` cases.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.within(0..n) == 0
    }
}
