//! Forgetting idempotent producers that appended nothing for long.

use std::{sync::atomic::Ordering, time::Duration};

use super::{Next, TickError};
use crate::{BrokerOptions, broker::Core};

/// Between two runs while there are producers, unless their expiration is shorter.
const INTERVAL_MAX: Duration = Duration::from_secs(10 * 60);

/// Expires producers everywhere. Runs again while any are left.
pub(super) fn expire(core: &Core) -> Result<Next, TickError> {
    // Before they are counted: who comes now triggers the next run.
    core.background
        .producers_seen
        .store(false, Ordering::Relaxed);
    let now = core.environment.clock.now();
    let mut left = 0;
    for topic in core.registry.all() {
        for partition in topic.partitions.load().iter() {
            partition.log.expire_producers(now);
            left += partition.log.stats().producers;
        }
    }
    if left == 0 {
        return Ok(Next::Triggered);
    }
    core.background
        .producers_seen
        .store(true, Ordering::Relaxed);
    Ok(Next::After(interval(&core.options)))
}

/// Between two runs while there are producers.
pub(super) fn interval(options: &BrokerOptions) -> Duration {
    let expiration = options.producer_expiration;
    expiration.clamp(Duration::from_secs(1), INTERVAL_MAX)
}
