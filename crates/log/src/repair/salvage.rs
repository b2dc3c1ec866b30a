//! What can be had of one partition's log: its segments and the journal's entries, batch by batch, from
//! the first to the last.
//!
//! A batch is taken where its checksum is right and its offset is the next one. Where none is, the walk
//! looks for the next that is, and the offsets between become an empty batch: one without records, as
//! compaction leaves them, which readers pass over. So every record that checks keeps its offset, the
//! offsets stay contiguous, and none that was given before is given again.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::PathBuf,
};

use bytes::Bytes;
use sapwood_model::{LeaderEpoch, Offset};
use sapwood_record::{Batch, Header};

use super::{
    Loss,
    raw::{Raw, exchange},
};
use crate::{
    checkpoint::{PartitionCheckpoint, PartitionKey},
    epochs::EpochList,
    index::SegmentIndex,
    io::Disk,
    journal::Entry,
    producers::ProducerTable,
    segment::{SEGMENT_BYTES_MAX, SegmentKey},
};

/// No leader epoch rises by as much: one that seems to is damaged.
const EPOCH_RISE_MAX: u32 = 1 << 20;

/// One partition's log as it was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) log: PartitionKey,
    /// The files of the segments, by the offset in their names.
    pub(super) segments: BTreeMap<Offset, PathBuf>,
    /// The journal's, in log order.
    pub(super) entries: Vec<Entry>,
    /// `None` when nothing is known of it.
    pub(super) checkpoint: Option<PartitionCheckpoint>,
    /// Where the log begins, when the catalog is known.
    pub(super) log_start: Option<Offset>,
    /// Records behind what was promised may have been acknowledged.
    pub(super) trust_tail: bool,
    pub(super) index_interval_bytes: u64,
}

/// What a segment is to hold, piece by piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// A range of a file that is there.
    File { path: PathBuf, range: Range<u64> },
    /// These bytes.
    Bytes(Bytes),
}

/// A segment as it is to be.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) base: Offset,
    pub(super) parts: Vec<Part>,
    pub(super) bytes: u64,
    pub(super) index: SegmentIndex,
}

/// A log as it is to be.
#[derive(Debug)]
pub(super) struct Salvaged {
    pub(super) segments: Vec<Segment>,
    pub(super) first: Offset,
    pub(super) end: Offset,
    pub(super) epoch: LeaderEpoch,
    pub(super) epochs: EpochList,
    pub(super) producers: ProducerTable,
    /// The producers where each segment but the first begins, for the asked offsets.
    pub(super) snapshots: BTreeMap<Offset, Vec<u8>>,
    pub(super) losses: Vec<Loss>,
    /// Batches whose header was set right: file, position, offset.
    pub(super) restored: Vec<(PathBuf, u64, Offset)>,
    /// Batches that came from the journal.
    pub(super) replayed: u64,
    /// Segments that nothing was taken from.
    pub(super) unused: Vec<Offset>,
    /// Where the checkpoint's end was met: segment and position in the new files.
    pub(super) checkpoint_at: Option<(Offset, u64)>,
}

/// A walk in the middle of the log.
#[derive(Debug)]
pub(super) struct Salvage<'a> {
    pub(super) found: &'a Found,
    pub(super) raws: BTreeMap<Offset, Raw>,
    pub(super) promised_end: Offset,
    /// The producers as the checkpoint has them, until its end is passed.
    pub(super) known_producers: Option<ProducerTable>,
    pub(super) known_epochs: EpochList,
    /// The checkpoint's end, until it is passed.
    pub(super) checkpoint: Option<Offset>,
    pub(super) wanted_snapshots: &'a BTreeSet<Offset>,
    pub(super) snapshots_from: Option<Offset>,
    /// The segment that is read, and where in it.
    pub(super) current: Option<Offset>,
    pub(super) position: u64,
    /// The end of what was last taken from its file: batches that were not taken lie behind.
    pub(super) taken_to: u64,
    pub(super) expected: Offset,
    pub(super) entered: BTreeSet<Offset>,
    pub(super) out: Salvaged,
}

