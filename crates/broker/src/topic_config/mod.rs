//! A topic's configuration: Kafka's keys and `durability`, checked, with defaults and sources.

mod keys;
#[cfg(test)]
mod tests;
mod value;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use sapwood_log::{LogConfig, compaction, retention::Policy};
use sapwood_model::{Code, Durability};
use sapwood_record::{Codec, Compression, TimestampRule};
use tracing::error;

pub use self::keys::{ConfigKey, Effect, ValueKind};
use self::{keys::KEYS, value::Rule};
use crate::options::ReplicationPolicy;

/// The key that asks for replicas, which one broker has one of.
pub(crate) const REPLICAS_KEY: &str = "min.insync.replicas";

/// One key of a topic's configuration with the value that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    /// The key, such as `retention.ms`.
    pub key: &'static str,
    /// The value in force.
    pub value: String,
    /// What it would be without a value of the topic's own.
    pub default: String,
    /// What it would be if nobody had set anything: Kafka's default.
    pub built_in: &'static str,
    /// Kafka's name for the broker's setting that gives topics their default.
    pub broker_key: Option<&'static str>,
    /// Where the value comes from.
    pub source: ConfigSource,
    /// Whether the broker's settings give it a value, also where the topic has its own.
    pub is_set_by_broker: bool,
    /// What kind of value it is.
    pub kind: ValueKind,
    /// What it does, in a sentence.
    pub documentation: &'static str,
}

/// Where a configuration value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigSource {
    /// It was set on the topic.
    Topic,
    /// The broker's settings say so for all topics.
    Broker,
    /// Nobody set it.
    Default,
}

/// One change of a topic's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigChange {
    /// The key has this value from now on.
    Set {
        /// The key.
        key: String,
        /// Its value.
        value: String,
    },
    /// The key has its default from now on.
    Reset {
        /// The key.
        key: String,
    },
    /// Items join a list; those that are in it stay as they are.
    Append {
        /// The key of a list.
        key: String,
        /// The items, with commas between them.
        value: String,
    },
    /// Items leave a list; those that are not in it are passed over.
    Subtract {
        /// The key of a list.
        key: String,
        /// The items, with commas between them.
        value: String,
    },
}

/// Why a configuration was refused. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicConfigError {
    /// No key has this name.
    #[error("topic configuration key {key:?} is not known{}", did_you_mean(.suggestion))]
    UnknownKey {
        /// What was asked for.
        key: String,
        /// A known key that is close to it.
        suggestion: Option<&'static str>,
    },
    /// The value is of another type or outside its bounds.
    #[error("{key} cannot be {value:?}; it is {bounds}")]
    InvalidValue {
        /// The key.
        key: &'static str,
        /// What was asked for.
        value: String,
        /// What would be accepted.
        bounds: String,
    },
    /// More replicas than one broker can keep.
    #[error("min.insync.replicas cannot be {value}; one broker keeps 1 replica")]
    Replicas {
        /// What was asked for.
        value: String,
    },
    /// Only lists have items.
    #[error("{key} is not a list: it can be set, not appended to or subtracted from")]
    NotAList {
        /// The key.
        key: &'static str,
    },
    /// Two keys contradict each other.
    #[error("{key} is {value}, which is above {other} ({other_value})")]
    Contradiction {
        /// The key that is too high.
        key: &'static str,
        /// Its value.
        value: i64,
        /// The key that bounds it.
        other: &'static str,
        /// That key's value.
        other_value: i64,
    },
    /// A key was named twice.
    #[error("{key} is given twice")]
    Twice {
        /// The key.
        key: String,
    },
}

fn did_you_mean(suggestion: &Option<&'static str>) -> String {
    suggestion
        .map(|key| format!("; did you mean {key:?}?"))
        .unwrap_or_default()
}

impl TopicConfigError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::UnknownKey { .. } => Code::UnknownTopicConfig,
            Self::Replicas { .. } => Code::InvalidReplication,
            _ => Code::InvalidTopicConfig,
        }
    }
}

/// What the broker's settings say about every topic's configuration.
#[derive(Debug, Clone)]
pub(crate) struct TopicDefaults {
    values: BTreeMap<&'static str, String>,
    replication: ReplicationPolicy,
    /// The largest batch of a topic with `durability=fsync`: half a journal file.
    fsync_batch_bytes_max: u64,
    producer_expiration: Duration,
}

