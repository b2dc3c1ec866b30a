//! What is checked before a client's batch is appended.

use bytes::Bytes;
use sapwood_model::Timestamp;

use crate::{
    Batch, BatchError, Codec, Compression, HEADER_BYTES, Header, RecordFault, records::RawRecord,
};

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
    /// What batches are brought to when they come in another codec: the topic's
    /// `compression.type`. Such a batch is decompressed and its records are walked. `None` leaves
    /// batches as they were sent.
    pub compression: Option<Compression>,
}

impl Rules {
    /// Whether a batch in this codec is rewritten in another.
    pub fn rewrites(&self, codec: Codec) -> bool {
        self.compression.is_some_and(|to| to.codec != codec)
    }

    /// Whether [`validate`] compresses or decompresses a batch in this codec, which takes a processor
    /// for long.
    pub fn is_costly(&self, codec: Codec) -> bool {
        self.rewrites(codec) || (codec != Codec::None && self.opens_compressed())
    }

    fn opens_compressed(&self) -> bool {
        self.check_compressed || self.keys_required
    }
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
/// stamped with `now` under [`TimestampRule::LogAppend`], and its records in the codec that
/// [`Rules::compression`] asks for; the CRC anew in all cases. Rewritten records keep every byte
/// but their compression, and the header what it says of them. The size limit holds before and after.
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
    let mut batch = Batch::split_verified(bytes)?;
    check_header(batch.header())?;
    let window = Window::new(rules.timestamps, now);
    let codec = batch.header().codec()?;
    codec.check_start(batch.record_bytes())?;
    if codec == Codec::None || rules.opens_compressed() || rules.rewrites(codec) {
        let decompressed = decompress(&batch, codec, rules.decompressed_bytes_max)?;
        let records = decompressed.as_ref().unwrap_or(batch.record_bytes());
        let max = walk(batch.header(), records, rules.keys_required, window)?;
        if window.is_some() && max != batch.header().max_timestamp() {
            batch.correct_max_timestamp(max);
        }
        if let Some(compression) = rules.compression.filter(|to| to.codec != codec) {
            let records = decompressed.unwrap_or_else(|| batch.record_bytes().clone());
            batch = recompress(batch, records, compression, rules.batch_bytes_max)?;
        }
    } else {
        check_timestamp(batch.header().max_timestamp(), window)?;
        check_count(batch.header().records_count(), rules.decompressed_bytes_max)?;
    }
    if rules.timestamps == TimestampRule::LogAppend {
        batch.stamp_append_time(now);
    }
    Ok(batch)
}

/// The rules on the header alone.
#[inline(always)]
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

/// The decompressed records; `None` when the batch has them as they are.
fn decompress(batch: &Batch, codec: Codec, bytes_max: usize) -> Result<Option<Bytes>, BatchError> {
    match codec {
        Codec::None => Ok(None),
        _ => codec.decompress(batch.record_bytes(), bytes_max).map(Some),
    }
}

