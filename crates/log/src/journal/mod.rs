//! The journal: what makes appends to fsync topics durable with one sync for everybody.
//!
//! Rounds are written one after another into preallocated files that are recycled once a checkpoint
//! covers them. A round carries an identity (directory, file generation, number, a secret salt in
//! its checksums), so neither an old round in a recycled file nor bytes that a client sent can pass
//! for one. docs/format.md has the byte tables.

mod frame;
mod reader;
mod writer;

pub(crate) use frame::Entry;
pub(crate) use reader::{Scan, read_entries, scan};
pub(crate) use writer::{Journal, JournalError};

/// Rounds begin on multiples of this: the unit in which a power cut keeps or loses a write.
pub(crate) const PAGE_BYTES: u64 = 4096;

/// The name of the journal's file with this number.
pub(crate) fn file_name(number: u32) -> String {
    format!("{number:02}.journal")
}
