//! What programs were told before the power went: acknowledged, read, created, deleted, trimmed, committed.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use crate::{found::Found, random::Random};

/// How long what a topic acknowledges lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Acknowledged and served records survive.
    Fsync,
    /// The unsynced end may be lost.
    Os,
}

/// Who wrote a record, and which of the writer's records of that partition it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RecordId {
    pub(crate) writer: u32,
    pub(crate) sequence: u32,
}

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) topic: String,
    pub(crate) partition: u32,
}

/// Whether a topic is there.
///
/// `Gone -> Creating -> There -> Deleting -> Gone`. After a power cut `Creating` and `Deleting` may
/// turn out either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existence {
    Creating,
    There,
    Deleting,
    Gone,
}

/// A topic under one name, as the programs know it.
#[derive(Debug, Clone)]
pub(crate) struct Topic {
    pub(crate) kind: Kind,
    /// What it is being switched to; it may be that already.
    pub(crate) switching: Option<Kind>,
    pub(crate) existence: Existence,
    /// How many topics had this name before.
    pub(crate) incarnation: u32,
    pub(crate) partitions: Vec<Partition>,
}

/// A partition, as the programs know it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Partition {
    /// The leader epoch after the last start.
    pub(crate) epoch: u32,
    /// What was acknowledged or read, by offset.
    pub(crate) known: BTreeMap<u64, RecordId>,
    /// Everything known below survives, of whatever kind the topic is now.
    pub(crate) durable_to: u64,
    /// Readers have read everything below.
    pub(crate) read_to: u64,
    /// The log start is at least this.
    pub(crate) trimmed: u64,
    /// Somebody asked for this log start; it may have come to that.
    pub(crate) trimming: u64,
}

/// An offset that a group has committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Commit {
    pub(crate) acknowledged: Option<u64>,
    /// Sent after that one, and not answered.
    pub(crate) pending: Option<u64>,
}

/// Somebody who writes records that can be told from all others.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    pub(crate) topic: String,
    pub(crate) incarnation: u32,
    /// How long its values are, in bytes.
    pub(crate) bytes: Range<u64>,
    /// How many records it has sent to each partition.
    pub(crate) sent: Vec<u32>,
}

/// The account of a chain of cuts. Once it is closed, nothing is told to anybody any more.
#[derive(Debug, Clone, Default)]
pub(crate) struct Account {
    pub(crate) topics: BTreeMap<String, Topic>,
    pub(crate) commits: BTreeMap<(String, Place), Commit>,
    writers: Vec<Writer>,
    is_closed: bool,
    complaints: Vec<String>,
    counts: Counts,
}

/// How much was told since the account was opened.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) acknowledged: u64,
    pub(crate) read: u64,
    pub(crate) commits: u64,
    pub(crate) trims: u64,
    pub(crate) topics: u64,
    pub(crate) switches: u64,
}

/// An account that several tasks keep.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shared(Arc<Mutex<Account>>);

