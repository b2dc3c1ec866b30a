//! What the rdkafka crate does for the checks, with the protocol's names for errors.

use std::{
    collections::HashMap,
    future::Future,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{
        AdminClient, AdminOptions, AlterConfig, ConfigSource, NewPartitions, NewTopic,
        ResourceSpecifier, TopicReplication,
    },
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, Headers, OwnedHeaders, Timestamp},
    producer::{FutureProducer, FutureRecord, Producer},
};

const LIMIT: Duration = Duration::from_secs(30);

/// The name of an error, and what was said with it.
#[derive(Debug)]
pub struct Error {
    pub name: String,
    pub text: String,
}

impl From<RDKafkaErrorCode> for Error {
    fn from(code: RDKafkaErrorCode) -> Self {
        let name = match code {
            RDKafkaErrorCode::OffsetOutOfRange => "OFFSET_OUT_OF_RANGE",
            RDKafkaErrorCode::UnknownTopicOrPartition => "UNKNOWN_TOPIC_OR_PARTITION",
            RDKafkaErrorCode::MessageSizeTooLarge => "MESSAGE_TOO_LARGE",
            RDKafkaErrorCode::InvalidTopic => "INVALID_TOPIC_EXCEPTION",
            RDKafkaErrorCode::TopicAlreadyExists => "TOPIC_ALREADY_EXISTS",
            RDKafkaErrorCode::InvalidPartitions => "INVALID_PARTITIONS",
            RDKafkaErrorCode::InvalidConfig => "INVALID_CONFIG",
            RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::RequestTimedOut => "TIMED_OUT",
            other => &format!("{other:?}"),
        };
        Self {
            name: name.to_owned(),
            text: code.to_string(),
        }
    }
}

impl From<KafkaError> for Error {
    fn from(error: KafkaError) -> Self {
        let text = error.to_string();
        match error.rdkafka_error_code() {
            // librdkafka's own code, when there is no offset to fall back to; the broker's is in the text.
            Some(RDKafkaErrorCode::AutoOffsetReset) => RDKafkaErrorCode::OffsetOutOfRange.into(),
            Some(code) => Self {
                text,
                ..code.into()
            },
            None => Self {
                name: "rdkafka".to_owned(),
                text,
            },
        }
    }
}

/// A record as it is written, or without its offset as it is read.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub partition: i32,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    pub timestamp: i64,
}

pub struct Client {
    broker: String,
    runtime: tokio::runtime::Runtime,
    admin: AdminClient<DefaultClientContext>,
    consumer: BaseConsumer,
}

impl Client {
    pub fn new(broker: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", broker);
        let admin = config.create().expect("an admin client");
        config
            .set("group.id", "nobody joins it")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .set("allow.auto.create.topics", "false");
        Self {
            broker: broker.to_owned(),
            runtime,
            admin,
            consumer: config.create().expect("a consumer"),
        }
    }

    /// The single result of an administrative call on one topic.
    fn one<T, E: Into<Error>>(
        &self,
        call: impl Future<Output = Result<Vec<Result<T, E>>, KafkaError>>,
    ) -> Result<T, Error> {
        let mut results = self.runtime.block_on(call)?;
        results.remove(0).map_err(Into::into)
    }

    /// The addresses of the nodes.
    pub fn nodes(&self) -> Result<Vec<String>, Error> {
        let metadata = self.consumer.fetch_metadata(None, LIMIT)?;
        let address =
            |node: &rdkafka::metadata::MetadataBroker| format!("{}:{}", node.host(), node.port());
        Ok(metadata.brokers().iter().map(address).collect())
    }

    pub fn create(&self, topic: &str, partitions: i32) -> Result<(), Error> {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let created = self.one(async {
            let results = self.admin.create_topics([&new], &options()).await?;
            Ok(results.into_iter().map(by_code).collect())
        });
        created.map(drop)
    }

    pub fn delete(&self, topic: &str) -> Result<(), Error> {
        let deleted = self.one(async {
            let results = self.admin.delete_topics(&[topic], &options()).await?;
            Ok(results.into_iter().map(by_code).collect())
        });
        deleted.map(drop)
    }

    /// How many partitions a topic has; an error when there is no such topic.
    pub fn partitions(&self, topic: &str) -> Result<usize, Error> {
        let metadata = self.consumer.fetch_metadata(Some(topic), LIMIT)?;
        let topic = &metadata.topics()[0];
        match topic.error() {
            Some(code) => Err(RDKafkaErrorCode::from(code).into()),
            None => Ok(topic.partitions().len()),
        }
    }

    pub fn add_partitions(&self, topic: &str, total: usize) -> Result<(), Error> {
        let new = NewPartitions::new(topic, total);
        let added = self.one(async {
            let results = self.admin.create_partitions([&new], &options()).await?;
            Ok(results.into_iter().map(by_code).collect())
        });
        added.map(drop)
    }

