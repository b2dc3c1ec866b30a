//! What a look of retention at many partitions costs when nothing is due. On the simulated disk, because
//! the look has nothing to do with the disk, and so many open segments take many descriptors.
//!
//! ```text
//! cargo run --release -p sapwood-broker --example retention_pass [partitions] [segments]
//! ```

use std::{env, error::Error, sync::Arc, time::Duration};

use sapwood_broker::{Broker, BrokerOptions, Environment, NewTopic, Produce, StoreOptions};
use sapwood_model::{Acks, PartitionId, Timestamp};
use sapwood_record::{BatchBuilder, Codec, RecordInput};

const PASSES: u64 = 5;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut numbers = env::args().skip(1).map(|number| number.parse::<u32>());
    let partitions = numbers.next().transpose()?.unwrap_or(10_000);
    let segments = numbers.next().transpose()?.unwrap_or(3);
    let store = StoreOptions {
        ballast_bytes: 0,
        ..StoreOptions::default()
    };
    let mut options = BrokerOptions::new("/data", store);
    options.retention_interval = Duration::from_secs(1);
    let machine = sapwood_sim::environment(1);
    let environment = Environment {
        clock: Environment::real().clock,
        ..machine
    };
    let broker = Broker::open_in(environment, options, Arc::default()).await?;
    let config = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let topic = NewTopic {
        partitions: Some(partitions),
        configs: vec![
            config("durability", "os"),
            config("segment.bytes", "1024"),
            config("retention.bytes", "1000000"),
        ],
        ..NewTopic::named("many")
    };
    broker.create_topic(topic).await?;
    // One batch fills a segment.
    for _ in 0..segments {
        for partition in 0..partitions {
            produce(&broker, PartitionId(partition)).await?;
        }
    }
    println!("{partitions} partitions with {segments} segments each");
    let passes = || {
        let pass = &broker.metrics().retention.pass;
        (pass.counts().iter().sum::<u64>(), pass.sum())
    };
    // What the appends made due is done first.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = passes();
    while passes().0 < before.0 + PASSES {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let after = passes();
    let count = u32::try_from(after.0 - before.0)?;
    println!("{count} passes: {:?} each", (after.1 - before.1) / count);
    let metrics = &broker.metrics().retention;
    println!("{} segments removed", metrics.segments.get());
    Ok(())
}

async fn produce(broker: &Broker, partition: PartitionId) -> Result<(), Box<dyn Error>> {
    let mut builder = BatchBuilder::new(Codec::None);
    let timestamp = Timestamp(broker.environment().clock.now().0);
    builder.push(RecordInput {
        timestamp,
        key: None,
        value: Some(&[7; 1000]),
        headers: &[],
    })?;
    let request = Produce {
        topic: "many".into(),
        partition,
        batch: builder.build()?.to_bytes(),
        acks: Acks::Leader,
        expected_end: None,
        auto_create: false,
    };
    broker.produce(request).await?.await?;
    Ok(())
}
