//! Groups of the classic protocol: the members work out the assignment, the coordinator gathers them.
//!
//! What a rebalance does between its beginning and its end is in memory only; the log has the group as
//! its last rebalance left it. [`ClassicGroup`] is the live group. An event is decided on a copy of it
//! ([`Turn`]) whose members are shared, and the copy takes the original's place as an effect. So
//! nothing of an event that is not carried out can be seen, whatever it did half-way.

mod join;
mod leave;
mod protocols;
mod rebalance;
mod sync;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use sapwood_model::{Timestamp, TopicName};

pub use protocols::assigned_partitions;
pub(crate) use sync::heartbeat;

use crate::{
    CallId, Client, Context, Decision, Effect, Generation, GroupError, GroupId, InstanceId,
    JoinedMember, MemberId, Protocol, Record, Settings,
    decision::Soft,
    later,
    records::{ClassicMemberMetadata, ClassicMetadata},
};

/// What members of consumer groups call themselves. Only what they say is looked into.
const CONSUMER: &str = "consumer";

/// A live classic group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ClassicGroup {
    pub(crate) state: State,
    /// Since when it is in this state; unknown for what old brokers have written.
    pub(crate) since: Option<Timestamp>,
    pub(crate) protocol_type: Option<Arc<str>>,
    pub(crate) generation: Generation,
    /// The protocol of the generation.
    pub(crate) protocol: Option<Arc<str>>,
    pub(crate) leader: Option<MemberId>,
    pub(crate) members: BTreeMap<MemberId, Arc<ClassicMember>>,
    /// The static ones among the members.
    statics: BTreeMap<InstanceId, MemberId>,
    /// Ids that were given to callers who are to join again with them, and until when.
    promised: BTreeMap<MemberId, Timestamp>,
    /// Who has been told its generation but has not asked for its assignment.
    unsynced: BTreeSet<MemberId>,
    /// How long these have for it.
    sync_deadline: Option<Timestamp>,
}

/// Where a classic group is.
///
/// Legal transitions: `Empty` to `Preparing` when somebody joins. `Preparing` to `Completing` when
/// everybody has joined or the time is up, or to `Empty` when nobody is left. `Completing` to `Stable`
/// when the leader has said who gets what; `Completing` and `Stable` to `Preparing` when members come,
/// go or change. Kafka's fifth state, Dead, is a group that is not there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum State {
    /// No members; perhaps offsets.
    #[default]
    Empty,
    /// Members are joining the next generation.
    Preparing(Gathering),
    /// The leader is working out the assignment.
    Completing,
    /// Every member has its assignment, or can get it.
    Stable,
}

/// How long members may still join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gathering {
    deadline: Timestamp,
    /// The delay of a group that was empty, which goes on for as long as members come.
    delay: Option<Delay>,
}

/// The delay before the first generation of a group that was empty.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Delay {
    /// It goes on no longer than until then.
    ends: Timestamp,
    /// Somebody has come since it was last prolonged.
    joined: bool,
}

/// A member of a live classic group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClassicMember {
    pub(crate) instance_id: Option<InstanceId>,
    pub(crate) client: Client,
    pub(crate) session_timeout_ms: u32,
    pub(crate) rebalance_timeout_ms: u32,
    /// What it speaks. After a restart only the protocol of the generation is known, until it joins.
    pub(crate) protocols: Vec<Protocol>,
    pub(crate) assignment: Bytes,
    /// It has not been in a generation yet.
    is_new: bool,
    /// A join that waits for the next generation.
    join_call: Option<CallId>,
    /// A sync that waits for the leader's.
    sync_call: Option<CallId>,
    /// When its session ends, unless it is heard or waits for a reply.
    pub(crate) deadline: Option<Timestamp>,
}

impl ClassicMember {
    /// What it says for a protocol; nothing if it does not speak it.
    pub(crate) fn metadata(&self, protocol: Option<&str>) -> Bytes {
        let spoken = self
            .protocols
            .iter()
            .find(|spoken| Some(&*spoken.name) == protocol);
        spoken
            .map(|spoken| spoken.metadata.clone())
            .unwrap_or_default()
    }
}

impl ClassicGroup {
    /// The group that a record tells of. Members' sessions start with [`ClassicGroup::start`].
    pub(crate) fn from_record(record: &ClassicMetadata) -> Self {
        let members = record.members.iter().map(|member| {
            let protocol = record.protocol.iter().map(|name| Protocol {
                name: name.clone(),
                metadata: member.subscription.clone(),
            });
            let live = ClassicMember {
                instance_id: member.instance_id.clone(),
                client: Client {
                    id: member.client_id.clone(),
                    host: member.client_host.clone(),
                },
                session_timeout_ms: member.session_timeout_ms,
                rebalance_timeout_ms: member.rebalance_timeout_ms,
                protocols: protocol.collect(),
                assignment: member.assignment.clone(),
                is_new: false,
                join_call: None,
                sync_call: None,
                deadline: None,
            };
            (member.member_id.clone(), Arc::new(live))
        });
        let statics = record.members.iter().filter_map(|member| {
            let instance = member.instance_id.clone()?;
            Some((instance, member.member_id.clone()))
        });
        Self {
            state: if record.members.is_empty() {
                State::Empty
            } else {
                State::Stable
            },
            since: record.current_state_timestamp,
            protocol_type: Some(record.protocol_type.clone()).filter(|name| !name.is_empty()),
            generation: record.generation,
            protocol: record.protocol.clone(),
            leader: record.leader.clone(),
            members: members.collect(),
            statics: statics.collect(),
            ..Self::default()
        }
    }

