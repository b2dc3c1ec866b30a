//! One running broker with its listeners, inside the caller's runtime.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use sapwood_broker::{
    Broker, BrokerOptions, ConfigKey, Progress, ReplicationPolicy, StoreOptions, TailKind,
};
use sapwood_grpc::{GrpcOptions, ServeError};
use sapwood_http::{ConnectionCounters, Health, Http, Metrics, RecoveryProgress};
use sapwood_kafka::{Advertised, Kafka, KafkaOptions};
use sapwood_model::Durability;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tracing::{info, warn};

use crate::bind::bind;
use crate::config::{Config, GroupsConfig, Origin, Profile, Replication, Tail};
use crate::error::RunError;
use crate::listener::{self, Doors, ListenerLimits, Shared};
use crate::machine::{self, Allowance};

/// Connections that wait for their server to take them; each holds a slot already.
const HANDOVER_MAX: usize = 64;

/// What a server says once it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// The listeners by name, in that order, with the addresses that they are bound to.
    pub listeners: Vec<(String, SocketAddr)>,
    /// Where HTTP is, unless it is off.
    pub http: Option<SocketAddr>,
    /// The data directory, as it was configured.
    pub data_dir: PathBuf,
    /// Durability of a new topic.
    pub durability: Durability,
    /// The process's id.
    pub pid: u32,
    /// How long the start took, recovery included.
    pub took: Duration,
}

impl Ready {
    /// The address of the first listener.
    pub fn listen(&self) -> SocketAddr {
        self.listeners[0].1
    }
}

/// A running server. Dropping it stops the listeners at once and leaves the data directory to
/// recovery; [`Server::stop`] ends it well.
#[derive(Debug)]
pub struct Server {
    ready: Ready,
    broker: Broker,
    health: Arc<Health>,
    stop_listening: watch::Sender<bool>,
    stop_http: watch::Sender<bool>,
    listeners: JoinSet<()>,
    grpc: JoinSet<Result<(), ServeError>>,
    kafka: JoinSet<()>,
    http: JoinSet<()>,
}

/// The sockets of a configuration, bound and not yet served.
struct Bound {
    listeners: Vec<(String, TcpListener)>,
    http: Option<TcpListener>,
}

