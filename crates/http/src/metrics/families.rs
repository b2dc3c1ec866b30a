//! Writing metric families: a name, a help text, and a series for each set of labels.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// The labels of one series.
pub(super) type Labels<'a> = Vec<(&'static str, &'a str)>;

/// Durations by bucket: `(upper bound in seconds, count in this bucket)`, the last bound infinite.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Buckets {
    pub(super) sum: Duration,
    pub(super) counts: Vec<(f64, u64)>,
}

impl Buckets {
    /// From counts beside their upper bounds in microseconds; the one more count has no bound.
    pub(super) fn from_micros(bounds: &[u64], counts: &[u64], sum: Duration) -> Self {
        assert_eq!(
            bounds.len() + 1,
            counts.len(),
            "the last count has no bound"
        );
        let bounds = bounds
            .iter()
            .map(|bound| *bound as f64 / 1e6)
            .chain([f64::INFINITY]);
        Self {
            sum,
            counts: bounds.zip(counts.iter().copied()).collect(),
        }
    }
}

/// Writes families, one after the other. Each is written even when it has no series, so that its
/// help text is there from the start.
pub(super) struct Families<'e, 'w> {
    encoder: &'e mut DescriptorEncoder<'w>,
}

impl<'e, 'w> Families<'e, 'w> {
    pub(super) fn new(encoder: &'e mut DescriptorEncoder<'w>) -> Self {
        Self { encoder }
    }

    /// Totals that only grow. `name` without `_total`, which is added.
    pub(super) fn counters<'a>(
        &mut self,
        name: &str,
        unit: Option<Unit>,
        help: &str,
        series: impl IntoIterator<Item = (Labels<'a>, u64)>,
    ) -> fmt::Result {
        let mut family = self.family(name, unit.as_ref(), help, MetricType::Counter)?;
        for (labels, value) in series {
            family
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, u64, f64>(&value, None)?;
        }
        Ok(())
    }

    /// Totals of seconds that only grow.
    pub(super) fn counter_seconds(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.family(name, Some(&Unit::Seconds), help, MetricType::Counter)?
            .encode_counter::<NoLabelSet, f64, f64>(&value, None)
    }

    /// Whole numbers that rise and fall.
    pub(super) fn gauges<'a>(
        &mut self,
        name: &str,
        unit: Option<Unit>,
        help: &str,
        series: impl IntoIterator<Item = (Labels<'a>, u64)>,
    ) -> fmt::Result {
        let mut family = self.family(name, unit.as_ref(), help, MetricType::Gauge)?;
        for (labels, value) in series {
            series_of(&mut family, &labels, |series| series.encode_gauge(&value))?;
        }
        Ok(())
    }

    /// Seconds that rise and fall.
    pub(super) fn gauges_seconds<'a>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<'a>, f64)>,
    ) -> fmt::Result {
        let mut family = self.family(name, Some(&Unit::Seconds), help, MetricType::Gauge)?;
        for (labels, value) in series {
            series_of(&mut family, &labels, |series| series.encode_gauge(&value))?;
        }
        Ok(())
    }

    /// One number of seconds.
    pub(super) fn gauge_seconds(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.family(name, Some(&Unit::Seconds), help, MetricType::Gauge)?
            .encode_gauge(&value)
    }

    /// One part of a whole, 0 to 1.
    pub(super) fn gauge_ratio(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.family(
            name,
            Some(&Unit::Other("ratio".to_owned())),
            help,
            MetricType::Gauge,
        )?
        .encode_gauge(&value)
    }

    /// Durations by bucket, in seconds.
    pub(super) fn histograms<'a>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<'a>, Buckets)>,
    ) -> fmt::Result {
        let mut family = self.family(name, Some(&Unit::Seconds), help, MetricType::Histogram)?;
        for (labels, buckets) in series {
            let count = buckets.counts.iter().map(|(_, count)| count).sum();
            let sum = buckets.sum.as_secs_f64();
            series_of(&mut family, &labels, |series| {
                series.encode_histogram::<NoLabelSet>(sum, count, &buckets.counts, None)
            })?;
        }
        Ok(())
    }

    /// One series whose value is 1 and whose labels are the message. `_info` is added.
    pub(super) fn info(&mut self, name: &str, help: &str, labels: &Labels<'_>) -> fmt::Result {
        self.family(name, None, help, MetricType::Info)?
            .encode_info(labels)
    }

    fn family<'s>(
        &'s mut self,
        name: &'s str,
        unit: Option<&'s Unit>,
        help: &str,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.encoder.encode_descriptor(name, help, unit, kind)
    }
}

/// Writes one series; one without labels is written without braces.
fn series_of(
    family: &mut MetricEncoder<'_>,
    labels: &Labels<'_>,
    write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    if labels.is_empty() {
        write(family)
    } else {
        write(&mut family.encode_family(labels)?)
    }
}
