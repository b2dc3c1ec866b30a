//! What the background threads wait for. Nothing here ticks while nothing happens.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

use super::StoreOptions;
use crate::{io::Clock, partition::Partition};

/// Even a fast writer of os topics does not cause checkpoints more often than this.
const OS_CHECKPOINT_GAP: Duration = Duration::from_secs(1);
/// How often a released ballast looks for free space. Only then does anything tick.
const BALLAST_INTERVAL: Duration = Duration::from_secs(1);

/// The work that waits for the background threads.
#[derive(Debug, Default)]
pub(super) struct Work {
    state: Mutex<State>,
    maintenance: Condvar,
    checkpoint: Condvar,
    os_dirty_bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    partitions: VecDeque<Arc<Partition>>,
    prewrite: bool,
    checkpoint: bool,
    os_dirty_since: Option<Duration>,
    last_checkpoint: Duration,
    /// Set while the ballast is given up.
    look_for_space_at: Option<Duration>,
    stopped: bool,
}

/// What the maintenance thread does next.
#[derive(Debug)]
pub(super) enum Task {
    Partition(Arc<Partition>),
    Prewrite,
    RestoreBallast,
}

impl Work {
    pub(super) fn push(&self, partition: &Arc<Partition>) {
        self.state
            .lock()
            .partitions
            .push_back(Arc::clone(partition));
        self.maintenance.notify_one();
    }

    pub(super) fn want_prewrite(&self) {
        self.state.lock().prewrite = true;
        self.maintenance.notify_one();
    }

    pub(super) fn want_checkpoint(&self) {
        self.state.lock().checkpoint = true;
        self.checkpoint.notify_one();
    }

    /// Somebody released the ballast: from now on look for free space.
    pub(super) fn ballast_released(&self) {
        self.maintenance.notify_one();
    }

    /// Counts bytes of os topics; the first ones and too many of them wake the checkpoint thread.
    pub(super) fn dirtied(&self, bytes: u64, limit: u64, clock: &dyn Clock) {
        let before = self.os_dirty_bytes.fetch_add(bytes, Relaxed);
        if before == 0 {
            self.state.lock().os_dirty_since = Some(clock.elapsed());
        }
        if before == 0 || (before < limit && before + bytes >= limit) {
            self.checkpoint.notify_one();
        }
    }

    /// A checkpoint begins: what is dirtied from now on asks for the next one.
    pub(super) fn begin_checkpoint(&self) {
        let mut state = self.state.lock();
        state.checkpoint = false;
        state.os_dirty_since = None;
        self.os_dirty_bytes.store(0, Relaxed);
    }

    /// The next thing to do, without waiting.
    pub(super) fn take(&self) -> Option<Task> {
        let mut state = self.state.lock();
        if let Some(partition) = state.partitions.pop_front() {
            return Some(Task::Partition(partition));
        }
        std::mem::take(&mut state.prewrite).then_some(Task::Prewrite)
    }

    /// Waits for something to do. `None`: stopped. Blocks.
    pub(super) fn wait(
        &self,
        ballast_is_released: impl Fn() -> bool,
        clock: &dyn Clock,
    ) -> Option<Task> {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return None;
            }
            // First of all, as often as it is due and not more: there may be no end of other work.
            let look_in = ballast_is_released().then(|| {
                let now = clock.elapsed();
                let due = *state
                    .look_for_space_at
                    .get_or_insert(now + BALLAST_INTERVAL);
                due.saturating_sub(now)
            });
            if look_in == Some(Duration::ZERO) {
                state.look_for_space_at = None;
                return Some(Task::RestoreBallast);
            }
            if let Some(partition) = state.partitions.pop_front() {
                return Some(Task::Partition(partition));
            }
            if std::mem::take(&mut state.prewrite) {
                return Some(Task::Prewrite);
            }
            match look_in {
                None => self.maintenance.wait(&mut state),
                Some(time) => drop(self.maintenance.wait_for(&mut state, time)),
            }
        }
    }

    /// Whether a checkpoint is due now.
    pub(super) fn checkpoint_is_due(&self, options: &StoreOptions, now: Duration) -> bool {
        self.state
            .lock()
            .due_in(self.os_dirty_bytes.load(Relaxed), options, now)
            == Some(Duration::ZERO)
    }

    /// Waits until a checkpoint is due. `false`: stopped. Blocks.
    pub(super) fn wait_for_checkpoint(&self, options: &StoreOptions, clock: &dyn Clock) -> bool {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return false;
            }
            let now = clock.elapsed();
            match state.due_in(self.os_dirty_bytes.load(Relaxed), options, now) {
                Some(Duration::ZERO) => {
                    state.last_checkpoint = now;
                    return true;
                }
                Some(wait) => drop(self.checkpoint.wait_for(&mut state, wait)),
                None => self.checkpoint.wait(&mut state),
            }
        }
    }

    /// Lets the checkpoint thread rest, unless the store is stopped meanwhile.
    pub(super) fn pause(&self, time: Duration) {
        let mut state = self.state.lock();
        if !state.stopped {
            self.checkpoint.wait_for(&mut state, time);
        }
    }

    pub(super) fn stop(&self) {
        self.state.lock().stopped = true;
        self.maintenance.notify_all();
        self.checkpoint.notify_all();
    }

    /// Forgets everybody; breaks the circle of partitions and store.
    pub(super) fn clear(&self) {
        self.state.lock().partitions.clear();
    }
}

impl State {
    fn due_in(
        &self,
        os_dirty_bytes: u64,
        options: &StoreOptions,
        now: Duration,
    ) -> Option<Duration> {
        if self.checkpoint {
            return Some(Duration::ZERO);
        }
        let since = self.os_dirty_since?;
        let by_age = since + options.os_checkpoint_interval;
        let by_bytes = self.last_checkpoint + OS_CHECKPOINT_GAP;
        let due = if os_dirty_bytes >= options.os_checkpoint_bytes {
            by_age.min(by_bytes)
        } else {
            by_age
        };
        Some(due.saturating_sub(now))
    }
}
