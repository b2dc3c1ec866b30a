//! Why bytes are not a batch, or not one that may be appended.

use sapwood_model::{Code, Timestamp};

use crate::{
    Codec,
    header::{HEADER_BYTES, LENGTH_MIN, MAGIC},
};

/// One variant a rule. None of them carries payload bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Too few bytes for a header.
    #[error("batch is {bytes} bytes; its header alone is {HEADER_BYTES} bytes")]
    HeaderTruncated {
        /// The bytes that are there.
        bytes: usize,
    },
    /// A length word that is negative or less than what follows it in the header.
    #[error("batch has the length word {length}; the smallest is {LENGTH_MIN}")]
    LengthTooSmall {
        /// The length word as a signed number.
        length: i32,
    },
    /// The length word promises more bytes than there are.
    #[error("batch is {size_bytes} bytes by its length word; {bytes} bytes are there")]
    Truncated {
        /// The size by the length word.
        size_bytes: usize,
        /// The bytes that are there.
        bytes: usize,
    },
    /// More bytes than one batch, where exactly one is allowed.
    #[error("{bytes} bytes follow the batch; one batch is allowed")]
    TrailingBytes {
        /// The bytes after the batch.
        bytes: usize,
    },
    /// Not version 2.
    #[error("batch has magic {magic}; only {MAGIC} is supported")]
    Magic {
        /// The version that it carries.
        magic: u8,
    },
    /// Above the topic's `max.message.bytes`.
    #[error("batch is {size_bytes} bytes; the topic's limit is {limit} bytes")]
    TooLarge {
        /// The batch's size, header included.
        size_bytes: usize,
        /// The most that is allowed.
        limit: usize,
    },
    /// The bytes are not those that were sent.
    #[error("batch has the CRC {stored:08x}; its bytes have {computed:08x}")]
    Crc {
        /// What the header says.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// A compression that Kafka has not defined.
    #[error("batch has the unknown compression {bits}; 0 to 4 are known")]
    UnknownCodec {
        /// The three bits.
        bits: u16,
    },
    /// A negative count, or a negative difference between last and first offset.
    #[error(
        "batch has {count} records up to offset delta {last_offset_delta}; neither may be negative"
    )]
    NegativeCount {
        /// The number of records by the header.
        count: i32,
        /// The last offset delta by the header.
        last_offset_delta: i32,
    },
    /// No records.
    #[error("batch has no records; the least is 1")]
    Empty,
    /// The header contradicts itself.
    #[error("batch has {count} records but the last offset delta {last_offset_delta}")]
    CountMismatch {
        /// The number of records by the header.
        count: i32,
        /// The last offset delta by the header; should be one less.
        last_offset_delta: i32,
    },
    /// A transaction's marker, which only a broker may write.
    #[error("batch is a control batch; clients may not write those")]
    Control,
    /// The delete horizon, which only compaction may set.
    #[error("batch has a delete horizon; clients may not set it")]
    DeleteHorizon,
    /// A producer id with a negative epoch or sequence number.
    #[error(
        "batch has a producer id with epoch {epoch} and base sequence {base_sequence}; \
         neither may be negative"
    )]
    ProducerStamp {
        /// The producer epoch by the header.
        epoch: i16,
        /// The base sequence by the header.
        base_sequence: i32,
    },
    /// A transaction needs a producer.
    #[error("batch is transactional but has no producer id")]
    TransactionalWithoutProducer,
    /// The broker's stamp on a client's batch.
    #[error("batch claims log-append time; only the broker may set it")]
    LogAppendTime,
    /// A timestamp outside the topic's window.
    #[error("timestamp {timestamp} is outside the allowed window of {earliest} to {latest} ms")]
    TimestampOutside {
        /// The record's timestamp, or the batch's `max_timestamp` when it is compressed.
        timestamp: Timestamp,
        /// The first that is allowed.
        earliest: Timestamp,
        /// The last that is allowed.
        latest: Timestamp,
    },
    /// A compacted topic needs keys.
    #[error("record {index} of the batch has no key; the topic is compacted")]
    KeyMissing {
        /// Which record, from 0.
        index: u32,
    },
    /// A record that cannot be read, or, when building, be written.
    #[error("record {index} of the batch, at byte {position} of its records, {fault}")]
    Record {
        /// Which record, from 0.
        index: u32,
        /// Where it starts among the (decompressed) records.
        position: usize,
        /// What is wrong.
        fault: RecordFault,
    },
    /// Fewer bytes than records, or more.
    #[error("{bytes} bytes follow the last of the batch's {count} records")]
    RecordsTrailing {
        /// The bytes left over.
        bytes: usize,
        /// The number of records by the header.
        count: u32,
    },
    /// The compressed bytes are not what the codec writes.
    #[error("{codec} cannot decompress the batch's records: {reason}")]
    Decompress {
        /// The codec by the header.
        codec: Codec,
        /// What the decoder says.
        reason: String,
    },
    /// An LZ4 frame that Kafka's brokers and its Java client refuse.
    #[error(
        "lz4 frame of the batch has blocks that depend on each other; they must be independent"
    )]
    Lz4Linked,
    /// The records are larger than the cap; found while decompressing, before the cap is passed.
    #[error("the batch's records are above {limit} bytes when decompressed")]
    DecompressedTooLarge {
        /// The most that is decompressed, in bytes.
        limit: usize,
    },
    /// The compressor failed. It has no reason to, short of memory.
    #[error("{codec} cannot compress the batch's records: {reason}")]
    Compress {
        /// The codec asked for.
        codec: Codec,
        /// What the encoder says.
        reason: String,
    },
}

