//! Reading by offset and by time, damage, and readers beside a writer.

use std::{fs, thread};

use super::*;

#[test]
fn a_read_from_the_middle_of_a_batch_returns_the_whole_batch() {
    let fixture = Fixture::os(1 << 20);
    for _ in 0..20 {
        fixture.append(&batch_at(&[NOW.0; 10], 20));
    }
    let (bytes, next) = read(&fixture.partition, Offset(105), 1).unwrap();
    let header = *sapwood_record::batches(bytes)
        .next()
        .unwrap()
        .unwrap()
        .header();
    assert_eq!((header.base_offset(), next), (Offset(100), Offset(110)));
}

#[test]
fn what_is_in_memory_is_read_from_the_mapping_however_far_back() {
    let fixture = Fixture::os(64 << 20);
    for _ in 0..20 {
        fixture.append(&batch(1 << 20));
    }
    for offset in [0, 2, 19] {
        let (first, next) = read(&fixture.partition, Offset(offset), 1).unwrap();
        let (again, _) = read(&fixture.partition, Offset(offset), 1).unwrap();
        assert_eq!(next, Offset(offset + 1));
        assert_eq!(first.len(), again.len());
        assert_eq!(first.as_ptr(), again.as_ptr(), "offset {offset} was copied");
    }
}

#[test]
fn a_read_keeps_to_its_limits_but_brings_one_batch_at_least() {
    let fixture = Fixture::os(1 << 20);
    let size = batch(100).size_bytes();
    for _ in 0..10 {
        fixture.append(&batch(100));
    }
    let batches = |bytes_max, upto| {
        let limits = ReadLimits {
            bytes_max,
            upto: Offset(upto),
        };
        match fixture
            .partition
            .read(Offset(3), limits, ReadMode::Resident)
            .unwrap()
        {
            Read::Batches { bytes, next } => {
                assert_eq!(bytes.len() / size, (next.0 - 3) as usize);
                bytes.len() / size
            }
            Read::Cold => panic!("the tail is in memory"),
        }
    };
    assert_eq!(batches(0, u64::MAX), 1);
    assert_eq!(batches(size * 3, u64::MAX), 3);
    assert_eq!(batches(size * 4 - 1, u64::MAX), 3);
    assert_eq!(batches(usize::MAX, u64::MAX), 7);
    assert_eq!(batches(usize::MAX, 5), 2);
    assert_eq!(batches(usize::MAX, 3), 0);
}

#[test]
fn no_batch_that_reaches_past_the_limit_offset_is_returned() {
    let fixture = Fixture::os(1 << 20);
    fixture.append(&batch_at(&[NOW.0; 10], 5));
    let limits = ReadLimits {
        bytes_max: 1 << 20,
        upto: Offset(5),
    };
    let read = fixture
        .partition
        .read(Offset(0), limits, ReadMode::Resident)
        .unwrap();
    assert_eq!(
        read,
        Read::Batches {
            bytes: Bytes::new(),
            next: Offset(0)
        }
    );
}

#[test]
fn offsets_outside_of_the_log_are_refused_and_the_bounds_named() {
    let fixture = Fixture::fsync(1 << 20);
    for _ in 0..10 {
        fixture.append(&batch(5));
    }
    fixture.partition.advance_durable(Offset(6));
    fixture.partition.trim(Offset(2)).unwrap();
    for offset in [1, 11] {
        let Err(ReadError::OutOfRange { available, .. }) =
            read(&fixture.partition, Offset(offset), 100)
        else {
            panic!("{offset} is out of range");
        };
        assert_eq!(available, Offset(2)..Offset(6));
    }
    for offset in [6, 10] {
        let (bytes, next) = read(&fixture.partition, Offset(offset), 100).unwrap();
        assert!(
            bytes.is_empty() && next == Offset(offset),
            "nothing there yet"
        );
    }
}

#[test]
fn a_sealed_segment_is_cold_until_somebody_waited_for_it() {
    let fixture = Fixture::os(1000);
    for _ in 0..6 {
        fixture.append(&batch(300));
    }
    fixture.maintain();
    let limits = ReadLimits {
        bytes_max: 100,
        upto: Offset(u64::MAX),
    };
    let read = |mode| fixture.partition.read(Offset(1), limits, mode).unwrap();
    assert_eq!(read(ReadMode::Resident), Read::Cold, "not open");
    let Read::Batches { next, .. } = read(ReadMode::Blocking) else {
        panic!("never cold")
    };
    assert_eq!(next, Offset(2));
    assert!(matches!(read(ReadMode::Resident), Read::Batches { .. }));
    fixture.faults.cold.store(true, Relaxed);
    assert_eq!(read(ReadMode::Resident), Read::Cold, "not in memory");
}

