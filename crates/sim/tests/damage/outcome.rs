//! One case: damage, `verify`, start, read; and what came of it.

mod reading;
mod verified;

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use sapwood_log::{
    AppendOptions, JournalStep, OfflineReason, OpenError, Partition, PartitionState, Progress,
    Read, ReadLimits, ReadMode, Store,
    inspect::{Finding, Options, Severity, inspect},
};
use sapwood_model::{Durability, Offset, Timestamp};
use sapwood_record::{Batch, BatchBuilder, Codec, Header, RecordInput};
use sapwood_sim::Machine;

use crate::{
    cases::{Cases, Damage},
    scene::{End, Key, Log, LogBatch, ROOT, Scene, open},
};
use reading::{read, read_all};

/// What a case came to. The worst of what happened counts; later is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Everything that is there without the damage is served.
    Whole,
    /// Records that nobody was promised are gone.
    Cut,
    /// A batch is served with the checksum that it has on disk, which does not fit its bytes.
    Checksum,
    OfflineAtRead,
    OfflineAtStart,
    Refused,
    /// Acknowledged records are gone: the damage looks like an end that a crash may leave.
    LooksTorn,
}

pub(crate) const CLASSES: [(Class, &str); 7] = [
    (Class::Whole, "served whole"),
    (Class::Cut, "cut above the promises"),
    (Class::Checksum, "CRC error at the client"),
    (Class::OfflineAtRead, "offline at read"),
    (Class::OfflineAtStart, "offline at start"),
    (Class::Refused, "start refused"),
    (Class::LooksTorn, "looks like a torn tail"),
];

/// What `verify` said about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verified {
    Nothing,
    /// What an unclean stop may leave.
    Unsettled,
    /// What is made anew.
    Rebuildable,
    Damage,
}

#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) class: Class,
    pub(crate) verified: Verified,
    /// Promises that were broken.
    pub(crate) violations: Vec<String>,
    /// What happened, in words.
    pub(crate) story: Vec<String>,
}

/// What the undamaged directory gives, to compare with.
#[derive(Debug)]
pub(crate) struct Sound {
    ends: Vec<(Key, Offset)>,
    producers: Vec<String>,
    times: Vec<Vec<String>>,
}

const TIMES: [i64; 6] = [0, 1_012, 1_030, 1_055, 1_080, 5_000];

/// One partition after the start.
enum Found {
    Batches(Vec<LogBatch>),
    AtStart(Arc<OfflineReason>),
    AtRead(Arc<OfflineReason>),
}

struct Case<'a> {
    scene: &'a Scene,
    cases: &'a Cases,
    damage: Damage,
    class: Class,
    violations: Vec<String>,
    story: Vec<String>,
}

/// Opens the directory as it is.
pub(crate) fn sound(scene: &Scene) -> Sound {
    let machine = scene.machine.fork();
    let findings = verify(&machine).unwrap();
    let bad = |finding: &&Finding| finding.severity == Severity::Damage;
    assert!(
        findings.iter().all(|f| !bad(&f)),
        "{:?}: {findings:#?}",
        scene.end
    );
    let store = open(machine.environment(), machine.disk.boot_id(), scene.specs()).unwrap();
    let mut sound = Sound {
        ends: Vec::new(),
        producers: Vec::new(),
        times: Vec::new(),
    };
    for (key, log) in &scene.logs {
        let partition = store.partition(key.0, key.1).unwrap();
        let end = partition.bounds().log_end;
        assert!(
            end >= log.floor,
            "{:?} {key:?}: {end} {}",
            scene.end,
            log.floor
        );
        sound.ends.push((*key, end));
        sound.producers.push(producers(&partition));
        sound.times.push(times(&partition));
    }
    sound
}

/// What is known of the producers, but for when they were last heard of.
fn producers(partition: &Partition) -> String {
    let states = partition.producers().into_iter();
    let known = states.map(|state| {
        (
            state.id,
            state.epoch,
            state.last_sequence,
            state.last_offset,
        )
    });
    format!("{:?}", known.collect::<Vec<_>>())
}

