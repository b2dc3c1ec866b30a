//! The groups of one partition, as the runtime hosts them.

use std::{collections::HashSet, sync::Arc};

use sapwood_group::{
    Context, Effect, Groups, Record, Reply, Request, Settings, TimerKey, Topic, Topics,
};
use sapwood_model::TopicName;

use super::codec;
use crate::{
    coordinator::{CallId, Decision, Decoded, Encoded, Event, Fault, Machine, Moment},
    registry::{Registry, TopicRef, count},
    topics::is_internal_topic,
};

/// The groups of one partition, with the topics that they look at.
#[derive(Debug)]
pub(crate) struct GroupMachine {
    pub(super) groups: Groups,
    topics: Arc<Registry>,
    /// While it is loaded: every topic that offsets were committed for.
    replayed: Option<HashSet<TopicName>>,
}

impl GroupMachine {
    pub(super) fn new(settings: Settings, topics: Arc<Registry>) -> Self {
        Self {
            groups: Groups::new(settings),
            topics,
            replayed: Some(HashSet::new()),
        }
    }
}

impl Machine for GroupMachine {
    type Request = Request;
    type Reply = Reply;
    /// A topic was deleted.
    type Notice = TopicName;
    type Record = Record;
    type Effect = Effect;
    type TimerKey = TimerKey;

    fn decide(&self, moment: Moment, event: Event<Self>) -> Decision<Self> {
        let context = Context {
            now: moment.now,
            random: moment.random,
            topics: &*self.topics,
        };
        let event = match event {
            Event::Call(CallId(call), request) => {
                sapwood_group::Event::Call(sapwood_group::CallId(call), request)
            }
            Event::Timer(key) => sapwood_group::Event::Timer(key),
            Event::Loaded => sapwood_group::Event::Loaded,
            Event::Notice(topic) => sapwood_group::Event::TopicsDeleted(vec![topic]),
        };
        let decision = self.groups.decide(&context, event);
        let replies = decision.replies.into_iter();
        let timers = decision.timers.into_iter();
        Decision {
            records: decision.records,
            effects: decision.effects,
            replies: replies
                .map(|(call, reply)| (CallId(call.0), reply))
                .collect(),
            timers: timers.map(|timer| (timer.key, timer.deadline)).collect(),
        }
    }

    fn apply(&mut self, record: Record) {
        if let (Some(replayed), Record::Offset { topic, .. }) = (&mut self.replayed, &record)
            && !replayed.contains(topic)
        {
            replayed.insert(topic.clone());
        }
        self.groups.apply(record);
    }

    fn apply_effect(&mut self, effect: Effect) {
        self.groups.apply_effect(effect);
    }

    fn encode(record: &Record) -> Result<Encoded, Fault> {
        let (key, value) = codec::encode(record)?;
        Ok(Encoded { key, value })
    }

    fn decode(key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Decoded<Record>, Fault> {
        Ok(codec::decode(key, value)?)
    }

    /// Topics that were deleted before their offsets were.
    fn missed(&mut self) -> Vec<TopicName> {
        let replayed = self.replayed.take().unwrap_or_default();
        let is_gone = |topic: &TopicName| self.topics.find(topic.into()).is_err();
        replayed.into_iter().filter(is_gone).collect()
    }
}

impl Topics for Registry {
    fn version(&self) -> u64 {
        Registry::version(self)
    }

    fn named(&self, name: &TopicName) -> Option<Topic> {
        let topic = self.find(TopicRef::Name(name.as_str())).ok()?;
        Some(Topic {
            id: topic.id,
            partitions: count(topic.partitions.load().len()),
        })
    }

    fn each_name(&self, see: &mut dyn FnMut(&TopicName)) {
        for topic in self.all() {
            if !is_internal_topic(topic.name.as_str()) {
                see(&topic.name);
            }
        }
    }
}
