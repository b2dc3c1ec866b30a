//! Incremental fetch sessions.

use sapwood_kafka::KafkaOptions;
use sapwood_kafka_wire::{
    Uuid,
    messages::{FetchRequest, FetchRequestForgottenTopic, FetchRequestTopic, FetchResponse},
};
use sapwood_model::{Offset, PartitionId};

use crate::support::{
    Client, Server, Start, batch,
    client::{from, produce_to},
    until, values,
};

/// Asks for these partitions and offsets of `t` within a session.
fn request(session_id: i32, session_epoch: i32, wanted: &[(i32, i64)]) -> FetchRequest {
    let partitions: Vec<_> = wanted.iter().map(|(p, offset)| from(*p, *offset)).collect();
    FetchRequest {
        min_bytes: 1,
        max_bytes: 1 << 20,
        session_id,
        session_epoch,
        topics: match partitions.is_empty() {
            true => vec![],
            false => vec![FetchRequestTopic {
                topic: "t".to_owned(),
                partitions,
                ..FetchRequestTopic::default()
            }],
        },
        ..FetchRequest::default()
    }
}

fn forgetting(request: FetchRequest, partitions: &[i32]) -> FetchRequest {
    FetchRequest {
        forgotten_topics_data: vec![FetchRequestForgottenTopic {
            topic: "t".to_owned(),
            partitions: partitions.to_vec(),
            ..FetchRequestForgottenTopic::default()
        }],
        ..request
    }
}

/// Partition, error, and number of records of each partition of the answer.
fn said(response: &FetchResponse) -> Vec<(i32, i16, usize)> {
    let partitions = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partitions);
    partitions
        .map(|partition| {
            let records = values(partition.records.as_ref().unwrap()).len();
            (partition.partition_index, partition.error_code, records)
        })
        .collect()
}

async fn open(client: &mut Client, wanted: &[(i32, i64)]) -> i32 {
    let response = client.ask(12, &request(0, 0, wanted)).await;
    assert_eq!(response.error_code, 0);
    assert_ne!(response.session_id, 0);
    assert_eq!(said(&response).len(), wanted.len());
    response.session_id
}

async fn put(client: &mut Client, partition: i32) {
    let request = produce_to("t", partition, batch(&["x"]));
    assert_eq!(client.produce_as(9, &request).await.error_code, 0);
}

#[tokio::test]
async fn a_session_remembers_what_is_wanted_and_tells_only_what_is_new() {
    let server = Server::start().await;
    server.create_with("t", 3, &[]).await;
    let mut client = server.connect().await;
    let id = open(&mut client, &[(0, 0), (1, 0), (2, 0)]).await;
    let response = client.ask(12, &request(id, 1, &[])).await;
    assert_eq!((response.session_id, said(&response)), (id, vec![]));
    put(&mut client, 1).await;
    let response = client.ask(12, &request(id, 2, &[])).await;
    assert_eq!(said(&response), [(1, 0, 1)]);
    // Until the client says that it is further, the records are new to it.
    let response = client.ask(12, &request(id, 3, &[])).await;
    assert_eq!(said(&response), [(1, 0, 1)]);
    let response = client.ask(12, &request(id, 4, &[(1, 1)])).await;
    assert_eq!(said(&response), []);
    // The ends are news too: of a log that was trimmed ...
    server
        .broker
        .trim("t", PartitionId(1), Some(Offset(1)))
        .await
        .unwrap();
    let response = client.ask(12, &request(id, 5, &[])).await;
    assert_eq!(said(&response), [(1, 0, 0)]);
    assert_eq!(response.responses[0].partitions[0].log_start_offset, 1);
    // ... and an error is told until it is over, and then that it is over.
    let response = client.ask(12, &request(id, 6, &[(2, 5)])).await;
    assert_eq!(said(&response), [(2, 1, 0)]);
    let response = client.ask(12, &request(id, 7, &[])).await;
    assert_eq!(said(&response), [(2, 1, 0)]);
    let response = client.ask(12, &request(id, 8, &[(2, 0)])).await;
    assert_eq!(said(&response), [(2, 0, 0)]);
    assert_eq!(said(&client.ask(12, &request(id, 9, &[])).await), []);
}

