//! Groups of the newer protocol (KIP-848): the coordinator works out the assignment, and leads each
//! member towards it by its heartbeats.
//!
//! Everything that matters is in the log: who the members are, the target assignment, and what each
//! owns by now. In memory only are the times ([`Soft`]), which start anew after a restart.

mod heartbeat;
mod leave;
mod reconcile;
mod regexes;
mod stay;
mod target;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use sapwood_model::{PartitionId, Timestamp, TopicId, TopicName};

pub(crate) use heartbeat::{check, heartbeat};
pub(crate) use leave::{by_request as leave, revoke_time_is_up, session_may_be_over};

use crate::{
    Assignor, CurrentAssignment, Epoch, GroupError, GroupId, InstanceId, MemberId, MemberMetadata,
    Partitions, Record, ResolvedRegex,
    decision::{Revoking, TimerKind},
    records::{ConsumerMetadata, MemberState},
};

/// A group of the newer kind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ConsumerGroup {
    /// None until its record is read: in a compacted log members may come before their group.
    pub(crate) metadata: Option<ConsumerMetadata>,
    /// Up to which epoch the targets are worked out.
    pub(crate) target_epoch: Option<Epoch>,
    pub(crate) members: BTreeMap<MemberId, MemberMetadata>,
    pub(crate) targets: BTreeMap<MemberId, Partitions>,
    pub(crate) currents: BTreeMap<MemberId, CurrentAssignment>,
    pub(crate) regexes: BTreeMap<Arc<str>, ResolvedRegex>,
    /// The static ones among the members. Follows from `members`.
    statics: BTreeMap<InstanceId, MemberId>,
    /// Who may still read a partition: it is assigned to it, or it has not given it up. Follows from
    /// `currents`.
    owners: HashMap<(TopicId, PartitionId), MemberId>,
    /// Not in the log.
    pub(crate) soft: Soft,
}

/// What a restart loses of a group, and starts anew.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Soft {
    /// When a member has been silent for too long.
    sessions: BTreeMap<MemberId, Timestamp>,
    /// Who has to give up what until when.
    revoking: BTreeMap<MemberId, Revoking>,
    /// The version of the topics that were looked at last.
    topics_seen: Option<u64>,
}

impl Soft {
    /// The timers that go with it.
    pub(crate) fn timers(&self) -> impl Iterator<Item = (TimerKind, Timestamp)> {
        let sessions = self.sessions.iter();
        let sessions = sessions.map(|(id, end)| (TimerKind::Session(id.clone()), *end));
        let revoking = self.revoking.iter();
        let revoking = revoking.map(|(id, until)| (TimerKind::Revoke(id.clone()), until.deadline));
        sessions.chain(revoking)
    }
}

impl ConsumerGroup {
    /// The group's epoch.
    pub(crate) fn epoch(&self) -> Epoch {
        self.metadata.unwrap_or_default().epoch
    }

    /// The epoch of the target assignment.
    pub(crate) fn target_epoch(&self) -> Epoch {
        self.target_epoch.unwrap_or_default()
    }

    /// Since when the group has had no members; none while it has. The last one that goes raises the
    /// epoch, and nobody after it.
    pub(crate) fn empty_since(&self) -> Option<Timestamp> {
        let metadata = self.metadata.filter(|_| self.members.is_empty());
        metadata.map(|metadata| metadata.changed_at)
    }

    /// Whether no record of the group is left.
    pub(crate) fn is_nothing(&self) -> bool {
        self.metadata.is_none()
            && self.target_epoch.is_none()
            && self.members.is_empty()
            && self.targets.is_empty()
            && self.currents.is_empty()
            && self.regexes.is_empty()
    }

