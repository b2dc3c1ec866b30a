//! Sets of partitions, as members own them and assignments give them.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fmt,
};

use sapwood_model::{PartitionId, TopicId};

/// A set of partitions, by topic id. In order; a topic without partitions does not appear.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Partitions(BTreeMap<TopicId, BTreeSet<PartitionId>>);

impl Partitions {
    /// The empty set.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Adds a partition; false when it was there.
    pub fn insert(&mut self, topic: TopicId, partition: PartitionId) -> bool {
        self.0.entry(topic).or_default().insert(partition)
    }

    /// Takes a partition out; false when it was not there.
    pub fn remove(&mut self, topic: TopicId, partition: PartitionId) -> bool {
        let Entry::Occupied(mut entry) = self.0.entry(topic) else {
            return false;
        };
        let removed = entry.get_mut().remove(&partition);
        if entry.get().is_empty() {
            entry.remove();
        }
        removed
    }

    /// Whether a partition is in the set.
    pub fn contains(&self, topic: TopicId, partition: PartitionId) -> bool {
        self.0
            .get(&topic)
            .is_some_and(|set| set.contains(&partition))
    }

    /// How many partitions there are.
    pub fn len(&self) -> usize {
        self.0.values().map(BTreeSet::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every partition, by topic id and number.
    pub fn iter(&self) -> impl Iterator<Item = (TopicId, PartitionId)> {
        self.0
            .iter()
            .flat_map(|(topic, set)| set.iter().map(|partition| (*topic, *partition)))
    }

    /// Every topic with its partitions, in order.
    pub fn topics(&self) -> impl Iterator<Item = (TopicId, &BTreeSet<PartitionId>)> {
        self.0.iter().map(|(topic, set)| (*topic, set))
    }

    /// What is in both.
    pub fn intersection(&self, other: &Self) -> Self {
        self.filtered(|topic, partition| other.contains(topic, partition))
    }

    /// What is in this one only.
    pub fn difference(&self, other: &Self) -> Self {
        self.filtered(|topic, partition| !other.contains(topic, partition))
    }

    /// Whether nothing is in both.
    pub fn is_disjoint(&self, other: &Self) -> bool {
        !self
            .iter()
            .any(|(topic, partition)| other.contains(topic, partition))
    }

    /// Whether all of this is in the other.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.iter()
            .all(|(topic, partition)| other.contains(topic, partition))
    }

    /// The partitions that a condition holds for.
    pub fn filtered(&self, mut keep: impl FnMut(TopicId, PartitionId) -> bool) -> Self {
        self.iter()
            .filter(|(topic, partition)| keep(*topic, *partition))
            .collect()
    }
}

impl FromIterator<(TopicId, PartitionId)> for Partitions {
    fn from_iter<I: IntoIterator<Item = (TopicId, PartitionId)>>(partitions: I) -> Self {
        let mut set = Self::new();
        set.extend(partitions);
        set
    }
}

impl Extend<(TopicId, PartitionId)> for Partitions {
    fn extend<I: IntoIterator<Item = (TopicId, PartitionId)>>(&mut self, partitions: I) {
        for (topic, partition) in partitions {
            self.insert(topic, partition);
        }
    }
}

impl fmt::Debug for Partitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sets = self.0.iter().map(|(topic, set)| {
            let numbers: Vec<u32> = set.iter().map(|partition| partition.0).collect();
            (topic, numbers)
        });
        f.debug_map().entries(sets).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(partitions: &[(u128, u32)]) -> Partitions {
        let pair = |(topic, partition): &(u128, u32)| (TopicId(*topic), PartitionId(*partition));
        partitions.iter().map(pair).collect()
    }

    #[test]
    fn sets_are_compared_partition_by_partition() {
        let (left, right) = (set(&[(1, 0), (1, 1), (2, 0)]), set(&[(1, 1), (3, 0)]));
        assert_eq!(left.intersection(&right), set(&[(1, 1)]));
        assert_eq!(left.difference(&right), set(&[(1, 0), (2, 0)]));
        assert!(!left.is_disjoint(&right));
        assert!(set(&[(2, 0)]).is_disjoint(&right));
        assert!(set(&[(2, 0)]).is_subset(&left));
        assert!(!right.is_subset(&left));
        assert_eq!(left.len(), 3);
    }

    #[test]
    fn a_topic_whose_last_partition_goes_does_not_appear() {
        let mut one = set(&[(1, 0)]);
        assert!(one.remove(TopicId(1), PartitionId(0)));
        assert!(!one.remove(TopicId(1), PartitionId(0)));
        assert!(one.is_empty());
        assert_eq!(one, Partitions::new());
    }
}