impl Server {
    /// Binds every address, answers HTTP, recovers the data directory and serves. Must run inside a
    /// multi-threaded tokio runtime with I/O and time. Installs no signal handlers and no log.
    ///
    /// Connections that come before recovery is over wait in the kernel's queue.
    ///
    /// # Errors
    ///
    /// See [`RunError`]; nothing is left running or bound.
    pub async fn start(config: Config) -> Result<Self, RunError> {
        let allowance = machine::allowance(config.limits.connections)?;
        let boot_id = machine::boot_id(&config.storage.boot_id_file)?;
        let bound = Bound::bind(&config).await?;
        let http_address = bound
            .http
            .as_ref()
            .and_then(|listener| listener.local_addr().ok());
        announce(&config, &bound, http_address, &allowance);

        let progress = Arc::new(Progress::default());
        let counters = Arc::new(ConnectionCounters::default());
        let health = Health::recovering({
            let progress = Arc::clone(&progress);
            move || recovery_progress(&progress)
        });
        let metrics = Metrics::new(
            Arc::clone(&health),
            Arc::clone(&counters),
            config.metrics.per_partition,
        );
        let stop_http = watch::Sender::new(false);
        let mut http = JoinSet::new();
        if let Some(listener) = bound.http {
            let routes = Http::new(Arc::clone(&health), Arc::clone(&metrics));
            http.spawn(crate::http::serve(listener, routes, stop_http.subscribe()));
        }

        let options = broker_options(&config, boot_id, &allowance);
        let broker = Broker::open(options, progress).await?;
        check_partitions(&broker, &allowance);

        let limits = ListenerLimits {
            connections: allowance.connections,
            handshake_timeout: config.limits.handshake_timeout,
        };
        let shared = Arc::new(Shared::new(limits, counters, http_address));
        let stop_listening = watch::Sender::new(false);
        let (to_grpc, from_listeners) = mpsc::channel(HANDOVER_MAX);
        let mut grpc = JoinSet::new();
        grpc.spawn(sapwood_grpc::serve(
            ReceiverStream::new(from_listeners).map(Ok),
            broker.clone(),
            GrpcOptions {
                shutdown_grace: config.limits.drain_timeout,
                ..GrpcOptions::default()
            },
            stopped(stop_listening.subscribe()),
        ));
        let (to_kafka, from_listeners) = mpsc::channel(HANDOVER_MAX);
        let door = Kafka::new(broker.clone(), kafka_options(&config));
        metrics.show_requests(Arc::new(crate::kafka::Requests(door.clone())));
        let mut kafka = JoinSet::new();
        kafka.spawn(crate::kafka::serve(
            door,
            from_listeners,
            config.limits.drain_timeout,
            stop_listening.subscribe(),
        ));
        let mut listeners = JoinSet::new();
        let mut addresses = Vec::new();
        for (name, socket) in bound.listeners {
            let address = socket.local_addr();
            let address = address.map_err(|source| RunError::SetUp {
                what: "a listener",
                source,
            })?;
            let doors = Doors {
                grpc: to_grpc.clone(),
                kafka: to_kafka.clone(),
                name: name.as_str().into(),
                advertised: advertised(&config, &name),
            };
            addresses.push((name, address));
            listeners.spawn(listener::serve(
                socket,
                Arc::clone(&shared),
                doors,
                stop_listening.subscribe(),
            ));
        }
        health.ready(broker.clone());
        let ready = Ready {
            listeners: addresses,
            http: http_address,
            data_dir: config.storage.data_dir.clone(),
            durability: config.topics.durability,
            pid: std::process::id(),
            took: health.start_took().unwrap_or_default(),
        };
        info!(
            event = "broker.ready",
            listen = %ready.listen(),
            http = ready.http.map(tracing::field::display),
            topics = broker.topics().len(),
            took = ?ready.took,
            "serving"
        );
        Ok(Self {
            ready,
            broker,
            health,
            stop_listening,
            stop_http,
            listeners,
            grpc,
            kafka,
            http,
        })
    }

    /// The addresses and what else is worth telling.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// The broker behind the listeners.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Returns when the gRPC server ends although nobody stopped it.
    pub(crate) async fn failed(&mut self) -> RunError {
        let reason = match self.grpc.join_next().await {
            Some(Ok(Ok(()))) | None => "it stopped by itself".to_owned(),
            Some(Ok(Err(error))) => error.to_string(),
            Some(Err(error)) => error.to_string(),
        };
        RunError::Grpc { reason }
    }

    /// Drains and stops: accepts nothing new, finishes what was accepted, gives clients
    /// `limits.drain_timeout_ms` to take their answers, closes the data directory cleanly.
    ///
    /// # Errors
    ///
    /// [`RunError::Close`] when the data directory could not be closed cleanly.
    pub async fn stop(mut self) -> Result<(), RunError> {
        info!(event = "broker.draining", "draining");
        self.health.drain();
        // Also tells the gRPC server to let its connections finish.
        self.stop_listening.send_replace(true);
        let clients = async {
            let ended = self.grpc.join_next().await;
            if let Some(Ok(Err(error))) = ended {
                warn!(event = "broker.grpc_failed", %error, "the grpc server did not end well");
            }
            while self.listeners.join_next().await.is_some() {}
            while self.kafka.join_next().await.is_some() {}
        };
        let (closed, ()) = tokio::join!(self.broker.drain_and_close(), clients);
        self.stop_http.send_replace(true);
        while self.http.join_next().await.is_some() {}
        closed.map_err(|error| RunError::Close {
            reason: error.to_string(),
        })?;
        info!(event = "broker.stopped", "stopped");
        Ok(())
    }
}

