//! One group: its committed offsets, and its members of either kind.

use std::collections::BTreeMap;

use sapwood_model::{PartitionId, TopicName};

use crate::{
    CommittedOffset, Context, GroupId, Record, Settings,
    classic::{ClassicGroup, State},
    consumer::{ConsumerGroup, tombstone},
    records::ClassicMetadata,
};

/// A group. It is of one kind while it has members; an empty one becomes whichever comes.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) kind: Kind,
    /// How far it has read.
    pub(crate) offsets: BTreeMap<TopicName, BTreeMap<PartitionId, CommittedOffset>>,
}

/// Of which kind a group is, with what makes it up.
#[derive(Debug, Default)]
pub(crate) enum Kind {
    /// It has only ever had offsets.
    #[default]
    Plain,
    /// Classic: as the log has it, and as it is.
    Classic {
        recorded: Option<Box<ClassicMetadata>>,
        live: Box<ClassicGroup>,
    },
    /// Of the newer kind.
    Consumer(Box<ConsumerGroup>),
}

impl Group {
    /// The committed offset of a partition.
    pub(crate) fn offset(
        &self,
        topic: &TopicName,
        partition: PartitionId,
    ) -> Option<&CommittedOffset> {
        self.offsets.get(topic)?.get(&partition)
    }

    /// Whether it has no members; those who were promised to become some do not count.
    pub(crate) fn is_empty(&self) -> bool {
        match &self.kind {
            Kind::Plain => true,
            Kind::Classic { live, .. } => live.state == State::Empty,
            Kind::Consumer(group) => group.members.is_empty(),
        }
    }

    /// Whether nothing is left of it.
    pub(crate) fn is_nothing(&self) -> bool {
        let nothing = match &self.kind {
            Kind::Plain => true,
            Kind::Classic { .. } => false,
            Kind::Consumer(group) => group.is_nothing(),
        };
        nothing && self.offsets.is_empty()
    }

    /// The records that remove what makes up an empty group, but for its offsets.
    pub(crate) fn tombstones(&self, id: &GroupId) -> Vec<Record> {
        match &self.kind {
            Kind::Plain => Vec::new(),
            Kind::Classic { recorded, .. } => {
                let any = recorded.iter();
                any.map(|_| Record::Classic {
                    group: id.clone(),
                    value: None,
                })
                .collect()
            }
            Kind::Consumer(group) => group.records(id).into_iter().map(tombstone).collect(),
        }
    }

    /// Every record that it consists of.
    pub(crate) fn records(&self, id: &GroupId) -> Vec<Record> {
        let mut records = match &self.kind {
            Kind::Plain => Vec::new(),
            Kind::Classic { recorded, .. } => {
                let recorded = recorded.iter().map(|value| Record::Classic {
                    group: id.clone(),
                    value: Some((**value).clone()),
                });
                recorded.collect()
            }
            Kind::Consumer(group) => group.records(id),
        };
        records.extend(self.offsets.iter().flat_map(|(topic, partitions)| {
            partitions.iter().map(|(partition, value)| Record::Offset {
                group: id.clone(),
                topic: topic.clone(),
                partition: *partition,
                value: Some(value.clone()),
            })
        }));
        records
    }

    /// Applies a record of the group. A record of the other kind makes the group that: the tombstones of
    /// what it was come before in the log, or were compacted away together with it.
    pub(crate) fn apply(&mut self, record: Record) {
        match record {
            Record::Offset {
                topic,
                partition,
                value,
                ..
            } => {
                self.apply_offset(topic, partition, value);
            }
            Record::Classic {
                value: Some(value), ..
            } => {
                let live = Box::new(ClassicGroup::from_record(&value));
                let recorded = Some(Box::new(value));
                self.kind = Kind::Classic { recorded, live };
            }
            Record::Classic { value: None, .. } => {
                if matches!(self.kind, Kind::Classic { .. }) {
                    self.kind = Kind::Plain;
                }
            }
            record => self.apply_consumer(record),
        }
    }

