//! Plain records to batches and back, for clients that have no batch encoder.

use std::ops::Range;

use bytes::Bytes;
use sapwood_model::{Acks, Code, Offset, ProducerEpoch, ProducerId, Timestamp};
use sapwood_record::{
    BatchBuilder, BatchError, Codec, ProducerStamp, RecordHeader, RecordInput, batches,
};
use sapwood_rpc::v1;

use crate::error::Failure;

/// What a producer waits for.
pub(crate) fn acks(acks: i32) -> Result<Acks, Failure> {
    match v1::Acks::try_from(acks) {
        Ok(v1::Acks::Unspecified | v1::Acks::All) => Ok(Acks::All),
        Ok(v1::Acks::Leader) => Ok(Acks::Leader),
        Ok(v1::Acks::None) => Ok(Acks::None),
        Err(_) => {
            let message = format!("acks is {acks}; sapwood.v1.Acks goes up to 3");
            Err(Failure::new(Code::InvalidArgument, message))
        }
    }
}

pub(crate) fn codec(compression: i32) -> Result<Codec, Failure> {
    match v1::Compression::try_from(compression) {
        Ok(v1::Compression::Unspecified | v1::Compression::None) => Ok(Codec::None),
        Ok(v1::Compression::Gzip) => Ok(Codec::Gzip),
        Ok(v1::Compression::Snappy) => Ok(Codec::Snappy),
        Ok(v1::Compression::Lz4) => Ok(Codec::Lz4),
        Ok(v1::Compression::Zstd) => Ok(Codec::Zstd),
        Err(_) => {
            let message =
                format!("compression is {compression}; sapwood.v1.Compression goes up to 5");
            Err(Failure::new(Code::InvalidArgument, message))
        }
    }
}

/// One batch of the records. Copies and compresses them; large ones belong on the blocking pool.
pub(crate) fn build(records: v1::Records, now: Timestamp) -> Result<Bytes, Failure> {
    let mut builder = BatchBuilder::new(codec(records.compression)?);
    if let Some(stamp) = records.producer {
        builder = builder.with_producer(producer(stamp)?);
    }
    for record in records.records {
        let headers: Vec<RecordHeader> = record
            .headers
            .into_iter()
            .map(|header| RecordHeader {
                key: header.name.into_bytes().into(),
                value: header.value,
            })
            .collect();
        builder
            .push(RecordInput {
                timestamp: record.timestamp_ms.map_or(now, Timestamp),
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: &headers,
            })
            .map_err(|error| Failure::new(error.code(), error))?;
    }
    let batch = builder
        .build()
        .map_err(|error| Failure::new(error.code(), error))?;
    Ok(batch.to_bytes())
}

fn producer(stamp: v1::ProducerStamp) -> Result<ProducerStamp, Failure> {
    let invalid = |message: String| Failure::new(Code::InvalidArgument, message);
    if i64::try_from(stamp.producer_id).is_err() {
        return Err(invalid(format!(
            "producer_id is {}; the limit is {}",
            stamp.producer_id,
            i64::MAX
        )));
    }
    let epoch = i16::try_from(stamp.producer_epoch).map_err(|_| {
        invalid(format!(
            "producer_epoch is {}; the limit is {}",
            stamp.producer_epoch,
            i16::MAX
        ))
    })?;
    let base_sequence = i32::try_from(stamp.base_sequence).map_err(|_| {
        invalid(format!(
            "base_sequence is {}; the limit is {}",
            stamp.base_sequence,
            i32::MAX
        ))
    })?;
    Ok(ProducerStamp {
        id: ProducerId(stamp.producer_id),
        epoch: ProducerEpoch(epoch.unsigned_abs()),
        base_sequence,
        // The builder counts the records itself.
        last_sequence: base_sequence,
    })
}

/// How much of a run of batches is wanted as plain records.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) offsets: Range<Offset>,
    pub(crate) records_max: usize,
    /// Of keys, values and headers; one record comes whatever its size.
    pub(crate) bytes_max: usize,
    /// What one batch may unfold to.
    pub(crate) decompressed_bytes_max: usize,
}

/// Plain records of a run of batches.
#[derive(Debug, Default)]
pub(crate) struct Plain {
    pub(crate) records: Vec<v1::Record>,
    pub(crate) bytes: usize,
    /// The offset behind the last record that was taken, when not all that was wanted was.
    pub(crate) stopped_at: Option<Offset>,
}

/// Takes a run of batches apart. Decompresses.
pub(crate) fn plain(bytes: Bytes, wanted: &Wanted) -> Result<Plain, BatchError> {
    let mut plain = Plain::default();
    for batch in batches(bytes) {
        let batch = batch?;
        if batch.header().is_control() || batch.header().next_offset() <= wanted.offsets.start {
            continue;
        }
        batch.verify_crc()?;
        for record in batch.records(wanted.decompressed_bytes_max)? {
            let record = record?;
            if record.offset < wanted.offsets.start {
                continue;
            }
            if record.offset >= wanted.offsets.end {
                return Ok(plain);
            }
            let size = size_of(&record);
            let full = plain.records.len() >= wanted.records_max
                || plain.bytes.saturating_add(size) > wanted.bytes_max;
            if full && !plain.records.is_empty() {
                plain.stopped_at = Some(record.offset);
                return Ok(plain);
            }
            plain.bytes += size;
            plain.records.push(message(record));
        }
    }
    Ok(plain)
}

