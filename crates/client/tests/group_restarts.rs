//! Groups through what goes wrong: brokers that are killed, connections that are cut, a group that has
//! gone on without a member.

// Helpers are outside of test functions; a failure in them is a failed test all the same.
#![allow(clippy::unwrap_used)]

// The same broker on a socket as in the tests of the services.
#[path = "../../grpc/tests/common/mod.rs"]
mod common;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use common::{Server, broker_options};
use sapwood_broker::group::{Client as Caller, ConsumerHeartbeat, Presence, Settings};
use sapwood_client::{
    Client, Code, Error, GroupConsumer, GroupEvent, NewTopic, Offset, PartitionId, Record,
};
use sapwood_grpc::GrpcOptions;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
    task::JoinHandle,
    time::timeout,
};

const PARTITIONS: u32 = 6;
const PATIENCE: Duration = Duration::from_secs(60);

async fn start(dir: &Path, at: Option<SocketAddr>) -> Server {
    let mut options = broker_options(dir);
    options.groups = Settings {
        consumer_session_timeout_ms: 60_000,
        consumer_heartbeat_interval_ms: 500,
        ..Settings::default()
    };
    Server::start_with(options, GrpcOptions::default(), at).await
}

/// What all members have read, in order, and whether anything was passed over.
#[derive(Default)]
struct Book {
    /// The end of what was read, by partition.
    ends: BTreeMap<PartitionId, Offset>,
    repeated: u64,
}

#[derive(Clone)]
struct Readers {
    book: Arc<parking_lot::Mutex<Book>>,
    /// How many different messages were read.
    read: Arc<watch::Sender<u64>>,
    stop: Arc<Notify>,
    stopping: Arc<AtomicBool>,
}

impl Readers {
    fn new() -> Self {
        Self {
            book: Arc::default(),
            read: Arc::new(watch::Sender::new(0)),
            stop: Arc::default(),
            stopping: Arc::default(),
        }
    }

    /// Reads and acknowledges until it is stopped, and closes.
    fn spawn(&self, mut consumer: GroupConsumer) -> JoinHandle<Result<u64, Error>> {
        let this = self.clone();
        tokio::spawn(async move {
            let mut read = 0;
            loop {
                let stopped = this.stop.notified();
                if this.stopping.load(Ordering::SeqCst) {
                    break;
                }
                let message = tokio::select! {
                    message = consumer.next() => message.expect("it goes on")?,
                    () = stopped => break,
                };
                this.note(message.partition, message.offset);
                message.ack();
                read += 1;
            }
            consumer.close().await?;
            Ok(read)
        })
    }

    fn note(&self, partition: PartitionId, offset: Offset) {
        let mut book = self.book.lock();
        let end = book.ends.entry(partition).or_default();
        assert!(offset <= *end, "{partition}: {offset} comes after {end}");
        if offset < *end {
            book.repeated += 1;
            return;
        }
        *end = offset.add(1);
        drop(book);
        self.read.send_modify(|read| *read += 1);
    }

    async fn until(&self, count: u64) {
        let mut read = self.read.subscribe();
        let all = read.wait_for(|read| *read >= count);
        timeout(PATIENCE, all).await.expect("in time").unwrap();
    }

    fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.stop.notify_waiters();
    }
}

/// Writes `count` records, spread over the partitions, however often the broker is away.
fn write(client: &Client, count: u64) -> JoinHandle<Result<(), Error>> {
    let client = client.clone();
    tokio::spawn(async move {
        let producer = client.producer().batch_bytes(500).build().await?;
        for n in 0..count {
            let partition = PartitionId(u32::try_from(n).unwrap() % PARTITIONS);
            let record = Record::to("t").partition(partition).value(n.to_string());
            producer.send(record).await?;
        }
        producer.close().await
    })
}

async fn create(client: &Client) {
    let topic = NewTopic::new("t").partitions(PARTITIONS);
    client.admin().create_topic(&topic).await.unwrap();
}

async fn join(client: &Client) -> GroupConsumer {
    let builder = client.group_consumer("g").topic("t");
    let often = builder.commit_interval(Some(Duration::from_millis(20)));
    often.prefetch_bytes(20_000).build().await.unwrap()
}

