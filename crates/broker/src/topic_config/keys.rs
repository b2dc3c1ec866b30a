//! The table of topic configuration keys: Kafka's, and `durability`.

use super::value::Rule;

/// What kind of value a key has, as Kafka's DescribeConfigs tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// `true` or `false`.
    Boolean,
    /// A whole number of 32 bits.
    Int,
    /// A whole number of 64 bits.
    Long,
    /// A number with a fraction.
    Double,
    /// Text.
    Text,
    /// Texts with commas between them.
    List,
}

/// What setting a key does on this broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It is in force as soon as the change is answered.
    Honoured,
    /// It is kept and shown for the tools that set it by habit. It cannot mean anything on one broker
    /// that stores its logs as this one does.
    Meaningless,
}

/// One configuration key of a topic.
#[derive(Debug)]
pub struct ConfigKey {
    pub(crate) name: &'static str,
    pub(crate) default: &'static str,
    pub(crate) rule: Rule,
    pub(crate) effect: Effect,
    pub(crate) broker_key: Option<&'static str>,
    pub(crate) doc: &'static str,
}

impl ConfigKey {
    /// Every key, in the order of the names.
    pub fn all() -> &'static [Self] {
        KEYS
    }

    /// The key with this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        KEYS.binary_search_by(|key| key.name.cmp(name))
            .ok()
            .map(|index| &KEYS[index])
    }

    /// Its name: Kafka's, or `durability`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The value that it has when nobody set it: Kafka's default.
    pub fn default(&self) -> &'static str {
        self.default
    }

    /// What kind of value it takes.
    pub fn kind(&self) -> ValueKind {
        self.rule.kind()
    }

    /// What values it takes, in words.
    pub fn bounds(&self) -> String {
        self.rule.to_string()
    }

    /// What setting it does here.
    pub fn effect(&self) -> Effect {
        self.effect
    }

    /// Kafka's name for the broker's setting that gives topics their default, such as
    /// `log.retention.ms` for `retention.ms`.
    pub fn broker_key(&self) -> Option<&'static str> {
        self.broker_key
    }

    /// What it does, in a sentence or two.
    pub fn documentation(&self) -> &'static str {
        self.doc
    }
}

const LONG_MAX: i64 = i64::MAX;
const INT_MAX: i64 = i32::MAX as i64;
/// Kafka's `Long.MAX_VALUE`: never, or without limit.
const NEVER: &str = "9223372036854775807";

const fn long(min: i64) -> Rule {
    Rule::Whole {
        kind: ValueKind::Long,
        min,
        max: LONG_MAX,
    }
}

const fn int(min: i64, max: i64) -> Rule {
    Rule::Whole {
        kind: ValueKind::Int,
        min,
        max,
    }
}

const fn key(
    name: &'static str,
    default: &'static str,
    rule: Rule,
    effect: Effect,
    doc: &'static str,
) -> ConfigKey {
    ConfigKey {
        name,
        default,
        rule,
        effect,
        broker_key: None,
        doc,
    }
}

impl ConfigKey {
    const fn broker(mut self, broker_key: &'static str) -> Self {
        self.broker_key = Some(broker_key);
        self
    }
}

