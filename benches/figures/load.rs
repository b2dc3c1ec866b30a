//! Throughput, and what syncing and many partitions cost.

use std::{path::Path, time::Instant};

use bytes::Bytes;
use sapwood_client::{Admin, Client, NewTopic, PartitionId, Record, Timestamp};
use sapwood_record::{BatchBuilder, Codec, RecordInput};
use sapwood_rpc::v1::{
    Acks, ProduceRequest, produce_request::Payload, produce_response::Result as Answer,
    produce_service_client::ProduceServiceClient,
};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

use crate::{
    Outcome,
    broker::Broker,
    table::{Table, Target, median},
};

/// How many requests of a connection are on their way at a time.
const IN_FLIGHT: usize = 16;
const WINDOW_BYTES: u32 = 4 << 20;
const PARTITIONS: u32 = 1000;
const PRODUCERS: u64 = 100;

/// Batches of 1 MiB to fsync topics and to os topics of one broker, in turns; each topic is deleted before
/// the next begins.
pub(crate) async fn batches(binary: &Path, rounds: usize, table: &mut Table) -> Outcome<()> {
    const COUNT: usize = 512;
    /// More than the journal holds: after this its files were all written from end to end.
    const WARM_UP: usize = 300;
    let batch = batch(1023, 1024)?;
    let broker = Broker::start(binary)?;
    let admin = broker.client()?.admin();
    create(&admin, "warm-up", 1, "fsync").await?;
    send(&broker, "warm-up", &batch, WARM_UP, |_| 0).await?;
    admin.delete_topic("warm-up").await?;
    let (mut fsync, mut os) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        for (durability, seconds) in [("fsync", &mut fsync), ("os", &mut os)] {
            create(&admin, "load", 1, durability).await?;
            seconds.push(send(&broker, "load", &batch, COUNT, |_| 0).await?);
            admin.delete_topic("load").await?;
        }
    }
    let mb = (COUNT * batch.len()) as f64 / 1e6;
    let (fsync, os) = (median(fsync), median(os));
    table.add(
        "produce, 1 MiB batches, fsync",
        mb / fsync,
        "MB/s",
        Target::None,
    );
    table.add("produce, 1 MiB batches, os", mb / os, "MB/s", Target::None);
    table.add("fsync against os", os / fsync, "ratio", Target::Min(0.7));
    Ok(())
}

/// The same batches to 1,000 partitions that were each written to once, and to a single one.
pub(crate) async fn partitions(binary: &Path, rounds: usize, table: &mut Table) -> Outcome<()> {
    const COUNT: usize = 4000;
    const RECORDS: u32 = 200_000;
    let batch = batch(63, 1024)?;
    let broker = Broker::start(binary)?;
    let client = broker.client()?;
    for (topic, partitions) in [("one", 1), ("many", PARTITIONS)] {
        create(&client.admin(), topic, partitions, "fsync").await?;
        let count = usize::try_from(PARTITIONS)?;
        send(&broker, topic, &batch, count, |number| number % partitions).await?;
    }
    let mut times = [(); 4].map(|()| Vec::new());
    for _ in 0..rounds {
        times[0].push(send(&broker, "one", &batch, COUNT, |_| 0).await?);
        times[1].push(send(&broker, "many", &batch, COUNT, |number| number % PARTITIONS).await?);
        times[2].push(produce(&client, "one", RECORDS, 1).await?);
        times[3].push(produce(&client, "many", RECORDS, PARTITIONS).await?);
    }
    let [one, many, records_one, records_many] = times.map(median);
    let mb = (COUNT * batch.len()) as f64 / 1e6;
    table.add(
        "produce, 64 KiB batches, fsync, 1 partition",
        mb / one,
        "MB/s",
        Target::None,
    );
    table.add(
        "produce, 64 KiB batches, fsync, 1,000 partitions",
        mb / many,
        "MB/s",
        Target::None,
    );
    table.add(
        "time to 1,000 partitions against 1, the same batches",
        many / one,
        "ratio",
        Target::Max(1.5),
    );
    let per_second = |seconds: f64| f64::from(RECORDS) / seconds;
    table.add(
        "client, 1 KiB records, fsync, 1 partition",
        per_second(records_one),
        "rec/s",
        Target::None,
    );
    table.add(
        "client, 1 KiB records, fsync, 1,000 partitions",
        per_second(records_many),
        "rec/s",
        Target::None,
    );
    let ratio = records_many / records_one;
    table.add(
        "time to 1,000 partitions against 1, the same records",
        ratio,
        "ratio",
        Target::Max(1.5),
    );
    Ok(())
}