/// The same batch in the codec that the topic asks for. `records` are its records uncompressed.
fn recompress(
    batch: Batch,
    records: Bytes,
    to: Compression,
    batch_bytes_max: usize,
) -> Result<Batch, BatchError> {
    let records = to.compress(&records)?.map_or(records, Bytes::from);
    let size_bytes = HEADER_BYTES.saturating_add(records.len());
    if size_bytes > batch_bytes_max {
        return Err(BatchError::TooLarge {
            size_bytes,
            limit: batch_bytes_max,
        });
    }
    Ok(batch.with_records(to.codec, records))
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
#[inline(always)]
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

#[cfg(test)]
mod tests {
    use sapwood_model::{ProducerEpoch, ProducerId};

    use super::*;
    use crate::{BatchBuilder, ProducerStamp, RecordInput};

    const NOW: Timestamp = Timestamp(1_000_000);

    const RULES: Rules = Rules {
        batch_bytes_max: 1_000,
        decompressed_bytes_max: 1_000,
        keys_required: false,
        timestamps: TimestampRule::Create {
            before_ms_max: 100,
            after_ms_max: 10,
        },
        check_compressed: true,
        compression: None,
    };

    fn batch(codec: Codec, timestamps: &[i64]) -> Batch {
        let mut builder = BatchBuilder::new(codec);
        for timestamp in timestamps {
            let timestamp = Timestamp(*timestamp);
            let value = Some(&b"value"[..]);
            builder
                .push(RecordInput {
                    timestamp,
                    key: None,
                    value,
                    headers: &[],
                })
                .unwrap();
        }
        builder.build().unwrap()
    }

    fn check(batch: &Batch, rules: &Rules) -> Result<Batch, BatchError> {
        validate(batch.to_bytes(), rules, NOW)
    }

    /// What validation says about a good batch whose header was changed before the CRC was made.
    fn with_header(change: impl FnOnce(&mut [u8])) -> BatchError {
        let batch = batch(Codec::None, &[NOW.0, NOW.0]);
        let mut header = *batch.header().as_bytes();
        change(&mut header);
        let header = Header::read(&header).unwrap();
        let changed = Batch::seal(header, batch.record_bytes().clone());
        check(&changed, &RULES).unwrap_err()
    }

    #[test]
    fn each_rule_on_the_header_is_held() {
        let set = |position: usize, value: Vec<u8>| {
            with_header(|header| header[position..position + value.len()].copy_from_slice(&value))
        };
        let delta = |delta: i32| delta.to_be_bytes().to_vec();
        assert_eq!(set(16, vec![1]), BatchError::Magic { magic: 1 });
        assert_eq!(set(22, vec![7]), BatchError::UnknownCodec { bits: 7 });
        assert_eq!(set(22, vec![1 << 3]), BatchError::LogAppendTime);
        assert_eq!(
            set(22, vec![1 << 4]),
            BatchError::TransactionalWithoutProducer
        );
        assert_eq!(set(22, vec![1 << 5]), BatchError::Control);
        assert_eq!(set(22, vec![1 << 6]), BatchError::DeleteHorizon);
        assert_eq!(
            set(23, delta(2)),
            BatchError::CountMismatch {
                count: 2,
                last_offset_delta: 2
            }
        );
        assert_eq!(
            set(23, delta(-1)),
            BatchError::NegativeCount {
                count: 2,
                last_offset_delta: -1
            }
        );
        assert_eq!(
            set(57, delta(-2)),
            BatchError::NegativeCount {
                count: -2,
                last_offset_delta: 1
            }
        );
        assert_eq!(set(57, delta(0)), BatchError::Empty);
        assert_eq!(
            set(43, vec![0; 8]),
            BatchError::ProducerStamp {
                epoch: -1,
                base_sequence: -1
            }
        );
    }

    #[test]
    fn the_base_offset_and_the_leader_epoch_may_be_anything() {
        let mut bytes = batch(Codec::None, &[NOW.0]).to_bytes().to_vec();
        bytes[0..8].fill(0xff);
        bytes[12..16].fill(0xff);
        assert!(validate(bytes.into(), &RULES, NOW).is_ok());
    }

    #[test]
    fn the_size_limit_is_inclusive() {
        let batch = batch(Codec::None, &[NOW.0]);
        let limit = batch.size_bytes();
        assert!(
            check(
                &batch,
                &Rules {
                    batch_bytes_max: limit,
                    ..RULES
                }
            )
            .is_ok()
        );
        let error = check(
            &batch,
            &Rules {
                batch_bytes_max: limit - 1,
                ..RULES
            },
        )
        .unwrap_err();
        assert_eq!(
            error,
            BatchError::TooLarge {
                size_bytes: limit,
                limit: limit - 1
            }
        );
    }

    #[test]
    fn a_length_word_below_the_header_is_refused() {
        for length in [0_i32, 48, -1, i32::MIN] {
            let mut bytes = batch(Codec::None, &[NOW.0]).to_bytes().to_vec();
            bytes[8..12].copy_from_slice(&length.to_be_bytes());
            let error = validate(bytes.into(), &RULES, NOW).unwrap_err();
            assert_eq!(error, BatchError::LengthTooSmall { length });
        }
    }

    #[test]
    fn timestamps_are_held_to_the_window_and_its_ends_belong_to_it() {
        let outside = |timestamp| {
            Err(BatchError::TimestampOutside {
                timestamp: Timestamp(timestamp),
                earliest: Timestamp(NOW.0 - 100),
                latest: Timestamp(NOW.0 + 10),
            })
        };
        for codec in [Codec::None, Codec::Zstd] {
            assert!(check(&batch(codec, &[NOW.0 - 100, NOW.0 + 10, -1]), &RULES).is_ok());
            for timestamp in [NOW.0 - 101, NOW.0 + 11] {
                let result = check(&batch(codec, &[NOW.0, timestamp]), &RULES);
                assert_eq!(result, outside(timestamp));
            }
        }
        let unchecked = Rules {
            check_compressed: false,
            ..RULES
        };
        let late = batch(Codec::Zstd, &[NOW.0, NOW.0 + 11]);
        assert_eq!(
            check(&late, &unchecked),
            outside(NOW.0 + 11),
            "by the header"
        );
        let anything = Rules {
            timestamps: TimestampRule::Create {
                before_ms_max: i64::MAX,
                after_ms_max: i64::MAX,
            },
            ..RULES
        };
        assert!(check(&batch(Codec::None, &[0, i64::MAX]), &anything).is_ok());
    }

    #[test]
    fn a_wrong_max_timestamp_is_corrected_with_the_crc() {
        for codec in Codec::ALL {
            let right = batch(codec, &[NOW.0 - 7, NOW.0 - 3, NOW.0 - 5]);
            let mut wrong = right.clone();
            wrong.correct_max_timestamp(NOW);
            assert_ne!(wrong, right);
            assert_eq!(check(&wrong, &RULES), Ok(right.clone()));
            assert_eq!(check(&right, &RULES), Ok(right));
        }
    }

    #[test]
    fn log_append_time_stamps_every_record() {
        let rules = Rules {
            timestamps: TimestampRule::LogAppend,
            ..RULES
        };
        for codec in Codec::ALL {
            let stamped = check(&batch(codec, &[1, 2]), &rules).unwrap();
            assert_eq!(stamped.verify_crc(), Ok(()));
            assert!(stamped.header().is_log_append_time());
            assert_eq!(stamped.header().max_timestamp(), NOW);
            assert_eq!(stamped.header().base_timestamp(), Timestamp(1));
            for record in stamped.records(1_000).unwrap() {
                assert_eq!(record.unwrap().timestamp, NOW);
            }
        }
    }

    #[test]
    fn a_compacted_topic_needs_keys_also_in_compressed_batches() {
        let rules = Rules {
            keys_required: true,
            check_compressed: false,
            ..RULES
        };
        for codec in Codec::ALL {
            let result = check(&batch(codec, &[NOW.0]), &rules);
            assert_eq!(result, Err(BatchError::KeyMissing { index: 0 }), "{codec}");
        }
    }

    #[test]
    fn lz4_blocks_that_depend_on_each_other_are_refused_whatever_else_is_checked() {
        let lz4 = batch(Codec::Lz4, &[NOW.0, NOW.0]);
        let with_start = |start: &[u8]| {
            let mut records = lz4.record_bytes().to_vec();
            records[..start.len()].copy_from_slice(start);
            Batch::seal(*lz4.header(), records.into())
        };
        for check_compressed in [false, true] {
            let rules = Rules {
                check_compressed,
                ..RULES
            };
            assert_eq!(check(&lz4, &rules).as_ref(), Ok(&lz4));
            // Magic, flags, block size, checksum of the two.
            let linked = with_start(&[0x04, 0x22, 0x4d, 0x18, 0x40, 0x40, 0xc0]);
            assert_eq!(check(&linked, &rules), Err(BatchError::Lz4Linked));
            for start in [[0x04, 0x22, 0x4d, 0x17], [0; 4]] {
                let noise = check(&with_start(&start), &rules);
                assert!(
                    matches!(noise, Err(BatchError::Decompress { .. })),
                    "{noise:?}"
                );
            }
        }
    }

    #[test]
    fn unchecked_compressed_records_are_taken_as_they_are() {
        let good = batch(Codec::Gzip, &[NOW.0]);
        let garbage = Batch::seal(*good.header(), Bytes::from_static(b"not gzip"));
        let unchecked = Rules {
            check_compressed: false,
            ..RULES
        };
        assert_eq!(check(&garbage, &unchecked), Ok(garbage.clone()));
        let error = check(&garbage, &RULES).unwrap_err();
        assert!(
            matches!(
                error,
                BatchError::Decompress {
                    codec: Codec::Gzip,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn records_must_count_from_zero_without_gaps() {
        let good = batch(Codec::None, &[NOW.0, NOW.0]);
        let records = good.record_bytes();
        let half = records.len() / 2;
        let repeated = Bytes::from([&records[..half], &records[..half]].concat());
        let fault = RecordFault::OffsetDelta(0);
        let result = check(&Batch::seal(*good.header(), repeated), &RULES);
        assert_eq!(
            result,
            Err(BatchError::Record {
                index: 1,
                position: half,
                fault
            })
        );
    }

    #[test]
    fn more_records_than_the_header_counts_are_refused() {
        let two = batch(Codec::None, &[NOW.0, NOW.0]);
        let mut header = *two.header();
        header.set_records_count(1);
        let result = check(&Batch::seal(header, two.record_bytes().clone()), &RULES);
        let bytes = two.record_bytes().len() / 2;
        assert_eq!(result, Err(BatchError::RecordsTrailing { bytes, count: 1 }));
    }

    #[test]
    fn a_transactional_batch_with_a_producer_passes() {
        let good = batch(Codec::None, &[NOW.0]);
        let stamp = ProducerStamp {
            id: ProducerId(0),
            epoch: ProducerEpoch(0),
            base_sequence: 0,
            last_sequence: 0,
        };
        let mut header = *good.header();
        header.set_producer(Some(&stamp));
        let mut bytes = *header.as_bytes();
        bytes[22] |= 1 << 4;
        let batch = Batch::seal(Header::read(&bytes).unwrap(), good.record_bytes().clone());
        assert!(check(&batch, &RULES).unwrap().header().is_transactional());
    }
}
