//! Log lines that clients can cause at will, held to one in a while.

use std::time::Duration;

use parking_lot::Mutex;

/// Lets one event of a kind through in each interval and counts the others.
#[derive(Debug)]
pub struct Throttle {
    interval: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Duration>,
    suppressed: u64,
}

impl Throttle {
    /// Lets the first event through, and then one in each interval.
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            state: Mutex::default(),
        }
    }

    /// `Some` when the event may be logged, with how many were not since the last one. `now` is the
    /// monotonic clock's.
    pub fn pass(&self, now: Duration) -> Option<u64> {
        let mut state = self.state.lock();
        let due = state
            .last
            .is_none_or(|last| now.saturating_sub(last) >= self.interval);
        if !due {
            state.suppressed += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_passes_in_each_interval_and_the_others_are_counted() {
        let throttle = Throttle::new(Duration::from_secs(10));
        let passed: Vec<Option<u64>> = [0, 1, 9, 10, 11, 25]
            .into_iter()
            .map(|seconds| throttle.pass(Duration::from_secs(seconds)))
            .collect();
        assert_eq!(passed, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
