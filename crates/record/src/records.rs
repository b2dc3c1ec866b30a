//! The records inside a batch, once they are decompressed.
//!
//! A record, all numbers variable-length: its length in bytes, then attributes (one byte, unused),
//! timestamp delta, offset delta, key length and key, value length and value (-1 is null), the
//! number of headers, and for each its key's length and key, its value's length and value.

use std::{iter::FusedIterator, ops::Range};

use bytes::Bytes;
use sapwood_model::{Offset, Timestamp};

use crate::{BatchError, Header, RecordFault, varint::Reader};

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
///
/// The offsets must rise and stay within the batch. Gaps, which compaction leaves, are fine. After
/// the first error the iterator ends.
#[derive(Debug, Clone)]
pub struct Records {
    bytes: Bytes,
    position: usize,
    index: u32,
    count: u32,
    base_offset: Offset,
    /// The least offset delta that may come next.
    delta_min: i32,
    delta_max: i32,
    base_timestamp: Timestamp,
    append_time: Option<Timestamp>,
}

impl Records {
    /// `bytes` are the decompressed records of the batch with this header.
    pub(crate) fn new(header: &Header, bytes: Bytes) -> Self {
        Self {
            bytes,
            position: 0,
            index: 0,
            count: header.records_count(),
            base_offset: header.base_offset(),
            delta_min: 0,
            delta_max: header.last_offset_delta(),
            base_timestamp: header.base_timestamp(),
            append_time: header.is_log_append_time().then(|| header.max_timestamp()),
        }
    }

    fn read(&mut self) -> Result<Record, RecordFault> {
        let raw = RawRecord::read(&self.bytes, self.position)?;
        if raw.offset_delta < self.delta_min || raw.offset_delta > self.delta_max {
            return Err(RecordFault::OffsetDelta(raw.offset_delta));
        }
        let timestamp = raw.timestamp(self.base_timestamp)?;
        let record = Record {
            offset: self
                .base_offset
                .add(u64::from(raw.offset_delta.unsigned_abs())),
            timestamp: self.append_time.unwrap_or(timestamp),
            key: raw.key.map(|range| self.bytes.slice(range)),
            value: raw.value.map(|range| self.bytes.slice(range)),
            headers: self.headers(raw.headers, raw.headers_count)?,
        };
        self.position = raw.end;
        self.delta_min = raw.offset_delta.saturating_add(1);
        Ok(record)
    }

    /// The headers that [`RawRecord::read`] has walked, so that their number is known to be real.
    fn headers(&self, position: usize, count: usize) -> Result<Vec<RecordHeader>, RecordFault> {
        let mut reader = Reader::new(&self.bytes, position);
        (0..count)
            .map(|_| {
                let key = header_key(&mut reader)?;
                let value = nullable(&mut reader)?;
                Ok(RecordHeader {
                    key: self.bytes.slice(key),
                    value: value.map(|range| self.bytes.slice(range)),
                })
            })
            .collect()
    }
}

impl Iterator for Records {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (index, position) = (self.index, self.position);
        if index == self.count {
            let bytes = self.bytes.len() - position;
            self.position = self.bytes.len();
            let count = self.count;
            return (bytes > 0).then_some(Err(BatchError::RecordsTrailing { bytes, count }));
        }
        match self.read() {
            Ok(record) => {
                self.index += 1;
                Some(Ok(record))
            }
            Err(fault) => {
                // Nothing after the damage can be told apart from it.
                self.index = self.count;
                self.position = self.bytes.len();
                Some(Err(BatchError::Record {
                    index,
                    position,
                    fault,
                }))
            }
        }
    }
}

impl FusedIterator for Records {}

/// Where the fields of one record are; reading it neither copies nor allocates.
#[derive(Debug)]
pub(crate) struct RawRecord {
    pub(crate) timestamp_delta: i64,
    pub(crate) offset_delta: i32,
    pub(crate) key: Option<Range<usize>>,
    pub(crate) value: Option<Range<usize>>,
    /// Where the first header starts.
    pub(crate) headers: usize,
    pub(crate) headers_count: usize,
    /// Where the next record starts.
    pub(crate) end: usize,
}

impl RawRecord {
    /// Reads the record at `position`, which is at most the end of `bytes`.
    #[inline(always)]
    pub(crate) fn read(bytes: &[u8], position: usize) -> Result<Self, RecordFault> {
        let mut reader = Reader::new(bytes, position);
        let length = reader.varint()?;
        let length = usize::try_from(length).map_err(|_| RecordFault::NegativeLength(length))?;
        let end = reader.skip(length)?.end;
        let mut reader = Reader::new(&bytes[..end], end - length);
        let _attributes = reader.byte()?;
        let timestamp_delta = reader.varlong()?;
        let offset_delta = reader.varint()?;
        let key = nullable(&mut reader)?;
        let value = nullable(&mut reader)?;
        let count = reader.varint()?;
        let headers = reader.position();
        let headers_count = usize::try_from(count).map_err(|_| RecordFault::HeaderCount(count))?;
        // However many are promised, this ends with the record's bytes.
        for _ in 0..headers_count {
            header_key(&mut reader)?;
            nullable(&mut reader)?;
        }
        if reader.position() != end {
            return Err(RecordFault::LengthMismatch);
        }
        Ok(Self {
            timestamp_delta,
            offset_delta,
            key,
            value,
            headers,
            headers_count,
            end,
        })
    }