    /// What the log is to know of the group.
    pub(crate) fn to_record(&self) -> ClassicMetadata {
        let members = self
            .members
            .iter()
            .map(|(id, member)| ClassicMemberMetadata {
                member_id: id.clone(),
                instance_id: member.instance_id.clone(),
                client_id: member.client.id.clone(),
                client_host: member.client.host.clone(),
                rebalance_timeout_ms: member.rebalance_timeout_ms,
                session_timeout_ms: member.session_timeout_ms,
                subscription: member.metadata(self.protocol.as_deref()),
                assignment: member.assignment.clone(),
            });
        ClassicMetadata {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            current_state_timestamp: self.since,
            members: members.collect(),
        }
    }

    /// Whether it has neither members nor anybody who was promised to become one.
    pub(crate) fn is_unused(&self) -> bool {
        self.state == State::Empty && self.members.is_empty() && self.promised.is_empty()
    }

    /// Starts every member's session, after a restart.
    pub(crate) fn start(&mut self, now: Timestamp) {
        for member in self.members.values_mut() {
            let member = Arc::make_mut(member);
            member.deadline = Some(later(now, member.session_timeout_ms));
        }
    }

    /// Moves the end of a member's session.
    pub(crate) fn extend_session(&mut self, member: &MemberId, deadline: Timestamp) {
        if let Some(member) = self.members.get_mut(member) {
            Arc::make_mut(member).deadline = Some(deadline);
        }
    }

    /// Finds the member that a caller says it is.
    ///
    /// # Errors
    /// [`GroupError::FencedInstance`] when its instance id is another member's by now;
    /// [`GroupError::UnknownMember`] when there is no such member.
    pub(crate) fn member(
        &self,
        id: &MemberId,
        instance: Option<&InstanceId>,
    ) -> Result<&Arc<ClassicMember>, GroupError> {
        if let Some(instance) = instance {
            let holder = self
                .statics
                .get(instance)
                .ok_or(GroupError::UnknownMember)?;
            if holder != id {
                return Err(GroupError::FencedInstance);
            }
        }
        self.members.get(id).ok_or(GroupError::UnknownMember)
    }

    /// Whether a call's generation is the group's.
    fn check_generation(&self, given: Generation) -> Result<(), GroupError> {
        if given == self.generation {
            return Ok(());
        }
        Err(GroupError::IllegalGeneration {
            given,
            current: self.generation,
        })
    }

    /// Whether a member may commit offsets, and until when that keeps its session.
    ///
    /// # Errors
    /// Those of [`ClassicGroup::member`]; [`GroupError::IllegalGeneration`]; and
    /// [`GroupError::RebalanceInProgress`] while the leader works out the assignment: the member may
    /// already have lost what it commits. While members gather they commit what they are to give up.
    pub(crate) fn check_commit(
        &self,
        id: &MemberId,
        instance: Option<&InstanceId>,
        generation: Generation,
        now: Timestamp,
    ) -> Result<Timestamp, GroupError> {
        let member = self.member(id, instance)?;
        self.check_generation(generation)?;
        match self.state {
            State::Completing => Err(GroupError::RebalanceInProgress),
            _ => Ok(later(now, member.session_timeout_ms)),
        }
    }

    /// Whether offsets may be committed by somebody who is not a member: while there are none.
    pub(crate) fn takes_commits_of_strangers(&self) -> bool {
        self.state == State::Empty
    }

    /// Whether the members are consumers of topics, as opposed to Connect's workers, say.
    pub(crate) fn is_of_consumers(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER)
    }

    /// The topics that the members read. None when that cannot be known.
    pub(crate) fn subscribed_topics(&self) -> Option<BTreeSet<TopicName>> {
        if !self.is_of_consumers() {
            return None;
        }
        let protocol = self.protocol.as_deref();
        if protocol.is_none() && !self.members.is_empty() {
            return None;
        }
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(protocols::subscribed_topics(&member.metadata(protocol))?);
        }
        Some(topics)
    }

    /// The members, as a leader sees them.
    fn seen_by_leader(&self) -> Vec<JoinedMember> {
        let members = self.members.iter().map(|(id, member)| JoinedMember {
            member_id: id.clone(),
            instance_id: member.instance_id.clone(),
            metadata: member.metadata(self.protocol.as_deref()),
        });
        members.collect()
    }
}

/// An event's work on a copy of a group.
pub(crate) struct Turn<'a> {
    id: &'a GroupId,
    settings: &'a Settings,
    context: &'a Context<'a>,
    group: ClassicGroup,
    out: Decision,
}

impl<'a> Turn<'a> {
    /// Begins with a group as it is; `out` has what was decided before.
    pub(crate) fn new(
        id: &'a GroupId,
        settings: &'a Settings,
        context: &'a Context<'a>,
        group: ClassicGroup,
        out: Decision,
    ) -> Self {
        Self {
            id,
            settings,
            context,
            group,
            out,
        }
    }

    /// The decision: the copy is to take the group's place.
    fn finish(mut self) -> Decision {
        let next = Box::new(self.group);
        let group = self.id.clone();
        self.out.effects.push(Effect(Soft::Classic { group, next }));
        self.out
    }

    /// Logs the group as it now is.
    fn record(&mut self) {
        self.out.records.push(Record::Classic {
            group: self.id.clone(),
            value: Some(self.group.to_record()),
        });
    }

    /// A member of the copy, to be changed.
    fn member_mut(&mut self, id: &MemberId) -> Option<&mut ClassicMember> {
        self.group.members.get_mut(id).map(Arc::make_mut)
    }
}
