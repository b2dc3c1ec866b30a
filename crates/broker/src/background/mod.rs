//! Background work: one table, one task a row.
//!
//! A row has a name and a tick. A tick says when it wants to run again: at its trigger, or after a
//! time; a row whose work is all done waits for its trigger, so an idle broker has no timers of this
//! table running but those of work that is really due. A tick that fails is logged, counted and run
//! again after a pause that doubles up to a minute; the table never stops.
//!
//! The store has work of its own (checkpoints, maintenance, taking the ballast back), which is not
//! here: it needs no catalog.

mod compaction;
mod deletions;
mod left_alone;
mod producers;
mod retention;
mod scrub;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sapwood_log::Counter;
use sapwood_model::{Timestamp, TopicId};
use tokio::sync::{Notify, watch};
use tracing::{debug, warn};

pub use self::{
    compaction::{CompactError, Compacted, CompactionProgress},
    retention::Retained,
};
use crate::{
    BrokerOptions,
    broker::Core,
    drain::Status,
    metrics::{TaskMetrics, TaskProgress},
    topic_config::TopicConfig,
};

const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// When a row runs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// When it is triggered.
    Triggered,
    /// After this time, however often it is triggered until then.
    After(Duration),
    /// When it is triggered, or after this time.
    By(Duration),
}

/// What went wrong in a tick. It is logged where it stops: in the table.
type TickError = Box<dyn std::error::Error + Send + Sync>;

/// One row of the table.
struct Row {
    name: &'static str,
    /// What it does, in a few words.
    about: &'static str,
    /// What makes it run before its interval is over.
    trigger: Option<&'static str>,
    /// At most so long between two runs; `None` where only the trigger counts.
    interval: fn(&BrokerOptions) -> Option<Duration>,
    /// How many bytes a second it reads and writes at most.
    throttle: fn(&BrokerOptions) -> Option<u64>,
    /// How far it is with what it has begun.
    progress: fn(&Core) -> Option<TaskProgress>,
    /// Runs on the blocking pool; may do I/O.
    tick: fn(&Core) -> Result<Next, TickError>,
    /// How long after a trigger it runs, so that one run serves many triggers.
    delay: Duration,
}

const FORGET_DELETED: usize = 0;
const EXPIRE_PRODUCERS: usize = 1;
const RETENTION: usize = 3;
const COMPACTION: usize = 4;

/// The table. Every row runs once soon after the start.
const ROWS: [Row; 5] = [
    Row {
        name: "forget-deleted",
        about: "forgets deleted topics once no journal entry of theirs is needed",
        trigger: Some("a topic is deleted"),
        interval: |_| None,
        throttle: |_| None,
        progress: |_| None,
        tick: deletions::forget,
        delay: Duration::from_secs(30),
    },
    Row {
        name: "expire-producers",
        about: "forgets idempotent producers that appended nothing for long",
        trigger: Some("an idempotent producer appends"),
        interval: |options| Some(producers::interval(options)),
        throttle: |_| None,
        progress: |_| None,
        tick: producers::expire,
        delay: Duration::from_secs(1),
    },
    Row {
        name: "scrub",
        about: "reads sealed segments to find damage before a reader does",
        trigger: Some("a start after an unclean stop"),
        interval: |options| (options.scrub_bytes_per_second > 0).then_some(scrub::INTERVAL),
        throttle: |options| Some(options.scrub_bytes_per_second).filter(|rate| *rate > 0),
        progress: scrub::progress,
        tick: scrub::scrub,
        delay: Duration::ZERO,
    },
    Row {
        name: "retention",
        about: "deletes segments that are too old or too much, and ends those of quiet partitions",
        trigger: Some(
            "a topic's configuration changes, or one with retention.bytes fills a segment",
        ),
        interval: |options| Some(options.retention_interval),
        throttle: |_| None,
        progress: retention::progress,
        tick: retention::retain,
        delay: Duration::from_secs(1),
    },
    Row {
        name: "compaction",
        about: "keeps the latest record of each key of compacted topics, and removes the others",
        trigger: Some("a topic's configuration changes, or a compacted one fills a segment"),
        interval: |options| {
            (options.compaction_bytes_per_second > 0).then_some(compaction::INTERVAL)
        },
        throttle: |options| Some(options.compaction_bytes_per_second).filter(|rate| *rate > 0),
        progress: compaction::progress,
        tick: compaction::compact,
        delay: Duration::from_secs(1),
    },
];

