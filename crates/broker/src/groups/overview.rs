//! A group with how far it has read, in records and in time.
//!
//! Members and committed offsets are looked at in one moment; the ends of partitions, and the times of
//! the first records that are unread, a moment later. So a lag is never below what it was when the
//! group was looked at, and what it has committed may already be further.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use sapwood_group::{
    ClassicDescription, Client, CommittedOffset, ConsumerDescription, FetchOffsets, FetchedOffset,
    GroupId, GroupKind, GroupState, Groups, InstanceId, Listed, MemberId, assigned_partitions,
};
use sapwood_log::{Bounds, PartitionState};
use sapwood_model::{Offset, PartitionId, Timestamp, TopicId, TopicName, TopicPartition};

use super::{GroupCoordinator, unread::Unread};
use crate::{
    coordinator::CoordinatorError,
    registry::{Partition, Registry, Topic, TopicRef},
};

/// What the members of consumer groups are; the partitions of others cannot be known.
const CONSUMER: &str = "consumer";

/// A group with how far it has read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupOverview {
    /// Its name.
    pub group: GroupId,
    /// Of which kind it is.
    pub kind: GroupKind,
    /// Where it is.
    pub state: GroupState,
    /// What its members are; empty when it never had any.
    pub protocol_type: Arc<str>,
    /// Who assigns: of a classic group the protocol of the generation, empty unless it is stable; of
    /// the newer kind the assignor.
    pub assignor: Arc<str>,
    /// The generation of a classic group, the epoch of one of the newer kind.
    pub epoch: u32,
    /// The members, by their ids.
    pub members: Vec<MemberOverview>,
    /// Every partition that it has committed an offset for or that a member has, in order.
    pub partitions: Vec<PartitionOverview>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberOverview {
    /// Its id.
    pub member_id: MemberId,
    /// The lasting name of a static member.
    pub instance_id: Option<InstanceId>,
    /// Who it is.
    pub client: Client,
    /// What it has, in order: those partitions that are there. In a classic group nothing while the
    /// group is rebalancing, and nothing if its members are no consumers; in one of the newer kind also
    /// what it is yet to give up.
    pub assigned: Vec<TopicPartition>,
}

/// How far a group has read a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionOverview {
    /// The topic.
    pub topic: TopicName,
    /// The partition's number.
    pub partition: PartitionId,
    /// What the group has committed; none if it never did.
    pub committed: Option<CommittedOffset>,
    /// The partition's ends; none if it is offline or, for this moment, not there any more.
    pub bounds: Option<Bounds>,
    /// Records between what is committed, or the log start if that is higher, and the high watermark.
    /// None if nothing is committed or the ends are not known.
    pub lag: Option<u64>,
    /// Records that were deleted before the group had read them: those between what is committed and
    /// the log start. 0 if nothing is committed.
    pub lost: u64,
    /// The age in milliseconds of the first record that is unread, by its timestamp and the broker's
    /// clock: 0 when nothing is unread, or when the record says that it is of the future. None if the
    /// lag is not known, if that record has no timestamp, or if it cannot be read.
    pub behind_ms: Option<u64>,
    /// Milliseconds until `retention.ms` may delete the first record that is unread: 0 when it may
    /// already. None when nothing is unread, when its time is not known, and when `retention.ms` deletes
    /// nothing there. `retention.bytes` is not looked at: how soon it deletes depends on what is yet to
    /// be written.
    pub retention_headroom_ms: Option<u64>,
    /// Who has the partition: an index into the members.
    pub member: Option<usize>,
}

impl GroupOverview {
    /// The records that the group has yet to read, of all partitions whose lag is known.
    pub fn lag(&self) -> u64 {
        let lags = self.partitions.iter().filter_map(|p| p.lag);
        lags.fold(0, u64::saturating_add)
    }

    /// The age in milliseconds of the oldest record that is unread, of all partitions where it is
    /// known; none if it is known of none.
    pub fn behind_ms(&self) -> Option<u64> {
        self.partitions.iter().filter_map(|p| p.behind_ms).max()
    }

