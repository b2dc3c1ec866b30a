//! Groups as the API's messages.

use sapwood_broker::{
    GroupOverview, MemberOverview, PartitionOverview, SeekPartitions, SeekPosition, SeekResult,
    SeekTarget,
    group::{CommittedOffset, FetchedOffset, GroupError, GroupKind, GroupState, Listed},
};
use sapwood_model::{Code, Offset, PartitionId, Timestamp, TopicName, TopicPartition};
use sapwood_rpc::v1::{self, position::At, seek_target::To};

use super::topic_name;
use crate::{convert, error::Failure};

/// The partitions of a request, some of which are refused before the coordinator is asked about the
/// others.
#[derive(Debug, Default)]
pub(super) struct Entries(Vec<(String, u32, Option<Failure>)>);

impl Entries {
    /// Takes a partition in; one that is good goes to `asked`.
    pub(super) fn push<T>(
        &mut self,
        topic: String,
        partition: u32,
        checked: Result<T, Failure>,
        asked: &mut Vec<T>,
    ) {
        let refused = match checked {
            Ok(good) => {
                asked.push(good);
                None
            }
            Err(failure) => Some(failure),
        };
        self.0.push((topic, partition, refused));
    }

    /// What became of each, in the order of the request; `answers` are those of the good ones.
    pub(super) fn results(
        self,
        answers: impl IntoIterator<Item = Result<(), GroupError>>,
    ) -> Vec<v1::PartitionResult> {
        let mut answers = answers.into_iter();
        let result = |(topic, partition, refused): (String, u32, Option<Failure>)| {
            let failure = match refused {
                Some(failure) => Some(failure),
                None => answers.next().and_then(Result::err).map(Failure::from),
            };
            let error = failure.map(|failure| failure.field("partition", partition).into_error());
            v1::PartitionResult {
                topic,
                partition,
                error,
            }
        };
        self.0.into_iter().map(result).collect()
    }
}

pub(super) fn fetched(fetched: FetchedOffset) -> v1::CommittedOffset {
    let TopicPartition { topic, partition } = fetched.partition;
    match fetched.committed {
        Some(committed) => message(&topic, partition, &committed),
        None => v1::CommittedOffset {
            topic: topic.to_string(),
            partition: partition.0,
            ..v1::CommittedOffset::default()
        },
    }
}

fn message(
    topic: &TopicName,
    partition: PartitionId,
    committed: &CommittedOffset,
) -> v1::CommittedOffset {
    v1::CommittedOffset {
        topic: topic.to_string(),
        partition: partition.0,
        offset: Some(committed.offset.0),
        leader_epoch: committed.leader_epoch.map(|epoch| epoch.0),
        metadata: committed.metadata.to_string(),
        committed_at_ms: committed.commit_timestamp.0,
    }
}

pub(super) fn listed(listed: &Listed) -> v1::Group {
    v1::Group {
        group: listed.group.to_string(),
        kind: kind(listed.kind).into(),
        state: state(listed.state).into(),
        protocol_type: listed.protocol_type.to_string(),
        members: number(listed.members),
    }
}

pub(super) fn overview(overview: GroupOverview) -> v1::DescribeGroupResponse {
    let group = v1::Group {
        group: overview.group.to_string(),
        kind: kind(overview.kind).into(),
        state: state(overview.state).into(),
        protocol_type: overview.protocol_type.to_string(),
        members: number(overview.members.len()),
    };
    v1::DescribeGroupResponse {
        group: Some(group),
        assignor: overview.assignor.to_string(),
        epoch: overview.epoch,
        members: overview.members.iter().map(member).collect(),
        partitions: overview.partitions.iter().map(partition).collect(),
    }
}

fn member(member: &MemberOverview) -> v1::GroupMemberDescription {
    let mut assigned: Vec<v1::TopicPartitions> = Vec::new();
    // They come in order.
    for TopicPartition { topic, partition } in &member.assigned {
        match assigned.last_mut() {
            Some(last) if last.topic == topic.as_str() => last.partitions.push(partition.0),
            _ => assigned.push(v1::TopicPartitions {
                topic: topic.to_string(),
                partitions: vec![partition.0],
                topic_id: String::new(),
            }),
        }
    }
    v1::GroupMemberDescription {
        member_id: member.member_id.to_string(),
        instance_id: member.instance_id.as_ref().map(ToString::to_string),
        client_id: member.client.id.to_string(),
        host: member.client.host.to_string(),
        assigned,
    }
}

fn partition(row: &PartitionOverview) -> v1::GroupPartition {
    let committed = row.committed.as_ref();
    v1::GroupPartition {
        topic: row.topic.to_string(),
        partition: row.partition.0,
        committed: committed.map(|committed| message(&row.topic, row.partition, committed)),
        bounds: row.bounds.map(convert::bounds),
        lag: row.lag,
        behind_ms: row.behind_ms,
        retention_headroom_ms: row.retention_headroom_ms,
        member: row.member.map(number),
        lost: row.lost,
    }
}

fn number(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}

fn kind(kind: GroupKind) -> v1::GroupKind {
    match kind {
        GroupKind::Classic => v1::GroupKind::Classic,
        GroupKind::Consumer => v1::GroupKind::Consumer,
    }
}

fn state(state: GroupState) -> v1::GroupState {
    match state {
        // A group that is not there is not shown.
        GroupState::Empty | GroupState::Dead => v1::GroupState::Empty,
        GroupState::PreparingRebalance => v1::GroupState::PreparingRebalance,
        GroupState::CompletingRebalance => v1::GroupState::CompletingRebalance,
        GroupState::Assigning => v1::GroupState::Assigning,
        GroupState::Reconciling => v1::GroupState::Reconciling,
        GroupState::Stable => v1::GroupState::Stable,
    }
}

pub(super) fn target(target: v1::SeekTarget) -> Result<SeekTarget, Failure> {
    let topic = target.topic.as_deref().map(topic_name).transpose()?;
    let partitions = match (topic, target.partition.map(PartitionId)) {
        (None, None) => SeekPartitions::Committed,
        (Some(topic), None) => SeekPartitions::Topic(topic),
        (Some(topic), Some(partition)) => SeekPartitions::One(TopicPartition { topic, partition }),
        (None, Some(partition)) => {
            let message = format!("a target has partition {partition} and no topic");
            return Err(Failure::new(Code::InvalidArgument, message));
        }
    };
    let to = match target.to {
        Some(To::By(offsets)) => SeekPosition::By(offsets),
        Some(To::Position(v1::Position { at: Some(at) })) => match at {
            At::Start(_) => SeekPosition::Start,
            At::End(_) => SeekPosition::End,
            At::Offset(offset) => SeekPosition::Offset(Offset(offset)),
            At::TimestampMs(at) => SeekPosition::Time(Timestamp(at)),
            At::Last(records) => SeekPosition::Last(records),
        },
        Some(To::Position(v1::Position { at: None })) | None => {
            let message = "a target does not say where to go";
            return Err(Failure::new(Code::InvalidArgument, message));
        }
    };
    Ok(SeekTarget { partitions, to })
}

pub(super) fn sought(result: SeekResult) -> v1::SeekResult {
    v1::SeekResult {
        topic: result.partition.topic.to_string(),
        partition: result.partition.partition.0,
        from_offset: result.from.map(|offset| offset.0),
        to_offset: result.to.0,
        bounds: Some(convert::bounds(result.bounds)),
    }
}
