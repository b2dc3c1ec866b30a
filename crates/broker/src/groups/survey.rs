//! All groups at once, with what they have yet to read: for metrics.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use sapwood_group::{FetchedOffset, GroupState, Listed};
use sapwood_model::{Offset, PartitionId, Timestamp, TopicId};
use tokio::{sync::Mutex, time::Instant};

use super::{
    GroupCoordinator,
    machine::GroupMachine,
    overview::{PartitionOverview, Places, committed_offsets, measure},
    unread::Unread,
};
use crate::{
    broker::Core,
    coordinator::{CoordinatorError, Host},
    registry::Registry,
};

/// How many groups a survey looks into. The others are counted only.
const GROUPS_MAX: usize = 5_000;
/// How many partitions of groups it looks at. A group is looked at as a whole or not at all.
const PARTITIONS_MAX: usize = 10_000;
/// Groups with a longer name, in bytes, are not looked into: it would stand in each series of theirs.
const NAME_BYTES_MAX: usize = 512;
/// After how many groups, or partitions of theirs, members get their turn again.
const GROUPS_AT_ONCE: usize = 64;
const PARTITIONS_AT_ONCE: usize = 1_024;
/// How long it reads times of records that it does not remember. What is not read then has no time until
/// the next survey.
const READING_MAX: Duration = Duration::from_secs(2);

/// All groups, with what they have yet to read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupSurvey {
    /// The groups that were looked into, by name.
    pub groups: Vec<SurveyedGroup>,
    /// How many groups there are in each state, those that were not looked into included. A state that
    /// no group is in does not appear.
    pub states: Vec<(GroupState, usize)>,
    /// Groups that were not looked into: there are too many, or too many partitions, or their names are
    /// longer than 512 bytes.
    pub groups_left_out: usize,
    /// Partitions of the topic of groups that did not answer: they are being loaded, or have failed.
    pub unanswered: usize,
}

/// One group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SurveyedGroup {
    /// The group in short.
    pub group: Listed,
    /// How often it has rebalanced since the broker's start.
    pub rebalances: u64,
    /// The partitions that it has committed offsets for, in order. Who has them is not told.
    pub partitions: Vec<PartitionOverview>,
}

/// Times of records by their places; none for a record that has none. What is known stays true: a record
/// does not change its time.
pub(super) type KnownTimes = HashMap<(TopicId, PartitionId, Offset), Option<Timestamp>>;

/// The times of first unread records that the last survey needed.
pub(super) type SurveyTimes = Mutex<KnownTimes>;

/// A group as it was found, how often it has rebalanced, and its offsets.
type Found = (Listed, u64, Vec<FetchedOffset>);

impl GroupCoordinator {
    /// Looks at all groups: into 5,000 groups and 10,000 partitions of theirs at most, the same ones each
    /// time. Members are held up for no longer than it takes to copy a few groups. Times are read from
    /// the log as in [`GroupCoordinator::describe`], once for each place that a group stands at, and for
    /// at most two seconds a survey. Surveys wait for each other.
    pub async fn survey(&self) -> GroupSurvey {
        let core = &self.broker.core;
        let mut known = core.groups.survey_times.lock().await;
        let mut survey = GroupSurvey::default();
        let Some(coordinator) = core.groups.coordinator.get() else {
            return survey;
        };
        let mut found = Vec::new();
        for host in coordinator.hosts() {
            if look_around(core, host, &mut survey, &mut found)
                .await
                .is_err()
            {
                survey.unanswered += 1;
            }
        }
        found.sort_unstable_by(|(one, ..), (other, ..)| one.group.cmp(&other.group));
        let mut places = Places::new(&core.registry);
        let mut rows = Vec::new();
        for (group, rebalances, offsets) in found {
            let of_group = offsets
                .into_iter()
                .map(|fetched| measure(&mut places, fetched.partition, fetched.committed, None));
            let (partitions, of_group): (Vec<_>, Vec<_>) = of_group.unzip();
            rows.extend(of_group);
            survey.groups.push(SurveyedGroup {
                group,
                rebalances,
                partitions,
            });
        }
        let partitions = survey
            .groups
            .iter_mut()
            .flat_map(|group| &mut group.partitions);
        let rows: Vec<_> = partitions
            .zip(rows)
            .map(|(row, place)| (Unread::of(row, place.as_ref()), place, row))
            .collect();
        let unread = rows.iter().filter_map(|(unread, ..)| unread.as_ref());
        *known = core.times_of(unread, &known).await;
        let now = core.environment.clock.now();
        for (unread, place, row) in rows {
            let time = unread.and_then(|unread| known.get(&unread.key()).copied());
            row.tell_time(time.flatten(), place.as_ref(), now);
        }
        survey
    }
}

