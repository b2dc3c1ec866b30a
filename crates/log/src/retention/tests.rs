use proptest::prelude::*;

use super::*;

const NOW: i64 = 1_000_000;

/// A log whose segments have so many bytes, 10 offsets each, and these times. The last one is active.
fn log(segments: &[(u64, Latest)]) -> LogSummary {
    let summary = |(index, (bytes, latest)): (usize, &(u64, Latest))| {
        let base = index as u64 * 10;
        let end = if *bytes > 0 { base + 10 } else { base };
        SegmentSummary {
            offsets: Offset(base)..Offset(end),
            bytes: *bytes,
            latest: *latest,
        }
    };
    let segments: Vec<_> = segments.iter().enumerate().map(summary).collect();
    let end = segments.last().expect("at least one").offsets.end;
    LogSummary {
        segments,
        log_start: Offset(0),
        high_watermark: end,
        roll_at: None,
    }
}

/// So many milliseconds ago.
fn ago(ms: i64) -> Latest {
    Latest::Known(Timestamp(NOW - ms))
}

fn age(ms: u64) -> Policy {
    Policy {
        age_ms: Some(ms),
        bytes: None,
    }
}

fn bytes(limit: u64) -> Policy {
    Policy {
        age_ms: None,
        bytes: Some(limit),
    }
}

fn planned(log: &LogSummary, policy: Policy) -> Plan {
    plan(log, &policy, Timestamp(NOW))
}

/// Where the log starts then, and whether the active segment is rolled for it.
fn starts(log: &LogSummary, policy: Policy) -> (u64, bool) {
    let plan = planned(log, policy);
    let log_start = plan.removal.map_or(log.log_start, |gone| gone.log_start);
    (log_start.0, plan.roll.is_some())
}

#[test]
fn segments_go_by_age_and_by_size_the_oldest_first() {
    let three = [(10, ago(300)), (10, ago(200)), (10, ago(100))];
    type Case<'a> = (&'a str, &'a [(u64, Latest)], Policy, (u64, bool));
    let cases: [Case<'_>; 17] = [
        ("without a limit", &three, Policy::KEEP, (0, false)),
        (
            "as old as the limit is not older",
            &three,
            age(300),
            (0, false),
        ),
        ("older", &three, age(299), (10, false)),
        ("two are older", &three, age(150), (20, false)),
        (
            "all are older, the active one too",
            &three,
            age(50),
            (30, true),
        ),
        (
            "kept for no time at all",
            &[(10, ago(1))],
            age(0),
            (10, true),
        ),
        ("made this very moment", &[(10, ago(0))], age(0), (0, false)),
        ("an empty log", &[(0, Latest::Untimed)], age(0), (0, false)),
        (
            "all but an empty active segment",
            &[(10, ago(300)), (0, Latest::Untimed)],
            age(50),
            (10, false),
        ),
        (
            "one of the future keeps what is behind it",
            &[(10, ago(300)), (10, ago(-900)), (10, ago(300))],
            age(50),
            (10, false),
        ),
        (
            "larger, but not by a segment",
            &three,
            bytes(21),
            (0, false),
        ),
        ("larger by a segment", &three, bytes(20), (10, false)),
        ("larger by nearly two", &three, bytes(11), (10, false)),
        ("nothing is kept", &three, bytes(0), (30, true)),
        (
            "a large one keeps the small ones behind it",
            &[(20, ago(9)), (1, ago(8)), (1, ago(7))],
            bytes(5),
            (0, false),
        ),
        (
            "by size, then by age",
            &three,
            Policy {
                age_ms: Some(150),
                bytes: Some(20),
            },
            (20, false),
        ),
        (
            "age does not make room for more by size",
            &[(10, ago(300)), (30, ago(300)), (1, ago(9)), (9, ago(8))],
            Policy {
                age_ms: Some(100),
                bytes: Some(15),
            },
            (20, false),
        ),
    ];
    for (name, segments, policy, expected) in cases {
        assert_eq!(starts(&log(segments), policy), expected, "{name}");
    }
}