#[tokio::test]
async fn news_of_partitions_without_records_are_told_beside_the_records_of_others() {
    let server = Server::start().await;
    server.create_with("t", 3, &[]).await;
    let mut client = server.connect().await;
    let id = open(&mut client, &[(0, 0), (1, 0), (2, 0)]).await;
    put(&mut client, 1).await;
    let response = client.ask(12, &request(id, 1, &[])).await;
    assert_eq!(said(&response), [(1, 0, 1)]);
    // From here on there is always something to read in partition 0.
    put(&mut client, 0).await;
    let response = client.ask(12, &request(id, 2, &[(1, 1)])).await;
    assert_eq!(said(&response), [(0, 0, 1)]);
    let trimmed = server.broker.trim("t", PartitionId(1), Some(Offset(1)));
    trimmed.await.unwrap();
    let response = client.ask(12, &request(id, 3, &[])).await;
    assert_eq!(said(&response), [(1, 0, 0), (0, 0, 1)]);
    let response = client.ask(12, &request(id, 4, &[(2, 5)])).await;
    assert_eq!(said(&response), [(2, 1, 0), (0, 0, 1)]);
    let response = client.ask(12, &request(id, 5, &[])).await;
    assert_eq!(said(&response), [(2, 1, 0), (0, 0, 1)]);
    let response = client.ask(12, &request(id, 6, &[(2, 0)])).await;
    assert_eq!(said(&response), [(2, 0, 0), (0, 0, 1)]);
    let mut other_epoch = request(id, 7, &[(2, 0)]);
    other_epoch.topics[0].partitions[0].current_leader_epoch = 9;
    let response = client.ask(12, &other_epoch).await;
    assert_eq!(said(&response), [(2, 75, 0), (0, 0, 1)]);
    let response = client.ask(12, &request(id, 8, &[(2, 0)])).await;
    assert_eq!(said(&response), [(2, 0, 0), (0, 0, 1)]);
    let response = client.ask(12, &request(id, 9, &[])).await;
    assert_eq!(said(&response), [(0, 0, 1)]);
    let response = client.ask(12, &request(id, 10, &[(0, 1)])).await;
    assert_eq!(said(&response), []);
    put(&mut client, 2).await;
    let response = client.ask(12, &request(id, 11, &[])).await;
    assert_eq!(said(&response), [(2, 0, 1)]);
}

#[tokio::test]
async fn partitions_come_and_go() {
    let server = Server::start().await;
    server.create_with("t", 3, &[]).await;
    let mut client = server.connect().await;
    for partition in 0..3 {
        put(&mut client, partition).await;
    }
    let id = open(&mut client, &[(0, 0)]).await;
    let response = client.ask(12, &request(id, 1, &[(1, 0), (2, 0)])).await;
    let mut all = said(&response);
    all.sort_unstable();
    assert_eq!(all, [(0, 0, 1), (1, 0, 1), (2, 0, 1)]);
    let fewer = forgetting(request(id, 2, &[]), &[0, 2, 7]);
    assert_eq!(said(&client.ask(12, &fewer).await), [(1, 0, 1)]);
    // Without partitions it is still there.
    let none = forgetting(request(id, 3, &[]), &[1]);
    assert_eq!(said(&client.ask(12, &none).await), []);
    let again = client.ask(12, &request(id, 4, &[(0, 0)])).await;
    assert_eq!(said(&again), [(0, 0, 1)]);
}

#[tokio::test]
async fn a_partition_that_gave_records_is_read_after_the_others() {
    let server = Server::start().await;
    server.create_with("t", 3, &[]).await;
    let mut client = server.connect().await;
    for partition in 0..3 {
        put(&mut client, partition).await;
    }
    let first_only = |request| FetchRequest {
        max_bytes: 1,
        ..request
    };
    let wanted = [(0, 0), (1, 0), (2, 0)];
    let response = client.ask(12, &first_only(request(0, 0, &wanted))).await;
    let id = response.session_id;
    assert_eq!(said(&response), [(0, 0, 1), (1, 0, 0), (2, 0, 0)]);
    for (epoch, partition) in [(1, 1), (2, 2), (3, 0), (4, 1)] {
        let response = client.ask(12, &first_only(request(id, epoch, &[]))).await;
        assert_eq!(said(&response), [(partition, 0, 1)]);
    }
}

