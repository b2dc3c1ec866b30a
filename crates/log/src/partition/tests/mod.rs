//! Tests of one partition against a real directory, with a store that only remembers what it is
//! told.

mod faults;
mod journal;
mod model;
mod readers;
mod retain;
mod scrub;
mod space;
mod upkeep;
mod writing;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use sapwood_model::{
    Durability as Kept, LeaderEpoch, Offset, PartitionId, ProducerEpoch, ProducerId, Timestamp,
    TopicId, TopicName,
};
use sapwood_record::{Batch, BatchBuilder, Codec, ProducerStamp, RecordInput};

use self::faults::{Faults, faulty};
use super::*;
use crate::{
    durability::{Retired, Space},
    index::SegmentIndex,
    metrics::StoreMetrics,
};

const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// A store that does nothing.
#[derive(Debug)]
struct Recorder {
    appended: parking_lot::Mutex<Vec<(u64, bool)>>,
    maintenance: AtomicU64,
    dirtied: AtomicU64,
    read_only: AtomicBool,
    /// What is free for everybody.
    free: AtomicU64,
    ballast_is_out: AtomicBool,
    lacks: AtomicU64,
    removal_step: AtomicU64,
    retired: parking_lot::Mutex<Vec<Retired>>,
    metrics: StoreMetrics,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            appended: parking_lot::Mutex::default(),
            maintenance: AtomicU64::new(0),
            dirtied: AtomicU64::new(0),
            read_only: AtomicBool::new(false),
            free: AtomicU64::new(u64::MAX),
            ballast_is_out: AtomicBool::new(false),
            lacks: AtomicU64::new(0),
            removal_step: AtomicU64::new(u64::MAX),
            retired: parking_lot::Mutex::default(),
            metrics: StoreMetrics::default(),
        }
    }
}

impl Durability for Recorder {
    fn appended(&self, _: &Arc<Partition>, bytes: u64, urgent: bool) {
        self.appended.lock().push((bytes, urgent));
    }
    fn wants_maintenance(&self, _: &Arc<Partition>) {
        self.maintenance.fetch_add(1, Relaxed);
    }
    fn dirtied(&self, _: &Arc<Partition>, bytes: u64) {
        self.dirtied.fetch_add(bytes, Relaxed);
    }
    fn read_only(&self) -> Option<Arc<str>> {
        self.read_only
            .load(Relaxed)
            .then(|| "the journal failed".into())
    }
    fn with_ballast(&self, op: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        op()
    }
    fn bytes_of(&self, space: Space) -> u64 {
        match (space, self.ballast_is_out.load(Relaxed)) {
            (Space::Ahead, true) => 0,
            (Space::Ballast, true) => u64::MAX,
            _ => self.free.load(Relaxed),
        }
    }
    fn lacks(&self, bytes: u64) {
        self.lacks.store(bytes, Relaxed);
    }
    fn removal_step_bytes(&self) -> u64 {
        self.removal_step.load(Relaxed)
    }
    fn retire(&self, retired: Retired) {
        self.retired.lock().push(retired);
    }
    fn sync_folder(&self, _: &Partition) -> Result<(), Arc<str>> {
        Ok(())
    }
    fn metrics(&self) -> &StoreMetrics {
        &self.metrics
    }
}

/// A partition in a temporary folder.
struct Fixture {
    folder: tempfile::TempDir,
    config: LogConfig,
    tail: TailKind,
    environment: Environment,
    faults: Arc<Faults>,
    store: Arc<Recorder>,
    open_files: Arc<OpenFiles>,
    partition: Arc<Partition>,
}

