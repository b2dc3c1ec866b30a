//! What a log may and must hold: the catalog, every batch that was ever appended, and how much of it
//! somebody could rely on.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use sapwood_log::{EpochStart, Known, PartitionSpec, ProducerState};
use sapwood_model::{Durability, LeaderEpoch, Offset, PartitionId, ProducerId, TopicId, TopicName};
use sapwood_record::{Batch, Header, ProducerStamp};

pub(crate) type Key = (TopicId, PartitionId);

/// How a process ended. The later the worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum End {
    /// By a clean stop that said so.
    #[default]
    Clean,
    Kill,
    PowerCut,
}

/// A batch as it stands in the log.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct LogBatch {
    pub(crate) base: Offset,
    pub(crate) next: Offset,
    pub(crate) bytes: Bytes,
}

impl LogBatch {
    /// What an append makes of a batch.
    pub(crate) fn stamped(batch: &Batch, base: Offset, epoch: LeaderEpoch) -> LogBatch {
        let mut batch = batch.clone();
        batch.header_mut().set_base_offset(base);
        batch.header_mut().set_leader_epoch(epoch);
        LogBatch {
            base,
            next: batch.header().next_offset(),
            bytes: batch.to_bytes(),
        }
    }

    pub(crate) fn read(batch: &Batch) -> LogBatch {
        let header = batch.header();
        LogBatch {
            base: header.base_offset(),
            next: header.next_offset(),
            bytes: batch.to_bytes(),
        }
    }

    /// Whether the checksum of its records is right.
    pub(crate) fn is_intact(&self) -> bool {
        Batch::split(self.bytes.clone()).is_ok_and(|batch| batch.verify_crc().is_ok())
    }

    pub(crate) fn crc(&self) -> u32 {
        crc32fast::hash(&self.bytes)
    }

    pub(crate) fn leader_epoch(&self) -> LeaderEpoch {
        Header::read(&self.bytes).map_or(LeaderEpoch(0), |header| header.leader_epoch())
    }

    pub(crate) fn stamp(&self) -> Option<ProducerStamp> {
        Header::read(&self.bytes).and_then(|header| header.producer())
    }
}

impl fmt::Debug for LogBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let crc = self.crc();
        write!(
            f,
            "{}..{} ({} bytes, crc {crc:08x})",
            self.base,
            self.next,
            self.bytes.len()
        )
    }
}

#[derive(Debug, Clone)]
pub(crate) struct PartitionModel {
    /// What the catalog says.
    pub(crate) spec: PartitionSpec,
    /// Every batch that was appended and not lost since, also those below the log start.
    pub(crate) log: Arc<Vec<LogBatch>>,
    /// Everything that a reader has ever seen: an offset may come again only with another epoch, and
    /// only where the first record at it could be lost.
    pub(crate) seen: Arc<BTreeMap<(Offset, LeaderEpoch), u32>>,
    pub(crate) end: Offset,
    /// An append that has not returned, or returned with a failure of the disk.
    pub(crate) in_flight: Option<LogBatch>,
    /// Everything below was readable or acknowledged, and must survive a kill.
    pub(crate) kill_floor: Offset,
    /// Everything below must survive a power cut.
    pub(crate) power_floor: Offset,
    pub(crate) epoch: LeaderEpoch,
    /// The worst that has happened since the partition was last recovered.
    pub(crate) ended: End,
    /// Producers that may be known or forgotten as long as they have no batch at this offset or behind it:
    /// they expired, or what they appended was deleted. A later batch may be lost again.
    pub(crate) unsure: BTreeMap<ProducerId, Offset>,
}

/// Each partition's producers have the ids from 1 to this.
pub(crate) const PRODUCERS: u64 = 3;
/// How many batches of a producer a partition recognises.
pub(crate) const BATCHES_KEPT: usize = 5;

impl PartitionModel {
    pub(crate) fn new(spec: PartitionSpec) -> PartitionModel {
        PartitionModel {
            end: spec.log_start,
            log: Arc::default(),
            seen: Arc::default(),
            in_flight: None,
            kill_floor: spec.log_start,
            power_floor: spec.log_start,
            epoch: LeaderEpoch(0),
            ended: End::Clean,
            unsure: BTreeMap::new(),
            spec,
        }
    }

    pub(crate) fn durability(&self) -> Durability {
        self.spec.config.durability
    }

    /// A reader has seen, or a producer was told, everything below.
    pub(crate) fn watermark_moved(&mut self, high_watermark: Offset) {
        self.kill_floor = self.kill_floor.max(high_watermark);
        if self.durability() == Durability::Fsync {
            self.power_floor = self.power_floor.max(high_watermark);
        }
    }

    /// Everything that was appended is durable.
    pub(crate) fn all_durable(&mut self) {
        self.kill_floor = self.end;
        self.power_floor = self.end;
    }

