//! Rolling without an append, and what retention sees of segments.

use std::fs;

use super::*;
use crate::retention::{Latest, LogSummary};

fn logs(fixture: &Fixture) -> Vec<u64> {
    let files = fixture.files();
    let bases = files
        .iter()
        .filter_map(|name| names::parse_segment_file_name(name));
    bases.map(|base| base.0).collect()
}

fn summary(fixture: &Fixture) -> LogSummary {
    fixture.partition.retention_summary().unwrap()
}

fn latest(fixture: &Fixture) -> Vec<Latest> {
    let segments = summary(fixture).segments.into_iter();
    segments.map(|segment| segment.latest).collect()
}

fn known(ms: i64) -> Latest {
    Latest::Known(Timestamp(ms))
}

fn roll(fixture: &Fixture, end: u64) -> bool {
    fixture.partition.roll(Offset(end), NOW).unwrap()
}

#[test]
fn a_segment_that_was_rolled_without_an_append_is_sealed_and_the_next_append_begins_another() {
    for tail in [TailKind::Mmap, TailKind::Pwrite] {
        for durability in [Kept::Os, Kept::Fsync] {
            let mut fixture = Fixture::new(config(durability, 1 << 20), tail);
            assert!(!roll(&fixture, 0), "an empty segment stays");
            for _ in 0..3 {
                fixture.append(&batch(300));
            }
            fixture.make_durable();
            assert!(!roll(&fixture, 2), "the log has gone on");
            assert!(roll(&fixture, 3));
            assert!(!roll(&fixture, 3), "it is empty now");
            assert_eq!(fixture.read_all().len(), 3);
            fixture.maintain();
            let size = 3 * batch(300).size_bytes() as u64;
            let log = fixture.path("00000000000000000000.log");
            assert_eq!(fs::metadata(&log).unwrap().len(), size, "sealed");
            assert_eq!(logs(&fixture), [0, 3], "the end has a name");
            let end = fixture.path("00000000000000000003.log");
            assert_eq!(fs::metadata(end).unwrap().len(), 0);
            fixture.checkpoint();
            fixture.reopen();
            assert_eq!(fixture.read_all().len(), 3);
            assert_eq!(fixture.append(&batch(300)).base_offset, Offset(3));
            fixture.make_durable();
            fixture.maintain();
            assert_eq!(logs(&fixture), [0, 3]);
            assert_eq!(fixture.read_all().len(), 4);
            // Found with records, and rolled before anything was appended.
            fixture.reopen();
            assert!(roll(&fixture, 4));
            fixture.maintain();
            assert_eq!(fixture.append(&batch(300)).base_offset, Offset(4));
            fixture.make_durable();
            assert_eq!(logs(&fixture), [0, 3, 4]);
            assert_eq!(fixture.read_all().len(), 5);
        }
    }
}

#[test]
fn all_of_a_log_goes_when_its_end_was_rolled() {
    for durability in [Kept::Os, Kept::Fsync] {
        let mut fixture = Fixture::new(config(durability, 1 << 20), TailKind::Mmap);
        fixture.append(&batch(300));
        fixture.append(&batch(300));
        fixture.make_durable();
        assert!(roll(&fixture, 2));
        fixture.partition.trim(Offset(2)).unwrap();
        fixture.maintain();
        assert_eq!(logs(&fixture), [0_u64; 0]);
        assert_eq!(fixture.partition.stats().bytes, 0);
        assert_eq!(fixture.read_all().len(), 0);
        fixture.checkpoint();
        fixture.reopen();
        assert_eq!(fixture.append(&batch(300)).base_offset, Offset(2));
        fixture.make_durable();
        assert_eq!(fixture.read_all().len(), 1);
    }
}

#[test]
fn a_roll_is_taken_back_with_the_records_before_it() {
    let fixture = Fixture::fsync(1 << 20);
    fixture.append(&batch(300));
    fixture.append(&batch(300));
    assert!(roll(&fixture, 2));
    fixture.partition.truncate_to(Offset(1)).unwrap();
    assert_eq!(fixture.append(&batch(5)).base_offset, Offset(1));
    assert!(roll(&fixture, 2));
    fixture.append(&batch(5));
    fixture.partition.truncate_to(Offset(2)).unwrap();
    fixture.append(&batch(5));
    fixture.make_durable();
    fixture.maintain();
    assert_eq!(fixture.read_all().len(), 3);
    assert_eq!(logs(&fixture), [0, 2]);
}

#[test]
fn the_times_of_sealed_segments_are_known_or_looked_up_once() {
    let mut fixture = Fixture::os(1000);
    for timestamp in [50, 70, 10, 20, 90, 80] {
        fixture.append(&batch_at(&[timestamp], 350));
    }
    fixture.maintain();
    assert_eq!(logs(&fixture), [0, 2, 4]);
    assert_eq!(latest(&fixture), [known(70), known(20), known(90)]);
    fixture.reopen();
    let hint = Latest::Hint(Timestamp(90));
    assert_eq!(latest(&fixture), [Latest::Unknown, Latest::Unknown, hint]);
    fixture.partition.look_up_age(Offset(2)).unwrap();
    fixture.partition.look_up_age(Offset(4)).unwrap(); // not sealed
    fixture.partition.look_up_age(Offset(99)).unwrap();
    assert_eq!(latest(&fixture), [Latest::Unknown, known(20), hint]);
    // What was found is looked up in its batches when it is sealed.
    fixture.append(&batch_at(&[95], 900));
    fixture.maintain();
    assert_eq!(latest(&fixture)[2..], [Latest::Unknown, known(95)]);
    fixture.partition.look_up_age(Offset(4)).unwrap();
    assert_eq!(latest(&fixture)[2], known(90));
}

