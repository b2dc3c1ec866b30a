//! What consumer groups cost: events that are decided on, and the decisions that are applied. There is
//! no log in between.

use std::{collections::BTreeSet, hint::black_box};

use bytes::Bytes;
use sapwood_group::{
    Beat, CallId, Client, Commit, CommitOffset, Committer, ConsumerHeartbeat, Context, Event,
    GroupId, Groups, Heartbeat, Join, Joined, MemberId, Partitions, Presence, Protocol, Reply,
    Request, Settings, Sync, TimerKey, TimerKind, Topic, TopicMap,
};
use sapwood_model::{Offset, PartitionId, Timestamp, TopicId, TopicName, TopicPartition};

use super::{Done, Work, Workload};

const MEMBERS: u64 = 100;
const PARTITIONS: u32 = 1000;
const COMMITTED: u32 = 100;
const REBALANCE_TIMEOUT_MS: u32 = 60_000;

pub(super) const WORKLOADS: &[Workload] = &[
    Workload {
        name: "classic group/heartbeats of 100 members",
        done: Done::Events(MEMBERS as usize),
        prepare: classic_heartbeats,
    },
    Workload {
        name: "classic group/100 members join and sync",
        done: Done::Events(MEMBERS as usize),
        prepare: || Box::new(|| drop(black_box(Host::new().gather()))),
    },
    Workload {
        name: "classic group/a commit of 100 partitions",
        done: Done::Events(COMMITTED as usize),
        prepare: commits,
    },
    Workload {
        name: "consumer group/heartbeats of 100 members",
        done: Done::Events(MEMBERS as usize),
        prepare: consumer_heartbeats,
    },
    Workload {
        name: "consumer group/100 members join, 1000 partitions",
        done: Done::Events(MEMBERS as usize),
        prepare: || Box::new(|| drop(black_box(Host::new().join_all()))),
    },
];

fn classic_heartbeats() -> Box<dyn Work> {
    let mut host = Host::new();
    let members = host.gather();
    Box::new(move || {
        for member in &members {
            let beat = Heartbeat {
                group: group(),
                member_id: member.member_id.clone(),
                instance_id: None,
                generation: member.generation,
            };
            let replies = host.call(Request::Heartbeat(beat));
            assert!(matches!(replies[..], [(_, Reply::Heartbeat(Ok(())))]));
        }
    })
}

fn commits() -> Box<dyn Work> {
    let mut host = Host::new();
    let member = host.gather().swap_remove(0);
    let mut offset = 0;
    Box::new(move || {
        offset += 1;
        let committed = |number| CommitOffset {
            partition: TopicPartition {
                topic: topic(),
                partition: PartitionId(number),
            },
            offset: Offset(offset),
            leader_epoch: None,
            metadata: "".into(),
            expire_timestamp: None,
        };
        let commit = Commit {
            group: group(),
            by: Committer::Member {
                member_id: member.member_id.clone(),
                instance_id: None,
                generation_or_epoch: Some(member.generation.0),
            },
            offsets: (0..COMMITTED).map(committed).collect(),
        };
        let replies = host.call(Request::Commit(commit));
        let [(_, Reply::Commit(Ok(each)))] = &replies[..] else {
            panic!("{replies:?}");
        };
        assert!(each.iter().all(Result::is_ok));
    })
}

fn consumer_heartbeats() -> Box<dyn Work> {
    let mut host = Host::new();
    let mut members = host.join_all();
    // Until they have what they own when all of them are there.
    for _ in 0..3 {
        for member in &mut members {
            let beat = stay(member.member_id.clone(), member.presence);
            *member = host.consumer_call(ConsumerHeartbeat {
                owned: member.assignment.take(),
                ..beat
            });
        }
    }
    Box::new(move || {
        for member in &members {
            black_box(host.consumer_call(stay(member.member_id.clone(), member.presence)));
        }
    })
}

/// Groups, and the time.
struct Host {
    groups: Groups,
    topics: TopicMap,
    now: Timestamp,
    events: u64,
}

impl Host {
    fn new() -> Self {
        let mut topics = TopicMap::default();
        let id = TopicId(1);
        topics.insert(
            topic(),
            Topic {
                id,
                partitions: PARTITIONS,
            },
        );
        Self {
            groups: Groups::new(Settings::default()),
            topics,
            now: Timestamp(1_800_000_000_000),
            events: 0,
        }
    }

