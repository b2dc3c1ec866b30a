//! Reading everything that is at rest, slowly, to find damage before a reader does: once after an unclean
//! start, and once a week.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::Duration,
};

use sapwood_log::{Partition, ReadError};
use sapwood_model::{Offset, Timestamp};
use tracing::{debug, info, warn};

use super::{Next, TickError};
use crate::{broker::Core, metrics::TaskProgress};

pub(super) const INTERVAL: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// A second's worth is read in this many steps, so that no reader waits for long.
const STEPS_A_SECOND: u32 = 8;
const STEP_BYTES_MIN: u64 = 64 << 10;
/// Partitions that one step looks at, most of which have nothing sealed.
const STEP_PARTITIONS_MAX: usize = 1_000;

/// How far the scrub is.
#[derive(Debug, Default)]
pub(super) struct Scrub {
    /// When the last pass of this process ended.
    ended: Option<Timestamp>,
    pass: Option<Pass>,
}

#[derive(Debug)]
struct Pass {
    /// The first of them from `from` on. One that was deleted must not keep its files open in here.
    left: VecDeque<Weak<Partition>>,
    total: usize,
    from: Offset,
    bytes: u64,
    damaged: u64,
}

/// One step of a pass that is due.
pub(super) fn scrub(core: &Core) -> Result<Next, TickError> {
    let rate = core.options.scrub_bytes_per_second;
    if rate == 0 {
        return Ok(Next::Triggered);
    }
    let mut scrub = core.background.scrub.lock();
    if scrub.pass.is_none() {
        let wait = due_in(core, scrub.ended);
        if !wait.is_zero() {
            return Ok(Next::After(wait));
        }
        scrub.pass = Some(begin(core));
    }
    let Some(pass) = &mut scrub.pass else {
        return Ok(Next::Triggered);
    };
    let budget = (rate / u64::from(STEPS_A_SECOND)).max(STEP_BYTES_MIN);
    let bytes = pass.step(budget);
    if !pass.left.is_empty() {
        let pause = Duration::from_micros(bytes.saturating_mul(1_000_000) / rate);
        return Ok(Next::After(pause.max(Duration::from_millis(1))));
    }
    let (bytes, damaged) = (pass.bytes, pass.damaged);
    info!(
        event = "scrub.done",
        bytes, damaged, "read all sealed segments"
    );
    let now = core.environment.clock.now();
    *scrub = Scrub {
        ended: Some(now),
        pass: None,
    };
    if let Err(error) = core.store.note_scrub(now) {
        warn!(%error, "that everything was read could not be noted; the next start reads it again");
    }
    Ok(Next::After(INTERVAL))
}

/// Partitions that were read; not known while a step is under way.
pub(super) fn progress(core: &Core) -> Option<TaskProgress> {
    let scrub = core.background.scrub.try_lock()?;
    let pass = scrub.pass.as_ref()?;
    let total = pass.total as u64;
    Some(TaskProgress {
        done: total.saturating_sub(pass.left.len() as u64),
        total,
    })
}

fn due_in(core: &Core, ended: Option<Timestamp>) -> Duration {
    let last = match ended {
        None if !core.recovery.clean => None,
        None => core.store.last_scrub(),
        ended => ended,
    };
    // Without one the directory is new, or nobody knows what its last process left.
    let Some(last) = last else {
        return Duration::ZERO;
    };
    let age = core.environment.clock.now().0.saturating_sub(last.0);
    // A clock that was set back must not put it off for ever.
    let age = Duration::from_millis(u64::try_from(age).unwrap_or(0));
    INTERVAL.saturating_sub(age)
}

fn begin(core: &Core) -> Pass {
    let topics = core.registry.all();
    let partitions = topics.iter().flat_map(|topic| {
        let partitions = topic.partitions.load();
        let logs: Vec<_> = partitions
            .iter()
            .map(|one| Arc::downgrade(&one.log))
            .collect();
        logs
    });
    let left: VecDeque<_> = partitions.collect();
    Pass {
        total: left.len(),
        left,
        from: Offset::ZERO,
        bytes: 0,
        damaged: 0,
    }
}

impl Pass {
    /// Reads about `budget` bytes and says how many it were.
    fn step(&mut self, budget: u64) -> u64 {
        let mut read = 0;
        for _ in 0..STEP_PARTITIONS_MAX {
            let Some(partition) = self.left.front() else {
                break;
            };
            let Some(partition) = partition.upgrade() else {
                self.next_partition();
                continue;
            };
            match partition.scrub(self.from, budget - read) {
                Ok(scrubbed) => {
                    read += scrubbed.bytes;
                    match scrubbed.next {
                        Some(next) => self.from = next,
                        None => self.next_partition(),
                    }
                }
                // It is offline now, and has said why where everybody sees it.
                Err(ReadError::Corrupt { .. } | ReadError::Failed { .. }) => {
                    self.damaged += 1;
                    self.next_partition();
                }
                // Deleted, offline before, or trimmed meanwhile beyond what was to be read next.
                Err(error) => {
                    debug!(%error, "a partition was not scrubbed");
                    self.next_partition();
                }
            }
            if read >= budget {
                break;
            }
        }
        self.bytes += read;
        read
    }

    fn next_partition(&mut self) {
        self.left.pop_front();
        self.from = Offset::ZERO;
    }
}
