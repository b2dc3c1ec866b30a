//! What a repair would do, and what it did.

use std::{ops::Range, path::PathBuf};

use sapwood_model::{Offset, PartitionId};

/// One partition that is to be repaired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionRepair {
    /// The topic's name, from the folder's.
    pub topic: String,
    /// The partition's number.
    pub partition: PartitionId,
    /// Its folder.
    pub folder: PathBuf,
    /// The offsets of its log afterwards, the end exclusive.
    pub offsets: Range<Offset>,
    /// What cannot be had any more, in the order of the offsets.
    pub losses: Vec<Loss>,
    /// Batches whose records are whole and whose header is set right.
    pub restored: Vec<Restored>,
    /// Batches that are taken from the journal.
    pub replayed: u64,
    /// What happens to its files.
    pub actions: Vec<Action>,
}

impl PartitionRepair {
    /// How many offsets have no record afterwards that had one.
    pub fn offsets_lost(&self) -> u64 {
        self.losses.iter().map(Loss::offsets_count).sum()
    }
}

/// Records that are lost. They are in the copy of their file, as far as anything is left of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// The file that they were in; the partition's folder when no file has them.
    pub file: PathBuf,
    /// Where in it, in bytes.
    pub position: u64,
    /// Their offsets, the end exclusive. Empty for bytes behind the log's end of which nobody knows what
    /// they were.
    pub offsets: Range<Offset>,
    /// How many bytes stand there that are no batch.
    pub bytes: u64,
    /// They were durable: below the checkpoint, or in the journal. Otherwise they may have been
    /// acknowledged without that, as `durability=os` allows, or not at all.
    pub acknowledged: bool,
    /// Why they are lost, in words.
    pub problem: String,
}

impl Loss {
    /// How many offsets it is.
    pub fn offsets_count(&self) -> u64 {
        self.offsets.end.0.saturating_sub(self.offsets.start.0)
    }
}

/// A batch whose records are whole, and whose offset, length, leader epoch or magic was not. No checksum
/// holds these; the batches around it say what they were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The file.
    pub file: PathBuf,
    /// Where in it, in bytes.
    pub position: u64,
    /// The offset of its first record.
    pub offset: Offset,
}

/// Something that happens to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// The file or folder.
    pub file: PathBuf,
    /// What happens to it.
    pub kind: ActionKind,
    /// Why, in words.
    pub why: String,
}

/// What happens to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActionKind {
    /// It is written anew, and the old one kept as a copy.
    Rewrite,
    /// It is not there, and is made.
    Create,
    /// It is removed, and kept as a copy.
    Remove,
}

impl ActionKind {
    /// `rewrite`, `create`, `remove`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rewrite => "rewrite",
            Self::Create => "create",
            Self::Remove => "remove",
        }
    }
}

/// A repair that was carried out. Durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repaired {
    /// Where the copies are, and a manifest that says of what and why.
    pub copies: PathBuf,
    /// How many files were copied there.
    pub files_copied: u64,
    /// Their bytes.
    pub bytes_copied: u64,
    /// How many files were written or removed.
    pub files_changed: u64,
}
