//! FetchService over real sockets.

// Helpers are outside of test functions; a failure in them is a failed test all the same.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::Server;
use sapwood_model::Code;
use sapwood_rpc::{
    status,
    v1::{
        self, fetch_response::Event, fetch_service_client::FetchServiceClient, fetched,
        position::At, produce_service_client::ProduceServiceClient,
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Streaming, transport::Channel};

/// Batches of 10 records each.
async fn fill(channel: &Channel, batches: u32, size: usize) {
    let mut client = ProduceServiceClient::new(channel.clone());
    for n in 0..batches {
        let record = |i: u32| v1::Record {
            value: Some(Bytes::from(vec![b'v'; size])),
            timestamp_ms: Some(i64::from(n * 10 + i)),
            ..v1::Record::default()
        };
        let append = v1::AppendRequest {
            topic: "t".into(),
            records: (0..10).map(record).collect(),
            ..v1::AppendRequest::default()
        };
        client.append(append).await.unwrap();
    }
}

fn at(at: At) -> Option<v1::Position> {
    Some(v1::Position { at: Some(at) })
}

fn subscription(from: At, tag: u64) -> v1::Subscription {
    v1::Subscription {
        topic: "t".into(),
        from: at(from),
        tag,
        ..v1::Subscription::default()
    }
}

struct Fetching {
    requests: mpsc::UnboundedSender<v1::FetchRequest>,
    answers: Streaming<v1::FetchResponse>,
}

impl Fetching {
    async fn open(channel: &Channel, first: v1::FetchRequest) -> Self {
        let (requests, receiver) = mpsc::unbounded_channel();
        requests.send(first).unwrap();
        let mut client = FetchServiceClient::new(channel.clone());
        let answers = client
            .fetch(UnboundedReceiverStream::new(receiver))
            .await
            .unwrap();
        Self {
            requests,
            answers: answers.into_inner(),
        }
    }

    async fn next(&mut self) -> (u64, Event) {
        let answer = self.answers.message().await.unwrap().expect("more to come");
        (answer.tag, answer.event.unwrap())
    }

    async fn is_quiet(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(150), self.answers.message())
            .await
            .is_err()
    }
}

fn records(event: Event) -> Vec<u64> {
    match event {
        Event::Fetched(v1::Fetched {
            payload: Some(fetched::Payload::Records(run)),
            ..
        }) => run.records.iter().map(|record| record.offset).collect(),
        other => panic!("no records: {other:?}"),
    }
}

fn plain() -> Option<v1::FetchOptions> {
    Some(v1::FetchOptions {
        payload: v1::Payload::Records.into(),
        response_bytes_max: 0,
    })
}

