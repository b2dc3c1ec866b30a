//! `sapwood dev`, `sapwood serve`, `sapwood config`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `sapwood dev`.
#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// Flags that `serve` takes too.
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
    /// Listen on this port of 127.0.0.1; short for --listen
    #[arg(long, value_name = "N", conflicts_with = "listen")]
    pub(crate) port: Option<u16>,
    /// Wipe the data directory first: asks, or needs --yes
    #[arg(long)]
    pub(crate) clean: bool,
}

/// `sapwood serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Flags that `dev` takes too.
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
    /// Allow listening beyond loopback although authentication is off
    #[arg(long)]
    pub(crate) insecure: bool,
    /// Check the configuration, print what is wrong, start nothing
    #[arg(long)]
    pub(crate) check_config: bool,
}

/// Flags of a broker. Each is stronger than the environment, which is stronger than the file.
#[derive(Debug, Clone, Args)]
pub(crate) struct BrokerArgs {
    /// The configuration file (TOML)
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where the data is kept
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The address for clients; port 0 picks a free one
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<String>,
    /// The address that clients are told to use
    #[arg(long, value_name = "ADDR")]
    pub(crate) advertised: Option<String>,
    /// The address for health and metrics; port 0 picks a free one
    #[arg(long, value_name = "ADDR")]
    pub(crate) http_listen: Option<String>,
    /// Set any key of the configuration; may be repeated
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

/// `sapwood config`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every key, its value and where the value comes from
    Show {
        /// The flags that the broker would be started with.
        #[command(flatten)]
        broker: BrokerArgs,
        /// Show what `sapwood dev` would use, not `sapwood serve`
        #[arg(long)]
        dev: bool,
    },
}
