//! The life of a connection: order, stages, limits, and its end.

use std::{sync::Arc, time::Duration};

use sapwood_broker::BrokerOptions;
use sapwood_kafka::KafkaOptions;
use sapwood_kafka_wire::messages::{
    ApiVersionsRequest, ApiVersionsResponse, FetchRequest, FetchResponse, ListOffsetsRequest,
    ListOffsetsResponse, MetadataRequest, MetadataResponse, ProduceRequest, ProduceResponse,
};
use sapwood_model::{Offset, PartitionId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    Server, Start, batch,
    client::{fetch, frame, from, produce},
    machine::{FaultyClock, Gate},
    random::Random,
    timed, until, values,
};

const P0: PartitionId = PartitionId(0);

fn all_topics() -> MetadataRequest {
    MetadataRequest {
        topics: None,
        ..MetadataRequest::default()
    }
}

fn waiting(topic: &str, offset: i64, wait_ms: i32) -> FetchRequest {
    FetchRequest {
        max_wait_ms: wait_ms,
        ..fetch(topic, offset)
    }
}

fn with(options: KafkaOptions) -> Start {
    Start {
        kafka: options,
        ..Start::default()
    }
}

#[tokio::test]
async fn requests_sent_at_once_are_answered_in_their_order() {
    let server = Server::start().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    let mut sent = Vec::new();
    for round in 0..50 {
        sent.extend(frame(round * 4, 9, &produce("t", batch(&["x"]))));
        sent.extend(frame(round * 4 + 1, 12, &fetch("t", 0)));
        sent.extend(frame(round * 4 + 2, 1, &all_topics()));
        sent.extend(frame(round * 4 + 3, 0, &ApiVersionsRequest::default()));
    }
    let (written, ()) = tokio::join!(client.stream.write_all(&sent), async {});
    written.unwrap();
    for round in 0..50 {
        let (id, produced) = client.receive::<ProduceResponse>(9).await;
        assert_eq!(id, round * 4);
        let partition = &produced.responses[0].partition_responses[0];
        assert_eq!(partition.base_offset, i64::from(round));
        let (id, fetched) = client.receive::<FetchResponse>(12).await;
        assert_eq!(id, round * 4 + 1);
        // It reads what was produced before it on the same connection.
        let records = fetched.responses[0].partitions[0].records.clone().unwrap();
        assert!(values(&records).len() > usize::try_from(round).unwrap());
        assert_eq!(client.receive::<MetadataResponse>(1).await.0, round * 4 + 2);
        assert_eq!(
            client.receive::<ApiVersionsResponse>(0).await.0,
            round * 4 + 3
        );
    }
}

