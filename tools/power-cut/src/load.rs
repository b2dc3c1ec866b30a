//! Programs that use the broker until the power goes.

use std::{collections::VecDeque, io, ops::Range, time::Duration};

use sapwood_client::{
    Acks, Append, Assignment, Client, Codec, ConfigChange, Error, NewTopic, Offset, PartitionId,
    PartitionOffset, Position, Record,
};
use tokio::{
    runtime::{self, Runtime},
    task::JoinSet,
};

use crate::{
    account::{Existence, Kind, Place, Shared, value_of},
    random::Random,
};

/// A topic that is there from the first start of a chain to its end.
struct Lasting {
    name: &'static str,
    kind: Kind,
    partitions: u32,
    segment_bytes: &'static str,
}

const LASTING: &[Lasting] = &[
    Lasting {
        name: "synced",
        kind: Kind::Fsync,
        partitions: 6,
        segment_bytes: "262144",
    },
    Lasting {
        name: "wide",
        kind: Kind::Fsync,
        partitions: 40,
        segment_bytes: "65536",
    },
    Lasting {
        name: "switched",
        kind: Kind::Os,
        partitions: 3,
        segment_bytes: "65536",
    },
    Lasting {
        name: "cached",
        kind: Kind::Os,
        partitions: 4,
        segment_bytes: "131072",
    },
];

/// Topics that come and go, again and again under the same names.
const CHURNED: &[(&str, Kind)] = &[
    ("churned-synced", Kind::Fsync),
    ("churned-cached", Kind::Os),
];
const CHURNED_PARTITIONS: u32 = 2;

/// One producer: where it writes, how long its values are, and how it collects them.
struct Producing {
    topic: &'static str,
    partitions: u32,
    bytes: Range<u64>,
    codec: Codec,
    batch_bytes: usize,
    /// The longest pause in milliseconds between bursts.
    pause_ms: u64,
}

const PRODUCING: &[Producing] = &[
    Producing {
        topic: "wide",
        partitions: 40,
        bytes: 20..300,
        codec: Codec::Lz4,
        batch_bytes: 16 << 10,
        pause_ms: 12,
    },
    Producing {
        topic: "synced",
        partitions: 6,
        bytes: 200..4_000,
        codec: Codec::None,
        batch_bytes: 64 << 10,
        pause_ms: 20,
    },
    Producing {
        topic: "synced",
        partitions: 6,
        bytes: 10_000..90_000,
        codec: Codec::Zstd,
        batch_bytes: 100 << 10,
        pause_ms: 60,
    },
    Producing {
        topic: "switched",
        partitions: 3,
        bytes: 100..3_000,
        codec: Codec::None,
        batch_bytes: 16 << 10,
        pause_ms: 20,
    },
    Producing {
        topic: "cached",
        partitions: 4,
        bytes: 100..9_000,
        codec: Codec::None,
        batch_bytes: 32 << 10,
        pause_ms: 25,
    },
];

const GROUPS: u64 = 8;
/// How many receipts a producer leaves open.
const IN_FLIGHT: usize = 200;
/// No task of the load blocks for as long as this.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);
/// Records of a producer between two pauses, at most.
const BURST: u64 = 40;

/// Values of appends that are made for themselves, in bytes.
const SINGLE_BYTES: Range<u64> = 20..2_000;
const CODECS: &[Codec] = &[Codec::None, Codec::Lz4, Codec::Zstd];

/// Programs at work, in a runtime of their own: nothing of them, a producer's repetitions least of all,
/// is left when this is dropped. A later broker may have the address of this one.
pub(crate) struct Load(Option<Runtime>);

impl Load {
    /// Starts them; they create the topics that are missing first.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub(crate) fn start(address: &str, account: &Shared, seed: u64) -> io::Result<Self> {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let (address, account) = (address.to_owned(), account.clone());
        runtime.spawn(async move {
            let ended = match Client::new(&address) {
                Ok(client) => run(client, account.clone(), seed).await,
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                account.lock().complain(format!("the load ended: {error}"));
            }
        });
        Ok(Self(Some(runtime)))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
        }
    }
}