#[tokio::test]
async fn sessions_and_epochs_that_are_not_there_are_told() {
    let server = Server::start().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    let id = open(&mut client, &[(0, 0)]).await;
    let error = |response: FetchResponse| (response.error_code, response.session_id);
    assert_eq!(
        error(client.ask(12, &request(id + 1, 1, &[])).await),
        (70, 0)
    );
    assert_eq!(error(client.ask(12, &request(id, 2, &[])).await), (71, 0));
    assert_eq!(error(client.ask(12, &request(id, 1, &[])).await), (0, id));
    assert_eq!(error(client.ask(12, &request(id, 1, &[])).await), (71, 0));
    // By name and by id are two kinds of sessions.
    assert_eq!(error(client.ask(13, &request(id, 2, &[])).await), (106, 0));
    // The last request ends it and is answered like one without a session.
    let last = client.ask(12, &request(id, -1, &[(0, 0)])).await;
    assert_eq!(said(&last), [(0, 0, 0)]);
    assert_eq!(error(last), (0, 0));
    assert_eq!(error(client.ask(12, &request(id, 2, &[])).await), (70, 0));
    assert_eq!(server.kafka.fetch_sessions(), 0);
}

#[tokio::test]
async fn a_new_session_takes_the_place_of_the_one_that_it_names() {
    let server = Server::start().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    let first = open(&mut client, &[(0, 0)]).await;
    let second = client
        .ask(12, &request(first, 0, &[(0, 0)]))
        .await
        .session_id;
    assert_ne!(second, 0);
    assert_eq!(server.kafka.fetch_sessions(), 1);
    assert_eq!(client.ask(12, &request(second, 1, &[])).await.error_code, 0);
}

#[tokio::test]
async fn versions_before_sessions_and_requests_without_one_leave_nothing_behind() {
    let server = Server::start().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    client.ask(6, &request(0, 0, &[(0, 0)])).await;
    client.ask(12, &request(0, -1, &[(0, 0)])).await;
    client.ask(12, &request(0, 0, &[])).await;
    assert_eq!(server.kafka.fetch_sessions(), 0);
}

#[tokio::test]
async fn when_there_is_no_room_a_fetch_is_answered_without_a_session() {
    let server = Server::start_with(Start {
        kafka: KafkaOptions {
            fetch_sessions_max: 2,
            fetch_session_partitions_max: 5,
            ..KafkaOptions::default()
        },
        ..Start::default()
    })
    .await;
    server.create_with("t", 9, &[]).await;
    let mut client = server.connect().await;
    let first = open(&mut client, &[(0, 0)]).await;
    let second = open(&mut client, &[(0, 0)]).await;
    let third = client.ask(12, &request(0, 0, &[(0, 0)])).await;
    assert_eq!((third.session_id, said(&third)), (0, vec![(0, 0, 0)]));
    // The partitions of all sessions are counted together.
    let more: Vec<_> = (1..4).map(|partition| (partition, 0)).collect();
    assert_eq!(
        client.ask(12, &request(first, 1, &more)).await.error_code,
        0
    );
    let too_many = client.ask(12, &request(second, 1, &[(1, 0)])).await;
    assert_eq!(
        (too_many.error_code, server.kafka.fetch_sessions()),
        (70, 1)
    );
    let six: Vec<_> = (0..6).map(|partition| (partition, 0)).collect();
    assert_eq!(client.ask(12, &request(0, 0, &six)).await.session_id, 0);
}

#[tokio::test]
async fn a_session_ends_with_the_connection_on_which_it_waits() {
    let server = Server::start().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    let id = open(&mut client, &[(0, 0)]).await;
    let waiting = FetchRequest {
        max_wait_ms: 600_000,
        ..request(id, 1, &[])
    };
    client.send(12, &waiting).await;
    until(|| server.broker.metrics().fetches_parked() == 1).await;
    // Another connection cannot have it meanwhile.
    let mut other = server.connect().await;
    assert_eq!(other.ask(12, &request(id, 2, &[])).await.error_code, 70);
    drop(client);
    until(|| server.kafka.fetch_sessions() == 0).await;
}

#[tokio::test]
async fn a_topic_made_again_under_its_name_is_unknown_to_a_session_by_id() {
    let server = Server::start().await;
    let topic = server.create("t", &[]).await;
    let mut client = server.connect().await;
    let mut first = request(0, 0, &[(0, 0)]);
    first.topics[0].topic_id = Uuid(topic.id.0);
    let id = client.ask(13, &first).await.session_id;
    assert_ne!(id, 0);
    server.broker.delete_topic("t").await.unwrap();
    server.create("t", &[]).await;
    let response = client.ask(13, &request(id, 1, &[])).await;
    assert_eq!(said(&response), [(0, 100, 0)]);
}
