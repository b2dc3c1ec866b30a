//! Compaction: of all records of a key, the latest stays. What is due is decided here, without I/O; the work
//! is done by a [`Compactor`].
//!
//! The rules are Kafka's. A log has a clean part, which was compacted before, and a dirty part behind it, up to
//! the last segment that may be looked at: one that is sealed, can be read by everybody, lies below the last
//! checkpoint, and is older than `min.compaction.lag.ms`. A log is compacted when the dirty part is large
//! enough beside the clean one, or when something in it has waited for `max.compaction.lag.ms`.
//!
//! Segments are written anew, whole, under another name, and take the place of the old ones at one
//! moment (see docs/format.md). Offsets stay, and batches stay contiguous: where all records of a run of
//! batches are gone, one batch without records covers their offsets, so that a missing batch can still
//! be told from one that was compacted away.

mod clean;
mod compactor;
mod key_map;
mod output;

use std::ops::Range;

pub use compactor::{CompactError, CompactionOptions, CompactionStats, Compactor, Stepped};
pub(crate) use output::Output;
use sapwood_model::{Offset, Timestamp};

use crate::retention::Latest;

/// When a log is compacted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// Once the dirty part is at least this part of all bytes, 0 to 1: `min.cleanable.dirty.ratio`.
    pub min_dirty_ratio: f64,
    /// Records younger than this many milliseconds stay: `min.compaction.lag.ms`.
    pub min_lag_ms: u64,
    /// At the latest when a record was not compacted for this many milliseconds:
    /// `max.compaction.lag.ms`.
    pub max_lag_ms: Option<u64>,
}

/// A sealed segment as compaction sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactableSegment {
    /// The offsets of its batches.
    pub offsets: Range<Offset>,
    /// The bytes of its batches.
    pub bytes: u64,
    /// The timestamp of its first batch, `Some(None)` if that has none; `None` as long as nobody asked.
    pub first: Option<Option<Timestamp>>,
    /// The time of its youngest record.
    pub latest: Latest,
}

/// A log at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactableLog {
    /// The segments that may be compacted, ascending and contiguous. May be empty.
    pub segments: Vec<CompactableSegment>,
    /// Records below it were deleted.
    pub log_start: Offset,
    /// Everything below was compacted.
    pub cleaned: Offset,
}

/// Something that has to be looked up before more can be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// [`Partition::look_up_age`](crate::Partition::look_up_age) of the segment at this offset.
    Age(Offset),
    /// [`Partition::look_up_first`](crate::Partition::look_up_first) of the segment at this offset.
    First(Offset),
}

/// What compaction would do with a log.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The offsets of the dirty part.
    pub dirty: Range<Offset>,
    /// Its bytes.
    pub dirty_bytes: u64,
    /// The bytes of the clean part.
    pub clean_bytes: u64,
    /// It is time.
    pub is_due: bool,
    /// A record has waited for too long; such logs come first.
    pub is_overdue: bool,
    /// What has to be looked up first.
    pub ask: Option<Ask>,
    /// When this plan is worth making again, if nothing is appended.
    pub due_at: Option<Timestamp>,
}

impl Plan {
    /// The dirty part of all bytes, 0 to 1.
    pub fn dirty_ratio(&self) -> f64 {
        let all = self.dirty_bytes.saturating_add(self.clean_bytes);
        match all {
            0 => 0.0,
            all => self.dirty_bytes as f64 / all as f64,
        }
    }
}

/// Decides whether a log is due, and how much of it.
///
/// Segments of 10 bytes with the offsets 0..5, 5..8 and 8..9, of which the first was compacted: 20 of 30 bytes
/// are dirty, so that the log is due with a ratio of 0.5.
pub fn plan(log: &CompactableLog, policy: &Policy, now: Timestamp) -> Plan {
    let from = log.cleaned.max(log.log_start);
    let mut plan = Plan {
        dirty: from..from,
        dirty_bytes: 0,
        clean_bytes: 0,
        is_due: false,
        is_overdue: false,
        ask: None,
        due_at: None,
    };
    let mut oldest: Option<Timestamp> = None;
    let left = log.segments.iter();
    for segment in left.filter(|segment| segment.offsets.end > log.log_start) {
        if segment.offsets.end <= from {
            plan.clean_bytes += segment.bytes;
            continue;
        }
        if policy.min_lag_ms > 0 {
            match segment.latest {
                Latest::Known(at) | Latest::Hint(at) if later(at, policy.min_lag_ms) > now => {
                    plan.due_at = Some(later(at, policy.min_lag_ms));
                    break;
                }
                Latest::Unknown => {
                    plan.ask = Some(Ask::Age(segment.offsets.start));
                    break;
                }
                Latest::Known(_) | Latest::Hint(_) | Latest::Untimed => {}
            }
        }
        if policy.max_lag_ms.is_some() {
            match segment.first {
                None => {
                    plan.ask = Some(Ask::First(segment.offsets.start));
                    break;
                }
                Some(first) => oldest = oldest.into_iter().chain(first).min(),
            }
        }
        plan.dirty_bytes += segment.bytes;
        plan.dirty.end = segment.offsets.end;
    }
    let overdue_at = oldest.zip(policy.max_lag_ms);
    let overdue_at = overdue_at.map(|(oldest, max_lag_ms)| later(oldest, max_lag_ms));
    let is_dirty = plan.dirty_bytes > 0;
    plan.is_overdue = is_dirty && overdue_at.is_some_and(|at| at <= now);
    plan.is_due = plan.is_overdue || (is_dirty && plan.dirty_ratio() >= policy.min_dirty_ratio);
    plan.due_at = plan.due_at.into_iter().chain(overdue_at).min();
    plan
}

