//! A log with keys on the simulated machine, and beside it a plain list of what was appended.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sapwood_log::compaction::{CompactError, CompactionOptions, CompactionStats, Stepped};
use sapwood_log::inspect::{self, Severity};
use sapwood_log::io::{Clock, Disk};
use sapwood_log::{
    AppendOptions, DataDir, JournalStep, Known, LogConfig, Partition, PartitionSpec,
    PartitionState, Progress, Read, ReadLimits, ReadMode, Store, StoreOptions,
};
use sapwood_model::{
    Durability, Offset, PartitionId, ProducerEpoch, ProducerId, Timestamp, TopicId, TopicName,
};
use sapwood_record::{
    Batch, BatchBuilder, Codec, ProducerStamp, Record, RecordHeader, RecordInput, batches,
};
use sapwood_sim::{Machine, Rng};

use crate::model::End;
use crate::world::{DATA, Outcome};

const TOPIC_ID: TopicId = TopicId(7);
const TOPIC: &str = "accounts";
const PARTITION: PartitionId = PartitionId(0);
/// Tombstones stay for so long.
pub(crate) const RETENTION: Duration = Duration::from_secs(60);
const DECOMPRESSED_BYTES_MAX: usize = 1 << 20;
const CODECS: [Codec; 5] = [
    Codec::None,
    Codec::Gzip,
    Codec::Snappy,
    Codec::Lz4,
    Codec::Zstd,
];

/// A run of compaction that came to its end.
#[derive(Debug, Clone, Copy)]
struct Run {
    began: Timestamp,
    upto: Offset,
    /// Where the log started when it began.
    log_start: Offset,
}

/// One log: the machine, what runs on it, and the reference.
pub(crate) struct Log {
    pub(crate) machine: Machine,
    store: Option<Arc<Store>>,
    pub(crate) partition: Option<Arc<Partition>>,
    config: LogConfig,
    pub(crate) log_start: Offset,
    /// All records that were appended and not lost, by offset.
    pub(crate) records: Vec<Record>,
    /// Everything below must survive whatever happens.
    floor: usize,
    runs: Vec<Run>,
    /// When a run began that may have removed tombstones.
    begun: Vec<Timestamp>,
    /// The next sequence number of each producer.
    sequences: BTreeMap<ProducerId, i32>,
    /// Memory for the map of keys.
    pub(crate) dedupe_bytes: usize,
}

/// What is found in a log.
pub(crate) type Found = BTreeMap<Offset, Record>;

impl Log {
    pub(crate) fn new(machine: Machine, rng: &mut Rng) -> Log {
        let config = LogConfig {
            durability: *rng.pick(&[Durability::Fsync, Durability::Os]),
            segment_bytes: *rng.pick(&[1500, 4000, 9000]),
            index_interval_bytes: *rng.pick(&[100, 1024, 4096]),
            ..LogConfig::default()
        };
        Log {
            machine,
            store: None,
            partition: None,
            config,
            log_start: Offset::ZERO,
            records: Vec::new(),
            floor: 0,
            runs: Vec::new(),
            begun: Vec::new(),
            sequences: BTreeMap::new(),
            dedupe_bytes: 1 << 20,
        }
    }

    /// A copy that knows as much.
    pub(crate) fn fork(&self) -> Log {
        Log {
            machine: self.machine.fork(),
            store: None,
            partition: None,
            config: self.config.clone(),
            records: self.records.clone(),
            runs: self.runs.clone(),
            begun: self.begun.clone(),
            sequences: self.sequences.clone(),
            ..*self
        }
    }

    fn spec(&self) -> PartitionSpec {
        PartitionSpec {
            topic: TopicName::new(TOPIC).unwrap(),
            topic_id: TOPIC_ID,
            partition: PARTITION,
            log_start: self.log_start,
            config: self.config.clone(),
        }
    }

    fn options(&self) -> StoreOptions {
        StoreOptions {
            ballast_bytes: 16 * 1024,
            journal_file_bytes: 64 * 1024,
            journal_files: 3,
            removal_step_bytes: 1000,
            boot_id: self.machine.disk.boot_id(),
            ..StoreOptions::default()
        }
    }

