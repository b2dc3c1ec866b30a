//! The operating system: Linux.

use std::fs;
use std::io;
use std::io::IoSlice;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rustix::fs::{Advice, FallocateFlags, Mode, OFlags};
use rustix::io::{Errno, ReadWriteFlags};
use sapwood_model::Timestamp;

use super::tail::{self, PwriteWriter};
use super::{
    Clock, DirEntry, Disk, Entropy, File, OpenMode, Space, TailKind, TailReader, TailWriter,
};
use crate::mmap;

/// `struct statfs.f_type` of the file systems on which allocated blocks stay allocated, from
/// `linux/magic.h`. ext2 and ext3 share ext4's number: they cannot allocate ahead, so [`allocate`]
/// writes zeros there, which takes real blocks too.
const MAPPABLE: [u64; 3] = [
    0xEF53,      /* ext4 */
    0x5846_5342, /* xfs */
    0x0102_1994, /* tmpfs */
];

/// One `pwritev` takes at most this many buffers (`IOV_MAX`).
const BUFFERS_PER_WRITE_MAX: usize = 1024;
const BUFFERS_FEW: usize = 4;

/// The file system of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, how: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true);
        match how {
            OpenMode::Read => {}
            OpenMode::Write => {
                options.write(true);
            }
            OpenMode::Create => {
                options.write(true).create(true);
            }
            OpenMode::CreateNew => {
                options.write(true).create_new(true);
            }
        }
        let file = options.open(path)?;
        Ok(Arc::new(RealFile {
            file: Arc::new(file),
            allocated: Mutex::new(0..0),
        }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            entries.push(DirEntry {
                name,
                is_dir: entry.file_type()?.is_dir(),
            });
        }
        entries.sort();
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::fsync(open_dir(path)?)?)
    }

    fn sync_filesystem(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::syncfs(open_dir(path)?)?)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        file.try_lock().map_err(io::Error::from)?;
        Ok(Box::new(file))
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Space {
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        })
    }

    fn tail_kind(&self, path: &Path) -> TailKind {
        match rustix::fs::statfs(path) {
            // The field is signed on some machines, the magic numbers are 32 bits wide on all.
            Ok(stat) if MAPPABLE.contains(&(stat.f_type as u64 & 0xFFFF_FFFF)) => TailKind::Mmap,
            _ => TailKind::Pwrite,
        }
    }
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// An open file. The descriptor is shared with its tail, so that neither closes it under the other.
#[derive(Debug)]
struct RealFile {
    file: Arc<fs::File>,
    /// What this handle has allocated and not cut since. Held while the length changes: see
    /// [`RealFile::allocate`].
    allocated: Mutex<Range<u64>>,
}

impl File for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        read_at(&self.file, buf, position)
    }

    fn read_resident_at(&self, buf: &mut [u8], position: u64) -> io::Result<Option<usize>> {
        let mut done = 0;
        while done < buf.len() {
            let mut slices = [io::IoSliceMut::new(&mut buf[done..])];
            let at = position_after(position, done)?;
            match rustix::io::preadv2(&self.file, &mut slices, at, ReadWriteFlags::NOWAIT) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                // Some file systems cannot tell; a reader then goes where it may wait.
                Err(Errno::AGAIN | Errno::OPNOTSUPP) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(done))
    }

    fn write_at(&self, bufs: &[&[u8]], position: u64) -> io::Result<()> {
        write_all_vectored(&self.file, bufs, position)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut allocated = self.allocated.lock();
        allocated.end = allocated.end.min(len).max(allocated.start);
        self.file.set_len(len)
    }

    /// One at a time: allocation ahead and an append that could not wait for it may ask for the same
    /// range at once. On a full disk the one that fails would take back what the other one got: it
    /// puts back the length that it found, and tmpfs drops every page of its range that nobody has
    /// touched yet. For the same reason only what is missing is asked for.
    fn allocate(&self, range: Range<u64>) -> io::Result<()> {
        let mut allocated = self.allocated.lock();
        let joins = (allocated.start..=allocated.end).contains(&range.start);
        let start = if joins {
            range.start.max(allocated.end)
        } else {
            range.start
        };
        if start >= range.end {
            return Ok(());
        }
        allocate(&self.file, start..range.end)?;
        *allocated = if joins {
            allocated.start..range.end
        } else {
            range
        };
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn start_write_out(&self, range: Range<u64>) -> io::Result<()> {
        mmap::start_write_out(&self.file, range)
    }

    fn check_write_out(&self) -> io::Result<()> {
        mmap::check_write_out(&self.file)
    }

    fn give_up(&self, range: Range<u64>) {
        let length = NonZeroU64::new(range.end.saturating_sub(range.start));
        // Without a length it would be the rest of the file.
        if length.is_some() {
            let _ = rustix::fs::fadvise(&*self.file, range.start, length, Advice::DontNeed);
        }
    }

    fn modified(&self) -> io::Result<Option<Timestamp>> {
        let modified = self.file.metadata()?.modified()?;
        let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(i64::try_from(since.as_millis()).ok().map(Timestamp))
    }

    fn tail(
        &self,
        kind: TailKind,
        capacity: u64,
        written: u64,
    ) -> io::Result<(Box<dyn TailWriter>, Arc<dyn TailReader>)> {
        tail::check_tail(capacity, written)?;
        match kind {
            TailKind::Mmap => mmap::tail(Arc::clone(&self.file), capacity, written),
            TailKind::Pwrite => Ok(PwriteWriter::open(
                Arc::clone(&self.file),
                capacity,
                written,
            )),
        }
    }
}