    /// Deletes below an offset of partition 0; answers with the new first one.
    pub fn delete_records(&self, topic: &str, before: i64) -> Result<Offset, Error> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, 0, Offset::Offset(before))?;
        let call = self.admin.delete_records(&list, &options());
        let deleted = self.runtime.block_on(call)?;
        let first = &deleted.elements()[0];
        first.error()?;
        Ok(first.offset())
    }

    /// Each key with its value and whether that is the default.
    pub fn configs(&self, topic: &str) -> Result<HashMap<String, (String, bool)>, Error> {
        let resource = ResourceSpecifier::Topic(topic);
        let described =
            self.one(async { self.admin.describe_configs([&resource], &options()).await })?;
        let entries = described.entries.into_iter().map(|entry| {
            let is_default = entry.source == ConfigSource::Default;
            (entry.name, (entry.value.unwrap_or_default(), is_default))
        });
        Ok(entries.collect())
    }

    /// Replaces everything that is set on a topic.
    pub fn alter(&self, topic: &str, changes: &[(&str, &str)]) -> Result<(), Error> {
        let mut config = AlterConfig::new(ResourceSpecifier::Topic(topic));
        for (key, value) in changes {
            config = config.set(key, value);
        }
        let altered = self.one(async {
            let results = self.admin.alter_configs([&config], &options()).await?;
            let by_code =
                |result: Result<_, (_, RDKafkaErrorCode)>| result.map_err(|(_, code)| code);
            Ok(results.into_iter().map(by_code).collect())
        });
        altered.map(drop)
    }

    /// Writes records with a producer of their own, and waits for them. Their offsets.
    pub fn produce(
        &self,
        topic: &str,
        records: &[Record],
        settings: &[(&str, &str)],
    ) -> Result<Vec<i64>, Error> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.broker)
            .set("linger.ms", "1")
            .set("message.max.bytes", "10000000")
            .set("message.timeout.ms", "30000");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        let producer: FutureProducer = config.create()?;
        let sent: Vec<_> = records
            .iter()
            .map(|record| {
                let record = outgoing(topic, record);
                producer.send_result(record).map_err(|(error, _)| error)
            })
            .collect::<Result<_, _>>()?;
        self.runtime.block_on(async {
            let mut offsets = Vec::new();
            for one in sent {
                let delivered = one.await.expect("the producer lives");
                offsets.push(delivered.map_err(|(error, _)| error)?.offset);
            }
            Ok(offsets)
        })
    }

    /// Reads the next `count` records from an offset.
    pub fn read(
        &self,
        topic: &str,
        partition: i32,
        start: Offset,
        count: usize,
    ) -> Result<Vec<(i64, Record)>, Error> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, start)?;
        self.consumer.assign(&list)?;
        let mut records = Vec::new();
        let started = Instant::now();
        while records.len() < count {
            assert!(
                started.elapsed() < LIMIT,
                "only {} of {count} records came",
                records.len()
            );
            let Some(message) = self.consumer.poll(Duration::from_secs(1)) else {
                continue;
            };
            // librdkafka says so when it connects anew, and goes on by itself.
            if let Err(error) = &message
                && let Some(
                    RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure,
                ) = error.rdkafka_error_code()
            {
                continue;
            }
            let message = message?;
            records.push((message.offset(), incoming(&message)));
        }
        self.consumer.unassign()?;
        Ok(records)
    }

    pub fn watermarks(&self, topic: &str, partition: i32) -> Result<(i64, i64), Error> {
        Ok(self.consumer.fetch_watermarks(topic, partition, LIMIT)?)
    }

    /// The first record at or after a time; `Offset::End` when there is none.
    pub fn offset_for(&self, topic: &str, partition: i32, timestamp: i64) -> Result<Offset, Error> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(timestamp))?;
        let found = self.consumer.offsets_for_times(list, LIMIT)?;
        let first = &found.elements()[0];
        first.error()?;
        Ok(first.offset())
    }

    pub fn begin_transaction(&self) -> Result<(), Error> {
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.broker)
            .set("transactional.id", "a transaction")
            .create()?;
        Ok(producer.init_transactions(LIMIT)?)
    }
}

/// The version of librdkafka, which is what speaks the protocol.
pub fn version() -> String {
    format!("(librdkafka {})", rdkafka::util::get_rdkafka_version().1)
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(LIMIT))
        .operation_timeout(Some(LIMIT))
}

fn by_code(result: Result<String, (String, RDKafkaErrorCode)>) -> Result<String, RDKafkaErrorCode> {
    result.map_err(|(_, code)| code)
}

fn outgoing<'a>(topic: &'a str, record: &'a Record) -> FutureRecord<'a, Vec<u8>, Vec<u8>> {
    let mut headers = OwnedHeaders::new();
    for (key, value) in &record.headers {
        headers = headers.insert(Header {
            key,
            value: value.as_ref(),
        });
    }
    let mut outgoing = FutureRecord::to(topic)
        .partition(record.partition)
        .timestamp(record.timestamp);
    if !record.headers.is_empty() {
        outgoing = outgoing.headers(headers);
    }
    if let Some(key) = &record.key {
        outgoing = outgoing.key(key);
    }
    if let Some(value) = &record.value {
        outgoing = outgoing.payload(value);
    }
    outgoing
}

fn incoming(message: &impl Message) -> Record {
    let Timestamp::CreateTime(timestamp) = message.timestamp() else {
        panic!(
            "the time of offset {} is {:?}",
            message.offset(),
            message.timestamp()
        );
    };
    let headers = message
        .headers()
        .into_iter()
        .flat_map(|headers| headers.iter())
        .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
        .collect();
    Record {
        partition: message.partition(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers,
        timestamp,
    }
}
