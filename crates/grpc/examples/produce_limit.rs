//! How close produce comes to what tonic and the page cache can do: the same requests, with batches of
//! 1 MiB, to a service that throws them away (once answering each, once only at the end), to one that
//! does nothing but write them into a fresh file, and into a broker, `durability=os` and `fsync`, in
//! turns. Prints medians and ratios.
//!
//! The service with a file is the limit for anything that keeps what it gets: where a virtual machine's
//! memory is handed out by its host on first touch, the page cache alone can cost more than the network.
//! Its second form also has a thread write the same bytes into a file that was written before, and sync
//! it after every 8 MiB or less, whatever is there; and another sync the fresh file after every 64 MiB,
//! so that the journal's space could be used again: the limit for anything that keeps a bounded journal.
//!
//! ```text
//! cargo run --release -p sapwood-grpc --example produce_limit -- [ROUNDS] [MIB_A_ROUND] [DIRECTORY] [MODE]
//! ```
//!
//! With `MODE`, a part of a mode's name such as `os`, only the bare services and that mode: for a
//! profiler.

use std::{
    error::Error,
    fs, io,
    net::SocketAddr,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, future::ready, stream};
use sapwood_broker::{Broker, BrokerOptions, NewTopic, Progress, StoreOptions};
use sapwood_grpc::{GrpcOptions, serve};
use sapwood_model::Timestamp;
use sapwood_record::{BatchBuilder, Codec, RecordInput};
use sapwood_rpc::v1::{
    self,
    produce_request::Payload,
    produce_response,
    produce_service_client::ProduceServiceClient,
    produce_service_server::{ProduceService, ProduceServiceServer},
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Endpoint, Server},
};

const BATCH_BYTES: usize = 1 << 20;
const RECORD_BYTES: usize = 1024;

type Result<T> = std::result::Result<T, Box<dyn Error>>;
type Answers = Pin<Box<dyn Stream<Item = std::result::Result<v1::ProduceResponse, Status>> + Send>>;

/// Reads everything, and keeps nothing or just the bytes.
#[derive(Clone)]
struct Discard {
    answer_each: bool,
    /// Where to write each stream's batches, one after the other.
    keep: Option<PathBuf>,
    /// Where to write them a second time, and sync them.
    journal: Option<Arc<fs::File>>,
}

const JOURNAL_BYTES: u64 = 128 << 20;
const ROUND_BYTES: usize = 8 << 20;
const CHECKPOINT_BYTES: u64 = 64 << 20;

/// A file that was written from end to end.
fn journal(dir: &Path) -> io::Result<Arc<fs::File>> {
    let file = fs::File::create_new(dir.join("journal"))?;
    let zeros = vec![0; ROUND_BYTES];
    for position in (0..JOURNAL_BYTES).step_by(ROUND_BYTES) {
        file.write_all_at(&zeros, position)?;
    }
    file.sync_data()?;
    Ok(Arc::new(file))
}

/// Writes what comes, in rounds: all that waits is written, then synced once.
fn write_rounds(file: &fs::File, batches: &mpsc::Receiver<Bytes>) -> io::Result<()> {
    let mut position = 0;
    while let Ok(first) = batches.recv() {
        let mut next = Some(first);
        let mut round = 0;
        while let Some(batch) = next.take() {
            if position + batch.len() as u64 > JOURNAL_BYTES {
                position = 0;
            }
            file.write_all_at(&batch, position)?;
            position += batch.len() as u64;
            round += batch.len();
            if round < ROUND_BYTES {
                next = batches.try_recv().ok();
            }
        }
        file.sync_data()?;
    }
    Ok(())
}

/// A stream's batches in a file, which goes when the stream ends.
struct Kept {
    file: Arc<fs::File>,
    path: PathBuf,
    position: u64,
    journal: Option<(mpsc::SyncSender<Bytes>, JoinHandle<io::Result<()>>)>,
    checkpoint: Option<JoinHandle<io::Result<()>>>,
}

impl Kept {
    fn create(dir: &Path, journal: Option<Arc<fs::File>>) -> io::Result<Self> {
        static STREAMS: AtomicU64 = AtomicU64::new(0);
        let path = dir.join(format!("kept-{}", STREAMS.fetch_add(1, Relaxed)));
        let file = Arc::new(fs::File::create_new(&path)?);
        Ok(Self {
            file,
            path,
            position: 0,
            journal: journal.map(|file| {
                let (sender, batches) = mpsc::sync_channel(64);
                (sender, thread::spawn(move || write_rounds(&file, &batches)))
            }),
            checkpoint: None,
        })
    }

