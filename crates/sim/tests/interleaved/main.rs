//! Two threads in one store, and then a crash: while one takes a checkpoint, seals, trims, deletes,
//! changes a topic's durability, commits or closes, another one gets a turn just before one of the first
//! one's events on the disk. Whatever was promised by then must be there after a kill or a power cut at
//! any later durability event.
//!
//! `SAPWOOD_SIM_SEEDS` says how many seeds to run, `SAPWOOD_SIM_SEED` runs that one, and
//! `SAPWOOD_SIM_EVENTS=all` gives the turn at every event instead of a few.
#![allow(clippy::unwrap_used)] // The helpers of a test fail it by panicking.

mod descriptors;
mod disk;
mod promises;
mod read_only;
mod write_out;

use std::{env, path::Path, sync::Arc};

use sapwood_log::{
    AppendError, AppendOptions, DataDir, JournalStep, Known, LogConfig, Partition, PartitionSpec,
    PartitionState, Progress, Read, ReadLimits, ReadMode, Store, StoreOptions,
    io::{Disk, Environment},
};
use sapwood_model::{Durability, Offset, PartitionId, Timestamp, TopicId, TopicName};
use sapwood_record::{Batch, BatchBuilder, Codec, RecordInput, batches};
use sapwood_sim::{Capture, Machine, Rng, SimDisk};

use disk::{MAY_WAIT, SharedDisk, Shortage, Turn};
use promises::{Key, Moment, Owed, Promises, Watch};

const DATA: &str = "/data";
const FSYNC: u128 = 1;
const OS: u128 = 2;
const DOOMED: u128 = 3;
const WARM_UP: usize = 25;

/// What a thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// A batch for every partition.
    Append,
    /// The same, and rounds until nothing waits.
    Commit,
    /// Enough to begin new segments, and rounds until nothing waits.
    Roll,
    Checkpoint,
    Maintain,
    /// The log start of every partition moves.
    Trim,
    Delete,
    ToFsync,
    ToOs,
    /// A clean stop.
    Close,
}

const FIRST: [Work; 9] = [
    Work::Commit,
    Work::Roll,
    Work::Checkpoint,
    Work::Maintain,
    Work::Trim,
    Work::Delete,
    Work::ToFsync,
    Work::ToOs,
    Work::Close,
];
const SECOND: [Work; 7] = [
    Work::Append,
    Work::Commit,
    Work::Roll,
    Work::Checkpoint,
    Work::Maintain,
    Work::Trim,
    Work::Delete,
];

fn specs() -> Vec<PartitionSpec> {
    let spec = |id, number, durability| PartitionSpec {
        topic: TopicName::new(&format!("topic-{id}")).unwrap(),
        topic_id: TopicId(id),
        partition: PartitionId(number),
        log_start: Offset::ZERO,
        config: LogConfig {
            durability,
            segment_bytes: 4_000,
            index_interval_bytes: 700,
            ..LogConfig::default()
        },
    };
    vec![
        spec(FSYNC, 0, Durability::Fsync),
        spec(FSYNC, 1, Durability::Fsync),
        spec(OS, 0, Durability::Os),
        spec(DOOMED, 0, Durability::Fsync),
    ]
}

fn options(disk: &SimDisk) -> StoreOptions {
    StoreOptions {
        ballast_bytes: 0,
        journal_file_bytes: 64 << 10,
        journal_files: 3,
        boot_id: disk.boot_id(),
        ..StoreOptions::default()
    }
}

/// A new store on a machine whose disk has turns and may lack descriptors.
fn open_new(machine: &Machine, turn: &Arc<Turn>, shortage: &Arc<Shortage>) -> Arc<Store> {
    let disk = Arc::new(SharedDisk {
        disk: Arc::new(machine.disk.process()),
        turn: Arc::clone(turn),
        shortage: Arc::clone(shortage),
    });
    let environment = Environment {
        disk,
        ..machine.environment()
    };
    let dir = DataDir::open(environment, Path::new(DATA)).unwrap();
    let nothing = Known {
        partitions: Vec::new(),
        deleted: Vec::new(),
    };
    let opened = Store::open(dir, options(&machine.disk), nothing, &Progress::default());
    opened.unwrap().0
}

/// What both threads share.
#[derive(Debug, Clone)]
struct Shared {
    store: Arc<Store>,
    promises: Arc<Promises>,
    seed: u64,
}

impl Shared {
    fn partitions(&self) -> Vec<Arc<Partition>> {
        let online =
            |partition: &Arc<Partition>| matches!(partition.state(), PartitionState::Online);
        self.store.partitions().into_iter().filter(online).collect()
    }

    fn act(&self, work: Work, rng: &mut Rng) {
        match work {
            Work::Append => self.append(rng, 1),
            Work::Commit => {
                self.append(rng, 1);
                self.commit();
            }
            Work::Roll => {
                self.append(rng, 12);
                self.commit();
            }
            Work::Checkpoint => self.store.checkpoint().unwrap(),
            Work::Maintain => self.store.step_maintenance().unwrap(),
            Work::Trim => self.trim(rng),
            Work::Delete => {
                let topic = TopicId(DOOMED);
                self.promises.note(Moment::Deleted(topic));
                let name = TopicName::new("topic-3").unwrap();
                self.store.delete_topic(&name, topic).unwrap();
            }
            Work::ToFsync => self.switch(OS, Durability::Fsync),
            Work::ToOs => self.switch(FSYNC, Durability::Os),
            Work::Close => self.store.close().unwrap(),
        }
    }

