//! One producer: makes records when they are due and hands them to its protocol.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::Arc,
};

use sapwood_record::crc32c;

use crate::{
    Error,
    clock::{Clock, Schedule, sharpen_timers, sleep_until},
    latency::Latencies,
    ledger::Sent,
    plan::Plan,
    shape::{Shape, Stamp},
    watch::Watch,
};

/// After so many records without a pause, what was handed over is looked after.
const TURN_RECORDS: usize = 128;
/// How many different errors a report shows.
const ERROR_KINDS_MAX: usize = 20;

/// A record on its way to a protocol, which copies it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outgoing<'a> {
    pub(crate) partition: u32,
    /// Its number among the records of this producer for this partition.
    pub(crate) sequence: u64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: &'a [u8],
    /// What its latency counts from.
    pub(crate) due_ns: u64,
}

/// How a protocol takes records.
pub(crate) trait Outlet: Send {
    /// Whether another record is taken now. When not, it comes later; its latency counts on.
    fn has_room(&self) -> bool;

    /// Takes a record.
    fn push(&mut self, record: Outgoing<'_>) -> Result<(), Error>;

    /// Sends what can be sent now. Says when it wants to be called again even if nothing happens.
    fn pump(&mut self) -> Result<Option<u64>, Error>;

    /// Returns when the broker has answered, at the latest at `until_ns`. It may return earlier.
    fn wait(&mut self, until_ns: Option<u64>) -> Result<(), Error>;

    /// Sends the rest, waits for all answers, and tells what came of it.
    fn finish(self: Box<Self>) -> Result<Tally, Error>;
}

/// Everything that one producer has to know.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) plan: Arc<Plan>,
    /// Its number, from 0.
    pub(crate) producer: u32,
    /// How many partitions the topic has.
    pub(crate) partitions: u32,
    /// The random number of the run.
    pub(crate) run: u32,
    pub(crate) clock: Clock,
    pub(crate) start_ns: u64,
    pub(crate) pool: Arc<[u8]>,
    pub(crate) watch: Arc<Watch>,
}

/// What a producer did.
#[derive(Debug)]
pub(crate) struct Produced {
    pub(crate) tally: Tally,
    pub(crate) sent: Sent,
    /// How long after they were due records were made: the generator's own lateness, and the broker's where it had
    /// no room for them.
    pub(crate) delays: Latencies,
}

/// Makes records until the plan's time or number is over, and waits for all answers. Blocks.
pub(crate) fn run(task: &Task, mut outlet: Box<dyn Outlet>) -> Result<Produced, Error> {
    sharpen_timers();
    let load = &task.plan.load;
    let schedule = Schedule::new(load.rate, task.start_ns, task.producer, task.plan.producers);
    let from_ns = task.watch.measured_from_ns();
    let nanos = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let end_ns = (load.duration).map_or(u64::MAX, |time| from_ns.saturating_add(nanos(time)));
    let mut left = load.records.map_or(u64::MAX, |all| share(all, task));
    let mut shape = Shape::new(load, Arc::clone(&task.pool), task.producer, task.plan.check);
    let mut partitioner = Partitioner::new(task);
    let mut sequences: HashMap<u32, u64> = HashMap::new();
    let mut delays = Latencies::new();
    let mut number = 0;
    sleep_until(task.clock, task.start_ns);
    'made: loop {
        let mut turn = 0;
        while outlet.has_room() && turn < TURN_RECORDS {
            let now = task.clock.now_ns();
            let due_ns = schedule.due_ns(number).unwrap_or(now);
            if due_ns >= end_ns || left == 0 {
                break 'made;
            }
            if due_ns > now {
                break;
            }
            let key = shape.next_key();
            let bytes = shape.next_bytes();
            let partition = partitioner.choose(key.as_ref().map(|key| &key[..]), bytes, now);
            let sequence = sequences.entry(partition).or_default();
            let stamp = Stamp {
                run: task.run,
                producer: task.producer,
                partition,
                sequence: *sequence,
                due_ns,
            };
            let value = shape.value(bytes, &stamp);
            outlet.push(Outgoing {
                partition,
                sequence: *sequence,
                key: key.as_ref().map(|key| &key[..]),
                value,
                due_ns,
            })?;
            *sequence += 1;
            number += 1;
            turn += 1;
            if due_ns >= from_ns {
                delays.record(now - due_ns);
                left -= 1;
            }
        }
        let pump_ns = outlet.pump()?;
        if turn < TURN_RECORDS {
            let due_ns = outlet.has_room().then(|| schedule.due_ns(number)).flatten();
            let wake_ns = [pump_ns, due_ns].into_iter().flatten().min();
            // Without a rate there is nothing to wait for but room.
            if wake_ns.is_some() || !outlet.has_room() {
                outlet.wait(wake_ns)?;
            }
        }
    }
    let mut tally = outlet.finish()?;
    let sent = Sent {
        counts: sequences,
        failed: std::mem::take(&mut tally.failed),
    };
    Ok(Produced {
        tally,
        sent,
        delays,
    })
}

/// This producer's part of all records.
fn share(all: u64, task: &Task) -> u64 {
    let producers = u64::from(task.plan.producers);
    all / producers + u64::from(u64::from(task.producer) < all % producers)
}

