//! A broker that runs on the simulated machine, beside the model of what it must hold.

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use sapwood_broker::{Broker, BrokerOptions, Driver, JournalStep, StoreOptions};
use sapwood_log::io::{Clock, Disk};
use sapwood_sim::{Machine, PAGE_BYTES, Rng, SimDisk};
use tokio::runtime::{Builder, Runtime};

use crate::found;
use crate::model::{End, FoundAll, Model, Note, Outcome};

pub(crate) const DATA: &str = "/data";

/// Nothing that a broker does takes so many turns of its tasks.
const TURNS_MAX: usize = 20_000;
/// Nor so long when threads do it.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// The machine at one event, and what was promised by then.
pub(crate) struct Survivor {
    pub(crate) machine: Machine,
    pub(crate) model: Model,
    /// Where it comes from, for people.
    pub(crate) at: String,
}

/// What clients asked for and were told, each with the disk's steps by then.
#[derive(Debug, Clone)]
pub(crate) struct Notes {
    disk: SimDisk,
    list: Arc<Mutex<Vec<(u64, Note)>>>,
}

impl Notes {
    pub(crate) fn add(&self, note: Note) {
        let mut list = self.list.lock();
        list.push((self.disk.steps(), note));
    }
}

/// What a workload reached, so that one that reaches nothing is noticed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) restarts: u64,
    pub(crate) rounds: u64,
    pub(crate) stalls: u64,
    pub(crate) created: u64,
    pub(crate) deleted: u64,
    pub(crate) switched: u64,
    pub(crate) produced: u64,
    pub(crate) retried: u64,
    pub(crate) trimmed: u64,
    pub(crate) committed: u64,
    pub(crate) refused: u64,
}

/// A process: its runtime and its broker.
struct Process {
    broker: Broker,
    runtime: Runtime,
}

pub(crate) struct World {
    pub(crate) machine: Machine,
    pub(crate) model: Model,
    pub(crate) survivors: Vec<Survivor>,
    pub(crate) notes: Notes,
    /// The disk has failed, or is full: calls may fail, promises still hold.
    pub(crate) faulty: bool,
    pub(crate) driver: Driver,
    pub(crate) tally: Tally,
    /// Numbers what is sent and committed: no two are the same.
    pub(crate) next_number: u64,
    process: Option<Process>,
    /// Says whose turn it is.
    turns: Rng,
}

impl World {
    pub(crate) fn new(machine: Machine, model: Model, seed: u64) -> World {
        World {
            notes: Notes {
                disk: machine.disk.clone(),
                list: Arc::default(),
            },
            machine,
            model,
            survivors: Vec::new(),
            faulty: false,
            driver: Driver::Caller,
            tally: Tally::default(),
            next_number: seed << 32,
            process: None,
            turns: Rng::new(seed ^ 0x70_12_35),
        }
    }

    pub(crate) fn options(&self) -> BrokerOptions {
        let store = StoreOptions {
            ballast_bytes: 2 << 20,
            journal_file_bytes: 64 * 1024,
            journal_files: 3,
            removal_step_bytes: PAGE_BYTES,
            boot_id: self.machine.disk.boot_id(),
            ..StoreOptions::default()
        };
        let mut options = BrokerOptions::new(DATA, store);
        options.driver = self.driver;
        options.groups.initial_rebalance_delay_ms = 0;
        options.retention_interval = Duration::from_secs(5);
        options.topic_defaults = vec![("segment.bytes".into(), "16384".into())];
        options
    }

    pub(crate) fn broker(&self) -> Outcome<Broker> {
        let process = self.process.as_ref().ok_or("the broker is not open")?;
        Ok(process.broker.clone())
    }

    pub(crate) fn is_open(&self) -> bool {
        self.process.is_some()
    }

