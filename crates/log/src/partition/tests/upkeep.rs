//! Sealing, trimming, truncating, checkpoints.

use std::fs;

use super::*;

fn logs(fixture: &Fixture) -> Vec<u64> {
    let files = fixture.files();
    files
        .iter()
        .filter_map(|name| names::parse_segment_file_name(name))
        .map(|o| o.0)
        .collect()
}

#[test]
fn a_rolled_segment_is_sealed_once_its_end_is_durable() {
    let fixture = Fixture::fsync(1000);
    for sequence in 0..20 {
        fixture.append(&sequenced(9, 0, sequence));
    }
    let second = logs(&fixture)[1];
    let log = fixture.path("00000000000000000000.log");
    fixture.maintain();
    let allocated = fs::metadata(&log).unwrap().len();
    assert_eq!(allocated, 1000, "not sealed: it may yet be cut");
    fixture.partition.advance_durable(Offset(second));
    assert_eq!(
        fixture.store.maintenance.load(Relaxed),
        2,
        "for the roll, and for the watermark"
    );
    fixture.maintain();
    let size = sequenced(9, 0, 0).size_bytes() as u64;
    assert_eq!(
        fs::metadata(&log).unwrap().len(),
        second * size,
        "cut to its batches"
    );
    let snapshot = fs::read(fixture.path(&names::snapshot_file_name(Offset(second)))).unwrap();
    let state = &ProducerTable::decode(&snapshot).unwrap().states()[0];
    assert_eq!(
        state.last_offset,
        Offset(second - 1),
        "the producers as of the roll"
    );
    let index = fs::read(fixture.path("00000000000000000000.index")).unwrap();
    assert_eq!(index.len() % 8, 0);
    assert!(!index.is_empty());
    let times = fs::read(fixture.path("00000000000000000000.timeindex")).unwrap();
    assert_eq!(times[..8], NOW.0.to_be_bytes());
}

#[test]
fn the_next_segment_is_prepared_ahead_and_leaves_no_trace() {
    let fixture = Fixture::os(1000);
    fixture.append(&batch(300));
    fixture.append(&batch(350));
    fixture.maintain();
    assert!(
        fixture
            .files()
            .contains(&names::NEXT_SEGMENT_FILE.to_owned())
    );
    fixture.append(&batch(300));
    assert_eq!(logs(&fixture), [0, 2]);
    assert!(
        !fixture
            .files()
            .contains(&names::NEXT_SEGMENT_FILE.to_owned())
    );
    fixture.append(&batch(500));
    fixture.maintain();
    fixture.partition.close().unwrap();
    assert!(
        !fixture.files().iter().any(|name| name.ends_with(".tmp")),
        "{:?}",
        fixture.files()
    );
}

#[test]
fn a_prepared_segment_that_is_too_small_for_a_batch_is_made_anew() {
    let fixture = Fixture::os(1000);
    fixture.append(&batch(900));
    fixture.maintain();
    fixture.append(&batch(5000));
    fixture.append(&batch(5));
    fixture.maintain();
    assert_eq!(fixture.read_all().len(), 3);
}

#[test]
fn a_new_name_makes_the_folder_dirty_until_it_is_synced() {
    let fixture = Fixture::fsync(1000);
    assert_eq!(fixture.partition.folder_dirty(), None);
    fixture.append(&batch(600));
    let before = fixture
        .partition
        .folder_dirty()
        .expect("the first segment's name is new");
    fixture.append(&batch(600));
    fixture.partition.folder_synced(before);
    let after = fixture
        .partition
        .folder_dirty()
        .expect("a name came after that sync began");
    fixture.partition.folder_synced(after);
    assert_eq!(fixture.partition.folder_dirty(), None);
}

#[test]
fn trimming_removes_the_segments_wholly_below() {
    let fixture = Fixture::os(1000);
    for _ in 0..7 {
        fixture.append(&batch(300));
    }
    fixture.maintain();
    assert_eq!(logs(&fixture), [0, 2, 4, 6]);
    fixture.partition.trim(Offset(4)).unwrap();
    fixture.maintain();
    assert_eq!(logs(&fixture), [4, 6]);
    fixture.partition.trim(Offset(5)).unwrap();
    fixture.maintain();
    assert_eq!(
        logs(&fixture),
        [4, 6],
        "a segment goes when nothing of it is left"
    );
    let first: Vec<_> = fixture
        .files()
        .into_iter()
        .filter(|n| n.starts_with("0000000000000000000"))
        .collect();
    assert!(
        first
            .iter()
            .all(|name| !name.starts_with("00000000000000000002.")),
        "{first:?}"
    );
    assert!(matches!(
        read(&fixture.partition, Offset(4), 10),
        Err(ReadError::OutOfRange { .. })
    ));
    assert_eq!(read(&fixture.partition, Offset(5), 1).unwrap().1, Offset(6));
    fixture.partition.trim(Offset(3)).unwrap();
    assert_eq!(
        fixture.partition.bounds().log_start,
        Offset(5),
        "never back"
    );
    assert!(fixture.partition.trim(Offset(8)).is_err());
    fixture.partition.trim(Offset(7)).unwrap();
    fixture.maintain();
    assert_eq!(logs(&fixture), [6], "the active segment stays");
    assert_eq!(fixture.append(&batch(5)).base_offset, Offset(7));
    assert_eq!(fixture.read_all().len(), 1);
}

