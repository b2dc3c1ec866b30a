//! Compacting a log at once, because somebody asks for it.

use std::{ops::ControlFlow, time::Duration};

use sapwood_log::{
    AppendError, ReadError, StoreError,
    compaction::{CompactError as LogCompactError, CompactionStats, Policy, Stepped},
};
use sapwood_model::{Code, Offset, PartitionId, TopicName};

use super::{STEP_BYTES_MAX, done, options, plan};
use crate::{
    Broker, Driver,
    broker::Core,
    drain::Status,
    registry::{LookupError, Partition, Topic, TopicRef},
};

/// How often, and with what pauses, it is seen whether the segment that was written is sealed.
const SEAL_TRIES_MAX: usize = 500;
const SEAL_PAUSE: Duration = Duration::from_millis(10);
/// How often the active segment is rolled again because something was appended meanwhile.
const ROLL_TRIES_MAX: usize = 100;

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompactionProgress {
    /// Bytes that were read.
    pub done_bytes: u64,
    /// Of so many. More when there are more keys than the memory for them takes.
    pub total_bytes: u64,
}

/// What a run has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compacted {
    /// What it counted.
    pub stats: CompactionStats,
    /// Everything below is compacted now.
    pub cleaned: Offset,
}

/// Why a log was not compacted to the end. What was compacted so far stays.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// The topic or the partition is not there.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The topic keeps all records of a key.
    #[error("topic {topic:?} is not compacted: its cleanup.policy does not contain compact")]
    NotCompacted {
        /// The topic.
        topic: TopicName,
    },
    /// The active segment could not be ended.
    #[error(transparent)]
    Roll(#[from] AppendError),
    /// No checkpoint could be taken.
    #[error(transparent)]
    Checkpoint(#[from] StoreError),
    /// The run failed.
    #[error(transparent)]
    Log(#[from] LogCompactError),
    /// Whoever asked for it wants no more.
    #[error("the compaction was given up")]
    GivenUp,
    /// The broker is shutting down.
    #[error("the broker is shutting down")]
    Draining,
}

impl From<ReadError> for CompactError {
    fn from(error: ReadError) -> Self {
        Self::Log(error.into())
    }
}

impl CompactError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Lookup(error) => error.code(),
            Self::NotCompacted { .. } => Code::InvalidTopicConfig,
            Self::Roll(error) => error.code(),
            Self::Checkpoint(error) => error.code(),
            Self::Log(error) => error.code(),
            Self::GivenUp | Self::Draining => Code::Draining,
        }
    }
}

impl Broker {
    /// Compacts one partition now, without a throttle: whatever part of it is new, and what is written now as
    /// well. Only `min.compaction.lag.ms` is kept. One partition at a time; the others wait. `report` is
    /// told how far it is, and may end it.
    ///
    /// # Errors
    /// [`CompactError`].
    pub async fn compact<'a>(
        &self,
        topic: impl Into<TopicRef<'a>>,
        partition: PartitionId,
        report: impl FnMut(CompactionProgress) -> ControlFlow<()> + Send + 'static,
    ) -> Result<Compacted, CompactError> {
        let topic = self.core.registry.find(topic.into())?;
        let partition = topic.partition(partition)?;
        let turn = self.core.background.compaction_turn.clone();
        let turn = turn.lock_owned().await;
        let accepted = self.core.gate.accept().ok_or(CompactError::Draining)?;
        let core = self.core.clone();
        let compact = move || {
            let _held = (turn, accepted);
            core.compact_now(&topic, &partition, report)
        };
        let driver = self.core.options.driver;
        driver.run(compact).await.ok_or(CompactError::Draining)?
    }
}

impl Core {
    fn compact_now(
        &self,
        topic: &Topic,
        partition: &Partition,
        mut report: impl FnMut(CompactionProgress) -> ControlFlow<()>,
    ) -> Result<Compacted, CompactError> {
        let not_compacted = || CompactError::NotCompacted {
            topic: topic.name.clone(),
        };
        let config = topic.config.load().compaction.ok_or_else(not_compacted)?;
        self.seal_all(partition)?;
        let policy = Policy {
            min_dirty_ratio: 0.0,
            max_lag_ms: None,
            ..config.policy
        };
        let mut look_ups = usize::MAX;
        let planned = plan(self, partition, &policy, &mut look_ups)?;
        let (_, planned) = planned.ok_or(LogCompactError::Changed)?;
        let key = (topic.id, partition.partition);
        let mut compactor = {
            let mut compaction = self.background.compaction.lock();
            if compaction.run.as_ref().is_some_and(|run| run.key == key) {
                compaction.run = None;
            }
            let options = options(self, &config, planned.dirty.end);
            partition.log.compactor(options)?
        };
        let mut counted = CompactionStats::default();
        loop {
            let stepped = compactor.step(STEP_BYTES_MAX);
            let stats = compactor.stats();
            self.metrics.compaction.count(&counted, &stats);
            counted = stats;
            if stepped.inspect_err(|_| self.metrics.compaction.failures.add(1))? == Stepped::Done {
                break;
            }
            let (done_bytes, total_bytes) = compactor.progress();
            let progress = CompactionProgress {
                done_bytes,
                total_bytes,
            };
            if report(progress).is_break() {
                return Err(CompactError::GivenUp);
            }
            if self.gate.status() != Status::Ready {
                return Err(CompactError::Draining);
            }
        }
        done(self, &partition.log, &counted);
        self.background.compaction.lock().left_alone.forgive(key);
        Ok(Compacted {
            stats: counted,
            cleaned: planned.dirty.end,
        })
    }

    /// Ends the active segment and waits until it can be compacted. Where that takes too long, as on a full
    /// disk, the rest is compacted without it. Blocks.
    fn seal_all(&self, partition: &Partition) -> Result<(), CompactError> {
        let log = &partition.log;
        let mut end = log.bounds().log_end;
        for _ in 0..ROLL_TRIES_MAX {
            log.roll(end, self.environment.clock.now())?;
            let now = log.bounds().log_end;
            if std::mem::replace(&mut end, now) == now {
                break;
            }
        }
        let mut is_checkpointed = false;
        for tries in 0..SEAL_TRIES_MAX {
            let compactable = log.compactable()?.ok_or(LogCompactError::Changed)?;
            let last = compactable.segments.last();
            if last.map_or(compactable.log_start, |one| one.offsets.end) >= end {
                break;
            }
            if self.gate.status() != Status::Ready {
                return Err(CompactError::Draining);
            }
            match self.options.driver {
                Driver::Threads if tries == 0 => {}
                Driver::Threads => std::thread::sleep(SEAL_PAUSE),
                Driver::Caller => {
                    self.store.step_journal();
                    self.store.step_maintenance()?;
                }
            }
            if !is_checkpointed && log.bounds().high_watermark >= end {
                self.store.checkpoint()?;
                is_checkpointed = true;
            }
        }
        Ok(())
    }
}
