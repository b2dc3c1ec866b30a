//! The state machine alone: what an event costs among few and many other groups.

use std::{hint::black_box, time::Instant};

use sapwood_broker::group::{
    CallId, Client, Commit, CommitOffset, Committer, ConsumerHeartbeat, Context, Event, GroupId,
    Groups, Partitions, Presence, Reply, Request, Settings, Topic, TopicMap,
};
use sapwood_model::{Offset, PartitionId, Timestamp, TopicId, TopicName, TopicPartition};

use crate::{Failure, TOPIC};

struct Machine {
    groups: Groups,
    topics: TopicMap,
    calls: u64,
}

impl Machine {
    /// Decides, and applies.
    fn ask(&mut self, request: Request) -> Result<Reply, Failure> {
        self.calls += 1;
        let context = Context {
            now: Timestamp(1_000_000),
            random: self.calls.into(),
            topics: &self.topics,
        };
        let event = Event::Call(CallId(self.calls), request);
        let mut decision = self.groups.decide(&context, event);
        for record in decision.records {
            self.groups.apply(record);
        }
        for effect in decision.effects {
            self.groups.apply_effect(effect);
        }
        black_box(&decision.timers);
        let (_, reply) = decision.replies.pop().ok_or("no reply")?;
        Ok(reply)
    }

    fn beat(
        &mut self,
        group: &GroupId,
        member: &str,
        presence: Presence,
    ) -> Result<Presence, Failure> {
        let joins = presence == Presence::Join;
        let beat = ConsumerHeartbeat {
            group: group.clone(),
            member_id: Some(member.into()),
            presence,
            instance_id: None,
            client: Client::default(),
            rack_id: None,
            rebalance_timeout_ms: joins.then_some(60_000),
            subscribed_topic_names: match joins {
                true => Some([TopicName::new(TOPIC)?].into()),
                false => None,
            },
            subscribed_topic_regex: None,
            server_assignor: None,
            owned: joins.then(Partitions::new),
        };
        match self.ask(Request::ConsumerHeartbeat(beat))? {
            Reply::ConsumerHeartbeat(Ok(beat)) => Ok(beat.presence),
            other => Err(format!("{other:?}").into()),
        }
    }

    fn commit(&mut self, group: &GroupId, by: Committer, offset: u64) -> Result<(), Failure> {
        let commit = Commit {
            group: group.clone(),
            by,
            offsets: vec![CommitOffset {
                partition: TopicPartition {
                    topic: TopicName::new(TOPIC)?,
                    partition: PartitionId(0),
                },
                offset: Offset(offset),
                leader_epoch: None,
                metadata: "".into(),
                expire_timestamp: None,
            }],
        };
        match self.ask(Request::Commit(commit))? {
            Reply::Commit(Ok(_)) => Ok(()),
            other => Err(format!("{other:?}").into()),
        }
    }
}

/// Events of one group of ten members, whose topic has 100 partitions, among others of two members.
pub(crate) fn others() -> Result<(), Failure> {
    for others in [10_u32, 1_000, 100_000] {
        let mut topics = TopicMap::default();
        let topic = Topic {
            id: TopicId(1),
            partitions: 100,
        };
        topics.insert(TopicName::new(TOPIC)?, topic);
        let mut machine = Machine {
            groups: Groups::new(Settings::default()),
            topics,
            calls: 0,
        };
        for number in 0..others {
            let group = GroupId::from(format!("other-{number}"));
            machine.commit(&group, Committer::Alone, 1)?;
            machine.beat(&group, "a", Presence::Join)?;
            machine.beat(&group, "b", Presence::Join)?;
        }
        let group = GroupId::from("measured");
        let mut stays = Presence::Join;
        for number in 0..10 {
            stays = machine.beat(&group, &format!("member-{number}"), Presence::Join)?;
        }
        let Presence::Stay(epoch) = stays else {
            return Err("a member does not stay".into());
        };
        let by = Committer::Member {
            member_id: "member-9".into(),
            instance_id: None,
            generation_or_epoch: Some(epoch.0),
        };
        let beats = timed(100_000, |_| {
            machine.beat(&group, "member-9", stays).map(drop)
        })?;
        let commits = timed(100_000, |number| {
            machine.commit(&group, by.clone(), number.into())
        })?;
        let joins = timed(1_000, |_| {
            machine.beat(&group, "newcomer", Presence::Join)?;
            machine.beat(&group, "newcomer", Presence::Leave).map(drop)
        })?;
        println!(
            "{others} other groups: a heartbeat {beats} ns, a commit {commits} ns, a join and a leave \
             {joins} ns"
        );
    }
    Ok(())
}

/// The mean time of something, in nanoseconds.
fn timed(times: u32, mut act: impl FnMut(u32) -> Result<(), Failure>) -> Result<u128, Failure> {
    // The first ones find the caches cold.
    for number in 0..times / 10 {
        act(number)?;
    }
    let began = Instant::now();
    for number in 0..times {
        act(number)?;
    }
    Ok(began.elapsed().as_nanos() / u128::from(times))
}