#[test]
fn what_was_read_from_the_disk_is_given_up_once_and_what_was_in_memory_is_not() {
    const MIB: u64 = 1 << 20;
    let fixture = Fixture::os(32 * MIB);
    for _ in 0..60 {
        fixture.append(&batch(MIB as usize));
    }
    fixture.maintain();
    let partition = &fixture.partition;
    let Segment::Sealed(first) = partition.view.load().segments[0].clone() else {
        panic!("the first segment is sealed");
    };
    let limits = ReadLimits {
        bytes_max: 1 << 20,
        upto: first.end_offset,
    };
    let read_all = || {
        let mut from = Offset(0);
        while from < first.end_offset {
            let read = match partition.read(from, limits, ReadMode::Resident).unwrap() {
                Read::Cold => partition.read(from, limits, ReadMode::Blocking).unwrap(),
                read @ Read::Batches { .. } => read,
            };
            let Read::Batches { bytes, next } = read else {
                panic!("a read that may wait is never cold");
            };
            assert!(!bytes.is_empty() && next > from);
            from = next;
        }
        std::mem::take(&mut *fixture.faults.given_up.lock())
    };
    assert_eq!(read_all(), [], "all of it is in memory");
    fixture.faults.cold.store(true, Relaxed);
    let given_up = read_all();
    assert!(
        given_up
            .iter()
            .map(|range| range.end - range.start)
            .sum::<u64>()
            >= 24 * MIB
    );
    assert_eq!(given_up[0].start, 0);
    assert!(
        given_up.is_sorted_by(|one, next| one.end == next.start),
        "{given_up:?}"
    );
    assert_eq!(read_all(), [], "who reads it again keeps it");
}

#[test]
fn damaged_headers_take_the_partition_offline_and_say_where() {
    // Byte of the middle one of three batches, and its new value.
    for (byte, value) in [(7, 9), (9, 0xff), (11, 1), (16, 1), (23, 0xff), (57, 1)] {
        let fixture = Fixture::os(1000);
        for _ in 0..9 {
            fixture.append(&batch(200));
        }
        fixture.maintain();
        let path = fixture.path("00000000000000000003.log");
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 3;
        bytes[middle + byte] = value;
        fs::write(&path, bytes).unwrap();

        let Err(ReadError::Corrupt { reason }) = read(&fixture.partition, Offset(4), 1000) else {
            panic!("byte {byte} goes unnoticed");
        };
        let OfflineReason::Damage {
            file,
            position,
            offsets,
            ..
        } = &*reason
        else {
            panic!("{reason}");
        };
        assert_eq!(file, &path);
        // A batch that is too short is noticed where the next one should be.
        if byte != 11 {
            assert_eq!(*position as usize, middle, "byte {byte}");
            assert_eq!(*offsets, Offset(4)..Offset(6), "byte {byte}");
        }
        assert!(matches!(
            read(&fixture.partition, Offset(0), 100),
            Err(ReadError::Offline { .. })
        ));
        let append = fixture
            .partition
            .append(&batch(5), AppendOptions::default(), NOW);
        assert!(matches!(append, Err(AppendError::Offline { .. })));
    }
}

#[test]
fn a_segment_that_was_cut_from_outside_is_damage() {
    let fixture = Fixture::os(1000);
    for _ in 0..6 {
        fixture.append(&batch(300));
    }
    fixture.maintain();
    let path = fixture.path("00000000000000000000.log");
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(400)
        .unwrap();
    assert!(matches!(
        read(&fixture.partition, Offset(1), 100),
        Err(ReadError::Corrupt { .. })
    ));
    assert!(
        fixture.offline_reason().contains("shorter"),
        "{}",
        fixture.offline_reason()
    );
}

