//! Partition logs: segments, journal, checkpoints, recovery.

pub mod io;
mod mmap;

mod buffers;
mod epochs;
mod index;
mod names;
mod producers;
mod sums;

pub mod compaction;
mod partition;
pub mod retention;
mod segment;

mod durability;
mod framed;
mod metrics;

pub use buffers::{Buffer, BufferPool};
pub use epochs::EpochStart;
pub use metrics::{BUCKET_BOUNDS_US, Counter, Histogram, StoreMetrics};
pub use mmap::install_sigbus_handler;
pub use partition::{
    AppendError, AppendOptions, Appended, Bounds, LogConfig, OfflineReason, Partition,
    PartitionObserver, PartitionSpec, PartitionState, PartitionStats, Read, ReadError, ReadLimits,
    ReadMode, Scrubbed, TimestampedOffset, TrimError, TruncateError,
};
pub use producers::ProducerState;

mod checkpoint;
mod journal;
mod recovery;
mod store;

pub use recovery::{CutLog, RecoveryReport};
pub use store::{
    DataDir, FORMAT_VERSION, JournalStep, Known, LOCK_FILE, OpenError, Progress, Store, StoreError,
    StoreOptions,
};

pub mod inspect;
pub mod repair;
