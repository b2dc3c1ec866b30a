//! The broker: what it holds, how it is opened and closed.

use std::{path::Path, sync::Arc, time::Duration};

use sapwood_log::{
    DataDir, Known, PartitionSpec, PartitionState, Progress, RecoveryReport, Store, StoreError,
    StoreMetrics,
    io::{Environment, Space},
};
use sapwood_model::{Code, DirectoryId, PartitionId, TopicName};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing::{error, info, warn};

use crate::{
    BrokerOptions, Driver,
    background::Background,
    catalog::{Catalog, CatalogOpenError, Host, TopicRecord},
    coordinator::Home,
    drain::{Gate, Status},
    driver::join,
    groups::GroupHosts,
    limits::Budget,
    metrics::{Metrics, MetricsSnapshot, PartitionMetrics, TopicCounters, TopicMetrics},
    options::PARTITIONS_MAX,
    producer_ids::ProducerIds,
    registry::{Partition, Registry, Topic},
    throttle::Throttle,
    topic_config::{TopicConfigError, TopicDefaults},
};

/// One warning in so long says that replicas are taken as one.
const AS_ONE_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// The core of Sapwood in this process. Cheap to clone; every clone is the same broker.
///
/// It needs a tokio runtime with its timer. [`Broker::drain_and_close`] ends it in order; when the
/// last clone is dropped without that, it ends like a killed process: what was acknowledged is
/// there when the directory is opened again. That drop waits for the store's threads, at most as
/// long as a sync takes, and the directory stays locked until background work in progress is over.
#[derive(Debug, Clone)]
pub struct Broker {
    pub(crate) core: Arc<Core>,
    /// Closes when the last clone is gone; background tasks end with it.
    _alive: Arc<watch::Sender<()>>,
}

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) environment: Environment,
    directory_id: DirectoryId,
    pub(crate) options: BrokerOptions,
    pub(crate) defaults: TopicDefaults,
    pub(crate) catalog: Catalog,
    pub(crate) store: Arc<Store>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) budget: Budget,
    pub(crate) gate: Arc<Gate>,
    pub(crate) metrics: Metrics,
    pub(crate) background: Background,
    pub(crate) producer_ids: ProducerIds,
    pub(crate) groups: GroupHosts,
    pub(crate) recovery: RecoveryReport,
    /// Who asks for more replicas than there are asks with every topic.
    as_one: Throttle,
    /// Topics are created, changed and deleted one after the other.
    admin: Arc<Semaphore>,
    cold_reads: Arc<Semaphore>,
    decompressions: Arc<Semaphore>,
    /// How many partitions of internal topics are loaded at once.
    loads: Arc<Semaphore>,
    /// Closes when the last clone of the broker is gone.
    alive: watch::Receiver<()>,
}

/// Why a broker could not be opened. Nothing was deleted.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// An option is outside its bounds.
    #[error("{what}")]
    Option {
        /// Which, and its bounds.
        what: String,
    },
    /// The configured defaults of topics are not valid.
    #[error("the default configuration of topics: {0}")]
    TopicDefaults(#[from] TopicConfigError),
    /// The data directory or the store cannot be opened.
    #[error(transparent)]
    Store(#[from] sapwood_log::OpenError),
    /// The catalog cannot be read.
    #[error(transparent)]
    Catalog(#[from] CatalogOpenError),
    /// A partition that the catalog knows has no log and cannot get one.
    #[error(transparent)]
    Create(#[from] StoreError),
    /// The runtime stopped in the middle.
    #[error("the runtime is shutting down")]
    Interrupted,
}

impl OpenError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Option { .. } | Self::TopicDefaults(_) => Code::InvalidConfig,
            Self::Store(e) => e.code(),
            Self::Catalog(e) => e.code(),
            Self::Create(e) => e.code(),
            Self::Interrupted => Code::Draining,
        }
    }
}

