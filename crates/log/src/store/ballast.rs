//! The ballast: a file whose space is given up when the disk is full, so that deletes, commits and
//! checkpoints still work.

use std::{
    io,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use tracing::{info, warn};

use super::BALLAST;
use crate::{
    DataDir,
    io::{Environment, OpenMode},
};

/// The ballast file and whether it holds its space.
#[derive(Debug)]
pub(super) struct Ballast {
    environment: Environment,
    path: PathBuf,
    bytes: u64,
    is_held: AtomicBool,
    /// Held by whoever takes it or gives it up.
    changing: Mutex<()>,
}

impl Ballast {
    /// Takes the space; a disk without room for it is only worth a warning.
    pub(super) fn open(dir: &DataDir, bytes: u64) -> Self {
        let environment = dir.environment().clone();
        let ballast = Self {
            environment,
            path: dir.path().join(BALLAST),
            bytes,
            is_held: AtomicBool::new(false),
            changing: Mutex::new(()),
        };
        if let Err(error) = ballast.take() {
            warn!(path = %ballast.path.display(), bytes, %error, "no room for the ballast file");
        }
        ballast
    }

    /// Runs `op`; when the disk is full, gives the space up and tries once more.
    pub(super) fn with(&self, op: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        match op() {
            Err(e) if e.kind() == io::ErrorKind::StorageFull && self.release()? => op(),
            done => done,
        }
    }

    /// Whether the space was given up and not taken back yet.
    pub(super) fn is_released(&self) -> bool {
        self.bytes > 0 && !self.is_held.load(Ordering::Acquire)
    }

    /// Its size.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes the space back once twice as much is free. Says whether it is held.
    pub(super) fn restore(&self) -> bool {
        let folder = self.path.parent().unwrap_or(&self.path);
        let free = self
            .environment
            .disk
            .space(folder)
            .map_or(0, |space| space.free_bytes);
        if free / 2 < self.bytes {
            return false;
        }
        match self.take() {
            Ok(()) => {
                info!(
                    event = "disk.recovered",
                    bytes = self.bytes,
                    "took the ballast back"
                );
                true
            }
            Err(_) => false,
        }
    }

    fn take(&self) -> io::Result<()> {
        let _changing = self.changing.lock();
        if self.bytes > 0 {
            let file = self.environment.disk.open(&self.path, OpenMode::Create)?;
            let there = file.len()?;
            match there < self.bytes {
                true => file.allocate(there..self.bytes)?,
                false => file.set_len(self.bytes)?,
            }
        }
        self.is_held.store(true, Ordering::Release);
        Ok(())
    }

    /// Says whether there was anything to give up.
    fn release(&self) -> io::Result<bool> {
        let _changing = self.changing.lock();
        if self.bytes == 0 || !self.is_held.swap(false, Ordering::AcqRel) {
            return Ok(false);
        }
        let file = self.environment.disk.open(&self.path, OpenMode::Write)?;
        file.set_len(0)?;
        // Freed blocks can be used again only after the file system's own journal has committed.
        file.sync_data()?;
        warn!(
            event = "disk.rejecting",
            bytes = self.bytes,
            "the disk is full; released the ballast"
        );
        Ok(true)
    }
}