#[test]
fn a_disk_that_cannot_read_takes_the_partition_offline() {
    let fixture = Fixture::os(1000);
    for _ in 0..6 {
        fixture.append(&batch(300));
    }
    fixture.maintain();
    read(&fixture.partition, Offset(0), 100).unwrap();
    fixture.faults.read.store(true, Relaxed);
    assert!(matches!(
        read(&fixture.partition, Offset(0), 100),
        Err(ReadError::Failed { .. })
    ));
    assert!(matches!(
        fixture.partition.state(),
        PartitionState::Offline { .. }
    ));
}

#[test]
fn running_out_of_descriptors_is_not_the_partitions_fault() {
    let fixture = Fixture::os(1000);
    for _ in 0..6 {
        fixture.append(&batch(300));
    }
    fixture.maintain();
    fixture.faults.no_descriptors.store(true, Relaxed);
    assert!(matches!(
        read(&fixture.partition, Offset(0), 100),
        Err(ReadError::Exhausted { .. })
    ));
    fixture.faults.no_descriptors.store(false, Relaxed);
    assert_eq!(fixture.read_all().len(), 6);
}

#[test]
fn a_missing_or_wrong_index_is_built_again() {
    let damages: [fn(&std::path::Path); 4] = [
        |path| fs::remove_file(path).unwrap(),
        |path| fs::write(path, [0xff; 20]).unwrap(),
        // Rising and inside of the segment, but nowhere near a batch.
        |path| fs::write(path, [0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 2, 0, 0, 1, 1]).unwrap(),
        |path| fs::write(path, []).unwrap(),
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        let fixture = Fixture::os(4000);
        for _ in 0..20 {
            fixture.append(&batch(300));
        }
        fixture.maintain();
        let path = fixture.path("00000000000000000000.index");
        let good = fs::read(&path).unwrap();
        assert!(good.len() > 16);
        damage(&path);
        assert_eq!(fixture.read_all().len(), 20, "damage {number}");
        let (_, next) = read(&fixture.partition, Offset(7), 1).unwrap();
        assert_eq!(next, Offset(8));
        if number < 3 {
            assert_eq!(fs::read(&path).unwrap(), good, "damage {number}");
        }
    }
}

#[test]
fn a_look_up_by_time_answers_with_a_records_offset() {
    for codec in [Codec::None, Codec::Zstd] {
        let fixture = Fixture::os(2000);
        for n in 0..50 {
            let timestamps: Vec<i64> = (0..10).map(|i| 1000 + n * 100 + i * 10).collect();
            fixture.append(&build(BatchBuilder::new(codec), &timestamps, 20));
        }
        fixture.maintain();
        let find = |at| {
            let found = fixture.partition.find_timestamp(Timestamp(at)).unwrap();
            found.map(|found| (found.offset.0, found.timestamp.0))
        };
        assert_eq!(find(i64::MIN), Some((0, 1000)));
        assert_eq!(find(1000), Some((0, 1000)));
        assert_eq!(find(1001), Some((1, 1010)));
        assert_eq!(find(3455), Some((246, 3460)));
        assert_eq!(find(1000 + 49 * 100 + 90), Some((499, 5990)));
        assert_eq!(find(5991), None);
        let largest = fixture.partition.find_max_timestamp().unwrap().unwrap();
        assert_eq!(
            (largest.offset, largest.timestamp),
            (Offset(499), Timestamp(5990))
        );
    }
}

#[test]
fn look_ups_by_time_see_neither_trimmed_nor_unreadable_records() {
    let fixture = Fixture::fsync(1 << 20);
    for timestamp in [500, 100, 300, 200, 400, 900] {
        fixture.append(&batch_at(&[timestamp], 10));
    }
    let max = || {
        let found = fixture.partition.find_max_timestamp().unwrap();
        found.map(|found| (found.offset.0, found.timestamp.0))
    };
    let find = |at| {
        fixture
            .partition
            .find_timestamp(Timestamp(at))
            .unwrap()
            .map(|found| found.offset.0)
    };
    assert_eq!((max(), find(0)), (None, None));
    fixture.partition.advance_durable(Offset(5));
    assert_eq!(
        (max(), find(450), find(600)),
        (Some((0, 500)), Some(0), None)
    );
    fixture.partition.trim(Offset(1)).unwrap();
    assert_eq!(
        (max(), find(250), find(450)),
        (Some((4, 400)), Some(2), None)
    );
    fixture.partition.advance_durable(Offset(6));
    assert_eq!((max(), find(450)), (Some((5, 900)), Some(5)));
}

