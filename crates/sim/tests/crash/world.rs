//! A store that runs on the simulated machine, beside the model of what it must do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use sapwood_log::io::{Clock, Disk};
use sapwood_log::{
    DataDir, LogConfig, Partition, PartitionObserver, PartitionSpec, PartitionState, Progress,
    Read, ReadLimits, ReadMode, RecoveryReport, Store, StoreOptions,
};
use sapwood_model::{Durability, Offset, PartitionId, TopicId, TopicName};
use sapwood_record::{Batch, batches};
use sapwood_sim::{Machine, Rng, SimDisk};

use crate::forger;
use crate::lookups;
use crate::model::{End, Key, LogBatch, Model, PartitionModel};

pub(crate) const DATA: &str = "/data";

/// The machine at one event, and what was promised by then.
pub(crate) struct Survivor {
    pub(crate) machine: Machine,
    pub(crate) model: Model,
    /// Where it comes from, for people.
    pub(crate) at: String,
}

/// High watermarks move in the middle of calls; each move is noted with the step it came after.
#[derive(Debug, Default)]
struct Moves(Mutex<Vec<(Key, Offset, u64)>>);

#[derive(Debug)]
struct Observer {
    key: Key,
    disk: SimDisk,
    moves: Arc<Moves>,
}

impl PartitionObserver for Observer {
    fn high_watermark_moved(&self, high_watermark: Offset) {
        self.moves
            .0
            .lock()
            .push((self.key, high_watermark, self.disk.steps()));
    }

    fn failed(&self) {}
}

pub(crate) struct World {
    pub(crate) machine: Machine,
    pub(crate) model: Model,
    pub(crate) survivors: Vec<Survivor>,
    /// The disk has failed, or is full: calls may fail, promises still hold.
    pub(crate) faulty: bool,
    pub(crate) store: Option<Arc<Store>>,
    pub(crate) partitions: BTreeMap<Key, Arc<Partition>>,
    moves: Arc<Moves>,
    pub(crate) tally: Tally,
    /// Where the disk was when the store was open, before anything was looked at.
    pub(crate) steps_opened: u64,
    pub(crate) reads_opened: u64,
    /// Appends that a faulty or full disk refused.
    pub(crate) refused: u64,
    /// Topics that may wait for the journal although the catalog says os: becoming fsync failed.
    pub(crate) half_switched: BTreeSet<Key>,
}

/// What a workload reached, so that one that reaches nothing is noticed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) rounds: u64,
    pub(crate) stalls: u64,
    /// The most segments that one partition had.
    pub(crate) segments: u64,
    pub(crate) restarts: u64,
    /// Files of the journal that were begun.
    pub(crate) journal_files: u64,
}

pub(crate) type Outcome<T = ()> = Result<T, String>;

impl World {
    pub(crate) fn new(machine: Machine, model: Model) -> World {
        World {
            machine,
            model,
            survivors: Vec::new(),
            faulty: false,
            store: None,
            partitions: BTreeMap::new(),
            moves: Arc::default(),
            tally: Tally::default(),
            steps_opened: 0,
            reads_opened: 0,
            refused: 0,
            half_switched: BTreeSet::new(),
        }
    }

    pub(crate) fn store(&self) -> Outcome<Arc<Store>> {
        self.store
            .clone()
            .ok_or_else(|| "the store is not open".to_owned())
    }

    pub(crate) fn is_open(&self) -> bool {
        self.store.is_some()
    }

    pub(crate) fn partition(&self, key: Key) -> Option<Arc<Partition>> {
        let partition = self.partitions.get(&key)?;
        matches!(partition.state(), PartitionState::Online).then(|| Arc::clone(partition))
    }

    /// What the workload has made the store do.
    pub(crate) fn tally(&mut self) {
        let Some(store) = &self.store else { return };
        let metrics = store.metrics();
        self.tally.rounds += metrics.journal_rounds.get();
        self.tally.stalls += metrics.journal_full.get();
        let segments = self
            .partitions
            .values()
            .map(|partition| partition.stats().segments as u64);
        self.tally.segments = self.tally.segments.max(segments.max().unwrap_or(0));
        self.tally.journal_files = forger::spy(&self.machine.disk, &self.journal_folder())
            .map_or(0, |known| known.generation);
    }

    pub(crate) fn journal_folder(&self) -> PathBuf {
        Path::new(DATA).join("journal")
    }

    pub(crate) fn options(&self) -> StoreOptions {
        StoreOptions {
            ballast_bytes: 16 * 1024,
            journal_file_bytes: 64 * 1024,
            journal_files: self.model.shape.journal_files,
            open_files_max: self.model.shape.open_files_max,
            removal_step_bytes: 1000,
            boot_id: self.machine.disk.boot_id(),
            ..StoreOptions::default()
        }
    }

