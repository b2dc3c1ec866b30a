//! A log in one's own process: open a broker in a directory, write, end without a word, open it
//! again, read back what was acknowledged.
//!
//! ```sh
//! cargo run -p sapwood-broker --example embedded -- ./my-data
//! ```
//!
//! Run it several times over: the log grows by three records each time.

use std::{env, error::Error, sync::Arc, time::Duration};

use sapwood_broker::{
    Broker, BrokerOptions, CreateTopicError, Fetch, FetchPartition, NewTopic, Produce, Progress,
    StoreOptions,
};
use sapwood_model::{Acks, Offset, PartitionId, Timestamp};
use sapwood_record::{BatchBuilder, Codec, RecordInput, batches};

const TOPIC: &str = "greetings";
const PARTITION: PartitionId = PartitionId(0);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = env::args()
        .nth(1)
        .unwrap_or_else(|| "./embedded-data".to_owned());

    let broker = open(&directory).await?;
    match broker.create_topic(NewTopic::named(TOPIC)).await {
        Ok(topic) => println!("created {} with id {}", topic.name, topic.id),
        Err(CreateTopicError::Exists { .. }) => println!("{TOPIC} is there already"),
        Err(e) => return Err(e.into()),
    }

    // Two stages: each batch has its place once `produce` returns, and is on the disk once what it
    // returned resolves. So the three of them share one sync.
    let mut pending = Vec::new();
    for greeting in ["hello", "bonjour", "salve"] {
        let request = Produce {
            topic: TOPIC.into(),
            partition: PARTITION,
            batch: batch(greeting)?,
            acks: Acks::All,
            expected_end: None,
            auto_create: false,
        };
        pending.push(broker.produce(request).await?);
    }
    for pending in pending {
        println!("durable at offset {}", pending.await?.base_offset);
    }

    // Without `drain_and_close` this is like a killed process: what was acknowledged stays.
    drop(broker);
    let broker = open(&directory).await?;
    println!(
        "opened again; the last stop was clean: {}",
        broker.recovery().clean
    );
    read(&broker).await?;
    broker.drain_and_close().await?;
    Ok(())
}

async fn open(directory: &str) -> Result<Broker, Box<dyn Error>> {
    // Tells a reboot from a restart of the process, which leaves the page cache whole.
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let store = StoreOptions {
        boot_id: boot_id.trim().to_owned(),
        ..StoreOptions::default()
    };
    let options = BrokerOptions::new(directory, store);
    Ok(Broker::open(options, Arc::new(Progress::default())).await?)
}

fn batch(value: &str) -> Result<bytes::Bytes, Box<dyn Error>> {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.push(RecordInput {
        timestamp: Timestamp::NONE,
        key: None,
        value: Some(value.as_bytes()),
        headers: &[],
    })?;
    Ok(builder.build()?.to_bytes())
}

/// Prints everything from the start of the log to its end.
async fn read(broker: &Broker) -> Result<(), Box<dyn Error>> {
    let bounds = broker.bounds(TOPIC, PARTITION)?;
    let mut from: Offset = bounds.log_start;
    while from < bounds.high_watermark {
        let partition = FetchPartition {
            topic: TOPIC.into(),
            partition: PARTITION,
            from,
            bytes_max: 1 << 20,
        };
        let fetch = Fetch {
            partitions: vec![partition],
            bytes_min: 1,
            bytes_max: 1 << 20,
            wait: Duration::from_secs(1),
        };
        for fetched in broker.fetch(fetch).await {
            let fetched = fetched.result?;
            for batch in batches(fetched.batches) {
                for record in batch?.records(1 << 20)? {
                    let record = record?;
                    let value = record.value.unwrap_or_default();
                    println!("{}: {}", record.offset, String::from_utf8_lossy(&value));
                }
            }
            from = fetched.next;
        }
    }
    Ok(())
}