    /// Appends to every partition. One that was deleted or closed meanwhile refuses.
    fn append(&self, rng: &mut Rng, batches: u64) {
        for partition in self.partitions() {
            for _ in 0..batches {
                let batch = batch(rng);
                while self
                    .append_at_end(&partition, &batch, rng.chance(1, 2))
                    .is_none()
                {}
            }
        }
    }

    /// `None` when the other thread appended meanwhile. A partition that was deleted or closed
    /// meanwhile takes nothing.
    fn append_at_end(&self, partition: &Arc<Partition>, batch: &Batch, urgent: bool) -> Option<()> {
        let base = partition.bounds().log_end;
        let options = AppendOptions {
            expected_end: Some(base),
            urgent,
        };
        let mut stamped = batch.clone();
        stamped.header_mut().set_base_offset(base);
        stamped
            .header_mut()
            .set_leader_epoch(partition.leader_epoch());
        let key = key(&partition.spec());
        // Known before anybody can see it, and forgotten if it was not appended after all.
        self.promises.append(key, base, stamped.to_bytes());
        let appended = partition.append(batch, options, Timestamp(0));
        if appended.is_err() {
            self.promises.take_back(key, base, &stamped.to_bytes());
        }
        match appended {
            Err(AppendError::ExpectedEnd { .. }) => None,
            _ => Some(()),
        }
    }

    fn commit(&self) {
        for _ in 0..100 {
            match self.store.step_journal() {
                JournalStep::Idle => return,
                JournalStep::Synced => {}
                JournalStep::Full => self.store.checkpoint().unwrap(),
                JournalStep::ReadOnly => panic!("read-only: {:?}", self.store.read_only()),
            }
        }
    }

    fn trim(&self, rng: &mut Rng) {
        for partition in self.partitions() {
            let bounds = partition.bounds();
            let room = bounds.high_watermark.0 - bounds.log_start.0;
            let to = Offset(bounds.log_start.0 + rng.below(room + 1));
            self.promises
                .note(Moment::LogStart(key(&partition.spec()), to));
            // Of a topic that was deleted meanwhile there is nothing to trim.
            let _ = partition.trim(to);
        }
    }

    fn switch(&self, topic: u128, to: Durability) {
        for partition in self.partitions() {
            if partition.spec().topic_id != TopicId(topic) {
                continue;
            }
            self.store.begin_durability(&partition, to).unwrap();
            self.promises
                .note(Moment::Durability(key(&partition.spec()), to));
            self.store.finish_durability(&partition, to);
        }
    }
}

fn key(spec: &PartitionSpec) -> Key {
    (spec.topic_id, spec.partition)
}

fn batch(rng: &mut Rng) -> Batch {
    let mut builder = BatchBuilder::new(Codec::None);
    for _ in 0..1 + rng.below(3) {
        let value: Vec<u8> = (0..rng.below(500)).map(|_| rng.next_u64() as u8).collect();
        let record = RecordInput {
            timestamp: Timestamp(1_000 + rng.below(1_000) as i64),
            key: None,
            value: Some(&value),
            headers: &[],
        };
        builder.push(record).unwrap();
    }
    builder.build().unwrap()
}

/// One run: a warm-up, the first thread's work with the second one's turn at its event `at`, and some
/// work after. Checks every later stop. Returns whether the turn came, and how many stops and survivors
/// were checked.
fn run(seed: u64, first: Work, second: Work, at: u64, all: bool) -> (bool, u64, u64) {
    let mut rng = Rng::new(seed);
    let machine = Machine::new(seed);
    let turn = Arc::new(Turn::default());
    let promises = Promises::new(machine.disk.clone(), specs());
    let store = open_new(&machine, &turn, &Arc::default());
    let shared = Shared {
        store,
        promises,
        seed,
    };
    for partition in shared.store.create_partitions(specs()).unwrap() {
        shared.watch(&partition);
    }
    for _ in 0..WARM_UP {
        let work = *rng.pick(&[Work::Append, Work::Append, Work::Append, Work::Commit]);
        let work = if rng.chance(1, 10) {
            Work::Checkpoint
        } else {
            work
        };
        let work = if rng.chance(1, 10) {
            Work::Maintain
        } else {
            work
        };
        shared.act(work, &mut rng);
    }
    machine.disk.capture(Some(Capture::Syncs));
    let other = shared.clone();
    let mut others = Rng::new(seed ^ 0x0DD);
    turn.arm(
        at,
        MAY_WAIT,
        Box::new(move || other.act(second, &mut others)),
    );
    shared.act(first, &mut rng);
    let (came, _) = turn.end();
    if first != Work::Close {
        shared.act(Work::Commit, &mut rng);
        shared.act(Work::Maintain, &mut rng);
        shared.act(Work::Append, &mut rng);
    }
    let (mut stops, mut survivors) = (0, 0);
    if came {
        for captured in machine.disk.take_captured() {
            stops += 1;
            let ways = [false, true, true];
            let one = rng.below(3) as usize;
            let ways = if all { &ways[..] } else { &ways[one..=one] };
            for &power_cut in ways {
                survivors += 1;
                let survivor = captured.disk.fork();
                if power_cut {
                    survivor.power_cut(&mut rng);
                }
                if let Err(error) = shared.check(&survivor, captured.step, power_cut) {
                    panic!(
                        "{first:?}, then {second:?} before its event {at}, stopped at step {}, {}: \
                         {error}\nrun again with SAPWOOD_SIM_SEED={seed} SAPWOOD_SIM_EVENTS=all",
                        captured.step,
                        if power_cut { "power cut" } else { "kill" },
                    );
                }
            }
        }
    }
    (came, stops, survivors)
}

