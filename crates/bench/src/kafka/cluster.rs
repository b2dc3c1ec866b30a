//! Where partitions are, and topics: made, found, deleted.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::{Duration, Instant},
};

use sapwood_kafka_wire::messages::{
    CreateTopicsRequest, CreateTopicsRequestConfig, CreateTopicsRequestTopic, DeleteTopicsRequest,
    DeleteTopicsRequestTopic, ListOffsetsRequest, ListOffsetsRequestPartition,
    ListOffsetsRequestTopic, MetadataRequest, MetadataRequestTopic, MetadataResponse,
};

use super::connection::Connection;
use crate::{Error, error::refused, plan::Topic};

/// Versions from here on name topics by their id.
pub(super) const NEWEST_WITH_NAMES: (i16, i16, i16) = (12, 12, 12);
const UNKNOWN_TOPIC: i16 = 3;
const LEADER_NOT_AVAILABLE: i16 = 5;
const NOT_LEADER: i16 = 6;
/// How long a topic may take to be there, or to be gone.
const TOPIC_TIMEOUT: Duration = Duration::from_secs(60);
const EARLIEST: i64 = -2;
const LATEST: i64 = -1;

/// The brokers, and who leads the partitions of the topic.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    pub(crate) topic: String,
    /// Addresses by broker id.
    pub(crate) brokers: HashMap<i32, String>,
    /// The leader of each partition.
    pub(crate) leaders: Vec<i32>,
}

impl Cluster {
    /// Makes the topic as the plan wants it and waits until each partition has a leader.
    pub(crate) fn prepare(bootstrap: &[String], topic: &Topic) -> Result<Self, Error> {
        let mut connection = open_any(bootstrap)?;
        let ends = Instant::now() + TOPIC_TIMEOUT;
        if topic.fresh {
            delete(&mut connection, &topic.name)?;
            while metadata(&mut connection, &topic.name)?
                .topics
                .iter()
                .any(|found| found.error_code == 0)
            {
                wait(ends, "the topic is still there after it was deleted")?;
            }
        }
        let found = metadata(&mut connection, &topic.name)?;
        // A broker may have made a topic and not know it yet (Kafka's metadata comes later than its answer).
        let mut is_new = false;
        if found
            .topics
            .iter()
            .any(|found| found.error_code == UNKNOWN_TOPIC)
        {
            create(&mut connection, topic)?;
            is_new = true;
        }
        loop {
            if let Some(cluster) = Self::read(&mut connection, &topic.name, is_new)? {
                return Ok(cluster);
            }
            wait(ends, "the topic has partitions without a leader")?;
        }
    }

    /// What is there; the topic has to exist.
    pub(crate) fn find(bootstrap: &[String], topic: &str) -> Result<Self, Error> {
        let mut connection = open_any(bootstrap)?;
        let ends = Instant::now() + TOPIC_TIMEOUT;
        loop {
            if let Some(cluster) = Self::read(&mut connection, topic, false)? {
                return Ok(cluster);
            }
            wait(ends, "the topic has partitions without a leader")?;
        }
    }

    /// Deletes a topic.
    pub(crate) fn remove(bootstrap: &[String], topic: &str) -> Result<(), Error> {
        delete(&mut open_any(bootstrap)?, topic)
    }

    /// `None` while a partition has no leader; `is_new` says that the topic may not be known yet.
    fn read(connection: &mut Connection, topic: &str, is_new: bool) -> Result<Option<Self>, Error> {
        let answer = metadata(connection, topic)?;
        let brokers = answer.brokers.into_iter();
        let brokers =
            brokers.map(|broker| (broker.node_id, format!("{}:{}", broker.host, broker.port)));
        let Some(found) = answer.topics.into_iter().next() else {
            return Err(Error::Answer(format!("it says nothing of topic {topic:?}")));
        };
        match found.error_code {
            0 => {}
            LEADER_NOT_AVAILABLE => return Ok(None),
            UNKNOWN_TOPIC if is_new => return Ok(None),
            code => return Err(refused(format!("topic {topic:?}"), code, None)),
        }
        let mut leaders = vec![-1; found.partitions.len()];
        for partition in &found.partitions {
            let index = usize::try_from(partition.partition_index).unwrap_or(usize::MAX);
            let leader = leaders.get_mut(index).ok_or_else(|| {
                Error::Answer(format!("topic {topic:?} has no partition {index}"))
            })?;
            *leader = partition.leader_id;
        }
        let cluster = Self {
            topic: topic.to_owned(),
            brokers: brokers.collect(),
            leaders,
        };
        let is_whole = !cluster.leaders.is_empty()
            && cluster
                .leaders
                .iter()
                .all(|leader| cluster.brokers.contains_key(leader));
        Ok(is_whole.then_some(cluster))
    }

    /// Opens a connection to each broker that leads one of these partitions.
    pub(super) fn connect(
        &self,
        partitions: impl Iterator<Item = u32>,
    ) -> Result<HashMap<i32, Connection>, Error> {
        let mut connections = HashMap::new();
        for partition in partitions {
            let leader = self.leaders[partition as usize];
            if let Entry::Vacant(place) = connections.entry(leader) {
                place.insert(Connection::open(&self.brokers[&leader])?);
            }
        }
        Ok(connections)
    }

