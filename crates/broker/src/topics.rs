//! Topics: create, delete, change, describe, trim.
//!
//! Whatever changes a topic runs on the blocking pool, one after the other, from its catalog record
//! to the moment it serves (or does not serve any more). A caller that gives up changes nothing:
//! what was begun is finished. The order is the design's: a record is durable before the folders
//! follow it, in both directions.

use std::{collections::BTreeMap, sync::Arc};

use sapwood_log::{PartitionSpec, StoreError};
use sapwood_model::{Code, InvalidTopicName, Offset, PartitionId, TopicId, TopicName};
use tracing::{error, info, warn};

use crate::{
    Broker, ConfigChange, ConfigEntry, ReplicationPolicy,
    broker::{AdminTurn, Core, join},
    catalog::{CatalogError, Command, NewTopicRecord, ProposeError, Rejected, TopicRecord},
    options::PARTITIONS_MAX,
    registry::{LookupError, PartitionInfo, Topic, TopicInfo, TopicRef, count},
    topic_config::TopicConfigError,
};

/// A topic to be created.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions, 1 to 100,000; `None` for the broker's default.
    pub partitions: Option<u32>,
    /// How many replicas; `None` and -1 for the default, which is 1.
    pub replication_factor: Option<i16>,
    /// Configuration values, by key.
    pub configs: Vec<(String, String)>,
    /// Only check whether it could be created.
    pub validate_only: bool,
}

impl NewTopic {
    /// A topic with the broker's defaults.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }
}

/// Why a topic was not created.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CreateTopicError {
    /// The name breaks a rule.
    #[error(transparent)]
    Name(#[from] InvalidTopicName),
    /// A topic whose name differs only in `.` and `_` is there.
    #[error("topic name {name:?} collides with {other:?}: they differ only in '.' and '_'")]
    NameCollides {
        /// What was asked for.
        name: TopicName,
        /// The topic that is there.
        other: TopicName,
    },
    /// A topic of this name is there.
    #[error("topic {name:?} already exists ({partitions} partitions{})", yours(.asked))]
    Exists {
        /// The name.
        name: TopicName,
        /// How many partitions the one that is there has.
        partitions: u32,
        /// How many were asked for, if any number was.
        asked: Option<u32>,
    },
    /// The number of partitions is outside its bounds.
    #[error("{partitions} partitions are not possible; a topic has 1 to {PARTITIONS_MAX}")]
    Partitions {
        /// What was asked for.
        partitions: u32,
    },
    /// More replicas than one broker keeps, or less than one.
    #[error("a replication factor of {factor} is not possible; one broker keeps 1 replica")]
    Replication {
        /// What was asked for.
        factor: i16,
    },
    /// A configuration was refused.
    #[error(transparent)]
    Config(#[from] TopicConfigError),
    /// The catalog could not take the record.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The partitions' folders could not be made. The topic does not exist.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The broker is shutting down.
    #[error("the broker is shutting down")]
    Draining,
}

fn yours(asked: &Option<u32>) -> String {
    asked
        .map(|asked| format!(", yours asked for {asked}"))
        .unwrap_or_default()
}

impl CreateTopicError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Name(_) | Self::NameCollides { .. } => Code::InvalidTopicName,
            Self::Exists { .. } => Code::TopicExists,
            Self::Partitions { .. } => Code::InvalidPartitions,
            Self::Replication { .. } => Code::InvalidReplication,
            Self::Config(e) => e.code(),
            Self::Catalog(e) => e.code(),
            Self::Store(e) => e.code(),
            Self::Draining => Code::Draining,
        }
    }
}

/// Why a topic was not changed or deleted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AlterTopicError {
    /// It is not there.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// A configuration was refused.
    #[error(transparent)]
    Config(#[from] TopicConfigError),
    /// Partitions are added, never removed.
    #[error(
        "topic {topic:?} has {partitions} partitions; it cannot have {total} (more, up to {PARTITIONS_MAX})"
    )]
    Partitions {
        /// The topic.
        topic: TopicName,
        /// How many it has.
        partitions: u32,
        /// What was asked for.
        total: u32,
    },
    /// The catalog could not take the record.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The store could not follow.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The broker is shutting down.
    #[error("the broker is shutting down")]
    Draining,
}

