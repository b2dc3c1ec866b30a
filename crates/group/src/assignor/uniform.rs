//! The uniform assignor.
//!
//! Everybody keeps what it had, as far as it may; what is left over goes to whoever has least; then
//! partitions move along shortest chains from members with more to members with at least two less,
//! until there is no such chain. That is the most even assignment that the subscriptions allow: an
//! optimal semi-matching, by cost-reducing paths (Harvey, Ladner, Lovász, Tamir: Semi-matchings for
//! bipartite graphs and load balancing, 2006). Each chain makes the spread strictly smaller, so it ends.
//! Where all read the same topics a chain is one move.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sapwood_model::{PartitionId, TopicId};

use super::{Subscriber, partitions_of};
use crate::{MemberId, Partitions};

pub(super) fn assign(
    members: &BTreeMap<MemberId, Subscriber>,
    topics: &BTreeMap<TopicId, u32>,
) -> BTreeMap<MemberId, Partitions> {
    let mut plan = Plan::keeping(members, topics);
    plan.give_out(topics);
    plan.even_out();
    let sets = plan.sets.into_iter().map(|sets| {
        let partitions = sets
            .into_iter()
            .flat_map(|(topic, set)| set.into_iter().map(move |partition| (topic, partition)));
        partitions.collect()
    });
    members.keys().cloned().zip(sets).collect()
}

/// An assignment in the making. Members are places in the order of their ids.
struct Plan<'a> {
    /// What each had before.
    previous: Vec<&'a Partitions>,
    /// What each has.
    sets: Vec<BTreeMap<TopicId, BTreeSet<PartitionId>>>,
    /// How many each has.
    loads: Vec<usize>,
    /// Who reads a topic.
    readers: BTreeMap<TopicId, Vec<usize>>,
    /// What nobody has.
    left: Vec<(TopicId, PartitionId)>,
}

impl<'a> Plan<'a> {
    /// What everybody had, without what is not there any more or not subscribed to. If two claim to
    /// have had the same, the first keeps it.
    fn keeping(
        members: &'a BTreeMap<MemberId, Subscriber>,
        topics: &BTreeMap<TopicId, u32>,
    ) -> Self {
        let mut readers: BTreeMap<TopicId, Vec<usize>> = BTreeMap::new();
        for (place, member) in members.values().enumerate() {
            for topic in member
                .topics
                .iter()
                .filter(|topic| topics.contains_key(topic))
            {
                readers.entry(*topic).or_default().push(place);
            }
        }
        let mut free: BTreeMap<TopicId, BTreeSet<PartitionId>> = readers
            .keys()
            .map(|topic| (*topic, partitions_of(topics[topic]).collect()))
            .collect();
        let mut sets = Vec::with_capacity(members.len());
        for member in members.values() {
            let mut mine: BTreeMap<TopicId, BTreeSet<PartitionId>> = BTreeMap::new();
            for (topic, set) in member.previous.topics() {
                let Some(free) = free
                    .get_mut(&topic)
                    .filter(|_| member.topics.contains(&topic))
                else {
                    continue;
                };
                let kept: BTreeSet<_> =
                    set.iter().filter(|one| free.remove(one)).copied().collect();
                if !kept.is_empty() {
                    mine.insert(topic, kept);
                }
            }
            sets.push(mine);
        }
        let left = free
            .into_iter()
            .flat_map(|(topic, set)| set.into_iter().map(move |partition| (topic, partition)));
        Self {
            previous: members.values().map(|member| &member.previous).collect(),
            loads: sets
                .iter()
                .map(|mine| mine.values().map(BTreeSet::len).sum())
                .collect(),
            sets,
            left: left.collect(),
            readers,
        }
    }