/// Every key, in the order of the names.
pub(crate) const KEYS: &[ConfigKey] = &[
    key(
        "cleanup.policy",
        "delete",
        Rule::ListOf(&["delete", "compact"]),
        Effect::Honoured,
        "What happens to old records. delete: whole segments go, by retention.ms and \
         retention.bytes. compact: the latest record of each key stays, and those before it go. Both: \
         a compacted log loses old segments too. Records for a compacted topic are refused without a \
         key; those that came before it was compacted go.",
    )
    .broker("log.cleanup.policy"),
    key(
        "compression.gzip.level",
        "-1",
        Rule::WholeOr {
            other: -1,
            min: 1,
            max: 9,
        },
        Effect::Honoured,
        "How hard gzip tries where compression.type is gzip; -1 is its own level, 6.",
    )
    .broker("compression.gzip.level"),
    key(
        "compression.lz4.level",
        "9",
        int(1, 17),
        Effect::Meaningless,
        "Where compression.type is lz4, the broker compresses at the one level that its encoder \
         has.",
    )
    .broker("compression.lz4.level"),
    key(
        "compression.type",
        "producer",
        Rule::OneOf(&["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"]),
        Effect::Honoured,
        "producer: batches are kept as they were sent. Otherwise the broker rewrites those that \
         come in another codec; it may refuse one that becomes larger than max.message.bytes.",
    )
    .broker("compression.type"),
    key(
        "compression.zstd.level",
        "3",
        int(-131_072, 22),
        Effect::Honoured,
        "How hard zstd tries where compression.type is zstd.",
    )
    .broker("compression.zstd.level"),
    key(
        "delete.retention.ms",
        "86400000",
        long(0),
        Effect::Honoured,
        "How long a record without a value, which deletes its key, stays in a compacted topic, in \
         milliseconds from the first time that it was compacted: a reader from the start has so long to \
         see it.",
    )
    .broker("log.cleaner.delete.retention.ms"),
    key(
        "durability",
        "fsync",
        Rule::OneOf(&["fsync", "os"]),
        Effect::Honoured,
        "fsync: records are on the disk before acks=all is answered and before they can be read; \
         os: they are in the page cache, which survives the process and not a power cut.",
    ),
    key(
        "file.delete.delay.ms",
        "60000",
        long(0),
        Effect::Meaningless,
        "Removed segments are unlinked at once: nothing that reads them needs their names.",
    )
    .broker("log.segment.delete.delay.ms"),
    key(
        "flush.messages",
        NEVER,
        long(1),
        Effect::Meaningless,
        "The key durability says when records are synced.",
    )
    .broker("log.flush.interval.messages"),
    key(
        "flush.ms",
        NEVER,
        long(0),
        Effect::Meaningless,
        "The key durability says when records are synced.",
    )
    .broker("log.flush.interval.ms"),
    key(
        "follower.replication.throttled.replicas",
        "",
        Rule::Throttled,
        Effect::Meaningless,
        "There are no followers.",
    ),
    key(
        "index.interval.bytes",
        "4096",
        int(0, INT_MAX),
        Effect::Honoured,
        "Bytes of log between two entries of a segment's indexes. Segments that are begun later \
         have it.",
    )
    .broker("log.index.interval.bytes"),
    key(
        "leader.replication.throttled.replicas",
        "",
        Rule::Throttled,
        Effect::Meaningless,
        "There are no followers.",
    ),
    key(
        "local.retention.bytes",
        "-2",
        long(-2),
        Effect::Meaningless,
        "Bytes kept on the local disk of a tiered topic; -2 is retention.bytes. There is no \
         tiered storage.",
    )
    .broker("log.local.retention.bytes"),
    key(
        "local.retention.ms",
        "-2",
        long(-2),
        Effect::Meaningless,
        "Milliseconds kept on the local disk of a tiered topic; -2 is retention.ms. There is no \
         tiered storage.",
    )
    .broker("log.local.retention.ms"),
    key(
        "max.compaction.lag.ms",
        NEVER,
        long(1),
        Effect::Honoured,
        "How long a record may stay uncompacted, in milliseconds: then its log is compacted whatever its \
         dirty ratio is. In a compacted topic no segment is written for longer than that either.",
    )
    .broker("log.cleaner.max.compaction.lag.ms"),
    key(
        "max.message.bytes",
        "1048588",
        int(0, INT_MAX),
        Effect::Honoured,
        "The largest record batch in bytes, its 61-byte header included. In a topic with \
         durability=fsync at most half a journal file.",
    )
    .broker("message.max.bytes"),
    key(
        "message.timestamp.after.max.ms",
        "3600000",
        long(0),
        Effect::Honoured,
        "How far a record's time may lie after the broker's clock, in milliseconds. Not looked at \
         with LogAppendTime.",
    )
    .broker("log.message.timestamp.after.max.ms"),
    key(
        "message.timestamp.before.max.ms",
        NEVER,
        long(0),
        Effect::Honoured,
        "How far a record's time may lie before the broker's clock, in milliseconds. Not looked \
         at with LogAppendTime.",
    )
    .broker("log.message.timestamp.before.max.ms"),
    key(
        "message.timestamp.type",
        "CreateTime",
        Rule::OneOf(&["CreateTime", "LogAppendTime"]),
        Effect::Honoured,
        "Whether records keep the producer's time or get the broker's.",
    )
    .broker("log.message.timestamp.type"),
    key(
        "min.cleanable.dirty.ratio",
        "0.5",
        Rule::Fraction,
        Effect::Honoured,
        "A compacted log is compacted once this part of its bytes is new since the last time, 0 to 1. \
         What is written now does not count: only full segments are compacted.",
    )
    .broker("log.cleaner.min.cleanable.ratio"),
    key(
        "min.compaction.lag.ms",
        "0",
        long(0),
        Effect::Honoured,
        "How long a record stays uncompacted at least, in milliseconds. A segment waits for its youngest \
         record, and those behind it with it.",
    )
    .broker("log.cleaner.min.compaction.lag.ms"),
    key(
        "min.insync.replicas",
        "1",
        Rule::Replicas,
        Effect::Honoured,
        "Replicas that must have a record before acks=all is answered. One broker keeps one; more \
         is refused, or taken as 1 with topics.replication_factor = \"as-one\".",
    )
    .broker("min.insync.replicas"),
    key(
        "preallocate",
        "false",
        Rule::Boolean,
        Effect::Meaningless,
        "Space is always allocated before it is written.",
    )
    .broker("log.preallocate"),
    key(
        "remote.log.copy.disable",
        "false",
        Rule::Boolean,
        Effect::Meaningless,
        "Whether a tiered topic stops copying its segments. There is no tiered storage.",
    ),
    key(
        "remote.log.delete.on.disable",
        "false",
        Rule::Boolean,
        Effect::Meaningless,
        "Whether a topic's tiered segments go when its tiering is switched off. There is no \
         tiered storage.",
    ),
    key(
        "remote.storage.enable",
        "false",
        Rule::Off,
        Effect::Meaningless,
        "Whether segments are tiered. There is no tiered storage, so that it stays false.",
    ),
    key(
        "retention.bytes",
        "-1",
        long(-1),
        Effect::Honoured,
        "Bytes kept of each partition; -1 is without limit. The oldest segment goes when the others \
         have as many without it.",
    )
    .broker("log.retention.bytes"),
    key(
        "retention.ms",
        "604800000",
        long(-1),
        Effect::Honoured,
        "How long records are kept, in milliseconds; -1 is for ever. A segment goes when its largest \
         timestamp is older than that, the one that is written too. One in the future keeps its segment, \
         and those behind it, until its time has come. Where no record has a timestamp, it counts when \
         the file was last written.",
    )
    .broker("log.retention.ms"),
    key(
        "segment.bytes",
        "1073741824",
        int(1024, INT_MAX),
        Effect::Honoured,
        "The size at which a segment file is full, in bytes, from 1 KiB. Segments that are begun \
         later have it.",
    )
    .broker("log.segment.bytes"),
    key(
        "segment.index.bytes",
        "10485760",
        int(4, INT_MAX),
        Effect::Meaningless,
        "An index grows with its segment, up to 10 MiB.",
    )
    .broker("log.index.size.max.bytes"),
    key(
        "segment.jitter.ms",
        "0",
        long(0),
        Effect::Honoured,
        "How much earlier than segment.ms a segment may be rolled, so that not all roll at once.",
    )
    .broker("log.roll.jitter.ms"),
    key(
        "segment.ms",
        "604800000",
        long(1),
        Effect::Honoured,
        "How long a segment is written before the next one is begun, in milliseconds. By the \
         timestamps of what is appended, and by the clock where nothing is.",
    )
    .broker("log.roll.ms"),
    key(
        "unclean.leader.election.enable",
        "false",
        Rule::Boolean,
        Effect::Meaningless,
        "There are no followers to elect.",
    )
    .broker("unclean.leader.election.enable"),
];

/// The known key that a misspelt one most resembles, when one does.
pub(crate) fn suggest(name: &str) -> Option<&'static str> {
    KEYS.iter()
        .map(|key| {
            (
                key.name,
                strsim::jaro_winkler(key.name, &name.to_ascii_lowercase()),
            )
        })
        .filter(|(_, likeness)| *likeness > 0.85)
        .max_by(|(_, a), (_, b)| a.total_cmp(b))
        .map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_and_their_defaults_pass_their_own_rules() {
        assert!(KEYS.is_sorted_by(|a, b| a.name < b.name));
        for key in KEYS {
            assert!(ConfigKey::find(key.name).is_some(), "{}", key.name);
            assert_eq!(key.rule.check(key.default), Ok(()), "{}", key.name);
        }
    }

    #[test]
    fn a_misspelt_key_gets_a_suggestion_and_a_strange_one_none() {
        assert_eq!(suggest("retention.mss"), Some("retention.ms"));
        assert_eq!(suggest("Cleanup.Policy"), Some("cleanup.policy"));
        assert_eq!(suggest("max.messages.bytes"), Some("max.message.bytes"));
        assert_eq!(suggest("zzz"), None);
        assert_eq!(suggest(""), None);
    }
}
