//! Offsets, producers, expected ends, rolls.

use super::*;

#[test]
fn batches_get_the_next_offsets_and_the_leader_epoch() {
    let fixture = Fixture::os(1 << 20);
    let first = fixture.append(&batch_at(&[NOW.0; 3], 5));
    let second = fixture.append(&batch(5));
    assert_eq!(
        (first.base_offset, first.last_offset),
        (Offset(0), Offset(2))
    );
    assert_eq!(
        (second.base_offset, second.durable_at),
        (Offset(3), Offset(4))
    );
    let read = fixture.read_all();
    assert_eq!(read.len(), 2);
    assert_eq!(read[1].header().base_offset(), Offset(3));
    assert_eq!(read[1].header().leader_epoch(), LeaderEpoch(0));
    assert_eq!(read[1].record_bytes(), batch(5).record_bytes());
}

#[test]
fn the_length_word_is_stored_last_and_nothing_of_it_before() {
    let fixture = Fixture::os(1 << 20);
    fixture.append(&batch(5));
    fixture.faults.stores.lock().clear();
    fixture.append(&batch(300));
    let mut stores = std::mem::take(&mut *fixture.faults.stores.lock());
    let word = batch(5).size_bytes() as u64 + 8;
    let (position, bytes) = stores.pop().unwrap();
    assert_eq!(
        (position, bytes),
        (word, (batch(300).header().length()).to_be_bytes().to_vec())
    );
    let before = stores
        .iter()
        .flat_map(|(position, bytes)| (*position..).zip(bytes));
    let (in_word, other): (Vec<_>, Vec<_>) =
        before.partition(|(position, _)| (word..word + 4).contains(position));
    assert!(
        in_word.iter().all(|(_, byte)| **byte == 0),
        "recovery takes it for the proof"
    );
    assert_eq!(
        other.len(),
        batch(300).size_bytes() - 4,
        "everything else is there"
    );
}

#[test]
fn write_out_is_gathered_for_a_fast_writer_and_prompt_for_a_slow_one() {
    // 40 MB: no start yet, one every 100 ms, or one for each step of 2 MiB.
    for (pause_ms, write_outs) in [(1, 0), (20, 7), (100, 19)] {
        let fixture = Fixture::os(1 << 30);
        for n in 1..=40 {
            let now = Timestamp(NOW.0 + n * pause_ms);
            fixture
                .partition
                .append(&batch(1_000_000), AppendOptions::default(), now)
                .unwrap();
            fixture.partition.maintain(now);
        }
        assert_eq!(
            fixture.faults.write_outs.load(Relaxed),
            write_outs,
            "at a pause of {pause_ms} ms"
        );
    }
}

#[test]
fn nothing_is_allocated_before_the_first_append_and_64_kib_with_it() {
    let fixture = Fixture::os(1 << 30);
    assert!(fixture.files().is_empty());
    fixture.append(&batch(5));
    let metadata = std::fs::metadata(fixture.path("00000000000000000000.log")).unwrap();
    assert_eq!(metadata.len(), 64 << 10);
}

#[test]
fn a_retry_is_answered_with_the_first_offsets_and_waits_for_their_durability() {
    let fixture = Fixture::fsync(1 << 20);
    fixture.append(&batch(5));
    let first = fixture.append(&sequenced(9, 0, 0));
    let retry = fixture.append(&sequenced(9, 0, 0));
    assert!(retry.duplicate && !first.duplicate);
    assert_eq!(
        (retry.base_offset, retry.durable_at),
        (Offset(1), Offset(2))
    );
    assert_eq!(fixture.partition.bounds().log_end, Offset(2));
    assert_eq!(fixture.partition.bounds().high_watermark, Offset(0));
}

#[test]
fn sequence_gaps_and_old_epochs_are_refused() {
    let fixture = Fixture::os(1 << 20);
    fixture.append(&sequenced(9, 1, 0));
    let append = |batch: &Batch| {
        fixture
            .partition
            .append(batch, AppendOptions::default(), NOW)
    };
    assert!(matches!(
        append(&sequenced(9, 1, 5)),
        Err(AppendError::OutOfSequence {
            sequence: 5,
            expected: 1,
            ..
        })
    ));
    assert!(matches!(
        append(&sequenced(9, 0, 1)),
        Err(AppendError::Fenced { .. })
    ));
    assert_eq!(fixture.partition.bounds().log_end, Offset(1));
}

#[test]
fn an_expected_end_that_is_not_the_end_is_named() {
    let fixture = Fixture::os(1 << 20);
    fixture.append(&batch(5));
    let at = |end| AppendOptions {
        expected_end: Some(Offset(end)),
        urgent: false,
    };
    let refused = fixture.partition.append(&batch(5), at(0), NOW);
    assert!(matches!(
        refused,
        Err(AppendError::ExpectedEnd {
            expected: Offset(0),
            actual: Offset(1)
        })
    ));
    let done = fixture
        .partition
        .append(&sequenced(9, 0, 0), at(1), NOW)
        .unwrap();
    assert_eq!(done.base_offset, Offset(1));
    let retry = fixture
        .partition
        .append(&sequenced(9, 0, 0), at(1), NOW)
        .unwrap();
    assert!(
        retry.duplicate,
        "the retry finds its own batch, not a conflict"
    );
}