#[test]
fn truncating_rolls_back_records_producers_indexes_and_epochs() {
    for tail in [TailKind::Mmap, TailKind::Pwrite] {
        let mut fixture = Fixture::new(config(Kept::Fsync, 1000), tail);
        for sequence in 0..5 {
            fixture.append(&sequenced(9, 0, sequence));
        }
        fixture.reopen(); // epoch 1 from offset 5
        for sequence in 5..40 {
            fixture.append(&sequenced(9, 0, sequence));
        }
        fixture.append(&sequenced(10, 0, 0));
        let segments = logs(&fixture).len();
        assert!(segments > 3);
        fixture.partition.truncate_to(Offset(7)).unwrap();

        assert_eq!(fixture.partition.bounds().log_end, Offset(7));
        assert!(logs(&fixture).len() < segments);
        let producers: Vec<_> = fixture
            .partition
            .producers()
            .iter()
            .map(|p| (p.id.0, p.last_sequence))
            .collect();
        assert_eq!(producers, [(9, 6)], "as if the others had never come");
        let refused = fixture
            .partition
            .append(&sequenced(9, 0, 8), AppendOptions::default(), NOW);
        assert!(matches!(
            refused,
            Err(AppendError::OutOfSequence { expected: 7, .. })
        ));
        assert_eq!(fixture.append(&sequenced(9, 0, 7)).base_offset, Offset(7));
        let pieces = fixture.partition.take_unjournaled(u64::MAX);
        assert_eq!(pieces.last().unwrap().end_offset, Offset(8));
        fixture.partition.advance_durable(Offset(8));
        let read = fixture.read_all();
        assert_eq!(read.len(), 8);
        assert_eq!(read[7].header().producer().unwrap().base_sequence, 7);
        assert_eq!(fixture.partition.epochs().last().unwrap().start, Offset(5));
    }
}

#[test]
fn truncating_does_not_take_another_logs_batches_for_its_own() {
    let mut fixture = Fixture::fsync(1 << 20);
    for _ in 0..5 {
        fixture.append(&batch(300));
    }
    fixture.reopen();
    fixture.append(&batch(300));
    let path = fixture.path("00000000000000000000.log");
    let mut bytes = fs::read(&path).unwrap();
    bytes[batch(300).size_bytes() + 15] ^= 1; // an epoch, which no checksum holds
    fs::write(&path, bytes).unwrap();
    let refused = fixture.partition.truncate_to(Offset(5));
    assert!(matches!(refused, Err(TruncateError::Offline { .. })));
    assert!(fixture.offline_reason().contains("appended here"));
}

#[test]
fn what_lies_behind_a_cut_reads_as_zeros() {
    let fixture = Fixture::fsync(1 << 20);
    let size = batch(300).size_bytes();
    for _ in 0..10 {
        fixture.append(&batch(300));
    }
    fixture.partition.truncate_to(Offset(3)).unwrap();
    fixture.append(&batch(300));
    let bytes = fs::read(fixture.path("00000000000000000000.log")).unwrap();
    assert!(bytes[4 * size..].iter().all(|byte| *byte == 0));
    assert_eq!(bytes.len(), 64 << 10);
}

#[test]
fn truncating_to_a_segments_start_leaves_no_file_of_it() {
    let fixture = Fixture::fsync(1000);
    for _ in 0..5 {
        fixture.append(&batch(300));
    }
    assert_eq!(logs(&fixture), [0, 2, 4]);
    fixture.partition.truncate_to(Offset(2)).unwrap();
    assert_eq!(logs(&fixture), [0]);
    fixture.append(&batch(300));
    fixture.make_durable();
    assert_eq!(logs(&fixture), [0, 2]);
    assert_eq!(fixture.read_all().len(), 3);
}

