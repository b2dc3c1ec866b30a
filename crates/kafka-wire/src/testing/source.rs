//! Seeded random numbers.

use std::{
    hash::{BuildHasher, RandomState},
    ops::Range,
};

/// The seed of a test: `SAPWOOD_TEST_SEED`, or a new one. Printed either way.
///
/// # Panics
/// When `SAPWOOD_TEST_SEED` is not a number.
pub fn seed() -> u64 {
    let given = std::env::var("SAPWOOD_TEST_SEED").ok();
    let seed = match given {
        Some(text) => text.parse().expect("SAPWOOD_TEST_SEED is a number"),
        None => RandomState::new().hash_one(0) % 1_000_000_007,
    };
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("a test").to_owned();
    eprintln!("{name}: SAPWOOD_TEST_SEED={seed}");
    seed
}

/// A source of random numbers: SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number
/// Generators, 2014).
#[derive(Debug, Clone)]
pub struct Source(u64);

impl Source {
    /// The numbers of one stream of a seed.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut source = Self(seed ^ stream.wrapping_mul(0xD134_2543_DE82_EF95));
        source.number();
        source
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number of a range.
    ///
    /// # Panics
    /// When the range is empty.
    pub fn within(&mut self, range: Range<usize>) -> usize {
        let width = range.end - range.start;
        range.start + (self.number() % width as u64) as usize
    }

    /// True in one of `n` cases.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.within(0..n) == 0
    }

    /// True in half of the cases.
    pub fn coin(&mut self) -> bool {
        self.number() & 1 == 0
    }

    /// One of several.
    ///
    /// # Panics
    /// When there is none.
    pub fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.within(0..choices.len())]
    }
}
