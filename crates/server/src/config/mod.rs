//! The configuration: typed, and each value remembers where it came from.
//!
//! Four layers, the later wins: the defaults of the [`Profile`], a TOML file, the environment
//! (`SAPWOOD_SECTION__KEY`), flags (`--set section.key=value` and the shorthands). [`keys::KEYS`]
//! is the one list of keys, with their bounds and units; `sapwood config show` prints it. Keys of
//! listeners carry the listener's name: `listeners.main.address`. Behind `topic_defaults.` stands any
//! configuration key of a topic: `topic_defaults.retention.ms`.

mod error;
mod keys;
mod layers;
mod load;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sapwood_model::Durability;

pub use error::{ConfigError, Problem};
pub use keys::{KEYS, Key, LISTENER_KEYS};
pub use value::Value;

/// The listener that exists when none is configured.
pub const DEFAULT_LISTENER: &str = "main";

/// Which command's defaults are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// `sapwood dev`: topics are created by themselves, and nothing about the network is refused.
    Dev,
    /// `sapwood serve`: production.
    Serve,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dev => "dev",
            Self::Serve => "serve",
        })
    }
}

/// Where a value came from. `Display` is what `config show` prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The profile's default.
    Default(Profile),
    /// A configuration file.
    File {
        /// The path as it was given.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// An environment variable, by its name.
    Environment(String),
    /// A command-line flag, as it is spelt: `--data-dir`, `--set`.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default(profile) => write!(f, "default ({profile})"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// The flags of `dev` and `serve` that are configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--data-dir`: `storage.data_dir`.
    pub data_dir: Option<String>,
    /// `--listen`: the address of the one listener.
    pub listen: Option<String>,
    /// `--advertised`: the advertised address of the one listener.
    pub advertised: Option<String>,
    /// `--http-listen`: `http.address`.
    pub http_listen: Option<String>,
    /// `--insecure`: `security.insecure = true`.
    pub insecure: bool,
    /// `--set section.key=value`, in the order given; the last of a key wins, and it wins over the
    /// shorthands above.
    pub set: Vec<String>,
}

/// What a configuration is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inputs {
    /// Whose defaults.
    pub profile: Profile,
    /// The TOML file, if one was named. It must exist.
    pub file: Option<PathBuf>,
    /// The environment; only variables of the form `SAPWOOD_SECTION__KEY` are looked at.
    pub environment: Vec<(String, String)>,
    /// The flags.
    pub flags: Flags,
}

impl Inputs {
    /// Defaults only: no file, no environment, no flags.
    pub fn new(profile: Profile) -> Self {
        Self {
            profile,
            file: None,
            environment: Vec::new(),
            flags: Flags::default(),
        }
    }

    /// The process's environment, without the variables that are not UTF-8 (none of ours is).
    pub fn with_process_environment(mut self) -> Self {
        self.environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        self
    }
}

/// Storage: where the data is, and the sizes of what the store keeps for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageConfig {
    /// The data directory.
    pub data_dir: PathBuf,
    /// Bytes of the ballast file.
    pub ballast_bytes: u64,
    /// Bytes of one journal file.
    pub journal_file_bytes: u64,
    /// How many journal files.
    pub journal_files: u64,
    /// The file that holds the kernel's boot id.
    pub boot_id_file: PathBuf,
    /// How active segments are written.
    pub tail: Tail,
    /// The longest an append that nobody waits for stays out of the journal.
    pub commit_delay: Duration,
    /// This many such bytes start a journal round at once.
    pub commit_bytes: u64,
    /// The longest between checkpoints while `os` topics are dirty.
    pub os_checkpoint_interval: Duration,
    /// This many dirty bytes of `os` topics start a checkpoint at once.
    pub os_checkpoint_bytes: u64,
    /// How fast the background reads sealed segments to find damage; 0 is not at all.
    pub scrub_bytes_per_second: u64,
    /// The longest between two looks at all partitions for what retention has to delete.
    pub retention_interval: Duration,
    /// The most memory for the keys of a log that is compacted.
    pub compaction_dedupe_bytes: u64,
    /// How fast the background compacts, in bytes that are read and written; 0 is not at all.
    pub compaction_bytes_per_second: u64,
}

/// How active segments are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// Mapped where the file system is known to be safe for it, else positional writes.
    Auto,
    /// Through a shared mapping.
    Mmap,
    /// With positional writes.
    Pwrite,
}

/// Topics: what a new topic gets when its creator does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicsConfig {
    /// Whether producing to, or asking about, an unknown topic creates it.
    pub auto_create: bool,
    /// Partitions of a new topic.
    pub partitions: u64,
    /// What happens to a replication factor above 1.
    pub replication_factor: Replication,
    /// Durability of a new topic.
    pub durability: Durability,
}

/// What one broker does with a request for more than one replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replication {
    /// Takes it as 1, with a warning.
    AsOne,
    /// Refuses it.
    Refuse,
}

/// One listener: a port that serves both protocols.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerConfig {
    /// Its name, `[a-z0-9-]`.
    pub name: String,
    /// `HOST:PORT` to listen on; port 0 picks a free one.
    pub address: String,
    /// `HOST:PORT` that clients are told; without one, the address that they connected to.
    pub advertised: Option<String>,
}

/// HTTP: health and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// `HOST:PORT` to listen on, or `None` for no HTTP at all.
    pub address: Option<String>,
}

/// Kafka's protocol: what its clients see of this broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaConfig {
    /// The id under which clients know this broker.
    pub broker_id: u64,
    /// Incremental fetch sessions that are kept at once.
    pub fetch_sessions: u64,
}