#[test]
fn an_epoch_that_began_above_the_cut_begins_at_the_cut() {
    let mut fixture = Fixture::fsync(1 << 20);
    fixture.append(&batch(5));
    fixture.reopen();
    fixture.append(&batch(5));
    fixture.append(&batch(5));
    fixture.partition.truncate_to(Offset(1)).unwrap();
    let epochs: Vec<_> = fixture
        .partition
        .epochs()
        .iter()
        .map(|e| (e.epoch.0, e.start.0))
        .collect();
    assert_eq!(epochs, [(0, 0), (1, 1)]);
    assert_eq!(
        fixture.partition.epoch_end(LeaderEpoch(0)),
        Some((LeaderEpoch(0), Offset(1)))
    );
}

#[test]
fn what_was_acknowledged_recorded_or_half_a_batch_is_not_cut() {
    let fixture = Fixture::fsync(1 << 20);
    for _ in 0..6 {
        fixture.append(&batch_at(&[NOW.0; 2], 100));
    }
    fixture.partition.advance_durable(Offset(2));
    let truncate = |offset| fixture.partition.truncate_to(Offset(offset));
    assert!(matches!(
        truncate(0),
        Err(TruncateError::BelowHighWatermark { .. })
    ));
    assert!(matches!(
        truncate(5),
        Err(TruncateError::InsideBatch {
            batch_start: Offset(4),
            ..
        })
    ));
    let size = batch_at(&[NOW.0; 2], 100).size_bytes() as u64;
    fixture.partition.take_unjournaled(2 * size);
    assert!(matches!(
        truncate(2),
        Err(TruncateError::Recorded {
            recorded: Offset(4),
            ..
        })
    ));
    truncate(10).unwrap();
    truncate(1000).unwrap();
    fixture.checkpoint();
    assert!(matches!(
        truncate(8),
        Err(TruncateError::Recorded {
            recorded: Offset(10),
            ..
        })
    ));
    assert_eq!(fixture.partition.bounds().log_end, Offset(10));
}

#[test]
fn a_segment_that_was_rolled_without_an_append_is_in_the_next_cut() {
    let fixture = Fixture::os(4000);
    fixture.append(&batch_at(&[1], 300));
    fixture.checkpoint();
    assert!(!fixture.partition.is_dirty());
    let end = fixture.partition.bounds().log_end;
    let now = fixture.environment.clock.now();
    assert!(fixture.partition.roll(end, now).unwrap());
    assert!(fixture.partition.is_dirty());
    assert_eq!(fixture.checkpoint().segment, end);
    assert!(!fixture.partition.is_dirty());
}

#[test]
fn a_cut_says_what_is_synced_and_its_indexes_can_be_loaded() {
    let fixture = Fixture::os(4000);
    assert!(!fixture.partition.is_dirty());
    assert!(
        fixture.partition.cut().files().is_empty(),
        "nothing was opened for it"
    );
    for round in 0..8 {
        for timestamp in 0..3 {
            fixture.append(&batch_at(&[round * 10 - timestamp], 300));
        }
        assert!(fixture.partition.is_dirty());
        let cut = fixture.checkpoint();
        assert!(!fixture.partition.is_dirty());
        assert_eq!(fixture.partition.stats().unflushed_bytes, 0);
        let segment = crate::index::IndexedSegment {
            owner: fixture.partition.key(cut.segment),
            end_offset: cut.end,
            bytes: cut.position,
            interval_bytes: 300,
        };
        let counts = IndexCounts {
            offsets: cut.index_entries,
            times: cut.time_index_entries,
            ..IndexCounts::default()
        };
        let disk = &*fixture.environment.disk;
        let loaded = SegmentIndex::load(disk, fixture.folder.path(), &segment, counts);
        let loaded = loaded.unwrap().expect("complete");
        let view = fixture.partition.view.load();
        let Some(Segment::Open(active)) = view.segments.last() else {
            panic!("one is active")
        };
        assert_eq!(
            loaded,
            *active.index.read(),
            "also the largest timestamp so far"
        );
    }
}

#[test]
fn a_cut_that_was_overtaken_by_a_seal_leaves_the_final_indexes() {
    let fixture = Fixture::os(2000);
    for _ in 0..4 {
        fixture.append(&batch(300));
    }
    let mut cut = fixture.partition.cut();
    for _ in 0..4 {
        fixture.append(&batch(300));
    }
    fixture.maintain();
    let path = fixture.path("00000000000000000000.index");
    let sealed = fs::read(&path).unwrap();
    cut.write_indexes().unwrap();
    assert_eq!(fs::read(&path).unwrap(), sealed);
    fixture.partition.cut_synced(&cut);
    assert!(
        fixture.partition.is_dirty(),
        "what came after the cut is not in it"
    );
}

