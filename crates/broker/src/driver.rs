//! Who does the work that waits for a disk.

use std::num::NonZero;

use sapwood_log::{JournalStep, StoreError};

use crate::Broker;

/// Who does the work that waits for a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Driver {
    /// Threads: three of the store's, and the runtime's blocking pool.
    #[default]
    Threads,
    /// The caller, for simulations: the journal and the store's background work move only with
    /// [`Broker::step_journal`] and [`Broker::step_maintenance`], and what would run on the blocking
    /// pool holds up the thread that asks for it. On a runtime of one thread with paused time nothing
    /// then runs beside anything else, and a run on a simulated machine repeats exactly.
    Caller,
}

impl Driver {
    /// How much of what takes a processor for long runs at once.
    pub(crate) fn processors(self) -> usize {
        match self {
            Self::Threads => std::thread::available_parallelism().map_or(1, NonZero::get),
            Self::Caller => 1,
        }
    }

    /// Runs what blocks. Other tasks have a turn before and after it. `None` when the runtime is
    /// shutting down.
    ///
    /// # Panics
    /// When the work does: a fault must not be taken for a shutdown.
    pub(crate) async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        if self == Self::Threads {
            return join(tokio::task::spawn_blocking(work)).await;
        }
        tokio::task::yield_now().await;
        // A thread of its own all the same: some of the work may not be done on an async one.
        let done = std::thread::spawn(work).join();
        tokio::task::yield_now().await;
        match done {
            Ok(result) => Some(result),
            Err(fault) => std::panic::resume_unwind(fault),
        }
    }
}

/// The result of a task; `None` when the runtime is shutting down.
///
/// # Panics
/// When the task did: a fault must not be taken for a shutdown.
pub(crate) async fn join<T>(task: tokio::task::JoinHandle<T>) -> Option<T> {
    match task.await {
        Ok(result) => Some(result),
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        Err(_) => None,
    }
}

impl Broker {
    /// One round of the journal, if anything waits for one. Blocks. For brokers with
    /// [`Driver::Caller`].
    pub fn step_journal(&self) -> JournalStep {
        self.core.store.step_journal()
    }

    /// The store's background work that is due: upkeep of partitions, a file of the journal written
    /// ahead, a checkpoint. Blocks. For brokers with [`Driver::Caller`].
    ///
    /// # Errors
    /// [`StoreError`] of the checkpoint.
    pub fn step_maintenance(&self) -> Result<(), StoreError> {
        self.core.store.step_maintenance()
    }
}
