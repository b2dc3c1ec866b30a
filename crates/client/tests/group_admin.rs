//! What administrators do with groups, against a broker on a real socket.

// Helpers are outside of test functions; a failure in them is a failed test all the same.
#![allow(clippy::unwrap_used)]

// The same broker on a socket as in the tests of the services.
#[path = "../../grpc/tests/common/mod.rs"]
mod common;

use std::time::Duration;

use common::Server;
use sapwood_broker::group::{self, ConsumerHeartbeat, Partitions, Presence};
use sapwood_client::{
    Admin, Append, Client, Code, Codec, Error, GroupKind, GroupState, NewTopic, Offset,
    PartitionId, PartitionOffset, Position, Record, SeekPartitions, SeekTarget, SeekTo, Timestamp,
    TopicPartition,
};

const P0: PartitionId = PartitionId(0);
const P1: PartitionId = PartitionId(1);

/// Topic `t` with two partitions; 10 records in each, with the timestamps 1000, 1010, ...
async fn filled(server: &Server) -> Admin {
    let admin = Client::new(&server.address.to_string()).unwrap().admin();
    admin
        .create_topic(&NewTopic::new("t").partitions(2))
        .await
        .unwrap();
    for partition in [P0, P1] {
        let record = |n: i64| {
            let record = Record::to("t").value("x");
            record.timestamp(Timestamp(1000 + 10 * n))
        };
        let append = Append {
            topic: "t".into(),
            partition,
            records: (0..10).map(record).collect(),
            acks: sapwood_client::Acks::All,
            expected_end: None,
            compression: Codec::None,
        };
        admin.append(append).await.unwrap();
    }
    admin
}

fn at(partition: PartitionId, offset: u64) -> PartitionOffset {
    PartitionOffset::new("t", partition, Offset(offset))
}

async fn commit(admin: &Admin, group: &str, offsets: &[PartitionOffset]) {
    for result in admin.commit_offsets(group, offsets).await.unwrap() {
        result.unwrap();
    }
}

async fn committed(admin: &Admin, group: &str) -> Vec<(String, u64)> {
    let committed = admin.committed_offsets(group).await.unwrap().into_iter();
    committed
        .map(|(partition, committed)| (partition.to_string(), committed.offset.0))
        .collect()
}

/// A member of the newer kind that reads `t`.
async fn join(server: &Server, group: &str) {
    let topic = topic_name("t");
    let beat = ConsumerHeartbeat {
        group: group.into(),
        member_id: Some("m".into()),
        presence: Presence::Join,
        instance_id: None,
        client: group::Client {
            id: "shop".into(),
            host: "10.0.0.7".into(),
        },
        rack_id: None,
        rebalance_timeout_ms: Some(1000),
        subscribed_topic_names: Some([topic].into()),
        subscribed_topic_regex: None,
        server_assignor: None,
        owned: Some(Partitions::new()),
    };
    server
        .broker
        .groups()
        .consumer_heartbeat(beat)
        .await
        .unwrap();
}

fn topic_name(name: &str) -> sapwood_model::TopicName {
    sapwood_model::TopicName::new(name).unwrap()
}

fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> Code {
    result.unwrap_err().code()
}

#[tokio::test]
async fn committed_offsets_come_back_and_each_bad_one_is_refused_alone() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let admin = filled(&server).await;
    assert_eq!(committed(&admin, "g").await, []);
    let mut long = at(P0, 1);
    long.metadata = "x".repeat(5000);
    let mut kept = at(P1, 7);
    kept.metadata = "as far as here".into();
    let offsets = [
        at(P0, 3),
        at(PartitionId(2), 1),
        long,
        PartitionOffset::new("a b", P0, Offset(1)),
        at(P0, u64::MAX),
        kept,
    ];
    let results = admin.commit_offsets("g", &offsets).await.unwrap();
    let codes: Vec<_> = results
        .iter()
        .map(|result| result.as_ref().err().map(Error::code))
        .collect();
    let expected = [
        None,
        Some(Code::UnknownPartition),
        Some(Code::OffsetMetadataTooLarge),
        Some(Code::InvalidTopicName),
        Some(Code::InvalidArgument),
        None,
    ];
    assert_eq!(codes, expected);
    let error = results[1].as_ref().unwrap_err();
    assert_eq!(error.field("partition"), Some("2"));
    let found = admin.committed_offsets("g").await.unwrap();
    assert_eq!(found[0].0, TopicPartition::new("t", P0));
    assert_eq!(found[0].1.offset, Offset(3));
    assert_eq!(found[1].1.metadata, "as far as here");
    assert!(found[1].1.committed_at > Timestamp(0));

    for bad in ["", &"g".repeat(32_768)] {
        let result = admin.commit_offsets(bad, &[at(P0, 1)]).await;
        assert_eq!(code(result), Code::InvalidGroupId);
    }
    let nothing = admin.commit_offsets("g", &[]).await;
    assert_eq!(code(nothing), Code::InvalidArgument);
    server.stop().await;
}

