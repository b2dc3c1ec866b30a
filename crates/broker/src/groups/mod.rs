//! Consumer groups, in the internal topic `__consumer_offsets`.
//!
//! A group lives in the partition that Kafka's hash gives its name; the runtime in
//! [`coordinator`](crate::coordinator) hosts the groups of each partition as one state machine. The
//! topic is made when the first group needs it, with 16 partitions for good.

mod changes;
mod codec;
mod machine;
mod overview;
mod rebalances;
mod seek;
mod survey;
#[cfg(test)]
mod tests;
mod unread;

use std::sync::{Arc, OnceLock};

use sapwood_group::{
    Beat, ClassicDescription, Commit, ConsumerDescription, ConsumerHeartbeat, DeleteOffsets,
    FetchOffsets, FetchedOffset, GroupError, GroupId, Groups, Heartbeat, Join, Joined, Leave,
    Listed, Reply, Request, Sync, Synced,
};
use sapwood_model::{Code, PartitionId, TopicName};

pub use self::changes::GroupChanges;
pub use self::overview::{GroupOverview, MemberOverview, PartitionOverview};
pub use self::rebalances::GroupMetrics;
pub use self::seek::{SeekError, SeekPartitions, SeekPosition, SeekResult, SeekTarget};
pub use self::survey::{GroupSurvey, SurveyedGroup};
use self::{changes::Watchers, machine::GroupMachine, rebalances::Rebalances, survey::SurveyTimes};
use crate::{
    Broker, CreateTopicError, LoadProgress, NewTopic,
    broker::Core,
    coordinator::{Coordinator, CoordinatorError},
    registry::TopicRef,
};

/// The topic that groups live in.
const TOPIC: &str = "__consumer_offsets";
/// How many partitions it has. Fixed: another number would send groups to other partitions.
const PARTITIONS: u32 = 16;
/// 16 MiB: only what is behind the segment that is written is compacted, and all of the topic is read at the start.
/// Kafka's default, 100 MiB, would let 16 busy partitions keep 1.6 GiB of commits that nobody needs.
const SEGMENT_BYTES: &str = "16777216";

/// Why a group did not do what it was asked for.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GroupRequestError {
    /// The group refuses.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// Its coordinator cannot say.
    #[error(transparent)]
    Coordinator(#[from] CoordinatorError),
    /// The first group needs the internal topic, and it could not be made. Retry.
    #[error("the topic of groups cannot be created: {0}")]
    Topic(#[from] CreateTopicError),
}

/// Every group of the broker, as far as they can be told.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// The groups, by name.
    pub groups: Vec<Listed>,
    /// Why the groups of some partitions of the internal topic are not among them.
    pub missing: Vec<(PartitionId, CoordinatorError)>,
}

/// The hosts of groups, once the topic is there.
#[derive(Debug, Default)]
pub(crate) struct GroupHosts {
    coordinator: OnceLock<Coordinator<GroupMachine>>,
    watchers: Arc<Watchers>,
    survey_times: SurveyTimes,
}

impl GroupHosts {
    /// Returns when the tasks are gone that the broker's close has ended.
    pub(crate) async fn ended(&self) {
        if let Some(coordinator) = self.coordinator.get() {
            coordinator.ended().await;
        }
    }

    /// What was committed for a topic goes with it. Blocks while a queue is full.
    pub(crate) fn topic_deleted(&self, topic: &TopicName) {
        for host in self
            .coordinator
            .get()
            .into_iter()
            .flat_map(Coordinator::hosts)
        {
            host.tell(topic.clone());
        }
    }
}

impl Core {
    /// Begins to load the groups if there ever were any. Has to be called within a runtime.
    pub(crate) fn resume_groups(&self) -> Option<&Coordinator<GroupMachine>> {
        let topic = self.registry.find(TopicRef::Name(TOPIC)).ok()?;
        let start = || {
            let settings = &self.options.groups;
            let make = || {
                let watchers = self.groups.watchers.clone();
                let clock = self.environment.clock.clone();
                let rebalances = Rebalances::new(clock, self.metrics.groups.clone());
                let topics = self.registry.clone();
                GroupMachine::new(settings.clone(), topics, watchers, rebalances)
            };
            Coordinator::start(&self.home(topic), make)
        };
        Some(self.groups.coordinator.get_or_init(start))
    }

    /// Makes the topic of groups. Blocks.
    fn make_groups_topic(&self) -> Result<(), CreateTopicError> {
        let configs = [
            ("cleanup.policy", "compact"),
            ("compression.type", "producer"),
            ("durability", "fsync"),
            ("segment.bytes", SEGMENT_BYTES),
        ];
        let made = self.make_topic(&NewTopic {
            partitions: Some(PARTITIONS),
            configs: configs
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            ..NewTopic::named(TOPIC)
        });
        match made {
            Ok(_) | Err(CreateTopicError::Exists { .. }) => Ok(()),
            Err(e) => Err(e),
        }
    }
}

