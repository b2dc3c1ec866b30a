//! A disk that fails on demand.

use std::{
    io,
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use crate::io::{
    DirEntry, Disk, Environment, File, OpenMode, Space, TailKind, TailReader, TailWriter,
};

/// What fails from now on.
#[derive(Debug)]
pub(super) struct Faults {
    /// No file may be allocated past this length.
    pub(super) room: AtomicU64,
    pub(super) no_descriptors: AtomicBool,
    pub(super) sync: AtomicBool,
    pub(super) write_out: AtomicBool,
    /// How often write-out was started.
    pub(super) write_outs: AtomicU64,
    pub(super) tail_write: AtomicBool,
    pub(super) read: AtomicBool,
    /// Resident reads find nothing in memory.
    pub(super) cold: AtomicBool,
    /// What of files was given up.
    pub(super) given_up: parking_lot::Mutex<Vec<Range<u64>>>,
    /// What was stored into tails, in order: position and bytes.
    pub(super) stores: parking_lot::Mutex<Vec<(u64, Vec<u8>)>>,
}

/// The environment with a disk that obeys the faults.
pub(super) fn faulty(environment: Environment) -> (Environment, Arc<Faults>) {
    let faults = Arc::new(Faults {
        room: AtomicU64::new(u64::MAX),
        no_descriptors: AtomicBool::default(),
        sync: AtomicBool::default(),
        write_out: AtomicBool::default(),
        write_outs: AtomicU64::default(),
        tail_write: AtomicBool::default(),
        read: AtomicBool::default(),
        cold: AtomicBool::default(),
        given_up: parking_lot::Mutex::default(),
        stores: parking_lot::Mutex::default(),
    });
    let disk = FaultyDisk {
        disk: environment.disk,
        faults: Arc::clone(&faults),
    };
    (
        Environment {
            disk: Arc::new(disk),
            ..environment
        },
        faults,
    )
}

fn fail_if(fault: &AtomicBool) -> io::Result<()> {
    match fault.load(Relaxed) {
        true => Err(io::Error::other("injected")),
        false => Ok(()),
    }
}

#[derive(Debug)]
struct FaultyDisk {
    disk: Arc<dyn Disk>,
    faults: Arc<Faults>,
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, how: OpenMode) -> io::Result<Arc<dyn File>> {
        if self.faults.no_descriptors.load(Relaxed) {
            return Err(rustix::io::Errno::MFILE.into());
        }
        let file = self.disk.open(path, how)?;
        Ok(Arc::new(FaultyFile {
            file,
            faults: Arc::clone(&self.faults),
        }))
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir(path)
    }
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.read_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }
    fn sync_filesystem(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_filesystem(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.disk.lock(path)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        self.disk.space(path)
    }
    fn tail_kind(&self, path: &Path) -> TailKind {
        self.disk.tail_kind(path)
    }
}

#[derive(Debug)]
struct FaultyFile {
    file: Arc<dyn File>,
    faults: Arc<Faults>,
}

impl File for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        fail_if(&self.faults.read)?;
        self.file.read_at(buf, position)
    }
    fn read_resident_at(&self, buf: &mut [u8], position: u64) -> io::Result<Option<usize>> {
        fail_if(&self.faults.read)?;
        if self.faults.cold.load(Relaxed) {
            return Ok(None);
        }
        self.file.read_resident_at(buf, position)
    }
    fn write_at(&self, bufs: &[&[u8]], position: u64) -> io::Result<()> {
        self.file.write_at(bufs, position)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn allocate(&self, range: Range<u64>) -> io::Result<()> {
        if range.end > self.faults.room.load(Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.allocate(range)
    }
    fn sync_data(&self) -> io::Result<()> {
        fail_if(&self.faults.sync)?;
        self.file.sync_data()
    }
    fn start_write_out(&self, range: Range<u64>) -> io::Result<()> {
        fail_if(&self.faults.write_out)?;
        self.faults.write_outs.fetch_add(1, Relaxed);
        self.file.start_write_out(range)
    }

    fn modified(&self) -> io::Result<Option<super::Timestamp>> {
        self.file.modified()
    }
    fn give_up(&self, range: Range<u64>) {
        self.faults.given_up.lock().push(range.clone());
        self.file.give_up(range);
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
        let (writer, reader) = self.file.tail(kind, capacity, written)?;
        Ok((
            Box::new(FaultyWriter {
                writer,
                faults: Arc::clone(&self.faults),
            }),
            reader,
        ))
    }
}

#[derive(Debug)]
struct FaultyWriter {
    writer: Box<dyn TailWriter>,
    faults: Arc<Faults>,
}

impl TailWriter for FaultyWriter {
    fn write(&mut self, position: u64, parts: &[&[u8]]) -> io::Result<()> {
        fail_if(&self.faults.tail_write)?;
        self.faults.stores.lock().push((position, parts.concat()));
        self.writer.write(position, parts)
    }
    fn publish(&mut self, word_position: u64, word: [u8; 4], end: u64) -> io::Result<()> {
        self.faults
            .stores
            .lock()
            .push((word_position, word.to_vec()));
        self.writer.publish(word_position, word, end)
    }
}