    /// Bounds and batches, for people.
    pub(crate) fn describe(&self) -> String {
        let batches = self.log.iter().map(|batch| match batch.stamp() {
            Some(ProducerStamp {
                id,
                base_sequence,
                last_sequence,
                ..
            }) => {
                let (base, next, id) = (batch.base, batch.next, id.0);
                format!("{base}..{next} (producer {id}: {base_sequence} to {last_sequence})")
            }
            None => format!("{}..{}", batch.base, batch.next),
        });
        let batches: Vec<String> = batches.collect();
        let PartitionModel {
            spec,
            end,
            kill_floor,
            power_floor,
            ..
        } = self;
        let (start, durability) = (spec.log_start, spec.config.durability);
        format!(
            "{durability:?}, log start {start}, end {end}, floors {kill_floor} and {power_floor}: {}",
            batches.join(", ")
        )
    }

    pub(crate) fn push(&mut self, batch: LogBatch) {
        self.end = batch.next;
        Arc::make_mut(&mut self.log).push(batch);
    }

    /// The batches of a producer's newest epoch that are in the log and recognised, oldest first.
    pub(crate) fn batches_of(&self, producer: ProducerId) -> Vec<(ProducerStamp, &LogBatch)> {
        let mut found = Vec::new();
        for batch in self.log.iter().rev() {
            let Some(stamp) = batch.stamp().filter(|stamp| stamp.id == producer) else {
                continue;
            };
            let newest = found
                .first()
                .map_or(stamp.epoch, |(newest, _): &(ProducerStamp, _)| newest.epoch);
            if stamp.epoch != newest || found.len() == BATCHES_KEPT {
                break;
            }
            found.push((stamp, batch));
        }
        found.reverse();
        found
    }

    /// The producer may be unknown from now on.
    pub(crate) fn forget(&mut self, id: ProducerId) {
        self.unsure.insert(id, self.end);
    }

    /// Whether it may be known or not.
    pub(crate) fn is_unsure(&self, id: ProducerId) -> bool {
        let batches = self.batches_of(id);
        let last = batches.last().map(|(_, batch)| batch.base);
        let bound = self.unsure.get(&id);
        bound.is_some_and(|bound| last.is_none_or(|last| last < *bound))
    }

    /// Compares what is known of producers with what is in the log.
    ///
    /// # Errors
    ///
    /// Names a producer of which something else is known than its last batch says, or nothing although
    /// that batch was not deleted.
    pub(crate) fn check_producers(&mut self, states: &[ProducerState]) -> Result<(), String> {
        for id in (1..=PRODUCERS).map(ProducerId) {
            let known = states.iter().find(|state| state.id == id);
            let batches = self.batches_of(id);
            let last = batches.last().map(|(stamp, batch)| {
                let last_offset = Offset(batch.next.0 - 1);
                (stamp.epoch, stamp.last_sequence, last_offset)
            });
            let found = known.map(|state| (state.epoch, state.last_sequence, state.last_offset));
            if found == last {
                continue;
            }
            if last.is_some_and(|(.., last)| last < self.spec.log_start) {
                self.forget(id);
            } else if !self.is_unsure(id) {
                return Err(format!(
                    "producer {id} is known with {found:?}; the log has {last:?}: {}",
                    self.describe()
                ));
            }
        }
        Ok(())
    }

    /// Each batch belongs to the epoch that it was appended in, and the newest epoch is the last one.
    ///
    /// # Errors
    ///
    /// Names the first batch that the list puts into another epoch.
    pub(crate) fn check_epochs(
        &self,
        found: &[LogBatch],
        epochs: &[EpochStart],
        newest: LeaderEpoch,
    ) -> Result<(), String> {
        for batch in found {
            let at = batch.base.max(self.spec.log_start);
            let listed = epochs.iter().rev().find(|entry| entry.start <= at);
            if listed.map(|entry| entry.epoch) != Some(batch.leader_epoch()) {
                let epoch = batch.leader_epoch();
                return Err(format!(
                    "{batch:?} has leader epoch {epoch}, the list is {epochs:?}"
                ));
            }
        }
        if epochs.last().map(|entry| entry.epoch) != Some(newest) {
            return Err(format!("the epoch is {newest}, the list is {epochs:?}"));
        }
        Ok(())
    }

    /// Notes what a reader saw.
    ///
    /// # Errors
    ///
    /// The reader saw something else at that offset before.
    pub(crate) fn saw(&mut self, found: &[LogBatch]) -> Result<(), String> {
        for batch in found {
            let (key, crc) = ((batch.base, batch.leader_epoch()), batch.crc());
            match self.seen.get(&key) {
                Some(seen) if *seen == crc => {}
                Some(seen) => {
                    return Err(format!(
                        "a reader saw a batch with crc {seen:08x} where {batch:?} is now"
                    ));
                }
                None => drop(Arc::make_mut(&mut self.seen).insert(key, crc)),
            }
        }
        Ok(())
    }

