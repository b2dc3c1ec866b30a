//! Why a store could not do what it was asked for.

use std::{path::PathBuf, sync::Arc};

use sapwood_model::{Code, PartitionId};

use crate::partition::OfflineReason;

/// Why a store could not do what it was asked for.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The data directory takes nothing any more, until it is opened again.
    #[error("the data directory is read-only: {reason}")]
    ReadOnly {
        /// The first failure.
        reason: Arc<str>,
    },
    /// The disk is full, the ballast included. Nothing was changed.
    #[error("no space left to write {}", path.display())]
    NoSpace {
        /// The file.
        path: PathBuf,
    },
    /// The process may open no more files. Nothing was changed.
    #[error("no file descriptor left to write {}", path.display())]
    NoDescriptors {
        /// The file, or the folder of it.
        path: PathBuf,
    },
    /// The partition is offline, and what is in it cannot be made as durable as was asked for.
    #[error("partition {partition} is offline: {reason}")]
    Offline {
        /// The partition.
        partition: PartitionId,
        /// The first thing that went wrong.
        reason: Arc<OfflineReason>,
    },
}

impl StoreError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::ReadOnly { .. } => Code::ReadOnly,
            Self::NoSpace { .. } => Code::StorageFull,
            Self::NoDescriptors { .. } => Code::TooFewDescriptors,
            Self::Offline { .. } => Code::PartitionOffline,
        }
    }
}