impl Found {
    /// Below it every record was durable.
    pub(super) fn promised_end(&self) -> Offset {
        let checkpoint = self.checkpoint.as_ref().map(|checkpoint| checkpoint.end);
        let journal = self.entries.iter().map(|entry| entry.end_offset).max();
        checkpoint.max(journal).unwrap_or(Offset::ZERO)
    }

    /// Reads everything. Blocks. `snapshots`: where the producers' state is asked for; also behind
    /// `snapshots_from`.
    pub(super) fn salvage(
        &self,
        disk: &dyn Disk,
        snapshots: &BTreeSet<Offset>,
        snapshots_from: Option<Offset>,
    ) -> Salvaged {
        let mut raws: BTreeMap<Offset, Raw> = self
            .segments
            .iter()
            .map(|(base, path)| (*base, Raw::open(disk, path.clone())))
            .collect();
        exchange(&mut raws);
        let checkpoint = self.checkpoint.clone().unwrap_or_default();
        let first_file = raws.keys().next().copied();
        let first_entry = self.entries.first().map(|entry| entry.base_offset);
        let on_disk = first_file
            .or(first_entry)
            .unwrap_or(checkpoint.end)
            .min(first_entry.unwrap_or(Offset(u64::MAX)));
        let first = match self.log_start {
            Some(start) if self.promised_end().max(on_disk) > start => on_disk.min(start),
            _ => on_disk,
        };
        let known_epochs = EpochList::decode(&checkpoint.epochs).unwrap_or_default();
        self.mark_foreign(disk, &mut raws, &known_epochs);
        let known_producers = ProducerTable::decode(&checkpoint.producers).ok();
        let salvage = Salvage {
            found: self,
            raws,
            promised_end: self.promised_end(),
            checkpoint: self.checkpoint.as_ref().map(|known| known.end),
            known_producers: known_producers.filter(|_| self.checkpoint.is_some()),
            wanted_snapshots: snapshots,
            snapshots_from,
            current: None,
            position: 0,
            taken_to: 0,
            expected: first,
            entered: BTreeSet::new(),
            out: Salvaged {
                segments: Vec::new(),
                first,
                end: first,
                epoch: LeaderEpoch(0),
                epochs: EpochList::default(),
                producers: ProducerTable::default(),
                snapshots: BTreeMap::new(),
                losses: Vec::new(),
                restored: Vec::new(),
                replayed: 0,
                unused: Vec::new(),
                checkpoint_at: None,
            },
            known_epochs,
        };
        salvage.run()
    }
}

