//! The groups of one partition, as the runtime hosts them.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use sapwood_group::{
    Context, Effect, GroupId, Groups, Record, Reply, Request, Settings, TimerKey, Topic, Topics,
};
use sapwood_model::{Timestamp, TopicId, TopicName};

use super::{changes::Watchers, codec};
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
    /// While it is loaded: every topic that offsets were committed for, with its id if that is known.
    replayed: Option<HashMap<TopicName, HashSet<Option<TopicId>>>>,
    watchers: Arc<Watchers>,
    /// Groups that the decision which is being applied has changed, if any are watched.
    changed: Vec<GroupId>,
}

impl GroupMachine {
    pub(super) fn new(settings: Settings, topics: Arc<Registry>, watchers: Arc<Watchers>) -> Self {
        Self {
            groups: Groups::new(settings),
            topics,
            replayed: Some(HashMap::new()),
            watchers,
            changed: Vec::new(),
        }
    }

    fn note_change(&mut self, group: &GroupId) {
        // A decision is about one group, or about offsets only.
        if self.changed.last() != Some(group) {
            self.changed.push(group.clone());
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
        if let (Some(replayed), Record::Offset { topic, value, .. }) = (&mut self.replayed, &record)
            && let Some(offset) = value
        {
            match replayed.get_mut(topic) {
                Some(ids) => drop(ids.insert(offset.topic_id)),
                None => drop(replayed.insert(topic.clone(), [offset.topic_id].into())),
            }
        }
        let is_watched = self.replayed.is_none() && self.watchers.are_any();
        if is_watched && !matches!(record, Record::Offset { .. }) {
            self.note_change(record.group());
        }
        self.groups.apply(record);
    }

    fn apply_effect(&mut self, effect: Effect) {
        if let Some(group) = effect.changes()
            && self.watchers.are_any()
        {
            self.note_change(group);
        }
        self.groups.apply_effect(effect);
    }

    fn applied(&mut self) {
        for group in self.changed.drain(..) {
            self.watchers.tell(&group);
        }
    }

    fn encode(record: &Record) -> Result<Encoded, Fault> {
        let (key, value) = codec::encode(record)?;
        Ok(Encoded { key, value })
    }

    fn decode(
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        at: Timestamp,
    ) -> Result<Decoded<Record>, Fault> {
        Ok(codec::decode(key, value, at)?)
    }

    /// Topics that were deleted before their offsets were, and may have been made anew since.
    fn missed(&mut self) -> Vec<TopicName> {
        let replayed = self.replayed.take().unwrap_or_default();
        let is_stale = |name: &TopicName, ids: &HashSet<Option<TopicId>>| {
            let now = self.topics.named(name).map(|topic| topic.id);
            now.is_none() || ids.iter().flatten().any(|id| Some(*id) != now)
        };
        let stale = replayed
            .into_iter()
            .filter(|(name, ids)| is_stale(name, ids));
        stale.map(|(name, _)| name).collect()
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