    /// The log is taken back to `offset`, which is a batch's.
    pub(crate) fn truncated(&mut self, offset: Offset) {
        Arc::make_mut(&mut self.log).retain(|batch| batch.next <= offset);
        self.end = offset;
    }

    /// Compares what a process finds with what it may find.
    ///
    /// # Errors
    ///
    /// Says which promise is broken.
    pub(crate) fn check(&self, found: &[LogBatch], end: Offset) -> Result<(), String> {
        let start = self.spec.log_start;
        let known = |batch: &LogBatch| {
            self.log
                .binary_search_by_key(&batch.base, |known| known.base)
                .ok()
                .map(|at| &self.log[at])
        };
        let mut next = None;
        for batch in found {
            let expected = known(batch).or(self.in_flight.as_ref());
            if expected != Some(batch) {
                return Err(format!("found {batch:?}, appended was {expected:?}"));
            }
            if next.is_some_and(|next| next != batch.base) {
                return Err(format!("{batch:?} follows offset {next:?}"));
            }
            next = Some(batch.next);
        }
        match (found.first(), next) {
            (Some(first), Some(next)) if first.base > start || next != end => {
                return Err(format!(
                    "the log reads {}..{next}, not {start}..{end}",
                    first.base
                ));
            }
            (None, _) if end != start => {
                return Err(format!("nothing can be read between {start} and {end}"));
            }
            _ => {}
        }
        let (floor, what) = match self.ended {
            End::Clean => (self.end, "a clean stop"),
            End::Kill => (self.kill_floor, "a kill"),
            End::PowerCut => (self.power_floor, "a power cut"),
        };
        if end < floor.max(start) {
            return Err(format!(
                "the log ends at {end}; {what} must leave everything below {floor} (log start {start})"
            ));
        }
        Ok(())
    }

    /// Takes over what a recovery found, and has made durable.
    pub(crate) fn recovered(&mut self, found: &[LogBatch], end: Offset, epoch: LeaderEpoch) {
        if let Some(in_flight) = self.in_flight.take()
            && found.last() == Some(&in_flight)
        {
            self.push(in_flight);
        }
        if self.log.last().is_some_and(|last| last.next > end) {
            Arc::make_mut(&mut self.log).retain(|batch| batch.next <= end);
        }
        self.end = end;
        self.all_durable();
        self.epoch = epoch;
        self.ended = End::Clean;
    }
}

/// How large things are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) segment_bytes: u64,
    pub(crate) journal_files: u32,
    /// A checkpoint of more files syncs them in groups.
    pub(crate) open_files_max: usize,
    /// For each of the topics that a workload starts with.
    pub(crate) partitions: [u32; 3],
}

impl Default for Shape {
    fn default() -> Shape {
        Shape {
            segment_bytes: 6 * 1024,
            journal_files: 3,
            open_files_max: 1024,
            partitions: [2, 2, 1],
        }
    }
}

impl Shape {
    /// Most seeds have few partitions, so that much happens to each. Some have so many that files and
    /// folders are synced together, and a few more than are ever synced one by one.
    pub(crate) fn of(seed: u64) -> Shape {
        let partitions = match seed % 64 {
            9 => [40, 28, 2],
            _ if seed % 8 == 6 => [9, 3, 2],
            _ if seed % 8 == 5 => [1, 1, 1],
            _ => [2, 2, 1],
        };
        Shape {
            segment_bytes: [6, 3, 20][(seed / 2 % 3) as usize] * 1024,
            journal_files: 2 + (seed % 2) as u32,
            open_files_max: [1024, 1, 4][(seed % 3) as usize],
            partitions,
        }
    }
}

/// The catalog, which this harness keeps durable itself, and all logs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub(crate) partitions: BTreeMap<Key, PartitionModel>,
    pub(crate) names: BTreeMap<TopicId, TopicName>,
    pub(crate) deleted: Vec<TopicId>,
    pub(crate) topics_made: u128,
    pub(crate) shape: Shape,
}

impl Model {
    pub(crate) fn known(&self) -> Known {
        Known {
            partitions: self
                .partitions
                .values()
                .map(|partition| partition.spec.clone())
                .collect(),
            deleted: self.deleted.clone(),
        }
    }

    /// Whether some partition has several batches.
    pub(crate) fn has_records(&self) -> bool {
        self.partitions.values().any(|model| model.log.len() > 8)
    }

    pub(crate) fn partitions_of(&self, topic: TopicId) -> Vec<Key> {
        self.partitions
            .keys()
            .filter(|key| key.0 == topic)
            .copied()
            .collect()
    }
}