#[tokio::test]
async fn frames_of_all_sizes_come_whole_however_the_stream_is_cut() {
    let mut random = Random::of_test();
    let server = Server::start().await;
    server.create("t", &[("durability", "os")]).await;
    let mut client = server.connect().await;
    let mut sent = Vec::new();
    let frames = 2000;
    for number in 0..frames {
        // Around the sizes at which buffers change.
        let size = [10, 1000, 3900, 3900, 4096, 5000, 70_000][random.below(7)] + random.below(200);
        let text = "x".repeat(size);
        sent.extend(frame(number, 9, &produce("t", batch(&[&text]))));
    }
    let (mut read, mut write) = client.stream.split();
    let writing = async {
        let mut rest = &sent[..];
        while !rest.is_empty() {
            let largest = [10, 5000, 100_000][random.below(3)];
            let piece = 1 + random.below(largest);
            let (now, later) = rest.split_at(piece.min(rest.len()));
            write.write_all(now).await.unwrap();
            rest = later;
        }
    };
    let reading = async {
        for number in 0..frames {
            let length = read.read_i32().await.unwrap();
            assert_eq!(read.read_i32().await.unwrap(), number);
            let mut answer = vec![0; usize::try_from(length).unwrap() - 4];
            read.read_exact(&mut answer).await.unwrap();
        }
    };
    tokio::join!(writing, reading);
    let end = server.broker.bounds("t", P0).unwrap().log_end;
    assert_eq!(end, Offset(2000));
    assert_eq!(server.kafka.metrics().faults(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn produces_are_sequenced_while_earlier_ones_wait_for_their_sync() {
    let gate = Arc::new(Gate::default());
    let server = Server::start_with(Start {
        environment: gate.machine(),
        ..Start::default()
    })
    .await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    client.produce("t", batch(&["before"])).await;
    gate.shut();
    for value in ["a", "b", "c"] {
        client.send(9, &produce("t", batch(&[value]))).await;
    }
    client.send(1, &all_topics()).await;
    // All three are in the log although the sync of the first has not returned.
    until(|| server.broker.bounds("t", P0).unwrap().log_end == Offset(4)).await;
    let bounds = server.broker.bounds("t", P0).unwrap();
    assert_eq!(bounds.high_watermark, Offset(1));
    let early = tokio::time::timeout(Duration::from_millis(100), client.receive_frame()).await;
    assert!(early.is_err(), "answered before the sync");
    gate.open();
    for offset in 1..4 {
        let (_, response) = client.receive::<ProduceResponse>(9).await;
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!((partition.error_code, partition.base_offset), (0, offset));
    }
    client.receive::<MetadataResponse>(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_produce_that_is_not_durable_in_its_time_is_told_so_and_a_retry_finds_it() {
    let gate = Arc::new(Gate::default());
    let server = Server::start_with(Start {
        environment: gate.machine(),
        ..Start::default()
    })
    .await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    client.produce("t", batch(&["before"])).await;
    gate.shut();
    let hasty = ProduceRequest {
        timeout_ms: 50,
        ..produce("t", batch(&["x"]))
    };
    let late = client.produce_as(9, &hasty).await;
    assert_eq!((late.error_code, late.base_offset), (7, -1));
    gate.open();
    until(|| server.broker.bounds("t", P0).unwrap().high_watermark == Offset(2)).await;
}

#[tokio::test]
async fn a_produce_that_wants_no_answer_gets_none_unless_it_fails() {
    let server = Server::start().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    let silent = |topic| ProduceRequest {
        acks: 0,
        ..produce(topic, batch(&["x"]))
    };
    client.send(9, &silent("t")).await;
    client.send(9, &silent("t")).await;
    let asked = client.send(1, &all_topics()).await;
    assert_eq!(client.receive::<MetadataResponse>(1).await.0, asked);
    assert_eq!(server.broker.bounds("t", P0).unwrap().log_end, Offset(2));
    client.send(9, &silent("unknown")).await;
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn half_a_frame_and_silence_is_closed_and_so_is_an_idle_connection() {
    let server = Server::start_with(with(KafkaOptions {
        frame_timeout: Duration::from_millis(100),
        idle_timeout: Duration::from_millis(300),
        ..KafkaOptions::default()
    }))
    .await;
    let whole = frame(1, 1, &all_topics());
    let large = frame(1, 9, &produce("t", vec![0; 100_000].into()));
    for part in [&whole[..2], &whole[..9], &large[..5], &large[..50_000]] {
        let mut client = server.connect().await;
        client.send_raw(part).await;
        let (is_closed, took) = timed(client.is_closed()).await;
        assert!(is_closed, "{} bytes", part.len());
        // Large frames get a second more.
        assert!(took < Duration::from_secs(3), "{took:?}");
    }
    let mut idle = server.connect().await;
    let (is_closed, took) = timed(idle.is_closed()).await;
    assert!(is_closed && took >= Duration::from_millis(250), "{took:?}");
}

#[tokio::test]
async fn who_waits_for_a_fetch_is_not_idle() {
    let server = Server::start_with(with(KafkaOptions {
        idle_timeout: Duration::from_millis(50),
        ..KafkaOptions::default()
    }))
    .await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    let (response, took) = timed(client.ask(12, &waiting("t", 0, 400))).await;
    assert_eq!(response.error_code, 0);
    assert!(took >= Duration::from_millis(400), "{took:?}");
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_frame_that_stops_coming_gives_its_room_back_when_others_wait_for_it() {
    let server = Server::start_with(Start {
        broker: Box::new(|options| BrokerOptions {
            request_bytes_max: 1 << 20,
            connection_bytes_max: 1 << 20,
            ..options
        }),
        ..Start::default()
    })
    .await;
    server.create("t", &[]).await;
    let large = frame(1, 9, &produce("t", vec![0; 900_000].into()));
    let mut stalled = server.connect().await;
    stalled.send_raw(&large[..10_000]).await;
    until(|| server.broker.budget().bytes_used() > 900_000).await;
    let mut client = server.connect().await;
    let value = "x".repeat(500_000);
    let (produced, took) = timed(client.produce("t", batch(&[&value]))).await;
    assert_eq!(produced.error_code, 0);
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(stalled.is_closed().await);
    // Above the whole budget, waiting would not help.
    let mut client = server.connect().await;
    client
        .send_raw(&frame(1, 9, &produce("t", vec![0; 2 << 20].into()))[..100])
        .await;
    assert!(client.is_closed().await);
    until(|| server.broker.budget().bytes_used() == 0).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_not_read_either_and_costs_only_itself() {
    let server = Server::start_with(with(KafkaOptions {
        requests_in_flight_max: 10,
        response_bytes_max: 64 << 10,
        ..KafkaOptions::default()
    }))
    .await;
    server.create("t", &[]).await;
    let mut other = server.connect().await;
    other.produce("t", batch(&[&"x".repeat(500_000)])).await;

    let mut slow = server.connect().await;
    let request = frame(1, 12, &fetch("t", 0));
    let mut sent = 0;
    // The socket takes no more once neither side reads.
    while let Ok(written) = tokio::time::timeout(
        Duration::from_millis(300),
        slow.stream.write_all(&request.repeat(100)),
    )
    .await
    {
        written.unwrap();
        sent += 100;
        assert!(sent < 1_000_000, "everything is read");
    }
    let answered = server.kafka.metrics().apis();
    let fetches = answered.iter().find(|api| api.name() == "Fetch").unwrap();
    let before = fetches.succeeded();
    assert!(
        before < 100,
        "{before} answers of 500 kB were made for nobody"
    );
    // The other connections do not notice.
    for _ in 0..10 {
        let fetched = other.fetch_as(12, &fetch("t", 0)).await;
        assert_eq!(fetched.records.unwrap().len(), 500_000 + 72);
    }
    // When it reads, it gets its answers.
    for _ in 0..50 {
        let (_, response) = slow.receive::<FetchResponse>(12).await;
        assert_eq!(response.responses[0].partitions[0].error_code, 0);
    }
}

#[tokio::test]
async fn fetches_that_name_much_are_not_piled_up() {
    let server = Server::start_with(with(KafkaOptions {
        response_bytes_max: 64 << 10,
        ..KafkaOptions::default()
    }))
    .await;
    server.create("t", &[]).await;
    let mut large = waiting("t", 0, 600_000);
    large.topics[0].partitions = (0..20_000).map(|_| from(0, 0)).collect();
    let mut client = server.connect().await;
    let request = frame(1, 12, &large);
    let piling = async {
        loop {
            client.stream.write_all(&request).await.unwrap();
        }
    };
    let piled = tokio::time::timeout(Duration::from_millis(500), piling).await;
    assert!(piled.is_err(), "it cannot end");
    // One waits; the next one is not read, and the budget has its room.
    let fetches = server.broker.metrics().fetches_parked();
    assert_eq!((fetches, server.broker.budget().bytes_used()), (1, 0));
    let reads = server.kafka.metrics().apis();
    let read: u64 = reads
        .iter()
        .map(|api| api.duration().counts().iter().sum::<u64>())
        .sum();
    assert_eq!(read, 0);
}

#[tokio::test]
async fn a_fault_in_one_request_costs_only_its_connection() {
    let (clock, environment) = FaultyClock::new();
    let server = Server::start_with(Start {
        environment,
        ..Start::default()
    })
    .await;
    server.create("t", &[]).await;
    let mut victim = server.connect().await;
    let mut other = server.connect().await;
    assert_eq!(other.produce("t", batch(&["a"])).await.error_code, 0);
    clock.arm();
    victim.send(9, &produce("t", batch(&["b"]))).await;
    assert!(victim.is_closed().await);
    assert_eq!(other.produce("t", batch(&["c"])).await.base_offset, 1);
    assert_eq!(server.kafka.metrics().faults(), 1);
    assert_eq!(server.broker.budget().bytes_used(), 0);
}

#[tokio::test]
async fn stopping_answers_what_was_read_and_then_closes() {
    let server = Server::start().await;
    server.create("t", &[]).await;
    let mut idle = server.connect().await;
    let mut waiter = server.connect().await;
    assert_eq!(idle.ask(1, &all_topics()).await.topics.len(), 1);
    waiter.send(12, &waiting("t", 0, 60_000)).await;
    until(|| server.broker.metrics().fetches_parked() == 1).await;
    server.stop.send_replace(true);
    assert!(idle.is_closed().await);
    // The drain of the broker ends the wait.
    let broker = server.broker.clone();
    let drained = tokio::spawn(async move { broker.drain_and_close().await });
    let (_, response) = waiter.receive::<FetchResponse>(12).await;
    assert_eq!(response.responses[0].partitions.len(), 1);
    assert!(waiter.is_closed().await);
    drained.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_closes_only_its_own_side_gets_its_answers() {
    let server = Server::start().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    client.send(9, &produce("t", batch(&["x"]))).await;
    client.send(1, &all_topics()).await;
    client.stream.shutdown().await.unwrap();
    client.receive::<ProduceResponse>(9).await;
    client.receive::<MetadataResponse>(1).await;
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_client_that_goes_takes_its_waiting_fetch_with_it() {
    let server = Server::start().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    client.send(12, &waiting("t", 0, 600_000)).await;
    until(|| server.broker.metrics().fetches_parked() == 1).await;
    drop(client);
    until(|| server.broker.metrics().fetches_parked() == 0).await;
}

#[tokio::test]
async fn a_produce_behind_a_waiting_fetch_is_sequenced_and_wakes_it() {
    let server = Server::start().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    client.send(12, &waiting("t", 0, 20_000)).await;
    client.send(9, &produce("t", batch(&["x"]))).await;
    let (_, fetched) = client.receive::<FetchResponse>(12).await;
    let records = fetched.responses[0].partitions[0].records.clone().unwrap();
    assert_eq!(values(&records), [(0, "x".to_owned())]);
    client.receive::<ProduceResponse>(9).await;
}

#[tokio::test]
async fn requests_and_errors_are_counted_by_api() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client.ask(1, &all_topics()).await;
    client.ask(1, &all_topics()).await;
    client.produce("unknown", batch(&["x"])).await;
    let empty = ListOffsetsRequest::default();
    let _: ListOffsetsResponse = client.ask(1, &empty).await;
    let counts = |name: &str| {
        let apis = server.kafka.metrics().apis();
        let api = apis.iter().find(|api| api.name() == name).unwrap();
        let errors: Vec<_> = api.errors().iter().map(|(e, n)| (e.name(), *n)).collect();
        (
            api.succeeded(),
            errors,
            api.duration().counts().iter().sum::<u64>(),
        )
    };
    assert_eq!(counts("Metadata"), (2, vec![], 2));
    assert_eq!(
        counts("Produce"),
        (0, vec![("UNKNOWN_TOPIC_OR_PARTITION", 1)], 1)
    );
    assert_eq!(counts("ListOffsets"), (1, vec![], 1));
}
