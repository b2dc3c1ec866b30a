//! DescribeLogDirs: the one data directory, and what partitions take in it.

use std::collections::{BTreeMap, BTreeSet};

use sapwood_broker::{PartitionInfo, TopicRef};
use sapwood_kafka_wire::messages::{
    DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeLogDirsResponsePartition,
    DescribeLogDirsResponseResult, DescribeLogDirsResponseTopic,
};

use crate::context::Context;

/// Kafka's number for a size that is not known.
const UNKNOWN: i64 = -1;

pub(crate) async fn handle(
    context: &Context,
    request: DescribeLogDirsRequest,
    _version: i16,
) -> DescribeLogDirsResponse {
    let topics = match request.topics {
        None => all(context),
        Some(asked) => {
            let mut wanted: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
            for topic in asked {
                wanted
                    .entry(topic.topic)
                    .or_default()
                    .extend(topic.partitions);
            }
            some(context, wanted)
        }
    };
    let data_dir = &context.broker().options().data_dir;
    let data_dir = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.clone());
    let (total_bytes, usable_bytes) = space(context).await;
    DescribeLogDirsResponse {
        results: vec![DescribeLogDirsResponseResult {
            log_dir: data_dir.display().to_string(),
            topics,
            total_bytes,
            usable_bytes,
            ..DescribeLogDirsResponseResult::default()
        }],
        ..DescribeLogDirsResponse::default()
    }
}

fn all(context: &Context) -> Vec<DescribeLogDirsResponseTopic> {
    let broker = context.broker();
    let describe = |name: &str| {
        // One that was deleted in this moment takes nothing.
        let partitions = broker.partitions(name).ok()?;
        Some(DescribeLogDirsResponseTopic {
            name: name.to_owned(),
            partitions: partitions.iter().map(partition).collect(),
        })
    };
    let topics = broker.topics();
    topics
        .iter()
        .filter_map(|topic| describe(topic.name.as_str()))
        .collect()
}

/// What is asked for and not there takes nothing and is left out, as Kafka's brokers do it.
fn some(
    context: &Context,
    wanted: BTreeMap<String, BTreeSet<i32>>,
) -> Vec<DescribeLogDirsResponseTopic> {
    let describe = |(name, numbers): (String, BTreeSet<i32>)| {
        let partitions = context.broker().partitions(TopicRef::Name(&name)).ok()?;
        let partitions = partitions.iter().map(partition);
        Some(DescribeLogDirsResponseTopic {
            name,
            partitions: partitions
                .filter(|one| numbers.contains(&one.partition_index))
                .collect(),
        })
    };
    wanted.into_iter().filter_map(describe).collect()
}

fn partition(info: &PartitionInfo) -> DescribeLogDirsResponsePartition {
    DescribeLogDirsResponsePartition {
        partition_index: info.partition.0.cast_signed(),
        partition_size: i64::try_from(info.stats.bytes).unwrap_or(i64::MAX),
        offset_lag: 0,
        is_future_key: false,
    }
}

/// The size of the file system, and how much of it is free.
async fn space(context: &Context) -> (i64, i64) {
    let broker = context.broker().clone();
    let bytes = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    match tokio::task::spawn_blocking(move || broker.disk_space()).await {
        Ok(Ok(space)) => (bytes(space.total_bytes), bytes(space.free_bytes)),
        _ => (UNKNOWN, UNKNOWN),
    }
}
