//! What Kafka's messages cost a broker: frames of requests that it decodes, responses that it encodes,
//! each for many partitions.

use std::hint::black_box;

use bytes::Bytes;
use sapwood_kafka_wire::{
    Reader, Request, RequestHeader, Uuid, decode_body, encode_request, encode_response,
    messages::{
        FetchRequest, FetchRequestPartition, FetchRequestTopic, FetchResponse,
        FetchResponsePartition, FetchResponseTopic, ProduceRequest, ProduceRequestPartition,
        ProduceRequestTopic, ProduceResponse, ProduceResponsePartition, ProduceResponseTopic,
    },
};

use super::{Done, Work, Workload};

const TOPICS: u8 = 10;
const PARTITIONS: i32 = 10;
const RECORDS_BYTES: usize = 1 << 10;

/// The last versions that name topics by their names, as most clients do when they produce.
const PRODUCE_VERSION: i16 = 12;
/// The first version that names topics by their ids.
const FETCH_VERSION: i16 = 13;

pub(super) const WORKLOADS: &[Workload] = &[
    partitions_work("decode a request/Produce", || {
        decoding(&produce_request(), PRODUCE_VERSION)
    }),
    partitions_work("decode a request/Fetch", || {
        decoding(&fetch_request(), FETCH_VERSION)
    }),
    partitions_work("encode a response/Produce", || {
        let response = produce_response();
        Box::new(move || {
            let parts = encode_response(7, PRODUCE_VERSION, black_box(&response));
            black_box(parts.expect("it can be said"));
        })
    }),
    partitions_work("encode a response/Fetch", || {
        let response = fetch_response();
        Box::new(move || {
            let parts = encode_response(7, FETCH_VERSION, black_box(&response));
            black_box(parts.expect("it can be said"));
        })
    }),
];

const fn partitions_work(name: &'static str, prepare: fn() -> Box<dyn Work>) -> Workload {
    Workload {
        name,
        done: Done::Events(TOPICS as usize * PARTITIONS as usize),
        prepare,
    }
}

/// The header and the body, from what follows the frame's length.
fn decoding<R: Request + 'static>(request: &R, version: i16) -> Box<dyn Work> {
    let parts = encode_request(7, version, Some("a client"), request);
    let frame = Bytes::from(parts.expect("it can be said").concat()).slice(4..);
    Box::new(move || {
        let mut reader = Reader::new(frame.clone());
        let header = RequestHeader::decode(&mut reader).expect("it is a header");
        let body: R = decode_body(reader, header.api_version).expect("it is a body");
        black_box((header, body));
    })
}

fn name(topic: u8) -> String {
    format!("orders-of-region-{topic}")
}

fn id(topic: u8) -> Uuid {
    Uuid(u128::from(topic) + 1)
}

fn records() -> Option<Bytes> {
    Some(vec![b'x'; RECORDS_BYTES].into())
}

fn produce_request() -> ProduceRequest {
    let partition = |index| ProduceRequestPartition {
        index,
        records: records(),
    };
    let topic = |topic| ProduceRequestTopic {
        name: name(topic),
        partition_data: (0..PARTITIONS).map(partition).collect(),
        ..Default::default()
    };
    ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data: (0..TOPICS).map(topic).collect(),
        ..Default::default()
    }
}

fn produce_response() -> ProduceResponse {
    let partition = |index| ProduceResponsePartition {
        index,
        base_offset: 1_000_000,
        log_start_offset: 0,
        ..Default::default()
    };
    let topic = |topic| ProduceResponseTopic {
        name: name(topic),
        partition_responses: (0..PARTITIONS).map(partition).collect(),
        ..Default::default()
    };
    ProduceResponse {
        responses: (0..TOPICS).map(topic).collect(),
        ..Default::default()
    }
}

fn fetch_request() -> FetchRequest {
    let partition = |partition| FetchRequestPartition {
        partition,
        fetch_offset: 1_000_000,
        partition_max_bytes: 1 << 20,
        ..Default::default()
    };
    let topic = |topic| FetchRequestTopic {
        topic_id: id(topic),
        partitions: (0..PARTITIONS).map(partition).collect(),
        ..Default::default()
    };
    FetchRequest {
        max_wait_ms: 500,
        min_bytes: 1,
        topics: (0..TOPICS).map(topic).collect(),
        ..Default::default()
    }
}

fn fetch_response() -> FetchResponse {
    let partition = |partition_index| FetchResponsePartition {
        partition_index,
        high_watermark: 1_000_001,
        last_stable_offset: 1_000_001,
        log_start_offset: 0,
        records: records(),
        ..Default::default()
    };
    let topic = |topic| FetchResponseTopic {
        topic_id: id(topic),
        partitions: (0..PARTITIONS).map(partition).collect(),
        ..Default::default()
    };
    FetchResponse {
        responses: (0..TOPICS).map(topic).collect(),
        ..Default::default()
    }
}
