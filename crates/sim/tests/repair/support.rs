//! Directories to damage and to repair, and the records that should be in them.

use std::{
    collections::BTreeMap,
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use sapwood_log::{
    AppendOptions, DataDir, JournalStep, Known, LogConfig, OpenError, Partition, PartitionSpec,
    PartitionState, Progress, Read, ReadError, ReadLimits, ReadMode, Store, StoreOptions,
    inspect::{self, Report},
    io::{Disk, Environment, OpenMode},
    repair::{self, Options, Plan, Repaired},
};
use sapwood_model::{Durability, Offset, PartitionId, Timestamp, TopicId, TopicName};
use sapwood_record::{Batch, BatchBuilder, Codec, RecordInput, batches};
use sapwood_sim::SimDisk;

pub(crate) const ROOT: &str = "/data";

/// A disk with a data directory on it.
#[derive(Debug, Clone)]
pub(crate) struct World(pub(crate) SimDisk);

impl World {
    pub(crate) fn environment(&self) -> Environment {
        Environment {
            disk: Arc::new(self.0.process()),
            ..sapwood_sim::environment(1)
        }
    }

    pub(crate) fn boot(&self) -> String {
        self.0.boot_id()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        Path::new(ROOT).join(name)
    }

    pub(crate) fn folder(&self, topic: u128) -> PathBuf {
        self.path(&format!("topics/topic-{topic}-0"))
    }

    pub(crate) fn segment(&self, topic: u128, base: u64) -> PathBuf {
        self.folder(topic).join(format!("{base:020}.log"))
    }

    pub(crate) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.0.process().open(path, OpenMode::Read)?;
        let mut bytes = vec![0; usize::try_from(file.len()?).unwrap()];
        file.read_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) {
        let disk = self.0.process();
        let file = disk.open(path, OpenMode::Create).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        file.write_at(&[bytes], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(path.parent().unwrap()).unwrap();
    }

    pub(crate) fn change(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.read(path).unwrap();
        change(&mut bytes);
        self.write(path, &bytes);
    }

    pub(crate) fn remove(&self, path: &Path) {
        let disk = self.0.process();
        for entry in disk.read_dir(path).unwrap_or_default() {
            self.remove(&path.join(entry.name));
        }
        let removed = disk.remove_file(path).or_else(|_| disk.remove_dir(path));
        removed.unwrap();
        disk.sync_dir(path.parent().unwrap()).unwrap();
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) {
        let disk = self.0.process();
        disk.rename(from, to).unwrap();
        disk.sync_dir(from.parent().unwrap()).unwrap();
        disk.sync_dir(to.parent().unwrap()).unwrap();
    }

    /// Every file below a folder with its content.
    pub(crate) fn contents(&self, folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        for entry in self.0.process().read_dir(folder).unwrap() {
            let path = folder.join(&entry.name);
            match entry.is_dir {
                true => found.extend(self.contents(&path)),
                // What cannot be read counts as empty.
                false => drop(found.insert(path.clone(), self.read(&path).unwrap_or_default())),
            }
        }
        found
    }
}

static CLEAN: LazyLock<World> = LazyLock::new(|| make(true));
static UNCLEAN: LazyLock<World> = LazyLock::new(|| make(false));

/// A directory with an fsync and an os topic of 100 batches each, and what stands for a catalog.
/// Checkpointed at 50 when it is not stopped cleanly.
pub(crate) fn directory(clean: bool) -> World {
    let world = if clean { &CLEAN } else { &UNCLEAN };
    World(world.0.fork())
}
/// Segments hold 20 batches of 196 bytes, and have an index entry every third batch.
pub(crate) const SEGMENT_BYTES: u64 = 4_096;
pub(crate) const BATCH_BYTES: usize = 196;

/// The value of the record with this offset.
pub(crate) fn value(number: u64) -> String {
    format!("{number:0126}")
}

pub(crate) fn batch(number: u64) -> Batch {
    let mut builder = BatchBuilder::new(Codec::None);
    let value = value(number);
    builder
        .push(RecordInput {
            timestamp: Timestamp(1_000 + i64::try_from(number).unwrap()),
            key: None,
            value: Some(value.as_bytes()),
            headers: &[],
        })
        .unwrap();
    let batch = builder.build().unwrap();
    assert_eq!(batch.size_bytes(), BATCH_BYTES);
    batch
}

pub(crate) fn spec(id: u128, durability: Durability) -> PartitionSpec {
    PartitionSpec {
        topic: TopicName::new(&format!("topic-{id}")).unwrap(),
        topic_id: TopicId(id),
        partition: PartitionId(0),
        log_start: Offset::ZERO,
        config: LogConfig {
            durability,
            segment_bytes: SEGMENT_BYTES,
            index_interval_bytes: 500,
            ..LogConfig::default()
        },
    }
}

/// Topic 1 is fsync, topic 2 os.
pub(crate) fn specs() -> Vec<PartitionSpec> {
    vec![spec(1, Durability::Fsync), spec(2, Durability::Os)]
}

pub(crate) fn known() -> Known {
    Known {
        partitions: specs(),
        deleted: Vec::new(),
    }
}

pub(crate) fn try_open(world: &World, known: Known) -> Result<Arc<Store>, OpenError> {
    let dir = DataDir::open(world.environment(), Path::new(ROOT))?;
    let options = StoreOptions {
        ballast_bytes: 0,
        journal_file_bytes: 256 << 10,
        journal_files: 2,
        boot_id: world.boot(),
        ..StoreOptions::default()
    };
    Store::open(dir, options, known, &Progress::default()).map(|(store, _)| store)
}

pub(crate) fn fill(partition: &Partition, numbers: Range<u64>) {
    for number in numbers {
        let options = AppendOptions::default();
        partition
            .append(&batch(number), options, Timestamp(0))
            .unwrap();
    }
}

pub(crate) fn commit(store: &Store) {
    while store.step_journal() == JournalStep::Synced {}
}

fn make(clean: bool) -> World {
    let world = World(SimDisk::new(7));
    let store = try_open(&world, Known::default()).unwrap();
    let partitions = store.create_partitions(specs()).unwrap();
    for numbers in [0..50, 50..100] {
        for partition in &partitions {
            fill(partition, numbers.clone());
        }
        commit(&store);
        store.step_maintenance().unwrap();
        if numbers.end == 50 {
            store.checkpoint().unwrap();
        }
    }
    if clean {
        store.close().unwrap();
    }
    drop(store);
    world
        .0
        .process()
        .create_dir(&world.path("catalog"))
        .unwrap();
    world.write(&world.path("catalog/catalog.log"), b"catalog");
    world.0.process().sync_filesystem(Path::new(ROOT)).unwrap();
    world
}

pub(crate) fn plan(world: &World) -> Plan {
    let (known, boot) = (known(), world.boot());
    plan_with(
        world,
        &Options {
            boot_id: Some(&boot),
            known: Some(&known),
            ..Options::default()
        },
    )
}

pub(crate) fn plan_with(world: &World, options: &Options<'_>) -> Plan {
    repair::plan(
        &world.environment(),
        Path::new(ROOT),
        options,
        &Progress::default(),
    )
    .unwrap()
}

pub(crate) fn apply(plan: Plan) -> Repaired {
    plan.apply(&Progress::default()).unwrap().unwrap()
}

pub(crate) fn verify(world: &World) -> Report {
    let boot = world.boot();
    let options = inspect::Options {
        checksums: true,
        boot_id: Some(&boot),
    };
    inspect::inspect(
        &world.environment(),
        Path::new(ROOT),
        &options,
        &Progress::default(),
    )
    .unwrap()
}

/// The values of a partition by offset, as a consumer reads them from its log start.
pub(crate) fn read(partition: &Arc<Partition>) -> BTreeMap<u64, String> {
    try_read(partition).unwrap()
}

pub(crate) fn try_read(partition: &Arc<Partition>) -> Result<BTreeMap<u64, String>, ReadError> {
    let mut found = BTreeMap::new();
    let bounds = partition.bounds();
    let mut from = bounds.log_start;
    while from < bounds.high_watermark {
        let limits = ReadLimits {
            bytes_max: 1 << 20,
            upto: bounds.high_watermark,
        };
        let read = partition.read(from, limits, ReadMode::Blocking)?;
        let Read::Batches { bytes, next, .. } = read else {
            panic!("{from}: {read:?}");
        };
        for batch in batches(bytes) {
            let batch = batch.unwrap();
            batch.verify_crc().unwrap();
            for record in batch.records(1 << 20).unwrap() {
                let record = record.unwrap();
                let text = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                assert!(found.insert(record.offset.0, text).is_none());
            }
        }
        assert!(next > from, "a reader comes on from {from}");
        from = next;
    }
    Ok(found)
}

/// What a topic's consumer reads after the next start.
pub(crate) fn read_topic(world: &World, topic: u128) -> BTreeMap<u64, String> {
    let store = try_open(world, known()).unwrap();
    let partition = store.partition(TopicId(topic), PartitionId(0)).unwrap();
    read(&partition)
}

/// Opens the directory, and demands that everything is online and that each topic has exactly its
/// records but those named, goes on at the end it had, and is sound after a clean stop.
pub(crate) fn serves(world: &World, ends: [u64; 2], lost: [Range<u64>; 2]) {
    let report = verify(world);
    assert!(report.is_sound(), "{:#?}", report.findings);
    let store = try_open(world, known()).unwrap();
    for ((spec, end), lost) in specs().into_iter().zip(ends).zip(lost) {
        let partition = store.partition(spec.topic_id, spec.partition).unwrap();
        let state = partition.state();
        assert!(
            !matches!(state, PartitionState::Offline { .. }),
            "{state:?}"
        );
        let expected: BTreeMap<u64, String> = (0..end)
            .filter(|number| !lost.contains(number))
            .map(|number| (number, value(number)))
            .collect();
        let found = read(&partition);
        assert_eq!(partition.bounds().log_end, Offset(end), "{}", spec.topic);
        assert!(found == expected, "{}: {:?}", spec.topic, found.keys());
        fill(&partition, end..end + 30);
    }
    commit(&store);
    for (spec, end) in specs().into_iter().zip(ends) {
        let partition = store.partition(spec.topic_id, spec.partition).unwrap();
        assert_eq!(read(&partition).last_key_value().unwrap().0, &(end + 29));
    }
    store.close().unwrap();
    drop(store);
    let report = verify(world);
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
}
