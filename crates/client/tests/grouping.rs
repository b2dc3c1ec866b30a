//! Group consumers against a broker on a real socket.

// Helpers are outside of test functions; a failure in them is a failed test all the same.
#![allow(clippy::unwrap_used)]

// The same broker on a socket as in the tests of the services.
#[path = "../../grpc/tests/common/mod.rs"]
mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::Path,
    time::Duration,
};

use common::{Server, broker_options};
use sapwood_broker::group::Settings;
use sapwood_client::{
    Assignor, Client, Code, GroupConsumer, GroupConsumerBuilder, GroupEvent, GroupMessage,
    GroupState, NewTopic, Offset, PartitionId, PartitionOffset, Position, Record, TopicPartition,
};
use sapwood_grpc::GrpcOptions;
use tokio::time::{Instant, timeout};

/// Longer than any test takes: nobody is taken out for being silent.
const LONG: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(30);

async fn start_at(dir: &Path, session: Duration, at: Option<SocketAddr>) -> Server {
    let mut options = broker_options(dir);
    let session_ms = u32::try_from(session.as_millis()).unwrap();
    options.groups = Settings {
        consumer_session_timeout_ms: session_ms,
        consumer_heartbeat_interval_ms: session_ms / 3,
        ..Settings::default()
    };
    Server::start_with(options, GrpcOptions::default(), at).await
}

async fn start(dir: &Path, session: Duration) -> (Server, Client) {
    let server = start_at(dir, session, None).await;
    let client = Client::new(&server.address.to_string()).unwrap();
    (server, client)
}

async fn create(client: &Client, topic: &str, partitions: u32) {
    let new = NewTopic::new(topic).partitions(partitions);
    client.admin().create_topic(&new).await.unwrap();
}

/// Records `from`, `from + 1`, ... in each of the partitions.
async fn fill(client: &Client, topic: &str, partitions: u32, from: u64, count: u64) {
    let producer = client.producer().build().await.unwrap();
    for n in from..from + count {
        for partition in 0..partitions {
            let record = Record::to(topic).partition(PartitionId(partition));
            producer.send(record.value(n.to_string())).await.unwrap();
        }
    }
    producer.close().await.unwrap();
}

fn builder(client: &Client) -> GroupConsumerBuilder {
    client.group_consumer("g").topic("t")
}

/// The next event; it has to come.
async fn event(consumer: &mut GroupConsumer) -> GroupEvent {
    let event = timeout(PATIENCE, consumer.next_event()).await;
    event.expect("in time").expect("it goes on").unwrap()
}

async fn message(consumer: &mut GroupConsumer) -> GroupMessage {
    let message = timeout(PATIENCE, consumer.next()).await;
    message.expect("in time").expect("it goes on").unwrap()
}

/// Reads, acknowledging everything, until the consumer has exactly so many partitions. True when a
/// revocation was among what happened.
async fn until_assigned(consumer: &mut GroupConsumer, count: usize) -> bool {
    let mut revoked = false;
    while consumer.assigned().len() != count {
        match event(consumer).await {
            GroupEvent::Message(message) => message.ack(),
            GroupEvent::Revoking(_) => revoked = true,
            _ => {}
        }
    }
    revoked
}

