//! `sapwood storage`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Commands over what is stored: `usage`, `retain` and `compact` ask a broker, the others look at a data directory that
/// no broker is using. Of these only `repair --yes` changes it.
#[derive(Debug, Subcommand)]
pub(crate) enum StorageCommand {
    /// Show what takes space on a running broker, and how its background work is going
    Usage,
    /// Show what retention deletes next of a topic; with --now delete what is due at once
    Retain(RetainArgs),
    /// Show how far a topic is compacted; with --now compact it at once
    ///
    /// Of all records of a key the latest stays. With --now whatever part of the topic is new is compacted, what
    /// is being written as well, without the throttle of the background. Records younger than min.compaction.lag.ms stay. Ending the command ends it; what
    /// was compacted so far stays.
    #[command(verbatim_doc_comment)]
    Compact(CompactArgs),
    /// Show what is in a data directory: partitions, segments, journal, checkpoint
    #[command(visible_alias = "info")]
    Inspect(StorageArgs),
    /// Check every batch, offset, checksum and index; exit code 10 when something is wrong
    Verify(StorageArgs),
    /// Bring a damaged data directory back: say what is lost, and with --yes do it
    ///
    /// Prints a plan: what is made anew, what is cut off, and which offsets of which partitions are lost.
    /// Every batch that checks keeps its offset; an empty batch takes the place of those that do not, so
    /// that no offset is given twice and consumers pass over them. Indexes, producers and leader epochs
    /// are made anew from the batches, the checkpoint from the segments and the journal.
    ///
    /// Nothing is changed without --yes or an answer on the terminal. Before it is changed, every file is
    /// copied to DIR/repair/NUMBER/old, with a manifest that says why. When it is interrupted, run it
    /// again: the broker does not start before it is finished. The catalog is only read.
    ///
    /// Exit codes: 0 nothing is damaged any more, 8 some of it could not be repaired, 10 nothing was
    /// changed and something is damaged.
    #[command(verbatim_doc_comment)]
    Repair(RepairArgs),
}

/// Of which partitions, and whether to.
#[derive(Debug, Args)]
pub(crate) struct RetainArgs {
    /// The topic
    #[arg(value_name = "TOPIC")]
    pub(crate) name: String,
    /// Only these partitions
    #[arg(short, long, value_name = "N", value_delimiter = ',')]
    pub(crate) partition: Vec<u32>,
    /// Delete what is due by retention.ms and retention.bytes, without waiting for the next look
    #[arg(long)]
    pub(crate) now: bool,
}

/// Of which partitions, and whether to.
#[derive(Debug, Args)]
pub(crate) struct CompactArgs {
    /// The topic; its cleanup.policy contains compact
    #[arg(value_name = "TOPIC")]
    pub(crate) name: String,
    /// Only these partitions
    #[arg(short, long, value_name = "N", value_delimiter = ',')]
    pub(crate) partition: Vec<u32>,
    /// Compact now, without waiting for the background
    #[arg(long)]
    pub(crate) now: bool,
}

/// What to repair, and whether to.
#[derive(Debug, Args)]
pub(crate) struct RepairArgs {
    #[command(flatten)]
    pub(crate) storage: StorageArgs,
    /// Only print the plan
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Which part of which directory.
#[derive(Debug, Args)]
pub(crate) struct StorageArgs {
    /// The data directory of a stopped broker
    #[arg(long, value_name = "DIR", default_value = "sapwood-data")]
    pub(crate) data_dir: PathBuf,
    /// The file with the kernel's boot id, as storage.boot_id_file of the broker
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/proc/sys/kernel/random/boot_id"
    )]
    pub(crate) boot_id_file: PathBuf,
    /// Only this topic
    #[arg(long, value_name = "TOPIC")]
    pub(crate) topic: Option<String>,
    /// Only this partition of it
    #[arg(short, long, value_name = "N", requires = "topic")]
    pub(crate) partition: Option<u32>,
}
