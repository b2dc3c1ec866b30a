//! What can be wrong with bytes, and with values that are to become bytes.

/// Bytes that are not the message that they should be. Positions count from the first byte that the
/// reader was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end too early.
    #[error("{needed} bytes are needed at byte {position}; {remaining} are there")]
    Truncated {
        /// Where reading stopped.
        position: usize,
        /// What should be there, in bytes.
        needed: usize,
        /// What is there, in bytes.
        remaining: usize,
    },
    /// A length or a count that no valid message has.
    #[error("the {what} at byte {position} has a length of {length}; {max} is the limit")]
    Length {
        /// Where the length stands.
        position: usize,
        /// Of what it is the length.
        what: &'static str,
        /// What it says.
        length: i64,
        /// What it could be.
        max: i64,
    },
    /// A null where the version has none.
    #[error("the {what} at byte {position} is null, which it must not be")]
    Null {
        /// Where it stands.
        position: usize,
        /// What is null.
        what: &'static str,
    },
    /// A varint of more than 32 bits.
    #[error("the varint at byte {position} has more than 32 bits")]
    Varint {
        /// Where it starts.
        position: usize,
    },
    /// A string that is not UTF-8.
    #[error("the string at byte {position} is not UTF-8")]
    Utf8 {
        /// Where its text starts.
        position: usize,
    },
    /// The message or a tagged field ends before its bytes do.
    #[error("{remaining} bytes are left over at byte {position}")]
    Trailing {
        /// Where the message or field ends.
        position: usize,
        /// What is behind it, in bytes.
        remaining: usize,
    },
    /// The message would take more memory than its bytes justify. No client sends such a thing.
    #[error("{needed} bytes of memory are needed at byte {position}; {allowed} more are allowed")]
    Memory {
        /// Where the string or array stands.
        position: usize,
        /// What it would take, in bytes.
        needed: usize,
        /// What is left of what the frame may take, in bytes.
        allowed: usize,
    },
    /// A version that the codec does not know.
    #[error("version {version} of API {key} is not known; {first} to {last} are")]
    Version {
        /// The API.
        key: i16,
        /// The version asked for.
        version: i16,
        /// The first known one.
        first: i16,
        /// The last known one.
        last: i16,
    },
}

/// A value that cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A null where the version has none.
    #[error("{field} is null, which this version cannot say")]
    Null {
        /// The struct and its field.
        field: &'static str,
    },
    /// A string, array or frame that is longer than its length can say.
    #[error("the {what} has a length of {length}; {max} is the limit")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// Its length in bytes, or elements of an array.
        length: usize,
        /// What it could be.
        max: usize,
    },
    /// A version that the codec does not know.
    #[error("version {version} of API {key} is not known; {first} to {last} are")]
    Version {
        /// The API.
        key: i16,
        /// The version asked for.
        version: i16,
        /// The first known one.
        first: i16,
        /// The last known one.
        last: i16,
    },
}
