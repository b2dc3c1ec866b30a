//! A Kafka listener that only acknowledges, to measure the generator itself.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, OnceLock,
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use sapwood_kafka_wire::{
    Message, Reader, RequestHeader, decode_body, encode_response,
    messages::{
        ApiVersionsRequest, ApiVersionsResponse, ApiVersionsResponseApiVersion, ListOffsetsRequest,
        ListOffsetsResponse, ListOffsetsResponsePartition, ListOffsetsResponseTopic,
        MetadataRequest, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition,
        MetadataResponseTopic, ProduceRequest, ProduceResponse, ProduceResponsePartition,
        ProduceResponseTopic,
    },
};

const FRAME_BYTES_MAX: usize = 1 << 30;

/// Answers every produce request and drops its records: a rate against it is what the generator and the sockets of
/// this machine can do at most, and its delays are known. Every topic is there and empty. Its threads end with the
/// process.
#[derive(Debug, Clone)]
pub struct NullBroker {
    partitions: i32,
    delay: Duration,
    stall: Option<(Duration, Duration)>,
    /// When the first record came.
    begun: Arc<OnceLock<Instant>>,
}

impl NullBroker {
    /// Every topic has so many partitions.
    pub fn new(partitions: u32) -> Self {
        Self {
            partitions: i32::try_from(partitions).unwrap_or(i32::MAX),
            delay: Duration::ZERO,
            stall: None,
            begun: Arc::default(),
        }
    }

    /// Each answer to produce goes out so long after its request came, however many are on their way.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Nothing is answered for `length`, beginning `after` the first record came.
    #[must_use]
    pub fn stall(mut self, after: Duration, length: Duration) -> Self {
        self.stall = Some((after, length));
        self
    }

