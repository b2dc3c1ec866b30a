//! What a group has to know about topics. The host of the machine shows them at each event.

use std::collections::BTreeMap;

use sapwood_model::{TopicId, TopicName};

use crate::CommittedOffset;

/// A topic, as far as groups are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topic {
    /// Its identity.
    pub id: TopicId,
    /// How many partitions it has.
    pub partitions: u32,
}

impl Topic {
    /// Whether an offset that was committed under the topic's name is about this topic, and not about
    /// an earlier one that was deleted.
    pub(crate) fn is_of(&self, offset: &CommittedOffset) -> bool {
        offset.topic_id.is_none_or(|id| id == self.id)
    }
}

/// A view of the topics at one moment.
pub trait Topics {
    /// Changes whenever a topic is created, deleted or gets partitions, and never goes back to an
    /// earlier value while the machine lives. A group whose members are subscribed to topics looks
    /// at them again, at its next heartbeat, when this is not what it saw last.
    fn version(&self) -> u64;

    /// The topic with this name.
    fn named(&self, name: &TopicName) -> Option<Topic>;

    /// Shows every topic that a regular expression may stand for: not the internal ones.
    fn each_name(&self, see: &mut dyn FnMut(&TopicName));
}

/// Topics in a map: a view for tests, benchmarks and whoever has no other.
#[derive(Debug, Clone, Default)]
pub struct TopicMap {
    topics: BTreeMap<TopicName, Topic>,
    version: u64,
}

impl TopicMap {
    /// Creates a topic, or changes it.
    pub fn insert(&mut self, name: TopicName, topic: Topic) {
        self.topics.insert(name, topic);
        self.version += 1;
    }

    /// Deletes a topic, if it is there.
    pub fn remove(&mut self, name: &TopicName) {
        self.topics.remove(name);
        self.version += 1;
    }

    /// Every topic, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&TopicName, &Topic)> {
        self.topics.iter()
    }
}

impl Topics for TopicMap {
    fn version(&self) -> u64 {
        self.version
    }

    fn named(&self, name: &TopicName) -> Option<Topic> {
        self.topics.get(name).copied()
    }

    fn each_name(&self, see: &mut dyn FnMut(&TopicName)) {
        self.topics.keys().for_each(see);
    }
}