    /// Opens the data directory, and makes the partition the first time. What was lost is known
    /// afterwards.
    pub(crate) fn open(&mut self) -> Outcome {
        let dir = DataDir::open(self.machine.environment(), Path::new(DATA));
        let is_new = self.records.is_empty() && self.floor == 0;
        let known = Known {
            partitions: if is_new {
                Vec::new()
            } else {
                vec![self.spec()]
            },
            deleted: Vec::new(),
        };
        let opened =
            dir.and_then(|dir| Store::open(dir, self.options(), known, &Progress::default()));
        let (store, _) = opened.map_err(|error| format!("the store does not open: {error}"))?;
        if is_new {
            store
                .create_partition(self.spec())
                .map_err(|error| error.to_string())?;
        }
        let partition = store
            .partition(TOPIC_ID, PARTITION)
            .ok_or("the partition is not there")?;
        self.store = Some(store);
        self.partition = Some(Arc::clone(&partition));
        if let PartitionState::Offline { reason } = partition.state() {
            return Err(format!("offline: {reason}"));
        }
        let end = partition.bounds().log_end.0 as usize;
        if end < self.floor || end > self.records.len() {
            let (floor, known) = (self.floor, self.records.len());
            return Err(format!(
                "the log ends at {end}; {floor} to {known} is right"
            ));
        }
        self.records.truncate(end);
        for state in partition.producers() {
            self.sequences
                .insert(state.id, state.last_sequence.wrapping_add(1));
        }
        Ok(())
    }

    pub(crate) fn crash(&mut self, end: End, rng: &mut Rng) {
        match end {
            End::PowerCut => self.machine.disk.power_cut(rng),
            End::Clean | End::Kill => self.machine.disk.kill(),
        }
        (self.store, self.partition) = (None, None);
    }

    pub(crate) fn stop(&mut self) -> Outcome {
        let store = self.store.take().ok_or("not open")?;
        self.partition = None;
        store.close().map_err(|error| error.to_string())
    }

    fn running(&self) -> Outcome<Arc<Partition>> {
        self.partition.clone().ok_or_else(|| "not open".to_owned())
    }

    /// Some records in one batch, of few keys, some of them tombstones.
    pub(crate) fn append(&mut self, rng: &mut Rng) -> Outcome {
        let partition = self.running()?;
        let count = 1 + rng.below(6);
        let keys = *rng.pick(&[3, 12, 40]);
        let base = partition.bounds().log_end;
        let mut builder = BatchBuilder::new(*rng.pick(&CODECS));
        let producer = ProducerId(1 + rng.below(4));
        if producer.0 > 1 {
            let base_sequence = *self.sequences.get(&producer).unwrap_or(&0);
            builder = builder.with_producer(ProducerStamp {
                id: producer,
                epoch: ProducerEpoch(0),
                base_sequence,
                last_sequence: 0,
            });
            self.sequences
                .insert(producer, base_sequence + count as i32);
        }
        let now = self.machine.clock.now();
        let mut records = Vec::new();
        for n in 0..count {
            let key = Bytes::from(format!("key-{}", rng.below(keys)));
            let most = *rng.pick(&[1, 40, 400]);
            let length = rng.below(most) as usize;
            let value = (0..length).map(|_| rng.next_u64() as u8).collect();
            let header = RecordHeader {
                key: Bytes::from_static(b"n"),
                value: rng.chance(1, 2).then(|| vec![n as u8].into()),
            };
            let has_header = rng.chance(1, 4);
            records.push(Record {
                offset: base.add(n),
                timestamp: Timestamp(now.0 + rng.below(100) as i64 - 50),
                key: Some(key),
                value: rng.chance(4, 5).then_some(value),
                headers: has_header.then_some(header).into_iter().collect(),
            });
        }
        for record in &records {
            let input = RecordInput {
                timestamp: record.timestamp,
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: &record.headers,
            };
            builder.push(input).map_err(|error| error.to_string())?;
        }
        let batch = builder.build().map_err(|error| error.to_string())?;
        partition
            .append(&batch, AppendOptions::default(), now)
            .map_err(|error| error.to_string())?;
        self.records.extend(records);
        Ok(())
    }

    /// Everything is durable, sealed where it can be, and in a checkpoint.
    pub(crate) fn settle(&mut self) -> Outcome {
        let store = self.store.clone().ok_or("not open")?;
        while store.step_journal() == JournalStep::Synced {}
        store
            .step_maintenance()
            .map_err(|error| error.to_string())?;
        store.checkpoint().map_err(|error| error.to_string())?;
        store
            .step_maintenance()
            .map_err(|error| error.to_string())?;
        self.floor = self.records.len();
        Ok(())
    }

    /// What is fsync is durable, and no checkpoint knows of it: a recovery writes it anew from the journal.
    pub(crate) fn sync(&mut self) -> Outcome {
        let store = self.store.clone().ok_or("not open")?;
        while store.step_journal() == JournalStep::Synced {}
        store
            .step_maintenance()
            .map_err(|error| error.to_string())?;
        if self.config.durability == Durability::Fsync {
            self.floor = self.records.len();
        }
        Ok(())
    }

