//! The broker's numbers: requests, topics, storage.

use std::fmt;

use prometheus_client::registry::Unit;
use sapwood_broker::{
    BUCKET_BOUNDS_US, Broker, Counter, Histogram, MetricsSnapshot, PartitionMetrics, Results,
    StoreMetrics, TopicMetrics,
};

use super::{
    background,
    families::{Buckets, Families, Labels},
};

/// Writes everything that `broker` counts. Blocks for one system call on the file system.
pub(super) fn encode(
    broker: &Broker,
    per_partition: bool,
    families: &mut Families<'_, '_>,
) -> fmt::Result {
    let snapshot = broker.metrics_snapshot();
    requests(broker, &snapshot, families)?;
    topics(&snapshot.topics, families)?;
    partitions(&snapshot.topics, per_partition, families)?;
    storage(broker.store_metrics(), families)?;
    disk(broker, families)?;
    recovery(broker, families)?;
    background::encode(broker, &snapshot, families)
}

fn requests(
    broker: &Broker,
    snapshot: &MetricsSnapshot,
    families: &mut Families<'_, '_>,
) -> fmt::Result {
    let metrics = broker.metrics();
    let results = [
        ("produce", outcomes(&metrics.produce)),
        ("fetch", outcomes(&metrics.fetch)),
    ];
    families.counters(
        "sapwood_requests",
        None,
        "Batches produced and partitions fetched, by error code; none is success.",
        results.iter().flat_map(|(api, outcomes)| {
            let labels = move |error| vec![("api", *api), ("error", error)];
            outcomes
                .iter()
                .map(move |(error, count)| (labels(error.as_str()), *count))
        }),
    )?;
    let phases = [
        ("produce", "storage", &metrics.produce_append),
        ("produce", "fsync", &metrics.produce_durable),
        ("fetch", "storage", &metrics.fetch_read),
        ("fetch", "wait", &metrics.fetch_parked),
    ];
    families.histograms(
        "sapwood_request_duration",
        "Time of a request by phase: storage checks and appends, or reads; fsync waits for \
         durability; wait is parked for want of records.",
        phases.map(|(api, phase, histogram)| {
            (vec![("api", api), ("phase", phase)], buckets(histogram))
        }),
    )?;
    families.gauges(
        "sapwood_fetches_parked",
        None,
        "Fetches that wait for records.",
        [(Vec::new(), snapshot.fetches_parked)],
    )?;
    families.gauges(
        "sapwood_request_budget_used",
        Some(Unit::Bytes),
        "Bytes of requests that are held.",
        [(Vec::new(), snapshot.request_bytes)],
    )?;
    families.gauges(
        "sapwood_request_budget",
        Some(Unit::Bytes),
        "The limit of bytes of requests that are held.",
        [(Vec::new(), snapshot.request_bytes_max)],
    )?;
    families.counters(
        "sapwood_request_budget_waits",
        None,
        "Requests that had to wait for room in the budget.",
        [(Vec::new(), snapshot.request_waits)],
    )
}

/// How often each result came, by its label.
fn outcomes(results: &Results) -> Vec<(String, u64)> {
    let errors = results
        .errors()
        .into_iter()
        .map(|(code, count)| (code.to_string(), count));
    [("none".to_owned(), results.ok())]
        .into_iter()
        .chain(errors)
        .collect()
}

