//! From layers to a checked configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use sapwood_broker::ConfigKey;
use sapwood_model::Durability;

use super::layers::{Given, from_environment, from_file, from_flags};
use super::{
    Config, ConfigError, DEFAULT_LISTENER, GroupsConfig, HttpConfig, Inputs, KEYS, KafkaConfig,
    LISTENER_KEYS, LimitsConfig, ListenerConfig, LogConfig, LogFormat, MetricsConfig, Origin,
    Problem, Profile, Replication, SecurityConfig, Setting, StorageConfig, Tail, TopicsConfig,
    Value, keys,
};

const MIB: u64 = 1 << 20;
const DEFAULT_ADDRESS: &str = "127.0.0.1:9092";
const DEFAULT_HTTP_ADDRESS: &str = "127.0.0.1:9644";
/// A configuration file is read whole; nobody writes one of this size.
const FILE_BYTES_MAX: u64 = MIB;

/// The defaults of a profile; no origin is recorded for them.
pub(super) fn defaults(profile: Profile, inputs: Inputs) -> Config {
    let dev = profile == Profile::Dev;
    Config {
        profile,
        storage: StorageConfig {
            data_dir: PathBuf::from("sapwood-data"),
            ballast_bytes: 64 * MIB,
            journal_file_bytes: 64 * MIB,
            journal_files: 4,
            boot_id_file: PathBuf::from("/proc/sys/kernel/random/boot_id"),
            tail: Tail::Auto,
            commit_delay: Duration::from_millis(10),
            commit_bytes: MIB,
            os_checkpoint_interval: Duration::from_secs(10),
            os_checkpoint_bytes: 64 * MIB,
            scrub_bytes_per_second: 32 * MIB,
            retention_interval: Duration::from_secs(5 * 60),
            compaction_dedupe_bytes: 128 * MIB,
            compaction_bytes_per_second: 64 * MIB,
        },
        topics: TopicsConfig {
            auto_create: dev,
            partitions: 1,
            replication_factor: if dev {
                Replication::AsOne
            } else {
                Replication::Refuse
            },
            durability: Durability::Fsync,
        },
        listeners: vec![new_listener(DEFAULT_LISTENER)],
        http: HttpConfig {
            address: Some(DEFAULT_HTTP_ADDRESS.to_owned()),
        },
        kafka: KafkaConfig {
            broker_id: 1,
            fetch_sessions: 1000,
        },
        groups: GroupsConfig {
            // Somebody who starts one consumer by hand need not wait for others.
            initial_rebalance_delay: Duration::from_secs(if dev { 0 } else { 3 }),
            session_timeout_min: Duration::from_secs(6),
            session_timeout_max: Duration::from_secs(1800),
            consumer_session_timeout: Duration::from_secs(45),
            consumer_heartbeat_interval: Duration::from_secs(5),
            members_max: 10_000,
            offsets_retention: Duration::from_secs(7 * 24 * 3600),
            offsets_check_interval: Duration::from_secs(600),
            offset_metadata_bytes: 4096,
        },
        limits: LimitsConfig {
            request_bytes: 64 * MIB,
            connection_bytes: 16 * MIB,
            connections: 10_000,
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(600),
            drain_timeout: Duration::from_secs(30),
        },
        // `dev` tells its user what to type next on the same terminal; `serve` has only its log.
        log: LogConfig {
            level: if dev { "warn" } else { "info" }.to_owned(),
            format: LogFormat::Text,
        },
        metrics: MetricsConfig { per_partition: dev },
        security: SecurityConfig { insecure: false },
        topic_defaults: BTreeMap::new(),
        origins: BTreeMap::new(),
        inputs,
    }
}

fn new_listener(name: &str) -> ListenerConfig {
    ListenerConfig {
        name: name.to_owned(),
        address: DEFAULT_ADDRESS.to_owned(),
        advertised: None,
    }
}

pub(super) fn load(inputs: &Inputs) -> Result<Config, ConfigError> {
    let mut problems = Vec::new();
    let mut given = match &inputs.file {
        Some(path) => match read_file(path) {
            Ok(text) => {
                let (given, wrong) = from_file(path, &text);
                problems.extend(wrong);
                given
            }
            Err(problem) => {
                problems.push(problem);
                Vec::new()
            }
        },
        None => Vec::new(),
    };
    given.extend(from_environment(&inputs.environment));
    let named: BTreeSet<&str> = given.iter().filter_map(listener_name).collect();
    let only_listener = match named.len() {
        0 => Some(DEFAULT_LISTENER.to_owned()),
        1 => named.first().map(|name| (*name).to_owned()),
        _ => None,
    };
    let (flags, wrong) = from_flags(&inputs.flags, only_listener.as_deref());
    given.extend(flags);

    let mut config = defaults(inputs.profile, inputs.clone());
    // A listener that somebody configured takes the place of the default one.
    let listeners: BTreeSet<&str> = given.iter().filter_map(listener_name).collect();
    if !listeners.is_empty() {
        config.listeners = listeners.into_iter().map(new_listener).collect();
    }
    problems.extend(given.iter().filter_map(|one| apply(&mut config, one).err()));
    problems.extend(wrong);
    problems.extend(contradictions(&config));
    if problems.is_empty() {
        Ok(config)
    } else {
        Err(ConfigError { problems })
    }
}

