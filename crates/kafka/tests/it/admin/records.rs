//! DeleteRecords and DescribeProducers.

use sapwood_kafka_wire::messages::{
    DeleteRecordsRequest, DeleteRecordsRequestPartition, DeleteRecordsRequestTopic,
    DescribeProducersRequest, DescribeProducersRequestTopic,
};
use sapwood_model::{Offset, PartitionId, Timestamp};
use sapwood_record::Codec;

use super::{error, refusal};
use crate::support::{Client, Server, batch, batch_of, stamp};

async fn delete(
    client: &mut Client,
    version: i16,
    topic: &str,
    partitions: &[(i32, i64)],
) -> Vec<(i64, &'static str)> {
    let partition = |(partition_index, offset): &(i32, i64)| DeleteRecordsRequestPartition {
        partition_index: *partition_index,
        offset: *offset,
    };
    let request = DeleteRecordsRequest {
        topics: vec![DeleteRecordsRequestTopic {
            name: topic.to_owned(),
            partitions: partitions.iter().map(partition).collect(),
        }],
        timeout_ms: 20_000,
    };
    let mut response = client.ask(version, &request).await;
    let answers = response.topics.remove(0).partitions.into_iter();
    answers
        .map(|one| (one.low_watermark, error(one.error_code)))
        .collect()
}

#[tokio::test]
async fn records_below_an_offset_are_deleted_and_the_new_start_is_told() {
    let server = Server::start().await;
    server.create_with("t", 2, &[]).await;
    let mut client = server.connect().await;
    for _ in 0..5 {
        let records = batch(&["a", "b"]);
        assert_eq!(client.produce("t", records).await.error_code, 0);
    }
    let start = || server.broker.bounds("t", PartitionId(0)).unwrap().log_start;
    for (version, offset) in [(0, 2), (1, 3), (2, 4)] {
        let answer = delete(&mut client, version, "t", &[(0, offset)]).await;
        assert_eq!(answer, [(offset, "NONE")]);
        assert_eq!(start(), Offset(offset.unsigned_abs()));
    }
    // Below the start nothing is left to delete; above the high watermark nothing is there.
    assert_eq!(delete(&mut client, 2, "t", &[(0, 1)]).await, [(4, "NONE")]);
    let wrong = [(0, 11), (1, -2), (2, 0), (-1, 0), (0, 5)];
    let answers = delete(&mut client, 2, "t", &wrong).await;
    assert_eq!(
        answers,
        [
            (-1, "OFFSET_OUT_OF_RANGE"),
            (-1, "OFFSET_OUT_OF_RANGE"),
            (-1, "UNKNOWN_TOPIC_OR_PARTITION"),
            (-1, "UNKNOWN_TOPIC_OR_PARTITION"),
            (-1, "INVALID_REQUEST"),
        ]
    );
    assert_eq!(start(), Offset(4));
    // -1 is everything that can be read.
    let answers = delete(&mut client, 2, "t", &[(0, -1), (1, -1)]).await;
    assert_eq!(answers, [(10, "NONE"), (0, "NONE")]);
    let unknown = delete(&mut client, 2, "nobody", &[(0, 0)]).await;
    assert_eq!(unknown, [(-1, "UNKNOWN_TOPIC_OR_PARTITION")]);
}

#[tokio::test]
async fn a_topic_that_only_compacts_does_not_delete_by_offset() {
    let server = Server::start().await;
    server
        .create("compact", &[("cleanup.policy", "compact")])
        .await;
    server
        .create("both", &[("cleanup.policy", "compact,delete")])
        .await;
    let mut client = server.connect().await;
    let answer = delete(&mut client, 2, "compact", &[(0, -1)]).await;
    assert_eq!(answer, [(-1, "POLICY_VIOLATION")]);
    let answer = delete(&mut client, 2, "both", &[(0, -1)]).await;
    assert_eq!(answer, [(0, "NONE")]);
}

#[tokio::test]
async fn producers_are_described_by_partition() {
    let server = Server::start().await;
    server.create_with("t", 2, &[]).await;
    let mut client = server.connect().await;
    let before = server.broker.environment().clock.now();
    for base_sequence in [0, 2] {
        let stamp = stamp(7, 3, base_sequence, 2);
        let records = batch_of(Codec::None, Some(stamp), Timestamp::NONE, &["a", "b"]);
        assert_eq!(client.produce("t", records).await.error_code, 0);
    }
    let topic = |name: &str, partition_indexes: &[i32]| DescribeProducersRequestTopic {
        name: name.to_owned(),
        partition_indexes: partition_indexes.to_vec(),
    };
    let request = DescribeProducersRequest {
        topics: vec![
            topic("t", &[0, 1, 2, -1, 0]),
            topic("no spaces", &[0]),
            topic("t", &[1]),
        ],
    };
    let response = client.ask(0, &request).await;
    let [wrong, known] = &response.topics[..] else {
        panic!("each topic once, in the order of the names");
    };
    let (code, _) = refusal(
        wrong.partitions[0].error_code,
        &wrong.partitions[0].error_message,
    );
    assert_eq!(code, "INVALID_TOPIC_EXCEPTION");
    let codes: Vec<_> = known
        .partitions
        .iter()
        .map(|one| (one.partition_index, error(one.error_code)))
        .collect();
    let unknown = "UNKNOWN_TOPIC_OR_PARTITION";
    assert_eq!(
        codes,
        [(-1, unknown), (0, "NONE"), (1, "NONE"), (2, unknown)]
    );
    let [producer] = &known.partitions[1].active_producers[..] else {
        panic!("one producer");
    };
    assert_eq!(
        (
            producer.producer_id,
            producer.producer_epoch,
            producer.last_sequence
        ),
        (7, 3, 3)
    );
    assert!(producer.last_timestamp >= before.0);
    assert_eq!(
        (
            producer.coordinator_epoch,
            producer.current_txn_start_offset
        ),
        (-1, -1)
    );
    assert!(known.partitions[2].active_producers.is_empty());
}