    /// The first offset of each partition and the one behind its last. Waits for leaders that do not know yet that
    /// they lead.
    pub(crate) fn bounds(&self) -> Result<Vec<(i64, i64)>, Error> {
        let mut bounds = vec![(0, 0); self.leaders.len()];
        let partitions = 0..u32::try_from(self.leaders.len()).unwrap_or(u32::MAX);
        let ends = Instant::now() + TOPIC_TIMEOUT;
        for (leader, mut connection) in self.connect(partitions)? {
            for timestamp in [EARLIEST, LATEST] {
                while let Some(code) =
                    self.ask_offsets(leader, &mut connection, timestamp, &mut bounds)?
                {
                    if !matches!(code, UNKNOWN_TOPIC | LEADER_NOT_AVAILABLE | NOT_LEADER) {
                        return Err(refused("asking for offsets", code, None));
                    }
                    wait(
                        ends,
                        "the leader of a partition does not know that it leads",
                    )?;
                }
            }
        }
        Ok(bounds)
    }

    /// Asks one leader for the offsets of its partitions; the first error.
    fn ask_offsets(
        &self,
        leader: i32,
        connection: &mut Connection,
        timestamp: i64,
        bounds: &mut [(i64, i64)],
    ) -> Result<Option<i16>, Error> {
        let asked = self.leaders.iter().enumerate();
        let asked = asked.filter(|(_, of)| **of == leader);
        let asked = asked.map(|(partition, _)| ListOffsetsRequestPartition {
            partition_index: i32::try_from(partition).unwrap_or(i32::MAX),
            timestamp,
            ..Default::default()
        });
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsRequestTopic {
                name: self.topic.clone(),
                partitions: asked.collect(),
            }],
            ..Default::default()
        };
        let answer = connection.call(&request, 7)?;
        for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
            if partition.error_code != 0 {
                return Ok(Some(partition.error_code));
            }
            let index = usize::try_from(partition.partition_index).unwrap_or(usize::MAX);
            let Some(bounds) = bounds.get_mut(index) else {
                return Err(Error::Answer(format!("nobody asked for partition {index}")));
            };
            match timestamp {
                EARLIEST => bounds.0 = partition.offset,
                _ => bounds.1 = partition.offset,
            }
        }
        Ok(None)
    }
}

fn open_any(bootstrap: &[String]) -> Result<Connection, Error> {
    let mut last = None;
    for address in bootstrap {
        match Connection::open(address) {
            Ok(connection) => return Ok(connection),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| Error::Setting("no broker was named".into())))
}

fn wait(ends: Instant, what: &str) -> Result<(), Error> {
    if Instant::now() >= ends {
        let seconds = TOPIC_TIMEOUT.as_secs();
        return Err(Error::Answer(format!("{what} for {seconds} s")));
    }
    std::thread::sleep(Duration::from_millis(20));
    Ok(())
}

fn metadata(connection: &mut Connection, topic: &str) -> Result<MetadataResponse, Error> {
    let request = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some(topic.to_owned()),
            ..Default::default()
        }]),
        allow_auto_topic_creation: false,
        ..Default::default()
    };
    connection.call(&request, NEWEST_WITH_NAMES.2)
}

fn create(connection: &mut Connection, topic: &Topic) -> Result<(), Error> {
    let configs = topic.config.iter();
    let configs = configs.map(|(name, value)| CreateTopicsRequestConfig {
        name: name.clone(),
        value: Some(value.clone()),
    });
    let request = CreateTopicsRequest {
        topics: vec![CreateTopicsRequestTopic {
            name: topic.name.clone(),
            num_partitions: i32::try_from(topic.partitions).unwrap_or(i32::MAX),
            replication_factor: 1,
            configs: configs.collect(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let answer = connection.call(&request, 7)?;
    for made in answer.topics {
        // TOPIC_ALREADY_EXISTS: somebody was faster.
        if made.error_code != 0 && made.error_code != 36 {
            let what = format!("creating topic {:?}", topic.name);
            return Err(refused(
                what,
                made.error_code,
                made.error_message.as_deref(),
            ));
        }
    }
    Ok(())
}

fn delete(connection: &mut Connection, topic: &str) -> Result<(), Error> {
    let request = DeleteTopicsRequest {
        topics: vec![DeleteTopicsRequestTopic {
            name: Some(topic.to_owned()),
            ..Default::default()
        }],
        topic_names: vec![topic.to_owned()],
        timeout_ms: 60_000,
    };
    let answer = connection.call(&request, 6)?;
    for deleted in answer.responses {
        if deleted.error_code != 0 && deleted.error_code != UNKNOWN_TOPIC {
            let what = format!("deleting topic {topic:?}");
            return Err(refused(
                what,
                deleted.error_code,
                deleted.error_message.as_deref(),
            ));
        }
    }
    Ok(())
}
