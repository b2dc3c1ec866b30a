//! The bytes of a record, and their check.
//!
//! A value of 32 bytes or more begins with a stamp, little-endian:
//!
//! | Byte | Field |
//! |---|---|
//! | 0 | CRC-32C of everything behind it; 0 when records are not checked |
//! | 4 | the run, a random number |
//! | 8 | the producer, from 0 |
//! | 12 | the partition |
//! | 16 | the number of the record among those of its producer for its partition, from 0 |
//! | 24 | when it was due, in nanoseconds of the run's clock |

use std::sync::Arc;

use sapwood_record::crc32c;

use crate::plan::{Keys, Load, Payload, Sizes};

pub(crate) const STAMP_BYTES: usize = 32;
/// What bodies are cut from. As large as it is, it stays in the processor's second cache.
const POOL_BYTES: usize = 256 << 10;

/// What the first bytes of a record say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) run: u32,
    pub(crate) producer: u32,
    pub(crate) partition: u32,
    pub(crate) sequence: u64,
    pub(crate) due_ns: u64,
}

impl Stamp {
    fn write(&self, value: &mut [u8]) {
        value[4..8].copy_from_slice(&self.run.to_le_bytes());
        value[8..12].copy_from_slice(&self.producer.to_le_bytes());
        value[12..16].copy_from_slice(&self.partition.to_le_bytes());
        value[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        value[24..32].copy_from_slice(&self.due_ns.to_le_bytes());
    }

    /// The stamp of a value; `None` when it is too short for one. With `is_checked` also when its bytes are not
    /// those that were made.
    pub(crate) fn read(value: &[u8], is_checked: bool) -> Option<Self> {
        let (stamp, _) = value.split_first_chunk::<STAMP_BYTES>()?;
        let word = |at: usize| [stamp[at], stamp[at + 1], stamp[at + 2], stamp[at + 3]];
        let long = |at: usize| {
            u64::from(u32::from_le_bytes(word(at)))
                | u64::from(u32::from_le_bytes(word(at + 4))) << 32
        };
        if is_checked && u32::from_le_bytes(word(0)) != crc32c(&[&value[4..]]) {
            return None;
        }
        Some(Self {
            run: u32::from_le_bytes(word(4)),
            producer: u32::from_le_bytes(word(8)),
            partition: u32::from_le_bytes(word(12)),
            sequence: long(16),
            due_ns: long(24),
        })
    }
}

/// Makes the records of one producer.
#[derive(Debug)]
pub(crate) struct Shape {
    pool: Arc<[u8]>,
    random: Random,
    sizes: Sizes,
    keys: Keys,
    is_checked: bool,
    key: [u8; 16],
    value: Vec<u8>,
}

impl Shape {
    /// The pool is shared by producers; their sequences of sizes and keys differ.
    pub(crate) fn new(load: &Load, pool: Arc<[u8]>, producer: u32, is_checked: bool) -> Self {
        Self {
            pool,
            random: Random(
                load.seed ^ (u64::from(producer) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            ),
            sizes: load.record_bytes,
            keys: load.keys,
            is_checked,
            key: [0; 16],
            value: Vec::new(),
        }
    }

    /// Draws the next key: 16 hexadecimal digits.
    pub(crate) fn next_key(&mut self) -> Option<[u8; 16]> {
        let number = match self.keys {
            Keys::None => return None,
            Keys::Uniform(count) => self.random.below(count),
            Keys::Zipf(count) => self.random.log(1, count) - 1,
        };
        for (index, digit) in self.key.iter_mut().enumerate() {
            let nibble = (number >> (60 - 4 * index)) & 0xf;
            *digit = b"0123456789abcdef"[nibble as usize];
        }
        Some(self.key)
    }

    /// Draws how long the next value is.
    pub(crate) fn next_bytes(&mut self) -> usize {
        let bytes = match self.sizes {
            Sizes::Fixed(bytes) => bytes,
            Sizes::Uniform(low, high) => low + self.random.below(high - low + 1),
            Sizes::Log(low, high) => self.random.log(low, high),
        };
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// The value of the next record.
    pub(crate) fn value(&mut self, bytes: usize, stamp: &Stamp) -> &[u8] {
        self.value.clear();
        // Another place of the pool for each record, so that neighbours are not copies of each other.
        let mut at = (stamp.sequence as usize).wrapping_mul(1237) % (self.pool.len() / 2);
        while self.value.len() < bytes {
            let part = (bytes - self.value.len()).min(self.pool.len() - at);
            self.value.extend_from_slice(&self.pool[at..at + part]);
            at = 0;
        }
        if bytes >= STAMP_BYTES {
            stamp.write(&mut self.value);
            let crc = match self.is_checked {
                true => crc32c(&[&self.value[4..]]),
                false => 0,
            };
            self.value[..4].copy_from_slice(&crc.to_le_bytes());
        }
        &self.value
    }
}

/// What bodies are cut from.
pub(crate) fn pool(payload: Payload, seed: u64) -> Arc<[u8]> {
    let mut random = Random(seed);
    let mut bytes = Vec::with_capacity(POOL_BYTES + 256);
    while bytes.len() < POOL_BYTES {
        match payload {
            Payload::Random => bytes.extend_from_slice(&random.next().to_le_bytes()),
            Payload::Json => {
                const STATES: [&str; 4] = ["created", "paid", "shipped", "returned"];
                let line = format!(
                    "{{\"order\":{},\"customer\":\"c-{:06}\",\"state\":\"{}\",\"total\":{}.{:02},\"note\":null}}\n",
                    1_000_000 + random.below(9_000_000),
                    random.below(50_000),
                    STATES[random.below(4) as usize],
                    random.below(900),
                    random.below(100),
                );
                bytes.extend_from_slice(line.as_bytes());
            }
        }
    }
    bytes.truncate(POOL_BYTES);
    bytes.into()
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and good enough to draw sizes and keys.
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`, which is above 0. The bias is below 2^-40 for all bounds that a plan allows.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// From 0, included, to 1, excluded.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Between the two, both included, each factor as often as any other.
    fn log(&mut self, low: u64, high: u64) -> u64 {
        let (from, to) = ((low.max(1) as f64).ln(), ((high + 1) as f64).ln());
        let drawn = (from + self.unit() * (to - from)).exp() as u64;
        drawn.clamp(low, high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Rate;

    fn load(sizes: Sizes, keys: Keys) -> Load {
        Load {
            rate: Rate::Max,
            record_bytes: sizes,
            keys,
            payload: Payload::Random,
            records: None,
            duration: None,
            warm_up: std::time::Duration::ZERO,
            seed: 7,
        }
    }

    const STAMP: Stamp = Stamp {
        run: 0xdead_beef,
        producer: 3,
        partition: 999,
        sequence: u64::MAX - 1,
        due_ns: 1 << 50,
    };

    #[test]
    fn a_value_says_who_made_it_and_every_flipped_bit_is_seen() {
        let pool = pool(Payload::Json, 1);
        let mut shape = Shape::new(&load(Sizes::Fixed(100), Keys::None), pool, 0, true);
        for bytes in [32, 33, 100] {
            let value = shape.value(bytes, &STAMP).to_vec();
            assert_eq!(value.len(), bytes);
            assert_eq!(Stamp::read(&value, true), Some(STAMP));
            for bit in 0..bytes * 8 {
                let mut flipped = value.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Stamp::read(&flipped, true), None, "bit {bit}");
            }
            assert_eq!(Stamp::read(&value[..31], false), None);
        }
    }

    #[test]
    fn a_value_may_be_longer_than_the_pool_or_shorter_than_the_stamp() {
        let pool = pool(Payload::Random, 1);
        let mut shape = Shape::new(&load(Sizes::Fixed(1), Keys::None), pool, 0, false);
        assert_eq!(shape.value(3 * POOL_BYTES, &STAMP).len(), 3 * POOL_BYTES);
        assert_eq!(shape.value(5, &STAMP).len(), 5);
        assert_eq!(shape.value(0, &STAMP).len(), 0);
    }

    #[test]
    fn what_is_drawn_keeps_its_bounds_and_its_distribution() {
        let pool = pool(Payload::Random, 1);
        let draw = |sizes, keys| {
            let mut shape = Shape::new(&load(sizes, keys), Arc::clone(&pool), 0, true);
            let drawn: Vec<_> = (0..20_000)
                .map(|_| (shape.next_bytes(), shape.next_key()))
                .collect();
            drawn
        };
        let uniform = draw(Sizes::Uniform(100, 199), Keys::Uniform(10));
        assert!(uniform.iter().all(|(bytes, _)| (100..200).contains(bytes)));
        let low = uniform.iter().filter(|(bytes, _)| *bytes < 150).count();
        assert!((9_000..11_000).contains(&low), "{low}");
        let skewed = draw(Sizes::Log(100, 9_999), Keys::Zipf(1000));
        assert!(
            skewed
                .iter()
                .all(|(bytes, _)| (100..10_000).contains(bytes))
        );
        let low = skewed.iter().filter(|(bytes, _)| *bytes < 1_000).count();
        assert!((9_000..11_000).contains(&low), "{low}");
        // By Zipf's law the first of 1,000 keys has 1 / H(1000) = 13 %; the continuous form gives it a tenth.
        let first = skewed
            .iter()
            .filter(|(_, key)| *key == Some(*b"0000000000000000"))
            .count();
        assert!((1_600..2_800).contains(&first), "{first}");
    }
}
