//! Full disks, failing disks, and files that are cut under a mapping.

use super::*;

fn append(fixture: &Fixture, batch: &Batch) -> Result<Appended, AppendError> {
    fixture
        .partition
        .append(batch, AppendOptions::default(), NOW)
}

#[test]
fn a_full_disk_is_an_error_that_goes_away_with_it() {
    for segment_bytes in [1 << 20, 1000] {
        let fixture = Fixture::os(segment_bytes);
        fixture.append(&sequenced(9, 0, 0));
        fixture.faults.room.store(0, Relaxed);
        let mut sequence = 0;
        let refused = loop {
            sequence += 1;
            if let Err(error) = append(&fixture, &sequenced(9, 0, sequence)) {
                break error;
            }
        };
        assert!(matches!(refused, AppendError::NoSpace { .. }), "{refused}");
        assert!(matches!(
            append(&fixture, &batch(9)),
            Err(AppendError::NoSpace { .. })
        ));
        fixture.maintain();
        assert_eq!(fixture.read_all().len(), sequence as usize, "reads go on");

        fixture.faults.room.store(u64::MAX, Relaxed);
        let appended = fixture.append(&sequenced(9, 0, sequence));
        assert_eq!(
            appended.base_offset,
            Offset(sequence as u64),
            "nothing was left half appended"
        );
        assert_eq!(fixture.read_all().len(), sequence as usize + 1);
        assert_eq!(fixture.offline_reason(), "");
    }
}

#[test]
fn the_first_append_to_a_full_disk_leaves_no_file() {
    let fixture = Fixture::os(1 << 20);
    fixture.faults.room.store(0, Relaxed);
    assert!(matches!(
        append(&fixture, &batch(5)),
        Err(AppendError::NoSpace { .. })
    ));
    assert!(fixture.files().is_empty());
    fixture.faults.room.store(u64::MAX, Relaxed);
    assert_eq!(fixture.append(&batch(5)).base_offset, Offset(0));
}

#[test]
fn appends_leave_what_the_ballast_gave_up_to_what_makes_room() {
    let fixture = Fixture::os(1 << 20);
    fixture.append(&batch(60_000)); // the first 64 KiB are nearly full
    fixture.store.ballast_is_out.store(true, Relaxed);
    for spare in [0, 54_000] {
        fixture.store.free.store(spare, Relaxed);
        let refused = append(&fixture, &batch(60_000)).unwrap_err();
        assert!(matches!(refused, AppendError::NoSpace { .. }), "{refused}");
        assert!(fixture.store.lacks.load(Relaxed) >= 60_000);
    }
    let options = AppendOptions::default();
    let partition = &fixture.partition;
    let offsets = partition.append_from_ballast(&batch(60_000), options, NOW);
    assert_eq!(offsets.unwrap().base_offset, Offset(1));
    assert_eq!(fixture.store.lacks.load(Relaxed), 0, "one found room");

    // Nothing is taken ahead as long as the ballast is given up, however much is free by now.
    fixture.store.free.store(500_000_000, Relaxed);
    fixture.append(&batch(400_000));
    fixture.maintain();
    assert!(!fixture.files().contains(&"next-segment.tmp".to_owned()));
    fixture.store.free.store(60_000, Relaxed);
    let refused = append(&fixture, &batch(600_000)).unwrap_err(); // a roll
    assert!(matches!(refused, AppendError::NoSpace { .. }), "{refused}");
    fixture.store.ballast_is_out.store(false, Relaxed);
    fixture.store.free.store(u64::MAX, Relaxed);
    fixture.append(&batch(600_000));
    assert_eq!(fixture.read_all().len(), 4);
}

/// The disk has room all the time, but not for everybody.
#[test]
fn records_do_not_take_what_the_file_system_keeps_for_root() {
    let fixture = Fixture::os(1 << 20);
    fixture.append(&batch(60_000)); // the first 64 KiB are nearly full
    fixture.store.free.store(54_000, Relaxed);
    fixture.maintain(); // neither is it taken ahead
    let refused = append(&fixture, &batch(60_000)).unwrap_err();
    assert!(matches!(refused, AppendError::NoSpace { .. }), "{refused}");
    fixture.store.free.store(60_000, Relaxed);
    fixture.append(&batch(60_000));

    // Nor for the next segment.
    fixture.store.free.store(800_000, Relaxed);
    fixture.append(&batch(680_000));
    fixture.maintain();
    assert!(!fixture.files().contains(&"next-segment.tmp".to_owned()));
    fixture.store.free.store(60_000, Relaxed);
    let refused = append(&fixture, &batch(600_000)).unwrap_err(); // a roll
    assert!(matches!(refused, AppendError::NoSpace { .. }), "{refused}");

    // What makes room takes it once the ballast is given up, not before.
    let options = AppendOptions::default();
    let partition = &fixture.partition;
    let refused = partition.append_from_ballast(&batch(600_000), options, NOW);
    assert!(matches!(refused, Err(AppendError::NoSpace { .. })));
    fixture.store.ballast_is_out.store(true, Relaxed);
    let appended = partition.append_from_ballast(&batch(600_000), options, NOW);
    assert_eq!(appended.unwrap().base_offset, Offset(3));
    assert_eq!(fixture.offline_reason(), "");
}

