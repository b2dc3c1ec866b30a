//! The table of background work, and what retention and compaction have done.

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
    retention(broker, families)?;
    compaction(broker, families)
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

fn compaction(broker: &Broker, families: &mut Families<'_, '_>) -> fmt::Result {
    let metrics = &broker.metrics().compaction;
    let bytes = || Some(Unit::Bytes);
    for (name, unit, help, count) in [
        (
            "sapwood_compaction_runs",
            None,
            "Logs that were compacted to the end.",
            &metrics.runs,
        ),
        (
            "sapwood_compaction_failures",
            None,
            "Times that compaction failed for a partition; it is left alone for up to a minute then.",
            &metrics.failures,
        ),
        (
            "sapwood_compaction_read",
            bytes(),
            "Bytes of batches that compaction read.",
            &metrics.read_bytes,
        ),
        (
            "sapwood_compaction_written",
            bytes(),
            "Bytes of batches that compaction wrote.",
            &metrics.written_bytes,
        ),
        (
            "sapwood_compaction_removed_records",
            None,
            "Records that compaction left out because a later one has their key.",
            &metrics.removed_records,
        ),
        (
            "sapwood_compaction_replaced_segments",
            None,
            "Segments that compaction replaced.",
            &metrics.replaced_segments,
        ),
        (
            "sapwood_compaction_replaced",
            bytes(),
            "Bytes of the segments that compaction replaced.",
            &metrics.bytes_before,
        ),
        (
            "sapwood_compaction_replacing",
            bytes(),
            "Bytes of the segments that are in their place.",
            &metrics.bytes_after,
        ),
        (
            "sapwood_compaction_unreadable_batches",
            None,
            "Batches that compaction left as they were because nobody can decompress them.",
            &metrics.unreadable_batches,
        ),
    ] {
        families.counters(name, unit, help, [(Vec::new(), count.get())])?;
    }
    let levels = metrics.levels();
    families.gauge_ratio(
        "sapwood_compaction_dirty_max",
        "The part of the dirtiest compacted log that is new, 0 to 1, when all were looked at last.",
        levels.dirty_ratio_max,
    )?;
    families.gauges(
        "sapwood_compaction_uncleanable",
        Some(Unit::Other("partitions".to_owned())),
        "Partitions that compaction leaves alone for a while because it failed for them.",
        [(Vec::new(), levels.uncleanable)],
    )?;
    families.gauges(
        "sapwood_compaction_map_max",
        bytes(),
        "The most memory that the keys of a log have taken so far.",
        [(Vec::new(), levels.map_bytes_max)],
    )
}

fn label(task: &TaskMetrics) -> Labels<'_> {
    vec![("task", task.name)]
}