    /// Takes the copies that the disk made during the call that just returned, while the model still
    /// says what was promised before it, and then what the call has promised.
    pub(crate) fn settle(&mut self) {
        let moves = std::mem::take(&mut *self.moves.0.lock());
        for captured in self.machine.disk.take_captured() {
            let mut model = self.model.clone();
            apply(
                &mut model,
                moves.iter().filter(|(_, _, steps)| *steps <= captured.step),
            );
            let sync = captured
                .sync
                .map_or_else(String::new, |sync| format!(" (sync {sync})"));
            let mut machine = self.machine.fork();
            machine.disk = captured.disk;
            self.survivors.push(Survivor {
                machine,
                model,
                at: format!("step {}{sync}", captured.step),
            });
        }
        apply(&mut self.model, moves.iter());
    }

    /// Opens the data directory and checks everything against what the last process left.
    pub(crate) fn open(&mut self) -> Outcome<RecoveryReport> {
        let dir = DataDir::open(self.machine.environment(), Path::new(DATA));
        let opened = dir.and_then(|dir| {
            Store::open(
                dir,
                self.options(),
                self.model.known(),
                &Progress::default(),
            )
        });
        self.settle();
        let disk = &self.machine.disk;
        (self.steps_opened, self.reads_opened) = (disk.steps(), disk.reads());
        let (store, report) =
            opened.map_err(|error| format!("the store does not open: {error}"))?;
        self.store = Some(store);
        self.adopt(&report)?;
        Ok(report)
    }

    fn adopt(&mut self, report: &RecoveryReport) -> Outcome {
        if !report.journal_damage.is_empty() {
            return Err(format!(
                "the journal is said to be damaged: {:?}",
                report.journal_damage
            ));
        }
        let store = self.store()?;
        self.partitions.clear();
        let keys: Vec<Key> = self.model.partitions.keys().copied().collect();
        for key in keys {
            let partition = store
                .partition(key.0, key.1)
                .ok_or_else(|| format!("partition {key:?} is not there"))?;
            if self.faulty && matches!(partition.state(), PartitionState::Offline { .. }) {
                self.partitions.insert(key, partition); // what it holds is found out later
                continue;
            }
            let ended = self.model.partitions[&key].ended;
            let checked = self.check_recovered(key, &partition, report);
            let is_offline = matches!(partition.state(), PartitionState::Offline { .. });
            if checked.is_err() && self.faulty && is_offline {
                self.partitions.insert(key, partition);
                continue;
            }
            checked.map_err(|error| {
                format!("partition {key:?} after {ended:?}: {error}; {report:?}")
            })?;
            self.watch(key, partition);
        }
        self.check_folders()
    }

    fn check_recovered(
        &mut self,
        key: Key,
        partition: &Arc<Partition>,
        report: &RecoveryReport,
    ) -> Outcome {
        if let PartitionState::Offline { reason } = partition.state() {
            return Err(format!("offline: {reason}"));
        }
        let bounds = partition.bounds();
        let found = read_all(partition, 1 << 20)?;
        let epoch = partition.leader_epoch();
        let (epochs, producers) = (partition.epochs(), partition.producers());
        let model = self.model.partitions.get_mut(&key).ok_or("unknown")?;
        model.check(&found, bounds.log_end)?;
        if bounds.log_start != model.spec.log_start || bounds.high_watermark != bounds.log_end {
            return Err(format!(
                "{bounds:?}, the catalog's log start is {}",
                model.spec.log_start
            ));
        }
        if epoch <= model.epoch && !report.clean && model.end > bounds.log_end {
            return Err(format!(
                "the log was cut and the leader epoch stayed at {epoch}"
            ));
        }
        model.recovered(&found, bounds.log_end, epoch);
        model.check_producers(&producers)?;
        model.check_epochs(&found, &epochs, epoch)?;
        model.saw(&found)?;
        lookups::check(partition, &found, bounds.high_watermark)
    }

    /// Nothing of a deleted topic is left, and nothing was taken for somebody else's.
    fn check_folders(&self) -> Outcome {
        let names = |folder: &str| {
            let entries = self.machine.disk.read_dir(&Path::new(DATA).join(folder));
            entries.map(|entries| {
                entries
                    .into_iter()
                    .map(|entry| entry.name)
                    .collect::<Vec<_>>()
            })
        };
        let quarantined = names("quarantine").map_err(|error| error.to_string())?;
        if !quarantined.is_empty() {
            return Err(format!(
                "folders of known topics were quarantined: {quarantined:?}"
            ));
        }
        let topics = names("topics").map_err(|error| error.to_string())?;
        // Where the device did not say whose a folder is, it is left for the next start.
        let expected = self.model.partitions.len();
        if topics.len() < expected || topics.len() > expected && !self.faulty {
            return Err(format!("{expected} partitions have folders {topics:?}"));
        }
        Ok(())
    }