/// Consumer groups: how long they wait for their members, and what they keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupsConfig {
    /// How long the first rebalance of an empty classic group waits for more members.
    pub initial_rebalance_delay: Duration,
    /// The shortest session timeout that a classic member may ask for.
    pub session_timeout_min: Duration,
    /// The longest session timeout that a classic member may ask for.
    pub session_timeout_max: Duration,
    /// How long a member of the newer kind may be silent.
    pub consumer_session_timeout: Duration,
    /// How often a member of the newer kind is told to say something.
    pub consumer_heartbeat_interval: Duration,
    /// Members of one group, of either kind.
    pub members_max: u64,
    /// How long committed offsets are kept that nobody uses.
    pub offsets_retention: Duration,
    /// How often a group is looked through for such offsets.
    pub offsets_check_interval: Duration,
    /// Bytes of the text that comes with a committed offset.
    pub offset_metadata_bytes: u64,
}

/// Limits: what bounds memory, sockets and time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Bytes of request bodies in flight over the whole broker.
    pub request_bytes: u64,
    /// Bytes of request bodies in flight on one connection.
    pub connection_bytes: u64,
    /// Connections at a time over all listeners.
    pub connections: u64,
    /// How long a new connection may take to show its protocol.
    pub handshake_timeout: Duration,
    /// How long a Kafka connection may be idle.
    pub idle_timeout: Duration,
    /// How long a drain waits for clients before it cuts them off.
    pub drain_timeout: Duration,
}

/// The log that the process writes about itself, on stderr.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// The level, or directives such as `info,sapwood_log=debug`.
    pub level: String,
    /// The form of a line.
    pub format: LogFormat,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Whether `/metrics` has one series for each partition, or one for each topic.
    pub per_partition: bool,
}

/// Security.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityConfig {
    /// Whether `serve` may listen beyond loopback while authentication is off.
    pub insecure: bool,
}

/// A whole, checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Whose defaults it began from.
    pub profile: Profile,
    /// `storage.*`
    pub storage: StorageConfig,
    /// `topics.*`
    pub topics: TopicsConfig,
    /// `listeners.NAME.*`, by name; at least one.
    pub listeners: Vec<ListenerConfig>,
    /// `http.*`
    pub http: HttpConfig,
    /// `kafka.*`
    pub kafka: KafkaConfig,
    /// `groups.*`
    pub groups: GroupsConfig,
    /// `limits.*`
    pub limits: LimitsConfig,
    /// `log.*`
    pub log: LogConfig,
    /// `metrics.*`
    pub metrics: MetricsConfig,
    /// `security.*`
    pub security: SecurityConfig,
    /// `topic_defaults.*`: what topics get for the keys that their creators do not set, by Kafka's
    /// names (`retention.ms`). The names are checked here, the values when the broker is opened.
    pub topic_defaults: BTreeMap<String, String>,
    origins: BTreeMap<String, Origin>,
    inputs: Inputs,
}

/// One line of `config show`.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// The key: `limits.request_bytes`.
    pub key: String,
    /// The value in force. `Display` writes it as TOML.
    pub value: Value,
    /// What it would be without file, environment and flags; `None` for a listener that only they
    /// brought into being.
    pub default: Option<Value>,
    /// Where the value came from.
    pub origin: Origin,
    /// The unit of a number: `bytes`, `ms`.
    pub unit: Option<&'static str>,
    /// What values are taken: `1 to 100000`, `text or json`.
    pub bounds: String,
    /// What the key is for.
    pub doc: &'static str,
    /// Whether SIGHUP applies a change without a restart.
    pub reloads: bool,
}

impl Config {
    /// The profile's defaults.
    pub fn new(profile: Profile) -> Self {
        load::defaults(profile, Inputs::new(profile))
    }

    /// Reads and checks all layers. Blocks on reading the file.
    ///
    /// # Errors
    ///
    /// Every problem that was found, not only the first: unknown keys (with a suggestion), values
    /// outside their bounds, a file that cannot be read or parsed, a listener beyond loopback.
    pub fn load(inputs: &Inputs) -> Result<Self, ConfigError> {
        load::load(inputs)
    }

    /// Reads the same inputs again: the file may have changed. Blocks on reading the file.
    ///
    /// # Errors
    ///
    /// As [`Config::load`].
    pub fn reload(&self) -> Result<Self, ConfigError> {
        load::load(&self.inputs)
    }

    /// Every key, its value and where that came from, in the order of [`KEYS`], then the listeners,
    /// then the defaults of topics that are set.
    pub fn settings(&self) -> Vec<Setting> {
        load::settings(self)
    }

    /// What differs between this configuration and `next`, as `(this, next)`. A listener that only
    /// one of them has is left out.
    pub fn changes(&self, next: &Self) -> Vec<(Setting, Setting)> {
        let settings = next.settings();
        let pair = |old: Setting| {
            let new = settings
                .iter()
                .find(|new| new.key == old.key && new.value != old.value)?;
            Some((old, new.clone()))
        };
        self.settings().into_iter().filter_map(pair).collect()
    }

    /// Where the value of `key` came from, for a key that exists.
    pub fn origin(&self, key: &str) -> Option<Origin> {
        self.settings()
            .into_iter()
            .find(|setting| setting.key == key)
            .map(|found| found.origin)
    }

    /// The file that was read, if one was named.
    pub fn file(&self) -> Option<&Path> {
        self.inputs.file.as_deref()
    }
}