impl Broker {
    /// The groups of the broker.
    pub fn groups(&self) -> GroupCoordinator {
        GroupCoordinator {
            broker: self.clone(),
        }
    }
}

/// What callers ask of groups. Cheap to clone.
///
/// Whatever changes a group is durable when it is answered, and so is whatever an answer shows. A
/// caller that gives up takes nothing back.
#[derive(Debug, Clone)]
pub struct GroupCoordinator {
    broker: Broker,
}

impl GroupCoordinator {
    /// Makes the topic of groups if it is not there. Requests that change groups do so themselves.
    ///
    /// # Errors
    /// See [`CreateTopicError`].
    pub async fn prepare(&self) -> Result<(), CreateTopicError> {
        self.coordinator().await.map(|_| ())
    }

    /// The partition of the internal topic that a group lives in.
    pub fn partition(&self, group: &GroupId) -> PartitionId {
        PartitionId(partition_of(group, PARTITIONS))
    }

    /// How far the groups are loaded; all zeros while there are none.
    pub fn load_progress(&self) -> LoadProgress {
        let coordinator = self.broker.core.groups.coordinator.get();
        coordinator.map_or_else(LoadProgress::default, Coordinator::progress)
    }

    /// Enters a classic group, or a new generation of it. Waits for the other members.
    ///
    /// # Errors
    /// See [`GroupRequestError`].
    pub async fn join(&self, join: Join) -> Result<Joined, GroupRequestError> {
        let group = join.group.clone();
        let reply = self.ask(&group, Request::Join(join)).await?;
        let Reply::Join(joined) = reply else {
            unreachable!("a reply is of its request's kind")
        };
        Ok(joined?)
    }

    /// Learns, or as the leader says, who gets what in a generation. Waits for the leader.
    ///
    /// # Errors
    /// See [`GroupRequestError`].
    pub async fn sync(&self, sync: Sync) -> Result<Synced, GroupRequestError> {
        let group = sync.group.clone();
        let reply = self.ask(&group, Request::Sync(sync)).await?;
        let Reply::Sync(synced) = reply else {
            unreachable!("a reply is of its request's kind")
        };
        Ok(synced?)
    }

    /// Stays a member of a classic group.
    ///
    /// # Errors
    /// See [`GroupRequestError`].
    pub async fn heartbeat(&self, beat: Heartbeat) -> Result<(), GroupRequestError> {
        let group = beat.group.clone();
        let reply = self.ask(&group, Request::Heartbeat(beat)).await?;
        let Reply::Heartbeat(result) = reply else {
            unreachable!("a reply is of its request's kind")
        };
        Ok(result?)
    }

    /// Leaves a classic group; answers for each member of the request, in its order.
    ///
    /// # Errors
    /// See [`GroupRequestError`].
    pub async fn leave(
        &self,
        leave: Leave,
    ) -> Result<Vec<Result<(), GroupError>>, GroupRequestError> {
        let group = leave.group.clone();
        let reply = self.ask(&group, Request::Leave(leave)).await?;
        let Reply::Leave(results) = reply else {
            unreachable!("a reply is of its request's kind")
        };
        Ok(results?)
    }

    /// Enters, stays in or leaves a group of the newer kind.
    ///
    /// # Errors
    /// See [`GroupRequestError`].
    pub async fn consumer_heartbeat(
        &self,
        beat: ConsumerHeartbeat,
    ) -> Result<Beat, GroupRequestError> {
        let group = beat.group.clone();
        let reply = self.ask(&group, Request::ConsumerHeartbeat(beat)).await?;
        let Reply::ConsumerHeartbeat(beat) = reply else {
            unreachable!("a reply is of its request's kind")
        };
        Ok(beat?)
    }

    /// Says how far a group has read; answers for each partition of the request, in its order.
    ///
    /// # Errors
    /// See [`GroupRequestError`].
    pub async fn commit(
        &self,
        commit: Commit,
    ) -> Result<Vec<Result<(), GroupError>>, GroupRequestError> {
        let core = &self.broker.core;
        let began = core.environment.clock.elapsed();
        let group = commit.group.clone();
        let reply = self.ask(&group, Request::Commit(commit)).await;
        let took = core.environment.clock.elapsed().saturating_sub(began);
        core.metrics.groups.commit.record(took);
        let reply = reply?;
        let Reply::Commit(results) = reply else {
            unreachable!("a reply is of its request's kind")
        };
        Ok(results?)
    }

    /// Forgets how far a group has read; answers for each partition of the request, in its order.
    ///
    /// # Errors
    /// See [`GroupRequestError`].
    pub async fn delete_offsets(
        &self,
        request: DeleteOffsets,
    ) -> Result<Vec<Result<(), GroupError>>, GroupRequestError> {
        let group = request.group.clone();
        let reply = self.ask(&group, Request::DeleteOffsets(request)).await?;
        let Reply::DeleteOffsets(results) = reply else {
            unreachable!("a reply is of its request's kind")
        };
        Ok(results?)
    }

