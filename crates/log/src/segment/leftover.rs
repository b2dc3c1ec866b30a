//! What may lie behind the last batch of a log whose process was killed: the body of one batch whose length
//! word was never stored. Whole batches there are no leftover; something has happened to the one before
//! them.

use bytes::Bytes;
use sapwood_model::Offset;
use sapwood_record::{Batch, HEADER_BYTES, Header};

const MAGIC: u8 = 2;
/// Where a batch has its magic byte.
const MAGIC_AT: usize = 16;

/// The first whole batch, if there is one, that could belong to this log behind `log_end`: it checks, and
/// has a later offset. Its place in `bytes`, and its base offset. Looks at every byte. `bytes` go on for a
/// batch's length behind the last one that is not zero, where the file does: batches end with zeros, too.
pub(crate) fn batch_behind(bytes: &Bytes, log_end: Offset) -> Option<(usize, Offset)> {
    let last = bytes.len().checked_sub(HEADER_BYTES)?;
    (1..=last).find_map(|at| {
        if bytes[at + MAGIC_AT] != MAGIC {
            return None;
        }
        let header = Header::read(&bytes[at..])?;
        let base = header.base_offset();
        // As many offsets as there could be batches of one record before it, and more.
        let near = log_end < base && base.0 - log_end.0 <= i32::MAX as u64;
        let end = at.checked_add(header.size_bytes())?;
        if !near || header.size_bytes() < HEADER_BYTES || end > bytes.len() {
            return None;
        }
        let batch = Batch::split(bytes.slice(at..end)).ok()?;
        batch.verify_crc().ok().map(|()| (at, base))
    })
}

#[cfg(test)]
mod tests {
    use sapwood_model::{LeaderEpoch, Timestamp};
    use sapwood_record::{BatchBuilder, Codec, RecordInput};

    use super::*;

    fn batch(base: u64) -> Vec<u8> {
        let mut builder = BatchBuilder::new(Codec::None);
        let record = RecordInput {
            timestamp: Timestamp(7),
            key: None,
            value: Some(b"value"),
            headers: &[],
        };
        builder.push(record).unwrap();
        let mut batch = builder.build().unwrap();
        batch.header_mut().set_base_offset(Offset(base));
        batch.header_mut().set_leader_epoch(LeaderEpoch(0));
        batch.to_bytes().to_vec()
    }

    #[test]
    fn a_batch_that_lost_its_length_is_a_leftover_and_one_behind_it_is_not() {
        let mut bytes = batch(51);
        bytes[8..12].fill(0);
        assert_eq!(batch_behind(&bytes.clone().into(), Offset(51)), None);
        let place = bytes.len();
        bytes.extend(batch(52));
        let found = batch_behind(&bytes.clone().into(), Offset(51));
        assert_eq!(found, Some((place, Offset(52))));
        // Also when nothing is left of what was before it, or zeros follow.
        bytes[..place].fill(0);
        bytes.resize(bytes.len() + 4096, 0);
        assert_eq!(
            batch_behind(&bytes.clone().into(), Offset(51)),
            Some((place, Offset(52)))
        );
        // A batch that was there before, in a record of a client, is nothing of this log's.
        assert_eq!(batch_behind(&bytes.clone().into(), Offset(52)), None);
        bytes[place + 70] ^= 1;
        assert_eq!(batch_behind(&bytes.into(), Offset(51)), None);
    }
}