fn later(at: Timestamp, ms: u64) -> Timestamp {
    Timestamp(at.0.saturating_add(i64::try_from(ms).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    const POLICY: Policy = Policy {
        min_dirty_ratio: 0.5,
        min_lag_ms: 0,
        max_lag_ms: None,
    };

    /// Three segments of ten offsets and 100 bytes, made at 100, 200 and 300 ms before now.
    fn log(cleaned: u64) -> CompactableLog {
        let segment = |n: u64| CompactableSegment {
            offsets: Offset(n * 10)..Offset(n * 10 + 10),
            bytes: 100,
            first: Some(Some(Timestamp(NOW.0 - 300 + n as i64 * 100))),
            latest: Latest::Known(Timestamp(NOW.0 - 201 + n as i64 * 100)),
        };
        CompactableLog {
            segments: (0..3).map(segment).collect(),
            log_start: Offset(0),
            cleaned: Offset(cleaned),
        }
    }

    #[test]
    fn a_log_is_due_when_enough_of_it_is_dirty() {
        let one = plan(&log(20), &POLICY, NOW);
        assert_eq!(
            (one.dirty.clone(), one.is_due),
            (Offset(20)..Offset(30), false)
        );
        assert_eq!((one.dirty_bytes, one.clean_bytes), (100, 200));
        let two = plan(&log(10), &POLICY, NOW);
        assert_eq!(
            (two.dirty.clone(), two.is_due),
            (Offset(10)..Offset(30), true)
        );
        assert!(
            !plan(
                &log(30),
                &Policy {
                    min_dirty_ratio: 0.0,
                    ..POLICY
                },
                NOW
            )
            .is_due
        );
        // A segment of which only a part was compacted counts as dirty.
        assert_eq!(plan(&log(15), &POLICY, NOW).dirty, Offset(15)..Offset(30));
        // What was deleted is no part of the log.
        let trimmed = CompactableLog {
            log_start: Offset(10),
            ..log(20)
        };
        assert_eq!(plan(&trimmed, &POLICY, NOW).clean_bytes, 100);
        assert!(plan(&trimmed, &POLICY, NOW).is_due);
    }

    #[test]
    fn young_records_wait_and_hold_up_what_is_behind_them() {
        let lag = |min_lag_ms| Policy {
            min_lag_ms,
            ..POLICY
        };
        let some = plan(&log(0), &lag(50), NOW);
        // The youngest record of the last segment is 1 ms old.
        assert_eq!(some.dirty, Offset(0)..Offset(20));
        assert_eq!(some.due_at, Some(Timestamp(NOW.0 - 1 + 50)));
        assert_eq!(plan(&log(0), &lag(1), NOW).dirty, Offset(0)..Offset(30));
        assert!(!plan(&log(0), &lag(10_000), NOW).is_due);
        let mut unknown = log(0);
        unknown.segments[1].latest = Latest::Unknown;
        let some = plan(&unknown, &lag(50), NOW);
        assert_eq!(some.ask, Some(Ask::Age(Offset(10))));
        assert_eq!(some.dirty, Offset(0)..Offset(10));
        assert_eq!(plan(&unknown, &POLICY, NOW).ask, None);
    }

    #[test]
    fn a_record_that_has_waited_for_too_long_makes_a_log_due() {
        let lag = |max_lag_ms| Policy {
            max_lag_ms: Some(max_lag_ms),
            min_dirty_ratio: 1.0,
            ..POLICY
        };
        let waits = plan(&log(20), &lag(101), NOW);
        assert!(!waits.is_due && !waits.is_overdue);
        assert_eq!(waits.due_at, Some(Timestamp(NOW.0 + 1)));
        let due = plan(&log(20), &lag(100), NOW);
        assert!(due.is_due && due.is_overdue);
        let mut unknown = log(20);
        unknown.segments[2].first = None;
        assert_eq!(
            plan(&unknown, &lag(1), NOW).ask,
            Some(Ask::First(Offset(20)))
        );
        unknown.segments[2].first = Some(None);
        assert!(!plan(&unknown, &lag(1), NOW).is_due);
    }
}
