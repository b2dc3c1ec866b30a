//! What a broker is told when it is opened.

use std::{path::PathBuf, time::Duration};

use sapwood_log::StoreOptions;

use crate::Driver;

/// How many partitions a topic may have.
pub(crate) const PARTITIONS_MAX: u32 = 100_000;

/// What happens to a request for more than one replica, which one broker cannot keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReplicationPolicy {
    /// It is taken as 1, with a warning in the log.
    AsOne,
    /// It is refused.
    #[default]
    Refuse,
}

/// The settings of a broker.
#[derive(Debug, Clone)]
pub struct BrokerOptions {
    /// The data directory. It is made if it is not there.
    pub data_dir: PathBuf,
    /// The store's settings: journal, ballast, checkpoints.
    pub store: StoreOptions,
    /// Whether a produce that asks for it creates a topic that is not there.
    pub auto_create: bool,
    /// The number of partitions of a topic whose creator does not say, 1 to 100,000.
    pub default_partitions: u32,
    /// What happens to a request for more than one replica.
    pub replication: ReplicationPolicy,
    /// Topic configuration keys whose default differs from Kafka's, with the value, such as
    /// `("durability", "os")`. Checked when the broker is opened.
    pub topic_defaults: Vec<(String, String)>,
    /// Bytes of requests that the whole broker holds at once, up to 4 GiB.
    pub request_bytes_max: u64,
    /// Bytes of requests that one connection may hold at once.
    pub connection_bytes_max: u64,
    /// The most bytes that one fetch answers with, whatever it asks for (a larger first batch is
    /// answered all the same).
    pub fetch_bytes_max: usize,
    /// The most bytes that a compressed batch may unfold to where it must be opened.
    pub decompressed_bytes_max: usize,
    /// Whether the records of compressed batches are checked on produce. It costs a decompression;
    /// compacted topics, whose records must have keys, do it always.
    pub check_compressed: bool,
    /// How many reads that wait for the disk run at once. The others queue.
    pub cold_reads_max: usize,
    /// How long the state of an idempotent producer is kept after its last batch.
    pub producer_expiration: Duration,
    /// How fast sealed segments are read in the background to find damage, in bytes a second: after an
    /// unclean start and once a week. 0 switches it off.
    pub scrub_bytes_per_second: u64,
    /// How long after a look at all partitions retention looks again, if nothing is due before.
    pub retention_interval: Duration,
    /// The most memory, in bytes, that noting the keys of a log takes while it is compacted. With more keys
    /// it takes several passes.
    pub compaction_dedupe_bytes: usize,
    /// How fast logs are compacted in the background, in bytes that are read and written a second. 0
    /// switches it off; [`Broker::compact`](crate::Broker::compact) works all the same.
    pub compaction_bytes_per_second: u64,
    /// The settings of consumer groups.
    pub groups: sapwood_group::Settings,
    /// How long a drain waits for what was accepted before it closes the store, which makes what is
    /// left durable itself.
    pub drain_timeout: Duration,
    /// Who does the work that waits for a disk.
    pub driver: Driver,
}

impl BrokerOptions {
    /// Defaults for a data directory: auto-creation off, 1 partition, replication refused, a budget
    /// of 64 MiB of which one connection gets 16 MiB.
    pub fn new(data_dir: impl Into<PathBuf>, store: StoreOptions) -> Self {
        Self {
            data_dir: data_dir.into(),
            store,
            auto_create: false,
            default_partitions: 1,
            replication: ReplicationPolicy::Refuse,
            topic_defaults: Vec::new(),
            request_bytes_max: 64 << 20,
            connection_bytes_max: 16 << 20,
            fetch_bytes_max: 55 << 20,
            decompressed_bytes_max: 64 << 20,
            check_compressed: false,
            cold_reads_max: 16,
            producer_expiration: Duration::from_secs(24 * 60 * 60),
            scrub_bytes_per_second: 0,
            retention_interval: Duration::from_secs(5 * 60),
            compaction_dedupe_bytes: 128 << 20,
            compaction_bytes_per_second: 64 << 20,
            groups: sapwood_group::Settings::default(),
            drain_timeout: Duration::from_secs(10),
            driver: Driver::default(),
        }
    }
}
