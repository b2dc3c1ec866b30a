//! What a member says about itself, checked.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use sapwood_broker::{
    Broker, LookupError,
    group::{Epoch, GroupId, InstanceId, MemberId, Partitions},
};
use sapwood_model::{Code, PartitionId, TopicId, TopicName};
use sapwood_rpc::v1;

use super::{PARTITIONS_MAX, count, count_partitions, group_id, topic_name};
use crate::error::Failure;

/// The most topics that a member may name.
const TOPICS_MAX: usize = 10_000;
/// The longest instance id and client id, in bytes.
const ID_BYTES_MAX: usize = 255;
/// The longest member id, in bytes: it may be made from an instance id.
const MEMBER_ID_BYTES_MAX: usize = 300;
const REBALANCE_TIMEOUT_MS: u32 = 45_000;
const REBALANCE_TIMEOUT_MS_MAX: u32 = 24 * 3_600 * 1_000;

/// Who joins, or comes back.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) group: GroupId,
    pub(super) member_id: MemberId,
    /// Zero for who joins.
    pub(super) epoch: Epoch,
    pub(super) instance_id: Option<InstanceId>,
    pub(super) client_id: Arc<str>,
    pub(super) subscription: Subscription,
    /// Empty for none in particular.
    pub(super) assignor: Arc<str>,
    pub(super) rebalance_timeout_ms: u32,
    pub(super) owned: Partitions,
}

/// What a member reads.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) names: BTreeSet<TopicName>,
    /// Empty for none.
    pub(super) regex: Arc<str>,
}

impl Options {
    /// Reads the first message of a stream.
    pub(super) fn read(broker: &Broker, first: v1::JoinRequest) -> Result<Self, Failure> {
        let Some(options) = first.options else {
            let message = "the first message of a member's stream has options";
            return Err(Failure::new(Code::InvalidArgument, message));
        };
        if first.leave.is_some() || first.owned.is_some() || first.subscription.is_some() {
            let message = "the first message of a member's stream has options and nothing else";
            return Err(Failure::new(Code::InvalidArgument, message));
        }
        let group = group_id(options.group)?;
        count(
            "bytes in member_id",
            options.member_id.len(),
            1,
            MEMBER_ID_BYTES_MAX,
        )?;
        count(
            "bytes in client_id",
            options.client_id.len(),
            0,
            ID_BYTES_MAX,
        )?;
        if let Some(instance) = &options.instance_id {
            count("bytes in instance_id", instance.len(), 1, ID_BYTES_MAX)?;
        }
        let rebalance_timeout_ms = match options.rebalance_timeout_ms {
            0 => REBALANCE_TIMEOUT_MS,
            timeout if timeout <= REBALANCE_TIMEOUT_MS_MAX => timeout,
            timeout => {
                let message = format!(
                    "rebalance_timeout_ms is {timeout} ms; the limit is {REBALANCE_TIMEOUT_MS_MAX} ms"
                );
                return Err(Failure::new(Code::InvalidArgument, message));
            }
        };
        let owned = options.owned.unwrap_or_default();
        Ok(Self {
            group,
            member_id: options.member_id.into(),
            epoch: Epoch(options.member_epoch),
            instance_id: options.instance_id.map(Into::into),
            client_id: options.client_id.into(),
            subscription: Subscription::read(options.subscription.unwrap_or_default())?,
            assignor: options.assignor.unwrap_or_default().into(),
            rebalance_timeout_ms,
            owned: self::owned(broker, owned, &HashMap::new())?,
        })
    }
}

impl Subscription {
    pub(super) fn read(subscription: v1::MemberSubscription) -> Result<Self, Failure> {
        count("topics", subscription.topics.len(), 0, TOPICS_MAX)?;
        let names = subscription.topics.iter().map(|name| topic_name(name));
        let names = names.collect::<Result<BTreeSet<_>, _>>()?;
        let regex = subscription.topic_regex.unwrap_or_default();
        if names.is_empty() && regex.is_empty() {
            let message = "a member subscribes to topics, to a pattern, or to both";
            return Err(Failure::new(Code::InvalidArgument, message));
        }
        Ok(Self {
            names,
            regex: regex.into(),
        })
    }
}

/// The partitions that a member says it owns. A name stands for the topic in `told`, or else for the one
/// that has it now.
pub(super) fn owned(
    broker: &Broker,
    owned: v1::OwnedPartitions,
    told: &HashMap<String, TopicId>,
) -> Result<Partitions, Failure> {
    count_partitions(&owned.topics, 0, PARTITIONS_MAX)?;
    let mut partitions = Partitions::new();
    for topic in owned.topics {
        if let Some(id) = told.get(&topic.topic) {
            let numbers = topic.partitions.iter();
            partitions.extend(numbers.map(|number| (*id, PartitionId(*number))));
            continue;
        }
        let unknown = |error: LookupError, number| {
            Failure::from(error).about(&topic.topic, PartitionId(number))
        };
        let first = topic.partitions.first().copied().unwrap_or_default();
        let info = broker.topic(&topic.topic).ok_or_else(|| {
            let topic = format!("{:?}", topic.topic);
            unknown(LookupError::UnknownTopic { topic }, first)
        })?;
        for number in &topic.partitions {
            if *number >= info.partitions {
                let error = LookupError::UnknownPartition {
                    topic: info.name.clone(),
                    partitions: info.partitions,
                    partition: PartitionId(*number),
                };
                return Err(unknown(error, *number));
            }
            partitions.insert(info.id, PartitionId(*number));
        }
    }
    Ok(partitions)
}
