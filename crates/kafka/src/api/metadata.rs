//! Metadata: the broker, the topics, and who leads their partitions.
//!
//! A partition that is named here with a leader takes records at once. Topics are created on the
//! way when the request and the broker's settings both allow it, at most [`CREATED_MAX`] by a request:
//! for the others the client asks again.

use sapwood_broker::{
    CreateTopicError, LookupError, NewTopic, PartitionLeader, TopicInfo, TopicRef,
};
use sapwood_kafka_wire::{
    Uuid,
    messages::{
        MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseBroker,
        MetadataResponsePartition, MetadataResponseTopic,
    },
};
use sapwood_model::TopicId;

use super::{CLUSTER_OPERATIONS, TOPIC_OPERATIONS};
use crate::{
    context::Context,
    errors::{AsKafka, ErrorCode},
};

/// In this version no topics are all topics; later, null is.
const NO_TOPICS_IS_ALL: i16 = 0;
/// From this version on topics can be asked for by id, and a topic's name may be null.
const IDS_FROM: i16 = 12;
/// Topics that one request creates at most. Each is synced before the next.
const CREATED_MAX: usize = 100;
/// Before this version a request cannot say that it creates nothing.
const SAYS_AUTO_CREATE_FROM: i16 = 4;

pub(crate) async fn handle(
    context: &Context,
    request: MetadataRequest,
    version: i16,
) -> MetadataResponse {
    let asked = request
        .topics
        .filter(|topics| !(version == NO_TOPICS_IS_ALL && topics.is_empty()));
    let auto_create = version < SAYS_AUTO_CREATE_FROM || request.allow_auto_topic_creation;
    let mut creation = Creation {
        is_allowed: auto_create && context.broker().options().auto_create,
        left: CREATED_MAX,
    };
    let mut topics = match asked {
        None => all(context),
        Some(asked) => {
            let mut topics = Vec::with_capacity(asked.len());
            for topic in asked {
                topics.push(one(context, topic, &mut creation).await);
            }
            topics
        }
    };
    if request.include_topic_authorized_operations {
        for topic in topics.iter_mut().filter(|topic| topic.error_code == 0) {
            topic.topic_authorized_operations = TOPIC_OPERATIONS;
        }
    }
    let advertised = context.advertised();
    MetadataResponse {
        brokers: vec![MetadataResponseBroker {
            node_id: context.broker_id(),
            host: advertised.host.clone(),
            port: advertised.port.into(),
            rack: None,
        }],
        cluster_id: Some(context.cluster_id().to_owned()),
        controller_id: context.broker_id(),
        topics,
        cluster_authorized_operations: match request.include_cluster_authorized_operations {
            true => CLUSTER_OPERATIONS,
            false => i32::MIN,
        },
        ..MetadataResponse::default()
    }
}

fn all(context: &Context) -> Vec<MetadataResponseTopic> {
    let broker = context.broker();
    let topics = broker.topics().into_iter();
    topics
        .filter_map(|topic| {
            // One that was deleted in this moment is not there.
            let (topic, leaders) = broker.leaders(topic.id).ok()?;
            Some(describe(context, &topic, leaders))
        })
        .collect()
}

/// Whether topics that are not there are created, and how many more.
struct Creation {
    is_allowed: bool,
    left: usize,
}

async fn one(
    context: &Context,
    asked: MetadataRequestTopic,
    creation: &mut Creation,
) -> MetadataResponseTopic {
    // Java's client says an empty name beside an id.
    let has_id = context.version() >= IDS_FROM && asked.topic_id != Uuid::ZERO;
    if let Some(name) = asked.name.filter(|_| !has_id) {
        return match by_name(context, &name, creation).await {
            Ok(topic) => topic,
            Err(error_code) => MetadataResponseTopic {
                error_code,
                name: Some(name),
                topic_id: asked.topic_id,
                ..MetadataResponseTopic::default()
            },
        };
    }
    let id = TopicId(asked.topic_id.0);
    match found(context, TopicRef::Id(id)) {
        Ok(topic) => topic,
        Err(error) => MetadataResponseTopic {
            error_code: context.refuse(ErrorCode::UnknownTopicId, &error),
            name: (context.version() < IDS_FROM).then(String::new),
            topic_id: asked.topic_id,
            ..MetadataResponseTopic::default()
        },
    }
}

/// The topic with this name, created if that is allowed; otherwise the error's number.
async fn by_name(
    context: &Context,
    name: &str,
    creation: &mut Creation,
) -> Result<MetadataResponseTopic, i16> {
    let unknown = match found(context, TopicRef::Name(name)) {
        Ok(topic) => return Ok(topic),
        Err(error) => error,
    };
    if let Err(error) = sapwood_model::TopicName::new(name) {
        return Err(context.refuse(ErrorCode::InvalidTopicException, &error));
    }
    if !creation.is_allowed {
        return Err(context.failed(&unknown));
    }
    creation.left = creation.left.checked_sub(1).ok_or_else(|| {
        let reason = format_args!("a request creates at most {CREATED_MAX} topics; ask again");
        context.refuse(ErrorCode::LeaderNotAvailable, &reason)
    })?;
    match context.broker().create_topic(NewTopic::named(name)).await {
        // Somebody else may have been first.
        Ok(_) | Err(CreateTopicError::Exists { .. }) => {
            found(context, TopicRef::Name(name)).map_err(|error| context.failed(&error))
        }
        Err(error) => Err(context.refuse(creation_error(&error), &error)),
    }
}

/// Clients take most errors of a topic's creation for the end of it; what a retry may mend is said
/// in a way that lets them ask again.
fn creation_error(error: &CreateTopicError) -> ErrorCode {
    match error.kafka() {
        ErrorCode::NotController | ErrorCode::KafkaStorageError => ErrorCode::LeaderNotAvailable,
        other => other,
    }
}

fn found(context: &Context, topic: TopicRef<'_>) -> Result<MetadataResponseTopic, LookupError> {
    let (topic, leaders) = context.broker().leaders(topic)?;
    Ok(describe(context, &topic, leaders))
}

fn describe(
    context: &Context,
    topic: &TopicInfo,
    leaders: Vec<PartitionLeader>,
) -> MetadataResponseTopic {
    let partitions = leaders.into_iter();
    MetadataResponseTopic {
        name: Some(topic.name.to_string()),
        topic_id: Uuid(topic.id.0),
        is_internal: topic.is_internal,
        partitions: partitions
            .map(|leader| partition(context.broker_id(), leader))
            .collect(),
        ..MetadataResponseTopic::default()
    }
}

fn partition(broker_id: i32, leader: PartitionLeader) -> MetadataResponsePartition {
    let described = MetadataResponsePartition {
        partition_index: leader.partition.0.cast_signed(),
        leader_id: broker_id,
        leader_epoch: leader.leader_epoch.0.cast_signed(),
        replica_nodes: vec![broker_id],
        isr_nodes: vec![broker_id],
        ..MetadataResponsePartition::default()
    };
    if leader.online {
        return described;
    }
    MetadataResponsePartition {
        error_code: ErrorCode::LeaderNotAvailable.number(),
        leader_id: -1,
        isr_nodes: Vec::new(),
        offline_replicas: vec![broker_id],
        ..described
    }
}
