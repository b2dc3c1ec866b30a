//! Two reports beside each other, and which differences are more than noise.
//!
//! Each second of a run is a sample. The noise of a figure is twice the standard error of the difference of the two
//! means (Welch), as seconds are alike within a run; but runs differ from each other by more than their seconds do,
//! so a difference below 5 % is always called noise. Figures that have no samples are held against 10 %.

use std::fmt::Write;

use serde::Serialize;

use super::Report;
use crate::watch::Point;

/// Runs of the same thing differ by so much on a quiet machine.
const FLOOR: f64 = 0.05;
const FLOOR_WITHOUT_SAMPLES: f64 = 0.10;
/// Fewer seconds say nothing about noise.
const SAMPLES_MIN: usize = 5;

/// What a change means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It could be chance.
    Noise,
    /// The second run is better.
    Better,
    /// The second run is worse.
    Worse,
}

/// One figure of both reports.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// Its name in the report.
    pub figure: &'static str,
    /// In the first report.
    pub before: f64,
    /// In the second.
    pub after: f64,
    /// `after / before`.
    pub ratio: f64,
    /// How far from 1 the ratio may be by chance.
    pub noise: f64,
    /// What it means.
    pub verdict: Verdict,
}

/// All figures of both reports.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// What was not the same in both runs besides the figures; such runs are hard to compare.
    pub differences: Vec<String>,
    /// The figures that both have.
    pub changes: Vec<Change>,
}

struct Figure {
    name: &'static str,
    more_is_better: bool,
    value: fn(&Report) -> Option<f64>,
    sample: Option<fn(&Point) -> Option<f64>>,
}

const FIGURES: &[Figure] = &[
    Figure {
        name: "records_per_second",
        more_is_better: true,
        value: |report| Some(report.records_per_second),
        sample: Some(|point| Some(point.records as f64)),
    },
    Figure {
        name: "megabytes_per_second",
        more_is_better: true,
        value: |report| Some(report.megabytes_per_second),
        sample: Some(|point| Some(point.bytes as f64)),
    },
    Figure {
        name: "latency_us.p50",
        more_is_better: false,
        value: |report| Some(report.latency_us?.p50),
        sample: Some(|point| Some(point.p50_us)),
    },
    Figure {
        name: "latency_us.p99",
        more_is_better: false,
        value: |report| Some(report.latency_us?.p99),
        sample: Some(|point| Some(point.p99_us)),
    },
    Figure {
        name: "latency_us.p999",
        more_is_better: false,
        value: |report| Some(report.latency_us?.p999),
        sample: Some(|point| Some(point.max_us)),
    },
    Figure {
        name: "server_cpu_seconds_per_million_records",
        more_is_better: false,
        value: |report| report.server_cpu_seconds_per_million_records,
        sample: Some(|point| Some(point.broker_cpu_seconds? / point.records as f64)),
    },
    Figure {
        name: "server_memory_bytes_max",
        more_is_better: false,
        value: |report| Some(report.server_memory_bytes_max? as f64),
        sample: None,
    },
];

pub(super) fn compare(before: &Report, after: &Report) -> Comparison {
    let changes = FIGURES.iter().filter_map(|figure| {
        let (old, new) = ((figure.value)(before)?, (figure.value)(after)?);
        if old <= 0.0 {
            return None;
        }
        let samples = |report: &Report| {
            let points = inner(&report.timeline);
            let samples = points.iter().filter_map(|point| (figure.sample?)(point));
            samples
                .filter(|sample| sample.is_finite())
                .collect::<Vec<_>>()
        };
        let noise = noise(&samples(before), &samples(after));
        let ratio = new / old;
        let verdict = match (ratio - 1.0).abs() <= noise {
            true => Verdict::Noise,
            false if (ratio > 1.0) == figure.more_is_better => Verdict::Better,
            false => Verdict::Worse,
        };
        Some(Change {
            figure: figure.name,
            before: old,
            after: new,
            ratio,
            noise,
            verdict,
        })
    });
    Comparison {
        differences: differences(before, after),
        changes: changes.collect(),
    }
}

