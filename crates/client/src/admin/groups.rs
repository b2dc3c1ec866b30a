//! Groups: listing, describing, moving, forgetting.

use std::{sync::Arc, time::Duration};

#[cfg(doc)]
use sapwood_model::Code;
use sapwood_model::{LeaderEpoch, Offset, PartitionId, Timestamp};
use sapwood_rpc::v1::{self, group_service_client::GroupServiceClient, seek_target::To};
use tonic::transport::Channel;

use super::{
    Admin, CommittedOffset, Group, GroupDescription, GroupKind, GroupListing, GroupMember,
    GroupPartition, GroupState, PartitionOffset, SeekPartitions, SeekResult, SeekTarget, SeekTo,
    TopicPartition,
};
use crate::{Error, connection::ANSWER_BYTES_MAX};

impl Admin {
    /// The groups of the broker, in the order of their names: of every kind, with members or only
    /// with offsets.
    ///
    /// # Errors
    /// What every call may meet: [`Code::Unreachable`], [`Code::TimedOut`]. Why some groups may be
    /// missing is in the answer.
    pub async fn list_groups(&self) -> Result<GroupListing, Error> {
        let answer = self.connections.call(true, |channel| async move {
            let request = v1::ListGroupsRequest {};
            service(channel).list_groups(request).await
        });
        let answer = answer.await?.into_inner();
        Ok(GroupListing {
            groups: answer.groups.into_iter().map(group_from).collect(),
            missing: answer.missing.into_iter().map(Error::from).collect(),
        })
    }

    /// One group with its members, and how far it has read, in records and in time. Reads something of
    /// each partition in which the group lags.
    ///
    /// # Errors
    /// [`Code::UnknownGroup`], [`Code::Loading`] when that takes longer than the request timeout, or what every call may meet.
    pub async fn describe_group(&self, group: &str) -> Result<GroupDescription, Error> {
        let request = v1::DescribeGroupRequest {
            group: group.to_owned(),
        };
        let answer = self.connections.call(true, |channel| {
            let request = request.clone();
            async move { service(channel).describe_group(request).await }
        });
        let answer = answer.await?.into_inner();
        Ok(GroupDescription {
            group: group_from(answer.group.unwrap_or_default()),
            assignor: answer.assignor,
            epoch: answer.epoch,
            members: answer.members.into_iter().map(member_from).collect(),
            partitions: answer.partitions.into_iter().map(partition_from).collect(),
        })
    }

    /// Moves how far a group without members has read, in all partitions that are meant (up to 10,000
    /// targets, none for the same partition) or in none. With `dry_run` the answer is the plan, and
    /// nothing is moved. In the order of topics and partitions. Durable when it returns.
    ///
    /// # Errors
    /// [`Code::GroupNotEmpty`] while the group has members, in a dry run too; [`Code::UnknownGroup`]
    /// for [`SeekPartitions::Committed`]; [`Code::OffsetOutOfRange`] with the range, and with `topic`
    /// and `partition`; [`Code::InvalidArgument`] for [`SeekTo::By`] where nothing is committed, and
    /// for a partition that is meant twice; [`Code::UnknownTopic`], [`Code::UnknownPartition`],
    /// [`Code::PartitionOffline`], or what every call may meet.
    pub async fn seek_group(
        &self,
        group: &str,
        targets: &[SeekTarget],
        dry_run: bool,
    ) -> Result<Vec<SeekResult>, Error> {
        let request = v1::SeekGroupRequest {
            group: group.to_owned(),
            targets: targets.iter().map(target_into).collect(),
            validate_only: dry_run,
        };
        let answer = self.connections.call(dry_run, |channel| {
            let request = request.clone();
            async move { service(channel).seek_group(request).await }
        });
        let results = answer.await?.into_inner().results.into_iter();
        let results = results.map(|result| SeekResult {
            partition: TopicPartition::new(result.topic, PartitionId(result.partition)),
            from: result.from_offset.map(Offset),
            to: Offset(result.to_offset),
            bounds: result.bounds.unwrap_or_default().into(),
        });
        Ok(results.collect())
    }

