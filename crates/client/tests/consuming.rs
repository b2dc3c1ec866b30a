//! The consumer against a broker on a real socket.

// Helpers are outside of test functions; a failure in them is a failed test all the same.
#![allow(clippy::unwrap_used)]

// The same broker on a socket as in the tests of the services.
#[path = "../../grpc/tests/common/mod.rs"]
mod common;

use std::time::Duration;

use common::{Server, broker_options};
use sapwood_client::{
    Assignment, Client, Code, Consumer, Message, NewTopic, Offset, PartitionId, Position, Record,
    Timestamp,
};
use sapwood_grpc::GrpcOptions;

const P0: PartitionId = PartitionId(0);

fn client(server: &Server) -> Client {
    Client::new(&server.address.to_string()).expect("an address")
}

/// Records "0", "1", ... with timestamps 1000, 1010, ...
async fn fill(client: &Client, topic: &str, from: u32, count: u32) {
    let producer = client.producer().batch_bytes(400).build().await.unwrap();
    for n in from..from + count {
        let record = Record::to(topic)
            .partition(P0)
            .value(n.to_string())
            .timestamp(Timestamp(1000 + 10 * i64::from(n)));
        producer.send(record).await.unwrap();
    }
    producer.close().await.unwrap();
}

async fn take(consumer: &mut Consumer, count: usize) -> Vec<Message> {
    let mut messages = Vec::new();
    while messages.len() < count {
        messages.push(consumer.next().await.expect("more to come").unwrap());
    }
    messages
}

async fn rest(mut consumer: Consumer) -> Vec<u64> {
    let mut offsets = Vec::new();
    while let Some(message) = consumer.next().await {
        offsets.push(message.unwrap().offset.0);
    }
    offsets
}

#[tokio::test]
async fn every_position_begins_and_ends_where_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let client = client(&server);
    fill(&client, "t", 0, 100).await;
    client
        .admin()
        .trim("t", &[(P0, Some(Offset(10)))])
        .await
        .unwrap()[0]
        .as_ref()
        .unwrap();
    let cases = [
        (Position::Start, Position::End, 10..100),
        (Position::Offset(Offset(37)), Position::End, 37..100),
        (Position::Last(5), Position::End, 95..100),
        (Position::Last(1000), Position::End, 10..100),
        (Position::Time(Timestamp(1505)), Position::End, 51..100),
        (
            Position::Time(Timestamp(0)),
            Position::Time(Timestamp(1200)),
            10..20,
        ),
        (Position::Time(Timestamp(99_999)), Position::End, 100..100),
        (
            Position::Offset(Offset(20)),
            Position::Offset(Offset(23)),
            20..23,
        ),
        (Position::Offset(Offset(20)), Position::Last(10), 20..90),
        (Position::End, Position::End, 100..100),
    ];
    for (from, until, expected) in cases {
        let assignment = Assignment::new("t", P0).from(from).until(until);
        let consumer = client.consumer().assign(assignment).build().await.unwrap();
        assert_eq!(
            rest(consumer).await,
            expected.collect::<Vec<u64>>(),
            "{from:?} {until:?}"
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn a_waiting_consumer_gets_what_comes_later() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let client = client(&server);
    fill(&client, "t", 0, 3).await;
    let builder = client.consumer().topic("t", Position::End, None);
    let mut consumer = builder.build().await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(100), consumer.next()).await;
    assert!(early.is_err(), "{early:?}");
    assert_eq!(consumer.position("t", P0), Some(Offset(3)));
    fill(&client, "t", 3, 2).await;
    let messages = take(&mut consumer, 2).await;
    assert_eq!(messages[0].value.as_deref(), Some(&b"3"[..]));
    assert_eq!(consumer.position("t", P0), Some(Offset(5)));
    server.stop().await;
}

#[tokio::test]
async fn a_consumer_goes_on_where_it_was_after_the_broker_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path()).await;
    let client = client(&server);
    fill(&client, "t", 0, 500).await;
    // Little is read ahead, so that each connection has something to do.
    let builder = client
        .consumer()
        .topic("t", Position::Start, None)
        .prefetch_bytes(1000);
    let mut consumer = builder.build().await.unwrap();
    let mut seen = Vec::new();
    for round in 0..3 {
        seen.extend(take(&mut consumer, 100).await);
        let address = server.address;
        server.kill().await;
        let mut options = broker_options(dir.path());
        // The records say that they are of 1970.
        options.topic_defaults = vec![("retention.ms".into(), "-1".into())];
        server = Server::start_with(options, GrpcOptions::default(), Some(address)).await;
        fill(&client, "t", 500 + round * 50, 50).await;
    }
    seen.extend(take(&mut consumer, 350).await);
    let offsets: Vec<u64> = seen.iter().map(|message| message.offset.0).collect();
    assert_eq!(offsets, (0..650).collect::<Vec<u64>>());
    server.stop().await;
}

