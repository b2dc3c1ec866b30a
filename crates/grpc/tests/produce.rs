//! ProduceService over real sockets.

// Helpers are outside of test functions; a failure in them is a failed test all the same.
#![allow(clippy::unwrap_used)]

mod common;

use bytes::Bytes;
use common::{Server, broker_options};
use sapwood_broker::BrokerOptions;
use sapwood_grpc::GrpcOptions;
use sapwood_model::{Code, PartitionId, Timestamp};
use sapwood_record::{BatchBuilder, Codec, RecordInput};
use sapwood_rpc::{
    status,
    v1::{
        self, produce_request::Payload, produce_response::Result as Answer,
        produce_service_client::ProduceServiceClient,
    },
};
use tokio_stream::StreamExt;
use tonic::transport::Channel;

fn batch(records: usize, size: usize) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None);
    let value = vec![7; size];
    for _ in 0..records {
        let input = RecordInput {
            timestamp: Timestamp(1),
            key: None,
            value: Some(&value),
            headers: &[],
        };
        builder.push(input).unwrap();
    }
    builder.build().unwrap().to_bytes()
}

fn request(correlation_id: u64, topic: &str, payload: Payload) -> v1::ProduceRequest {
    v1::ProduceRequest {
        correlation_id,
        topic: topic.into(),
        payload: Some(payload),
        ..v1::ProduceRequest::default()
    }
}

fn plain(values: &[&str], producer: Option<v1::ProducerStamp>) -> v1::Records {
    let record = |value: &&str| v1::Record {
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        ..v1::Record::default()
    };
    v1::Records {
        records: values.iter().map(record).collect(),
        compression: v1::Compression::Lz4.into(),
        producer,
    }
}

async fn produce(
    channel: &Channel,
    requests: Vec<v1::ProduceRequest>,
) -> Vec<Result<v1::ProduceResponse, tonic::Status>> {
    let mut client = ProduceServiceClient::new(channel.clone());
    let answers = client.produce(tokio_stream::iter(requests)).await.unwrap();
    answers.into_inner().collect().await
}

fn code_of(answer: &v1::ProduceResponse) -> Option<&str> {
    match answer.result.as_ref().unwrap() {
        Answer::Produced(_) => None,
        Answer::Error(error) => Some(&error.code),
    }
}

fn code_of_status(status: &tonic::Status) -> String {
    status::unpack(status)
        .unwrap_or_else(|| panic!("no typed detail: {status:?}"))
        .code
}

#[tokio::test]
async fn answers_come_in_the_order_of_the_requests_and_a_failure_concerns_one() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let channel = server.channel().await;
    let mut damaged = batch(1, 10).to_vec();
    damaged[70] ^= 1;
    let requests = vec![
        request(10, "a", Payload::Batch(batch(3, 10))),
        request(11, "no such name!", Payload::Batch(batch(1, 10))),
        request(12, "a", Payload::Batch(damaged.into())),
        v1::ProduceRequest {
            partition: 9,
            ..request(13, "a", Payload::Batch(batch(1, 10)))
        },
        v1::ProduceRequest {
            payload: None,
            ..request(14, "a", Payload::Batch(Bytes::new()))
        },
        v1::ProduceRequest {
            expected_end_offset: Some(7),
            ..request(15, "a", Payload::Batch(batch(1, 10)))
        },
        v1::ProduceRequest {
            acks: 77,
            ..request(16, "a", Payload::Batch(batch(1, 10)))
        },
        request(17, "a", Payload::Batch(Bytes::from_static(b"garbage"))),
        request(18, "a", Payload::Batch(batch(1, 2 << 20))),
        request(19, "a", Payload::Records(plain(&[], None))),
        request(20, "a", Payload::Batch(batch(2, 10))),
    ];
    let answers: Vec<_> = produce(&channel, requests)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let correlations: Vec<u64> = answers.iter().map(|answer| answer.correlation_id).collect();
    assert_eq!(correlations, (10..=20).collect::<Vec<u64>>());
    let codes: Vec<Option<&str>> = answers.iter().map(code_of).collect();
    let expected = [
        None,
        Some(Code::InvalidTopicName),
        Some(Code::CorruptBatch),
        Some(Code::UnknownPartition),
        Some(Code::InvalidArgument),
        Some(Code::ExpectedEndConflict),
        Some(Code::InvalidArgument),
        Some(Code::CorruptBatch),
        Some(Code::RecordTooLarge),
        Some(Code::CorruptBatch),
        None,
    ];
    let expected: Vec<Option<String>> = expected
        .iter()
        .map(|code| code.map(|code| code.to_string()))
        .collect();
    let codes: Vec<Option<String>> = codes.iter().map(|code| code.map(str::to_owned)).collect();
    assert_eq!(codes, expected);
    let Some(Answer::Error(conflict)) = &answers[5].result else {
        panic!("a conflict")
    };
    assert_eq!(conflict.fields["actual_end_offset"], "3");
    assert_eq!(conflict.fields["topic"], "a");
    let Some(Answer::Produced(last)) = &answers[10].result else {
        panic!("it was written")
    };
    assert_eq!((last.base_offset, last.last_offset), (3, 4));
    server.stop().await;
}