    /// Forgets a group without members and all its offsets. Durable when it returns.
    ///
    /// # Errors
    /// [`Code::UnknownGroup`], [`Code::GroupNotEmpty`], or what every call may meet.
    pub async fn delete_group(&self, group: &str) -> Result<(), Error> {
        let request = v1::DeleteGroupRequest {
            group: group.to_owned(),
        };
        let answer = self.connections.call(false, |channel| {
            let request = request.clone();
            async move { service(channel).delete_group(request).await }
        });
        answer.await.map(|_| ())
    }

    /// Forgets how far a group has read some partitions, 1 to 10,000. The answers are in the order of
    /// `partitions`; one that fails does not stop the others, and one that was not committed is none
    /// the less forgotten. Durable when it returns.
    ///
    /// # Errors
    /// [`Code::UnknownGroup`]; [`Code::GroupNotEmpty`] when its members are no consumers; or what
    /// every call may meet. In the answers: [`Code::GroupReadsTopic`].
    pub async fn delete_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Result<(), Error>>, Error> {
        let request = v1::DeleteOffsetsRequest {
            group: group.to_owned(),
            topics: partitions_into(partitions),
        };
        let answer = self.connections.call(false, |channel| {
            let request = request.clone();
            async move { service(channel).delete_offsets(request).await }
        });
        Ok(results_from(answer.await?.into_inner().results))
    }

    /// Says how far a group without members has read, 1 to 10,000 partitions: for consumers that choose
    /// their partitions themselves. The answers are in the order of `offsets`; one that fails does not
    /// stop the others. Durable when it returns. Offsets are not held against the log;
    /// [`Admin::seek_group`] does that.
    ///
    /// # Errors
    /// [`Code::GroupNotEmpty`] while the group has members, which commit themselves;
    /// [`Code::InvalidGroupId`]; or what every call may meet. In the answers:
    /// [`Code::UnknownPartition`], [`Code::OffsetMetadataTooLarge`].
    pub async fn commit_offsets(
        &self,
        group: &str,
        offsets: &[PartitionOffset],
    ) -> Result<Vec<Result<(), Error>>, Error> {
        self.commit_as(group, None, offsets).await
    }

    /// As [`Admin::commit_offsets`], as a member if one is given.
    pub(crate) async fn commit_as(
        &self,
        group: &str,
        member: Option<v1::GroupMember>,
        offsets: &[PartitionOffset],
    ) -> Result<Vec<Result<(), Error>>, Error> {
        let request = v1::CommitRequest {
            group: group.to_owned(),
            member,
            offsets: offsets.iter().map(offset_into).collect(),
        };
        // The same offsets once more do no harm.
        let answer = self.connections.call(true, |channel| {
            let request = request.clone();
            async move { service(channel).commit(request).await }
        });
        Ok(results_from(answer.await?.into_inner().results))
    }

    /// How far a group has read: the partitions that it has committed offsets for, in order. None if
    /// there is no such group.
    ///
    /// # Errors
    /// [`Code::Loading`] when that takes longer than the request timeout, or what every call may meet.
    pub async fn committed_offsets(
        &self,
        group: &str,
    ) -> Result<Vec<(TopicPartition, CommittedOffset)>, Error> {
        let committed = self.committed_as(group, None, &[]).await?.into_iter();
        let committed =
            committed.filter_map(|(partition, committed)| Some((partition, committed?)));
        Ok(committed.collect())
    }

    /// How far a group has read these partitions, in this order; none means all.
    pub(crate) async fn committed_as(
        &self,
        group: &str,
        member: Option<v1::GroupMember>,
        partitions: &[TopicPartition],
    ) -> Result<Vec<(TopicPartition, Option<CommittedOffset>)>, Error> {
        let request = v1::FetchCommittedRequest {
            group: group.to_owned(),
            member,
            topics: partitions_into(partitions),
        };
        let answer = self.connections.call(true, |channel| {
            let request = request.clone();
            async move { service(channel).fetch_committed(request).await }
        });
        let offsets = answer.await?.into_inner().offsets.into_iter();
        Ok(offsets.map(committed_from).collect())
    }
}

