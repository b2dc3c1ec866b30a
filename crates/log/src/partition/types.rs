//! What goes into a partition and what comes out.

use bytes::Bytes;
use sapwood_model::{Durability, LeaderEpoch, Offset, PartitionId, Timestamp, TopicId, TopicName};

/// How a topic's logs are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// When an acknowledged record is durable. Informative here: a live partition changes its way
    /// only through [`Store::begin_durability`](crate::Store::begin_durability).
    pub durability: Durability,
    /// A segment is rolled before it grows past this many bytes, unless it holds a single batch that
    /// is larger. Applies to the next segment.
    pub segment_bytes: u64,
    /// A segment is rolled by an append whose timestamps are this many milliseconds later than those
    /// of the segment's first batch.
    pub segment_ms: u64,
    /// At most this many milliseconds are taken off `segment_ms`, another number for each segment, so
    /// that the partitions of a topic do not roll at the same moment.
    pub segment_jitter_ms: u64,
    /// The indexes have one entry for about this many bytes of log. Applies to the next segment.
    pub index_interval_bytes: u64,
    /// A producer that appended nothing for this many milliseconds is forgotten by
    /// [`Partition::expire_producers`](crate::Partition::expire_producers).
    pub producer_expiration_ms: u64,
}

impl Default for LogConfig {
    /// Kafka's defaults, with [`Durability::Fsync`].
    fn default() -> Self {
        Self {
            durability: Durability::Fsync,
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 60 * 60 * 1000,
            segment_jitter_ms: 0,
            index_interval_bytes: 4096,
            producer_expiration_ms: 24 * 60 * 60 * 1000,
        }
    }
}

/// Which partition it is, and how it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionSpec {
    /// The topic's name, which names the folder.
    pub topic: TopicName,
    /// The topic's identity.
    pub topic_id: TopicId,
    /// The partition's number.
    pub partition: PartitionId,
    /// Offsets below it were deleted.
    pub log_start: Offset,
    /// The topic's configuration.
    pub config: LogConfig,
}

/// The ends of a log. `log_start <= high_watermark <= log_end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that was not deleted.
    pub log_start: Offset,
    /// The first offset that cannot be read yet. In an fsync topic everything below it is synced.
    pub high_watermark: Offset,
    /// The offset that the next record gets.
    pub log_end: Offset,
}

/// How to append.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AppendOptions {
    /// Append only if the log ends here.
    pub expected_end: Option<Offset>,
    /// Somebody waits for the batch's durability: do not leave it for a later round.
    pub urgent: bool,
}

/// Where a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The offset of its first record.
    pub base_offset: Offset,
    /// The offset of its last record (inclusive).
    pub last_offset: Offset,
    /// The log start at the time of the append.
    pub log_start: Offset,
    /// The batch is as durable as its topic asks once the high watermark is at this offset or above.
    pub durable_at: Offset,
    /// It was appended by an earlier try of the same producer; these are the offsets of that time.
    pub duplicate: bool,
}

/// How much to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimits {
    /// Stop before the batch that would make it more than this many bytes; the first batch comes
    /// whatever its size.
    pub bytes_max: usize,
    /// Stop before the first batch that reaches past this offset. Never past the high watermark.
    pub upto: Offset,
}

/// Whether a read may wait for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadMode {
    /// It may not: it answers [`Read::Cold`] instead.
    Resident,
    /// It may.
    Blocking,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// Whole batches.
    Batches {
        /// The batches, one after the other. The first holds the asked offset, perhaps not as its
        /// first record. Empty when nothing can be read there yet.
        bytes: Bytes,
        /// Where to read on.
        next: Offset,
    },
    /// The bytes are not in memory; reading ahead has begun. Ask again with [`ReadMode::Blocking`] on
    /// a thread that may wait.
    Cold,
}

/// A record that was looked up by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampedOffset {
    /// Its timestamp.
    pub timestamp: Timestamp,
    /// Its offset.
    pub offset: Offset,
    /// The leader epoch of its batch.
    pub leader_epoch: LeaderEpoch,
}

/// The size of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PartitionStats {
    /// Segments, the active one included.
    pub segments: usize,
    /// Bytes of batches in them. The files of segments that are not sealed are larger.
    pub bytes: u64,
    /// Bytes that no checkpoint covers.
    pub unflushed_bytes: u64,
    /// Producers that are remembered.
    pub producers: usize,
}

/// Is told about a partition. The methods are called without any lock held, on the thread that made
/// it happen, and must not block.
pub trait PartitionObserver: Send + Sync {
    /// The high watermark is at `high_watermark` or, when calls overtake each other, above it.
    fn high_watermark_moved(&self, high_watermark: Offset);

    /// The partition went offline. Called once.
    fn failed(&self);

    /// An append has begun another segment.
    fn segment_rolled(&self) {}
}