    /// The partition whose unread records `retention.ms` may delete first.
    pub fn first_to_lose(&self) -> Option<&PartitionOverview> {
        let known = self.partitions.iter();
        let known = known.filter_map(|p| Some((p.retention_headroom_ms?, p)));
        known.min_by_key(|(ms, _)| *ms).map(|(_, p)| p)
    }
}

/// A group as its coordinator has it at one moment.
pub(super) struct Seen {
    listed: Listed,
    classic: Option<ClassicDescription>,
    consumer: Option<ConsumerDescription>,
    offsets: Vec<FetchedOffset>,
}

impl Seen {
    pub(super) fn of(groups: &Groups, topics: &Registry, group: &GroupId) -> Option<Self> {
        Some(Self {
            listed: groups.listed(group)?,
            classic: groups.describe_classic(group),
            consumer: groups.describe_consumer(group),
            offsets: committed_offsets(groups, topics, group),
        })
    }
}

/// What a group has committed, in order.
pub(super) fn committed_offsets(
    groups: &Groups,
    topics: &Registry,
    group: &GroupId,
) -> Vec<FetchedOffset> {
    let all = FetchOffsets {
        group: group.clone(),
        by: None,
        partitions: None,
    };
    // Nobody's epoch is looked at; a name that is too long is no group's.
    groups.fetch_offsets(topics, all).unwrap_or_default()
}

impl GroupCoordinator {
    /// A group with how far it has read; none if there is no such group.
    ///
    /// Reads one batch of each partition that the group lags behind in, on the blocking pool, a few
    /// partitions at a time; so it takes the longer the more of those there are, and holds nobody up.
    ///
    /// # Errors
    /// See [`CoordinatorError`].
    pub async fn describe(
        &self,
        group: &GroupId,
    ) -> Result<Option<GroupOverview>, CoordinatorError> {
        let id = group.clone();
        let topics = self.broker.core.registry.clone();
        let seen = self
            .look(group, move |groups| Seen::of(groups, &topics, &id))
            .await?;
        let Some(seen) = seen else { return Ok(None) };
        let core = &self.broker.core;
        let (mut overview, places) = assemble(&core.registry, seen);
        let rows = overview.partitions.iter_mut().zip(&places);
        let rows: Vec<_> = rows
            .map(|(row, place)| (Unread::of(row, place.as_ref()), place, row))
            .collect();
        let unread = rows.iter().filter_map(|(unread, ..)| unread.clone());
        let times = core.first_unread(unread.collect(), None).await;
        let mut times = times.into_iter();
        let now = core.environment.clock.now();
        for (unread, place, row) in rows {
            let time = unread.and_then(|_| times.next().flatten());
            row.tell_time(time, place.as_ref(), now);
        }
        Ok(Some(overview))
    }
}

/// A partition that is there, with what the overview needs of it.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) topic_id: TopicId,
    pub(super) partition: Arc<Partition>,
    /// None if `retention.ms` deletes nothing.
    pub(super) retention_ms: Option<u64>,
}

/// Finds topics once, however many partitions of theirs are asked for.
pub(super) struct Places<'a> {
    registry: &'a Registry,
    topics: HashMap<TopicName, Option<Arc<Topic>>>,
}

impl<'a> Places<'a> {
    pub(super) fn new(registry: &'a Registry) -> Self {
        Self {
            registry,
            topics: HashMap::new(),
        }
    }

    fn find(&mut self, topic: &TopicName, partition: PartitionId) -> Option<Place> {
        if !self.topics.contains_key(topic) {
            let found = self.registry.find(topic.into()).ok();
            self.topics.insert(topic.clone(), found);
        }
        let topic = self.topics.get(topic)?.as_ref()?;
        Some(Place {
            topic_id: topic.id,
            partition: topic.partition(partition).ok()?,
            retention_ms: topic.config.load().retention.age_ms,
        })
    }
}

