//! Hosts a machine as a coordinator does: appends to a log, applies, keeps timers, delivers replies.

use std::{collections::BTreeMap, sync::Arc};

use sapwood_group::{
    CallId, Client, Context, Decision, Event, FetchOffsets, FetchedOffset, GroupError, GroupId,
    Groups, Record, Reply, Request, Settings, TimerKey, Topic, TopicMap,
};
use sapwood_model::{Timestamp, TopicId, TopicName};

pub(crate) const GROUP: &str = "readers";

/// A machine with its log, its timers and its callers. It checks at every step that a replay of the
/// log gives the same state.
pub(crate) struct Host {
    pub(crate) settings: Settings,
    pub(crate) groups: Groups,
    pub(crate) topics: TopicMap,
    pub(crate) now: Timestamp,
    pub(crate) log: Vec<Record>,
    /// What only ever sees the log.
    replayed: Groups,
    timers: BTreeMap<TimerKey, Timestamp>,
    random: u128,
    calls: u64,
    /// A call is in here from its beginning to when its reply is taken. `Some(None)`: it failed, and
    /// the caller may try again.
    replies: BTreeMap<CallId, Option<Option<Reply>>>,
    /// So many appends fail next.
    pub(crate) failures: usize,
    /// The next time something is appended the host stops right behind that, and is started again.
    pub(crate) crashes: bool,
    /// That has happened.
    pub(crate) crashed: bool,
}

impl Host {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            groups: Groups::new(settings.clone()),
            replayed: Groups::new(settings.clone()),
            settings,
            topics: TopicMap::default(),
            now: Timestamp(1_000_000),
            log: Vec::new(),
            timers: BTreeMap::new(),
            random: 0,
            calls: 0,
            replies: BTreeMap::new(),
            failures: 0,
            crashes: false,
            crashed: false,
        }
    }

    pub(crate) fn create_topic(&mut self, name: &str, id: u128, partitions: u32) {
        let id = TopicId(id);
        self.topics.insert(topic(name), Topic { id, partitions });
    }

    /// Deletes a topic, and tells the machine.
    pub(crate) fn delete_topic(&mut self, name: &str) {
        self.topics.remove(&topic(name));
        self.tell_deleted(name);
    }

    /// Tells the machine that a topic was deleted, at last.
    pub(crate) fn tell_deleted(&mut self, name: &str) {
        while !self.happens(Event::TopicsDeleted(vec![topic(name)])) {}
    }

    fn decide(&mut self, event: Event) -> Decision {
        self.random += 1;
        let context = Context {
            now: self.now,
            random: self.random,
            topics: &self.topics,
        };
        self.groups.decide(&context, event)
    }

    /// Carries an event out; false if its records could not be appended.
    fn happens(&mut self, event: Event) -> bool {
        let decision = self.decide(event);
        if self.failures > 0 && !decision.records.is_empty() {
            self.failures -= 1;
            return false;
        }
        self.log.extend(decision.records.iter().cloned());
        if self.crashes && !decision.records.is_empty() {
            self.crashes = false;
            self.crashed = true;
            for record in decision.records {
                self.replayed.apply(record.clone());
                self.groups.apply(record);
            }
            self.restart(false);
            return true;
        }
        for record in decision.records {
            self.replayed.apply(record.clone());
            self.groups.apply(record);
        }
        for effect in decision.effects {
            self.groups.apply_effect(effect);
        }
        for timer in decision.timers {
            self.timers.insert(timer.key, timer.deadline);
        }
        for (call, reply) in decision.replies {
            let place = self.replies.get_mut(&call);
            let place = place.unwrap_or_else(|| panic!("{call:?} was answered: {reply:?}"));
            assert!(place.is_none(), "{call:?} is answered twice: {reply:?}");
            *place = Some(Some(reply));
        }
        assert_eq!(
            records(&self.groups),
            records(&self.replayed),
            "the log says something else"
        );
        true
    }

    /// Begins a call.
    pub(crate) fn call(&mut self, request: Request) -> CallId {
        self.calls += 1;
        let call = CallId(self.calls);
        self.replies.insert(call, None);
        if !self.happens(Event::Call(call, request)) {
            self.replies.insert(call, Some(None));
        }
        call
    }

    /// The reply to a call, once: `None` while it waits, `Some(None)` when it failed.
    pub(crate) fn take(&mut self, call: CallId) -> Option<Option<Reply>> {
        let reply = self.replies.get(&call).cloned().flatten();
        if reply.is_some() {
            self.replies.remove(&call);
        }
        reply
    }

    /// A call that is answered at once.
    pub(crate) fn ask(&mut self, request: Request) -> Reply {
        let call = self.call(request);
        self.take(call)
            .expect("it is answered at once")
            .expect("it is appended")
    }

    /// What the group has committed.
    pub(crate) fn fetch(&self, request: FetchOffsets) -> Result<Vec<FetchedOffset>, GroupError> {
        self.groups.fetch_offsets(&self.topics, request)
    }

    /// Lets time pass, and timers come in their order.
    pub(crate) fn pass(&mut self, milliseconds: i64) {
        let end = Timestamp(self.now.0 + milliseconds);
        loop {
            let due = self.timers.iter().map(|(key, at)| (*at, key.clone())).min();
            let Some((at, key)) = due.filter(|(at, _)| *at <= end) else {
                break;
            };
            self.now = self.now.max(at);
            self.timers.remove(&key);
            if !self.happens(Event::Timer(key.clone())) {
                self.timers.insert(key, Timestamp(self.now.0 + 100));
            }
        }
        self.now = end;
    }

    /// Gives the machine a timer that nobody asked for.
    pub(crate) fn fire(&mut self, key: TimerKey) {
        self.happens(Event::Timer(key));
    }

    /// Stops the machine and starts another one from the log: as it is, or compacted.
    pub(crate) fn restart(&mut self, compact: bool) {
        for reply in self.replies.values_mut() {
            reply.get_or_insert(None);
        }
        if compact {
            self.log = compacted(&self.log);
        }
        let mut groups = Groups::new(self.settings.clone());
        for record in &self.log {
            groups.apply(record.clone());
        }
        assert_eq!(
            records(&groups),
            records(&self.groups),
            "the log gives something else"
        );
        self.groups = groups;
        self.timers.clear();
        assert!(self.happens(Event::Loaded));
    }
}

