//! Holds a stream of records to a rate.

use std::{str::FromStr, time::Duration};

/// After a pause (the broker was away) at most this much time is made up for, so that a rate stays
/// a rate.
const CATCH_UP: Duration = Duration::from_millis(100);

/// Records over time: at least one a day, at most a thousand million a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rate {
    /// More than 0.
    per_second: f64,
}

impl FromStr for Rate {
    type Err = String;

    /// Reads `500/s`, `500`, `10k/s`, `1.5M/s`, `30/m`, `100/h`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a rate; examples: 500/s, 10k/s, 30/m");
        let (number, unit) = text.split_once('/').unwrap_or((text, "s"));
        let seconds = match unit {
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        let (digits, factor) = match number.strip_suffix(['k', 'K']) {
            Some(digits) => (digits, 1e3),
            None => number
                .strip_suffix('M')
                .map_or((number, 1.0), |digits| (digits, 1e6)),
        };
        if !digits
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
        {
            return Err(wrong());
        }
        let per_second = digits.parse::<f64>().map_err(|_| wrong())? * factor / seconds;
        if !(1.0 / 86_400.0..=1e9).contains(&per_second) {
            return Err(format!(
                "{text:?} is outside the limits: one a day to 1000M/s"
            ));
        }
        Ok(Self { per_second })
    }
}

/// Says when the next record may go. Time comes from outside, as the time since some start.
#[derive(Debug)]
pub(crate) struct Pacer {
    interval_s: f64,
    /// When the next record is due, in seconds.
    due_s: f64,
}

impl Pacer {
    /// The first record is due at once.
    pub(crate) fn new(rate: Rate) -> Self {
        Self {
            interval_s: 1.0 / rate.per_second,
            due_s: 0.0,
        }
    }

    /// When the next record may go.
    pub(crate) fn due(&self) -> Duration {
        Duration::from_secs_f64(self.due_s)
    }

    /// A record went at `now`.
    pub(crate) fn sent(&mut self, now: Duration) {
        let earliest = now.saturating_sub(CATCH_UP).as_secs_f64();
        self.due_s = self.due_s.max(earliest) + self.interval_s;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> f64 {
        text.parse::<Rate>()
            .unwrap_or_else(|error| panic!("{error}"))
            .per_second
    }

    #[test]
    fn rates_have_units_and_limits() {
        assert_eq!(rate("500/s"), 500.0);
        assert_eq!(rate("500"), 500.0);
        assert_eq!(rate("10k/s"), 10_000.0);
        assert_eq!(rate("1.5M"), 1_500_000.0);
        assert_eq!(rate("30/m"), 0.5);
        for text in [
            "", "0", "-1", "1/d", "x", "inf", "nan", "1e99", "/s", "k", "2000M/s",
        ] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    /// How many records go in the given time when the clock is looked at every millisecond.
    fn sent_within(pacer: &mut Pacer, from_ms: u64, to_ms: u64) -> u64 {
        let mut sent = 0;
        for now in (from_ms..to_ms).map(Duration::from_millis) {
            while pacer.due() <= now {
                pacer.sent(now);
                sent += 1;
            }
        }
        sent
    }

    #[test]
    fn the_rate_is_kept_without_drift() {
        for (text, expected) in [("1000/s", 10_000), ("333/s", 3_330), ("70k/s", 700_000)] {
            let mut pacer = Pacer::new(text.parse().unwrap());
            let sent = sent_within(&mut pacer, 0, 10_000);
            assert!(sent.abs_diff(expected) <= expected / 500, "{text}: {sent}");
        }
    }

    #[test]
    fn after_a_pause_little_is_made_up_for() {
        let mut pacer = Pacer::new("1000/s".parse().unwrap());
        sent_within(&mut pacer, 0, 1_000);
        let burst = sent_within(&mut pacer, 60_000, 60_001);
        assert!((100..=102).contains(&burst), "{burst}");
    }
}
