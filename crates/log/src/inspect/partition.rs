//! One partition's folder: its segments from the first to the last, judged by what the checkpoint and
//! the journal promise about them.

mod promises;

use std::{
    collections::BTreeMap,
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    sync::atomic::Ordering::Relaxed,
};

use sapwood_model::{LeaderEpoch, Offset, PartitionId};

use super::{
    Finding, PartitionSummary, SegmentSummary, Severity,
    indexes::{Extent, IndexCheck},
    replay::{Overlay, Place, Replay},
    segment::{BadRun, Limits, SegmentBytes, Step, Walk, Walked},
    small_files::{is_epoch_list, read_small},
};
use crate::{
    Progress,
    checkpoint::PartitionCheckpoint,
    epochs::EpochList,
    framed::TEMPORARY_SUFFIX,
    io::{Disk, File, OpenMode},
    names,
    producers::ProducerTable,
    segment::{SegmentKey, batch_behind},
};

/// What all partitions have in common.
#[derive(Debug)]
pub(super) struct Circumstances<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) replay: &'a Replay<'a>,
    pub(super) checksums: bool,
    pub(super) clean_stop: bool,
    /// The longest batch that an append may have left unfinished, in bytes.
    pub(super) batch_bytes_max: u64,
    pub(super) progress: &'a Progress,
}

/// What is known of the partition before its log is read.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) topic: String,
    pub(super) partition: PartitionId,
    pub(super) folder: PathBuf,
    pub(super) topic_id: Option<sapwood_model::TopicId>,
    pub(super) checkpoint: Option<PartitionCheckpoint>,
    /// The leader epoch that it began with; `None` also where a lost checkpoint may have known more.
    pub(super) first_epoch: Option<LeaderEpoch>,
    pub(super) checkpoint_path: PathBuf,
    /// The kernel was not restarted since the checkpoint's part was taken.
    pub(super) same_boot: bool,
}

/// A partition while it is looked at.
#[derive(Debug)]
struct Inspection<'a> {
    now: &'a Circumstances<'a>,
    known: &'a Known,
    checkpoint: PartitionCheckpoint,
    places: &'a [Place],
    files: BTreeMap<Offset, SegmentFile>,
    /// Where each leader epoch began, as the checkpoint says.
    epochs: EpochList,
    /// Where the log ends, once that was met: what follows is cut off by the next start.
    ended: Option<Offset>,
    findings: Vec<Finding>,
}

#[derive(Debug, Clone, Default)]
struct SegmentFile {
    file: Option<Arc<dyn File>>,
    bytes: u64,
}

/// Looks at one partition. Adds what is wrong to `findings`.
pub(super) fn inspect(
    now: &Circumstances<'_>,
    known: &Known,
    findings: &mut Vec<Finding>,
) -> PartitionSummary {
    let checkpoint = known.checkpoint.clone().unwrap_or_default();
    let places = match known.topic_id {
        Some(id) if !now.clean_stop => {
            now.replay
                .places((id, known.partition), checkpoint.end, findings)
        }
        _ => Vec::new(),
    };
    let mut inspection = Inspection {
        now,
        known,
        epochs: EpochList::decode(&checkpoint.epochs).unwrap_or_default(),
        checkpoint,
        places: &places,
        files: BTreeMap::new(),
        ended: None,
        findings: Vec::new(),
    };
    let summary = inspection.run();
    findings.append(&mut inspection.findings);
    summary
}