#[test]
fn what_cannot_be_read_yet_stays() {
    let mut three = log(&[(10, ago(300)), (10, ago(200)), (10, ago(100))]);
    three.high_watermark = Offset(19);
    assert_eq!(starts(&three, age(0)), (10, false));
    assert_eq!(starts(&three, bytes(0)), (10, false));
    three.high_watermark = Offset(20);
    assert_eq!(starts(&three, age(0)), (20, false));
}

#[test]
fn what_was_deleted_before_counts_neither_as_size_nor_as_removed() {
    let mut four = log(&[(10, ago(9)), (10, ago(9)), (10, ago(9)), (10, ago(9))]);
    four.log_start = Offset(20);
    assert_eq!(planned(&four, bytes(20)).removal, None);
    let removal = planned(&four, bytes(10)).removal.unwrap();
    assert_eq!((removal.segments, removal.bytes), (1, 10));
    four.log_start = Offset(15);
    let removal = planned(&four, bytes(20)).removal.unwrap();
    assert_eq!(removal.log_start, Offset(20), "a part of it was there");
    four.log_start = Offset(40);
    assert_eq!(planned(&four, bytes(0)).removal, None);
    assert_eq!(planned(&four, bytes(0)).upcoming, None);
}

#[test]
fn a_time_that_is_not_known_is_asked_for_and_nothing_behind_it_goes() {
    let unknown = [
        (10, ago(300)),
        (10, Latest::Unknown),
        (10, ago(200)),
        (10, ago(1)),
    ];
    let plan = planned(&log(&unknown), age(100));
    assert_eq!(plan.removal.unwrap().log_start, Offset(10));
    assert_eq!(plan.ask, Some(Offset(10)));
    let plan = planned(&log(&unknown), bytes(20));
    assert_eq!(plan.ask, None, "its size is known");
    assert_eq!(plan.removal.unwrap().log_start, Offset(20));
}

#[test]
fn what_an_index_file_says_rolls_a_segment_and_removes_none() {
    let hint = Latest::Hint(Timestamp(NOW - 300));
    let plan = planned(&log(&[(10, hint)]), age(100));
    assert_eq!((plan.removal, plan.roll), (None, Some(Offset(10))));
    let plan = planned(&log(&[(10, hint)]), age(400));
    assert_eq!((plan.removal, plan.roll), (None, None));
    assert_eq!(plan.due_at, Some(Timestamp(NOW + 101)));
    let untimed = planned(&log(&[(10, Latest::Untimed)]), age(0));
    assert_eq!(
        (untimed.removal, untimed.roll, untimed.due_at),
        (None, None, None)
    );
}

#[test]
fn a_quiet_active_segment_is_rolled_when_its_time_has_come() {
    let mut one = log(&[(10, ago(50))]);
    one.roll_at = Some(Timestamp(NOW + 1));
    let plan = planned(&one, Policy::KEEP);
    assert_eq!((plan.roll, plan.due_at), (None, Some(Timestamp(NOW + 1))));
    one.roll_at = Some(Timestamp(NOW));
    let plan = planned(&one, Policy::KEEP);
    assert_eq!((plan.roll, plan.due_at), (Some(Offset(10)), None));
}

#[test]
fn a_plan_says_what_goes_next_and_when() {
    let mut two = log(&[(10, ago(300)), (12, ago(100))]);
    two.log_start = Offset(4);
    let policy = Policy {
        age_ms: Some(1000),
        bytes: Some(40),
    };
    let plan = planned(&two, policy);
    let upcoming = Upcoming {
        offsets: Offset(4)..Offset(10),
        bytes: 10,
        at: Some(Timestamp(NOW + 701)),
        after_bytes: Some(28),
    };
    assert_eq!(plan.upcoming, Some(upcoming));
    assert_eq!(plan.due_at, Some(Timestamp(NOW + 701)));
    let at = super::plan(&two, &policy, Timestamp(NOW + 700));
    assert_eq!(at.removal, None);
    let at = super::plan(&two, &policy, Timestamp(NOW + 701));
    assert_eq!(at.removal.unwrap().log_start, Offset(10));
    let far = planned(
        &log(&[(1, Latest::Known(Timestamp(i64::MAX)))]),
        age(u64::MAX),
    );
    assert_eq!(far.due_at, Some(Timestamp(i64::MAX)));
}