    fn call(&mut self, request: Request) -> Vec<(CallId, Reply)> {
        let call = CallId(self.events);
        self.happens(Event::Call(call, request))
    }

    /// Decides on an event and applies the decision. What it costs to append the records is not in it.
    fn happens(&mut self, event: Event) -> Vec<(CallId, Reply)> {
        self.events += 1;
        let context = Context {
            now: self.now,
            random: u128::from(self.events),
            topics: &self.topics,
        };
        let decision = self.groups.decide(&context, event);
        for record in decision.records {
            self.groups.apply(record);
        }
        for effect in decision.effects {
            self.groups.apply_effect(effect);
        }
        black_box(decision.timers);
        decision.replies
    }

    /// A classic group from its first member to its first assignment.
    fn gather(&mut self) -> Vec<Joined> {
        for _ in 0..MEMBERS {
            let replies = self.call(Request::Join(joining()));
            assert!(replies.is_empty(), "it waits for more members");
        }
        self.now = Timestamp(self.now.0 + i64::from(REBALANCE_TIMEOUT_MS));
        let time_is_up = Event::Timer(TimerKey {
            group: group(),
            kind: TimerKind::Join,
        });
        // The first one finds that members have come since the delay began, and prolongs it.
        let mut replies = self.happens(time_is_up.clone());
        replies.extend(self.happens(time_is_up));
        let joined = |(_, reply)| match reply {
            Reply::Join(Ok(joined)) => joined,
            other => panic!("{other:?}"),
        };
        let members: Vec<Joined> = replies.into_iter().map(joined).collect();
        assert_eq!(members.len() as u64, MEMBERS);
        let mut assigned = 0;
        for member in &members {
            let assignment = |other: &Joined| (other.member_id.clone(), Bytes::from_static(b"all"));
            let leads = member.leader.as_ref() == Some(&member.member_id);
            let assigning = if leads { &members[..] } else { &[] };
            let sync = Sync {
                group: group(),
                member_id: member.member_id.clone(),
                instance_id: None,
                generation: member.generation,
                protocol_type: None,
                protocol: None,
                assignments: assigning.iter().map(assignment).collect(),
            };
            assigned += self.call(Request::Sync(sync)).len() as u64;
        }
        assert_eq!(assigned, MEMBERS);
        members
    }

    /// A group of the newer kind whose members come one after the other.
    fn join_all(&mut self) -> Vec<Beat> {
        let join = |member| ConsumerHeartbeat {
            rebalance_timeout_ms: Some(REBALANCE_TIMEOUT_MS),
            subscribed_topic_names: Some(BTreeSet::from([topic()])),
            owned: Some(Partitions::new()),
            ..stay(format!("member-{member}").into(), Presence::Join)
        };
        (0..MEMBERS)
            .map(|member| self.consumer_call(join(member)))
            .collect()
    }

    fn consumer_call(&mut self, beat: ConsumerHeartbeat) -> Beat {
        let mut replies = self.call(Request::ConsumerHeartbeat(beat));
        match replies.pop() {
            Some((_, Reply::ConsumerHeartbeat(Ok(beat)))) => beat,
            other => panic!("{other:?}"),
        }
    }
}

fn group() -> GroupId {
    "readers".into()
}

fn topic() -> TopicName {
    TopicName::new("orders").expect("a valid name")
}

fn client() -> Client {
    Client {
        id: "app".into(),
        host: "/127.0.0.1".into(),
    }
}

/// A member that is new and takes what it gets.
fn joining() -> Join {
    Join {
        group: group(),
        member_id: None,
        instance_id: None,
        client: client(),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: REBALANCE_TIMEOUT_MS,
        protocol_type: "consumer".into(),
        protocols: vec![Protocol {
            name: "range".into(),
            // One topic, `orders`, in version 0 of what consumers say.
            metadata: Bytes::from_static(b"\0\0\0\0\0\x01\0\x06orders\0\0\0\0"),
        }],
        takes_member_id: false,
        takes_skip_assignment: true,
    }
}

/// A heartbeat with nothing new in it.
fn stay(member: MemberId, presence: Presence) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        group: group(),
        member_id: Some(member),
        presence,
        instance_id: None,
        client: client(),
        rack_id: None,
        rebalance_timeout_ms: None,
        subscribed_topic_names: None,
        subscribed_topic_regex: None,
        server_assignor: None,
        owned: None,
    }
}
