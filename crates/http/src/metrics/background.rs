//! The table of background work, and what retention has done.

use std::fmt;

use prometheus_client::registry::Unit;
use sapwood_broker::{Broker, MetricsSnapshot, TaskMetrics};

use super::{
    broker::buckets,
    families::{Families, Labels},
};

/// Writes one series for each row of the table, then what the rows count themselves.
pub(super) fn encode(
    broker: &Broker,
    snapshot: &MetricsSnapshot,
    families: &mut Families<'_, '_>,
) -> fmt::Result {
    let tasks = &snapshot.tasks;
    families.counters(
        "sapwood_background_runs",
        None,
        "Ticks of background work that succeeded.",
        tasks.iter().map(|task| (label(task), task.runs)),
    )?;
    families.counters(
        "sapwood_background_failures",
        None,
        "Ticks of background work that failed.",
        tasks.iter().map(|task| (label(task), task.failures)),
    )?;
    families.gauges(
        "sapwood_background_running",
        None,
        "1 while a tick of the background work is under way.",
        tasks
            .iter()
            .map(|task| (label(task), u64::from(task.is_running))),
    )?;
    families.gauges(
        "sapwood_background_last_run_timestamp",
        Some(Unit::Seconds),
        "When the last tick began, in seconds since 1970 by the broker's clock.",
        tasks.iter().filter_map(|task| {
            let seconds = task.last_run?.0 / 1000;
            Some((label(task), u64::try_from(seconds).ok()?))
        }),
    )?;
    families.gauges(
        "sapwood_background_left",
        Some(Unit::Other("partitions".to_owned())),
        "Partitions that the background work has begun with and not come to yet.",
        tasks.iter().map(|task| {
            let left = task
                .progress
                .map_or(0, |progress| progress.total - progress.done);
            (label(task), left)
        }),
    )?;
    retention(broker, families)
}

fn retention(broker: &Broker, families: &mut Families<'_, '_>) -> fmt::Result {
    let metrics = &broker.metrics().retention;
    families.histograms(
        "sapwood_retention_pass_duration",
        "One look at all partitions for what is due; reads no file.",
        [(Vec::new(), buckets(&metrics.pass))],
    )?;
    families.counters(
        "sapwood_retention_segments",
        None,
        "Segments that retention deleted.",
        [(Vec::new(), metrics.segments.get())],
    )?;
    families.counters(
        "sapwood_retention",
        Some(Unit::Bytes),
        "Bytes of batches that retention deleted.",
        [(Vec::new(), metrics.bytes.get())],
    )?;
    families.counters(
        "sapwood_retention_failures",
        None,
        "Times that retention failed for a partition; it is left alone for up to a minute then.",
        [(Vec::new(), metrics.failures.get())],
    )
}

fn label(task: &TaskMetrics) -> Labels<'_> {
    vec![("task", task.name)]
}
