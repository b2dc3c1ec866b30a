//! A store that runs on the simulated machine, beside the model of what it must do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use sapwood_log::io::{Clock, Disk};
use sapwood_log::{
    AppendError, AppendOptions, DataDir, JournalStep, LogConfig, Partition, PartitionObserver,
    PartitionSpec, PartitionState, Progress, Read, ReadLimits, ReadMode, RecoveryReport, Store,
    StoreOptions,
};
use sapwood_model::{Durability, Offset, PartitionId, TopicId, TopicName};
use sapwood_record::{Batch, batches};
use sapwood_sim::{Machine, PAGE_BYTES, Rng, SimDisk};

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
    pub(crate) segment_bytes: u64,
    store: Option<Arc<Store>>,
    partitions: BTreeMap<Key, Arc<Partition>>,
    moves: Arc<Moves>,
    pub(crate) tally: Tally,
    /// Appends that a faulty or full disk refused.
    refused: u64,
    /// Topics that may wait for the journal although the catalog says os: becoming fsync failed.
    half_switched: BTreeSet<Key>,
}

/// What a workload reached, so that one that reaches nothing is noticed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) rounds: u64,
    pub(crate) stalls: u64,
    /// The most segments that one partition had.
    pub(crate) segments: u64,
    pub(crate) restarts: u64,
}

pub(crate) type Outcome<T = ()> = Result<T, String>;