/// Waits until every member has what it is to have; members have to be driven meanwhile.
async fn stable(client: &Client, members: u32) {
    let began = Instant::now();
    loop {
        let described = client.admin().describe_group("g").await.unwrap();
        if described.group.state == GroupState::Stable && described.group.members == members {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{described:?}");
        tokio::task::yield_now().await;
    }
}

async fn committed(client: &Client) -> BTreeMap<u32, u64> {
    let committed = client.admin().committed_offsets("g").await.unwrap();
    let committed = committed.into_iter();
    committed
        .map(|(partition, committed)| (partition.partition.0, committed.offset.0))
        .collect()
}

async fn members(client: &Client) -> u32 {
    let described = client.admin().describe_group("g").await.unwrap();
    described.group.members
}

#[tokio::test]
async fn two_members_share_evenly_and_closing_hands_over_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (server, client) = start(dir.path(), LONG).await;
    create(&client, "t", 4).await;
    fill(&client, "t", 4, 0, 50).await;
    let began = Instant::now();
    let mut one = builder(&client).build().await.unwrap();
    until_assigned(&mut one, 4).await;
    let mut other = builder(&client).client_id("other").build().await.unwrap();
    let (revoked, _) = tokio::join!(until_assigned(&mut one, 2), until_assigned(&mut other, 2));
    assert!(revoked);
    let shared: BTreeSet<_> = one.assigned().into_iter().chain(other.assigned()).collect();
    assert_eq!(shared.len(), 4);
    let described = client.admin().describe_group("g").await.unwrap();
    let mut clients: Vec<_> = described.members.iter().map(|m| &*m.client_id).collect();
    clients.sort_unstable();
    assert_eq!(clients, ["other", "sapwood-client"]);
    assert!(described.members.iter().all(|m| m.host == "127.0.0.1"));
    // What was handed out of `other`'s is acknowledged: nothing is read twice.
    let mut read: BTreeMap<TopicPartition, Vec<u64>> = BTreeMap::new();
    other.close().await.unwrap();
    assert_eq!(members(&client).await, 1);
    until_assigned(&mut one, 4).await;
    // All of this took none of the waiting that heartbeats every 20 s would.
    assert!(began.elapsed() < LONG / 4, "{:?}", began.elapsed());
    fill(&client, "t", 4, 50, 1).await;
    while read.len() < 4 {
        let message = message(&mut one).await;
        message.ack();
        if message.offset.0 == 50 {
            let partition = TopicPartition::new(message.topic.clone(), message.partition);
            read.entry(partition).or_default().push(50);
        }
    }
    one.close().await.unwrap();
    assert_eq!(committed(&client).await, (0..4).map(|p| (p, 51)).collect());
    assert_eq!(members(&client).await, 0);
    server.stop().await;
}

#[tokio::test]
async fn acknowledgements_in_any_order_commit_only_what_is_below_the_first_hole() {
    let dir = tempfile::tempdir().unwrap();
    let (server, client) = start(dir.path(), LONG).await;
    create(&client, "t", 1).await;
    fill(&client, "t", 1, 0, 10).await;
    let manual = builder(&client).commit_interval(None);
    let mut consumer = manual.build().await.unwrap();
    let mut messages = Vec::new();
    for _ in 0..10 {
        messages.push(message(&mut consumer).await);
    }
    // From another task, and as a clone.
    let some: Vec<_> = [9, 1, 0, 4].map(|n: usize| messages[n].clone()).into();
    tokio::spawn(async move { some.iter().for_each(GroupMessage::ack) })
        .await
        .unwrap();
    consumer.commit().await.unwrap();
    assert_eq!(committed(&client).await, [(0, 2)].into());
    messages[2].ack();
    messages[3].ack();
    consumer.commit().await.unwrap();
    assert_eq!(committed(&client).await, [(0, 5)].into());
    let mut noted = PartitionOffset::new("t", PartitionId(0), Offset(7));
    noted.metadata = "note".into();
    consumer.commit_offsets(vec![noted]).await.unwrap();
    let found = client.admin().committed_offsets("g").await.unwrap();
    assert_eq!(
        (found[0].1.offset, &*found[0].1.metadata),
        (Offset(7), "note")
    );
    let foreign = PartitionOffset::new("t", PartitionId(3), Offset(7));
    let refused = consumer.commit_offsets(vec![foreign]).await.unwrap_err();
    assert_eq!(refused.code(), Code::MemberFenced);
    // Manual commits: closing adds none.
    messages.iter().for_each(GroupMessage::ack);
    consumer.close().await.unwrap();
    assert_eq!(committed(&client).await, [(0, 7)].into());
    server.stop().await;
}