impl TopicDefaults {
    /// Checks the broker's own defaults.
    pub(crate) fn new(
        values: &[(String, String)],
        replication: ReplicationPolicy,
        fsync_batch_bytes_max: u64,
        producer_expiration: Duration,
    ) -> Result<Self, TopicConfigError> {
        let mut defaults = Self {
            values: BTreeMap::new(),
            replication,
            fsync_batch_bytes_max,
            producer_expiration,
        };
        // A small journal makes for a small default, so that a topic can be created without a thought.
        let batch_bytes = ConfigKey::find("max.message.bytes").expect("the key is in the table");
        let usual = value::whole(batch_bytes.default).map_or(0, i64::unsigned_abs);
        if usual > fsync_batch_bytes_max {
            defaults
                .values
                .insert(batch_bytes.name, fsync_batch_bytes_max.to_string());
        }
        let checked = defaults.create(values)?;
        for (name, value) in checked {
            let key = ConfigKey::find(&name).expect("create checked the name");
            defaults.values.insert(key.name, value);
        }
        Ok(defaults)
    }

    /// The values of a new topic's own, checked.
    pub(crate) fn create(
        &self,
        values: &[(String, String)],
    ) -> Result<BTreeMap<String, String>, TopicConfigError> {
        let changes: Vec<_> = values
            .iter()
            .map(|(key, value)| ConfigChange::Set {
                key: key.clone(),
                value: value.clone(),
            })
            .collect();
        self.change(&BTreeMap::new(), &changes)
    }

    /// A topic's own values after `changes`, checked.
    pub(crate) fn change(
        &self,
        current: &BTreeMap<String, String>,
        changes: &[ConfigChange],
    ) -> Result<BTreeMap<String, String>, TopicConfigError> {
        let mut values = current.clone();
        let mut seen = BTreeSet::new();
        for change in changes {
            let key = change.key();
            if !seen.insert(key) {
                return Err(TopicConfigError::Twice {
                    key: key.to_owned(),
                });
            }
            let key = ConfigKey::find(key).ok_or_else(|| TopicConfigError::UnknownKey {
                key: key.to_owned(),
                suggestion: keys::suggest(key),
            })?;
            let value = match change {
                ConfigChange::Reset { .. } => {
                    values.remove(key.name);
                    continue;
                }
                ConfigChange::Set { value, .. } => value.clone(),
                ConfigChange::Append { value, .. } => self.edit_list(&values, key, value, true)?,
                ConfigChange::Subtract { value, .. } => {
                    self.edit_list(&values, key, value, false)?
                }
            };
            let value = self.check_value(key, value)?;
            values.insert(key.name.to_owned(), value);
        }
        self.check_together(&values)?;
        Ok(values)
    }

    fn edit_list(
        &self,
        values: &BTreeMap<String, String>,
        key: &'static ConfigKey,
        edit: &str,
        append: bool,
    ) -> Result<String, TopicConfigError> {
        if key.rule.kind() != ValueKind::List {
            return Err(TopicConfigError::NotAList { key: key.name });
        }
        let current = self.value(values, key.name);
        let edits: Vec<&str> = value::list(edit).filter(|item| !item.is_empty()).collect();
        let mut items: Vec<&str> = value::list(current)
            .filter(|item| !item.is_empty())
            .collect();
        if append {
            for item in edits {
                if !items.contains(&item) {
                    items.push(item);
                }
            }
        } else {
            items.retain(|item| !edits.contains(item));
        }
        Ok(items.join(","))
    }

    /// The value as it is kept.
    fn check_value(&self, key: &ConfigKey, value: String) -> Result<String, TopicConfigError> {
        if let Err(bounds) = key.rule.check(&value) {
            return Err(TopicConfigError::InvalidValue {
                key: key.name,
                value,
                bounds,
            });
        }
        if key.rule == Rule::Replicas && value::whole(&value) != Some(1) {
            match self.replication {
                ReplicationPolicy::Refuse => return Err(TopicConfigError::Replicas { value }),
                ReplicationPolicy::AsOne => return Ok("1".to_owned()),
            }
        }
        Ok(key.rule.normal(&value))
    }