fn times(partition: &Partition) -> Vec<String> {
    let found = TIMES.map(|at| format!("{:?}", partition.find_timestamp(Timestamp(at))));
    let mut found = found.to_vec();
    found.push(format!("{:?}", partition.find_max_timestamp()));
    found
}

/// Runs one case. Panics in it are violations.
pub(crate) fn run(scene: &Scene, cases: &Cases, sound: &Sound, damage: Damage) -> Verdict {
    let attempt = || {
        let machine = scene.machine.fork();
        cases.apply(damage, &machine.disk);
        let mut case = Case {
            scene,
            cases,
            damage,
            class: Class::Whole,
            violations: Vec::new(),
            story: Vec::new(),
        };
        let verified = case.run(&machine, sound);
        Verdict {
            class: case.class,
            verified,
            violations: case.violations,
            story: case.story,
        }
    };
    catch_unwind(AssertUnwindSafe(attempt)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Verdict {
            class: Class::Whole,
            verified: Verified::Nothing,
            violations: vec![format!("panic: {text:?}")],
            story: Vec::new(),
        }
    })
}

fn verify(machine: &Machine) -> Result<Vec<Finding>, OpenError> {
    let boot_id = machine.disk.boot_id();
    let options = Options {
        checksums: true,
        boot_id: Some(&boot_id),
    };
    let environment = machine.environment();
    let report = inspect(
        &environment,
        Path::new(ROOT),
        &options,
        &Progress::default(),
    )?;
    Ok(report.findings)
}