#[test]
fn the_last_bytes_of_a_disk_are_used() {
    let fixture = Fixture::os(1 << 30);
    fixture.append(&batch(60_000));
    fixture.faults.room.store(70_000, Relaxed);
    fixture.append(&batch(6000)); // a step of 64 KiB does not fit, the batch does
    assert!(matches!(
        append(&fixture, &batch(6000)),
        Err(AppendError::NoSpace { .. })
    ));
}

#[test]
fn a_roll_that_ended_in_a_full_disk_leaves_room_for_a_larger_batch() {
    const MIB: usize = 1 << 20;
    let fixture = Fixture::os(40 << 20);
    fixture.append(&batch(31 * MIB));
    fixture.maintain(); // the next segment has 32 MiB of blocks
    fixture.faults.room.store(33 << 20, Relaxed);
    assert!(matches!(
        append(&fixture, &batch(35 * MIB)),
        Err(AppendError::NoSpace { .. })
    ));
    fixture.faults.room.store(u64::MAX, Relaxed);
    assert_eq!(fixture.append(&batch(41 * MIB)).base_offset, Offset(1));
    assert_eq!(fixture.append(&batch(5)).base_offset, Offset(2));
    fixture.maintain();
    assert_eq!(fixture.partition.stats().segments, 3);
    assert_eq!(read(&fixture.partition, Offset(1), 1).unwrap().1, Offset(2));
}

#[test]
fn a_failed_write_of_the_tail_takes_the_partition_offline() {
    let fixture = Fixture::os(1 << 20);
    fixture.append(&batch(5));
    fixture.faults.tail_write.store(true, Relaxed);
    assert!(matches!(
        append(&fixture, &batch(5)),
        Err(AppendError::Offline { .. })
    ));
    fixture.faults.tail_write.store(false, Relaxed);
    assert!(matches!(
        append(&fixture, &batch(5)),
        Err(AppendError::Offline { .. })
    ));
    assert!(
        fixture.offline_reason().contains("could not write"),
        "{}",
        fixture.offline_reason()
    );
    assert_eq!(fixture.partition.bounds().log_end, Offset(1));
}

#[test]
fn a_failed_sync_or_write_out_of_a_segment_takes_the_partition_offline() {
    let fixture = Fixture::os(1000);
    for _ in 0..4 {
        fixture.append(&batch(300));
    }
    fixture.faults.sync.store(true, Relaxed);
    fixture.maintain();
    assert!(
        fixture.offline_reason().contains("could not sync"),
        "{}",
        fixture.offline_reason()
    );

    let fixture = Fixture::os(1 << 30);
    fixture.append(&batch(2 << 20));
    fixture.faults.write_out.store(true, Relaxed);
    fixture.partition.maintain(Timestamp(NOW.0 + 100));
    assert!(
        fixture.offline_reason().contains("write-out"),
        "{}",
        fixture.offline_reason()
    );
}

#[test]
fn no_descriptors_for_a_new_segment_is_not_the_partitions_fault() {
    let fixture = Fixture::os(1 << 20);
    fixture.faults.no_descriptors.store(true, Relaxed);
    assert!(matches!(
        append(&fixture, &batch(5)),
        Err(AppendError::Exhausted { .. })
    ));
    fixture.faults.no_descriptors.store(false, Relaxed);
    assert_eq!(fixture.append(&batch(5)).base_offset, Offset(0));
}

#[test]
fn a_found_segment_that_is_shorter_than_its_batches_is_not_written() {
    let mut fixture = Fixture::os(1 << 20);
    fixture.append(&batch(500));
    fixture.reopen();
    let path = fixture.path("00000000000000000000.log");
    std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(100)
        .unwrap();
    assert!(matches!(
        append(&fixture, &batch(5)),
        Err(AppendError::Offline { .. })
    ));
}
