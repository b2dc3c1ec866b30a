use sapwood_record::{BatchBuilder, Codec, RecordInput};

use sapwood_model::{PartitionId, TopicId};

use super::*;
use crate::io::Environment;

/// The header of a batch with `records` records up to this timestamp.
fn header(base_offset: u64, records: u32, timestamp: i64) -> Header {
    let mut builder = BatchBuilder::new(Codec::None);
    for _ in 0..records {
        let record = RecordInput {
            timestamp: Timestamp(timestamp),
            key: None,
            value: None,
            headers: &[],
        };
        builder.push(record).unwrap();
    }
    let mut batch = builder.build().unwrap();
    batch.header_mut().set_base_offset(Offset(base_offset));
    *batch.header()
}

/// Batches of 10 records that start every 3000 bytes of a segment with base offset 100.
fn index() -> SegmentIndex {
    let mut index = SegmentIndex::new(owner(100), 4096);
    let timestamps = [50, 70, 60, 70, 90];
    for (n, timestamp) in timestamps.into_iter().enumerate() {
        index.push(&header(100 + 10 * n as u64, 10, timestamp), 3000 * n as u64);
    }
    index
}

fn owner(base_offset: u64) -> SegmentKey {
    SegmentKey {
        topic_id: TopicId(7),
        partition: PartitionId(1),
        base_offset: Offset(base_offset),
    }
}

/// What `index` is of.
fn segment(index: &SegmentIndex) -> IndexedSegment {
    IndexedSegment {
        owner: index.owner(),
        end_offset: Offset(150),
        bytes: index
            .sums()
            .blocks()
            .last()
            .map_or(0, |block| block.range.end),
        interval_bytes: 4096,
    }
}

#[test]
fn entries_name_the_first_batch_behind_each_interval() {
    let index = index();
    // 3000 is not more than 4096 behind 0, 6000 is; 9000 is not behind 6000, 12000 is.
    assert_eq!(index.offsets, [(29, 6000), (49, 12000)]);
    assert_eq!(index.times, [(70, 19), (90, 49)]);
}

#[test]
fn lookups_find_the_floor() {
    let index = index();
    let position = |offset| index.lookup(Offset(offset)).map(|entry| entry.position);
    assert_eq!(position(100), None);
    assert_eq!(
        position(128),
        None,
        "the batch that ends with 129 holds 128, and no entry is before"
    );
    assert_eq!(position(129), Some(6000));
    assert_eq!(position(148), Some(6000));
    assert_eq!(position(149), Some(12000));
    assert_eq!(position(1 << 40), Some(12000));
    assert_eq!(index.lookup(Offset(99)), None);
    let time = |at| {
        index
            .lookup_time(Timestamp(at))
            .map(|entry| entry.last_offset.0)
    };
    assert_eq!(
        [time(69), time(70), time(89), time(90)],
        [None, Some(119), Some(119), Some(149)]
    );
    let below = |end| {
        index
            .last_time_below(Offset(end))
            .map(|entry| entry.timestamp.0)
    };
    assert_eq!(
        [below(119), below(120), below(150)],
        [None, Some(70), Some(90)]
    );
}

#[test]
fn the_seal_adds_the_largest_timestamp_once() {
    let mut index = SegmentIndex::new(owner(0), 4096);
    index.push(&header(0, 1, 10), 0);
    index.push(&header(1, 1, 30), 100);
    index.push(&header(2, 1, 20), 200);
    index.push_latest_time();
    index.push_latest_time();
    assert_eq!(index.times, [(30, 1)]);
}

#[test]
fn batches_without_timestamps_leave_no_time_entry() {
    let mut index = SegmentIndex::new(owner(0), 0);
    index.push(&header(0, 1, -1), 0);
    index.push(&header(1, 1, -1), 100);
    index.push_latest_time();
    assert!(index.times.is_empty());
    assert_eq!(index.latest(), None);
    assert_eq!(index.offsets, [(1, 100)]);
}

