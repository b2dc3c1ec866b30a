//! The one list of configuration keys: name, unit, bounds, meaning, and the field it sets.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use sapwood_model::Durability;

use super::value::{check_address, check_advertised, parse_bytes, parse_millis, parse_number};
use super::{Config, ListenerConfig, LogFormat, Replication, Tail, Value};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const PAGE: u64 = 4 * KIB;
/// The broker counts its budget in 32 bits.
const BUDGET_BYTES_MAX: u64 = 4 * GIB - 1;
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// Kafka's ids have 31 bits.
const BROKER_ID_MAX: u64 = i32::MAX as u64;

/// One configuration key.
pub struct Key {
    /// `section.key`.
    pub name: &'static str,
    /// What it is for, in a sentence or two.
    pub doc: &'static str,
    /// Whether SIGHUP applies a change without a restart.
    pub reloads: bool,
    field: Field,
}

/// The field that a key sets, and what values it takes.
enum Field {
    Flag(fn(&mut Config) -> &mut bool),
    Bytes(fn(&mut Config) -> &mut u64, RangeInclusive<u64>),
    /// Bytes in whole pages of 4 KiB.
    Pages(fn(&mut Config) -> &mut u64, RangeInclusive<u64>),
    Number(fn(&mut Config) -> &mut u64, RangeInclusive<u64>),
    Millis(fn(&mut Config) -> &mut Duration, RangeInclusive<u64>),
    Path(fn(&mut Config) -> &mut PathBuf),
    Choice {
        options: &'static [&'static str],
        set: fn(&mut Config, usize),
        get: fn(&Config) -> usize,
    },
    /// An address, or `off` for none.
    Address(fn(&mut Config) -> &mut Option<String>),
    /// Log directives.
    Level(fn(&mut Config) -> &mut String),
}

const fn key(name: &'static str, field: Field, doc: &'static str) -> Key {
    Key {
        name,
        doc,
        reloads: false,
        field,
    }
}