#[tokio::test]
async fn pipelined_requests_share_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let channel = server.channel().await;
    let requests = (0..2000)
        .map(|n| request(n, "t", Payload::Batch(batch(1, 100))))
        .collect();
    let answers = produce(&channel, requests).await;
    assert!(
        answers
            .iter()
            .all(|answer| code_of(answer.as_ref().unwrap()).is_none())
    );
    let rounds = server.broker.store_metrics().journal_rounds.get();
    assert!(
        rounds > 0 && rounds < 1000,
        "{rounds} rounds for 2000 requests"
    );
    server.stop().await;
}

#[tokio::test]
async fn plain_records_of_an_idempotent_producer_are_written_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let mut client = ProduceServiceClient::new(server.channel().await);
    let id = client
        .init_producer(v1::InitProducerRequest {})
        .await
        .unwrap()
        .into_inner();
    let other = client
        .init_producer(v1::InitProducerRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_ne!(id.producer_id, other.producer_id);
    let mut offsets = Vec::new();
    for base_sequence in [0, 2, 0, 2, 9] {
        let stamp = v1::ProducerStamp {
            producer_id: id.producer_id,
            producer_epoch: id.producer_epoch,
            base_sequence,
        };
        let records = plain(&["x", "y"], Some(stamp));
        let append = v1::AppendRequest {
            topic: "t".into(),
            records: records.records,
            compression: records.compression,
            producer: records.producer,
            ..v1::AppendRequest::default()
        };
        match client.append(append).await {
            Ok(answer) => offsets.push(answer.into_inner().produced.unwrap().base_offset),
            Err(status) => {
                assert_eq!(code_of_status(&status), Code::OutOfSequence.to_string());
            }
        }
    }
    assert_eq!(offsets, [0, 2, 0, 2]);
    server.stop().await;
}

#[tokio::test]
async fn without_acks_there_is_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let channel = server.channel().await;
    let silent = |n, payload| v1::ProduceRequest {
        acks: v1::Acks::None.into(),
        ..request(n, "t", payload)
    };
    let requests = vec![
        silent(1, Payload::Batch(batch(1, 10))),
        silent(2, Payload::Batch(Bytes::from_static(b"garbage"))),
        request(3, "t", Payload::Batch(batch(1, 10))),
    ];
    let answers = produce(&channel, requests).await;
    let correlations: Vec<u64> = answers
        .iter()
        .map(|a| a.as_ref().unwrap().correlation_id)
        .collect();
    assert_eq!(correlations, [3]);
    assert_eq!(
        server.broker.bounds("t", PartitionId(0)).unwrap().log_end.0,
        2
    );
    server.stop().await;
}

#[tokio::test]
async fn a_message_above_the_limit_or_unreadable_ends_its_stream_with_a_code_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let grpc = GrpcOptions {
        message_bytes_max: 100_000,
        ..GrpcOptions::default()
    };
    let server = Server::start_with(broker_options(dir.path()), grpc, None).await;
    let channel = server.channel().await;
    let requests = vec![
        request(1, "t", Payload::Batch(batch(1, 10))),
        request(2, "t", Payload::Batch(batch(1, 200_000))),
        request(3, "t", Payload::Batch(batch(1, 10))),
    ];
    let answers = produce(&channel, requests).await;
    assert_eq!(answers.len(), 2);
    assert_eq!(code_of(answers[0].as_ref().unwrap()), None);
    let status = answers[1].as_ref().unwrap_err();
    assert_eq!(code_of_status(status), Code::RecordTooLarge.to_string());

    // A message of another type: field 1 is a string there.
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let foreign = v1::Error {
        code: "SW0000".into(),
        ..v1::Error::default()
    };
    let codec = tonic_prost::ProstCodec::<v1::Error, v1::ProduceResponse>::default();
    let path =
        tonic::codegen::http::uri::PathAndQuery::from_static("/sapwood.v1.ProduceService/Produce");
    let requests = tonic::Request::new(tokio_stream::iter([foreign]));
    let mut answers = grpc
        .streaming(requests, path, codec)
        .await
        .unwrap()
        .into_inner();
    let status = answers.message().await.unwrap_err();
    assert_eq!(code_of_status(&status), Code::InvalidArgument.to_string());

    let answers = produce(
        &channel,
        vec![request(4, "t", Payload::Batch(batch(1, 10)))],
    )
    .await;
    assert_eq!(code_of(answers[0].as_ref().unwrap()), None);
    server.stop().await;
}

#[tokio::test]
async fn a_request_above_the_brokers_budget_is_refused_and_the_stream_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let options = BrokerOptions {
        request_bytes_max: 50_000,
        ..broker_options(dir.path())
    };
    let server = Server::start_with(options, GrpcOptions::default(), None).await;
    let requests = vec![
        request(1, "t", Payload::Batch(batch(1, 60_000))),
        request(2, "t", Payload::Batch(batch(1, 40_000))),
    ];
    let answers = produce(&server.channel().await, requests).await;
    let too_large = Code::RecordTooLarge.to_string();
    assert_eq!(
        code_of(answers[0].as_ref().unwrap()),
        Some(too_large.as_str())
    );
    assert_eq!(code_of(answers[1].as_ref().unwrap()), None);
    assert_eq!(server.broker.budget().bytes_used(), 0);
    server.stop().await;
}
