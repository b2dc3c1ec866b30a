//! What the rest of the broker holds of a coordinator: one host for each partition.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use sapwood_log::{PartitionState, Store, io::Environment};
use sapwood_model::{Offset, PartitionId, Timestamp};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tracing::error;

use super::{CoordinatorError, LoadProgress, Machine, task::Task};
use crate::{
    Driver,
    drain::{Accepted, Gate},
    registry::{Partition, Topic},
};

/// How many requests wait for the task of a partition; further ones wait to get in line.
const QUEUE_MAX: usize = 1024;
/// How much randomness is drawn at once.
const RANDOM_BYTES: usize = 64 * size_of::<u128>();

/// The hosts of an internal topic's partitions.
#[derive(Debug)]
pub(crate) struct Coordinator<M: Machine> {
    hosts: Vec<Host<M>>,
}

impl<M: Machine> Coordinator<M> {
    /// Begins to load every partition of a topic. Has to be called within a runtime; does not wait.
    pub(crate) fn start(home: &Home, make: impl Fn() -> M) -> Self {
        let partitions = home.topic.partitions.load_full();
        let hosts = partitions.iter().map(|partition| {
            let place = Place::new(home, partition);
            Host::start(place, make())
        });
        Self {
            hosts: hosts.collect(),
        }
    }

    /// How many partitions there are.
    pub(crate) fn len(&self) -> usize {
        self.hosts.len()
    }

    /// The host of a partition below [`Coordinator::len`].
    pub(crate) fn host(&self, index: usize) -> &Host<M> {
        &self.hosts[index]
    }

    /// Every host, from partition 0.
    pub(crate) fn hosts(&self) -> &[Host<M>] {
        &self.hosts
    }

    /// Returns when no task of the partitions is left, which the broker's close has ended: nothing holds
    /// their logs any more on the tasks' behalf.
    pub(crate) async fn ended(&self) {
        for host in &self.hosts {
            let mut ended = host.shared.ended.subscribe();
            // The sender lives in the host.
            let _ = ended.wait_for(|ended| *ended).await;
        }
    }

    /// How far loading is.
    pub(crate) fn progress(&self) -> LoadProgress {
        let mut progress = LoadProgress::default();
        for host in &self.hosts {
            match &*host.shared.phase.borrow() {
                Phase::Loading => progress.loading += 1,
                Phase::Active => progress.loaded += 1,
                Phase::Failed(_) | Phase::Closed => progress.failed += 1,
            }
            let shared = &host.shared;
            let start = shared.start.load(Ordering::Relaxed);
            progress.replayed += shared.replayed.load(Ordering::Relaxed) - start;
            progress.offsets += shared.end.load(Ordering::Relaxed) - start;
        }
        progress
    }
}

/// What the tasks of a coordinator need of the broker. Does not keep the broker alive.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    pub(crate) topic: Arc<Topic>,
    pub(crate) environment: Environment,
    pub(crate) gate: Arc<Gate>,
    /// Gives the ballast up for appends on a full disk.
    pub(crate) store: Weak<Store>,
    /// The largest batch that the journal takes.
    pub(crate) batch_bytes_max: u64,
    pub(crate) decompressed_bytes_max: usize,
    /// Bounds how many partitions are loaded at once.
    pub(crate) loads: Arc<Semaphore>,
    /// Who does what blocks.
    pub(crate) driver: Driver,
    /// Closes when the broker is dropped.
    pub(crate) alive: watch::Receiver<()>,
}

/// A partition and where it is.
pub(super) struct Place {
    pub(super) home: Home,
    pub(super) partition: Arc<Partition>,
    pub(super) clock: HostClock,
}

impl Place {
    fn new(home: &Home, partition: &Arc<Partition>) -> Self {
        Self {
            clock: HostClock::new(&home.environment),
            partition: partition.clone(),
            home: home.clone(),
        }
    }

    pub(super) fn number(&self) -> PartitionId {
        self.partition.partition
    }

    /// Why the partition does not serve, if it does not.
    pub(super) fn offline(&self) -> Option<Arc<str>> {
        match self.partition.log.state() {
            PartitionState::Online => None,
            PartitionState::Offline { reason } => Some(reason.to_string().into()),
        }
    }
}

