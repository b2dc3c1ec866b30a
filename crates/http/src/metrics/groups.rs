//! Consumer groups: members, rebalances, lag in records and in time.
//!
//! Lag comes under two names, Sapwood's and those of the exporter for Kafka that many dashboards are
//! made for.

use std::fmt;

use prometheus_client::registry::Unit;
use sapwood_broker::{
    Broker, GroupSurvey, SurveyedGroup,
    group::{GroupKind, GroupState},
};

use super::{
    broker::buckets,
    families::{Families, Labels},
};

/// How far a group has read a partition or, summed up, a topic.
struct Row<'a> {
    group: &'a str,
    topic: &'a str,
    /// None for a sum.
    partition: Option<String>,
    committed: Option<u64>,
    lag: Option<u64>,
    lost: u64,
    behind_ms: Option<u64>,
    headroom_ms: Option<u64>,
}

/// Writes the numbers of all groups that `survey` looked into.
pub(super) fn encode(
    broker: &Broker,
    survey: &GroupSurvey,
    per_partition: bool,
    families: &mut Families<'_, '_>,
) -> fmt::Result {
    all(broker, survey, families)?;
    each(survey, families)?;
    let mut rows: Vec<Row<'_>> = survey.groups.iter().flat_map(rows).collect();
    if !per_partition {
        rows = sums(rows);
    }
    reading(&rows, families)?;
    as_kafkas_exporter(survey, &rows, families)
}

/// What is counted over all groups.
fn all(broker: &Broker, survey: &GroupSurvey, families: &mut Families<'_, '_>) -> fmt::Result {
    let states = survey.states.iter();
    families.gauges(
        "sapwood_groups",
        None,
        "Consumer groups, by state.",
        states.map(|(state, groups)| (vec![("state", state_name(*state))], *groups as u64)),
    )?;
    families.gauges(
        "sapwood_groups_left_out",
        None,
        "Consumer groups that have no series of their own here, because there are too many.",
        [(Vec::new(), survey.groups_left_out as u64)],
    )?;
    let progress = broker.groups().load_progress();
    let coordinators = [
        ("loading", progress.loading),
        ("loaded", progress.loaded),
        ("failed", progress.failed),
    ];
    families.gauges(
        "sapwood_group_coordinators",
        None,
        "Partitions of __consumer_offsets, by what their groups are: loading, loaded and serving, or \
         failed and not serving until a restart.",
        coordinators.map(|(state, partitions)| (vec![("state", state)], partitions as u64)),
    )?;
    let metrics = &broker.metrics().groups;
    families.histograms(
        "sapwood_group_commit_duration",
        "Commits of offsets, from the request to its answer; what is committed is durable then.",
        [(Vec::new(), buckets(&metrics.commit))],
    )?;
    let rebalances = [
        (GroupKind::Classic, &metrics.classic_rebalance),
        (GroupKind::Consumer, &metrics.consumer_rebalance),
    ];
    families.histograms(
        "sapwood_group_rebalance_duration",
        "Rebalances, from what made them necessary until every member has its partitions.",
        rebalances.map(|(kind, took)| (vec![("kind", kind_name(kind))], buckets(took))),
    )
}

/// What is said of each group as a whole.
fn each(survey: &GroupSurvey, families: &mut Families<'_, '_>) -> fmt::Result {
    let groups = || survey.groups.iter();
    families.gauges(
        "sapwood_group_members",
        None,
        "Members of the group.",
        groups().map(|group| (group_label(group), group.group.members as u64)),
    )?;
    families.gauges(
        "sapwood_group_state",
        None,
        "1 for the state that the group is in.",
        groups().map(|group| {
            let mut labels = group_label(group);
            labels.push(("state", state_name(group.group.state)));
            (labels, 1)
        }),
    )?;
    families.counters(
        "sapwood_group_rebalances",
        None,
        "Rebalances of the group since the broker's start.",
        groups().map(|group| (group_label(group), group.rebalances)),
    )
}

