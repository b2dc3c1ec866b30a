//! What a batch costs before it reaches a log: checking it, building it, reading it; plain and compressed.

use std::hint::black_box;

use sapwood_model::Timestamp;
use sapwood_record::{
    Batch, BatchBuilder, Codec, RecordInput, Rules, TimestampRule, crc32c, validate,
};

use super::{Done, Work, Workload};

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const BATCH_BYTES: usize = 64 << 10;

pub(super) const WORKLOADS: &[Workload] = &[
    batch_work("validate crc alone/1024", || crc_alone(1024)),
    batch_work("validate whole check/100", || whole_check(100)),
    batch_work("validate whole check/1024", || whole_check(1024)),
    Workload {
        name: "validate whole check/16384",
        // A fourth record would be too much.
        done: Done::Bytes(3 * (16 << 10)),
        prepare: || whole_check(16 << 10),
    },
    batch_work("validate compressed records too/Gzip", || {
        compressed_too(Codec::Gzip)
    }),
    batch_work("validate compressed records too/Snappy", || {
        compressed_too(Codec::Snappy)
    }),
    batch_work("validate compressed records too/Lz4", || {
        compressed_too(Codec::Lz4)
    }),
    batch_work("validate compressed records too/Zstd", || {
        compressed_too(Codec::Zstd)
    }),
    batch_work("build/None", || building(Codec::None)),
    batch_work("build/Gzip", || building(Codec::Gzip)),
    batch_work("build/Snappy", || building(Codec::Snappy)),
    batch_work("build/Lz4", || building(Codec::Lz4)),
    batch_work("build/Zstd", || building(Codec::Zstd)),
    batch_work("read records/None", || reading(Codec::None)),
    batch_work("read records/Gzip", || reading(Codec::Gzip)),
    batch_work("read records/Snappy", || reading(Codec::Snappy)),
    batch_work("read records/Lz4", || reading(Codec::Lz4)),
    batch_work("read records/Zstd", || reading(Codec::Zstd)),
];

/// On one batch.
const fn batch_work(name: &'static str, prepare: fn() -> Box<dyn Work>) -> Workload {
    Workload {
        name,
        done: Done::Bytes(BATCH_BYTES),
        prepare,
    }
}

/// A batch of about 64 KiB before compression, of records that look like small JSON documents.
fn batch(codec: Codec, record_bytes: usize) -> Batch {
    let mut builder = BatchBuilder::new(codec);
    let mut number = 0_u64;
    while builder.uncompressed_bytes() + record_bytes < BATCH_BYTES {
        let mut value = format!(
            r#"{{"id":{number},"state":"paid","total":{}}}"#,
            number * 7919 % 10_007
        );
        while value.len() < record_bytes {
            value.push_str(&format!(
                " {:x}",
                number.wrapping_mul(0x9E37_79B9_7F4A_7C15)
            ));
        }
        let record = RecordInput {
            timestamp: NOW,
            key: Some(b"customer"),
            value: Some(&value.as_bytes()[..record_bytes]),
            headers: &[],
        };
        builder.push(record).expect("a small record fits");
        number += 1;
    }
    builder.build().expect("a batch with records can be built")
}

fn rules(check_compressed: bool) -> Rules {
    let window = i64::MAX;
    Rules {
        batch_bytes_max: 1 << 20,
        decompressed_bytes_max: 1 << 20,
        keys_required: false,
        timestamps: TimestampRule::Create {
            before_ms_max: window,
            after_ms_max: window,
        },
        check_compressed,
        compression: None,
    }
}

fn crc_alone(record_bytes: usize) -> Box<dyn Work> {
    let bytes = batch(Codec::None, record_bytes).to_bytes();
    Box::new(move || {
        black_box(crc32c(&[black_box(&bytes[21..])]));
    })
}

fn whole_check(record_bytes: usize) -> Box<dyn Work> {
    let (bytes, rules) = (batch(Codec::None, record_bytes).to_bytes(), rules(false));
    Box::new(move || {
        black_box(validate(bytes.clone(), &rules, NOW).expect("it is valid"));
    })
}

fn compressed_too(codec: Codec) -> Box<dyn Work> {
    let (bytes, rules) = (batch(codec, 1024).to_bytes(), rules(true));
    Box::new(move || {
        black_box(validate(bytes.clone(), &rules, NOW).expect("it is valid"));
    })
}

fn building(codec: Codec) -> Box<dyn Work> {
    let value = batch(Codec::None, 1024).to_bytes();
    Box::new(move || {
        let mut builder = BatchBuilder::new(codec).with_capacity(BATCH_BYTES);
        for record in value.chunks_exact(1024) {
            let record = RecordInput {
                timestamp: NOW,
                key: None,
                value: Some(record),
                headers: &[],
            };
            builder.push(record).expect("a small record fits");
        }
        black_box(builder.build().expect("a batch with records can be built"));
    })
}

fn reading(codec: Codec) -> Box<dyn Work> {
    let batch = batch(codec, 1024);
    Box::new(move || {
        let records = batch.records(1 << 20).expect("it can be opened");
        let offsets = records.map(|record| record.expect("it is whole").offset.0);
        black_box(offsets.sum::<u64>());
    })
}
