//! Machines that misbehave on demand: a journal whose sync does not return, a clock that panics.

use std::{
    io,
    ops::Range,
    path::Path,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sapwood_broker::Environment;
use sapwood_log::io::{
    Clock, DirEntry, Disk, File, OpenMode, RealDisk, Space, TailKind, TailReader, TailWriter,
};
use sapwood_model::Timestamp;

/// Holds every sync of a journal file up while it is shut.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    is_shut: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    pub(crate) fn shut(&self) {
        *self.is_shut.lock().unwrap() = true;
    }

    pub(crate) fn open(&self) {
        *self.is_shut.lock().unwrap() = false;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut is_shut = self.is_shut.lock().unwrap();
        while *is_shut {
            is_shut = self.changed.wait(is_shut).unwrap();
        }
    }

    /// A machine whose journal syncs go through this gate.
    pub(crate) fn machine(self: &Arc<Self>) -> Environment {
        let gate = Arc::clone(self);
        Environment {
            disk: Arc::new(GatedDisk { gate }),
            ..Environment::real()
        }
    }
}

#[derive(Debug)]
struct GatedDisk {
    gate: Arc<Gate>,
}

#[derive(Debug)]
struct GatedFile {
    file: Arc<dyn File>,
    gate: Arc<Gate>,
}

impl Disk for GatedDisk {
    fn open(&self, path: &Path, how: OpenMode) -> io::Result<Arc<dyn File>> {
        let file = RealDisk.open(path, how)?;
        if path
            .extension()
            .is_none_or(|extension| extension != "journal")
        {
            return Ok(file);
        }
        let gate = Arc::clone(&self.gate);
        Ok(Arc::new(GatedFile { file, gate }))
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        RealDisk.read_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_file(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }
    fn sync_filesystem(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_filesystem(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        RealDisk.lock(path)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        RealDisk.space(path)
    }
    fn tail_kind(&self, path: &Path) -> TailKind {
        RealDisk.tail_kind(path)
    }
}

impl File for GatedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buf, position)
    }
    fn read_resident_at(&self, buf: &mut [u8], position: u64) -> io::Result<Option<usize>> {
        self.file.read_resident_at(buf, position)
    }
    fn write_at(&self, bufs: &[&[u8]], position: u64) -> io::Result<()> {
        self.file.write_at(bufs, position)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn allocate(&self, range: Range<u64>) -> io::Result<()> {
        self.file.allocate(range)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.gate.pass();
        self.file.sync_data()
    }
    fn start_write_out(&self, range: Range<u64>) -> io::Result<()> {
        self.file.start_write_out(range)
    }

    fn check_write_out(&self) -> io::Result<()> {
        self.file.check_write_out()
    }
    fn tail(
        &self,
        kind: TailKind,
        capacity: u64,
        written: u64,
    ) -> io::Result<(Box<dyn TailWriter>, Arc<dyn TailReader>)> {
        self.file.tail(kind, capacity, written)
    }
}

/// A clock that panics once when it is asked for the time after it was armed, as a fault in the
/// broker's code would.
#[derive(Debug)]
pub(crate) struct FaultyClock {
    clock: Arc<dyn Clock>,
    is_armed: AtomicBool,
}

impl FaultyClock {
    pub(crate) fn new() -> (Arc<Self>, Environment) {
        let machine = Environment::real();
        let faulty = Arc::new(Self {
            clock: machine.clock.clone(),
            is_armed: AtomicBool::new(false),
        });
        let clock: Arc<dyn Clock> = faulty.clone();
        (faulty, Environment { clock, ..machine })
    }

    pub(crate) fn arm(&self) {
        self.is_armed.store(true, Ordering::SeqCst);
    }
}

impl Clock for FaultyClock {
    fn now(&self) -> Timestamp {
        let is_due = self.is_armed.swap(false, Ordering::SeqCst);
        assert!(!is_due, "the fault that the test asked for");
        self.clock.now()
    }

    fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }
}
