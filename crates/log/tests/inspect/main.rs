//! What an inspection finds in directories that are whole, torn, and damaged.
#![allow(clippy::unwrap_used)] // The helpers of a test fail it by panicking.

mod support;

use std::{collections::BTreeMap, fs, path::Path};

use sapwood_log::{
    OpenError, Progress,
    inspect::{Finding, Options, Severity, inspect},
    io::Environment,
};
use sapwood_model::{Durability, Offset, PartitionId, Timestamp, TopicId};
use tempfile::TempDir;

use support::*;

#[test]
fn a_clean_directory_has_no_findings_and_is_described_whole() {
    let dir = directory(true);
    for report in [verify(dir.path()), verify_after_reboot(dir.path())] {
        assert_eq!(report.findings, []);
        assert!(report.clean_stop && report.is_sound());
        assert_eq!(report.catalog_bytes, Some(7));
        assert_eq!(report.checkpoint.unwrap().partitions, 2);
        assert!(report.journal.rounds.is_empty());
        assert_eq!(report.partitions.len(), 2);
        for partition in report.partitions {
            assert_eq!(
                (partition.first_offset, partition.end_offset),
                (Offset(0), Offset(100))
            );
            assert_eq!((partition.batches(), partition.records()), (100, 100));
            assert_eq!(partition.batch_bytes(), 100 * BATCH_BYTES as u64);
            assert_eq!(partition.segments.len(), 5);
            for segment in partition.segments {
                assert_eq!(segment.file_bytes, segment.batch_bytes);
                assert_eq!(segment.index_entries, 6);
                let last = i64::try_from(segment.end_offset.0 - 1).unwrap();
                assert_eq!(segment.max_timestamp, Some(Timestamp(1_000 + last)));
            }
        }
    }
}

#[test]
fn an_inspection_changes_nothing() {
    for clean in [true, false] {
        let dir = directory(clean);
        let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
        contents(dir.path(), &mut before);
        verify(dir.path());
        contents(dir.path(), &mut after);
        assert!(before == after);
    }
}

#[test]
fn what_a_kill_leaves_is_sound() {
    let dir = directory(false);
    let report = verify(dir.path());
    assert_eq!(report.findings, []);
    assert!(!report.clean_stop);
    assert!(report.journal.entries > 0 && !report.journal.rounds.is_empty());
    let [fsync, os] = &report.partitions[..] else {
        panic!("two partitions")
    };
    assert_eq!(
        (fsync.end_offset, os.end_offset),
        (Offset(100), Offset(100))
    );
    assert_eq!(fsync.checkpoint_end, Some(Offset(50)));
    assert_eq!(
        (fsync.journal_end, os.journal_end),
        (Some(Offset(100)), None)
    );
}

#[test]
fn segments_that_a_power_cut_took_are_read_from_the_journal() {
    let dir = directory(false);
    let segments = files(&fsync_folder(&dir), ".log");
    for lost in &segments[3..] {
        fs::remove_file(lost).unwrap();
    }
    change(&segments[2], |bytes| bytes[10 * BATCH_BYTES..].fill(0));
    let report = verify_after_reboot(dir.path());
    assert_eq!(report.findings, []);
    assert_eq!(report.partitions[0].end_offset, Offset(100));
    assert_eq!(report.partitions[0].batches(), 100);
}

#[test]
fn what_a_power_cut_took_from_an_os_log_is_left_to_the_next_start() {
    let dir = directory(false);
    let segments = files(&os_folder(&dir), ".log");
    change(&segments[3], |bytes| bytes[5 * BATCH_BYTES + 100] ^= 1);
    let report = verify_after_reboot(dir.path());
    let finding = only(&report);
    assert_eq!(finding.severity, Severity::Unsettled);
    assert_eq!(
        (&finding.file, finding.position),
        (&segments[3], Some(5 * BATCH_BYTES as u64))
    );
    assert_eq!(report.partitions[1].end_offset, Offset(65));
    assert!(report.is_sound());
    // In the same boot the page cache is whole: nothing can have taken it.
    assert_eq!(only(&verify(dir.path())).severity, Severity::Damage);
}

#[test]
fn one_unfinished_batch_may_lie_behind_the_end_but_not_more() {
    let dir = directory(false);
    let segment = files(&os_folder(&dir), ".log").pop().unwrap();
    let end = 20 * BATCH_BYTES;
    change(&segment, |bytes| {
        bytes.resize(end + 4_096, 0);
        bytes[end] = 1;
        bytes[end + 200] = 1;
    });
    let report = verify(dir.path());
    assert_eq!(only(&report).severity, Severity::Unsettled);
    assert_eq!(only(&report).position, Some(end as u64));
    change(&segment, |bytes| {
        bytes.resize(end + (2 << 20), 0);
        *bytes.last_mut().unwrap() = 1;
    });
    assert_eq!(only(&verify(dir.path())).severity, Severity::Damage);
}