fn read_file(path: &std::path::Path) -> Result<String, Problem> {
    let unreadable = |reason: String| Problem::Unreadable {
        path: path.to_owned(),
        reason,
    };
    let metadata = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?;
    if metadata.len() > FILE_BYTES_MAX {
        let bytes = metadata.len();
        return Err(unreadable(format!(
            "it is {bytes} bytes; the limit is {FILE_BYTES_MAX} bytes"
        )));
    }
    std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))
}

/// The NAME of a well-formed `listeners.NAME.KEY`.
fn listener_name(given: &Given) -> Option<&str> {
    let (name, part) = given.key.strip_prefix("listeners.")?.rsplit_once('.')?;
    let known = LISTENER_KEYS.iter().any(|(key, _)| *key == part);
    (known && is_listener_name(name)).then_some(name)
}

fn is_listener_name(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

fn apply(config: &mut Config, given: &Given) -> Result<(), Problem> {
    let invalid = |reason| Problem::InvalidValue {
        key: given.key.clone(),
        value: Value::Text(given.text.clone()).to_string(),
        origin: given.origin.clone(),
        reason,
    };
    if let Some(name) = listener_name(given) {
        let part = given.key.rsplit('.').next().unwrap_or_default();
        let listener = config
            .listeners
            .iter_mut()
            .find(|listener| listener.name == name);
        let listener = listener.expect("load made a listener for every name that was given");
        keys::set_listener(listener, part, &given.text).map_err(invalid)?;
    } else if let Some(key) = keys::find(&given.key) {
        key.set(config, &given.text).map_err(invalid)?;
    } else if let Some(key) = topic_key(&given.key) {
        config
            .topic_defaults
            .insert(key.to_owned(), given.text.clone());
    } else {
        return Err(Problem::UnknownKey {
            key: given.key.clone(),
            origin: given.origin.clone(),
            suggestion: suggestion(&given.key),
        });
    }
    config
        .origins
        .insert(given.key.clone(), given.origin.clone());
    Ok(())
}

/// The topic's key of a well-formed `topic_defaults.KEY`. `durability` has a key of its own.
fn topic_key(key: &str) -> Option<&'static str> {
    let name = key.strip_prefix("topic_defaults.")?;
    topic_keys().find(|known| *known == name)
}

fn topic_keys() -> impl Iterator<Item = &'static str> {
    ConfigKey::all()
        .iter()
        .map(ConfigKey::name)
        .filter(|name| *name != "durability")
}

/// The known key nearest to `key`, if one is near: spelt alike, or of the same name in another
/// section.
fn suggestion(key: &str) -> Option<String> {
    if let Some(rest) = key.strip_prefix("listeners.") {
        let name = rest.split('.').next().filter(|name| is_listener_name(name));
        let part = rest.rsplit('.').next().unwrap_or_default();
        let nearest = LISTENER_KEYS
            .iter()
            .max_by(|(a, _), (b, _)| likeness(a, part).total_cmp(&likeness(b, part)))?;
        return Some(format!(
            "listeners.{}.{}",
            name.unwrap_or(DEFAULT_LISTENER),
            nearest.0
        ));
    }
    if key == "topic_defaults.durability" {
        return Some("topics.durability".to_owned());
    }
    if let Some(name) = key.strip_prefix("topic_defaults.") {
        let nearest = topic_keys()
            .max_by(|a, b| likeness(a, name).total_cmp(&likeness(b, name)))
            .filter(|nearest| likeness(nearest, name) >= 0.6)?;
        return Some(format!("topic_defaults.{nearest}"));
    }
    let last = key.rsplit('.').next().unwrap_or_default();
    let score = |known: &str| {
        let known_last = known.rsplit('.').next().unwrap_or_default();
        likeness(known, key).max(0.9 * likeness(known_last, last))
    };
    KEYS.iter()
        .map(|known| (score(known.name), known.name))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(score, _)| *score >= 0.6)
        .map(|(_, name)| name.to_owned())
}

fn likeness(a: &str, b: &str) -> f64 {
    strsim::normalized_damerau_levenshtein(a, b)
}