/// What the rows share with the rest of the broker.
#[derive(Debug, Default)]
pub(crate) struct Background {
    /// Shared with the rows' tasks, which must not keep the broker alive while they wait.
    rows: Arc<[Shared; ROWS.len()]>,
    /// Set by a batch of an idempotent producer, taken back by the row that expires them.
    producers_seen: AtomicBool,
    /// Ids that the store is done with and the catalog was not told yet.
    forgettable: parking_lot::Mutex<Vec<TopicId>>,
    scrub: parking_lot::Mutex<scrub::Scrub>,
    retention: parking_lot::Mutex<retention::Retention>,
    compaction: parking_lot::Mutex<compaction::Compaction>,
    /// One log at a time is compacted because somebody asks for it.
    compaction_turn: Arc<tokio::sync::Mutex<()>>,
    wanted: Arc<RollsWanted>,
}

/// Who wants to know of segments that are full.
#[derive(Debug, Default)]
struct RollsWanted {
    /// Some topic has, or had, a limit in bytes.
    retention: AtomicBool,
    /// Some topic is, or was, compacted.
    compaction: AtomicBool,
}

/// Tells retention and compaction of segments that are full.
#[derive(Debug, Clone)]
pub(crate) struct Rolls {
    rows: Arc<[Shared; ROWS.len()]>,
    wanted: Arc<RollsWanted>,
}