impl Salvage<'_> {
    fn run(mut self) -> Salvaged {
        loop {
            self.pass_checkpoint();
            if self.take_from_file() || self.enter_segment() || self.take_from_journal() {
                continue;
            }
            if self.restore() {
                continue;
            }
            if !self.pass_over() {
                break;
            }
        }
        let mut out = self.out;
        out.end = self.expected;
        out.segments.pop_if(|last| last.bytes == 0);
        let kept: BTreeSet<Offset> = out.segments.iter().map(|segment| segment.base).collect();
        let found = self.found.segments.keys().copied();
        out.unused = found.filter(|base| !kept.contains(base)).collect();
        out
    }

    /// From the checkpoint's end on, its producers and epochs are the ones that count, if the walk comes
    /// by there.
    fn pass_checkpoint(&mut self) {
        let Some(checkpoint) = self.checkpoint.take_if(|end| *end <= self.expected) else {
            return;
        };
        let met = checkpoint == self.expected;
        if met {
            let at = self.out.segments.last().map(|last| (last.base, last.bytes));
            self.out.checkpoint_at = Some(at.unwrap_or((self.expected, 0)));
            let known = self.known_epochs.clone();
            let read = std::mem::replace(&mut self.out.epochs, known);
            read.starts()
                .iter()
                .for_each(|start| self.out.epochs.push(start.epoch, start.start));
        }
        if let Some(producers) = self.known_producers.take() {
            self.out.producers = match met {
                true => producers,
                false => ProducerTable::default(),
            };
        }
    }

    /// The batch where the walk is, when it is the next one.
    fn take_from_file(&mut self) -> bool {
        let Some(base) = self.current else {
            return false;
        };
        let Some(raw) = self.raws.get_mut(&base) else {
            return false;
        };
        let (path, position) = (raw.path.clone(), self.position);
        let Some(header) = raw.batch_at(position) else {
            return false;
        };
        let end = position + header.size_bytes() as u64;
        let next = raw.batch_at(end).map(|next| next.leader_epoch());
        let is_next = header.as_bytes()[..8] == self.expected.0.to_be_bytes()
            && header.is_placed()
            && header.leader_epoch() == self.right_epoch(&header, next);
        if !is_next || self.is_older_than_journal(&header) {
            return false;
        }
        let part = Part::File {
            path,
            range: position..end,
        };
        self.push(&header, vec![part]);
        (self.position, self.taken_to) = (end, end);
        true
    }

    /// Whether the journal has this batch otherwise. Above the checkpoint it is right; without one, an
    /// entry may be of a time before the log was cut.
    fn is_older_than_journal(&self, header: &Header) -> bool {
        let Some((_, _, journaled, _)) = self.journaled(self.expected) else {
            return false;
        };
        let same = journaled.as_bytes()[..] == header.as_bytes()[..];
        let rewritten = journaled.crc() != header.crc()
            && self.found.checkpoint.is_none()
            && header.leader_epoch() >= journaled.leader_epoch();
        !same && !rewritten
    }

    /// The leader epoch of the batch that comes next. `next`: of the one behind it.
    pub(super) fn right_epoch(&self, header: &Header, next: Option<LeaderEpoch>) -> LeaderEpoch {
        let (epoch, last) = (header.leader_epoch(), self.last_epoch());
        let is_possible = epoch >= last && epoch.0 - last.0 <= EPOCH_RISE_MAX;
        let falls = epoch > last && next.is_some_and(|next| next < epoch);
        match self.known_epoch(self.expected) {
            Some(known) => known,
            None if is_possible && !falls => epoch,
            None => last,
        }
    }

    fn last_epoch(&self) -> LeaderEpoch {
        let checkpoint = self.found.checkpoint.as_ref();
        let passed = checkpoint.filter(|checkpoint| self.expected >= checkpoint.end);
        self.out
            .epoch
            .max(passed.map_or(LeaderEpoch(0), |passed| passed.leader_epoch))
    }

    /// What the checkpoint's list says; `None` where it says nothing.
    fn known_epoch(&self, offset: Offset) -> Option<LeaderEpoch> {
        let end = self.found.checkpoint.as_ref()?.end;
        let starts = self.known_epochs.starts();
        let at = starts.partition_point(|start| start.start <= offset);
        let covered = offset < end && at > 0;
        covered.then(|| starts[at - 1].epoch)
    }

    /// Goes on in the segment that begins with the next offset.
    fn enter_segment(&mut self) -> bool {
        let next = self.expected;
        if self.current == Some(next)
            || !self.raws.contains_key(&next)
            || !self.entered.insert(next)
        {
            return false;
        }
        self.current = Some(next);
        (self.position, self.taken_to) = (0, 0);
        self.begin(next);
        true
    }

    /// The batch of an offset as the newest entry has it: the entry, the batch's position in its segment,
    /// header and bytes.
    fn journaled(&self, offset: Offset) -> Option<(&Entry, u64, Header, Bytes)> {
        let covers = |entry: &&Entry| entry.base_offset <= offset && offset < entry.end_offset;
        let entry = self.found.entries.iter().rev().find(covers)?;
        let mut rest = entry.bytes.clone();
        let mut position = entry.position;
        while let Some(header) = Header::read(&rest) {
            if header.size_bytes() > rest.len() {
                return None;
            }
            let bytes = rest.split_to(header.size_bytes());
            if header.base_offset() == offset {
                let batch = Batch::split(bytes.clone()).ok()?;
                let checks = batch.verify_crc().is_ok() && header.next_offset() > offset;
                return checks.then_some((entry, position, header, bytes));
            }
            position += bytes.len() as u64;
        }
        None
    }

    /// The next batch as the journal has it.
    fn take_from_journal(&mut self) -> bool {
        let expected = self.expected;
        let Some((entry, position, header, bytes)) = self.journaled(expected) else {
            return false;
        };
        let segment = entry.segment;
        if segment == expected && position == 0 && self.needs_segment(expected) {
            self.current = None;
            self.begin(expected);
        }
        if self.current == Some(segment) {
            self.position = position + bytes.len() as u64;
        }
        self.out.replayed += 1;
        self.push(&header, vec![Part::Bytes(bytes)]);
        true
    }

    /// Nothing has the next offset any more: an empty batch takes its place and that of all others up to
    /// the next that can be had. False where the log ends.
    fn pass_over(&mut self) -> bool {
        let expected = self.expected;
        let is_promised = expected < self.promised_end;
        if !is_promised && !self.found.trust_tail {
            return self.end_here();
        }
        let next_segment = self.next_segment();
        let bound = next_segment.unwrap_or(if is_promised {
            self.promised_end
        } else {
            expected.add(i32::MAX as u64)
        });
        let from = self.taken_to;
        let in_file = self
            .current
            .and_then(|base| self.raws.get_mut(&base)?.find(from, &(expected..bound)));
        let in_journal = self
            .found
            .entries
            .iter()
            .map(|entry| entry.base_offset)
            .filter(|base| *base > expected)
            .min();
        // Behind what was promised, a segment counts only if its first batch is there.
        let in_segment = next_segment.filter(|next| {
            is_promised && *next <= self.promised_end
                || self
                    .raws
                    .get_mut(next)
                    .and_then(|raw| raw.batch_at(0))
                    .is_some_and(|header| header.base_offset() == *next)
        });
        let file_offset = in_file.map(|(_, header)| header.base_offset());
        let next = [
            file_offset,
            in_journal,
            in_segment,
            is_promised.then_some(self.promised_end),
        ];
        let Some(next) = next.into_iter().flatten().min() else {
            return self.end_here();
        };
        let resumed = in_file.filter(|_| file_offset == Some(next));
        self.lose(expected..next, resumed.map(|(at, _)| at), is_promised);
        self.fill(expected..next);
        if let Some((at, _)) = resumed {
            self.position = at;
            self.taken_to = at;
        }
        true
    }

    /// What lies behind the log's end is not taken; it is a loss where it is not zeros.
    fn end_here(&mut self) -> bool {
        if let Some(raw) = self.current.and_then(|base| self.raws.get_mut(&base)) {
            let position = self.taken_to.max(self.position.min(raw.bytes));
            let end = raw.content_end(position);
            if end > position {
                let file = raw.path.clone();
                let problem = "behind the last record that was promised, no batch that checks";
                self.out.losses.push(Loss {
                    file,
                    position,
                    offsets: self.expected..self.expected,
                    bytes: end - position,
                    acknowledged: false,
                    problem: problem.into(),
                });
            }
        }
        false
    }

    fn lose(&mut self, offsets: Range<Offset>, resumed: Option<u64>, acknowledged: bool) {
        let (file, position, bytes, problem) =
            match self.current.and_then(|base| self.raws.get_mut(&base)) {
                Some(raw) => {
                    let position = self.taken_to;
                    let end = resumed.unwrap_or_else(|| raw.content_end(position));
                    let problem = match (raw.unreadable, end > position) {
                        _ if raw.is_foreign(position) => "its batches are another log's",
                        (true, _) => "the disk cannot read it",
                        (_, true) => "no batch that checks",
                        (_, false) => "nothing is there",
                    };
                    (
                        raw.path.clone(),
                        position,
                        end.saturating_sub(position),
                        problem,
                    )
                }
                None => (PathBuf::new(), 0, 0, "no segment has them"),
            };
        if offsets.is_empty() && bytes == 0 {
            return;
        }
        self.out.losses.push(Loss {
            file,
            position,
            offsets,
            bytes,
            acknowledged,
            problem: problem.into(),
        });
    }

    /// Puts empty batches in the place of `offsets`.
    fn fill(&mut self, offsets: Range<Offset>) {
        let mut from = offsets.start;
        // What the producers sent in between is not known: one that is known too little of would be
        // refused for good.
        if !offsets.is_empty() && self.known_producers.is_none() {
            self.out.producers = ProducerTable::default();
        }
        while from < offsets.end {
            let count = (offsets.end.0 - from.0).min(i32::MAX as u64);
            let epoch = self
                .known_epoch(from)
                .unwrap_or(self.last_epoch())
                .max(self.out.epoch);
            let bytes = Batch::without_records(from..from.add(count), epoch).to_bytes();
            let Some(header) = Header::read(&bytes) else {
                return;
            };
            self.push(&header, vec![Part::Bytes(bytes)]);
            from = from.add(count);
        }
    }

    pub(super) fn next_segment(&self) -> Option<Offset> {
        let behind = (
            std::ops::Bound::Excluded(self.expected),
            std::ops::Bound::Unbounded,
        );
        self.raws.range(behind).next().map(|(base, _)| *base)
    }

    fn needs_segment(&self, base: Offset) -> bool {
        self.out
            .segments
            .last()
            .is_none_or(|last| last.base != base)
    }

    fn begin(&mut self, base: Offset) {
        if !self.needs_segment(base) {
            return;
        }
        let is_behind = self.snapshots_from.is_some_and(|from| base > from);
        if (is_behind && base > self.out.first) || self.wanted_snapshots.contains(&base) {
            let bytes = self.out.producers.encode();
            self.out.snapshots.insert(base, bytes);
        }
        let (topic_id, partition) = self.found.log;
        let owner = SegmentKey {
            topic_id,
            partition,
            base_offset: base,
        };
        self.out.segments.push(Segment {
            base,
            parts: Vec::new(),
            bytes: 0,
            index: SegmentIndex::new(owner, self.found.index_interval_bytes),
        });
    }

    pub(super) fn push(&mut self, header: &Header, parts: Vec<Part>) {
        let size = header.size_bytes() as u64;
        let fits = |last: &Segment| {
            header.last_offset().0 - last.base.0 <= i32::MAX as u64
                && (last.bytes == 0 || last.bytes + size <= SEGMENT_BYTES_MAX)
        };
        if !self.out.segments.last().is_some_and(fits) {
            self.current = self.current.filter(|base| *base == self.expected);
            self.begin(self.expected);
        }
        let Some(segment) = self.out.segments.last_mut() else {
            return;
        };
        segment.index.push(header, segment.bytes);
        segment.bytes += size;
        for part in parts {
            match (segment.parts.last_mut(), part) {
                (
                    Some(Part::File { path, range }),
                    Part::File {
                        path: from,
                        range: more,
                    },
                ) if *path == from && range.end == more.start => {
                    range.end = more.end;
                }
                (_, part) => segment.parts.push(part),
            }
        }
        self.out.producers.apply(header, header.max_timestamp());
        self.out
            .epochs
            .push(header.leader_epoch(), header.base_offset());
        self.out.epoch = self.out.epoch.max(header.leader_epoch());
        self.expected = header.next_offset();
    }
}
