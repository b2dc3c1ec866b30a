//! The changes themselves. Everything here blocks; whatever changes a topic runs with the turn of the
//! one who does.

use std::{collections::BTreeMap, sync::Arc};

use sapwood_log::PartitionSpec;
use sapwood_model::{Offset, PartitionId, TopicId, TopicName};
use tracing::{error, info, warn};

use super::{AlterTopicError, CreateTopicError, NewTopic, TrimError, is_internal_topic};
use crate::{
    ConfigChange, ReplicationPolicy,
    broker::Core,
    catalog::{CatalogError, Command, NewTopicRecord, ProposeError, Rejected, TopicRecord},
    options::PARTITIONS_MAX,
    registry::{LookupError, Topic, TopicInfo, TopicRef, count},
    topic_config::{REPLICAS_KEY, replicas_asked},
};

impl Core {
    /// Creates a topic for a client.
    pub(super) fn create_topic(&self, new: &NewTopic) -> Result<TopicInfo, CreateTopicError> {
        let name = TopicName::new(&new.name)?;
        if is_internal_topic(name.as_str()) {
            return Err(CreateTopicError::Reserved { name });
        }
        self.make_topic(new)
    }

    /// Creates a topic for a client or for the broker itself.
    pub(crate) fn make_topic(&self, new: &NewTopic) -> Result<TopicInfo, CreateTopicError> {
        let record = self.plan_topic(new)?;
        self.drop_half_made(&record.name)?;
        let exists = |name: TopicName, partitions| CreateTopicError::Exists {
            name,
            partitions,
            asked: new.partitions,
        };
        let rejected = |rejected| match rejected {
            Rejected::TopicExists { name, partitions } => exists(name, partitions),
            Rejected::NameCollides { name, other } => {
                CreateTopicError::NameCollides { name, other }
            }
            other => unreachable!("the topic was planned with a fresh id: {other}"),
        };
        let command = Command::CreateTopic(record.clone());
        if new.validate_only {
            self.catalog
                .read(|state| state.decide(&command))
                .map_err(rejected)?;
            return Ok(TopicInfo {
                durability: self
                    .defaults
                    .resolve(&new.name, &record.configs)
                    .log
                    .durability,
                is_internal: is_internal_topic(&new.name),
                name: record.name,
                id: record.id,
                created_at: record.created_at,
                partitions: record.partitions,
            });
        }
        match self.catalog.propose(command) {
            Ok(_) => {}
            Err(ProposeError::Rejected(e)) => return Err(rejected(e)),
            Err(ProposeError::Catalog(e)) => return Err(e.into()),
        }
        let (name, id) = (record.name.clone(), record.id);
        match self.serve(&TopicRecord {
            record,
            log_starts: BTreeMap::new(),
        }) {
            Ok(topic) => {
                info!(topic = %name, %id, partitions = topic.info().partitions, "created a topic");
                Ok(topic.info())
            }
            Err(e) => {
                warn!(topic = %name, %id, error = %e, "could not make a topic's partitions");
                self.take_back(&name, id);
                Err(e.into())
            }
        }
    }

    /// Checks everything that needs no catalog.
    fn plan_topic(&self, new: &NewTopic) -> Result<NewTopicRecord, CreateTopicError> {
        let name = TopicName::new(&new.name)?;
        let partitions = new.partitions.unwrap_or(self.options.default_partitions);
        if !(1..=PARTITIONS_MAX).contains(&partitions) {
            return Err(CreateTopicError::Partitions { partitions });
        }
        match (new.replication_factor, self.options.replication) {
            (None | Some(-1 | 1), _) => {}
            (Some(factor @ 2..), ReplicationPolicy::AsOne) => {
                self.took_as_one(&name, "replication factor", factor.into());
            }
            (Some(factor), _) => return Err(CreateTopicError::Replication { factor }),
        }
        let configs = self.defaults.create(&new.configs)?;
        let values = new.configs.iter().map(|(key, value)| (key, value));
        if let Some(asked) = replicas_asked(values) {
            self.took_as_one(&name, REPLICAS_KEY, asked);
        }
        Ok(NewTopicRecord {
            configs,
            id: self.fresh_id(),
            created_at: self.environment.clock.now(),
            name,
            partitions,
        })
    }

    /// An id that no topic has or had, and that is none of Kafka's reserved ones: nor one whose text
    /// begins with a dash, which command lines take for a flag.
    fn fresh_id(&self) -> TopicId {
        loop {
            let id = TopicId(self.environment.entropy.u128());
            let is_used = self.catalog.read(|state| {
                state.deleted().contains_key(&id)
                    || state.topics().any(|topic| topic.record.id == id)
            });
            if id.0 > 1 && !is_used && !id.to_string().starts_with('-') {
                return id;
            }
        }
    }

    /// A topic that the catalog has and that does not serve is what a failed creation left when even
    /// its record could not be taken back. It makes room for the next try.
    fn drop_half_made(&self, name: &TopicName) -> Result<(), CatalogError> {
        let id = self
            .catalog
            .read(|state| state.topic(name).map(|topic| topic.record.id));
        let Some(id) = id else { return Ok(()) };
        if self.registry.find(id.into()).is_ok() {
            return Ok(());
        }
        match self.catalog.propose(Command::DeleteTopic { topic: id }) {
            Ok(_) | Err(ProposeError::Rejected(_)) => Ok(()),
            Err(ProposeError::Catalog(e)) => Err(e),
        }
    }

    /// The creation failed after its record was written. The id stays remembered as deleted, so that
    /// the next start removes the folders that were made.
    fn take_back(&self, name: &TopicName, id: TopicId) {
        if let Err(e) = self.catalog.propose(Command::DeleteTopic { topic: id }) {
            error!(topic = %name, %id, error = %e, "could not take a topic's creation back");
        }
    }

