//! ListOffsets, OffsetForLeaderEpoch, InitProducerId.

use sapwood_kafka_wire::messages::{
    InitProducerIdRequest, ListOffsetsRequest, ListOffsetsRequestPartition,
    ListOffsetsRequestTopic, OffsetForLeaderEpochRequest, OffsetForLeaderEpochRequestPartition,
    OffsetForLeaderEpochRequestTopic,
};
use sapwood_model::{Offset, PartitionId, Timestamp};
use sapwood_record::Codec;

use crate::support::{Client, Server, batch_of};

/// Error, timestamp, offset, epoch.
async fn list(
    client: &mut Client,
    version: i16,
    index: i32,
    timestamp: i64,
) -> (i16, i64, i64, i32) {
    list_with(
        client,
        version,
        "t",
        ListOffsetsRequestPartition {
            partition_index: index,
            timestamp,
            ..ListOffsetsRequestPartition::default()
        },
    )
    .await
}

async fn list_with(
    client: &mut Client,
    version: i16,
    topic: &str,
    partition: ListOffsetsRequestPartition,
) -> (i16, i64, i64, i32) {
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsRequestTopic {
            name: topic.to_owned(),
            partitions: vec![partition],
        }],
        ..ListOffsetsRequest::default()
    };
    let response = client.ask(version, &request).await;
    let found = &response.topics[0].partitions[0];
    (
        found.error_code,
        found.timestamp,
        found.offset,
        found.leader_epoch,
    )
}

async fn with_times(server: &Server, client: &mut Client, times: &[i64]) {
    for time in times {
        let records = batch_of(Codec::None, None, Timestamp(*time), &["a", "b"]);
        assert_eq!(client.produce("t", records).await.error_code, 0);
    }
    let end = server.broker.bounds("t", PartitionId(0)).unwrap().log_end;
    assert_eq!(end, Offset(2 * times.len() as u64));
}

#[tokio::test]
async fn places_and_times_lead_to_offsets() {
    let server = Server::start().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    with_times(&server, &mut client, &[1000, 3000, 2000]).await;
    server
        .broker
        .trim("t", PartitionId(0), Some(Offset(1)))
        .await
        .unwrap();
    for version in 1..=10 {
        let epoch = if version >= 4 { 0 } else { -1 };
        assert_eq!(list(&mut client, version, 0, -1).await, (0, -1, 6, epoch));
        assert_eq!(list(&mut client, version, 0, -2).await, (0, -1, 1, epoch));
        // A record's offset, not its batch's.
        assert_eq!(list(&mut client, version, 0, 0).await, (0, 1000, 1, epoch));
        assert_eq!(
            list(&mut client, version, 0, 1001).await,
            (0, 3000, 2, epoch)
        );
        assert_eq!(list(&mut client, version, 0, 3001).await, (0, -1, -1, -1));
        let new = |from: i16, found| {
            if version >= from {
                found
            } else {
                (35, -1, -1, -1)
            }
        };
        assert_eq!(
            list(&mut client, version, 0, -3).await,
            new(7, (0, 3000, 2, epoch))
        );
        assert_eq!(
            list(&mut client, version, 0, -4).await,
            new(8, (0, -1, 1, epoch))
        );
        assert_eq!(
            list(&mut client, version, 0, -5).await,
            new(9, (0, -1, -1, -1))
        );
        assert_eq!(list(&mut client, version, 0, -6).await, (35, -1, -1, -1));
    }
}

#[tokio::test]
async fn an_empty_partition_has_ends_and_nothing_else() {
    let server = Server::start().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    assert_eq!(list(&mut client, 7, 0, -1).await, (0, -1, 0, 0));
    let (error, _, offset, _) = list(&mut client, 7, 0, -2).await;
    assert_eq!((error, offset), (0, 0));
    assert_eq!(list(&mut client, 7, 0, -3).await, (0, -1, -1, -1));
    assert_eq!(list(&mut client, 7, 0, 0).await, (0, -1, -1, -1));
}

#[tokio::test]
async fn unknown_partitions_and_epochs_are_refused() {
    let server = Server::start().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    for index in [1, -1, i32::MIN, i32::MAX] {
        assert_eq!(list(&mut client, 7, index, -1).await, (3, -1, -1, -1));
    }
    let at = |current_leader_epoch| ListOffsetsRequestPartition {
        current_leader_epoch,
        timestamp: -1,
        ..ListOffsetsRequestPartition::default()
    };
    assert_eq!(list_with(&mut client, 7, "unknown", at(-1)).await.0, 3);
    assert_eq!(list_with(&mut client, 7, "t", at(0)).await.0, 0);
    assert_eq!(list_with(&mut client, 7, "t", at(1)).await.0, 75);
}

#[tokio::test]
async fn an_epoch_has_an_end() {
    let server = Server::start().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    with_times(&server, &mut client, &[1, 2]).await;
    let ask = |partition, current_leader_epoch, leader_epoch| OffsetForLeaderEpochRequest {
        topics: vec![OffsetForLeaderEpochRequestTopic {
            topic: "t".to_owned(),
            partitions: vec![OffsetForLeaderEpochRequestPartition {
                partition,
                current_leader_epoch,
                leader_epoch,
            }],
        }],
        ..OffsetForLeaderEpochRequest::default()
    };
    for version in 2..=4 {
        let mut found = async |request: OffsetForLeaderEpochRequest| {
            let response = client.ask(version, &request).await;
            let found = &response.topics[0].partitions[0];
            (found.error_code, found.leader_epoch, found.end_offset)
        };
        assert_eq!(found(ask(0, -1, 0)).await, (0, 0, 4));
        assert_eq!(found(ask(0, 0, 0)).await, (0, 0, 4));
        // An epoch that was not reached, and none at all.
        assert_eq!(found(ask(0, -1, 9)).await, (0, -1, -1));
        assert_eq!(found(ask(0, -1, -1)).await, (0, -1, -1));
        assert_eq!(found(ask(0, 9, 0)).await, (75, -1, -1));
        assert_eq!(found(ask(3, -1, 0)).await, (3, -1, -1));
    }
}

#[tokio::test]
async fn producer_ids_are_given_once() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let mut ids = Vec::new();
    for version in 0..=5 {
        let request = InitProducerIdRequest::default();
        let given = client.ask(version, &request).await;
        assert_eq!((given.error_code, given.producer_epoch), (0, 0));
        ids.push(given.producer_id);
    }
    // One that has an id and asks for its next epoch gets another id.
    let request = InitProducerIdRequest {
        producer_id: ids[0],
        producer_epoch: 3,
        ..InitProducerIdRequest::default()
    };
    ids.push(client.ask(4, &request).await.producer_id);
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 7);
}