/// The wall clock at one moment, and from there on the monotonic one.
pub(super) struct HostClock {
    environment: Environment,
    began: Timestamp,
    elapsed: Duration,
    /// Random bytes that nobody has had yet.
    random: VecDeque<u8>,
}

impl HostClock {
    fn new(environment: &Environment) -> Self {
        Self {
            began: environment.clock.now(),
            elapsed: environment.clock.elapsed(),
            random: VecDeque::new(),
            environment: environment.clone(),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        let passed = self
            .environment
            .clock
            .elapsed()
            .saturating_sub(self.elapsed);
        let passed = i64::try_from(passed.as_millis()).unwrap_or(i64::MAX);
        Timestamp(self.began.0.saturating_add(passed))
    }

    /// Never the same again. Drawn for many events at once: each draw is a system call.
    pub(super) fn random(&mut self) -> u128 {
        if self.random.is_empty() {
            let mut drawn = [0; RANDOM_BYTES];
            self.environment.entropy.fill(&mut drawn);
            self.random.extend(drawn);
        }
        let bytes = self.random.drain(..size_of::<u128>());
        bytes.fold(0, |number, byte| number << 8 | u128::from(byte))
    }
}

/// What a host is doing. Loading to any other; active to failed or closed; these two stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// The partition is being replayed.
    Loading,
    /// Requests are served.
    Active,
    /// Nothing is served until a restart, for this reason.
    Failed(Arc<str>),
    /// The broker closes, or has closed.
    Closed,
}

/// What a host's task tells.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) phase: watch::Sender<Phase>,
    start: AtomicU64,
    replayed: AtomicU64,
    end: AtomicU64,
    stopped: AtomicBool,
    /// Set when the task is gone with everything that it held.
    ended: watch::Sender<bool>,
}

impl Shared {
    fn new() -> Self {
        Self {
            phase: watch::Sender::new(Phase::Loading),
            start: AtomicU64::new(0),
            replayed: AtomicU64::new(0),
            end: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            ended: watch::Sender::new(false),
        }
    }

    pub(super) fn replaying(&self, start: Offset, end: Offset) {
        // In an order in which no reader sees a number below the start.
        self.end.store(end.0, Ordering::Relaxed);
        self.replayed.store(start.0, Ordering::Relaxed);
        self.start.store(start.0, Ordering::Relaxed);
    }

    pub(super) fn replayed(&self, upto: Offset) {
        self.replayed.store(upto.0, Ordering::Relaxed);
    }

    /// Nobody needs the replay any more.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

/// Answers somebody once what was seen is durable, or could not be made so.
pub(super) type Release = Box<dyn FnOnce(Result<(), CoordinatorError>) + Send>;

/// Looks at a machine.
pub(super) type Look<M> = Box<dyn FnOnce(&M) -> Release + Send>;

/// Who gets a reply.
pub(super) type Caller<M> = oneshot::Sender<Result<<M as Machine>::Reply, CoordinatorError>>;

/// What goes to a host's task.
pub(super) enum Input<M: Machine> {
    /// A request.
    Call {
        request: M::Request,
        caller: Caller<M>,
        accepted: Accepted,
    },
    /// A read.
    Look(Look<M>, Accepted),
    /// A notice.
    Notice(M::Notice),
}

/// One partition's machine, seen from outside.
pub(crate) struct Host<M: Machine> {
    inputs: mpsc::Sender<Input<M>>,
    shared: Arc<Shared>,
    topic: Arc<Topic>,
    partition: PartitionId,
    log: Arc<sapwood_log::Partition>,
    gate: Arc<Gate>,
}

impl<M: Machine> fmt::Debug for Host<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("partition", &self.partition)
            .field("phase", &*self.shared.phase.borrow())
            .finish_non_exhaustive()
    }
}

impl<M: Machine> Host<M> {
    fn start(place: Place, machine: M) -> Self {
        let (sender, inputs) = mpsc::channel(QUEUE_MAX);
        let shared = Arc::new(Shared::new());
        let host = Self {
            inputs: sender,
            shared: shared.clone(),
            topic: place.home.topic.clone(),
            partition: place.number(),
            log: place.partition.log.clone(),
            gate: place.home.gate.clone(),
        };
        tokio::spawn(supervise(place, machine, shared, inputs));
        host
    }

    /// The partition.
    pub(crate) fn partition(&self) -> PartitionId {
        self.partition
    }

