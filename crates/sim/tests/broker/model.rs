//! What a broker must hold: the catalog's topics, their logs, what groups have committed, and the ids
//! that were given out. It learns what clients asked for and what they were told, in that order.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use sapwood_model::{Durability, LeaderEpoch, TopicId};

use crate::log::{Found, Log, Place};

pub(crate) type Outcome<T = ()> = Result<T, String>;

/// How a process ended. The later the worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum End {
    /// By a clean stop that said so.
    #[default]
    Clean,
    Kill,
    PowerCut,
}

/// A change of the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Create {
        partitions: u32,
        settings: Settings,
    },
    Delete,
    Alter(Settings),
    /// How many there are afterwards.
    AddPartitions(u32),
}

/// The configuration that these tests look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) durability: Durability,
    pub(crate) retention_ms: u64,
}

/// A partition of a topic, by name.
pub(crate) type At = (String, u32);

/// What a group has committed for a partition: the topic that it was for, and the offset.
pub(crate) type Committed = (TopicId, u64);

/// A group, a topic and a partition.
pub(crate) type Key = (String, String, u32);

/// What a client asked for or was told.
#[derive(Clone)]
pub(crate) enum Note {
    ChangeAsked(String, Change),
    /// With the id of a topic that was created.
    Changed(String, Option<TopicId>),
    Sent(At, Bytes),
    /// The broker has it at this offset, and no more is known.
    Placed(At, Bytes, u64, u64),
    /// As durable as the topic promises.
    Acknowledged(At, Bytes, u64, u64),
    /// Certainly not appended.
    Refused(At, Bytes),
    Read(At, TopicId, Vec<Found>),
    TrimAsked(At, u64),
    Trimmed(At, u64),
    /// One value for each key; none: it is to be forgotten.
    CommitAsked(Vec<(Key, Option<Committed>)>),
    Committed(Vec<(Key, Option<Committed>)>),
    OffsetsRead(String, BTreeMap<Key, u64>),
    ProducerId(u64),
}

impl fmt::Debug for Note {
    /// Without the bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::ChangeAsked(name, change) => write!(f, "{name}: {change:?} asked"),
            Note::Changed(name, id) => write!(f, "{name}: changed, {id:?}"),
            Note::Sent(at, bytes) => write!(f, "{at:?}: sent {:?}", Place::of(bytes)),
            Note::Placed(at, _, base, next) => write!(f, "{at:?}: placed {base}..{next}"),
            Note::Acknowledged(at, _, base, next) => {
                write!(f, "{at:?}: acknowledged {base}..{next}")
            }
            Note::Refused(at, _) => write!(f, "{at:?}: refused"),
            Note::Read(at, _, found) => {
                let next = found.last().map(|batch| batch.next);
                write!(f, "{at:?}: read up to {next:?}")
            }
            Note::TrimAsked(at, to) => write!(f, "{at:?}: trim to {to} asked"),
            Note::Trimmed(at, to) => write!(f, "{at:?}: trimmed to {to}"),
            Note::CommitAsked(values) => write!(f, "commit asked: {values:?}"),
            Note::Committed(values) => write!(f, "committed: {values:?}"),
            Note::OffsetsRead(group, found) => write!(f, "offsets of {group}: {found:?}"),
            Note::ProducerId(id) => write!(f, "producer id {id}"),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Topic {
    pub(crate) id: TopicId,
    pub(crate) settings: Settings,
    pub(crate) logs: Vec<Log>,
}

/// What may be committed for a key.
#[derive(Debug, Clone, Default)]
pub(crate) struct Offset {
    pub(crate) known: Option<Committed>,
    /// What was asked for since, and not answered; oldest first.
    pub(crate) asked: Vec<Option<Committed>>,
    /// What may have been committed when the clients' last requests began: a reader among them that is
    /// answered late may tell of it.
    pub(crate) replaced: Vec<Option<Committed>>,
}

impl Offset {
    fn settle(&mut self, value: Option<Committed>) {
        if let Some(at) = self.asked.iter().rposition(|asked| *asked == value) {
            self.replaced.extend(self.asked.drain(..=at));
        }
        self.replaced.push(self.known);
        self.known = value;
    }