#[tokio::test]
async fn what_is_acknowledged_is_committed_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (server, client) = start(dir.path(), LONG).await;
    create(&client, "t", 2).await;
    fill(&client, "t", 2, 0, 5).await;
    let often = builder(&client).commit_interval(Some(Duration::from_millis(10)));
    let mut consumer = often.build().await.unwrap();
    for _ in 0..10 {
        message(&mut consumer).await.ack();
    }
    let began = Instant::now();
    while committed(&client).await != [(0, 5), (1, 5)].into() {
        assert!(began.elapsed() < PATIENCE);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_revocation_waits_for_messages_in_flight_and_for_whoever_looks_at_it() {
    let dir = tempfile::tempdir().unwrap();
    let (server, client) = start(dir.path(), LONG).await;
    create(&client, "t", 2).await;
    fill(&client, "t", 2, 0, 3).await;
    let mut one = builder(&client).build().await.unwrap();
    let mut held = Vec::new();
    while held.len() < 6 {
        if let GroupEvent::Message(message) = event(&mut one).await {
            held.push(message);
        }
    }
    let mut other = builder(&client).build().await.unwrap();
    let GroupEvent::Revoking(revocation) = event(&mut one).await else {
        panic!("only a revocation is left to come")
    };
    let [given] = revocation.partitions() else {
        panic!("{revocation:?}")
    };
    let given = given.clone();
    let of_given = |message: &&GroupMessage| message.partition == given.partition;
    // It is not the other's before both are done with: looked at, and in flight.
    let early = timeout(Duration::from_millis(150), other.next_event()).await;
    assert!(early.is_err(), "{early:?}");
    drop(revocation);
    held.iter()
        .filter(of_given)
        .take(2)
        .for_each(GroupMessage::ack);
    let early = timeout(Duration::from_millis(150), other.next_event()).await;
    assert!(early.is_err(), "{early:?}");
    // Dropped unacknowledged: it comes again, to the other.
    held.retain(|message| message.partition != given.partition);
    let GroupEvent::Assigned(assigned) = event(&mut other).await else {
        panic!("first the partition is assigned")
    };
    assert_eq!(assigned, std::slice::from_ref(&given));
    assert_eq!(committed(&client).await, [(given.partition.0, 2)].into());
    assert_eq!(message(&mut other).await.offset, Offset(2));
    server.stop().await;
}

#[tokio::test]
async fn a_revocation_does_not_wait_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let (server, client) = start(dir.path(), LONG).await;
    create(&client, "t", 2).await;
    fill(&client, "t", 2, 0, 1).await;
    let hasty = builder(&client).rebalance_timeout(Duration::from_secs(1));
    let mut one = hasty.build().await.unwrap();
    let held = [message(&mut one).await, message(&mut one).await];
    let mut other = builder(&client).build().await.unwrap();
    // Nobody asks `one` for anything, and what it handed out is neither acknowledged nor dropped.
    let again = message(&mut other).await;
    assert_eq!(again.offset, Offset(0));
    // It kept within its time, and so is a member as before.
    assert_eq!(members(&client).await, 2);
    // Too late to count.
    held.iter().for_each(GroupMessage::ack);
    one.commit().await.unwrap();
    assert!(!committed(&client).await.contains_key(&again.partition.0));
    server.stop().await;
}

#[tokio::test]
async fn paused_partitions_keep_silent_and_go_on_where_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let (server, client) = start(dir.path(), LONG).await;
    create(&client, "t", 2).await;
    fill(&client, "t", 2, 0, 20).await;
    let mut consumer = builder(&client).build().await.unwrap();
    let (p0, p1) = (PartitionId(0), PartitionId(1));
    let mut seen: BTreeMap<PartitionId, Vec<u64>> = BTreeMap::new();
    let mut paused_at = None;
    let mut read = 0;
    while read < 40 {
        if read == 5 {
            paused_at = Some(seen.get(&p0).map_or(0, Vec::len));
            consumer.pause("t", p0).unwrap();
        }
        if seen.get(&p1).map_or(0, Vec::len) == 20 && paused_at.is_some() {
            let count = seen.get(&p0).map_or(0, Vec::len);
            assert_eq!(
                Some(count),
                paused_at.take(),
                "nothing came while it was paused"
            );
            let early = timeout(Duration::from_millis(50), consumer.next()).await;
            assert!(early.is_err(), "{early:?}");
            assert_eq!(consumer.assigned().len(), 2);
            consumer.resume("t", p0).unwrap();
        }
        let message = message(&mut consumer).await;
        seen.entry(message.partition)
            .or_default()
            .push(message.offset.0);
        read += 1;
    }
    let all: Vec<u64> = (0..20).collect();
    assert_eq!(seen, [(p0, all.clone()), (p1, all)].into());
    for refused in [
        consumer.pause("t", PartitionId(7)),
        consumer.resume("x", p0),
        consumer.seek("t", PartitionId(7), Position::Start),
    ] {
        assert_eq!(refused.unwrap_err().code(), Code::UnknownPartition);
    }
    server.stop().await;
}