    fn write(&mut self, request: &v1::ProduceRequest) -> io::Result<()> {
        if let Some(Payload::Batch(batch)) = &request.payload {
            self.file.write_all_at(batch, self.position)?;
            let before = self.position;
            self.position += batch.len() as u64;
            if let Some((journal, _)) = &self.journal {
                journal.send(batch.clone()).map_err(io::Error::other)?;
                if self.position / CHECKPOINT_BYTES > before / CHECKPOINT_BYTES {
                    join(self.checkpoint.take())?;
                    let file = Arc::clone(&self.file);
                    self.checkpoint = Some(thread::spawn(move || file.sync_data()));
                }
            }
        }
        Ok(())
    }

    /// Waits until everything is synced.
    fn end(&mut self) -> io::Result<()> {
        let rounds = self.journal.take().map(|(_, thread)| thread);
        join(rounds)?;
        join(self.checkpoint.take())
    }
}

fn join(thread: Option<JoinHandle<io::Result<()>>>) -> io::Result<()> {
    let failed = |_| Err(io::ErrorKind::Other.into());
    thread.map_or(Ok(()), |thread| thread.join().unwrap_or_else(failed))
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path); // the directory goes at the end, with everything in it
    }
}

#[tonic::async_trait]
impl ProduceService for Discard {
    type ProduceStream = Answers;

    async fn produce(
        &self,
        request: Request<Streaming<v1::ProduceRequest>>,
    ) -> std::result::Result<Response<Answers>, Status> {
        let answer_each = self.answer_each;
        let journal = self.journal.clone();
        let kept = self.keep.as_deref();
        let mut kept = kept.map(|dir| Kept::create(dir, journal)).transpose()?;
        // The end is one more item, so that the stream ends when everything is where it belongs.
        let requests = request
            .into_inner()
            .map(Some)
            .chain(stream::once(ready(None)));
        let answers = requests.filter_map(move |request| {
            let answer = match (request, &mut kept) {
                (None, Some(kept)) => kept.end().err().map(|error| Err(error.into())),
                (None, None) => None,
                (Some(Ok(request)), kept) => {
                    let kept = kept.as_mut().map_or(Ok(()), |kept| kept.write(&request));
                    let answer = kept.map_err(Status::from).map(|()| v1::ProduceResponse {
                        correlation_id: request.correlation_id,
                        result: Some(produce_response::Result::Produced(v1::Produced::default())),
                    });
                    Some(answer).filter(|answer| answer_each || answer.is_err())
                }
                (Some(Err(status)), _) => Some(Err(status)),
            };
            ready(answer)
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn append(
        &self,
        _request: Request<v1::AppendRequest>,
    ) -> std::result::Result<Response<v1::AppendResponse>, Status> {
        Err(Status::unimplemented("only streams are measured"))
    }

    async fn init_producer(
        &self,
        _request: Request<v1::InitProducerRequest>,
    ) -> std::result::Result<Response<v1::InitProducerResponse>, Status> {
        Err(Status::unimplemented("only streams are measured"))
    }
}

async fn listen() -> Result<(
    SocketAddr,
    impl Stream<Item = std::io::Result<tokio::net::TcpStream>>,
)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let incoming = TcpListenerStream::new(listener).map(|stream| {
        let stream = stream?;
        stream.set_nodelay(true)?;
        Ok(stream)
    });
    Ok((address, incoming))
}

async fn discarding(discard: Discard) -> Result<SocketAddr> {
    let (address, incoming) = listen().await?;
    let service = ProduceServiceServer::new(discard).max_decoding_message_size(32 << 20);
    let server = Server::builder()
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20)
        .max_frame_size(1 << 20)
        .add_service(service);
    tokio::spawn(server.serve_with_incoming(incoming));
    Ok(address)
}

fn batch() -> Result<Bytes> {
    let mut builder = BatchBuilder::new(Codec::None);
    let value = vec![b'v'; RECORD_BYTES];
    loop {
        let input = RecordInput {
            timestamp: Timestamp(1),
            key: None,
            value: Some(&value),
            headers: &[],
        };
        if builder.uncompressed_bytes_with(&input) > BATCH_BYTES {
            return Ok(builder.build()?.to_bytes());
        }
        builder.push(input)?;
    }
}

/// Uploads `count` batches and waits for the last answer.
async fn upload(address: SocketAddr, topic: &str, batch: &Bytes, count: u64) -> Result<Cost> {
    let channel = Endpoint::from_shared(format!("http://{address}"))?
        .tcp_nodelay(true)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(4 << 20)
        .max_frame_size(1 << 20)
        .connect()
        .await?;
    let mut client = ProduceServiceClient::new(channel);
    let (topic, batch) = (topic.to_owned(), batch.clone());
    let requests = tokio_stream::iter(0..count).map(move |correlation_id| v1::ProduceRequest {
        correlation_id,
        topic: topic.clone(),
        payload: Some(Payload::Batch(batch.clone())),
        ..v1::ProduceRequest::default()
    });
    let (began, cpu) = (Instant::now(), cpu_seconds()?);
    let mut answers = client.produce(requests).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        if let Some(produce_response::Result::Error(error)) = answer.result {
            return Err(format!("{}: {}", error.code, error.message).into());
        }
    }
    Ok(Cost {
        wall: began.elapsed(),
        cpu: cpu_seconds()? - cpu,
    })
}

