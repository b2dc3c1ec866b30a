//! What the two busiest messages cost: allocations a topic, none a record, and no copy of records.
#![allow(clippy::unwrap_used)] // The helpers of a test fail it by panicking.

mod counting;

use bytes::Bytes;
use counting::counted;
use sapwood_kafka_wire::{
    Reader, RequestHeader, decode_body, encode_request, encode_response, messages::*,
};

/// A Produce frame with so many partitions in each topic, and records of so many bytes in each.
fn produce_frame(topics: usize, partitions: usize, records_bytes: usize) -> Bytes {
    let records = Bytes::from(vec![7; records_bytes]);
    let partition = |index| ProduceRequestPartition {
        index,
        records: Some(records.clone()),
    };
    let topic = ProduceRequestTopic {
        name: "orders".to_owned(),
        partition_data: (0..partitions as i32).map(partition).collect(),
        ..Default::default()
    };
    let request = ProduceRequest {
        acks: -1,
        topic_data: vec![topic; topics],
        ..Default::default()
    };
    let frame = encode_request(1, 9, Some("client"), &request).unwrap();
    Bytes::from(frame.concat()).slice(4..)
}

#[test]
fn decoding_a_produce_request_allocates_by_topics_and_copies_no_records() {
    // The client id, the list of topics; for each topic its name and its list of partitions. (That
    // the frame can be shared was paid when it was sliced.)
    let expected = |topics| 2 + 2 * topics;
    for (topics, partitions, records_bytes) in [
        (1, 1, 100),
        (1, 1, 1 << 20),
        (1, 100, 1000),
        (10, 100, 1000),
        (10, 1, 10),
    ] {
        let frame = produce_frame(topics, partitions, records_bytes);
        let given = frame.clone();
        let (request, allocated) = counted(|| {
            let mut reader = Reader::new(given);
            let header = RequestHeader::decode(&mut reader).unwrap();
            assert_eq!(header.client_id.as_deref(), Some("client"));
            decode_body::<ProduceRequest>(reader, header.api_version).unwrap()
        });
        println!(
            "Produce v9, {topics} topics of {partitions} partitions with {records_bytes} bytes: \
             {} allocations, {} bytes at the peak, for a frame of {}",
            allocated.calls,
            allocated.peak_bytes,
            frame.len()
        );
        assert_eq!(allocated.calls, expected(topics));
        assert!(allocated.peak_bytes <= 100 + topics * (100 + partitions * 64));
        let inside = frame.as_ptr_range();
        for partition in request
            .topic_data
            .iter()
            .flat_map(|topic| &topic.partition_data)
        {
            let records = partition.records.as_ref().unwrap();
            assert_eq!(records.len(), records_bytes);
            assert!(
                inside.contains(&records.as_ptr()),
                "the records were copied"
            );
        }
    }
}

#[test]
fn encoding_a_fetch_response_copies_no_records() {
    for (partitions, records_bytes) in [(1, 1024), (1, 1 << 20), (100, 1024), (1000, 1 << 16)] {
        let records = Bytes::from(vec![7; records_bytes]);
        let partition = |partition_index| FetchResponsePartition {
            partition_index,
            records: Some(records.clone()),
            ..Default::default()
        };
        let response = FetchResponse {
            responses: vec![FetchResponseTopic {
                topic: "orders".to_owned(),
                partitions: (0..partitions).map(partition).collect(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let (parts, allocated) = counted(|| encode_response(1, 12, &response).unwrap());
        let length: usize = parts.iter().map(Bytes::len).sum();
        println!(
            "Fetch v12, {partitions} partitions with {records_bytes} bytes: {} allocations, {} \
             bytes at the peak, for a frame of {length}",
            allocated.calls, allocated.peak_bytes,
        );
        // The buffer and the list of parts double; then both are frozen.
        let doublings = 2 * usize::BITS - 2 * (partitions as usize).leading_zeros();
        assert!(
            allocated.calls <= 6 + doublings as usize,
            "{}",
            allocated.calls
        );
        assert!(allocated.peak_bytes <= 1024 + 512 * partitions as usize);
        let shared = parts
            .iter()
            .filter(|part| part.as_ptr() == records.as_ptr());
        assert_eq!(shared.count(), partitions as usize);
        // What stands before each, and what is behind the last.
        assert_eq!(parts.len(), 2 * partitions as usize + 1);
    }
}

#[test]
fn small_bytes_are_copied_into_the_buffer() {
    let partition = FetchResponsePartition {
        records: Some(Bytes::from(vec![7; 1023])),
        ..Default::default()
    };
    let response = FetchResponse {
        responses: vec![FetchResponseTopic {
            partitions: vec![partition; 10],
            ..Default::default()
        }],
        ..Default::default()
    };
    assert_eq!(encode_response(1, 12, &response).unwrap().len(), 1);
}
