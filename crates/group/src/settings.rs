//! What an operator decides about groups.

use std::ops::RangeInclusive;

/// The settings of all groups of a broker. Each names Kafka's broker setting that it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How long the first rebalance of an empty classic group waits for more members
    /// (`group.initial.rebalance.delay.ms`).
    pub initial_rebalance_delay_ms: u32,
    /// Which session timeouts a classic member may ask for
    /// (`group.min.session.timeout.ms`, `group.max.session.timeout.ms`).
    pub session_timeout_ms: RangeInclusive<u32>,
    /// How many members a group may have, of either kind
    /// (`group.max.size`, `group.consumer.max.size`).
    pub members_max: usize,
    /// How long a classic member that has never been in a generation may wait for its first one. Its
    /// session counts only from there on, and its client may be gone (5 minutes in Kafka, fixed).
    pub new_member_timeout_ms: u32,
    /// How long a member of the newer kind may be silent (`group.consumer.session.timeout.ms`).
    pub consumer_session_timeout_ms: u32,
    /// How often a member of the newer kind is told to say something
    /// (`group.consumer.heartbeat.interval.ms`).
    pub consumer_heartbeat_interval_ms: u32,
    /// How long committed offsets are kept that nobody uses (`offsets.retention.minutes`).
    pub offsets_retention_ms: u64,
    /// How often a group is looked through for such offsets (`offsets.retention.check.interval.ms`).
    pub offsets_check_interval_ms: u32,
    /// How long the text that comes with a committed offset may be (`offset.metadata.max.bytes`).
    pub offset_metadata_bytes_max: usize,
}

impl Default for Settings {
    /// Kafka's defaults; but a group has at most 10,000 members, where Kafka has no limit.
    fn default() -> Self {
        Self {
            initial_rebalance_delay_ms: 3_000,
            session_timeout_ms: 6_000..=1_800_000,
            members_max: 10_000,
            new_member_timeout_ms: 300_000,
            consumer_session_timeout_ms: 45_000,
            consumer_heartbeat_interval_ms: 5_000,
            offsets_retention_ms: 7 * 24 * 3_600 * 1_000,
            offsets_check_interval_ms: 600_000,
            offset_metadata_bytes_max: 4_096,
        }
    }
}