#[test]
fn a_change_of_any_byte_of_a_segment_is_found_and_placed() {
    let dir = directory(true);
    let segment = files(&os_folder(&dir), ".log").remove(1);
    for position in (0..20 * BATCH_BYTES).step_by(7) {
        let (number, inside) = (position / BATCH_BYTES, position % BATCH_BYTES);
        // The leader epoch is in no checksum; it is held against its neighbours.
        if (12..16).contains(&inside) {
            continue;
        }
        change(&segment, |bytes| bytes[position] ^= 0x10);
        let report = verify(dir.path());
        change(&segment, |bytes| bytes[position] ^= 0x10);
        let damage: Vec<&Finding> = report
            .findings
            .iter()
            .filter(|finding| finding.severity == Severity::Damage)
            .collect();
        let [finding] = damage[..] else {
            panic!("byte {position}: {:#?}", report.findings)
        };
        assert_eq!(finding.file, segment);
        assert_eq!(
            finding.position,
            Some((number * BATCH_BYTES) as u64),
            "byte {position}"
        );
        let offset = Offset(20 + number as u64);
        assert!(
            finding.offsets.as_ref().unwrap().contains(&offset),
            "byte {position}"
        );
    }
    assert_eq!(verify(dir.path()).findings, []);
}

#[test]
fn bad_batches_that_follow_each_other_are_one_finding() {
    let dir = directory(true);
    let segment = files(&os_folder(&dir), ".log").remove(1);
    let damage = |number: usize| change(&segment, |bytes| bytes[number * BATCH_BYTES + 99] ^= 1);
    damage(3);
    damage(9);
    let report = verify(dir.path());
    let places: Vec<_> = report
        .findings
        .iter()
        .map(|finding| finding.offsets.clone().unwrap())
        .collect();
    assert_eq!(places, [Offset(23)..Offset(24), Offset(29)..Offset(30)]);
    damage(4);
    let report = verify(dir.path());
    let places: Vec<_> = report
        .findings
        .iter()
        .map(|finding| finding.offsets.clone().unwrap())
        .collect();
    assert_eq!(places, [Offset(23)..Offset(25), Offset(29)..Offset(30)]);
}

#[test]
fn only_checksums_find_a_changed_value() {
    let dir = directory(true);
    let segment = files(&fsync_folder(&dir), ".log").remove(0);
    change(&segment, |bytes| bytes[100] ^= 1);
    let by_headers = look(
        dir.path(),
        &Options {
            checksums: false,
            boot_id: Some("boot"),
        },
    );
    assert_eq!(by_headers.findings, []);
    assert_eq!(only(&verify(dir.path())).severity, Severity::Damage);
}

#[test]
fn a_lost_or_shortened_segment_below_the_checkpoint_is_damage() {
    for clean in [true, false] {
        let dir = directory(clean);
        let segments = files(&fsync_folder(&dir), ".log");
        change(&segments[0], |bytes| bytes.truncate(10 * BATCH_BYTES + 7));
        let report = verify_after_reboot(dir.path());
        let damage = report
            .findings
            .iter()
            .find(|finding| finding.file == segments[0])
            .unwrap();
        assert_eq!(damage.severity, Severity::Damage);
        assert_eq!(damage.position, Some(10 * BATCH_BYTES as u64));
        assert_eq!(damage.offsets, Some(Offset(10)..Offset(20)));

        fs::remove_file(&segments[1]).unwrap();
        let report = verify_after_reboot(dir.path());
        let missing = report
            .findings
            .iter()
            .filter(|f| f.severity == Severity::Damage)
            .count();
        assert!(missing >= 1 && !report.is_sound(), "{:#?}", report.findings);
    }
    let dir = directory(false);
    for segment in files(&os_folder(&dir), ".log") {
        fs::remove_file(segment).unwrap();
    }
    let report = verify_after_reboot(dir.path());
    assert_eq!(only(&report).offsets, Some(Offset(40)..Offset(50)));
}

#[test]
fn a_log_that_was_trimmed_begins_where_its_first_segment_does() {
    let dir = directory(false);
    let store = open(
        dir.path(),
        "boot",
        &[spec(1, Durability::Fsync), spec(2, Durability::Os)],
    );
    let partition = store.partition(TopicId(1), PartitionId(0)).unwrap();
    partition.trim(Offset(50)).unwrap();
    store.step_maintenance().unwrap();
    drop((partition, store));
    let report = verify(dir.path());
    assert_eq!(report.findings, []);
    assert_eq!(report.partitions[0].first_offset, Offset(40));
    assert_eq!(report.partitions[0].end_offset, Offset(100));
}

