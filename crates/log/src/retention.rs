//! What retention removes of a log, decided from what is known of its segments. No I/O.
//!
//! The rules are Kafka's. Whole segments go, the oldest first, and only what everybody can read already:
//! those that the log is too large without, and those whose largest timestamp is older than the limit.
//! One that stays keeps everything behind it. When nothing is left to keep, the active segment goes too:
//! it is rolled before.
//!
//! A largest timestamp in the future counts as it is: the segment is kept until its time has come. Kafka
//! bounds it where it comes in, with `message.timestamp.after.max.ms`, and so does Sapwood.

use std::ops::Range;

use sapwood_model::{Offset, Timestamp};

/// How much is kept of a log. Without a limit nothing is removed for that reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// A segment goes when its largest timestamp is more than so many milliseconds ago.
    pub age_ms: Option<u64>,
    /// A segment goes when the log without it still has at least so many bytes.
    pub bytes: Option<u64>,
}

impl Policy {
    /// Removes nothing.
    pub const KEEP: Self = Self {
        age_ms: None,
        bytes: None,
    };
}

/// When a segment's youngest record was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Latest {
    /// Its largest timestamp, or, if no record of it has one, when it was last written.
    Known(Timestamp),
    /// As an index file says, which may be wrong: good enough to know when to look again.
    Hint(Timestamp),
    /// It has to be looked up.
    Unknown,
    /// It is still written, and no record of it has a timestamp.
    Untimed,
}

/// A segment as retention sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentSummary {
    /// The offsets of its records.
    pub offsets: Range<Offset>,
    /// The bytes of its batches.
    pub bytes: u64,
    /// The time of its youngest record.
    pub latest: Latest,
}

/// A log at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSummary {
    /// Ascending, contiguous, at least one. The last one is the active one, and may be empty.
    pub segments: Vec<SegmentSummary>,
    /// Records below it were deleted.
    pub log_start: Offset,
    /// Records from here on cannot be read yet.
    pub high_watermark: Offset,
    /// When the active segment is rolled although nothing is appended to it; `None` while it is empty.
    pub roll_at: Option<Timestamp>,
}

/// What is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removal {
    /// Where the log starts afterwards.
    pub log_start: Offset,
    /// How many segments go.
    pub segments: usize,
    /// The bytes of their batches.
    pub bytes: u64,
}

/// The segment that is removed next, if nothing else happens before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upcoming {
    /// The offsets of its records that were not deleted yet.
    pub offsets: Range<Offset>,
    /// The bytes of its batches.
    pub bytes: u64,
    /// When it is due by age; `None` without a limit, or when its time is not known. It may lie further
    /// ahead than any clock goes.
    pub at: Option<Timestamp>,
    /// After how many more appended bytes it is due by size; `None` without a limit.
    pub after_bytes: Option<u64>,
}

/// What retention does with a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What is removed now.
    pub removal: Option<Removal>,
    /// The active segment is rolled before: all of it goes, or it was written for long enough. Always at
    /// the log's end, which must not have moved since.
    pub roll: Option<Offset>,
    /// The base offset of a segment whose time has to be looked up before more can be said.
    pub ask: Option<Offset>,
    /// What comes next.
    pub upcoming: Option<Upcoming>,
    /// When this plan is worth making again, if nothing is appended: the active segment is rolled then,
    /// or the next segment is due.
    pub due_at: Option<Timestamp>,
}

/// Decides what goes.
///
/// Segments of 10 bytes with the offsets 0..5, 5..8 and, active, 8..9, the youngest records of 100, 200
/// and 300 ms ago: a limit of 150 ms removes the first two, one of 50 ms all three, after a roll; a limit
/// of 15 bytes removes the first one.
pub fn plan(log: &LogSummary, policy: &Policy, now: Timestamp) -> Plan {
    let segments = &log.segments;
    let gone = segments.partition_point(|segment| segment.offsets.end <= log.log_start);
    let left = &segments[gone..];
    let mut total: u64 = left.iter().map(|segment| segment.bytes).sum();
    let mut plan = Plan {
        removal: None,
        roll: None,
        ask: None,
        upcoming: None,
        due_at: log.roll_at,
    };
    let active = log.segments.last().filter(|active| active.bytes > 0);
    if log.roll_at.is_some_and(|at| at <= now) {
        plan.roll = active.map(|active| active.offsets.end);
        plan.due_at = None;
    }
    for segment in left {
        let spare = policy.bytes.and_then(|limit| total.checked_sub(limit));
        let by_size = spare.is_some_and(|spare| spare >= segment.bytes);
        let by_age = is_due(segment.latest, policy, now);
        let is_active = active.is_some_and(|active| active.offsets == segment.offsets);
        let is_readable = segment.offsets.end <= log.high_watermark;
        let goes = segment.bytes > 0 && is_readable && (by_size || by_age == Due::Now);
        if goes {
            let before = plan.removal.unwrap_or(Removal {
                log_start: log.log_start,
                segments: 0,
                bytes: 0,
            });
            plan.removal = Some(Removal {
                log_start: segment.offsets.end,
                segments: before.segments + 1,
                bytes: before.bytes + segment.bytes,
            });
            total -= segment.bytes;
            if is_active {
                plan.roll = Some(segment.offsets.end);
                plan.due_at = None;
            }
            continue;
        }
        if is_active && is_readable && by_age == Due::Perhaps {
            // Once it is sealed its time is looked up in its batches.
            plan.roll = Some(segment.offsets.end);
            plan.due_at = None;
        }
        if by_age == Due::Ask {
            plan.ask = Some(segment.offsets.start);
        }
        if segment.bytes > 0 {
            plan.upcoming = Some(upcoming(log, segment, policy, total));
        }
        break;
    }
    let at = plan.upcoming.as_ref().and_then(|upcoming| upcoming.at);
    plan.due_at = plan.due_at.into_iter().chain(at).min();
    plan
}

/// Whether a segment is due by age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Now,
    /// An index file says so.
    Perhaps,
    Not,
    /// Nobody knows.
    Ask,
}

fn is_due(latest: Latest, policy: &Policy, now: Timestamp) -> Due {
    let Some(age_ms) = policy.age_ms else {
        return Due::Not;
    };
    match latest {
        Latest::Known(at) if due_at(at, age_ms) <= now => Due::Now,
        Latest::Hint(at) if due_at(at, age_ms) <= now => Due::Perhaps,
        Latest::Known(_) | Latest::Hint(_) | Latest::Untimed => Due::Not,
        Latest::Unknown => Due::Ask,
    }
}

/// The first millisecond at which a segment is older than the limit.
fn due_at(latest: Timestamp, age_ms: u64) -> Timestamp {
    let age_ms = i64::try_from(age_ms).unwrap_or(i64::MAX);
    Timestamp(latest.0.saturating_add(age_ms).saturating_add(1))
}

fn upcoming(log: &LogSummary, segment: &SegmentSummary, policy: &Policy, total: u64) -> Upcoming {
    let at = match segment.latest {
        Latest::Known(at) | Latest::Hint(at) => policy.age_ms.map(|age_ms| due_at(at, age_ms)),
        Latest::Unknown | Latest::Untimed => None,
    };
    let after_bytes = policy
        .bytes
        .map(|limit| limit.saturating_add(segment.bytes).saturating_sub(total));
    Upcoming {
        offsets: segment.offsets.start.max(log.log_start)..segment.offsets.end,
        bytes: segment.bytes,
        at,
        after_bytes,
    }
}

#[cfg(test)]
mod tests;