impl Shared {
    pub(crate) fn new(account: Account) -> Self {
        Self(Arc::new(Mutex::new(account)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Account> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    /// From now on nothing counts as told. Called at the moment of the cut.
    pub(crate) fn close(&mut self) {
        self.is_closed = true;
    }

    /// What went wrong while the power was on.
    pub(crate) fn complaints(&self) -> &[String] {
        &self.complaints
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// Something failed that must not fail while the power is on.
    pub(crate) fn complain(&mut self, text: impl Into<String>) {
        if !self.is_closed {
            self.complaints.push(text.into());
        }
    }

    /// A topic is about to be created.
    pub(crate) fn creating(&mut self, name: &str, kind: Kind, partitions: u32) {
        let before = self.topics.get(name);
        let topic = Topic {
            kind,
            switching: None,
            existence: Existence::Creating,
            incarnation: before.map_or(0, |topic| topic.incarnation + 1),
            partitions: vec![Partition::default(); partitions as usize],
        };
        self.topics.insert(name.to_owned(), topic);
    }

    /// A topic is about to be deleted.
    pub(crate) fn deleting(&mut self, name: &str) {
        if let Some(topic) = self.topics.get_mut(name) {
            topic.existence = Existence::Deleting;
        }
    }

    /// The broker said that a topic is there, or gone.
    pub(crate) fn exists(&mut self, name: &str, existence: Existence) {
        if !self.is_closed
            && let Some(topic) = self.topics.get_mut(name)
        {
            topic.existence = existence;
            self.counts.topics += 1;
        }
    }

    /// A topic is about to be switched to another kind. What is known of an fsync topic stays durable.
    pub(crate) fn switching(&mut self, name: &str, kind: Kind) {
        let Some(topic) = self.topics.get_mut(name) else {
            return;
        };
        topic.switching = Some(kind);
        if topic.kind == Kind::Fsync {
            for partition in &mut topic.partitions {
                let end = partition
                    .known
                    .keys()
                    .next_back()
                    .map_or(0, |last| last + 1);
                partition.durable_to = partition.durable_to.max(end);
            }
        }
    }

    /// The broker said that a topic is of the other kind now.
    pub(crate) fn switched(&mut self, name: &str) {
        if !self.is_closed
            && let Some(topic) = self.topics.get_mut(name)
            && let Some(kind) = topic.switching.take()
        {
            topic.kind = kind;
            self.counts.switches += 1;
        }
    }

    /// Somebody new who writes to a topic, with values of such lengths.
    pub(crate) fn writer(&mut self, topic: &str, bytes: Range<u64>) -> u32 {
        let (incarnation, partitions) = self
            .topics
            .get(topic)
            .map_or((0, 0), |topic| (topic.incarnation, topic.partitions.len()));
        self.writers.push(Writer {
            topic: topic.to_owned(),
            incarnation,
            bytes,
            sent: vec![0; partitions],
        });
        u32::try_from(self.writers.len() - 1).unwrap_or(u32::MAX)
    }

    /// The next record of a writer for a partition. Called before it is sent.
    pub(crate) fn send(&mut self, writer: u32, partition: u32) -> RecordId {
        let sent = &mut self.writers[writer as usize].sent[partition as usize];
        *sent += 1;
        RecordId {
            writer,
            sequence: *sent - 1,
        }
    }

    pub(crate) fn writers(&self) -> &[Writer] {
        &self.writers
    }

    /// A record was acknowledged.
    pub(crate) fn acknowledged(&mut self, topic: &str, partition: u32, offset: u64, id: RecordId) {
        if !self.is_closed {
            self.counts.acknowledged += 1;
            self.know(topic, partition, offset, id);
        }
    }

    /// A record was read.
    pub(crate) fn read(&mut self, topic: &str, partition: u32, offset: u64, value: &[u8]) {
        if self.is_closed {
            return;
        }
        match self.identify(topic, partition, value) {
            Ok(id) => {
                self.counts.read += 1;
                self.know(topic, partition, offset, id);
                if let Some(partition) = self.partition(topic, partition) {
                    partition.read_to = partition.read_to.max(offset + 1);
                }
            }
            Err(why) => self.complain(format!("read from {topic}/{partition} at {offset}: {why}")),
        }
    }

    fn know(&mut self, topic: &str, partition: u32, offset: u64, id: RecordId) {
        let known = self
            .partition(topic, partition)
            .and_then(|partition| partition.known.insert(offset, id));
        if let Some(known) = known
            && known != id
        {
            self.complain(format!(
                "{topic}/{partition} at {offset}: first {known:?}, then {id:?}"
            ));
        }
    }

    /// A log start is about to be moved.
    pub(crate) fn trimming(&mut self, topic: &str, partition: u32, offset: u64) {
        if let Some(partition) = self.partition(topic, partition) {
            partition.trimming = partition.trimming.max(offset);
        }
    }

    /// The broker said where a log starts now.
    pub(crate) fn trimmed(&mut self, topic: &str, partition: u32, offset: u64) {
        if self.is_closed {
            return;
        }
        self.counts.trims += 1;
        if let Some(partition) = self.partition(topic, partition) {
            partition.trimmed = partition.trimmed.max(offset);
        }
    }

    /// A group is about to commit an offset.
    pub(crate) fn committing(&mut self, group: &str, place: &Place, offset: u64) {
        let key = (group.to_owned(), place.clone());
        self.commits.entry(key).or_default().pending = Some(offset);
    }

    /// The broker said that the offset is committed.
    pub(crate) fn committed(&mut self, group: &str, place: &Place) {
        if self.is_closed {
            return;
        }
        self.counts.commits += 1;
        let key = (group.to_owned(), place.clone());
        if let Some(commit) = self.commits.get_mut(&key) {
            commit.acknowledged = commit.pending.take();
        }
    }

    pub(crate) fn partition(&mut self, topic: &str, partition: u32) -> Option<&mut Partition> {
        self.topics
            .get_mut(topic)?
            .partitions
            .get_mut(partition as usize)
    }

    /// Whose record a value is, if every byte of it is as it was sent to this partition.
    pub(crate) fn identify(
        &self,
        topic: &str,
        partition: u32,
        value: &[u8],
    ) -> Result<RecordId, String> {
        let shown = String::from_utf8_lossy(&value[..value.len().min(40)]).into_owned();
        let mut words = value
            .split(|byte| *byte == b' ')
            .map(|word| std::str::from_utf8(word).ok()?.parse().ok());
        let mut number = || words.next().flatten();
        let (Some(writer), Some(of), Some(sequence)) = (number(), number(), number()) else {
            return Err(format!("{} bytes that nobody sent: {shown}", value.len()));
        };
        let id = RecordId { writer, sequence };
        let Some(sender) = self.writers.get(writer as usize) else {
            return Err(format!("nobody has that number: {shown}"));
        };
        let incarnation = self.topics.get(topic).map(|topic| topic.incarnation);
        if of != partition || sender.topic != topic || Some(sender.incarnation) != incarnation {
            return Err(format!(
                "a record of {}/{of}, incarnation {}",
                sender.topic, sender.incarnation
            ));
        }
        if sequence >= sender.sent[partition as usize] {
            return Err(format!("a record that was never sent: {shown}"));
        }
        if value_of(id, partition, &sender.bytes) != value {
            return Err(format!("other bytes than were sent: {shown}"));
        }
        Ok(id)
    }

    /// Takes what was found as what is known, and opens the account for the next time.
    pub(crate) fn settle(&mut self, found: &Found) {
        for (name, topic) in &mut self.topics {
            let Some(found) = found.topics.get(name) else {
                topic.existence = Existence::Gone;
                continue;
            };
            topic.existence = Existence::There;
            topic.kind = found.kind;
            topic.switching = None;
            for (partition, found) in topic.partitions.iter_mut().zip(&found.partitions) {
                let offsets = found.log_start..;
                *partition = Partition {
                    epoch: found.epoch,
                    known: offsets.zip(found.records.iter().copied()).collect(),
                    // A recovery and a clean stop sync what they keep.
                    durable_to: found.end(),
                    read_to: found.end(),
                    trimmed: found.log_start,
                    trimming: found.log_start,
                };
            }
        }
        for (key, commit) in &mut self.commits {
            *commit = Commit {
                acknowledged: found.commits.get(key).copied(),
                pending: None,
            };
        }
        self.is_closed = false;
        self.complaints.clear();
        self.counts = Counts::default();
    }
}

/// The value of a record: who it is from, and bytes that follow from that.
pub(crate) fn value_of(id: RecordId, partition: u32, bytes: &Range<u64>) -> Bytes {
    let stream = u64::from(id.writer) << 40 | u64::from(partition) << 32 | u64::from(id.sequence);
    let mut random = Random::new(0, stream);
    let length = usize::try_from(random.within(bytes.clone())).unwrap_or_default();
    let mut value = format!("{} {partition} {} ", id.writer, id.sequence).into_bytes();
    while value.len() < length {
        value.extend_from_slice(&random.next().to_le_bytes());
    }
    value.into()
}
