//! DescribeQuorum: the one broker votes alone on what topics there are. The log of it is the catalog.

use sapwood_kafka_wire::{
    Uuid,
    messages::{
        DescribeQuorumRequest, DescribeQuorumResponse, DescribeQuorumResponseListener,
        DescribeQuorumResponseNode, DescribeQuorumResponsePartition, DescribeQuorumResponseReplica,
        DescribeQuorumResponseTopic,
    },
};

use crate::{context::Context, errors::ErrorCode};

/// The one topic, with its one partition, that Kafka's brokers vote on.
const METADATA_TOPIC: &str = "__cluster_metadata";

pub(crate) async fn handle(
    context: &Context,
    request: DescribeQuorumRequest,
    _version: i16,
) -> DescribeQuorumResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    let mut is_answered = false;
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let is_known = topic.topic_name == METADATA_TOPIC && asked.partition_index == 0;
            partitions.push(match is_known {
                true if !is_answered => quorum(context).await,
                true => unknown(context, 0, "the partition is named twice in one request"),
                false => unknown(
                    context,
                    asked.partition_index,
                    "only __cluster_metadata, partition 0, has a quorum",
                ),
            });
            is_answered |= is_known;
        }
        topics.push(DescribeQuorumResponseTopic {
            topic_name: topic.topic_name,
            partitions,
        });
    }
    let advertised = context.advertised();
    DescribeQuorumResponse {
        topics,
        nodes: vec![DescribeQuorumResponseNode {
            node_id: context.broker_id(),
            listeners: vec![DescribeQuorumResponseListener {
                // Kafka's tools take no other.
                name: context.connection().listener.to_uppercase(),
                host: advertised.host.clone(),
                port: advertised.port,
            }],
        }],
        ..DescribeQuorumResponse::default()
    }
}

async fn quorum(context: &Context) -> DescribeQuorumResponsePartition {
    let broker = context.broker();
    let end = i64::try_from(broker.catalog_records().await).unwrap_or(i64::MAX);
    let now = broker.environment().clock.now().0;
    DescribeQuorumResponsePartition {
        partition_index: 0,
        leader_id: context.broker_id(),
        leader_epoch: 0,
        high_watermark: end,
        current_voters: vec![DescribeQuorumResponseReplica {
            replica_id: context.broker_id(),
            replica_directory_id: Uuid(broker.directory_id().0),
            log_end_offset: end,
            last_fetch_timestamp: now,
            last_caught_up_timestamp: now,
        }],
        ..DescribeQuorumResponsePartition::default()
    }
}

fn unknown(
    context: &Context,
    partition_index: i32,
    reason: &'static str,
) -> DescribeQuorumResponsePartition {
    DescribeQuorumResponsePartition {
        partition_index,
        error_code: context.refuse(ErrorCode::UnknownTopicOrPartition, &reason),
        error_message: Some(reason.to_owned()),
        leader_id: -1,
        leader_epoch: -1,
        high_watermark: -1,
        ..DescribeQuorumResponsePartition::default()
    }
}