/// Reads until `buf` is full or the file ends.
pub(super) fn read_at(file: &fs::File, buf: &mut [u8], position: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(&mut buf[done..], position_after(position, done)?) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// What is appended goes into the page cache in pieces of this, and at its multiples: for a longer write
/// the kernel takes longer runs of memory, which are the last to be free and to be backed by the host.
const PIECE_BYTES: u64 = 64 << 10;

/// Writes the parts one behind the other, so that the page cache grows in small steps.
pub(crate) fn write_in_pieces(
    file: &fs::File,
    parts: &[&[u8]],
    mut position: u64,
) -> io::Result<()> {
    if super::tail::bytes_of(parts) as u64 <= PIECE_BYTES {
        return write_all_vectored(file, parts, position);
    }
    for part in parts {
        let mut rest = *part;
        while !rest.is_empty() {
            let room = PIECE_BYTES - position % PIECE_BYTES;
            // Fits: it is at most the length of a slice.
            let (piece, behind) = rest.split_at((rest.len() as u64).min(room) as usize);
            write_all_vectored(file, &[piece], position)?;
            position = position_after(position, piece.len())?;
            rest = behind;
        }
    }
    Ok(())
}

pub(crate) fn write_all_vectored(
    file: &fs::File,
    bufs: &[&[u8]],
    mut position: u64,
) -> io::Result<()> {
    for group in bufs.chunks(BUFFERS_PER_WRITE_MAX) {
        let slices = group.iter().map(|buf| IoSlice::new(buf));
        // A batch is few, and gets by without an allocation.
        let mut few = [IoSlice::new(&[]); BUFFERS_FEW];
        let mut many = Vec::new();
        let mut rest = if group.len() > BUFFERS_FEW {
            many.extend(slices);
            many.as_mut_slice()
        } else {
            for (place, slice) in few.iter_mut().zip(slices) {
                *place = slice;
            }
            &mut few[..group.len()]
        };
        // Drops leading empty buffers, so that a count of 0 below always means that nothing went in.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match rustix::io::pwritev(file, rest, position) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    position = position_after(position, count)?;
                    IoSlice::advance_slices(&mut rest, count);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

fn allocate(file: &fs::File, range: Range<u64>) -> io::Result<()> {
    if range.is_empty() {
        return Ok(());
    }
    let before = file.metadata()?.len();
    let outcome = loop {
        let size = range.end - range.start;
        match rustix::fs::fallocate(file, FallocateFlags::empty(), range.start, size) {
            Ok(()) => break Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP) => break write_zeros(file, before..range.end),
            Err(error) => break Err(io::Error::from(error)),
        }
    };
    // ext4 allocates in steps, and a step that fails leaves those before it in place.
    if outcome.is_err() && file.metadata()?.len() > before {
        file.set_len(before)?;
    }
    outcome
}

/// Takes blocks where the file system cannot allocate ahead.
fn write_zeros(file: &fs::File, mut range: Range<u64>) -> io::Result<()> {
    static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
    while range.start < range.end {
        let count = (range.end - range.start).min(ZEROS.len() as u64);
        // `count` fits: it is at most the length of ZEROS.
        write_all_vectored(file, &[&ZEROS[..count as usize]], range.start)?;
        range.start += count;
    }
    Ok(())
}

fn position_after(position: u64, count: usize) -> io::Result<u64> {
    position
        .checked_add(count as u64)
        .ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// The machine's clock; [`Clock::elapsed`] counts from its creation.
#[derive(Debug, Clone, Copy)]
pub struct RealClock {
    started: Instant,
}

impl RealClock {
    /// A clock whose monotonic time starts now.
    pub fn new() -> RealClock {
        RealClock {
            started: Instant::now(),
        }
    }
}

impl Default for RealClock {
    fn default() -> RealClock {
        RealClock::new()
    }
}

impl Clock for RealClock {
    fn now(&self) -> Timestamp {
        let milliseconds = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            Err(before) => {
                i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |count| -count)
            }
        };
        Timestamp(milliseconds)
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

/// The machine's random source.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealEntropy;

impl Entropy for RealEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("invariant: Linux always has a random source");
    }
}