/// True when taking it apart is more than a walk.
pub(crate) fn is_compressed(bytes: &Bytes) -> bool {
    let header = sapwood_record::Header::read(bytes);
    header.is_some_and(|header| header.codec().is_ok_and(|codec| codec != Codec::None))
}

fn size_of(record: &sapwood_record::Record) -> usize {
    let headers = record.headers.iter();
    record.key.as_ref().map_or(0, Bytes::len)
        + record.value.as_ref().map_or(0, Bytes::len)
        + headers
            .map(|h| h.key.len() + h.value.as_ref().map_or(0, Bytes::len))
            .sum::<usize>()
}

fn message(record: sapwood_record::Record) -> v1::Record {
    v1::Record {
        key: record.key,
        value: record.value,
        headers: record
            .headers
            .into_iter()
            .map(|header| v1::Header {
                name: String::from_utf8_lossy(&header.key).into_owned(),
                value: header.value,
            })
            .collect(),
        timestamp_ms: Some(record.timestamp.0),
        offset: record.offset.0,
    }
}

pub(crate) fn bounds(bounds: sapwood_broker::Bounds) -> v1::Bounds {
    v1::Bounds {
        log_start_offset: bounds.log_start.0,
        high_watermark: bounds.high_watermark.0,
        log_end_offset: bounds.log_end.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(count: u32, compression: v1::Compression) -> v1::Records {
        let record = |n: u32| v1::Record {
            key: n.is_multiple_of(2).then(|| Bytes::from(format!("k{n}"))),
            value: (!n.is_multiple_of(3)).then(|| Bytes::from(format!("value {n}"))),
            headers: vec![v1::Header {
                name: "h".into(),
                value: None,
            }],
            timestamp_ms: (n % 2 == 1).then_some(i64::from(n)),
            offset: 0,
        };
        v1::Records {
            records: (0..count).map(record).collect(),
            compression: compression.into(),
            producer: None,
        }
    }

    fn all() -> Wanted {
        Wanted {
            offsets: Offset(0)..Offset(u64::MAX),
            records_max: usize::MAX,
            bytes_max: usize::MAX,
            decompressed_bytes_max: 1 << 20,
        }
    }

    #[test]
    fn records_come_back_as_they_were_with_offsets_and_the_brokers_time() {
        for compression in [v1::Compression::None, v1::Compression::Zstd] {
            let sent = records(20, compression);
            let bytes = build(sent.clone(), Timestamp(777)).unwrap();
            assert_eq!(is_compressed(&bytes), compression == v1::Compression::Zstd);
            let got = plain(bytes, &all()).unwrap();
            for (n, (got, mut sent)) in got.records.into_iter().zip(sent.records).enumerate() {
                sent.offset = n as u64;
                sent.timestamp_ms.get_or_insert(777);
                assert_eq!(got, sent);
            }
        }
    }

    #[test]
    fn a_part_of_a_run_is_bounded_by_offsets_count_and_bytes() {
        let bytes = build(records(20, v1::Compression::None), Timestamp(1)).unwrap();
        let take = |wanted: Wanted| {
            let plain = plain(bytes.clone(), &wanted).unwrap();
            let offsets: Vec<u64> = plain.records.iter().map(|record| record.offset).collect();
            (offsets, plain.stopped_at)
        };
        assert_eq!(
            take(Wanted {
                offsets: Offset(3)..Offset(6),
                ..all()
            }),
            (vec![3, 4, 5], None)
        );
        assert_eq!(
            take(Wanted {
                offsets: Offset(3)..Offset(20),
                records_max: 2,
                ..all()
            }),
            (vec![3, 4], Some(Offset(5)))
        );
        // One record comes whatever its size.
        assert_eq!(
            take(Wanted {
                bytes_max: 0,
                ..all()
            }),
            (vec![0], Some(Offset(1)))
        );
    }

    #[test]
    fn numbers_that_do_not_fit_a_batch_are_refused_with_their_limit() {
        let with = |stamp| v1::Records {
            producer: Some(stamp),
            ..records(1, v1::Compression::None)
        };
        let good = v1::ProducerStamp {
            producer_id: 1,
            producer_epoch: 2,
            base_sequence: 3,
        };
        assert!(build(with(good), Timestamp(1)).is_ok());
        for bad in [
            v1::ProducerStamp {
                producer_id: u64::MAX,
                ..good
            },
            v1::ProducerStamp {
                producer_epoch: 32768,
                ..good
            },
            v1::ProducerStamp {
                base_sequence: 1 << 31,
                ..good
            },
        ] {
            let failure = build(with(bad), Timestamp(1)).unwrap_err();
            assert_eq!(failure.into_error().code, Code::InvalidArgument.to_string());
        }
        assert!(acks(9).is_err() && codec(9).is_err());
    }

    #[test]
    fn no_records_are_no_batch() {
        assert!(build(records(0, v1::Compression::None), Timestamp(1)).is_err());
    }
}
