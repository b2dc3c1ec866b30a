//! What the core costs without a protocol: batches of 1 MiB, os and fsync, one connection with a
//! pipeline, and 100 producers with one record a request.
//!
//! ```sh
//! cargo run --release -p sapwood-broker --example produce_cost -- ./scratch
//! ```

use std::{
    collections::VecDeque,
    env,
    error::Error,
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use sapwood_broker::{Broker, BrokerOptions, NewTopic, Pending, Produce, Progress, StoreOptions};
use sapwood_model::{Acks, PartitionId, Timestamp};
use sapwood_record::{BatchBuilder, Codec, RecordInput};

const ROUNDS: usize = 5;
const GIB: usize = 1 << 30;
const IN_FLIGHT: usize = 16;
const PRODUCERS: usize = 100;
const REQUESTS_EACH: usize = 2_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = env::args().nth(1).ok_or("usage: produce_cost FOLDER")?;
    let large = batch(1024, 1000)?;
    let small = batch(1, 100)?;
    println!(
        "{:>8} {:>16} {:>16}",
        "", "1 MiB pipelined", "100 producers"
    );
    let mut results: Vec<(&str, Vec<f64>, Vec<f64>)> = ["os", "fsync"]
        .map(|durability| (durability, Vec::new(), Vec::new()))
        .into();
    for _ in 0..ROUNDS {
        for (durability, pipelined, many) in &mut results {
            let data = Path::new(&folder).join("produce-cost");
            let broker = open(&data, durability).await?;
            let took = pipeline(&broker, &large, GIB / large.len()).await?;
            pipelined.push((GIB / large.len() * large.len()) as f64 / took.as_secs_f64() / 1e9);
            let took = producers(&broker, &small).await?;
            many.push((PRODUCERS * REQUESTS_EACH) as f64 / took.as_secs_f64());
            broker.drain_and_close().await?;
            drop(broker);
            fs::remove_dir_all(&data)?;
        }
    }
    for (durability, pipelined, many) in &mut results {
        println!(
            "{durability:>8} {:>11.2} GB/s {:>12.0} /s",
            median(pipelined),
            median(many)
        );
    }
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn open(data: &Path, durability: &str) -> Result<Broker, Box<dyn Error>> {
    let store = StoreOptions {
        boot_id: "this boot".to_owned(),
        ..StoreOptions::default()
    };
    let options = BrokerOptions::new(data, store);
    let broker = Broker::open(options, Arc::new(Progress::default())).await?;
    let configs = vec![
        ("durability".to_owned(), durability.to_owned()),
        ("max.message.bytes".to_owned(), "2000000".to_owned()),
    ];
    broker
        .create_topic(NewTopic {
            configs,
            ..NewTopic::named("t")
        })
        .await?;
    Ok(broker)
}

fn batch(records: usize, value_bytes: usize) -> Result<Bytes, Box<dyn Error>> {
    let value = vec![b'x'; value_bytes];
    let mut builder = BatchBuilder::new(Codec::None);
    for _ in 0..records {
        builder.push(RecordInput {
            timestamp: Timestamp::NONE,
            key: None,
            value: Some(&value),
            headers: &[],
        })?;
    }
    Ok(builder.build()?.to_bytes())
}

fn request(batch: &Bytes) -> Produce<'static> {
    Produce {
        topic: "t".into(),
        partition: PartitionId(0),
        batch: batch.clone(),
        acks: Acks::All,
        expected_end: None,
        auto_create: false,
    }
}

/// One connection: batches in order, some of them waiting for their durability.
async fn pipeline(
    broker: &Broker,
    batch: &Bytes,
    count: usize,
) -> Result<Duration, Box<dyn Error>> {
    let began = Instant::now();
    let mut waiting = VecDeque::new();
    for _ in 0..count {
        if waiting.len() == IN_FLIGHT
            && let Some(oldest) = waiting.pop_front()
        {
            let oldest: Pending = oldest;
            oldest.await?;
        }
        waiting.push_back(broker.produce(request(batch)).await?);
    }
    for pending in waiting {
        pending.await?;
    }
    Ok(began.elapsed())
}

/// Many connections, each with one request at a time.
async fn producers(broker: &Broker, batch: &Bytes) -> Result<Duration, Box<dyn Error>> {
    let began = Instant::now();
    let tasks: Vec<_> = (0..PRODUCERS)
        .map(|_| {
            let (broker, batch) = (broker.clone(), batch.clone());
            tokio::spawn(async move {
                for _ in 0..REQUESTS_EACH {
                    broker.produce(request(&batch)).await?.await?;
                }
                Ok::<(), sapwood_broker::ProduceError>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(began.elapsed())
}