async fn run(client: Client, account: Shared, seed: u64) -> Result<(), Error> {
    for lasting in LASTING {
        let is_there = account
            .lock()
            .topics
            .get(lasting.name)
            .is_some_and(|topic| topic.existence == Existence::There);
        if !is_there {
            let config = ("segment.bytes", lasting.segment_bytes);
            create(
                &client,
                &account,
                lasting.name,
                lasting.kind,
                lasting.partitions,
                config,
            )
            .await?;
        }
    }
    let mut tasks = JoinSet::new();
    for (number, producing) in PRODUCING.iter().enumerate() {
        let random = Random::new(seed, 1 + number as u64);
        tasks.spawn(produce(client.clone(), account.clone(), producing, random));
    }
    for (number, (name, kind)) in CHURNED.iter().enumerate() {
        let random = Random::new(seed, 100 + number as u64);
        tasks.spawn(churn(client.clone(), account.clone(), name, *kind, random));
    }
    tasks.spawn(append_singly(
        client.clone(),
        account.clone(),
        Random::new(seed, 200),
    ));
    tasks.spawn(trim(
        client.clone(),
        account.clone(),
        Random::new(seed, 201),
    ));
    let random = Random::new(seed, 202);
    tasks.spawn(switch(client.clone(), account.clone(), random));
    for group in 0..GROUPS {
        tasks.spawn(commit(
            client.clone(),
            account.clone(),
            group,
            Random::new(seed, 300 + group),
        ));
    }
    tasks.spawn(follow(client, account));
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(ended) => ended?,
            Err(error) => panic!("a task of the load: {error}"),
        }
    }
    Ok(())
}

async fn create(
    client: &Client,
    account: &Shared,
    name: &str,
    kind: Kind,
    partitions: u32,
    (key, value): (&str, &str),
) -> Result<(), Error> {
    account.lock().creating(name, kind, partitions);
    let topic = NewTopic::new(name)
        .partitions(partitions)
        .config("durability", durability(kind))
        .config("max.message.bytes", "262144")
        .config(key, value);
    client.admin().create_topic(&topic).await?;
    account.lock().exists(name, Existence::There);
    Ok(())
}

/// Sends records to partitions at random, in bursts, and notes what is acknowledged.
async fn produce(
    client: Client,
    account: Shared,
    what: &'static Producing,
    mut random: Random,
) -> Result<(), Error> {
    let builder = client
        .producer()
        .compression(what.codec)
        .linger(Duration::from_millis(1));
    let producer = builder
        .batch_bytes(what.batch_bytes)
        .auto_create(false)
        .build()
        .await?;
    let writer = account.lock().writer(what.topic, what.bytes.clone());
    let mut open = VecDeque::new();
    loop {
        for _ in 0..random.within(1..BURST) {
            let partition = below(&mut random, what.partitions);
            let id = account.lock().send(writer, partition);
            let value = value_of(id, partition, &what.bytes);
            let record = Record::to(what.topic)
                .partition(PartitionId(partition))
                .value(value);
            open.push_back((producer.send(record).await?, id));
        }
        // Receipts in order; those that are there already cost no waiting.
        loop {
            let is_full = open.len() > IN_FLIGHT;
            let Some((receipt, id)) = open.front_mut() else {
                break;
            };
            let id = *id;
            let delivery = if is_full {
                let delivery = receipt.await?;
                open.pop_front();
                delivery
            } else {
                match tokio::time::timeout(Duration::from_millis(1), receipt).await {
                    Ok(delivery) => {
                        open.pop_front();
                        delivery?
                    }
                    Err(_) => break,
                }
            };
            if let Some(offset) = delivery.offset {
                account
                    .lock()
                    .acknowledged(what.topic, delivery.partition.0, offset.0, id);
            }
        }
        tokio::time::sleep(Duration::from_millis(random.within(0..what.pause_ms))).await;
    }
}

/// Appends some records as one batch and notes what the answer says.
///
/// # Errors
/// What [`sapwood_client::Admin::append`] answers.
pub(crate) async fn append(
    client: &Client,
    account: &Shared,
    (topic, partition): (&str, u32),
    writer: u32,
    random: &mut Random,
) -> Result<Offset, Error> {
    let ids: Vec<_> = (0..random.within(1..8))
        .map(|_| account.lock().send(writer, partition))
        .collect();
    let records = ids
        .iter()
        .map(|id| Record::to(topic).value(value_of(*id, partition, &SINGLE_BYTES)));
    let append = Append {
        topic: topic.to_owned(),
        partition: PartitionId(partition),
        records: records.collect(),
        acks: Acks::All,
        expected_end: None,
        compression: *random.one_of(CODECS),
    };
    let appended = client.admin().append(append).await?;
    let base = appended.map_or(Offset(0), |appended| appended.base_offset);
    let mut account = account.lock();
    for (offset, id) in (base.0..).zip(ids) {
        account.acknowledged(topic, partition, offset, id);
    }
    Ok(base)
}

/// A writer for [`append`].
pub(crate) fn single_writer(account: &Shared, topic: &str) -> u32 {
    account.lock().writer(topic, SINGLE_BYTES)
}

async fn append_singly(client: Client, account: Shared, mut random: Random) -> Result<(), Error> {
    let writers: Vec<u32> = LASTING
        .iter()
        .map(|topic| single_writer(&account, topic.name))
        .collect();
    loop {
        let index = usize::try_from(random.within(0..LASTING.len() as u64)).unwrap_or_default();
        let topic = &LASTING[index];
        let place = (topic.name, below(&mut random, topic.partitions));
        append(&client, &account, place, writers[index], &mut random).await?;
        tokio::time::sleep(Duration::from_millis(random.within(0..10))).await;
    }
}

