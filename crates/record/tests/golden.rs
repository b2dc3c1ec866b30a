//! Batches that another implementation of Kafka's format wrote: kafka-python 3.0.12 with
//! python-snappy 0.7.3, lz4 4.4.5 and zstandard 0.25.0.
#![allow(clippy::unwrap_used)] // The helpers of a test fail it by panicking.

use bytes::Bytes;
use sapwood_model::{Offset, ProducerEpoch, ProducerId, Timestamp};
use sapwood_record::{
    Batch, BatchBuilder, Codec, ProducerStamp, Record, RecordHeader, RecordInput, Rules,
    TimestampRule, validate,
};

const TIMESTAMP: i64 = 1_700_000_000_000;

const STAMP: ProducerStamp = ProducerStamp {
    id: ProducerId(4711),
    epoch: ProducerEpoch(2),
    base_sequence: 17,
    last_sequence: 19,
};

/// The same three records in each codec.
const BATCHES: [(Codec, &str); 5] = [
    (
        Codec::None,
        "0000000000000000000000cd000000000202c368db0000000000020000018bcfe568000000018bcfe568\
         050000000000001267000200000011000000039002000000046b31f00176312076312076312076312076\
         312076312076312076312076312076312076312076312076312076312076312076312076312076312076\
         312076312076312076312076312076312076312076312076312076312076312076312076312076312076\
         31207631207631207631207631207631207631207631200402680278026e0110000a0201047632001000\
         0504046b330100",
    ),
    (
        Codec::Gzip,
        "00000000000000000000006e00000000029db162a40001000000020000018bcfe568000000018bcfe568\
         050000000000001267000200000011000000031f8b080057ce026b02ff9bc0c4c0c0c0926df881b1cc50\
         6140100b53065305531ea300031713234b99118300032b0b4bb63123030016d63c9f9c000000",
    ),
    (
        Codec::Snappy,
        "0000000000000000000000760000000002075b84d70002000000020000018bcfe568000000018bcfe568\
         0500000000000012670002000000110000000382534e41505059000000000100000001000000319c0130\
         9002000000046b31f001763120fe0300d20300640402680278026e0110000a0201047632001000050404\
         6b330100",
    ),
    (
        Codec::Lz4,
        "00000000000000000000007500000000028f6672240003000000020000018bcfe568000000018bcfe568\
         0500000000000012670002000000110000000304224d1868409c00000000000000052d000000df900200\
         0000046b31f001763120030062f00b0402680278026e0110000a02010476320010000504046b33010000\
         000000",
    ),
    (
        Codec::Zstd,
        "00000000000000000000006900000000021e938e110004000000020000018bcfe568000000018bcfe568\
         0500000000000012670002000000110000000328b52ffd209c7d010074029002000000046b31f0017631\
         200402680278026e0110000a02010476320010000504046b3301000100d2d47d01",
    ),
];

fn bytes(hex: &str) -> Bytes {
    let digits: Vec<u8> = hex
        .bytes()
        .map(|digit| (digit as char).to_digit(16).unwrap() as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

fn records() -> [Record; 3] {
    let first_value = "v1 ".repeat(40);
    let header = |key: &'static str, value: Option<&'static str>| RecordHeader {
        key: key.into(),
        value: value.map(Into::into),
    };
    [
        Record {
            offset: Offset(0),
            timestamp: Timestamp(TIMESTAMP),
            key: Some("k1".into()),
            value: Some(first_value.into()),
            headers: vec![header("h", Some("x")), header("n", None)],
        },
        Record {
            offset: Offset(1),
            timestamp: Timestamp(TIMESTAMP + 5),
            key: None,
            value: Some("v2".into()),
            headers: vec![],
        },
        Record {
            offset: Offset(2),
            timestamp: Timestamp(TIMESTAMP - 3),
            key: Some("k3".into()),
            value: None,
            headers: vec![],
        },
    ]
}

#[test]
fn batches_of_another_implementation_are_valid_and_read_back() {
    let rules = Rules {
        batch_bytes_max: 217,
        decompressed_bytes_max: 156,
        keys_required: false,
        timestamps: TimestampRule::Create {
            before_ms_max: 3,
            after_ms_max: 5,
        },
        check_compressed: true,
        compression: None,
    };
    for (codec, hex) in BATCHES {
        let bytes = bytes(hex);
        let batch = validate(bytes.clone(), &rules, Timestamp(TIMESTAMP)).unwrap();
        assert_eq!(batch.to_bytes(), bytes, "{codec}: appended byte for byte");
        let header = batch.header();
        assert_eq!(header.codec(), Ok(codec));
        assert_eq!(header.producer(), Some(STAMP));
        assert_eq!(header.records_count(), 3);
        assert_eq!(header.base_timestamp(), Timestamp(TIMESTAMP));
        assert_eq!(header.max_timestamp(), Timestamp(TIMESTAMP + 5));
        assert_eq!(header.attributes(), codec as u16);
        let read: Vec<Record> = batch.records(156).unwrap().map(Result::unwrap).collect();
        assert_eq!(read, records(), "{codec}");
    }
}

#[test]
fn the_builder_writes_what_the_other_implementation_writes() {
    for (codec, hex) in BATCHES {
        let mut builder = BatchBuilder::new(codec).with_producer(STAMP);
        for record in &records() {
            builder
                .push(RecordInput {
                    timestamp: record.timestamp,
                    key: record.key.as_deref(),
                    value: record.value.as_deref(),
                    headers: &record.headers,
                })
                .unwrap();
        }
        let built = builder.build().unwrap();
        let golden = Batch::split(bytes(hex)).unwrap();
        if codec == Codec::None {
            assert_eq!(built, golden);
        }
        // Compressors differ; what they compress and the rest of the header may not.
        let read = |batch: &Batch| {
            batch
                .records(1_000)
                .unwrap()
                .map(Result::unwrap)
                .collect::<Vec<_>>()
        };
        assert_eq!(read(&built), read(&golden), "{codec}");
        assert_eq!(
            built.header().as_bytes()[21..],
            golden.header().as_bytes()[21..],
            "{codec}"
        );
    }
}

#[test]
fn the_checksum_is_castagnoli_whatever_the_parts() {
    // RFC 3720, appendix B.4.
    assert_eq!(sapwood_record::crc32c(&[&[0; 32]]), 0x8a91_36aa);
    let ascending: Vec<u8> = (0..32).collect();
    assert_eq!(sapwood_record::crc32c(&[&ascending]), 0x46dd_794e);
    assert_eq!(
        sapwood_record::crc32c(&[b"1234", b"", b"56789"]),
        0xe306_9283
    );
    assert_eq!(sapwood_record::crc32c(&[]), 0);
    // Long enough for the vector code, against the definition.
    let long: Vec<u8> = (0..100_000_u32)
        .map(|number| ((number * 7) >> 3) as u8)
        .collect();
    for cut in [0, 1, 40, 4_096, 99_999] {
        assert_eq!(
            sapwood_record::crc32c(&[&long[..cut], &long[cut..]]),
            bitwise(&long)
        );
    }
}

fn bitwise(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}
