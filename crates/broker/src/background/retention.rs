//! Retention: segments that are older than their topic allows, or that the log is too large without, go;
//! a segment that was written for long enough ends, also when nothing is appended any more.
//!
//! A pass plans every partition from memory and carries out what is due: rolls, then one group of
//! catalog records for the log starts that move, durable before the first file is unlinked, which the
//! store does. The time of a sealed segment that was found at the start is not in memory. It is looked up
//! once, between two passes, for the oldest segments only. A partition with which something fails is left
//! alone for a while, and the others go on.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::Duration,
};

use sapwood_log::retention::{self, Policy, Removal};
use sapwood_model::{Offset, PartitionId, Timestamp, TopicId};
use tracing::{info, warn};

use super::{Next, TickError, left_alone::LeftAlone};
use crate::{
    Broker, TrimError,
    broker::Core,
    catalog::{CatalogError, Command, ProposeError},
    metrics::TaskProgress,
    registry::{Partition, Topic, TopicRef},
};

/// Log starts that move together, in one group of the catalog.
const MOVES_MAX: usize = 1_000;
/// Partitions whose oldest segments are looked up in one tick.
const LOOK_UPS_MAX: usize = 64;
/// Segments of one partition that are looked up in one tick.
const SEGMENTS_MAX: usize = 16;
const LOOK_UP_PAUSE: Duration = Duration::from_millis(10);
/// Between two passes, however much there is to do.
const PASS_GAP: Duration = Duration::from_secs(1);

/// What retention remembers between two ticks.
#[derive(Debug, Default)]
pub(crate) struct Retention {
    /// Partitions of the last pass whose oldest segment has to be looked up.
    look_ups: VecDeque<LookUp>,
    look_ups_found: usize,
    left_alone: LeftAlone,
}

#[derive(Debug)]
struct LookUp {
    topic: TopicId,
    /// A partition that is deleted meanwhile must not keep its files open in here.
    partition: Weak<Partition>,
    policy: Policy,
}

/// Something that a pass has to do.
struct Due {
    topic: Arc<Topic>,
    partition: Arc<Partition>,
    roll: Option<Offset>,
    removal: Option<Removal>,
}

/// What a pass found.
#[derive(Default)]
struct Planned {
    due: Vec<Due>,
    /// When the next partition is worth a look.
    next_at: Option<Timestamp>,
}

/// What was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retained {
    /// Segments whose records were deleted.
    pub segments: u64,
    /// Bytes of their batches.
    pub bytes: u64,
    /// Partitions whose log start moved.
    pub partitions: u64,
    /// Partitions with which something failed; the broker's log says what.
    pub failed: u64,
}

/// One tick: look-ups while there are any, otherwise a pass.
pub(super) fn retain(core: &Core) -> Result<Next, TickError> {
    // A drain waits for what is under way. A read-only directory stays as it is until a restart.
    let Some(_accepted) = core.gate.accept() else {
        return Ok(Next::Triggered);
    };
    if core.catalog.failed().is_some() {
        return Ok(Next::Triggered);
    }
    let mut retention = core.background.retention.lock();
    retention.look_up_some(core);
    if !retention.look_ups.is_empty() {
        return Ok(Next::After(LOOK_UP_PAUSE));
    }
    let topics = core.registry.all();
    let planned = retention.plan(core, &topics);
    let is_more = planned.due.len() > MOVES_MAX;
    let rolls = planned.due.iter().any(|due| due.roll.is_some());
    let mut retained = Retained::default();
    let due = planned.due.into_iter().take(MOVES_MAX).collect();
    retention.carry_out(core, due, &mut retained)?;
    if !retention.look_ups.is_empty() {
        retention.look_ups_found = retention.look_ups.len();
        return Ok(Next::After(LOOK_UP_PAUSE));
    }
    let interval = core.options.retention_interval;
    if is_more || rolls {
        // What was rolled is sealed by now, or soon, and may go as a whole.
        return Ok(Next::By(PASS_GAP.min(interval)));
    }
    let now = core.environment.clock.now();
    let next_in = planned.next_at.map(|at| {
        let ms = u64::try_from(at.0.saturating_sub(now.0)).unwrap_or(0);
        Duration::from_millis(ms)
    });
    let retry_in = retention
        .left_alone
        .retry_in(core.environment.clock.elapsed());
    let waits = [Some(interval), next_in, retry_in];
    let wait = waits.into_iter().flatten().min().unwrap_or(interval);
    Ok(Next::By(wait.max(PASS_GAP)))
}

