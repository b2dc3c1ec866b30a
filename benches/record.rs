//! What a batch costs before it reaches a log: building it, checking it, reading it.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sapwood_model::Timestamp;
use sapwood_record::{
    Batch, BatchBuilder, Codec, RecordInput, Rules, TimestampRule, crc32c, validate,
};

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const BATCH_BYTES: usize = 64 << 10;
const CODECS: [Codec; 5] = [
    Codec::None,
    Codec::Gzip,
    Codec::Snappy,
    Codec::Lz4,
    Codec::Zstd,
];

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

fn validation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("validate");
    for record_bytes in [100, 1024, 16 << 10] {
        let bytes = batch(Codec::None, record_bytes).to_bytes();
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        let id = BenchmarkId::new("crc alone", record_bytes);
        group.bench_with_input(id, &bytes, |bencher, bytes| {
            bencher.iter(|| crc32c(&[black_box(&bytes[21..])]));
        });
        let id = BenchmarkId::new("whole check", record_bytes);
        group.bench_with_input(id, &bytes, |bencher, bytes: &Bytes| {
            bencher.iter(|| validate(bytes.clone(), &rules(false), NOW).expect("it is valid"));
        });
    }
    for codec in CODECS.into_iter().skip(1) {
        let bytes = batch(codec, 1024).to_bytes();
        group.throughput(Throughput::Bytes(BATCH_BYTES as u64));
        let id = BenchmarkId::new("compressed records too", format!("{codec:?}"));
        group.bench_with_input(id, &bytes, |bencher, bytes: &Bytes| {
            bencher.iter(|| validate(bytes.clone(), &rules(true), NOW).expect("it is valid"));
        });
    }
    group.finish();
}

fn building(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("build");
    group.throughput(Throughput::Bytes(BATCH_BYTES as u64));
    let value = batch(Codec::None, 1024).to_bytes();
    for codec in CODECS {
        group.bench_function(format!("{codec:?}"), |bencher| {
            bencher.iter(|| {
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
                builder.build().expect("a batch with records can be built")
            });
        });
    }
    group.finish();
}

fn reading(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read records");
    group.throughput(Throughput::Bytes(BATCH_BYTES as u64));
    for codec in CODECS {
        let batch = batch(codec, 1024);
        group.bench_function(format!("{codec:?}"), |bencher| {
            bencher.iter(|| {
                let records = batch.records(1 << 20).expect("it can be opened");
                records
                    .map(|record| record.expect("it is whole").offset.0)
                    .sum::<u64>()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, validation, building, reading);
criterion_main!(benches);
