//! Produce where it succeeds: versions, durability, idempotence.

use sapwood_kafka_wire::{
    Uuid,
    messages::{InitProducerIdRequest, ProduceRequest, ProduceRequestPartition},
};
use sapwood_model::{Offset, PartitionId, Timestamp};
use sapwood_record::Codec;

use crate::support::{
    Server, batch, batch_of,
    client::{fetch, produce, produce_to},
    stamp, values,
};

#[tokio::test]
async fn every_version_appends_and_says_where() {
    let server = Server::start().await;
    let id = Uuid(server.create("t", &[]).await.id.0);
    let mut client = server.connect().await;
    for version in 3..=13 {
        let mut request = produce("t", batch(&["a", "b"]));
        request.topic_data[0].topic_id = id;
        let response = client.ask(version, &request).await;
        let topic = &response.responses[0];
        match version {
            13 => assert_eq!(topic.topic_id, id),
            _ => assert_eq!(topic.name, "t"),
        }
        let partition = &topic.partition_responses[0];
        let expected = i64::from(version - 3) * 2;
        assert_eq!((partition.error_code, partition.base_offset), (0, expected));
        assert_eq!(partition.log_append_time_ms, -1);
        assert_eq!(
            partition.log_start_offset,
            if version >= 5 { 0 } else { -1 }
        );
        assert_eq!(response.throttle_time_ms, 0);
    }
}

#[tokio::test]
async fn each_partition_of_each_topic_has_its_own_answer() {
    let server = Server::start().await;
    server.create_with("one", 2, &[]).await;
    server.create("two", &[("durability", "os")]).await;
    let mut client = server.connect().await;
    let mut request = produce_to("one", 1, batch(&["a"]));
    request.topic_data[0]
        .partition_data
        .push(ProduceRequestPartition {
            index: 7,
            records: Some(batch(&["b"])),
        });
    request
        .topic_data
        .extend(produce("two", batch(&["c"])).topic_data);
    let response = client.ask(9, &request).await;
    let said: Vec<_> = response
        .responses
        .iter()
        .flat_map(|topic| {
            let partitions = topic.partition_responses.iter();
            partitions.map(|p| (topic.name.as_str(), p.index, p.error_code, p.base_offset))
        })
        .collect();
    assert_eq!(
        said,
        [("one", 1, 0, 0), ("one", 7, 3, -1), ("two", 0, 0, 0)]
    );
}

#[tokio::test]
async fn what_was_sent_is_what_is_read_in_every_codec() {
    let server = Server::start().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    let codecs = [
        Codec::None,
        Codec::Gzip,
        Codec::Snappy,
        Codec::Lz4,
        Codec::Zstd,
    ];
    let texts: Vec<String> = (0..100).map(|number| format!("value {number}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    for codec in codecs {
        let records = batch_of(codec, None, Timestamp(1_700_000_000_000), &texts);
        assert_eq!(client.produce("t", records.clone()).await.error_code, 0);
        let end = server.broker.bounds("t", PartitionId(0)).unwrap().log_end;
        let start = i64::try_from(end.0).unwrap() - 100;
        let fetched = client.fetch_as(12, &fetch("t", start)).await;
        let bytes = fetched.records.unwrap();
        // All but the offset and the epoch, which the broker sets.
        assert_eq!(bytes[16..], records[16..], "{codec}");
        let read = values(&bytes);
        assert_eq!(read.len(), 100);
        assert_eq!(read[99], (end.0 - 1, "value 99".to_owned()));
    }
}

#[tokio::test]
async fn acks_of_one_do_not_wait_and_a_topic_may_stamp_records_itself() {
    let server = Server::start().await;
    server
        .create("t", &[("message.timestamp.type", "LogAppendTime")])
        .await;
    let mut client = server.connect().await;
    let request = ProduceRequest {
        acks: 1,
        ..produce("t", batch_of(Codec::None, None, Timestamp(5), &["a"]))
    };
    let produced = client.produce_as(9, &request).await;
    assert_eq!(produced.error_code, 0);
    assert!(
        produced.log_append_time_ms > 1_600_000_000_000,
        "{produced:?}"
    );
}

#[tokio::test]
async fn an_idempotent_producer_gets_its_offsets_back_and_gaps_and_old_epochs_are_refused() {
    let server = Server::start().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    let request = InitProducerIdRequest::default();
    let id = client.ask(4, &request).await.producer_id;
    let of = |epoch, sequence, text: &str| {
        let stamp = stamp(id, epoch, sequence, 1);
        batch_of(Codec::None, Some(stamp), Timestamp::NONE, &[text])
    };
    assert_eq!(client.produce("t", of(0, 0, "a")).await.base_offset, 0);
    assert_eq!(client.produce("t", of(0, 1, "b")).await.base_offset, 1);
    let again = client.produce("t", of(0, 0, "a")).await;
    assert_eq!((again.error_code, again.base_offset), (0, 0));
    let gap = client.produce("t", of(0, 3, "d")).await;
    assert_eq!((gap.error_code, gap.base_offset), (45, -1));
    assert_eq!(client.produce("t", of(1, 0, "c")).await.base_offset, 2);
    assert_eq!(client.produce("t", of(0, 2, "x")).await.error_code, 47);
    assert_eq!(client.produce("t", of(2, 1, "x")).await.error_code, 45);
    let end = server.broker.bounds("t", PartitionId(0)).unwrap().log_end;
    assert_eq!(end, Offset(3));
}
