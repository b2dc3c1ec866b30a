//! The records of groups in the schemas of Kafka's `__consumer_offsets`, byte for byte.
//!
//! A key begins with its type, a value with the version of its schema, both in 2 bytes:
//!
//! | Key | Its fields | Value | Versions read | Written |
//! |---|---|---|---|---|
//! | 0, 1 | group, topic, partition | OffsetCommitValue | 0 to 4 | 4; 1 with an expiry |
//! | 2 | group | GroupMetadataValue | 0 to 4 | 3 |
//! | 3 | group | ConsumerGroupMetadataValue | 0 | 0 |
//! | 4 | group | ConsumerGroupPartitionMetadataValue: passed over | | |
//! | 5 | group, member | ConsumerGroupMemberMetadataValue | 0 | 0 |
//! | 6 | group | ConsumerGroupTargetAssignmentMetadataValue | 0 | 0 |
//! | 7 | group, member | ConsumerGroupTargetAssignmentMemberValue | 0 | 0 |
//! | 8 | group, member | ConsumerGroupCurrentMemberAssignmentValue | 0 | 0 |
//! | 16 | group, expression | ConsumerGroupRegularExpressionValue | 0 | 0 |
//!
//! Keys, and values of offsets and classic groups below version 4, are of the fixed form; everything
//! else is flexible. Tagged fields that are not known are passed over, as Kafka does; a value of a
//! version that is not known is an error, because nothing says what it means.

mod bytes;
mod read;
#[cfg(test)]
mod tests;
mod write;

use sapwood_model::InvalidTopicName;

pub(crate) use read::decode;
pub(crate) use write::encode;

const OFFSET_OLD: i16 = 0;
const OFFSET: i16 = 1;
const CLASSIC: i16 = 2;
const CONSUMER: i16 = 3;
const PARTITION_METADATA: i16 = 4;
const MEMBER: i16 = 5;
const TARGET: i16 = 6;
const TARGET_MEMBER: i16 = 7;
const CURRENT: i16 = 8;
const REGEX: i16 = 16;

/// The tag of the topic's id in OffsetCommitValue.
const TOPIC_ID: u32 = 0;
/// The tag of the hash in ConsumerGroupMetadataValue.
const METADATA_HASH: u32 = 0;
/// The epoch of a static member that has left and is expected back.
const PAUSED: i32 = -2;
/// Stands for a number that is not there.
const NONE: i32 = -1;

/// Why a record cannot be written down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EncodeError {
    /// Kafka's schema cannot say this length.
    #[error("{field} is {length} bytes or elements long; the limit is {limit}")]
    TooLong {
        /// Of which field.
        field: &'static str,
        /// The length.
        length: usize,
        /// The longest possible.
        limit: usize,
    },
    /// Kafka's schema cannot say this number.
    #[error("{field} is {value}; the limit is {limit}")]
    OutOfRange {
        /// Of which field.
        field: &'static str,
        /// The number.
        value: u64,
        /// The largest possible.
        limit: u64,
    },
}

/// Why bytes are no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    /// A record says what it is about in its key.
    #[error("the record has no key")]
    NoKey,
    /// The bytes end inside a field.
    #[error("the bytes end inside a field")]
    Truncated,
    /// There are bytes behind the last field.
    #[error("{bytes} bytes follow the last field")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// The value's version is newer than this code, or never was.
    #[error("version {version} of the value of a key of type {key} is not known")]
    Version {
        /// The key's type.
        key: i16,
        /// The value's version.
        version: i16,
    },
    /// A length that cannot be, or a number that is never below 0.
    #[error("{field} is {value}")]
    Negative {
        /// Of which field.
        field: &'static str,
        /// The number.
        value: i64,
    },
    /// A length of more than 32 bits.
    #[error("a variable-length number has more than 32 bits")]
    Varint,
    /// A field that is always there.
    #[error("{field} is null")]
    Null {
        /// Which.
        field: &'static str,
    },
    /// A text that is none.
    #[error("{field} is not UTF-8")]
    Utf8 {
        /// Which field.
        field: &'static str,
    },
    /// A name that no topic has.
    #[error(transparent)]
    TopicName(#[from] InvalidTopicName),
    /// A member is in one of three states.
    #[error("a member has state {state}; there are 0 to 2")]
    State {
        /// The number of the state.
        state: i8,
    },
}