/// 100 producers, each with a connection of its own and one request of one record on its way.
pub(crate) async fn single_records(binary: &Path, rounds: usize, table: &mut Table) -> Outcome<()> {
    const EACH: u64 = 1000;
    let broker = Broker::start(binary)?;
    create(&broker.client()?.admin(), "single", 1, "fsync").await?;
    let batch = batch(1, 100)?;
    let mut streams = Vec::new();
    for _ in 0..PRODUCERS {
        streams.push(Stream::open(broker.address()).await?);
    }
    let mut rates = Vec::new();
    for _ in 0..=rounds {
        let started = Instant::now();
        let mut producers = JoinSet::new();
        for mut stream in streams.drain(..) {
            let batch = batch.clone();
            producers.spawn(async move {
                for number in 0..EACH {
                    stream
                        .send(request("single", 0, number, batch.clone()))
                        .await?;
                    stream.answer().await?;
                }
                Ok::<_, String>(stream)
            });
        }
        while let Some(ended) = producers.join_next().await {
            streams.push(ended??);
        }
        rates.push((PRODUCERS * EACH) as f64 / started.elapsed().as_secs_f64());
    }
    // The first turn warms up.
    rates.remove(0);
    let rate = median(rates);
    table.add(
        "100 producers, one record a request, fsync",
        rate,
        "rec/s",
        Target::Min(20_000.0),
    );
    Ok(())
}

/// Seconds that the client's producer needs for records of 1 KiB, to partitions in turn.
async fn produce(client: &Client, topic: &str, records: u32, partitions: u32) -> Outcome<f64> {
    let producer = client.producer().build().await?;
    let value = Bytes::from(vec![b'x'; 1024]);
    let topic: std::sync::Arc<str> = topic.into();
    let started = Instant::now();
    for number in 0..records {
        let record = Record::to(topic.clone()).partition(PartitionId(number % partitions));
        producer.send(record.value(value.clone())).await?;
    }
    producer.close().await?;
    Ok(started.elapsed().as_secs_f64())
}

/// Seconds for `count` batches over one stream, until the last one is acknowledged.
async fn send(
    broker: &Broker,
    topic: &str,
    batch: &Bytes,
    count: usize,
    partition: impl Fn(u32) -> u32,
) -> Outcome<f64> {
    let mut stream = Stream::open(broker.address()).await?;
    let started = Instant::now();
    for number in 0..count {
        if number >= IN_FLIGHT {
            stream.answer().await?;
        }
        let partition = partition(u32::try_from(number)?);
        stream
            .send(request(topic, partition, number as u64, batch.clone()))
            .await?;
    }
    for _ in 0..count.min(IN_FLIGHT) {
        stream.answer().await?;
    }
    Ok(started.elapsed().as_secs_f64())
}

/// A stream of requests and its answers.
struct Stream {
    requests: mpsc::Sender<ProduceRequest>,
    answers: tonic::Streaming<sapwood_rpc::v1::ProduceResponse>,
}

impl Stream {
    async fn open(address: &str) -> Outcome<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .tcp_nodelay(true);
        let mut client = ProduceServiceClient::new(endpoint.connect().await?);
        let (requests, receiver) = mpsc::channel(IN_FLIGHT);
        let answers = client
            .produce(ReceiverStream::new(receiver))
            .await?
            .into_inner();
        Ok(Self { requests, answers })
    }

    async fn send(&self, request: ProduceRequest) -> Result<(), String> {
        self.requests
            .send(request)
            .await
            .map_err(|_| "the stream has ended".to_owned())
    }

    async fn answer(&mut self) -> Result<(), String> {
        let answer = self
            .answers
            .message()
            .await
            .map_err(|status| status.to_string())?;
        match answer.and_then(|answer| answer.result) {
            Some(Answer::Produced(_)) => Ok(()),
            other => Err(format!("not written: {other:?}")),
        }
    }
}

fn request(topic: &str, partition: u32, number: u64, batch: Bytes) -> ProduceRequest {
    ProduceRequest {
        correlation_id: number,
        topic: topic.to_owned(),
        partition,
        acks: Acks::All.into(),
        expected_end_offset: None,
        payload: Some(Payload::Batch(batch)),
    }
}

/// One batch, built once: a producer's own work is not what is measured.
fn batch(records: u32, record_bytes: usize) -> Outcome<Bytes> {
    // What a record takes around its value.
    const AROUND: usize = 12;
    let value = vec![b'x'; record_bytes - AROUND.min(record_bytes)];
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let timestamp = Timestamp(i64::try_from(now.as_millis())?);
    let mut builder = BatchBuilder::new(Codec::None);
    for _ in 0..records {
        builder.push(RecordInput {
            timestamp,
            key: None,
            value: Some(&value),
            headers: &[],
        })?;
    }
    Ok(builder.build()?.to_bytes())
}

async fn create(admin: &Admin, name: &str, partitions: u32, durability: &str) -> Outcome<()> {
    let topic = NewTopic::new(name)
        .partitions(partitions)
        .config("durability", durability);
    admin.create_topic(&topic).await?;
    Ok(())
}