    /// Listens in threads of its own; the address it got.
    ///
    /// # Errors
    /// When the address is taken or not of this machine.
    pub fn start(self, address: &str) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind(address)?;
        let local = listener.local_addr()?;
        std::thread::spawn(move || {
            for socket in listener.incoming().filter_map(Result::ok) {
                let broker = self.clone();
                // A client that hangs up ends its connection, whichever way it does.
                std::thread::spawn(move || broker.serve(socket, local));
            }
        });
        Ok(local)
    }

    fn serve(&self, mut socket: TcpStream, local: SocketAddr) -> io::Result<()> {
        crate::clock::sharpen_timers();
        socket.set_nodelay(true)?;
        let is_late = !self.delay.is_zero() || self.stall.is_some();
        let (later, answers) = channel();
        if is_late {
            let (broker, socket) = (self.clone(), socket.try_clone()?);
            std::thread::spawn(move || broker.answer_late(socket, &answers));
        }
        // One buffer for all requests, so that the kernel's copy is all that is done.
        let mut frame = BytesMut::new();
        loop {
            let mut length = [0; 4];
            socket.read_exact(&mut length)?;
            let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
            if length > FRAME_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            frame.resize(length, 0);
            socket.read_exact(&mut frame)?;
            let came = Instant::now();
            let bytes = frame.split().freeze();
            let (is_produce, answer) = self.answer(bytes.clone(), local)?;
            if is_produce {
                self.begun.get_or_init(|| came);
            }
            match is_late && is_produce {
                true => send(&later, came, answer)?,
                false => socket.write_all(&answer)?,
            }
            frame = bytes.try_into_mut().unwrap_or_default();
        }
    }

    fn answer_late(&self, mut socket: TcpStream, answers: &Receiver<(Instant, Vec<u8>)>) {
        crate::clock::sharpen_timers();
        while let Ok((came, answer)) = answers.recv() {
            std::thread::sleep((came + self.delay).saturating_duration_since(Instant::now()));
            if let (Some((after, length)), Some(begun)) = (self.stall, self.begun.get()) {
                let (from, to) = (*begun + after, *begun + after + length);
                let now = Instant::now();
                if (from..to).contains(&now) {
                    std::thread::sleep(to - now);
                }
            }
            if socket.write_all(&answer).is_err() {
                return;
            }
        }
    }

    /// Whether it answers produce, and the answer.
    fn answer(&self, frame: Bytes, local: SocketAddr) -> io::Result<(bool, Vec<u8>)> {
        let mut reader = Reader::new(frame);
        let header = RequestHeader::decode(&mut reader).map_err(io::Error::other)?;
        let (id, version) = (header.correlation_id, header.api_version);
        let read = io::Error::other::<sapwood_kafka_wire::DecodeError>;
        match header.api_key {
            ApiVersionsRequest::KEY => {
                let is_known = ApiVersionsRequest::VERSIONS.contains(&version);
                let answer = versions(if is_known { 0 } else { 35 });
                let version = if is_known { version } else { 0 };
                Ok((false, encode(id, version, &answer)?))
            }
            MetadataRequest::KEY => {
                let request = decode_body(reader, version).map_err(read)?;
                Ok((false, encode(id, version, &self.metadata(request, local))?))
            }
            ListOffsetsRequest::KEY => {
                let request = decode_body(reader, version).map_err(read)?;
                Ok((false, encode(id, version, &empty(request))?))
            }
            ProduceRequest::KEY => {
                let request = decode_body(reader, version).map_err(read)?;
                Ok((true, encode(id, version, &produced(request))?))
            }
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn metadata(&self, request: MetadataRequest, local: SocketAddr) -> MetadataResponse {
        let partitions = (0..self.partitions).map(|partition_index| MetadataResponsePartition {
            partition_index,
            leader_id: 1,
            replica_nodes: vec![1],
            isr_nodes: vec![1],
            ..Default::default()
        });
        let partitions: Vec<_> = partitions.collect();
        let topics = request.topics.unwrap_or_default().into_iter();
        let topics = topics.map(|topic| MetadataResponseTopic {
            name: topic.name,
            partitions: partitions.clone(),
            ..Default::default()
        });
        MetadataResponse {
            brokers: vec![MetadataResponseBroker {
                node_id: 1,
                host: local.ip().to_string(),
                port: i32::from(local.port()),
                rack: None,
            }],
            controller_id: 1,
            topics: topics.collect(),
            ..Default::default()
        }
    }
}

fn send(later: &Sender<(Instant, Vec<u8>)>, came: Instant, answer: Vec<u8>) -> io::Result<()> {
    let sent = later.send((came, answer));
    sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
}

fn versions(error_code: i16) -> ApiVersionsResponse {
    let api = |api_key, versions: std::ops::RangeInclusive<i16>| ApiVersionsResponseApiVersion {
        api_key,
        min_version: *versions.start(),
        max_version: *versions.end(),
    };
    ApiVersionsResponse {
        error_code,
        api_keys: vec![
            api(ProduceRequest::KEY, ProduceRequest::VERSIONS),
            api(ListOffsetsRequest::KEY, ListOffsetsRequest::VERSIONS),
            api(MetadataRequest::KEY, MetadataRequest::VERSIONS),
            api(ApiVersionsRequest::KEY, ApiVersionsRequest::VERSIONS),
        ],
        ..Default::default()
    }
}

fn empty(request: ListOffsetsRequest) -> ListOffsetsResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter();
        let partitions = partitions.map(|partition| ListOffsetsResponsePartition {
            partition_index: partition.partition_index,
            offset: 0,
            ..Default::default()
        });
        ListOffsetsResponseTopic {
            name: topic.name,
            partitions: partitions.collect(),
        }
    });
    ListOffsetsResponse {
        topics: topics.collect(),
        ..Default::default()
    }
}

fn produced(request: ProduceRequest) -> ProduceResponse {
    let responses = request.topic_data.into_iter().map(|topic| {
        let partitions = topic.partition_data.iter();
        let partitions = partitions.map(|partition| ProduceResponsePartition {
            index: partition.index,
            ..Default::default()
        });
        ProduceResponseTopic {
            name: topic.name,
            topic_id: topic.topic_id,
            partition_responses: partitions.collect(),
        }
    });
    ProduceResponse {
        responses: responses.collect(),
        ..Default::default()
    }
}

fn encode<M: Message>(id: i32, version: i16, answer: &M) -> io::Result<Vec<u8>> {
    let parts = encode_response(id, version, answer).map_err(io::Error::other)?;
    Ok(parts.concat())
}
