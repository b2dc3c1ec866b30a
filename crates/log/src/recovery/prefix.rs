//! What is known of the segment that a recovery's walk begins in, up to there.

use std::io;

use sapwood_model::Offset;

use super::{
    replay::Replay,
    walk::{Cursor, Step, Walker},
};
use crate::{
    index::{IndexCounts, IndexedSegment, SegmentIndex},
    io::Disk,
    partition::OfflineReason,
    segment::SegmentKey,
    sums::{HeaderSums, Noted},
};

impl Replay {
    /// The index of the segment that the walk begins in, up to there; made anew from the batches
    /// when its files do not check.
    pub(super) fn load_index(
        &self,
        disk: &dyn Disk,
        cursor: &Cursor,
    ) -> io::Result<Result<SegmentIndex, OfflineReason>> {
        let interval = self.spec.config.index_interval_bytes;
        let owner = self.owner(cursor.segment);
        let mut index = SegmentIndex::new(owner, interval);
        if cursor.position == 0 || !self.segments.contains_key(&cursor.segment) {
            return Ok(Ok(index));
        }
        let counts = IndexCounts {
            offsets: self.checkpoint.index_entries,
            times: self.checkpoint.time_index_entries,
            sums: 0, // they say themselves where they end
        };
        let indexed = IndexedSegment {
            owner,
            end_offset: cursor.offset,
            bytes: cursor.position,
            interval_bytes: interval,
        };
        if let Some(loaded) = SegmentIndex::load(disk, &self.folder, &indexed, counts)? {
            return Ok(Ok(loaded));
        }
        let base = cursor.segment;
        let start = Cursor {
            segment: base,
            position: 0,
            offset: base,
        };
        let mut walker = Walker::new(&self.segments, start, self.checkpoint.leader_epoch);
        while walker.cursor.offset < cursor.offset {
            let at = walker.cursor;
            match walker.step()? {
                Step::Batch(header) => index.push(&header, at.position),
                Step::End => {
                    let problem = "the segment ends before its checkpoint".into();
                    return Ok(Err(self.damage(at, cursor.offset, problem)));
                }
                Step::Bad(problem) => return Ok(Err(self.damage(at, cursor.offset, problem))),
            }
        }
        // What was wrong may be an index alone: the sums are believed.
        let sums = HeaderSums::load(disk, &self.folder, owner, cursor.position)?;
        let noted = Noted::new(&sums.unwrap_or_default());
        let wrong = noted.first_wrong(&*self.segments[&base].file);
        if let Some(wrong) = wrong.map_err(start.unreadable())? {
            let at = Cursor {
                position: wrong.range.start,
                ..start
            };
            let problem = wrong.describe();
            return Ok(Err(self.damage(at, cursor.offset, problem)));
        }
        Ok(Ok(index))
    }

    pub(super) fn owner(&self, base_offset: Offset) -> SegmentKey {
        SegmentKey {
            topic_id: self.spec.topic_id,
            partition: self.spec.partition,
            base_offset,
        }
    }
}
