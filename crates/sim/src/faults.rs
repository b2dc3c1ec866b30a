//! What goes wrong, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Where the machine stops. Counted from 0 over the whole life of the disk, as [`SimDisk::syncs`] and
/// [`SimDisk::steps`] count.
///
/// [`SimDisk::syncs`]: crate::SimDisk::syncs
/// [`SimDisk::steps`]: crate::SimDisk::steps
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// At this durability event: `sync_data`, `sync_dir` or `sync_filesystem`.
    Sync(u64),
    /// At this step: any call that changes the disk or syncs it. A write or store that is stopped has
    /// put some of its bytes in place.
    Step(u64),
}

/// At which events the disk is copied as it is just before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capture {
    /// At every durability event.
    Syncs,
    /// At every step. A write or store has put some of its bytes in place.
    Steps,
}

/// What a step does. Every call that changes the disk is a step of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StepKind {
    /// A file or a directory gets its first name.
    Make,
    /// A positional write, of a tail too.
    Write,
    /// A store through a mapping.
    Store,
    /// A change of a file's length.
    SetLen,
    /// Blocks are taken ahead of what is written.
    Allocate,
    /// A name is changed.
    Rename,
    /// A name is removed.
    Remove,
    /// A durability event.
    Sync,
}

impl StepKind {
    /// Whether the step may need room that the disk does not have.
    pub fn takes_room(self) -> bool {
        matches!(
            self,
            StepKind::Make | StepKind::Write | StepKind::Allocate | StepKind::Rename
        )
    }
}

/// How long a read goes on failing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFault {
    /// The next read of the same place succeeds.
    Once,
    /// The place stays unreadable: the first page of the read, the file that was opened, the directory
    /// that was listed.
    Sticky,
}

/// Where a mapped tail writes with positional writes instead of stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TailSwitch {
    /// Below this position in the file.
    pub below: u64,
    /// And from this many bytes at once on.
    pub bytes_min: usize,
}

impl Default for TailSwitch {
    /// As the real tail has it.
    fn default() -> TailSwitch {
        TailSwitch {
            below: 2 << 20,
            bytes_min: 8 << 10,
        }
    }
}

/// How a step fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteFault {
    /// Some of the bytes are written, then the disk is full.
    NoSpace,
    /// Some of the bytes are written, then the device reports an error.
    Io,
}

impl WriteFault {
    pub(crate) fn error(self) -> io::Error {
        match self {
            WriteFault::NoSpace => no_space(),
            WriteFault::Io => device_error(),
        }
    }
}

/// The faults that a test has asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    pub(crate) stop: Option<Stop>,
    pub(crate) failing_syncs: BTreeSet<u64>,
    pub(crate) failing_steps: BTreeMap<u64, WriteFault>,
    pub(crate) failing_reads: BTreeMap<u64, ReadFault>,
    /// From this step on the disk has room for so many pages more.
    pub(crate) filling: Option<(u64, u64)>,
    pub(crate) capacity_bytes: Option<u64>,
    pub(crate) reserved_bytes: u64,
}

pub(crate) fn no_space() -> io::Error {
    io::Error::new(
        io::ErrorKind::StorageFull,
        "no space left on the simulated disk",
    )
}

/// EIO has no stable kind of its own; the real number lets callers that look at it see it.
pub(crate) fn device_error() -> io::Error {
    const EIO: i32 = 5;
    io::Error::from_raw_os_error(EIO)
}
