//! The seam between a partition and whatever makes its appends durable.
//!
//! A partition appends and tells; something outside makes the bytes durable and moves the high
//! watermark through [`Partition::advance_durable`](crate::Partition::advance_durable). Here that
//! is the group commit of the [`Store`](crate::Store).

use std::{fmt::Debug, io, sync::Arc};

use crate::{metrics::StoreMetrics, partition::Partition};

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

    /// How many bytes appends may take from the file system: what the ballast gave up is not for them.
    /// [`u64::MAX`] as long as it gave up nothing: then the file system says. Asked with the writer's
    /// lock held: at most one system call, and no lock.
    fn spare_bytes(&self) -> u64;

    /// An append was refused because the disk had no room for so many bytes; 0: one found room.
    fn lacks(&self, bytes: u64);

    /// The counters.
    fn metrics(&self) -> &StoreMetrics;
}
