//! Deadlines by key. Who waits for them asks for the next one and comes back.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
};

use sapwood_model::Timestamp;

/// Timers, each with one deadline.
#[derive(Debug)]
pub(super) struct Timers<K> {
    deadlines: HashMap<K, Timestamp>,
    /// The same, in the order of the deadlines.
    queue: BTreeSet<(Timestamp, K)>,
}

impl<K: Clone + Eq + Hash + Ord> Timers<K> {
    pub(super) fn new() -> Self {
        Self {
            deadlines: HashMap::new(),
            queue: BTreeSet::new(),
        }
    }

    /// Sets a timer; a deadline that it had before is forgotten.
    pub(super) fn set(&mut self, key: K, deadline: Timestamp) {
        if let Some(before) = self.deadlines.insert(key.clone(), deadline) {
            self.queue.remove(&(before, key.clone()));
        }
        self.queue.insert((deadline, key));
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.queue.first().map(|(deadline, _)| *deadline)
    }

    /// Takes out the earliest timer if its deadline is there.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        let (_, key) = self.queue.pop_first()?;
        self.deadlines.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_come_in_the_order_of_their_last_deadlines_and_once() {
        let mut timers = Timers::new();
        timers.set("a", Timestamp(10));
        timers.set("b", Timestamp(20));
        timers.set("a", Timestamp(30));
        assert_eq!(timers.next(), Some(Timestamp(20)));
        assert_eq!(timers.take_due(Timestamp(19)), None);
        assert_eq!(timers.take_due(Timestamp(30)), Some("b"));
        assert_eq!(timers.take_due(Timestamp(30)), Some("a"));
        assert_eq!(timers.take_due(Timestamp(30)), None);
        assert_eq!(timers.next(), None);
    }
}
