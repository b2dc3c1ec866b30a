//! Kafka's record batch, version 2: view, validate, build, compress. Pure: no I/O, no clock.
//!
//! A batch is 61 header bytes and then its records, big-endian:
//!
//! | Byte | Field | Byte | Field |
//! |---|---|---|---|
//! | 0 | base_offset i64 | 27 | base_timestamp i64 |
//! | 8 | length i32 (of what follows byte 12) | 35 | max_timestamp i64 |
//! | 12 | partition_leader_epoch i32 | 43 | producer_id i64 |
//! | 16 | magic i8 = 2 | 51 | producer_epoch i16 |
//! | 17 | crc u32 (CRC-32C of byte 21 to the end) | 53 | base_sequence i32 |
//! | 21 | attributes i16 | 57 | records_count i32 |
//! | 23 | last_offset_delta i32 | 61 | records |
//!
//! The base offset, the length and the leader epoch are in no checksum: whoever keeps batches has
//! to check them against their surroundings.
//!
//! # What a compressed batch costs to check
//!
//! [`validate`] always checks the CRC, the header and the bounds of `max_timestamp`. The records of
//! an uncompressed batch are walked as well, which costs a few nanoseconds a record. Those of a
//! compressed one are decompressed and walked only when [`Rules::check_compressed`] asks for it or
//! when [`Rules::keys_required`] cannot be checked otherwise (a compacted topic). Without that,
//! what a compressed batch holds is the word of the client that made it, exactly as the CRC says
//! that it was sent; whoever reads it meets an error, never a panic and never more than
//! `decompressed_bytes_max` of output.

mod batch;
mod builder;
mod codec;
mod error;
mod header;
mod records;
mod validate;
mod varint;

pub use batch::{Batch, Batches, batches, crc32c};
pub use builder::{BatchBuilder, RecordInput};
pub use codec::Codec;
pub use error::{BatchError, RecordFault};
pub use header::{HEADER_BYTES, Header, LENGTH_POSITION, ProducerStamp};
pub use records::{Record, RecordHeader, Records};
pub use validate::{Rules, TimestampRule, validate};
