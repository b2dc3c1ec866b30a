//! Walking a log from where it is known to be safe to where it ends, and rebuilding what is kept in
//! memory on the way.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    ops::Range,
};

use sapwood_model::{Durability, LeaderEpoch, Offset};
use sapwood_record::Header;

use super::{
    replay::{Circumstances, Place, Replay},
    walk::{Cursor, Step, Walker},
};
use crate::{
    checkpoint::PartitionKey,
    epochs::EpochList,
    index::SegmentIndex,
    io::Disk,
    partition::OfflineReason,
    producers::ProducerTable,
    segment::{SegmentKey, batch_behind},
};

/// What the walk rebuilds.
pub(super) struct Rebuilt {
    log: PartitionKey,
    pub(super) producers: ProducerTable,
    pub(super) epochs: EpochList,
    pub(super) indexes: BTreeMap<Offset, SegmentIndex>,
    /// The producers, encoded, at the base offset of each walked segment but the first.
    pub(super) snapshots: BTreeMap<Offset, Vec<u8>>,
    /// Where the batches of each walked segment end.
    pub(super) ends: BTreeMap<Offset, u64>,
    /// Parts of segments that no journal entry covers, to be written again.
    pub(super) kept: Vec<(Offset, Range<u64>)>,
    pub(super) end: Cursor,
    pub(super) epoch: LeaderEpoch,
    pub(super) cut: Option<String>,
}

impl Replay {
    pub(super) fn walk(
        &self,
        disk: &dyn Disk,
        now: &Circumstances,
    ) -> io::Result<Result<Rebuilt, OfflineReason>> {
        let start = self.start();
        let (mut producers, epochs) = self.decoded()?;
        if start.offset > self.checkpoint.end {
            // What was appended between the two is not looked at. A producer that is not known may go
            // on anywhere; one that is known too little of would be refused for good.
            producers = ProducerTable::default();
        }
        let index = match self.load_index(disk, &start)? {
            Ok(index) => index,
            Err(reason) => return Ok(Err(reason)),
        };
        let mut rebuilt = Rebuilt {
            log: (self.spec.topic_id, self.spec.partition),
            producers,
            epochs,
            indexes: [(start.segment, index)].into(),
            snapshots: BTreeMap::new(),
            ends: [(start.segment, start.position)].into(),
            kept: Vec::new(),
            end: start,
            epoch: self.checkpoint.leader_epoch,
            cut: None,
        };
        let epoch = self.checkpoint.leader_epoch;
        let mut walker = Walker::new(&self.segments, start, epoch);
        walker.epoch = epoch;
        for entry in &self.entries {
            if entry.end_offset <= walker.cursor.offset {
                continue;
            }
            if entry.base_offset > walker.cursor.offset {
                // It starts a run: before it, the topic's appends were not journaled.
                self.keep(&mut walker, &mut rebuilt, Some(entry.base_offset))?;
                if walker.cursor.offset != entry.base_offset {
                    rebuilt.cut = Some("records before a journaled run were lost".into());
                    rebuilt.end = walker.cursor;
                    return Ok(Ok(rebuilt));
                }
            }
            if entry.base_offset == walker.cursor.offset {
                let Place {
                    segment,
                    position,
                    base_offset: offset,
                    ..
                } = *entry;
                walker.cursor = Cursor {
                    segment,
                    position,
                    offset,
                };
            }
            while walker.cursor.offset < entry.end_offset {
                let at = walker.cursor;
                let problem = match walker.step()? {
                    Step::Batch(header) => {
                        rebuilt.push(&header, at, self.spec.config.index_interval_bytes);
                        continue;
                    }
                    Step::End => "a journaled batch is not where it was written".into(),
                    Step::Bad(problem) => problem,
                };
                return Ok(Err(self.damage(at, entry.end_offset, problem)));
            }
        }
        let mut found = None;
        if now.same_boot || self.spec.config.durability == Durability::Os {
            found = self.keep(&mut walker, &mut rebuilt, None)?;
            if now.same_boot
                && let Some(problem) = self.tail_problem(&walker, found.clone(), now)?
            {
                return Ok(Err(self.damage(
                    walker.cursor,
                    walker.cursor.offset,
                    problem,
                )));
            }
        }
        rebuilt.end = walker.cursor;
        if found.is_none() && matches!(walker.step()?, Step::Batch(_)) {
            found = Some("the journal does not hold what follows".into());
        }
        rebuilt.cut = found;
        Ok(Ok(rebuilt))
    }

