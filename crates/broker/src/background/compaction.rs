//! Compaction: of all records of a key of a compacted topic, the latest stays.
//!
//! A look at all compacted logs says which are due, from memory but for the times of segments that were found at
//! the start, which are looked up once. Then one log at a time is compacted, those first in which a record
//! has waited for too long, then those with the most that is new. A tick reads and writes about a mebibyte; the
//! pause behind it keeps the throttle, and is as long as the tick was while records are produced. A partition
//! with which something fails is left alone for a while, and the others go on.

mod now;

use std::{cmp::Ordering, collections::VecDeque, sync::Arc, time::Duration};

use sapwood_log::{
    ReadError,
    compaction::{
        self, Ask, CompactError as LogCompactError, CompactableLog, CompactionOptions,
        CompactionStats, Compactor, Plan, Policy, Stepped,
    },
};
use sapwood_model::{Offset, PartitionId, Timestamp, TopicId};
use tracing::{debug, info, warn};

pub use self::now::{CompactError, Compacted, CompactionProgress};
use super::{Next, TickError, left_alone::LeftAlone};
use crate::{
    broker::Core,
    metrics::TaskProgress,
    registry::{Partition, Topic, TopicRef},
    topic_config::Compaction as Config,
};

/// Between two looks at all logs: Kafka's `log.cleaner.backoff.ms`.
pub(super) const INTERVAL: Duration = Duration::from_secs(15);
const STEP_BYTES_MAX: u64 = 1 << 20;
const STEP_BYTES_MIN: u64 = 64 << 10;
/// A second's worth is done in at least this many steps.
const STEPS_A_SECOND: u64 = 8;
/// So often it is seen, in a long pause, that a topic was deleted.
const PAUSE_MAX: Duration = Duration::from_secs(1);
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// Segments whose times are looked up in one tick.
const LOOK_UPS_MAX: usize = 64;
const LOOK_UP_PAUSE: Duration = Duration::from_millis(10);
/// Between two looks, however often it is triggered.
const LOOK_GAP: Duration = Duration::from_secs(1);

/// What compaction remembers between two ticks.
#[derive(Debug, Default)]
pub(crate) struct Compaction {
    /// Logs that were due when all were looked at, the most urgent first.
    due: VecDeque<Due>,
    /// How many it were.
    found: usize,
    /// When that was, by the monotonic clock.
    looked_at: Duration,
    run: Option<Run>,
    /// Pauses for what was done that were not made yet.
    owed: Duration,
    /// When a checkpoint was last asked for, by the monotonic clock.
    checkpoint_at: Option<Duration>,
    left_alone: LeftAlone,
}

#[derive(Debug)]
struct Due {
    key: (TopicId, PartitionId),
    is_overdue: bool,
    ratio: f64,
}

/// The log that is being compacted.
#[derive(Debug)]
struct Run {
    key: (TopicId, PartitionId),
    compactor: Compactor,
    /// What the metrics have of it.
    counted: CompactionStats,
    /// Batches that were produced before its last step.
    produced: u64,
}

/// What a look at all logs found.
#[derive(Default)]
struct Look {
    due: Vec<Due>,
    /// Some log is compacted at all.
    any: bool,
    /// More has to be looked up.
    asks: bool,
    /// A segment could be compacted but for a checkpoint, which on a broker with little to do may be far away.
    wants_checkpoint: bool,
    next_at: Option<Timestamp>,
    ratio_max: f64,
    left_alone: u64,
}

/// One tick: a step of the run, or a look at all logs.
pub(super) fn compact(core: &Core) -> Result<Next, TickError> {
    let mut compaction = core.background.compaction.lock();
    let is_on = core.options.compaction_bytes_per_second > 0;
    // A drain waits for what is under way. A read-only directory stays as it is until a restart.
    let accepted = core.gate.accept();
    if !is_on || accepted.is_none() || core.store.read_only().is_some() {
        compaction.end_run();
        return Ok(Next::Triggered);
    }
    compaction.drop_unwanted(core);
    if let Some(pause) = compaction.take_pause() {
        return Ok(Next::After(pause));
    }
    if compaction.run.is_none() && !compaction.begin_next(core) {
        let next = compaction.look_at_all(core)?;
        if !compaction.begin_next(core) {
            return Ok(next);
        }
    }
    compaction.step(core);
    Ok(Next::After(compaction.take_pause().unwrap_or(PAUSE_MIN)))
}

/// Partitions that are done of those that were due; not known while a tick is under way.
pub(super) fn progress(core: &Core) -> Option<TaskProgress> {
    let compaction = core.background.compaction.try_lock()?;
    let left = compaction.due.len() + usize::from(compaction.run.is_some());
    let total = compaction.found as u64;
    (left > 0).then_some(TaskProgress {
        done: total.saturating_sub(left as u64),
        total,
    })
}

impl Compaction {
    /// Gives up what is under way.
    pub(super) fn end_run(&mut self) {
        self.run = None;
        self.due.clear();
        self.found = 0;
    }