/// Every key but those of listeners, by section.
pub static KEYS: &[Key] = &[
    key(
        "storage.data_dir",
        Field::Path(|config| &mut config.storage.data_dir),
        "The data directory. It is created when it does not exist.",
    ),
    key(
        "storage.ballast_bytes",
        Field::Bytes(|config| &mut config.storage.ballast_bytes, 0..=16 * GIB),
        "Space held back for the catalog, commits, checkpoints and deletes on a full disk.",
    ),
    key(
        "storage.journal_file_bytes",
        Field::Pages(
            |config| &mut config.storage.journal_file_bytes,
            64 * KIB..=GIB,
        ),
        "Size of one journal file. A batch of an fsync topic may be at most half of it.",
    ),
    key(
        "storage.journal_files",
        Field::Number(|config| &mut config.storage.journal_files, 2..=64),
        "How many journal files take turns.",
    ),
    key(
        "storage.boot_id_file",
        Field::Path(|config| &mut config.storage.boot_id_file),
        "The file with the kernel's boot id, which tells a crash of the process from a power cut.",
    ),
    key(
        "storage.tail",
        Field::Choice {
            options: &["auto", "mmap", "pwrite"],
            set: |config, chosen| {
                config.storage.tail = [Tail::Auto, Tail::Mmap, Tail::Pwrite][chosen]
            },
            get: |config| config.storage.tail as usize,
        },
        "How active segments are written: through a mapping where the file system allows it (auto), \
         always so, or with positional writes.",
    ),
    key(
        "storage.commit_delay_ms",
        Field::Millis(|config| &mut config.storage.commit_delay, 0..=10_000),
        "The longest that an append to an fsync topic waits for its sync when nobody waits for it.",
    ),
    key(
        "storage.commit_bytes",
        Field::Bytes(|config| &mut config.storage.commit_bytes, 4 * KIB..=GIB),
        "This many bytes that nobody waits for are synced at once.",
    ),
    key(
        "storage.os_checkpoint_interval_ms",
        Field::Millis(
            |config| &mut config.storage.os_checkpoint_interval,
            100..=HOUR_MS,
        ),
        "The longest between checkpoints while os topics have bytes that are not on the disk.",
    ),
    key(
        "storage.os_checkpoint_bytes",
        Field::Bytes(|config| &mut config.storage.os_checkpoint_bytes, MIB..=TIB),
        "This many such bytes start a checkpoint at once.",
    ),
    key(
        "storage.scrub_bytes_per_second",
        Field::Bytes(|config| &mut config.storage.scrub_bytes_per_second, 0..=TIB),
        "How fast sealed segments are read to find damage, once a week and after an unclean start; 0 is \
         not at all.",
    ),
    key(
        "storage.retention_interval_ms",
        Field::Millis(
            |config| &mut config.storage.retention_interval,
            100..=DAY_MS,
        ),
        "The longest between two looks at all partitions for segments that are too old or too much.",
    ),
    key(
        "storage.compaction_dedupe_bytes",
        Field::Bytes(
            |config| &mut config.storage.compaction_dedupe_bytes,
            MIB..=64 * GIB,
        ),
        "The most memory that noting the keys of a log takes while it is compacted, 24 bytes a slot; with more \
         keys it takes several passes. Kafka's log.cleaner.dedupe.buffer.size.",
    ),
    key(
        "storage.compaction_bytes_per_second",
        Field::Bytes(
            |config| &mut config.storage.compaction_bytes_per_second,
            0..=TIB,
        ),
        "How fast compacted topics are compacted in the background, in bytes that are read and written; 0 is \
         not at all, other than with `sapwood storage compact`. Kafka's \
         log.cleaner.io.max.bytes.per.second, which has no limit by default.",
    ),
    key(
        "topics.auto_create",
        Field::Flag(|config| &mut config.topics.auto_create),
        "Whether producing to an unknown topic, or a Kafka client's asking for it, creates it.",
    ),
    key(
        "topics.partitions",
        Field::Number(|config| &mut config.topics.partitions, 1..=100_000),
        "Partitions of a new topic whose creator does not say.",
    ),
    key(
        "topics.replication_factor",
        Field::Choice {
            options: &["as-one", "refuse"],
            set: |config, chosen| {
                config.topics.replication_factor =
                    [Replication::AsOne, Replication::Refuse][chosen];
            },
            get: |config| config.topics.replication_factor as usize,
        },
        "What happens to a replication factor or min.insync.replicas above 1: taken as 1 with a \
         warning, or refused.",
    ),
    key(
        "topics.durability",
        Field::Choice {
            options: &["fsync", "os"],
            set: |config, chosen| {
                config.topics.durability = [Durability::Fsync, Durability::Os][chosen];
            },
            get: |config| config.topics.durability as usize,
        },
        "Durability of a new topic: synced to disk before the acknowledgement, or in the page cache.",
    ),
    key(
        "http.address",
        Field::Address(|config| &mut config.http.address),
        "HOST:PORT of /livez, /readyz and /metrics, or off. Port 0 picks a free one.",
    ),
    key(
        "kafka.broker_id",
        Field::Number(|config| &mut config.kafka.broker_id, 0..=BROKER_ID_MAX),
        "The id under which Kafka clients know this broker.",
    ),
    key(
        "kafka.fetch_sessions",
        Field::Number(|config| &mut config.kafka.fetch_sessions, 0..=1_000_000),
        "Incremental fetch sessions kept at once; clients without one name everything in each fetch.",
    ),
    key(
        "groups.initial_rebalance_delay_ms",
        Field::Millis(
            |config| &mut config.groups.initial_rebalance_delay,
            0..=HOUR_MS,
        ),
        "How long the first rebalance of an empty classic group waits for more members.",
    ),
    key(
        "groups.session_timeout_min_ms",
        Field::Millis(|config| &mut config.groups.session_timeout_min, 1..=DAY_MS),
        "The shortest session timeout that a classic member may ask for.",
    ),
    key(
        "groups.session_timeout_max_ms",
        Field::Millis(|config| &mut config.groups.session_timeout_max, 1..=DAY_MS),
        "The longest session timeout that a classic member may ask for.",
    ),
    key(
        "groups.consumer_session_timeout_ms",
        Field::Millis(
            |config| &mut config.groups.consumer_session_timeout,
            100..=DAY_MS,
        ),
        "How long a member of a group of the newer kind may be silent before it is out.",
    ),
    key(
        "groups.consumer_heartbeat_interval_ms",
        Field::Millis(
            |config| &mut config.groups.consumer_heartbeat_interval,
            10..=HOUR_MS,
        ),
        "How often a member of a group of the newer kind is told to say something.",
    ),
    key(
        "groups.members_max",
        Field::Number(|config| &mut config.groups.members_max, 1..=1_000_000),
        "Members that one group may have.",
    ),
    key(
        "groups.offsets_retention_ms",
        Field::Millis(
            |config| &mut config.groups.offsets_retention,
            1_000..=36_500 * DAY_MS,
        ),
        "How long committed offsets are kept after the last member is gone.",
    ),
    key(
        "groups.offsets_check_interval_ms",
        Field::Millis(
            |config| &mut config.groups.offsets_check_interval,
            1_000..=DAY_MS,
        ),
        "How often groups are looked through for offsets that are kept no longer.",
    ),
    key(
        "groups.offset_metadata_bytes",
        Field::Bytes(
            |config| &mut config.groups.offset_metadata_bytes,
            0..=32 * KIB - 1,
        ),
        "The longest text that may come with a committed offset.",
    ),
    key(
        "limits.request_bytes",
        Field::Bytes(
            |config| &mut config.limits.request_bytes,
            MIB..=BUDGET_BYTES_MAX,
        ),
        "Bytes of requests in flight over the whole broker; past it, sockets are not read.",
    ),
    key(
        "limits.connection_bytes",
        Field::Bytes(
            |config| &mut config.limits.connection_bytes,
            64 * KIB..=BUDGET_BYTES_MAX,
        ),
        "Bytes of requests in flight on one connection; past it, that socket is not read.",
    ),
    key(
        "limits.connections",
        Field::Number(|config| &mut config.limits.connections, 1..=1_000_000),
        "Connections at a time over all listeners; further ones are closed as they come.",
    ),
    key(
        "limits.handshake_timeout_ms",
        Field::Millis(|config| &mut config.limits.handshake_timeout, 10..=HOUR_MS),
        "How long a new connection may take to send its first bytes.",
    ),
    key(
        "limits.idle_timeout_ms",
        Field::Millis(|config| &mut config.limits.idle_timeout, 1_000..=DAY_MS),
        "How long a Kafka connection may send nothing and wait for nothing before it is closed.",
    ),
    key(
        "limits.drain_timeout_ms",
        Field::Millis(|config| &mut config.limits.drain_timeout, 0..=HOUR_MS),
        "How long a drain waits for clients to take their answers before it cuts them off.",
    ),
    Key {
        name: "log.level",
        doc: "error, warn, info, debug, trace or off, for all or by module: info,sapwood_log=debug.",
        reloads: true,
        field: Field::Level(|config| &mut config.log.level),
    },
    key(
        "log.format",
        Field::Choice {
            options: &["text", "json"],
            set: |config, chosen| config.log.format = [LogFormat::Text, LogFormat::Json][chosen],
            get: |config| config.log.format as usize,
        },
        "The form of a log line.",
    ),
    key(
        "metrics.per_partition",
        Field::Flag(|config| &mut config.metrics.per_partition),
        "Whether /metrics has a series for each partition or one for each topic.",
    ),
    key(
        "security.insecure",
        Field::Flag(|config| &mut config.security.insecure),
        "Whether serve may listen beyond loopback while authentication is off.",
    ),
];