    /// Applies one of the group's own records, in whatever order a compacted log has them.
    pub(crate) fn apply(&mut self, record: Record) {
        match record {
            Record::Consumer { value, .. } => self.metadata = value,
            Record::Target { value, .. } => self.target_epoch = value,
            Record::Member { member, value, .. } => self.apply_member(member, value),
            Record::TargetMember { member, value, .. } => set(&mut self.targets, member, value),
            Record::Current { member, value, .. } => self.apply_current(member, value),
            Record::Regex { regex, value, .. } => set(&mut self.regexes, regex, value),
            Record::Offset { .. } | Record::Classic { .. } => {}
        }
    }

    fn apply_member(&mut self, id: MemberId, value: Option<MemberMetadata>) {
        let instance = self
            .members
            .get(&id)
            .and_then(|member| member.instance_id.clone());
        if let Some(instance) = instance
            && self.statics.get(&instance) == Some(&id)
        {
            self.statics.remove(&instance);
        }
        match &value {
            Some(member) => {
                if let Some(instance) = &member.instance_id {
                    self.statics.insert(instance.clone(), id.clone());
                }
            }
            None => {
                self.soft.sessions.remove(&id);
                self.soft.revoking.remove(&id);
            }
        }
        set(&mut self.members, id, value);
    }

    fn apply_current(&mut self, id: MemberId, value: Option<CurrentAssignment>) {
        if let Some(before) = self.currents.get(&id) {
            for partition in before
                .assigned
                .iter()
                .chain(before.pending_revocation.iter())
            {
                if self.owners.get(&partition) == Some(&id) {
                    self.owners.remove(&partition);
                }
            }
        }
        if let Some(now) = &value {
            for partition in now.assigned.iter().chain(now.pending_revocation.iter()) {
                self.owners.insert(partition, id.clone());
            }
        }
        set(&mut self.currents, id, value);
    }

    /// Every record that the group consists of.
    pub(crate) fn records(&self, group: &GroupId) -> Vec<Record> {
        let group = || group.clone();
        let mut records = Vec::new();
        let value = self.metadata;
        records.extend(value.map(|value| Record::Consumer {
            group: group(),
            value: Some(value),
        }));
        records.extend(self.regexes.iter().map(|(regex, value)| Record::Regex {
            group: group(),
            regex: regex.clone(),
            value: Some(value.clone()),
        }));
        records.extend(self.members.iter().map(|(member, value)| Record::Member {
            group: group(),
            member: member.clone(),
            value: Some(value.clone()),
        }));
        let value = self.target_epoch;
        records.extend(value.map(|value| Record::Target {
            group: group(),
            value: Some(value),
        }));
        records.extend(
            self.targets
                .iter()
                .map(|(member, value)| Record::TargetMember {
                    group: group(),
                    member: member.clone(),
                    value: Some(value.clone()),
                }),
        );
        records.extend(self.currents.iter().map(|(member, value)| Record::Current {
            group: group(),
            member: member.clone(),
            value: Some(value.clone()),
        }));
        records
    }

    /// The times as they start after a restart. What members had to give up gets its full time again.
    pub(crate) fn restarted(&self, now: Timestamp, session_timeout_ms: u32) -> Soft {
        let end = crate::later(now, session_timeout_ms);
        let unrevoked = self.currents.iter().filter_map(|(id, current)| {
            let timeout = self.members.get(id)?.rebalance_timeout_ms;
            Some((id.clone(), revoking(current, now, timeout)?))
        });
        Soft {
            sessions: self.members.keys().map(|id| (id.clone(), end)).collect(),
            revoking: unrevoked.collect(),
            topics_seen: None,
        }
    }

    /// Moves the end of a member's session.
    pub(crate) fn extend_session(&mut self, member: MemberId, deadline: Timestamp) {
        if self.members.contains_key(&member) {
            self.soft.sessions.insert(member, deadline);
        }
    }

    /// Sets what a member has to give up until when.
    pub(crate) fn set_revoking(&mut self, member: MemberId, until: Option<Revoking>) {
        set(&mut self.soft.revoking, member, until);
    }