    /// Rules that need more than one key.
    fn check_together(&self, values: &BTreeMap<String, String>) -> Result<(), TopicConfigError> {
        let whole = |key| self.whole(values, key);
        let at_most = |key, other| {
            let (value, other_value) = (whole(key), whole(other));
            if value > other_value {
                return Err(TopicConfigError::Contradiction {
                    key,
                    value,
                    other,
                    other_value,
                });
            }
            Ok(())
        };
        at_most("min.compaction.lag.ms", "max.compaction.lag.ms")?;
        if whole("retention.ms") >= 0 {
            at_most("local.retention.ms", "retention.ms")?;
        }
        if whole("retention.bytes") >= 0 {
            at_most("local.retention.bytes", "retention.bytes")?;
        }
        let batch_bytes_max = whole("max.message.bytes");
        if self.value(values, "durability") == "fsync"
            && batch_bytes_max.unsigned_abs() > self.fsync_batch_bytes_max
        {
            return Err(TopicConfigError::InvalidValue {
                key: "max.message.bytes",
                value: batch_bytes_max.to_string(),
                bounds: format!(
                    "at most {} in a topic with durability=fsync (half a journal file)",
                    self.fsync_batch_bytes_max
                ),
            });
        }
        Ok(())
    }

    /// The value in force.
    fn value<'a>(&'a self, values: &'a BTreeMap<String, String>, key: &str) -> &'a str {
        let default = || ConfigKey::find(key).map(|key| key.default);
        values
            .get(key)
            .or_else(|| self.values.get(key))
            .map(String::as_str)
            .or_else(default)
            .expect("only keys of the table are asked for")
    }

    fn whole(&self, values: &BTreeMap<String, String>, key: &'static str) -> i64 {
        value::whole(self.value(values, key)).expect("values are checked before they are kept")
    }

    fn unsigned(&self, values: &BTreeMap<String, String>, key: &'static str) -> u64 {
        u64::try_from(self.whole(values, key)).expect("the key's minimum is 0 or more")
    }

    /// Every key with its value and its source, in the order of the names.
    pub(crate) fn entries(&self, values: &BTreeMap<String, String>) -> Vec<ConfigEntry> {
        let entry = |key: &'static ConfigKey| ConfigEntry {
            key: key.name,
            value: self.value(values, key.name).to_owned(),
            default: self
                .values
                .get(key.name)
                .map_or(key.default, String::as_str)
                .to_owned(),
            built_in: key.default,
            broker_key: key.broker_key,
            source: match (
                values.contains_key(key.name),
                self.values.contains_key(key.name),
            ) {
                (true, _) => ConfigSource::Topic,
                (false, true) => ConfigSource::Broker,
                (false, false) => ConfigSource::Default,
            },
            is_set_by_broker: self.values.contains_key(key.name),
            kind: key.rule.kind(),
            documentation: key.doc,
        };
        KEYS.iter().map(entry).collect()
    }

    /// What a topic's own values mean. Values that were accepted once and are no longer (the broker's
    /// settings changed, a newer version wrote them) are logged and count as not set: a start does
    /// not fail over them, and no topic loses what it holds.
    pub(crate) fn resolve(&self, topic: &str, stored: &BTreeMap<String, String>) -> TopicConfig {
        let mut values = stored.clone();
        values.retain(|name, value| {
            let refused = match ConfigKey::find(name) {
                None => Some("the key is not known".to_owned()),
                Some(key) => key.rule.check(value).err().map(|bounds| format!("it is {bounds}")),
            };
            if let Some(reason) = &refused {
                error!(topic, key = %name, %value, %reason, "passed over a stored configuration value");
            }
            refused.is_none()
        });
        let durability = match self.value(&values, "durability") {
            "os" => Durability::Os,
            _ => Durability::Fsync,
        };
        let mut batch_bytes_max = self.unsigned(&values, "max.message.bytes");
        if durability == Durability::Fsync {
            // The journal's files may be smaller than when the topic was made.
            batch_bytes_max = batch_bytes_max.min(self.fsync_batch_bytes_max);
        }
        let policies = self.value(&values, "cleanup.policy");
        let has = |policy| value::list(policies).any(|name| name == policy);
        // -1 is no limit.
        let limit = |key| u64::try_from(self.whole(&values, key)).ok();
        let retention = match has("delete") {
            true => Policy {
                age_ms: limit("retention.ms"),
                bytes: limit("retention.bytes"),
            },
            false => Policy::KEEP,
        };
        let compaction = has("compact").then(|| self.compaction(&values));
        let mut segment_ms = self.unsigned(&values, "segment.ms");
        if let Some(max_lag_ms) = compaction.and_then(|one| one.policy.max_lag_ms) {
            // Only what is sealed can be compacted.
            segment_ms = segment_ms.min(max_lag_ms);
        }
        TopicConfig {
            batch_bytes_max: usize::try_from(batch_bytes_max).unwrap_or(usize::MAX),
            timestamps: self.timestamps(&values),
            retention,
            compaction,
            compression: self.compression(&values),
            log: LogConfig {
                durability,
                segment_bytes: self.unsigned(&values, "segment.bytes"),
                segment_ms,
                segment_jitter_ms: self.unsigned(&values, "segment.jitter.ms"),
                index_interval_bytes: self.unsigned(&values, "index.interval.bytes"),
                producer_expiration_ms: u64::try_from(self.producer_expiration.as_millis())
                    .unwrap_or(u64::MAX),
            },
            own: values,
        }
    }

    fn compaction(&self, values: &BTreeMap<String, String>) -> Compaction {
        let ratio = self.value(values, "min.cleanable.dirty.ratio").trim();
        let max_lag_ms = self.whole(values, "max.compaction.lag.ms");
        Compaction {
            policy: compaction::Policy {
                min_dirty_ratio: ratio
                    .parse()
                    .expect("values are checked before they are kept"),
                min_lag_ms: self.unsigned(values, "min.compaction.lag.ms"),
                // The largest is Kafka's word for none.
                max_lag_ms: (max_lag_ms < i64::MAX).then_some(max_lag_ms.unsigned_abs()),
            },
            delete_retention_ms: self.unsigned(values, "delete.retention.ms"),
        }
    }

    fn compression(&self, values: &BTreeMap<String, String>) -> Option<Compression> {
        let level = |key| i32::try_from(self.whole(values, key)).ok();
        let (codec, level) = match self.value(values, "compression.type") {
            "uncompressed" => (Codec::None, None),
            // -1 is the codec's own level.
            "gzip" => {
                let level = level("compression.gzip.level");
                (Codec::Gzip, level.filter(|level| *level > 0))
            }
            "snappy" => (Codec::Snappy, None),
            "lz4" => (Codec::Lz4, None),
            "zstd" => (Codec::Zstd, level("compression.zstd.level")),
            _ => return None,
        };
        Some(Compression { codec, level })
    }

    fn timestamps(&self, values: &BTreeMap<String, String>) -> TimestampRule {
        match self.value(values, "message.timestamp.type") {
            "LogAppendTime" => TimestampRule::LogAppend,
            _ => TimestampRule::Create {
                before_ms_max: self.whole(values, "message.timestamp.before.max.ms"),
                after_ms_max: self.whole(values, "message.timestamp.after.max.ms"),
            },
        }
    }
}

