//! What is checked before a client's batch is appended.

use bytes::Bytes;
use sapwood_model::Timestamp;

use crate::{Batch, BatchError, Codec, Header, RecordFault, records::RawRecord};

/// The smallest record: seven numbers of one byte each, null key, null value, no headers.
const RECORD_BYTES_MIN: usize = 7;

/// What a topic demands of the batches that clients send to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// The largest batch, header included, in bytes: the topic's `max.message.bytes`.
    pub batch_bytes_max: usize,
    /// The most that is decompressed for a check, in bytes.
    pub decompressed_bytes_max: usize,
    /// Each record has a key (a compacted topic). Demands that compressed batches are decompressed.
    pub keys_required: bool,
    /// Whose time the records carry.
    pub timestamps: TimestampRule,
    /// Compressed batches are decompressed and their records walked; see the crate's documentation
    /// for what that costs.
    pub check_compressed: bool,
}

/// Whose time the records of a topic carry: the topic's `message.timestamp.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampRule {
    /// The producer's. A record without a timestamp (-1) is outside no window.
    Create {
        /// How far a timestamp may lie before `now`, in milliseconds.
        before_ms_max: i64,
        /// How far a timestamp may lie after `now`, in milliseconds.
        after_ms_max: i64,
    },
    /// The broker's: the batch is stamped with `now`.
    LogAppend,
}

/// Checks everything that needs no partition state before a client's batch is appended, and
/// returns the batch as it is to be appended: a wrong `max_timestamp` corrected, or the batch
/// stamped with `now` under [`TimestampRule::LogAppend`]; the CRC anew in both cases.
///
/// The base offset and the leader epoch may be anything: the append sets them. Whether the client
/// may write in a transaction is the caller's to check.
///
/// # Errors
/// The first rule that the batch breaks.
pub fn validate(bytes: Bytes, rules: &Rules, now: Timestamp) -> Result<Batch, BatchError> {
    let size_bytes = bytes.len();
    if size_bytes > rules.batch_bytes_max {
        return Err(BatchError::TooLarge {
            size_bytes,
            limit: rules.batch_bytes_max,
        });
    }
    let mut batch = Batch::split(bytes)?;
    batch.verify_crc()?;
    check_header(batch.header())?;
    let window = Window::new(rules.timestamps, now);
    match records_to_walk(&batch, rules)? {
        Some(records) => {
            let max = walk(batch.header(), &records, rules.keys_required, window)?;
            if window.is_some() && max != batch.header().max_timestamp() {
                batch.correct_max_timestamp(max);
            }
        }
        None => {
            check_timestamp(batch.header().max_timestamp(), window)?;
            check_count(batch.header().records_count(), rules.decompressed_bytes_max)?;
        }
    }
    if rules.timestamps == TimestampRule::LogAppend {
        batch.stamp_append_time(now);
    }
    Ok(batch)
}

/// The rules on the header alone.
fn check_header(header: &Header) -> Result<(), BatchError> {
    let (count, last_offset_delta) = (header.records_count_wire(), header.last_offset_delta());
    if count == 0 {
        return Err(BatchError::Empty);
    }
    if count - 1 != last_offset_delta {
        return Err(BatchError::CountMismatch {
            count,
            last_offset_delta,
        });
    }
    if header.is_control() {
        return Err(BatchError::Control);
    }
    if header.has_delete_horizon() {
        return Err(BatchError::DeleteHorizon);
    }
    if header.is_log_append_time() {
        return Err(BatchError::LogAppendTime);
    }
    match header.producer() {
        Some(_) => {
            let (epoch, base_sequence) = (header.producer_epoch(), header.base_sequence());
            if epoch < 0 || base_sequence < 0 {
                return Err(BatchError::ProducerStamp {
                    epoch,
                    base_sequence,
                });
            }
        }
        None if header.is_transactional() => return Err(BatchError::TransactionalWithoutProducer),
        None => {}
    }
    Ok(())
}

/// The decompressed records, when they are to be walked.
fn records_to_walk(batch: &Batch, rules: &Rules) -> Result<Option<Bytes>, BatchError> {
    let codec = batch.header().codec()?;
    let walked = codec == Codec::None || rules.check_compressed || rules.keys_required;
    if !walked {
        return Ok(None);
    }
    codec
        .decompress(batch.record_bytes(), rules.decompressed_bytes_max)
        .map(Some)
}

/// A count that cannot be true of records within the cap. Without this a few bytes would use up two
/// billion offsets.
fn check_count(count: u32, decompressed_bytes_max: usize) -> Result<(), BatchError> {
    if (count as usize).saturating_mul(RECORD_BYTES_MIN) > decompressed_bytes_max {
        return Err(BatchError::DecompressedTooLarge {
            limit: decompressed_bytes_max,
        });
    }
    Ok(())
}

/// Reads every record; returns the largest timestamp.
fn walk(
    header: &Header,
    records: &[u8],
    keys_required: bool,
    window: Option<Window>,
) -> Result<Timestamp, BatchError> {
    let base = header.base_timestamp();
    let count = header.records_count();
    let mut max = Timestamp(i64::MIN);
    let mut position = 0;
    for index in 0..count {
        let fail = |fault| BatchError::Record {
            index,
            position,
            fault,
        };
        let raw = RawRecord::read(records, position).map_err(fail)?;
        if i64::from(raw.offset_delta) != i64::from(index) {
            return Err(fail(RecordFault::OffsetDelta(raw.offset_delta)));
        }
        if keys_required && raw.key.is_none() {
            return Err(BatchError::KeyMissing { index });
        }
        let timestamp = raw.timestamp(base).map_err(fail)?;
        check_timestamp(timestamp, window)?;
        max = max.max(timestamp);
        position = raw.end;
    }
    match records.len() - position {
        0 => Ok(max),
        bytes => Err(BatchError::RecordsTrailing { bytes, count }),
    }
}

/// The timestamps that are allowed, both ends inclusive.
#[derive(Debug, Clone, Copy)]
struct Window {
    earliest: Timestamp,
    latest: Timestamp,
}

impl Window {
    /// `None` when the records' own timestamps do not matter.
    fn new(rule: TimestampRule, now: Timestamp) -> Option<Self> {
        match rule {
            TimestampRule::Create {
                before_ms_max,
                after_ms_max,
            } => Some(Self {
                earliest: Timestamp(now.0.saturating_sub(before_ms_max)),
                latest: Timestamp(now.0.saturating_add(after_ms_max)),
            }),
            TimestampRule::LogAppend => None,
        }
    }
}

#[inline]
fn check_timestamp(timestamp: Timestamp, window: Option<Window>) -> Result<(), BatchError> {
    match window {
        Some(Window { earliest, latest })
            if (timestamp < earliest || timestamp > latest) && timestamp != Timestamp::NONE =>
        {
            Err(BatchError::TimestampOutside {
                timestamp,
                earliest,
                latest,
            })
        }
        _ => Ok(()),
    }
}