impl BatchError {
    /// The stable code for front doors and logs.
    pub fn code(&self) -> Code {
        match self {
            Self::TooLarge { .. } | Self::DecompressedTooLarge { .. } => Code::RecordTooLarge,
            Self::TimestampOutside { .. } | Self::LogAppendTime => Code::InvalidTimestamp,
            Self::KeyMissing { .. }
            | Self::Control
            | Self::DeleteHorizon
            | Self::TransactionalWithoutProducer
            | Self::Lz4Linked => Code::InvalidRecord,
            Self::Compress { .. } => Code::Internal,
            Self::HeaderTruncated { .. }
            | Self::LengthTooSmall { .. }
            | Self::Truncated { .. }
            | Self::TrailingBytes { .. }
            | Self::Magic { .. }
            | Self::Crc { .. }
            | Self::UnknownCodec { .. }
            | Self::NegativeCount { .. }
            | Self::Empty
            | Self::CountMismatch { .. }
            | Self::ProducerStamp { .. }
            | Self::Record { .. }
            | Self::RecordsTrailing { .. }
            | Self::Decompress { .. } => Code::CorruptBatch,
        }
    }
}

/// What is wrong with one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// The bytes end before the record does.
    #[error("ends early")]
    Truncated,
    /// A variable-length number with more bits than its type.
    #[error("has a number that does not fit its type")]
    VarintOverflow,
    /// The record's own length word is negative.
    #[error("has the negative length {0}")]
    NegativeLength(i32),
    /// The fields end before or after the record's own length says.
    #[error("has fields that do not fill its length")]
    LengthMismatch,
    /// A key or value length below -1, which stands for null.
    #[error("has a key or value of length {0}")]
    FieldLength(i32),
    /// The number of headers is negative.
    #[error("has {0} headers")]
    HeaderCount(i32),
    /// A header's key has a negative length.
    #[error("has a header key of length {0}")]
    HeaderKeyLength(i32),
    /// A header's key is not UTF-8 (checked when building).
    #[error("has a header key that is not UTF-8")]
    HeaderKeyUtf8,
    /// The offset is not the expected one.
    #[error("has the offset delta {0}, which is out of order")]
    OffsetDelta(i32),
    /// Base timestamp and delta do not add up to 64 bits.
    #[error("has a timestamp that does not fit 64 bits")]
    TimestampOverflow,
}