/// Resolves when `stop` turns true or its sender is gone.
async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

impl Bound {
    async fn bind(config: &Config) -> Result<Self, RunError> {
        let loopback_only = config.profile == Profile::Serve && !config.security.insecure;
        let mut listeners = Vec::new();
        for listener in &config.listeners {
            let key = format!("listeners.{}.address", listener.name);
            let socket = bind(&key, &listener.address, loopback_only).await?;
            listeners.push((listener.name.clone(), socket));
        }
        let http = match &config.http.address {
            Some(address) => Some(bind("http.address", address, loopback_only).await?),
            None => None,
        };
        Ok(Self { listeners, http })
    }
}

fn announce(config: &Config, bound: &Bound, http: Option<SocketAddr>, allowance: &Allowance) {
    info!(
        event = "broker.started",
        version = env!("CARGO_PKG_VERSION"),
        profile = %config.profile,
        data_dir = %config.storage.data_dir.display(),
        pid = std::process::id(),
        descriptors = allowance.descriptors,
        mappings = allowance.mappings,
        partitions_allowed = allowance.partitions,
        "starting"
    );
    for (name, socket) in &bound.listeners {
        if let Ok(address) = socket.local_addr() {
            info!(event = "listener.bound", name, %address, "listening");
            warn_beyond_loopback(name, address);
        }
    }
    if let Some(address) = http {
        info!(event = "listener.bound", name = "http", %address, "listening");
        warn_beyond_loopback("http", address);
    }
    if allowance.connections < config.limits.connections {
        let key = "limits.connections";
        let (asked, given) = (config.limits.connections, allowance.connections);
        let descriptors = allowance.descriptors;
        // The default is as many as there is room for, up to itself; what was asked for is another
        // matter.
        match config.origin(key) {
            Some(Origin::Default(_)) | None => {
                info!(
                    event = "limits.lowered",
                    key, asked, given, descriptors, "room for fewer"
                );
            }
            Some(_) => {
                warn!(
                    event = "limits.lowered",
                    key, asked, given, descriptors, "room for fewer"
                );
            }
        }
    }
}

fn warn_beyond_loopback(name: &str, address: SocketAddr) {
    if !crate::bind::is_loopback(address.ip()) {
        warn!(
            event = "listener.insecure",
            name,
            %address,
            "listening beyond loopback without authentication"
        );
    }
}

fn recovery_progress(progress: &Progress) -> RecoveryProgress {
    RecoveryProgress {
        partitions_done: progress.done.load(Relaxed),
        partitions_total: progress.total.load(Relaxed),
        bytes_done: progress.bytes.load(Relaxed),
    }
}

fn check_partitions(broker: &Broker, allowance: &Allowance) {
    let partitions: u64 = broker
        .topics()
        .iter()
        .map(|topic| u64::from(topic.partitions))
        .sum();
    if partitions > allowance.partitions {
        warn!(
            event = "limits.partitions",
            partitions,
            partitions_allowed = allowance.partitions,
            descriptors = allowance.descriptors,
            mappings = allowance.mappings,
            "more partitions than descriptors and mappings allow to be written to at once: raise \
             `ulimit -n` or vm.max_map_count"
        );
    }
}

/// What Kafka clients of a listener are told to connect to.
fn advertised(config: &Config, listener: &str) -> Option<Advertised> {
    let mut listeners = config.listeners.iter();
    let found = listeners.find(|found| found.name == listener)?;
    // The configuration has checked its form.
    Advertised::parse(found.advertised.as_deref()?)
}

fn kafka_options(config: &Config) -> KafkaOptions {
    KafkaOptions {
        broker_id: i32::try_from(config.kafka.broker_id).unwrap_or(i32::MAX),
        idle_timeout: config.limits.idle_timeout,
        fetch_sessions_max: usize::try_from(config.kafka.fetch_sessions).unwrap_or(usize::MAX),
        ..KafkaOptions::default()
    }
}

