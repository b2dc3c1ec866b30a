//! Batches from records.

use sapwood_model::Timestamp;

use crate::{
    Batch, BatchError, Codec, Header, ProducerStamp, RecordFault, RecordHeader,
    header::{HEADER_BYTES, LENGTH_MIN},
    varint::{put_varlong, varlong_bytes},
};

/// The most bytes of records in one batch: its length word is an i32.
const RECORDS_BYTES_MAX: usize = (i32::MAX as u32 - LENGTH_MIN) as usize;

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
///
/// ```
/// use sapwood_model::Timestamp;
/// use sapwood_record::{BatchBuilder, Codec, RecordInput};
///
/// let mut builder = BatchBuilder::new(Codec::Zstd);
/// let timestamp = Timestamp(1_700_000_000_000);
/// builder.push(RecordInput { timestamp, key: None, value: Some(b"sap"), headers: &[] })?;
/// let batch = builder.build()?;
/// let records: Result<Vec<_>, _> = batch.records(1024)?.collect();
/// assert_eq!(records?[0].value.as_deref(), Some(&b"sap"[..]));
/// # Ok::<(), sapwood_record::BatchError>(())
/// ```
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    codec: Codec,
    producer: Option<ProducerStamp>,
    records: Vec<u8>,
    count: i32,
    base_timestamp: Timestamp,
    max_timestamp: Timestamp,
}

impl BatchBuilder {
    /// An empty builder.
    pub fn new(codec: Codec) -> Self {
        Self {
            codec,
            producer: None,
            records: Vec::new(),
            count: 0,
            base_timestamp: Timestamp::NONE,
            max_timestamp: Timestamp::NONE,
        }
    }

    /// Marks the batch as an idempotent producer's. `last_sequence` is not looked at.
    #[must_use]
    pub fn with_producer(mut self, stamp: ProducerStamp) -> Self {
        self.producer = Some(stamp);
        self
    }

    /// Makes room for this many bytes of records at once.
    #[must_use]
    pub fn with_capacity(mut self, bytes: usize) -> Self {
        self.records.reserve(bytes);
        self
    }

    /// Adds one record.
    ///
    /// # Errors
    /// When a header's key is not UTF-8, the timestamp is further from the first one than 64 bits
    /// hold, or the batch would pass 2 GiB. The builder is then as it was before.
    pub fn push(&mut self, record: RecordInput<'_>) -> Result<(), BatchError> {
        let fail = |fault| {
            let index = self.count.unsigned_abs();
            BatchError::Record {
                index,
                position: self.records.len(),
                fault,
            }
        };
        let base = if self.count == 0 {
            record.timestamp
        } else {
            self.base_timestamp
        };
        let timestamp_delta = (record.timestamp.0.checked_sub(base.0))
            .ok_or_else(|| fail(RecordFault::TimestampOverflow))?;
        if record
            .headers
            .iter()
            .any(|header| std::str::from_utf8(&header.key).is_err())
        {
            return Err(fail(RecordFault::HeaderKeyUtf8));
        }
        let body = self.body_bytes(&record, timestamp_delta);
        let size = varlong_bytes(body as i64) + body;
        let room = RECORDS_BYTES_MAX - self.records.len();
        if size > room || self.count == i32::MAX {
            let size_bytes = self.uncompressed_bytes().saturating_add(size);
            return Err(BatchError::TooLarge {
                size_bytes,
                limit: i32::MAX as usize,
            });
        }

        let start = self.records.len();
        let bytes = &mut self.records;
        put_varlong(bytes, body as i64);
        bytes.push(0);
        put_varlong(bytes, timestamp_delta);
        put_varlong(bytes, i64::from(self.count));
        put_nullable(bytes, record.key);
        put_nullable(bytes, record.value);
        put_varlong(bytes, record.headers.len() as i64);
        for header in record.headers {
            put_nullable(bytes, Some(&header.key));
            put_nullable(bytes, header.value.as_deref());
        }
        assert_eq!(
            bytes.len() - start,
            size,
            "a record is as long as was computed"
        );
        self.base_timestamp = base;
        self.max_timestamp = match self.count {
            0 => record.timestamp,
            _ => self.max_timestamp.max(record.timestamp),
        };
        self.count += 1;
        Ok(())
    }

    /// How many records there are.
    pub fn records_count(&self) -> u32 {
        self.count.unsigned_abs()
    }