#[test]
fn bytes_behind_a_sealed_segment_are_damage() {
    let dir = directory(true);
    for segment in files(&os_folder(&dir), ".log") {
        change(&segment, |bytes| bytes.extend_from_slice(&[0; 64]));
        let report = verify(dir.path());
        assert_eq!(only(&report).severity, Severity::Damage);
        assert_eq!(only(&report).position, Some(20 * BATCH_BYTES as u64));
        change(&segment, |bytes| bytes.truncate(20 * BATCH_BYTES));
    }
}

#[test]
fn wrong_indexes_are_named_and_are_no_damage() {
    let dir = directory(true);
    for ending in [".index", ".timeindex"] {
        let entry_bytes = if ending == ".index" { 8 } else { 12 };
        for index in files(&fsync_folder(&dir), ending).into_iter().take(2) {
            let whole = fs::read(&index).unwrap();
            for position in 0..whole.len() {
                change(&index, |bytes| bytes[position] ^= 0x04);
                let report = verify(dir.path());
                let finding = only(&report);
                assert_eq!(finding.severity, Severity::Rebuildable);
                assert_eq!(finding.file, index);
                let entry = (position / entry_bytes * entry_bytes) as u64;
                assert_eq!(finding.position, Some(entry), "byte {position} of {ending}");
                fs::write(&index, &whole).unwrap();
            }
            fs::remove_file(&index).unwrap();
            let report = verify(dir.path());
            assert_eq!(only(&report).severity, Severity::Rebuildable);
            fs::write(&index, &whole).unwrap();
        }
    }
    assert_eq!(verify(dir.path()).findings, []);
}

#[test]
fn recovery_makes_the_snapshots_that_were_not_synced_anew_and_drops_those_of_lost_records() {
    let dir = directory(false);
    let folders = [fsync_folder(&dir), os_folder(&dir)];
    for folder in &folders {
        fs::write(folder.join("00000000000000000060.snapshot"), b"").unwrap();
        let synced = fs::read(folder.join("00000000000000000020.snapshot")).unwrap();
        fs::write(folder.join("00000000000000000097.snapshot"), synced).unwrap();
    }
    let mut specs = [spec(1, Durability::Fsync), spec(2, Durability::Os)];
    // Trimmed into segment 60: what the producers did before it is not known any more.
    specs[1].log_start = Offset(65);
    open(dir.path(), "another boot", &specs).close().unwrap();
    assert_eq!(verify(dir.path()).findings, []);
    for (folder, expected) in folders.iter().zip([&[20, 40, 60, 80][..], &[80]]) {
        let names = files(folder, ".snapshot").into_iter().map(|path| {
            let stem = path.file_stem().unwrap().to_str().unwrap();
            stem.parse::<u64>().unwrap()
        });
        assert_eq!(names.collect::<Vec<_>>(), expected);
    }
}

#[test]
fn a_damaged_or_missing_checkpoint_is_damage() {
    let dir = directory(false);
    let checkpoint = dir.path().join("checkpoint");
    change(&checkpoint, |bytes| *bytes.last_mut().unwrap() ^= 1);
    let report = verify(dir.path());
    assert!(report.checkpoint.is_none());
    assert_eq!(
        (only(&report).severity, &only(&report).file),
        (Severity::Damage, &checkpoint)
    );
    fs::remove_file(&checkpoint).unwrap();
    let report = verify(dir.path());
    assert_eq!(
        (only(&report).severity, &only(&report).file),
        (Severity::Damage, &checkpoint)
    );
}

#[test]
fn a_checkpoint_that_does_not_fit_the_batches_is_damage() {
    let dir = directory(false);
    let checkpoint = dir.path().join("checkpoint");
    // The header has 20 bytes with the checksum last; the first partition's position is behind the
    // boot id, three numbers, its key, the boot id again, its end and its segment.
    let position = 20 + (8 + 4) + 3 * 8 + (16 + 8) + (8 + 4) + 2 * 8;
    change(&checkpoint, |bytes| {
        let right = 10 * BATCH_BYTES as u64;
        assert_eq!(bytes[position..position + 8], right.to_be_bytes());
        bytes[position..position + 8].copy_from_slice(&(right + 1).to_be_bytes());
        let crc = crc32fast::hash(&[&bytes[..16], &bytes[20..]].concat());
        bytes[16..20].copy_from_slice(&crc.to_be_bytes());
    });
    let report = verify(dir.path());
    let finding = only(&report);
    assert_eq!(
        (finding.severity, &finding.file),
        (Severity::Damage, &checkpoint)
    );
    assert_eq!(finding.offsets, Some(Offset(50)..Offset(51)));
}

