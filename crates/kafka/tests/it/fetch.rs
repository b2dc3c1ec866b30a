//! Fetch without sessions: versions, limits, waiting, errors.

use std::{process::Command, time::Duration};

use sapwood_broker::BrokerOptions;
use sapwood_kafka_wire::{
    Uuid,
    messages::{FetchRequest, FetchRequestPartition, FetchRequestTopic, FetchResponse},
};
use sapwood_model::{Offset, PartitionId};
use tempfile::TempDir;

use crate::support::{
    Server, Start, batch,
    client::{fetch, from, produce_to},
    timed, until, values,
};

#[tokio::test]
async fn every_version_reads_the_same_records() {
    let server = Server::start().await;
    let id = Uuid(server.create("t", &[]).await.id.0);
    let mut client = server.connect().await;
    client.produce("t", batch(&["a", "b"])).await;
    client.produce("t", batch(&["c"])).await;
    for version in 4..=18 {
        let mut request = fetch("t", 1);
        request.topics[0].topic_id = id;
        let response = client.ask(version, &request).await;
        assert_eq!((response.error_code, response.session_id), (0, 0));
        let topic = &response.responses[0];
        match version {
            13.. => assert_eq!((topic.topic_id, topic.topic.as_str()), (id, "")),
            _ => assert_eq!(topic.topic, "t"),
        }
        let partition = &topic.partitions[0];
        assert_eq!((partition.partition_index, partition.error_code), (0, 0));
        assert_eq!(
            (partition.high_watermark, partition.last_stable_offset),
            (3, 3)
        );
        assert_eq!(partition.preferred_read_replica, -1);
        assert_eq!(partition.aborted_transactions, None);
        // A batch comes whole, also when its middle was asked for.
        let all = [(0, "a"), (1, "b"), (2, "c")].map(|(at, text)| (at, text.to_owned()));
        assert_eq!(
            values(partition.records.as_ref().unwrap()),
            all,
            "{version}"
        );
    }
}

#[tokio::test]
async fn readers_of_committed_records_are_told_that_none_was_aborted() {
    let server = Server::start().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    client.produce("t", batch(&["a"])).await;
    for version in 4..=12 {
        let request = FetchRequest {
            isolation_level: 1,
            ..fetch("t", 0)
        };
        let partition = client.fetch_as(version, &request).await;
        assert_eq!(partition.aborted_transactions, Some(vec![]));
        assert_eq!(values(&partition.records.unwrap()).len(), 1);
    }
}

#[tokio::test]
async fn at_the_end_there_are_empty_records_and_beyond_it_an_error() {
    let server = Server::start().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    client.produce("t", batch(&["a"])).await;
    let at_end = client.fetch_as(12, &fetch("t", 1)).await;
    assert_eq!((at_end.error_code, at_end.high_watermark), (0, 1));
    assert_eq!(at_end.records.as_deref(), Some(&[][..]));
    for offset in [2, i64::MAX, -1, i64::MIN] {
        let (beyond, took) = timed(client.fetch_as(
            12,
            &FetchRequest {
                max_wait_ms: 10_000,
                ..fetch("t", offset)
            },
        ))
        .await;
        assert_eq!(
            (beyond.error_code, beyond.high_watermark),
            (1, -1),
            "{offset}"
        );
        assert_eq!(beyond.records.as_deref(), Some(&[][..]));
        assert!(took < Duration::from_secs(5), "told only after {took:?}");
    }
    server
        .broker
        .trim("t", PartitionId(0), Some(Offset(1)))
        .await
        .unwrap();
    assert_eq!(client.fetch_as(12, &fetch("t", 0)).await.error_code, 1);
}

#[tokio::test]
async fn epochs_that_the_client_knows_are_held_against_ours() {
    let server = Server::start().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    let with_epoch = |current_leader_epoch| {
        let mut request = fetch("t", 0);
        request.topics[0].partitions[0].current_leader_epoch = current_leader_epoch;
        request
    };
    let epoch = server
        .broker
        .leader("t", PartitionId(0))
        .unwrap()
        .leader_epoch;
    let current = i32::try_from(epoch.0).unwrap();
    assert_eq!(client.fetch_as(12, &with_epoch(-1)).await.error_code, 0);
    assert_eq!(
        client.fetch_as(12, &with_epoch(current)).await.error_code,
        0
    );
    assert_eq!(
        client
            .fetch_as(12, &with_epoch(current + 1))
            .await
            .error_code,
        75
    );
    // Versions below 9 do not say an epoch.
    assert_eq!(
        client
            .fetch_as(8, &with_epoch(current + 1))
            .await
            .error_code,
        0
    );
}

