//! Everything the log asks of the machine: files, directories, time and randomness.
//!
//! The log decides; these traits act. [`Environment::real`] is the operating system, the simulated
//! disk of `sapwood-sim` is the other implementation. So every rule of recovery runs unchanged
//! against power cuts that no test could ask of a real machine.

mod real;
pub mod tail;

use std::any::Any;
use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use sapwood_model::Timestamp;

pub(crate) use real::write_in_pieces;
pub use real::{RealClock, RealDisk, RealEntropy};

/// Whether an error is about one place on the device, so that only the partition that lies there is
/// offline. Anything else (a full disk, no descriptors, no permission) is about all of them, and may
/// pass: then nothing is opened, and nothing changed that the next start would miss.
pub(crate) fn is_of_the_device(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let codes = [Errno::IO, Errno::NODATA, Errno::BADMSG, Errno::UCLEAN];
    error.kind() == io::ErrorKind::UnexpectedEof
        || error
            .raw_os_error()
            .is_some_and(|code| codes.contains(&Errno::from_raw_os_error(code)))
}

/// Whether the process or the machine has no file descriptor left: nothing was done, and it may pass.
pub(crate) fn lacks_descriptors(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(code, Some(Errno::MFILE | Errno::NFILE))
}

/// What a caller wants to do with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OpenMode {
    /// Read an existing file; writing to it is an error.
    Read,
    /// Read and write an existing file.
    Write,
    /// Read and write a file that is made, empty, if it is not there.
    Create,
    /// Read and write a file that must not be there yet.
    CreateNew,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirEntry {
    /// The last component of the path; bytes that are not UTF-8 are replaced by U+FFFD.
    pub name: String,
    /// True for a directory; false for anything else. Symbolic links are not followed.
    pub is_dir: bool,
}

/// Room on the file system of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that any process may still allocate. What the file system keeps for root is not in it, also
    /// where this process may take that.
    pub free_bytes: u64,
    /// Bytes of the whole file system.
    pub total_bytes: u64,
}

/// How the tail of an active segment is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TailKind {
    /// Stores into a shared mapping. Only where allocated blocks stay allocated, so that a full disk
    /// is an error of `allocate` and never a signal in the middle of a store.
    Mmap,
    /// Positional writes.
    Pwrite,
}

/// A file system.
///
/// All calls block. A new, renamed or removed name is durable only after [`Disk::sync_dir`] of its
/// parent directory or [`Disk::sync_filesystem`].
pub trait Disk: Send + Sync + Debug + 'static {
    /// Opens a file.
    ///
    /// # Errors
    ///
    /// `NotFound` without the file for [`OpenMode::Read`] and [`OpenMode::Write`], `AlreadyExists`
    /// with it for [`OpenMode::CreateNew`], and what the file system reports.
    fn open(&self, path: &Path, how: OpenMode) -> io::Result<Arc<dyn File>>;

    /// Makes one directory; its parent must be there.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if the name is taken, and what the file system reports.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory, sorted, without `.` and `..`.
    ///
    /// # Errors
    ///
    /// `NotFound`, `NotADirectory`, and what the file system reports.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;

    /// Gives a file or a directory another name; a file of that name is replaced atomically.
    ///
    /// # Errors
    ///
    /// `NotFound` without `from`; a directory replaces only an empty directory.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a name of a file. Open files stay readable and writable.
    ///
    /// # Errors
    ///
    /// `NotFound`, `IsADirectory`, and what the file system reports.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    ///
    /// # Errors
    ///
    /// `DirectoryNotEmpty`, `NotFound`, and what the file system reports.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in this directory durable. Not those of its parent, and not file contents.
    ///
    /// # Errors
    ///
    /// After an error the names may or may not be durable; the call must not be repeated as if
    /// nothing had happened.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes everything on the file system of `path` durable: contents, lengths and names (`syncfs`).
    ///
    /// # Errors
    ///
    /// An error names no file. Kernels report a failed write-out here and once more on each file.
    fn sync_filesystem(&self, path: &Path) -> io::Result<()>;

    /// Takes an exclusive advisory lock on a file, which is made if it is not there. Dropping the
    /// result, or the death of the process, releases it.
    ///
    /// # Errors
    ///
    /// `WouldBlock` while somebody else holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;

    /// Room on the file system of `path`.
    ///
    /// # Errors
    ///
    /// `NotFound`, and what the file system reports.
    fn space(&self, path: &Path) -> io::Result<Space>;

    /// The kind of tail that is safe on the file system of `path`: [`TailKind::Mmap`] on ext4, xfs and
    /// tmpfs, where allocated blocks are real, [`TailKind::Pwrite`] elsewhere or when unsure.
    fn tail_kind(&self, path: &Path) -> TailKind;
}