    /// The size of the batch so far if it were not compressed, header included, in bytes.
    pub fn uncompressed_bytes(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// What [`Self::uncompressed_bytes`] would be after pushing `record`.
    pub fn uncompressed_bytes_with(&self, record: &RecordInput<'_>) -> usize {
        let base = if self.count == 0 {
            record.timestamp
        } else {
            self.base_timestamp
        };
        let body = self.body_bytes(record, record.timestamp.0.wrapping_sub(base.0));
        self.uncompressed_bytes()
            .saturating_add(varlong_bytes(body as i64))
            .saturating_add(body)
    }

    /// Compresses the records and makes the batch.
    ///
    /// # Errors
    /// [`BatchError::Empty`] without records; [`BatchError::TooLarge`] when the records grow past
    /// 2 GiB by compressing them; [`BatchError::Compress`] when the encoder fails.
    ///
    /// # Panics
    /// When the producer's id or epoch is above what the wire holds (`i64::MAX`, `i16::MAX`).
    pub fn build(self) -> Result<Batch, BatchError> {
        if self.count == 0 {
            return Err(BatchError::Empty);
        }
        let records = self.codec.compress(self.records)?;
        check_records_bytes(records.len())?;
        let mut header = Header::blank();
        header.set_codec(self.codec);
        header.set_records_count(self.count);
        header.set_timestamps(self.base_timestamp, self.max_timestamp);
        header.set_producer(self.producer.as_ref());
        Ok(Batch::seal(header, records.into()))
    }

    /// The bytes of a record after its length word.
    fn body_bytes(&self, record: &RecordInput<'_>, timestamp_delta: i64) -> usize {
        let headers = record.headers.iter().map(|header| {
            nullable_bytes(Some(&header.key))
                .saturating_add(nullable_bytes(header.value.as_deref()))
        });
        let attributes = 1;
        let numbers = varlong_bytes(timestamp_delta)
            + varlong_bytes(i64::from(self.count))
            + varlong_bytes(record.headers.len() as i64);
        headers
            .fold(attributes + numbers, usize::saturating_add)
            .saturating_add(nullable_bytes(record.key))
            .saturating_add(nullable_bytes(record.value))
    }
}

/// Whether a batch may have so many bytes of records.
pub(crate) fn check_records_bytes(bytes: usize) -> Result<(), BatchError> {
    if bytes <= RECORDS_BYTES_MAX {
        return Ok(());
    }
    Err(BatchError::TooLarge {
        size_bytes: HEADER_BYTES + bytes,
        limit: i32::MAX as usize,
    })
}

fn put_nullable(bytes: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        Some(field) => {
            put_varlong(bytes, field.len() as i64);
            bytes.extend_from_slice(field);
        }
        None => put_varlong(bytes, -1),
    }
}

fn nullable_bytes(field: Option<&[u8]>) -> usize {
    match field {
        Some(field) => varlong_bytes(field.len() as i64) + field.len(),
        None => 1,
    }
}

#[cfg(test)]
mod tests {
    use sapwood_model::{Offset, ProducerEpoch, ProducerId};

    use super::*;

    fn record<'a>(timestamp: i64, value: &'a [u8], headers: &'a [RecordHeader]) -> RecordInput<'a> {
        RecordInput {
            timestamp: Timestamp(timestamp),
            key: None,
            value: Some(value),
            headers,
        }
    }

    #[test]
    fn the_size_is_known_before_a_record_is_pushed() {
        let headers = [RecordHeader {
            key: "name".into(),
            value: None,
        }];
        let mut builder = BatchBuilder::new(Codec::None);
        for (timestamp, bytes) in [(100, 0), (90, 63), (1 << 50, 64), (-5, 9_000)] {
            let value = vec![1; bytes];
            let input = record(timestamp, &value, &headers);
            let expected = builder.uncompressed_bytes_with(&input);
            builder.push(input).unwrap();
            assert_eq!(builder.uncompressed_bytes(), expected);
        }
        assert_eq!(builder.records_count(), 4);
        let expected = builder.uncompressed_bytes();
        assert_eq!(builder.build().unwrap().size_bytes(), expected);
    }

    #[test]
    fn the_header_says_what_was_pushed() {
        let stamp = ProducerStamp {
            id: ProducerId(7),
            epoch: ProducerEpoch(3),
            base_sequence: i32::MAX,
            last_sequence: 0,
        };
        let mut builder = BatchBuilder::new(Codec::Lz4).with_producer(stamp);
        for timestamp in [1_000, 3_000, 2_000] {
            builder.push(record(timestamp, b"value", &[])).unwrap();
        }
        let batch = builder.build().unwrap();
        let header = batch.header();
        assert_eq!(header.codec(), Ok(Codec::Lz4));
        assert_eq!(
            (header.base_offset(), header.last_offset()),
            (Offset(0), Offset(2))
        );
        assert_eq!(header.base_timestamp(), Timestamp(1_000));
        assert_eq!(header.max_timestamp(), Timestamp(3_000));
        assert_eq!(header.records_count(), 3);
        assert_eq!(
            header.producer(),
            Some(ProducerStamp {
                last_sequence: 1,
                ..stamp
            })
        );
        assert_eq!(batch.verify_crc(), Ok(()));
        assert_eq!(Batch::split(batch.to_bytes()), Ok(batch));
    }

    #[test]
    fn an_empty_batch_is_not_built() {
        assert_eq!(
            BatchBuilder::new(Codec::None).build().unwrap_err(),
            BatchError::Empty
        );
    }

    #[test]
    fn a_record_that_cannot_be_written_leaves_the_builder_as_it_was() {
        let mut builder = BatchBuilder::new(Codec::None);
        builder.push(record(i64::MIN, b"first", &[])).unwrap();
        let before = builder.uncompressed_bytes();
        let too_far = builder.push(record(i64::MAX, b"second", &[])).unwrap_err();
        let not_utf8 = [RecordHeader {
            key: vec![0xff].into(),
            value: None,
        }];
        let bad_key = builder
            .push(record(i64::MIN, b"second", &not_utf8))
            .unwrap_err();
        for (error, expected) in [
            (too_far, RecordFault::TimestampOverflow),
            (bad_key, RecordFault::HeaderKeyUtf8),
        ] {
            assert!(
                matches!(error, BatchError::Record { index: 1, fault, .. } if fault == expected)
            );
        }
        assert_eq!(
            (builder.uncompressed_bytes(), builder.records_count()),
            (before, 1)
        );
    }
}
