//! Small data directories, one for each way in which a process may have ended, and what is promised
//! about them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use sapwood_log::{
    AppendOptions, DataDir, JournalStep, Known, LogConfig, OpenError, Partition, PartitionSpec,
    Progress, Store, StoreOptions,
    inspect::{Options, inspect},
    io::{Clock, Disk, Environment, OpenMode},
};
use sapwood_model::{
    Durability, LeaderEpoch, Offset, PartitionId, ProducerEpoch, ProducerId, Timestamp, TopicId,
    TopicName,
};
use sapwood_record::{Batch, BatchBuilder, Codec, ProducerStamp, RecordInput};
use sapwood_sim::{Machine, Rng};

pub(crate) const ROOT: &str = "/data";

pub(crate) type Key = (TopicId, PartitionId);

/// A batch as it stands in its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogBatch {
    pub(crate) base: Offset,
    pub(crate) next: Offset,
    pub(crate) timestamp: Timestamp,
    pub(crate) bytes: Bytes,
}

/// What one partition must and may hold.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    pub(crate) spec: PartitionSpec,
    /// Every batch that was ever appended.
    pub(crate) appended: Vec<LogBatch>,
    /// Acknowledged, for good, as far as the scene's end goes.
    pub(crate) floor: Offset,
    /// Synced in the segments by the last checkpoint.
    pub(crate) checkpoint: Offset,
}

/// How the last process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    CleanStop,
    Kill,
    PowerCut,
    /// A kill, after a start that took a partition offline and set its journal entries aside.
    SetAside,
}

impl End {
    pub(crate) const ALL: [End; 4] = [End::CleanStop, End::Kill, End::PowerCut, End::SetAside];

    pub(crate) fn name(self) -> &'static str {
        match self {
            End::CleanStop => "clean stop",
            End::Kill => "kill",
            End::PowerCut => "power cut",
            End::SetAside => "set aside",
        }
    }
}

/// A machine that is off, and its promises.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) end: End,
    pub(crate) machine: Machine,
    pub(crate) logs: BTreeMap<Key, Log>,
    /// What files held at earlier moments.
    pub(crate) older: Vec<(PathBuf, Vec<u8>)>,
    /// The last round of the journal: file and position.
    pub(crate) last_round: Option<(PathBuf, u64)>,
}

impl Scene {
    fn note_checkpoints(&mut self) {
        let machine = self.machine.fork();
        let (options, progress) = (Options::default(), Progress::default());
        let environment = machine.environment();
        let report = inspect(&environment, Path::new(ROOT), &options, &progress).unwrap();
        for seen in report.partitions {
            let key = (seen.topic_id.unwrap(), seen.partition);
            let log = self.logs.get_mut(&key).unwrap();
            log.checkpoint = seen.checkpoint_end.unwrap_or_default();
        }
    }

    pub(crate) fn specs(&self) -> Vec<PartitionSpec> {
        self.logs.values().map(|log| log.spec.clone()).collect()
    }
}

fn spec(topic: &str, id: u128, partition: u32, durability: Durability) -> PartitionSpec {
    PartitionSpec {
        topic: TopicName::new(topic).unwrap(),
        topic_id: TopicId(id),
        partition: PartitionId(partition),
        log_start: Offset::ZERO,
        config: LogConfig {
            durability,
            segment_bytes: 1_100,
            index_interval_bytes: 200,
            ..LogConfig::default()
        },
    }
}

/// Both partitions of `pine` get batches of the same shape, so that their files look alike.
fn specs() -> Vec<PartitionSpec> {
    vec![
        spec("elm", 1, 0, Durability::Fsync),
        spec("oak", 2, 0, Durability::Os),
        spec("pine", 3, 0, Durability::Fsync),
        spec("pine", 3, 1, Durability::Fsync),
    ]
}

/// Opens the data directory as a broker would.
pub(crate) fn open(
    environment: Environment,
    boot_id: String,
    partitions: Vec<PartitionSpec>,
) -> Result<Arc<Store>, OpenError> {
    let options = StoreOptions {
        ballast_bytes: 8 << 10,
        journal_file_bytes: 64 << 10,
        journal_files: 3,
        boot_id,
        // Checkpoints are taken where the test says.
        os_checkpoint_interval: Duration::from_secs(1 << 30),
        ..StoreOptions::default()
    };
    let dir = DataDir::open(environment, Path::new(ROOT))?;
    let known = Known {
        partitions,
        deleted: Vec::new(),
    };
    Ok(Store::open(dir, options, known, &Progress::default())?.0)
}

/// A process at work, and what it was told.
struct Workload {
    machine: Machine,
    store: Arc<Store>,
    logs: BTreeMap<Key, Log>,
    sequences: BTreeMap<Key, i32>,
    older: Vec<(PathBuf, Vec<u8>)>,
}