#[tokio::test]
async fn a_reader_that_has_records_which_the_log_has_not_is_told_where_they_part() {
    let epoch_of = |server: &Server| {
        let leader = server.broker.leader("t", PartitionId(0)).unwrap();
        i32::try_from(leader.leader_epoch.0).unwrap()
    };
    let server = Server::start().await;
    let id = Uuid(server.create("t", &[]).await.id.0);
    let mut client = server.connect().await;
    client.produce("t", batch(&["a", "b"])).await;
    let first = epoch_of(&server);
    // A broker that finds what a crash leaves begins a new epoch.
    let scratch = TempDir::new().unwrap();
    let left = scratch.path().join("left");
    let mut copy = Command::new("cp");
    copy.arg("-r").arg(&server.broker.options().data_dir);
    assert!(copy.arg(&left).status().unwrap().success());
    let server = Server::start_with(Start {
        broker: Box::new(|options| BrokerOptions {
            data_dir: left,
            ..options
        }),
        ..Start::default()
    })
    .await;
    let second = epoch_of(&server);
    assert!(second > first);
    let mut client = server.connect().await;
    client.produce("t", batch(&["c", "d"])).await;
    let asking = |offset, epoch| {
        let mut request = FetchRequest {
            max_wait_ms: 10_000,
            session_epoch: -1,
            ..fetch("t", offset)
        };
        request.topics[0].topic_id = id;
        request.topics[0].partitions[0].last_fetched_epoch = epoch;
        request
    };
    for version in 12..=18 {
        // Error, diverging epoch and its end, high watermark, number of records.
        let mut ask = async |offset, epoch| {
            let said = client.fetch_as(version, &asking(offset, epoch)).await;
            let diverging = &said.diverging_epoch;
            (
                said.error_code,
                (diverging.epoch, diverging.end_offset),
                said.high_watermark,
                values(&said.records.unwrap()).len(),
            )
        };
        let same = (0, (-1, -1), 4);
        assert_eq!(ask(2, first).await, (same.0, same.1, same.2, 2));
        assert_eq!(ask(3, second).await, (same.0, same.1, same.2, 2));
        assert_eq!(ask(3, -1).await, (same.0, same.1, same.2, 2));
        // It has a third record of the first epoch, or a fifth; or one of an epoch that never was.
        assert_eq!(ask(3, first).await, (0, (first, 2), 4, 0));
        assert_eq!(ask(5, second).await, (0, (second, 4), 4, 0));
        assert_eq!(ask(1, second + 1).await, (1, (-1, -1), -1, 0));
    }
    // Versions before cannot say it.
    assert_eq!(client.fetch_as(11, &asking(3, first)).await.error_code, 0);
    let trimmed = server.broker.trim("t", PartitionId(0), Some(Offset(3)));
    trimmed.await.unwrap();
    let below = client.fetch_as(12, &asking(2, second)).await;
    assert_eq!((below.error_code, below.diverging_epoch.epoch), (1, -1));
}