/// Creates a topic, fills it, deletes it.
async fn churn(
    client: Client,
    account: Shared,
    name: &str,
    kind: Kind,
    mut random: Random,
) -> Result<(), Error> {
    loop {
        let is_there = account
            .lock()
            .topics
            .get(name)
            .is_some_and(|topic| topic.existence == Existence::There);
        if !is_there {
            create(
                &client,
                &account,
                name,
                kind,
                CHURNED_PARTITIONS,
                ("segment.bytes", "65536"),
            )
            .await?;
        }
        let writer = single_writer(&account, name);
        for _ in 0..random.within(0..40) {
            let place = (name, below(&mut random, CHURNED_PARTITIONS));
            append(&client, &account, place, writer, &mut random).await?;
        }
        account.lock().deleting(name);
        client.admin().delete_topic(name).await?;
        account.lock().exists(name, Existence::Gone);
        tokio::time::sleep(Duration::from_millis(random.within(0..40))).await;
    }
}

/// Makes an fsync topic of an os topic, and the other way round.
async fn switch(client: Client, account: Shared, mut random: Random) -> Result<(), Error> {
    const NAME: &str = "switched";
    loop {
        tokio::time::sleep(Duration::from_millis(random.within(0..150))).await;
        let now = account.lock().topics.get(NAME).map(|topic| topic.kind);
        let next = match now {
            Some(Kind::Os) => Kind::Fsync,
            _ => Kind::Os,
        };
        account.lock().switching(NAME, next);
        let value = durability(next).to_owned();
        let change = ConfigChange::Set("durability".to_owned(), value);
        client.admin().alter_topic(NAME, &[change]).await?;
        account.lock().switched(NAME);
    }
}

fn durability(kind: Kind) -> &'static str {
    match kind {
        Kind::Fsync => "fsync",
        Kind::Os => "os",
    }
}

/// Moves log starts, never past what was read.
async fn trim(client: Client, account: Shared, mut random: Random) -> Result<(), Error> {
    loop {
        tokio::time::sleep(Duration::from_millis(random.within(1..60))).await;
        let topic = random.one_of(LASTING);
        let number = below(&mut random, topic.partitions);
        let offset = {
            let mut account = account.lock();
            let Some(partition) = account.partition(topic.name, number) else {
                continue;
            };
            let room = partition.read_to.saturating_sub(partition.trimmed);
            let offset = partition.trimmed + random.within(0..room + 1);
            account.trimming(topic.name, number, offset);
            offset
        };
        let asked = [(PartitionId(number), Some(Offset(offset)))];
        for start in client.admin().trim(topic.name, &asked).await? {
            account.lock().trimmed(topic.name, number, start?.0);
        }
    }
}

/// Commits offsets of one group, one at a time.
async fn commit(
    client: Client,
    account: Shared,
    group: u64,
    mut random: Random,
) -> Result<(), Error> {
    let name = format!("group-{group}");
    loop {
        let topic = random.one_of(LASTING);
        let place = Place {
            topic: topic.name.to_owned(),
            partition: below(&mut random, topic.partitions.min(3)),
        };
        let offset = random.within(0..1 << 40);
        account.lock().committing(&name, &place, offset);
        let offsets = [PartitionOffset::new(
            topic.name,
            PartitionId(place.partition),
            Offset(offset),
        )];
        for result in client.admin().commit_offsets(&name, &offsets).await? {
            result?;
        }
        account.lock().committed(&name, &place);
        tokio::time::sleep(Duration::from_millis(random.within(0..60))).await;
    }
}

/// Reads the lasting topics as they grow, from what is known already.
async fn follow(client: Client, account: Shared) -> Result<(), Error> {
    let mut consumer = client.consumer();
    for topic in LASTING {
        for partition in 0..topic.partitions {
            let from = account
                .lock()
                .partition(topic.name, partition)
                .map_or(0, |partition| partition.read_to);
            let assignment = Assignment::new(topic.name, PartitionId(partition));
            consumer = consumer.assign(assignment.from(Position::Offset(Offset(from))));
        }
    }
    let mut consumer = consumer.build().await?;
    while let Some(message) = consumer.next().await {
        let message = message?;
        let value = message.value.unwrap_or_default();
        account.lock().read(
            &message.topic,
            message.partition.0,
            message.offset.0,
            &value,
        );
    }
    Ok(())
}

fn below(random: &mut Random, limit: u32) -> u32 {
    u32::try_from(random.within(0..u64::from(limit))).unwrap_or_default()
}