impl Workload {
    fn begin(seed: u64) -> Self {
        let machine = Machine::new(seed);
        let store = open(machine.environment(), machine.disk.boot_id(), Vec::new()).unwrap();
        store.create_partitions(specs()).unwrap();
        let log = |spec: PartitionSpec| Log {
            floor: spec.log_start,
            checkpoint: spec.log_start,
            appended: Vec::new(),
            spec,
        };
        let logs = specs()
            .into_iter()
            .map(|spec| ((spec.topic_id, spec.partition), log(spec)));
        // `verify` looks for the catalog's file; only the broker reads it.
        let disk = &machine.environment().disk;
        disk.create_dir(&Path::new(ROOT).join("catalog")).unwrap();
        let path = Path::new(ROOT).join("catalog/catalog.log");
        let file = disk.open(&path, OpenMode::Create).unwrap();
        file.write_at(&[b"catalog"], 0).unwrap();
        disk.sync_filesystem(Path::new(ROOT)).unwrap();
        Self {
            logs: logs.collect(),
            machine,
            store,
            sequences: BTreeMap::new(),
            older: Vec::new(),
        }
    }

    fn partition(&self, key: Key) -> Arc<Partition> {
        self.store.partition(key.0, key.1).unwrap()
    }

    /// Appends one batch of some records to each partition.
    fn append_all(&mut self, number: u64) {
        let keys: Vec<Key> = self.logs.keys().copied().collect();
        for key in keys {
            // elm gets few batches: its log is young, and mostly in the journal.
            if key.0 == TopicId(1) && number % 4 != 1 {
                continue;
            }
            self.append(key, number);
        }
    }

    fn append(&mut self, key: Key, number: u64) {
        let records = 1 + number % 3;
        let sequence = self.sequences.entry(key).or_default();
        let stamp = ProducerStamp {
            id: ProducerId(7 + u64::from(key.1.0)),
            epoch: ProducerEpoch(0),
            base_sequence: *sequence,
            last_sequence: *sequence + records as i32 - 1,
        };
        *sequence += records as i32;
        let mut builder = BatchBuilder::new(Codec::None);
        if key.0 != TopicId(2) {
            builder = builder.with_producer(stamp);
        }
        for record in 0..records {
            let value = format!("{}-{} {number} {record}", key.0.0, key.1);
            let timestamp = Timestamp(1_000 + 10 * (number as i64 % 7) + number as i64);
            builder
                .push(RecordInput {
                    timestamp,
                    key: None,
                    value: Some(value.as_bytes()),
                    headers: &[],
                })
                .unwrap();
        }
        let batch = builder.build().unwrap();
        let partition = self.partition(key);
        let now = self.machine.clock.now();
        partition
            .append(&batch, AppendOptions::default(), now)
            .unwrap();
        let log = self.logs.get_mut(&key).unwrap();
        let base = log.appended.last().map_or(Offset::ZERO, |last| last.next);
        log.appended
            .push(stamped(&batch, base, partition.leader_epoch()));
    }

    /// Everything that waits is durable afterwards.
    fn flush(&self) {
        while self.store.step_journal() == JournalStep::Synced {}
    }

    /// Checkpoints, and keeps what the files hold.
    fn checkpoint(&mut self) {
        self.flush();
        self.store.step_maintenance().unwrap();
        self.store.checkpoint().unwrap();
        self.keep_files();
    }

    fn keep_files(&mut self) {
        let disk = self.machine.disk.process();
        for path in files(&disk) {
            let bytes = read_file(&disk, &path);
            self.older.push((path, bytes));
        }
    }

    /// The process ends without a word and another one starts.
    fn restart(&mut self) {
        self.machine.disk.kill();
        let specs = self.logs.values().map(|log| log.spec.clone()).collect();
        let (environment, boot) = (self.machine.environment(), self.machine.disk.boot_id());
        self.store = open(environment, boot, specs).unwrap();
    }

    /// What everybody was promised, when the process ends like this now.
    fn promises(&self, end: End) -> BTreeMap<Key, Log> {
        let mut logs = self.logs.clone();
        for (key, log) in &mut logs {
            let bounds = self.partition(*key).bounds();
            let is_os = log.spec.config.durability == Durability::Os;
            log.floor = match end {
                End::CleanStop => bounds.log_end,
                End::Kill | End::SetAside => bounds.high_watermark,
                End::PowerCut if is_os => Offset::ZERO,
                End::PowerCut => bounds.high_watermark,
            };
        }
        logs
    }
}

