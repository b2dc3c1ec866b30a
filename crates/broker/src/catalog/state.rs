//! The catalog's state machine: `decide` says what a command would do and changes nothing, `apply`
//! is the only mutation, live and in replay alike.

use std::collections::{BTreeMap, HashMap};

use sapwood_model::{Offset, PartitionId, TopicId, TopicName};

use super::command::{Applied, Command, NewTopicRecord, Rejected};

/// The largest producer id: what a Kafka client's i64 holds.
const PRODUCER_ID_MAX: u64 = i64::MAX.unsigned_abs();

/// A topic and what happened to it since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicRecord {
    /// As created, with today's partitions and configurations.
    pub(crate) record: NewTopicRecord,
    /// Log starts above 0.
    pub(crate) log_starts: BTreeMap<PartitionId, Offset>,
}

impl TopicRecord {
    /// The first offset that is left of a partition.
    pub(crate) fn log_start(&self, partition: PartitionId) -> Offset {
        self.log_starts
            .get(&partition)
            .copied()
            .unwrap_or(Offset::ZERO)
    }
}

/// Every topic, the ids of those that were deleted, and the next producer id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    topics: BTreeMap<TopicName, TopicRecord>,
    names: HashMap<TopicId, TopicName>,
    /// The names with `_` for `.`: two topics may not share one, as their metrics' names would.
    metric_names: HashMap<String, TopicName>,
    deleted: BTreeMap<TopicId, TopicName>,
    next_producer_id: u64,
}

impl State {
    pub(super) fn with_next_producer_id(next_producer_id: u64) -> Self {
        Self {
            next_producer_id,
            ..Self::default()
        }
    }

    /// The topics in the order of their names.
    pub(crate) fn topics(&self) -> impl ExactSizeIterator<Item = &TopicRecord> {
        self.topics.values()
    }

    /// The topic of this name.
    pub(crate) fn topic(&self, name: &TopicName) -> Option<&TopicRecord> {
        self.topics.get(name)
    }

    /// Ids that were deleted and are not forgotten yet, with the names they had.
    pub(crate) fn deleted(&self) -> &BTreeMap<TopicId, TopicName> {
        &self.deleted
    }

    /// The first producer id that nobody has.
    pub(crate) fn next_producer_id(&self) -> u64 {
        self.next_producer_id
    }

    /// What `command` would do now.
    pub(crate) fn decide(&self, command: &Command) -> Result<Applied, Rejected> {
        match command {
            Command::CreateTopic(topic) => self.decide_create(topic)?,
            Command::DeleteTopic { topic } | Command::AlterConfigs { topic, .. } => {
                self.by_id(*topic)?;
            }
            Command::AddPartitions { topic, total } => {
                let record = &self.by_id(*topic)?.record;
                if *total <= record.partitions {
                    return Err(Rejected::NotMorePartitions {
                        name: record.name.clone(),
                        partitions: record.partitions,
                        total: *total,
                    });
                }
            }
            Command::MoveLogStart {
                topic,
                partition,
                log_start,
            } => {
                let topic = self.by_id(*topic)?;
                if partition.0 >= topic.record.partitions {
                    return Err(Rejected::UnknownPartition {
                        name: topic.record.name.clone(),
                        partitions: topic.record.partitions,
                        partition: *partition,
                    });
                }
                let current = topic.log_start(*partition);
                if *log_start <= current {
                    return Err(Rejected::LogStartNotHigher {
                        current,
                        requested: *log_start,
                    });
                }
            }
            Command::ReserveProducerIds { count } => {
                let next = self.next_producer_id;
                let end = next
                    .checked_add(*count)
                    .filter(|end| *end <= PRODUCER_ID_MAX);
                if *count == 0 || end.is_none() {
                    return Err(Rejected::NoProducerIds {
                        count: *count,
                        next,
                    });
                }
                return Ok(Applied::ProducerIds { first: next });
            }
            Command::ForgetDeleted { .. } => {}
        }
        Ok(Applied::Done)
    }

    fn decide_create(&self, topic: &NewTopicRecord) -> Result<(), Rejected> {
        if let Some(there) = self.topics.get(&topic.name) {
            return Err(Rejected::TopicExists {
                name: topic.name.clone(),
                partitions: there.record.partitions,
            });
        }
        if let Some(other) = self.metric_names.get(&metric_name(&topic.name)) {
            return Err(Rejected::NameCollides {
                name: topic.name.clone(),
                other: other.clone(),
            });
        }
        if self.names.contains_key(&topic.id) || self.deleted.contains_key(&topic.id) {
            return Err(Rejected::IdTaken { id: topic.id });
        }
        if topic.partitions == 0 {
            return Err(Rejected::NoPartitions);
        }
        Ok(())
    }

    fn by_id(&self, id: TopicId) -> Result<&TopicRecord, Rejected> {
        let name = self.names.get(&id).ok_or(Rejected::UnknownTopic { id })?;
        Ok(&self.topics[name])
    }

    fn by_id_mut(&mut self, id: TopicId) -> &mut TopicRecord {
        let name = self.names.get(&id).expect("decide found the topic");
        self.topics
            .get_mut(name)
            .expect("every id's name is a topic")
    }