impl ConfigChange {
    /// Key and value of a change that sets one.
    pub(crate) fn as_set(&self) -> Option<(&String, &String)> {
        match self {
            Self::Set { key, value } => Some((key, value)),
            _ => None,
        }
    }

    fn key(&self) -> &str {
        match self {
            Self::Set { key, .. }
            | Self::Reset { key }
            | Self::Append { key, .. }
            | Self::Subtract { key, .. } => key,
        }
    }
}

/// The `min.insync.replicas` above 1 among these keys and values, if it is.
pub(crate) fn replicas_asked<'a>(
    mut values: impl Iterator<Item = (&'a String, &'a String)>,
) -> Option<i64> {
    let (_, asked) = values.find(|(key, _)| *key == REPLICAS_KEY)?;
    value::whole(asked).filter(|asked| *asked > 1)
}

/// How a topic is compacted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Compaction {
    pub(crate) policy: compaction::Policy,
    /// How long a record without a value stays, in milliseconds.
    pub(crate) delete_retention_ms: u64,
}

/// What a topic's configuration means to the data path.
#[derive(Debug, Clone)]
pub(crate) struct TopicConfig {
    /// The values of the topic's own.
    pub(crate) own: BTreeMap<String, String>,
    /// The largest batch in bytes.
    pub(crate) batch_bytes_max: usize,
    pub(crate) timestamps: TimestampRule,
    /// What is kept of each partition.
    pub(crate) retention: Policy,
    /// When it is compacted; `None` if it is not. Then each record needs a key.
    pub(crate) compaction: Option<Compaction>,
    /// The codec that batches are brought to; `None` leaves them as they were sent.
    pub(crate) compression: Option<Compression>,
    pub(crate) log: LogConfig,
}