impl Shared {
    fn watch(&self, partition: &Partition) {
        partition.observe(Arc::new(Watch {
            key: key(&partition.spec()),
            promises: Arc::clone(&self.promises),
        }));
    }

    /// Opens a disk that was copied at `step` and compares what it holds with what was promised by then.
    fn check(&self, disk: &SimDisk, step: u64, power_cut: bool) -> Result<(), String> {
        let (known, owed) = self.promises.at(step);
        let environment = Environment {
            disk: Arc::new(disk.process()) as Arc<dyn Disk>,
            ..sapwood_sim::environment(self.seed)
        };
        let dir = DataDir::open(environment, Path::new(DATA)).map_err(|e| e.to_string())?;
        let opened = Store::open(dir, options(disk), known, &Progress::default());
        let (store, report) = opened.map_err(|e| e.to_string())?;
        if !report.journal_damage.is_empty() {
            return Err(format!("{:?}", report.journal_damage));
        }
        for owed in owed {
            let key = key(&owed.spec);
            let partition = store.partition(key.0, key.1).ok_or("it is not there")?;
            self.check_partition(&partition, &owed, power_cut)
                .map_err(|e| format!("{key:?}: {e}; owed {owed:?}"))?;
        }
        Ok(())
    }

    fn check_partition(
        &self,
        partition: &Partition,
        owed: &Owed,
        power_cut: bool,
    ) -> Result<(), String> {
        if let PartitionState::Offline { reason } = partition.state() {
            return Err(format!("offline: {reason}"));
        }
        let bounds = partition.bounds();
        let floor = match power_cut {
            true => owed.after_power_cut,
            false => owed.after_kill,
        };
        if bounds.log_start != owed.spec.log_start || bounds.log_end < floor {
            return Err(format!("{bounds:?}, promised was {floor}"));
        }
        let key = key(&owed.spec);
        let (mut from, mut next) = (bounds.log_start, None);
        loop {
            let limits = ReadLimits {
                bytes_max: 1 << 20,
                upto: Offset(u64::MAX),
            };
            let read = partition.read(from, limits, ReadMode::Blocking);
            let Read::Batches { bytes, next: upto } = read.map_err(|e| e.to_string())? else {
                return Err("cold".into());
            };
            if bytes.is_empty() {
                break;
            }
            from = upto;
            for batch in batches(bytes) {
                let batch = batch.map_err(|e| e.to_string())?;
                let base = batch.header().base_offset();
                if !self.promises.was_appended(key, base, &batch.to_bytes()) {
                    return Err(format!("the batch at {base} was never appended there"));
                }
                if next.is_some_and(|next| next != base) {
                    return Err(format!("{base} follows {next:?}"));
                }
                next = Some(batch.header().next_offset());
            }
        }
        if next.unwrap_or(bounds.log_end) != bounds.log_end {
            return Err(format!("read to {next:?}, {bounds:?}"));
        }
        Ok(())
    }
}

#[test]
fn promises_hold_when_two_threads_meet_and_the_machine_stops() {
    let number = |name: &str| env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let seeds = match number("SAPWOOD_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..1 + number("SAPWOOD_SIM_SEEDS").unwrap_or(1),
    };
    let all = env::var("SAPWOOD_SIM_EVENTS").is_ok_and(|value| value == "all");
    for seed in seeds {
        println!("promises_hold_when_two_threads_meet: seed {seed}");
        let mut rng = Rng::new(seed);
        let (mut meetings, mut stops, mut survivors) = (0_u64, 0_u64, 0_u64);
        for first in FIRST {
            for second in SECOND {
                // How many events there are is not known before: where the turn does not come, there
                // were fewer.
                let far = *rng.pick(&[3, 12, 50]);
                let from = if all { 0 } else { rng.below(far) };
                for at in from.. {
                    let (came, stopped, survived) = run(seed, first, second, at, all);
                    meetings += u64::from(came);
                    stops += stopped;
                    survivors += survived;
                    if !came || !all {
                        break;
                    }
                }
            }
        }
        println!("seed {seed}: {meetings} meetings, {stops} stops, {survivors} survivors");
        assert!(meetings > 30, "{meetings} meetings");
    }
}