#[tokio::test]
async fn a_group_is_listed_and_described_with_its_lag_and_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let admin = filled(&server).await;
    assert_eq!(
        code(admin.describe_group("g").await),
        Code::UnknownGroup,
        "before there is any"
    );
    commit(&admin, "g", &[at(P0, 10), at(P1, 4)]).await;
    let listing = admin.list_groups().await.unwrap();
    assert!(listing.missing.is_empty());
    assert_eq!(listing.groups[0].name, "g");
    assert_eq!(listing.groups[0].state, GroupState::Empty);
    join(&server, "g").await;

    let described = admin.describe_group("g").await.unwrap();
    assert_eq!(described.group.kind, GroupKind::Consumer);
    assert_eq!(described.group.members, 1);
    assert_eq!(described.assignor, "uniform");
    let member = &described.members[0];
    assert_eq!((&*member.client_id, &*member.host), ("shop", "10.0.0.7"));
    assert_eq!(
        member.assigned,
        [TopicPartition::new("t", P0), TopicPartition::new("t", P1)]
    );
    let lags: Vec<_> = described.partitions.iter().map(|row| row.lag).collect();
    assert_eq!(lags, [Some(0), Some(6)]);
    let [read, unread] = &described.partitions[..] else {
        panic!("{described:?}")
    };
    assert_eq!((read.behind, read.member), (Some(Duration::ZERO), Some(0)));
    assert!(unread.behind.unwrap() > Duration::from_secs(3600), "1970");
    assert_eq!(unread.retention_headroom, Some(Duration::ZERO));
    assert_eq!(unread.bounds.unwrap().high_watermark, Offset(10));

    assert_eq!(code(admin.delete_group("g").await), Code::GroupNotEmpty);
    let parts = [TopicPartition::new("t", P0)];
    let refused = admin.delete_offsets("g", &parts).await.unwrap();
    assert_eq!(
        refused[0].as_ref().unwrap_err().code(),
        Code::GroupReadsTopic
    );
    let refused = admin.commit_offsets("g", &[at(P0, 1)]).await;
    assert_eq!(code(refused), Code::GroupNotEmpty);

    commit(&admin, "idle", &[at(P0, 1), at(P1, 1)]).await;
    admin.delete_offsets("idle", &parts).await.unwrap()[0]
        .as_ref()
        .unwrap();
    assert_eq!(committed(&admin, "idle").await, [("t/1".to_owned(), 1)]);
    admin.delete_group("idle").await.unwrap();
    assert_eq!(code(admin.delete_group("idle").await), Code::UnknownGroup);
    assert_eq!(admin.list_groups().await.unwrap().groups.len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn seeking_shows_the_plan_first_and_moves_all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let admin = filled(&server).await;
    commit(&admin, "g", &[at(P0, 5)]).await;
    let one = |partition| SeekPartitions::One(TopicPartition::new("t", partition));
    let to = |partitions, to| SeekTarget { partitions, to };
    let by_position = |position| SeekTo::Position(position);

    let targets = [
        to(one(P0), SeekTo::By(-2)),
        to(one(P1), by_position(Position::Time(Timestamp(1045)))),
    ];
    for dry_run in [true, false] {
        let plan = admin.seek_group("g", &targets, dry_run).await.unwrap();
        let plan: Vec<_> = plan.iter().map(|step| (step.from, step.to)).collect();
        assert_eq!(
            plan,
            [(Some(Offset(5)), Offset(3)), (None, Offset(5))],
            "{dry_run}"
        );
        let now = committed(&admin, "g").await;
        assert_eq!(now.len(), if dry_run { 1 } else { 2 });
    }
    let cases = [
        (Position::Start, 0),
        (Position::End, 10),
        (Position::Last(4), 6),
        (Position::Offset(Offset(9)), 9),
    ];
    for (position, expected) in cases {
        for partitions in [SeekPartitions::Committed, SeekPartitions::Topic("t".into())] {
            let target = to(partitions, by_position(position));
            let sought = admin.seek_group("g", &[target], false).await.unwrap();
            assert!(sought.iter().all(|step| step.to == Offset(expected)));
        }
    }
    let now = vec![("t/0".to_owned(), 9), ("t/1".to_owned(), 9)];
    assert_eq!(committed(&admin, "g").await, now);

    let beyond = Position::Offset(Offset(11));
    let targets = [
        to(one(P0), by_position(Position::Start)),
        to(one(P1), by_position(beyond)),
    ];
    let error = admin.seek_group("g", &targets, false).await.unwrap_err();
    assert_eq!(error.code(), Code::OffsetOutOfRange);
    assert_eq!(error.field("partition"), Some("1"));
    assert_eq!(error.available(), Some(Offset(0)..Offset(10)));
    assert_eq!(committed(&admin, "g").await, now, "not even the good one");

    let unknown = to(
        SeekPartitions::Topic("none".into()),
        by_position(Position::Start),
    );
    let result = admin.seek_group("g", &[unknown], true).await;
    assert_eq!(code(result), Code::UnknownTopic);
    let all = to(SeekPartitions::Committed, by_position(Position::Start));
    let result = admin.seek_group("h", std::slice::from_ref(&all), true);
    assert_eq!(code(result.await), Code::UnknownGroup);
    join(&server, "g").await;
    let result = admin.seek_group("g", &[all], true).await;
    assert_eq!(code(result), Code::GroupNotEmpty);
    server.stop().await;
}