/// The directory in its four states.
pub(crate) fn scenes(seed: u64) -> Vec<Scene> {
    let mut work = Workload::begin(seed);
    let numbers = |range: std::ops::Range<u64>| range;
    for number in numbers(0..5) {
        work.append_all(number);
        work.flush();
    }
    work.checkpoint();
    work.restart();
    for number in numbers(5..16) {
        work.append_all(number);
        work.flush();
    }
    // Deletes the records of a first segment, and a part of the second.
    let key = (TopicId(3), PartitionId(1));
    let log_start = work.logs[&key].appended[9].base;
    work.partition(key).trim(log_start).unwrap();
    work.logs.get_mut(&key).unwrap().spec.log_start = log_start;
    work.checkpoint();
    work.restart();
    for number in numbers(16..20) {
        work.append_all(number);
        work.flush();
    }
    work.checkpoint();
    // From here on everything is above the checkpoint. The rounds fill more than a file.
    for number in numbers(20..36) {
        work.append_all(number);
        work.flush();
        if number == 30 {
            work.keep_files();
        }
    }
    // Nobody was told that these are durable.
    work.append_all(36);

    let killed = work.machine.fork();
    let power_cut = work.machine.fork();
    power_cut.disk.power_cut(&mut Rng::new(seed));
    let (kill, cut) = (work.promises(End::Kill), work.promises(End::PowerCut));
    let aside = set_aside(&killed.fork(), &kill);
    let older = work.older.clone();
    let scene = |end, machine, logs| Scene {
        end,
        machine,
        logs,
        older: older.clone(),
        last_round: None,
    };
    let mut scenes = vec![
        scene(End::Kill, killed, kill.clone()),
        scene(End::PowerCut, power_cut, cut),
        scene(End::SetAside, aside, kill),
    ];
    work.store.close().unwrap();
    let logs = work.promises(End::CleanStop);
    let machine = work.machine.fork();
    scenes.insert(0, scene(End::CleanStop, machine, logs));
    for scene in &mut scenes {
        scene.last_round = last_round(&scene.machine);
        scene.note_checkpoints();
    }
    scenes
}

/// A start in which a partition is offline, so that its entries are copied aside; then its file is as
/// it was before.
fn set_aside(machine: &Machine, logs: &BTreeMap<Key, Log>) -> Machine {
    let disk = machine.disk.process();
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|name| name == "log");
    let in_folder = |path: &PathBuf| path.starts_with(Path::new(ROOT).join("topics/pine-0"));
    let segments: Vec<(PathBuf, Vec<u8>)> = files(&disk)
        .into_iter()
        .filter(|path| is_segment(path) && in_folder(path))
        .map(|path| (path.clone(), read_file(&disk, &path)))
        .collect();
    for (path, _) in &segments {
        disk.open(path, OpenMode::Write)
            .unwrap()
            .set_len(1)
            .unwrap();
    }
    let specs = logs.values().map(|log| log.spec.clone()).collect();
    let store = open(machine.environment(), machine.disk.boot_id(), specs).unwrap();
    assert!(
        files(&disk)
            .iter()
            .any(|path| path.starts_with(Path::new(ROOT).join("aside"))),
        "nothing was set aside"
    );
    drop(store);
    machine.disk.kill();
    let disk = machine.disk.process();
    for (path, bytes) in &segments {
        write_file(&disk, path, bytes);
    }
    machine.fork()
}

fn stamped(batch: &Batch, base: Offset, epoch: LeaderEpoch) -> LogBatch {
    let mut batch = batch.clone();
    batch.header_mut().set_base_offset(base);
    batch.header_mut().set_leader_epoch(epoch);
    LogBatch {
        base,
        next: batch.header().next_offset(),
        timestamp: batch.header().max_timestamp(),
        bytes: batch.to_bytes(),
    }
}

/// Where the round with the highest number is.
fn last_round(machine: &Machine) -> Option<(PathBuf, u64)> {
    let disk = machine.disk.process();
    let mut last = None;
    for path in files(&disk) {
        if path.extension().is_none_or(|name| name != "journal") {
            continue;
        }
        let bytes = read_file(&disk, &path);
        for position in (8192..bytes.len()).step_by(4096) {
            // The byte table of a round's header is in docs/format.md.
            if bytes[position..].starts_with(b"SWJR") {
                let number = &bytes[position + 32..position + 40];
                let number = u64::from_be_bytes(number.try_into().unwrap());
                last = last.max(Some((number, path.clone(), position as u64)));
            }
        }
    }
    last.map(|(_, path, position)| (path, position))
}

/// Every file of the data directory, in the order of the names.
pub(crate) fn files(disk: &dyn Disk) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(ROOT)];
    while let Some(folder) = folders.pop() {
        for entry in disk.read_dir(&folder).unwrap() {
            let path = folder.join(entry.name);
            if entry.is_dir {
                folders.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

pub(crate) fn read_file(disk: &dyn Disk, path: &Path) -> Vec<u8> {
    let file = disk.open(path, OpenMode::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    let read = file.read_at(&mut bytes, 0).unwrap();
    assert_eq!(read, bytes.len());
    bytes
}

/// Makes the file hold these bytes and nothing else.
pub(crate) fn write_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) {
    let file = disk.open(path, OpenMode::Create).unwrap();
    file.set_len(0).unwrap();
    file.write_at(&[bytes], 0).unwrap();
}
