//! Partition logs: segments, journal, checkpoints, recovery.

pub mod io;
mod mmap;

pub use mmap::install_sigbus_handler;