    /// The record's own timestamp.
    #[inline]
    pub(crate) fn timestamp(&self, base: Timestamp) -> Result<Timestamp, RecordFault> {
        base.0
            .checked_add(self.timestamp_delta)
            .map(Timestamp)
            .ok_or(RecordFault::TimestampOverflow)
    }
}

/// A key or a value, where the length -1 stands for null.
#[inline(always)]
fn nullable(reader: &mut Reader<'_>) -> Result<Option<Range<usize>>, RecordFault> {
    let length = reader.varint()?;
    match usize::try_from(length) {
        Ok(length) => reader.skip(length).map(Some),
        Err(_) if length == -1 => Ok(None),
        Err(_) => Err(RecordFault::FieldLength(length)),
    }
}

#[inline(always)]
fn header_key(reader: &mut Reader<'_>) -> Result<Range<usize>, RecordFault> {
    let length = reader.varint()?;
    let length = usize::try_from(length).map_err(|_| RecordFault::HeaderKeyLength(length))?;
    reader.skip(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::varint::put_varlong;

    /// A record from its fields after the length, which is put before them.
    fn framed(fields: &[i64], tail: &[u8]) -> Vec<u8> {
        let mut body = vec![0];
        for field in fields {
            put_varlong(&mut body, *field);
        }
        body.extend_from_slice(tail);
        let mut record = Vec::new();
        put_varlong(&mut record, i64::try_from(body.len()).unwrap());
        record.extend_from_slice(&body);
        record
    }

    fn fault(bytes: &[u8]) -> RecordFault {
        RawRecord::read(bytes, 0).unwrap_err()
    }

    #[test]
    fn lying_lengths_and_counts_are_named() {
        let null = -1;
        let max = i64::from(i32::MAX);
        assert!(RawRecord::read(&framed(&[0, 0, null, null, 0], b""), 0).is_ok());
        assert_eq!(fault(b""), RecordFault::Truncated);
        assert_eq!(fault(&framed(&[0, 0, max], b"")), RecordFault::Truncated);
        assert_eq!(
            fault(&framed(&[0, 0, null, max], b"")),
            RecordFault::Truncated
        );
        assert_eq!(
            fault(&framed(&[0, 0, -2], b"")),
            RecordFault::FieldLength(-2)
        );
        assert_eq!(
            fault(&framed(&[0, 0, null, null, max], b"")),
            RecordFault::Truncated
        );
        assert_eq!(
            fault(&framed(&[0, 0, null, null, -1], b"")),
            RecordFault::HeaderCount(-1)
        );
        assert_eq!(
            fault(&framed(&[0, 0, null, null, 1, -1], b"")),
            RecordFault::HeaderKeyLength(-1)
        );
        assert_eq!(
            fault(&framed(&[0, 0, null, null, 0], b"x")),
            RecordFault::LengthMismatch
        );
        let mut negative = Vec::new();
        put_varlong(&mut negative, -5);
        assert_eq!(fault(&negative), RecordFault::NegativeLength(-5));
        let mut endless = Vec::new();
        put_varlong(&mut endless, max);
        assert_eq!(fault(&endless), RecordFault::Truncated);
    }

    fn walk(bytes: Vec<u8>, count: i32, last_delta: i32) -> Vec<Result<Offset, BatchError>> {
        let mut header = Header::blank();
        // The number of records before compaction took some away.
        header.set_records_count(last_delta + 1);
        let mut records = Records::new(&header, bytes.into());
        records.count = count.unsigned_abs();
        records
            .map(|record| record.map(|record| record.offset))
            .collect()
    }

    #[test]
    fn offsets_may_have_gaps_but_never_fall_repeat_or_leave_the_batch() {
        let record = |delta: i64| framed(&[0, delta, -1, -1, 0], b"");
        let with_gaps = [record(1), record(4)].concat();
        assert_eq!(walk(with_gaps, 2, 5), [Ok(Offset(1)), Ok(Offset(4))]);
        for (deltas, wrong) in [([1, 1], 1), ([2, 1], 1), ([0, 6], 6), ([0, -1], -1)] {
            let offsets = walk(deltas.map(record).concat(), 2, 5);
            let position = record(0).len();
            let fault = RecordFault::OffsetDelta(wrong);
            assert_eq!(
                offsets[1],
                Err(BatchError::Record {
                    index: 1,
                    position,
                    fault
                })
            );
            assert_eq!(offsets.len(), 2);
        }
    }

    #[test]
    fn the_iterator_ends_after_what_should_not_be_there() {
        let record = framed(&[0, 0, -1, -1, 0], b"");
        let bytes = [&record[..], b"rest"].concat();
        let trailing = Err(BatchError::RecordsTrailing { bytes: 4, count: 1 });
        assert_eq!(walk(bytes, 1, 0), [Ok(Offset(0)), trailing]);
    }

    #[test]
    fn a_timestamp_past_64_bits_is_an_error() {
        let record = framed(&[i64::MAX, 0, -1, -1, 0], b"");
        let raw = RawRecord::read(&record, 0).unwrap();
        assert_eq!(
            raw.timestamp(Timestamp(1)),
            Err(RecordFault::TimestampOverflow)
        );
        assert_eq!(raw.timestamp(Timestamp(-1)), Ok(Timestamp(i64::MAX - 1)));
    }
}