impl AlterTopicError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Lookup(e) => e.code(),
            Self::Config(e) => e.code(),
            Self::Partitions { .. } => Code::InvalidPartitions,
            Self::Catalog(e) => e.code(),
            Self::Store(e) => e.code(),
            Self::Draining => Code::Draining,
        }
    }
}

/// Why a log start did not move.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TrimError {
    /// The topic or the partition is not there.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// Only what can be read can be deleted.
    #[error(transparent)]
    Log(#[from] sapwood_log::TrimError),
    /// The catalog could not take the record.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The broker is shutting down.
    #[error("the broker is shutting down")]
    Draining,
}

impl TrimError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Lookup(e) => e.code(),
            Self::Log(e) => e.code(),
            Self::Catalog(e) => e.code(),
            Self::Draining => Code::Draining,
        }
    }
}

impl Broker {
    /// Creates a topic. When this returns, the topic is durable and every partition of it serves.
    ///
    /// # Errors
    /// See [`CreateTopicError`]; the topic does not exist then, unless the error says that it does.
    pub async fn create_topic(&self, topic: NewTopic) -> Result<TopicInfo, CreateTopicError> {
        self.admin(
            move |core| core.create_topic(&topic),
            CreateTopicError::Draining,
        )
        .await
    }

    /// Deletes a topic. When this returns, that is durable: producers and readers are told that it
    /// is unknown, and a new topic may have its name.
    ///
    /// # Errors
    /// See [`AlterTopicError`].
    pub async fn delete_topic<'a>(
        &self,
        topic: impl Into<TopicRef<'a>>,
    ) -> Result<(), AlterTopicError> {
        let topic = self.core.registry.find(topic.into())?;
        self.admin(
            move |core| core.delete_topic(&topic),
            AlterTopicError::Draining,
        )
        .await
    }

    /// Changes a topic's configuration: all of the changes or none. Durable and in force when this
    /// returns. With `validate_only`, nothing is changed.
    ///
    /// # Errors
    /// See [`AlterTopicError`].
    pub async fn alter_topic<'a>(
        &self,
        topic: impl Into<TopicRef<'a>>,
        changes: Vec<ConfigChange>,
        validate_only: bool,
    ) -> Result<(), AlterTopicError> {
        let topic = self.core.registry.find(topic.into())?;
        let alter = move |core: &Core| core.alter_topic(&topic, &changes, validate_only);
        self.admin(alter, AlterTopicError::Draining).await
    }

    /// Gives a topic more partitions: `total` of them afterwards. When this returns, that is durable
    /// and the new ones serve. With `validate_only`, nothing is changed.
    ///
    /// # Errors
    /// See [`AlterTopicError`].
    pub async fn add_partitions<'a>(
        &self,
        topic: impl Into<TopicRef<'a>>,
        total: u32,
        validate_only: bool,
    ) -> Result<TopicInfo, AlterTopicError> {
        let topic = self.core.registry.find(topic.into())?;
        let add = move |core: &Core| core.add_partitions(&topic, total, validate_only);
        self.admin(add, AlterTopicError::Draining).await
    }

    /// Deletes the records below an offset, or all that can be read with `None`, by moving the log
    /// start. Durable when this returns; answers with the log start. An offset at or below the log
    /// start changes nothing.
    ///
    /// # Errors
    /// See [`TrimError`].
    pub async fn trim<'a>(
        &self,
        topic: impl Into<TopicRef<'a>>,
        partition: PartitionId,
        before: Option<Offset>,
    ) -> Result<Offset, TrimError> {
        let accepted = self.core.gate.accept().ok_or(TrimError::Draining)?;
        let topic = self.core.registry.find(topic.into())?;
        let core = self.core.clone();
        let trim = move || {
            let _accepted = accepted;
            core.trim(&topic, partition, before)
        };
        join(tokio::task::spawn_blocking(trim))
            .await
            .ok_or(TrimError::Draining)?
    }

    /// Every topic, in the order of the names.
    pub fn topics(&self) -> Vec<TopicInfo> {
        self.core
            .registry
            .all()
            .iter()
            .map(|topic| topic.info())
            .collect()
    }

    /// One topic.
    pub fn topic<'a>(&self, topic: impl Into<TopicRef<'a>>) -> Option<TopicInfo> {
        self.core
            .registry
            .find(topic.into())
            .ok()
            .map(|topic| topic.info())
    }

    /// The partitions of a topic, from 0.
    ///
    /// # Errors
    /// The topic is not there.
    pub fn partitions<'a>(
        &self,
        topic: impl Into<TopicRef<'a>>,
    ) -> Result<Vec<PartitionInfo>, LookupError> {
        let topic = self.core.registry.find(topic.into())?;
        Ok(topic
            .partitions
            .load()
            .iter()
            .map(|partition| partition.info())
            .collect())
    }

    /// Every configuration key of a topic, with its value, default and source, in the order of the
    /// keys.
    ///
    /// # Errors
    /// The topic is not there.
    pub fn topic_configs<'a>(
        &self,
        topic: impl Into<TopicRef<'a>>,
    ) -> Result<Vec<ConfigEntry>, LookupError> {
        let topic = self.core.registry.find(topic.into())?;
        Ok(self.core.defaults.entries(&topic.config.load().own))
    }

    /// Every configuration key with the value that a topic without values of its own has.
    pub fn default_configs(&self) -> Vec<ConfigEntry> {
        self.core.defaults.entries(&BTreeMap::new())
    }

    /// Runs a change of topics on the blocking pool when its turn comes. The turn belongs to the work:
    /// a caller that gives up lets it finish.
    async fn admin<T, E>(
        &self,
        work: impl FnOnce(&Core) -> Result<T, E> + Send + 'static,
        draining: E,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        let Some(turn) = self.core.admin_turn().await else {
            return Err(draining);
        };
        let core = self.core.clone();
        let run = move || {
            let _turn: AdminTurn = turn;
            work(&core)
        };
        match join(tokio::task::spawn_blocking(run)).await {
            Some(result) => result,
            None => Err(draining),
        }
    }
}