fn topics(topics: &[TopicMetrics], families: &mut Families<'_, '_>) -> fmt::Result {
    type Number = fn(&TopicMetrics) -> u64;
    let counters: [(&str, Option<Unit>, &str, Number); 5] = [
        (
            "sapwood_topic_records_in",
            None,
            "Records appended.",
            |topic| topic.records_in,
        ),
        (
            "sapwood_topic_in",
            Some(Unit::Bytes),
            "Bytes of batches appended.",
            |topic| topic.bytes_in,
        ),
        (
            "sapwood_topic_batches_in",
            None,
            "Batches appended.",
            |topic| topic.batches_in,
        ),
        (
            "sapwood_topic_records_out",
            None,
            "Records fetched.",
            |topic| topic.records_out,
        ),
        (
            "sapwood_topic_out",
            Some(Unit::Bytes),
            "Bytes of batches fetched.",
            |topic| topic.bytes_out,
        ),
    ];
    for (name, unit, help, number) in counters {
        let series = topics
            .iter()
            .map(|topic| (topic_labels(topic), number(topic)));
        families.counters(name, unit, help, series)?;
    }
    for (name, help) in [
        ("sapwood_topic_partitions", "Partitions of the topic."),
        (
            "kafka_topic_partitions",
            "sapwood_topic_partitions, by the name that Kafka's exporter gives it.",
        ),
    ] {
        let partitions = topics
            .iter()
            .map(|topic| (topic_labels(topic), topic.partitions.len() as u64));
        families.gauges(name, None, help, partitions)?;
    }
    families.gauges(
        "sapwood_topic_partitions_offline",
        None,
        "Partitions of the topic that do not serve: their files are damaged or cannot be written.",
        topics.iter().map(|topic| {
            let offline = topic
                .partitions
                .iter()
                .filter(|partition| !partition.online)
                .count();
            (topic_labels(topic), offline as u64)
        }),
    )
}

fn topic_labels(topic: &TopicMetrics) -> Labels<'_> {
    vec![("topic", topic.name.as_str())]
}

/// One series for each partition, or one for each topic with the sum over its partitions.
fn partitions(
    topics: &[TopicMetrics],
    per_partition: bool,
    families: &mut Families<'_, '_>,
) -> fmt::Result {
    type Number = fn(&PartitionMetrics) -> u64;
    let gauges: [(&str, Option<Unit>, &str, Number); 8] = [
        (
            "sapwood_log_start_offset",
            None,
            "The first offset that was not deleted.",
            |partition| partition.bounds.log_start.0,
        ),
        (
            "sapwood_high_watermark_offset",
            None,
            "The first offset that cannot be read yet.",
            |partition| partition.bounds.high_watermark.0,
        ),
        (
            "sapwood_log_end_offset",
            None,
            "The offset that the next record gets.",
            |partition| partition.bounds.log_end.0,
        ),
        (
            "sapwood_log_size",
            Some(Unit::Bytes),
            "Bytes of batches in the log.",
            |partition| partition.stats.bytes,
        ),
        (
            "sapwood_log_segments",
            None,
            "Segments, the active one included.",
            |partition| partition.stats.segments as u64,
        ),
        (
            "sapwood_log_unflushed",
            Some(Unit::Bytes),
            "Bytes that no checkpoint covers.",
            |partition| partition.stats.unflushed_bytes,
        ),
        (
            "kafka_topic_partition_current_offset",
            None,
            "sapwood_high_watermark_offset, by the name that Kafka's exporter gives it.",
            |partition| partition.bounds.high_watermark.0,
        ),
        (
            "kafka_topic_partition_oldest_offset",
            None,
            "sapwood_log_start_offset, by the name that Kafka's exporter gives it.",
            |partition| partition.bounds.log_start.0,
        ),
    ];
    // The label lives as long as the series: numbers are written out once, not once a family.
    let numbers: Vec<Vec<String>> = topics
        .iter()
        .filter(|_| per_partition)
        .map(|topic| {
            topic
                .partitions
                .iter()
                .map(|each| each.partition.0.to_string())
                .collect()
        })
        .collect();
    for (name, unit, help, number) in gauges {
        if per_partition {
            let series = topics.iter().zip(&numbers).flat_map(|(topic, numbers)| {
                topic
                    .partitions
                    .iter()
                    .zip(numbers)
                    .map(move |(partition, label)| {
                        let labels = vec![
                            ("topic", topic.name.as_str()),
                            ("partition", label.as_str()),
                        ];
                        (labels, number(partition))
                    })
            });
            families.gauges(name, unit, help, series)?;
        } else {
            let series = topics.iter().map(|topic| {
                (
                    topic_labels(topic),
                    topic.partitions.iter().map(number).sum(),
                )
            });
            families.gauges(name, unit, help, series)?;
        }
    }
    Ok(())
}

