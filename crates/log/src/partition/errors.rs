//! What can go wrong with a partition, one enum for each operation.

use std::{io, ops::Range, path::PathBuf, sync::Arc};

use sapwood_model::{Code, Offset, ProducerEpoch, ProducerId};

/// Why a partition serves nothing any more, until the data directory is opened again. The first
/// reason is kept.
#[derive(Debug, thiserror::Error)]
pub enum OfflineReason {
    /// Bytes that were written before are not what they were.
    #[error(
        "{} is damaged at position {position} (offsets {} to {}): {problem}",
        file.display(), offsets.start, offsets.end
    )]
    Damage {
        /// The file.
        file: PathBuf,
        /// Where in the file, in bytes.
        position: u64,
        /// The offsets that cannot be read because of it, the end exclusive.
        offsets: Range<Offset>,
        /// What is wrong there.
        problem: String,
    },
    /// A read, a write or a sync failed: what the disk holds is no longer known.
    #[error("could not {operation} {}: {error}", file.display())]
    Io {
        /// What was tried: `sync`.
        operation: &'static str,
        /// The file or folder.
        file: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl OfflineReason {
    /// The stable code of the reason itself.
    pub fn code(&self) -> Code {
        match self {
            Self::Damage { .. } => Code::PartitionOffline,
            Self::Io { .. } => Code::IoFailed,
        }
    }
}

/// Whether a partition serves.
#[derive(Debug, Clone)]
pub enum PartitionState {
    /// It does.
    Online,
    /// It does not, and will not until the data directory is opened again.
    Offline {
        /// The first thing that went wrong.
        reason: Arc<OfflineReason>,
    },
}

/// Why a batch was not appended. Nothing of it is in the log.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// The file system has no room for the batch. Appends succeed again when it has; reads go on.
    #[error("no space left for a batch of {bytes} bytes")]
    NoSpace {
        /// The size of the batch.
        bytes: u64,
    },
    /// The partition is offline.
    #[error("the partition is offline: {reason}")]
    Offline {
        /// The first thing that went wrong.
        reason: Arc<OfflineReason>,
    },
    /// The whole data directory takes no appends until it is opened again.
    #[error("the data directory is read-only: {reason}")]
    ReadOnly {
        /// The first thing that went wrong.
        reason: Arc<str>,
    },
    /// Somebody else appended first.
    #[error("the log ends at offset {actual}; the writer expected {expected}")]
    ExpectedEnd {
        /// What the writer asked for.
        expected: Offset,
        /// Where the log ends.
        actual: Offset,
    },
    /// A batch of the producer is missing before this one, or it is one that is too old to tell.
    #[error("producer {} sent sequence {sequence}; {expected} comes next", producer.0)]
    OutOfSequence {
        /// The producer.
        producer: ProducerId,
        /// The batch's first sequence number.
        sequence: i32,
        /// The one that would be accepted.
        expected: i32,
    },
    /// A newer instance of the producer has appended.
    #[error("producer {} is at epoch {}; the batch is of epoch {}", producer.0, current.0, epoch.0)]
    Fenced {
        /// The producer.
        producer: ProducerId,
        /// The batch's epoch.
        epoch: ProducerEpoch,
        /// The newest epoch.
        current: ProducerEpoch,
    },
    /// No segment can hold the batch.
    #[error("the batch is {bytes} bytes; the limit is {limit} bytes")]
    TooLarge {
        /// The size of the batch.
        bytes: u64,
        /// The largest that a segment file can hold.
        limit: u64,
    },
    /// The process has no descriptor, mapping or memory left for a segment. Nothing is wrong with the
    /// partition; retry when it has.
    #[error("could not open a segment: {error}")]
    Exhausted {
        /// What the system said.
        error: Arc<io::Error>,
    },
    /// The partition was closed, or its topic deleted.
    #[error("the partition is closed")]
    Closed,
}