#[tokio::test]
async fn the_retry_timeout_ends_the_stream_with_an_error_and_then_with_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let client = client(&server);
    fill(&client, "t", 0, 1).await;
    let builder = client.consumer().topic("t", Position::Start, None);
    let builder = builder.retry_timeout(Some(Duration::from_millis(200)));
    let mut consumer = builder.build().await.unwrap();
    take(&mut consumer, 1).await;
    server.kill().await;
    let error = consumer.next().await.unwrap().unwrap_err();
    assert_eq!(error.code(), Code::Unreachable);
    assert!(consumer.next().await.is_none());
}

#[tokio::test]
async fn an_offset_outside_the_log_ends_its_partition_and_tells_the_range() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let client = client(&server);
    client
        .admin()
        .create_topic(&NewTopic::new("t").partitions(2))
        .await
        .unwrap();
    fill(&client, "t", 0, 5).await;
    let builder = client
        .consumer()
        .assign(
            Assignment::new("t", P0)
                .from(Position::Offset(Offset(9)))
                .until(Position::End),
        )
        .assign(Assignment::new("t", PartitionId(7)))
        .assign(Assignment::new("none", P0));
    let mut consumer = builder.build().await.unwrap();
    let mut codes = Vec::new();
    for _ in 0..3 {
        let error = consumer.next().await.unwrap().unwrap_err();
        if error.code() == Code::OffsetOutOfRange {
            assert_eq!(error.available(), Some(Offset(0)..Offset(5)));
            assert_eq!(error.field("partition"), Some("0"));
        }
        codes.push(error.code());
    }
    assert!(codes.contains(&Code::OffsetOutOfRange));
    assert!(codes.contains(&Code::UnknownPartition) && codes.contains(&Code::UnknownTopic));
    assert!(consumer.next().await.is_none());
    // It can be assigned again.
    consumer.assign(Assignment::new("t", P0).until(Position::End));
    assert_eq!(rest(consumer).await, [0, 1, 2, 3, 4]);
    server.stop().await;
}

#[tokio::test]
async fn assigning_again_seeks_and_nothing_of_before_is_returned() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let client = client(&server);
    fill(&client, "t", 0, 300).await;
    let builder = client
        .consumer()
        .topic("t", Position::Start, None)
        .prefetch_bytes(2000);
    let mut consumer = builder.build().await.unwrap();
    for to in [250, 3, 140, 0, 299] {
        take(&mut consumer, 1).await;
        consumer.assign(Assignment::new("t", P0).from(Position::Offset(Offset(to))));
        assert_eq!(take(&mut consumer, 1).await[0].offset, Offset(to));
    }
    consumer.unassign("t", P0);
    assert!(consumer.next().await.is_none());
    server.stop().await;
}

#[tokio::test]
async fn a_consumer_that_does_not_read_holds_up_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let client = client(&server);
    let producer = client.producer().build().await.unwrap();
    for _ in 0..200 {
        let record = Record::to("t").value(vec![7u8; 100_000]);
        producer.send(record).await.unwrap();
    }
    producer.close().await.unwrap();
    // Both share the client's connection.
    let build = || {
        client
            .consumer()
            .topic("t", Position::Start, Some(Position::End))
            .build()
    };
    let mut lazy = build().await.unwrap();
    lazy.next().await.unwrap().unwrap();
    let busy = build().await.unwrap();
    assert_eq!(rest(busy).await.len(), 200);
    assert_eq!(rest(lazy).await.len(), 199);
    server.stop().await;
}

#[tokio::test]
async fn batches_far_above_the_prefetch_are_read_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let client = client(&server);
    let topic = NewTopic::new("t").config("max.message.bytes", "2000000");
    client.admin().create_topic(&topic).await.unwrap();
    let producer = client.producer().build().await.unwrap();
    for n in 0..5u8 {
        producer
            .send(Record::to("t").value(vec![n; 1_500_000]))
            .await
            .unwrap();
    }
    producer.close().await.unwrap();
    let builder = client
        .consumer()
        .topic("t", Position::Start, Some(Position::End));
    let consumer = builder.prefetch_bytes(1).build().await.unwrap();
    assert_eq!(rest(consumer).await, [0, 1, 2, 3, 4]);
    server.stop().await;
}
