//! Cuts the power under a running broker, again and again, and looks at what is left.
//!
//! A loop device stands on a file of a FUSE file system whose daemon, this process, keeps a volatile
//! write cache: what was written since the last flush survives a cut in any subset of its 4 KiB blocks.
//! On the device is ext4, on that a data directory, on that the sapwood binary, and on that programs
//! that produce, read, trim, commit, create and delete. At a random moment the disk and its cache are
//! copied; several disks that may be found when the power is back are made of the copy; each is mounted
//! and a broker with another boot id is started on it, which must have everything that the programs
//! were told before that moment.

mod account;
mod cache;
mod chain;
mod found;
mod fs;
mod judge;
mod load;
mod machine;
mod random;
mod tally;

use std::{
    fmt::Display,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, ExitCode},
};

use clap::Parser;

/// Set in the process that runs in a mount namespace of its own.
const INSIDE: &str = "SAPWOOD_POWER_CUT_INSIDE";

/// Cut the power under a broker on ext4 and check what is left. Needs root, /dev/fuse and loop devices
#[derive(Debug, Parser)]
#[command(name = "power-cut")]
struct Args {
    /// How many times to cut
    #[arg(long, value_name = "N", default_value_t = 10)]
    cuts: u32,
    /// How many disks to look at after each cut
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    survivors: u32,
    /// Where the random numbers begin; printed when it is not given
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The sapwood binary
    #[arg(long, value_name = "PATH", default_value = "target/release/sapwood")]
    bin: PathBuf,
    /// The longest time in milliseconds that the load runs before a cut
    #[arg(long, value_name = "MS", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..))]
    load_ms: u64,
    /// Where to keep the disk on which a promise was broken
    #[arg(long, value_name = "DIR", default_value = "power-cut-failed")]
    keep: PathBuf,
    /// A check of this program: the disks answer flushes and forget them
    #[arg(long)]
    lying_disk: bool,
    /// A check of this program: expect of os topics what only fsync topics promise
    #[arg(long)]
    judge_os_as_fsync: bool,
}

/// Why a run ends.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The machine does not do what this program needs. Says nothing about the broker.
    #[error("{what}: {why}")]
    Machine { what: String, why: String },
    /// The broker broke a promise.
    #[error("{0}")]
    Broken(String),
}

impl Failure {
    fn machine(what: impl Display, why: impl Display) -> Self {
        Self::Machine {
            what: what.to_string(),
            why: why.to_string(),
        }
    }

    fn broken(what: impl Display, why: impl Display) -> Self {
        Self::Broken(format!("{what}: {why}"))
    }
}

/// 0: every promise was kept. 1: one was broken. 2: nothing can be said.
fn main() -> ExitCode {
    let args = Args::parse();
    if std::env::var_os(INSIDE).is_none() {
        return enter();
    }
    match chain::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure @ Failure::Broken(_)) => {
            println!("VIOLATION: {failure}");
            ExitCode::from(1)
        }
        Err(failure @ Failure::Machine { .. }) => {
            eprintln!("power-cut: {failure}");
            ExitCode::from(2)
        }
    }
}

/// Becomes the same program in a mount namespace of its own. However that ends, a kill included, its
/// mounts go with it, and with them the loop devices, which are set to go when they are unmounted.
fn enter() -> ExitCode {
    let this = std::env::current_exe();
    let mut inside = Command::new("unshare");
    inside.args(["--mount", "--propagation", "private", "--"]);
    inside.arg(this.unwrap_or_else(|_| PathBuf::from("/proc/self/exe")));
    let error = inside
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .exec();
    eprintln!("power-cut: unshare cannot be run: {error}");
    ExitCode::from(2)
}