/// The keys of each listener, after `listeners.NAME.`.
pub const LISTENER_KEYS: &[(&str, &str)] = &[
    (
        "address",
        "HOST:PORT to listen on, for gRPC and Kafka clients alike. Port 0 picks a free one.",
    ),
    (
        "advertised",
        "HOST:PORT that clients are told; when empty, the address that they connected to.",
    ),
];

/// The key with this name, but those of listeners.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

impl Key {
    /// The unit of a number.
    pub fn unit(&self) -> Option<&'static str> {
        match self.field {
            Field::Bytes(..) | Field::Pages(..) => Some("bytes"),
            Field::Millis(..) => Some("ms"),
            _ => None,
        }
    }

    /// What values it takes.
    pub fn bounds(&self) -> String {
        match &self.field {
            Field::Flag(_) => "true or false".to_owned(),
            Field::Bytes(_, range) | Field::Number(_, range) | Field::Millis(_, range) => {
                format!("{} to {}", range.start(), range.end())
            }
            Field::Pages(_, range) => {
                format!("{} to {}, in steps of {PAGE}", range.start(), range.end())
            }
            Field::Path(_) => "a path".to_owned(),
            Field::Choice { options, .. } => options.join(" or "),
            Field::Address(_) => "HOST:PORT or off".to_owned(),
            Field::Level(_) => "a level, or module=level, separated by commas".to_owned(),
        }
    }

    /// The value in `config`.
    pub(super) fn get(&self, config: &mut Config) -> Value {
        match &self.field {
            Field::Flag(at) => Value::Flag(*at(config)),
            Field::Bytes(at, _) | Field::Pages(at, _) | Field::Number(at, _) => {
                Value::Number(*at(config))
            }
            Field::Millis(at, _) => {
                Value::Number(u64::try_from(at(config).as_millis()).unwrap_or(u64::MAX))
            }
            Field::Path(at) => Value::Text(at(config).display().to_string()),
            Field::Choice { options, get, .. } => Value::Text(options[get(config)].to_owned()),
            Field::Address(at) => {
                Value::Text(at(config).clone().unwrap_or_else(|| "off".to_owned()))
            }
            Field::Level(at) => Value::Text(at(config).clone()),
        }
    }

    /// Sets the field from text, or says what is wrong with the text.
    pub(super) fn set(&self, config: &mut Config, text: &str) -> Result<(), String> {
        match &self.field {
            Field::Flag(at) => *at(config) = parse_flag(text)?,
            Field::Bytes(at, range) => {
                *at(config) = within(
                    parse_bytes(text),
                    range,
                    "a size such as 67108864 or 64 MiB",
                )?;
            }
            Field::Pages(at, range) => {
                let bytes = within(
                    parse_bytes(text),
                    range,
                    "a size such as 67108864 or 64 MiB",
                )?;
                if !bytes.is_multiple_of(PAGE) {
                    return Err(format!("{bytes} is not a multiple of {PAGE}"));
                }
                *at(config) = bytes;
            }
            Field::Number(at, range) => {
                *at(config) = within(parse_number(text), range, "a whole number")?;
            }
            Field::Millis(at, range) => {
                let millis = within(
                    parse_millis(text),
                    range,
                    "milliseconds, or a time such as 10s",
                )?;
                *at(config) = Duration::from_millis(millis);
            }
            Field::Path(at) => {
                if text.is_empty() || text.contains('\0') {
                    return Err("it must be a path".to_owned());
                }
                *at(config) = PathBuf::from(text);
            }
            Field::Choice { options, set, .. } => {
                let chosen = options.iter().position(|option| *option == text);
                set(
                    config,
                    chosen.ok_or_else(|| format!("it must be {}", options.join(" or ")))?,
                );
            }
            Field::Address(at) => *at(config) = parse_optional_address(text)?,
            Field::Level(at) => {
                crate::logging::check_level(text)?;
                text.clone_into(at(config));
            }
        }
        Ok(())
    }
}

/// Sets one key of a listener, or says what is wrong with the text.
pub(super) fn set_listener(
    listener: &mut ListenerConfig,
    key: &str,
    text: &str,
) -> Result<(), String> {
    match key {
        "address" => {
            check_address(text)?;
            text.clone_into(&mut listener.address);
        }
        "advertised" if text.is_empty() => listener.advertised = None,
        "advertised" => {
            check_advertised(text)?;
            listener.advertised = Some(text.to_owned());
        }
        other => unreachable!("the layers resolve {other:?} against LISTENER_KEYS first"),
    }
    Ok(())
}

fn parse_optional_address(text: &str) -> Result<Option<String>, String> {
    if text == "off" {
        return Ok(None);
    }
    check_address(text)?;
    Ok(Some(text.to_owned()))
}

fn parse_flag(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("it must be true or false".to_owned()),
    }
}

fn within(parsed: Option<u64>, range: &RangeInclusive<u64>, form: &str) -> Result<u64, String> {
    let (low, high) = (range.start(), range.end());
    match parsed {
        None => Err(format!("it must be {form}, from {low} to {high}")),
        Some(number) if !range.contains(&number) => {
            Err(format!("{number} is outside {low} to {high}"))
        }
        Some(number) => Ok(number),
    }
}