/// What topics get for the keys that their creators do not set. A journal smaller than usual holds
/// only batches smaller than usual: then the limit on them follows it, unless it was set.
fn topic_defaults(config: &Config, fsync_batch_bytes_max: u64) -> Vec<(String, String)> {
    const BATCH_BYTES_KEY: &str = "max.message.bytes";
    let mut defaults = config.topic_defaults.clone();
    // What everybody has is not the broker's own: clients show what is.
    if config.topics.durability == Durability::Os {
        defaults.insert("durability".to_owned(), "os".to_owned());
    }
    let usual =
        ConfigKey::find(BATCH_BYTES_KEY).and_then(|batch_bytes| batch_bytes.default().parse().ok());
    if usual.is_none_or(|usual: u64| usual > fsync_batch_bytes_max) {
        defaults
            .entry(BATCH_BYTES_KEY.to_owned())
            .or_insert_with(|| fsync_batch_bytes_max.to_string());
    }
    defaults.into_iter().collect()
}

fn group_settings(groups: &GroupsConfig) -> sapwood_broker::group::Settings {
    // The bounds of the keys are far below these.
    let ms = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    sapwood_broker::group::Settings {
        initial_rebalance_delay_ms: ms(groups.initial_rebalance_delay),
        session_timeout_ms: ms(groups.session_timeout_min)..=ms(groups.session_timeout_max),
        members_max: usize::try_from(groups.members_max).unwrap_or(usize::MAX),
        consumer_session_timeout_ms: ms(groups.consumer_session_timeout),
        consumer_heartbeat_interval_ms: ms(groups.consumer_heartbeat_interval),
        offsets_retention_ms: u64::try_from(groups.offsets_retention.as_millis())
            .unwrap_or(u64::MAX),
        offsets_check_interval_ms: ms(groups.offsets_check_interval),
        offset_metadata_bytes_max: usize::try_from(groups.offset_metadata_bytes)
            .unwrap_or(usize::MAX),
        ..sapwood_broker::group::Settings::default()
    }
}

fn broker_options(config: &Config, boot_id: String, allowance: &Allowance) -> BrokerOptions {
    let storage = &config.storage;
    let store = StoreOptions {
        ballast_bytes: storage.ballast_bytes,
        journal_file_bytes: storage.journal_file_bytes,
        journal_files: u32::try_from(storage.journal_files).unwrap_or(u32::MAX),
        boot_id,
        tail: match storage.tail {
            Tail::Auto => None,
            Tail::Mmap => Some(TailKind::Mmap),
            Tail::Pwrite => Some(TailKind::Pwrite),
        },
        commit_delay: storage.commit_delay,
        commit_bytes: storage.commit_bytes,
        os_checkpoint_interval: storage.os_checkpoint_interval,
        os_checkpoint_bytes: storage.os_checkpoint_bytes,
        open_files_max: usize::try_from(allowance.open_files).unwrap_or(usize::MAX),
        ..StoreOptions::default()
    };
    let topic_defaults = topic_defaults(config, store.fsync_batch_bytes_max());
    BrokerOptions {
        auto_create: config.topics.auto_create,
        default_partitions: u32::try_from(config.topics.partitions).unwrap_or(u32::MAX),
        replication: match config.topics.replication_factor {
            Replication::AsOne => ReplicationPolicy::AsOne,
            Replication::Refuse => ReplicationPolicy::Refuse,
        },
        topic_defaults,
        request_bytes_max: config.limits.request_bytes,
        connection_bytes_max: config.limits.connection_bytes,
        scrub_bytes_per_second: storage.scrub_bytes_per_second,
        retention_interval: storage.retention_interval,
        compaction_dedupe_bytes: usize::try_from(storage.compaction_dedupe_bytes)
            .unwrap_or(usize::MAX),
        compaction_bytes_per_second: storage.compaction_bytes_per_second,
        groups: group_settings(&config.groups),
        drain_timeout: config.limits.drain_timeout,
        ..BrokerOptions::new(&storage.data_dir, store)
    }
}
