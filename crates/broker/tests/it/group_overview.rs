//! How far groups have read, in records and in time, by a clock that the tests drive.

use std::time::Duration;

use bytes::{BufMut, Bytes};
use sapwood_broker::{
    Broker, GroupOverview, NewTopic, PartitionOverview, TopicInfo,
    group::{
        Client, Commit, CommitOffset, Committer, ConsumerHeartbeat, GroupKind, GroupState, Join,
        Presence, Protocol, Sync,
    },
};
use sapwood_model::{Offset, PartitionId, Timestamp, TopicPartition};
use sapwood_record::{BatchBuilder, Codec, RecordInput};
use sapwood_sim::Machine;
use tempfile::TempDir;

use crate::support::{P0, create, open, open_on, options, produce, to};

const SECOND: Duration = Duration::from_secs(1);

/// A broker on a machine, with groups that are loaded.
pub(crate) async fn broker_on(machine: &Machine) -> Broker {
    let broker = open_on(machine, "boot-1").await.unwrap();
    ready(&broker).await;
    broker
}

pub(crate) async fn ready(broker: &Broker) {
    broker.groups().prepare().await.unwrap();
    while broker.groups().load_progress().loading > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// One batch whose records are of these times.
pub(crate) fn batch_of(codec: Codec, times: &[Timestamp]) -> Bytes {
    let mut builder = BatchBuilder::new(codec);
    for timestamp in times {
        let record = RecordInput {
            timestamp: *timestamp,
            key: Some(b"key"),
            value: Some(b"a record of some length, so that there is something to compress"),
            headers: &[],
        };
        builder.push(record).unwrap();
    }
    builder.build().unwrap().to_bytes()
}

fn now(broker: &Broker) -> Timestamp {
    broker.environment().clock.now()
}

pub(crate) async fn topic_of(broker: &Broker, name: &str, partitions: u32) -> TopicInfo {
    let topic = NewTopic {
        partitions: Some(partitions),
        ..NewTopic::named(name)
    };
    broker.create_topic(topic).await.unwrap()
}

pub(crate) fn place(topic: &TopicInfo, partition: u32) -> TopicPartition {
    TopicPartition {
        topic: topic.name.clone(),
        partition: PartitionId(partition),
    }
}

pub(crate) async fn commit_at(broker: &Broker, group: &str, places: &[(TopicPartition, u64)]) {
    let offset = |(partition, offset): &(TopicPartition, u64)| CommitOffset {
        partition: partition.clone(),
        offset: Offset(*offset),
        leader_epoch: None,
        metadata: "note".into(),
        expire_timestamp: None,
    };
    let commit = Commit {
        group: group.into(),
        by: Committer::Alone,
        offsets: places.iter().map(offset).collect(),
    };
    for result in broker.groups().commit(commit).await.unwrap() {
        result.unwrap();
    }
}

pub(crate) async fn describe(broker: &Broker, group: &str) -> GroupOverview {
    let described = broker.groups().describe(&group.into()).await.unwrap();
    described.unwrap()
}

async fn only_partition(broker: &Broker) -> PartitionOverview {
    let mut described = describe(broker, "g").await;
    assert_eq!(described.partitions.len(), 1);
    described.partitions.remove(0)
}

pub(crate) fn join(group: &str) -> Join {
    Join {
        group: group.into(),
        member_id: None,
        instance_id: None,
        client: Client {
            id: "billing".into(),
            host: "/10.0.0.7".into(),
        },
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: "consumer".into(),
        protocols: vec![Protocol {
            name: "range".into(),
            metadata: Bytes::from_static(b"\0\0\0\0\0\x01\0\x01t"),
        }],
        takes_member_id: false,
        takes_skip_assignment: true,
    }
}

/// What a leader of consumers gives: Kafka's `ConsumerProtocolAssignment`.
fn assignment(topic: &str, partitions: &[i32]) -> Bytes {
    let mut bytes = Vec::new();
    bytes.put_slice(b"\0\x03\0\0\0\x01");
    bytes.put_i16(i16::try_from(topic.len()).unwrap());
    bytes.put_slice(topic.as_bytes());
    bytes.put_i32(i32::try_from(partitions.len()).unwrap());
    partitions.iter().for_each(|number| bytes.put_i32(*number));
    bytes.put_slice(b"\xff\xff\xff\xff");
    bytes.into()
}

/// A classic group of one, which gave itself this.
async fn classic_group(broker: &Broker, given: Bytes) -> GroupOverview {
    let groups = broker.groups();
    let joined = groups.join(join("g")).await.unwrap();
    let sync = Sync {
        group: "g".into(),
        member_id: joined.member_id.clone(),
        instance_id: None,
        generation: joined.generation,
        protocol_type: None,
        protocol: None,
        assignments: vec![(joined.member_id, given)],
    };
    groups.sync(sync).await.unwrap();
    describe(broker, "g").await
}

async fn with_eager_groups(dir: &TempDir) -> Broker {
    let mut options = options(dir.path());
    options.groups.initial_rebalance_delay_ms = 0;
    let broker = crate::support::open_with(options).await;
    ready(&broker).await;
    broker
}

#[tokio::test]
async fn a_group_is_as_far_behind_as_its_first_unread_record_is_old() {
    let machine = Machine::new(1);
    let broker = broker_on(&machine).await;
    let topic = create(&broker, "t", &[]).await;
    for codec in Codec::ALL {
        let first = broker.bounds("t", P0).unwrap().log_end.0;
        let began = now(&broker);
        // Three batches of three records each, a second between records.
        for _ in 0..3 {
            let second = |n: i64| Timestamp(now(&broker).0 + 1_000 * n);
            let times = [second(0), second(1), second(2)];
            produce(&broker, to("t", batch_of(codec, &times)))
                .await
                .unwrap();
            machine.clock.advance(SECOND * 3);
        }
        machine.clock.advance(SECOND * 60);
        for read in 0..9 {
            commit_at(&broker, "g", &[(place(&topic, 0), first + read)]).await;
            let row = only_partition(&broker).await;
            let made = began.0 + 1_000 * i64::try_from(read).unwrap();
            let age = u64::try_from(now(&broker).0 - made).unwrap();
            assert_eq!(row.lag, Some(9 - read));
            assert_eq!(row.behind_ms, Some(age), "{codec:?}, {read} read");
        }
        commit_at(&broker, "g", &[(place(&topic, 0), first + 9)]).await;
        let row = only_partition(&broker).await;
        assert_eq!((row.lag, row.behind_ms), (Some(0), Some(0)));
    }
}

#[tokio::test]
async fn a_consumer_that_stops_falls_behind_with_the_clock_and_nears_its_retention() {
    let machine = Machine::new(2);
    let broker = broker_on(&machine).await;
    let topic = create(&broker, "t", &[("retention.ms", "100000")]).await;
    let forever = create(&broker, "forever", &[("retention.ms", "-1")]).await;
    let keyed = [("cleanup.policy", "compact"), ("retention.ms", "1000")];
    let compacted = create(&broker, "compacted", &keyed).await;
    let record = batch_of(Codec::None, &[now(&broker)]);
    for topic in [&topic, &forever, &compacted] {
        produce(&broker, to(topic.name.as_str(), record.clone()))
            .await
            .unwrap();
        commit_at(&broker, "g", &[(place(topic, 0), 0)]).await;
    }
    for (seconds, behind, headroom) in [(60, 60, 40), (39, 99, 1), (1, 100, 0), (50, 150, 0)] {
        machine.clock.advance(SECOND * seconds);
        let described = describe(&broker, "g").await;
        let rows = described.partitions.iter();
        let rows: Vec<_> = rows
            .map(|row| (row.topic.as_str(), row.behind_ms, row.retention_headroom_ms))
            .collect();
        let behind = Some(behind * 1_000);
        let expected = [
            ("compacted", behind, None),
            ("forever", behind, None),
            ("t", behind, Some(headroom * 1_000)),
        ];
        assert_eq!(rows, expected);
        assert_eq!(described.lag(), 3);
        assert_eq!(described.behind_ms(), behind);
        assert_eq!(described.first_to_lose(), described.partitions.last());
    }
}

/// A record goes with its segment, whose youngest record decides: never before the headroom is used up.
#[tokio::test]
async fn nothing_unread_is_deleted_before_its_headroom_is_used_up_and_then_it_is_lost() {
    let machine = Machine::new(5);
    let broker = broker_on(&machine).await;
    let topic = create(&broker, "t", &[("retention.ms", "100000")]).await;
    commit_at(&broker, "g", &[(place(&topic, 0), 0)]).await;
    let mut deleted = 0;
    for second in 0..400 {
        if second % 50 == 0 && second < 200 {
            let record = batch_of(Codec::None, &[now(&broker)]);
            produce(&broker, to("t", record)).await.unwrap();
        }
        let before = only_partition(&broker).await;
        let removed = broker.retain("t", P0).await.unwrap();
        let after = only_partition(&broker).await;
        if removed.segments > 0 {
            assert_eq!(before.retention_headroom_ms, Some(0), "at {second} s");
            assert_eq!(
                (before.lost, after.lost),
                (deleted, deleted + before.lag.unwrap())
            );
            deleted = after.lost;
        }
        assert_eq!(after.lost, deleted);
        machine.clock.advance(SECOND);
    }
    assert_eq!(deleted, 4, "with the last of them, which was made at 150 s");
}

#[tokio::test]
async fn the_brokers_own_time_counts_where_the_topic_says_so() {
    let machine = Machine::new(3);
    let broker = broker_on(&machine).await;
    let config = [("message.timestamp.type", "LogAppendTime")];
    let topic = create(&broker, "t", &config).await;
    let old = Timestamp(now(&broker).0 - 1_000_000);
    let batch = batch_of(Codec::Zstd, &[old, old]);
    produce(&broker, to("t", batch)).await.unwrap();
    commit_at(&broker, "g", &[(place(&topic, 0), 1)]).await;
    machine.clock.advance(SECOND * 7);
    assert_eq!(only_partition(&broker).await.behind_ms, Some(7_000));
}

#[tokio::test]
async fn what_was_deleted_unread_is_lost_and_lag_counts_from_the_log_start() {
    let machine = Machine::new(4);
    let broker = broker_on(&machine).await;
    let topic = create(&broker, "t", &[]).await;
    let began = now(&broker);
    let times: Vec<_> = (0..10).map(|n| Timestamp(began.0 + n)).collect();
    produce(&broker, to("t", batch_of(Codec::Lz4, &times)))
        .await
        .unwrap();
    commit_at(&broker, "g", &[(place(&topic, 0), 3)]).await;
    broker.trim("t", P0, Some(Offset(7))).await.unwrap();
    machine.clock.advance(SECOND);
    let row = only_partition(&broker).await;
    assert_eq!((row.lag, row.lost), (Some(3), 4));
    assert_eq!(row.behind_ms, Some(993), "the time of record 7");
    assert_eq!(row.committed.unwrap().offset, Offset(3));
    // Further than the log goes.
    commit_at(&broker, "g", &[(place(&topic, 0), 11)]).await;
    let row = only_partition(&broker).await;
    assert_eq!((row.lag, row.lost, row.behind_ms), (Some(0), 0, Some(0)));
}

#[tokio::test]
async fn a_record_without_a_time_leaves_the_time_open() {
    let dir = TempDir::new().unwrap();
    let broker = open(dir.path()).await;
    ready(&broker).await;
    let topic = create(&broker, "t", &[]).await;
    produce(
        &broker,
        to("t", batch_of(Codec::None, &[Timestamp::NONE; 2])),
    )
    .await
    .unwrap();
    commit_at(&broker, "g", &[(place(&topic, 0), 1)]).await;
    let row = only_partition(&broker).await;
    assert_eq!((row.lag, row.behind_ms), (Some(1), None));
    assert_eq!(row.retention_headroom_ms, None);
}

#[tokio::test]
async fn members_of_a_classic_group_have_what_their_leader_gave_them() {
    let dir = TempDir::new().unwrap();
    let broker = with_eager_groups(&dir).await;
    let topic = topic_of(&broker, "t", 3).await;
    commit_at(&broker, "g", &[(place(&topic, 0), 0)]).await;
    // Twice the same, and one that is not there.
    let overview = classic_group(&broker, assignment("t", &[2, 1, 1, 9])).await;
    assert_eq!(
        (overview.kind, overview.state),
        (GroupKind::Classic, GroupState::Stable)
    );
    assert_eq!(
        (&*overview.protocol_type, &*overview.assignor),
        ("consumer", "range")
    );
    assert_eq!(overview.epoch, 1);
    let member = &overview.members[0];
    assert_eq!(member.assigned, [place(&topic, 1), place(&topic, 2)]);
    assert_eq!(
        (&*member.client.id, &*member.client.host),
        ("billing", "/10.0.0.7")
    );
    let rows = overview.partitions.iter();
    let rows: Vec<_> = rows
        .map(|p| (p.partition.0, p.lag, p.behind_ms, p.member))
        .collect();
    let expected = [
        (0, Some(0), Some(0), None),
        (1, None, None, Some(0)),
        (2, None, None, Some(0)),
    ];
    assert_eq!(rows, expected);
}

#[tokio::test]
async fn an_assignment_that_cannot_be_read_names_no_partition() {
    let dir = TempDir::new().unwrap();
    let broker = with_eager_groups(&dir).await;
    topic_of(&broker, "t", 1).await;
    let overview = classic_group(&broker, Bytes::from_static(b"everything")).await;
    assert_eq!(overview.members.len(), 1);
    assert_eq!(overview.members[0].assigned, []);
    assert_eq!(overview.partitions, []);
}

#[tokio::test]
async fn members_of_the_newer_kind_have_what_they_own() {
    let dir = TempDir::new().unwrap();
    let broker = with_eager_groups(&dir).await;
    let topic = topic_of(&broker, "t", 2).await;
    let beat = ConsumerHeartbeat {
        group: "g".into(),
        member_id: Some("m".into()),
        presence: Presence::Join,
        instance_id: Some("one".into()),
        client: Client::default(),
        rack_id: None,
        rebalance_timeout_ms: Some(10_000),
        subscribed_topic_names: Some([topic.name.clone()].into()),
        subscribed_topic_regex: None,
        server_assignor: None,
        owned: Some(Default::default()),
    };
    broker.groups().consumer_heartbeat(beat).await.unwrap();
    let overview = describe(&broker, "g").await;
    assert_eq!((overview.kind, overview.epoch), (GroupKind::Consumer, 1));
    assert_eq!(&*overview.assignor, "uniform");
    let member = &overview.members[0];
    assert_eq!(member.instance_id, Some("one".into()));
    assert_eq!(member.assigned, [place(&topic, 0), place(&topic, 1)]);
    assert!(
        overview
            .partitions
            .iter()
            .all(|p| p.member == Some(0) && p.committed.is_none())
    );
}

#[tokio::test]
async fn a_group_that_is_not_there_is_nothing() {
    let dir = TempDir::new().unwrap();
    let broker = open(dir.path()).await;
    // Before there is a topic of groups, and after.
    assert_eq!(broker.groups().describe(&"g".into()).await.unwrap(), None);
    ready(&broker).await;
    assert_eq!(broker.groups().describe(&"g".into()).await.unwrap(), None);
}
