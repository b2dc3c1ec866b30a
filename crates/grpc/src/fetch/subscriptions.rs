//! What one fetch stream reads: partitions, positions, credit. Decides only.

use std::{collections::HashMap, sync::Arc};

use sapwood_model::{Offset, PartitionId};

/// The most credit that is kept: nobody needs a petabyte of it, and sums must not overflow.
const CREDIT_MAX: u64 = 1 << 40;

/// A partition that is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) topic: Arc<str>,
    pub(super) partition: PartitionId,
    pub(super) tag: u64,
    /// The first offset that was not sent.
    pub(super) next: Offset,
    /// The first offset that will not be sent.
    pub(super) until: Option<Offset>,
}

impl Subscription {
    pub(super) fn is_finished(&self) -> bool {
        self.until.is_some_and(|until| self.next >= until)
    }
}

/// The partitions of a stream, and the credit.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    list: Vec<Subscription>,
    places: HashMap<(Arc<str>, PartitionId), usize>,
    /// Bytes that may be sent; below 0 when the last answer was larger.
    credit: i64,
    /// Whose turn it is to be first: when the credit is short, each partition gets its share.
    turn: usize,
}

impl Subscriptions {
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Reads a partition from now on, or from elsewhere.
    pub(super) fn set(&mut self, subscription: Subscription) {
        let key = (Arc::clone(&subscription.topic), subscription.partition);
        match self.places.get(&key) {
            Some(place) => self.list[*place] = subscription,
            None => {
                self.places.insert(key, self.list.len());
                self.list.push(subscription);
            }
        }
    }

    /// Reads a partition no more.
    pub(super) fn remove(&mut self, topic: &str, partition: PartitionId) {
        let Some(place) = self.places.remove(&(Arc::from(topic), partition)) else {
            return;
        };
        self.list.swap_remove(place);
        if let Some(moved) = self.list.get(place) {
            self.places
                .insert((Arc::clone(&moved.topic), moved.partition), place);
        }
    }

    pub(super) fn get_mut(
        &mut self,
        topic: &Arc<str>,
        partition: PartitionId,
    ) -> Option<&mut Subscription> {
        let place = self.places.get(&(Arc::clone(topic), partition))?;
        self.list.get_mut(*place)
    }

    pub(super) fn grant(&mut self, bytes: u64) {
        let granted = i64::try_from(bytes.min(CREDIT_MAX)).unwrap_or(i64::MAX);
        self.credit = self.credit.saturating_add(granted).min(CREDIT_MAX as i64);
    }

    pub(super) fn spend(&mut self, bytes: usize) {
        self.credit -= i64::try_from(bytes).unwrap_or(i64::MAX);
    }

    /// How many bytes may be sent now.
    pub(super) fn credit(&self) -> usize {
        usize::try_from(self.credit).unwrap_or(0)
    }

    /// What to read now, in turns.
    pub(super) fn round(&mut self) -> Vec<Subscription> {
        if self.list.is_empty() {
            return Vec::new();
        }
        let first = self.turn % self.list.len();
        self.turn = first + 1;
        self.list[first..]
            .iter()
            .chain(&self.list[..first])
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(topic: &str, partition: u32, next: u64) -> Subscription {
        Subscription {
            topic: topic.into(),
            partition: PartitionId(partition),
            tag: 0,
            next: Offset(next),
            until: None,
        }
    }

    #[test]
    fn a_partition_is_there_once_and_the_last_position_counts() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.set(at("a", 0, 1));
        subscriptions.set(at("a", 1, 2));
        subscriptions.set(at("a", 0, 9));
        assert_eq!(subscriptions.round(), [at("a", 0, 9), at("a", 1, 2)]);
    }

    #[test]
    fn removing_one_leaves_the_others_where_they_can_be_found() {
        let mut subscriptions = Subscriptions::default();
        for partition in 0..4 {
            subscriptions.set(at("a", partition, 0));
        }
        subscriptions.remove("a", PartitionId(1));
        subscriptions.remove("b", PartitionId(0));
        for partition in [0, 2, 3] {
            let found = subscriptions.get_mut(&"a".into(), PartitionId(partition));
            assert_eq!(found, Some(&mut at("a", partition, 0)));
        }
        assert_eq!(subscriptions.len(), 3);
    }

    #[test]
    fn everybody_is_first_once_in_a_while() {
        let mut subscriptions = Subscriptions::default();
        for partition in 0..3 {
            subscriptions.set(at("a", partition, 0));
        }
        let firsts: Vec<u32> = (0..6)
            .map(|_| subscriptions.round()[0].partition.0)
            .collect();
        assert_eq!(firsts, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn credit_may_be_overdrawn_and_never_overflows() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.grant(10);
        subscriptions.spend(25);
        assert_eq!(subscriptions.credit(), 0);
        subscriptions.grant(20);
        assert_eq!(subscriptions.credit(), 5);
        for _ in 0..3 {
            subscriptions.grant(u64::MAX);
        }
        assert_eq!(subscriptions.credit() as u64, CREDIT_MAX);
    }
}
