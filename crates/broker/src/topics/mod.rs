//! Topics: create, delete, change, describe, trim.
//!
//! Whatever changes a topic runs on the blocking pool, one after the other, from its catalog record
//! to the moment it serves (or does not serve any more). A caller that gives up changes nothing:
//! what was begun is finished. The order is the design's: a record is durable before the folders
//! follow it, in both directions.

mod changes;

use std::{collections::BTreeMap, sync::Arc};

use sapwood_log::StoreError;
use sapwood_model::{Code, InvalidTopicName, Offset, PartitionId, TopicName};

use crate::{
    Broker, ConfigChange, ConfigEntry,
    broker::{AdminTurn, Core},
    catalog::CatalogError,
    options::PARTITIONS_MAX,
    registry::{LookupError, PartitionInfo, Topic, TopicInfo, TopicRef},
    topic_config::TopicConfigError,
};

/// Kafka's names for what brokers keep in topics of their own.
const INTERNAL_TOPICS: [&str; 4] = [
    "__cluster_metadata",
    "__consumer_offsets",
    "__share_group_state",
    "__transaction_state",
];

/// Whether a topic of this name belongs to the broker: clients can neither create it nor take its
/// name.
pub fn is_internal_topic(name: &str) -> bool {
    INTERNAL_TOPICS.contains(&name)
}

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
    /// The name is one of the broker's own topics.
    #[error("topic name {name:?} is reserved for the broker itself")]
    Reserved {
        /// What was asked for.
        name: TopicName,
    },
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
            Self::Name(_) | Self::Reserved { .. } | Self::NameCollides { .. } => {
                Code::InvalidTopicName
            }
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
    /// It is one of the broker's own.
    #[error("topic {topic:?} belongs to the broker itself and cannot be changed")]
    Internal {
        /// The topic.
        topic: TopicName,
    },
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
            Self::Internal { .. } => Code::InvalidTopicName,
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
    /// The topic is one of the broker's own.
    #[error("topic {topic:?} belongs to the broker itself and cannot be changed")]
    Internal {
        /// The topic.
        topic: TopicName,
    },
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
            Self::Internal { .. } => Code::InvalidTopicName,
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
        let topic = self.changeable(topic.into())?;
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
        let topic = self.changeable(topic.into())?;
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
        let topic = self.changeable(topic.into())?;
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
        if topic.is_internal() {
            let topic = topic.name.clone();
            return Err(TrimError::Internal { topic });
        }
        let core = self.core.clone();
        let trim = move || {
            let _accepted = accepted;
            core.trim(&topic, partition, before)
        };
        let driver = self.core.options.driver;
        driver.run(trim).await.ok_or(TrimError::Draining)?
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
        let config = topic.config.load();
        let now = self.core.environment.clock.now();
        let partitions = topic.partitions.load();
        let infos = partitions.iter().map(|one| one.info(&config, now));
        Ok(infos.collect())
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

    /// Every configuration key as a topic created with these values of its own would have it.
    ///
    /// # Errors
    /// The values are not valid.
    pub fn preview_configs(
        &self,
        values: &[(String, String)],
    ) -> Result<Vec<ConfigEntry>, TopicConfigError> {
        let defaults = &self.core.defaults;
        Ok(defaults.entries(&defaults.create(values)?))
    }

    /// Every configuration key with the value that a topic without values of its own has.
    pub fn default_configs(&self) -> Vec<ConfigEntry> {
        self.core.defaults.entries(&BTreeMap::new())
    }

    /// A topic that clients may change.
    fn changeable(&self, topic: TopicRef<'_>) -> Result<Arc<Topic>, AlterTopicError> {
        let topic = self.core.registry.find(topic)?;
        if topic.is_internal() {
            let topic = topic.name.clone();
            return Err(AlterTopicError::Internal { topic });
        }
        Ok(topic)
    }

    /// Runs a change of topics on the blocking pool when its turn comes. The turn belongs to the work:
    /// a caller that gives up lets it finish.
    pub(crate) async fn admin<T, E>(
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
        match self.core.options.driver.run(run).await {
            Some(result) => result,
            None => Err(draining),
        }
    }
}