/// Everything is read, and what is committed says so.
async fn check(client: &Client, readers: &Readers, count: u64) {
    let each = Offset(count / u64::from(PARTITIONS));
    let expected: Vec<_> = (0..PARTITIONS).map(|p| (PartitionId(p), each)).collect();
    let ends: Vec<_> = readers.book.lock().ends.clone().into_iter().collect();
    assert_eq!(ends, expected);
    let committed = client.admin().committed_offsets("g").await.unwrap();
    let committed: Vec<_> = committed
        .into_iter()
        .map(|(partition, committed)| (partition.partition, committed.offset))
        .collect();
    assert_eq!(committed, expected);
    println!("{} were read twice", readers.book.lock().repeated);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_of_three_reads_everything_though_its_broker_is_killed_again_and_again() {
    const COUNT: u64 = 12_000;
    let dir = tempfile::tempdir().unwrap();
    let mut server = start(dir.path(), None).await;
    let address = server.address;
    let client = Client::new(&address.to_string()).unwrap();
    create(&client).await;
    let readers = Readers::new();
    let mut members = Vec::new();
    for _ in 0..3 {
        // Each has a connection of its own.
        let client = Client::new(&address.to_string()).unwrap();
        members.push(readers.spawn(join(&client).await));
    }
    let writer = write(&client, COUNT);
    for part in 1..=4 {
        readers.until(part * COUNT / 5).await;
        server.kill().await;
        server = start(dir.path(), Some(address)).await;
    }
    timeout(PATIENCE, writer).await.unwrap().unwrap().unwrap();
    readers.until(COUNT).await;
    readers.stop();
    for member in members {
        let read = timeout(PATIENCE, member).await.unwrap().unwrap().unwrap();
        assert!(read > 0, "each had its share");
    }
    check(&client, &readers, COUNT).await;
    let described = client.admin().describe_group("g").await.unwrap();
    assert_eq!(described.group.members, 0);
    server.stop().await;
}

/// Passes connections on, and cuts all of them when it is told.
struct Proxy {
    address: SocketAddr,
    cut: watch::Sender<()>,
    connections: Arc<AtomicU64>,
}

impl Proxy {
    async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cut = watch::Sender::new(());
        let cuts = cut.clone();
        let connections = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let mut cut = cuts.subscribe();
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(to).await?;
                    tokio::select! {
                        passed = copy_bidirectional(&mut client, &mut server) => passed.map(|_| ()),
                        _ = cut.changed() => Ok(()),
                    }
                });
            }
        });
        Self {
            address,
            cut,
            connections,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_cut_while_members_come_and_go_lose_nothing() {
    const COUNT: u64 = 12_000;
    let seed = std::env::var("SAPWOOD_TEST_SEED").map_or(7, |seed| seed.parse().unwrap());
    println!("SAPWOOD_TEST_SEED={seed}");
    let state = AtomicU64::new(seed);
    let random = |bound: u64| {
        let mut z = state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    };
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), None).await;
    let direct = Client::new(&server.address.to_string()).unwrap();
    create(&direct).await;
    let proxy = Proxy::start(server.address).await;
    let readers = Readers::new();
    let mut members = Vec::new();
    let client = || Client::new(&proxy.address.to_string()).unwrap();
    for _ in 0..2 {
        members.push(readers.spawn(join(&client()).await));
    }
    let writer = write(&direct, COUNT);
    let mut passing = None;
    for part in 1..=20 {
        readers.until(part * COUNT / 25 + random(100)).await;
        // One that comes for a while, so that there is something to hand over while connections break.
        match passing.take() {
            None => passing = Some(join(&client()).await),
            Some(consumer) => drop(consumer),
        }
        for _ in 0..random(3) {
            tokio::time::sleep(Duration::from_millis(random(15))).await;
            proxy.cut.send_replace(());
        }
    }
    drop(passing);
    let connections = proxy.connections.load(Ordering::SeqCst);
    assert!(
        connections > 20,
        "{connections} connections: too few were cut"
    );
    timeout(PATIENCE, writer).await.unwrap().unwrap().unwrap();
    readers.until(COUNT).await;
    readers.stop();
    for member in members {
        timeout(PATIENCE, member).await.unwrap().unwrap().unwrap();
    }
    check(&direct, &readers, COUNT).await;
    server.stop().await;
}

#[tokio::test]
async fn a_member_that_the_group_went_on_without_says_so_and_joins_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), None).await;
    let client = Client::new(&server.address.to_string()).unwrap();
    create(&client).await;
    write(&client, 6).await.unwrap().unwrap();
    let manual = client.group_consumer("g").topic("t").commit_interval(None);
    let mut consumer = manual.build().await.unwrap();
    let mut held = Vec::new();
    while held.len() < 6 {
        if let Some(GroupEvent::Message(message)) = consumer.next_event().await.map(Result::unwrap)
        {
            held.push(message);
        }
    }
    // As an operator's command, or a session that was over, would.
    let out = ConsumerHeartbeat {
        group: "g".into(),
        member_id: Some(consumer.member_id().into()),
        presence: Presence::Leave,
        instance_id: None,
        client: Caller::default(),
        rack_id: None,
        rebalance_timeout_ms: None,
        subscribed_topic_names: None,
        subscribed_topic_regex: None,
        server_assignor: None,
        owned: None,
    };
    server
        .broker
        .groups()
        .consumer_heartbeat(out)
        .await
        .unwrap();
    let lost = timeout(PATIENCE, consumer.next_event()).await.unwrap();
    let GroupEvent::Lost { partitions, error } = lost.unwrap().unwrap() else {
        panic!("first everything is lost")
    };
    assert_eq!(partitions.len(), 6);
    assert_eq!(error.code(), Code::UnknownMember);
    assert_eq!(consumer.assigned(), []);
    // What it does about messages of before changes nothing.
    held.iter().for_each(|message| message.ack());
    let assigned = timeout(PATIENCE, consumer.next_event()).await.unwrap();
    assert!(matches!(assigned, Some(Ok(GroupEvent::Assigned(_)))));
    for _ in 0..6 {
        let message = timeout(PATIENCE, consumer.next()).await.unwrap();
        assert_eq!(message.unwrap().unwrap().offset, Offset(0));
    }
    consumer.commit().await.unwrap();
    let committed = client.admin().committed_offsets("g").await.unwrap();
    assert_eq!(committed, []);
    server.stop().await;
}