    /// Gives up a log whose topic was deleted, or is not compacted any more.
    fn drop_unwanted(&mut self, core: &Core) {
        let Some(run) = &self.run else { return };
        let is_wanted = find(core, run.key).is_some();
        if !is_wanted {
            debug!(topic_id = %run.key.0, partition = %run.key.1, "gave up compacting a log");
            self.run = None;
        }
    }

    /// A part of the pauses that are owed.
    fn take_pause(&mut self) -> Option<Duration> {
        let pause = self.owed.min(PAUSE_MAX);
        self.owed -= pause;
        (!pause.is_zero()).then_some(pause)
    }

    /// Looks at every compacted log, and says when to look again if nothing is due.
    fn look_at_all(&mut self, core: &Core) -> Result<Next, TickError> {
        let began = core.environment.clock.elapsed();
        self.left_alone.forget_old(began);
        let mut look = Look::default();
        let mut look_ups = LOOK_UPS_MAX;
        for topic in core.registry.all() {
            let Some(config) = topic.config.load().compaction else {
                continue;
            };
            for partition in topic.partitions.load().iter() {
                let key = (topic.id, partition.partition);
                look.any = true;
                if self.left_alone.has(key, began) {
                    look.left_alone += 1;
                    continue;
                }
                if let Err(error) = look.add(core, key, partition, &config.policy, &mut look_ups) {
                    self.fail(core, key, &error);
                    look.left_alone += 1;
                }
            }
        }
        let metrics = &core.metrics.compaction;
        metrics.looked(look.ratio_max, look.left_alone);
        if look.asks {
            return Ok(Next::After(LOOK_UP_PAUSE));
        }
        look.due.sort_by(Due::by_urgency);
        self.found = look.due.len();
        self.due = look.due.into();
        self.looked_at = began;
        if !look.any {
            return Ok(Next::Triggered);
        }
        if look.wants_checkpoint && self.may_checkpoint(began) {
            self.checkpoint_at = Some(began);
            core.store.checkpoint()?;
            return Ok(Next::By(LOOK_GAP));
        }
        let now = core.environment.clock.now();
        let next_in = look.next_at.map(|at| {
            let ms = u64::try_from(at.0.saturating_sub(now.0)).unwrap_or(0);
            Duration::from_millis(ms)
        });
        let waits = [Some(INTERVAL), next_in, self.left_alone.retry_in(began)];
        let wait = waits.into_iter().flatten().min().unwrap_or(INTERVAL);
        Ok(Next::By(wait.max(LOOK_GAP)))
    }

    fn may_checkpoint(&self, now: Duration) -> bool {
        let last = self.checkpoint_at;
        last.is_none_or(|last| now.saturating_sub(last) >= INTERVAL)
    }

    /// Begins with the next log that is due. Says whether there is one; none when it is time to look at all
    /// of them again.
    fn begin_next(&mut self, core: &Core) -> bool {
        let now = core.environment.clock.elapsed();
        if now.saturating_sub(self.looked_at) > INTERVAL {
            self.due.clear();
        }
        while let Some(Due { key, .. }) = self.due.pop_front() {
            let Some((partition, config)) = find(core, key) else {
                continue;
            };
            match begin(core, &partition, &config) {
                Ok(Some(compactor)) => {
                    self.run = Some(Run {
                        key,
                        compactor,
                        counted: CompactionStats::default(),
                        produced: core.metrics.produce.ok(),
                    });
                    return true;
                }
                // Not due any more, or somebody had it compacted.
                Ok(None) | Err(LogCompactError::Changed) => {}
                Err(error) => self.fail(core, key, &error),
            }
        }
        false
    }

    /// One step of the run, and what is owed for it.
    fn step(&mut self, core: &Core) {
        let Some(run) = &mut self.run else { return };
        let rate = core.options.compaction_bytes_per_second;
        let clock = &core.environment.clock;
        let began = clock.elapsed();
        let bytes_max = (rate / STEPS_A_SECOND).clamp(STEP_BYTES_MIN, STEP_BYTES_MAX);
        let stepped = run.compactor.step(bytes_max);
        let took = clock.elapsed().saturating_sub(began);
        let bytes = run.count(core);
        let produced = core.metrics.produce.ok();
        let is_busy = std::mem::replace(&mut run.produced, produced) != produced;
        self.owed = pause(bytes, rate, is_busy.then_some(took));
        let key = run.key;
        match stepped {
            Ok(Stepped::More) => return,
            Ok(Stepped::Done) => {
                done(core, run.compactor.partition(), &run.counted);
                self.left_alone.forgive(key);
            }
            Err(LogCompactError::Changed | LogCompactError::ReadOnly { .. }) => {}
            Err(error) => self.fail(core, key, &error),
        }
        self.run = None;
    }

    /// Leaves a partition alone, for longer each time.
    fn fail(&mut self, core: &Core, key: (TopicId, PartitionId), error: &dyn std::error::Error) {
        let pause = self.left_alone.fail(key, core.environment.clock.elapsed());
        core.metrics.compaction.failures.add(1);
        let (topic, partition) = key;
        warn!(
            topic_id = %topic, %partition, %error, retry_after = ?pause,
            "compaction failed for a partition; the others go on"
        );
    }
}