impl AppendError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::NoSpace { .. } => Code::StorageFull,
            Self::Offline { .. } => Code::PartitionOffline,
            Self::ReadOnly { .. } => Code::ReadOnly,
            Self::ExpectedEnd { .. } => Code::ExpectedEndConflict,
            Self::OutOfSequence { .. } => Code::OutOfSequence,
            Self::Fenced { .. } => Code::ProducerFenced,
            Self::TooLarge { .. } => Code::RecordTooLarge,
            Self::Exhausted { .. } => Code::TooFewDescriptors,
            Self::Closed => Code::Draining,
        }
    }
}

/// Why nothing was read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The offset is below the log start or past the log end. Ask for the bounds, then read again.
    #[error(
        "offset {requested} is not in the log, which holds {} to {} (exclusive)",
        available.start, available.end
    )]
    OutOfRange {
        /// What was asked for.
        requested: Offset,
        /// Log start and high watermark.
        available: Range<Offset>,
    },
    /// This read met bytes that are not what was written. The partition is offline from now on.
    #[error("{reason}")]
    Corrupt {
        /// File, position and offsets.
        reason: Arc<OfflineReason>,
    },
    /// The disk failed during this read. The partition is offline from now on.
    #[error("{reason}")]
    Failed {
        /// What failed.
        reason: Arc<OfflineReason>,
    },
    /// The partition is offline.
    #[error("the partition is offline: {reason}")]
    Offline {
        /// The first thing that went wrong.
        reason: Arc<OfflineReason>,
    },
    /// The process has no descriptor or memory left to open a segment. Nothing is wrong with the
    /// partition; retry when it has.
    #[error("could not open a segment: {error}")]
    Exhausted {
        /// What the system said.
        error: Arc<io::Error>,
    },
    /// The topic was deleted.
    #[error("the partition is closed")]
    Closed,
}

impl ReadError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::OutOfRange { .. } => Code::OffsetOutOfRange,
            Self::Corrupt { .. } | Self::Offline { .. } => Code::PartitionOffline,
            Self::Failed { .. } => Code::IoFailed,
            Self::Exhausted { .. } => Code::TooFewDescriptors,
            Self::Closed => Code::UnknownPartition,
        }
    }
}

/// Why the log start did not move.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrimError {
    /// Only what can be read can be deleted.
    #[error("offset {requested} is above the high watermark {high_watermark}")]
    AboveHighWatermark {
        /// What was asked for.
        requested: Offset,
        /// The end of what can be read.
        high_watermark: Offset,
    },
}

impl TrimError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::AboveHighWatermark { .. } => Code::OffsetOutOfRange,
        }
    }
}

/// Why the log's end was not cut.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TruncateError {
    /// What may have been read or acknowledged is never taken back.
    #[error("offset {requested} is below the high watermark {high_watermark}")]
    BelowHighWatermark {
        /// What was asked for.
        requested: Offset,
        /// The first offset that may be cut.
        high_watermark: Offset,
    },
    /// Offsets below `recorded` were handed to the journal or to a checkpoint. Cutting them would
    /// contradict what recovery finds there. They become durable, or the data directory is opened
    /// again, which settles them.
    #[error("offset {requested} is recorded outside of the log, which is up to {recorded}")]
    Recorded {
        /// What was asked for.
        requested: Offset,
        /// The first offset that may be cut.
        recorded: Offset,
    },
    /// The offset lies inside of a batch.
    #[error("offset {requested} is inside of a batch that starts at {batch_start}")]
    InsideBatch {
        /// What was asked for.
        requested: Offset,
        /// The batch's base offset.
        batch_start: Offset,
    },
    /// The partition is offline, perhaps because of this call.
    #[error("the partition is offline: {reason}")]
    Offline {
        /// The first thing that went wrong.
        reason: Arc<OfflineReason>,
    },
    /// The partition was closed, or its topic deleted.
    #[error("the partition is closed")]
    Closed,
}

impl TruncateError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::BelowHighWatermark { .. } | Self::Recorded { .. } => Code::OffsetOutOfRange,
            Self::InsideBatch { .. } => Code::InvalidArgument,
            Self::Offline { .. } => Code::PartitionOffline,
            Self::Closed => Code::Draining,
        }
    }
}
