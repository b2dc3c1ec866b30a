//! A Kafka listener that does next to nothing: what a load generator can do at best.
//!
//! It answers ApiVersions, Metadata, InitProducerId and Produce as soon as they have come, and drops
//! the records unread. A broker's rate against this one's is what the broker costs; without it, a
//! slow generator looks like a slow broker. With a folder it writes the records into a fresh file for
//! each connection, unread as well: what bytes cost that are only kept, and nobody could find again.
//!
//! ```text
//! cargo run --release -p sapwood-kafka --example null_listener -- 127.0.0.1:9192 [FOLDER]
//! ```

use std::{
    error::Error,
    fs::File,
    io,
    net::SocketAddr,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use bytes::{Bytes, BytesMut};
use sapwood_kafka_wire::{
    Message, Reader, Request, RequestHeader, Uuid, decode_body, encode_response,
    messages::{
        ApiVersionsRequest, ApiVersionsResponse, ApiVersionsResponseApiVersion,
        InitProducerIdRequest, InitProducerIdResponse, MetadataRequest, MetadataResponse,
        MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic, ProduceRequest,
        ProduceResponse, ProduceResponsePartition, ProduceResponseTopic,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Each topic has so many partitions.
const PARTITIONS: i32 = 1;
const FRAME_BYTES_MAX: usize = 100 << 20;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next();
    let address = address.unwrap_or_else(|| "127.0.0.1:9192".to_owned());
    let folder = arguments.next().map(PathBuf::from);
    let listener = TcpListener::bind(address).await?;
    let local = listener.local_addr()?;
    println!("answering on {local}");
    loop {
        let (stream, peer) = listener.accept().await?;
        let file = folder
            .as_ref()
            .map(|folder| folder.join(peer.port().to_string()));
        tokio::spawn(async move {
            // A client that hangs up ends its connection, whichever way it does.
            let _ = serve(stream, local, file.as_deref()).await;
        });
    }
}

/// Where the records of a connection go.
struct Kept {
    file: File,
    bytes: u64,
}

async fn serve(
    mut stream: TcpStream,
    local: SocketAddr,
    file: Option<&Path>,
) -> Result<(), Box<dyn Error>> {
    stream.set_nodelay(true)?;
    let mut kept = match file {
        Some(path) => Some(Kept {
            file: File::create(path)?,
            bytes: 0,
        }),
        None => None,
    };
    // One buffer for all requests of the connection, so that the kernel's copy is all that is done.
    let mut frame = BytesMut::new();
    loop {
        let length = usize::try_from(stream.read_i32().await?)?;
        if length > FRAME_BYTES_MAX {
            return Err("the request is too long".into());
        }
        if frame.len() < length {
            frame.resize(length, 0);
        }
        stream.read_exact(&mut frame[..length]).await?;
        let bytes = frame.split().freeze();
        let answer = answer(bytes.slice(..length), local, kept.as_mut())?;
        // Nothing holds a slice of it any more: the buffer is used again.
        frame = bytes.try_into_mut().unwrap_or_default();
        stream.write_all(&answer).await?;
    }
}

fn answer(
    frame: Bytes,
    local: SocketAddr,
    kept: Option<&mut Kept>,
) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut reader = Reader::new(frame);
    let header = RequestHeader::decode(&mut reader)?;
    let version = header.api_version;
    match header.api_key {
        ApiVersionsRequest::KEY if version > *ApiVersionsRequest::VERSIONS.end() => {
            let response = ApiVersionsResponse {
                error_code: 35,
                ..versions()
            };
            encode(header.correlation_id, 0, &response)
        }
        ApiVersionsRequest::KEY => encode(header.correlation_id, version, &versions()),
        MetadataRequest::KEY => {
            let request: MetadataRequest = decode_body(reader, version)?;
            encode(header.correlation_id, version, &metadata(request, local))
        }
        InitProducerIdRequest::KEY => {
            let response = InitProducerIdResponse {
                producer_id: 1,
                ..InitProducerIdResponse::default()
            };
            encode(header.correlation_id, version, &response)
        }
        ProduceRequest::KEY => {
            let request: ProduceRequest = decode_body(reader, version)?;
            if let Some(kept) = kept {
                keep(&request, kept)?;
            }
            encode(header.correlation_id, version, &produced(request))
        }
        key => Err(format!("API {key} is not answered here").into()),
    }
}

fn encode<M: Message>(id: i32, version: i16, body: &M) -> Result<Vec<u8>, Box<dyn Error>> {
    Ok(encode_response(id, version, body)
        .map_err(io::Error::other)?
        .concat())
}

fn versions() -> ApiVersionsResponse {
    fn row<R: Request>(min_version: i16, max_version: i16) -> ApiVersionsResponseApiVersion {
        ApiVersionsResponseApiVersion {
            api_key: R::KEY,
            min_version,
            max_version,
        }
    }
    ApiVersionsResponse {
        api_keys: vec![
            row::<ProduceRequest>(3, 9),
            row::<MetadataRequest>(0, 9),
            row::<ApiVersionsRequest>(0, 3),
            row::<InitProducerIdRequest>(0, 4),
        ],
        ..ApiVersionsResponse::default()
    }
}

/// Every topic that is asked for is there.
fn metadata(request: MetadataRequest, local: SocketAddr) -> MetadataResponse {
    let partition = |partition_index| MetadataResponsePartition {
        partition_index,
        leader_id: 1,
        leader_epoch: 0,
        replica_nodes: vec![1],
        isr_nodes: vec![1],
        ..MetadataResponsePartition::default()
    };
    let topics = request.topics.unwrap_or_default().into_iter();
    MetadataResponse {
        brokers: vec![MetadataResponseBroker {
            node_id: 1,
            host: local.ip().to_string(),
            port: local.port().into(),
            rack: None,
        }],
        controller_id: 1,
        topics: topics
            .map(|topic| MetadataResponseTopic {
                name: topic.name,
                topic_id: Uuid(1),
                partitions: (0..PARTITIONS).map(partition).collect(),
                ..MetadataResponseTopic::default()
            })
            .collect(),
        ..MetadataResponse::default()
    }
}

fn keep(request: &ProduceRequest, kept: &mut Kept) -> io::Result<()> {
    let partitions = request
        .topic_data
        .iter()
        .flat_map(|topic| &topic.partition_data);
    for records in partitions.filter_map(|partition| partition.records.as_ref()) {
        kept.file.write_all_at(records, kept.bytes)?;
        kept.bytes += records.len() as u64;
    }
    Ok(())
}

fn produced(request: ProduceRequest) -> ProduceResponse {
    let topics = request.topic_data.into_iter();
    ProduceResponse {
        responses: topics
            .map(|topic| ProduceResponseTopic {
                name: topic.name,
                partition_responses: topic
                    .partition_data
                    .iter()
                    .map(|partition| ProduceResponsePartition {
                        index: partition.index,
                        log_start_offset: 0,
                        ..ProduceResponsePartition::default()
                    })
                    .collect(),
                ..ProduceResponseTopic::default()
            })
            .collect(),
        ..ProduceResponse::default()
    }
}