fn storage(store: &StoreMetrics, families: &mut Families<'_, '_>) -> fmt::Result {
    let durations = [
        (
            "sapwood_fsync_duration",
            "One sync of the journal.",
            &store.journal_sync,
        ),
        (
            "sapwood_checkpoint_duration",
            "One checkpoint.",
            &store.checkpoint,
        ),
    ];
    for (name, help, histogram) in durations {
        families.histograms(name, help, [(Vec::new(), buckets(histogram))])?;
    }
    let counters: [(&str, Option<Unit>, &str, &Counter); 13] = [
        ("sapwood_appends", None, "Batches appended.", &store.appends),
        (
            "sapwood_append",
            Some(Unit::Bytes),
            "Bytes of batches appended.",
            &store.append_bytes,
        ),
        (
            "sapwood_journal_rounds",
            None,
            "Rounds of the journal synced.",
            &store.journal_rounds,
        ),
        (
            "sapwood_journal_written",
            Some(Unit::Bytes),
            "Bytes written to the journal, padding included.",
            &store.journal_bytes,
        ),
        (
            "sapwood_journal_full",
            None,
            "Rounds that waited for a checkpoint: every journal file was still needed.",
            &store.journal_full,
        ),
        (
            "sapwood_segments_rolled",
            None,
            "Segments rolled.",
            &store.segments_rolled,
        ),
        (
            "sapwood_segments_removed",
            None,
            "Segments removed.",
            &store.segments_removed,
        ),
        (
            "sapwood_late_allocations",
            None,
            "Appends that had to allocate space themselves.",
            &store.late_allocations,
        ),
        (
            "sapwood_reads_resident",
            None,
            "Reads from memory.",
            &store.reads_resident,
        ),
        (
            "sapwood_reads_cold",
            None,
            "Reads that waited for the disk.",
            &store.reads_cold,
        ),
        (
            "sapwood_scrubbed",
            Some(Unit::Bytes),
            "Bytes of sealed segments that were read to find damage.",
            &store.scrubbed_bytes,
        ),
        (
            "sapwood_corrupt_batches",
            None,
            "Batches that failed a check.",
            &store.corrupt_batches,
        ),
        (
            "sapwood_appends_without_space",
            None,
            "Appends refused because the disk is full.",
            &store.no_space,
        ),
    ];
    for (name, unit, help, counter) in counters {
        families.counters(name, unit, help, [(Vec::new(), counter.get())])?;
    }
    Ok(())
}

fn disk(broker: &Broker, families: &mut Families<'_, '_>) -> fmt::Result {
    // A file system that cannot be asked has no series; what it makes fail is counted elsewhere.
    let space = broker.disk_space().ok();
    families.gauges(
        "sapwood_disk_free",
        Some(Unit::Bytes),
        "Free space on the file system of the data directory.",
        space.iter().map(|space| (Vec::new(), space.free_bytes)),
    )?;
    families.gauges(
        "sapwood_disk_total",
        Some(Unit::Bytes),
        "Size of the file system of the data directory.",
        space.iter().map(|space| (Vec::new(), space.total_bytes)),
    )?;
    let read_only = broker.read_only().is_some();
    let full = !read_only && broker.is_disk_full();
    let states = [
        ("ok", !read_only && !full),
        ("full", full),
        ("read_only", read_only),
    ];
    families.gauges(
        "sapwood_disk_state",
        None,
        "1 for the state of the data directory: full is as long as appends are refused for want of \
         space, read_only until a restart.",
        states.map(|(state, is)| (vec![("state", state)], u64::from(is))),
    )?;
    families.gauges(
        "sapwood_disk_ballast",
        Some(Unit::Bytes),
        "Space that is kept for deletes, commits and checkpoints on a full disk; 0 while it is given up.",
        [(Vec::new(), broker.ballast_bytes())],
    )
}

fn recovery(broker: &Broker, families: &mut Families<'_, '_>) -> fmt::Result {
    let report = broker.recovery();
    families.gauges(
        "sapwood_recovery_replayed",
        Some(Unit::Bytes),
        "Bytes that the last start wrote to segments again.",
        [(Vec::new(), report.replayed_bytes)],
    )?;
    families.gauges(
        "sapwood_recovery_logs_cut",
        None,
        "Logs that the last start cut, because their end was not durable.",
        [(Vec::new(), report.cut.len() as u64)],
    )
}

pub(super) fn buckets(histogram: &Histogram) -> Buckets {
    Buckets::from_micros(&BUCKET_BOUNDS_US, &histogram.counts(), histogram.sum())
}