/// Which partition a record goes to: by its key, or without one a partition for a batch after another.
#[derive(Debug)]
struct Partitioner {
    partitions: u32,
    current: u32,
    /// Bytes for the current one, and since when.
    bytes: usize,
    since_ns: u64,
    batch_bytes: usize,
    linger_ns: u64,
}

impl Partitioner {
    fn new(task: &Task) -> Self {
        Self {
            partitions: task.partitions,
            current: task.producer % task.partitions,
            bytes: 0,
            since_ns: 0,
            batch_bytes: task.plan.batch_bytes as usize,
            linger_ns: u64::try_from(task.plan.linger.as_nanos()).unwrap_or(u64::MAX),
        }
    }

    fn choose(&mut self, key: Option<&[u8]>, bytes: usize, now_ns: u64) -> u32 {
        if let Some(key) = key {
            return crc32c(&[key]) % self.partitions;
        }
        let is_full = self.bytes > 0 && self.bytes + bytes > self.batch_bytes;
        if is_full || now_ns.saturating_sub(self.since_ns) > self.linger_ns {
            self.current = (self.current + 1) % self.partitions;
            self.bytes = 0;
            self.since_ns = now_ns;
        }
        self.bytes += bytes;
        self.current
    }
}

/// What came of the records of one producer.
#[derive(Debug)]
pub(crate) struct Tally {
    clock: Clock,
    watch: Arc<Watch>,
    pub(crate) latencies: Latencies,
    pub(crate) records: u64,
    /// Of keys and values.
    pub(crate) bytes: u64,
    pub(crate) requests: u64,
    pub(crate) errors: Errors,
    failed: HashMap<u32, Vec<Range<u64>>>,
    /// When the last record was acknowledged.
    pub(crate) last_ns: u64,
    second: Second,
}

/// What was acknowledged in the second that runs.
#[derive(Debug)]
struct Second {
    number: u64,
    records: u64,
    bytes: u64,
    latencies: Latencies,
}

/// What went wrong, by its words.
#[derive(Debug, Clone, Default)]
pub(crate) struct Errors {
    /// Of how many records.
    pub(crate) records: u64,
    pub(crate) kinds: BTreeMap<String, u64>,
}

impl Errors {
    pub(crate) fn add(&mut self, error: String, records: u64) {
        self.records += records;
        if self.kinds.len() < ERROR_KINDS_MAX || self.kinds.contains_key(&error) {
            *self.kinds.entry(error).or_default() += records;
        }
    }
}

impl Tally {
    pub(crate) fn new(clock: Clock, watch: Arc<Watch>) -> Self {
        Self {
            clock,
            watch,
            latencies: Latencies::new(),
            records: 0,
            bytes: 0,
            requests: 0,
            errors: Errors::default(),
            failed: HashMap::new(),
            last_ns: 0,
            second: Second {
                number: 0,
                records: 0,
                bytes: 0,
                latencies: Latencies::coarse(),
            },
        }
    }

    /// Counts records that arrived or were acknowledged now, but for those of the warm-up. `due` says when each was
    /// due; it is empty when that is not known.
    pub(crate) fn count(&mut self, due: &[u64], mut records: u64, mut bytes: u64) {
        let now = self.clock.now_ns();
        let from = self.watch.measured_from_ns();
        let late = due.iter().filter(|due| **due < from).count() as u64;
        if now < from || (late > 0 && late >= records) {
            return;
        }
        if late > 0 {
            // The end of the warm-up goes through a batch; its records have about the same size.
            bytes -= bytes * late / records;
            records -= late;
        }
        let number = now / 1_000_000_000;
        if number != self.second.number {
            self.flush();
            self.second.number = number;
        }
        self.records += records;
        self.bytes += bytes;
        self.last_ns = self.last_ns.max(now);
        self.second.records += records;
        self.second.bytes += bytes;
        for &due in due.iter().filter(|due| **due >= from) {
            let latency = now.saturating_sub(due);
            self.latencies.record(latency);
            self.second.latencies.record(latency);
        }
    }

    /// Where its seconds go.
    pub(crate) fn watch(&self) -> Arc<Watch> {
        Arc::clone(&self.watch)
    }

    /// Counts records that the broker did not take.
    pub(crate) fn fail(&mut self, partition: u32, sequences: Range<u64>, error: String) {
        self.errors.add(error, sequences.end - sequences.start);
        self.failed.entry(partition).or_default().push(sequences);
    }

    /// Hands the second that runs to the watch.
    pub(crate) fn flush(&mut self) {
        let second = &mut self.second;
        if second.records > 0 {
            self.watch.add(
                second.number,
                second.records,
                second.bytes,
                &second.latencies,
            );
            (second.records, second.bytes) = (0, 0);
            second.latencies.clear();
        }
    }

    /// Adds what another one counted, which is flushed.
    pub(crate) fn add(&mut self, other: Self) {
        self.latencies.add(&other.latencies);
        self.records += other.records;
        self.bytes += other.bytes;
        self.requests += other.requests;
        for (error, records) in other.errors.kinds {
            self.errors.add(error, records);
        }
        for (partition, mut ranges) in other.failed {
            self.failed
                .entry(partition)
                .or_default()
                .append(&mut ranges);
        }
        self.last_ns = self.last_ns.max(other.last_ns);
    }
}
