//! What validation costs: `cargo run --release -p sapwood-record --example validate_cost`.
//!
//! Prints the CRC's speed, then for several batches the time of the CRC alone, of validation, and
//! the difference a record; for compressed batches with and without the check of their records.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use bytes::Bytes;
use sapwood_model::Timestamp;
use sapwood_record::{
    BatchBuilder, BatchError, Codec, HEADER_BYTES, RecordHeader, RecordInput, Rules, TimestampRule,
    crc32c, validate,
};

/// Short and many, so that some are not interrupted by whatever else the machine does.
const ROUNDS: usize = 500;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn main() -> Result<(), BatchError> {
    println!(
        "CRC-32C runs as {}",
        crc_fast::get_calculator_target(crc_fast::CrcAlgorithm::Crc32Iscsi)
    );
    for size in [1 << 10, 16 << 10, 1 << 20] {
        let bytes: Vec<u8> = (0..size).map(|number| number as u8).collect();
        let time = best(size, || black_box(crc32c(&[black_box(&bytes)])));
        println!(
            "CRC-32C, {:>4} KiB: {:>5.1} GB/s",
            size >> 10,
            size as f64 / nanos(time)
        );
    }

    println!(
        "\nuncompressed        records     size    CRC      validation  ns/record past the CRC"
    );
    for (value_bytes, headers) in [(0, 0), (20, 0), (100, 0), (100, 2), (1_000, 0), (10_000, 0)] {
        let (batch, records) = batch(Codec::None, value_bytes, headers)?;
        let crc = best(batch.len(), || {
            black_box(crc32c(&[&black_box(&batch)[21..]]))
        });
        let whole = validation(&batch, false);
        println!(
            "{value_bytes:>6} B, {headers} headers {records:>9} {:>8} B {:>8.1?} {:>9.1?} {:>8.1}",
            batch.len(),
            crc,
            whole,
            (nanos(whole) - nanos(crc)) / records as f64
        );
    }

    println!("\ncompressed (100 B)  records     size   trusted      checked  GB/s of content");
    for codec in &Codec::ALL[1..] {
        let (batch, records) = batch(*codec, 100, 0)?;
        let content = batch_content_bytes(&batch)?;
        let (trusted, checked) = (validation(&batch, false), validation(&batch, true));
        println!(
            "{:<16} {records:>10} {:>8} B {:>8.1?} {:>9.1?} {:>8.2}",
            codec.to_string(),
            batch.len(),
            trusted,
            checked,
            content as f64 / nanos(checked)
        );
    }
    Ok(())
}

/// About 64 KiB of records whose values look like CSV.
fn batch(codec: Codec, value_bytes: usize, headers: usize) -> Result<(Bytes, u32), BatchError> {
    let headers = vec![
        RecordHeader {
            key: "trace-id".into(),
            value: Some("4bf92f35".into())
        };
        headers
    ];
    let mut builder = BatchBuilder::new(codec);
    let mut number = 1_u64;
    while builder.uncompressed_bytes() < 64 << 10 {
        let mut value = String::new();
        while value.len() < value_bytes {
            number = number
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            value += &format!("{},EWR,", number >> 48);
        }
        value.truncate(value_bytes);
        let timestamp = Timestamp(NOW.0 + i64::from(builder.records_count()) / 10);
        let value = Some(value.as_bytes());
        builder.push(RecordInput {
            timestamp,
            key: Some(b"N14228"),
            value,
            headers: &headers,
        })?;
    }
    let records = builder.records_count();
    Ok((builder.build()?.to_bytes(), records))
}

fn batch_content_bytes(batch: &Bytes) -> Result<usize, BatchError> {
    let mut builder = BatchBuilder::new(Codec::None);
    for record in sapwood_record::Batch::split(batch.clone())?.records(1 << 20)? {
        let record = record?;
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        builder.push(RecordInput {
            timestamp: record.timestamp,
            key,
            value,
            headers: &[],
        })?;
    }
    Ok(builder.uncompressed_bytes() - HEADER_BYTES)
}

fn validation(batch: &Bytes, check_compressed: bool) -> Duration {
    let rules = Rules {
        batch_bytes_max: 1 << 20,
        decompressed_bytes_max: 1 << 20,
        keys_required: false,
        timestamps: TimestampRule::Create {
            before_ms_max: i64::MAX,
            after_ms_max: 3_600_000,
        },
        check_compressed,
        compression: None,
    };
    best(batch.len(), || {
        validate(black_box(batch.clone()), &rules, NOW).is_ok()
    })
}

/// The time of one call in the best of many rounds of about 256 KiB each.
fn best<T>(bytes: usize, mut call: impl FnMut() -> T) -> Duration {
    let calls = u32::try_from(((256 << 10) / bytes).max(1)).unwrap_or(1);
    let rounds = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        for _ in 0..calls {
            black_box(call());
        }
        start.elapsed() / calls
    });
    rounds.min().unwrap_or_default()
}

fn nanos(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}
