//! What a log may and must hold: the catalog, every batch that was ever appended, and how much of it
//! somebody could rely on.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use sapwood_log::{Known, PartitionSpec};
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

    pub(crate) fn stamp(&self) -> Option<ProducerStamp> {
        Header::read(&self.bytes).and_then(|header| header.producer())
    }
}

impl fmt::Debug for LogBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let crc = crc32fast::hash(&self.bytes);
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
    pub(crate) log: Vec<LogBatch>,
    pub(crate) end: Offset,
    /// An append that has not returned, or returned with a failure of the disk.
    pub(crate) in_flight: Option<LogBatch>,
    /// Everything below was readable or acknowledged, and must survive a kill.
    pub(crate) kill_floor: Offset,
    /// Everything below must survive a power cut.
    pub(crate) power_floor: Offset,
    pub(crate) epoch: LeaderEpoch,
    /// Producers are given up when their state is not determined any more.
    pub(crate) producers_from: u64,
}

pub(crate) const PRODUCERS: u64 = 2;

impl PartitionModel {
    pub(crate) fn new(spec: PartitionSpec) -> PartitionModel {
        PartitionModel {
            end: spec.log_start,
            log: Vec::new(),
            in_flight: None,
            kill_floor: spec.log_start,
            power_floor: spec.log_start,
            epoch: LeaderEpoch(0),
            producers_from: 1,
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

    /// A producer's batches that are in the log, oldest first.
    pub(crate) fn batches_of(&self, producer: ProducerId) -> Vec<(ProducerStamp, Offset)> {
        let stamps = self
            .log
            .iter()
            .filter_map(|batch| Some((batch.stamp()?, batch.base)));
        stamps.filter(|(stamp, _)| stamp.id == producer).collect()
    }

    /// Compares what a process finds with what it may find.
    ///
    /// # Errors
    ///
    /// Says which promise is broken.
    pub(crate) fn check(&self, found: &[LogBatch], end: Offset, ended: End) -> Result<(), String> {
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
        let (floor, what) = match ended {
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
    pub(crate) fn recovered(
        &mut self,
        found: &[LogBatch],
        end: Offset,
        epoch: LeaderEpoch,
        ended: End,
    ) {
        if let Some(in_flight) = self.in_flight.take()
            && found.last() == Some(&in_flight)
        {
            self.log.push(in_flight);
        }
        if found.is_empty() && ended == End::PowerCut {
            // The log may have ended below its log start; which producers are known is open then.
            self.producers_from += PRODUCERS;
        }
        self.log.retain(|batch| batch.next <= end);
        self.end = end;
        self.all_durable();
        self.epoch = epoch;
    }
}

/// The catalog, which this harness keeps durable itself, and all logs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub(crate) partitions: BTreeMap<Key, PartitionModel>,
    pub(crate) names: BTreeMap<TopicId, TopicName>,
    pub(crate) deleted: Vec<TopicId>,
    pub(crate) topics_made: u128,
    /// The worst that has happened since the store was last opened.
    pub(crate) ended: End,
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

    pub(crate) fn partitions_of(&self, topic: TopicId) -> Vec<Key> {
        self.partitions
            .keys()
            .filter(|key| key.0 == topic)
            .copied()
            .collect()
    }
}
