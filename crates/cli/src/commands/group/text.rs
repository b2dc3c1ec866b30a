//! What is said of a group, in words and as JSON.

use std::{collections::HashMap, time::Duration};

use sapwood_client::{
    Bounds, GroupDescription, GroupMember, GroupPartition, GroupState, TopicPartition,
};
use serde_json::{Value, json};

pub(super) use crate::duration::age;
use crate::{
    output::{Column, Listing, Row, counted, thousands},
    position::show_timestamp,
};

/// Retention is a matter for the head of a description when it is this near...
const LOSS_NEAR: Duration = Duration::from_secs(24 * 60 * 60);
/// ...and the group is not just a moment behind.
const BEHIND_LONG: Duration = Duration::from_secs(60);

const COLUMNS: &[Column] = &[
    Column::Text("TOPIC"),
    Column::Number("P"),
    Column::WideNumber("START"),
    Column::Number("COMMITTED"),
    Column::Number("END"),
    Column::Number("LAG"),
    Column::Number("BEHIND"),
    Column::WideNumber("KEPT FOR"),
    Column::Text("MEMBER"),
    Column::Text("HOST"),
    Column::WideText("MEMBER ID"),
    Column::WideText("COMMITTED AT"),
];

/// What a group has yet to read, over all its partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Summary<'a> {
    /// Records that are unread; none if it is known of no partition.
    pub(super) lag: Option<u64>,
    /// The age of the oldest of them.
    pub(super) behind: Option<Duration>,
    /// Records that were deleted unread.
    pub(super) lost: u64,
    /// The partition that loses unread records first, and when.
    pub(super) loses: Option<(Duration, &'a TopicPartition)>,
}

impl<'a> Summary<'a> {
    pub(super) fn of(group: &'a GroupDescription) -> Self {
        let rows = || group.partitions.iter();
        let loses = rows().filter_map(|row| Some((row.retention_headroom?, &row.partition)));
        Self {
            lag: rows().filter_map(|row| row.lag).reduce(u64::saturating_add),
            behind: rows().filter_map(|row| row.behind).max(),
            lost: rows().map(|row| row.lost).fold(0, u64::saturating_add),
            loses: loses.min(),
        }
    }

    /// `LAG 48,210  BEHIND 3m12s`.
    pub(super) fn text(&self) -> String {
        let lag = self.lag.map_or_else(unknown, thousands);
        let behind = self.behind.map_or_else(unknown, age);
        format!("LAG {lag}  BEHIND {behind}")
    }

    /// Lines about records that the group loses, or has lost.
    fn warnings(&self, group: &GroupDescription) -> String {
        let mut lines = String::new();
        let is_behind = self.behind.is_some_and(|behind| behind >= BEHIND_LONG);
        if let Some((left, partition)) = self.loses
            && left < LOSS_NEAR
            && is_behind
        {
            let when = match left.is_zero() {
                true => "DATA LOSS AT ANY MOMENT".to_owned(),
                false => format!("DATA LOSS IN {}", age(left)),
            };
            lines +=
                &format!("{when} ({partition} reaches retention before this group catches up)\n");
        }
        let lost = group.partitions.iter().filter(|row| row.lost > 0);
        if let Some(most) = lost.max_by_key(|row| row.lost) {
            let records = counted(self.lost, "record");
            let partition = &most.partition;
            lines += &format!(
                "DATA LOST {records} (deleted before this group read them, most of {partition})\n"
            );
        }
        lines
    }
}

/// The description for people.
pub(super) fn describe(group: &GroupDescription, wide: bool) -> String {
    let summary = Summary::of(group);
    let head = format!(
        "GROUP {}  STATE {}  MEMBERS {}  {}{}\n",
        group.group.name,
        state(group.group.state),
        thousands(u64::from(group.group.members)),
        summary.text(),
        match wide {
            false => String::new(),
            true => format!(
                "  KIND {}  ASSIGNOR {}  EPOCH {}",
                group.group.kind,
                or_dash(&group.assignor),
                group.epoch
            ),
        }
    );
    let names = names(&group.members);
    let mut table = Listing::new(COLUMNS);
    for row in &group.partitions {
        table.push(partition_row(group, &names, row));
    }
    let idle = group.members.iter().zip(&names);
    let idle: Vec<&str> = idle
        .filter(|(member, _)| member.assigned.is_empty())
        .map(|(_, name)| name.as_str())
        .collect();
    let idle = match idle.len() {
        0 => String::new(),
        some => format!(
            "{} without a partition: {}\n",
            counted(some as u64, "member"),
            idle.join(", ")
        ),
    };
    format!(
        "{head}{}{}{}{idle}",
        summary.warnings(group),
        table.table(wide),
        beginners(group)
    )
}

/// Partitions with records of which nobody knows how many the group has yet to read: where it begins is
/// for its members to say.
fn beginners(group: &GroupDescription) -> String {
    let begins = |row: &&GroupPartition| {
        let holds = |bounds: Bounds| bounds.high_watermark > bounds.log_start;
        row.committed.is_none() && row.bounds.is_some_and(holds)
    };
    let mut rows = group.partitions.iter().filter(begins);
    let Some(first) = rows.next() else {
        return String::new();
    };
    let (first, others) = (&first.partition, rows.count() as u64);
    let which = match others {
        0 => first.to_string(),
        others => format!("{first} and {}", counted(others, "other")),
    };
    format!("nothing committed yet in {which}: not counted in LAG\n")
}