/// Partitions whose oldest segments were looked up; not known while a tick is under way.
pub(super) fn progress(core: &Core) -> Option<TaskProgress> {
    let retention = core.background.retention.try_lock()?;
    let left = retention.look_ups.len() as u64;
    let total = retention.look_ups_found as u64;
    (left > 0).then_some(TaskProgress {
        done: total.saturating_sub(left),
        total,
    })
}

impl Broker {
    /// Does for one partition now what retention does in its own time. What it removed is durable when
    /// this returns; files go in the background.
    ///
    /// # Errors
    /// [`TrimError`]. A partition that fails is counted in the answer instead.
    pub async fn retain<'a>(
        &self,
        topic: impl Into<TopicRef<'a>>,
        partition: PartitionId,
    ) -> Result<Retained, TrimError> {
        let accepted = self.core.gate.accept().ok_or(TrimError::Draining)?;
        let topic = self.core.registry.find(topic.into())?;
        let partition = topic.partition(partition)?;
        let core = self.core.clone();
        let retain = move || {
            let _accepted = accepted;
            core.retain_now(&topic, &partition)
        };
        let driver = self.core.options.driver;
        driver.run(retain).await.ok_or(TrimError::Draining)?
    }
}

impl Core {
    fn retain_now(
        &self,
        topic: &Arc<Topic>,
        partition: &Arc<Partition>,
    ) -> Result<Retained, TrimError> {
        let key = (topic.id, partition.partition);
        let policy = topic.config.load().retention;
        let mut retained = Retained::default();
        let mut retention = self.background.retention.lock();
        retention.left_alone.forgive(key);
        while !retention.look_up(self, key, partition, policy) {}
        if retention
            .left_alone
            .has(key, self.environment.clock.elapsed())
        {
            retained.failed += 1;
            return Ok(retained);
        }
        if let Some(log) = partition.log.retention_summary() {
            let plan = retention::plan(&log, &policy, self.environment.clock.now());
            let due = Due {
                topic: topic.clone(),
                partition: partition.clone(),
                roll: plan.roll,
                removal: plan.removal,
            };
            retention.carry_out(self, vec![due], &mut retained)?;
        }
        Ok(retained)
    }
}

impl Retention {
    /// Plans every partition of these topics, from memory.
    fn plan(&mut self, core: &Core, topics: &[Arc<Topic>]) -> Planned {
        let began = core.environment.clock.elapsed();
        let now = core.environment.clock.now();
        self.left_alone.forget_old(began);
        let mut planned = Planned::default();
        for topic in topics {
            let policy = topic.config.load().retention;
            for partition in topic.partitions.load().iter() {
                if self.left_alone.has((topic.id, partition.partition), began) {
                    continue;
                }
                let Some(log) = partition.log.retention_summary() else {
                    continue;
                };
                let plan = retention::plan(&log, &policy, now);
                if plan.ask.is_some() {
                    self.look_ups.push_back(LookUp {
                        topic: topic.id,
                        partition: Arc::downgrade(partition),
                        policy,
                    });
                }
                if plan.roll.is_some() || plan.removal.is_some() {
                    planned.due.push(Due {
                        topic: topic.clone(),
                        partition: partition.clone(),
                        roll: plan.roll,
                        removal: plan.removal,
                    });
                }
                planned.next_at = planned.next_at.into_iter().chain(plan.due_at).min();
            }
        }
        let took = core.environment.clock.elapsed().saturating_sub(began);
        core.metrics.retention.pass.record(took);
        planned
    }