    /// Remembers which topics were looked at.
    pub(crate) fn saw_topics(&mut self, version: u64) {
        self.soft.topics_seen = Some(version);
    }

    /// Whether a member may commit or fetch offsets at an epoch.
    ///
    /// # Errors
    /// [`GroupError::UnknownMember`], [`GroupError::FencedInstance`] and
    /// [`GroupError::StaleMemberEpoch`].
    pub(crate) fn check_offsets(
        &self,
        id: &MemberId,
        instance: Option<&InstanceId>,
        given: Epoch,
    ) -> Result<(), GroupError> {
        if let Some(instance) = instance {
            let holder = self
                .statics
                .get(instance)
                .ok_or(GroupError::UnknownMember)?;
            if holder != id {
                return Err(GroupError::FencedInstance);
            }
        }
        let current = self.currents.get(id).ok_or(GroupError::UnknownMember)?;
        match current.member_epoch {
            Some(epoch) if epoch == given => Ok(()),
            other => Err(GroupError::StaleMemberEpoch {
                given,
                current: other.unwrap_or_default(),
            }),
        }
    }

    /// Whether any member reads a topic.
    pub(crate) fn is_subscribed(&self, topic: &TopicName) -> bool {
        let mut members = self.members.values();
        members.any(|member| subscription(member, &self.regexes).any(|name| name == topic))
    }

    /// Which assignor the group goes by.
    pub(crate) fn assignor(&self) -> Assignor {
        target::preferred(self.members.values())
    }

    /// Whether every member owns what it is to own, and is there.
    pub(crate) fn is_settled(&self) -> bool {
        self.epoch() == self.target_epoch()
            && self.members.keys().all(|id| {
                self.currents.get(id).is_some_and(|current| {
                    current.state == MemberState::Stable
                        && current.member_epoch == Some(self.target_epoch())
                })
            })
    }
}

/// The topics of one member; one may come twice.
fn subscription<'a>(
    member: &'a MemberMetadata,
    regexes: &'a BTreeMap<Arc<str>, ResolvedRegex>,
) -> impl Iterator<Item = &'a TopicName> {
    let resolved = member
        .subscribed_topic_regex
        .as_ref()
        .and_then(|regex| regexes.get(regex));
    let resolved = resolved.into_iter().flat_map(|resolved| &resolved.topics);
    member.subscribed_topic_names.iter().chain(resolved)
}

/// How long a member has to give up what its current assignment says; none if nothing.
fn revoking(
    current: &CurrentAssignment,
    now: Timestamp,
    rebalance_timeout_ms: u32,
) -> Option<Revoking> {
    (current.state == MemberState::UnrevokedPartitions).then(|| Revoking {
        epoch: current.member_epoch.unwrap_or_default(),
        partitions: current.pending_revocation.clone(),
        deadline: crate::later(now, rebalance_timeout_ms),
    })
}

/// Puts a record's value into a map, or takes it out for a tombstone.
fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => {
            map.insert(key, value);
        }
        None => {
            map.remove(&key);
        }
    }
}

/// The record that removes another one.
pub(crate) fn tombstone(record: Record) -> Record {
    match record {
        Record::Offset {
            group,
            topic,
            partition,
            ..
        } => Record::Offset {
            group,
            topic,
            partition,
            value: None,
        },
        Record::Classic { group, .. } => Record::Classic { group, value: None },
        Record::Consumer { group, .. } => Record::Consumer { group, value: None },
        Record::Member { group, member, .. } => Record::Member {
            group,
            member,
            value: None,
        },
        Record::Target { group, .. } => Record::Target { group, value: None },
        Record::TargetMember { group, member, .. } => Record::TargetMember {
            group,
            member,
            value: None,
        },
        Record::Current { group, member, .. } => Record::Current {
            group,
            member,
            value: None,
        },
        Record::Regex { group, regex, .. } => Record::Regex {
            group,
            regex,
            value: None,
        },
    }
}