/// Looks at the groups of one partition, as far as there is room for them.
async fn look_around(
    core: &Core,
    host: &Host<GroupMachine>,
    survey: &mut GroupSurvey,
    found: &mut Vec<Found>,
) -> Result<(), CoordinatorError> {
    let mut pending = VecDeque::from(host.look(|machine| machine.groups.list()).await?);
    for group in &pending {
        survey.count(group.state);
    }
    let all = pending.len();
    pending.retain(|group| group.group.as_str().len() <= NAME_BYTES_MAX);
    pending.truncate(GROUPS_MAX - found.len());
    survey.groups_left_out += all - pending.len();
    let mut room = PARTITIONS_MAX
        - found
            .iter()
            .map(|(.., offsets)| offsets.len())
            .sum::<usize>();
    while !pending.is_empty() {
        let topics = core.registry.clone();
        let some = host.look(move |machine| some_of(machine, &topics, pending));
        let (some, rest) = some.await?;
        pending = rest;
        for one in some {
            match room.checked_sub(one.2.len()) {
                Some(left) => {
                    room = left;
                    found.push(one);
                }
                None => survey.groups_left_out += 1,
            }
        }
        if room == 0 {
            survey.groups_left_out += pending.len();
            break;
        }
    }
    Ok(())
}

/// A few groups, and those that are left.
fn some_of(
    machine: &GroupMachine,
    topics: &Registry,
    mut pending: VecDeque<Listed>,
) -> (Vec<Found>, VecDeque<Listed>) {
    let (mut some, mut partitions) = (Vec::new(), 0);
    while some.len() < GROUPS_AT_ONCE && partitions < PARTITIONS_AT_ONCE {
        let Some(group) = pending.pop_front() else {
            break;
        };
        let offsets = committed_offsets(&machine.groups, topics, &group.group);
        partitions += offsets.len();
        some.push((
            group.clone(),
            machine.rebalances.count(&group.group),
            offsets,
        ));
    }
    (some, pending)
}

impl GroupSurvey {
    fn count(&mut self, state: GroupState) {
        match self.states.iter_mut().find(|(known, _)| *known == state) {
            Some((_, groups)) => *groups += 1,
            None => self.states.push((state, 1)),
        }
    }
}

impl Core {
    /// The times of these places, from what is known and from the log as far as there is time to read.
    async fn times_of(
        &self,
        unread: impl Iterator<Item = &Unread>,
        known: &KnownTimes,
    ) -> KnownTimes {
        let mut times = KnownTimes::new();
        let mut asked = HashMap::new();
        for unread in unread {
            match known.get(&unread.key()) {
                Some(time) => drop(times.insert(unread.key(), *time)),
                None => drop(asked.insert(unread.key(), unread.clone())),
            }
        }
        let asked: Vec<_> = asked.into_values().collect();
        let keys: Vec<_> = asked.iter().map(Unread::key).collect();
        let until = Instant::now() + READING_MAX;
        let read = self.first_unread(asked, Some(until)).await;
        times.extend(keys.into_iter().zip(read));
        times
    }
}