    /// A number that was never used in this world.
    pub(crate) fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// Opens the data directory and checks everything against what the last process left.
    pub(crate) fn open(&mut self) -> Outcome {
        let runtime = match self.driver {
            Driver::Caller => Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build(),
            Driver::Threads => Builder::new_multi_thread()
                .worker_threads(2)
                .enable_time()
                .build(),
        };
        let runtime = runtime.map_err(|error| error.to_string())?;
        let open = Broker::open_in(self.machine.environment(), self.options(), Arc::default());
        let opened = runtime.block_on(open);
        self.settle()?;
        let broker = opened.map_err(|error| format!("the broker does not open: {error}"))?;
        self.process = Some(Process { broker, runtime });
        let found = self.find().and_then(|found| {
            self.settle()?;
            self.check_folders(&found)?;
            Ok(found)
        })?;
        let ended = self.model.ended;
        let recovery = format!("{:?}", self.broker()?.recovery());
        self.look_at_clock();
        self.model
            .recovered(&found)
            .map_err(|error| format!("after {ended:?}: {error}; {recovery}"))
    }

    /// What was overdue once may have gone, also when the clock was set back since.
    fn look_at_clock(&mut self) {
        let now = self.machine.clock.now().0;
        self.model.latest_ms = self.model.latest_ms.map(|latest| latest.max(now));
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.machine.clock.now().0
    }

    /// Everything that the broker has.
    pub(crate) fn find(&mut self) -> Outcome<FoundAll> {
        let broker = self.broker()?;
        let groups = self.model.offsets.keys().map(|key| key.0.clone()).collect();
        self.run(async move { found::all(&broker, groups).await })?
    }

    /// Nothing of a deleted topic is left, and nothing was taken for somebody else's.
    fn check_folders(&self, found: &FoundAll) -> Outcome {
        let names = |folder: &str| {
            let entries = self.machine.disk.read_dir(&Path::new(DATA).join(folder));
            let entries = entries.map_err(|error| format!("{folder}: {error}"))?;
            let names = entries.into_iter().map(|entry| entry.name);
            Outcome::Ok(names.collect::<Vec<_>>())
        };
        let quarantined = names("quarantine")?;
        // The name of a deleted topic's folder may outlive a sync that failed.
        if !quarantined.is_empty() && !self.faulty {
            return Err(format!("folders were quarantined: {quarantined:?}"));
        }
        let broker = self.broker()?;
        let internal = broker
            .topics()
            .into_iter()
            .filter(|topic| topic.is_internal);
        let internal: usize = internal.map(|topic| topic.partitions as usize).sum();
        let logs: usize = found.topics.values().map(|topic| topic.logs.len()).sum();
        let folders = names("topics")?;
        if folders.len() != logs + internal {
            return Err(format!(
                "{logs} and {internal} partitions have folders {folders:?}"
            ));
        }
        Ok(())
    }

    /// Takes the copies that the disk made, each with the model of what was promised by then, and
    /// learns what has been promised since.
    pub(crate) fn settle(&mut self) -> Outcome {
        let mut notes = std::mem::take(&mut *self.notes.list.lock());
        notes.sort_by_key(|(steps, _)| *steps);
        if crate::trace() {
            notes
                .iter()
                .for_each(|(steps, note)| println!("by step {steps}: {note:?}"));
        }
        for offset in self.model.offsets.values_mut() {
            offset.replaced.clear();
        }
        let mut notes = notes.into_iter().peekable();
        for captured in self.machine.disk.take_captured() {
            while let Some((_, note)) = notes.next_if(|(steps, _)| *steps <= captured.step) {
                self.model.learn(&note)?;
            }
            let sync = captured
                .sync
                .map_or_else(String::new, |sync| format!(" (sync {sync})"));
            let mut machine = self.machine.fork();
            machine.disk = captured.disk;
            self.survivors.push(Survivor {
                machine,
                model: self.model.clone(),
                at: format!("step {}{sync}", captured.step),
            });
        }
        notes.try_for_each(|(_, note)| self.model.learn(&note))
    }