#[tokio::test]
async fn an_end_that_was_found_stays_where_it_was_over_a_pause() {
    let dir = tempfile::tempdir().unwrap();
    let (server, client) = start(dir.path(), LONG).await;
    create(&client, "t", 1).await;
    fill(&client, "t", 1, 0, 4).await;
    let late = builder(&client).from(Position::End);
    let mut consumer = late.build().await.unwrap();
    let p0 = PartitionId(0);
    while consumer.position("t", p0).is_none() {
        let early = timeout(Duration::from_millis(1), consumer.next()).await;
        assert!(early.is_err(), "{early:?}");
    }
    assert_eq!(consumer.position("t", p0), Some(Offset(4)));
    consumer.pause("t", p0).unwrap();
    fill(&client, "t", 1, 4, 2).await;
    consumer.resume("t", p0).unwrap();
    assert_eq!(message(&mut consumer).await.offset, Offset(4));
    assert_eq!(consumer.position("t", p0), Some(Offset(5)));
    server.stop().await;
}

#[tokio::test]
async fn seeking_starts_the_account_anew_and_bad_places_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let (server, client) = start(dir.path(), LONG).await;
    create(&client, "t", 1).await;
    fill(&client, "t", 1, 0, 10).await;
    let p0 = PartitionId(0);
    let manual = builder(&client).commit_interval(None);
    let mut consumer = manual.build().await.unwrap();
    let before = message(&mut consumer).await;
    consumer.seek("t", p0, Position::Last(3)).unwrap();
    let after = message(&mut consumer).await;
    assert_eq!(after.offset, Offset(7));
    before.ack();
    consumer.commit().await.unwrap();
    assert_eq!(committed(&client).await, [].into());
    after.ack();
    consumer.commit().await.unwrap();
    assert_eq!(committed(&client).await, [(0, 8)].into());
    // Back, which moves what is committed back too.
    consumer.seek("t", p0, Position::Offset(Offset(2))).unwrap();
    message(&mut consumer).await.ack();
    consumer.commit().await.unwrap();
    assert_eq!(committed(&client).await, [(0, 3)].into());
    consumer
        .seek("t", p0, Position::Offset(Offset(99)))
        .unwrap();
    let error = timeout(PATIENCE, consumer.next()).await.unwrap();
    let error = error.unwrap().unwrap_err();
    assert_eq!(error.code(), Code::OffsetOutOfRange);
    assert_eq!(message(&mut consumer).await.offset, Offset(0));
    server.stop().await;
}

#[tokio::test]
async fn a_committed_offset_that_is_gone_is_told_and_reading_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (server, client) = start(dir.path(), LONG).await;
    create(&client, "t", 1).await;
    fill(&client, "t", 1, 0, 10).await;
    let admin = client.admin();
    let committed = [PartitionOffset::new("t", PartitionId(0), Offset(2))];
    admin.commit_offsets("g", &committed).await.unwrap();
    admin
        .trim("t", &[(PartitionId(0), Some(Offset(6)))])
        .await
        .unwrap();
    let mut consumer = builder(&client).build().await.unwrap();
    let GroupEvent::Assigned(_) = event(&mut consumer).await else {
        panic!("first it is assigned")
    };
    let GroupEvent::Reset { available, .. } = event(&mut consumer).await else {
        panic!("offset 2 is not there")
    };
    assert_eq!(available, Some(Offset(6)..Offset(10)));
    assert_eq!(message(&mut consumer).await.offset, Offset(6));
    server.stop().await;
}

#[tokio::test]
async fn a_member_whose_process_dies_is_replaced_when_its_session_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let session = Duration::from_millis(900);
    let (server, client) = start(dir.path(), session).await;
    create(&client, "t", 2).await;
    fill(&client, "t", 2, 0, 10).await;
    let address = server.address.to_string();
    // A process of its own, as far as this goes: its runtime ends with everything that runs in it.
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    let process = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let client = Client::new(&address).unwrap();
            let mut consumer = builder(&client).build().await.unwrap();
            for _ in 0..5 {
                message(&mut consumer).await.ack();
            }
            consumer.commit().await.unwrap();
            message(&mut consumer).await.ack();
            ready.send(()).unwrap();
            // Neither committed nor left: the runtime does not go on.
            std::mem::forget(consumer);
        });
        runtime.shutdown_background();
    });
    is_ready.await.unwrap();
    process.join().unwrap();
    let mut other = builder(&client).build().await.unwrap();
    let died = Instant::now();
    let mut seen = BTreeSet::new();
    while seen.len() < 15 {
        let message = message(&mut other).await;
        message.ack();
        seen.insert((message.partition, message.offset));
    }
    assert!(died.elapsed() < 4 * session, "{:?}", died.elapsed());
    assert_eq!(members(&client).await, 1);
    server.stop().await;
}

