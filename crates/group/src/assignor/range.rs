//! The range assignor.

use std::collections::BTreeMap;

use sapwood_model::{PartitionId, TopicId};

use super::Subscriber;
use crate::{MemberId, Partitions};

/// Cuts each topic into as many runs as it has subscribers, the longer ones first.
///
/// Seven partitions among three members: 0 to 2, 3 and 4, 5 and 6. Static members come first, by their
/// instance ids, so that a restart does not change their places; then the others, by their ids.
pub(super) fn assign(
    members: &BTreeMap<MemberId, Subscriber>,
    topics: &BTreeMap<TopicId, u32>,
) -> BTreeMap<MemberId, Partitions> {
    let mut order: Vec<(&MemberId, &Subscriber)> = members.iter().collect();
    order.sort_by_key(|(id, member)| (member.instance_id.is_none(), &member.instance_id, *id));
    let mut assignment: BTreeMap<MemberId, Partitions> = members
        .keys()
        .map(|id| (id.clone(), Partitions::new()))
        .collect();
    for (&topic, &count) in topics {
        let subscribed = order
            .iter()
            .filter(|(_, member)| member.topics.contains(&topic));
        let subscribed: Vec<&MemberId> = subscribed.map(|(id, _)| *id).collect();
        let Ok(sharers) = u32::try_from(subscribed.len()) else {
            continue;
        };
        let Some(least) = count.checked_div(sharers) else {
            continue;
        };
        let longer = count % sharers;
        let mut begin = 0;
        for (index, id) in (0..).zip(subscribed) {
            let end = begin + least + u32::from(index < longer);
            if let Some(mine) = assignment.get_mut(id) {
                mine.extend((begin..end).map(|partition| (topic, PartitionId(partition))));
            }
            begin = end;
        }
    }
    assignment
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(assignment: &BTreeMap<MemberId, Partitions>, id: &str, topic: u128) -> Vec<u32> {
        let mine = assignment[id]
            .topics()
            .find(|(of, _)| *of == TopicId(topic));
        mine.map(|(_, set)| set.iter().map(|partition| partition.0).collect())
            .unwrap_or_default()
    }

    fn member(instance: Option<&str>, topics: &[u128]) -> Subscriber {
        Subscriber {
            instance_id: instance.map(Into::into),
            topics: topics.iter().map(|topic| TopicId(*topic)).collect(),
            previous: Partitions::new(),
        }
    }

    #[test]
    fn topics_of_one_size_are_cut_at_the_same_places() {
        let members = BTreeMap::from([
            ("a".into(), member(None, &[1, 2])),
            ("b".into(), member(None, &[1, 2])),
            ("c".into(), member(None, &[1, 2, 3])),
        ]);
        let topics = BTreeMap::from([(TopicId(1), 7), (TopicId(2), 7), (TopicId(3), 2)]);
        let got = assign(&members, &topics);
        for topic in [1, 2] {
            assert_eq!(numbers(&got, "a", topic), [0, 1, 2]);
            assert_eq!(numbers(&got, "b", topic), [3, 4]);
            assert_eq!(numbers(&got, "c", topic), [5, 6]);
        }
        assert_eq!(numbers(&got, "c", 3), [0, 1]);
    }

    #[test]
    fn static_members_keep_their_places_whatever_their_ids() {
        let topics = BTreeMap::from([(TopicId(1), 3)]);
        for (first, second) in [("x", "y"), ("y", "x")] {
            let members = BTreeMap::from([
                (first.into(), member(Some("i1"), &[1])),
                (second.into(), member(Some("i2"), &[1])),
                ("a".into(), member(None, &[1])),
            ]);
            let got = assign(&members, &topics);
            assert_eq!(numbers(&got, first, 1), [0]);
            assert_eq!(numbers(&got, second, 1), [1]);
            assert_eq!(numbers(&got, "a", 1), [2]);
        }
    }

    #[test]
    fn more_members_than_partitions_leave_some_with_nothing() {
        let members = BTreeMap::from([
            ("a".into(), member(None, &[1])),
            ("b".into(), member(None, &[1])),
        ]);
        let got = assign(&members, &BTreeMap::from([(TopicId(1), 1)]));
        assert_eq!(numbers(&got, "a", 1), [0]);
        assert!(got["b"].is_empty());
    }
}
