//! Clients of others, and the command line.

mod bench;
mod kafka;
mod kafka_tools;
mod python;

use std::path::PathBuf;

use crate::harness::root;

/// A Python with the packages of tests/python/requirements.txt: `SAPWOOD_PYTHON`, or the environment
/// that `.ci/run` makes.
fn python() -> Option<PathBuf> {
    let named = std::env::var_os("SAPWOOD_PYTHON").map(PathBuf::from);
    named
        .or_else(|| Some(root().join("target/python/bin/python")))
        .filter(|path| path.exists())
}