/// Everything here blocks, and runs with the turn of the one who changes topics.
impl Core {
    fn create_topic(&self, new: &NewTopic) -> Result<TopicInfo, CreateTopicError> {
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
                warn!(topic = %name, factor, "took a replication factor above 1 as 1");
            }
            (Some(factor), _) => return Err(CreateTopicError::Replication { factor }),
        }
        Ok(NewTopicRecord {
            configs: self.defaults.create(&new.configs)?,
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

    fn delete_topic(&self, topic: &Topic) -> Result<(), AlterTopicError> {
        let command = Command::DeleteTopic { topic: topic.id };
        self.propose_for(topic, command)?;
        self.registry.remove(topic);
        for partition in topic.partitions.load().iter() {
            partition.deleted();
        }
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

    fn alter_topic(
        &self,
        topic: &Topic,
        changes: &[ConfigChange],
        validate_only: bool,
    ) -> Result<(), AlterTopicError> {
        // It may have been deleted while this waited for its turn.
        self.registry.find(topic.id.into())?;
        let before = topic.config.load_full();
        let own = self.defaults.change(&before.own, changes)?;
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
        topic.config.store(Arc::new(after));
        info!(topic = %topic.name, "changed a topic's configuration");
        Ok(())
    }

    fn add_partitions(
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
        info!(topic = %topic.name, from, total, "added partitions to a topic");
        Ok(topic.info())
    }

    fn trim(
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
