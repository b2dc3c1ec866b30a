//! What compaction of a log costs on one core: 1 KiB records with as many keys as one likes.
//!
//! ```text
//! cargo run --release -p sapwood-log --example compaction_rate FOLDER [MIB] [KEYS] [MAP_MIB]
//! ```
//!
//! The folder is made and must not be there. Prints the rate by wall-clock and by CPU time, what is left,
//! and the memory that the map of keys took.

use std::{env, error::Error, path::Path, time::Duration, time::Instant};

use sapwood_log::{
    AppendOptions, DataDir, Known, LogConfig, PartitionSpec, Progress, Store, StoreOptions,
    compaction::{CompactionOptions, Stepped},
    io::Environment,
};
use sapwood_model::{Durability, Offset, PartitionId, Timestamp, TopicId, TopicName};
use sapwood_record::{BatchBuilder, Codec, RecordInput};

const RECORD_BYTES: usize = 1024;
const BATCH_RECORDS: u64 = 16;
const STEP_BYTES: u64 = 1 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let folder = args.next().ok_or("the folder is missing")?;
    let mut numbers = args.map(|number| number.parse::<u64>());
    let mut number = |default| numbers.next().transpose().map(|n| n.unwrap_or(default));
    let (mib, keys, map_mib) = (number(2048)?, number(1_000_000)?, number(128)?);

    let environment = Environment::real();
    let now = environment.clock.now();
    let dir = DataDir::open(environment, Path::new(&folder))?;
    let (store, _) = Store::open(
        dir,
        StoreOptions::default(),
        Known::default(),
        &Progress::default(),
    )?;
    store.start();
    let partition = store.create_partition(PartitionSpec {
        topic: TopicName::new("accounts")?,
        topic_id: TopicId(1),
        partition: PartitionId(0),
        log_start: Offset::ZERO,
        config: LogConfig {
            durability: Durability::Os,
            segment_bytes: 256 << 20,
            ..LogConfig::default()
        },
    })?;
    let mut state = 88_172_645_463_325_252_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let value = vec![b'x'; RECORD_BYTES - 20];
    let records = (mib << 20) / RECORD_BYTES as u64;
    for _ in 0..records / BATCH_RECORDS {
        let mut builder = BatchBuilder::new(Codec::None).with_capacity(20 << 10);
        for _ in 0..BATCH_RECORDS {
            let key = format!("{:012}", random() % keys);
            builder.push(RecordInput {
                timestamp: Timestamp(now.0),
                key: Some(key.as_bytes()),
                value: Some(&value),
                headers: &[],
            })?;
        }
        partition.append(&builder.build()?, AppendOptions::default(), now)?;
    }
    let end = partition.bounds().log_end;
    partition.roll(end, now)?;
    // Sealed, and in a checkpoint.
    let upto = loop {
        store.checkpoint()?;
        let log = partition.compactable()?.ok_or("offline")?;
        match log.segments.last() {
            Some(last) if last.offsets.end == end => break end,
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let before = partition.stats();
    let (began, cpu) = (Instant::now(), cpu_time()?);
    let mut compactor = partition.compactor(CompactionOptions {
        upto,
        dedupe_bytes: usize::try_from(map_mib << 20)?,
        delete_retention_ms: 1000,
        decompressed_bytes_max: 64 << 20,
    })?;
    while compactor.step(STEP_BYTES)? == Stepped::More {}
    let (took, cpu) = (began.elapsed(), cpu_time()? - cpu);
    let stats = compactor.stats();
    drop(compactor);
    let after = partition.stats();
    let megabytes = before.bytes as f64 / 1e6;
    println!("{records} records of {RECORD_BYTES} bytes, {keys} keys");
    println!(
        "{megabytes:.0} MB in {:.2} s: {:.0} MB/s; {:.2} CPU s: {:.0} MB per CPU second",
        took.as_secs_f64(),
        megabytes / took.as_secs_f64(),
        cpu.as_secs_f64(),
        megabytes / cpu.as_secs_f64()
    );
    println!(
        "{} passes, map of {:.1} MiB; {} of {} bytes left in {} of {} segments",
        stats.passes,
        stats.map_bytes as f64 / f64::from(1 << 20),
        after.bytes,
        before.bytes,
        after.segments,
        before.segments
    );
    store.close()?;
    Ok(())
}

/// The CPU time of this thread so far.
fn cpu_time() -> Result<Duration, Box<dyn Error>> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec)?, u32::try_from(time.tv_nsec)?);
    Ok(Duration::new(seconds, nanos))
}