impl Inspection<'_> {
    fn run(&mut self) -> PartitionSummary {
        if let Err(error) = self.list() {
            let folder = self.known.folder.clone();
            self.push(
                Severity::Damage,
                folder,
                None,
                None,
                format!("it cannot be read: {error}"),
            );
        }
        let mut segments = Vec::new();
        let mut epoch = None;
        let bases: Vec<Offset> = self.files.keys().copied().collect();
        for (index, base) in bases.iter().enumerate() {
            let next = bases.get(index + 1).copied();
            segments.push(self.segment(*base, next, &mut epoch));
        }
        self.look_at_start(bases.first().copied());
        self.look_for_checkpoints_segment(bases.first().copied());
        let checkpoint_end = self
            .known
            .checkpoint
            .as_ref()
            .map(|checkpoint| checkpoint.end);
        let last_offset = segments.last().map(|last: &SegmentSummary| last.end_offset);
        let first_offset = bases.first().copied().unwrap_or(self.checkpoint.end);
        PartitionSummary {
            topic: self.known.topic.clone(),
            partition: self.known.partition,
            topic_id: self.known.topic_id,
            folder: self.known.folder.clone(),
            first_offset,
            end_offset: self.ended.or(last_offset).unwrap_or(first_offset),
            journal_end: self.places.last().map(|last| last.end_offset),
            checkpoint_end,
            leader_epoch: epoch,
            segments,
        }
    }

    /// Finds the segments, and looks at the small files beside them.
    fn list(&mut self) -> io::Result<()> {
        let (disk, folder) = (self.now.disk, &self.known.folder);
        for place in self.places {
            self.files.entry(place.segment).or_default();
        }
        let entries = disk.read_dir(folder)?;
        let swaps = entries
            .iter()
            .filter_map(|entry| names::parse_swap_file_name(&entry.name));
        let swaps: Vec<_> = swaps.collect();
        for entry in entries {
            let path = folder.join(&entry.name);
            let base = names::base_of(&entry.name);
            let is_replaced = |base| swaps.iter().any(|swap| swap.contains(&base));
            if base.is_some_and(is_replaced) {
                // A compacted segment takes its place at the next start.
            } else if let Some(swap) = names::parse_swap_file_name(&entry.name) {
                let problem = "compaction was interrupted here; the next start finishes it".into();
                self.push(
                    Severity::Unsettled,
                    path.clone(),
                    None,
                    Some(swap.clone()),
                    problem,
                );
                let file = disk.open(&path, OpenMode::Read)?;
                let bytes = file.len()?;
                let file = Some(file);
                self.files.insert(swap.start, SegmentFile { file, bytes });
            } else if let Some(base) = names::parse_segment_file_name(&entry.name) {
                let opened = disk.open(&path, OpenMode::Read);
                match opened.and_then(|file| Ok((file.len()?, file))) {
                    Ok((bytes, file)) => {
                        self.files.insert(
                            base,
                            SegmentFile {
                                file: Some(file),
                                bytes,
                            },
                        );
                    }
                    Err(error) => {
                        let problem = format!("it cannot be opened: {error}");
                        let offsets = base..base.add(1);
                        self.push(Severity::Damage, path, None, Some(offsets), problem);
                    }
                }
            } else if [names::NEXT_SEGMENT_FILE, names::NEW_SEGMENT_FILE].contains(&&*entry.name) {
                // Prepared for the next roll: part of a log that was not stopped cleanly.
            } else if entry.name.ends_with(TEMPORARY_SUFFIX) {
                let problem = "left behind by an interrupted write; it holds no record".into();
                self.push(Severity::Unsettled, path, None, None, problem);
            } else if entry.name == names::EPOCHS_FILE && self.now.clean_stop {
                // For Kafka's tools alone, and never synced: every start writes it anew.
                if !read_small(disk, &path).is_ok_and(|bytes| is_epoch_list(&bytes)) {
                    let problem = "it is not a list of leader epochs".into();
                    self.push(Severity::Unsettled, path, None, None, problem);
                }
            } else if let Some(problem) = self.snapshot_problem(&entry.name, &path) {
                self.push(Severity::Rebuildable, path, None, None, problem);
            }
        }
        Ok(())
    }

    /// Walks one segment. `next` is the base offset of the one behind it.
    fn segment(
        &mut self,
        base: Offset,
        next: Option<Offset>,
        epoch: &mut Option<LeaderEpoch>,
    ) -> SegmentSummary {
        let now = self.now;
        let mut overlay = Overlay::new(now.disk, now.replay, self.places);
        let SegmentFile { file, bytes } = self.files[&base].clone();
        let mut segment = SegmentBytes::new(base, file, bytes, &mut overlay);
        let extent = self.index_extent(base);
        let folder = &self.known.folder;
        let mut indexes = IndexCheck::read(now.disk, folder, base, extent);
        if let Some(topic_id) = self.known.topic_id {
            let partition = self.known.partition;
            let owner = SegmentKey {
                topic_id,
                partition,
                base_offset: base,
            };
            let sealed = extent == Extent::Whole;
            let end = if sealed {
                bytes
            } else {
                self.checkpoint.position
            };
            let end = if base > self.checkpoint.segment {
                0
            } else {
                end
            };
            indexes.read_sums(now.disk, folder, owner, end);
        }
        let (index_entries, time_index_entries) = indexes.counts();
        let is_checkpoints = base == self.checkpoint.segment && self.checkpoint.position > 0;
        let checkpoint_end = self.checkpoint.end;
        let mut checkpoint_at = None;
        let limits = Limits {
            next,
            promised_end: self.promised_end(),
            checksums: now.checksums,
        };
        let epochs = self.epochs.clone();
        let epoch_max = self.epoch_max();
        let mut wrong_epoch: Option<(u64, Range<Offset>, String)> = None;
        let walk = Walk::new(base, *epoch);
        let Walked { walk, stop, bad } = walk.finish(&mut segment, limits, |header, at, whole| {
            if is_checkpoints && header.base_offset() == checkpoint_end {
                checkpoint_at = Some(at);
            }
            let right = match header.base_offset() < checkpoint_end {
                true => epochs.at(header.base_offset()),
                false => epoch_max,
            };
            if let Some(right) = right
                && header.leader_epoch() != right
                && wrong_epoch.is_none()
            {
                let offsets = header.base_offset()..header.next_offset();
                let found = header.leader_epoch();
                let problem =
                    format!("a batch has leader epoch {found}; it was appended in {right}");
                wrong_epoch = Some((at, offsets, problem));
            }
            // Behind a batch that does not check, it is not known what the entries should say.
            if whole {
                indexes.batch(header, at);
            }
            now.progress
                .bytes
                .fetch_add(header.size_bytes() as u64, Relaxed);
        });
        let foreign = indexes.take_foreign();
        let foreign =
            foreign.map(|(block, offsets)| (block.range.start, offsets, block.describe()));
        if let Some((at, offsets, problem)) = wrong_epoch.or(foreign) {
            let file = self.segment_path(base);
            self.push(Severity::Damage, file, Some(at), Some(offsets), problem);
        }
        *epoch = walk.epoch;
        let whole = bad.is_empty();
        if is_checkpoints && whole && walk.offset >= checkpoint_end {
            let at_end = (walk.offset == checkpoint_end).then_some(walk.position);
            self.check_checkpoint(base, checkpoint_at.or(at_end));
        }
        let (walk, stop) = self.report_bad(base, bad, walk, stop);
        let complete = next.is_none_or(|next| walk.offset == next)
            && matches!(stop, Step::EndOfFile | Step::Nothing);
        if self.ended.is_none() {
            self.judge(&mut segment, &walk, &stop, next);
        }
        let covered = whole && (complete || walk.offset >= checkpoint_end);
        let is_damaged = |finding: &Finding| finding.severity == Severity::Damage;
        if self.findings.iter().any(is_damaged) {
            // Where the batches end is not known: it is no wonder that the sums end elsewhere.
            indexes.forgive_sums();
        }
        for (name, position, problem) in indexes.finish(covered) {
            let file = self.known.folder.join(name);
            self.push(Severity::Rebuildable, file, Some(position), None, problem);
        }
        SegmentSummary {
            base_offset: base,
            end_offset: walk.offset,
            batches: walk.batches,
            records: walk.records,
            batch_bytes: walk.position,
            file_bytes: bytes,
            max_timestamp: walk.max_timestamp,
            index_entries,
            time_index_entries,
        }
    }

    /// Batches below the promised end whose checksums are wrong. When the last of them is followed by
    /// something that is no batch, its length is not to be trusted either: the walk ended there.
    fn report_bad(
        &mut self,
        base: Offset,
        mut bad: Vec<BadRun>,
        mut walk: Walk,
        mut stop: Step,
    ) -> (Walk, Step) {
        if let (Step::Bad(_), true) = (&stop, walk.is_behind_bad())
            && let Some(last) = bad.pop()
        {
            walk.position = last.position;
            walk.offset = last.offsets.start;
            walk.batches -= last.batches;
            stop = Step::Bad(last.describe());
        }
        for run in bad {
            let (file, problem) = (self.segment_path(base), run.describe());
            self.push(
                Severity::Damage,
                file,
                Some(run.position),
                Some(run.offsets),
                problem,
            );
        }
        (walk, stop)
    }

    /// The walk of a segment came to `stop`: is that where the segment, or the log, may end?
    fn judge(
        &mut self,
        segment: &mut SegmentBytes<'_, '_>,
        walk: &Walk,
        stop: &Step,
        next: Option<Offset>,
    ) {
        let (base, position, offset) = (segment.base, walk.position, walk.offset);
        let file = self.segment_path(base);
        let at = Some(position);
        let problem = match stop {
            Step::Unreadable(error) => {
                let offsets = offset..next.unwrap_or(offset).max(self.promised_end());
                let offsets = offsets.start..offsets.end.max(offset.add(1));
                let problem = format!("it cannot be read: {error}");
                return self.push(Severity::Damage, file, at, Some(offsets), problem);
            }
            Step::Bad(problem) => problem.clone(),
            Step::EndOfFile | Step::Nothing | Step::Batch { .. } => {
                let sealed = self.now.clean_stop || base < self.checkpoint.segment;
                match (next == Some(offset), stop) {
                    (true, Step::EndOfFile) => return,
                    (true, _) if !sealed => return,
                    (true, _) => {
                        let problem = "the segment was sealed here, and its file goes on".into();
                        return self.push(Severity::Damage, file, at, None, problem);
                    }
                    (false, _) => "no batch follows".into(),
                }
            }
        };
        if offset < self.promised_end() {
            return self.broken_promise(file, position, offset, next, problem);
        }
        if self.now.clean_stop {
            let PartitionCheckpoint {
                segment, position, ..
            } = self.checkpoint;
            let as_promised = (base, walk.position) == (segment, position);
            if !as_promised || next.is_some() || !matches!(stop, Step::EndOfFile) {
                let problem = format!(
                    "after a clean stop, the log should end at byte {position} of segment {segment}: \
                     {problem}"
                );
                let offsets = Some(offset..offset.add(1));
                self.push(Severity::Damage, file, at, offsets, problem);
            }
            return;
        }
        self.judge_tail(segment, walk, stop, next, problem);
    }

    /// Something below the promised end is not there.
    fn broken_promise(
        &mut self,
        file: PathBuf,
        position: u64,
        offset: Offset,
        next: Option<Offset>,
        problem: String,
    ) {
        let at = self
            .places
            .partition_point(|place| place.end_offset <= offset);
        if offset >= self.checkpoint.end
            && let Some(Place {
                base_offset: run, ..
            }) = self.places.get(at)
            && *run > offset
        {
            // Only a run that starts anew follows a gap: the topic was not fsync before it.
            self.ended = Some(offset);
            let problem = format!(
                "records before offset {run}, where the journal begins again, were not durable: \
                 {problem}"
            );
            let offsets = Some(offset..self.promised_end());
            return self.push(Severity::Unsettled, file, Some(position), offsets, problem);
        }
        let end = next
            .filter(|next| *next > offset)
            .unwrap_or(self.promised_end());
        let offsets = Some(offset..end.max(offset.add(1)));
        self.push(Severity::Damage, file, Some(position), offsets, problem);
    }

    /// The log ends here as far as anybody was promised. Says what lies behind.
    fn judge_tail(
        &mut self,
        segment: &mut SegmentBytes<'_, '_>,
        walk: &Walk,
        stop: &Step,
        next: Option<Offset>,
        problem: String,
    ) {
        self.ended = Some(walk.offset);
        let strict = if self.known.same_boot {
            Severity::Damage
        } else {
            Severity::Unsettled
        };
        let (file, at) = (self.segment_path(segment.base), Some(walk.position));
        let offsets = Some(walk.offset..walk.offset.add(1));
        if let Step::Bad(_) = stop {
            return self.push(strict, file, at, offsets, problem);
        }
        if let Some(next) = next
            && self.has_content_from(next)
        {
            let offsets = Some(walk.offset..next.max(walk.offset.add(1)));
            let problem = format!("segment {next} does not follow the last batch");
            return self.push(strict, file, at, offsets, problem);
        }
        let limit = self.now.batch_bytes_max;
        let behind = segment.unfinished_bytes(walk.position).and_then(|bytes| {
            // Zeros behind it may belong to a batch.
            let upto = if bytes > 0 {
                bytes.min(limit) + limit
            } else {
                0
            };
            let next = segment.next(walk.position, upto)?;
            Ok((bytes, batch_behind(&next, walk.offset)))
        });
        match behind {
            Ok((0, _)) => {}
            Ok((bytes, Some((place, offset)))) if bytes <= limit => {
                let offsets = Some(walk.offset..offset.max(walk.offset.add(1)));
                let problem = format!(
                    "nothing stands there, but a batch of offset {offset} at position {}",
                    walk.position + place as u64
                );
                self.push(strict, file, at, offsets, problem);
            }
            Ok((bytes, _)) => {
                let severity = if bytes > limit {
                    strict
                } else {
                    Severity::Unsettled
                };
                let problem = format!(
                    "{bytes} bytes lie behind the last batch; one unfinished batch has at most {limit}"
                );
                self.push(severity, file, at, offsets, problem);
            }
            Err(error) => {
                let problem = format!("it cannot be read: {error}");
                self.push(Severity::Damage, file, at, offsets, problem);
            }
        }
    }

    /// Whether a segment from `base` on has a byte that is not zero, or cannot be read.
    fn has_content_from(&self, base: Offset) -> bool {
        self.files
            .range(base..)
            .any(|(base, SegmentFile { file, bytes })| {
                let mut overlay = Overlay::new(self.now.disk, self.now.replay, self.places);
                let mut segment = SegmentBytes::new(*base, file.clone(), *bytes, &mut overlay);
                segment.unfinished_bytes(0).map_or(true, |bytes| bytes > 0)
            })
    }

    /// Everything below it must be there, in the segments or in the journal.
    fn promised_end(&self) -> Offset {
        let journal_end = self
            .places
            .last()
            .map_or(Offset::ZERO, |last| last.end_offset);
        self.checkpoint.end.max(journal_end)
    }

    /// Where the first leader epoch that the checkpoint remembers began: the log's start, or above it.
    fn first_epoch(&self) -> Option<Offset> {
        self.epochs.starts().first().map(|epoch| epoch.start)
    }

    /// The epoch of everything above the checkpoint: one is in a checkpoint before anything is appended
    /// in it. Not known of a torn end, nor without a checkpoint.
    fn epoch_max(&self) -> Option<LeaderEpoch> {
        let known = self.known.checkpoint.as_ref();
        known
            .map(|checkpoint| checkpoint.leader_epoch)
            .max(self.known.first_epoch)
    }

    fn index_extent(&self, base: Offset) -> Extent {
        let PartitionCheckpoint {
            segment,
            index_entries,
            time_index_entries,
            ..
        } = self.checkpoint;
        if base < segment {
            Extent::Whole
        } else if base == segment {
            Extent::Counted {
                offsets: index_entries,
                times: time_index_entries,
            }
        } else {
            Extent::Nothing
        }
    }

    fn segment_path(&self, base: Offset) -> PathBuf {
        self.known.folder.join(names::segment_file_name(base))
    }

    fn push(
        &mut self,
        severity: Severity,
        file: PathBuf,
        position: Option<u64>,
        offsets: Option<Range<Offset>>,
        problem: String,
    ) {
        self.findings.push(Finding {
            severity,
            file,
            position,
            offsets,
            problem,
        });
    }
}
