//! What a broker has after a power cut.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use sapwood_client::{Client, Durability, PartitionId, Position};

use crate::{
    Failure,
    account::{Account, Kind, Place, RecordId},
};

const READ_TIMEOUT: Duration = Duration::from_secs(120);
/// Topics of the broker's own begin like this.
const INTERNAL: &str = "__";

/// Everything that a client finds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    pub(crate) topics: BTreeMap<String, FoundTopic>,
    pub(crate) commits: BTreeMap<(String, Place), u64>,
}

/// A topic that is there.
#[derive(Debug, Clone)]
pub(crate) struct FoundTopic {
    pub(crate) kind: Kind,
    pub(crate) partitions: Vec<FoundPartition>,
}

/// A partition that can be read from its log start to its end.
#[derive(Debug, Clone, Default)]
pub(crate) struct FoundPartition {
    pub(crate) epoch: u32,
    pub(crate) log_start: u64,
    /// One after the other, from the log start on.
    pub(crate) records: Vec<RecordId>,
}

impl FoundPartition {
    /// The offset behind the last record.
    pub(crate) fn end(&self) -> u64 {
        self.log_start + self.records.len() as u64
    }
}

/// Reads everything that the broker has.
///
/// # Errors
/// When something cannot be read, or is nothing that this account has sent.
pub(crate) async fn read_all(client: &Client, account: &Account) -> Result<Found, Failure> {
    let reading = tokio::time::timeout(READ_TIMEOUT, read(client, account)).await;
    reading.unwrap_or_else(|_| Err(Failure::Broken(format!("not read within {READ_TIMEOUT:?}"))))
}

async fn read(client: &Client, account: &Account) -> Result<Found, Failure> {
    let mut found = Found::default();
    let topics = client
        .admin()
        .list_topics()
        .await
        .map_err(|error| Failure::broken("the list of topics", error))?;
    for topic in topics {
        if topic.name.starts_with(INTERNAL) {
            continue;
        }
        let read = read_topic(client, account, &topic.name).await?;
        found.topics.insert(topic.name, read);
    }
    let groups: std::collections::BTreeSet<&String> =
        account.commits.keys().map(|(group, _)| group).collect();
    for group in groups {
        for (partition, committed) in committed(client, group).await? {
            let place = Place {
                topic: partition.topic.to_string(),
                partition: partition.partition.0,
            };
            found
                .commits
                .insert((group.clone(), place), committed.offset.0);
        }
    }
    Ok(found)
}

async fn read_topic(client: &Client, account: &Account, name: &str) -> Result<FoundTopic, Failure> {
    let described = client
        .admin()
        .describe_topic(name)
        .await
        .map_err(|error| Failure::broken(name, error))?;
    let mut partitions = Vec::new();
    for partition in &described.partitions {
        let place = format!("{name}/{}", partition.partition);
        if let Some(reason) = &partition.offline {
            return Err(Failure::broken(format!("{place} is offline"), reason));
        }
        let bounds = partition.bounds;
        if bounds.high_watermark != bounds.log_end {
            return Err(Failure::Broken(format!(
                "{place} after recovery: {bounds:?}"
            )));
        }
        partitions.push(FoundPartition {
            epoch: partition.leader_epoch.0,
            log_start: bounds.log_start.0,
            records: Vec::new(),
        });
    }
    let consumer = client
        .consumer()
        .topic(name, Position::Start, Some(Position::End));
    let mut consumer = consumer
        .build()
        .await
        .map_err(|error| Failure::broken(name, error))?;
    while let Some(message) = consumer.next().await {
        let message = message.map_err(|error| Failure::broken(format!("reading {name}"), error))?;
        let partition = &mut partitions[message.partition.0 as usize];
        let place = format!("{name}/{} at {}", message.partition, message.offset);
        if message.offset.0 != partition.end() {
            return Err(Failure::Broken(format!(
                "{place}: expected offset {}",
                partition.end()
            )));
        }
        let value = message.value.unwrap_or_default();
        let id = account.identify(name, message.partition.0, &value);
        partition
            .records
            .push(id.map_err(|why| Failure::broken(place, why))?);
    }
    for (partition, described) in partitions.iter().zip(&described.partitions) {
        if partition.end() != described.bounds.high_watermark.0 {
            let place = PartitionId(described.partition.0);
            let text = format!(
                "{name}/{place}: read to {}, not to {:?}",
                partition.end(),
                described.bounds
            );
            return Err(Failure::Broken(text));
        }
    }
    let kind = match described.topic.durability {
        Durability::Fsync => Kind::Fsync,
        Durability::Os => Kind::Os,
    };
    Ok(FoundTopic { kind, partitions })
}

/// What a group has committed; its partition may still be loading.
async fn committed(
    client: &Client,
    group: &str,
) -> Result<
    Vec<(
        sapwood_client::TopicPartition,
        sapwood_client::CommittedOffset,
    )>,
    Failure,
> {
    let started = Instant::now();
    loop {
        match client.admin().committed_offsets(group).await {
            Ok(committed) => return Ok(committed),
            Err(error) if error.is_retriable() && started.elapsed() < READ_TIMEOUT / 4 => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => return Err(Failure::broken(format!("the offsets of {group}"), error)),
        }
    }
}