    /// Runs a future to its end. The broker's tasks and the steps of its store have their turns between
    /// its own as the seed has it.
    pub(crate) fn run<T>(&mut self, future: impl Future<Output = T>) -> Outcome<T> {
        let process = self.process.as_ref().ok_or("the broker is not open")?;
        let (broker, turns) = (&process.broker, &mut self.turns);
        if self.driver == Driver::Threads {
            let done = async { tokio::time::timeout(WAIT_MAX, future).await };
            return process
                .runtime
                .block_on(done)
                .map_err(|_| format!("nothing came of it in {WAIT_MAX:?}"));
        }
        process.runtime.block_on(async {
            let mut future = pin!(future);
            for _ in 0..TURNS_MAX {
                let polled =
                    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context)));
                if let Poll::Ready(done) = polled.await {
                    return Ok(done);
                }
                for _ in 0..turns.below(4) {
                    tokio::task::yield_now().await;
                }
                step(broker, turns);
            }
            Err("nothing came of it".to_owned())
        })
    }

    /// Lets everything happen that does not wait for time.
    pub(crate) fn rest(&mut self) -> Outcome {
        if self.driver == Driver::Threads {
            return self.settle();
        }
        let broker = self.broker()?;
        self.run(async move {
            for _ in 0..20 {
                tokio::task::yield_now().await;
                while broker.step_journal() == JournalStep::Synced {}
            }
        })?;
        self.settle()
    }

    /// Time passes, and what is due happens.
    pub(crate) fn pass(&mut self, time: Duration) -> Outcome {
        self.machine.clock.advance(time);
        self.look_at_clock();
        if self.driver == Driver::Caller {
            self.run(tokio::time::advance(time))?;
        }
        self.rest()
    }

    /// The process ends without a word.
    pub(crate) fn crash(&mut self, end: End, rng: &mut Rng) -> Outcome {
        let settled = self.settle();
        self.tally_up();
        self.tally.restarts += 1;
        self.model.ended = self.model.ended.max(end);
        match end {
            End::PowerCut => self.machine.disk.power_cut(rng),
            End::Clean | End::Kill => self.machine.disk.kill(),
        }
        self.process = None;
        settled
    }

    /// A clean stop; says whether it was one.
    pub(crate) fn stop(&mut self) -> Outcome<bool> {
        let broker = self.broker()?;
        let closed = self.run(async move { broker.drain_and_close().await })?;
        self.settle()?;
        match closed {
            Ok(()) if self.faulty => Ok(false),
            Ok(()) => {
                let topics = self.model.topics.values_mut();
                for log in topics.flat_map(|topic| &mut topic.logs) {
                    log.power_floor = log.kill_floor;
                }
                Ok(true)
            }
            Err(_) if self.faulty => Ok(false),
            Err(error) => Err(format!("the broker does not close: {error}")),
        }
    }

    pub(crate) fn tally_up(&mut self) {
        let Some(process) = &self.process else { return };
        let metrics = process.broker.store_metrics();
        self.tally.rounds += metrics.journal_rounds.get();
        self.tally.stalls += metrics.journal_full.get();
    }

    /// Leaves room for this many pages, and lets calls fail from now on as a full disk may make them.
    pub(crate) fn fill_disk(&mut self, pages: u64) -> Outcome {
        let space = self.machine.disk.space(Path::new(DATA));
        let space = space.map_err(|error| error.to_string())?;
        let used = space.total_bytes - space.free_bytes;
        let capacity = used + pages * PAGE_BYTES;
        self.machine.disk.set_capacity(Some(capacity));
        self.faulty = true;
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Whatever a process does while it is dropped reaches nothing.
        self.machine.disk.kill();
        self.process = None;
    }
}

/// A step of the store, as the seed has it.
fn step(broker: &Broker, turns: &mut Rng) {
    match turns.below(8) {
        0..3 => {}
        3..7 => {
            if broker.step_journal() == JournalStep::Full {
                // A failure makes the directory read-only, which whoever waits finds out.
                let _ = broker.step_maintenance();
            }
        }
        _ => drop(broker.step_maintenance()),
    }
}
