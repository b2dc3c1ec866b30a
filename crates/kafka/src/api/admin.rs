//! What the requests that administer topics share: refusals, deadlines, bounds.

use std::time::{Duration, Instant};

use sapwood_broker::{AlterTopicError, LookupError};
use sapwood_model::PartitionId;

use crate::errors::{AsKafka, ErrorCode};

/// Partitions that one request may make, over all its topics. Kafka's own bound.
pub(super) const PARTITIONS_PER_REQUEST_MAX: u64 = 10_000;

/// How many entries of a request that is refused as a whole are told why in words.
pub(super) const TOLD_WHY_MAX: usize = 100;

/// How long a request may take whose client does not say.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);

/// Why an entry of a request is not carried out.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    pub(super) code: ErrorCode,
    pub(super) message: String,
}

impl Refused {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    pub(super) fn too_many_partitions(asked: u64) -> Self {
        Self::new(
            ErrorCode::PolicyViolation,
            format!(
                "the request asks for {asked} partitions; the limit of one request is \
                 {PARTITIONS_PER_REQUEST_MAX}"
            ),
        )
    }

    /// Entries of a long request that were not begun in its time.
    pub(super) fn timed_out() -> Self {
        Self::new(
            ErrorCode::RequestTimedOut,
            "the request's time was over before this entry was begun",
        )
    }
}

impl From<LookupError> for Refused {
    fn from(error: LookupError) -> Self {
        Self::new(error.kafka(), error.to_string())
    }
}

impl From<AlterTopicError> for Refused {
    fn from(error: AlterTopicError) -> Self {
        Self::new(error.kafka(), error.to_string())
    }
}

/// When a request with many entries begins no more of them. What was begun is finished.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline(Option<Instant>);

impl Deadline {
    /// The client's timeout. Some clients send 0 or less and mean that they do not wait for
    /// replicas; they wait for the answer all the same.
    pub(super) fn after(timeout_ms: i32) -> Self {
        let timeout = match u64::try_from(timeout_ms) {
            Ok(1..) => Duration::from_millis(timeout_ms.unsigned_abs().into()),
            _ => TIMEOUT_DEFAULT,
        };
        Self(Instant::now().checked_add(timeout))
    }

    pub(super) fn has_passed(&self) -> bool {
        self.0.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// A partition as requests number it. A negative number is a partition that no topic has.
pub(super) fn partition(number: i32) -> PartitionId {
    PartitionId(u32::try_from(number).unwrap_or(u32::MAX))
}

/// Checks the replicas that a client assigns to a partition: the one broker, and no other.
///
/// # Errors
/// What is wrong with them, in words.
pub(super) fn replicas_of_one(broker_id: i32, replicas: &[i32]) -> Result<(), String> {
    if let Some(other) = replicas.iter().find(|id| **id != broker_id) {
        return Err(format!(
            "there is no broker {other}; the only one is broker {broker_id}"
        ));
    }
    match replicas.len() {
        0 => Err("it is assigned to no broker".to_owned()),
        1 => Ok(()),
        _ => Err(format!("broker {broker_id} is assigned twice")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_of_nothing_is_the_usual_one() {
        for timeout_ms in [i32::MIN, -1, 0, 10_000, i32::MAX] {
            assert!(!Deadline::after(timeout_ms).has_passed(), "{timeout_ms}");
        }
        assert!(Deadline(Some(Instant::now())).has_passed());
    }

    #[test]
    fn replicas_are_the_one_broker() {
        assert_eq!(replicas_of_one(1, &[1]), Ok(()));
        for wrong in [&[][..], &[2], &[1, 2], &[1, 1]] {
            assert!(replicas_of_one(1, wrong).is_err(), "{wrong:?}");
        }
    }
}