#[tokio::test]
async fn a_consumer_that_is_dropped_commits_and_leaves_without_holding_anybody_up() {
    let dir = tempfile::tempdir().unwrap();
    let (server, client) = start(dir.path(), LONG).await;
    create(&client, "t", 1).await;
    fill(&client, "t", 1, 0, 10).await;
    let mut one = builder(&client).build().await.unwrap();
    let kept = message(&mut one).await;
    kept.ack();
    let held = message(&mut one).await;
    drop(one);
    let mut other = builder(&client).build().await.unwrap();
    assert_eq!(message(&mut other).await.offset, Offset(1));
    held.ack();
    server.stop().await;
}

#[tokio::test]
async fn a_topic_that_a_pattern_matches_later_is_read_and_the_assignor_is_the_members_choice() {
    let dir = tempfile::tempdir().unwrap();
    let (server, client) = start(dir.path(), Duration::from_secs(3)).await;
    create(&client, "logs-a", 1).await;
    create(&client, "other", 1).await;
    let builder = client.group_consumer("g").topic_regex("logs-.*");
    let builder = builder.assignor(Assignor::Range);
    let mut consumer = builder.build().await.unwrap();
    until_assigned(&mut consumer, 1).await;
    create(&client, "logs-b", 2).await;
    fill(&client, "logs-b", 2, 0, 1).await;
    until_assigned(&mut consumer, 3).await;
    let described = client.admin().describe_group("g").await.unwrap();
    assert_eq!(described.assignor, "range");
    let topics: BTreeSet<_> = consumer.assigned().into_iter().map(|p| p.topic).collect();
    assert_eq!(topics, ["logs-a".into(), "logs-b".into()].into());
    server.stop().await;
}

#[tokio::test]
async fn a_static_member_comes_back_to_its_partitions_and_the_last_process_of_a_name_wins() {
    let dir = tempfile::tempdir().unwrap();
    let (server, client) = start(dir.path(), LONG).await;
    create(&client, "t", 4).await;
    let mut other = builder(&client).build().await.unwrap();
    let named = || builder(&client).instance_id("a");
    let mut one = named().build().await.unwrap();
    tokio::join!(until_assigned(&mut one, 2), until_assigned(&mut other, 2));
    stable(&client, 2).await;
    let had = one.assigned();
    let epoch = client.admin().describe_group("g").await.unwrap().epoch;
    one.close().await.unwrap();
    let mut two = named().build().await.unwrap();
    until_assigned(&mut two, 2).await;
    assert_eq!(two.assigned(), had);
    // Without having left: as after a kill.
    let mut three = named().build().await.unwrap();
    until_assigned(&mut three, 2).await;
    assert_eq!(three.assigned(), had);
    let error = timeout(PATIENCE, two.next()).await.unwrap();
    assert_eq!(error.unwrap().unwrap_err().code(), Code::InstanceFenced);
    assert!(two.next().await.is_none());
    two.close().await.unwrap();
    let described = client.admin().describe_group("g").await.unwrap();
    assert_eq!(described.epoch, epoch, "nobody else was bothered");
    three.close_for_good().await.unwrap();
    until_assigned(&mut other, 4).await;
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_when_the_consumer_is_built() {
    let dir = tempfile::tempdir().unwrap();
    let (server, client) = start(dir.path(), LONG).await;
    let long = "g".repeat(32_768);
    let cases = [
        (client.group_consumer("g"), Code::InvalidArgument),
        (client.group_consumer("").topic("t"), Code::InvalidGroupId),
        (client.group_consumer(long).topic("t"), Code::InvalidGroupId),
        (
            client.group_consumer("g").topic("a b"),
            Code::InvalidTopicName,
        ),
        (
            client.group_consumer("g").topic_regex("("),
            Code::InvalidTopicRegex,
        ),
        (builder(&client).instance_id(""), Code::InvalidArgument),
        (
            builder(&client).rebalance_timeout(Duration::ZERO),
            Code::InvalidArgument,
        ),
        (
            builder(&client).commit_interval(Some(Duration::ZERO)),
            Code::InvalidArgument,
        ),
        (builder(&client).prefetch_bytes(0), Code::InvalidArgument),
    ];
    for (builder, code) in cases {
        assert_eq!(builder.build().await.unwrap_err().code(), code);
    }
    let nobody = Client::new("127.0.0.1:1").unwrap();
    let refused = builder(&nobody).build().await.unwrap_err();
    assert_eq!(refused.code(), Code::Unreachable);
    server.stop().await;
}