    fn watch(&mut self, key: Key, partition: Arc<Partition>) {
        partition.observe(Arc::new(Observer {
            key,
            disk: self.machine.disk.clone(),
            moves: Arc::clone(&self.moves),
        }));
        self.partitions.insert(key, partition);
    }

    /// The process ends without a word.
    pub(crate) fn crash(&mut self, end: End, rng: &mut Rng) {
        self.tally();
        self.tally.restarts += 1;
        for model in self.model.partitions.values_mut() {
            model.ended = model.ended.max(end);
        }
        match end {
            End::PowerCut => self.machine.disk.power_cut(rng),
            End::Clean | End::Kill => self.machine.disk.kill(),
        }
        self.partitions.clear();
        self.half_switched.clear();
        self.store = None;
        self.moves.0.lock().clear();
    }

    /// A clean stop; says whether it was one.
    pub(crate) fn stop(&mut self) -> Outcome<bool> {
        let closed = self.store()?.close();
        self.settle();
        match closed {
            Ok(()) => {
                let all_online = self
                    .partitions
                    .values()
                    .all(|partition| matches!(partition.state(), PartitionState::Online));
                if all_online {
                    self.model
                        .partitions
                        .values_mut()
                        .for_each(PartitionModel::all_durable);
                }
                Ok(all_online)
            }
            Err(_) if self.faulty => Ok(false),
            Err(error) => Err(format!("the store does not close: {error}")),
        }
    }

    pub(crate) fn create_topic(
        &mut self,
        name: &str,
        partitions: u32,
        durability: Durability,
    ) -> Outcome<TopicId> {
        self.model.topics_made += 1;
        let topic_id = TopicId(self.model.topics_made);
        let topic = TopicName::new(name).map_err(|error| error.to_string())?;
        self.model.names.insert(topic_id, topic);
        let config = LogConfig {
            durability,
            segment_bytes: self.model.shape.segment_bytes,
            index_interval_bytes: 1024,
            ..LogConfig::default()
        };
        self.create_partitions(topic_id, partitions, config)?;
        Ok(topic_id)
    }

    /// Adds partitions to a topic that the catalog has.
    pub(crate) fn create_partitions(
        &mut self,
        topic_id: TopicId,
        count: u32,
        config: LogConfig,
    ) -> Outcome {
        let topic = self.model.names[&topic_id].clone();
        let there = self.model.partitions_of(topic_id).len() as u32;
        let specs: Vec<PartitionSpec> = (there..there + count)
            .map(|number| PartitionSpec {
                topic: topic.clone(),
                topic_id,
                partition: PartitionId(number),
                log_start: Offset::ZERO,
                config: config.clone(),
            })
            .collect();
        for spec in &specs {
            let key = (topic_id, spec.partition);
            let model = PartitionModel::new(spec.clone());
            self.model.partitions.insert(key, model);
        }
        let created = self.store()?.create_partitions(specs);
        self.settle();
        match created {
            Ok(partitions) => {
                for partition in partitions {
                    self.watch((topic_id, partition.spec().partition), partition);
                }
            }
            Err(_) if self.faulty => {}
            Err(error) => return Err(format!("{topic} is not created: {error}")),
        }
        Ok(())
    }

    /// One partition more.
    pub(crate) fn add_partition(&mut self, topic: TopicId) -> Outcome {
        let keys = self.model.partitions_of(topic);
        let Some(model) = keys.last().and_then(|key| self.model.partitions.get(key)) else {
            return Ok(());
        };
        let config = model.spec.config.clone();
        self.create_partitions(topic, 1, config)
    }

    /// The disk is replaced by one without faults and with room, and the same content.
    pub(crate) fn mend(&self) {
        self.machine.disk.make_readable();
        self.machine.disk.set_capacity(None);
    }

    /// Changes everything that can be changed on a live topic but its durability.
    pub(crate) fn configure(&mut self, topic: TopicId, change: impl Fn(&mut LogConfig)) {
        for key in self.model.partitions_of(topic) {
            let Some(model) = self.model.partitions.get_mut(&key) else {
                continue;
            };
            change(&mut model.spec.config);
            if let Some(partition) = self.partitions.get(&key) {
                partition.set_config(model.spec.config.clone());
            }
        }
    }

