//! A disk whose journal syncs can be held up.

use std::{
    io,
    ops::Range,
    path::Path,
    sync::{Arc, Condvar, Mutex},
};

use sapwood_broker::Environment;
use sapwood_log::io::{
    DirEntry, Disk, File, OpenMode, RealDisk, Space, TailKind, TailReader, TailWriter,
};

/// The operating system, but for its journal syncs.
pub(crate) fn environment(gate: &Arc<Gate>) -> Environment {
    Environment {
        disk: Arc::new(GatedDisk {
            gate: Arc::clone(gate),
        }),
        ..Environment::real()
    }
}

/// Holds every sync of a journal file up while it is shut.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_shut: bool,
    held: usize,
}

impl Gate {
    pub(crate) fn shut(&self) {
        self.state.lock().unwrap().is_shut = true;
    }

    pub(crate) fn open(&self) {
        self.state.lock().unwrap().is_shut = false;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.held += 1;
        self.changed.notify_all();
        while state.is_shut {
            state = self.changed.wait(state).unwrap();
        }
        state.held -= 1;
    }

    pub(crate) fn wait_until_held(&self) {
        let mut state = self.state.lock().unwrap();
        while state.held == 0 {
            state = self.changed.wait(state).unwrap();
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
        match path
            .extension()
            .is_some_and(|extension| extension == "journal")
        {
            true => Ok(Arc::new(GatedFile {
                file,
                gate: Arc::clone(&self.gate),
            })),
            false => Ok(file),
        }
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
