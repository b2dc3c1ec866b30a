//! What was promised, and when: a list of moments that both threads write, and what follows from those
//! before a given step of the disk.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use sapwood_log::{Known, PartitionObserver, PartitionSpec};
use sapwood_model::{Durability, Offset, PartitionId, TopicId};
use sapwood_sim::SimDisk;

pub(crate) type Key = (TopicId, PartitionId);

#[derive(Debug, Clone, Copy)]
pub(crate) enum Moment {
    /// Everything below may be read and was acknowledged.
    Visible(Key, Offset),
    /// The catalog's record of a changed durability is on the disk.
    Durability(Key, Durability),
    /// The catalog's record of a moved log start is on the disk.
    LogStart(Key, Offset),
    /// The catalog's record of a deletion is on the disk.
    Deleted(TopicId),
}

/// Kept outside the simulated disk: a catalog that never fails, and a client's memory.
#[derive(Debug)]
pub(crate) struct Promises {
    disk: SimDisk,
    specs: Vec<PartitionSpec>,
    moments: Mutex<Vec<(u64, Moment)>>,
    /// Batches by their base offset; several while two threads try for the same.
    appended: Mutex<BTreeMap<(Key, Offset), Vec<Bytes>>>,
}

/// What holds at one step.
#[derive(Debug, Clone)]
pub(crate) struct Owed {
    pub(crate) spec: PartitionSpec,
    /// Everything below survives a kill.
    pub(crate) after_kill: Offset,
    /// Everything below survives a power cut.
    pub(crate) after_power_cut: Offset,
}

impl Promises {
    pub(crate) fn new(disk: SimDisk, specs: Vec<PartitionSpec>) -> Arc<Promises> {
        Arc::new(Promises {
            disk,
            specs,
            moments: Mutex::default(),
            appended: Mutex::default(),
        })
    }

    pub(crate) fn note(&self, moment: Moment) {
        let mut moments = self.moments.lock();
        moments.push((self.disk.steps(), moment));
    }

    /// A batch is about to be appended there.
    pub(crate) fn append(&self, key: Key, base: Offset, bytes: Bytes) {
        let mut appended = self.appended.lock();
        appended.entry((key, base)).or_default().push(bytes);
    }

    /// It was not.
    pub(crate) fn take_back(&self, key: Key, base: Offset, bytes: &Bytes) {
        if let Some(tried) = self.appended.lock().get_mut(&(key, base)) {
            tried.retain(|other| other != bytes);
        }
    }

    pub(crate) fn was_appended(&self, key: Key, base: Offset, bytes: &Bytes) -> bool {
        let appended = self.appended.lock();
        appended
            .get(&(key, base))
            .is_some_and(|batches| batches.contains(bytes))
    }

    /// The catalog and what is owed on a disk that was copied at `step`.
    pub(crate) fn at(&self, step: u64) -> (Known, Vec<Owed>) {
        let mut owed: BTreeMap<Key, Owed> = self.specs.iter().map(begin).collect();
        let mut deleted = Vec::new();
        let moments = self.moments.lock();
        for (_, moment) in moments.iter().filter(|(at, _)| *at <= step) {
            match moment {
                Moment::Visible(key, end) => {
                    if let Some(owed) = owed.get_mut(key) {
                        owed.after_kill = owed.after_kill.max(*end);
                        owed.settle();
                    }
                }
                Moment::Durability(key, durability) => {
                    if let Some(owed) = owed.get_mut(key) {
                        owed.spec.config.durability = *durability;
                        owed.settle();
                    }
                }
                Moment::LogStart(key, start) => {
                    if let Some(owed) = owed.get_mut(key) {
                        owed.spec.log_start = owed.spec.log_start.max(*start);
                    }
                }
                Moment::Deleted(topic) => {
                    owed.retain(|key, _| key.0 != *topic);
                    deleted.push(*topic);
                }
            }
        }
        let owed: Vec<Owed> = owed.into_values().collect();
        let partitions = owed.iter().map(|owed| owed.spec.clone()).collect();
        (
            Known {
                partitions,
                deleted,
            },
            owed,
        )
    }
}

fn begin(spec: &PartitionSpec) -> (Key, Owed) {
    let owed = Owed {
        spec: spec.clone(),
        after_kill: Offset::ZERO,
        after_power_cut: Offset::ZERO,
    };
    ((spec.topic_id, spec.partition), owed)
}

impl Owed {
    /// Under fsync everything that can be read is durable; what was read under it stays so.
    fn settle(&mut self) {
        if self.spec.config.durability == Durability::Fsync {
            self.after_power_cut = self.after_power_cut.max(self.after_kill);
        }
    }
}

/// Notes every move of a high watermark.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) key: Key,
    pub(crate) promises: Arc<Promises>,
}

impl PartitionObserver for Watch {
    fn high_watermark_moved(&self, high_watermark: Offset) {
        self.promises
            .note(Moment::Visible(self.key, high_watermark));
    }

    fn failed(&self) {}
}