/// An open file. Positions and lengths are in bytes.
///
/// All calls block unless they say otherwise. Closing a file reports nothing: a file with writes that
/// were not synced must stay open until they are, or its failure would be lost.
pub trait File: Send + Sync + Debug {
    /// The length as readers see it.
    ///
    /// # Errors
    ///
    /// What the file system reports.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    ///
    /// As [`File::len`].
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads from `position` until `buf` is full or the file ends; the count is short only at the end.
    ///
    /// # Errors
    ///
    /// What the file system reports, an unreadable sector among them.
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize>;

    /// As [`File::read_at`], but never waits for the device: `None` if some of the range is not in
    /// memory. Then the kernel has started to read ahead, and `buf` holds nothing of use.
    ///
    /// # Errors
    ///
    /// As [`File::read_at`].
    fn read_resident_at(&self, buf: &mut [u8], position: u64) -> io::Result<Option<usize>>;

    /// Writes all the buffers one after the other from `position`, and lengthens the file as needed.
    /// Not durable before [`File::sync_data`].
    ///
    /// # Errors
    ///
    /// `StorageFull` and others; some of the bytes may then have been written.
    fn write_at(&self, bufs: &[&[u8]], position: u64) -> io::Result<()>;

    /// Cuts the file or lengthens it with zeros (a hole).
    ///
    /// # Errors
    ///
    /// What the file system reports.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Allocates real blocks for the range, which read as zeros where nothing was written, and
    /// lengthens the file to the end of the range if it is shorter.
    ///
    /// # Errors
    ///
    /// `StorageFull`: the length is then as it was.
    fn allocate(&self, range: Range<u64>) -> io::Result<()>;

    /// Makes the content, mapped stores included, and the length durable; not the file's name.
    ///
    /// # Errors
    ///
    /// After an error nothing is known about what is durable, and a second call may succeed without
    /// having written what the first one could not. It must never be retried as if nothing happened.
    fn sync_data(&self) -> io::Result<()>;

    /// Starts writing the dirty pages of the range to the device and does not wait for it, nor makes
    /// anything durable.
    ///
    /// # Errors
    ///
    /// What the file system reports.
    fn start_write_out(&self, range: Range<u64>) -> io::Result<()>;

    /// Says whether the kernel has failed to write something of this file since this handle was last
    /// told; [`Disk::sync_filesystem`] may have told somebody else. Syncs nothing, and waits for next to
    /// nothing.
    ///
    /// # Errors
    ///
    /// What the failed write reported. Then nothing is known about what is durable, as after a failed
    /// [`File::sync_data`].
    fn check_write_out(&self) -> io::Result<()>;

    /// Advice: nobody is expected to read the range soon. What of it is in memory and needs not be written may be
    /// dropped there. Does not wait for the device.
    fn give_up(&self, _range: Range<u64>) {}

    /// When the content last changed, by the file system's clock; `None` where it does not say. A store
    /// through a mapping may be noted late.
    ///
    /// # Errors
    ///
    /// What the file system reports.
    fn modified(&self) -> io::Result<Option<Timestamp>> {
        Ok(None)
    }

