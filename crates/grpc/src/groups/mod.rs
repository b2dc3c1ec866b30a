//! Consumer groups: being a member, how far they have read, what they are, and moving them.

mod convert;
mod join;
mod options;
mod seats;

use std::{pin::Pin, sync::Arc};

use futures_util::Stream;

use sapwood_broker::{
    Broker, GroupRequestError,
    group::{
        Commit, CommitOffset, Committer, DeleteOffsets, Epoch, FetchOffsets, GROUP_ID_BYTES_MAX,
        GroupError, GroupId,
    },
};
use sapwood_model::{
    Code, InvalidTopicName, LeaderEpoch, Offset, PartitionId, TopicName, TopicPartition,
};
use sapwood_rpc::v1::{self, group_service_server::GroupService};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::{error::Failure, serve::peer_host};
use convert::Entries;
use seats::Seats;

/// The most partitions or targets of one request that changes something.
const CHANGES_MAX: usize = 10_000;
/// The most partitions that are asked about or owned at once.
const PARTITIONS_MAX: usize = 100_000;

/// Answers between a member's task and its connection.
const ANSWERS_AHEAD: usize = 1;

#[derive(Debug, Clone)]
pub(crate) struct GroupApi {
    broker: Broker,
    drain: CancellationToken,
    seats: Seats,
}

type Responses = Pin<Box<dyn Stream<Item = Result<v1::JoinResponse, Status>> + Send>>;

#[tonic::async_trait]
impl GroupService for GroupApi {
    type JoinStream = Responses;

