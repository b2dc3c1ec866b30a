//! Why connections end, and who is told.

use std::{io, time::Duration};

use sapwood_broker::{BudgetError, Throttle};
use sapwood_kafka_wire::{DecodeError, EncodeError};
use tracing::{debug, error, warn};

use super::Connection;

/// Mistakes of one kind are logged at most this often.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Disconnect {
    /// Between two requests.
    #[error("the client closed the connection")]
    Closed,
    /// In the middle of a request.
    #[error("the client closed the connection in the middle of a request")]
    ClosedEarly,
    /// The connection was lost.
    #[error("the connection was lost: {0}")]
    Io(#[from] io::Error),
    /// Nothing came for too long.
    #[error("the client was idle for too long")]
    Idle,
    /// The rest of a request did not come.
    #[error("the rest of a request did not come in time; {bytes} bytes of it did")]
    FrameTimeout {
        /// How many bytes came.
        bytes: usize,
    },
    /// The client does not take its answers.
    #[error("the client does not read its answers")]
    NotRead,
    /// The broker stops.
    #[error("the broker stops")]
    Stopped,
    /// A request without a reply could not be carried out, and this is how the client learns it.
    #[error("a produce request that asked for no answer failed")]
    UnansweredFailure,
    /// Either not Kafka's protocol, or a request above the limit.
    #[error("a request is {length} bytes by its length word; the limit is {limit} bytes")]
    FrameLength {
        /// What the length word says.
        length: i32,
        /// The most that is allowed.
        limit: usize,
    },
    /// The whole budget for requests does not suffice.
    #[error("{0} (limits.request_bytes)")]
    OverBudget(#[from] BudgetError),
    /// A key that is not served.
    #[error("API key {key} is not served")]
    UnknownApi {
        /// The key.
        key: i16,
    },
    /// A version that is not served; ApiVersions says which are.
    #[error("version {version} of {api} is not served")]
    UnknownVersion {
        /// The API.
        api: &'static str,
        /// The version.
        version: i16,
    },
    /// The bytes are not the request that they should be.
    #[error("a {api} request of version {version} cannot be read: {source}")]
    Malformed {
        /// The API.
        api: &'static str,
        /// Its version.
        version: i16,
        /// What is wrong.
        source: DecodeError,
    },
    /// An answer cannot be written: a fault of this broker.
    #[error("the answer to a {api} request of version {version} cannot be written: {source}")]
    Encode {
        /// The API.
        api: &'static str,
        /// Its version.
        version: i16,
        /// What is wrong.
        source: EncodeError,
    },
}

impl Disconnect {
    /// Whether the client did something that it should not.
    pub(super) fn is_mistake(&self) -> bool {
        self.kind().is_some()
    }

    /// The kind of mistake, to log each kind now and then.
    fn kind(&self) -> Option<usize> {
        match self {
            Self::FrameLength { .. } => Some(0),
            Self::OverBudget(_) => Some(1),
            Self::UnknownApi { .. } => Some(2),
            Self::UnknownVersion { .. } => Some(3),
            Self::Malformed { .. } => Some(4),
            Self::FrameTimeout { .. } => Some(5),
            Self::UnansweredFailure => Some(6),
            _ => None,
        }
    }
}

/// Log lines about what clients do wrong, one of a kind in a while.
#[derive(Debug)]
pub(crate) struct Mistakes {
    kinds: [Throttle; 7],
}

impl Default for Mistakes {
    fn default() -> Self {
        Self {
            kinds: std::array::from_fn(|_| Throttle::new(WARN_INTERVAL)),
        }
    }
}

impl Mistakes {
    /// Says why a connection ended: as a warning when the client made a mistake, for debugging
    /// otherwise. `now` is the monotonic clock's.
    pub(super) fn tell(&self, connection: &Connection, end: &Disconnect, now: Duration) {
        let peer = connection.peer;
        let listener = &*connection.listener;
        let client = connection.software();
        if let Disconnect::Encode { .. } = end {
            error!(event = "kafka.answer_failed", %peer, listener, client, error = %end, "connection closed");
            return;
        }
        let suppressed = end.kind().and_then(|kind| self.kinds[kind].pass(now));
        match suppressed {
            Some(suppressed) => {
                warn!(event = "kafka.request_refused", %peer, listener, client, reason = %end, suppressed, "connection closed");
            }
            None => debug!(%peer, listener, client, reason = %end, "connection closed"),
        }
    }
}