/// Everything but times, with each partition's place.
fn assemble(registry: &Registry, seen: Seen) -> (GroupOverview, Vec<Option<Place>>) {
    let mut places = Places::new(registry);
    let mut rows: BTreeMap<TopicPartition, (Option<CommittedOffset>, Option<usize>)> = seen
        .offsets
        .into_iter()
        .map(|fetched| (fetched.partition, (fetched.committed, None)))
        .collect();
    let members = match (&seen.classic, &seen.consumer) {
        (_, Some(consumer)) => consumer_members(registry, consumer),
        (Some(classic), None) => classic_members(&mut places, classic),
        (None, None) => Vec::new(),
    };
    for (index, member) in members.iter().enumerate() {
        for partition in &member.assigned {
            let row = rows.entry(partition.clone()).or_default();
            row.1 = row.1.or(Some(index));
        }
    }
    let (assignor, epoch) = match (&seen.classic, &seen.consumer) {
        (_, Some(consumer)) => (Arc::from(consumer.assignor.name()), consumer.epoch.0),
        (Some(classic), None) => (classic.protocol.clone(), classic.generation.0),
        (None, None) => (Arc::default(), 0),
    };
    let mut partitions = Vec::with_capacity(rows.len());
    let mut found = Vec::with_capacity(rows.len());
    for (partition, (committed, member)) in rows {
        let (row, place) = measure(&mut places, partition, committed, member);
        partitions.push(row);
        found.push(place);
    }
    let overview = GroupOverview {
        group: seen.listed.group,
        kind: seen.listed.kind,
        state: seen.listed.state,
        protocol_type: seen.listed.protocol_type,
        assignor,
        epoch,
        members,
        partitions,
    };
    (overview, found)
}

/// How far a group has read a partition, but for times, with its place.
pub(super) fn measure(
    places: &mut Places<'_>,
    partition: TopicPartition,
    committed: Option<CommittedOffset>,
    member: Option<usize>,
) -> (PartitionOverview, Option<Place>) {
    let TopicPartition { topic, partition } = partition;
    let place = places.find(&topic, partition);
    let log = place.as_ref().map(|place| &place.partition.log);
    let bounds = log
        .filter(|log| matches!(log.state(), PartitionState::Online))
        .map(|log| log.bounds());
    let (lag, lost) = lag(committed.as_ref().map(|c| c.offset), bounds);
    let row = PartitionOverview {
        topic,
        partition,
        committed,
        bounds,
        lag,
        lost,
        behind_ms: None,
        retention_headroom_ms: None,
        member,
    };
    (row, place)
}

/// Records that are unread, if that can be known, and records that were deleted unread.
///
/// A group that committed 5 in a log of 7 to 10 lags by 3 and has lost 2.
fn lag(committed: Option<Offset>, bounds: Option<Bounds>) -> (Option<u64>, u64) {
    let Some((committed, bounds)) = committed.zip(bounds) else {
        return (None, 0);
    };
    let next = committed.max(bounds.log_start);
    let lag = bounds.high_watermark.0.saturating_sub(next.0);
    (Some(lag), next.0 - committed.0)
}

fn classic_members(places: &mut Places<'_>, group: &ClassicDescription) -> Vec<MemberOverview> {
    let are_consumers = &*group.protocol_type == CONSUMER;
    let members = group.members.iter().map(|member| {
        let given = Some(&member.assignment).filter(|_| are_consumers);
        let given = given.and_then(|given| assigned_partitions(given));
        let mut assigned = Vec::new();
        for (topic, partitions) in given.unwrap_or_default() {
            for partition in partitions {
                // A leader may say anything; what is not there is nothing to show.
                if places.find(&topic, partition).is_some() {
                    assigned.push(TopicPartition {
                        topic: topic.clone(),
                        partition,
                    });
                }
            }
        }
        assigned.sort_unstable();
        assigned.dedup();
        MemberOverview {
            member_id: member.member_id.clone(),
            instance_id: member.instance_id.clone(),
            client: member.client.clone(),
            assigned,
        }
    });
    members.collect()
}

