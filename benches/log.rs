//! What a log costs by itself, in a temporary directory (`TMPDIR` says on which disk): appending to a
//! partition, and rounds of the journal.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sapwood_log::{
    AppendOptions, DataDir, JournalStep, Known, LogConfig, Partition, PartitionSpec, Progress,
    Store, StoreOptions, io::Environment,
};
use sapwood_model::{Durability, Offset, PartitionId, Timestamp, TopicId, TopicName};
use sapwood_record::{Batch, BatchBuilder, Codec, RecordInput};
use tempfile::TempDir;

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const SEGMENT_BYTES: u64 = 64 << 20;
/// What was appended is trimmed away this often, outside of the measured time.
const TRIM_BYTES: u64 = 512 << 20;

/// A store whose threads run only when `background` says so, with partitions of one topic.
struct Bench {
    store: Arc<Store>,
    partitions: Vec<Arc<Partition>>,
    _folder: TempDir,
}

impl Bench {
    fn new(durability: Durability, partitions: u32, background: bool) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let dir = DataDir::open(Environment::real(), folder.path()).expect("a data directory");
        let options = StoreOptions {
            boot_id: "bench".into(),
            ..StoreOptions::default()
        };
        let opened = Store::open(dir, options, Known::default(), &Progress::default());
        let (store, _) = opened.expect("an empty store opens");
        if background {
            store.start();
        }
        let spec = |number| PartitionSpec {
            topic: TopicName::new("bench").expect("a valid name"),
            topic_id: TopicId(1),
            partition: PartitionId(number),
            log_start: Offset(0),
            config: LogConfig {
                durability,
                segment_bytes: SEGMENT_BYTES,
                ..LogConfig::default()
            },
        };
        let create = |number| {
            store
                .create_partition(spec(number))
                .expect("it can be created")
        };
        let partitions = (0..partitions).map(create).collect();
        Self {
            store,
            partitions,
            _folder: folder,
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.store.close().expect("a clean stop");
    }
}

/// One batch with one record.
fn batch(bytes: usize) -> Batch {
    let value = vec![b'x'; bytes];
    let mut builder = BatchBuilder::new(Codec::None);
    let record = RecordInput {
        timestamp: NOW,
        key: None,
        value: Some(&value),
        headers: &[],
    };
    builder.push(record).expect("a small record fits");
    builder.build().expect("a batch with a record can be built")
}

fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append to an os partition");
    for bytes in [100, 1 << 10, 64 << 10, 1 << 20] {
        let bench = Bench::new(Durability::Os, 1, true);
        let partition = &bench.partitions[0];
        let batch = batch(bytes);
        group.throughput(Throughput::Bytes(bytes as u64));
        let mut since_trim = 0;
        group.bench_function(BenchmarkId::from_parameter(bytes), |bencher| {
            bencher.iter_custom(|iterations| {
                let mut spent = Duration::ZERO;
                let mut left = iterations;
                while left > 0 {
                    let run = left.min((TRIM_BYTES / bytes as u64).max(1));
                    let started = Instant::now();
                    for _ in 0..run {
                        let appended = partition.append(&batch, AppendOptions::default(), NOW);
                        appended.expect("there is space");
                    }
                    spent += started.elapsed();
                    left -= run;
                    since_trim += run * bytes as u64;
                    if since_trim >= TRIM_BYTES {
                        since_trim = 0;
                        let end = partition.bounds().high_watermark;
                        partition.trim(end).expect("everything can be trimmed");
                    }
                }
                spent
            });
        });
    }
    group.finish();
}

/// One round: an append to each of some partitions, one write, one sync.
fn rounds(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("journal round");
    for (partitions, bytes) in [
        (1, 100),
        (100, 100),
        (1000, 100),
        (1, 64 << 10),
        (16, 64 << 10),
    ] {
        let bench = Bench::new(Durability::Fsync, partitions, false);
        let batch = batch(bytes);
        group.throughput(Throughput::Elements(u64::from(partitions)));
        group.bench_function(format!("{partitions} x {bytes} B"), |bencher| {
            bencher.iter_custom(|iterations| {
                let mut spent = Duration::ZERO;
                for _ in 0..iterations {
                    for partition in &bench.partitions {
                        let appended = partition.append(&batch, AppendOptions::default(), NOW);
                        appended.expect("there is space");
                    }
                    let started = Instant::now();
                    while let step @ (JournalStep::Synced | JournalStep::Full) =
                        bench.store.step_journal()
                    {
                        if step == JournalStep::Full {
                            bench.store.checkpoint().expect("a checkpoint");
                        }
                    }
                    spent += started.elapsed();
                    bench.store.step_maintenance().expect("maintenance");
                }
                spent
            });
        });
    }
    group.finish();
}

fn settings() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
}

criterion_group! {
    name = benches;
    config = settings();
    targets = append, rounds
}
criterion_main!(benches);
