//! The target assignment: who is to own what in the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use sapwood_model::{TopicId, TopicName};

use super::subscription;
use crate::{
    Assignor, Context, MemberId, MemberMetadata, Partitions, ResolvedRegex, Topics,
    assignor::Subscriber,
};

/// A group's members as an event leaves them, before it is carried out.
pub(super) struct Outlook<'a> {
    pub(super) members: BTreeMap<&'a MemberId, &'a MemberMetadata>,
    pub(super) targets: BTreeMap<&'a MemberId, &'a Partitions>,
    pub(super) regexes: BTreeMap<Arc<str>, ResolvedRegex>,
}

impl Outlook<'_> {
    /// Tells whether any subscribed topic was created, deleted or has other partitions than before
    /// (FNV-1a over names, ids and counts in order; 0 only when there are no topics).
    pub(super) fn metadata_hash(&self, topics: &dyn Topics) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut any = false;
        for name in self.subscribed() {
            let Some(topic) = topics.named(name) else {
                continue;
            };
            any = true;
            let id = topic.id.0.to_be_bytes();
            let count = topic.partitions.to_be_bytes();
            for byte in name.as_str().bytes().chain([0]).chain(id).chain(count) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
        if any { hash.max(1) } else { 0 }
    }

    /// The topics that any member reads.
    fn subscribed(&self) -> BTreeSet<&TopicName> {
        let members = self.members.values();
        members
            .flat_map(|member| subscription(member, &self.regexes))
            .collect()
    }

    /// Works out the target of every member.
    pub(super) fn assign(&self, context: &Context<'_>) -> BTreeMap<MemberId, Partitions> {
        let mut counts: BTreeMap<TopicId, u32> = BTreeMap::new();
        let mut ids: BTreeMap<&TopicName, TopicId> = BTreeMap::new();
        for name in self.subscribed() {
            if let Some(topic) = context.topics.named(name) {
                counts.insert(topic.id, topic.partitions);
                ids.insert(name, topic.id);
            }
        }
        let subscribers = self.members.iter().map(|(id, member)| {
            let names = subscription(member, &self.regexes);
            let subscriber = Subscriber {
                instance_id: member.instance_id.clone(),
                topics: names.filter_map(|name| ids.get(name).copied()).collect(),
                previous: self.targets.get(id).copied().cloned().unwrap_or_default(),
            };
            ((*id).clone(), subscriber)
        });
        preferred(self.members.values().copied()).assign(&subscribers.collect(), &counts)
    }
}

/// Which assignor most members prefer; of equal ones the first.
pub(super) fn preferred<'a>(members: impl Iterator<Item = &'a MemberMetadata>) -> Assignor {
    let names = members.filter_map(|member| member.server_assignor.as_deref());
    let mut votes: BTreeMap<Assignor, usize> = BTreeMap::new();
    for assignor in names.filter_map(Assignor::by_name) {
        *votes.entry(assignor).or_default() += 1;
    }
    let most = votes.values().copied().max();
    let winner = votes.into_iter().find(|(_, count)| Some(*count) == most);
    winner.map(|(assignor, _)| assignor).unwrap_or_default()
}