fn consumer_members(registry: &Registry, group: &ConsumerDescription) -> Vec<MemberOverview> {
    let members = group.members.iter().map(|member| {
        let current = &member.current;
        let mut assigned = Vec::new();
        for (id, partitions) in current
            .assigned
            .topics()
            .chain(current.pending_revocation.topics())
        {
            let Ok(topic) = registry.find(TopicRef::Id(id)) else {
                continue; // deleted just now
            };
            assigned.extend(partitions.iter().map(|partition| TopicPartition {
                topic: topic.name.clone(),
                partition: *partition,
            }));
        }
        assigned.sort_unstable();
        MemberOverview {
            member_id: member.member_id.clone(),
            instance_id: member.instance_id.clone(),
            client: member.client.clone(),
            assigned,
        }
    });
    members.collect()
}

impl PartitionOverview {
    /// Says how long ago the first unread record was made, and how long it will be there.
    pub(super) fn tell_time(
        &mut self,
        first: Option<Timestamp>,
        place: Option<&Place>,
        now: Timestamp,
    ) {
        self.tell(first, place.and_then(|place| place.retention_ms), now);
    }

    fn tell(&mut self, first: Option<Timestamp>, retention_ms: Option<u64>, now: Timestamp) {
        if self.lag == Some(0) {
            self.behind_ms = Some(0);
        }
        let Some(first) = first else { return };
        let age = now.0.saturating_sub(first.0);
        self.behind_ms = Some(u64::try_from(age).unwrap_or(0));
        self.retention_headroom_ms = retention_ms.map(|retention_ms| {
            let until = i128::from(first.0) + i128::from(retention_ms);
            let left = (until - i128::from(now.0)).max(0);
            u64::try_from(left).unwrap_or(u64::MAX)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(log_start: u64, high_watermark: u64) -> Option<Bounds> {
        Some(Bounds {
            log_start: Offset(log_start),
            high_watermark: Offset(high_watermark),
            log_end: Offset(high_watermark + 5),
        })
    }

    #[test]
    fn lag_counts_what_is_there_to_be_read_and_says_what_was_lost() {
        let lag = |committed: u64, bounds| lag(Some(Offset(committed)), bounds);
        assert_eq!(lag(4, bounds(0, 10)), (Some(6), 0));
        assert_eq!(lag(5, bounds(7, 10)), (Some(3), 2));
        assert_eq!(lag(10, bounds(0, 10)), (Some(0), 0));
        // The log was cut by a crash behind what was committed, or the offset was made up.
        assert_eq!(lag(12, bounds(0, 10)), (Some(0), 0));
        assert_eq!(lag(4, None), (None, 0));
        assert_eq!(super::lag(None, bounds(0, 10)), (None, 0));
    }

    #[test]
    fn times_are_told_from_the_first_unread_record() {
        let row = |lag| PartitionOverview {
            topic: TopicName::new("t").expect("a name"),
            partition: PartitionId(0),
            committed: None,
            bounds: None,
            lag,
            lost: 0,
            behind_ms: None,
            retention_headroom_ms: None,
            member: None,
        };
        let told = |lag, first: Option<i64>, retention| {
            let mut row = row(lag);
            row.tell(first.map(Timestamp), retention, Timestamp(10_000));
            (row.behind_ms, row.retention_headroom_ms)
        };
        assert_eq!(
            told(Some(1), Some(4_000), Some(7_000)),
            (Some(6_000), Some(1_000))
        );
        assert_eq!(
            told(Some(1), Some(4_000), Some(5_000)),
            (Some(6_000), Some(0))
        );
        assert_eq!(told(Some(1), Some(4_000), None), (Some(6_000), None));
        // Of the future: not behind, and kept for longer.
        assert_eq!(
            told(Some(1), Some(11_000), Some(500)),
            (Some(0), Some(1_500))
        );
        assert_eq!(told(Some(0), None, Some(500)), (Some(0), None));
        // Unread, and its time is not known.
        assert_eq!(told(Some(1), None, Some(500)), (None, None));
        assert_eq!(told(None, None, Some(500)), (None, None));
        let forever = told(Some(1), Some(i64::MAX), Some(u64::MAX));
        assert_eq!(forever, (Some(0), Some(u64::MAX)));
    }
}