#[tokio::test]
async fn plain_records_are_exactly_those_between_from_and_until() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let channel = server.channel().await;
    fill(&channel, 5, 10).await;
    let first = v1::FetchRequest {
        options: plain(),
        subscribe: vec![v1::Subscription {
            until: at(At::Offset(37)),
            ..subscription(At::TimestampMs(13), 5)
        }],
        credit_bytes: 1 << 20,
        ..v1::FetchRequest::default()
    };
    let mut fetching = Fetching::open(&channel, first).await;
    let (tag, Event::Started(started)) = fetching.next().await else {
        panic!("it starts")
    };
    assert_eq!(
        (tag, started.from_offset, started.until_offset),
        (5, 13, Some(37))
    );
    let mut offsets = Vec::new();
    loop {
        match fetching.next().await {
            (5, Event::Finished(finished)) => {
                assert_eq!(finished.next_offset, 37);
                break;
            }
            (5, event) => offsets.extend(records(event)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(offsets, (13..37).collect::<Vec<u64>>());
    server.stop().await;
}

#[tokio::test]
async fn nothing_is_sent_without_credit_and_one_batch_for_the_last_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let channel = server.channel().await;
    fill(&channel, 3, 1000).await;
    let first = v1::FetchRequest {
        subscribe: vec![subscription(At::Start(true), 0)],
        ..v1::FetchRequest::default()
    };
    let mut fetching = Fetching::open(&channel, first).await;
    assert!(matches!(fetching.next().await.1, Event::Started(_)));
    assert!(fetching.is_quiet().await);
    let credit = |credit_bytes| v1::FetchRequest {
        credit_bytes,
        ..v1::FetchRequest::default()
    };
    fetching.requests.send(credit(1)).unwrap();
    let (_, Event::Fetched(fetched)) = fetching.next().await else {
        panic!("one batch")
    };
    assert_eq!(fetched.next_offset, 10);
    assert!(fetching.is_quiet().await);
    // About 10,000 bytes are overdrawn.
    fetching.requests.send(credit(5_000)).unwrap();
    assert!(fetching.is_quiet().await);
    fetching.requests.send(credit(1 << 20)).unwrap();
    let (_, Event::Fetched(fetched)) = fetching.next().await else {
        panic!("the rest")
    };
    assert_eq!(fetched.next_offset, 30);
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_closes_its_end_gets_what_its_credit_covers() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let channel = server.channel().await;
    fill(&channel, 3, 10).await;
    let only = v1::FetchRequest {
        options: plain(),
        subscribe: vec![v1::Subscription {
            until: at(At::End(true)),
            ..subscription(At::Last(5), 0)
        }],
        credit_bytes: 1 << 20,
        ..v1::FetchRequest::default()
    };
    let mut client = FetchServiceClient::new(channel.clone());
    let answers = client
        .fetch(tokio_stream::iter([only]))
        .await
        .unwrap()
        .into_inner();
    let events: Vec<_> = tokio_stream::StreamExt::collect(answers).await;
    let events: Vec<Event> = events
        .into_iter()
        .map(|answer: Result<v1::FetchResponse, _>| answer.unwrap().event.unwrap())
        .collect();
    assert_eq!(events.len(), 3);
    assert_eq!(records(events[1].clone()), [25, 26, 27, 28, 29]);
    assert!(matches!(events[2], Event::Finished(_)));
    server.stop().await;
}

#[tokio::test]
async fn a_new_subscription_replaces_the_old_and_answers_carry_its_tag() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let channel = server.channel().await;
    fill(&channel, 2, 10).await;
    let first = v1::FetchRequest {
        options: plain(),
        subscribe: vec![subscription(At::End(true), 1)],
        credit_bytes: 1 << 20,
        ..v1::FetchRequest::default()
    };
    let mut fetching = Fetching::open(&channel, first).await;
    assert!(matches!(fetching.next().await, (1, Event::Started(_))));
    let again = v1::FetchRequest {
        subscribe: vec![subscription(At::Offset(15), 2)],
        ..v1::FetchRequest::default()
    };
    fetching.requests.send(again).unwrap();
    assert!(matches!(fetching.next().await, (2, Event::Started(_))));
    let (2, event) = fetching.next().await else {
        panic!("of the new one")
    };
    assert_eq!(records(event), [15, 16, 17, 18, 19]);
    let remove = v1::FetchRequest {
        remove: vec![v1::PartitionRef {
            topic: "t".into(),
            partition: 0,
        }],
        subscribe: vec![v1::Subscription {
            partition: 4,
            ..subscription(At::Start(true), 3)
        }],
        ..v1::FetchRequest::default()
    };
    fetching.requests.send(remove).unwrap();
    let (3, Event::Failed(error)) = fetching.next().await else {
        panic!("no such partition")
    };
    assert_eq!(error.code, Code::UnknownPartition.to_string());
    fill(&channel, 1, 10).await;
    assert!(fetching.is_quiet().await);
    server.stop().await;
}

#[tokio::test]
async fn a_topic_that_is_deleted_ends_its_subscription() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let channel = server.channel().await;
    fill(&channel, 1, 10).await;
    let first = v1::FetchRequest {
        subscribe: vec![subscription(At::End(true), 1)],
        credit_bytes: 1 << 20,
        ..v1::FetchRequest::default()
    };
    let mut fetching = Fetching::open(&channel, first).await;
    assert!(matches!(fetching.next().await, (1, Event::Started(_))));
    server.broker.delete_topic("t").await.unwrap();
    let (1, Event::Failed(error)) = fetching.next().await else {
        panic!("it fails")
    };
    assert_eq!(error.code, Code::UnknownTopic.to_string());
    server.stop().await;
}

#[tokio::test]
async fn requests_outside_their_bounds_are_refused_with_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let channel = server.channel().await;
    fill(&channel, 1, 10).await;
    let mut client = FetchServiceClient::new(channel.clone());
    let invalid = |status: tonic::Status| {
        let error = status::unpack(&status).expect("a typed detail");
        assert_eq!(error.code, Code::InvalidArgument.to_string());
        error.message
    };
    let read = |records_max, bytes_max| v1::ReadRequest {
        topic: "t".into(),
        records_max,
        bytes_max,
        ..v1::ReadRequest::default()
    };
    assert!(invalid(client.read(read(10_001, 0)).await.unwrap_err()).contains("10000"));
    assert!(invalid(client.read(read(1, u32::MAX)).await.unwrap_err()).contains("16777216"));
    assert_eq!(
        client
            .read(read(0, 1))
            .await
            .unwrap()
            .into_inner()
            .records
            .len(),
        1
    );
    invalid(
        client
            .list_offsets(v1::ListOffsetsRequest::default())
            .await
            .unwrap_err(),
    );
    let nowhere = v1::OffsetQuery {
        topic: "t".into(),
        at: Some(v1::Position { at: None }),
        ..v1::OffsetQuery::default()
    };
    let answer = client
        .list_offsets(v1::ListOffsetsRequest {
            queries: vec![nowhere],
        })
        .await;
    let answer = answer.unwrap().into_inner();
    assert_eq!(
        answer.results[0].error.as_ref().unwrap().code,
        Code::InvalidArgument.to_string()
    );
    let first = v1::FetchRequest {
        options: Some(v1::FetchOptions {
            payload: 9,
            response_bytes_max: 0,
        }),
        ..v1::FetchRequest::default()
    };
    let mut fetching = Fetching::open(&channel, first).await;
    invalid(fetching.answers.message().await.unwrap_err());
    server.stop().await;
}
