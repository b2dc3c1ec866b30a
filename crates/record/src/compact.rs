//! Leaving records out of a batch, as compaction does.
//!
//! What stays is as it was: offsets, timestamps, keys, values, headers, the codec, the producer and its
//! sequence numbers. A batch keeps the offsets that it covers also when records of it are gone, so that
//! the batches of a log stay contiguous.

use std::ops::Range;

use bytes::Bytes;
use sapwood_model::{LeaderEpoch, Offset, Timestamp};

use crate::{
    Batch, BatchError, Codec, Compression, Header, RecordFault,
    builder::check_records_bytes,
    records::RawRecord,
    varint::{Reader, put_varlong},
};

/// What compaction looks at in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyedRecord<'a> {
    /// Its place in the log.
    pub offset: Offset,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// It has no value: it says that its key is deleted.
    pub is_tombstone: bool,
}

/// A batch without the records that are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compacted {
    /// Every record stays, and nothing of the batch changes.
    Unchanged,
    /// Some stay, or the batch was given a delete horizon.
    Changed(Batch),
    /// None stays.
    Empty,
}

/// Where a record is that stays.
struct Kept {
    range: Range<usize>,
    timestamp: Timestamp,
}

impl Batch {
    /// Shows every record to `look`, in order of offsets, until it says `false`. Copies nothing that is
    /// not compressed.
    ///
    /// # Errors
    /// As [`Batch::records`], and a record that is damaged, when the walk gets there.
    pub fn look_at_keys(
        &self,
        decompressed_bytes_max: usize,
        mut look: impl FnMut(KeyedRecord<'_>) -> bool,
    ) -> Result<(), BatchError> {
        let bytes = self.decompressed(decompressed_bytes_max)?;
        walk(self.header(), &bytes, |_, record| Ok(look(record)))
    }

    /// The batch without the records that `keep` refuses. If a tombstone stays and the batch has no delete
    /// horizon, it is given `horizon`: the time from which on its tombstones may go, which takes the
    /// place of the base timestamp.
    ///
    /// # Errors
    /// As [`Batch::look_at_keys`]; [`BatchError::TooLarge`] when the records grow past 2 GiB by
    /// compressing them anew.
    pub fn compact(
        &self,
        decompressed_bytes_max: usize,
        horizon: Option<Timestamp>,
        mut keep: impl FnMut(KeyedRecord<'_>) -> bool,
    ) -> Result<Compacted, BatchError> {
        let header = self.header();
        let bytes = self.decompressed(decompressed_bytes_max)?;
        let mut kept: Vec<Kept> = Vec::new();
        let mut keeps_tombstone = false;
        walk(header, &bytes, |raw, record| {
            if keep(record) {
                keeps_tombstone |= record.is_tombstone;
                kept.push(Kept {
                    range: raw.0..raw.1.end,
                    timestamp: raw.1.timestamp(header.base_timestamp())?,
                });
            }
            Ok(true)
        })?;
        if kept.is_empty() {
            return Ok(Compacted::Empty);
        }
        let horizon = horizon.filter(|_| keeps_tombstone && !header.has_delete_horizon());
        // A timestamp that is too far from the horizon cannot be counted from it.
        let horizon = horizon.filter(|horizon| {
            let is_near = |one: &Kept| one.timestamp.0.checked_sub(horizon.0).is_some();
            kept.iter().all(is_near)
        });
        if kept.len() == header.records_count() as usize && horizon.is_none() {
            return Ok(Compacted::Unchanged);
        }
        let records = match horizon {
            None => gather(&bytes, &kept),
            Some(horizon) => recount(&bytes, &kept, horizon)?,
        };
        let mut new = *header;
        new.set_kept_count(kept.len());
        if !header.is_log_append_time() {
            let max = kept.iter().map(|one| one.timestamp).max();
            new.set_max_timestamp(max.unwrap_or(Timestamp::NONE));
        }
        if let Some(horizon) = horizon {
            new.set_delete_horizon(horizon);
        }
        let codec = header.codec()?;
        let records = match Compression::from(codec).compress(&records)? {
            Some(compressed) => compressed,
            None => records,
        };
        check_records_bytes(records.len())?;
        Ok(Compacted::Changed(Batch::seal(new, records.into())))
    }

    /// The same batch without any record: it keeps its offsets, its leader epoch, and its producer with
    /// the sequence numbers.
    #[must_use]
    pub fn emptied(&self) -> Self {
        let mut header = *self.header();
        header.set_kept_count(0);
        header.set_codec(Codec::None);
        Self::seal(header, Bytes::new())
    }

    /// A batch without records that covers offsets whose records are gone. At most 2^31 of them.
    ///
    /// # Panics
    /// When the range is empty or longer than that.
    pub fn without_records(offsets: Range<Offset>, epoch: LeaderEpoch) -> Self {
        let count = offsets.end.0.checked_sub(offsets.start.0);
        let last = count.and_then(|count| i32::try_from(count.checked_sub(1)?).ok());
        let mut header = Header::blank();
        header.set_last_offset_delta(last.expect("1 to 2^31 offsets"));
        header.set_kept_count(0);
        header.set_timestamps(Timestamp::NONE, Timestamp::NONE);
        header.set_base_offset(offsets.start);
        header.set_leader_epoch(epoch);
        Self::seal(header, Bytes::new())
    }

    fn decompressed(&self, bytes_max: usize) -> Result<Bytes, BatchError> {
        if self.header().records_count() == 0 {
            return Ok(Bytes::new()); // nothing was compressed, whatever the header says
        }
        let codec = self.header().codec()?;
        codec.decompress(self.record_bytes(), bytes_max)
    }
}

/// Gives every record, and where it starts, to `each` until that says `false`.
fn walk(
    header: &Header,
    bytes: &[u8],
    mut each: impl FnMut((usize, &RawRecord), KeyedRecord<'_>) -> Result<bool, RecordFault>,
) -> Result<(), BatchError> {
    let (mut position, mut delta_min) = (0, 0);
    for index in 0..header.records_count() {
        let fail = |fault| BatchError::Record {
            index,
            position,
            fault,
        };
        let raw = RawRecord::read(bytes, position).map_err(fail)?;
        if raw.offset_delta < delta_min || raw.offset_delta > header.last_offset_delta() {
            return Err(fail(RecordFault::OffsetDelta(raw.offset_delta)));
        }
        let offset = u64::from(raw.offset_delta.unsigned_abs());
        let record = KeyedRecord {
            offset: header.base_offset().add(offset),
            key: raw.key.clone().map(|range| &bytes[range]),
            is_tombstone: raw.value.is_none(),
        };
        if !each((position, &raw), record).map_err(fail)? {
            return Ok(());
        }
        delta_min = raw.offset_delta.saturating_add(1);
        position = raw.end;
    }
    match bytes.len() - position {
        0 => Ok(()),
        bytes => Err(BatchError::RecordsTrailing {
            bytes,
            count: header.records_count(),
        }),
    }
}

/// The bytes of the records that stay. A record's numbers count from the batch's header, so that each
/// stays as it is.
fn gather(bytes: &[u8], kept: &[Kept]) -> Vec<u8> {
    let length = kept.iter().map(|one| one.range.len()).sum();
    let mut records = Vec::with_capacity(length);
    for one in kept {
        records.extend_from_slice(&bytes[one.range.clone()]);
    }
    records
}

/// The same with timestamps that count from `base`.
fn recount(bytes: &[u8], kept: &[Kept], base: Timestamp) -> Result<Vec<u8>, BatchError> {
    let mut records = Vec::with_capacity(kept.iter().map(|one| one.range.len() + 8).sum());
    let mut body = Vec::new();
    for (index, one) in kept.iter().enumerate() {
        let rest =
            behind_timestamp(bytes, one.range.start).map_err(|fault| BatchError::Record {
                index: index as u32,
                position: one.range.start,
                fault,
            })?;
        body.clear();
        body.push(rest.0);
        put_varlong(&mut body, one.timestamp.0 - base.0);
        put_varlong(&mut records, (body.len() + (one.range.end - rest.1)) as i64);
        records.extend_from_slice(&body);
        records.extend_from_slice(&bytes[rest.1..one.range.end]);
    }
    Ok(records)
}

/// A record's attributes, and where what follows its timestamp begins.
fn behind_timestamp(bytes: &[u8], start: usize) -> Result<(u8, usize), RecordFault> {
    let mut reader = Reader::new(bytes, start);
    reader.varint()?;
    let attributes = reader.byte()?;
    reader.varlong()?;
    Ok((attributes, reader.position()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BatchBuilder, ProducerStamp, Record, RecordHeader, RecordInput};
    use sapwood_model::{ProducerEpoch, ProducerId};

    const CAP: usize = 1 << 20;
    const CODECS: [Codec; 5] = [
        Codec::None,
        Codec::Gzip,
        Codec::Snappy,
        Codec::Lz4,
        Codec::Zstd,
    ];

    /// Ten records from offset 1,000 on; every third one is a tombstone, and the fifth has no key.
    fn batch(codec: Codec) -> Batch {
        let stamp = ProducerStamp {
            id: ProducerId(7),
            epoch: ProducerEpoch(3),
            base_sequence: 40,
            last_sequence: 0,
        };
        let mut builder = BatchBuilder::new(codec).with_producer(stamp);
        for n in 0..10_u8 {
            let header = RecordHeader {
                key: Bytes::from_static(b"h"),
                value: Some(vec![n].into()),
            };
            let key = [n; 3];
            let value = vec![n; 100];
            let input = RecordInput {
                timestamp: Timestamp(1_700_000_000_000 - i64::from(n) * 77),
                key: (n != 5).then_some(&key),
                value: (n % 3 != 0).then_some(&value),
                headers: &[header],
            };
            builder.push(input).unwrap();
        }
        let mut batch = builder.build().unwrap();
        batch.header_mut().set_base_offset(Offset(1000));
        batch.header_mut().set_leader_epoch(LeaderEpoch(9));
        batch
    }

    fn records(batch: &Batch) -> Vec<Record> {
        batch.records(CAP).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn the_records_that_stay_are_as_they_were_in_every_codec() {
        for codec in CODECS {
            let whole = batch(codec);
            for mask in [1_u32, 0b10_0110_1001, 0b11_1111_1110, 1 << 9] {
                let keep = |record: KeyedRecord<'_>| mask & (1 << (record.offset.0 - 1000)) != 0;
                let Compacted::Changed(some) = whole.compact(CAP, None, keep).unwrap() else {
                    panic!("some stay and some go");
                };
                some.verify_crc().unwrap();
                let mut expected = records(&whole);
                expected.retain(|record| mask & (1 << (record.offset.0 - 1000)) != 0);
                assert_eq!(records(&some), expected);
                let (old, new) = (whole.header(), some.header());
                assert_eq!(new.codec(), Ok(codec));
                assert_eq!(new.next_offset(), old.next_offset());
                assert_eq!(new.base_offset(), old.base_offset());
                assert_eq!(new.leader_epoch(), old.leader_epoch());
                assert_eq!(new.producer(), old.producer());
                let latest = expected.iter().map(|record| record.timestamp).max();
                assert_eq!(Some(new.max_timestamp()), latest);
            }
        }
    }

    #[test]
    fn nothing_changes_where_everything_stays_and_nothing_is_left_where_nothing_does() {
        let whole = batch(Codec::Zstd);
        assert_eq!(whole.compact(CAP, None, |_| true), Ok(Compacted::Unchanged));
        let none = whole.compact(CAP, Some(Timestamp(5)), |_| false);
        assert_eq!(none, Ok(Compacted::Empty));
        let empty = whole.emptied();
        empty.verify_crc().unwrap();
        assert_eq!(records(&empty), []);
        assert_eq!(empty.header().producer(), whole.header().producer());
        assert_eq!(empty.header().next_offset(), whole.header().next_offset());
        assert_eq!(
            empty.header().max_timestamp(),
            whole.header().max_timestamp()
        );
        assert_eq!(empty.compact(CAP, None, |_| true), Ok(Compacted::Empty));
    }

    #[test]
    fn a_tombstone_that_stays_brings_a_delete_horizon_and_leaves_every_timestamp() {
        for codec in CODECS {
            let whole = batch(codec);
            let horizon = Timestamp(1_800_000_000_123);
            let with = |mask: u32| {
                let keep =
                    move |record: KeyedRecord<'_>| mask & (1 << (record.offset.0 - 1000)) != 0;
                whole.compact(CAP, Some(horizon), keep).unwrap()
            };
            let Compacted::Changed(some) = with(0b11_1111_1111) else {
                panic!("it is given a horizon");
            };
            some.verify_crc().unwrap();
            assert!(some.header().has_delete_horizon());
            assert_eq!(some.header().base_timestamp(), horizon);
            assert_eq!(records(&some), records(&whole));
            // Once given it stays.
            let later = some.compact(CAP, Some(Timestamp(1)), |_| true);
            assert_eq!(later, Ok(Compacted::Unchanged));
            // Records 1, 2 and 4 have values.
            let Compacted::Changed(some) = with(0b1_0110) else {
                panic!("some go");
            };
            assert!(!some.header().has_delete_horizon());
        }
    }

    #[test]
    fn a_timestamp_out_of_reach_leaves_the_batch_without_a_horizon() {
        let mut builder = BatchBuilder::new(Codec::None);
        let input = RecordInput {
            timestamp: Timestamp(i64::MIN),
            key: Some(b"k"),
            value: None,
            headers: &[],
        };
        builder.push(input).unwrap();
        let whole = builder.build().unwrap();
        let same = whole.compact(CAP, Some(Timestamp(7)), |_| true);
        assert_eq!(same, Ok(Compacted::Unchanged));
    }

    #[test]
    fn keys_are_shown_in_order_until_somebody_has_seen_enough() {
        let whole = batch(Codec::Snappy);
        let mut seen = Vec::new();
        let look = |record: KeyedRecord<'_>| {
            seen.push((
                record.offset.0,
                record.key.map(<[u8]>::to_vec),
                record.is_tombstone,
            ));
            seen.len() < 6
        };
        whole.look_at_keys(CAP, look).unwrap();
        assert_eq!(seen.len(), 6);
        assert_eq!(seen[0], (1000, Some(vec![0; 3]), true));
        assert_eq!(seen[5], (1005, None, false));
    }

    #[test]
    fn a_batch_without_records_covers_its_offsets() {
        for offsets in [Offset(5)..Offset(6), Offset(9)..Offset(9 + (1 << 31))] {
            let batch = Batch::without_records(offsets.clone(), LeaderEpoch(4));
            batch.verify_crc().unwrap();
            let header = batch.header();
            assert_eq!(header.base_offset()..header.next_offset(), offsets);
            assert_eq!((header.records_count(), header.producer()), (0, None));
            assert_eq!(header.max_timestamp(), Timestamp::NONE);
            assert_eq!(records(&batch), []);
        }
    }

    #[test]
    fn what_a_client_compressed_wrongly_is_an_error_and_changes_nothing() {
        let mut whole = batch(Codec::None);
        let header = whole.header_mut();
        header.set_codec(Codec::Zstd);
        assert!(whole.compact(CAP, None, |_| true).is_err());
        assert!(whole.look_at_keys(CAP, |_| true).is_err());
        // More records than there are, or fewer.
        for count in [9, 11] {
            let mut whole = batch(Codec::None);
            whole.header_mut().set_kept_count(count);
            assert!(whole.compact(CAP, None, |_| true).is_err(), "{count}");
        }
    }
}