    /// The writer of an active segment and what its readers share.
    ///
    /// `capacity` is the largest position that will ever be written; it may lie beyond the end of the
    /// file, the caller keeps below what it has allocated. Bytes below `written` are there and
    /// readable from the start. Call it for one writer at a time.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if `written` is above `capacity`; `OutOfMemory` without address space or when
    /// the process has no mappings left.
    fn tail(
        &self,
        kind: TailKind,
        capacity: u64,
        written: u64,
    ) -> io::Result<(Box<dyn TailWriter>, Arc<dyn TailReader>)>;
}

/// The one writer of an active segment.
///
/// Everything at or above the published end belongs to the writer, everything below it to the readers
/// and never changes again.
pub trait TailWriter: Send + Debug {
    /// Puts the parts, one behind the other, at `position`, which is at or above the published end. No
    /// reader sees them yet.
    ///
    /// # Errors
    ///
    /// `InvalidInput` below the published end or above the capacity. Other errors mean that the file
    /// cannot be trusted any more (a write failed, or the file was cut under its mapping).
    fn write(&mut self, position: u64, parts: &[&[u8]]) -> io::Result<()>;

    /// Stores the four bytes of the length word after everything written before it (release), then
    /// lets readers see everything below `end`.
    ///
    /// # Errors
    ///
    /// As [`TailWriter::write`]; also `InvalidInput` if `end` does not lie behind the word or lies
    /// above the capacity. Nothing is published then.
    fn publish(&mut self, word_position: u64, word: [u8; 4], end: u64) -> io::Result<()>;
}

/// What readers of an active segment share.
pub trait TailReader: Send + Sync + Debug {
    /// The published end (acquire): everything below it may be read.
    fn end(&self) -> u64;

    /// The bytes of a range below [`TailReader::end`]. A mapped tail copies nothing, and the result
    /// keeps the mapping alive.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the range is reversed or goes past the published end; `UnexpectedEof` when
    /// the file was cut from outside; what a read of the file reports.
    fn bytes(&self, range: Range<u64>) -> io::Result<Bytes>;

    /// Lives as long as anybody holds the mapping, which bytes that were handed out do: until then the
    /// file must not be cut. Dead from the start for a tail whose bytes are copies.
    fn mapping(&self) -> Weak<dyn Any + Send + Sync> {
        Weak::<()>::new()
    }

    /// Whether the whole of a range below the published end was in memory a moment ago, so that its
    /// bytes can be had without copying them and without the disk. No for a tail that is not mapped, and
    /// where the system does not say.
    fn is_resident(&self, range: Range<u64>) -> bool {
        let _ = range;
        false
    }
}

/// Time.
pub trait Clock: Send + Sync + Debug + 'static {
    /// Wall-clock time; may jump.
    fn now(&self) -> Timestamp;

    /// Time since some fixed moment in the life of the process; never goes back.
    fn elapsed(&self) -> Duration;
}

/// Randomness that a client cannot predict.
pub trait Entropy: Send + Sync + Debug + 'static {
    /// Fills the buffer.
    ///
    /// # Panics
    ///
    /// If the operating system has no random source at all.
    fn fill(&self, bytes: &mut [u8]);

    /// A random number.
    fn u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_be_bytes(bytes)
    }

    /// A random number wide enough for an id that never repeats.
    fn u128(&self) -> u128 {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        u128::from_be_bytes(bytes)
    }
}

/// The machine that a log runs on. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Files and directories.
    pub disk: Arc<dyn Disk>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
}

impl Environment {
    /// The operating system.
    pub fn real() -> Environment {
        Environment {
            disk: Arc::new(RealDisk),
            clock: Arc::new(RealClock::new()),
            entropy: Arc::new(RealEntropy),
        }
    }
}
