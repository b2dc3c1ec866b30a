//! The topics that serve: the catalog's, once their partitions are there.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use parking_lot::RwLock;
use sapwood_log::{
    Bounds, PartitionObserver, PartitionState, PartitionStats, compaction,
    retention::{self, Upcoming},
};
use sapwood_model::{
    Code, Durability, LeaderEpoch, Offset, PartitionId, Timestamp, TopicId, TopicName,
};

use crate::{
    background::Rolls,
    metrics::TopicCounters,
    topic_config::TopicConfig,
    topics::is_internal_topic,
    waiters::{Outcome, Waiters},
};

/// A topic as a request names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TopicRef<'a> {
    /// By name: whichever topic has it now.
    Name(&'a str),
    /// By id: this topic, and not another that was made under its name later.
    Id(TopicId),
}

impl<'a> From<&'a str> for TopicRef<'a> {
    fn from(name: &'a str) -> Self {
        Self::Name(name)
    }
}

impl<'a> From<&'a String> for TopicRef<'a> {
    fn from(name: &'a String) -> Self {
        Self::Name(name)
    }
}

impl<'a> From<&'a TopicName> for TopicRef<'a> {
    fn from(name: &'a TopicName) -> Self {
        Self::Name(name.as_str())
    }
}

impl From<TopicId> for TopicRef<'_> {
    fn from(id: TopicId) -> Self {
        Self::Id(id)
    }
}

impl fmt::Display for TopicRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => fmt::Debug::fmt(name, f),
            Self::Id(id) => write!(f, "with id {id}"),
        }
    }
}

/// Why a topic or a partition was not found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// No topic has this name or id.
    #[error("topic {topic} does not exist")]
    UnknownTopic {
        /// The name, quoted, or the id.
        topic: String,
    },
    /// The topic has fewer partitions.
    #[error("topic {topic:?} has {partitions} partitions; there is no partition {partition}")]
    UnknownPartition {
        /// The topic.
        topic: TopicName,
        /// How many partitions it has, numbered from 0.
        partitions: u32,
        /// What was asked for.
        partition: PartitionId,
    },
}

impl LookupError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::UnknownTopic { .. } => Code::UnknownTopic,
            Self::UnknownPartition { .. } => Code::UnknownPartition,
        }
    }

    pub(crate) fn unknown_topic(topic: TopicRef<'_>) -> Self {
        Self::UnknownTopic {
            topic: topic.to_string(),
        }
    }
}

/// What can be said about a topic without looking at its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its name.
    pub name: TopicName,
    /// Its identity for life.
    pub id: TopicId,
    /// When it was created, by the broker's clock.
    pub created_at: Timestamp,
    /// How many partitions it has, numbered from 0.
    pub partitions: u32,
    /// When its acknowledged records are durable.
    pub durability: Durability,
    /// The broker keeps its own state in it: clients read it, and neither write nor change it.
    pub is_internal: bool,
}

/// What can be said about a partition.
#[derive(Debug, Clone)]
pub struct PartitionInfo {
    /// Its number.
    pub partition: PartitionId,
    /// Its ends.
    pub bounds: Bounds,
    /// The leader epoch that new batches get.
    pub leader_epoch: LeaderEpoch,
    /// Its size.
    pub stats: PartitionStats,
    /// Whether it serves, and why not.
    pub state: PartitionState,
    /// What retention removes next, and when; what is due now, if anything is.
    pub next_removal: Option<Upcoming>,
    /// How far it is compacted; `None` if its topic is not, or while it does not serve.
    pub compaction: Option<CompactionState>,
}

/// How far a partition is compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionState {
    /// Everything below was compacted.
    pub cleaned: Offset,
    /// Bytes of batches below.
    pub clean_bytes: u64,
    /// Bytes of batches from there on that can be compacted: those of full segments.
    pub dirty_bytes: u64,
}

/// A topic that serves.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: TopicName,
    pub(crate) id: TopicId,
    pub(crate) created_at: Timestamp,
    pub(crate) config: ArcSwap<TopicConfig>,
    /// From partition 0; grows, never shrinks.
    pub(crate) partitions: ArcSwap<Vec<Arc<Partition>>>,
    pub(crate) counters: TopicCounters,
}

impl Topic {
    pub(crate) fn partition(&self, partition: PartitionId) -> Result<Arc<Partition>, LookupError> {
        let partitions = self.partitions.load();
        partitions
            .get(partition.0 as usize)
            .cloned()
            .ok_or_else(|| LookupError::UnknownPartition {
                topic: self.name.clone(),
                partitions: count(partitions.len()),
                partition,
            })
    }

    pub(crate) fn info(&self) -> TopicInfo {
        TopicInfo {
            name: self.name.clone(),
            id: self.id,
            created_at: self.created_at,
            partitions: count(self.partitions.load().len()),
            durability: self.config.load().log.durability,
            is_internal: self.is_internal(),
        }
    }

    /// Whether the topic belongs to the broker.
    pub(crate) fn is_internal(&self) -> bool {
        is_internal_topic(self.name.as_str())
    }
}

/// A number of partitions.
pub(crate) fn count(partitions: usize) -> u32 {
    u32::try_from(partitions).expect("a topic has at most 100,000 partitions")
}

