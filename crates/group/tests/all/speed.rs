//! What events cost. The limits are far above what they take, so that a busy machine does not fail
//! them; the figures are printed.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use sapwood_group::{
    CallId, CommittedOffset, ConsumerHeartbeat, Context, Event, GroupId, Groups, Partitions,
    Presence, Record, Reply, Request, Settings, Topic, TopicMap,
};
use sapwood_model::{Offset, PartitionId, Timestamp, TopicId};

use crate::host::{client, text, topic};

/// A machine without a log, and without the checks of a host.
struct Bare {
    groups: Groups,
    topics: TopicMap,
    calls: u64,
}

impl Bare {
    fn new(topics: u32, partitions: u32) -> Self {
        let mut map = TopicMap::default();
        for number in 0..topics {
            let id = TopicId(u128::from(number) + 1);
            map.insert(topic(&format!("t{number}")), Topic { id, partitions });
        }
        Self {
            groups: Groups::new(Settings::default()),
            topics: map,
            calls: 0,
        }
    }

    fn beat(&mut self, beat: ConsumerHeartbeat) -> sapwood_group::Beat {
        self.calls += 1;
        let context = Context {
            now: Timestamp(1),
            random: u128::from(self.calls),
            topics: &self.topics,
        };
        let event = Event::Call(CallId(self.calls), Request::ConsumerHeartbeat(beat));
        let decision = self.groups.decide(&context, event);
        for record in decision.records {
            self.groups.apply(record);
        }
        for effect in decision.effects {
            self.groups.apply_effect(effect);
        }
        let reply = decision.replies.into_iter().next();
        let Some((_, Reply::ConsumerHeartbeat(Ok(beat)))) = reply else {
            panic!("{reply:?}");
        };
        beat
    }

    fn join(&mut self, group: &str, member: &str) -> sapwood_group::Beat {
        let names: BTreeSet<_> = self.topics.iter().map(|(name, _)| name.clone()).collect();
        self.beat(ConsumerHeartbeat {
            rebalance_timeout_ms: Some(60_000),
            subscribed_topic_names: Some(names),
            owned: Some(Partitions::new()),
            ..stay(group, member, Presence::Join)
        })
    }
}

fn stay(group: &str, member: &str, presence: Presence) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        group: GroupId::from(group),
        member_id: Some(member.into()),
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

/// The middle one of many times.
fn typical(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
fn a_hundred_members_share_a_thousand_partitions_in_milliseconds() {
    for (topics, partitions) in [(1, 1_000), (10, 100), (100, 10)] {
        let mut bare = Bare::new(topics, partitions);
        let mut slowest = Duration::ZERO;
        let began = Instant::now();
        for member in 0..100 {
            let one = Instant::now();
            bare.join("g", &format!("m{member}"));
            slowest = slowest.max(one.elapsed());
        }
        let all = began.elapsed();
        // One leaves; the next heartbeat of another works the assignment out.
        let one = Instant::now();
        bare.beat(stay("g", "m0", Presence::Leave));
        let epoch = bare.groups.describe_consumer(&"g".into()).unwrap();
        let member = &epoch.members[0];
        let presence = Presence::Stay(member.current.member_epoch.unwrap());
        bare.beat(stay("g", member.member_id.as_str(), presence));
        let left = one.elapsed();
        eprintln!(
            "{topics} topics of {partitions}: 100 joins {all:?}, the slowest {slowest:?}; a leave {left:?}"
        );
        assert!(slowest < Duration::from_millis(500) && left < Duration::from_millis(500));
    }
}

#[test]
fn a_heartbeat_costs_the_same_in_a_big_group_and_beside_many_groups() {
    let cost = |members: usize, others: usize| {
        let mut bare = Bare::new(1, 1_000);
        for other in 0..others {
            bare.join(&format!("other{other}"), "m");
        }
        let mut last = None;
        for member in 0..members {
            last = Some(bare.join("g", &format!("m{member}")));
        }
        let last = last.unwrap();
        let beat = stay("g", last.member_id.as_str(), last.presence);
        let times = (0..1_001).map(|_| {
            let began = Instant::now();
            bare.beat(beat.clone());
            began.elapsed()
        });
        typical(times.collect())
    };
    let alone = cost(1, 0);
    let big = cost(200, 0);
    let beside_many = cost(1, 300);
    eprintln!("a heartbeat: {alone:?} alone, {big:?} among 200, {beside_many:?} beside 300 groups");
    let limit = alone * 5 + Duration::from_micros(20);
    assert!(
        big < limit && beside_many < limit,
        "{alone:?} {big:?} {beside_many:?}"
    );
}

#[test]
fn a_log_of_commits_is_replayed_in_time_that_is_linear_in_its_length() {
    const RECORDS: u64 = 1_000_000;
    const KEYS: u64 = 100_000;
    let mut groups = Groups::new(Settings::default());
    let names: Vec<GroupId> = (0..100).map(|number| format!("g{number}").into()).collect();
    let topics: Vec<_> = (0..10).map(|number| topic(&format!("t{number}"))).collect();
    let metadata = text("");
    let mut took = Duration::ZERO;
    for number in 0..RECORDS {
        let key = usize::try_from(number % KEYS).unwrap();
        let record = Record::Offset {
            group: names[key % 100].clone(),
            topic: topics[key / 100 % 10].clone(),
            partition: PartitionId(u32::try_from(key / 1_000).unwrap()),
            value: Some(CommittedOffset {
                topic_id: Some(TopicId(1)),
                offset: Offset(number),
                leader_epoch: None,
                metadata: metadata.clone(),
                commit_timestamp: Timestamp(1),
                expire_timestamp: None,
            }),
        };
        let began = Instant::now();
        groups.apply(record);
        took += began.elapsed();
    }
    eprintln!("{RECORDS} commits of {KEYS} keys applied in {took:?}");
    assert_eq!(u64::try_from(groups.records().count()).unwrap(), KEYS);
    assert!(took < Duration::from_secs(20));
}

#[test]
fn regular_expressions_of_clients_take_time_that_is_linear_in_the_names() {
    let mut bare = Bare::new(1_000, 1);
    let began = Instant::now();
    bare.beat(ConsumerHeartbeat {
        rebalance_timeout_ms: Some(60_000),
        subscribed_topic_regex: Some(text("(t*)*(t|tt)*[0-9]+x?")),
        owned: Some(Partitions::new()),
        ..stay("g", "m", Presence::Join)
    });
    let took = began.elapsed();
    eprintln!("a pattern over 1,000 topics, and the assignment: {took:?}");
    assert!(took < Duration::from_secs(2));
    let members = bare.groups.describe_consumer(&"g".into()).unwrap().members;
    assert_eq!(members[0].current.assigned.len(), 1_000);
}
