//! ConsumerGroupHeartbeat: all that a member of a group of the newer kind says and hears (KIP-848).

use sapwood_broker::{
    GroupRequestError,
    group::{Beat, ConsumerHeartbeat, Epoch, GroupError, Partitions, Presence},
};
use sapwood_kafka_wire::{
    Uuid,
    messages::{
        ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatRequestTopicPartitions,
        ConsumerGroupHeartbeatResponse, ConsumerGroupHeartbeatResponseAssignment,
        ConsumerGroupHeartbeatResponseTopicPartitions,
    },
};
use sapwood_model::{TopicId, TopicName};

use super::groups;
use crate::{context::Context, convert::partition_id, errors::AsKafka};

/// From this version on members make their ids up themselves.
const OWN_IDS_FROM: i16 = 1;
/// `member_epoch` of who joins.
const JOINS: i32 = 0;
/// `member_epoch` of who leaves.
const LEAVES: i32 = -1;
/// `member_epoch` of a static member that goes and comes back.
pub(super) const PAUSES: i32 = -2;

pub(crate) async fn handle(
    context: &Context,
    request: ConsumerGroupHeartbeatRequest,
    version: i16,
) -> ConsumerGroupHeartbeatResponse {
    match beat(context, request, version).await {
        Ok(beat) => success(beat),
        Err(error) => ConsumerGroupHeartbeatResponse {
            error_code: context.refuse(error.kafka(), &error),
            error_message: Some(error.to_string()),
            ..ConsumerGroupHeartbeatResponse::default()
        },
    }
}

async fn beat(
    context: &Context,
    request: ConsumerGroupHeartbeatRequest,
    version: i16,
) -> Result<Beat, GroupRequestError> {
    let has_id = version >= OWN_IDS_FROM || !request.member_id.is_empty();
    let topics = request.subscribed_topic_names.map(|names| {
        let names = names.iter();
        // A topic need not be there; one of a name that no topic can have never will be.
        names.filter_map(|name| TopicName::new(name).ok()).collect()
    });
    let beat = ConsumerHeartbeat {
        group: request.group_id.into(),
        member_id: has_id.then(|| request.member_id.into()),
        presence: presence(request.member_epoch)?,
        instance_id: groups::instance_id(request.instance_id),
        client: groups::client(context),
        rack_id: request.rack_id.map(Into::into),
        rebalance_timeout_ms: u32::try_from(request.rebalance_timeout_ms).ok(),
        subscribed_topic_names: topics,
        subscribed_topic_regex: request.subscribed_topic_regex.map(Into::into),
        server_assignor: request.server_assignor.map(Into::into),
        owned: request.topic_partitions.map(owned).transpose()?,
    };
    context.broker().groups().consumer_heartbeat(beat).await
}

fn presence(member_epoch: i32) -> Result<Presence, GroupError> {
    match member_epoch {
        JOINS => Ok(Presence::Join),
        LEAVES => Ok(Presence::Leave),
        PAUSES => Ok(Presence::Pause),
        other => match u32::try_from(other) {
            Ok(epoch) => Ok(Presence::Stay(Epoch(epoch))),
            Err(_) => Err(GroupError::InvalidRequest("a member's epoch is -2 or more")),
        },
    }
}

fn owned(
    topics: Vec<ConsumerGroupHeartbeatRequestTopicPartitions>,
) -> Result<Partitions, GroupError> {
    let mut owned = Partitions::new();
    for topic in topics {
        for index in topic.partitions {
            let Some(partition) = partition_id(index) else {
                return Err(GroupError::InvalidRequest(
                    "a partition's number is 0 or more",
                ));
            };
            owned.insert(TopicId(topic.topic_id.0), partition);
        }
    }
    Ok(owned)
}

fn success(beat: Beat) -> ConsumerGroupHeartbeatResponse {
    let member_epoch = match beat.presence {
        Presence::Join => JOINS,
        Presence::Stay(epoch) => epoch.0.cast_signed(),
        Presence::Leave => LEAVES,
        Presence::Pause => PAUSES,
    };
    let interval_ms = i32::try_from(beat.heartbeat_interval_ms).unwrap_or(i32::MAX);
    ConsumerGroupHeartbeatResponse {
        member_id: Some(beat.member_id.to_string()),
        member_epoch,
        heartbeat_interval_ms: interval_ms,
        assignment: beat.assignment.as_ref().map(assignment),
        ..ConsumerGroupHeartbeatResponse::default()
    }
}

fn assignment(partitions: &Partitions) -> ConsumerGroupHeartbeatResponseAssignment {
    let topics = groups::by_topic(partitions);
    let topics = topics.map(
        |(topic, partitions)| ConsumerGroupHeartbeatResponseTopicPartitions {
            topic_id: Uuid(topic.0),
            partitions,
        },
    );
    ConsumerGroupHeartbeatResponseAssignment {
        topic_partitions: topics.collect(),
    }
}