/// The seconds that are whole: neither the first nor the last.
fn inner(points: &[Point]) -> &[Point] {
    let end = points.len().saturating_sub(1);
    points.get(1..end).unwrap_or_default()
}

/// How far from 1 the ratio of the means of two samples may be by chance.
fn noise(before: &[f64], after: &[f64]) -> f64 {
    if before.len().min(after.len()) < SAMPLES_MIN {
        return FLOOR_WITHOUT_SAMPLES;
    }
    let spread = |samples: &[f64]| {
        let count = samples.len() as f64;
        let mean = samples.iter().sum::<f64>() / count;
        let squares = samples.iter().map(|sample| (sample - mean).powi(2));
        let variance = squares.sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    };
    let ((mean, first), (_, second)) = (spread(before), spread(after));
    match mean > 0.0 {
        true => (2.0 * (first + second).sqrt() / mean).max(FLOOR),
        false => FLOOR_WITHOUT_SAMPLES,
    }
}

/// Settings and machines that are not the same.
fn differences(before: &Report, after: &Report) -> Vec<String> {
    let values = |report: &Report| {
        let mut flat = Vec::new();
        let parts = [
            ("command", serde_json::to_value(&report.command)),
            ("partitions", serde_json::to_value(report.partitions)),
            ("settings", serde_json::to_value(&report.settings)),
            ("machine", serde_json::to_value(&report.machine)),
            ("version", serde_json::to_value(&report.version)),
        ];
        for (name, value) in parts {
            // A report that was made or parsed can be written.
            flatten(name, &value.unwrap_or_default(), &mut flat);
        }
        flat
    };
    let (old, new) = (values(before), values(after));
    let pairs = old.iter().filter_map(|(name, old)| {
        let new = new.iter().find(|(other, _)| other == name);
        let new = new.map_or("nothing", |(_, new)| new);
        (old != new && !name.ends_with("broker_pid") && !name.ends_with("topic.name"))
            .then(|| format!("{name}: {old} and {new}"))
    });
    pairs.collect()
}

fn flatten(name: &str, value: &serde_json::Value, flat: &mut Vec<(String, String)>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (field, value) in fields {
                flatten(&format!("{name}.{field}"), value, flat);
            }
        }
        value => flat.push((name.to_owned(), value.to_string())),
    }
}

impl Comparison {
    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        for difference in &self.differences {
            let _ = writeln!(text, "not the same: {difference}");
        }
        let _ = writeln!(
            text,
            "{:<40} {:>14} {:>14} {:>8} {:>8}  VERDICT",
            "FIGURE", "BEFORE", "AFTER", "RATIO", "NOISE"
        );
        for change in &self.changes {
            let verdict = match change.verdict {
                Verdict::Noise => "within noise",
                Verdict::Better => "better",
                Verdict::Worse => "worse",
            };
            let _ = writeln!(
                text,
                "{:<40} {:>14.3} {:>14.3} {:>8.3} {:>7.1}%  {verdict}",
                change.figure,
                change.before,
                change.after,
                change.ratio,
                change.noise * 100.0
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_what_the_seconds_of_a_run_say_but_never_below_the_floor() {
        let steady = [100.0; 10];
        assert_eq!(noise(&steady, &steady), FLOOR);
        let wild: Vec<f64> = (0..10)
            .map(|n| if n % 2 == 0 { 50.0 } else { 150.0 })
            .collect();
        // Standard deviation 52.7, of the mean 16.7, of the difference 23.6, twice that of 100.
        let found = noise(&wild, &wild);
        assert!((0.46..0.48).contains(&found), "{found}");
        assert_eq!(noise(&steady[..3], &steady), FLOOR_WITHOUT_SAMPLES);
    }
}
