//! Brokers and batches for the tests.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use sapwood_broker::{
    Broker, BrokerOptions, Environment, Fetch, FetchPartition, Fetched, FetchedPartition, NewTopic,
    OpenError, Produce, ProduceError, Produced, Progress, StoreOptions, TailKind, TopicInfo,
};
use sapwood_model::{Acks, Code, Offset, PartitionId, ProducerEpoch, ProducerId, Timestamp};
use sapwood_record::{BatchBuilder, Codec, ProducerStamp, RecordInput, batches};

pub(crate) const P0: PartitionId = PartitionId(0);

/// Small files, so that tests are fast and roll often.
pub(crate) fn options(data_dir: &Path) -> BrokerOptions {
    let store = StoreOptions {
        ballast_bytes: 256 << 10,
        journal_file_bytes: 4 << 20,
        journal_files: 2,
        boot_id: "boot-1".into(),
        ..StoreOptions::default()
    };
    BrokerOptions {
        drain_timeout: Duration::from_secs(2),
        ..BrokerOptions::new(data_dir, store)
    }
}

pub(crate) async fn open(data_dir: &Path) -> Broker {
    open_with(options(data_dir)).await
}

pub(crate) async fn open_with(options: BrokerOptions) -> Broker {
    try_open(options).await.unwrap()
}

/// A broker that was dropped holds its directory until its last background tick is over: waits for
/// that.
pub(crate) async fn try_open(options: BrokerOptions) -> Result<Broker, OpenError> {
    let began = Instant::now();
    loop {
        match Broker::open(options.clone(), Arc::default()).await {
            Err(e) if e.code() == Code::DirectoryInUse && began.elapsed().as_secs() < 10 => {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            opened => return opened,
        }
    }
}

/// On a simulated machine.
pub(crate) async fn open_on(
    machine: &sapwood_sim::Machine,
    boot_id: &str,
) -> Result<Broker, OpenError> {
    let mut options = options(Path::new("/data"));
    options.store.boot_id = boot_id.into();
    options.store.tail = Some(TailKind::Mmap);
    let environment: Environment = machine.environment();
    Broker::open_in(environment, options, Arc::new(Progress::default())).await
}

pub(crate) async fn create(broker: &Broker, name: &str, configs: &[(&str, &str)]) -> TopicInfo {
    let configs = pairs(configs);
    broker
        .create_topic(NewTopic {
            configs,
            ..NewTopic::named(name)
        })
        .await
        .unwrap()
}

pub(crate) fn pairs(configs: &[(&str, &str)]) -> Vec<(String, String)> {
    configs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// One batch with these values, of now.
pub(crate) fn batch(values: &[&str]) -> Bytes {
    batch_with(Codec::None, None, values)
}

pub(crate) fn batch_with(codec: Codec, producer: Option<ProducerStamp>, values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(codec);
    if let Some(stamp) = producer {
        builder = builder.with_producer(stamp);
    }
    for value in values {
        builder
            .push(RecordInput {
                timestamp: Timestamp::NONE,
                key: None,
                value: Some(value.as_bytes()),
                headers: &[],
            })
            .unwrap();
    }
    builder.build().unwrap().to_bytes()
}

pub(crate) fn stamp(id: ProducerId, epoch: u16, base_sequence: i32, count: i32) -> ProducerStamp {
    ProducerStamp {
        id,
        epoch: ProducerEpoch(epoch),
        base_sequence,
        last_sequence: base_sequence + count - 1,
    }
}

pub(crate) fn to<'a>(topic: &'a str, batch: Bytes) -> Produce<'a> {
    Produce {
        topic: topic.into(),
        partition: P0,
        batch,
        acks: Acks::All,
        expected_end: None,
        auto_create: false,
    }
}

/// Both stages.
pub(crate) async fn produce(
    broker: &Broker,
    request: Produce<'_>,
) -> Result<Produced, ProduceError> {
    broker.produce(request).await?.await
}

pub(crate) fn from<'a>(topic: &'a str, partition: u32, from: u64) -> FetchPartition<'a> {
    FetchPartition {
        topic: topic.into(),
        partition: PartitionId(partition),
        from: Offset(from),
        bytes_max: 1 << 20,
    }
}

/// A fetch that does not wait.
pub(crate) fn at_once(partitions: Vec<FetchPartition<'_>>) -> Fetch<'_> {
    Fetch {
        partitions,
        bytes_min: 1,
        bytes_max: 10 << 20,
        wait: Duration::ZERO,
    }
}

/// The values in a fetched partition with their offsets.
pub(crate) fn values(fetched: &Fetched) -> Vec<(u64, String)> {
    let mut values = Vec::new();
    for batch in batches(fetched.batches.clone()) {
        for record in batch.unwrap().records(1 << 24).unwrap() {
            let record = record.unwrap();
            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            values.push((record.offset.0, value));
        }
    }
    values
}

/// Everything that can be read of partition 0.
pub(crate) async fn read_all(broker: &Broker, topic: &str) -> Vec<(u64, String)> {
    let mut next = broker.bounds(topic, P0).unwrap().log_start;
    let mut all = Vec::new();
    loop {
        let mut fetched = broker.fetch(at_once(vec![from(topic, 0, next.0)])).await;
        let fetched: FetchedPartition = fetched.pop().unwrap();
        let fetched = fetched.result.unwrap();
        if fetched.batches.is_empty() {
            return all;
        }
        all.extend(values(&fetched));
        next = fetched.next;
    }
}
