//! The seam between a partition and whatever makes its appends durable.
//!
//! A partition appends and tells; something outside makes the bytes durable and moves the high
//! watermark through [`Partition::advance_durable`](crate::Partition::advance_durable). Here that
//! is the group commit of the [`Store`](crate::Store).

use std::{
    any::Any,
    fmt::Debug,
    io,
    path::PathBuf,
    sync::{Arc, Weak},
};

use crate::{metrics::StoreMetrics, partition::Partition};

/// What is taken from the file system, by what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Space {
    /// What appends will need later. None while the ballast is given up: what becomes free makes up for
    /// the ballast first, and a disk on which segments had taken the rest ahead would look full for good.
    Ahead,
    /// What the records of users need now. What the ballast gave up is not for them, nor is what the
    /// file system keeps for root, also where this process may take it: it does not count as free, so a
    /// disk that had been filled with it would look full until as much was deleted again.
    Spare,
    /// What records need that make room for others. As [`Space::Spare`] while the ballast is held, so that
    /// it is given up first; then all that the file system gives.
    Ballast,
}

/// A large file that was a segment's, under a name that no segment has.
#[derive(Debug)]
pub(crate) struct Retired {
    /// Whose it was.
    pub(crate) partition: Arc<Partition>,
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Lives as long as a reader has bytes of its mapping: until then the file must not be cut.
    pub(crate) readers: Weak<dyn Any + Send + Sync>,
}

/// What a partition needs from its store. No method is called with a partition's lock held.
pub(crate) trait Durability: Send + Sync + Debug {
    /// Bytes of an fsync partition wait for the journal. Called once until
    /// `Partition::take_unjournaled` has taken them, and again for an append that is `urgent`
    /// when the earlier ones were not: somebody waits for it.
    fn appended(&self, partition: &Arc<Partition>, bytes: u64, urgent: bool);

    /// Asks for `Partition::maintain` soon. Called once until that starts.
    fn wants_maintenance(&self, partition: &Arc<Partition>);

    /// An os partition has `bytes` more that no checkpoint covers.
    fn dirtied(&self, partition: &Arc<Partition>, bytes: u64);

    /// Why the whole data directory takes no more appends, once it does not.
    fn read_only(&self) -> Option<Arc<str>>;

    /// Runs `op`; when the disk is full, releases the ballast and tries once more. For deletes,
    /// checkpoints and seals, never for appends.
    ///
    /// # Errors
    /// What `op` fails with.
    fn with_ballast(&self, op: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()>;

    /// How many bytes of it may be taken from the file system; [`u64::MAX`] where only that can say.
    /// Asked with the writer's lock held: at most one system call, and no lock.
    fn bytes_of(&self, space: Space) -> u64;

    /// An append was refused because the disk had no room for so many bytes; 0: one found room.
    fn lacks(&self, bytes: u64);

    /// Files larger than this many bytes are not removed by the partition itself but given to
    /// [`Durability::retire`]: the file system takes long for them.
    fn removal_step_bytes(&self) -> u64;

    /// Takes a file away, in its own time.
    fn retire(&self, retired: Retired);

    /// Makes the names in the partition's folder durable. A failure makes the whole data directory
    /// read-only. Blocks.
    ///
    /// # Errors
    /// Why it is read-only.
    fn sync_folder(&self, partition: &Partition) -> Result<(), Arc<str>>;

    /// The counters.
    fn metrics(&self) -> &StoreMetrics;
}
