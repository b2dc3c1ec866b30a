//! Frames fixed by hand, byte by byte with what they mean: what is sent stays what it is.
#![allow(clippy::unwrap_used)] // The helpers of a test fail it by panicking.

mod golden_frames;

use std::fmt::Debug;

use bytes::Bytes;
use sapwood_kafka_wire::{
    Message, Reader, Request, RequestHeader, Uuid, decode_body, decode_response, encode_request,
    encode_response, messages::*,
};

use golden_frames as frames;

/// What all these requests have in their headers.
const CLIENT_ID: &str = "sap";

/// What all of these frames have as correlation id.
const CORRELATION_ID: i32 = 7;

/// A topic's id.
const TOPIC_ID: Uuid = Uuid(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);

/// What stands where a record batch would: the codec does not look into it.
const RECORDS: Bytes = Bytes::from_static(b"batch");

/// The bytes of a text with hexadecimal digits and `'text'`; comments start with `#`.
fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in text.lines() {
        let code = line.split('#').next().unwrap();
        for word in code.split_whitespace() {
            match word
                .strip_prefix('\'')
                .and_then(|word| word.strip_suffix('\''))
            {
                Some(letters) => bytes.extend_from_slice(letters.as_bytes()),
                None => bytes.push(u8::from_str_radix(word, 16).unwrap()),
            }
        }
    }
    bytes
}

/// The frame is this request, and this request is the frame.
fn assert_request<R: Request + PartialEq + Debug>(frame: &str, version: i16, expected: &R) {
    let frame = bytes(frame);
    let mut reader = Reader::new(Bytes::copy_from_slice(&frame));
    let length = i32::from_be_bytes(reader.array().unwrap());
    assert_eq!(length as usize, reader.remaining());
    let header = RequestHeader::decode(&mut reader).unwrap();
    let expected_header = RequestHeader {
        api_key: R::KEY,
        api_version: version,
        correlation_id: CORRELATION_ID,
        client_id: Some(CLIENT_ID.to_owned()),
    };
    assert_eq!(header, expected_header);
    assert_eq!(decode_body::<R>(reader, version).as_ref(), Ok(expected));
    let written = encode_request(CORRELATION_ID, version, Some(CLIENT_ID), expected).unwrap();
    assert_eq!(hex(&written.concat()), hex(&frame));
}

/// The frame is this response, and this response is the frame.
fn assert_response<M: Message + PartialEq + Debug>(frame: &str, version: i16, expected: &M) {
    let frame = bytes(frame);
    let length = i32::from_be_bytes(frame[..4].try_into().unwrap());
    assert_eq!(length as usize, frame.len() - 4);
    let rest = Bytes::copy_from_slice(&frame[4..]);
    let (correlation_id, body) = decode_response::<M>(rest, version).unwrap();
    assert_eq!((correlation_id, &body), (CORRELATION_ID, expected));
    let written = encode_response(CORRELATION_ID, version, expected).unwrap();
    assert_eq!(hex(&written.concat()), hex(&frame));
}

fn hex(bytes: &[u8]) -> String {
    format!("{bytes:02x?}")
}

#[test]
fn api_versions_0() {
    assert_request(
        frames::API_VERSIONS_REQUEST_0,
        0,
        &ApiVersionsRequest::default(),
    );
    assert_response(frames::API_VERSIONS_RESPONSE_0, 0, &api_versions(35));
}

#[test]
fn api_versions_3_is_answered_with_the_oldest_header() {
    let request = ApiVersionsRequest {
        client_software_name: "sapwood".to_owned(),
        client_software_version: "0.1".to_owned(),
    };
    assert_request(frames::API_VERSIONS_REQUEST_3, 3, &request);
    let response = ApiVersionsResponse {
        finalized_features_epoch: 2,
        finalized_features: vec![ApiVersionsResponseFinalizedFeature {
            name: "transaction.version".to_owned(),
            max_version_level: 2,
            min_version_level: 0,
        }],
        ..api_versions(0)
    };
    assert_response(frames::API_VERSIONS_RESPONSE_3, 3, &response);
}

fn api_versions(error_code: i16) -> ApiVersionsResponse {
    ApiVersionsResponse {
        error_code,
        api_keys: vec![ApiVersionsResponseApiVersion {
            api_key: 18,
            min_version: 0,
            max_version: 4,
        }],
        ..Default::default()
    }
}

#[test]
fn metadata_4() {
    let request = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some("t1".to_owned()),
            ..Default::default()
        }]),
        allow_auto_topic_creation: true,
        ..Default::default()
    };
    assert_request(frames::METADATA_REQUEST_4, 4, &request);
    let mut response = metadata();
    response.topics[0].partitions[0].leader_epoch = -1;
    response.topics[0].topic_id = Uuid::ZERO;
    assert_response(frames::METADATA_RESPONSE_4, 4, &response);
}

