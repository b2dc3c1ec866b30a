//! The store on a real directory: what a kill, a power cut (played by another boot id) and damage
//! leave behind.
#![allow(clippy::unwrap_used)] // clippy knows test functions, not their helpers

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use sapwood_log::{
    AppendOptions, DataDir, JournalStep, Known, LogConfig, OpenError, Partition, PartitionSpec,
    PartitionState, Progress, Read, ReadLimits, ReadMode, RecoveryReport, Store, StoreOptions,
    io::Environment,
};
use sapwood_model::{Durability, Offset, PartitionId, Timestamp, TopicId, TopicName};
use sapwood_record::{Batch, BatchBuilder, Codec, RecordInput, batches};
use tempfile::TempDir;

const NOW: Timestamp = Timestamp(1_000);

fn batch(value: &str) -> Batch {
    let mut builder = BatchBuilder::new(Codec::None);
    let value = Some(value.as_bytes());
    let input = RecordInput {
        timestamp: NOW,
        key: None,
        value,
        headers: &[],
    };
    builder.push(input).unwrap();
    builder.build().unwrap()
}

fn spec(id: u128, durability: Durability) -> PartitionSpec {
    PartitionSpec {
        topic: TopicName::new(&format!("t{id}")).unwrap(),
        topic_id: TopicId(id),
        partition: PartitionId(0),
        log_start: Offset::ZERO,
        config: LogConfig {
            durability,
            segment_bytes: 4096,
            ..LogConfig::default()
        },
    }
}

/// With segments of 64 KiB instead of 4.
fn roomy(mut spec: PartitionSpec) -> PartitionSpec {
    spec.config.segment_bytes = 64 << 10;
    spec
}

fn options(boot: &str) -> StoreOptions {
    StoreOptions {
        ballast_bytes: 0,
        journal_file_bytes: 64 << 10,
        boot_id: boot.into(),
        ..StoreOptions::default()
    }
}

fn try_open(
    path: &Path,
    boot: &str,
    specs: &[PartitionSpec],
) -> Result<(Arc<Store>, RecoveryReport), OpenError> {
    let dir = DataDir::open(Environment::real(), path)?;
    let known = Known {
        partitions: specs.to_vec(),
        deleted: Vec::new(),
    };
    Store::open(dir, options(boot), known, &Progress::default())
}

fn open(path: &Path, boot: &str, specs: &[PartitionSpec]) -> (Arc<Store>, RecoveryReport) {
    try_open(path, boot, specs).unwrap()
}

fn append(partition: &Partition, value: &str) -> Offset {
    let options = AppendOptions {
        urgent: true,
        ..AppendOptions::default()
    };
    partition
        .append(&batch(value), options, NOW)
        .unwrap()
        .base_offset
}

fn commit(store: &Store) {
    loop {
        match store.step_journal() {
            JournalStep::Idle => return,
            JournalStep::Synced => {}
            JournalStep::Full => store.checkpoint().unwrap(),
            JournalStep::ReadOnly => panic!("read-only: {:?}", store.read_only()),
        }
    }
}

/// Every value that can be read.
fn values(partition: &Partition) -> Vec<String> {
    let mut from = partition.bounds().log_start;
    let mut values = Vec::new();
    loop {
        let limits = ReadLimits {
            bytes_max: 1 << 20,
            upto: Offset(u64::MAX),
        };
        let Read::Batches { bytes, next } =
            partition.read(from, limits, ReadMode::Blocking).unwrap()
        else {
            panic!("a blocking read is never cold")
        };
        if bytes.is_empty() {
            return values;
        }
        for batch in batches(bytes) {
            for record in batch.unwrap().records(1 << 20).unwrap() {
                let value = record.unwrap().value.unwrap();
                values.push(String::from_utf8(value.to_vec()).unwrap());
            }
        }
        from = next;
    }
}

fn numbered(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| format!("{n:0100}")).collect()
}

fn fill(partition: &Partition, range: std::ops::Range<u32>) {
    for value in numbered(range) {
        append(partition, &value);
    }
}

/// The files in a folder with this ending, by name.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().ends_with(ending))
        .collect();
    found.sort();
    found
}

