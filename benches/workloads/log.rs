//! What a log costs by itself, in a temporary directory (`TMPDIR` says on which disk): appending to a
//! partition, rounds of the journal, reading batches. Its store has no threads: what they would do is
//! done between two runs.

use std::{hint::black_box, sync::Arc};

use sapwood_log::{
    AppendOptions, DataDir, JournalStep, Known, LogConfig, Partition, PartitionSpec, Progress,
    Read, ReadLimits, ReadMode, Store, StoreOptions,
    io::{Environment, TailKind},
};
use sapwood_model::{Durability, Offset, PartitionId, Timestamp, TopicId, TopicName};
use sapwood_record::{Batch, BatchBuilder, Codec, RecordInput};
use tempfile::TempDir;

use super::{Done, Work, Workload};

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const SEGMENT_BYTES: u64 = 64 << 20;
/// What was appended is trimmed away this often.
const TRIM_BYTES: u64 = 512 << 20;
/// Batches of one record of so many bytes are what is read.
const READ_BATCH_BYTES: usize = 4 << 10;
/// So many of them are in each segment that is read.
const READ_BATCHES: u64 = 1024;

pub(super) const WORKLOADS: &[Workload] = &[
    Workload {
        name: "append to an os partition/100",
        done: Done::Events(1000),
        prepare: || Box::new(Appends::new(1000, 100)),
    },
    Workload {
        name: "append to an os partition/1024",
        done: Done::Events(1000),
        prepare: || Box::new(Appends::new(1000, 1 << 10)),
    },
    Workload {
        name: "append to an os partition/65536",
        done: Done::Bytes(16 * (64 << 10)),
        prepare: || Box::new(Appends::new(16, 64 << 10)),
    },
    Workload {
        name: "append to an os partition/1048576",
        done: Done::Bytes(1 << 20),
        prepare: || Box::new(Appends::new(1, 1 << 20)),
    },
    Workload {
        name: "journal round/1 x 100 B",
        done: Done::Events(1),
        prepare: || Box::new(Round::new(1, 100)),
    },
    Workload {
        name: "journal round/100 x 100 B",
        done: Done::Events(100),
        prepare: || Box::new(Round::new(100, 100)),
    },
    Workload {
        name: "journal round/1000 x 100 B",
        done: Done::Events(1000),
        prepare: || Box::new(Round::new(1000, 100)),
    },
    Workload {
        name: "journal round/1 x 65536 B",
        done: Done::Events(1),
        prepare: || Box::new(Round::new(1, 64 << 10)),
    },
    Workload {
        name: "journal round/16 x 65536 B",
        done: Done::Events(16),
        prepare: || Box::new(Round::new(16, 64 << 10)),
    },
    Workload {
        name: "read from a sealed segment/65536",
        done: Done::Bytes(64 << 10),
        prepare: || reading(Lies::Sealed, 64 << 10),
    },
    Workload {
        name: "read from a sealed segment/1048576",
        done: Done::Bytes(1 << 20),
        prepare: || reading(Lies::Sealed, 1 << 20),
    },
    Workload {
        name: "read from the active segment/65536",
        done: Done::Bytes(64 << 10),
        prepare: || reading(Lies::Active, 64 << 10),
    },
    Workload {
        name: "read from the active segment/1048576",
        done: Done::Bytes(1 << 20),
        prepare: || reading(Lies::Active, 1 << 20),
    },
];

/// A store with partitions of one topic.
struct Bench {
    store: Arc<Store>,
    partitions: Vec<Arc<Partition>>,
    _folder: TempDir,
}

impl Bench {
    fn new(durability: Durability, partitions: u32) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let dir = DataDir::open(Environment::real(), folder.path()).expect("a data directory");
        let options = StoreOptions {
            boot_id: "bench".into(),
            // Whatever the file system is: the two kinds are different work.
            tail: Some(TailKind::Mmap),
            ..StoreOptions::default()
        };
        let opened = Store::open(dir, options, Known::default(), &Progress::default());
        let (store, _) = opened.expect("an empty store opens");
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

    /// Appends to each partition.
    fn append(&self, batch: &Batch) {
        for partition in &self.partitions {
            let appended = partition.append(batch, AppendOptions::default(), NOW);
            black_box(appended.expect("there is space"));
        }
    }

    /// What the store's threads would do by now.
    fn maintain(&self) {
        self.store.step_maintenance().expect("maintenance");
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

/// Appends of one batch to one partition, some of them at once.
struct Appends {
    bench: Bench,
    batch: Batch,
    count: u64,
    since_trim: u64,
}

impl Appends {
    fn new(count: u64, bytes: usize) -> Self {
        Self {
            bench: Bench::new(Durability::Os, 1),
            batch: batch(bytes),
            count,
            since_trim: 0,
        }
    }
}

impl Work for Appends {
    fn run(&mut self) {
        for _ in 0..self.count {
            self.bench.append(&self.batch);
        }
    }

    fn settle(&mut self) {
        self.since_trim += self.count * self.batch.size_bytes() as u64;
        if self.since_trim >= TRIM_BYTES {
            self.since_trim = 0;
            let partition = &self.bench.partitions[0];
            let end = partition.bounds().high_watermark;
            partition.trim(end).expect("everything can be trimmed");
        }
        self.bench.maintain();
    }
}

/// A round of the journal, with one batch from each of some partitions: one write, one sync.
struct Round {
    bench: Bench,
    batch: Batch,
}

impl Round {
    fn new(partitions: u32, bytes: usize) -> Self {
        let round = Self {
            bench: Bench::new(Durability::Fsync, partitions),
            batch: batch(bytes),
        };
        round.bench.append(&round.batch);
        round
    }
}

impl Work for Round {
    fn run(&mut self) {
        while let step @ (JournalStep::Synced | JournalStep::Full) = self.bench.store.step_journal()
        {
            if step == JournalStep::Full {
                self.bench.store.checkpoint().expect("a checkpoint");
            }
        }
    }

    fn settle(&mut self) {
        self.bench.maintain();
        self.bench.append(&self.batch);
    }
}

/// Where the batches are that are read.
#[derive(Clone, Copy, PartialEq)]
enum Lies {
    Sealed,
    Active,
}

/// Reads of whole batches from the middle of a segment.
fn reading(lies: Lies, bytes_max: usize) -> Box<dyn Work> {
    let bench = Bench::new(Durability::Os, 1);
    let batch = batch(READ_BATCH_BYTES);
    let partition = Arc::clone(&bench.partitions[0]);
    (0..READ_BATCHES).for_each(|_| bench.append(&batch));
    let rolled = partition.roll(Offset(READ_BATCHES), NOW);
    assert!(rolled.expect("it can be rolled"), "it is not empty");
    bench.maintain();
    (0..READ_BATCHES).for_each(|_| bench.append(&batch));
    let (from, mode) = match lies {
        Lies::Sealed => (Offset(READ_BATCHES / 2), ReadMode::Blocking),
        Lies::Active => (Offset(READ_BATCHES + READ_BATCHES / 2), ReadMode::Resident),
    };
    let limits = ReadLimits {
        bytes_max,
        upto: Offset(u64::MAX),
    };
    Box::new(move || {
        let read = bench.partitions[0].read(from, limits, mode);
        let Ok(Read::Batches { bytes, .. }) = black_box(read) else {
            panic!("nothing was read");
        };
        assert!(bytes.len() + batch.size_bytes() > bytes_max);
    })
}
