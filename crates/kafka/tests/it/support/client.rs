//! A client that is nothing but frames on a socket.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use sapwood_kafka_wire::{
    Message, Request, Uuid, decode_response, encode_request,
    messages::{
        FetchRequest, FetchRequestPartition, FetchRequestTopic, FetchResponsePartition,
        ProduceRequest, ProduceRequestPartition, ProduceRequestTopic, ProduceResponsePartition,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// No answer takes this long.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    next_correlation_id: i32,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            next_correlation_id: 100,
        }
    }

    /// Sends a request; says its correlation id.
    pub(crate) async fn send<R: Request>(&mut self, version: i16, request: &R) -> i32 {
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id += 1;
        let frame = frame(correlation_id, version, request);
        self.stream.write_all(&frame).await.unwrap();
        correlation_id
    }

    /// Sends bytes as they are.
    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next frame, without its length; `None` when the connection was closed.
    pub(crate) async fn receive_frame(&mut self) -> Option<Bytes> {
        timeout(PATIENCE, async {
            let mut length = [0; 4];
            self.stream.read_exact(&mut length).await.ok()?;
            let length = usize::try_from(i32::from_be_bytes(length)).unwrap();
            let mut frame = vec![0; length];
            self.stream.read_exact(&mut frame).await.ok()?;
            Some(Bytes::from(frame))
        })
        .await
        .expect("an answer or the end of the connection")
    }

    /// The next response, with its correlation id.
    pub(crate) async fn receive<M: Message>(&mut self, version: i16) -> (i32, M) {
        let frame = self.receive_frame().await.expect("an answer");
        decode_response(frame, version).unwrap()
    }

    /// Sends a request and waits for its response.
    pub(crate) async fn ask<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        let sent = self.send(version, request).await;
        let (correlation_id, response) = self.receive(version).await;
        assert_eq!(correlation_id, sent);
        response
    }

    /// Whether the broker has closed the connection without sending anything more.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.receive_frame().await.is_none()
    }

    /// Produces one batch and gives what is said about it.
    pub(crate) async fn produce(
        &mut self,
        topic: &str,
        records: Bytes,
    ) -> ProduceResponsePartition {
        self.produce_as(9, &produce(topic, records)).await
    }

    /// The first partition of the response to a produce.
    pub(crate) async fn produce_as(
        &mut self,
        version: i16,
        request: &ProduceRequest,
    ) -> ProduceResponsePartition {
        let mut response = self.ask(version, request).await;
        response.responses.remove(0).partition_responses.remove(0)
    }

    /// The first partition of the response to a fetch.
    pub(crate) async fn fetch_as(
        &mut self,
        version: i16,
        request: &FetchRequest,
    ) -> FetchResponsePartition {
        let mut response = self.ask(version, request).await;
        assert_eq!(response.error_code, 0);
        response.responses.remove(0).partitions.remove(0)
    }
}

/// A whole request frame.
pub(crate) fn frame<R: Request>(correlation_id: i32, version: i16, request: &R) -> Vec<u8> {
    encode_request(correlation_id, version, Some("a test"), request)
        .unwrap()
        .concat()
}

/// One batch for partition 0, acks=all.
pub(crate) fn produce(topic: &str, records: Bytes) -> ProduceRequest {
    produce_to(topic, 0, records)
}

pub(crate) fn produce_to(topic: &str, index: i32, records: Bytes) -> ProduceRequest {
    ProduceRequest {
        acks: -1,
        timeout_ms: 20_000,
        topic_data: vec![ProduceRequestTopic {
            name: topic.to_owned(),
            topic_id: Uuid::ZERO,
            partition_data: vec![ProduceRequestPartition {
                index,
                records: Some(records),
            }],
        }],
        ..ProduceRequest::default()
    }
}

/// Partition 0 from an offset, at once, without a session.
pub(crate) fn fetch(topic: &str, offset: i64) -> FetchRequest {
    FetchRequest {
        min_bytes: 1,
        max_bytes: 10 << 20,
        topics: vec![FetchRequestTopic {
            topic: topic.to_owned(),
            partitions: vec![from(0, offset)],
            ..FetchRequestTopic::default()
        }],
        ..FetchRequest::default()
    }
}

pub(crate) fn from(partition: i32, fetch_offset: i64) -> FetchRequestPartition {
    FetchRequestPartition {
        partition,
        fetch_offset,
        partition_max_bytes: 1 << 20,
        ..FetchRequestPartition::default()
    }
}