    /// Whether this offset may be what is committed.
    fn find(&self, offset: Option<u64>) -> Option<Option<Committed>> {
        let mut values = self.asked.iter().rev().copied().chain([self.known]);
        values.find(|value| value.map(|(_, offset)| offset) == offset)
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub(crate) topics: BTreeMap<String, Topic>,
    /// Changes that were asked for and not answered.
    pub(crate) changes: BTreeMap<String, Change>,
    pub(crate) offsets: BTreeMap<Key, Offset>,
    pub(crate) topic_ids: BTreeSet<TopicId>,
    pub(crate) producer_ids: BTreeSet<u64>,
    /// The worst that has happened since the broker was last opened.
    pub(crate) ended: End,
    /// The latest time that any clock has shown; `None` where nothing goes by its age.
    pub(crate) latest_ms: Option<i64>,
}

/// A topic as a broker has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundTopic {
    pub(crate) id: TopicId,
    pub(crate) settings: Settings,
    pub(crate) logs: Vec<FoundLog>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundLog {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) epoch: LeaderEpoch,
    pub(crate) batches: Vec<Found>,
}

/// Everything that can be asked of a broker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FoundAll {
    pub(crate) topics: BTreeMap<String, FoundTopic>,
    pub(crate) offsets: BTreeMap<Key, u64>,
}

impl Model {
    /// Of brokers whose old records go.
    pub(crate) fn ageing() -> Self {
        Self {
            latest_ms: Some(0),
            ..Self::default()
        }
    }

    pub(crate) fn log_mut(&mut self, at: &At) -> Option<&mut Log> {
        self.topics.get_mut(&at.0)?.logs.get_mut(at.1 as usize)
    }

    /// Whether what is acknowledged now survives a power cut. While a topic changes to os it need not,
    /// and while it changes from os not yet.
    fn is_fsync(&self, topic: &str) -> bool {
        let fsync = |settings: &Settings| settings.durability == Durability::Fsync;
        let changes_to_os = matches!(self.changes.get(topic),
            Some(Change::Alter(settings)) if !fsync(settings));
        let topic = self.topics.get(topic);
        !changes_to_os && topic.is_some_and(|topic| fsync(&topic.settings))
    }

