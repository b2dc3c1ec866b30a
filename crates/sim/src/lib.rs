//! A simulated machine for crash tests: a disk with a page cache, a clock and a random source, all
//! driven by one seed.
//!
//! The disk keeps two copies of everything: what the running process sees (the page cache) and what a
//! power cut leaves (the durable content). The rules by which one becomes the other are those of Linux
//! and of POSIX where Linux's file systems differ, on the side that is harder to live with:
//!
//! - A write marks its 4 KiB pages dirty, also when the bytes are the same. [`sync_data`] makes dirty
//!   pages, length and allocation durable. A power cut keeps any subset of the dirty pages, and of some
//!   of them any subset of their 512-byte sectors; the others hold their old content. Stores through a
//!   mapping are no different. With [`SimDisk::set_write_back`] the kernel also writes single pages and
//!   commits names on its own, in any order, so what a page held for a while may survive.
//! - Changes of one file's length and allocation become durable in their order (file systems journal
//!   them), so a power cut keeps a prefix. Blocks that were cut off come back with their old content
//!   only together with the old length.
//! - Names belong to their directory and become durable with [`sync_dir`]: new ones, changed ones and
//!   removed ones. A power cut keeps either a prefix of the directory's changes, as journaling file
//!   systems do, or any subset in which each name keeps its own order, which is all that POSIX leaves. A
//!   synced file whose name is lost is lost; a removed one may be back.
//! - A sync that fails leaves a part durable, torn like a power cut's, and marks everything as clean:
//!   the content can still be read, but no later sync writes it. A write-out that the kernel started and
//!   that failed does the same, and is reported once to each handle by its next sync.
//! - A write that is stopped or fails has put some of its pages in place, a store any of its bytes. A
//!   mapped tail writes longer batches at the beginning of a file with positional writes, as the real
//!   one does ([`SimDisk::set_tail_switch`]).
//! - Any step can fail with an error of the device or for want of space, any read, opening or listing
//!   with an error of the device, once or for good. A full disk refuses to allocate and cuts writes
//!   short.
//! - At rest, bits flip, sectors turn into zeros, and sectors are written in the place of others.
//! - A kill loses nothing but locks and open files.
//!
//! What it does not do: blocks of one file never show up in another one (stale data after a power cut),
//! a device that has confirmed a flush keeps what it confirmed, and a sector is written whole or not at
//! all.
//!
//! Everything that changes the disk is a numbered step, every sync also a numbered durability event;
//! the machine can be stopped at each ([`SimDisk::stop_at`]) and copied ([`SimDisk::fork`]), so that one
//! stop has many survivors. Stopping a run at each of its events takes as many runs; copying the disk
//! at each of them ([`SimDisk::capture`]) takes one. Driven from one thread, everything is deterministic.
//!
//! [`sync_data`]: sapwood_log::io::File::sync_data
//! [`sync_dir`]: sapwood_log::io::Disk::sync_dir

mod clock;
mod directory;
mod disk;
mod faults;
mod file;
mod image;
mod inode;
mod rng;
mod state;
mod tally;

use std::sync::Arc;

use sapwood_log::io::Environment;

pub use clock::{SimClock, SimEntropy};
pub use disk::{Captured, Off, SimDisk, is_off};
pub use faults::{Capture, ReadFault, StepKind, Stop, TailSwitch, WriteFault};
pub use image::{PAGE_BYTES, SECTOR_BYTES};
pub use rng::Rng;
pub use tally::Injected;

/// A simulated machine.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Its disk.
    pub disk: SimDisk,
    /// Its clock, which moves only when told to.
    pub clock: Arc<SimClock>,
    /// Its random source.
    pub entropy: Arc<SimEntropy>,
}

impl Machine {
    /// A machine with an empty disk of unlimited size. The same seed gives the same machine.
    pub fn new(seed: u64) -> Machine {
        Machine {
            disk: SimDisk::new(seed),
            clock: Arc::new(SimClock::default()),
            entropy: Arc::new(SimEntropy::new(seed)),
        }
    }

    /// What a log is opened on.
    pub fn environment(&self) -> Environment {
        Environment {
            disk: Arc::new(self.disk.process()),
            clock: Arc::clone(&self.clock) as Arc<_>,
            entropy: Arc::clone(&self.entropy) as Arc<_>,
        }
    }

    /// A second machine in exactly this state. Neither sees what happens to the other, and files that
    /// are open on this one stay with it.
    pub fn fork(&self) -> Machine {
        Machine {
            disk: self.disk.fork(),
            clock: Arc::new(self.clock.fork()),
            entropy: Arc::new(self.entropy.fork()),
        }
    }
}

/// The environment of a fresh [`Machine`], for tests that need no hold on the machine itself.
pub fn environment(seed: u64) -> Environment {
    Machine::new(seed).environment()
}