fn flip(path: &Path, position: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[position] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

#[test]
fn fsync_records_are_not_readable_before_their_round_is_synced() {
    let dir = TempDir::new().unwrap();
    let (store, _) = open(dir.path(), "a", &[]);
    let fsync = store.create_partition(spec(1, Durability::Fsync)).unwrap();
    let os = store.create_partition(spec(2, Durability::Os)).unwrap();
    append(&fsync, "x");
    append(&os, "y");
    assert_eq!(
        (fsync.bounds().high_watermark, fsync.bounds().log_end),
        (Offset(0), Offset(1))
    );
    assert!(values(&fsync).is_empty());
    assert_eq!(values(&os), ["y"]);
    assert_eq!(store.step_journal(), JournalStep::Synced);
    assert_eq!(values(&fsync), ["x"]);
    assert_eq!(store.step_journal(), JournalStep::Idle);
}

#[test]
fn a_kill_loses_nothing_that_was_appended() {
    for durability in [Durability::Fsync, Durability::Os] {
        let dir = TempDir::new().unwrap();
        let spec = spec(1, durability);
        let (store, _) = open(dir.path(), "a", &[]);
        let partition = store.create_partition(spec.clone()).unwrap();
        fill(&partition, 0..150);
        commit(&store);
        fill(&partition, 150..200);
        drop((partition, store));
        let (store, report) = open(dir.path(), "a", std::slice::from_ref(&spec));
        assert!(!report.clean);
        let partition = store.partition(spec.topic_id, spec.partition).unwrap();
        assert_eq!(values(&partition), numbered(0..200));
        assert_eq!(partition.leader_epoch().0, 1);
        assert_eq!(append(&partition, "next"), Offset(200));
    }
}

#[test]
fn after_a_power_cut_an_fsync_log_ends_where_the_journal_does() {
    let dir = TempDir::new().unwrap();
    let spec = spec(1, Durability::Fsync);
    let (store, _) = open(dir.path(), "a", &[]);
    let partition = store.create_partition(spec.clone()).unwrap();
    fill(&partition, 0..100);
    commit(&store);
    fill(&partition, 100..120);
    drop((partition, store));
    let (store, report) = open(dir.path(), "b", std::slice::from_ref(&spec));
    let partition = store.partition(spec.topic_id, spec.partition).unwrap();
    assert_eq!(values(&partition), numbered(0..100));
    assert_eq!(report.cut.len(), 1);
    assert_eq!(partition.epochs().last().unwrap().start, Offset(100));
}

#[test]
fn segments_that_were_lost_are_made_again_from_the_journal() {
    let dir = TempDir::new().unwrap();
    let spec = spec(1, Durability::Fsync);
    let (store, _) = open(dir.path(), "a", &[]);
    let partition = store.create_partition(spec.clone()).unwrap();
    fill(&partition, 0..100);
    commit(&store);
    drop((partition, store));
    let segments = files(&dir.path().join("topics/t1-0"), ".log");
    assert!(segments.len() > 2, "{segments:?}");
    for segment in segments {
        fs::remove_file(segment).unwrap();
    }
    let (store, _) = open(dir.path(), "b", std::slice::from_ref(&spec));
    let partition = store.partition(spec.topic_id, spec.partition).unwrap();
    assert_eq!(values(&partition), numbered(0..100));
}

#[test]
fn a_clean_stop_is_opened_without_a_scan_and_without_a_new_epoch() {
    let dir = TempDir::new().unwrap();
    let specs = [spec(1, Durability::Fsync), spec(2, Durability::Os)];
    let (store, _) = open(dir.path(), "a", &[]);
    let mut epochs = HashMap::new();
    for spec in &specs {
        let partition = store.create_partition(spec.clone()).unwrap();
        fill(&partition, 0..100);
        epochs.insert(spec.topic_id, partition.leader_epoch().0);
    }
    assert_ne!(epochs[&specs[0].topic_id], epochs[&specs[1].topic_id]);
    store.close().unwrap();
    drop(store);
    for boot in ["a", "b"] {
        let (store, report) = open(dir.path(), boot, &specs);
        assert!(report.clean);
        assert_eq!(report.rounds, 0);
        for spec in &specs {
            let partition = store.partition(spec.topic_id, spec.partition).unwrap();
            assert_eq!(values(&partition), numbered(0..100));
            assert_eq!(
                partition.leader_epoch().0,
                epochs[&spec.topic_id],
                "each has its own"
            );
        }
        store.close().unwrap();
    }
    // The marker is gone while the store is open: the next opening recovers.
    let (store, _) = open(dir.path(), "b", &specs);
    drop(store);
    assert!(!open(dir.path(), "b", &specs).1.clean);
}

#[test]
fn the_journal_is_used_again_and_again() {
    let dir = TempDir::new().unwrap();
    let spec = roomy(spec(1, Durability::Fsync));
    let (store, _) = open(dir.path(), "a", &[]);
    let partition = store.create_partition(spec.clone()).unwrap();
    for round in 0..40 {
        fill(&partition, round * 100..(round + 1) * 100);
        commit(&store);
        store.step_maintenance().unwrap();
    }
    assert!(store.metrics().journal_bytes.get() > 8 * (64 << 10));
    assert_eq!(files(&dir.path().join("journal"), ".journal").len(), 4);
    drop((partition, store));
    let (store, _) = open(dir.path(), "b", std::slice::from_ref(&spec));
    let partition = store.partition(spec.topic_id, spec.partition).unwrap();
    assert_eq!(values(&partition), numbered(0..4000));
}

#[test]
fn damage_below_the_checkpoint_takes_one_partition_offline_and_says_where() {
    let dir = TempDir::new().unwrap();
    let specs = [spec(1, Durability::Fsync), spec(2, Durability::Fsync)];
    let (store, _) = open(dir.path(), "a", &[]);
    for spec in &specs {
        fill(&store.create_partition(spec.clone()).unwrap(), 0..10);
    }
    commit(&store);
    store.checkpoint().unwrap();
    drop(store);
    let segment = files(&dir.path().join("topics/t1-0"), ".log")[0].clone();
    fs::OpenOptions::new()
        .write(true)
        .open(&segment)
        .unwrap()
        .set_len(100)
        .unwrap();
    for boot in ["a", "b"] {
        let (store, report) = open(dir.path(), boot, &specs);
        assert_eq!(report.offline, 1);
        let broken = store.partition(TopicId(1), PartitionId(0)).unwrap();
        let PartitionState::Offline { reason } = broken.state() else {
            panic!("it is online")
        };
        let reason = reason.to_string();
        assert!(reason.contains("00000000000000000000.log"), "{reason}");
        assert!(reason.contains("offsets 0 to 10"), "{reason}");
        assert!(
            broken
                .append(&batch("x"), AppendOptions::default(), NOW)
                .is_err()
        );
        let whole = store.partition(TopicId(2), PartitionId(0)).unwrap();
        assert_eq!(values(&whole)[..10], numbered(0..10));
        append(&whole, "goes on");
        commit(&store);
        store.close().unwrap();
    }
}

#[test]
fn what_the_journal_has_of_an_offline_partition_outlives_the_journal() {
    let dir = TempDir::new().unwrap();
    let specs = [
        spec(1, Durability::Fsync),
        roomy(spec(2, Durability::Fsync)),
    ];
    let (store, _) = open(dir.path(), "a", &[]);
    for spec in &specs {
        fill(&store.create_partition(spec.clone()).unwrap(), 0..10);
    }
    commit(&store);
    store.checkpoint().unwrap();
    let first = store.partition(TopicId(1), PartitionId(0)).unwrap();
    fill(&first, 10..20);
    commit(&store);
    drop((first, store));
    let folder = dir.path().join("topics/t1-0");
    let segment = files(&folder, ".log")[0].clone();
    let whole = fs::read(&segment).unwrap();
    fs::write(&segment, &whole[..100]).unwrap();
    for turn in 0..3 {
        let (store, _) = open(dir.path(), "a", &specs);
        let second = store.partition(TopicId(2), PartitionId(0)).unwrap();
        // Several turns of the journal.
        for n in 0..40 {
            fill(&second, n * 100..(n + 1) * 100);
            commit(&store);
            store.step_maintenance().unwrap();
        }
        assert!(
            !files(&dir.path().join("aside"), ".entries").is_empty(),
            "turn {turn}"
        );
    }
    // Somebody brings the checkpointed part back; the rest was set aside.
    let mut restored = whole;
    let checkpointed = restored.len();
    restored.truncate(checkpointed);
    fs::write(&segment, &restored).unwrap();
    for later in files(&folder, ".log").into_iter().skip(1) {
        fs::remove_file(later).unwrap();
    }
    let (store, report) = open(dir.path(), "b", &specs);
    assert_eq!(report.offline, 0);
    let first = store.partition(TopicId(1), PartitionId(0)).unwrap();
    assert_eq!(values(&first), numbered(0..20));
    assert!(files(&dir.path().join("aside"), ".entries").is_empty());
}

#[test]
fn a_torn_round_at_the_end_is_cut_and_one_before_a_valid_one_is_damage() {
    for (damaged_round, survives) in [(2, true), (1, false)] {
        let dir = TempDir::new().unwrap();
        let specs = [spec(1, Durability::Fsync), spec(2, Durability::Fsync)];
        let (store, _) = open(dir.path(), "a", &[]);
        let one = store.create_partition(specs[0].clone()).unwrap();
        let two = store.create_partition(specs[1].clone()).unwrap();
        // Three rounds of a page each.
        for (round, partition) in [&one, &one, &two].into_iter().enumerate() {
            append(partition, &round.to_string());
            commit(&store);
        }
        drop((one, two, store));
        let journal = files(&dir.path().join("journal"), ".journal");
        let used = journal
            .iter()
            .find(|path| fs::read(path).unwrap()[0] != 0)
            .unwrap();
        flip(used, 8192 + damaged_round * 4096 + 150);
        let (store, report) = open(dir.path(), "b", &specs);
        let one = store.partition(TopicId(1), PartitionId(0)).unwrap();
        let two = store.partition(TopicId(2), PartitionId(0)).unwrap();
        if survives {
            assert_eq!(report.offline, 0);
            assert_eq!((values(&one).len(), values(&two).len()), (2, 0));
        } else {
            // Nothing can tell what the damaged round held of the first one.
            assert!(matches!(one.state(), PartitionState::Offline { .. }));
            assert_eq!(values(&two), ["2"]);
            assert_eq!(
                report.journal_damage.len(),
                1,
                "{:?}",
                report.journal_damage
            );
        }
    }
}

#[test]
fn deleted_topics_are_forgotten_and_their_names_can_be_used_again() {
    let dir = TempDir::new().unwrap();
    let old = spec(1, Durability::Fsync);
    let (store, _) = open(dir.path(), "a", &[]);
    let partition = store.create_partition(old.clone()).unwrap();
    fill(&partition, 0..10);
    commit(&store);
    fill(&partition, 10..20);
    store.delete_topic(&old.topic, old.topic_id).unwrap();
    assert!(
        partition
            .append(&batch("x"), AppendOptions::default(), NOW)
            .is_err()
    );
    assert!(
        store.forgotten().is_empty(),
        "the journal still has its entries"
    );
    drop(partition);
    let new = PartitionSpec {
        topic_id: TopicId(9),
        ..old.clone()
    };
    let partition = store.create_partition(new.clone()).unwrap();
    fill(&partition, 50..60);
    commit(&store);
    drop((partition, store));

    let dir_handle = DataDir::open(Environment::real(), dir.path()).unwrap();
    let known = Known {
        partitions: vec![new.clone()],
        deleted: vec![old.topic_id],
    };
    let (store, _) = Store::open(dir_handle, options("b"), known, &Progress::default()).unwrap();
    assert_eq!(store.forgotten(), [old.topic_id]);
    let partition = store.partition(new.topic_id, new.partition).unwrap();
    assert_eq!(values(&partition), numbered(50..60));
}

#[test]
fn a_folder_that_nobody_knows_is_set_aside_and_never_removed() {
    let dir = TempDir::new().unwrap();
    let (store, _) = open(dir.path(), "a", &[]);
    fill(
        &store.create_partition(spec(1, Durability::Fsync)).unwrap(),
        0..3,
    );
    store.close().unwrap();
    drop(store);
    drop(open(dir.path(), "a", &[]));
    assert!(
        dir.path()
            .join("quarantine/t1-0/partition.metadata")
            .exists()
    );
}

#[test]
fn directories_that_are_in_use_newer_or_not_ours_are_refused() {
    let dir = TempDir::new().unwrap();
    let (store, _) = open(dir.path(), "a", &[]);
    assert!(matches!(
        try_open(dir.path(), "a", &[]),
        Err(OpenError::InUse { .. })
    ));
    drop(store);

    let other = TempDir::new().unwrap();
    fs::write(other.path().join("letter.txt"), "dear").unwrap();
    assert!(matches!(
        try_open(other.path(), "a", &[]),
        Err(OpenError::NotOurs { .. })
    ));

    let checkpoint = dir.path().join("checkpoint");
    let kept = fs::read(&checkpoint).unwrap();
    flip(&checkpoint, kept.len() - 1);
    assert!(matches!(
        try_open(dir.path(), "a", &[]),
        Err(OpenError::Damaged { .. })
    ));
    fs::remove_file(&checkpoint).unwrap();
    let specs = [spec(1, Durability::Fsync)];
    assert!(matches!(
        try_open(dir.path(), "a", &specs),
        Err(OpenError::Damaged { .. })
    ));
}

#[test]
fn the_threads_commit_and_checkpoint_by_themselves() {
    let dir = TempDir::new().unwrap();
    let (store, _) = open(dir.path(), "a", &[]);
    store.start();
    let partition = store
        .create_partition(roomy(spec(1, Durability::Fsync)))
        .unwrap();
    for n in 0..4000_u32 {
        append(&partition, &format!("{n:0100}"));
    }
    let started = std::time::Instant::now();
    while partition.bounds().high_watermark < Offset(4000) {
        assert!(started.elapsed().as_secs() < 30, "{:?}", partition.bounds());
        std::thread::yield_now();
    }
    store.close().unwrap();
    drop((partition, store));
    let (store, report) = open(dir.path(), "b", &[roomy(spec(1, Durability::Fsync))]);
    assert!(report.clean);
    let partition = store.partition(TopicId(1), PartitionId(0)).unwrap();
    assert_eq!(values(&partition), numbered(0..4000));
}

#[test]
fn a_live_topic_changes_its_durability_without_losing_anything() {
    let dir = TempDir::new().unwrap();
    let os = spec(1, Durability::Os);
    let (store, _) = open(dir.path(), "a", &[]);
    let partition = store.create_partition(os.clone()).unwrap();
    fill(&partition, 0..50);
    store
        .begin_durability(&partition, Durability::Fsync)
        .unwrap();
    store.finish_durability(&partition, Durability::Fsync);
    fill(&partition, 50..60);
    assert_eq!(partition.bounds().high_watermark, Offset(50));
    commit(&store);
    assert_eq!(partition.bounds().high_watermark, Offset(60));
    fill(&partition, 60..70);
    store.begin_durability(&partition, Durability::Os).unwrap();
    store.finish_durability(&partition, Durability::Os);
    fill(&partition, 70..80);
    assert_eq!(partition.bounds().high_watermark, Offset(80));
    drop((partition, store));
    let (store, _) = open(dir.path(), "a", std::slice::from_ref(&os));
    let partition = store.partition(os.topic_id, os.partition).unwrap();
    assert_eq!(values(&partition), numbered(0..80));
}

#[test]
fn what_a_failed_creation_left_is_in_nobodys_way() {
    let dir = TempDir::new().unwrap();
    let (store, _) = open(dir.path(), "a", &[]);
    let mine = spec(1, Durability::Fsync);
    let other = PartitionSpec {
        topic_id: TopicId(7),
        ..mine.clone()
    };
    let folder = dir.path().join("topics/t1-0");
    for left_by in [&mine, &other] {
        fs::create_dir(&folder).unwrap();
        let metadata = format!("version: 0\ntopic_id: {}\n", left_by.topic_id);
        fs::write(folder.join("partition.metadata"), metadata).unwrap();
        let partition = store.create_partition(mine.clone()).unwrap();
        fill(&partition, 0..3);
        commit(&store);
        drop(partition);
        store.delete_topic(&mine.topic, mine.topic_id).unwrap();
    }
    assert!(store.read_only().is_none());
    let aside = dir.path().join("quarantine/t1-0/partition.metadata");
    assert!(aside.exists(), "what another topic left is kept");
}