/// A partition that serves: its log, and who waits at it.
pub(crate) struct Partition {
    pub(crate) partition: PartitionId,
    pub(crate) log: Arc<sapwood_log::Partition>,
    pub(crate) waiters: Arc<Waiters>,
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partition")
            .field("partition", &self.partition)
            .finish_non_exhaustive()
    }
}

impl Partition {
    /// Begins to serve a log.
    pub(crate) fn new(
        partition: PartitionId,
        log: Arc<sapwood_log::Partition>,
        rolls: Rolls,
    ) -> Arc<Self> {
        let waiters = Arc::new(Waiters::default());
        log.observe(Arc::new(Observer {
            waiters: waiters.clone(),
            rolls,
        }));
        // It may have gone offline in recovery, before anybody observed it.
        if matches!(log.state(), PartitionState::Offline { .. }) {
            waiters.end(Outcome::Failed, log.bounds().high_watermark);
        }
        Arc::new(Self {
            partition,
            log,
            waiters,
        })
    }

    /// With what retention does by this configuration at this time, and how far compaction is.
    pub(crate) fn info(&self, config: &TopicConfig, now: Timestamp) -> PartitionInfo {
        let retained = self.log.retention_summary();
        let next_removal = retained.and_then(|log| {
            let plan = retention::plan(&log, &config.retention, now);
            let due = plan.removal.map(|due| Upcoming {
                offsets: log.log_start..due.log_start,
                bytes: due.bytes,
                at: Some(now),
                after_bytes: None,
            });
            due.or(plan.upcoming)
        });
        PartitionInfo {
            next_removal,
            compaction: config.compaction.and_then(|_| self.compaction_state(now)),
            partition: self.partition,
            bounds: self.log.bounds(),
            leader_epoch: self.log.leader_epoch(),
            stats: self.log.stats(),
            state: self.log.state(),
        }
    }

    fn compaction_state(&self, now: Timestamp) -> Option<CompactionState> {
        let log = self.log.compactable().ok()??;
        let policy = compaction::Policy {
            min_dirty_ratio: 0.0,
            min_lag_ms: 0,
            max_lag_ms: None,
        };
        let plan = compaction::plan(&log, &policy, now);
        Some(CompactionState {
            cleaned: plan.dirty.start,
            clean_bytes: plan.clean_bytes,
            dirty_bytes: plan.dirty_bytes,
        })
    }

    /// The broker is closed: nobody has anything to wait for.
    pub(crate) fn fail_waiters(&self) {
        self.waiters
            .end(Outcome::Failed, self.log.bounds().high_watermark);
    }

    /// The topic is deleted: nobody has anything to wait for.
    pub(crate) fn deleted(&self) {
        self.waiters
            .end(Outcome::Deleted, self.log.bounds().high_watermark);
    }
}

/// Hands on what a log tells.
struct Observer {
    waiters: Arc<Waiters>,
    rolls: Rolls,
}

impl PartitionObserver for Observer {
    fn high_watermark_moved(&self, high_watermark: Offset) {
        self.waiters.high_watermark_moved(high_watermark);
    }

    fn failed(&self) {
        self.waiters.failed();
    }

    fn segment_rolled(&self) {
        self.rolls.rolled();
    }
}

/// Finds topics by name and by id. Look-ups take a read lock for the time of a hash look-up.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    topics: RwLock<Topics>,
    /// Rises after each change of which topics and partitions there are.
    version: AtomicU64,
}

#[derive(Debug, Default)]
struct Topics {
    by_name: HashMap<Arc<str>, Arc<Topic>>,
    by_id: HashMap<TopicId, Arc<Topic>>,
}

impl Registry {
    pub(crate) fn find(&self, topic: TopicRef<'_>) -> Result<Arc<Topic>, LookupError> {
        let topics = self.topics.read();
        let found = match topic {
            TopicRef::Name(name) => topics.by_name.get(name),
            TopicRef::Id(id) => topics.by_id.get(&id),
        };
        found
            .cloned()
            .ok_or_else(|| LookupError::unknown_topic(topic))
    }

    /// Every topic, in the order of the names.
    pub(crate) fn all(&self) -> Vec<Arc<Topic>> {
        let topics = self.topics.read();
        let sorted: BTreeMap<_, _> = topics.by_name.iter().collect();
        sorted.into_values().cloned().collect()
    }

    /// Rises after each change: who sees a version sees at least the topics that it stands for.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// A topic has more partitions than before.
    pub(crate) fn changed(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn insert(&self, topic: Arc<Topic>) {
        let mut topics = self.topics.write();
        topics.by_id.insert(topic.id, topic.clone());
        let before = topics.by_name.insert(topic.name.as_str().into(), topic);
        assert!(
            before.is_none(),
            "the catalog gives a name to one topic at a time"
        );
        drop(topics);
        self.changed();
    }

    pub(crate) fn remove(&self, topic: &Topic) {
        let mut topics = self.topics.write();
        topics.by_id.remove(&topic.id);
        topics.by_name.remove(topic.name.as_str());
        drop(topics);
        self.changed();
    }
}
