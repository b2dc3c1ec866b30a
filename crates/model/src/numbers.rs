//! Numbers with a meaning.

use std::fmt;

/// A record's place in a partition's log. The first record of a partition has offset 0.
/// Offsets are never reused and never go above `i64::MAX`, which is what Kafka's clients can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(pub u64);

impl Offset {
    /// The first offset of every partition.
    pub const ZERO: Self = Self(0);

    /// The offset `records` further on.
    ///
    /// # Panics
    /// When the sum is above `u64::MAX`, which no log can reach.
    pub const fn add(self, records: u64) -> Self {
        Self(
            self.0
                .checked_add(records)
                .expect("offsets stay below 2^63"),
        )
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A partition's number within its topic, from 0. At most `i32::MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PartitionId(pub u32);

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Counts the takeovers of a partition's log. It rises after every unclean start, so that a client
/// that tracks epochs sees where a log was cut. At most `i32::MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LeaderEpoch(pub u32);

impl fmt::Display for LeaderEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identifies an idempotent producer. At most `i64::MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(pub u64);

impl fmt::Display for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Fences the older instances of a producer. At most `i16::MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ProducerEpoch(pub u16);

/// Milliseconds since 1970-01-01T00:00:00Z. Negative before it; -1 is Kafka's "no timestamp".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Kafka's "this record carries no time".
    pub const NONE: Self = Self(-1);
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names one data directory for its whole life; written when the directory is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DirectoryId(pub u128);

impl fmt::Display for DirectoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_goes_on_by_a_number_of_records() {
        assert_eq!(Offset::ZERO, Offset(0));
        assert_eq!(Offset(41).add(1), Offset(42));
        assert_eq!(Offset(i64::MAX as u64).add(1), Offset(1 << 63));
    }

    #[test]
    #[should_panic(expected = "offsets stay below 2^63")]
    fn an_offset_never_wraps() {
        let _ = Offset(u64::MAX).add(1);
    }

    #[test]
    fn numbers_are_shown_bare_and_a_directory_id_in_hex() {
        assert_eq!(Offset(7).to_string(), "7");
        assert_eq!(PartitionId(3).to_string(), "3");
        assert_eq!(LeaderEpoch(1).to_string(), "1");
        assert_eq!(ProducerId(9).to_string(), "9");
        assert_eq!(Timestamp::NONE.to_string(), "-1");
        assert_eq!(DirectoryId(0xab).to_string(), format!("{:0>32}", "ab"));
    }
}
