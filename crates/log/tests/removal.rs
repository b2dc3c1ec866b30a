//! Segments that go, and logs whose end was rolled, on a real directory.
#![allow(clippy::unwrap_used)] // clippy knows test functions, not their helpers

use std::{fs, path::Path, sync::Arc};

use sapwood_log::{
    AppendOptions, DataDir, JournalStep, Known, LogConfig, Partition, PartitionSpec,
    PartitionState, Progress, Read, ReadLimits, ReadMode, RecoveryReport, Store, StoreOptions,
    inspect::{Options, inspect},
    io::{Environment, TailKind},
};
use sapwood_model::{Durability, Offset, PartitionId, Timestamp, TopicId, TopicName};
use sapwood_record::{Batch, BatchBuilder, Codec, RecordInput, batches};
use tempfile::TempDir;

const NOW: Timestamp = Timestamp(1_000);
const BOOT: &str = "one boot";
const STEP_BYTES: u64 = 4096;

fn batch(number: u8) -> Batch {
    let mut builder = BatchBuilder::new(Codec::None);
    let value = [number; 5000];
    let input = RecordInput {
        timestamp: NOW,
        key: None,
        value: Some(&value),
        headers: &[],
    };
    builder.push(input).unwrap();
    builder.build().unwrap()
}

fn spec(log_start: u64, durability: Durability) -> PartitionSpec {
    PartitionSpec {
        topic: TopicName::new("t").unwrap(),
        topic_id: TopicId(7),
        partition: PartitionId(0),
        log_start: Offset(log_start),
        config: LogConfig {
            durability,
            ..LogConfig::default()
        },
    }
}

fn open(path: &Path, specs: &[PartitionSpec]) -> (Arc<Store>, RecoveryReport) {
    let dir = DataDir::open(Environment::real(), path).unwrap();
    let known = Known {
        partitions: specs.to_vec(),
        deleted: Vec::new(),
    };
    let options = StoreOptions {
        ballast_bytes: 0,
        journal_file_bytes: 64 << 10,
        boot_id: BOOT.into(),
        tail: Some(TailKind::Mmap),
        removal_step_bytes: STEP_BYTES,
        ..StoreOptions::default()
    };
    Store::open(dir, options, known, &Progress::default()).unwrap()
}

fn fill(store: &Store, partition: &Partition, numbers: std::ops::Range<u8>) {
    for number in numbers {
        partition
            .append(&batch(number), AppendOptions::default(), NOW)
            .unwrap();
    }
    while store.step_journal() == JournalStep::Synced {}
    store.step_maintenance().unwrap();
}

fn read(partition: &Partition, from: u64) -> bytes::Bytes {
    let limits = ReadLimits {
        bytes_max: 1 << 20,
        upto: Offset(u64::MAX),
    };
    match partition
        .read(Offset(from), limits, ReadMode::Blocking)
        .unwrap()
    {
        Read::Batches { bytes, .. } => bytes,
        Read::Cold => panic!("a read that may wait is never cold"),
    }
}

/// Whether these are the batches that were appended from the first on.
fn are_whole(bytes: bytes::Bytes) -> bool {
    let mut count = 0;
    let whole = batches(bytes).all(|found| {
        count += 1;
        found.is_ok_and(|found| found.verify_crc().is_ok())
    });
    whole && count == 8
}

/// Files of segments, and of those that are removed.
fn files(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path.join("topics/t-0")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.contains(".log")).collect();
    names.sort();
    names
}

fn is_sound(path: &Path) -> bool {
    let options = Options {
        checksums: true,
        boot_id: Some(BOOT),
    };
    let report = inspect(&Environment::real(), path, &options, &Progress::default()).unwrap();
    // There is no catalog, which it says as well.
    let topics = path.join("topics");
    let found = report
        .findings
        .iter()
        .filter(|found| found.file.starts_with(&topics));
    found.inspect(|found| println!("{found}")).count() == 0
}