fn partition_row(group: &GroupDescription, names: &[String], row: &GroupPartition) -> Row {
    let bound = |of: fn(&Bounds) -> u64| row.bounds.as_ref().map(of);
    let member = row
        .member
        .and_then(|at| group.members.get(at).zip(names.get(at)));
    let offset = row.committed.as_ref().map(|committed| committed.offset.0);
    let number = |number: Option<u64>| number.map_or_else(unknown, thousands);
    let time = |time: Option<Duration>| time.map_or_else(unknown, age);
    Row {
        name: row.partition.to_string(),
        cells: vec![
            row.partition.topic.to_string(),
            row.partition.partition.to_string(),
            number(bound(|bounds| bounds.log_start.0)),
            number(offset),
            match row.bounds {
                None => "offline".to_owned(),
                Some(bounds) => thousands(bounds.high_watermark.0),
            },
            number(row.lag),
            time(row.behind),
            time(row.retention_headroom),
            member.map_or_else(unknown, |(_, name)| name.clone()),
            member.map_or_else(unknown, |(member, _)| host(member).to_owned()),
            member.map_or_else(unknown, |(member, _)| member.member_id.clone()),
            match &row.committed {
                None => unknown(),
                Some(committed) => show_timestamp(committed.committed_at),
            },
        ],
        value: partition_json(group, row),
    }
}

/// What members are called: a static one by its lasting name, any other by what its client calls
/// itself, with the end of its id where several clients call themselves the same.
pub(super) fn names(members: &[GroupMember]) -> Vec<String> {
    let mut clients: HashMap<&str, usize> = HashMap::new();
    for member in members.iter().filter(|member| member.instance_id.is_none()) {
        *clients.entry(member.client_id.as_str()).or_default() += 1;
    }
    let name = |member: &GroupMember| match &member.instance_id {
        Some(instance) => instance.clone(),
        None if member.client_id.is_empty() => member.member_id.clone(),
        None if clients.get(member.client_id.as_str()) == Some(&1) => member.client_id.clone(),
        None => {
            let tail = member.member_id.char_indices().rev().nth(5);
            let tail = tail.map_or(member.member_id.as_str(), |(at, _)| &member.member_id[at..]);
            format!("{}..{tail}", member.client_id)
        }
    };
    members.iter().map(name).collect()
}

/// Where a member connected from, without the slash that Kafka puts before it.
pub(super) fn host(member: &GroupMember) -> &str {
    let host = member.host.as_str();
    or_dash(host.strip_prefix('/').unwrap_or(host))
}

/// The description for programs. Documented in docs/groups.md; only ever added to.
pub(super) fn to_json(group: &GroupDescription) -> Value {
    let summary = Summary::of(group);
    let member = |member: &GroupMember| {
        let assigned = member.assigned.iter();
        let assigned: Vec<Value> = assigned
            .map(|one| json!({ "topic": &*one.topic, "partition": one.partition.0 }))
            .collect();
        json!({
            "member_id": member.member_id,
            "instance_id": member.instance_id,
            "client_id": member.client_id,
            "host": member.host,
            "assigned": assigned,
        })
    };
    let partitions = group
        .partitions
        .iter()
        .map(|row| partition_json(group, row));
    json!({
        "group": group.group.name,
        "kind": group.group.kind.to_string(),
        "state": state(group.group.state),
        "protocol_type": group.group.protocol_type,
        "assignor": group.assignor,
        "epoch": group.epoch,
        "lag": summary.lag,
        "behind_ms": summary.behind.map(millis),
        "lost": summary.lost,
        "retention_headroom_ms": summary.loses.map(|(left, _)| millis(left)),
        "members": group.members.iter().map(member).collect::<Vec<_>>(),
        "partitions": partitions.collect::<Vec<_>>(),
    })
}

fn partition_json(group: &GroupDescription, row: &GroupPartition) -> Value {
    let committed = row.committed.as_ref();
    let member = row.member.and_then(|at| group.members.get(at));
    json!({
        "topic": &*row.partition.topic,
        "partition": row.partition.partition.0,
        "committed_offset": committed.map(|committed| committed.offset.0),
        "committed_leader_epoch": committed.and_then(|c| Some(c.leader_epoch?.0)),
        "committed_metadata": committed.map(|committed| committed.metadata.as_str()),
        "committed_at_ms": committed.map(|committed| committed.committed_at.0),
        "log_start_offset": row.bounds.map(|bounds| bounds.log_start.0),
        "high_watermark": row.bounds.map(|bounds| bounds.high_watermark.0),
        "log_end_offset": row.bounds.map(|bounds| bounds.log_end.0),
        "lag": row.lag,
        "lost": row.lost,
        "behind_ms": row.behind.map(millis),
        "retention_headroom_ms": row.retention_headroom.map(millis),
        "member_id": member.map(|member| member.member_id.as_str()),
    })
}

/// The broker counts in milliseconds of 64 bits.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// One name for each state, the same in tables, JSON and metrics.
pub(super) fn state(state: GroupState) -> &'static str {
    match state {
        GroupState::Empty => "empty",
        GroupState::PreparingRebalance => "preparing_rebalance",
        GroupState::CompletingRebalance => "completing_rebalance",
        GroupState::Assigning => "assigning",
        GroupState::Reconciling => "reconciling",
        GroupState::Stable => "stable",
        _ => "unknown",
    }
}

/// Stands for what is not known.
pub(super) fn unknown() -> String {
    "-".to_owned()
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}
