//! When records are due. A record that is sent late counts from the time at which it was due, so that a
//! server which stops for a moment pays for all that waited (no coordinated omission).

use std::time::Instant;

/// Nanoseconds since the program began: one clock for those who send and those who receive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// The rate of one of several producers, which take turns.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// As fast as the records in flight allow.
    Max,
    /// Record `n` is due at `first + n * interval`, in nanoseconds.
    Steady { first: u64, interval: f64 },
}

impl Pace {
    /// The pace of producer `number` of `producers`, which send `rate` records a second together.
    pub(crate) fn of(rate: Option<u64>, number: u64, producers: u64, start: u64) -> Self {
        let Some(rate) = rate else { return Self::Max };
        let between = 1e9 / rate as f64;
        Self::Steady {
            first: start + (between * number as f64) as u64,
            interval: between * producers as f64,
        }
    }

    /// When a record is due; `now` if it is due whenever it can be sent.
    pub(crate) fn due(&self, record: u64, now: u64) -> u64 {
        match *self {
            Self::Max => now,
            Self::Steady { first, interval } => first + (record as f64 * interval) as u64,
        }
    }

    /// How many records are due by now.
    pub(crate) fn due_by(&self, now: u64) -> u64 {
        match *self {
            Self::Max => u64::MAX,
            Self::Steady { first, interval } => match now.checked_sub(first) {
                Some(passed) => (passed as f64 / interval) as u64 + 1,
                None => 0,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Pace;

    #[test]
    fn producers_take_turns_and_late_ones_owe_what_they_missed() {
        let second = Pace::of(Some(1000), 1, 2, 5_000_000);
        assert_eq!(second.due(0, 0), 6_000_000);
        assert_eq!(second.due(3, 0), 12_000_000);
        assert_eq!(second.due_by(5_999_999), 0);
        assert_eq!(second.due_by(6_000_000), 1);
        assert_eq!(second.due_by(12_500_000), 4);
    }

    #[test]
    fn without_a_rate_everything_is_due_now() {
        let pace = Pace::of(None, 0, 1, 7);
        assert_eq!(pace.due(9, 42), 42);
        assert_eq!(pace.due_by(0), u64::MAX);
    }
}