impl Broker {
    /// Opens the data directory, recovers it and begins to serve. `progress` says how far recovery
    /// is. The work runs on the blocking pool.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(options: BrokerOptions, progress: Arc<Progress>) -> Result<Self, OpenError> {
        Self::open_in(Environment::real(), options, progress).await
    }

    /// As [`Broker::open`] on a machine of the caller's choice, such as a simulated disk.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open_in(
        environment: Environment,
        options: BrokerOptions,
        progress: Arc<Progress>,
    ) -> Result<Self, OpenError> {
        let (alive, gone) = watch::channel(());
        let at_work = gone.clone();
        let driver = options.driver;
        let open = move || Core::open(environment, options, &progress, at_work);
        let core = Arc::new(driver.run(open).await.ok_or(OpenError::Interrupted)??);
        Background::start(&core, &gone);
        core.resume_groups();
        Ok(Self {
            core,
            _alive: Arc::new(alive),
        })
    }

    /// What the broker does.
    pub fn status(&self) -> Status {
        self.core.gate.status()
    }

    /// Sees each change of the status: front doors stop taking connections when it leaves
    /// [`Status::Ready`].
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.core.gate.watch()
    }

    /// Why nothing can be written until a restart, or no topic changed, once that is so: a sync of
    /// the journal, of a directory or of the catalog failed.
    pub fn read_only(&self) -> Option<Arc<str>> {
        self.core.catalog.failed()
    }

    /// The budget for the bytes of requests.
    pub fn budget(&self) -> &Budget {
        &self.core.budget
    }

    /// What recovery found and did when the broker was opened.
    pub fn recovery(&self) -> &RecoveryReport {
        &self.core.recovery
    }

    /// The identity of the data directory, for as long as the directory lives.
    pub fn directory_id(&self) -> DirectoryId {
        self.core.directory_id
    }

    /// The broker's settings.
    pub fn options(&self) -> &BrokerOptions {
        &self.core.options
    }

    /// The machine that it runs on.
    pub fn environment(&self) -> &Environment {
        &self.core.environment
    }

    /// Room on the file system of the data directory. Blocks for one system call.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn disk_space(&self) -> std::io::Result<Space> {
        self.core
            .environment
            .disk
            .space(&self.core.options.data_dir)
    }

    /// Whether records are refused because the disk has no room for them. Ends by itself when it has.
    /// Blocks for one system call at most.
    pub fn is_disk_full(&self) -> bool {
        self.core.store.is_full()
    }

    /// The bytes that the ballast file holds for deletes, commits and checkpoints on a full disk; 0
    /// while they are given up.
    pub fn ballast_bytes(&self) -> u64 {
        self.core.store.ballast_bytes()
    }

    /// How many records the catalog has ever had; it rises with every change of topics. Waits for a
    /// change that is being made durable.
    pub async fn catalog_records(&self) -> u64 {
        let core = self.core.clone();
        let number = move || core.catalog.next_number();
        // The runtime stops, and whoever asked with it.
        let driver = self.core.options.driver;
        driver.run(number).await.unwrap_or_default()
    }

    /// The counters and histograms of the data path.
    pub fn metrics(&self) -> &Metrics {
        &self.core.metrics
    }

    /// The counters and histograms of the store.
    pub fn store_metrics(&self) -> &StoreMetrics {
        self.core.store.metrics()
    }

    /// What is counted by topic, and what is in use. Costs time in proportion to the partitions.
    pub fn metrics_snapshot(&self) -> MetricsSnapshot {
        let core = &self.core;
        MetricsSnapshot {
            topics: core
                .registry
                .all()
                .iter()
                .map(|topic| topic_metrics(topic))
                .collect(),
            tasks: core.background.tasks(core),
            request_bytes: core.budget.bytes_used(),
            request_bytes_max: core.budget.bytes_max(),
            request_waits: core.budget.waits(),
            fetches_parked: core.metrics.fetches_parked(),
        }
    }

    /// Refuses new work, waits for what was accepted (at most `drain_timeout`), answers parked
    /// fetches with what there is, then makes everything durable and closes the data directory. When
    /// it returns, the next start needs no recovery. Every later call returns when the first one is
    /// done.
    ///
    /// # Errors
    /// Something could not be made durable; the next start recovers. Also when the runtime is
    /// shutting down.
    pub async fn drain_and_close(&self) -> Result<(), CloseError> {
        let core = self.core.clone();
        if !core.gate.close() {
            let mut status = core.gate.watch();
            // The sender lives in the core.
            let _ = status.wait_for(|status| *status == Status::Closed).await;
            core.groups.ended().await;
            return Ok(());
        }
        info!(in_progress = core.gate.in_progress(), "draining");
        // A task of its own: a caller that gives up must not leave it half closed.
        join(tokio::spawn(async move { core.close().await }))
            .await
            .ok_or(CloseError::Interrupted)?
    }
}

/// Why a broker was not closed cleanly.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    /// The store could not make everything durable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The runtime stopped in the middle.
    #[error("the runtime is shutting down")]
    Interrupted,
}

impl CloseError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Store(e) => e.code(),
            Self::Interrupted => Code::Draining,
        }
    }
}