    pub(crate) fn learn(&mut self, note: &Note) -> Outcome {
        match note {
            Note::ChangeAsked(name, change) => {
                self.changes.insert(name.clone(), change.clone());
            }
            Note::Changed(name, id) => self.changed(name, *id)?,
            Note::Sent(at, bytes) => {
                if let Some(log) = self.log_mut(at) {
                    log.send(bytes);
                }
            }
            Note::Placed(at, body, base, next) => {
                if let Some(log) = self.log_mut(at) {
                    log.is_at(body, *base)?;
                    log.kill_floor = log.kill_floor.max(*next);
                }
            }
            Note::Acknowledged(at, body, base, next) => {
                let is_fsync = self.is_fsync(&at.0);
                if let Some(log) = self.log_mut(at) {
                    log.is_at(body, *base)?;
                    log.floor(*next, is_fsync);
                }
            }
            Note::Refused(at, body) => {
                if let Some(log) = self.log_mut(at)
                    && let Some(sent) = log.sent.get_mut(body)
                    && sent.fate == crate::log::Fate::Open
                {
                    sent.fate = crate::log::Fate::Gone;
                }
            }
            Note::Read(at, id, found) => {
                let is_fsync = self.is_fsync(&at.0);
                if self.topics.get(&at.0).is_none_or(|topic| topic.id != *id) {
                    return Ok(());
                }
                if let Some(log) = self.log_mut(at) {
                    for batch in found {
                        log.is_at(&batch.body, batch.base)
                            .map_err(|error| format!("{at:?}: {error}"))?;
                        log.floor(batch.next, is_fsync);
                    }
                }
            }
            Note::TrimAsked(at, to) => {
                if let Some(log) = self.log_mut(at) {
                    log.trims.insert(*to);
                }
            }
            Note::Trimmed(at, to) => {
                if let Some(log) = self.log_mut(at) {
                    log.trims.remove(to);
                    log.start = log.start.max(*to);
                }
            }
            Note::CommitAsked(values) => {
                for (key, value) in values {
                    if !self.topics.contains_key(&key.1) {
                        continue;
                    }
                    let offset = self.offsets.entry(key.clone()).or_default();
                    offset.asked.push(*value);
                }
            }
            Note::Committed(values) => {
                for (key, value) in values {
                    let is_there = self.topics.contains_key(&key.1);
                    if is_there && let Some(offset) = self.offsets.get_mut(key) {
                        offset.settle(*value);
                    }
                }
            }
            Note::OffsetsRead(group, found) => self.offsets_read(group, found)?,
            Note::ProducerId(id) => {
                if !self.producer_ids.insert(*id) {
                    return Err(format!("producer id {id} was given out twice"));
                }
            }
        }
        Ok(())
    }

    fn changed(&mut self, name: &str, id: Option<TopicId>) -> Outcome {
        let change = self.changes.remove(name);
        match (change, id) {
            (
                Some(Change::Create {
                    partitions,
                    settings,
                }),
                Some(id),
            ) => {
                self.created(name, id, partitions, settings)?;
            }
            (Some(Change::Delete), _) => self.deleted(name),
            (Some(Change::Alter(settings)), _) => {
                if let Some(topic) = self.topics.get_mut(name) {
                    topic.settings = settings;
                    if settings.durability == Durability::Fsync {
                        // Whatever was there before the switch is synced by it.
                        for log in &mut topic.logs {
                            log.power_floor = log.power_floor.max(log.seen_floor);
                        }
                    }
                }
            }
            (Some(Change::AddPartitions(total)), _) => {
                if let Some(topic) = self.topics.get_mut(name) {
                    topic.logs.resize_with(total as usize, Log::default);
                }
            }
            (change, _) => return Err(format!("{name} was changed by {change:?}")),
        }
        Ok(())
    }

    fn created(&mut self, name: &str, id: TopicId, partitions: u32, settings: Settings) -> Outcome {
        if !self.topic_ids.insert(id) {
            return Err(format!("{name} has the id {id} of an earlier topic"));
        }
        let logs = vec![Log::default(); partitions as usize];
        self.topics
            .insert(name.to_owned(), Topic { id, settings, logs });
        Ok(())
    }

    fn deleted(&mut self, name: &str) {
        self.topics.remove(name);
        self.offsets.retain(|key, _| key.1 != name);
    }

    fn offsets_read(&mut self, group: &str, found: &BTreeMap<Key, u64>) -> Outcome {
        for key in found.keys() {
            if !self.offsets.contains_key(key) {
                return Err(format!("{key:?} was never committed, and is {found:?}"));
            }
        }
        let offsets = &mut self.offsets;
        for (key, offset) in offsets.iter_mut().filter(|(key, _)| key.0 == group) {
            let value = found.get(key).copied();
            if self.changes.get(&key.1) == Some(&Change::Delete) && value.is_none() {
                continue;
            }
            let was = |was: &Option<Committed>| was.map(|(_, offset)| offset) == value;
            match offset.find(value) {
                Some(value) => offset.settle(value),
                None if offset.replaced.iter().any(was) => {}
                None => return Err(format!("{key:?} is {value:?}; it may be {offset:?}")),
            }
        }
        Ok(())
    }

