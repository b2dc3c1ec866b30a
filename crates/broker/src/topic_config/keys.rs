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

/// One configuration key.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) default: &'static str,
    pub(crate) rule: Rule,
    pub(crate) doc: &'static str,
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

const fn key(name: &'static str, default: &'static str, rule: Rule, doc: &'static str) -> Key {
    Key {
        name,
        default,
        rule,
        doc,
    }
}

/// Every key, in the order of the names.
pub(crate) const KEYS: &[Key] = &[
    key(
        "cleanup.policy",
        "delete",
        Rule::ListOf(&["delete", "compact"]),
        "delete: old segments go by time and size; compact: the latest record of each key stays.",
    ),
    key(
        "compression.gzip.level",
        "-1",
        Rule::WholeOr {
            other: -1,
            min: 1,
            max: 9,
        },
        "Kept for Kafka's tools. Where the broker compresses, it does so at the codec's own level.",
    ),
    key(
        "compression.lz4.level",
        "9",
        int(1, 17),
        "Kept for Kafka's tools. Where the broker compresses, it does so at the codec's own level.",
    ),
    key(
        "compression.type",
        "producer",
        Rule::OneOf(&["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"]),
        "producer: batches are kept as they were sent; otherwise the broker rewrites those that are \
         compressed differently.",
    ),
    key(
        "compression.zstd.level",
        "3",
        int(-131_072, 22),
        "Kept for Kafka's tools. Where the broker compresses, it does so at the codec's own level.",
    ),
    key(
        "delete.retention.ms",
        "86400000",
        long(0),
        "How long the mark of a deleted key stays in a compacted topic, in milliseconds.",
    ),
    key(
        "durability",
        "fsync",
        Rule::OneOf(&["fsync", "os"]),
        "fsync: records are on the disk before acks=all is answered and before they can be read; \
         os: they are in the page cache, which survives the process and not a power cut.",
    ),
    key(
        "file.delete.delay.ms",
        "60000",
        long(0),
        "Kept for Kafka's tools. Removed segments are unlinked at once.",
    ),
    key(
        "flush.messages",
        NEVER,
        long(1),
        "Kept for Kafka's tools. The key durability says when records are synced.",
    ),
    key(
        "flush.ms",
        NEVER,
        long(0),
        "Kept for Kafka's tools. The key durability says when records are synced.",
    ),
    key(
        "follower.replication.throttled.replicas",
        "",
        Rule::Throttled,
        "Kept for Kafka's tools: there are no followers.",
    ),
    key(
        "index.interval.bytes",
        "4096",
        int(0, INT_MAX),
        "Bytes of log between two entries of the offset index.",
    ),
    key(
        "leader.replication.throttled.replicas",
        "",
        Rule::Throttled,
        "Kept for Kafka's tools: there are no followers.",
    ),
    key(
        "local.retention.bytes",
        "-2",
        long(-2),
        "Bytes kept on the local disk of a tiered topic; -2 is retention.bytes.",
    ),
    key(
        "local.retention.ms",
        "-2",
        long(-2),
        "Milliseconds kept on the local disk of a tiered topic; -2 is retention.ms.",
    ),
    key(
        "max.compaction.lag.ms",
        NEVER,
        long(1),
        "The longest time that a record stays uncompacted, in milliseconds.",
    ),
    key(
        "max.message.bytes",
        "1048588",
        int(0, INT_MAX),
        "The largest record batch in bytes, its 61-byte header included. In a topic with \
         durability=fsync at most half a journal file.",
    ),
    key(
        "message.timestamp.after.max.ms",
        "3600000",
        long(0),
        "How far a record's time may lie after the broker's clock, in milliseconds.",
    ),
    key(
        "message.timestamp.before.max.ms",
        NEVER,
        long(0),
        "How far a record's time may lie before the broker's clock, in milliseconds.",
    ),
    key(
        "message.timestamp.type",
        "CreateTime",
        Rule::OneOf(&["CreateTime", "LogAppendTime"]),
        "Whether records keep the producer's time or get the broker's.",
    ),
    key(
        "min.cleanable.dirty.ratio",
        "0.5",
        Rule::Fraction,
        "The part of a compacted log that is new before it is compacted, 0 to 1.",
    ),
    key(
        "min.compaction.lag.ms",
        "0",
        long(0),
        "The shortest time that a record stays uncompacted, in milliseconds.",
    ),
    key(
        "min.insync.replicas",
        "1",
        Rule::Replicas,
        "Replicas that must have a record before acks=all is answered. One broker has one.",
    ),
    key(
        "preallocate",
        "false",
        Rule::Boolean,
        "Kept for Kafka's tools. Space is always allocated before it is written.",
    ),
    key(
        "remote.log.copy.disable",
        "false",
        Rule::Boolean,
        "Whether a tiered topic stops copying its segments.",
    ),
    key(
        "remote.log.delete.on.disable",
        "false",
        Rule::Boolean,
        "Whether a topic's tiered segments go when its tiering is switched off.",
    ),
    key(
        "remote.storage.enable",
        "false",
        Rule::Off,
        "Whether segments are tiered. This broker has no tiered storage.",
    ),
    key(
        "retention.bytes",
        "-1",
        long(-1),
        "Bytes kept of each partition; -1 is without limit.",
    ),
    key(
        "retention.ms",
        "604800000",
        long(-1),
        "How long records are kept, in milliseconds; -1 is for ever.",
    ),
    key(
        "segment.bytes",
        "1073741824",
        int(1024, INT_MAX),
        "The size of a segment file in bytes, from 1 KiB.",
    ),
    key(
        "segment.index.bytes",
        "10485760",
        int(4, INT_MAX),
        "Kept for Kafka's tools. An index grows with its segment.",
    ),
    key(
        "segment.jitter.ms",
        "0",
        long(0),
        "How much earlier than segment.ms a segment may be rolled, so that not all roll at once.",
    ),
    key(
        "segment.ms",
        "604800000",
        long(1),
        "How long a segment is written before the next one is begun, in milliseconds.",
    ),
    key(
        "unclean.leader.election.enable",
        "false",
        Rule::Boolean,
        "Kept for Kafka's tools: there are no followers to elect.",
    ),
];

/// The key of this name.
pub(crate) fn find(name: &str) -> Option<&'static Key> {
    KEYS.binary_search_by(|key| key.name.cmp(name))
        .ok()
        .map(|index| &KEYS[index])
}

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
            assert!(find(key.name).is_some(), "{}", key.name);
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
