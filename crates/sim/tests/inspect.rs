//! An inspection against the recovery that follows it, over everything that a crash may leave: it
//! foresees where each log will end, and finds damage where, and as good as only where, recovery takes
//! a partition offline.
#![allow(clippy::unwrap_used)] // The helpers of a test fail it by panicking.

use std::{path::Path, sync::Arc};

use sapwood_log::{
    AppendOptions, DataDir, JournalStep, Known, LogConfig, PartitionSpec, PartitionState, Progress,
    Store, StoreOptions,
    inspect::{Options, Report, Severity, inspect},
    io::{Disk, Environment, OpenMode},
};
use sapwood_model::{Durability, Offset, PartitionId, Timestamp, TopicId, TopicName};
use sapwood_record::{Batch, BatchBuilder, Codec, RecordInput};
use sapwood_sim::{Capture, Machine, Rng, SimDisk};

const ROOT: &str = "/data";
const SEEDS: std::ops::Range<u64> = 1..4;

fn spec(id: u128, durability: Durability) -> PartitionSpec {
    PartitionSpec {
        topic: TopicName::new(&format!("topic-{id}")).unwrap(),
        topic_id: TopicId(id),
        partition: PartitionId(0),
        log_start: Offset::ZERO,
        config: LogConfig {
            durability,
            segment_bytes: 3_000,
            index_interval_bytes: 500,
            ..LogConfig::default()
        },
    }
}

fn specs() -> Vec<PartitionSpec> {
    vec![
        spec(1, Durability::Fsync),
        spec(2, Durability::Os),
        spec(3, Durability::Fsync),
    ]
}

fn batch(rng: &mut Rng) -> Batch {
    let mut builder = BatchBuilder::new(Codec::None);
    for _ in 0..1 + rng.below(3) {
        let value = vec![0x61; 50 + rng.below(400) as usize];
        let timestamp = Timestamp(1_000 + rng.below(1_000) as i64);
        builder
            .push(RecordInput {
                timestamp,
                key: None,
                value: Some(&value),
                headers: &[],
            })
            .unwrap();
    }
    builder.build().unwrap()
}

fn open(environment: Environment, boot: String, partitions: Vec<PartitionSpec>) -> Arc<Store> {
    let options = StoreOptions {
        ballast_bytes: 0,
        journal_file_bytes: 64 << 10,
        boot_id: boot,
        ..StoreOptions::default()
    };
    let dir = DataDir::open(environment, Path::new(ROOT)).unwrap();
    let known = Known {
        partitions,
        deleted: Vec::new(),
    };
    Store::open(dir, options, known, &Progress::default())
        .unwrap()
        .0
}

/// Appends, rounds, checkpoints and maintenance in random order. Returns the disk as it was at each
/// durability event.
fn crashed_disks(seed: u64) -> Vec<SimDisk> {
    let mut rng = Rng::new(seed);
    let machine = Machine::new(seed);
    let store = open(machine.environment(), machine.disk.boot_id(), Vec::new());
    let partitions = store.create_partitions(specs()).unwrap();
    let environment = machine.environment();
    environment
        .disk
        .create_dir(&Path::new(ROOT).join("catalog"))
        .unwrap();
    let catalog = Path::new(ROOT).join("catalog/catalog.log");
    let file = environment.disk.open(&catalog, OpenMode::Create).unwrap();
    file.write_at(&[b"catalog"], 0).unwrap();
    environment.disk.sync_filesystem(Path::new(ROOT)).unwrap();
    machine.disk.capture(Some(Capture::Syncs));
    for _ in 0..60 {
        match rng.below(10) {
            0 => store.checkpoint().unwrap(),
            1 => store.step_maintenance().unwrap(),
            2 | 3 => while store.step_journal() == JournalStep::Synced {},
            _ => {
                let partition = rng.pick(&partitions);
                partition
                    .append(&batch(&mut rng), AppendOptions::default(), Timestamp(0))
                    .unwrap();
            }
        }
    }
    if rng.chance(1, 2) {
        store.close().unwrap();
    }
    machine
        .disk
        .take_captured()
        .into_iter()
        .map(|captured| captured.disk)
        .collect()
}