#[tokio::test]
async fn what_is_not_there_is_an_error_of_its_partition_and_does_not_hurry_the_others() {
    let server = Server::start().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    let mut request = fetch("t", 0);
    request.max_wait_ms = 300;
    request.topics[0]
        .partitions
        .extend([from(1, 0), from(-1, 0)]);
    request.topics.extend(fetch("unknown", 0).topics);
    let (response, took) = timed(client.ask(12, &request)).await;
    let codes: Vec<_> = response
        .responses
        .iter()
        .map(|topic| {
            topic
                .partitions
                .iter()
                .map(|p| p.error_code)
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(codes, [vec![0, 3, 3], vec![3]]);
    assert!(took >= Duration::from_millis(300), "{took:?}");
    let mut by_id = fetch("", 0);
    by_id.topics[0].topic_id = Uuid(5);
    let partition = client.fetch_as(13, &by_id).await;
    assert_eq!(partition.error_code, 100);
}

#[tokio::test]
async fn limits_hold_but_for_the_first_batch() {
    let server = Server::start().await;
    server.create_with("t", 3, &[]).await;
    let mut client = server.connect().await;
    let text = "x".repeat(10_000);
    for index in 0..3 {
        for _ in 0..5 {
            let request = produce_to("t", index, batch(&[&text]));
            assert_eq!(client.produce_as(9, &request).await.error_code, 0);
        }
    }
    let counts = |response: &FetchResponse| {
        let partitions = response.responses[0].partitions.iter();
        let count = |records: &bytes::Bytes| values(records).len();
        partitions
            .map(|partition| count(partition.records.as_ref().unwrap()))
            .collect::<Vec<_>>()
    };
    let request = |max_bytes, partition_max_bytes| FetchRequest {
        min_bytes: 1,
        max_bytes,
        topics: vec![FetchRequestTopic {
            topic: "t".to_owned(),
            partitions: (0..3)
                .map(|partition| FetchRequestPartition {
                    partition_max_bytes,
                    ..from(partition, 0)
                })
                .collect(),
            ..FetchRequestTopic::default()
        }],
        ..FetchRequest::default()
    };
    let all = 10 << 20;
    assert_eq!(counts(&client.ask(12, &request(all, all)).await), [5, 5, 5]);
    assert_eq!(
        counts(&client.ask(12, &request(all, 25_000)).await),
        [2, 2, 2]
    );
    assert_eq!(
        counts(&client.ask(12, &request(35_000, all)).await),
        [3, 0, 0]
    );
    // One batch comes although it is above every limit: readers must get on.
    for bytes in [1, 0, -1, i32::MIN] {
        assert_eq!(
            counts(&client.ask(12, &request(bytes, bytes)).await),
            [1, 0, 0],
            "{bytes}"
        );
    }
    assert_eq!(counts(&client.ask(12, &request(all, 1)).await), [1, 0, 0]);
}

#[tokio::test]
async fn a_fetch_waits_for_its_bytes_and_no_longer_than_it_says() {
    let server = Server::start().await;
    server.create("t", &[]).await;
    let mut reader = server.connect().await;
    let mut writer = server.connect().await;
    let patient = |min_bytes, max_wait_ms| FetchRequest {
        min_bytes,
        max_wait_ms,
        ..fetch("t", 0)
    };
    let (empty, took) = timed(reader.fetch_as(12, &patient(1, 200))).await;
    assert_eq!(empty.records.as_deref(), Some(&[][..]));
    assert!(took >= Duration::from_millis(200), "{took:?}");

    reader.send(12, &patient(1000, 30_000)).await;
    until(|| server.broker.metrics().fetches_parked() == 1).await;
    writer.produce("t", batch(&[&"x".repeat(400)])).await;
    let early = tokio::time::timeout(Duration::from_millis(100), reader.receive_frame()).await;
    assert!(early.is_err(), "answered with less than it wants");
    writer.produce("t", batch(&[&"x".repeat(600)])).await;
    let (_, response) = reader.receive::<FetchResponse>(12).await;
    let records = response.responses[0].partitions[0].records.clone().unwrap();
    assert_eq!(values(&records).len(), 2);
    // It asks for more than there is, and takes what there is when its time is over.
    let (some, took) = timed(reader.fetch_as(12, &patient(1 << 20, 200))).await;
    assert_eq!(values(&some.records.unwrap()).len(), 2);
    assert!(took >= Duration::from_millis(200), "{took:?}");
    // Negative numbers are none.
    let hasty = reader.fetch_as(12, &patient(-5, -5)).await;
    assert_eq!(values(&hasty.records.unwrap()).len(), 2);
}

#[tokio::test]
async fn a_topic_that_is_deleted_ends_the_wait() {
    let server = Server::start().await;
    let id = server.create("t", &[]).await.id;
    let mut by_name = server.connect().await;
    let mut by_id = server.connect().await;
    let mut request = fetch("t", 0);
    request.max_wait_ms = 60_000;
    request.topics[0].topic_id = Uuid(id.0);
    by_name.send(12, &request).await;
    by_id.send(13, &request).await;
    until(|| server.broker.metrics().fetches_parked() == 2).await;
    server.broker.delete_topic("t").await.unwrap();
    let (_, named) = by_name.receive::<FetchResponse>(12).await;
    assert_eq!(named.responses[0].partitions[0].error_code, 3);
    let (_, identified) = by_id.receive::<FetchResponse>(13).await;
    assert_eq!(identified.responses[0].partitions[0].error_code, 100);
    // Its name is another topic's now; the id is nobody's.
    server.create("t", &[]).await;
    assert_eq!(by_id.fetch_as(13, &request).await.error_code, 100);
}
