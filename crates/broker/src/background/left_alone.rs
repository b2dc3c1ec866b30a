//! Partitions that are left alone for a while, because something failed with them.

use std::{collections::HashMap, time::Duration};

use sapwood_model::{PartitionId, TopicId};

use super::{BACKOFF_MAX, BACKOFF_MIN};

/// For how long which partitions are left alone. Times are by the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct LeftAlone(HashMap<(TopicId, PartitionId), Failed>);

#[derive(Debug, Clone, Copy)]
struct Failed {
    until: Duration,
    pause: Duration,
}

impl LeftAlone {
    /// Something failed: twice as long as the last time. Says how long.
    pub(super) fn fail(&mut self, key: (TopicId, PartitionId), now: Duration) -> Duration {
        let before = self.0.get(&key).map(|failed| failed.pause * 2);
        let pause = before.unwrap_or(BACKOFF_MIN).min(BACKOFF_MAX);
        let until = now + pause;
        self.0.insert(key, Failed { until, pause });
        pause
    }

    /// Whether it is not its turn yet.
    pub(super) fn has(&self, key: (TopicId, PartitionId), now: Duration) -> bool {
        self.0.get(&key).is_some_and(|failed| failed.until > now)
    }

    /// It is its turn again.
    pub(super) fn forgive(&mut self, key: (TopicId, PartitionId)) {
        self.0.remove(&key);
    }

    /// Forgets those with which nothing failed for as long as they were left alone.
    pub(super) fn forget_old(&mut self, now: Duration) {
        self.0.retain(|_, failed| failed.until + failed.pause > now);
    }

    /// When it is the first one's turn.
    pub(super) fn retry_in(&self, now: Duration) -> Option<Duration> {
        let waits = self.0.values();
        let waits = waits.map(|failed| failed.until.saturating_sub(now));
        waits.filter(|wait| !wait.is_zero()).min()
    }
}