/// What no single key can be blamed for.
fn contradictions(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    if config.limits.connection_bytes > config.limits.request_bytes {
        let key = "limits.connection_bytes";
        problems.push(Problem::InvalidValue {
            key: key.to_owned(),
            value: config.limits.connection_bytes.to_string(),
            origin: origin(config, key),
            reason: format!(
                "one connection may not have more than limits.request_bytes, {} bytes",
                config.limits.request_bytes
            ),
        });
    }
    problems.extend(group_times(config));
    if config.profile == Profile::Serve && !config.security.insecure {
        problems.extend(addresses(config).into_iter().filter_map(|(key, address)| {
            let origin = origin(config, &key);
            (!is_loopback(&address)).then_some(Problem::InsecureListen {
                key,
                address,
                origin,
            })
        }));
    }
    problems
}

/// Times of groups that cannot go together.
fn group_times(config: &Config) -> impl Iterator<Item = Problem> {
    let groups = &config.groups;
    let silence = [
        (
            "groups.session_timeout_min_ms",
            groups.session_timeout_min > groups.session_timeout_max,
            format!(
                "it may not be above groups.session_timeout_max_ms, {} ms",
                groups.session_timeout_max.as_millis()
            ),
            groups.session_timeout_min,
        ),
        (
            "groups.consumer_heartbeat_interval_ms",
            groups.consumer_heartbeat_interval >= groups.consumer_session_timeout,
            format!(
                "it must be below groups.consumer_session_timeout_ms, {} ms",
                groups.consumer_session_timeout.as_millis()
            ),
            groups.consumer_heartbeat_interval,
        ),
    ];
    let wrong = silence.into_iter().filter(|(_, wrong, ..)| *wrong);
    wrong.map(|(key, _, reason, value)| Problem::InvalidValue {
        key: key.to_owned(),
        value: value.as_millis().to_string(),
        origin: origin(config, key),
        reason,
    })
}

/// Every address that is listened on, with its key.
pub(crate) fn addresses(config: &Config) -> Vec<(String, String)> {
    let listeners = config.listeners.iter().map(|listener| {
        (
            format!("listeners.{}.address", listener.name),
            listener.address.clone(),
        )
    });
    let http = config
        .http
        .address
        .iter()
        .map(|address| ("http.address".to_owned(), address.clone()));
    listeners.chain(http).collect()
}

/// Whether an address is on loopback as far as its text tells. A host name is looked up, and
/// checked again, when it is bound.
fn is_loopback(address: &str) -> bool {
    if let Ok(address) = address.parse::<SocketAddr>() {
        return crate::bind::is_loopback(address.ip());
    }
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.parse::<IpAddr>()
        .map_or(true, crate::bind::is_loopback)
}

fn origin(config: &Config, key: &str) -> Origin {
    config
        .origins
        .get(key)
        .cloned()
        .unwrap_or(Origin::Default(config.profile))
}

pub(super) fn settings(config: &Config) -> Vec<Setting> {
    let mut current = config.clone();
    let mut default = defaults(config.profile, Inputs::new(config.profile));
    let mut settings: Vec<Setting> = KEYS
        .iter()
        .map(|key| Setting {
            key: key.name.to_owned(),
            value: key.get(&mut current),
            default: Some(key.get(&mut default)),
            origin: origin(config, key.name),
            unit: key.unit(),
            bounds: key.bounds(),
            doc: key.doc,
            reloads: key.reloads,
        })
        .collect();
    for listener in &config.listeners {
        for (part, doc) in LISTENER_KEYS {
            let key = format!("listeners.{}.{part}", listener.name);
            let known = default
                .listeners
                .iter()
                .find(|known| known.name == listener.name);
            settings.push(Setting {
                value: listener_value(listener, part),
                default: known.map(|known| listener_value(known, part)),
                origin: origin(config, &key),
                unit: None,
                bounds: "HOST:PORT".to_owned(),
                doc,
                reloads: false,
                key,
            });
        }
    }
    for topic_key in ConfigKey::all() {
        let name = topic_key.name();
        if let Some(value) = config.topic_defaults.get(name) {
            let key = format!("topic_defaults.{name}");
            settings.push(Setting {
                value: Value::Text(value.clone()),
                default: None,
                origin: origin(config, &key),
                unit: None,
                bounds: topic_key.bounds(),
                doc: topic_key.documentation(),
                reloads: false,
                key,
            });
        }
    }
    settings
}

fn listener_value(listener: &ListenerConfig, part: &str) -> Value {
    match part {
        "address" => Value::Text(listener.address.clone()),
        _ => listener
            .advertised
            .clone()
            .map_or(Value::Unset, Value::Text),
    }
}
