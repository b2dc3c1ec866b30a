//! Asks a broker for everything that it has.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sapwood_broker::group::{FetchOffsets, GroupId};
use sapwood_broker::{Broker, Fetch, FetchPartition, PartitionState, TopicRef};
use sapwood_model::{Durability, Offset, PartitionId, TopicId};
use sapwood_record::batches;

use crate::log::Found;
use crate::model::{FoundAll, FoundLog, FoundTopic, Key, Outcome, Settings};

pub(crate) async fn all(broker: &Broker, groups: BTreeSet<String>) -> Outcome<FoundAll> {
    let report = broker.recovery();
    if !report.journal_damage.is_empty() || report.offline > 0 {
        let offline = offline(broker);
        return Err(format!("recovery found damage: {offline:?}, {report:?}"));
    }
    let mut found = FoundAll::default();
    for info in broker.topics() {
        if info.is_internal {
            continue;
        }
        let mut logs = Vec::new();
        for number in 0..info.partitions {
            let log = log(broker, info.id, number).await;
            logs.push(log.map_err(|error| format!("{}/{number}: {error}", info.name))?);
        }
        let topic = FoundTopic {
            id: info.id,
            settings: settings(broker, info.id, info.durability)?,
            logs,
        };
        found.topics.insert(info.name.to_string(), topic);
    }
    loaded(broker).await?;
    for group in groups {
        found.offsets.extend(offsets(broker, &group).await?);
    }
    Ok(found)
}

/// Which partitions do not serve, and why.
fn offline(broker: &Broker) -> Vec<String> {
    let mut found = Vec::new();
    for topic in broker.topics() {
        for partition in broker.partitions(topic.id).into_iter().flatten() {
            if let PartitionState::Offline { reason } = partition.state {
                found.push(format!("{}/{}: {reason}", topic.name, partition.partition));
            }
        }
    }
    found
}

fn settings(broker: &Broker, topic: TopicId, durability: Durability) -> Outcome<Settings> {
    let configs = broker
        .topic_configs(TopicRef::Id(topic))
        .map_err(|error| error.to_string())?;
    let value = |key: &str| {
        let entry = configs.iter().find(|entry| entry.key == key);
        entry
            .map(|entry| entry.value.clone())
            .ok_or_else(|| format!("there is no {key}"))
    };
    let retention = value("retention.ms")?;
    Ok(Settings {
        durability,
        retention_ms: retention.parse().map_err(|_| retention)?,
    })
}

async fn log(broker: &Broker, topic: TopicId, number: u32) -> Outcome<FoundLog> {
    let partition = PartitionId(number);
    let bounds = broker
        .bounds(topic, partition)
        .map_err(|error| error.to_string())?;
    let leader = broker
        .leader(topic, partition)
        .map_err(|error| error.to_string())?;
    if !leader.online {
        return Err("is offline".to_owned());
    }
    Ok(FoundLog {
        start: bounds.log_start.0,
        end: bounds.high_watermark.0,
        epoch: leader.leader_epoch,
        batches: read(broker, topic, number, bounds.log_start.0).await?,
    })
}

/// Everything that can be read from an offset on.
pub(crate) async fn read(
    broker: &Broker,
    topic: TopicId,
    partition: u32,
    mut from: u64,
) -> Outcome<Vec<Found>> {
    let mut found = Vec::new();
    loop {
        let fetch = Fetch {
            partitions: vec![FetchPartition {
                topic: TopicRef::Id(topic),
                partition: PartitionId(partition),
                from: Offset(from),
                bytes_max: 1 << 20,
            }],
            bytes_min: 1,
            bytes_max: 1 << 20,
            wait: Duration::ZERO,
        };
        let fetched = broker.fetch(fetch).await.pop().ok_or("no answer")?;
        let fetched = fetched
            .result
            .map_err(|error| format!("offset {from}: {error}"))?;
        if fetched.batches.is_empty() {
            return Ok(found);
        }
        for batch in batches(fetched.batches) {
            let batch = batch.map_err(|error| error.to_string())?;
            batch.verify_crc().map_err(|error| error.to_string())?;
            found.push(Found::of(&batch));
        }
        from = fetched.next.0;
    }
}

/// Returns when the groups are loaded.
async fn loaded(broker: &Broker) -> Outcome {
    loop {
        let progress = broker.groups().load_progress();
        if progress.failed > 0 {
            return Err(format!("groups could not be loaded: {progress:?}"));
        }
        if progress.loading == 0 {
            return Ok(());
        }
        tokio::task::yield_now().await;
    }
}

/// What a group has committed.
pub(crate) async fn offsets(broker: &Broker, group: &str) -> Outcome<BTreeMap<Key, u64>> {
    let fetch = FetchOffsets {
        group: GroupId::from(group),
        by: None,
        partitions: None,
    };
    let fetched = broker.groups().fetch_offsets(fetch).await;
    let fetched = fetched.map_err(|error| format!("offsets of {group}: {error}"))?;
    let offset = |fetched: sapwood_broker::group::FetchedOffset| {
        let committed = fetched.committed?;
        let partition = fetched.partition;
        let key = (
            group.to_owned(),
            partition.topic.to_string(),
            partition.partition.0,
        );
        Some((key, committed.offset.0))
    };
    Ok(fetched.into_iter().filter_map(offset).collect())
}