struct Cost {
    wall: Duration,
    /// Of this process: client and server.
    cpu: f64,
}

/// User and system time of this process.
fn cpu_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit_once(')').ok_or("no name in /proc/self/stat")?.1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    // USER_HZ is 100 on every Linux that Rust knows.
    Ok(ticks / 100.0)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let rounds: usize = arguments.next().map_or(Ok(7), |text| text.parse())?;
    let mib: u64 = arguments.next().map_or(Ok(512), |text| text.parse())?;
    let parent = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(parent)?;
    let only = arguments.next().unwrap_or_default();

    let store = StoreOptions {
        boot_id: "example".to_owned(),
        ..StoreOptions::default()
    };
    let options = BrokerOptions::new(dir.path(), store);
    let broker = Broker::open(options, Arc::new(Progress::default())).await?;
    let (served, incoming) = listen().await?;
    tokio::spawn(serve(
        incoming,
        broker.clone(),
        GrpcOptions::default(),
        std::future::pending(),
    ));
    let serving = |answer_each, keep: Option<&Path>, journal| {
        discarding(Discard {
            answer_each,
            keep: keep.map(Path::to_owned),
            journal,
        })
    };
    let kept = tempfile::tempdir_in(dir.path().parent().ok_or("no parent directory")?)?;
    let bare = serving(false, None, None).await?;
    let answering = serving(true, None, None).await?;
    let keeping = serving(true, Some(kept.path()), None).await?;
    let journaling = serving(true, Some(kept.path()), Some(journal(kept.path())?)).await?;

    let batch = batch()?;
    let modes = [
        ("bare upload", bare, None),
        ("bare, answered", answering, None),
        ("bare, kept", keeping, None),
        ("bare, journal", journaling, None),
        ("produce os", served, Some("os")),
        ("produce fsync", served, Some("fsync")),
    ];
    let modes: Vec<_> = modes
        .into_iter()
        .filter(|(name, ..)| name.starts_with("bare") || name.contains(&only))
        .collect();
    let mut costs: Vec<Vec<Cost>> = modes.iter().map(|_| Vec::new()).collect();
    // The first round warms up: the journal is written for the first time in the background.
    for round in 0..=rounds {
        for (mode, (_, address, durability)) in modes.iter().enumerate() {
            let topic = format!("round-{round}-{mode}");
            if let Some(durability) = durability {
                let configs = vec![("durability".to_owned(), (*durability).to_owned())];
                let topic = NewTopic {
                    configs,
                    ..NewTopic::named(&topic)
                };
                broker.create_topic(topic).await?;
            }
            let cost = upload(*address, &topic, &batch, mib).await?;
            if durability.is_some() {
                broker.delete_topic(&topic).await?;
            }
            if round > 0 {
                costs[mode].push(cost);
            }
        }
    }

    let gigabytes = mib as f64 * batch.len() as f64 / 1e9;
    let wall = |costs: &[Cost]| median(costs.iter().map(|cost| cost.wall.as_secs_f64()).collect());
    let of = |mode: &str| modes.iter().position(|(name, ..)| *name == mode);
    let best = of("bare upload").map_or(f64::NAN, |mode| wall(&costs[mode]));
    let best_kept = of("bare, kept").map_or(f64::NAN, |mode| wall(&costs[mode]));
    let best_journal = of("bare, journal").map_or(f64::NAN, |mode| wall(&costs[mode]));
    println!(
        "{rounds} rounds of {mib} batches of {} bytes; medians",
        batch.len()
    );
    for ((name, ..), costs) in modes.iter().zip(&costs) {
        let wall = wall(costs);
        let cpu = median(costs.iter().map(|cost| cost.cpu).collect());
        println!(
            "{name:<16} {:>6.2} GB/s  {:>5.2} of bare  {:>5.2} of kept  {:>5.2} of journal  {:>5.2} CPU s/GB",
            gigabytes / wall,
            best / wall,
            best_kept / wall,
            best_journal / wall,
            cpu / gigabytes
        );
    }
    broker.drain_and_close().await?;
    Ok(())
}