#[test]
fn a_round_that_is_needed_and_cannot_be_read_is_damage() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path(), "boot", &[]);
    let partition = store.create_partition(spec(1, Durability::Fsync)).unwrap();
    for number in 0..3 {
        fill(&partition, number * 5..number * 5 + 5);
        commit(&store);
    }
    drop((partition, store));
    fs::create_dir_all(dir.path().join("catalog")).unwrap();
    fs::write(dir.path().join("catalog/catalog.log"), b"catalog").unwrap();
    assert_eq!(verify(dir.path()).findings, []);
    let journal = files(&dir.path().join("journal"), ".journal")
        .into_iter()
        .max_by_key(|path| {
            fs::read(path)
                .unwrap()
                .iter()
                .filter(|byte| **byte != 0)
                .count()
        })
        .unwrap();
    let rounds: Vec<usize> = fs::read(&journal)
        .unwrap()
        .chunks(4_096)
        .enumerate()
        .filter(|(_, page)| page.starts_with(b"SWJR"))
        .map(|(page, _)| page * 4_096)
        .collect();
    assert_eq!(rounds.len(), 3);
    // The last round is a torn tail: nobody was told of it.
    change(&journal, |bytes| bytes[rounds[2] + 200] ^= 1);
    let report = verify_after_reboot(dir.path());
    assert!(report.is_sound(), "{:#?}", report.findings);
    assert_eq!(report.partitions[0].journal_end, Some(Offset(10)));
    change(&journal, |bytes| bytes[rounds[2] + 200] ^= 1);
    change(&journal, |bytes| bytes[rounds[1] + 200] ^= 1);
    let report = verify_after_reboot(dir.path());
    let finding = report
        .findings
        .iter()
        .find(|finding| finding.file == journal)
        .unwrap();
    assert_eq!(finding.severity, Severity::Damage);
    assert_eq!(finding.position, Some(rounds[1] as u64));
}

#[test]
fn folders_without_an_identity_or_a_topic_are_named() {
    let dir = directory(true);
    let metadata = fsync_folder(&dir).join("partition.metadata");
    fs::write(&metadata, "garbage").unwrap();
    fs::create_dir(
        dir.path()
            .join("topics/gone-0.AAAAAAAAAAAAAAAAAAAAAA-delete"),
    )
    .unwrap();
    fs::create_dir(dir.path().join("topics/noise")).unwrap();
    fs::remove_file(dir.path().join("catalog/catalog.log")).unwrap();
    let report = verify(dir.path());
    let found = |severity, file: &Path| {
        let same = |f: &&Finding| (f.severity, f.file.as_path()) == (severity, file);
        assert!(
            report.findings.iter().any(|f| same(&f)),
            "{file:?}: {:#?}",
            report.findings
        );
    };
    found(Severity::Damage, &metadata);
    found(Severity::Damage, &dir.path().join("catalog/catalog.log"));
    found(Severity::Unsettled, &dir.path().join("topics/noise"));
    // The checkpoint of the clean stop knows the partition whose id cannot be read.
    found(Severity::Damage, &dir.path().join("topics"));
}

#[test]
fn a_directory_in_use_or_not_ours_is_refused() {
    let dir = TempDir::new().unwrap();
    let refused = |path: &Path| {
        let options = Options::default();
        inspect(&Environment::real(), path, &options, &Progress::default()).unwrap_err()
    };
    assert!(matches!(refused(dir.path()), OpenError::NotOurs { .. }));
    assert!(matches!(
        refused(&dir.path().join("missing")),
        OpenError::NotOurs { .. }
    ));
    let store = open(dir.path(), "boot", &[]);
    assert!(matches!(refused(dir.path()), OpenError::InUse { .. }));
    drop(store);
    assert!(look(dir.path(), &Options::default()).is_sound());
    change(&dir.path().join("sapwood.meta"), |bytes| bytes[25] ^= 1);
    assert!(matches!(refused(dir.path()), OpenError::Damaged { .. }));
}

#[test]
fn a_finding_reads_as_a_sentence_with_its_place() {
    let finding = Finding {
        severity: Severity::Damage,
        file: "t-0/00000000000000000000.log".into(),
        position: Some(196),
        offsets: Some(Offset(1)..Offset(3)),
        problem: "no batch follows".into(),
    };
    assert_eq!(
        finding.to_string(),
        "damage: t-0/00000000000000000000.log at byte 196, offsets 1 to 3: no batch follows"
    );
}
