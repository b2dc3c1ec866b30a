//! The groups of one partition, as the runtime hosts them.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use sapwood_group::{
    Context, Effect, GroupId, Groups, Record, Reply, Request, Settings, TimerKey, Topic, Topics,
};
use sapwood_model::{Timestamp, TopicId, TopicName};

use super::{changes::Watchers, codec, rebalances::Rebalances};
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
    pub(super) rebalances: Rebalances,
    /// Groups that the decision which is being applied has changed, and whether they begin a new epoch.
    changed: Vec<(GroupId, bool)>,
}

impl GroupMachine {
    pub(super) fn new(
        settings: Settings,
        topics: Arc<Registry>,
        watchers: Arc<Watchers>,
        rebalances: Rebalances,
    ) -> Self {
        Self {
            groups: Groups::new(settings),
            topics,
            replayed: Some(HashMap::new()),
            watchers,
            rebalances,
            changed: Vec::new(),
        }
    }

    fn note_change(&mut self, group: &GroupId, new_epoch: bool) {
        // A decision is about one group, or about offsets only.
        match self.changed.last_mut().filter(|(last, _)| last == group) {
            Some((_, epoch)) => *epoch |= new_epoch,
            None => self.changed.push((group.clone(), new_epoch)),
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
        if self.replayed.is_none() && !matches!(record, Record::Offset { .. }) {
            let new_epoch = matches!(record, Record::Consumer { value: Some(_), .. });
            self.note_change(record.group(), new_epoch);
        }
        self.groups.apply(record);
    }

    fn apply_effect(&mut self, effect: Effect) {
        if let Some(group) = effect.changes() {
            self.note_change(group, false);
        }
        self.groups.apply_effect(effect);
    }

    fn applied(&mut self) {
        let are_watched = self.watchers.are_any();
        for (group, new_epoch) in self.changed.drain(..) {
            self.rebalances.saw(&self.groups, &group, new_epoch);
            if are_watched {
                self.watchers.tell(&group);
            }
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
        let mut stale: Vec<_> = stale.map(|(name, _)| name).collect();
        stale.sort();
        stale
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