    /// Rolls, moves log starts, and leaves the files to the store. A partition that fails is noted; the
    /// catalog's failure ends it.
    fn carry_out(
        &mut self,
        core: &Core,
        due: Vec<Due>,
        retained: &mut Retained,
    ) -> Result<(), CatalogError> {
        let now = core.environment.clock.now();
        let mut moves = Vec::with_capacity(due.len());
        let mut commands = Vec::with_capacity(due.len());
        for one in due {
            if let Some(end) = one.roll {
                if let Err(error) = one.partition.log.roll(end, now) {
                    self.fail(core, (one.topic.id, one.partition.partition), &error);
                    retained.failed += 1;
                    continue;
                }
                core.background.segment_ended();
            }
            if let Some(removal) = one.removal {
                commands.push(Command::MoveLogStart {
                    topic: one.topic.id,
                    partition: one.partition.partition,
                    log_start: removal.log_start,
                });
                moves.push((one, removal));
            }
        }
        if commands.is_empty() {
            return Ok(());
        }
        let results = core.catalog.propose_all(commands);
        for ((one, removal), result) in moves.into_iter().zip(results) {
            match result {
                Ok(_) => {}
                // Deleted meanwhile, or trimmed further.
                Err(ProposeError::Rejected(_)) => continue,
                Err(ProposeError::Catalog(error)) => return Err(error),
            }
            if let Err(error) = one.partition.log.trim(removal.log_start) {
                self.fail(core, (one.topic.id, one.partition.partition), &error);
                retained.failed += 1;
                continue;
            }
            let Removal {
                log_start,
                segments,
                bytes,
            } = removal;
            info!(
                event = "segment.deleted",
                topic = %one.topic.name,
                partition = %one.partition.partition,
                segments,
                bytes,
                %log_start,
                "retention moved the log start"
            );
            retained.partitions += 1;
            retained.segments += segments as u64;
            retained.bytes += bytes;
            let metrics = &core.metrics.retention;
            metrics.segments.add(segments as u64);
            metrics.bytes.add(bytes);
        }
        Ok(())
    }

    fn look_up_some(&mut self, core: &Core) {
        for _ in 0..LOOK_UPS_MAX {
            let Some(look_up) = self.look_ups.pop_front() else {
                return;
            };
            let Some(partition) = look_up.partition.upgrade() else {
                continue;
            };
            let key = (look_up.topic, partition.partition);
            if !self.look_up(core, key, &partition, look_up.policy) {
                self.look_ups.push_back(look_up);
            }
        }
    }

    /// Finds out the times of the oldest segments of a partition, as far as they matter. Says whether
    /// that is done; blocks on the disk.
    fn look_up(
        &mut self,
        core: &Core,
        key: (TopicId, PartitionId),
        partition: &Partition,
        policy: Policy,
    ) -> bool {
        for _ in 0..SEGMENTS_MAX {
            let Some(log) = partition.log.retention_summary() else {
                return true;
            };
            let plan = retention::plan(&log, &policy, core.environment.clock.now());
            let Some(base) = plan.ask else { return true };
            if let Err(error) = partition.log.look_up_age(base) {
                self.fail(core, key, &error);
                return true;
            }
        }
        false
    }

    /// Leaves a partition alone, for longer each time.
    fn fail(&mut self, core: &Core, key: (TopicId, PartitionId), error: &dyn std::error::Error) {
        let pause = self.left_alone.fail(key, core.environment.clock.elapsed());
        core.metrics.retention.failures.add(1);
        let (topic, partition) = key;
        warn!(
            topic_id = %topic, %partition, %error, retry_after = ?pause,
            "retention failed for a partition; the others go on"
        );
    }
}

#[cfg(test)]
mod tests;