fn reading(rows: &[Row<'_>], families: &mut Families<'_, '_>) -> fmt::Result {
    type Records = fn(&Row<'_>) -> Option<u64>;
    let records: [(&str, Option<Unit>, &str, Records); 3] = [
        (
            "sapwood_group_committed_offset",
            None,
            "The next offset that the group reads, as it has committed it.",
            |row| row.committed,
        ),
        (
            "sapwood_group_lag",
            Some(Unit::Other("records".to_owned())),
            "Records that the group has yet to read.",
            |row| row.lag,
        ),
        (
            "sapwood_group_lost",
            Some(Unit::Other("records".to_owned())),
            "Records that were deleted before the group had read them: from what it has committed to \
             the log start.",
            |row| Some(row.lost),
        ),
    ];
    for (name, unit, help, number) in records {
        let series = rows
            .iter()
            .filter_map(|row| Some((row.labels("group"), number(row)?)));
        families.gauges(name, unit, help, series)?;
    }
    let times: [(&str, &str, Records); 2] = [
        (
            "sapwood_group_lag",
            "The age of the first record that the group has not read; 0 when it has read all.",
            |row| row.behind_ms,
        ),
        (
            "sapwood_group_retention_headroom",
            "Until retention.ms may delete the first record that the group has not read.",
            |row| row.headroom_ms,
        ),
    ];
    for (name, help, number) in times {
        let series = rows.iter().filter_map(|row| {
            let ms = number(row)?;
            Some((row.labels("group"), ms as f64 / 1e3))
        });
        families.gauges_seconds(name, help, series)?;
    }
    Ok(())
}

fn as_kafkas_exporter(
    survey: &GroupSurvey,
    rows: &[Row<'_>],
    families: &mut Families<'_, '_>,
) -> fmt::Result {
    families.gauges(
        "kafka_consumergroup_members",
        None,
        "sapwood_group_members, by the name that Kafka's exporter gives it.",
        survey.groups.iter().map(|group| {
            let labels = vec![("consumergroup", group.group.group.as_str())];
            (labels, group.group.members as u64)
        }),
    )?;
    type Records = fn(&Row<'_>) -> Option<u64>;
    let numbers: [(&str, &str, Records); 2] = [
        (
            "kafka_consumergroup_current_offset",
            "sapwood_group_committed_offset, by the name that Kafka's exporter gives it.",
            |row| row.committed,
        ),
        (
            "kafka_consumergroup_lag",
            "sapwood_group_lag_records, by the name that Kafka's exporter gives it.",
            |row| row.lag,
        ),
    ];
    for (name, help, number) in numbers {
        let series = rows
            .iter()
            .filter_map(|row| Some((row.labels("consumergroup"), number(row)?)));
        families.gauges(name, None, help, series)?;
        let mut topics: Vec<(Labels<'_>, u64)> = Vec::new();
        for row in rows {
            let Some(number) = number(row) else { continue };
            let labels = row.topic_labels("consumergroup");
            match topics.last_mut().filter(|(last, _)| *last == labels) {
                Some((_, sum)) => *sum = sum.saturating_add(number),
                None => topics.push((labels, number)),
            }
        }
        families.gauges(&format!("{name}_sum"), None, help, topics)?;
    }
    Ok(())
}

impl<'a> Row<'a> {
    fn topic_labels(&self, group: &'static str) -> Labels<'a> {
        vec![(group, self.group), ("topic", self.topic)]
    }

    fn labels(&self, group: &'static str) -> Labels<'_> {
        let mut labels = self.topic_labels(group);
        labels.extend(
            self.partition
                .as_deref()
                .map(|number| ("partition", number)),
        );
        labels
    }
}

fn rows(group: &SurveyedGroup) -> impl Iterator<Item = Row<'_>> {
    group.partitions.iter().map(|partition| Row {
        group: group.group.group.as_str(),
        topic: partition.topic.as_str(),
        partition: Some(partition.partition.to_string()),
        committed: partition
            .committed
            .as_ref()
            .map(|committed| committed.offset.0),
        lag: partition.lag,
        lost: partition.lost,
        behind_ms: partition.behind_ms,
        headroom_ms: partition.retention_headroom_ms,
    })
}

/// One row for each topic of a group: records are added up; of times, those of the partition that is
/// furthest behind, and of the one that loses records first.
fn sums(rows: Vec<Row<'_>>) -> Vec<Row<'_>> {
    let mut sums: Vec<Row<'_>> = Vec::new();
    for row in rows {
        let same = |sum: &&mut Row<'_>| (sum.group, sum.topic) == (row.group, row.topic);
        match sums.last_mut().filter(same) {
            None => sums.push(Row {
                partition: None,
                ..row
            }),
            Some(sum) => {
                sum.committed = added(sum.committed, row.committed);
                sum.lag = added(sum.lag, row.lag);
                sum.lost = sum.lost.saturating_add(row.lost);
                sum.behind_ms = sum.behind_ms.max(row.behind_ms);
                let headrooms = [sum.headroom_ms, row.headroom_ms];
                sum.headroom_ms = headrooms.into_iter().flatten().min();
            }
        }
    }
    sums
}

/// The sum of what is known.
fn added(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.saturating_add(other)),
        (one, other) => one.or(other),
    }
}

fn group_label(group: &SurveyedGroup) -> Labels<'_> {
    vec![("group", group.group.group.as_str())]
}

fn kind_name(kind: GroupKind) -> &'static str {
    match kind {
        GroupKind::Classic => "classic",
        GroupKind::Consumer => "consumer",
    }
}

fn state_name(state: GroupState) -> &'static str {
    match state {
        GroupState::Empty => "empty",
        GroupState::PreparingRebalance => "preparing_rebalance",
        GroupState::CompletingRebalance => "completing_rebalance",
        GroupState::Assigning => "assigning",
        GroupState::Reconciling => "reconciling",
        GroupState::Stable => "stable",
        GroupState::Dead => "dead",
    }
}