    /// Compares what a broker has after its start with what it may have, and takes that over.
    pub(crate) fn recovered(&mut self, found: &FoundAll) -> Outcome {
        let names: BTreeSet<&String> = self.topics.keys().chain(found.topics.keys()).collect();
        let names: Vec<String> = names.into_iter().cloned().collect();
        for name in &names {
            self.topic_recovered(name, found.topics.get(name))
                .map_err(|error| format!("topic {name}: {error}"))?;
        }
        self.changes.clear();
        let groups: BTreeSet<String> = self.offsets.keys().map(|key| key.0.clone()).collect();
        for key in found.offsets.keys() {
            if !self.offsets.contains_key(key) {
                return Err(format!(
                    "an offset of {key:?} came back: {:?}",
                    found.offsets
                ));
            }
        }
        for group in groups {
            self.offsets_read(&group, &found.offsets)?;
        }
        for offset in self.offsets.values_mut() {
            offset.asked.clear();
        }
        self.ended = End::Clean;
        Ok(())
    }

    fn topic_recovered(&mut self, name: &str, found: Option<&FoundTopic>) -> Outcome {
        let change = self.changes.get(name).cloned();
        match (self.topics.get(name), found, change) {
            (None, None, _) => return Ok(()),
            (Some(_), None, Some(Change::Delete)) => {
                self.deleted(name);
                return Ok(());
            }
            (Some(_), None, change) => return Err(format!("is gone ({change:?} was asked)")),
            (
                None,
                Some(found),
                Some(Change::Create {
                    partitions,
                    settings,
                }),
            ) => {
                if found.settings != settings || found.logs.len() != partitions as usize {
                    return Err(format!(
                        "{settings:?} and {partitions} partitions: {found:?}"
                    ));
                }
                self.created(name, found.id, partitions, settings)?;
            }
            (None, Some(found), change) => {
                return Err(format!("is there, {change:?} was asked: {found:?}"));
            }
            (Some(topic), Some(found), change) => {
                if topic.id != found.id {
                    return Err(format!("has id {}, not {}", found.id, topic.id));
                }
                let may_be = |settings: Settings| {
                    settings == topic.settings || change == Some(Change::Alter(settings))
                };
                if !may_be(found.settings) {
                    let (is, was) = (found.settings, topic.settings);
                    return Err(format!("{is:?}, not {was:?} or {change:?}"));
                }
                let count = u32::try_from(found.logs.len()).map_err(|error| error.to_string())?;
                if found.logs.len() != topic.logs.len()
                    && change != Some(Change::AddPartitions(count))
                {
                    let was = topic.logs.len();
                    return Err(format!("{count} partitions, not {was} or {change:?}"));
                }
            }
        }
        let ended = self.ended;
        // It may have been changed by less than this.
        let kept_ms = self
            .topics
            .get(name)
            .map_or(0, |topic| topic.settings.retention_ms);
        let kept_ms = i64::try_from(kept_ms).unwrap_or(i64::MAX) - 1000;
        let overdue = self.latest_ms.map(|latest| latest - kept_ms);
        let (Some(topic), Some(found)) = (self.topics.get_mut(name), found) else {
            return Ok(());
        };
        topic.settings = found.settings;
        topic.logs.resize_with(found.logs.len(), Log::default);
        for (number, (log, found)) in topic.logs.iter_mut().zip(&found.logs).enumerate() {
            let FoundLog {
                start,
                end,
                epoch,
                ref batches,
            } = *found;
            let told = |error| format!("partition {number}: {error}; {}", log.describe());
            log.check(start, end, batches, ended, overdue)
                .map_err(told)?;
            if end < log.kill_floor && epoch <= log.epoch {
                return Err(told(format!(
                    "was cut to {end}, and the leader epoch is {epoch}"
                )));
            }
            log.recovered(start, end, batches, epoch);
        }
        Ok(())
    }
}