impl Run {
    /// Counts what was done since the last time, and says how many bytes it were.
    fn count(&mut self, core: &Core) -> u64 {
        let (before, now) = (self.counted, self.compactor.stats());
        core.metrics.compaction.count(&before, &now);
        self.counted = now;
        let sum = |stats: &CompactionStats| stats.read_bytes + stats.written_bytes;
        sum(&now) - sum(&before)
    }
}

impl Due {
    fn by_urgency(&self, other: &Self) -> Ordering {
        let overdue = other.is_overdue.cmp(&self.is_overdue);
        overdue.then(other.ratio.total_cmp(&self.ratio))
    }
}

impl Look {
    /// Looks at one log.
    fn add(
        &mut self,
        core: &Core,
        key: (TopicId, PartitionId),
        partition: &Partition,
        policy: &Policy,
        look_ups: &mut usize,
    ) -> Result<(), ReadError> {
        let Some((log, plan)) = plan(core, partition, policy, look_ups)? else {
            return Ok(());
        };
        self.asks |= plan.ask.is_some();
        self.ratio_max = self.ratio_max.max(plan.dirty_ratio());
        self.next_at = self.next_at.into_iter().chain(plan.due_at).min();
        if plan.is_due {
            self.due.push(Due {
                key,
                is_overdue: plan.is_overdue,
                ratio: plan.dirty_ratio(),
            });
        }
        self.wants_checkpoint |= has_more_sealed(partition, &log);
        Ok(())
    }
}

/// The partition, if it is there and compacted.
fn find(
    core: &Core,
    (topic, partition): (TopicId, PartitionId),
) -> Option<(Arc<Partition>, Config)> {
    let topic: Arc<Topic> = core.registry.find(TopicRef::Id(topic)).ok()?;
    let config = topic.config.load().compaction?;
    Some((topic.partition(partition).ok()?, config))
}

/// What is to be done with a log; `None` while it does not serve. Asks for what it has to know, as long as
/// there are look-ups left.
fn plan(
    core: &Core,
    partition: &Partition,
    policy: &Policy,
    look_ups: &mut usize,
) -> Result<Option<(CompactableLog, Plan)>, ReadError> {
    loop {
        let Some(log) = partition.log.compactable()? else {
            return Ok(None);
        };
        let plan = compaction::plan(&log, policy, core.environment.clock.now());
        let Some(ask) = plan.ask.filter(|_| *look_ups > 0) else {
            return Ok(Some((log, plan)));
        };
        *look_ups -= 1;
        match ask {
            Ask::Age(base) => partition.log.look_up_age(base)?,
            Ask::First(base) => partition.log.look_up_first(base)?,
        }
    }
}

/// The pause behind a step: so long that the rate is kept, and at least as long as the step took when others
/// wanted the disk meanwhile.
fn pause(bytes: u64, rate: u64, took: Option<Duration>) -> Duration {
    let micros = u128::from(bytes) * 1_000_000 / u128::from(rate);
    let by_rate = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
    by_rate.max(took.unwrap_or_default()).max(PAUSE_MIN)
}

/// Whether there are full segments, which everybody can read, behind those that may be compacted.
fn has_more_sealed(partition: &Partition, log: &CompactableLog) -> bool {
    let Some(summary) = partition.log.retention_summary() else {
        return false;
    };
    let end = log
        .segments
        .last()
        .map_or(Offset::ZERO, |one| one.offsets.end);
    let [sealed @ .., _] = &summary.segments[..] else {
        return false;
    };
    let mut ends = sealed.iter().map(|segment| segment.offsets.end);
    ends.any(|one| one > end && one <= summary.high_watermark)
}

/// Begins with a log, if it is due.
fn begin(
    core: &Core,
    partition: &Partition,
    config: &Config,
) -> Result<Option<Compactor>, LogCompactError> {
    let Some((_, plan)) = plan(core, partition, &config.policy, &mut 0)? else {
        return Ok(None);
    };
    if !plan.is_due {
        return Ok(None);
    }
    let options = options(core, config, plan.dirty.end);
    partition.log.compactor(options).map(Some)
}

fn options(core: &Core, config: &Config, upto: Offset) -> CompactionOptions {
    CompactionOptions {
        upto,
        dedupe_bytes: core.options.compaction_dedupe_bytes,
        delete_retention_ms: config.delete_retention_ms,
        decompressed_bytes_max: core.options.decompressed_bytes_max,
    }
}

/// A log was compacted to the end.
fn done(core: &Core, log: &sapwood_log::Partition, stats: &CompactionStats) {
    core.metrics.compaction.runs.add(1);
    let spec = log.spec();
    info!(
        event = "log.compacted",
        topic = %spec.topic,
        partition = %spec.partition,
        read_bytes = stats.read_bytes,
        written_bytes = stats.written_bytes,
        removed_records = stats.removed_records,
        segments = stats.replaced_segments,
        bytes_before = stats.bytes_before,
        bytes_after = stats.bytes_after,
        "compacted a log"
    );
}

#[cfg(test)]
mod tests;