fn environment(disk: &SimDisk, seed: u64) -> Environment {
    Environment {
        disk: Arc::new(disk.process()),
        ..sapwood_sim::environment(seed)
    }
}

fn look(disk: &SimDisk, seed: u64) -> Report {
    let boot_id = disk.boot_id();
    let options = Options {
        checksums: true,
        boot_id: Some(&boot_id),
    };
    let environment = environment(disk, seed);
    inspect(
        &environment,
        Path::new(ROOT),
        &options,
        &Progress::default(),
    )
    .unwrap()
}

/// The segments' files, with their lengths.
fn segments(disk: &SimDisk) -> Vec<(std::path::PathBuf, u64)> {
    let disk = disk.process();
    let topics = Path::new(ROOT).join("topics");
    let mut found = Vec::new();
    for folder in disk.read_dir(&topics).unwrap() {
        let folder = topics.join(folder.name);
        for file in disk.read_dir(&folder).unwrap() {
            let path = folder.join(&file.name);
            let bytes = disk.open(&path, OpenMode::Read).unwrap().len().unwrap();
            if file.name.ends_with(".log") && bytes > 0 {
                found.push((path, bytes));
            }
        }
    }
    found
}

#[test]
fn what_a_crash_leaves_is_sound_and_ends_where_recovery_ends_it() {
    let mut survivors = 0;
    for seed in SEEDS {
        println!("seed {seed}");
        let mut rng = Rng::new(seed);
        for crashed in crashed_disks(seed) {
            for power_cut in [false, true, true] {
                let disk = crashed.fork();
                if power_cut {
                    disk.power_cut(&mut rng);
                }
                let report = look(&disk, seed);
                assert!(report.is_sound(), "{:#?}", report.findings);
                assert_eq!(report.count(Severity::Damage), 0);
                let store = open(environment(&disk, seed), disk.boot_id(), specs());
                for partition in store.partitions() {
                    let spec = partition.spec();
                    let seen = report
                        .partitions
                        .iter()
                        .find(|p| p.topic == spec.topic.as_str());
                    let foreseen = seen.map_or(Offset::ZERO, |seen| {
                        // After a power cut an fsync log ends where the journal does.
                        let promised = seen.journal_end.max(seen.checkpoint_end);
                        match (power_cut, spec.config.durability) {
                            (true, Durability::Fsync) if !report.clean_stop => {
                                promised.unwrap_or_default()
                            }
                            _ => seen.end_offset,
                        }
                    });
                    let log_end = partition.bounds().log_end;
                    if seen.is_some_and(|seen| seen.first_offset > log_end) {
                        // Without the catalog nobody knows that the log should begin at 0.
                        assert!(report.count(Severity::Unsettled) > 0);
                        continue;
                    }
                    assert_eq!(foreseen, log_end, "{} {:#?}", spec.topic, report.findings);
                }
                survivors += 1;
            }
        }
    }
    assert!(survivors > 100, "{survivors} survivors");
}

#[test]
fn what_recovery_takes_offline_was_found_before() {
    let (mut offline, mut found) = (0, 0);
    for seed in SEEDS {
        println!("seed {seed}");
        let mut rng = Rng::new(seed);
        for crashed in crashed_disks(seed) {
            let disk = crashed.fork();
            let segments = segments(&disk);
            if segments.is_empty() {
                continue;
            }
            let (path, bytes) = rng.pick(&segments).clone();
            disk.corrupt(&path, rng.below(bytes), 1 << rng.below(8))
                .unwrap();
            let report = look(&disk, seed);
            let damaged = report.count(Severity::Damage) > 0;
            let store = open(environment(&disk, seed), disk.boot_id(), specs());
            let taken = store
                .partitions()
                .iter()
                .filter(|partition| matches!(partition.state(), PartitionState::Offline { .. }))
                .count();
            assert!(damaged || taken == 0, "{path:?}: {:#?}", report.findings);
            offline += taken;
            found += usize::from(damaged);
        }
    }
    assert!(
        offline > 0 && found > offline,
        "{found} found, {offline} offline"
    );
}