    pub(crate) fn delete_topic(&mut self, topic: TopicId) -> Outcome {
        let name = self.model.names.remove(&topic).ok_or("no such topic")?;
        for key in self.model.partitions_of(topic) {
            self.model.partitions.remove(&key);
            self.partitions.remove(&key);
        }
        self.model.deleted.push(topic);
        let deleted = self.store()?.delete_topic(&name, topic);
        self.settle();
        match deleted {
            Err(error) if !self.faulty => Err(format!("{topic} is not deleted: {error}")),
            _ => Ok(()),
        }
    }

    pub(crate) fn forget(&mut self) -> Outcome {
        let forgotten = self.store()?.forgotten();
        self.model
            .deleted
            .retain(|topic| !forgotten.contains(topic));
        Ok(())
    }

    /// Changes a live partition's durability. `between` runs while the catalog's record is written.
    pub(crate) fn switch(
        &mut self,
        key: Key,
        to: Durability,
        between: impl FnOnce(&mut World) -> Outcome,
    ) -> Outcome {
        let Some(partition) = self.partition(key) else {
            return Ok(());
        };
        let store = self.store()?;
        let begun = store.begin_durability(&partition, to);
        self.settle();
        match begun {
            Err(_) if self.faulty => {
                self.half_switched.insert(key);
                return Ok(());
            }
            Err(error) => return Err(format!("{key:?} does not become {to:?}: {error}")),
            Ok(()) => {}
        }
        if !matches!(partition.state(), PartitionState::Online) {
            return if self.faulty {
                Ok(())
            } else {
                Err(format!("{key:?} went offline"))
            };
        }
        self.half_switched.insert(key);
        between(self)?;
        let Some(partition) = self.partition(key) else {
            return Ok(());
        };
        self.half_switched.remove(&key);
        if let Some(model) = self.model.partitions.get_mut(&key) {
            // The record is durable. What could be read before an fsync topic begins was synced.
            model.spec.config.durability = to;
            model.watermark_moved(partition.bounds().high_watermark);
        }
        store.finish_durability(&partition, to);
        partition.set_config(self.model.partitions[&key].spec.config.clone());
        self.settle();
        Ok(())
    }

    pub(crate) fn trim(&mut self, key: Key, to: Offset) -> Outcome {
        let Some(partition) = self.partition(key) else {
            return Ok(());
        };
        if let Some(model) = self.model.partitions.get_mut(&key) {
            model.spec.log_start = model.spec.log_start.max(to);
        }
        let trimmed = partition.trim(to);
        self.settle();
        trimmed.map_err(|error| format!("{key:?} is not trimmed to {to}: {error}"))
    }
}

/// Ends the active segment without an append, as retention does.
pub(crate) fn roll(world: &mut World, key: Key) -> Outcome {
    let Some(partition) = world.partition(key) else {
        return Ok(());
    };
    let (end, now) = (partition.bounds().log_end, world.machine.clock.now());
    let rolled = partition.roll(end, now);
    world.settle();
    match rolled {
        Err(error) if !world.faulty => Err(format!("{key:?} is not rolled at {end}: {error}")),
        _ => Ok(()),
    }
}

fn apply<'a>(model: &mut Model, moves: impl Iterator<Item = &'a (Key, Offset, u64)>) {
    for (key, high_watermark, _) in moves {
        if let Some(partition) = model.partitions.get_mut(key) {
            partition.watermark_moved(*high_watermark);
        }
    }
}

/// Everything that can be read, in answers of about this many bytes.
pub(crate) fn read_all(partition: &Partition, bytes_max: usize) -> Outcome<Vec<LogBatch>> {
    let found = read_batches(partition, bytes_max)?;
    for batch in &found {
        batch.verify_crc().map_err(|error| error.to_string())?;
    }
    Ok(found.iter().map(LogBatch::read).collect())
}

/// As [`read_all`], also where checksums are wrong.
pub(crate) fn read_all_unchecked(partition: &Partition) -> Outcome<Vec<LogBatch>> {
    Ok(read_batches(partition, 1 << 20)?
        .iter()
        .map(LogBatch::read)
        .collect())
}

fn read_batches(partition: &Partition, bytes_max: usize) -> Outcome<Vec<Batch>> {
    let mut from = partition.bounds().log_start;
    let mut found = Vec::new();
    loop {
        let limits = ReadLimits {
            bytes_max,
            upto: Offset(u64::MAX),
        };
        let bytes: Bytes = match partition.read(from, limits, ReadMode::Blocking) {
            Ok(Read::Batches { bytes, next }) if !bytes.is_empty() => {
                from = next;
                bytes
            }
            Ok(Read::Batches { .. }) => return Ok(found),
            Ok(Read::Cold) => return Err("a read that may wait found it cold".to_owned()),
            Err(error) => return Err(format!("offset {from} cannot be read: {error}")),
        };
        for batch in batches(bytes) {
            found.push(batch.map_err(|error| error.to_string())?);
        }
    }
}