#[test]
fn a_cut_whose_indexes_found_no_space_can_be_tried_again() {
    let fixture = Fixture::os(4000);
    for _ in 0..5 {
        fixture.append(&batch(300));
    }
    let mut cut = fixture.partition.cut();
    fixture.faults.no_descriptors.store(true, Relaxed);
    assert!(cut.write_indexes().is_err());
    fixture.faults.no_descriptors.store(false, Relaxed);
    cut.write_indexes().unwrap();
    let index = fs::read(fixture.path("00000000000000000000.index")).unwrap();
    assert_eq!(index.len() as u64, 8 * cut.index_entries);
    assert!(cut.index_entries > 0);
    assert_eq!(cut.files().len(), 4, "the segment, two indexes, the sums");
}

#[test]
fn a_cut_seals_the_segments_below_it_and_the_journal_still_takes_from_them() {
    let fixture = Fixture::fsync(1000);
    for _ in 0..5 {
        fixture.append(&batch(300));
    }
    fixture.checkpoint();
    let size = batch(300).size_bytes() as u64;
    let log = fs::metadata(fixture.path("00000000000000000000.log")).unwrap();
    assert_eq!(log.len(), 2 * size);
    fixture.maintain();
    let pieces = fixture.partition.take_unjournaled(u64::MAX);
    assert_eq!(
        pieces
            .iter()
            .map(|p| p.bytes.len() as u64 / size)
            .collect::<Vec<_>>(),
        [2, 2, 1]
    );
    fixture.partition.advance_durable(Offset(5));
    fixture.maintain();
    assert_eq!(fixture.read_all().len(), 5);
}

#[test]
fn the_epochs_are_written_for_kafkas_tools() {
    let mut fixture = Fixture::os(1 << 20);
    fixture.append(&batch(5));
    fixture.reopen();
    fixture.append(&batch(5));
    fixture.maintain();
    let text = fs::read_to_string(fixture.path(names::EPOCHS_FILE)).unwrap();
    assert_eq!(text, "0\n2\n0 0\n1 1\n");
}

#[test]
fn a_deleted_partition_is_closed_for_everybody_and_not_damaged() {
    let fixture = Fixture::os(1000);
    for _ in 0..5 {
        fixture.append(&batch(300));
    }
    fixture.maintain();
    fixture.partition.abandon();
    assert!(matches!(
        read(&fixture.partition, Offset(0), 10),
        Err(ReadError::Closed)
    ));
    let append = fixture
        .partition
        .append(&batch(5), AppendOptions::default(), NOW);
    assert!(matches!(append, Err(AppendError::Closed)));
    assert!(!fixture.partition.maintain(NOW));
    assert_eq!(fixture.offline_reason(), "");
}

#[test]
fn few_files_stay_open_however_many_are_read() {
    let fixture = Fixture::os(1000); // the fixture keeps two files open
    for _ in 0..40 {
        fixture.append(&batch(300));
    }
    fixture.maintain();
    let open = || {
        let links = fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(Result::ok);
        let targets = links.filter_map(|link| fs::read_link(link.path()).ok());
        targets
            .filter(|target| target.starts_with(fixture.folder.path()))
            .count()
    };
    assert_eq!(fixture.read_all().len(), 40);
    assert!(open() <= 4, "{} files are open", open());
}

#[test]
fn a_file_that_a_reader_opened_while_its_segment_was_removed_is_not_kept_open() {
    let fixture = Fixture::os(1000);
    for _ in 0..20 {
        fixture.append(&batch(100));
    }
    fixture.maintain();
    let partition = &fixture.partition;
    let Segment::Sealed(first) = partition.view.load().segments[0].clone() else {
        panic!("the first segment is sealed");
    };
    let handle = partition.sealed_handle(&first, ReadMode::Blocking).unwrap();
    let is_open = || {
        partition
            .open_files
            .get(&partition.file_key_of(Offset(0), 0))
            .is_some()
    };
    partition.keep_open(partition.file_key_of(Offset(0), 0), &handle);
    assert!(is_open());
    partition.trim(first.end_offset).unwrap();
    fixture.maintain();
    assert!(!logs(&fixture).contains(&0), "it was removed");
    partition.keep_open(partition.file_key_of(Offset(0), 0), &handle);
    assert!(!is_open(), "its space would stay taken");
}