    /// Asks for something. Waits for the reply, which may be a matter of the machine, and until
    /// everything that it tells is durable. A caller that gives up takes nothing back.
    ///
    /// # Errors
    /// See [`CoordinatorError`].
    pub(crate) async fn call(&self, request: M::Request) -> Result<M::Reply, CoordinatorError> {
        self.begun().await;
        let accepted = self.accept()?;
        let (caller, reply) = oneshot::channel();
        let call = Input::Call {
            request,
            caller,
            accepted,
        };
        self.inputs.send(call).await.map_err(|_| self.gone())?;
        reply.await.unwrap_or_else(|_| Err(self.gone()))
    }

    /// Looks at the machine; answers when everything that could be seen is durable.
    ///
    /// # Errors
    /// See [`CoordinatorError`].
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&M) -> T + Send + 'static,
    ) -> Result<T, CoordinatorError> {
        self.begun().await;
        let accepted = self.accept()?;
        let (sender, seen) = oneshot::channel();
        let look = move |machine: &M| {
            let value = look(machine);
            let release = move |outcome: Result<(), CoordinatorError>| {
                // Whoever asked may have gone.
                let _ = sender.send(outcome.map(|()| value));
            };
            Box::new(release) as Release
        };
        let look = Input::Look(Box::new(look), accepted);
        self.inputs.send(look).await.map_err(|_| self.gone())?;
        seen.await.unwrap_or_else(|_| Err(self.gone()))
    }

    /// Tells the machine something, once it is loaded. Blocks while the queue is full.
    ///
    /// # Panics
    /// On an async thread.
    pub(crate) fn tell(&self, notice: M::Notice) {
        // A host that has failed, or is closed, finds out by itself when it is loaded again.
        let _ = self.inputs.blocking_send(Input::Notice(notice));
    }

    /// Waits for the load of a partition that has nothing to be loaded: that takes no time, and clients
    /// that ask for the first time need not be sent away.
    async fn begun(&self) {
        let is_empty = || self.log.bounds().log_end == Offset::ZERO;
        if *self.shared.phase.borrow() == Phase::Loading && is_empty() {
            self.settled().await;
        }
    }

    fn accept(&self) -> Result<Accepted, CoordinatorError> {
        let accepted = self.gate.accept().ok_or(CoordinatorError::Draining)?;
        match &*self.shared.phase.borrow() {
            Phase::Active => Ok(accepted),
            Phase::Loading => Err(CoordinatorError::Loading {
                topic: self.topic.name.clone(),
                partition: self.partition,
                replayed: Offset(self.shared.replayed.load(Ordering::Relaxed)),
                end: Offset(self.shared.end.load(Ordering::Relaxed)),
            }),
            Phase::Failed(reason) => Err(self.failed(reason)),
            Phase::Closed => Err(CoordinatorError::Draining),
        }
    }

    fn failed(&self, reason: &Arc<str>) -> CoordinatorError {
        CoordinatorError::Failed {
            topic: self.topic.name.clone(),
            partition: self.partition,
            reason: reason.clone(),
        }
    }

    /// The task has ended.
    fn gone(&self) -> CoordinatorError {
        match &*self.shared.phase.borrow() {
            Phase::Failed(reason) => self.failed(reason),
            Phase::Loading | Phase::Active | Phase::Closed => CoordinatorError::Draining,
        }
    }

    /// Returns when the partition is not being loaded any more.
    pub(super) async fn settled(&self) {
        let mut phase = self.shared.phase.subscribe();
        let loaded = phase.wait_for(|phase| *phase != Phase::Loading).await;
        drop(loaded);
    }
}

/// Runs a host's task; a fault in it ends this partition's machine and no other.
async fn supervise<M: Machine>(
    place: Place,
    machine: M,
    shared: Arc<Shared>,
    inputs: mpsc::Receiver<Input<M>>,
) {
    let (topic, partition) = (place.home.topic.name.clone(), place.number());
    let task = tokio::spawn(Task::run(place, machine, shared.clone(), inputs));
    if let Err(e) = task.await
        && e.is_panic()
    {
        error!(%topic, %partition, "a fault in a partition's state machine");
        let reason = "a fault in its state machine".into();
        shared.phase.send_replace(Phase::Failed(reason));
    }
    shared.ended.send_replace(true);
}