impl Case<'_> {
    fn run(&mut self, machine: &Machine, sound: &Sound) -> Verified {
        let found = verify(machine);
        let verified = match &found {
            Ok(findings) => {
                for finding in findings {
                    self.story.push(format!("verify: {finding}"));
                }
                let worst = findings.iter().map(|finding| finding.severity).min();
                match worst {
                    Some(Severity::Damage) => Verified::Damage,
                    Some(Severity::Rebuildable) => Verified::Rebuildable,
                    Some(Severity::Unsettled) => Verified::Unsettled,
                    _ => Verified::Nothing,
                }
            }
            Err(error) => {
                self.story.push(format!("verify refuses: {error}"));
                Verified::Damage
            }
        };
        let findings = found.unwrap_or_default();
        self.check_accusations(&findings);
        let opened = open(
            machine.environment(),
            machine.disk.boot_id(),
            self.scene.specs(),
        );
        match opened {
            Err(error) => self.refused(&error, verified),
            Ok(store) => {
                self.look_at(&store, sound, &findings);
                if self.class >= Class::OfflineAtStart {
                    self.start_again(machine, store);
                }
            }
        }
        verified
    }

    fn raise(&mut self, class: Class) {
        self.class = self.class.max(class);
    }

    fn violation(&mut self, what: String) {
        self.violations.push(what);
    }

    fn paths(&self) -> Vec<PathBuf> {
        let places = self.damage.places().into_iter();
        places
            .map(|place| self.cases.places[place].path.clone())
            .collect()
    }

    /// Whether one of the damaged places is this path, in it, or around it.
    fn concerns(&self, path: &Path) -> bool {
        self.paths()
            .iter()
            .any(|damaged| path.starts_with(damaged) || damaged.starts_with(path))
    }

    fn look_at(&mut self, store: &Arc<Store>, sound: &Sound, findings: &[Finding]) {
        for (index, (key, log)) in self.scene.logs.iter().enumerate() {
            let Some(partition) = store.partition(key.0, key.1) else {
                self.violation(format!("{key:?} is not there"));
                continue;
            };
            let found = read_all(&partition);
            let name = format!("{}-{}", log.spec.topic, log.spec.partition);
            match found {
                Err(problem) => self.violation(format!("{name}: {problem}")),
                Ok(Found::AtStart(reason)) => {
                    self.raise(Class::OfflineAtStart);
                    self.offline(&name, log, &reason, findings);
                }
                Ok(Found::AtRead(reason)) => {
                    self.raise(Class::OfflineAtRead);
                    self.offline(&name, log, &reason, findings);
                }
                Ok(Found::Batches(found)) => {
                    let whole = self.served(&name, log, &partition, &found, sound.ends[index].1);
                    if whole {
                        let before = self.violations.len();
                        self.check_lookups(&name, &partition, &found, sound, index);
                        if let PartitionState::Offline { reason } = partition.state() {
                            // By time one comes past what lies below the log start.
                            self.violations.truncate(before);
                            self.raise(Class::OfflineAtRead);
                            self.offline(&name, log, &reason, findings);
                            continue;
                        }
                    }
                    if whole || self.class <= Class::Cut {
                        self.append(&name, store, &partition);
                    }
                }
            }
        }
        let corrupt = self.class == Class::Checksum;
        let found = findings
            .iter()
            .any(|finding| finding.severity == Severity::Damage && self.concerns(&finding.file));
        if corrupt && !found {
            self.violation("verify did not find the damaged batch".to_owned());
        }
    }

    /// Compares what is served with what was appended. Says whether it is all of it.
    fn served(
        &mut self,
        name: &str,
        log: &Log,
        partition: &Partition,
        found: &[LogBatch],
        sound_end: Offset,
    ) -> bool {
        let mut right = true;
        let end = partition.bounds().log_end;
        let mut next = None;
        for batch in found {
            let known = log
                .appended
                .binary_search_by_key(&batch.base, |known| known.base);
            let known = known.ok().map(|at| &log.appended[at]);
            let intact = Batch::split(batch.bytes.clone()).is_ok_and(|b| b.verify_crc().is_ok());
            match known {
                Some(known) if known.bytes == batch.bytes => {}
                _ if !intact => {
                    right = false;
                    self.raise(Class::Checksum);
                    self.story
                        .push(format!("{name}: CRC error at {}", batch.base));
                }
                _ => {
                    right = false;
                    self.violation(format!(
                        "{name}: a wrong record is served at {}",
                        batch.base
                    ));
                }
            }
            if next.is_some_and(|next| next != batch.base) {
                self.violation(format!("{name}: {} follows {next:?}", batch.base));
            }
            next = Some(batch.next);
        }
        let start = log.spec.log_start;
        let covers = match found.first() {
            Some(first) => first.base <= start && next == Some(end),
            None => end == start,
        };
        if !covers {
            right = false;
            self.violation(format!("{name}: {start}..{end} is not what can be read"));
        }
        if end < log.floor.max(start) {
            right = false;
            let text = format!("{name} ends at {end}, promised was {}", log.floor);
            if end >= log.checkpoint && self.may_look_torn(name, log) {
                self.raise(Class::LooksTorn);
                self.story.push(text);
            } else {
                self.violation(format!("acknowledged records are silently missing: {text}"));
            }
        } else if end < sound_end {
            right = false;
            self.raise(Class::Cut);
            self.story
                .push(format!("{name} ends at {end} instead of {sound_end}"));
        }
        right
    }

    /// What no recovery can tell from an end that a crash leaves: the end of an os topic, which is in
    /// no journal, and the last round of the journal after a power cut.
    fn may_look_torn(&self, name: &str, log: &Log) -> bool {
        let folder = Path::new(ROOT).join("topics").join(name);
        match log.spec.config.durability {
            Durability::Os => self.scene.end != End::CleanStop && self.concerns(&folder),
            Durability::Fsync => {
                self.scene.end == End::PowerCut
                    && self.concerns(&Path::new(ROOT).join("journal"))
                    && self.reaches_last_round()
            }
        }
    }

    fn reaches_last_round(&self) -> bool {
        let Some((last, from)) = &self.scene.last_round else {
            return false;
        };
        let upto = |at: usize| at as u64 + 4096 > *from;
        self.paths().contains(last)
            && match self.damage {
                Damage::Flip { at, .. } => upto(at),
                Damage::Cut { .. } | Damage::Remove { .. } | Damage::Older { .. } => true,
                Damage::ZeroSector { at, .. } | Damage::ZeroPage { at, .. } => upto(at),
                Damage::Misdirect { to, .. } => upto(to.1),
                Damage::Swap { .. } => false,
                Damage::Unreadable { .. } => false,
            }
    }

    /// Every batch is found by its offset, and by its time, as without the damage.
    fn check_lookups(
        &mut self,
        name: &str,
        partition: &Partition,
        found: &[LogBatch],
        sound: &Sound,
        index: usize,
    ) {
        if partition.bounds().log_end != sound.ends[index].1 {
            return;
        }
        if sound.producers[index] != producers(partition) {
            self.violation(format!("{name}: other producers are known"));
        }
        let here = Path::new(ROOT).join("topics").join(name);
        if !self.concerns(&here) {
            return;
        }
        let times = times(partition);
        if times != sound.times[index] {
            self.violation(format!(
                "{name}: by time {times:?}, not {:?}",
                sound.times[index]
            ));
        }
        for batch in found {
            let from = batch.base.max(partition.bounds().log_start);
            match read(partition, from, 1) {
                Ok(bytes) if bytes == batch.bytes => {}
                other => self.violation(format!("{name}: offset {from} reads {other:?}")),
            }
        }
    }

    /// The partition goes on where its log ends.
    fn append(&mut self, name: &str, store: &Store, partition: &Partition) {
        let mut builder = BatchBuilder::new(Codec::None);
        let record = RecordInput {
            timestamp: Timestamp(9_000),
            key: None,
            value: Some(b"after the damage"),
            headers: &[],
        };
        builder.push(record).unwrap();
        let batch = builder.build().unwrap();
        let end = partition.bounds().log_end;
        match partition.append(&batch, AppendOptions::default(), Timestamp(9_000)) {
            Ok(appended) if appended.base_offset == end => {}
            other => return self.violation(format!("{name}: an append comes to {other:?}")),
        }
        while store.step_journal() == JournalStep::Synced {}
        let read = read(partition, end, 1 << 20).map(|bytes| bytes.len());
        if read != Ok(batch.to_bytes().len()) {
            let bounds = partition.bounds();
            self.violation(format!("{name}: the append reads {read:?}, {bounds:?}"));
        }
    }

    /// A second start must not turn what is offline into a log with a hole.
    fn start_again(&mut self, machine: &Machine, store: Arc<Store>) {
        drop(store);
        machine.disk.kill();
        let opened = open(
            machine.environment(),
            machine.disk.boot_id(),
            self.scene.specs(),
        );
        let store = match opened {
            Ok(store) => store,
            Err(error) => {
                self.story.push(format!("refused the second time: {error}"));
                let topics = Path::new(ROOT).join("topics");
                if self.paths().iter().all(|path| path.starts_with(&topics)) {
                    self.violation(format!("the second start is refused: {error}"));
                }
                return;
            }
        };
        for (key, log) in &self.scene.logs {
            let Some(partition) = store.partition(key.0, key.1) else {
                continue;
            };
            let Ok(Found::Batches(found)) = read_all(&partition) else {
                continue;
            };
            let end = partition.bounds().log_end;
            if end < log.floor && !self.may_look_torn("", log) {
                let floor = log.floor;
                self.violation(format!(
                    "{key:?} came back with {end} instead of {floor} at the second start"
                ));
            }
            for batch in found {
                let known = log.appended.iter().find(|known| known.base == batch.base);
                let split = Batch::split(batch.bytes.clone());
                let intact = split.is_ok_and(|batch| batch.verify_crc().is_ok());
                let appended_here = batch.base >= log.floor;
                let right = known.is_some_and(|known| known.bytes == batch.bytes);
                if intact && !right && !appended_here {
                    let base = batch.base;
                    self.violation(format!("{key:?}: wrong at {base} at the second start"));
                }
            }
        }
    }
}

/// The name of a partition's folder.
fn folder(log: &Log) -> String {
    format!("{}-{}", log.spec.topic, log.spec.partition)
}
