//! Admin against a broker on a real socket.

// Helpers are outside of test functions; a failure in them is a failed test all the same.
#![allow(clippy::unwrap_used)]

// The same broker on a socket as in the tests of the services.
#[path = "../../grpc/tests/common/mod.rs"]
mod common;

use common::Server;
use sapwood_client::{
    Acks, Append, Client, Code, Codec, ConfigChange, Durability, NewTopic, Offset, OffsetQuery,
    PartitionId, Position, RawBatch, Record, Timestamp,
};

const P0: PartitionId = PartitionId(0);

fn client(server: &Server) -> Client {
    Client::new(&server.address.to_string()).expect("an address")
}

fn append(topic: &str, values: &[&'static str], expected_end: Option<u64>) -> Append {
    Append {
        topic: topic.into(),
        partition: P0,
        records: values
            .iter()
            .map(|value| Record::to(topic).key("k").value(*value))
            .collect(),
        acks: Acks::All,
        expected_end: expected_end.map(Offset),
        compression: Codec::Zstd,
    }
}

#[tokio::test]
async fn a_topic_is_created_described_changed_grown_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let admin = client(&server).admin();
    let new = NewTopic::new("orders")
        .partitions(2)
        .config("durability", "os");
    let dry = NewTopic {
        validate_only: true,
        ..new.clone()
    };
    admin.create_topic(&dry).await.unwrap();
    assert!(admin.list_topics().await.unwrap().is_empty());

    let topic = admin.create_topic(&new).await.unwrap();
    assert_eq!((topic.partitions, topic.durability), (2, Durability::Os));
    assert_eq!(topic.id.len(), 22);
    let exists = admin.create_topic(&new).await.unwrap_err();
    assert_eq!(exists.code(), Code::TopicExists);
    assert!(!exists.hint().is_empty() && exists.field("topic") == Some("orders"));

    let changes = [
        ConfigChange::Set("retention.ms".into(), "12345".into()),
        ConfigChange::Unset("durability".into()),
    ];
    admin.alter_topic("orders", &changes).await.unwrap();
    admin.add_partitions("orders", 3).await.unwrap();
    let description = admin.describe_topic("orders").await.unwrap();
    assert_eq!(description.partitions.len(), 3);
    assert_eq!(description.topic.durability, Durability::Fsync);
    let retention = description
        .configs
        .iter()
        .find(|c| c.key == "retention.ms")
        .unwrap();
    assert_eq!(
        (retention.value.as_str(), retention.source.as_str()),
        ("12345", "topic")
    );

    admin.delete_topic("orders").await.unwrap();
    let gone = admin.describe_topic("orders").await.unwrap_err();
    assert_eq!(gone.code(), Code::UnknownTopic);
    server.stop().await;
}

#[tokio::test]
async fn bad_requests_are_refused_with_their_codes() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let admin = client(&server).admin();
    admin.create_topic(&NewTopic::new("t")).await.unwrap();
    let refused = async |topic: NewTopic| admin.create_topic(&topic).await.unwrap_err();
    assert_eq!(
        refused(NewTopic::new("a b")).await.code(),
        Code::InvalidTopicName
    );
    assert_eq!(
        refused(NewTopic::new("a").partitions(0)).await.code(),
        Code::InvalidPartitions
    );
    let factor = NewTopic {
        replication_factor: Some(70_000),
        ..NewTopic::new("a")
    };
    assert_eq!(refused(factor).await.code(), Code::InvalidReplication);
    let misspelt = refused(NewTopic::new("a").config("retention.mss", "1")).await;
    assert_eq!(misspelt.code(), Code::UnknownTopicConfig);
    assert_eq!(misspelt.field("suggestion"), Some("retention.ms"));
    let value = refused(NewTopic::new("a").config("retention.ms", "soon")).await;
    assert_eq!(value.code(), Code::InvalidTopicConfig);
    let fewer = admin.add_partitions("t", 1).await.unwrap_err();
    assert_eq!(fewer.code(), Code::InvalidPartitions);
    for code in [
        admin.delete_topic("none").await.unwrap_err().code(),
        admin.alter_topic("none", &[]).await.unwrap_err().code(),
        admin.add_partitions("none", 3).await.unwrap_err().code(),
        admin.trim("none", &[(P0, None)]).await.unwrap_err().code(),
        admin.bounds("none", P0).await.unwrap_err().code(),
        admin.read("none", P0, Offset(0)).await.unwrap_err().code(),
    ] {
        assert_eq!(code, Code::UnknownTopic);
    }
    let partition = admin.bounds("t", PartitionId(4)).await.unwrap_err();
    assert_eq!(partition.code(), Code::UnknownPartition);
    server.stop().await;
}

