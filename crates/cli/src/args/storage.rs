//! `sapwood storage`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Commands over a data directory that no broker is using. They read only.
#[derive(Debug, Subcommand)]
pub(crate) enum StorageCommand {
    /// Show what is in a data directory: partitions, segments, journal, checkpoint
    #[command(visible_alias = "info")]
    Inspect(StorageArgs),
    /// Check every batch, offset, checksum and index; exit code 10 when something is wrong
    Verify(StorageArgs),
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