/// Kafka's `deleteOldSegments`, word for word: what the log start breached, then by size, then by time,
/// each over the segments that are left.
fn reference(log: &LogSummary, policy: &Policy) -> (Offset, bool) {
    let mut left: Vec<SegmentSummary> = log.segments.clone();
    left.retain(|segment| segment.offsets.end > log.log_start || segment.bytes == 0);
    let is_active_left = left.last().is_some_and(|active| active.bytes > 0);
    let mut start = log.log_start;
    let mut remove = |left: &mut Vec<SegmentSummary>,
                      goes: &mut dyn FnMut(&SegmentSummary) -> bool| {
        while let Some(first) = left.first()
            && first.bytes > 0
            && first.offsets.end <= log.high_watermark
            && goes(first)
        {
            start = first.offsets.end;
            left.remove(0);
        }
    };
    if let Some(limit) = policy.bytes {
        let size: u64 = left.iter().map(|segment| segment.bytes).sum();
        if size >= limit {
            let mut over = size - limit;
            remove(&mut left, &mut |segment| {
                let goes = over >= segment.bytes;
                over -= if goes { segment.bytes } else { 0 };
                goes
            });
        }
    }
    if let Some(age_ms) = policy.age_ms {
        remove(&mut left, &mut |segment| match segment.latest {
            Latest::Known(at) => NOW - at.0 > age_ms as i64,
            _ => false,
        });
    }
    (start, is_active_left && left.is_empty())
}

fn segments() -> impl Strategy<Value = Vec<(u64, Latest)>> {
    let latest = prop_oneof![
        8 => (-300_i64..600).prop_map(ago),
        1 => Just(Latest::Unknown),
    ];
    proptest::collection::vec((1_u64..40, latest), 1..9)
}

proptest! {
    #[test]
    fn it_removes_what_kafka_removes(
        segments in segments(),
        is_empty in any::<bool>(),
        age_ms in proptest::option::of(0_u64..500),
        limit in proptest::option::of(0_u64..200),
        log_start in 0_u64..40,
        unreadable in 0_u64..30,
    ) {
        let mut segments = segments;
        if is_empty {
            segments.push((0, Latest::Untimed));
        }
        let mut log = log(&segments);
        let end = log.high_watermark;
        log.log_start = Offset(log_start.min(end.0));
        log.high_watermark = Offset((end.0 - unreadable.min(end.0)).max(log.log_start.0));
        let policy = Policy { age_ms, bytes: limit };
        let plan = planned(&log, policy);
        let (start, all) = reference(&log, &policy);
        let removal = plan.removal;
        prop_assert_eq!(removal.map_or(log.log_start, |gone| gone.log_start), start);
        prop_assert_eq!(plan.roll, all.then_some(end), "the active one is rolled when all goes");
        // A second pass has nothing left to do: what this one removed by size is no longer there.
        log.log_start = start;
        prop_assert_eq!(planned(&log, policy).removal, None);
        if let Some(upcoming) = plan.upcoming {
            prop_assert!(upcoming.offsets.start >= start && !upcoming.offsets.is_empty());
            if let Some(at) = upcoming.at {
                prop_assert!(at > Timestamp(NOW) || upcoming.offsets.end > log.high_watermark);
            }
            if let Some(more) = upcoming.after_bytes {
                prop_assert!(more > 0 || upcoming.offsets.end > log.high_watermark);
            }
        }
    }
}
