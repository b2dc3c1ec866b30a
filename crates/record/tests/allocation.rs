//! What lying lengths, lying counts and zip bombs make the process allocate.
#![allow(clippy::unwrap_used)] // The helpers of a test fail it by panicking.
#![allow(unsafe_code)] // An allocator that counts can only be written with it.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use bytes::Bytes;
use sapwood_model::Timestamp;
use sapwood_record::{
    Batch, BatchBuilder, BatchError, Codec, HEADER_BYTES, RecordInput, Rules, TimestampRule,
    crc32c, validate,
};

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

fn count(more: usize, less: usize) {
    let live = (LIVE.get() + more).saturating_sub(less);
    LIVE.set(live);
    PEAK.set(PEAK.get().max(live));
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promises are the ones that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many bytes `work` holds at its peak, on this thread.
fn peak_bytes<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.get();
    PEAK.set(before);
    let result = work();
    (result, PEAK.get() - before)
}

/// What the decoders need besides their output (zstd's memory is malloc's and not counted here).
const WORKING_BYTES: usize = 88 * 1024;

const NOW: Timestamp = Timestamp(1_000);

fn rules(decompressed_bytes_max: usize) -> Rules {
    Rules {
        batch_bytes_max: usize::MAX,
        decompressed_bytes_max,
        keys_required: false,
        timestamps: TimestampRule::LogAppend,
        check_compressed: true,
        compression: None,
    }
}

fn bomb(codec: Codec) -> Bytes {
    let mut builder = BatchBuilder::new(codec);
    let value = vec![0; 64 << 20];
    let record = RecordInput {
        timestamp: NOW,
        key: None,
        value: Some(&value),
        headers: &[],
    };
    builder.push(record).unwrap();
    builder.build().unwrap().to_bytes()
}

#[test]
fn a_zip_bomb_allocates_no_more_than_the_cap() {
    for codec in &Codec::ALL[1..] {
        let bomb = bomb(*codec);
        for limit in [0, 1, 1_000, 1 << 20, 10_000_000] {
            let (result, peak) = peak_bytes(|| validate(bomb.clone(), &rules(limit), NOW));
            assert_eq!(
                result.unwrap_err(),
                BatchError::DecompressedTooLarge { limit },
                "{codec}"
            );
            assert!(
                peak <= limit + WORKING_BYTES,
                "{codec}: {peak} bytes for a cap of {limit}"
            );
        }
    }
}

/// The CRC of a batch after a change.
fn resealed(mut bytes: Vec<u8>) -> Bytes {
    let crc = crc32c(&[&bytes[21..]]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

#[test]
fn a_size_that_lies_allocates_no_more_than_the_bytes_could_hold() {
    // Snappy: one raw block that claims 4 GiB - 1.
    let snappy = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00];
    // Zstd: magic; a content size of 8 bytes, one segment; 1 GiB; an empty last block.
    let mut zstd = vec![0x28, 0xb5, 0x2f, 0xfd, 0b1110_0000];
    zstd.extend_from_slice(&(1_u64 << 30).to_le_bytes());
    zstd.extend_from_slice(&[1, 0, 0]);
    // LZ4: a frame of blocks of 4 MiB, whose only block has one literal and no end.
    let mut lz4 = vec![0x04, 0x22, 0x4d, 0x18, 0x60, 0x70, 0x73];
    lz4.extend_from_slice(&2_u32.to_le_bytes());
    lz4.extend_from_slice(&[0x1f, b'x']);
    for (codec, records) in [
        (Codec::Snappy, &snappy[..]),
        (Codec::Zstd, &zstd),
        (Codec::Lz4, &lz4),
    ] {
        let mut builder = BatchBuilder::new(codec);
        let record = RecordInput {
            timestamp: NOW,
            key: None,
            value: Some(b"one"),
            headers: &[],
        };
        builder.push(record).unwrap();
        let mut bytes = builder.build().unwrap().to_bytes()[..HEADER_BYTES].to_vec();
        bytes.extend_from_slice(records);
        let length = u32::try_from(bytes.len() - 12).unwrap();
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        let bytes = resealed(bytes);
        let (result, peak) = peak_bytes(|| validate(bytes, &rules(usize::MAX / 2), NOW));
        let error = result.unwrap_err();
        assert!(
            matches!(error, BatchError::Decompress { .. }),
            "{codec}: {error}"
        );
        assert!(peak <= 1 << 20, "{codec}: {peak} bytes");
    }
}

#[test]
fn a_batch_of_two_billion_records_in_a_few_bytes_allocates_nothing() {
    for codec in Codec::ALL {
        let mut builder = BatchBuilder::new(codec);
        let record = RecordInput {
            timestamp: NOW,
            key: None,
            value: Some(b"one"),
            headers: &[],
        };
        builder.push(record).unwrap();
        let mut bytes = builder.build().unwrap().to_bytes().to_vec();
        bytes[23..27].copy_from_slice(&(i32::MAX - 1).to_be_bytes());
        bytes[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
        let bytes = resealed(bytes);
        for check_compressed in [false, true] {
            let rules = Rules {
                check_compressed,
                ..rules(1 << 20)
            };
            let (result, peak) = peak_bytes(|| validate(bytes.clone(), &rules, NOW));
            assert!(result.is_err(), "{codec}");
            assert!(peak <= WORKING_BYTES, "{codec}: {peak} bytes");
        }
        let batch = Batch::split(bytes).unwrap();
        let (read, peak) = peak_bytes(|| {
            batch
                .records(1 << 20)
                .unwrap()
                .filter(Result::is_ok)
                .count()
        });
        assert_eq!(read, 1);
        assert!(peak <= WORKING_BYTES, "{codec}: {peak} bytes");
    }
}

#[test]
fn a_record_of_two_billion_headers_allocates_nothing() {
    // Length 12; attributes, deltas, null key, null value; i32::MAX headers; two bytes of them.
    let record = [24, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0, 1];
    let mut builder = BatchBuilder::new(Codec::None);
    let empty = RecordInput {
        timestamp: NOW,
        key: None,
        value: None,
        headers: &[],
    };
    builder.push(empty).unwrap();
    let mut bytes = builder.build().unwrap().to_bytes()[..61].to_vec();
    bytes.extend_from_slice(&record);
    let length = u32::try_from(bytes.len() - 12).unwrap();
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    let batch = Batch::split(resealed(bytes)).unwrap();
    batch.verify_crc().unwrap();
    let (result, peak) = peak_bytes(|| batch.records(0).unwrap().next());
    assert!(
        matches!(result, Some(Err(BatchError::Record { index: 0, .. }))),
        "{result:?}"
    );
    assert!(peak <= 1_000, "{peak} bytes");
}
