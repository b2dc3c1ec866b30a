//! ConsumerGroupDescribe: groups of the newer kind in detail.

use std::collections::HashSet;

use sapwood_broker::group::{
    ConsumerDescription, ConsumerMemberDescription, GroupError, GroupId, Partitions,
};
use sapwood_kafka_wire::{
    Uuid,
    messages::{
        ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse,
        ConsumerGroupDescribeResponseAssignment, ConsumerGroupDescribeResponseGroup,
        ConsumerGroupDescribeResponseMember, ConsumerGroupDescribeResponseTopicPartitions,
    },
};

use super::{GROUP_OPERATIONS, consumer_group_heartbeat::PAUSES, groups};
use crate::{context::Context, errors::AsKafka};

/// `member_type` of a member that speaks the newer protocol. There are no others in such a group.
const CONSUMER: i8 = 1;

pub(crate) async fn handle(
    context: &Context,
    request: ConsumerGroupDescribeRequest,
    _version: i16,
) -> ConsumerGroupDescribeResponse {
    // An answer is much longer than a question: each group is described once.
    let mut seen = HashSet::new();
    let mut described = Vec::new();
    for group_id in request.group_ids {
        if !seen.insert(group_id.clone()) {
            continue;
        }
        let mut group = one(context, &group_id).await;
        group.group_id = group_id;
        if request.include_authorized_operations && group.error_code == 0 {
            group.authorized_operations = GROUP_OPERATIONS;
        }
        described.push(group);
    }
    ConsumerGroupDescribeResponse {
        groups: described,
        ..ConsumerGroupDescribeResponse::default()
    }
}

async fn one(context: &Context, group_id: &str) -> ConsumerGroupDescribeResponseGroup {
    if group_id.is_empty() {
        return refused(context, &GroupError::InvalidGroupId { length: 0 });
    }
    let group = GroupId::from(group_id);
    match context.broker().groups().describe_consumer(group).await {
        Ok(Some(group)) => describe(context, group),
        // Clients then ask whether it is a classic one.
        Ok(None) => refused(context, &GroupError::GroupNotFound),
        Err(error) => refused(context, &error),
    }
}

fn refused(context: &Context, error: &impl AsKafka) -> ConsumerGroupDescribeResponseGroup {
    ConsumerGroupDescribeResponseGroup {
        error_code: context.failed(error),
        error_message: Some(error.to_string()),
        ..ConsumerGroupDescribeResponseGroup::default()
    }
}

fn describe(context: &Context, group: ConsumerDescription) -> ConsumerGroupDescribeResponseGroup {
    let members = group.members.into_iter();
    ConsumerGroupDescribeResponseGroup {
        group_state: group.state.to_string(),
        group_epoch: group.epoch.0.cast_signed(),
        assignment_epoch: group.assignment_epoch.0.cast_signed(),
        assignor_name: group.assignor.name().to_owned(),
        members: members.map(|one| member(context, one)).collect(),
        ..ConsumerGroupDescribeResponseGroup::default()
    }
}

fn member(
    context: &Context,
    member: ConsumerMemberDescription,
) -> ConsumerGroupDescribeResponseMember {
    let epoch = member.current.member_epoch;
    let names = member.subscribed_topic_names.iter();
    ConsumerGroupDescribeResponseMember {
        member_id: member.member_id.to_string(),
        instance_id: member.instance_id.map(|instance| instance.to_string()),
        rack_id: groups::text(&member.rack_id),
        member_epoch: epoch.map_or(PAUSES, |epoch| epoch.0.cast_signed()),
        client_id: member.client.id.as_ref().to_owned(),
        client_host: groups::shown_host(&member.client),
        subscribed_topic_names: names.map(ToString::to_string).collect(),
        subscribed_topic_regex: groups::text(&member.subscribed_topic_regex),
        assignment: assignment(context, &member.current.assigned),
        target_assignment: assignment(context, &member.target),
        member_type: CONSUMER,
    }
}

/// Partitions with their topics' names. A topic that was deleted just now has none, and is left out.
fn assignment(
    context: &Context,
    partitions: &Partitions,
) -> ConsumerGroupDescribeResponseAssignment {
    let topics = groups::by_topic(partitions).filter_map(|(id, partitions)| {
        let topic = context.broker().topic(id)?;
        Some(ConsumerGroupDescribeResponseTopicPartitions {
            topic_id: Uuid(id.0),
            topic_name: topic.name.to_string(),
            partitions,
        })
    });
    ConsumerGroupDescribeResponseAssignment {
        topic_partitions: topics.collect(),
    }
}
