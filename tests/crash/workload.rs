//! Producers and a reader that go on while brokers die, and the account that is settled at the end.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use sapwood_client::{
    Acks, Append, Client, Codec, Consumer, NewTopic, Offset, PartitionId, Position, Producer,
    Record,
};
use tokio::task::JoinHandle;

use crate::harness::Random;

pub(super) const TOPIC: &str = "ledger";
pub(super) const PARTITIONS: u32 = 6;
const PRODUCERS: u32 = 3;
/// How many receipts a producer leaves open.
const IN_FLIGHT: usize = 500;
/// A test that takes longer than this has lost a record for good.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(600);

/// Small files, so that a short run turns the journal over and rolls many segments.
pub(super) const SMALL: &[&str] = &[
    "storage.journal_file_bytes=1048576",
    "storage.journal_files=3",
    "storage.ballast_bytes=1048576",
    "storage.os_checkpoint_interval_ms=200",
    "storage.os_checkpoint_bytes=1048576",
];

/// How long the reader may need for what is left when the producers are done.
const READ_TIMEOUT: Duration = Duration::from_secs(120);

type Place = (PartitionId, Offset);

/// Producers that retry until they are acknowledged, a writer that never retries, and a reader.
pub(super) struct Workload {
    stop: Arc<AtomicBool>,
    producers: Vec<JoinHandle<Account>>,
    writer: JoinHandle<Vec<Try>>,
    reader: JoinHandle<()>,
    read: Arc<Mutex<BTreeMap<Place, Bytes>>>,
}

/// What one producer was told.
#[derive(Debug, Default)]
struct Account {
    /// Where each of its records is, in the order in which they were sent.
    acknowledged: BTreeMap<PartitionId, Vec<(Offset, Bytes)>>,
}

/// One append that was tried once.
#[derive(Debug)]
struct Try {
    value: Bytes,
    /// Where it is, if the broker said so; otherwise nobody knows whether it is there.
    acknowledged: Option<Place>,
}

impl Workload {
    /// Creates the topic on a broker that runs and starts to work.
    pub(super) async fn start(client: &Client, durability: &str, seed: u64) -> Self {
        let topic = NewTopic::new(TOPIC)
            .partitions(PARTITIONS)
            .config("durability", durability)
            .config("segment.bytes", "262144")
            .config("max.message.bytes", "131072");
        client
            .admin()
            .create_topic(&topic)
            .await
            .expect("the topic can be created");
        let stop = Arc::new(AtomicBool::new(false));
        // Connected before the first kill: what is built is only connected again, never built again.
        let mut producers = Vec::new();
        for number in 0..PRODUCERS {
            let codec = [Codec::None, Codec::Lz4, Codec::Zstd][number as usize % 3];
            let builder = client
                .producer()
                .compression(codec)
                .linger(Duration::from_millis(1));
            let builder = builder
                .batch_bytes(16 << 10)
                .delivery_timeout(DELIVERY_TIMEOUT);
            let producer = builder.build().await.expect("the broker runs");
            let random = Random::new(seed, u64::from(number));
            producers.push(tokio::spawn(produce(
                producer,
                number,
                random,
                stop.clone(),
            )));
        }
        let consumer = client.consumer().topic(TOPIC, Position::Start, None);
        let consumer = consumer.build().await.expect("the broker runs");
        let read = Arc::new(Mutex::new(BTreeMap::new()));
        let reader = tokio::spawn(read_along(consumer, read.clone()));
        let random = Random::new(seed, 1 << 32);
        let writer = tokio::spawn(write_once(client.clone(), random, stop.clone()));
        Self {
            stop,
            producers,
            writer,
            reader,
            read,
        }
    }