    pub(super) fn delete_topic(&self, topic: &Topic) -> Result<(), AlterTopicError> {
        let command = Command::DeleteTopic { topic: topic.id };
        self.propose_for(topic, command)?;
        self.registry.remove(topic);
        for partition in topic.partitions.load().iter() {
            partition.deleted();
        }
        self.groups.topic_deleted(&topic.name);
        info!(topic = %topic.name, id = %topic.id, "deleted a topic");
        // The topic is gone whatever happens to its files: the record says so.
        match self.store.delete_topic(&topic.name, topic.id) {
            Ok(()) => self.background.topic_deleted(),
            Err(e) => error!(
                topic = %topic.name, id = %topic.id, error = %e,
                "could not remove a deleted topic's files; the next start does"
            ),
        }
        Ok(())
    }

    pub(super) fn alter_topic(
        &self,
        topic: &Topic,
        changes: &[ConfigChange],
        validate_only: bool,
    ) -> Result<(), AlterTopicError> {
        // It may have been deleted while this waited for its turn.
        self.registry.find(topic.id.into())?;
        let before = topic.config.load_full();
        let own = self.defaults.change(&before.own, changes)?;
        let values = changes.iter().filter_map(ConfigChange::as_set);
        if let Some(asked) = replicas_asked(values) {
            self.took_as_one(&topic.name, REPLICAS_KEY, asked);
        }
        if validate_only || own == before.own {
            return Ok(());
        }
        let after = self.defaults.resolve(topic.name.as_str(), &own);
        let partitions = topic.partitions.load_full();
        let to = after.log.durability;
        let switches = to != before.log.durability;
        if switches {
            for partition in partitions.iter() {
                self.store.begin_durability(&partition.log, to)?;
            }
        }
        self.propose_for(
            topic,
            Command::AlterConfigs {
                topic: topic.id,
                configs: own,
            },
        )?;
        for partition in partitions.iter() {
            partition.log.set_config(after.log.clone());
            if switches {
                self.store.finish_durability(&partition.log, to);
            }
        }
        let after = Arc::new(after);
        topic.config.store(after.clone());
        self.background.serves(&after);
        self.background.config_changed();
        info!(topic = %topic.name, "changed a topic's configuration");
        Ok(())
    }

    pub(super) fn add_partitions(
        &self,
        topic: &Topic,
        total: u32,
        validate_only: bool,
    ) -> Result<TopicInfo, AlterTopicError> {
        self.registry.find(topic.id.into())?;
        let serving = topic.partitions.load_full();
        let from = count(serving.len());
        if total <= from || total > PARTITIONS_MAX {
            let topic = topic.name.clone();
            return Err(AlterTopicError::Partitions {
                topic,
                partitions: from,
                total,
            });
        }
        if validate_only {
            return Ok(TopicInfo {
                partitions: total,
                ..topic.info()
            });
        }
        // The record may be there from a try that could not make the folders.
        let recorded = self.catalog.read(|state| {
            state
                .topic(&topic.name)
                .map_or(0, |topic| topic.record.partitions)
        });
        if total < recorded {
            let topic = topic.name.clone();
            return Err(AlterTopicError::Partitions {
                topic,
                partitions: recorded,
                total,
            });
        }
        if total > recorded {
            self.propose_for(
                topic,
                Command::AddPartitions {
                    topic: topic.id,
                    total,
                },
            )?;
        }
        let config = topic.config.load();
        let spec = |partition| PartitionSpec {
            topic: topic.name.clone(),
            topic_id: topic.id,
            partition: PartitionId(partition),
            log_start: Offset::ZERO,
            config: config.log.clone(),
        };
        let mut partitions = (*serving).clone();
        partitions.extend(self.serve_partitions((from..total).map(spec).collect())?);
        topic.partitions.store(Arc::new(partitions));
        self.registry.changed();
        info!(topic = %topic.name, from, total, "added partitions to a topic");
        Ok(topic.info())
    }

    pub(super) fn trim(
        &self,
        topic: &Topic,
        partition: PartitionId,
        before: Option<Offset>,
    ) -> Result<Offset, TrimError> {
        let partition = topic.partition(partition)?;
        let bounds = partition.log.bounds();
        let log_start = before.unwrap_or(bounds.high_watermark);
        if log_start > bounds.high_watermark {
            return Err(sapwood_log::TrimError::AboveHighWatermark {
                requested: log_start,
                high_watermark: bounds.high_watermark,
            }
            .into());
        }
        let number = partition.partition;
        let command = Command::MoveLogStart {
            topic: topic.id,
            partition: number,
            log_start,
        };
        match self.catalog.propose(command) {
            Ok(_) => {
                partition.log.trim(log_start)?;
                info!(topic = %topic.name, partition = %number, %log_start, "moved the log start");
                Ok(log_start)
            }
            Err(ProposeError::Rejected(Rejected::LogStartNotHigher { current, .. })) => Ok(current),
            Err(ProposeError::Rejected(_)) => Err(unknown(topic).into()),
            Err(ProposeError::Catalog(e)) => Err(e.into()),
        }
    }

    /// Proposes a change of a topic. It may have been deleted in the meantime.
    fn propose_for(&self, topic: &Topic, command: Command) -> Result<(), AlterTopicError> {
        match self.catalog.propose(command) {
            Ok(_) => Ok(()),
            Err(ProposeError::Rejected(_)) => Err(unknown(topic).into()),
            Err(ProposeError::Catalog(e)) => Err(e.into()),
        }
    }
}

fn unknown(topic: &Topic) -> LookupError {
    LookupError::unknown_topic(TopicRef::Name(topic.name.as_str()))
}
