//! What ends a run.

use std::io;

use sapwood_kafka_wire::{DecodeError, EncodeError};

/// Why a run could not be made or did not come to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is out of its bounds. Nothing was sent.
    #[error("{0}")]
    Setting(String),
    /// The broker cannot be reached.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// What was asked for.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// A connection broke, or the broker closed it.
    #[error("the connection to {address} broke while {what}: {source}")]
    Broken {
        /// The broker.
        address: String,
        /// What was being done.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The broker refused a request.
    #[error("{what}: the broker answered error {code}{message}")]
    Refused {
        /// What was asked for.
        what: String,
        /// Kafka's error code.
        code: i16,
        /// Its name and the broker's words, with what goes before them.
        message: String,
    },
    /// The broker speaks no version of an API that the generator speaks.
    #[error(
        "the broker speaks versions {theirs_min} to {theirs_max} of API {api}; needed is one of {ours_min} to {ours_max}"
    )]
    Version {
        /// The key of the API.
        api: i16,
        /// The broker's versions.
        theirs_min: i16,
        /// The broker's versions.
        theirs_max: i16,
        /// The generator's versions.
        ours_min: i16,
        /// The generator's versions.
        ours_max: i16,
    },
    /// The broker's bytes are not what the protocol says.
    #[error("the broker's answer cannot be read: {0}")]
    Answer(String),
    /// A request cannot be said in the protocol.
    #[error("a request cannot be written: {0}")]
    Request(#[from] EncodeError),
    /// The gRPC client gave up.
    #[error(transparent)]
    Client(#[from] sapwood_client::Error),
    /// A report cannot be read or drawn.
    #[error("{0}")]
    Report(String),
    /// Something of this machine failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        Self::Answer(error.to_string())
    }
}

impl From<sapwood_record::BatchError> for Error {
    fn from(error: sapwood_record::BatchError) -> Self {
        Self::Answer(format!("a batch of records: {error}"))
    }
}

/// Names of the error codes that a load meets.
pub(crate) fn code_name(code: i16) -> &'static str {
    match code {
        -1 => "UNKNOWN_SERVER_ERROR",
        1 => "OFFSET_OUT_OF_RANGE",
        2 => "CORRUPT_MESSAGE",
        3 => "UNKNOWN_TOPIC_OR_PARTITION",
        5 => "LEADER_NOT_AVAILABLE",
        6 => "NOT_LEADER_OR_FOLLOWER",
        7 => "REQUEST_TIMED_OUT",
        10 => "MESSAGE_TOO_LARGE",
        17 => "INVALID_TOPIC_EXCEPTION",
        18 => "RECORD_LIST_TOO_LARGE",
        19 => "NOT_ENOUGH_REPLICAS",
        29 => "TOPIC_AUTHORIZATION_FAILED",
        35 => "UNSUPPORTED_VERSION",
        36 => "TOPIC_ALREADY_EXISTS",
        37 => "INVALID_PARTITIONS",
        40 => "INVALID_CONFIG",
        44 => "POLICY_VIOLATION",
        56 => "KAFKA_STORAGE_ERROR",
        70 => "FETCH_SESSION_ID_NOT_FOUND",
        71 => "INVALID_FETCH_SESSION_EPOCH",
        87 => "INVALID_RECORD",
        89 => "THROTTLING_QUOTA_EXCEEDED",
        _ => "see Kafka's list of error codes",
    }
}

/// A refusal with its name.
pub(crate) fn refused(what: impl Into<String>, code: i16, words: Option<&str>) -> Error {
    let words = words.map_or(String::new(), |words| format!(": {words}"));
    Error::Refused {
        what: what.into(),
        code,
        message: format!(" ({}){words}", code_name(code)),
    }
}