    async fn join(
        &self,
        request: Request<Streaming<v1::JoinRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let host: Arc<str> = peer_host(&request).into();
        let (answers, receiver) = mpsc::channel(ANSWERS_AHEAD);
        tokio::spawn(join::run(self.clone(), host, request.into_inner(), answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn commit(
        &self,
        request: Request<v1::CommitRequest>,
    ) -> Result<Response<v1::CommitResponse>, Status> {
        let request = request.into_inner();
        let group = group_id(request.group)?;
        let about = |failure: Failure| failure.field("group", &group);
        count("offsets", request.offsets.len(), 1, CHANGES_MAX).map_err(about)?;
        let mut entries = Entries::default();
        let mut offsets = Vec::with_capacity(request.offsets.len());
        for asked in request.offsets {
            let checked = commit_offset(&asked);
            entries.push(asked.topic, asked.partition, checked, &mut offsets);
        }
        let mut answers = Vec::new();
        if !offsets.is_empty() {
            let by = request.member.map_or(Committer::Alone, |member| {
                let v1::GroupMember {
                    member_id,
                    member_epoch,
                    instance_id,
                } = member;
                Committer::Member {
                    member_id: member_id.into(),
                    instance_id: instance_id.map(Into::into),
                    generation_or_epoch: Some(member_epoch),
                }
            });
            let alone = by == Committer::Alone;
            let commit = Commit {
                group: group.clone(),
                by,
                offsets,
            };
            answers = match self.broker.groups().commit(commit).await {
                Ok(answers) => answers,
                // Only its members commit while it has some.
                Err(GroupRequestError::Group(GroupError::UnknownMember)) if alone => {
                    return Err(about(GroupError::NonEmptyGroup.into()).into());
                }
                Err(error) => return Err(about(self.refusal(&group, error).await).into()),
            };
        }
        let results = entries.results(answers);
        Ok(Response::new(v1::CommitResponse { results }))
    }

    async fn fetch_committed(
        &self,
        request: Request<v1::FetchCommittedRequest>,
    ) -> Result<Response<v1::FetchCommittedResponse>, Status> {
        let request = request.into_inner();
        let group = group_id(request.group)?;
        let about = |failure: Failure| failure.field("group", &group);
        count_partitions(&request.topics, 0, PARTITIONS_MAX).map_err(about)?;
        let mut partitions = Vec::new();
        for asked in &request.topics {
            let topic = topic_name(&asked.topic).map_err(about)?;
            partitions.extend(asked.partitions.iter().map(|number| TopicPartition {
                topic: topic.clone(),
                partition: PartitionId(*number),
            }));
        }
        let by = request.member.map(|member| {
            let epoch = Epoch(member.member_epoch);
            (member.member_id.into(), epoch)
        });
        let fetch = FetchOffsets {
            group: group.clone(),
            by,
            partitions: (!request.topics.is_empty()).then_some(partitions),
        };
        let fetched = self.broker.groups().fetch_offsets(fetch).await;
        let fetched = fetched.map_err(|error| about(error.into()))?;
        let offsets = fetched.into_iter().map(convert::fetched).collect();
        Ok(Response::new(v1::FetchCommittedResponse { offsets }))
    }

    async fn list_groups(
        &self,
        _request: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        let listing = self.broker.groups().list().await;
        let missing = listing.missing.into_iter().map(|(_, error)| {
            let failure = Failure::new(error.code(), &error);
            failure.into_error()
        });
        Ok(Response::new(v1::ListGroupsResponse {
            groups: listing.groups.iter().map(convert::listed).collect(),
            missing: missing.collect(),
        }))
    }

    async fn describe_group(
        &self,
        request: Request<v1::DescribeGroupRequest>,
    ) -> Result<Response<v1::DescribeGroupResponse>, Status> {
        let group = group_id(request.into_inner().group)?;
        let about = |failure: Failure| failure.field("group", &group);
        let described = self.broker.groups().describe(&group).await;
        let described = described.map_err(|error| about(Failure::new(error.code(), &error)))?;
        let overview = described.ok_or_else(|| about(unknown(&group)))?;
        Ok(Response::new(convert::overview(overview)))
    }

    async fn seek_group(
        &self,
        request: Request<v1::SeekGroupRequest>,
    ) -> Result<Response<v1::SeekGroupResponse>, Status> {
        let request = request.into_inner();
        let group = group_id(request.group)?;
        let about = |failure: Failure| failure.field("group", &group);
        count("targets", request.targets.len(), 1, CHANGES_MAX).map_err(about)?;
        let targets = request.targets.into_iter().map(convert::target);
        let targets = targets.collect::<Result<Vec<_>, _>>().map_err(about)?;
        let groups = self.broker.groups();
        let sought = groups.seek(&group, targets, request.validate_only).await;
        let sought = sought.map_err(|error| about(error.into()))?;
        let results = sought.into_iter().map(convert::sought).collect();
        Ok(Response::new(v1::SeekGroupResponse { results }))
    }

    async fn delete_group(
        &self,
        request: Request<v1::DeleteGroupRequest>,
    ) -> Result<Response<v1::DeleteGroupResponse>, Status> {
        let group = group_id(request.into_inner().group)?;
        let deleted = self.broker.groups().delete(group.clone()).await;
        deleted.map_err(|error| Failure::from(error).field("group", &group))?;
        Ok(Response::new(v1::DeleteGroupResponse {}))
    }

    async fn delete_offsets(
        &self,
        request: Request<v1::DeleteOffsetsRequest>,
    ) -> Result<Response<v1::DeleteOffsetsResponse>, Status> {
        let request = request.into_inner();
        let group = group_id(request.group)?;
        let about = |failure: Failure| failure.field("group", &group);
        count_partitions(&request.topics, 1, CHANGES_MAX).map_err(about)?;
        let mut entries = Entries::default();
        let mut partitions = Vec::new();
        for asked in request.topics {
            for number in asked.partitions {
                let checked = topic_name(&asked.topic).map(|topic| (topic, PartitionId(number)));
                entries.push(asked.topic.clone(), number, checked, &mut partitions);
            }
        }
        let mut answers = Vec::new();
        if !partitions.is_empty() {
            let request = DeleteOffsets {
                group: group.clone(),
                partitions,
            };
            let deleted = self.broker.groups().delete_offsets(request).await;
            answers = deleted.map_err(|error| about(error.into()))?;
        }
        let results = entries.results(answers);
        Ok(Response::new(v1::DeleteOffsetsResponse { results }))
    }
}

impl GroupApi {
    /// Streams end when `drain` is cancelled; members stay.
    pub(crate) fn new(broker: Broker, drain: CancellationToken) -> Self {
        Self {
            broker,
            drain,
            seats: Seats::default(),
        }
    }

    /// Tells a group that is not there from one of the other kind.
    async fn refusal(&self, group: &GroupId, error: GroupRequestError) -> Failure {
        if let GroupRequestError::Group(GroupError::GroupNotFound) = &error
            && let Ok(Some(found)) = self.broker.groups().find(group.clone()).await
            && found.members > 0
        {
            let (members, kind) = (found.members, found.kind);
            let message = format!("group {group:?} has {members} members of the {kind} kind");
            return Failure::new(Code::OtherGroupKind, message);
        }
        error.into()
    }
}

/// A group's name, checked, so that it may be repeated in errors.
fn group_id(name: String) -> Result<GroupId, Failure> {
    match name.len() {
        1..=GROUP_ID_BYTES_MAX => Ok(name.into()),
        length => Err(GroupError::InvalidGroupId { length }.into()),
    }
}

fn commit_offset(asked: &v1::PartitionOffset) -> Result<CommitOffset, Failure> {
    let invalid = |message: String| Err(Failure::new(Code::InvalidArgument, message));
    if i64::try_from(asked.offset).is_err() {
        return invalid(format!(
            "offset is {}; the limit is {}",
            asked.offset,
            i64::MAX
        ));
    }
    if let Some(epoch) = asked
        .leader_epoch
        .filter(|epoch| i32::try_from(*epoch).is_err())
    {
        return invalid(format!(
            "leader_epoch is {epoch}; the limit is {}",
            i32::MAX
        ));
    }
    Ok(CommitOffset {
        partition: TopicPartition {
            topic: topic_name(&asked.topic)?,
            partition: PartitionId(asked.partition),
        },
        offset: Offset(asked.offset),
        leader_epoch: asked.leader_epoch.map(LeaderEpoch),
        metadata: asked.metadata.as_str().into(),
        expire_timestamp: None,
    })
}

fn unknown(group: &GroupId) -> Failure {
    Failure::new(
        Code::UnknownGroup,
        format_args!("group {group:?} does not exist"),
    )
}

fn topic_name(name: &str) -> Result<TopicName, Failure> {
    TopicName::new(name).map_err(|error| {
        let failure = Failure::new(Code::InvalidTopicName, &error);
        match error {
            // Errors do not repeat megabytes.
            InvalidTopicName::TooLong { .. } => failure,
            _ => failure.field("topic", name),
        }
    })
}

fn count_partitions(topics: &[v1::TopicPartitions], min: usize, max: usize) -> Result<(), Failure> {
    let partitions = topics.iter().map(|topic| topic.partitions.len());
    count("partitions", partitions.sum(), min, max)
}

fn count(what: &str, given: usize, min: usize, max: usize) -> Result<(), Failure> {
    if (min..=max).contains(&given) {
        return Ok(());
    }
    let message = format!("{given} {what}; there must be {min} to {max}");
    Err(Failure::new(Code::InvalidArgument, message))
}
