//! The settings of a store, with their bounds.

use std::time::Duration;

use crate::{OpenError, io::TailKind, journal};

/// Settings of a [`Store`](crate::Store). The defaults suit a machine of its own.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Space kept back for deletes, commits and checkpoints on a full disk, in bytes. 0 for none.
    pub ballast_bytes: u64,
    /// Size of each journal file, in bytes: a multiple of 4096, from 64 KiB to 1 GiB.
    /// A batch of an fsync topic may be at most half of it.
    pub journal_file_bytes: u64,
    /// How many journal files there are, from 2 to 64.
    pub journal_files: u32,
    /// Names the boot of the machine: as long as it is the same, the page cache is whole.
    pub boot_id: String,
    /// How active segments are written; `None` asks the file system.
    pub tail: Option<TailKind>,
    /// How long an append of an fsync topic that nobody waits for may stay out of the journal.
    pub commit_delay: Duration,
    /// How many such bytes start a round earlier.
    pub commit_bytes: u64,
    /// How often dirty os topics are checkpointed.
    pub os_checkpoint_interval: Duration,
    /// How many dirty bytes of os topics start a checkpoint earlier.
    pub os_checkpoint_bytes: u64,
    /// How many sealed segment files are kept open.
    pub open_files_max: usize,
    /// Larger segment files are removed in steps of this many bytes, on a thread of its own.
    pub removal_step_bytes: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            ballast_bytes: 64 << 20,
            journal_file_bytes: 64 << 20,
            journal_files: 4,
            boot_id: String::new(),
            tail: None,
            commit_delay: Duration::from_millis(10),
            commit_bytes: 1 << 20,
            os_checkpoint_interval: Duration::from_secs(10),
            os_checkpoint_bytes: 64 << 20,
            open_files_max: 1024,
            removal_step_bytes: 32 << 20,
        }
    }
}

impl StoreOptions {
    /// The largest batch that an fsync topic may hold, in bytes: half a journal file.
    pub fn fsync_batch_bytes_max(&self) -> u64 {
        self.journal_file_bytes / 2
    }

    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let page = journal::PAGE_BYTES;
        let file = self.journal_file_bytes;
        let what = match () {
            () if !file.is_multiple_of(page) || !(64 << 10..=1 << 30).contains(&file) => format!(
                "journal_file_bytes is {file}; it must be a multiple of {page} from 65536 to 1073741824"
            ),
            () if !(2..=64).contains(&self.journal_files) => {
                format!(
                    "journal_files is {}; it must be from 2 to 64",
                    self.journal_files
                )
            }
            () if self.boot_id.len() > 256 => {
                format!(
                    "the boot id has {} bytes; the limit is 256 bytes",
                    self.boot_id.len()
                )
            }
            () => return Ok(()),
        };
        Err(OpenError::Option { what })
    }
}
