//! The time of a run, and when which record is due.

use std::{
    num::NonZeroU64,
    time::{Duration, Instant},
};

use crate::plan::Rate;

/// Nanoseconds since a run's beginning; one clock for all of its threads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    base: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            base: Instant::now(),
        }
    }

    /// Now. Runs are shorter than 584 years.
    pub(crate) fn now_ns(self) -> u64 {
        u64::try_from(self.base.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// When the records of one producer are due: the n-th of `producers` interleaved sequences.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    start_ns: u64,
    /// Between two records of this producer; `None` without a rate.
    interval_ns: Option<f64>,
    offset_ns: f64,
}

impl Schedule {
    pub(crate) fn new(rate: Rate, start_ns: u64, producer: u32, producers: u32) -> Self {
        let between = match rate {
            Rate::PerSecond(rate) => Some(1e9 / rate),
            Rate::Max => None,
        };
        Self {
            start_ns,
            interval_ns: between.map(|ns| ns * f64::from(producers)),
            offset_ns: between.map_or(0.0, |ns| ns * f64::from(producer)),
        }
    }

    /// When the record with this number (from 0) is due; `None` when it is due as soon as there is room.
    pub(crate) fn due_ns(&self, number: u64) -> Option<u64> {
        let interval = self.interval_ns?;
        // Below 2^53 ns, 104 days, this is exact to the nanosecond.
        Some(self.start_ns + (self.offset_ns + interval * number as f64) as u64)
    }
}

/// Lets this thread's timers end when they are due. The kernel's default is to let them end up to 50 us later.
pub(crate) fn sharpen_timers() {
    // Without it latencies are 50 us too large, never too small.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
}

/// Sleeps until the clock says `until_ns`.
pub(crate) fn sleep_until(clock: Clock, until_ns: u64) {
    let now = clock.now_ns();
    if until_ns > now {
        std::thread::sleep(Duration::from_nanos(until_ns - now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_records_of_several_producers_are_due_at_even_distances() {
        let schedules = [0, 1].map(|n| Schedule::new(Rate::PerSecond(1000.0), 5, n, 2));
        let due: Vec<_> = (0..2)
            .flat_map(|number| schedules.map(|schedule| schedule.due_ns(number)))
            .collect();
        let expected = [5, 1_000_005, 2_000_005, 3_000_005].map(Some);
        assert_eq!(due, expected);
        assert_eq!(Schedule::new(Rate::Max, 5, 0, 1).due_ns(7), None);
    }
}