    /// The active segment ends, so that it can be compacted, too.
    pub(crate) fn roll(&mut self) -> Outcome {
        let partition = self.running()?;
        let (end, now) = (partition.bounds().log_end, self.machine.clock.now());
        partition
            .roll(end, now)
            .map_err(|error| error.to_string())?;
        self.settle()
    }

    pub(crate) fn trim(&mut self, rng: &mut Rng) -> Outcome {
        let partition = self.running()?;
        let bounds = partition.bounds();
        let to = bounds.log_start.0 + rng.below(bounds.high_watermark.0 - bounds.log_start.0 + 1);
        self.log_start = Offset(to);
        self.floor = self.floor.max(to as usize);
        partition
            .trim(self.log_start)
            .map_err(|error| error.to_string())
    }

    /// Compacts everything that can be.
    pub(crate) fn compact(&mut self) -> Outcome<Option<CompactionStats>> {
        let compacted = self.compact_in_steps(1 << 20, u64::MAX, |_| Ok(()));
        compacted.map_err(|error| error.to_string())
    }

    /// The same in steps of so many bytes, with something between any two. It is given up after so many.
    pub(crate) fn compact_in_steps(
        &mut self,
        step_bytes: u64,
        steps_max: u64,
        mut between: impl FnMut(&Log) -> Outcome,
    ) -> Result<Option<CompactionStats>, Box<dyn std::error::Error>> {
        let partition = self.partition.clone().ok_or(CompactError::Changed)?;
        let Some(log) = partition.compactable()? else {
            return Ok(None);
        };
        let Some(last) = log.segments.last() else {
            return Ok(None);
        };
        let upto = last.offsets.end;
        let began = self.machine.clock.now();
        self.begun.push(began);
        let mut compactor = partition.compactor(CompactionOptions {
            upto,
            dedupe_bytes: self.dedupe_bytes,
            delete_retention_ms: RETENTION.as_millis() as u64,
            decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
        })?;
        for _ in 0..steps_max {
            if compactor.step(step_bytes)? == Stepped::Done {
                self.runs.push(Run {
                    began,
                    upto,
                    log_start: log.log_start,
                });
                return Ok(Some(compactor.stats()));
            }
            between(self)?;
        }
        Ok(None)
    }

    /// Everything that can be read, by offset. The batches are contiguous from the log start's on.
    pub(crate) fn read(&self, bytes_max: usize) -> Outcome<Found> {
        let partition = self.running()?;
        let mut from = partition.bounds().log_start;
        let end = partition.bounds().high_watermark;
        let mut found = Found::new();
        let mut expected = None;
        while from < end {
            let limits = ReadLimits {
                bytes_max,
                upto: Offset(u64::MAX),
            };
            let read = partition.read(from, limits, ReadMode::Blocking);
            let Read::Batches { bytes, next } = read.map_err(|error| error.to_string())? else {
                return Err("a read that may wait found it cold".to_owned());
            };
            if bytes.is_empty() || next <= from {
                return Err(format!(
                    "nothing is read at {from}, and the log ends at {end}"
                ));
            }
            let mut records = 0;
            for batch in batches(bytes) {
                let batch: Batch = batch.map_err(|error| error.to_string())?;
                batch.verify_crc().map_err(|error| error.to_string())?;
                let header = batch.header();
                if header.next_offset() <= from
                    || expected.is_some_and(|e| header.base_offset() < e)
                {
                    return Err(format!("{header:?} is read at {from}"));
                }
                expected = Some(header.next_offset());
                for record in batch
                    .records(DECOMPRESSED_BYTES_MAX)
                    .map_err(|e| e.to_string())?
                {
                    let record = record.map_err(|error| error.to_string())?;
                    records += 1;
                    if record.offset >= self.log_start {
                        found.insert(record.offset, record);
                    }
                }
            }
            if records == 0 && next < end {
                return Err(format!("an answer from {from} to {next} has no record"));
            }
            from = next;
        }
        Ok(found)
    }

