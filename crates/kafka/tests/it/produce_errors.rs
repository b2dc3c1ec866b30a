//! Produce where it is refused: one code for each mistake, with a message.

use bytes::Bytes;
use sapwood_kafka_wire::{
    Request, Uuid,
    messages::{InitProducerIdRequest, ProduceRequest, ProduceResponsePartition},
};
use sapwood_model::{Offset, PartitionId, Timestamp};
use sapwood_record::{Batch, Codec, crc32c};

use crate::support::{
    Server, batch, batch_of,
    client::produce,
    old_produce::{OldPartition, OldRequest, OldTopic},
};

/// A batch whose bytes from the attributes on were changed, with a CRC that fits.
fn changed(records: &Bytes, change: impl FnOnce(&mut [u8])) -> Bytes {
    let mut bytes = records.to_vec();
    change(&mut bytes);
    let crc = crc32c(&[&bytes[21..]]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

fn message(refused: &ProduceResponsePartition) -> &str {
    refused.error_message.as_deref().unwrap_or_default()
}

#[tokio::test]
async fn each_mistake_has_its_code_and_a_message_and_appends_nothing() {
    let server = Server::start().await;
    server.create("t", &[("max.message.bytes", "1000")]).await;
    let mut client = server.connect().await;
    let good = batch(&["a"]);
    let two = Bytes::from([&good[..], &good[..]].concat());
    let mut torn = good.to_vec();
    torn[30] ^= 1;
    let set = |at: usize, value: u8| changed(&good, |bytes| bytes[at] = value);
    let lz4 = batch_of(Codec::Lz4, None, Timestamp(1000), &["a"]);
    // Flags without that of independent blocks, and the checksum that goes with them.
    let linked = changed(&lz4, |bytes| {
        bytes[65..68].copy_from_slice(&[0x40, 0x40, 0xc0]);
    });
    let cases: [(&str, Bytes, i16); 14] = [
        ("LZ4 blocks that depend on each other", linked, 87),
        ("no records", Bytes::new(), 87),
        ("two batches", two, 87),
        ("a wrong checksum", torn.into(), 2),
        ("half a batch", good.slice(..good.len() - 1), 2),
        ("half a header", good.slice(..40), 2),
        ("an old format", set(16, 1), 87),
        ("an unknown codec", set(22, 7), 76),
        ("a control batch", set(22, 1 << 5), 87),
        ("the broker's own timestamps", set(22, 1 << 3), 32),
        ("a transaction", set(22, 1 << 4), 48),
        ("a count that is not true", set(60, 2), 87),
        ("too many bytes", batch(&[&"x".repeat(1000)]), 10),
        ("noise", Bytes::from_static(&[7; 100]), 87),
    ];
    for (what, records, code) in cases {
        let refused = client.produce("t", records).await;
        assert_eq!(
            (refused.error_code, refused.base_offset),
            (code, -1),
            "{what}"
        );
        assert!(!message(&refused).is_empty(), "{what}");
    }
    let end = server.broker.bounds("t", PartitionId(0)).unwrap().log_end;
    assert_eq!(end, Offset(0));
    assert_eq!(client.produce("t", good).await.error_code, 0);
}

#[tokio::test]
async fn topics_and_partitions_that_are_not_there_are_refused_by_name_and_by_id() {
    let server = Server::start().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    let unknown = client.produce("unknown", batch(&["a"])).await;
    assert_eq!(unknown.error_code, 3);
    assert!(message(&unknown).contains("unknown"), "{unknown:?}");
    // A produce does not create topics: clients ask for metadata first.
    assert!(server.broker.topic("unknown").is_none());
    for index in [1, -1, i32::MAX, i32::MIN] {
        let mut request = produce("t", batch(&["a"]));
        request.topic_data[0].partition_data[0].index = index;
        let refused = client.produce_as(9, &request).await;
        assert_eq!((refused.index, refused.error_code), (index, 3));
    }
    for id in [Uuid(77), Uuid::ZERO] {
        let mut request = produce("", batch(&["a"]));
        request.topic_data[0].topic_id = id;
        assert_eq!(client.produce_as(13, &request).await.error_code, 100);
    }
}

#[tokio::test]
async fn acks_and_transactions_that_there_are_not_are_refused_clearly() {
    let server = Server::start().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    for acks in [2, -2, i16::MAX] {
        let request = ProduceRequest {
            acks,
            ..produce("t", batch(&["a"]))
        };
        assert_eq!(client.produce_as(9, &request).await.error_code, 21);
    }
    let transactional = ProduceRequest {
        transactional_id: Some("tx".to_owned()),
        ..produce("t", batch(&["a"]))
    };
    let refused = client.produce_as(9, &transactional).await;
    assert_eq!(refused.error_code, 35);
    assert_eq!(message(&refused), "transactions are not supported");
    for (id, code) in [("tx", 35), ("", 42)] {
        let request = InitProducerIdRequest {
            transactional_id: Some(id.to_owned()),
            ..InitProducerIdRequest::default()
        };
        for version in 0..=5 {
            let refused = client.ask(version, &request).await;
            assert_eq!((refused.error_code, refused.producer_id), (code, -1));
        }
    }
}

#[tokio::test]
async fn zstd_needs_a_version_that_knows_it() {
    let server = Server::start().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    let request = produce("t", batch_of(Codec::Zstd, None, Timestamp::NONE, &["a"]));
    for version in 3..7 {
        assert_eq!(client.produce_as(version, &request).await.error_code, 76);
    }
    assert_eq!(client.produce_as(7, &request).await.error_code, 0);
}

#[tokio::test]
async fn the_record_that_is_at_fault_is_named() {
    let server = Server::start().await;
    server
        .create("compacted", &[("cleanup.policy", "compact")])
        .await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    let refused = client.produce("compacted", batch(&["no key"])).await;
    assert_eq!(refused.error_code, 87);
    assert_eq!(refused.record_errors[0].batch_index, 0);
    // The second record says that it is longer than it is.
    let good = batch(&["aaaa", "bbbb"]);
    let second = {
        let first = usize::from(good[61]) / 2;
        61 + 1 + first
    };
    let lying = changed(&good, |bytes| bytes[second] += 2);
    let refused = client.produce("t", lying).await;
    assert_eq!(refused.error_code, 87, "{refused:?}");
    let error = &refused.record_errors[0];
    assert_eq!(error.batch_index, 1);
    assert_eq!(error.batch_index_error_message, refused.error_message);
}

#[tokio::test]
async fn timestamps_outside_of_a_topics_window_are_refused() {
    let server = Server::start().await;
    server
        .create("t", &[("message.timestamp.before.max.ms", "1000")])
        .await;
    let mut client = server.connect().await;
    let old = batch_of(Codec::None, None, Timestamp(1_000), &["a"]);
    assert_eq!(client.produce("t", old).await.error_code, 32);
}

#[tokio::test]
async fn versions_before_record_batches_are_refused_in_their_own_words() {
    fn is_request<R: Request>(_: &R) {}
    let server = Server::start().await;
    server.create("t", &[]).await;
    let mut client = server.connect().await;
    let request = OldRequest {
        acks: 1,
        timeout_ms: 1000,
        topics: vec![OldTopic {
            name: "t".to_owned(),
            partitions: vec![OldPartition {
                index: 0,
                messages: Some(Bytes::from_static(&[0; 30])),
            }],
        }],
    };
    is_request(&request);
    for version in 0..=2 {
        let response = client.ask(version, &request).await;
        let refused = &response.topics[0].partitions[0];
        assert_eq!((refused.error_code, refused.base_offset), (35, -1));
    }
    assert!(Batch::split(Bytes::from_static(&[0; 30])).is_err());
}