#[test]
fn a_reader_keeps_its_bytes_of_a_large_segment_that_is_removed() {
    for durability in [Durability::Os, Durability::Fsync] {
        let folder = TempDir::new().unwrap();
        let (store, _) = open(folder.path(), &[]);
        let partition = store.create_partition(spec(0, durability)).unwrap();
        fill(&store, &partition, 0..8);
        // Slices of the mapping: a cut under them would be a signal, or zeros.
        let held = read(&partition, 0);
        assert!(partition.roll(Offset(8), NOW).unwrap());
        partition.trim(Offset(8)).unwrap();
        store.step_maintenance().unwrap();
        assert_eq!(files(folder.path()), [""; 0], "nothing is left of it");
        assert!(are_whole(held));
        fill(&store, &partition, 0..8);
        assert!(are_whole(read(&partition, 8)));
        assert!(matches!(partition.state(), PartitionState::Online));
    }
}

#[test]
fn files_that_wait_for_their_removal_are_gone_after_a_clean_stop_and_after_a_start() {
    for stops_cleanly in [true, false] {
        let folder = TempDir::new().unwrap();
        let (store, _) = open(folder.path(), &[]);
        let partition = store.create_partition(spec(0, Durability::Os)).unwrap();
        fill(&store, &partition, 0..8);
        partition.roll(Offset(8), NOW).unwrap();
        partition.trim(Offset(8)).unwrap();
        if stops_cleanly {
            store.close().unwrap();
        } else {
            // As if the process had been killed between the two.
            let name = folder.path().join("topics/t-0/00000000000000000000.log");
            let removed = name.with_extension("log.removed.tmp");
            fs::rename(name, &removed).unwrap();
            fs::File::options()
                .write(true)
                .open(removed)
                .unwrap()
                .set_len(5000)
                .unwrap();
        }
        drop((partition, store));
        let (store, report) = open(folder.path(), &[spec(8, Durability::Os)]);
        assert_eq!((report.clean, report.offline), (stops_cleanly, 0));
        let partition = store.partition(TopicId(7), PartitionId(0)).unwrap();
        store.step_maintenance().unwrap();
        assert!(
            !files(folder.path())
                .iter()
                .any(|name| name.ends_with(".tmp"))
        );
        assert_eq!(partition.bounds().log_end, Offset(8));
        fill(&store, &partition, 0..8);
        assert!(are_whole(read(&partition, 8)));
    }
}

#[test]
fn a_directory_is_sound_whose_log_ends_with_an_empty_segment() {
    for durability in [Durability::Os, Durability::Fsync] {
        for stops_cleanly in [true, false] {
            for maintains in [true, false] {
                let folder = TempDir::new().unwrap();
                let (store, _) = open(folder.path(), &[]);
                let partition = store.create_partition(spec(0, durability)).unwrap();
                fill(&store, &partition, 0..8);
                store.checkpoint().unwrap();
                assert!(partition.roll(Offset(8), NOW).unwrap());
                if maintains {
                    store.step_maintenance().unwrap();
                    store.checkpoint().unwrap();
                }
                if stops_cleanly {
                    store.close().unwrap();
                }
                drop((partition, store));
                assert!(
                    is_sound(folder.path()),
                    "{durability:?} {stops_cleanly} {maintains}"
                );
                let (store, report) = open(folder.path(), &[spec(0, durability)]);
                assert_eq!((report.clean, report.offline), (stops_cleanly, 0));
                let partition = store.partition(TopicId(7), PartitionId(0)).unwrap();
                assert!(are_whole(read(&partition, 0)));
                fill(&store, &partition, 0..8);
                assert!(are_whole(read(&partition, 8)));
            }
        }
    }
}

#[test]
fn a_log_that_was_cut_to_a_segments_start_opens_after_a_clean_stop() {
    let folder = TempDir::new().unwrap();
    let (store, _) = open(folder.path(), &[]);
    let mut known = spec(0, Durability::Fsync);
    known.config.segment_bytes = 6000; // a batch each
    let partition = store.create_partition(known.clone()).unwrap();
    for number in 0..3 {
        partition
            .append(&batch(number), AppendOptions::default(), NOW)
            .unwrap();
    }
    partition.truncate_to(Offset(2)).unwrap();
    store.close().unwrap();
    drop((partition, store));
    assert!(is_sound(folder.path()));
    let (store, report) = open(folder.path(), &[known]);
    assert_eq!((report.clean, report.offline), (true, 0));
    let partition = store.partition(TopicId(7), PartitionId(0)).unwrap();
    assert_eq!(partition.bounds().log_end, Offset(2));
    fill(&store, &partition, 2..3);
    assert_eq!(batches(read(&partition, 2)).count(), 1);
}
