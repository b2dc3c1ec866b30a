//! Directories to inspect, and what to do to them.

use std::{
    collections::BTreeMap,
    fs,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use sapwood_log::{
    AppendOptions, DataDir, JournalStep, Known, LogConfig, Partition, PartitionSpec, Progress,
    Store, StoreOptions,
    inspect::{Finding, Options, Report, inspect},
    io::Environment,
};
use sapwood_model::{Durability, Offset, PartitionId, Timestamp, TopicId, TopicName};
use sapwood_record::{Batch, BatchBuilder, Codec, RecordInput};
use tempfile::TempDir;

/// Segments hold 20 batches of 196 bytes, and have an index entry every third batch.
pub(crate) const SEGMENT_BYTES: u64 = 4_096;
pub(crate) const BATCH_BYTES: usize = 196;

pub(crate) fn batch(number: u64) -> Batch {
    let mut builder = BatchBuilder::new(Codec::None);
    let value = format!("{number:0126}");
    let timestamp = Timestamp(1_000 + i64::try_from(number).unwrap());
    let value = Some(value.as_bytes());
    builder
        .push(RecordInput {
            timestamp,
            key: None,
            value,
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

pub(crate) fn open(path: &Path, boot: &str, specs: &[PartitionSpec]) -> Arc<Store> {
    let dir = DataDir::open(Environment::real(), path).unwrap();
    let options = StoreOptions {
        ballast_bytes: 0,
        journal_file_bytes: 256 << 10,
        boot_id: boot.into(),
        ..StoreOptions::default()
    };
    let known = Known {
        partitions: specs.to_vec(),
        deleted: Vec::new(),
    };
    Store::open(dir, options, known, &Progress::default())
        .unwrap()
        .0
}

pub(crate) fn fill(partition: &Partition, numbers: Range<u64>) {
    for number in numbers {
        partition
            .append(&batch(number), AppendOptions::default(), Timestamp(0))
            .unwrap();
    }
}

pub(crate) fn commit(store: &Store) {
    while store.step_journal() == JournalStep::Synced {}
}

/// A directory with an fsync and an os topic of 100 batches each, and what stands for a catalog.
/// Checkpointed at 50 when it is not stopped cleanly.
pub(crate) fn directory(clean: bool) -> TempDir {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path(), "boot", &[]);
    let partitions: Vec<_> = [Durability::Fsync, Durability::Os]
        .into_iter()
        .zip(1..)
        .map(|(durability, id)| store.create_partition(spec(id, durability)).unwrap())
        .collect();
    for numbers in [0..50, 50..100] {
        for partition in &partitions {
            fill(partition, numbers.clone());
        }
        commit(&store);
        if numbers.end == 50 {
            store.checkpoint().unwrap();
        }
    }
    if clean {
        store.close().unwrap();
    }
    fs::create_dir_all(dir.path().join("catalog")).unwrap();
    fs::write(dir.path().join("catalog/catalog.log"), b"catalog").unwrap();
    dir
}

pub(crate) fn look(path: &Path, options: &Options<'_>) -> Report {
    inspect(&Environment::real(), path, options, &Progress::default()).unwrap()
}

pub(crate) fn verify(path: &Path) -> Report {
    look(
        path,
        &Options {
            checksums: true,
            boot_id: Some("boot"),
        },
    )
}

pub(crate) fn verify_after_reboot(path: &Path) -> Report {
    look(
        path,
        &Options {
            checksums: true,
            boot_id: Some("another boot"),
        },
    )
}

pub(crate) fn fsync_folder(dir: &TempDir) -> PathBuf {
    dir.path().join("topics/topic-1-0")
}

pub(crate) fn os_folder(dir: &TempDir) -> PathBuf {
    dir.path().join("topics/topic-2-0")
}

pub(crate) fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let names = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = names
        .filter(|path| path.to_str().unwrap().ends_with(ending))
        .collect();
    found.sort();
    found
}

pub(crate) fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

pub(crate) fn only(report: &Report) -> &Finding {
    assert_eq!(report.findings.len(), 1, "{:#?}", report.findings);
    &report.findings[0]
}

/// Every file below a folder with its content.
pub(crate) fn contents(folder: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            contents(&path, found);
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
}