#[tokio::test]
async fn an_append_with_the_wrong_expected_end_names_the_real_one() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let admin = client(&server).admin();
    let first = admin
        .append(append("events", &["a", "b"], Some(0)))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (first.base_offset, first.last_offset),
        (Offset(0), Offset(1))
    );
    let conflict = admin
        .append(append("events", &["x"], Some(1)))
        .await
        .unwrap_err();
    assert_eq!(conflict.code(), Code::ExpectedEndConflict);
    assert_eq!(conflict.actual_end(), Some(Offset(2)));
    admin
        .append(append("events", &["c"], Some(2)))
        .await
        .unwrap();

    let one = admin.read("events", P0, Offset(1)).await.unwrap().unwrap();
    assert_eq!(
        (one.offset, one.value.as_deref()),
        (Offset(1), Some(&b"b"[..]))
    );
    assert_eq!(admin.read("events", P0, Offset(3)).await.unwrap(), None);
    let outside = admin.read("events", P0, Offset(4)).await.unwrap_err();
    assert_eq!(outside.available(), Some(Offset(0)..Offset(3)));
    let run = admin.read_run("events", P0, Offset(0), 2).await.unwrap();
    assert_eq!((run.messages.len(), run.next_offset), (2, Offset(2)));
    let run = admin.read_run("events", P0, Offset(1), 100).await.unwrap();
    assert_eq!((run.messages.len(), run.next_offset), (2, Offset(3)));
    assert_eq!(run.bounds.high_watermark, Offset(3));
    server.stop().await;
}

#[tokio::test]
async fn offsets_are_found_and_partitions_trimmed_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let admin = client(&server).admin();
    let mut timed = append("t", &["a", "b", "c", "d"], None);
    for (record, time) in timed.records.iter_mut().zip([100, 200, 150, 300]) {
        record.timestamp = Some(Timestamp(time));
    }
    admin.append(timed).await.unwrap();
    let query = |at| OffsetQuery {
        topic: "t".into(),
        partition: P0,
        at,
    };
    let queries = [
        query(None),
        query(Some(Position::Start)),
        query(Some(Position::End)),
        query(Some(Position::Time(Timestamp(180)))),
        query(Some(Position::Time(Timestamp(301)))),
        query(Some(Position::Last(3))),
        query(Some(Position::Offset(Offset(5)))),
    ];
    let answers = admin.offsets(&queries).await.unwrap();
    let offsets: Vec<Option<u64>> = answers[..6]
        .iter()
        .map(|answer| answer.as_ref().unwrap().offset.map(|offset| offset.0))
        .collect();
    assert_eq!(offsets, [None, Some(0), Some(4), Some(1), Some(4), Some(1)]);
    assert_eq!(answers[3].as_ref().unwrap().timestamp, Some(Timestamp(200)));
    assert_eq!(
        answers[6].as_ref().unwrap_err().code(),
        Code::OffsetOutOfRange
    );

    let parts = [
        (P0, Some(Offset(3))),
        (PartitionId(9), None),
        (P0, Some(Offset(99))),
    ];
    let trimmed = admin.trim("t", &parts).await.unwrap();
    assert_eq!(*trimmed[0].as_ref().unwrap(), Offset(3));
    assert_eq!(
        trimmed[1].as_ref().unwrap_err().code(),
        Code::UnknownPartition
    );
    assert_eq!(
        trimmed[2].as_ref().unwrap_err().code(),
        Code::OffsetOutOfRange
    );
    let bounds = admin.bounds("t", P0).await.unwrap();
    assert_eq!((bounds.log_start, bounds.log_end), (Offset(3), Offset(4)));
    let below = admin.read("t", P0, Offset(0)).await.unwrap_err();
    assert_eq!(below.available(), Some(Offset(3)..Offset(4)));
    server.stop().await;
}

#[tokio::test]
async fn raw_batches_are_taken_as_they_are_and_damaged_ones_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let admin = client(&server).admin();
    let mut builder = sapwood_record::BatchBuilder::new(Codec::None);
    let input = sapwood_record::RecordInput {
        timestamp: Timestamp(5),
        key: None,
        value: Some(b"raw"),
        headers: &[],
    };
    builder.push(input).unwrap();
    let good = builder.build().unwrap().to_bytes();
    let mut bad = good.to_vec();
    let last = bad.len() - 1;
    bad[last] ^= 1;
    let raw = |batch| RawBatch {
        topic: "t".into(),
        partition: P0,
        batch,
        acks: Acks::All,
        expected_end: None,
    };
    let error = admin.produce_batch(raw(bad.into())).await.unwrap_err();
    assert_eq!(error.code(), Code::CorruptBatch);
    let written = admin
        .produce_batch(raw(good.clone()))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(written.base_offset, Offset(0));
    let silent = RawBatch {
        acks: Acks::None,
        ..raw(good)
    };
    assert_eq!(admin.produce_batch(silent).await.unwrap(), None);
    server.stop().await;
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_does_not_answer() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    // Port 1 refuses.
    let client = Client::new(&format!("127.0.0.1:1,{}", server.address)).unwrap();
    assert!(client.admin().list_topics().await.unwrap().is_empty());
    let alone = Client::new("127.0.0.1:1").unwrap();
    let error = alone.admin().list_topics().await.unwrap_err();
    assert_eq!(error.code(), Code::Unreachable);
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    server.stop().await;
}

#[test]
fn clients_can_be_moved_between_tasks() {
    fn is<T: Send + Sync + Clone + 'static>() {}
    is::<Client>();
    is::<sapwood_client::Admin>();
    is::<sapwood_client::Producer>();
    is::<sapwood_client::Message>();
    is::<sapwood_client::Error>();
    fn moves<T: Send + 'static>(_: &T) {}
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _entered = runtime.enter();
    let client = Client::new("127.0.0.1:1").unwrap();
    moves(&client.producer().build());
    moves(&client.consumer().build());
    moves(&{ async move { client.admin().list_topics().await } });
}