#[test]
fn metadata_12() {
    let request = MetadataRequest {
        topics: Some(vec![
            MetadataRequestTopic {
                topic_id: TOPIC_ID,
                name: None,
            },
            MetadataRequestTopic {
                name: Some("t1".to_owned()),
                ..Default::default()
            },
        ]),
        allow_auto_topic_creation: false,
        include_topic_authorized_operations: true,
        ..Default::default()
    };
    assert_request(frames::METADATA_REQUEST_12, 12, &request);
    assert_response(frames::METADATA_RESPONSE_12, 12, &metadata());
}

#[test]
fn metadata_of_all_topics_is_null_from_version_1_on_and_empty_before() {
    let all = MetadataRequest {
        topics: None,
        ..Default::default()
    };
    assert_request(frames::METADATA_REQUEST_1_ALL, 1, &all);
    assert!(encode_request(1, 0, None, &all).is_err());
    assert_request(
        frames::METADATA_REQUEST_0_ALL,
        0,
        &MetadataRequest::default(),
    );
}

fn metadata() -> MetadataResponse {
    MetadataResponse {
        brokers: vec![MetadataResponseBroker {
            node_id: 1,
            host: "h".to_owned(),
            port: 9092,
            rack: None,
        }],
        cluster_id: Some("c".to_owned()),
        controller_id: 1,
        topics: vec![MetadataResponseTopic {
            name: Some("t1".to_owned()),
            topic_id: TOPIC_ID,
            partitions: vec![MetadataResponsePartition {
                leader_id: 1,
                leader_epoch: 5,
                replica_nodes: vec![1],
                isr_nodes: vec![1],
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    }
}

#[test]
fn produce_3() {
    assert_request(frames::PRODUCE_REQUEST_3, 3, &produce("t1", Uuid::ZERO));
    assert_response(frames::PRODUCE_RESPONSE_3, 3, &produced("t1", Uuid::ZERO));
}

#[test]
fn produce_9() {
    let request = ProduceRequest {
        transactional_id: Some("tx".to_owned()),
        ..produce("t1", Uuid::ZERO)
    };
    assert_request(frames::PRODUCE_REQUEST_9, 9, &request);
    let mut response = produced("t1", Uuid::ZERO);
    let partition = &mut response.responses[0].partition_responses[0];
    partition.error_code = 87;
    partition.base_offset = -1;
    partition.log_start_offset = 3;
    partition.error_message = Some("bad".to_owned());
    partition.record_errors = vec![ProduceResponseRecordError {
        batch_index: 4,
        batch_index_error_message: None,
    }];
    assert_response(frames::PRODUCE_RESPONSE_9, 9, &response);
}

#[test]
fn produce_13_names_topics_by_their_ids() {
    assert_request(frames::PRODUCE_REQUEST_13, 13, &produce("", TOPIC_ID));
    let mut response = produced("", TOPIC_ID);
    let partition = &mut response.responses[0].partition_responses[0];
    partition.current_leader = ProduceResponseLeaderIdAndEpoch {
        leader_id: 2,
        leader_epoch: 9,
    };
    assert_response(frames::PRODUCE_RESPONSE_13, 13, &response);
}

fn produce(name: &str, topic_id: Uuid) -> ProduceRequest {
    ProduceRequest {
        transactional_id: None,
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![ProduceRequestTopic {
            name: name.to_owned(),
            topic_id,
            partition_data: vec![ProduceRequestPartition {
                index: 2,
                records: Some(RECORDS),
            }],
        }],
    }
}

fn produced(name: &str, topic_id: Uuid) -> ProduceResponse {
    ProduceResponse {
        responses: vec![ProduceResponseTopic {
            name: name.to_owned(),
            topic_id,
            partition_responses: vec![ProduceResponsePartition {
                index: 2,
                base_offset: 258,
                ..Default::default()
            }],
        }],
        ..Default::default()
    }
}

#[test]
fn fetch_4() {
    let mut request = fetch("t1", Uuid::ZERO);
    request.topics[0].partitions[0].current_leader_epoch = -1;
    assert_request(frames::FETCH_REQUEST_4, 4, &request);
    assert_response(frames::FETCH_RESPONSE_4, 4, &fetched("t1", Uuid::ZERO));
}

#[test]
fn fetch_13() {
    let request = FetchRequest {
        session_epoch: 0,
        rack_id: "r".to_owned(),
        ..fetch("", TOPIC_ID)
    };
    assert_request(frames::FETCH_REQUEST_13, 13, &request);
    let mut response = fetched("", TOPIC_ID);
    response.session_id = 11;
    let partition = &mut response.responses[0].partitions[0];
    partition.log_start_offset = 1;
    partition.diverging_epoch = FetchResponseEpochEndOffset {
        epoch: 3,
        end_offset: 40,
    };
    assert_response(frames::FETCH_RESPONSE_13, 13, &response);
}

fn fetch(topic: &str, topic_id: Uuid) -> FetchRequest {
    FetchRequest {
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: 1024,
        isolation_level: 1,
        topics: vec![FetchRequestTopic {
            topic: topic.to_owned(),
            topic_id,
            partitions: vec![FetchRequestPartition {
                partition: 2,
                current_leader_epoch: 5,
                fetch_offset: 42,
                partition_max_bytes: 512,
                ..Default::default()
            }],
        }],
        ..Default::default()
    }
}

fn fetched(topic: &str, topic_id: Uuid) -> FetchResponse {
    FetchResponse {
        responses: vec![FetchResponseTopic {
            topic: topic.to_owned(),
            topic_id,
            partitions: vec![FetchResponsePartition {
                partition_index: 2,
                high_watermark: 50,
                last_stable_offset: 48,
                aborted_transactions: Some(vec![FetchResponseAbortedTransaction {
                    producer_id: 9,
                    first_offset: 44,
                }]),
                records: Some(RECORDS),
                ..Default::default()
            }],
        }],
        ..Default::default()
    }
}

#[test]
fn list_offsets_1() {
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsRequestTopic {
            name: "t1".to_owned(),
            partitions: vec![ListOffsetsRequestPartition {
                partition_index: 2,
                timestamp: -2,
                ..Default::default()
            }],
        }],
        ..Default::default()
    };
    assert_request(frames::LIST_OFFSETS_REQUEST_1, 1, &request);
}

#[test]
fn init_producer_id_4() {
    assert_request(
        frames::INIT_PRODUCER_ID_REQUEST_4,
        4,
        &InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: 60_000,
            ..Default::default()
        },
    );
    assert_response(
        frames::INIT_PRODUCER_ID_RESPONSE_4,
        4,
        &InitProducerIdResponse {
            producer_id: 1000,
            ..Default::default()
        },
    );
}

#[test]
fn offset_for_leader_epoch_4() {
    let response = OffsetForLeaderEpochResponse {
        topics: vec![OffsetForLeaderEpochResponseTopic {
            topic: "t1".to_owned(),
            partitions: vec![OffsetForLeaderEpochResponsePartition {
                partition: 2,
                leader_epoch: 5,
                end_offset: 50,
                ..Default::default()
            }],
        }],
        ..Default::default()
    };
    assert_response(frames::OFFSET_FOR_LEADER_EPOCH_RESPONSE_4, 4, &response);
}

#[test]
fn consumer_group_heartbeat_1_has_a_mark_before_an_assignment() {
    let partitions = vec![ConsumerGroupHeartbeatResponseTopicPartitions {
        topic_id: TOPIC_ID,
        partitions: vec![0, 1],
    }];
    let mut response = ConsumerGroupHeartbeatResponse {
        member_id: Some("m".to_owned()),
        member_epoch: 3,
        heartbeat_interval_ms: 5000,
        assignment: Some(ConsumerGroupHeartbeatResponseAssignment {
            topic_partitions: partitions,
        }),
        ..Default::default()
    };
    assert_response(frames::CONSUMER_GROUP_HEARTBEAT_RESPONSE_1, 1, &response);
    response.assignment = None;
    assert_response(
        frames::CONSUMER_GROUP_HEARTBEAT_RESPONSE_1_UNCHANGED,
        1,
        &response,
    );
}

#[test]
fn create_topics_7_says_null_for_configurations_that_may_not_be_seen() {
    let response = CreateTopicsResponse {
        topics: vec![CreateTopicsResponseTopic {
            name: "t1".to_owned(),
            topic_id: TOPIC_ID,
            topic_config_error_code: 29,
            ..Default::default()
        }],
        ..Default::default()
    };
    assert_response(frames::CREATE_TOPICS_RESPONSE_7, 7, &response);
}

#[test]
fn join_group_5() {
    let request = JoinGroupRequest {
        group_id: "g".to_owned(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".to_owned(),
            metadata: Bytes::from_static(&[0, 1]),
        }],
        ..Default::default()
    };
    assert_request(frames::JOIN_GROUP_REQUEST_5, 5, &request);
}
