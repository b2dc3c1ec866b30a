//! A served broker, a client made of frames, and batches.

pub(crate) mod client;
pub(crate) mod machine;
pub(crate) mod old_produce;
pub(crate) mod random;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use sapwood_broker::{
    Broker, BrokerOptions, Environment, NewTopic, Progress, StoreOptions, TopicInfo,
};
use sapwood_kafka::{ConnectionInfo, Kafka, KafkaOptions};
use sapwood_model::{ProducerEpoch, ProducerId, Timestamp};
use sapwood_record::{BatchBuilder, Codec, ProducerStamp, RecordInput, batches};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

pub(crate) use client::Client;

/// A broker whose Kafka door is open on a port of its own.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) broker: Broker,
    pub(crate) kafka: Kafka,
    pub(crate) stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
    _directory: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// How a server is started.
pub(crate) struct Start {
    pub(crate) broker: Box<dyn FnOnce(BrokerOptions) -> BrokerOptions + Send>,
    pub(crate) kafka: KafkaOptions,
    pub(crate) environment: Environment,
    pub(crate) advertised: Option<&'static str>,
}

impl Default for Start {
    fn default() -> Self {
        Self {
            broker: Box::new(|options| options),
            kafka: KafkaOptions::default(),
            environment: Environment::real(),
            advertised: None,
        }
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(Start::default()).await
    }

    pub(crate) async fn start_with(start: Start) -> Self {
        let directory = TempDir::new().unwrap();
        let store = StoreOptions {
            ballast_bytes: 0,
            journal_file_bytes: 4 << 20,
            journal_files: 2,
            boot_id: "test".to_owned(),
            ..StoreOptions::default()
        };
        let options = BrokerOptions {
            auto_create: true,
            ..BrokerOptions::new(directory.path(), store)
        };
        let options = (start.broker)(options);
        let progress = Arc::new(Progress::default());
        let broker = Broker::open_in(start.environment, options, progress);
        let broker = broker.await.unwrap();
        let kafka = Kafka::new(broker.clone(), start.kafka);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = watch::Sender::new(false);
        let accept = accept(listener, kafka.clone(), stop.subscribe(), start.advertised);
        Self {
            address,
            broker,
            kafka,
            stop,
            accepting: tokio::spawn(accept),
            _directory: directory,
        }
    }

    pub(crate) async fn connect(&self) -> Client {
        Client::connect(self.address).await
    }

    pub(crate) async fn create(&self, name: &str, configs: &[(&str, &str)]) -> TopicInfo {
        self.create_with(name, 1, configs).await
    }

    pub(crate) async fn create_with(
        &self,
        name: &str,
        partitions: u32,
        configs: &[(&str, &str)],
    ) -> TopicInfo {
        let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let topic = NewTopic {
            partitions: Some(partitions),
            configs: configs.iter().map(pair).collect(),
            ..NewTopic::named(name)
        };
        self.broker.create_topic(topic).await.unwrap()
    }
}

async fn accept(
    listener: TcpListener,
    kafka: Kafka,
    stop: watch::Receiver<bool>,
    advertised: Option<&'static str>,
) {
    loop {
        let (stream, peer) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let info = ConnectionInfo {
            listener: "test".into(),
            advertised: advertised.and_then(sapwood_kafka::Advertised::parse),
            peer,
        };
        let (kafka, stop) = (kafka.clone(), stop.clone());
        tokio::spawn(async move { kafka.serve_connection(stream, info, stop).await });
    }
}

/// Waits until something is so; the runner has the last word on how long.
pub(crate) async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// How long something took.
pub(crate) async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let began = Instant::now();
    (work.await, began.elapsed())
}

/// One batch with these values, without timestamps.
pub(crate) fn batch(values: &[&str]) -> Bytes {
    batch_of(Codec::None, None, Timestamp::NONE, values)
}

pub(crate) fn batch_of(
    codec: Codec,
    producer: Option<ProducerStamp>,
    timestamp: Timestamp,
    values: &[&str],
) -> Bytes {
    let mut builder = BatchBuilder::new(codec);
    if let Some(stamp) = producer {
        builder = builder.with_producer(stamp);
    }
    for value in values {
        builder
            .push(RecordInput {
                timestamp,
                key: None,
                value: Some(value.as_bytes()),
                headers: &[],
            })
            .unwrap();
    }
    builder.build().unwrap().to_bytes()
}

pub(crate) fn stamp(id: i64, epoch: u16, base_sequence: i32, count: i32) -> ProducerStamp {
    ProducerStamp {
        id: ProducerId(id.cast_unsigned()),
        epoch: ProducerEpoch(epoch),
        base_sequence,
        last_sequence: base_sequence + count - 1,
    }
}

/// The offsets and values of the records in fetched bytes.
pub(crate) fn values(records: &Bytes) -> Vec<(u64, String)> {
    let mut values = Vec::new();
    for batch in batches(records.clone()) {
        for record in batch.unwrap().records(1 << 24).unwrap() {
            let record = record.unwrap();
            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            values.push((record.offset.0, value));
        }
    }
    values
}