    /// Holds what is there against the reference.
    pub(crate) fn check(&self, found: &Found) -> Outcome {
        let end = self.running()?.bounds().high_watermark;
        let all = &self.records[..end.0 as usize];
        let now = self.machine.clock.now();
        for record in found.values() {
            if all.get(record.offset.0 as usize) != Some(record) {
                return Err(format!("{record:?} was never appended there"));
            }
        }
        self.check_times(found)?;
        let cleaned = self.runs.iter().map(|run| run.upto).max();
        let cleaned = cleaned.unwrap_or(Offset::ZERO);
        let began = self.begun.first().copied();
        let mut later: BTreeMap<&Bytes, Offset> = BTreeMap::new();
        let mut later_clean: BTreeMap<&Bytes, Offset> = BTreeMap::new();
        for record in all.iter().rev() {
            if record.offset < self.log_start {
                break;
            }
            let key = record.key.as_ref().ok_or("a key")?;
            let is_latest = later.insert(key, record.offset).is_none();
            let is_latest_clean =
                record.offset < cleaned && later_clean.insert(key, record.offset).is_none();
            let is_there = found.contains_key(&record.offset);
            let is_tombstone = record.value.is_none();
            // Since the first run began that saw it, it stays for the time of retention.
            let may_go =
                is_tombstone && began.is_some_and(|began| began.0 + ms(RETENTION) <= now.0);
            if is_latest && !is_there && !may_go {
                return Err(format!(
                    "{record:?} is missing; it is the latest of its key"
                ));
            }
            if began.is_none() && !is_there {
                return Err(format!("{record:?} is missing, and nothing was compacted"));
            }
            if record.offset < cleaned && !is_latest_clean && is_there {
                return Err(format!(
                    "{record:?} is there; the log is compacted up to {cleaned}, and another follows"
                ));
            }
            let must_go = is_tombstone && is_latest_clean && self.must_be_gone(record.offset);
            if must_go && is_there {
                return Err(format!("{record:?} is there; its time is over"));
            }
        }
        Ok(())
    }

    /// Records are found by their times.
    fn check_times(&self, found: &Found) -> Outcome {
        let partition = self.running()?;
        let times: Vec<Timestamp> = found.values().map(|record| record.timestamp).collect();
        let latest = times.iter().max().copied();
        let some = times.len() / 3;
        let asked = times.iter().skip(some).take(2).copied().chain(latest);
        for at in asked.flat_map(|at| [at, Timestamp(at.0 + 1)]) {
            let expected = found.values().find(|record| record.timestamp >= at);
            let expected = expected.map(|record| (record.timestamp, record.offset));
            let answer = partition
                .find_timestamp(at)
                .map_err(|error| error.to_string())?;
            let answer = answer.map(|answer| (answer.timestamp, answer.offset));
            if answer != expected {
                return Err(format!("{at:?} is found at {answer:?}, not {expected:?}"));
            }
        }
        let answer = partition
            .find_max_timestamp()
            .map_err(|error| error.to_string())?;
        match answer.map(|answer| answer.timestamp) == latest {
            true => Ok(()),
            false => Err(format!(
                "the largest timestamp is {latest:?}, not that of {answer:?}"
            )),
        }
    }

    /// Whether a run gave a tombstone its horizon and another one began after that.
    fn must_be_gone(&self, offset: Offset) -> bool {
        let saw = |run: &&Run| run.upto > offset && run.log_start <= offset;
        let first = self.runs.iter().find(saw);
        first.is_some_and(|first| {
            let over = first.began.0 + ms(RETENTION);
            self.runs.iter().any(|run| saw(&run) && run.began.0 >= over)
        })
    }

    /// `storage verify` finds nothing wrong with what a crash has left.
    pub(crate) fn verify(&self) -> Outcome {
        let environment = self.machine.environment();
        let boot_id = self.machine.disk.boot_id();
        let options = inspect::Options {
            checksums: true,
            boot_id: Some(&boot_id),
        };
        let report = inspect::inspect(&environment, Path::new(DATA), &options, &Default::default())
            .map_err(|error| error.to_string())?;
        let damage = report.findings.iter();
        let damage: Vec<_> = damage
            .filter(|finding| finding.severity == Severity::Damage)
            // This log has no catalog.
            .filter(|finding| !finding.file.ends_with("catalog.log"))
            .collect();
        match damage.is_empty() {
            true => Ok(()),
            false => Err(format!("verify finds {damage:?}")),
        }
    }

    /// The files of the log, by name.
    pub(crate) fn files(&self) -> Vec<String> {
        let folder = Path::new(DATA).join("topics").join(format!("{TOPIC}-0"));
        let entries = self.machine.disk.read_dir(&folder).unwrap_or_default();
        entries.into_iter().map(|entry| entry.name).collect()
    }
}

fn ms(time: Duration) -> i64 {
    time.as_millis() as i64
}