    /// Takes batches that no journal entry covers, from segment to segment, up to `limit` or to
    /// where they end. Returns what stands there if it is not an end.
    fn keep(
        &self,
        walker: &mut Walker<'_>,
        rebuilt: &mut Rebuilt,
        limit: Option<Offset>,
    ) -> io::Result<Option<String>> {
        loop {
            if limit.is_some_and(|limit| walker.cursor.offset >= limit) {
                return Ok(None);
            }
            let at = walker.cursor;
            match walker.step()? {
                Step::Batch(header) => {
                    rebuilt.push(&header, at, self.spec.config.index_interval_bytes);
                    rebuilt.keep(at.segment, at.position..walker.cursor.position);
                }
                Step::Bad(problem) => return Ok(Some(problem)),
                Step::End => {
                    let next = walker.cursor.offset;
                    if next == at.segment || !self.segments.contains_key(&next) {
                        return Ok(None);
                    }
                    walker.cursor = Cursor {
                        segment: next,
                        position: 0,
                        offset: next,
                    };
                    rebuilt.begin(next, self.spec.config.index_interval_bytes);
                }
            }
        }
    }

    /// In the same boot nothing may lie behind the last batch but the body of one unfinished one.
    fn tail_problem(
        &self,
        walker: &Walker<'_>,
        bad: Option<String>,
        now: &Circumstances,
    ) -> io::Result<Option<String>> {
        if bad.is_some() {
            return Ok(bad);
        }
        let unfinished = walker.unfinished_bytes()?;
        if unfinished > now.batch_bytes_max {
            return Ok(Some(format!(
                "{unfinished} bytes lie behind the last batch; one unfinished batch has at most {}",
                now.batch_bytes_max
            )));
        }
        // Zeros behind it may belong to a batch.
        let upto = match unfinished {
            0 => 0,
            bytes => bytes + now.batch_bytes_max,
        };
        if let Some((at, offset)) = batch_behind(&walker.next(upto)?, walker.cursor.offset) {
            let at = walker.cursor.position + at as u64;
            return Ok(Some(format!(
                "nothing stands there, but a batch of offset {offset} at position {at}"
            )));
        }
        for (base, segment) in self.segments.range(walker.cursor.segment..).skip(1) {
            let cursor = Cursor {
                segment: *base,
                position: 0,
                offset: *base,
            };
            let beyond = Walker::new(&self.segments, cursor, self.checkpoint.leader_epoch);
            if beyond.unfinished_bytes()? > 0 {
                let found = segment.path.display();
                return Ok(Some(format!("{found} does not follow the last batch")));
            }
        }
        Ok(None)
    }
}

impl Rebuilt {
    fn push(&mut self, header: &Header, at: Cursor, interval: u64) {
        self.begin(at.segment, interval);
        if let Some(index) = self.indexes.get_mut(&at.segment) {
            index.push(header, at.position);
        }
        self.ends
            .insert(at.segment, at.position + header.size_bytes() as u64);
        self.producers.apply(header, header.max_timestamp());
        self.epochs.push(header.leader_epoch(), at.offset);
        self.epoch = self.epoch.max(header.leader_epoch());
    }

    fn begin(&mut self, segment: Offset, interval: u64) {
        if let Entry::Vacant(free) = self.indexes.entry(segment) {
            let (topic_id, partition) = self.log;
            let owner = SegmentKey {
                topic_id,
                partition,
                base_offset: segment,
            };
            free.insert(SegmentIndex::new(owner, interval));
            self.snapshots.insert(segment, self.producers.encode());
        }
        self.ends.entry(segment).or_insert(0);
    }

    fn keep(&mut self, segment: Offset, range: Range<u64>) {
        match self.kept.last_mut() {
            Some((base, last)) if *base == segment && last.end == range.start => {
                last.end = range.end;
            }
            _ => self.kept.push((segment, range)),
        }
    }
}