impl Fixture {
    fn new(config: LogConfig, tail: TailKind) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (environment, faults) = faulty(Environment::real());
        let store = Arc::new(Recorder::default());
        let open_files = Arc::new(OpenFiles::new(2));
        let parts = PartitionParts {
            spec: spec(&config, Offset(0)),
            folder: folder.path().to_owned(),
            segments: vec![SegmentParts {
                base_offset: Offset(0),
                bytes: 0,
                index: None,
            }],
            log_end: Offset(0),
            leader_epoch: LeaderEpoch(0),
            epochs: EpochList::default(),
            producers: ProducerTable::default(),
        };
        let durability: Arc<dyn Durability> = store.clone();
        let partition = Partition::assemble(
            parts,
            environment.clone(),
            tail,
            Arc::clone(&open_files),
            durability,
        );
        Self {
            folder,
            config,
            tail,
            environment,
            faults,
            store,
            open_files,
            partition,
        }
    }

    /// An os partition with segments of this size.
    fn os(segment_bytes: u64) -> Self {
        Self::new(config(Kept::Os, segment_bytes), TailKind::Mmap)
    }

    /// An fsync partition with segments of this size.
    fn fsync(segment_bytes: u64) -> Self {
        Self::new(config(Kept::Fsync, segment_bytes), TailKind::Mmap)
    }

    fn append(&self, batch: &Batch) -> Appended {
        self.partition
            .append(batch, AppendOptions::default(), NOW)
            .unwrap()
    }

    /// Everything the journal has to take is taken and durable.
    fn make_durable(&self) {
        while let Some(last) = self.partition.take_unjournaled(u64::MAX).last() {
            self.partition.advance_durable(last.end_offset);
        }
    }

    fn maintain(&self) {
        while self.partition.maintain(NOW) {}
    }

    /// A checkpoint of this partition.
    fn checkpoint(&self) -> Cut {
        let mut cut = self.partition.cut();
        cut.write_indexes().unwrap();
        cut.files()
            .iter()
            .for_each(|file| file.sync_data().unwrap());
        self.partition.cut_synced(&cut);
        cut
    }

    /// Closes the partition and builds it again from its files and its last cut.
    fn reopen(&mut self) {
        let mut cut = self.partition.close().unwrap();
        cut.write_indexes().unwrap();
        let mut bases: Vec<Offset> = self
            .files()
            .iter()
            .filter_map(|name| names::parse_segment_file_name(name))
            .chain([cut.segment])
            .collect();
        bases.sort_unstable();
        bases.dedup();
        let disk = &*self.environment.disk;
        let segments = bases.into_iter().map(|base_offset| {
            let path = self
                .folder
                .path()
                .join(names::segment_file_name(base_offset));
            let index = (base_offset == cut.segment).then(|| {
                let segment = crate::index::IndexedSegment {
                    owner: SegmentKey {
                        topic_id: self.partition.spec.topic_id,
                        partition: self.partition.spec.partition,
                        base_offset,
                    },
                    end_offset: cut.end,
                    bytes: cut.position,
                    interval_bytes: self.config.index_interval_bytes,
                };
                let counts = IndexCounts {
                    offsets: cut.index_entries,
                    times: cut.time_index_entries,
                    ..IndexCounts::default()
                };
                SegmentIndex::load(disk, self.folder.path(), &segment, counts)
                    .unwrap()
                    .unwrap()
            });
            let bytes = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
            SegmentParts {
                base_offset,
                bytes,
                index,
            }
        });
        let parts = PartitionParts {
            spec: spec(&self.config, self.partition.bounds().log_start),
            folder: self.folder.path().to_owned(),
            segments: segments.collect(),
            log_end: cut.end,
            leader_epoch: LeaderEpoch(cut.leader_epoch.0 + 1),
            epochs: EpochList::decode(&cut.epochs.encode()).unwrap(),
            producers: ProducerTable::decode(&cut.producers).unwrap(),
        };
        self.store = Arc::new(Recorder::default());
        self.open_files = Arc::new(OpenFiles::new(2));
        self.partition = Partition::assemble(
            parts,
            self.environment.clone(),
            self.tail,
            Arc::clone(&self.open_files),
            self.store.clone(),
        );
    }

    fn files(&self) -> Vec<String> {
        let entries = self.environment.disk.read_dir(self.folder.path()).unwrap();
        entries.into_iter().map(|entry| entry.name).collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Everything that can be read, batch by batch.
    fn read_all(&self) -> Vec<Batch> {
        read_from(&self.partition, self.partition.bounds().log_start, 1 << 20)
    }

    fn offline_reason(&self) -> String {
        match self.partition.state() {
            PartitionState::Online => String::new(),
            PartitionState::Offline { reason } => reason.to_string(),
        }
    }
}

fn config(durability: Kept, segment_bytes: u64) -> LogConfig {
    LogConfig {
        durability,
        segment_bytes,
        index_interval_bytes: 300,
        ..LogConfig::default()
    }
}

fn spec(config: &LogConfig, log_start: Offset) -> PartitionSpec {
    PartitionSpec {
        topic: TopicName::new("flights").unwrap(),
        topic_id: TopicId(7),
        partition: PartitionId(3),
        log_start,
        config: config.clone(),
    }
}

/// Reads on until nothing comes any more, and checks that whole batches come in order.
fn read_from(partition: &Partition, from: Offset, bytes_max: usize) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    let mut at = from;
    loop {
        let (bytes, next) = read(partition, at, bytes_max).unwrap();
        if bytes.is_empty() {
            assert_eq!(next, at);
            return batches;
        }
        for batch in sapwood_record::batches(bytes) {
            let batch = batch.unwrap();
            batch.verify_crc().unwrap();
            let header = batch.header();
            let follows = batches
                .last()
                .map_or(from.max(header.base_offset()), |b| b.header().next_offset());
            assert!(header.base_offset() <= follows && follows < header.next_offset());
            batches.push(batch);
        }
        assert_eq!(batches.last().unwrap().header().next_offset(), next);
        at = next;
    }
}

fn read(
    partition: &Partition,
    from: Offset,
    bytes_max: usize,
) -> Result<(Bytes, Offset), ReadError> {
    let limits = ReadLimits {
        bytes_max,
        upto: Offset(u64::MAX),
    };
    let resident = partition.read(from, limits, ReadMode::Resident)?;
    match resident {
        Read::Batches { bytes, next } => Ok((bytes, next)),
        Read::Cold => match partition.read(from, limits, ReadMode::Blocking)? {
            Read::Batches { bytes, next } => Ok((bytes, next)),
            Read::Cold => panic!("a read that may wait is never cold"),
        },
    }
}

/// A batch with one record for each timestamp and this many bytes of value in each.
fn batch_at(timestamps: &[i64], value_bytes: usize) -> Batch {
    build(BatchBuilder::new(Codec::None), timestamps, value_bytes)
}

/// One record of now.
fn batch(value_bytes: usize) -> Batch {
    batch_at(&[NOW.0], value_bytes)
}

/// A producer's batch of one record.
fn sequenced(id: u64, epoch: u16, sequence: i32) -> Batch {
    let stamp = ProducerStamp {
        id: ProducerId(id),
        epoch: ProducerEpoch(epoch),
        base_sequence: sequence,
        last_sequence: sequence,
    };
    build(
        BatchBuilder::new(Codec::None).with_producer(stamp),
        &[NOW.0],
        10,
    )
}

fn build(mut builder: BatchBuilder, timestamps: &[i64], value_bytes: usize) -> Batch {
    let value = vec![b'x'; value_bytes];
    for &timestamp in timestamps {
        let timestamp = Timestamp(timestamp);
        let record = RecordInput {
            timestamp,
            key: None,
            value: Some(&value),
            headers: &[],
        };
        builder.push(record).unwrap();
    }
    builder.build().unwrap()
}