/// Lists and descriptions of large groups go beyond the default limit of an answer.
fn service(channel: Channel) -> GroupServiceClient<Channel> {
    GroupServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

fn group_from(group: v1::Group) -> Group {
    let kind = match group.kind() {
        v1::GroupKind::Unspecified => GroupKind::Unknown,
        v1::GroupKind::Classic => GroupKind::Classic,
        v1::GroupKind::Consumer => GroupKind::Consumer,
    };
    let state = match group.state() {
        v1::GroupState::Unspecified => GroupState::Unknown,
        v1::GroupState::Empty => GroupState::Empty,
        v1::GroupState::PreparingRebalance => GroupState::PreparingRebalance,
        v1::GroupState::CompletingRebalance => GroupState::CompletingRebalance,
        v1::GroupState::Assigning => GroupState::Assigning,
        v1::GroupState::Reconciling => GroupState::Reconciling,
        v1::GroupState::Stable => GroupState::Stable,
    };
    Group {
        name: group.group,
        kind,
        state,
        protocol_type: group.protocol_type,
        members: group.members,
    }
}

fn member_from(member: v1::GroupMemberDescription) -> GroupMember {
    GroupMember {
        member_id: member.member_id,
        instance_id: member.instance_id,
        client_id: member.client_id,
        host: member.host,
        assigned: partitions_from(member.assigned),
    }
}

fn partition_from(row: v1::GroupPartition) -> GroupPartition {
    GroupPartition {
        partition: TopicPartition::new(row.topic, PartitionId(row.partition)),
        committed: row
            .committed
            .and_then(|committed| committed_from(committed).1),
        bounds: row.bounds.map(Into::into),
        lag: row.lag,
        lost: row.lost,
        behind: row.behind_ms.map(Duration::from_millis),
        retention_headroom: row.retention_headroom_ms.map(Duration::from_millis),
        member: row.member.and_then(|index| usize::try_from(index).ok()),
    }
}

fn committed_from(committed: v1::CommittedOffset) -> (TopicPartition, Option<CommittedOffset>) {
    let partition = TopicPartition::new(committed.topic, PartitionId(committed.partition));
    let committed = committed.offset.map(|offset| CommittedOffset {
        offset: Offset(offset),
        leader_epoch: committed.leader_epoch.map(LeaderEpoch),
        metadata: committed.metadata,
        committed_at: Timestamp(committed.committed_at_ms),
    });
    (partition, committed)
}

/// Partitions by topic, in the order of the message.
pub(crate) fn partitions_from(topics: Vec<v1::TopicPartitions>) -> Vec<TopicPartition> {
    let partitions = topics.into_iter().flat_map(|named| {
        let topic = Arc::<str>::from(named.topic);
        let partition = move |number| TopicPartition {
            topic: Arc::clone(&topic),
            partition: PartitionId(number),
        };
        named.partitions.into_iter().map(partition)
    });
    partitions.collect()
}

/// Runs of partitions of the same topic become one entry; their order is kept.
pub(crate) fn partitions_into<'a>(
    partitions: impl IntoIterator<Item = &'a TopicPartition>,
) -> Vec<v1::TopicPartitions> {
    let mut topics: Vec<v1::TopicPartitions> = Vec::new();
    for TopicPartition { topic, partition } in partitions {
        match topics.last_mut() {
            Some(last) if *last.topic == **topic => last.partitions.push(partition.0),
            _ => topics.push(v1::TopicPartitions {
                topic: topic.to_string(),
                partitions: vec![partition.0],
                topic_id: String::new(),
            }),
        }
    }
    topics
}

fn results_from(results: Vec<v1::PartitionResult>) -> Vec<Result<(), Error>> {
    let results = results.into_iter();
    let result = |result: v1::PartitionResult| result.error.map_or(Ok(()), |e| Err(e.into()));
    results.map(result).collect()
}

fn offset_into(offset: &PartitionOffset) -> v1::PartitionOffset {
    v1::PartitionOffset {
        topic: offset.partition.topic.to_string(),
        partition: offset.partition.partition.0,
        offset: offset.offset.0,
        leader_epoch: offset.leader_epoch.map(|epoch| epoch.0),
        metadata: offset.metadata.clone(),
    }
}

fn target_into(target: &SeekTarget) -> v1::SeekTarget {
    let (topic, partition) = match &target.partitions {
        SeekPartitions::Committed => (None, None),
        SeekPartitions::Topic(topic) => (Some(topic), None),
        SeekPartitions::One(one) => (Some(&one.topic), Some(one.partition)),
    };
    v1::SeekTarget {
        topic: topic.map(ToString::to_string),
        partition: partition.map(|partition| partition.0),
        to: Some(match target.to {
            SeekTo::Position(position) => To::Position(position.into()),
            SeekTo::By(offsets) => To::By(offsets),
        }),
    }
}
