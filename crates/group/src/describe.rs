//! Groups as administrators see them.

use std::{collections::BTreeSet, fmt, sync::Arc};

use bytes::Bytes;
use sapwood_model::TopicName;

use crate::{
    Assignor, Client, CurrentAssignment, Epoch, Generation, GroupId, InstanceId, MemberId,
    Partitions,
    classic::{ClassicGroup, State},
    consumer::ConsumerGroup,
    group::{Group, Kind},
};

/// Of which kind a group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GroupKind {
    /// Its members assign. Groups that only have offsets count as this.
    Classic,
    /// Its coordinator assigns (KIP-848).
    Consumer,
}

impl fmt::Display for GroupKind {
    /// Kafka's name of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Classic => "classic",
            Self::Consumer => "consumer",
        })
    }
}

/// Where a group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GroupState {
    /// No members.
    Empty,
    /// Classic: members are joining the next generation.
    PreparingRebalance,
    /// Classic: the leader is working out the assignment.
    CompletingRebalance,
    /// Newer kind: the assignment is yet to be worked out.
    Assigning,
    /// Newer kind: members are on their way to the assignment.
    Reconciling,
    /// Every member has what it is to have.
    Stable,
    /// There is no such group.
    Dead,
}

impl fmt::Display for GroupState {
    /// Kafka's name of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Assigning => "Assigning",
            Self::Reconciling => "Reconciling",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        })
    }
}

/// A group in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub group: GroupId,
    /// Of which kind it is.
    pub kind: GroupKind,
    /// Where it is.
    pub state: GroupState,
    /// What its members are; empty when it never had any.
    pub protocol_type: Arc<str>,
    /// How many members it has.
    pub members: usize,
}

/// A classic group in detail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassicDescription {
    /// Where it is.
    pub state: GroupState,
    /// The generation.
    pub generation: Generation,
    /// What its members are.
    pub protocol_type: Arc<str>,
    /// The protocol of the generation; empty unless the group is stable, as in Kafka.
    pub protocol: Arc<str>,
    /// The members, by their ids.
    pub members: Vec<ClassicMemberDescription>,
}

/// A member of a classic group in detail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassicMemberDescription {
    /// Its id.
    pub member_id: MemberId,
    /// The lasting name of a static member.
    pub instance_id: Option<InstanceId>,
    /// Who it is.
    pub client: Client,
    /// What it said for the protocol of the generation; empty unless the group is stable.
    pub metadata: Bytes,
    /// What the leader gave it; empty unless the group is stable.
    pub assignment: Bytes,
}

/// A group of the newer kind in detail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerDescription {
    /// Where it is.
    pub state: GroupState,
    /// The group's epoch.
    pub epoch: Epoch,
    /// The epoch of the target assignment.
    pub assignment_epoch: Epoch,
    /// Which assignor it goes by.
    pub assignor: Assignor,
    /// The members, by their ids.
    pub members: Vec<ConsumerMemberDescription>,
}

/// A member of a group of the newer kind in detail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerMemberDescription {
    /// Its id.
    pub member_id: MemberId,
    /// The lasting name of a static member.
    pub instance_id: Option<InstanceId>,
    /// Where it stands.
    pub rack_id: Option<Arc<str>>,
    /// Who it is.
    pub client: Client,
    /// The topics that it reads, by name.
    pub subscribed_topic_names: BTreeSet<TopicName>,
    /// Stands for more of them.
    pub subscribed_topic_regex: Option<Arc<str>>,
    /// The assignor that it prefers.
    pub server_assignor: Option<Arc<str>>,
    /// What it owns.
    pub current: CurrentAssignment,
    /// What it is to own.
    pub target: Partitions,
}

pub(crate) fn listed(id: &GroupId, group: &Group) -> Listed {
    let (kind, state, protocol_type, members) = match &group.kind {
        Kind::Plain => (GroupKind::Classic, GroupState::Empty, None, 0),
        Kind::Classic { live, .. } => {
            let members = live.members.len();
            (
                GroupKind::Classic,
                classic_state(live),
                live.protocol_type.clone(),
                members,
            )
        }
        Kind::Consumer(group) => {
            let protocol_type = Some("consumer".into());
            (
                GroupKind::Consumer,
                consumer_state(group),
                protocol_type,
                group.members.len(),
            )
        }
    };
    Listed {
        group: id.clone(),
        kind,
        state,
        protocol_type: protocol_type.unwrap_or_default(),
        members,
    }
}

fn classic_state(group: &ClassicGroup) -> GroupState {
    match group.state {
        State::Empty => GroupState::Empty,
        State::Preparing(_) => GroupState::PreparingRebalance,
        State::Completing => GroupState::CompletingRebalance,
        State::Stable => GroupState::Stable,
    }
}

fn consumer_state(group: &ConsumerGroup) -> GroupState {
    if group.members.is_empty() {
        GroupState::Empty
    } else if group.epoch() > group.target_epoch() {
        GroupState::Assigning
    } else if group.is_settled() {
        GroupState::Stable
    } else {
        GroupState::Reconciling
    }
}

/// None for a group of the newer kind.
pub(crate) fn classic(group: &Group) -> Option<ClassicDescription> {
    let live = match &group.kind {
        Kind::Plain => &ClassicGroup::default(),
        Kind::Classic { live, .. } => live,
        Kind::Consumer(_) => return None,
    };
    let stable = live.state == State::Stable;
    let protocol = live.protocol.clone().filter(|_| stable);
    let members = live
        .members
        .iter()
        .map(|(id, member)| ClassicMemberDescription {
            member_id: id.clone(),
            instance_id: member.instance_id.clone(),
            client: member.client.clone(),
            metadata: member.metadata(protocol.as_deref()),
            assignment: Some(member.assignment.clone())
                .filter(|_| stable)
                .unwrap_or_default(),
        });
    Some(ClassicDescription {
        state: classic_state(live),
        generation: live.generation,
        protocol_type: live.protocol_type.clone().unwrap_or_default(),
        members: members.collect(),
        protocol: protocol.unwrap_or_default(),
    })
}

/// None for a group of the classic kind.
pub(crate) fn consumer(group: &Group) -> Option<ConsumerDescription> {
    let Kind::Consumer(group) = &group.kind else {
        return None;
    };
    let members = group
        .members
        .iter()
        .map(|(id, member)| ConsumerMemberDescription {
            member_id: id.clone(),
            instance_id: member.instance_id.clone(),
            rack_id: member.rack_id.clone(),
            client: Client {
                id: member.client_id.clone(),
                host: member.client_host.clone(),
            },
            subscribed_topic_names: member.subscribed_topic_names.clone(),
            subscribed_topic_regex: member.subscribed_topic_regex.clone(),
            server_assignor: member.server_assignor.clone(),
            current: group.currents.get(id).cloned().unwrap_or_default(),
            target: group.targets.get(id).cloned().unwrap_or_default(),
        });
    Some(ConsumerDescription {
        state: consumer_state(group),
        epoch: group.epoch(),
        assignment_epoch: group.target_epoch(),
        assignor: group.assignor(),
        members: members.collect(),
    })
}