    /// Carries out a command that `decide` accepted.
    ///
    /// # Panics
    /// When `decide` would have rejected it.
    pub(crate) fn apply(&mut self, command: &Command) {
        match command {
            Command::CreateTopic(topic) => {
                let topic = TopicRecord {
                    record: topic.clone(),
                    log_starts: BTreeMap::new(),
                };
                self.insert(topic);
            }
            Command::DeleteTopic { topic } => {
                let name = self.names.remove(topic).expect("decide found the topic");
                self.metric_names.remove(&metric_name(&name));
                self.topics
                    .remove(&name)
                    .expect("every id's name is a topic");
                self.deleted.insert(*topic, name);
            }
            Command::AlterConfigs { topic, configs } => {
                self.by_id_mut(*topic).record.configs.clone_from(configs);
            }
            Command::AddPartitions { topic, total } => {
                self.by_id_mut(*topic).record.partitions = *total;
            }
            Command::MoveLogStart {
                topic,
                partition,
                log_start,
            } => {
                self.by_id_mut(*topic)
                    .log_starts
                    .insert(*partition, *log_start);
            }
            Command::ReserveProducerIds { count } => self.next_producer_id += count,
            Command::ForgetDeleted { topics } => {
                for topic in topics {
                    self.deleted.remove(topic);
                }
            }
        }
    }

    fn insert(&mut self, topic: TopicRecord) {
        let name = topic.record.name.clone();
        self.names.insert(topic.record.id, name.clone());
        self.metric_names.insert(metric_name(&name), name.clone());
        let before = self.topics.insert(name, topic);
        assert!(before.is_none(), "decide found the name free");
    }

    /// Puts a snapshot's topic in; `None` when it contradicts what is there.
    pub(super) fn restore_topic(&mut self, topic: TopicRecord) -> Option<()> {
        self.decide_create(&topic.record).ok()?;
        if topic
            .log_starts
            .keys()
            .any(|partition| partition.0 >= topic.record.partitions)
        {
            return None;
        }
        self.insert(topic);
        Some(())
    }

    /// Puts a snapshot's deleted id in; `None` when it contradicts what is there.
    pub(super) fn restore_deleted(&mut self, id: TopicId, name: TopicName) -> Option<()> {
        if self.names.contains_key(&id) {
            return None;
        }
        self.deleted.insert(id, name).is_none().then_some(())
    }
}

fn metric_name(name: &TopicName) -> String {
    name.as_str().replace('.', "_")
}

#[cfg(test)]
mod tests {
    use sapwood_model::Timestamp;

    use super::*;

    fn create(name: &str, id: u128) -> Command {
        Command::CreateTopic(NewTopicRecord {
            id: TopicId(id),
            name: TopicName::new(name).unwrap(),
            created_at: Timestamp(7),
            partitions: 2,
            configs: BTreeMap::new(),
        })
    }

    fn propose(state: &mut State, command: &Command) -> Result<Applied, Rejected> {
        let applied = state.decide(command)?;
        state.apply(command);
        Ok(applied)
    }

    #[test]
    fn a_name_that_differs_only_in_dot_and_underscore_collides() {
        let mut state = State::default();
        propose(&mut state, &create("a.b_c", 1)).unwrap();
        let rejected = propose(&mut state, &create("a_b.c", 2)).unwrap_err();
        assert!(
            matches!(rejected, Rejected::NameCollides { .. }),
            "{rejected}"
        );
        propose(&mut state, &Command::DeleteTopic { topic: TopicId(1) }).unwrap();
        propose(&mut state, &create("a_b.c", 2)).unwrap();
    }

    #[test]
    fn a_deleted_id_is_not_used_again_until_it_is_forgotten() {
        let mut state = State::default();
        propose(&mut state, &create("a", 1)).unwrap();
        propose(&mut state, &Command::DeleteTopic { topic: TopicId(1) }).unwrap();
        assert_eq!(
            propose(&mut state, &create("b", 1)),
            Err(Rejected::IdTaken { id: TopicId(1) })
        );
        assert_eq!(state.deleted().len(), 1);
        propose(
            &mut state,
            &Command::ForgetDeleted {
                topics: vec![TopicId(1), TopicId(9)],
            },
        )
        .unwrap();
        assert!(state.deleted().is_empty());
        propose(&mut state, &create("b", 1)).unwrap();
    }

    #[test]
    fn log_starts_and_partition_counts_only_rise() {
        let mut state = State::default();
        propose(&mut state, &create("a", 1)).unwrap();
        let start = |partition, log_start| Command::MoveLogStart {
            topic: TopicId(1),
            partition: PartitionId(partition),
            log_start: Offset(log_start),
        };
        propose(&mut state, &start(1, 10)).unwrap();
        assert!(propose(&mut state, &start(1, 10)).is_err());
        assert!(propose(&mut state, &start(1, 9)).is_err());
        assert!(propose(&mut state, &start(2, 9)).is_err());
        let add = |total| Command::AddPartitions {
            topic: TopicId(1),
            total,
        };
        assert!(propose(&mut state, &add(2)).is_err());
        propose(&mut state, &add(3)).unwrap();
        propose(&mut state, &start(2, 9)).unwrap();
        let topic = state.topic(&TopicName::new("a").unwrap()).unwrap();
        assert_eq!(topic.log_start(PartitionId(0)), Offset::ZERO);
        assert_eq!(topic.log_start(PartitionId(1)), Offset(10));
        assert_eq!(topic.log_start(PartitionId(2)), Offset(9));
    }

    #[test]
    fn producer_ids_are_given_out_once() {
        let mut state = State::default();
        let reserve = Command::ReserveProducerIds { count: 1000 };
        assert_eq!(
            propose(&mut state, &reserve),
            Ok(Applied::ProducerIds { first: 0 })
        );
        assert_eq!(
            propose(&mut state, &reserve),
            Ok(Applied::ProducerIds { first: 1000 })
        );
        assert!(propose(&mut state, &Command::ReserveProducerIds { count: 0 }).is_err());
        assert!(propose(&mut state, &Command::ReserveProducerIds { count: u64::MAX }).is_err());
    }
}