#[test]
fn a_batch_that_fails_its_checksum_is_noticed_by_a_look_up() {
    let fixture = Fixture::os(1000);
    for timestamp in 0..6 {
        fixture.append(&batch_at(&[timestamp], 300));
    }
    fixture.maintain();
    let path = fixture.path("00000000000000000002.log");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_eq!(
        fixture
            .partition
            .find_timestamp(Timestamp(2))
            .unwrap()
            .unwrap()
            .offset,
        Offset(2)
    );
    let found = fixture.partition.find_timestamp(Timestamp(3));
    assert!(matches!(found, Err(ReadError::Corrupt { .. })), "{found:?}");
}

#[test]
fn what_a_client_compressed_wrongly_is_no_damage() {
    let fixture = Fixture::os(1 << 20);
    let mut bytes = build(BatchBuilder::new(Codec::Zstd), &[100, 200], 50)
        .to_bytes()
        .to_vec();
    let records = sapwood_record::HEADER_BYTES;
    bytes[records..].fill(0xee);
    let crc = sapwood_record::crc32c(&[&bytes[21..]]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    fixture.append(&batch_at(&[50], 10));
    fixture.append(&Batch::split(bytes.into()).unwrap());
    let found = fixture
        .partition
        .find_timestamp(Timestamp(150))
        .unwrap()
        .unwrap();
    assert_eq!((found.offset, found.timestamp), (Offset(1), Timestamp(200)));
}

#[test]
fn readers_beside_a_writer_see_whole_batches_below_the_watermark() {
    const BATCHES: u64 = 4000;
    for tail in [TailKind::Mmap, TailKind::Pwrite] {
        let fixture = Fixture::new(config(Kept::Fsync, 20_000), tail);
        let partition = &fixture.partition;
        thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..BATCHES {
                    fixture.append(&batch_at(&[n as i64; 3], (n % 700) as usize));
                }
            });
            scope.spawn(|| {
                while partition.bounds().high_watermark < Offset(3 * BATCHES) {
                    fixture.make_durable();
                }
            });
            scope.spawn(|| {
                while partition.bounds().high_watermark < Offset(3 * BATCHES) {
                    partition.maintain(NOW);
                }
            });
            for bytes_max in [1, 3000, 1 << 20] {
                scope.spawn(move || {
                    let mut at = Offset(0);
                    while at < Offset(3 * BATCHES) {
                        let before = partition.bounds();
                        assert!(before.high_watermark <= before.log_end);
                        let (bytes, next) = read(partition, at, bytes_max).unwrap();
                        let after = partition.bounds();
                        assert!(next <= after.high_watermark, "{next} is past the watermark");
                        for batch in sapwood_record::batches(bytes) {
                            let batch = batch.unwrap();
                            batch.verify_crc().unwrap();
                            assert_eq!(batch.header().base_offset(), at, "no gap");
                            assert_eq!(batch.header().max_timestamp().0, (at.0 / 3) as i64);
                            at = batch.header().next_offset();
                        }
                        assert_eq!(at, next);
                    }
                });
            }
            scope.spawn(|| {
                while partition.bounds().high_watermark < Offset(3 * BATCHES) {
                    let at = partition.bounds().high_watermark.0 as i64 / 6;
                    if let Some(found) = partition.find_timestamp(Timestamp(at)).unwrap() {
                        assert_eq!(found.offset, Offset(3 * at as u64));
                    }
                }
            });
        });
        assert_eq!(fixture.read_all().len(), BATCHES as usize);
    }
}

#[test]
fn readers_beside_a_trim_are_told_the_bounds_and_nothing_is_damaged() {
    let fixture = Fixture::os(2000);
    let partition = &fixture.partition;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..4000u64 {
                fixture.append(&batch(100));
                if n % 10 == 0 {
                    partition.trim(Offset(n.saturating_sub(50))).unwrap();
                }
                if n % 7 == 0 {
                    partition.maintain(NOW);
                }
            }
            done.store(true, Relaxed);
        });
        for _ in 0..2 {
            scope.spawn(|| {
                let mut at = Offset(0);
                while !done.load(Relaxed) {
                    match read(partition, at, 500) {
                        Ok((_, next)) => at = next,
                        Err(ReadError::OutOfRange { available, .. }) => at = available.start,
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    assert_eq!(fixture.offline_reason(), "");
}
