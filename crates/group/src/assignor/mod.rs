//! Assignors: pure functions from subscriptions to who reads what.

mod range;
mod uniform;

use std::collections::{BTreeMap, BTreeSet};

use sapwood_model::{PartitionId, TopicId};

use crate::{InstanceId, MemberId, Partitions};

/// How the partitions of a group of the newer kind are shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Assignor {
    /// As evenly as the subscriptions allow, moving as few partitions as that takes.
    #[default]
    Uniform,
    /// Each topic by itself, in runs of consecutive partitions: members that read two topics of the
    /// same size get the same partitions of both. Moves whatever that takes.
    Range,
}

impl Assignor {
    /// All there are, the default first.
    pub const ALL: [Self; 2] = [Self::Uniform, Self::Range];

    /// The name that clients ask for it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }

    /// The assignor with a name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|assignor| assignor.name() == name)
    }

    /// Shares the partitions of topics, given by how many each has, among members. Every partition
    /// of a topic that somebody is subscribed to gets exactly one member, which is subscribed to it.
    /// Depends on nothing but its arguments.
    pub fn assign(
        self,
        members: &BTreeMap<MemberId, Subscriber>,
        topics: &BTreeMap<TopicId, u32>,
    ) -> BTreeMap<MemberId, Partitions> {
        match self {
            Self::Uniform => uniform::assign(members, topics),
            Self::Range => range::assign(members, topics),
        }
    }
}

/// A member, as an assignor sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subscriber {
    /// The lasting name of a static member.
    pub instance_id: Option<InstanceId>,
    /// The topics that it reads.
    pub topics: BTreeSet<TopicId>,
    /// What it was to own so far.
    pub previous: Partitions,
}

/// Every partition of a topic.
fn partitions_of(count: u32) -> impl Iterator<Item = PartitionId> {
    (0..count).map(PartitionId)
}