impl Rolls {
    /// A log has grown by a segment. Costs two loads when no topic has a limit in bytes and none is
    /// compacted.
    pub(crate) fn rolled(&self) {
        if self.wanted.retention.load(Ordering::Relaxed) {
            self.rows[RETENTION].trigger.notify_one();
        }
        if self.wanted.compaction.load(Ordering::Relaxed) {
            self.rows[COMPACTION].trigger.notify_one();
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    trigger: Notify,
    runs: Counter,
    failures: Counter,
    last: parking_lot::Mutex<Last>,
}

/// How a row's last tick went, by the broker's clock.
#[derive(Debug, Default)]
struct Last {
    is_running: bool,
    began: Option<Timestamp>,
    took: Duration,
    /// When it runs next without a trigger.
    next: Option<Timestamp>,
    /// The last failure, also when it went well since.
    error: Option<(Timestamp, String)>,
}

impl Background {
    /// Starts a task for each row. They end when the sender of `alive` is gone, or when the broker
    /// drains.
    pub(crate) fn start(core: &Arc<Core>, alive: &watch::Receiver<()>) {
        for index in 0..ROWS.len() {
            let (alive, status) = (alive.clone(), core.gate.watch());
            let rows = core.background.rows.clone();
            tokio::spawn(run(index, rows, Arc::downgrade(core), alive, status));
        }
    }

    /// A topic was deleted.
    pub(crate) fn topic_deleted(&self) {
        self.rows[FORGET_DELETED].trigger.notify_one();
    }

    /// A batch of an idempotent producer was appended. Costs one load when it is known already.
    pub(crate) fn producer_seen(&self) {
        if !self.producers_seen.load(Ordering::Relaxed)
            && !self.producers_seen.swap(true, Ordering::Relaxed)
        {
            self.rows[EXPIRE_PRODUCERS].trigger.notify_one();
        }
    }

    /// A topic has this configuration from now on.
    pub(crate) fn serves(&self, config: &TopicConfig) {
        if config.retention.bytes.is_some() {
            self.wanted.retention.store(true, Ordering::Relaxed);
        }
        if config.compaction.is_some() {
            self.wanted.compaction.store(true, Ordering::Relaxed);
            self.rows[COMPACTION].trigger.notify_one();
        }
    }

    /// What a topic keeps was changed.
    pub(crate) fn config_changed(&self) {
        self.rows[RETENTION].trigger.notify_one();
        self.rows[COMPACTION].trigger.notify_one();
    }

    /// A segment was ended because it was written for long enough.
    fn segment_ended(&self) {
        if self.wanted.compaction.load(Ordering::Relaxed) {
            self.rows[COMPACTION].trigger.notify_one();
        }
    }

    /// The store closes: lets go of what several ticks work on. Blocks.
    pub(crate) fn end(&self) {
        self.compaction.lock().end_run();
    }

    /// Who tells retention and compaction of full segments.
    pub(crate) fn rolls(&self) -> Rolls {
        Rolls {
            rows: self.rows.clone(),
            wanted: self.wanted.clone(),
        }
    }

    /// The table as it stands.
    pub(crate) fn tasks(&self, core: &Core) -> Vec<TaskMetrics> {
        let task = |(row, shared): (&Row, &Shared)| {
            let last = shared.last.lock();
            TaskMetrics {
                name: row.name,
                about: row.about,
                trigger: row.trigger,
                interval: (row.interval)(&core.options),
                bytes_per_second: (row.throttle)(&core.options),
                runs: shared.runs.get(),
                failures: shared.failures.get(),
                is_running: last.is_running,
                last_run: last.began,
                last_took: last.took,
                next_run: last.next,
                last_error: last.error.clone(),
                progress: (row.progress)(core),
            }
        };
        ROWS.iter().zip(&*self.rows).map(task).collect()
    }
}

/// One row, until the broker ends.
async fn run(
    index: usize,
    rows: Arc<[Shared; ROWS.len()]>,
    core: Weak<Core>,
    mut alive: watch::Receiver<()>,
    mut status: watch::Receiver<Status>,
) {
    let (row, shared) = (&ROWS[index], &rows[index]);
    let mut backoff = BACKOFF_MIN;
    let mut next = Next::After(Duration::ZERO);
    loop {
        tokio::select! {
            biased;
            () = wait(row, shared, next) => {}
            _ = alive.changed() => return,
            _ = status.changed() => return,
        }
        let Some(core) = core.upgrade() else { return };
        let (driver, clock) = (core.options.driver, core.environment.clock.clone());
        let (began, elapsed) = (clock.now(), clock.elapsed());
        shared.last.lock().is_running = true;
        let ticked = driver.run(move || (row.tick)(&core)).await;
        let mut error = None;
        next = match ticked {
            Some(Ok(next)) => {
                shared.runs.add(1);
                backoff = BACKOFF_MIN;
                debug!(task = row.name, ?next, "background work done");
                next
            }
            Some(Err(e)) => {
                shared.failures.add(1);
                warn!(task = row.name, error = %e, retry_after = ?backoff, "background work failed");
                error = Some((clock.now(), e.to_string()));
                let pause = Next::After(backoff);
                backoff = (backoff * 2).min(BACKOFF_MAX);
                pause
            }
            None => return,
        };
        let mut last = shared.last.lock();
        *last = Last {
            is_running: false,
            began: Some(began),
            took: clock.elapsed().saturating_sub(elapsed),
            next: next.at(clock.now()),
            error: error.or(last.error.take()),
        };
    }
}

impl Next {
    /// When that is, if nothing triggers it before.
    fn at(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Triggered => None,
            Self::After(time) | Self::By(time) => {
                let ms = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
                Some(Timestamp(now.0.saturating_add(ms)))
            }
        }
    }
}

async fn wait(row: &Row, shared: &Shared, next: Next) {
    match next {
        Next::After(time) => tokio::time::sleep(time).await,
        Next::Triggered => {
            shared.trigger.notified().await;
            tokio::time::sleep(row.delay).await;
        }
        Next::By(time) => {
            tokio::select! {
                biased;
                () = shared.trigger.notified() => tokio::time::sleep(row.delay).await,
                () = tokio::time::sleep(time) => {}
            }
        }
    }
}