fn topic_metrics(topic: &Topic) -> TopicMetrics {
    let partitions = topic.partitions.load();
    let counters = &topic.counters;
    let partition = |partition: &Arc<Partition>| PartitionMetrics {
        partition: partition.partition,
        bounds: partition.log.bounds(),
        leader_epoch: partition.log.leader_epoch(),
        stats: partition.log.stats(),
        online: matches!(partition.log.state(), PartitionState::Online),
    };
    TopicMetrics {
        name: topic.name.clone(),
        id: topic.id,
        records_in: counters.records_in.get(),
        bytes_in: counters.bytes_in.get(),
        batches_in: counters.batches_in.get(),
        records_out: counters.records_out.get(),
        bytes_out: counters.bytes_out.get(),
        partitions: partitions.iter().map(partition).collect(),
    }
}

/// The store, for the catalog.
#[derive(Debug)]
struct StoreHost(Arc<Store>);

impl Host for StoreHost {
    fn with_ballast(
        &self,
        operation: &mut dyn FnMut() -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        self.0.with_ballast(operation)
    }

    fn failed(&self, reason: &str) {
        self.0.make_read_only(reason);
    }

    fn read_only(&self) -> Option<Arc<str>> {
        self.0.read_only()
    }
}

impl Core {
    /// Blocks: recovery.
    fn open(
        environment: Environment,
        options: BrokerOptions,
        progress: &Progress,
        alive: watch::Receiver<()>,
    ) -> Result<Self, OpenError> {
        check(&options)?;
        let defaults = TopicDefaults::new(
            &options.topic_defaults,
            options.replication,
            options.store.fsync_batch_bytes_max(),
            options.producer_expiration,
        )?;
        let path: &Path = &options.data_dir;
        let dir = DataDir::open(environment.clone(), path)?;
        let directory_id = dir.id();
        let catalog = Catalog::open(environment.clone(), path, directory_id)?;
        let known = known(&catalog, &defaults);
        let (store, recovery) = Store::open(dir, options.store.clone(), known, progress)?;
        catalog.set_host(Arc::new(StoreHost(store.clone())));
        if options.driver == Driver::Threads {
            store.start();
        }
        let processors = options.driver.processors();
        let core = Self {
            budget: Budget::new(options.request_bytes_max, options.connection_bytes_max),
            cold_reads: Arc::new(Semaphore::new(options.cold_reads_max)),
            decompressions: Arc::new(Semaphore::new(processors)),
            loads: Arc::new(Semaphore::new(processors)),
            alive,
            admin: Arc::new(Semaphore::new(1)),
            environment,
            directory_id,
            options,
            defaults,
            catalog,
            store,
            registry: Arc::default(),
            gate: Arc::default(),
            metrics: Metrics::default(),
            background: Background::default(),
            producer_ids: ProducerIds::default(),
            groups: GroupHosts::default(),
            recovery,
            as_one: Throttle::new(AS_ONE_INTERVAL),
        };
        for record in core
            .catalog
            .read(|state| state.topics().cloned().collect::<Vec<_>>())
        {
            core.serve(&record)?;
        }
        info!(
            topics = core.registry.all().len(),
            epoch_ms = core.environment.clock.now().0,
            "opened the broker"
        );
        Ok(core)
    }

    /// Begins to serve a topic whose record is durable; makes the logs that are not there yet.
    /// Blocks.
    pub(crate) fn serve(&self, record: &TopicRecord) -> Result<Arc<Topic>, StoreError> {
        let config = self
            .defaults
            .resolve(record.record.name.as_str(), &record.record.configs);
        self.background.serves(&config);
        let numbers = (0..record.record.partitions).map(PartitionId);
        let specs = numbers
            .map(|partition| spec(record, partition, &config.log))
            .collect();
        let topic = Arc::new(Topic {
            name: record.record.name.clone(),
            id: record.record.id,
            created_at: record.record.created_at,
            config: Arc::new(config).into(),
            partitions: Arc::new(self.serve_partitions(specs)?).into(),
            counters: TopicCounters::default(),
        });
        self.registry.insert(topic.clone());
        Ok(topic)
    }

    /// Partitions of one topic, whose record is durable; their logs are made if they are not there
    /// yet. Blocks.
    pub(crate) fn serve_partitions(
        &self,
        specs: Vec<PartitionSpec>,
    ) -> Result<Vec<Arc<Partition>>, StoreError> {
        let found = |spec: &PartitionSpec| self.store.partition(spec.topic_id, spec.partition);
        let missing: Vec<_> = specs
            .iter()
            .filter(|spec| found(spec).is_none())
            .cloned()
            .collect();
        if !missing.is_empty() {
            self.store.create_partitions(missing)?;
        }
        let partition = |spec: PartitionSpec| {
            let log = found(&spec).expect("it was there, or was made above");
            Partition::new(spec.partition, log, self.background.rolls())
        };
        Ok(specs.into_iter().map(partition).collect())
    }

