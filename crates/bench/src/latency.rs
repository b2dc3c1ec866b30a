//! Latencies: high dynamic range histograms of nanoseconds.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The longest latency that is told from longer ones: an hour.
const MAX_NS: u64 = 3_600_000_000_000;

/// Latencies of one thread or of all of them.
#[derive(Debug, Clone)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    /// With three significant digits. Memory is taken for what is recorded: some 100 KiB.
    pub(crate) fn new() -> Self {
        Self(Histogram::new(3).expect("three digits are allowed"))
    }

    /// With two significant digits, in a tenth of the memory.
    pub(crate) fn coarse() -> Self {
        Self(Histogram::new(2).expect("two digits are allowed"))
    }

    pub(crate) fn record(&mut self, ns: u64) {
        let recorded = self.0.record(ns.clamp(1, MAX_NS));
        recorded.expect("a histogram grows with what is recorded");
    }

    pub(crate) fn add(&mut self, other: &Self) {
        let added = self.0.add(&other.0);
        added.expect("a histogram grows with what is added");
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    pub(crate) fn clear(&mut self) {
        self.0.reset();
    }

    /// The latency in microseconds that a share of all stays at or below.
    pub(crate) fn quantile_us(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64 / 1e3
    }

    /// `None` when nothing was measured.
    pub(crate) fn summary(&self) -> Option<LatencyUs> {
        if self.0.is_empty() {
            return None;
        }
        Some(LatencyUs {
            mean: self.0.mean() / 1e3,
            p50: self.quantile_us(0.5),
            p90: self.quantile_us(0.9),
            p99: self.quantile_us(0.99),
            p999: self.quantile_us(0.999),
            max: self.0.max() as f64 / 1e3,
        })
    }

    /// Share in percent and microseconds, denser towards the end, for a plot.
    pub(crate) fn percentiles(&self) -> Vec<(f64, f64)> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let steps = self.0.iter_quantiles(5);
        steps
            .map(|step| {
                (
                    step.quantile() * 100.0,
                    step.value_iterated_to() as f64 / 1e3,
                )
            })
            .collect()
    }
}

/// Latencies in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LatencyUs {
    /// The mean.
    pub mean: f64,
    /// Half of all are at or below.
    pub p50: f64,
    /// 90 % are at or below.
    pub p90: f64,
    /// 99 % are at or below.
    pub p99: f64,
    /// 99.9 % are at or below.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cleared_histogram_knows_nothing_of_what_was_before() {
        let mut latencies = Latencies::coarse();
        latencies.record(5_000_000_000);
        latencies.clear();
        assert_eq!(latencies.summary(), None);
        latencies.record(1_000_000);
        let max = latencies.summary().map(|summary| summary.max);
        assert!(
            max.is_some_and(|us| (990.0..1010.0).contains(&us)),
            "{max:?}"
        );
    }
}
