//! What must hold at every step, beside what clients see of their answers and what was committed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sapwood_group::{Epoch, Generation, GroupState, Partitions, Record};
use sapwood_model::{PartitionId, TopicId};

use super::{
    classic,
    world::{Client, World},
};
use crate::host::group;

/// How far a group had come when it was looked at last.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    generation: Generation,
    epoch: Epoch,
    /// The epochs of the members of the newer kind.
    members: BTreeMap<String, Epoch>,
}

impl World {
    /// Numbers only rise: a generation or an epoch that came again would let a fenced member back in.
    pub(crate) fn check_progress(&mut self) {
        let classic = self.host.groups.describe_classic(&group());
        // One that was not logged is lost with a restart.
        let generation = classic.map_or(Generation::default(), |group| group.generation);
        if self.restarted || generation == Generation::default() {
            self.progress.generation = generation;
        }
        assert!(
            self.progress.generation <= generation,
            "generation {generation} comes after {}",
            self.progress.generation
        );
        self.progress.generation = generation;
        self.restarted = false;
        let Some(description) = self.host.groups.describe_consumer(&group()) else {
            self.progress.epoch = Epoch::default();
            self.progress.members.clear();
            return;
        };
        assert!(
            self.progress.epoch <= description.epoch
                && description.assignment_epoch <= description.epoch,
            "{:?} comes before {description:#?}",
            self.progress
        );
        let epochs = description.members.iter().filter_map(|member| {
            let epoch = member.current.member_epoch?;
            Some((member.member_id.to_string(), epoch))
        });
        let epochs: BTreeMap<String, Epoch> = epochs.collect();
        for (member, epoch) in &epochs {
            let before = self.progress.members.get(member);
            assert!(
                before.is_none_or(|before| before <= epoch)
                    && *epoch <= description.assignment_epoch,
                "{member} was at {before:?}: {description:#?}"
            );
        }
        self.progress.epoch = description.epoch;
        self.progress.members = epochs;
    }

    /// In a stable generation of a classic group everybody has what its leader said, and no two the same.
    pub(crate) fn check_shares(&self) {
        let Some(description) = self.host.groups.describe_classic(&group()) else {
            return;
        };
        if description.state != GroupState::Stable {
            return;
        }
        let members = description.members.iter();
        let mut shares: Vec<Bytes> = members.map(|member| member.assignment.clone()).collect();
        let mut owned = BTreeSet::new();
        for partition in shares.iter().flat_map(classic::read) {
            assert!(
                owned.insert(partition),
                "{partition:?} has two owners: {description:#?}"
            );
        }
        shares.sort();
        let said = self.said.get(&description.generation.0);
        assert!(
            said.is_some_and(|said| said.contains(&shares)),
            "the leader said {said:?}: {description:#?}"
        );
    }

    /// A stable classic group is in the log as its members know it: a restart changes nothing for them.
    pub(crate) fn check_logged(&self) {
        let Some(live) = self.host.groups.describe_classic(&group()) else {
            return;
        };
        if live.state != GroupState::Stable {
            return;
        }
        let logged = self.host.groups.records().find_map(|record| match record {
            Record::Classic { value, .. } => value,
            _ => None,
        });
        let logged = logged.expect("a stable group is in the log");
        assert_eq!(
            (logged.generation, logged.protocol.as_ref()),
            (live.generation, Some(&live.protocol))
        );
        let logged = logged
            .members
            .into_iter()
            .map(|member| (member.member_id, member.assignment));
        let live = live
            .members
            .into_iter()
            .map(|member| (member.member_id, member.assignment));
        assert!(
            live.eq(logged),
            "the log has other members: {:#?}",
            self.host.groups
        );
    }

    /// Nobody in a group of the newer kind may read what another one may.
    pub(crate) fn check_owners(&self) {
        let Some(description) = self.host.groups.describe_consumer(&group()) else {
            return;
        };
        let mut held: BTreeMap<(TopicId, PartitionId), String> = BTreeMap::new();
        let mut read: BTreeMap<(TopicId, PartitionId), String> = BTreeMap::new();
        for member in &description.members {
            let current = &member.current;
            for partition in current
                .assigned
                .iter()
                .chain(current.pending_revocation.iter())
            {
                let other = held.insert(partition, member.member_id.to_string());
                assert_eq!(
                    other, None,
                    "{partition:?} has two owners: {description:#?}"
                );
            }
            for client in &self.clients {
                let Client::Consumer(client) = client else {
                    continue;
                };
                if client.lies || client.id != member.member_id || current.member_epoch.is_none() {
                    continue;
                }
                for partition in client.owned.iter() {
                    let other = read.insert(partition, client.id.to_string());
                    assert_eq!(
                        other, None,
                        "{partition:?} is read by two: {description:#?}"
                    );
                }
            }
        }
    }

    /// A settled group of the newer kind reads everything, evenly.
    pub(crate) fn check_settled(&mut self) {
        let Some(description) = self.host.groups.describe_consumer(&group()) else {
            return;
        };
        if description.state != GroupState::Stable || !self.looked {
            return;
        }
        self.seen.stable += 1;
        let mut wanted = Partitions::new();
        let mut subscriptions = BTreeSet::new();
        for member in &description.members {
            let mut topics = BTreeSet::new();
            for (name, topic) in self.host.topics.iter() {
                let by_regex = match member.subscribed_topic_regex.as_deref() {
                    Some("t[01]") => name.as_str() == "t0" || name.as_str() == "t1",
                    Some("t.*") => true,
                    _ => false,
                };
                if by_regex || member.subscribed_topic_names.contains(name) {
                    topics.insert(topic.id);
                    wanted.extend((0..topic.partitions).map(|one| (topic.id, PartitionId(one))));
                }
            }
            subscriptions.insert(topics);
        }
        let owned = description
            .members
            .iter()
            .flat_map(|member| member.current.assigned.iter());
        let owned: Partitions = owned.collect();
        assert_eq!(
            owned, wanted,
            "somebody owns too little or too much: {description:#?}"
        );
        if subscriptions.len() == 1 {
            assert_even(&description);
        }
    }
}

fn assert_even(description: &sapwood_group::ConsumerDescription) {
    use sapwood_group::Assignor;
    let spread = |loads: Vec<usize>| {
        let least = loads.iter().min().copied().unwrap_or_default();
        loads.iter().max().copied().unwrap_or_default() - least
    };
    let targets = || description.members.iter().map(|member| &member.target);
    // What members prefer may have changed since; then both have to be wrong to be wrong.
    let in_all = spread(targets().map(Partitions::len).collect()) <= 1;
    let topics: BTreeSet<TopicId> = targets()
        .flat_map(|set| set.topics().map(|(id, _)| id))
        .collect();
    let in_each = topics.iter().all(|topic| {
        let of = |set: &Partitions| set.iter().filter(|(id, _)| id == topic).count();
        spread(targets().map(of).collect()) <= 1
    });
    let changed = description
        .members
        .iter()
        .any(|member| member.server_assignor.is_some());
    let even = match description.assignor {
        Assignor::Uniform if !changed => in_all,
        Assignor::Uniform | Assignor::Range => in_all || in_each,
    };
    assert!(even, "unevenly shared: {description:#?}");
}
