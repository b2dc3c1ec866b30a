//! What `/livez` and `/readyz` know: how far the start is, and whether the broker drains.
//!
//! A broker serves as soon as its logs are recovered. Its groups are loaded meanwhile: a request that
//! needs one of them is told to come again, so whoever sends traffic by `/readyz` waits for them too.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use sapwood_broker::{Broker, LoadProgress};
use serde::Serialize;

/// How far recovery is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RecoveryProgress {
    /// Partitions that are recovered.
    pub partitions_done: u64,
    /// Partitions that there are; 0 until that is known.
    pub partitions_total: u64,
    /// Bytes read and written again so far.
    pub bytes_done: u64,
}

/// How far the consumer groups are loaded.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LoadingProgress {
    /// Partitions of `__consumer_offsets` that are loaded, or could not be.
    pub partitions_done: usize,
    /// Partitions that there are.
    pub partitions_total: usize,
    /// Offsets that were replayed so far.
    pub offsets_done: u64,
    /// Offsets that are known to have to be.
    pub offsets_total: u64,
}

impl From<LoadProgress> for LoadingProgress {
    fn from(progress: LoadProgress) -> Self {
        let done = progress.loaded + progress.failed;
        Self {
            partitions_done: done,
            partitions_total: done + progress.loading,
            offsets_done: progress.replayed,
            offsets_total: progress.offsets,
        }
    }
}

/// What `/readyz` answers: 200 when ready, else 503, each with this as JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Readiness {
    /// The data directory is being recovered; nothing is served yet.
    Recovering {
        /// How far.
        #[serde(flatten)]
        progress: RecoveryProgress,
        /// Seconds since the start.
        elapsed_seconds: f64,
    },
    /// Requests are served, but for those of consumer groups that are yet to be loaded.
    Loading {
        /// How far.
        #[serde(flatten)]
        progress: LoadingProgress,
        /// Seconds since the start.
        elapsed_seconds: f64,
    },
    /// Requests are served.
    Ready,
    /// The disk has no room for records: they are refused until it has. What is there is served, and
    /// topics can be deleted.
    Full {
        /// What was refused, and what would help.
        reason: String,
    },
    /// A write or a sync failed: records are refused until a restart. What is there is served.
    ReadOnly {
        /// The first thing that went wrong.
        reason: String,
    },
    /// What was accepted is finished, and nothing new is taken.
    Draining,
}

/// The state of one process, from its start to its end. It only moves forward: recovering, loading,
/// ready, draining; but for the disk, which may fill up and have room again, or fail.
pub struct Health {
    started: Instant,
    progress: Box<dyn Fn() -> RecoveryProgress + Send + Sync>,
    broker: OnceLock<(Broker, Duration)>,
    /// The groups were loaded once; a topic of groups that is made later does not count.
    loaded: AtomicBool,
    draining: AtomicBool,
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health")
            .field("readiness", &self.readiness())
            .finish_non_exhaustive()
    }
}

impl Health {
    /// A process that begins to recover now. `progress` is asked at each request until it is ready;
    /// it must not block.
    pub fn recovering(
        progress: impl Fn() -> RecoveryProgress + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            progress: Box::new(progress),
            broker: OnceLock::new(),
            loaded: AtomicBool::new(false),
            draining: AtomicBool::new(false),
        })
    }

    /// Recovery is over and `broker` serves; its groups may still be loading.
    ///
    /// # Panics
    ///
    /// When it was called before.
    pub fn ready(&self, broker: Broker) {
        self.is_loading(&broker);
        let set = self.broker.set((broker, self.started.elapsed()));
        assert!(set.is_ok(), "a process becomes ready once");
    }

    /// How far the groups are loaded, until they are.
    fn is_loading(&self, broker: &Broker) -> Option<LoadingProgress> {
        if self.loaded.load(Ordering::Relaxed) {
            return None;
        }
        let progress = broker.groups().load_progress();
        if progress.loading == 0 {
            self.loaded.store(true, Ordering::Relaxed);
            return None;
        }
        Some(progress.into())
    }

    /// The process takes nothing new any more.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// What `/readyz` answers now.
    pub fn readiness(&self) -> Readiness {
        if self.draining.load(Ordering::Acquire) {
            return Readiness::Draining;
        }
        match self.broker.get() {
            Some((broker, _)) => self.readiness_of(broker),
            None => Readiness::Recovering {
                progress: (self.progress)(),
                elapsed_seconds: self.started.elapsed().as_secs_f64(),
            },
        }
    }

    fn readiness_of(&self, broker: &Broker) -> Readiness {
        // First: a broker that can write nothing may never load its groups.
        if let Some(reason) = broker.read_only() {
            let reason = reason.to_string();
            return Readiness::ReadOnly { reason };
        }
        if let Some(progress) = self.is_loading(broker) {
            return Readiness::Loading {
                progress,
                elapsed_seconds: self.started.elapsed().as_secs_f64(),
            };
        }
        if broker.is_disk_full() {
            let reason = full(broker);
            return Readiness::Full { reason };
        }
        Readiness::Ready
    }

    /// The broker, once there is one.
    pub(crate) fn broker(&self) -> Option<&Broker> {
        self.broker.get().map(|(broker, _)| broker)
    }

    /// How long the start took, from the first listener to ready; `None` before that.
    pub fn start_took(&self) -> Option<Duration> {
        self.broker.get().map(|(_, took)| *took)
    }
}

/// What an operator wants to know of a full disk.
fn full(broker: &Broker) -> String {
    let free = match broker.disk_space() {
        Ok(space) => format!(
            "{} of {} bytes are free",
            space.free_bytes, space.total_bytes
        ),
        Err(error) => format!("the file system cannot be asked: {error}"),
    };
    let kept = match broker.ballast_bytes() {
        0 => ", and what there is makes up for the ballast first",
        _ => "",
    };
    format!("records are refused for want of space: {free}{kept}")
}