impl World {
    pub(crate) fn new(machine: Machine, model: Model) -> World {
        World {
            machine,
            model,
            survivors: Vec::new(),
            faulty: false,
            segment_bytes: 6 * 1024,
            store: None,
            partitions: BTreeMap::new(),
            moves: Arc::default(),
            tally: Tally::default(),
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
    }

    pub(crate) fn journal_folder(&self) -> PathBuf {
        Path::new(DATA).join("journal")
    }

    fn options(&self) -> StoreOptions {
        StoreOptions {
            ballast_bytes: 16 * 1024,
            journal_file_bytes: 64 * 1024,
            journal_files: 3,
            boot_id: self.machine.disk.boot_id(),
            ..StoreOptions::default()
        }
    }

    /// Takes the copies that the disk made during the call that just returned, while the model still
    /// says what was promised before it, and then what the call has promised.
    fn settle(&mut self) {
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

    // --- start and stop ---

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
            let ended = self.model.ended;
            self.check_recovered(key, &partition, report)
                .map_err(|error| {
                    format!("partition {key:?} after {ended:?}: {error}; {report:?}")
                })?;
            self.watch(key, partition);
        }
        self.model.ended = End::Clean;
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
        let ended = self.model.ended;
        let model = self.model.partitions.get_mut(&key).ok_or("unknown")?;
        model.check(&found, bounds.log_end, ended)?;
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
        model.recovered(&found, bounds.log_end, epoch, ended);
        Ok(())
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
        if topics.len() != self.model.partitions.len() {
            return Err(format!(
                "{} partitions have folders {topics:?}",
                self.model.partitions.len()
            ));
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
        self.model.ended = self.model.ended.max(end);
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

    // --- a disk that is full ---

    /// Leaves room for this many pages, and lets calls fail from now on as a full disk may make them.
    pub(crate) fn fill_disk(&mut self, pages: u64) -> Outcome {
        let space = self
            .machine
            .disk
            .space(Path::new(DATA))
            .map_err(|error| error.to_string())?;
        let used = space.total_bytes - space.free_bytes;
        self.machine
            .disk
            .set_capacity(Some(used + pages * PAGE_BYTES));
        self.faulty = true;
        self.refused = 0;
        Ok(())
    }

    /// A full disk takes nothing offline and nothing read-only, and a topic can be deleted. Returns how
    /// many appends it refused.
    pub(crate) fn check_full(&mut self) -> Outcome<u64> {
        if let Some(reason) = self.store()?.read_only() {
            return Err(format!(
                "a full disk made the data directory read-only: {reason}"
            ));
        }
        for (key, partition) in &self.partitions {
            if let PartitionState::Offline { reason } = partition.state() {
                return Err(format!("a full disk took {key:?} offline: {reason}"));
            }
        }
        let topic = self.model.names.keys().next().copied().ok_or("no topics")?;
        self.faulty = false;
        self.delete_topic(topic)?;
        Ok(self.refused)
    }

    // --- a disk that is damaged ---

    /// Opens after a byte of this file was changed. `None` if the start is refused, which must not be
    /// for one partition's sake; else how many partitions are offline. What is online has everything.
    pub(crate) fn open_damaged(&mut self, path: &Path) -> Outcome<Option<usize>> {
        let in_topics = path.starts_with(Path::new(DATA).join("topics"));
        let dir = DataDir::open(self.machine.environment(), Path::new(DATA));
        let opened = dir.and_then(|dir| {
            Store::open(
                dir,
                self.options(),
                self.model.known(),
                &Progress::default(),
            )
        });
        let (store, report) = match opened {
            Ok(opened) => opened,
            Err(error) if in_topics => return Err(format!("the store does not open: {error}")),
            Err(_) => return Ok(None),
        };
        let mut offline = 0;
        for (key, model) in &self.model.partitions {
            let partition = store
                .partition(key.0, key.1)
                .ok_or_else(|| format!("{key:?} is not there"))?;
            let found = read_all_unchecked(&partition);
            let state = partition.state();
            let is_its_file = path.starts_with(partition_folder(model));
            match (found, state) {
                (_, PartitionState::Offline { reason }) if in_topics && !is_its_file => {
                    return Err(format!("{key:?} is offline too: {reason}"));
                }
                (_, PartitionState::Offline { reason }) => {
                    if !reason.to_string().contains(DATA) {
                        return Err(format!("{key:?} is offline and names no file: {reason}"));
                    }
                    offline += 1;
                }
                (Err(error), PartitionState::Online) => return Err(format!("{key:?}: {error}")),
                // The client sees from the checksum that a batch was changed where it lay.
                (Ok(found), _) if !found.iter().all(LogBatch::is_intact) => {}
                (Ok(found), PartitionState::Online) => {
                    let end = partition.bounds().log_end;
                    model
                        .check(&found, end, self.model.ended)
                        .map_err(|error| format!("{key:?}: {error}; {report:?}"))?;
                }
            }
        }
        Ok(Some(offline))
    }

    // --- topics ---

    pub(crate) fn create_topic(
        &mut self,
        name: &str,
        partitions: u32,
        durability: Durability,
    ) -> Outcome<TopicId> {
        self.model.topics_made += 1;
        let topic_id = TopicId(self.model.topics_made);
        let topic = TopicName::new(name).map_err(|error| error.to_string())?;
        self.model.names.insert(topic_id, topic.clone());
        for number in 0..partitions {
            let partition = PartitionId(number);
            let config = LogConfig {
                durability,
                segment_bytes: self.segment_bytes,
                index_interval_bytes: 1024,
                ..LogConfig::default()
            };
            let spec = PartitionSpec {
                topic: topic.clone(),
                topic_id,
                partition,
                log_start: Offset::ZERO,
                config,
            };
            let key = (topic_id, partition);
            self.model
                .partitions
                .insert(key, PartitionModel::new(spec.clone()));
            let created = self.store()?.create_partition(spec);
            self.settle();
            match created {
                Ok(partition) => self.watch(key, partition),
                Err(_) if self.faulty => {}
                Err(error) => return Err(format!("{key:?} is not created: {error}")),
            }
        }
        Ok(topic_id)
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

    pub(crate) fn switch(&mut self, key: Key, to: Durability) -> Outcome {
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
        if let Some(model) = self.model.partitions.get_mut(&key) {
            model.spec.config.durability = to;
            model.watermark_moved(partition.bounds().high_watermark);
            if to == Durability::Fsync && model.power_floor < model.end {
                // Nothing is appended in this test between the two halves: the checkpoint has it all.
                model.power_floor = model.end;
            }
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

    // --- records ---

    pub(crate) fn append(&mut self, key: Key, batch: &Batch, urgent: bool) -> Outcome {
        let Some(partition) = self.partition(key) else {
            return Ok(());
        };
        let now = self.machine.clock.now();
        let Some(model) = self.model.partitions.get_mut(&key) else {
            return Ok(());
        };
        let stamped = LogBatch::stamped(batch, model.end, partition.leader_epoch());
        model.in_flight = Some(stamped.clone());
        let options = AppendOptions {
            expected_end: None,
            urgent,
        };
        let appended = partition.append(batch, options, now);
        if let Ok(appended) = &appended
            && (appended.duplicate || appended.base_offset != stamped.base)
        {
            return Err(format!("{key:?}: {appended:?} for {stamped:?}"));
        }
        // The high watermark of an os topic has moved; before it is noted, the batch is.
        self.settle();
        let model = self.model.partitions.get_mut(&key).ok_or("unknown")?;
        match appended {
            Ok(_) => {
                model.in_flight = None;
                model.end = stamped.next;
                model.log.push(stamped);
            }
            Err(AppendError::Offline { .. }) if self.faulty => {} // how far it came is not known
            Err(_) if self.faulty => {
                model.in_flight = None;
                self.refused += 1;
            }
            Err(error) => {
                let model = model.describe();
                return Err(format!(
                    "{key:?}: {stamped:?} is not appended: {error}; {model}"
                ));
            }
        }
        Ok(())
    }

    /// Sends a batch again that is in the log.
    pub(crate) fn retry(&mut self, key: Key, batch: &Batch, base: Offset) -> Outcome {
        let Some(partition) = self.partition(key) else {
            return Ok(());
        };
        let now = self.machine.clock.now();
        let appended = partition.append(batch, AppendOptions::default(), now);
        self.settle();
        match appended {
            Ok(appended) if appended.duplicate && appended.base_offset == base => Ok(()),
            Err(AppendError::Offline { .. } | AppendError::ReadOnly { .. }) if self.faulty => {
                Ok(())
            }
            other => Err(format!(
                "{key:?}: a retry of the batch at {base} came to {other:?}"
            )),
        }
    }

    // --- steps of the background ---

    pub(crate) fn step_journal(&mut self) -> Outcome<JournalStep> {
        let step = self.store()?.step_journal();
        self.settle();
        if step == JournalStep::ReadOnly && !self.faulty {
            return Err(format!("read-only: {:?}", self.store()?.read_only()));
        }
        Ok(step)
    }

    /// Everything that waits becomes durable.
    pub(crate) fn flush(&mut self) -> Outcome {
        loop {
            match self.step_journal()? {
                JournalStep::Synced => {}
                JournalStep::Full => {
                    let before = self.store()?.metrics().journal_rounds.get();
                    self.step_maintenance()?;
                    let step = self.step_journal()?;
                    let after = self.store()?.metrics().journal_rounds.get();
                    if step == JournalStep::Full && before == after {
                        return if self.faulty {
                            Ok(())
                        } else {
                            Err("stays full".to_owned())
                        };
                    }
                }
                JournalStep::Idle => break,
                JournalStep::ReadOnly => return Ok(()),
            }
        }
        for (key, partition) in &self.partitions {
            let bounds = partition.bounds();
            let online = matches!(partition.state(), PartitionState::Online);
            if online && bounds.high_watermark != bounds.log_end {
                return Err(format!("{key:?}: the journal is idle and {bounds:?}"));
            }
        }
        Ok(())
    }

    pub(crate) fn step_maintenance(&mut self) -> Outcome {
        let done = self.store()?.step_maintenance();
        self.settle();
        match done {
            Err(error) if !self.faulty => Err(format!("maintenance: {error}")),
            _ => Ok(()),
        }
    }

    pub(crate) fn checkpoint(&mut self) -> Outcome {
        let done = self.store()?.checkpoint();
        self.settle();
        match done {
            Ok(()) => {
                for (key, partition) in &self.partitions {
                    let online = matches!(partition.state(), PartitionState::Online);
                    if let Some(model) = self.model.partitions.get_mut(key).filter(|_| online) {
                        model.power_floor = model.end;
                    }
                }
                Ok(())
            }
            Err(_) if self.faulty => Ok(()),
            Err(error) => Err(format!("checkpoint: {error}")),
        }
    }

    /// What can be read now is what was appended, and ends at the high watermark.
    pub(crate) fn check_live(&mut self, key: Key, bytes_max: usize) -> Outcome {
        let Some(partition) = self.partition(key) else {
            return Ok(());
        };
        let bounds = partition.bounds();
        let found = match read_all(&partition, bytes_max) {
            Ok(found) => found,
            Err(_) if self.faulty && self.partition(key).is_none() => return Ok(()),
            Err(error) => return Err(format!("{key:?}: {error}")),
        };
        let model = &self.model.partitions[&key];
        if bounds.log_end != model.end || bounds.log_start != model.spec.log_start {
            return Err(format!(
                "{key:?}: {bounds:?}, expected the end {}",
                model.end
            ));
        }
        let is_os = model.durability() == Durability::Os && !self.half_switched.contains(&key);
        if is_os && bounds.high_watermark != bounds.log_end {
            return Err(format!("{key:?}: os topic with {bounds:?}"));
        }
        let visible = bounds.high_watermark;
        let end = found.last().map_or(bounds.log_start, |last| last.next);
        if end > visible {
            return Err(format!(
                "{key:?}: read to {end}, the high watermark is {visible}"
            ));
        }
        let shown = PartitionModel {
            kill_floor: visible.min(end),
            ..model.clone()
        };
        shown
            .check(&found, end, End::Kill)
            .map_err(|error| format!("{key:?}: {error}"))
    }
}

fn apply<'a>(model: &mut Model, moves: impl Iterator<Item = &'a (Key, Offset, u64)>) {
    for (key, high_watermark, _) in moves {
        if let Some(partition) = model.partitions.get_mut(key) {
            partition.watermark_moved(*high_watermark);
        }
    }
}

fn partition_folder(model: &PartitionModel) -> PathBuf {
    let name = format!("{}-{}", model.spec.topic, model.spec.partition);
    Path::new(DATA).join("topics").join(name)
}

/// Everything that can be read, in answers of about this many bytes.
fn read_all(partition: &Partition, bytes_max: usize) -> Outcome<Vec<LogBatch>> {
    let found = read_batches(partition, bytes_max)?;
    for batch in &found {
        batch.verify_crc().map_err(|error| error.to_string())?;
    }
    Ok(found.iter().map(LogBatch::read).collect())
}

/// As [`read_all`], also where checksums are wrong.
fn read_all_unchecked(partition: &Partition) -> Outcome<Vec<LogBatch>> {
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
