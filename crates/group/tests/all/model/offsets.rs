//! What has been committed, as whoever got the answers knows it.

use std::collections::BTreeMap;

use sapwood_group::{
    Commit, CommitOffset, Committer, DeleteOffsets, FetchOffsets, GroupState, InstanceId, MemberId,
    Reply, Request,
};
use sapwood_model::{Offset, PartitionId, TopicName, TopicPartition};

use super::{classic::ClassicClient, consumer::ConsumerClient, world::World};
use crate::host::{Host, group, text};

/// Members that were killed, but whose last words may still be on their way.
type Ghost = (MemberId, Option<InstanceId>, u32);

#[derive(Default)]
pub(crate) struct Ledger {
    committed: BTreeMap<(TopicName, PartitionId), Offset>,
    next: u64,
    ghosts: Vec<Ghost>,
}

impl Ledger {
    pub(crate) fn bury_classic(&mut self, client: &ClassicClient) {
        if let Some(member) = &client.member {
            self.ghosts
                .push((member.clone(), client.instance.clone(), client.generation));
        }
    }

    pub(crate) fn bury_consumer(&mut self, client: &ConsumerClient) {
        if let Some(epoch) = client.epoch {
            self.ghosts
                .push((client.id.clone(), client.instance.clone(), epoch.0));
        }
    }

    pub(crate) fn topic_deleted(&mut self, name: &str) {
        self.committed
            .retain(|(topic, _), _| topic.as_str() != name);
    }

    /// Somebody other than a member in good standing speaks of offsets.
    pub(crate) fn act(&mut self, world: &mut World) {
        match world.random.within(0..12) {
            0..=6 if !self.ghosts.is_empty() => {
                let at = world.random.below(self.ghosts.len());
                let (member, instance, epoch) = self.ghosts[at].clone();
                self.commit(world, &member, instance.as_ref(), epoch);
            }
            7..=9 => {
                let listed = world.host.groups.listed(&group());
                let empty = listed.is_none_or(|group| group.state == GroupState::Empty);
                self.commit_as(world, Committer::Alone, empty);
            }
            10 => self.delete_some(world),
            _ if world.random.one_in(4) => self.delete_group(world),
            _ => {}
        }
    }

    /// A commit of one who says that it is a member.
    pub(crate) fn commit(
        &mut self,
        world: &mut World,
        member: &MemberId,
        instance: Option<&InstanceId>,
        generation_or_epoch: u32,
    ) {
        let groups = &world.host.groups;
        let as_classic = groups.describe_classic(&group()).is_some_and(|group| {
            group.generation.0 == generation_or_epoch
                && group.state != GroupState::CompletingRebalance
                && group.members.iter().any(|one| one.member_id == *member)
        });
        let as_consumer = groups.describe_consumer(&group()).is_some_and(|group| {
            group.members.iter().any(|one| {
                one.member_id == *member
                    && one
                        .current
                        .member_epoch
                        .is_some_and(|epoch| epoch.0 == generation_or_epoch)
            })
        });
        let by = Committer::Member {
            member_id: member.clone(),
            instance_id: instance.cloned(),
            generation_or_epoch: Some(generation_or_epoch),
        };
        self.commit_as(world, by, as_classic || as_consumer);
    }

    fn commit_as(&mut self, world: &mut World, by: Committer, may: bool) {
        let topics: Vec<_> = world.host.topics.iter().collect();
        if topics.is_empty() {
            return;
        }
        let (name, topic) = topics[world.random.below(topics.len())];
        let partition =
            PartitionId(u32::try_from(world.random.below(topic.partitions as usize)).unwrap());
        let partition = TopicPartition {
            topic: name.clone(),
            partition,
        };
        self.next += 1;
        // What may not be said would be seen as an offset that moved back.
        let offset = Offset(if may { self.next } else { 0 });
        let commit = Commit {
            group: group(),
            by: by.clone(),
            offsets: vec![CommitOffset {
                partition: partition.clone(),
                offset,
                leader_epoch: None,
                metadata: text("as it is"),
                expire_timestamp: None,
            }],
        };
        let call = world.host.call(Request::Commit(commit));
        let Some(reply) = world.host.take(call).expect("commits are answered at once") else {
            let mut after = self.committed.clone();
            after.insert((partition.topic, partition.partition), offset);
            self.find_out(&world.host, after, may);
            return;
        };
        match reply {
            Reply::Commit(Ok(results)) => {
                assert!(may, "{by:?} may not commit: {:#?}", world.host.groups);
                assert_eq!(results, [Ok(())]);
                world.seen.commits += 1;
                self.committed
                    .insert((partition.topic, partition.partition), offset);
            }
            Reply::Commit(Err(error)) => {
                assert!(!may, "{by:?} may commit, but: {error}");
                world.seen.refused_commits += 1;
            }
            other => panic!("{other:?}"),
        }
    }

    fn delete_some(&mut self, world: &mut World) {
        let Some((topic, partition)) = self.committed.keys().next().cloned() else {
            return;
        };
        let request = DeleteOffsets {
            group: group(),
            partitions: vec![(topic.clone(), partition)],
        };
        let call = world.host.call(Request::DeleteOffsets(request));
        let reply = world.host.take(call).expect("it is answered at once");
        let mut after = self.committed.clone();
        after.remove(&(topic, partition));
        match reply {
            None => self.find_out(&world.host, after, true),
            Some(Reply::DeleteOffsets(Ok(results))) if results == [Ok(())] => {
                self.committed = after;
            }
            Some(_) => {}
        }
    }

    fn delete_group(&mut self, world: &mut World) {
        let call = world.host.call(Request::DeleteGroup(group()));
        let reply = world.host.take(call).expect("it is answered at once");
        match reply {
            None => self.find_out(&world.host, BTreeMap::new(), true),
            Some(Reply::DeleteGroup(Ok(()))) => {
                assert_eq!(world.host.groups.listed(&group()), None);
                self.committed.clear();
            }
            Some(_) => {}
        }
    }

    /// A request has failed: the coordinator may have stopped before it was written down or after it.
    /// Then all of it is there or nothing.
    fn find_out(
        &mut self,
        host: &Host,
        after: BTreeMap<(TopicName, PartitionId), Offset>,
        may: bool,
    ) {
        let now = fetched(host);
        if may && now == after {
            self.committed = after;
        }
    }

    /// Everything that was committed can be read, as it was committed last.
    pub(crate) fn check(&self, host: &Host) {
        assert_eq!(
            fetched(host),
            self.committed,
            "committed offsets are lost, or have moved"
        );
    }
}

/// Everything that can be read.
fn fetched(host: &Host) -> BTreeMap<(TopicName, PartitionId), Offset> {
    let all = FetchOffsets {
        group: group(),
        by: None,
        partitions: None,
    };
    let fetched = host.fetch(all).unwrap();
    fetched
        .into_iter()
        .map(|one| {
            let committed = one.committed.expect("only what is there is listed");
            assert_eq!(&*committed.metadata, "as it is");
            (
                (one.partition.topic, one.partition.partition),
                committed.offset,
            )
        })
        .collect()
}
