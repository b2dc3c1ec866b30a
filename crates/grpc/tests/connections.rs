//! What clients may do to their connections, and how serving ends.

// Helpers are outside of test functions; a failure in them is a failed test all the same.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Server, broker_options};
use sapwood_grpc::GrpcOptions;
use sapwood_model::Code;
use sapwood_rpc::{
    status,
    v1::{
        self, fetch_service_client::FetchServiceClient, position::At, produce_request::Payload,
        produce_service_client::ProduceServiceClient, topic_service_client::TopicServiceClient,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

fn request(size: usize) -> v1::ProduceRequest {
    let record = v1::Record {
        value: Some(Bytes::from(vec![1; size])),
        ..v1::Record::default()
    };
    let records = v1::Records {
        records: vec![record],
        ..v1::Records::default()
    };
    v1::ProduceRequest {
        topic: "t".into(),
        payload: Some(Payload::Records(records)),
        ..v1::ProduceRequest::default()
    }
}

async fn still_serves(server: &Server) {
    let mut client = ProduceServiceClient::new(server.channel().await);
    let append = v1::AppendRequest {
        topic: "other".into(),
        records: vec![v1::Record::default()],
        ..v1::AppendRequest::default()
    };
    let served = tokio::time::timeout(Duration::from_secs(5), client.append(append)).await;
    served.expect("in time").expect("written");
}

#[tokio::test]
async fn a_client_that_dies_in_the_middle_of_a_message_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // An empty SETTINGS frame, then HEADERS that announce more than comes.
    bytes.extend([
        0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 200, 1, 4, 0, 0, 0, 1, 0x82, 0x86,
    ]);
    for cut in 0..bytes.len() {
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        socket.write_all(&bytes[..cut]).await.unwrap();
    }
    // In the middle of a request's message.
    for _ in 0..20 {
        let channel = server.channel().await;
        let (requests, receiver) = mpsc::channel(4);
        let mut client = ProduceServiceClient::new(channel);
        let answers = client.produce(ReceiverStream::new(receiver)).await.unwrap();
        requests.send(request(900_000)).await.unwrap();
        drop((answers, requests, client));
    }
    still_serves(&server).await;
    assert_eq!(server.broker.budget().bytes_used(), 0);
    server.stop().await;
}

#[tokio::test]
async fn garbage_instead_of_http2_ends_its_connection() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4000], &[0; 100]] {
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        let _ = socket.write_all(garbage).await;
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(5), socket.read_to_end(&mut answer));
        let _ = ended.await.expect("the connection ends");
    }
    still_serves(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_never_reads_its_answers_costs_only_itself() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    // A stream's window is 64 KiB, and nobody reads.
    let endpoint = server.endpoint().initial_stream_window_size(65_535);
    let endpoint = endpoint.initial_connection_window_size(8 << 20);
    let channel = endpoint.connect().await.unwrap();
    let (requests, receiver) = mpsc::channel(1);
    let mut client = ProduceServiceClient::new(channel.clone());
    let unread = client.produce(ReceiverStream::new(receiver)).await.unwrap();
    // Either the stream is not read any more, or, after many thousand small frames that nobody
    // reads, the connection is ended.
    let mut sent = 0u64;
    while let Ok(Ok(())) =
        tokio::time::timeout(Duration::from_secs(1), requests.send(request(10))).await
    {
        sent += 1;
        assert!(sent < 1_000_000, "the stream is read without end");
    }
    assert!(sent > 1000);
    let (wishes, receiver) = mpsc::unbounded_channel();
    wishes
        .send(v1::FetchRequest {
            subscribe: vec![v1::Subscription {
                topic: "t".into(),
                from: Some(v1::Position {
                    at: Some(At::Start(true)),
                }),
                ..v1::Subscription::default()
            }],
            credit_bytes: 1 << 30,
            ..v1::FetchRequest::default()
        })
        .unwrap();
    let mut client = FetchServiceClient::new(channel);
    let unread_too = tokio::time::timeout(
        Duration::from_secs(1),
        client.fetch(UnboundedReceiverStream::new(receiver)),
    )
    .await;
    still_serves(&server).await;
    assert_eq!(server.broker.budget().bytes_used(), 0);
    // The shutdown does not wait for it longer than the grace.
    let began = Instant::now();
    server.stop().await;
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
    drop((unread, unread_too));
}

#[tokio::test]
async fn a_shutdown_ends_every_stream_with_draining_and_health_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let grpc = GrpcOptions {
        shutdown_grace: Duration::from_secs(3),
        ..GrpcOptions::default()
    };
    let server = Server::start_with(broker_options(dir.path()), grpc, None).await;
    let channel = server.channel().await;
    let mut health = HealthClient::new(channel.clone());
    let of = |service: &str| HealthCheckRequest {
        service: service.to_owned(),
    };
    for service in ["", "sapwood.v1.ProduceService", "sapwood.v1.FetchService"] {
        let status = health.check(of(service)).await.unwrap().into_inner().status;
        assert_eq!(status, 1, "{service:?}");
    }
    let mut watch = health.watch(of("")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 1);

    let (requests, receiver) = mpsc::channel(4);
    let mut client = ProduceServiceClient::new(channel.clone());
    let mut produced = client
        .produce(ReceiverStream::new(receiver))
        .await
        .unwrap()
        .into_inner();
    requests.send(request(10)).await.unwrap();
    produced.message().await.unwrap().unwrap();
    let (wishes, receiver) = mpsc::unbounded_channel();
    wishes
        .send(v1::FetchRequest {
            credit_bytes: 1,
            ..v1::FetchRequest::default()
        })
        .unwrap();
    let mut client = FetchServiceClient::new(channel.clone());
    let fetching = client
        .fetch(UnboundedReceiverStream::new(receiver))
        .await
        .unwrap();
    let mut fetched = fetching.into_inner();

    let stopping = tokio::spawn(server.stop());
    let draining = Code::Draining.to_string();
    let end = produced.message().await.unwrap_err();
    assert_eq!(status::unpack(&end).unwrap().code, draining);
    let end = fetched.message().await.unwrap_err();
    assert_eq!(status::unpack(&end).unwrap().code, draining);
    assert_eq!(watch.message().await.unwrap().unwrap().status, 2);
    drop((watch, health, channel, requests, wishes));
    stopping.await.unwrap();
}

#[tokio::test]
async fn reflection_lists_the_services() {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let mut client = ServerReflectionClient::new(server.channel().await);
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answers = client
        .server_reflection_info(tokio_stream::iter([list]))
        .await
        .unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("a list")
    };
    let names: Vec<&str> = list
        .service
        .iter()
        .map(|service| service.name.as_str())
        .collect();
    for service in ["ProduceService", "FetchService", "TopicService"] {
        assert!(
            names.contains(&format!("sapwood.v1.{service}").as_str()),
            "{names:?}"
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn a_refused_call_carries_its_code_in_the_status() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let mut client = TopicServiceClient::new(server.channel().await);
    let describe = v1::DescribeTopicRequest {
        name: "none".into(),
        ..Default::default()
    };
    let status = client.describe_topic(describe).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::NotFound);
    let error = status::unpack(&status).unwrap();
    assert_eq!(error.code, Code::UnknownTopic.to_string());
    assert_eq!(error.fields["topic"], "none");
    assert!(!error.cause.is_empty() && !error.hint.is_empty());
    server.stop().await;
}
