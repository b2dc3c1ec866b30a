//! The producer against a broker on a real socket.

// Helpers are outside of test functions; a failure in them is a failed test all the same.
#![allow(clippy::unwrap_used)]

// The same broker on a socket as in the tests of the services.
#[path = "../../grpc/tests/common/mod.rs"]
mod common;

use std::{collections::BTreeSet, time::Duration};

use common::{Server, broker_options};
use sapwood_client::{Acks, Client, Code, Codec, NewTopic, Offset, PartitionId, Position, Record};
use sapwood_grpc::GrpcOptions;

fn client(server: &Server) -> Client {
    Client::new(&server.address.to_string()).expect("an address")
}

async fn read_all(client: &Client, topic: &str) -> Vec<sapwood_client::Message> {
    let builder = client
        .consumer()
        .topic(topic, Position::Start, Some(Position::End));
    let mut consumer = builder.build().await.expect("it connects");
    let mut messages = Vec::new();
    while let Some(message) = consumer.next().await {
        messages.push(message.expect("it can be read"));
    }
    messages
}

#[tokio::test]
async fn records_arrive_once_in_order_and_receipts_name_their_offsets() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    for codec in [
        Codec::None,
        Codec::Gzip,
        Codec::Snappy,
        Codec::Lz4,
        Codec::Zstd,
    ] {
        let client = client(&server);
        let topic = format!("orders-{codec:?}").to_lowercase();
        client
            .admin()
            .create_topic(&NewTopic::new(&topic).partitions(3))
            .await
            .unwrap();
        let builder = client.producer().compression(codec).batch_bytes(2000);
        let producer = builder.build().await.unwrap();
        let mut receipts = Vec::new();
        for n in 0..500 {
            let record = Record::to(topic.as_str())
                .key(format!("k{}", n % 17))
                .value(format!("value {n}"))
                .header("n", n.to_string());
            receipts.push(producer.send(record).await.unwrap());
        }
        let mut delivered = BTreeSet::new();
        for receipt in receipts {
            let delivery = receipt.await.unwrap();
            assert!(delivered.insert((delivery.partition, delivery.offset.unwrap())));
        }
        producer.close().await.unwrap();
        let messages = read_all(&client, &topic).await;
        let read: BTreeSet<_> = messages.iter().map(|m| (m.partition, m.offset)).collect();
        assert_eq!((messages.len(), read), (500, delivered));
        for key in 0..17 {
            let key = format!("k{key}");
            let of_key = || {
                messages
                    .iter()
                    .filter(|m| m.key.as_deref() == Some(key.as_bytes()))
            };
            assert_eq!(
                of_key().map(|m| m.partition).collect::<BTreeSet<_>>().len(),
                1
            );
            let numbers: Vec<u32> = of_key()
                .map(|m| std::str::from_utf8(m.headers[0].value.as_ref().unwrap()).unwrap())
                .map(|n| n.parse().unwrap())
                .collect();
            assert!(numbers.is_sorted(), "{key}: {numbers:?}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_when_the_broker_is_killed_and_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path()).await;
    let client = client(&server);
    for durability in ["fsync", "os"] {
        let topic = NewTopic::new(durability)
            .partitions(2)
            .config("durability", durability);
        client.admin().create_topic(&topic).await.unwrap();
    }
    let builder = client
        .producer()
        .batch_bytes(300)
        .linger(Duration::from_millis(1));
    let producer = builder.build().await.unwrap();
    let sender = {
        let producer = producer.clone();
        tokio::spawn(async move {
            let mut receipts = Vec::new();
            for n in 0..6000u32 {
                for topic in ["fsync", "os"] {
                    let record = Record::to(topic)
                        .key((n % 7).to_string())
                        .value(n.to_string());
                    receipts.push(producer.send(record).await.unwrap());
                }
                if n % 50 == 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            receipts
        })
    };
    for round in 0..4 {
        tokio::time::sleep(Duration::from_millis(120)).await;
        let address = server.address;
        if round == 3 {
            server.stop().await;
        } else {
            server.kill().await;
        }
        server = Server::start_with(
            broker_options(dir.path()),
            GrpcOptions::default(),
            Some(address),
        )
        .await;
    }
    let receipts = sender.await.unwrap();
    producer.close().await.unwrap();
    for receipt in receipts {
        receipt.await.unwrap();
    }
    for topic in ["fsync", "os"] {
        let messages = read_all(&client, topic).await;
        for partition in 0..2 {
            let of_partition = || {
                messages
                    .iter()
                    .filter(|m| m.partition == PartitionId(partition))
            };
            let offsets: Vec<u64> = of_partition().map(|m| m.offset.0).collect();
            assert_eq!(offsets, (0..offsets.len() as u64).collect::<Vec<_>>());
            let numbers: Vec<u32> = of_partition()
                .map(|m| {
                    std::str::from_utf8(m.value.as_ref().unwrap())
                        .unwrap()
                        .parse()
                        .unwrap()
                })
                .collect();
            assert!(
                numbers.windows(2).all(|pair| pair[0] < pair[1]),
                "{topic}/{partition}"
            );
        }
        assert_eq!(messages.len(), 6000, "{topic}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_record_that_is_too_large_fails_alone() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let client = client(&server);
    let topic = NewTopic::new("small").config("max.message.bytes", "2000");
    client.admin().create_topic(&topic).await.unwrap();
    let producer = client.producer().batch_bytes(1000).build().await.unwrap();
    let mut receipts = Vec::new();
    for n in 0..200usize {
        let size = if n % 10 == 5 { 5000 } else { 10 };
        let record = Record::to("small").value(vec![n as u8; size]);
        receipts.push((size, producer.send(record).await.unwrap()));
    }
    let failure = producer.flush().await.unwrap_err();
    assert_eq!(failure.code(), Code::RecordTooLarge);
    assert_eq!(
        (failure.field("topic"), failure.field("partition")),
        (Some("small"), Some("0"))
    );
    // A failure is told once.
    producer.flush().await.unwrap();
    for (size, receipt) in receipts {
        match (size, receipt.await) {
            (5000, Err(error)) => assert_eq!(error.code(), Code::RecordTooLarge),
            (10, Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    producer.close().await.unwrap();
    let values: Vec<u8> = read_all(&client, "small")
        .await
        .iter()
        .map(|m| m.value.as_ref().unwrap()[0])
        .collect();
    assert_eq!(
        values,
        (0..200).filter(|n| n % 10 != 5).collect::<Vec<u8>>()
    );
    server.stop().await;
}

#[tokio::test]
async fn a_full_buffer_makes_send_wait_and_a_timeout_makes_room() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let client = client(&server);
    client
        .admin()
        .create_topic(&NewTopic::new("t"))
        .await
        .unwrap();
    let builder = client.producer().buffer_bytes(5000).batch_bytes(1000);
    let producer = builder
        .delivery_timeout(Duration::from_millis(700))
        .build()
        .await
        .unwrap();
    producer
        .send(Record::to("t").value("first"))
        .await
        .unwrap()
        .await
        .unwrap();
    server.kill().await;

    let mut receipts = Vec::new();
    let record = || Record::to("t").value(vec![0; 900]);
    let full = loop {
        let sent = tokio::time::timeout(Duration::from_millis(50), producer.send(record())).await;
        match sent {
            Ok(receipt) => receipts.push(receipt.unwrap()),
            Err(_) => break receipts.len(),
        }
    };
    assert_eq!(full, 5);
    let too_large = producer
        .send(Record::to("t").value(vec![0; 6000]))
        .await
        .unwrap_err();
    assert_eq!(too_large.code(), Code::RecordTooLarge);
    for receipt in receipts {
        assert_eq!(receipt.await.unwrap_err().code(), Code::TimedOut);
    }
    assert_eq!(producer.flush().await.unwrap_err().code(), Code::TimedOut);
    // There is room again.
    let sent = tokio::time::timeout(Duration::from_millis(500), producer.send(record())).await;
    let receipt = sent.expect("there is room").unwrap();
    let clone = producer.clone();
    assert_eq!(producer.close().await.unwrap_err().code(), Code::TimedOut);
    assert_eq!(receipt.await.unwrap_err().code(), Code::TimedOut);
    assert_eq!(
        clone.send(record()).await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn without_acks_records_arrive_before_close_returns() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let client = client(&server);
    let producer = client
        .producer()
        .acks(Acks::None)
        .batch_bytes(500)
        .build()
        .await
        .unwrap();
    for n in 0..1000 {
        let receipt = producer
            .send(Record::to("auto").value(n.to_string()))
            .await
            .unwrap();
        if n == 999 {
            assert_eq!(receipt.await.unwrap().offset, None);
        }
    }
    producer.close().await.unwrap();
    // Nothing waits for durability, so the watermark may follow a moment later.
    let bounds = loop {
        let bounds = client.admin().bounds("auto", PartitionId(0)).await.unwrap();
        if bounds.high_watermark == bounds.log_end {
            break bounds;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(bounds.log_end, Offset(1000));
    server.stop().await;
}

#[tokio::test]
async fn dropping_the_producer_still_sends_what_was_handed_over() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let client = client(&server);
    let producer = client
        .producer()
        .linger(Duration::from_secs(60))
        .build()
        .await
        .unwrap();
    let receipt = producer.send(Record::to("auto").value("x")).await.unwrap();
    drop(producer);
    assert_eq!(receipt.await.unwrap().offset, Some(Offset(0)));
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_handed_over_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let options = sapwood_broker::BrokerOptions {
        auto_create: false,
        ..broker_options(dir.path())
    };
    let server = Server::start_with(options, GrpcOptions::default(), None).await;
    let client = client(&server);
    let producer = client.producer().build().await.unwrap();
    let error = producer
        .send(Record::to("nope").value("x"))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::UnknownTopic);
    client
        .admin()
        .create_topic(&NewTopic::new("one"))
        .await
        .unwrap();
    let far = Record::to("one").partition(PartitionId(3)).value("x");
    assert_eq!(
        producer.send(far.clone()).await.unwrap_err().code(),
        Code::UnknownPartition
    );
    // Partitions that are added are found.
    client.admin().add_partitions("one", 4).await.unwrap();
    producer.send(far).await.unwrap().await.unwrap();
    for builder in [
        client.producer().batch_bytes(0),
        client.producer().buffer_bytes(2 << 30),
        client.producer().linger(Duration::from_secs(200)),
    ] {
        assert_eq!(
            builder.build().await.unwrap_err().code(),
            Code::InvalidArgument
        );
    }
    producer.close().await.unwrap();
    server.stop().await;
    let unreachable = client.producer().build().await.unwrap_err();
    assert_eq!(unreachable.code(), Code::Unreachable);
}

#[tokio::test]
async fn a_topic_that_is_deleted_and_made_again_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let client = client(&server);
    let producer = client.producer().build().await.unwrap();
    for _ in 0..3 {
        producer
            .send(Record::to("t").value("x"))
            .await
            .unwrap()
            .await
            .unwrap();
    }
    client.admin().delete_topic("t").await.unwrap();
    client
        .admin()
        .create_topic(&NewTopic::new("t").partitions(1))
        .await
        .unwrap();
    let delivery = producer
        .send(Record::to("t").value("y"))
        .await
        .unwrap()
        .await
        .unwrap();
    assert_eq!(delivery.offset, Some(Offset(0)));
    producer.close().await.unwrap();
    server.stop().await;
}