#[test]
fn files_are_read_back_and_wrong_ones_are_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Environment::real().disk;
    let mut index = index();
    index.complete();
    let segment = segment(&index);
    let load = || SegmentIndex::load_sealed(&*disk, folder.path(), &segment).unwrap();
    assert_eq!(load(), None, "missing");

    // In two steps, as checkpoints do.
    let half = IndexCounts {
        offsets: 1,
        times: 2,
        sums: 1,
    };
    index
        .encode_from(IndexCounts::default())
        .write(&*disk, folder.path(), Offset(100))
        .unwrap();
    index
        .encode_from(half)
        .write(&*disk, folder.path(), Offset(100))
        .unwrap();
    assert_eq!(load(), Some(index.clone()));
    let prefix = SegmentIndex::load(&*disk, folder.path(), &segment, half)
        .unwrap()
        .unwrap();
    assert_eq!(prefix.counts(), half);
    let more = IndexCounts {
        offsets: 3,
        times: 2,
        sums: 1,
    };
    let loaded = SegmentIndex::load(&*disk, folder.path(), &segment, more).unwrap();
    assert_eq!(loaded, None, "shorter than counted");
    let absurd = IndexCounts {
        offsets: u64::MAX,
        times: 2,
        sums: 1,
    };
    let loaded = SegmentIndex::load(&*disk, folder.path(), &segment, absurd).unwrap();
    assert_eq!(loaded, None, "an absurd count allocates nothing");

    let path = folder.path().join(names::index_file_name(Offset(100)));
    let good = std::fs::read(&path).unwrap();
    let mut swapped = good.clone();
    swapped.rotate_left(OFFSET_ENTRY_BYTES);
    let mut outside = good.clone();
    outside[12..].copy_from_slice(&15000u32.to_be_bytes());
    for wrong in [&good[..good.len() - 1], &swapped, &outside, &[0xff; 16]] {
        std::fs::write(&path, wrong).unwrap();
        assert_eq!(load(), None, "{wrong:?}");
    }
    std::fs::write(&path, good).unwrap();
    assert_eq!(load(), Some(index));
    let other = IndexedSegment {
        owner: SegmentKey {
            partition: PartitionId(2),
            ..segment.owner
        },
        ..segment
    };
    let loaded = SegmentIndex::load_sealed(&*disk, folder.path(), &other).unwrap();
    assert_eq!(loaded, None, "the sums are another partition's");
}

#[test]
fn the_files_are_kafkas() {
    let encoded = index().encode_from(IndexCounts::default());
    assert_eq!(
        encoded.offsets,
        [0, 0, 0, 29, 0, 0, 0x17, 0x70, 0, 0, 0, 49, 0, 0, 0x2e, 0xe0]
    );
    assert_eq!(encoded.times[..12], [0, 0, 0, 0, 0, 0, 0, 70, 0, 0, 0, 19]);
}

#[test]
fn a_time_index_that_was_written_for_no_checkpoint_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Environment::real().disk;
    // The same batches; one index was made at a checkpoint, the other from the batches after it.
    let [checkpointed, rebuilt] = [1 << 20, 0].map(|interval| {
        let mut index = SegmentIndex::new(owner(100), interval);
        for (n, timestamp) in [50, 70, 60, 90].into_iter().enumerate() {
            index.push(&header(100 + 10 * n as u64, 10, timestamp), 3000 * n as u64);
        }
        index.complete();
        index
    });
    let counts = checkpointed.counts();
    assert!(rebuilt.counts().times > counts.times);
    let segment = segment(&checkpointed);
    for (written, believed) in [(&checkpointed, true), (&rebuilt, false)] {
        written
            .encode_from(IndexCounts::default())
            .write(&*disk, folder.path(), Offset(100))
            .unwrap();
        let loaded = SegmentIndex::load(&*disk, folder.path(), &segment, counts).unwrap();
        assert_eq!(loaded.is_some(), believed);
    }
}