    /// Lets the producers come to an end on a broker that runs, and settles the account: every
    /// acknowledged record is where the broker said, once; each producer's records of a partition are
    /// there in their order, none is missing, none is there twice; the offsets have no gap; what the
    /// reader saw is still there. Returns the number of records.
    pub(super) async fn settle(self, client: &Client) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let mut accounts = Vec::new();
        for producer in self.producers {
            accounts.push(
                producer
                    .await
                    .expect("a producer gets everything acknowledged"),
            );
        }
        let tries = self.writer.await.expect("the writer does not panic");
        let log = read_all(client).await;
        for account in &accounts {
            check_account(&log, account);
        }
        check_tries(&log, &tries);
        let known: usize = accounts
            .iter()
            .flat_map(|a| a.acknowledged.values())
            .map(Vec::len)
            .sum();
        let tried = log
            .values()
            .filter(|value| value.starts_with(b"once "))
            .count();
        assert_eq!(
            log.len(),
            known + tried,
            "records are there that nobody sent, or twice"
        );
        let caught_up = async {
            while self.read.lock().expect("the reader does not panic").len() < log.len() {
                assert!(!self.reader.is_finished(), "the reader has ended");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let caught_up = tokio::time::timeout(READ_TIMEOUT, caught_up).await;
        caught_up.expect("the reader comes to the end, too");
        self.reader.abort();
        let read = self.read.lock().expect("the reader does not panic");
        for (place, value) in &*read {
            assert_eq!(
                log.get(place),
                Some(value),
                "{place:?} was read and is not there any more"
            );
        }
        assert_eq!(read.len(), log.len(), "more was read than is there");
        eprintln!(
            "{} records, {tried} of them tried once, each read as it came",
            log.len()
        );
        log.len()
    }
}

/// Sends records to partitions at random until it is told to stop. Every record must get through.
async fn produce(
    producer: Producer,
    number: u32,
    mut random: Random,
    stop: Arc<AtomicBool>,
) -> Account {
    let mut account = Account::default();
    let mut open = VecDeque::new();
    let mut sequence = 0_u64;
    let mut stopping = false;
    while !stopping || !open.is_empty() {
        stopping = stop.load(Ordering::Relaxed);
        if !stopping && open.len() < IN_FLIGHT {
            let value = value(
                &format!("producer {number} record {sequence} "),
                &mut random,
            );
            let partition = PartitionId(u32::try_from(random.within(0..6)).expect("below 6"));
            let record = Record::to(TOPIC).partition(partition).value(value.clone());
            let receipt = producer.send(record).await.expect("a record is taken");
            open.push_back((receipt, value));
            sequence += 1;
            if random.one_in(20) {
                tokio::time::sleep(Duration::from_millis(random.within(1..20))).await;
            }
            continue;
        }
        if let Some((receipt, value)) = open.pop_front() {
            let delivery = receipt.await.expect("a record is acknowledged in the end");
            let offset = delivery.offset.expect("acks=all names the offset");
            account
                .acknowledged
                .entry(delivery.partition)
                .or_default()
                .push((offset, value));
        }
    }
    producer.close().await.expect("everything was acknowledged");
    account
}

/// Appends single records, each tried once.
async fn write_once(client: Client, mut random: Random, stop: Arc<AtomicBool>) -> Vec<Try> {
    let admin = client.admin();
    let mut tries = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let value = value(&format!("once {} ", tries.len()), &mut random);
        let partition = PartitionId(u32::try_from(random.within(0..6)).expect("below 6"));
        let append = Append {
            topic: TOPIC.to_owned(),
            partition,
            records: vec![Record::to(TOPIC).value(value.clone())],
            acks: Acks::All,
            expected_end: None,
            compression: Codec::None,
        };
        let acknowledged = match admin.append(append).await {
            Ok(appended) => appended.map(|appended| (partition, appended.base_offset)),
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                None
            }
        };
        tries.push(Try {
            value,
            acknowledged,
        });
    }
    tries
}

/// Reads everything as it comes and remembers it.
async fn read_along(mut consumer: Consumer, read: Arc<Mutex<BTreeMap<Place, Bytes>>>) {
    let mut next = BTreeMap::<PartitionId, Offset>::new();
    while let Some(message) = consumer.next().await {
        let message = message.expect("a reader only waits while the broker is away");
        let expected = next.entry(message.partition).or_default();
        assert_eq!(message.offset, *expected, "partition {}", message.partition);
        *expected = message.offset.add(1);
        let value = message.value.expect("records have values");
        let place = (message.partition, message.offset);
        read.lock()
            .expect("nobody panics with it")
            .insert(place, Bytes::copy_from_slice(&value));
    }
}

async fn read_all(client: &Client) -> BTreeMap<Place, Bytes> {
    let consumer = client
        .consumer()
        .topic(TOPIC, Position::Start, Some(Position::End));
    let mut consumer = consumer.build().await.expect("the broker runs");
    let mut log = BTreeMap::new();
    let mut next = BTreeMap::<PartitionId, Offset>::new();
    while let Some(message) = consumer.next().await {
        let message = message.expect("everything can be read");
        let expected = next.entry(message.partition).or_default();
        assert_eq!(
            message.offset, *expected,
            "a gap in partition {}",
            message.partition
        );
        *expected = message.offset.add(1);
        let value = message.value.expect("records have values");
        log.insert(
            (message.partition, message.offset),
            Bytes::copy_from_slice(&value),
        );
    }
    log
}

fn check_account(log: &BTreeMap<Place, Bytes>, account: &Account) {
    for (partition, records) in &account.acknowledged {
        for (offset, value) in records {
            let found = log.get(&(*partition, *offset));
            assert_eq!(
                found,
                Some(value),
                "partition {partition} offset {offset} was acknowledged"
            );
        }
        // Sent in this order, so there in this order; equal offsets would be one record twice.
        let rising = records.windows(2).all(|pair| pair[0].0 < pair[1].0);
        assert!(
            rising,
            "the records of a producer changed their order in partition {partition}"
        );
    }
}

fn check_tries(log: &BTreeMap<Place, Bytes>, tries: &[Try]) {
    let mut found = BTreeMap::<&[u8], Vec<Place>>::new();
    for (place, value) in log.iter().filter(|(_, value)| value.starts_with(b"once ")) {
        found.entry(value).or_default().push(*place);
    }
    for Try {
        value,
        acknowledged,
    } in tries
    {
        let places = found.remove(&value[..]).unwrap_or_default();
        match acknowledged {
            Some(place) => assert_eq!(places, [*place], "tried once and acknowledged"),
            None => assert!(places.len() <= 1, "tried once and there at {places:?}"),
        }
    }
    assert!(found.is_empty(), "records that nobody sent: {found:?}");
}

/// A name that no other record has, and up to 1 KiB that the codecs cannot do much with.
fn value(name: &str, random: &mut Random) -> Bytes {
    let mut text = name.to_owned();
    for _ in 0..random.within(0..64) {
        let _ = write!(text, "{:016x}", random.next());
    }
    text.into()
}