    /// Gives what is left to whoever reads it and has least. Topics with few readers come first: the
    /// others have more to choose from.
    fn give_out(&mut self, topics: &BTreeMap<TopicId, u32>) {
        let mut left = std::mem::take(&mut self.left);
        left.sort_by_key(|(topic, partition)| {
            (self.readers[topic].len(), topics[topic], *topic, *partition)
        });
        for run in left.chunk_by(|one, next| one.0 == next.0) {
            // The readers by load, so that each partition finds its member at once.
            let readers = run.first().map(|(topic, _)| self.readers[topic].as_slice());
            let readers = readers.unwrap_or_default().iter();
            let mut by_load: BTreeSet<(usize, usize)> =
                readers.map(|place| (self.loads[*place], *place)).collect();
            for (topic, partition) in run {
                let Some((load, place)) = by_load.pop_first() else {
                    break;
                };
                self.sets[place]
                    .entry(*topic)
                    .or_default()
                    .insert(*partition);
                self.loads[place] = load + 1;
                by_load.insert((load + 1, place));
            }
        }
    }

    /// Moves partitions along chains until no chain makes the spread smaller.
    fn even_out(&mut self) {
        // From the fullest down. One that finds no chain is done with: everybody whom it can reach has
        // as much as it has, or one less, and a later chain, from somebody with no more than that,
        // neither starts nor ends among those, so it does not pass through them either.
        let mut order: BTreeSet<(usize, usize)> = self
            .loads
            .iter()
            .enumerate()
            .map(|(place, load)| (*load, place))
            .collect();
        while let Some((load, place)) = order.pop_last() {
            let least = order.first().map_or(load, |(least, _)| *least);
            if load < least + 2 {
                break;
            }
            let Some(chain) = self.chain_from(place) else {
                continue;
            };
            let last = chain.last().map_or(place, |(_, to)| *to);
            order.remove(&(self.loads[last], last));
            self.shift(place, &chain);
            order.insert((self.loads[place], place));
            order.insert((self.loads[last], last));
        }
    }

    /// The shortest chain of (topic, next member) from a member to one with at least two less; of the
    /// shortest ones, to whoever has least.
    fn chain_from(&self, start: usize) -> Option<Vec<(TopicId, usize)>> {
        let mut from: Vec<Option<(usize, TopicId)>> = vec![None; self.sets.len()];
        let mut depth = vec![usize::MAX; self.sets.len()];
        let mut asked = BTreeSet::new();
        let mut queue = VecDeque::from([start]);
        let mut best: Option<(usize, usize, usize)> = None;
        depth[start] = 0;
        while let Some(place) = queue.pop_front() {
            if best.is_some_and(|(found, _, _)| depth[place] >= found) {
                break;
            }
            for topic in self.sets[place].keys() {
                // Everybody who reads a topic can be reached from the first who has any of it.
                if !asked.insert(*topic) {
                    continue;
                }
                for &next in &self.readers[topic] {
                    if depth[next] != usize::MAX {
                        continue;
                    }
                    depth[next] = depth[place] + 1;
                    from[next] = Some((place, *topic));
                    queue.push_back(next);
                    if self.loads[next] + 2 <= self.loads[start] {
                        let found = (depth[next], self.loads[next], next);
                        best = Some(best.map_or(found, |best| best.min(found)));
                    }
                }
            }
        }
        let (_, _, mut place) = best?;
        let mut chain = Vec::new();
        while let Some((before, topic)) = from[place] {
            chain.push((topic, place));
            place = before;
        }
        chain.reverse();
        Some(chain)
    }