    /// Forgets an empty group.
    ///
    /// # Errors
    /// See [`GroupRequestError`].
    pub async fn delete(&self, group: GroupId) -> Result<(), GroupRequestError> {
        let reply = self
            .ask(&group, Request::DeleteGroup(group.clone()))
            .await?;
        let Reply::DeleteGroup(result) = reply else {
            unreachable!("a reply is of its request's kind")
        };
        Ok(result?)
    }

    /// How far a group has read.
    ///
    /// # Errors
    /// See [`GroupRequestError`].
    pub async fn fetch_offsets(
        &self,
        request: FetchOffsets,
    ) -> Result<Vec<FetchedOffset>, GroupRequestError> {
        let group = request.group.clone();
        let topics = self.broker.core.registry.clone();
        let fetched = self.look(&group, move |groups| {
            groups.fetch_offsets(&*topics, request)
        });
        Ok(fetched.await??)
    }

    /// A group in short; none if there is no such group.
    ///
    /// # Errors
    /// See [`CoordinatorError`].
    pub async fn find(&self, group: GroupId) -> Result<Option<Listed>, CoordinatorError> {
        let id = group.clone();
        self.look(&group, move |groups| groups.listed(&id)).await
    }

    /// A classic group in detail; none if there is no such group, or it is of the other kind.
    ///
    /// # Errors
    /// See [`CoordinatorError`].
    pub async fn describe_classic(
        &self,
        group: GroupId,
    ) -> Result<Option<ClassicDescription>, CoordinatorError> {
        let id = group.clone();
        self.look(&group, move |groups| groups.describe_classic(&id))
            .await
    }

    /// A group of the newer kind in detail; none if there is no such group, or it is of the other
    /// kind.
    ///
    /// # Errors
    /// See [`CoordinatorError`].
    pub async fn describe_consumer(
        &self,
        group: GroupId,
    ) -> Result<Option<ConsumerDescription>, CoordinatorError> {
        let id = group.clone();
        self.look(&group, move |groups| groups.describe_consumer(&id))
            .await
    }

    /// Every group that can be told.
    pub async fn list(&self) -> Listing {
        let mut listing = Listing::default();
        let coordinator = self.broker.core.groups.coordinator.get();
        for host in coordinator.into_iter().flat_map(Coordinator::hosts) {
            match host.look(|machine| machine.groups.list()).await {
                Ok(groups) => listing.groups.extend(groups),
                Err(e) => listing.missing.push((host.partition(), e)),
            }
        }
        listing
            .groups
            .sort_by(|one, other| one.group.cmp(&other.group));
        listing
    }

    async fn ask(&self, group: &GroupId, request: Request) -> Result<Reply, GroupRequestError> {
        let coordinator = self.coordinator().await?;
        Ok(host_of(coordinator, group).call(request).await?)
    }

    /// Looks at the groups of a group's partition: at none if there never was a group.
    async fn look<T: Send + 'static>(
        &self,
        group: &GroupId,
        look: impl FnOnce(&Groups) -> T + Send + 'static,
    ) -> Result<T, CoordinatorError> {
        match self.broker.core.groups.coordinator.get() {
            Some(coordinator) => {
                let host = host_of(coordinator, group);
                host.look(|machine| look(&machine.groups)).await
            }
            None => Ok(look(&Groups::new(self.broker.core.options.groups.clone()))),
        }
    }

    /// The hosts, whose topic is made if it is not there.
    async fn coordinator(&self) -> Result<&Coordinator<GroupMachine>, CreateTopicError> {
        let core = &self.broker.core;
        if let Some(coordinator) = core.groups.coordinator.get() {
            return Ok(coordinator);
        }
        self.broker
            .admin(Core::make_groups_topic, CreateTopicError::Draining)
            .await?;
        core.resume_groups().ok_or(CreateTopicError::Draining)
    }
}

impl GroupRequestError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Group(e) => e.code(),
            Self::Coordinator(e) => e.code(),
            Self::Topic(e) => e.code(),
        }
    }
}

fn host_of<'a>(
    coordinator: &'a Coordinator<GroupMachine>,
    group: &GroupId,
) -> &'a crate::coordinator::Host<GroupMachine> {
    let partitions = u32::try_from(coordinator.len()).expect("a topic has at most 100,000");
    coordinator.host(partition_of(group, partitions) as usize)
}

/// Kafka's choice: the absolute value of Java's hash of the name, modulo the number of partitions.
///
/// The hash is over UTF-16 units, `31 * hash + unit`; the least number, which has no absolute value in
/// 32 bits, counts as 0.
fn partition_of(group: &GroupId, partitions: u32) -> u32 {
    let hash = group.as_str().encode_utf16().fold(0_i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    let absolute = hash.checked_abs().unwrap_or(0);
    absolute.unsigned_abs() % partitions
}
