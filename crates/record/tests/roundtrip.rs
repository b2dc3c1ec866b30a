//! What is built passes validation and reads back as it was pushed.

use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*};
use sapwood_model::{Offset, ProducerEpoch, ProducerId, Timestamp};
use sapwood_record::{
    BatchBuilder, BatchError, Codec, Compression, ProducerStamp, Record, RecordHeader, RecordInput,
    Rules, TimestampRule, validate,
};

/// From nothing over one byte of length to three, compressible and not.
fn payload() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        vec(any::<u8>(), 0..100),
        (any::<u8>(), 0..40_000_usize).prop_map(|(byte, bytes)| vec![byte; bytes]),
        "[a-z ]{0,300}".prop_map(String::into_bytes),
    ]
    .prop_map(Bytes::from)
}

fn headers() -> impl Strategy<Value = Vec<RecordHeader>> {
    let header = (".{0,80}", option::of(payload())).prop_map(|(key, value)| RecordHeader {
        key: key.into(),
        value,
    });
    vec(header, 0..3)
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        Just(Timestamp::NONE),
        (-1_i64 << 62..1 << 62).prop_map(Timestamp),
        (1_700_000_000_000_i64..1_700_000_001_000).prop_map(Timestamp),
    ]
}

prop_compose! {
    fn record()(
        timestamp in timestamp(),
        key in option::of(payload()),
        value in option::of(payload()),
        headers in headers(),
    ) -> Record {
        Record { offset: Offset(0), timestamp, key, value, headers }
    }
}

fn stamp() -> impl Strategy<Value = Option<ProducerStamp>> {
    let stamp = (0..=i64::MAX as u64, 0..=i16::MAX as u16, 0..=i32::MAX).prop_map(
        |(id, epoch, base_sequence)| ProducerStamp {
            id: ProducerId(id),
            epoch: ProducerEpoch(epoch),
            base_sequence,
            last_sequence: 0,
        },
    );
    option::of(stamp)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn built_batches_pass_validation_and_read_back(
        codec in proptest::sample::select(&Codec::ALL),
        stamp in stamp(),
        base_offset in 0..=(i64::MAX - 100) as u64,
        mut records in vec(record(), 1..30),
    ) {
        let mut builder = BatchBuilder::new(codec);
        if let Some(stamp) = stamp {
            builder = builder.with_producer(stamp);
        }
        for record in &records {
            let input = RecordInput {
                timestamp: record.timestamp,
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: &record.headers,
            };
            builder.push(input).unwrap();
        }
        let uncompressed_bytes = builder.uncompressed_bytes();
        let built = builder.build().unwrap();
        let rules = Rules {
            batch_bytes_max: built.size_bytes(),
            decompressed_bytes_max: uncompressed_bytes - sapwood_record::HEADER_BYTES,
            keys_required: records.iter().all(|record| record.key.is_some()),
            timestamps: TimestampRule::Create { before_ms_max: i64::MAX, after_ms_max: i64::MAX },
            check_compressed: true,
            compression: None,
        };
        let mut batch = validate(built.to_bytes(), &rules, Timestamp(0)).unwrap();
        prop_assert_eq!(&batch, &built);

        batch.header_mut().set_base_offset(Offset(base_offset));
        batch.verify_crc().unwrap();
        for (record, offset) in records.iter_mut().zip(base_offset..) {
            record.offset = Offset(offset);
        }
        prop_assert_eq!(batch.header().last_offset(), records[records.len() - 1].offset);
        let read: Vec<Record> =
            batch.records(rules.decompressed_bytes_max).unwrap().map(Result::unwrap).collect();
        prop_assert_eq!(read, records);
    }

    /// Timestamps, headers, keys, values and the producer stay; log-append time is the broker's.
    #[test]
    fn a_batch_that_is_rewritten_in_another_codec_keeps_everything_else(
        from in proptest::sample::select(&Codec::ALL),
        to in proptest::sample::select(&Codec::ALL),
        level in option::of(-10..30),
        stamp in stamp(),
        append_time in any::<bool>(),
        records in vec(record(), 1..10),
    ) {
        let mut builder = BatchBuilder::new(from);
        if let Some(stamp) = stamp {
            builder = builder.with_producer(stamp);
        }
        for record in &records {
            let input = RecordInput {
                timestamp: record.timestamp,
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: &record.headers,
            };
            builder.push(input).unwrap();
        }
        let built = builder.build().unwrap();
        let now = Timestamp(1_800_000_000_000);
        let as_sent = Rules {
            batch_bytes_max: 1 << 24,
            decompressed_bytes_max: 1 << 24,
            keys_required: false,
            timestamps: match append_time {
                true => TimestampRule::LogAppend,
                false => TimestampRule::Create { before_ms_max: i64::MAX, after_ms_max: i64::MAX },
            },
            check_compressed: false,
            compression: None,
        };
        let rules = Rules { compression: Some(Compression { codec: to, level }), ..as_sent };
        prop_assert_eq!(rules.rewrites(from), from != to);
        let expected = validate(built.to_bytes(), &as_sent, now).unwrap();
        let rewritten = validate(built.to_bytes(), &rules, now).unwrap();
        rewritten.verify_crc().unwrap();
        prop_assert_eq!(rewritten.header().codec(), Ok(to));
        prop_assert_eq!(rewritten.header().is_log_append_time(), append_time);
        prop_assert_eq!(rewritten.header().producer(), expected.header().producer());
        prop_assert_eq!(rewritten.header().base_timestamp(), expected.header().base_timestamp());
        prop_assert_eq!(rewritten.header().max_timestamp(), expected.header().max_timestamp());
        let read = |batch: &sapwood_record::Batch| -> Vec<Record> {
            batch.records(1 << 24).unwrap().map(Result::unwrap).collect()
        };
        prop_assert_eq!(read(&rewritten), read(&expected));

        let tight = Rules { batch_bytes_max: built.size_bytes(), ..rules };
        match validate(built.to_bytes(), &tight, now) {
            Ok(fits) => prop_assert!(fits.size_bytes() <= built.size_bytes()),
            Err(BatchError::TooLarge { size_bytes, limit }) => {
                prop_assert_eq!((size_bytes, limit), (rewritten.size_bytes(), built.size_bytes()));
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn random_bytes_never_pass_and_never_panic(
        codec in proptest::sample::select(&Codec::ALL),
        records in vec(any::<u8>(), 0..300),
        count in 0..10_i32,
    ) {
        let mut builder = BatchBuilder::new(codec);
        let input =
            RecordInput { timestamp: Timestamp(0), key: None, value: None, headers: &[] };
        builder.push(input).unwrap();
        let mut bytes = builder.build().unwrap().to_bytes()[..61].to_vec();
        bytes[57..61].copy_from_slice(&count.to_be_bytes());
        bytes[23..27].copy_from_slice(&(count - 1).max(0).to_be_bytes());
        bytes.extend_from_slice(&records);
        let length = u32::try_from(bytes.len() - 12).unwrap();
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        let batch = sapwood_record::Batch::split(bytes.into()).unwrap();
        if let Ok(read) = batch.records(1 << 20) {
            prop_assert!(read.take(1_000).count() <= 11);
        }
    }
}