/// What a machine consists of, in order.
pub(crate) fn records(groups: &Groups) -> Vec<Record> {
    let mut records: Vec<Record> = groups.records().collect();
    records.sort_by(|one, other| one.group().cmp(other.group()));
    records
}

/// The latest record of each key, without tombstones.
fn compacted(log: &[Record]) -> Vec<Record> {
    let mut latest: BTreeMap<String, usize> = BTreeMap::new();
    for (place, record) in log.iter().enumerate() {
        latest.insert(key(record).0, place);
    }
    let mut places: Vec<usize> = latest.into_values().collect();
    places.sort_unstable();
    let kept = places.into_iter().map(|place| log[place].clone());
    kept.filter(|record| !key(record).1).collect()
}

/// A record's key, and whether it is a tombstone.
fn key(record: &Record) -> (String, bool) {
    let group = record.group();
    match record {
        Record::Offset {
            topic,
            partition,
            value,
            ..
        } => (
            format!("offset {group} {topic} {partition}"),
            value.is_none(),
        ),
        Record::Classic { value, .. } => (format!("classic {group}"), value.is_none()),
        Record::Consumer { value, .. } => (format!("consumer {group}"), value.is_none()),
        Record::Member { member, value, .. } => {
            (format!("member {group} {member}"), value.is_none())
        }
        Record::Target { value, .. } => (format!("target {group}"), value.is_none()),
        Record::TargetMember { member, value, .. } => {
            (format!("target {group} {member}"), value.is_none())
        }
        Record::Current { member, value, .. } => {
            (format!("current {group} {member}"), value.is_none())
        }
        Record::Regex { regex, value, .. } => (format!("regex {group} {regex}"), value.is_none()),
    }
}

pub(crate) fn group() -> GroupId {
    GROUP.into()
}

pub(crate) fn topic(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

pub(crate) fn text(text: &str) -> Arc<str> {
    text.into()
}

pub(crate) fn client() -> Client {
    Client {
        id: "app".into(),
        host: "/127.0.0.1".into(),
    }
}
