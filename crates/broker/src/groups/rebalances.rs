//! How often groups rebalance, and how long that takes.

use std::{collections::HashMap, sync::Arc, time::Duration};

use sapwood_group::{GroupId, GroupKind, GroupState, Groups, Listed};
use sapwood_log::{Histogram, io::Clock};
use tracing::info;

/// What groups do, of all groups since the start.
#[derive(Debug, Default)]
pub struct GroupMetrics {
    /// Commits, from the request to its answer: offsets are durable then, or refused.
    pub commit: Histogram,
    /// Rebalances of classic groups: from the first member that makes it necessary until every member
    /// has its assignment.
    pub classic_rebalance: Histogram,
    /// Rebalances of groups of the newer kind: from the new epoch until every member has given up and
    /// got what it is to own.
    pub consumer_rebalance: Histogram,
}

/// The rebalances of one partition's groups. One that a restart interrupts counts from the first change
/// after it; one that ends because nobody is left does not count.
#[derive(Debug)]
pub(super) struct Rebalances {
    clock: Arc<dyn Clock>,
    metrics: Arc<GroupMetrics>,
    /// Since when groups are rebalancing, by the monotonic clock.
    began: HashMap<GroupId, Duration>,
    /// How often they were, since the start.
    counts: HashMap<GroupId, u64>,
}

impl Rebalances {
    pub(super) fn new(clock: Arc<dyn Clock>, metrics: Arc<GroupMetrics>) -> Self {
        Self {
            clock,
            metrics,
            began: HashMap::new(),
            counts: HashMap::new(),
        }
    }

    /// How often a group has rebalanced since the start.
    pub(super) fn count(&self, group: &GroupId) -> u64 {
        self.counts.get(group).copied().unwrap_or_default()
    }

    /// A decision that changed a group has been applied. `reassigned`: it began a new epoch.
    pub(super) fn saw(&mut self, groups: &Groups, group: &GroupId, reassigned: bool) {
        let Some(listed) = groups.listed(group) else {
            self.began.remove(group);
            self.counts.remove(group);
            return;
        };
        match listed.state {
            GroupState::PreparingRebalance
            | GroupState::CompletingRebalance
            | GroupState::Assigning
            | GroupState::Reconciling => {
                let now = self.clock.elapsed();
                self.began.entry(group.clone()).or_insert(now);
            }
            GroupState::Stable => match self.began.remove(group) {
                Some(began) => self.ended(&listed, self.clock.elapsed().saturating_sub(began)),
                // All within one decision.
                None if reassigned => self.ended(&listed, Duration::ZERO),
                None => {}
            },
            GroupState::Empty | GroupState::Dead => {
                self.began.remove(group);
            }
        }
    }

    fn ended(&mut self, group: &Listed, took: Duration) {
        match group.kind {
            GroupKind::Classic => self.metrics.classic_rebalance.record(took),
            GroupKind::Consumer => self.metrics.consumer_rebalance.record(took),
        }
        *self.counts.entry(group.group.clone()).or_default() += 1;
        info!(
            event = "group.rebalanced",
            group = %group.group,
            kind = %group.kind,
            members = group.members,
            took_ms = took.as_secs_f64() * 1e3,
            "a group has rebalanced"
        );
    }
}
