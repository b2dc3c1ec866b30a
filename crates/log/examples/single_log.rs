//! One log in one's own process, without a broker, a catalog or an asynchronous runtime: open it, append,
//! wait until that is durable, read everything back.
//!
//! ```sh
//! cargo run -p sapwood-log --example single_log -- ./my-log
//! ```
//!
//! Run it several times over, or kill it: the log grows, and keeps what it said was durable.

use std::{
    env,
    error::Error,
    fs::{self, File},
    path::Path,
    sync::{Arc, mpsc},
};

use sapwood_log::{
    AppendOptions, DataDir, Known, LogConfig, Partition, PartitionObserver, PartitionSpec,
    PartitionState, Progress, Read, ReadLimits, ReadMode, Store, StoreOptions, io::Environment,
};
use sapwood_model::{Offset, PartitionId, TopicId, TopicName};
use sapwood_record::{Batch, BatchBuilder, Codec, RecordInput, batches};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = env::args()
        .nth(1)
        .unwrap_or_else(|| "./single-log".to_owned());
    let environment = Environment::real();
    let clock = Arc::clone(&environment.clock);
    let (store, log) = open(environment, Path::new(&directory))?;

    // Told whenever more of the log is durable, and when it fails.
    let (moved, watermarks) = mpsc::channel();
    log.observe(Arc::new(Moved(moved)));

    let mut durable_at = Offset(0);
    for greeting in ["hello", "bonjour", "salve"] {
        let now = clock.now();
        let batch = batch(greeting, now)?;
        // Somebody waits for it, so it does not stay behind for a later sync.
        let options = AppendOptions {
            urgent: true,
            ..AppendOptions::default()
        };
        durable_at = log.append(&batch, options, now)?.durable_at;
    }
    while log.bounds().high_watermark < durable_at {
        if let PartitionState::Offline { reason } = log.state() {
            return Err(reason.to_string().into());
        }
        watermarks.recv()?;
    }
    println!("durable below offset {durable_at}");

    read(&log)?;
    store.close()?;
    Ok(())
}

/// Opens the data directory and the one log in it. A store does not decide which logs there should be: the
/// program remembers that, durably, before a log is made. Here an empty file beside the directory is
/// enough; a program with more of them writes down their ids, names and log starts.
fn open(
    environment: Environment,
    directory: &Path,
) -> Result<(Arc<Store>, Arc<Partition>), Box<dyn Error>> {
    let spec = PartitionSpec {
        topic: TopicName::new("greetings")?,
        topic_id: TopicId(1),
        partition: PartitionId(0),
        log_start: Offset(0),
        config: LogConfig::default(),
    };
    // Tells a reboot from a restart of the process, which leaves the page cache whole.
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let options = StoreOptions {
        boot_id: boot_id.trim().to_owned(),
        ..StoreOptions::default()
    };
    let remembered = directory.with_extension("remembered");
    let is_new = !remembered.exists();
    let known = Known {
        partitions: if is_new {
            Vec::new()
        } else {
            vec![spec.clone()]
        },
        deleted: Vec::new(),
    };
    let dir = DataDir::open(environment, directory)?;
    let (store, report) = Store::open(dir, options, known, &Progress::default())?;
    println!("opened; the last stop was clean: {}", report.clean);
    store.start();
    if is_new {
        File::create(&remembered)?;
        let folder = remembered
            .parent()
            .filter(|folder| *folder != Path::new(""));
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        let log = store.create_partition(spec)?;
        return Ok((store, log));
    }
    let log = store.partition(spec.topic_id, spec.partition);
    Ok((store, log.ok_or("the log was opened with the store")?))
}

/// Wakes whoever waits for the log.
#[derive(Debug)]
struct Moved(mpsc::Sender<()>);

impl PartitionObserver for Moved {
    fn high_watermark_moved(&self, _: Offset) {
        // Nobody listens any more when the program is about to end.
        let _ = self.0.send(());
    }

    fn failed(&self) {
        let _ = self.0.send(());
    }
}

fn batch(value: &str, now: sapwood_model::Timestamp) -> Result<Batch, Box<dyn Error>> {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.push(RecordInput {
        timestamp: now,
        key: None,
        value: Some(value.as_bytes()),
        headers: &[],
    })?;
    Ok(builder.build()?)
}

/// Prints everything from the start of the log to what is durable.
fn read(log: &Partition) -> Result<(), Box<dyn Error>> {
    let bounds = log.bounds();
    let limits = ReadLimits {
        bytes_max: 1 << 20,
        upto: bounds.high_watermark,
    };
    let mut from = bounds.log_start;
    while from < bounds.high_watermark {
        // This thread may wait for the disk, so the answer is never that the bytes are cold.
        let Read::Batches { bytes, next } = log.read(from, limits, ReadMode::Blocking)? else {
            return Err("a blocking read waits".into());
        };
        for batch in batches(bytes) {
            for record in batch?.records(1 << 20)? {
                let record = record?;
                let value = record.value.unwrap_or_default();
                println!("{}: {}", record.offset, String::from_utf8_lossy(&value));
            }
        }
        from = next;
    }
    Ok(())
}
