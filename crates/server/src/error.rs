//! Why a server did not start, or did not stop well.

use std::io;
use std::time::Duration;

use sapwood_broker::OpenError;
use sapwood_model::Code;

use crate::bind::BindError;
use crate::machine::MachineError;

/// Why a server did not start, or did not stop well.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The machine or its settings do not do.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The data directory cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The runtime or the signal handlers cannot be set up.
    #[error("cannot set up {what}: {source}")]
    SetUp {
        /// What it was.
        what: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// The gRPC server ended although nobody stopped it.
    #[error("the grpc server ended: {reason}")]
    Grpc {
        /// Why.
        reason: String,
    },
    /// Everything that was acknowledged is as durable as promised, but the data directory could not
    /// be closed cleanly: the next start recovers.
    #[error("the data directory was not closed cleanly, the next start recovers: {reason}")]
    Close {
        /// Why.
        reason: String,
    },
    /// A second signal ended the drain, `after` its start. The next start recovers.
    #[error("stopped by a second signal {after:.1?} into the drain; the next start recovers")]
    Interrupted {
        /// Since the first signal.
        after: Duration,
    },
}

impl RunError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Bind(error) => error.code(),
            Self::Machine(error) => error.code(),
            Self::Open(error) => error.code(),
            Self::SetUp { .. } | Self::Grpc { .. } => Code::Internal,
            Self::Close { .. } => Code::IoFailed,
            Self::Interrupted { .. } => Code::Draining,
        }
    }
}
