//! The batch that takes the place of records that are lost.

use bytes::Bytes;
use sapwood_model::{LeaderEpoch, Offset};
use sapwood_record::{CRC_START, HEADER_BYTES, crc32c};

/// A batch of `count` offsets, at most 2^31 - 1, without a record: what compaction leaves where it has
/// removed all of them. Readers pass over it, and the offsets stay contiguous.
pub(super) fn empty_batch(base: Offset, count: u64, epoch: LeaderEpoch) -> Bytes {
    let delta = i32::try_from(count.saturating_sub(1)).unwrap_or(i32::MAX);
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(&base.0.to_be_bytes());
    bytes[8..12].copy_from_slice(&(HEADER_BYTES as u32 - 12).to_be_bytes());
    bytes[12..16].copy_from_slice(&epoch.0.to_be_bytes());
    bytes[16] = 2;
    bytes[23..27].copy_from_slice(&delta.to_be_bytes());
    // No timestamps, and no producer: -1 in all of them.
    bytes[27..57].fill(0xff);
    let crc = crc32c(&[&bytes[CRC_START..]]);
    bytes[17..CRC_START].copy_from_slice(&crc.to_be_bytes());
    Bytes::copy_from_slice(&bytes)
}

#[cfg(test)]
mod tests {
    use sapwood_record::Batch;

    use super::*;

    #[test]
    fn it_is_a_batch_that_checks_and_gives_no_record() {
        let bytes = empty_batch(Offset(40), 10, LeaderEpoch(3));
        let batch = Batch::split(bytes).unwrap();
        batch.verify_crc().unwrap();
        let header = batch.header();
        assert_eq!(header.base_offset(), Offset(40));
        assert_eq!(header.next_offset(), Offset(50));
        assert_eq!(header.leader_epoch(), LeaderEpoch(3));
        assert_eq!((header.records_count(), header.producer()), (0, None));
        assert_eq!(header.max_timestamp().0, -1);
        assert_eq!(batch.records(1 << 20).unwrap().count(), 0);
    }
}
