//! Log lines that clients can cause at will: one of a kind in a while, the others counted.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Mistakes of one kind are logged at most this often.
const INTERVAL: Duration = Duration::from_secs(10);

/// One kind of log line.
#[derive(Debug, Default)]
pub(crate) struct Warning {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    suppressed: u64,
}

impl Warning {
    /// `Some` when the line may be logged, with how many were not since the last one.
    pub(crate) fn pass(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        if state
            .last
            .is_some_and(|last| now.duration_since(last) < INTERVAL)
        {
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
    fn one_line_passes_in_each_interval_and_says_how_many_did_not() {
        let warning = Warning::default();
        let start = Instant::now();
        let passed: Vec<_> = [0, 1, 9, 10, 11, 30]
            .map(|seconds| warning.pass(start + Duration::from_secs(seconds)))
            .into();
        assert_eq!(passed, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
