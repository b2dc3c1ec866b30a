//! The uniform assignor on random groups: as even as can be, moving as little as can be.

use std::collections::{BTreeMap, BTreeSet};

use sapwood_group::{Assignor, MemberId, Partitions, Subscriber};
use sapwood_model::{PartitionId, TopicId};

use crate::random::{Random, seed};

type Members = BTreeMap<MemberId, Subscriber>;

fn topics(random: &mut Random, count: u128, partitions: u64) -> BTreeMap<TopicId, u32> {
    let sized = |id| {
        (
            TopicId(id),
            u32::try_from(random.within(1..partitions + 1)).unwrap(),
        )
    };
    (0..count).map(sized).collect()
}

fn member(topics: BTreeSet<TopicId>) -> Subscriber {
    Subscriber {
        topics,
        ..Subscriber::default()
    }
}

fn check_whole(
    members: &Members,
    topics: &BTreeMap<TopicId, u32>,
    got: &BTreeMap<MemberId, Partitions>,
) {
    let mut seen = Partitions::new();
    for (id, set) in got {
        for (topic, partition) in set.iter() {
            assert!(
                members[id].topics.contains(&topic),
                "{id} does not read {topic}"
            );
            assert!(
                seen.insert(topic, partition),
                "{topic} {partition} is given twice"
            );
        }
    }
    let read: BTreeSet<TopicId> = members
        .values()
        .flat_map(|one| one.topics.iter().copied())
        .collect();
    let wanted = topics.iter().filter(|(id, _)| read.contains(id));
    let wanted: Partitions = wanted
        .flat_map(|(id, count)| (0..*count).map(|partition| (*id, PartitionId(partition))))
        .collect();
    assert_eq!(seen, wanted);
}

/// With what they were given as what they had.
fn remember(members: &mut Members, got: &BTreeMap<MemberId, Partitions>) {
    for (id, member) in members.iter_mut() {
        member.previous = got[id].clone();
    }
}

#[test]
fn a_join_or_a_leave_moves_no_more_than_the_share_of_the_one_who_comes_or_goes() {
    let seed = seed();
    for round in 0..300 {
        let mut random = Random::new(seed, round);
        let topics = topics(&mut random, 4, 12);
        let total: u32 = topics.values().sum();
        let all: BTreeSet<TopicId> = topics.keys().copied().collect();
        let count = random.within(1..9);
        let mut members: Members = (0..count)
            .map(|id| (format!("m{id}").into(), member(all.clone())))
            .collect();
        let got = Assignor::Uniform.assign(&members, &topics);
        check_whole(&members, &topics, &got);
        remember(&mut members, &got);
        // One comes: only it gets anything.
        members.insert("m5x".into(), member(all.clone()));
        let after = Assignor::Uniform.assign(&members, &topics);
        check_whole(&members, &topics, &after);
        let mut loads: Vec<usize> = after.values().map(Partitions::len).collect();
        loads.sort_unstable();
        assert!(loads[loads.len() - 1] - loads[0] <= 1, "{loads:?}");
        for (id, before) in &got {
            assert!(
                after[id].is_subset(before),
                "{id} got more: {got:?} {after:?}"
            );
        }
        let share = usize::try_from(total).unwrap() / members.len();
        assert!(after[&MemberId::from("m5x")].len() <= share + 1);
        // It goes again: nobody else loses anything.
        remember(&mut members, &after);
        members.remove("m5x");
        let last = Assignor::Uniform.assign(&members, &topics);
        check_whole(&members, &topics, &last);
        for (id, before) in after.iter().filter(|(id, _)| members.contains_key(*id)) {
            assert!(
                before.is_subset(&last[id]),
                "{id} lost some: {after:?} {last:?}"
            );
        }
    }
}

#[test]
fn whatever_members_read_no_assignment_is_more_even() {
    let seed = seed();
    for round in 0..400 {
        let mut random = Random::new(seed, round);
        let topics = topics(&mut random, 3, 2);
        let count = random.within(2..4);
        let mut members = Members::new();
        for id in 0..count {
            let read = topics
                .keys()
                .copied()
                .filter(|_| random.one_in(2))
                .collect();
            let mut one = member(read);
            // What it had before may be anything.
            for (topic, partitions) in &topics {
                let some = (0..*partitions).filter(|_| random.one_in(2));
                one.previous
                    .extend(some.map(|partition| (*topic, PartitionId(partition))));
            }
            members.insert(format!("m{id}").into(), one);
        }
        let got = Assignor::Uniform.assign(&members, &topics);
        check_whole(&members, &topics, &got);
        let square = |load: usize| load * load;
        let found: usize = got.values().map(|set| square(set.len())).sum();
        assert_eq!(
            found,
            least_squares(&members, &topics),
            "{members:?} {got:?}"
        );
    }
}

/// The least sum of squared loads of all assignments there are, tried one by one.
fn least_squares(members: &Members, topics: &BTreeMap<TopicId, u32>) -> usize {
    let readers = |topic: &TopicId| -> Vec<usize> {
        let reading = members
            .values()
            .enumerate()
            .filter(|(_, one)| one.topics.contains(topic));
        reading.map(|(place, _)| place).collect()
    };
    let choices: Vec<Vec<usize>> = topics
        .iter()
        .flat_map(|(topic, count)| (0..*count).map(|_| readers(topic)))
        .filter(|readers| !readers.is_empty())
        .collect();
    let mut states = BTreeSet::from([vec![0; members.len()]]);
    for readers in choices {
        states = states
            .iter()
            .flat_map(|loads| {
                readers.iter().map(|place| {
                    let mut loads = loads.clone();
                    loads[*place] += 1;
                    loads
                })
            })
            .collect();
    }
    let sums = states
        .iter()
        .map(|loads| loads.iter().map(|load| load * load).sum());
    sums.min().unwrap_or_default()
}
