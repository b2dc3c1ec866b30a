//! Time and randomness that a test holds in its hand.

use std::time::Duration;

use parking_lot::Mutex;
use sapwood_log::io::{Clock, Entropy};
use sapwood_model::Timestamp;

use crate::Rng;

/// 2026-01-01T00:00:00Z, so that timestamps in failures look like timestamps.
const START_MS: i64 = 1_767_225_600_000;

/// A clock that moves only when it is told to.
#[derive(Debug)]
pub struct SimClock {
    time: Mutex<Time>,
}

#[derive(Debug, Clone, Copy)]
struct Time {
    now_ms: i64,
    elapsed: Duration,
}

impl Default for SimClock {
    fn default() -> SimClock {
        SimClock {
            time: Mutex::new(Time {
                now_ms: START_MS,
                elapsed: Duration::ZERO,
            }),
        }
    }
}

impl SimClock {
    /// Moves both the wall clock and the monotonic one forward.
    pub fn advance(&self, by: Duration) {
        let mut time = self.time.lock();
        time.elapsed += by;
        time.now_ms = time
            .now_ms
            .saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX));
    }

    /// Sets the wall clock, also backwards; the monotonic clock goes on.
    pub fn set(&self, now: Timestamp) {
        self.time.lock().now_ms = now.0;
    }

    pub(crate) fn fork(&self) -> SimClock {
        SimClock {
            time: Mutex::new(*self.time.lock()),
        }
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.time.lock().now_ms)
    }

    fn elapsed(&self) -> Duration {
        self.time.lock().elapsed
    }
}

/// A seeded random source. Like the real one it goes on across kills and power cuts: what it gave
/// before a crash does not come again after it.
#[derive(Debug)]
pub struct SimEntropy {
    rng: Mutex<Rng>,
}

impl SimEntropy {
    /// The source of a seed.
    pub fn new(seed: u64) -> SimEntropy {
        // Another sequence than that of the disk with the same seed.
        SimEntropy {
            rng: Mutex::new(Rng::new(seed ^ 0x5EED_0F5A_17AB_1E55)),
        }
    }

    pub(crate) fn fork(&self) -> SimEntropy {
        SimEntropy {
            rng: Mutex::new(self.rng.lock().clone()),
        }
    }
}

impl Entropy for SimEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        let mut rng = self.rng.lock();
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&rng.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_moves_only_when_told_to_and_may_be_set_back() {
        let clock = SimClock::default();
        let start = clock.now();
        assert_eq!(clock.now(), start);
        clock.advance(Duration::from_millis(1500));
        assert_eq!(clock.now(), Timestamp(start.0 + 1500));
        clock.set(Timestamp(5));
        assert_eq!(clock.now(), Timestamp(5));
        assert_eq!(clock.elapsed(), Duration::from_millis(1500));
    }

    #[test]
    fn a_forked_random_source_goes_on_where_the_first_one_was() {
        let entropy = SimEntropy::new(3);
        let _ = entropy.u64();
        let fork = entropy.fork();
        assert_eq!(entropy.u128(), fork.u128());
        assert_ne!(entropy.u64(), entropy.u64());
    }
}
