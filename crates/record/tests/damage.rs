//! Every truncation and every change of one byte: no panic, and nothing passes that should not.
#![allow(clippy::unwrap_used)] // The helpers of a test fail it by panicking.

use bytes::Bytes;
use sapwood_model::Timestamp;
use sapwood_record::{
    Batch, BatchBuilder, BatchError, Codec, HEADER_BYTES, RecordHeader, RecordInput, Rules,
    TimestampRule, batches, crc32c, validate,
};

const CAP: usize = 4_096;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

const CRC: std::ops::Range<usize> = 17..21;

fn rules(check_compressed: bool) -> Rules {
    Rules {
        batch_bytes_max: CAP,
        decompressed_bytes_max: CAP,
        keys_required: false,
        timestamps: TimestampRule::Create {
            before_ms_max: i64::MAX,
            after_ms_max: 1_000,
        },
        check_compressed,
        compression: None,
    }
}

fn sample(codec: Codec) -> Bytes {
    let headers = [
        RecordHeader {
            key: "trace".into(),
            value: Some("0123456789".into()),
        },
        RecordHeader {
            key: "none".into(),
            value: None,
        },
    ];
    let mut builder = BatchBuilder::new(codec);
    for index in 0..5 {
        let value = format!("value {index}, and again: value {index}").repeat(2);
        builder
            .push(RecordInput {
                timestamp: Timestamp(NOW.0 + index),
                key: (index % 2 == 0).then_some(b"key"),
                value: (index != 3).then_some(value.as_bytes()),
                headers: if index == 1 { &headers } else { &[] },
            })
            .unwrap();
    }
    builder.build().unwrap().to_bytes()
}

/// Reads whatever can be read; the point is that it ends.
fn read_everything(bytes: &Bytes) {
    for batch in batches(bytes.clone()) {
        let Ok(batch) = batch else { return };
        let _ = batch.verify_crc();
        let Ok(records) = batch.records(CAP) else {
            continue;
        };
        for record in records {
            let Ok(record) = record else { break };
            assert!(record.key.map_or(0, |key| key.len()) <= CAP);
        }
    }
}

#[test]
fn a_truncated_batch_is_refused() {
    for codec in Codec::ALL {
        let whole = sample(codec);
        assert!(validate(whole.clone(), &rules(true), NOW).is_ok());
        for end in 0..whole.len() {
            let cut = whole.slice(..end);
            read_everything(&cut);
            let error = validate(cut, &rules(true), NOW).unwrap_err();
            let expected = if end < HEADER_BYTES {
                BatchError::HeaderTruncated { bytes: end }
            } else {
                BatchError::Truncated {
                    size_bytes: whole.len(),
                    bytes: end,
                }
            };
            assert_eq!(error, expected);
        }
    }
}

#[test]
fn a_batch_with_something_behind_it_is_refused() {
    for codec in Codec::ALL {
        let whole = sample(codec);
        let twice = Bytes::from([whole.clone(), whole.clone()].concat());
        let error = validate(twice.clone(), &rules(true), NOW).unwrap_err();
        assert_eq!(error, BatchError::TrailingBytes { bytes: whole.len() });
        assert_eq!(batches(twice).filter(Result::is_ok).count(), 2);
    }
}

#[test]
fn a_change_of_any_byte_under_the_crc_is_refused() {
    for codec in Codec::ALL {
        let whole = sample(codec);
        for position in 0..whole.len() {
            for change in 1..=u8::MAX {
                let mut bytes = whole.to_vec();
                bytes[position] ^= change;
                let result = validate(bytes.into(), &rules(true), NOW);
                // The base offset and the leader epoch are the broker's to set.
                let free = matches!(position, 0..8 | 12..16);
                assert_eq!(
                    result.is_ok(),
                    free,
                    "{codec}, byte {position} ^ {change:#x}"
                );
            }
        }
    }
}

#[test]
fn what_passes_validation_reads_back_whole() {
    for codec in Codec::ALL {
        let whole = sample(codec);
        let mut passed = 0;
        for position in 0..whole.len() {
            for change in [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0x7f, 0xff] {
                let mut bytes = whole.to_vec();
                bytes[position] ^= change;
                // A client that damages its batch before it computes the CRC.
                let crc = crc32c(&[&bytes[CRC.end..]]);
                bytes[CRC].copy_from_slice(&crc.to_be_bytes());
                let bytes = Bytes::from(bytes);
                read_everything(&bytes);
                let _ = validate(bytes.clone(), &rules(false), NOW);
                let Ok(batch) = validate(bytes, &rules(true), NOW) else {
                    continue;
                };
                passed += 1;
                assert_reads_back(&batch);
            }
        }
        assert!(
            passed > 100,
            "{codec}: {passed} changes pass; values may be anything"
        );
    }
}

fn assert_reads_back(batch: &Batch) {
    assert_eq!(batch.verify_crc(), Ok(()));
    let header = batch.header();
    let records: Vec<_> = batch.records(CAP).unwrap().map(Result::unwrap).collect();
    assert_eq!(records.len(), header.records_count() as usize);
    for (record, offset) in records.iter().zip(header.base_offset().0..) {
        assert_eq!(record.offset.0, offset);
    }
    let max = records.iter().map(|record| record.timestamp).max();
    assert_eq!(max, Some(header.max_timestamp()));
}