#[test]
fn a_time_index_that_says_less_than_the_batches_makes_nothing_older() {
    let mut fixture = Fixture::os(3000);
    for timestamp in 1..=20 {
        fixture.append(&batch_at(&[timestamp * 100], 200));
    }
    fixture.maintain();
    fixture.reopen();
    let path = fixture.path("00000000000000000000.timeindex");
    let times = fs::read(&path).unwrap();
    fs::write(&path, &times[..times.len() - 12]).unwrap();
    let Latest::Known(whole) = known(100 * logs(&fixture)[1] as i64) else {
        unreachable!()
    };
    fixture.partition.look_up_age(Offset(0)).unwrap();
    assert_eq!(latest(&fixture)[0], Latest::Known(whole));
}

#[test]
fn records_without_timestamps_are_as_old_as_their_file() {
    let mut fixture = Fixture::os(1000);
    for _ in 0..3 {
        fixture.append(&batch_at(&[-1], 600));
    }
    fixture.maintain();
    let now = fixture.environment.clock.now().0;
    let is_now = |latest: Latest| match latest {
        Latest::Known(at) => (now - 60_000..=now + 60_000).contains(&at.0),
        _ => false,
    };
    let found = latest(&fixture);
    assert!(is_now(found[0]), "when it was sealed: {found:?}");
    assert_eq!(found[2], Latest::Untimed);
    fixture.reopen();
    let file = fs::File::open(fixture.path("00000000000000000000.log")).unwrap();
    let written = std::time::UNIX_EPOCH + std::time::Duration::from_millis(123_456);
    file.set_modified(written).unwrap();
    fixture.partition.look_up_age(Offset(0)).unwrap();
    assert_eq!(latest(&fixture)[0], known(123_456));
}

#[test]
fn an_active_segment_is_due_by_the_clock_since_it_was_begun_or_by_its_records_since_it_was_found() {
    let mut fixture = Fixture::os(1 << 20);
    let week = 7 * 24 * 60 * 60 * 1000;
    assert_eq!(summary(&fixture).roll_at, None);
    fixture.append(&batch_at(&[5], 5));
    assert_eq!(summary(&fixture).roll_at, Some(Timestamp(NOW.0 + week)));
    fixture.reopen();
    assert_eq!(summary(&fixture).roll_at, Some(Timestamp(5 + week)));
    fixture.append(&batch_at(&[5], 5));
    let started = summary(&fixture).roll_at.unwrap();
    assert!(
        started > Timestamp(NOW.0 + week),
        "{started:?}: old records come in"
    );
    fixture.partition.close().unwrap();
    assert_eq!(fixture.partition.retention_summary(), None);
}

#[test]
fn a_look_up_beside_a_removal_is_no_damage() {
    let mut fixture = Fixture::os(1000);
    for timestamp in 0..10 {
        fixture.append(&batch_at(&[timestamp], 600));
    }
    fixture.maintain();
    fixture.reopen();
    let partition = &fixture.partition;
    let segment = partition.view.load().segments[3].clone();
    partition.trim(Offset(4)).unwrap();
    fixture.maintain();
    // A look-up by time asks on behalf of the whole segment, up to its end.
    let failed = partition.latest_of(&segment).unwrap_err();
    let failed = partition.read_failed(&segment, Offset(4), Offset(4), failed);
    assert!(matches!(failed, ReadError::OutOfRange { .. }), "{failed}");
    assert_eq!(fixture.offline_reason(), "");
}

#[test]
fn a_large_file_loses_its_name_and_is_given_away_and_its_readers_are_known() {
    let fixture = Fixture::os(3000);
    fixture.store.removal_step.store(2000, Relaxed);
    for _ in 0..5 {
        fixture.append(&batch(900));
    }
    // A slice of the mapping, on its way out.
    let held = read(&fixture.partition, Offset(4), 10).unwrap();
    fixture.maintain();
    fixture.append(&batch(2500));
    fixture.maintain();
    assert_eq!(logs(&fixture), [0, 3, 5]);
    fixture.partition.trim(Offset(5)).unwrap();
    fixture.maintain();
    assert_eq!(logs(&fixture), [5]);
    let retired = std::mem::take(&mut *fixture.store.retired.lock());
    assert_eq!(retired.len(), 1, "the second one is small");
    assert_eq!(
        retired[0].path,
        fixture.path("00000000000000000000.log.removed.tmp")
    );
    assert!(retired[0].path.exists());
    assert_eq!(retired[0].readers.strong_count(), 0, "nobody reads it");

    fixture.store.removal_step.store(0, Relaxed);
    let other = read(&fixture.partition, Offset(5), 10).unwrap();
    assert!(roll(&fixture, 6));
    fixture.maintain();
    fixture.partition.trim(Offset(6)).unwrap();
    fixture.maintain();
    let retired = std::mem::take(&mut *fixture.store.retired.lock());
    assert_eq!(retired.len(), 1);
    assert!(
        retired[0].readers.strong_count() > 0,
        "it is cut only when this is gone"
    );
    assert_eq!(other.0.len(), batch(2500).size_bytes());
    drop(other);
    assert_eq!(retired[0].readers.strong_count(), 0);
    drop(held);
}
