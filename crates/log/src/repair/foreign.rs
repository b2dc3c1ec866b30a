//! Batches of another log, which check one by one and do not belong here: what was noted of a segment's
//! headers gives them away.

use std::{collections::BTreeMap, ops::Range};

use sapwood_model::Offset;
use sapwood_record::Header;

use super::{raw::Raw, salvage::Found};
use crate::{
    epochs::EpochList,
    io::Disk,
    segment::SegmentKey,
    sums::{Block, HeaderSums, with_crc},
};

impl Found {
    /// Marks the blocks whose batches were never appended here. One whose batches do not follow each
    /// other is left to the walk, and so is one that is right but for what no checksum holds.
    pub(super) fn mark_foreign(
        &self,
        disk: &dyn Disk,
        raws: &mut BTreeMap<Offset, Raw>,
        epochs: &EpochList,
    ) {
        let last = raws.keys().next_back().copied();
        for (base, raw) in raws {
            let Some(folder) = self.segments.get(base).and_then(|path| path.parent()) else {
                continue;
            };
            // Behind the checkpoint, the file may tell of appends that a crash has undone.
            let end = match &self.checkpoint {
                Some(checkpoint) if *base > checkpoint.segment => continue,
                Some(checkpoint) if *base == checkpoint.segment => checkpoint.position,
                None if Some(*base) == last => continue,
                _ => u64::MAX,
            };
            let (topic_id, partition) = self.log;
            let owner = SegmentKey {
                topic_id,
                partition,
                base_offset: *base,
            };
            let sums = HeaderSums::load_upto(disk, folder, owner, end).unwrap_or_default();
            let mut next = Some(*base);
            for block in sums.blocks() {
                let Some(headers) = headers_of(raw, &block) else {
                    next = None;
                    continue;
                };
                let as_found: Vec<Header> = headers.iter().map(|(header, _)| *header).collect();
                if !block.is_sum_of(&as_found) && !self.is_mended(&block, &headers, next, epochs) {
                    raw.foreign.push(block.range);
                }
                next = next.map(|next| {
                    headers
                        .iter()
                        .fold(next, |at, (header, _)| at.add(offsets_in(header)))
                });
            }
        }
    }

    /// Whether the batches are the right ones once their offsets, leader epochs, magic numbers and
    /// checksums are.
    fn is_mended(
        &self,
        block: &Block,
        headers: &[(Header, u32)],
        next: Option<Offset>,
        epochs: &EpochList,
    ) -> bool {
        let first = headers.first().map(|(header, _)| header.base_offset());
        let Some(mut offset) = next.or(first) else {
            return false;
        };
        let known_to = self.checkpoint.as_ref().map(|checkpoint| checkpoint.end);
        let mended: Vec<Header> = headers
            .iter()
            .map(|(header, _)| {
                let mut bytes = *header.as_bytes();
                bytes[16] = 2;
                let mut header = Header::read(&bytes).unwrap_or(*header);
                header.set_base_offset(offset);
                let starts = epochs.starts();
                let at = starts.partition_point(|start| start.start <= offset);
                if at > 0 && known_to.is_some_and(|end| offset < end) {
                    header.set_leader_epoch(starts[at - 1].epoch);
                }
                offset = offset.add(offsets_in(&header));
                header
            })
            .collect();
        let crcs = headers.iter().map(|(_, crc)| *crc);
        let checked: Vec<Header> = mended
            .iter()
            .zip(crcs)
            .map(|(header, crc)| with_crc(header, crc))
            .collect();
        block.is_sum_of(&mended) || block.is_sum_of(&checked)
    }
}

/// The headers of a block whose batches end where it does, and the checksum that each should have.
fn headers_of(raw: &mut Raw, block: &Block) -> Option<Vec<(Header, u32)>> {
    let Range { start, end } = block.range;
    let mut at = start;
    let mut headers = Vec::new();
    while at < end {
        let (header, crc) = raw.header_at(at)?;
        at += header.size_bytes() as u64;
        headers.push((header, crc));
    }
    (at == end).then_some(headers)
}

fn offsets_in(header: &Header) -> u64 {
    u64::try_from(header.last_offset_delta()).unwrap_or(0) + 1
}