    /// Moves one partition along each link of a chain.
    fn shift(&mut self, start: usize, chain: &[(TopicId, usize)]) {
        let mut giver = start;
        for (topic, taker) in chain {
            let Some(set) = self.sets[giver].get_mut(topic) else {
                break;
            };
            // Rather one that it did not have before: that is no move more.
            let previous = self.previous[giver];
            let mut new = set
                .iter()
                .rev()
                .filter(|one| !previous.contains(*topic, **one));
            let Some(moved) = new.next().or(set.last()).copied() else {
                break;
            };
            set.remove(&moved);
            if set.is_empty() {
                self.sets[giver].remove(topic);
            }
            self.sets[*taker].entry(*topic).or_default().insert(moved);
            self.loads[giver] -= 1;
            self.loads[*taker] += 1;
            giver = *taker;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A member's id, its topics, and what it had.
    type Row<'a> = (&'a str, &'a [u128], &'a [(u128, u32)]);

    fn members(list: &[Row<'_>]) -> BTreeMap<MemberId, Subscriber> {
        let member = |(id, topics, previous): &Row<'_>| {
            let subscriber = Subscriber {
                instance_id: None,
                topics: topics.iter().map(|topic| TopicId(*topic)).collect(),
                previous: previous
                    .iter()
                    .map(|(topic, partition)| (TopicId(*topic), PartitionId(*partition)))
                    .collect(),
            };
            (MemberId::from(*id), subscriber)
        };
        list.iter().map(member).collect()
    }

    fn topics(list: &[(u128, u32)]) -> BTreeMap<TopicId, u32> {
        list.iter()
            .map(|(topic, count)| (TopicId(*topic), *count))
            .collect()
    }

    fn loads(assignment: &BTreeMap<MemberId, Partitions>) -> Vec<usize> {
        assignment.values().map(Partitions::len).collect()
    }

    #[test]
    fn members_that_read_the_same_get_the_same_to_within_one() {
        let all: &[u128] = &[1, 2];
        let got = assign(
            &members(&[("a", all, &[]), ("b", all, &[]), ("c", all, &[])]),
            &topics(&[(1, 4), (2, 4)]),
        );
        let mut loads = loads(&got);
        loads.sort_unstable();
        assert_eq!(loads, [2, 3, 3]);
    }

    #[test]
    fn a_member_that_joins_takes_only_its_share() {
        let before = assign(
            &members(&[("a", &[1], &[]), ("b", &[1], &[])]),
            &topics(&[(1, 6)]),
        );
        let mut now = members(&[("a", &[1], &[]), ("b", &[1], &[]), ("c", &[1], &[])]);
        for (id, previous) in &before {
            now.entry(id.clone())
                .and_modify(|member| member.previous = previous.clone());
        }
        let after = assign(&now, &topics(&[(1, 6)]));
        assert_eq!(loads(&after), [2, 2, 2]);
        for id in ["a", "b"] {
            assert!(
                after[id].is_subset(&before[id]),
                "{id} got what it did not have"
            );
        }
    }

    #[test]
    fn what_a_member_leaves_behind_is_shared_and_nothing_else_moves() {
        let got = assign(
            &members(&[
                ("a", &[1], &[(1, 0), (1, 1)]),
                ("b", &[1], &[(1, 4), (1, 5)]),
            ]),
            &topics(&[(1, 6)]),
        );
        assert_eq!(loads(&got), [3, 3]);
        assert!(got["a"].contains(TopicId(1), PartitionId(0)));
        assert!(got["a"].contains(TopicId(1), PartitionId(1)));
        assert!(got["b"].contains(TopicId(1), PartitionId(4)));
        assert!(got["b"].contains(TopicId(1), PartitionId(5)));
    }

    #[test]
    fn partitions_move_along_a_chain_when_no_single_move_helps() {
        // a can give topic 1 to b only, and b topic 2 to c only.
        let got = assign(
            &members(&[
                ("a", &[1], &[(1, 0), (1, 1), (1, 2)]),
                ("b", &[1, 2], &[(2, 0), (2, 1)]),
                ("c", &[2], &[(2, 2)]),
            ]),
            &topics(&[(1, 3), (2, 3)]),
        );
        assert_eq!(loads(&got), [2, 2, 2]);
    }

    #[test]
    fn what_two_claim_to_have_had_and_what_is_gone_does_no_harm() {
        let got = assign(
            &members(&[
                ("a", &[1], &[(1, 0), (1, 9), (7, 0)]),
                ("b", &[1], &[(1, 0), (1, 1)]),
            ]),
            &topics(&[(1, 2)]),
        );
        assert_eq!(loads(&got), [1, 1]);
        assert!(got["a"].contains(TopicId(1), PartitionId(0)));
    }
}