    fn apply_offset(
        &mut self,
        topic: TopicName,
        partition: PartitionId,
        value: Option<CommittedOffset>,
    ) {
        match value {
            Some(value) => {
                self.offsets
                    .entry(topic)
                    .or_default()
                    .insert(partition, value);
            }
            None => {
                let Some(partitions) = self.offsets.get_mut(&topic) else {
                    return;
                };
                partitions.remove(&partition);
                if partitions.is_empty() {
                    self.offsets.remove(&topic);
                }
            }
        }
    }

    fn apply_consumer(&mut self, record: Record) {
        let deletes = matches!(
            &record,
            Record::Consumer { value: None, .. }
                | Record::Member { value: None, .. }
                | Record::Target { value: None, .. }
                | Record::TargetMember { value: None, .. }
                | Record::Current { value: None, .. }
                | Record::Regex { value: None, .. }
        );
        if !matches!(self.kind, Kind::Consumer(_)) {
            if deletes {
                return;
            }
            self.kind = Kind::Consumer(Box::default());
        }
        let Kind::Consumer(group) = &mut self.kind else {
            return;
        };
        group.apply(record);
        if group.is_nothing() {
            self.kind = Kind::Plain;
        }
    }

    /// Whether members read a topic, or may: what classic members say is not always understood.
    pub(crate) fn may_read(&self, topic: &TopicName) -> bool {
        match &self.kind {
            Kind::Plain => false,
            Kind::Classic { live, .. } if live.members.is_empty() => false,
            Kind::Classic { live, .. } => {
                let topics = live.subscribed_topics();
                topics.is_none_or(|topics| topics.contains(topic))
            }
            Kind::Consumer(group) => group.is_subscribed(topic),
        }
    }

    /// The records that remove the offsets that nobody has used for the time that they are kept.
    ///
    /// As in Kafka: offsets of a group without members are kept from when it became empty, or from their
    /// commits if that was later; those of a group that never had members from their commits. While there
    /// are members only offsets of topics that none of them reads can expire, from their commits. An
    /// expiry that came with the commit goes before all that. Unlike in Kafka the offsets of an empty
    /// group of the newer kind, too, are kept from when it became empty.
    pub(crate) fn expired(
        &self,
        id: &GroupId,
        settings: &Settings,
        context: &Context<'_>,
    ) -> Vec<Record> {
        let kept_ms = i64::try_from(settings.offsets_retention_ms).unwrap_or(i64::MAX);
        let now = context.now.0;
        let empty_since = match &self.kind {
            Kind::Plain => None,
            Kind::Classic { live, .. } => live.since.filter(|_| live.protocol_type.is_some()),
            Kind::Consumer(group) => group.empty_since(),
        };
        let empty = self.is_empty();
        // A rebalance decides who reads what.
        let in_between = match &self.kind {
            Kind::Classic { live, .. } => !empty && live.state != State::Stable,
            Kind::Plain | Kind::Consumer(_) => false,
        };
        if in_between {
            return Vec::new();
        }
        let is_over = |offset: &CommittedOffset| match offset.expire_timestamp {
            Some(expires) => now >= expires.0,
            None => {
                let committed = offset.commit_timestamp;
                let from = empty_since
                    .filter(|_| empty)
                    .map_or(committed, |at| at.max(committed));
                now.saturating_sub(from.0) >= kept_ms
            }
        };
        let topics = self
            .offsets
            .iter()
            .filter(|(topic, _)| empty || !self.may_read(topic));
        let over = topics.flat_map(|(topic, partitions)| {
            let over = partitions.iter().filter(|(_, offset)| is_over(offset));
            over.map(|(partition, _)| Record::Offset {
                group: id.clone(),
                topic: topic.clone(),
                partition: *partition,
                value: None,
            })
        });
        over.collect()
    }
}