#[test]
fn a_segment_is_rolled_before_it_outgrows_its_size() {
    let fixture = Fixture::os(1000);
    for _ in 0..5 {
        fixture.append(&batch(300)); // 371 bytes or so: two to a segment
    }
    let segments: Vec<String> = fixture
        .files()
        .into_iter()
        .filter(|name| name.ends_with(".log"))
        .collect();
    let bases: Vec<_> = segments
        .iter()
        .filter_map(|n| names::parse_segment_file_name(n))
        .collect();
    assert_eq!(bases, [Offset(0), Offset(2), Offset(4)]);
    assert_eq!(fixture.read_all().len(), 5);
}

#[test]
fn a_batch_larger_than_a_segment_gets_one_of_its_own() {
    let fixture = Fixture::os(1000);
    fixture.append(&batch(10));
    fixture.append(&batch(5000));
    fixture.append(&batch(10));
    assert_eq!(fixture.partition.stats().segments, 3);
    assert_eq!(fixture.read_all().len(), 3);
}

#[test]
fn a_segment_is_rolled_by_the_time_in_its_batches() {
    let mut settings = config(Kept::Os, 1 << 20);
    settings.segment_ms = 1000;
    let fixture = Fixture::new(settings, TailKind::Mmap);
    for (timestamp, segments) in [(5000, 1), (6000, 1), (6001, 2), (3000, 2), (7002, 3)] {
        fixture.append(&batch_at(&[timestamp], 5));
        assert_eq!(fixture.partition.stats().segments, segments, "{timestamp}");
    }
}

#[test]
fn batches_without_timestamps_roll_by_the_clock() {
    let mut settings = config(Kept::Os, 1 << 20);
    settings.segment_ms = 1000;
    let fixture = Fixture::new(settings, TailKind::Mmap);
    for (now, segments) in [(0, 1), (1000, 1), (1001, 2)] {
        let now = Timestamp(NOW.0 + now);
        let options = AppendOptions::default();
        fixture
            .partition
            .append(&batch_at(&[-1], 5), options, now)
            .unwrap();
        assert_eq!(fixture.partition.stats().segments, segments, "{now}");
    }
}

#[test]
fn jitter_takes_something_off_the_time_of_each_segment() {
    let mut settings = config(Kept::Os, 1 << 20);
    (settings.segment_ms, settings.segment_jitter_ms) = (10_000, 10_000);
    let fixture = Fixture::new(settings, TailKind::Mmap);
    let mut lengths = Vec::new();
    let mut since = 0;
    for timestamp in 0..100_000 {
        let segments = fixture.partition.stats().segments;
        if timestamp % 10 == 0 {
            fixture.append(&batch_at(&[timestamp], 5));
        }
        if fixture.partition.stats().segments > segments.max(1) {
            lengths.push(timestamp - since);
            since = timestamp;
        }
    }
    assert!(lengths.len() > 10, "{lengths:?}");
    assert!(
        lengths.iter().all(|length| *length <= 10_010),
        "{lengths:?}"
    );
    lengths.sort_unstable();
    lengths.dedup();
    assert!(
        lengths.len() > 5,
        "each segment has its own time: {lengths:?}"
    );
}

#[test]
fn a_reopened_partition_goes_on_where_it_was() {
    for tail in [TailKind::Mmap, TailKind::Pwrite] {
        let mut fixture = Fixture::new(config(Kept::Fsync, 1000), tail);
        for sequence in 0..12 {
            fixture.append(&sequenced(9, 0, sequence));
        }
        fixture.reopen();
        assert_eq!(fixture.partition.bounds().high_watermark, Offset(12));
        assert_eq!(fixture.partition.leader_epoch(), LeaderEpoch(1));
        assert_eq!(fixture.read_all().len(), 12);
        assert!(fixture.append(&sequenced(9, 0, 11)).duplicate);
        let appended = fixture.append(&sequenced(9, 0, 12));
        assert_eq!(appended.base_offset, Offset(12));
        fixture.make_durable();
        let read = fixture.read_all();
        assert_eq!(read.len(), 13);
        assert_eq!(read[12].header().leader_epoch(), LeaderEpoch(1));
        let epochs: Vec<_> = fixture
            .partition
            .epochs()
            .iter()
            .map(|e| (e.epoch.0, e.start.0))
            .collect();
        assert_eq!(epochs, [(0, 0), (1, 12)]);
    }
}

#[test]
fn a_closed_partition_refuses_appends_and_answers_reads() {
    let fixture = Fixture::os(1 << 20);
    fixture.append(&batch(5));
    fixture.partition.close().unwrap();
    let refused = fixture
        .partition
        .append(&batch(5), AppendOptions::default(), NOW);
    assert!(matches!(refused, Err(AppendError::Closed)));
    assert_eq!(fixture.read_all().len(), 1);
}

#[test]
fn a_read_only_store_refuses_appends() {
    let fixture = Fixture::os(1 << 20);
    fixture.append(&batch(5));
    fixture.store.read_only.store(true, Relaxed);
    let refused = fixture
        .partition
        .append(&batch(5), AppendOptions::default(), NOW);
    assert!(matches!(refused, Err(AppendError::ReadOnly { .. })));
    assert_eq!(fixture.read_all().len(), 1);
}