    async fn close(self: Arc<Self>) -> Result<(), CloseError> {
        let idle = tokio::time::timeout(self.options.drain_timeout, self.gate.idle()).await;
        if idle.is_err() {
            let in_progress = self.gate.in_progress();
            warn!(
                in_progress,
                "the drain took too long; closing the store with what is left"
            );
        }
        // Topics that are being created or deleted right now get to their end.
        let turn = self.admin.clone().acquire_owned().await;
        let core = self.clone();
        let close = move || {
            core.background.end();
            core.store.close()
        };
        let closed = self.options.driver.run(close).await;
        drop(turn);
        for topic in self.registry.all() {
            for partition in topic.partitions.load().iter() {
                // Nobody is left waiting, whatever happened.
                partition.fail_waiters();
            }
        }
        self.gate.finish();
        // They end by that, and let go of the directory.
        self.groups.ended().await;
        match closed {
            Some(Ok(())) => {
                info!("closed the broker");
                Ok(())
            }
            Some(Err(e)) => {
                error!(error = %e, "could not close cleanly; the next start recovers");
                Err(e.into())
            }
            None => Err(CloseError::Interrupted),
        }
    }

    /// What the coordinator of a topic's partitions needs.
    pub(crate) fn home(&self, topic: Arc<Topic>) -> Home {
        Home {
            topic,
            environment: self.environment.clone(),
            gate: self.gate.clone(),
            store: Arc::downgrade(&self.store),
            batch_bytes_max: self.options.store.fsync_batch_bytes_max(),
            decompressed_bytes_max: self.options.decompressed_bytes_max,
            loads: self.loads.clone(),
            driver: self.options.driver,
            alive: self.alive.clone(),
        }
    }

    /// Says once in a while that more replicas than one broker keeps were taken as one.
    pub(crate) fn took_as_one(&self, topic: &TopicName, key: &'static str, asked: i64) {
        if let Some(suppressed) = self.as_one.pass(self.environment.clock.elapsed()) {
            warn!(%topic, key, asked, suppressed, "took more than one replica as one");
        }
    }

    /// The turn of whoever changes topics. `None` when the broker shuts down.
    pub(crate) async fn admin_turn(&self) -> Option<AdminTurn> {
        let turn = self.admin.clone().acquire_owned().await.ok()?;
        (self.gate.status() == Status::Ready).then_some(AdminTurn(turn))
    }

    /// Runs a read that may wait for the disk on the blocking pool, at most `cold_reads_max` at once.
    pub(crate) async fn blocking_read<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        limited(self.options.driver, &self.cold_reads, read).await
    }

    /// Runs something that takes a processor for long, at most as many at once as there are
    /// processors.
    pub(crate) async fn blocking_cpu<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        limited(self.options.driver, &self.decompressions, work).await
    }
}

/// Held by the work itself, so that it ends with the work and not with who waits for it.
#[derive(Debug)]
pub(crate) struct AdminTurn(
    #[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit,
);

async fn limited<T: Send + 'static>(
    driver: Driver,
    limit: &Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let permit = limit.clone().acquire_owned().await;
    let run = move || {
        let _permit = permit.expect("the semaphore is never closed");
        work()
    };
    match driver.run(run).await {
        Some(result) => result,
        // The runtime stops; whoever asked stops with it.
        None => std::future::pending().await,
    }
}

fn check(options: &BrokerOptions) -> Result<(), OpenError> {
    let partitions = options.default_partitions;
    let what = match () {
        () if !(1..=PARTITIONS_MAX).contains(&partitions) => {
            format!("default_partitions is {partitions}; it is from 1 to {PARTITIONS_MAX}")
        }
        () if options.cold_reads_max == 0 => "cold_reads_max is 0; it is at least 1".to_owned(),
        () if options.request_bytes_max == 0 || options.connection_bytes_max == 0 => {
            "request_bytes_max and connection_bytes_max are at least 1".to_owned()
        }
        () => return Ok(()),
    };
    Err(OpenError::Option { what })
}

/// What the store has to know from the catalog.
fn known(catalog: &Catalog, defaults: &TopicDefaults) -> Known {
    catalog.read(|state| {
        let mut partitions = Vec::new();
        for topic in state.topics() {
            let config = defaults.resolve(topic.record.name.as_str(), &topic.record.configs);
            for partition in 0..topic.record.partitions {
                partitions.push(spec(topic, PartitionId(partition), &config.log));
            }
        }
        Known {
            partitions,
            deleted: state.deleted().keys().copied().collect(),
        }
    })
}

fn spec(
    topic: &TopicRecord,
    partition: PartitionId,
    config: &sapwood_log::LogConfig,
) -> PartitionSpec {
    PartitionSpec {
        topic: topic.record.name.clone(),
        topic_id: topic.record.id,
        partition,
        log_start: topic.log_start(partition),
        config: config.clone(),
    }
}
