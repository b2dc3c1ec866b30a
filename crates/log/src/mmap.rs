//! The mapped tail of an active segment, the SIGBUS handler, and `sync_file_range`: all `unsafe` code
//! of this crate.
//!
//! One shared mapping covers the whole capacity of a segment, also what lies beyond the end of the
//! file: the writer stays below what was allocated. Readers get slices of the mapping itself, which
//! keep it alive, so a segment may be sealed, rolled or removed while its bytes are on their way out.
//!
//! # A file that is cut from outside
//!
//! A store or load beyond the end of the file is a SIGBUS. With [`install_sigbus_handler`] such a fault
//! maps a page of zeros over the hole and marks the mapping as poisoned: every later use of it through
//! this module is an error, and bytes that were handed out before read as zeros there.
#![allow(unsafe_code)] // mapped memory and signal handlers have no safe form; this file is their cage

use std::any::Any;
use std::fs;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::ptr;
use std::slice;
use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, compiler_fence, fence,
};
use std::sync::{Arc, Weak};
use std::sync::{Once, OnceLock};

use bytes::Bytes;
use memmap2::{MmapOptions, MmapRaw};
use parking_lot::Mutex;
use rustix::mm::{MapFlags, ProtFlags};

use crate::io::tail::{bytes_of, check_publish, check_read, check_write};
use crate::io::{TailReader, TailWriter, write_in_pieces};

/// Longer batches go in by positional writes, which make the pages of the page cache that they need at
/// once, and in pieces (see [`write_in_pieces`]); shorter ones, which seldom need a new page, are stored.
/// Whatever asks for large pages ahead is left alone: `MADV_HUGEPAGE` and `MADV_POPULATE_WRITE` stop an
/// append for the time in which the kernel, or the host of a virtual machine, finds and clears 2 MiB: up
/// to 30 ms where a page of 4 KiB takes 12 us. Appends of 64 KiB into fresh files, CPU seconds a gigabyte
/// (medians, ext4 on a host that takes back freed memory): 2.0 with huge pages, 0.7 populated, 0.3
/// written.
const WRITTEN_BYTES_MIN: usize = 1024;

/// Maps `capacity` bytes of the file and makes its writer and reader.
pub(crate) fn tail(
    file: Arc<fs::File>,
    capacity: u64,
    written: u64,
) -> io::Result<(Box<dyn TailWriter>, Arc<dyn TailReader>)> {
    let mapping = Mapping::new(&file, capacity)?;
    let shared = Arc::new(Shared {
        mapping,
        end: AtomicU64::new(written),
    });
    let reader = MappedReader {
        shared: Arc::clone(&shared),
    };
    Ok((
        Box::new(MappedWriter {
            file,
            shared,
            capacity,
            published: written,
        }),
        Arc::new(reader),
    ))
}

/// One shared mapping of the beginning of a file, registered for the SIGBUS handler while it lives.
#[derive(Debug)]
struct Mapping {
    map: MmapRaw,
    slot: Slot,
}

impl Mapping {
    fn new(file: &fs::File, capacity: u64) -> io::Result<Mapping> {
        // An empty mapping is not possible; one page keeps the rest free of special cases.
        let size = usize::try_from(capacity.max(1)).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let slot = Slot::take()?;
        let map = MmapOptions::new().len(size).map_raw(file)?;
        slot.fill(map.as_ptr() as usize, size);
        Ok(Mapping { map, slot })
    }

    fn start(&self) -> *mut u8 {
        self.map.as_mut_ptr()
    }

    /// Whether the page cache holds a range of the mapping: a system call for each 4 MiB.
    fn is_resident(&self, range: Range<u64>) -> bool {
        const PAGES_A_CALL: usize = 1024;
        let page = page_size();
        let mut residency = [0_u8; PAGES_A_CALL];
        let mut position = range.start as usize / page * page;
        while (position as u64) < range.end {
            let length = (range.end as usize - position).min(PAGES_A_CALL * page);
            let pages = &mut residency[..length.div_ceil(page)];
            // SAFETY: the address is that of a page of the mapping, which lives as long as `self`; the
            // vector has a byte for each page of the range. Nothing of the mapping is touched.
            let outcome = unsafe {
                let address = self.start().add(position).cast::<libc::c_void>();
                libc::mincore(address, length, pages.as_mut_ptr())
            };
            if outcome != 0 || pages.iter().any(|page| page & 1 == 0) {
                return false;
            }
            position += length;
        }
        true
    }

    fn check_poison(&self) -> io::Result<()> {
        // The handler runs on the thread that faulted: an access before this line cannot be moved
        // behind the load.
        compiler_fence(Ordering::SeqCst);
        if self.slot.is_poisoned() {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file was cut or became unreadable under its mapping",
            ));
        }
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // Before the field is dropped, which unmaps it: the handler must not take what is mapped there
        // next for this mapping.
        self.slot.clear();
    }
}

#[derive(Debug)]
struct Shared {
    mapping: Mapping,
    /// Bytes below it are never stored to again; bytes from it on are never loaded by readers.
    end: AtomicU64,
}

#[derive(Debug)]
struct MappedWriter {
    file: Arc<fs::File>,
    shared: Arc<Shared>,
    capacity: u64,
    published: u64,
}

impl MappedWriter {
    /// Stores bytes that were checked to lie between the published end and the capacity.
    fn store(&mut self, position: usize, bytes: &[u8]) {
        assert!(
            position as u64 >= self.published && (position + bytes.len()) as u64 <= self.capacity,
            "stores lie between the published end and the capacity"
        );
        // SAFETY: by the assertion the range is inside the mapping, whose size is the capacity, and no
        // reader has a slice of it. `&mut self` and one writer per mapping exclude other stores. The
        // source is a Rust slice: it cannot overlap bytes that no slice was ever given for.
        unsafe {
            let target = self.shared.mapping.start().add(position);
            ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len());
        }
    }
}

impl TailWriter for MappedWriter {
    fn write(&mut self, position: u64, parts: &[&[u8]]) -> io::Result<()> {
        let bytes = bytes_of(parts);
        check_write(position, bytes, self.published, self.capacity)?;
        let mapping = &self.shared.mapping;
        mapping.check_poison()?;
        if bytes >= WRITTEN_BYTES_MIN {
            // A file that was cut would grow again, with a hole where batches were.
            if self.file.metadata()?.len() < position + bytes as u64 {
                mapping.slot.poison();
                return mapping.check_poison();
            }
            return write_in_pieces(&self.file, parts, position);
        }
        let mut position = position as usize;
        for part in parts {
            self.store(position, part);
            position += part.len();
        }
        // A hole in the file swallowed the bytes: say so before anybody relies on them.
        self.shared.mapping.check_poison()
    }

    fn publish(&mut self, word_position: u64, word: [u8; 4], end: u64) -> io::Result<()> {
        check_publish(word_position, end, self.published, self.capacity)?;
        let mapping = &self.shared.mapping;
        mapping.check_poison()?;
        // The word must not reach the page cache before the batch: after a kill it is the proof that
        // the batch is whole.
        fence(Ordering::Release);
        // SAFETY: inside the mapping and unread by anybody, as in `write`. The word may lie at any
        // address, hence unaligned; volatile, so that the compiler neither splits nor delays the store.
        unsafe {
            let target = mapping
                .start()
                .add(word_position as usize)
                .cast::<[u8; 4]>();
            ptr::write_volatile(target, word);
        }
        mapping.check_poison()?;
        self.published = end;
        self.shared.end.store(end, Ordering::Release);
        Ok(())
    }
}

#[derive(Debug)]
struct MappedReader {
    shared: Arc<Shared>,
}

impl TailReader for MappedReader {
    fn end(&self) -> u64 {
        self.shared.end.load(Ordering::Acquire)
    }

    fn bytes(&self, range: Range<u64>) -> io::Result<Bytes> {
        check_read(&range, self.end())?;
        self.shared.mapping.check_poison()?;
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        Ok(Bytes::from_owner(MappedSlice {
            shared: Arc::clone(&self.shared),
            range,
        }))
    }

    fn mapping(&self) -> Weak<dyn Any + Send + Sync> {
        let shared: Arc<dyn Any + Send + Sync> = self.shared.clone();
        Arc::downgrade(&shared)
    }

    fn is_resident(&self, range: Range<u64>) -> bool {
        check_read(&range, self.end()).is_ok() && self.shared.mapping.is_resident(range)
    }
}

/// A range below the published end.
struct MappedSlice {
    shared: Arc<Shared>,
    range: Range<u64>,
}

impl AsRef<[u8]> for MappedSlice {
    fn as_ref(&self) -> &[u8] {
        let size = (self.range.end - self.range.start) as usize;
        // SAFETY: `MappedReader::bytes` made this value only for a range below the published end: inside
        // the mapping, initialised, and never stored to again by this process. Other processes are kept
        // out by the lock of the data directory; one that ignores it can change what is read, as it can
        // for every mapped file, and batches carry a CRC for that. `shared` keeps the mapping.
        unsafe {
            slice::from_raw_parts(
                self.shared.mapping.start().add(self.range.start as usize),
                size,
            )
        }
    }
}

/// Asks the kernel to start writing the dirty pages of a range.
pub(crate) fn start_write_out(file: &fs::File, range: Range<u64>) -> io::Result<()> {
    if range.is_empty() {
        return Ok(()); // a count of 0 would mean "to the end of the file"
    }
    let out_of_range = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let start = libc::off64_t::try_from(range.start).map_err(out_of_range)?;
    let count = libc::off64_t::try_from(range.end - range.start).map_err(out_of_range)?;
    sync_file_range(file, start, count, libc::SYNC_FILE_RANGE_WRITE)
}

/// Waits for the first page only, but the kernel's answer is about the whole file: whether a write of any
/// of its pages failed since this descriptor was opened or last told (`errseq_t`).
pub(crate) fn check_write_out(file: &fs::File) -> io::Result<()> {
    sync_file_range(file, 0, 1, libc::SYNC_FILE_RANGE_WAIT_BEFORE)
}

fn sync_file_range(
    file: &fs::File,
    start: libc::off64_t,
    count: libc::off64_t,
    flags: libc::c_uint,
) -> io::Result<()> {
    // SAFETY: plain numbers and a descriptor that is open for the whole call.
    let outcome = unsafe { libc::sync_file_range(file.as_raw_fd(), start, count, flags) };
    match outcome {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn page_size() -> usize {
    rustix::param::page_size()
}

// --- the registry that the signal handler reads ---

/// Mappings at once. The kernel's own limit (`vm.max_map_count`) is 65,530 by default.
const SLOTS_MAX: usize = CHUNKS_MAX * CHUNK_SLOTS;
const CHUNK_SLOTS: usize = 1024;
const CHUNKS_MAX: usize = 256;

/// Where one mapping lies. Written by the owner of the slot, read by the signal handler.
///
/// States: free (`start` is 0) -> `end` stored, then `start` (filled) -> `start` 0 again. A mapping is
/// registered after it was mapped and before it is unmapped, so filled slots never overlap.
struct SlotState {
    start: AtomicUsize,
    end: AtomicUsize,
    poisoned: AtomicBool,
}

/// Slots are allocated in chunks that are never freed or moved: the handler may read them at any time.
static CHUNKS: [AtomicPtr<[SlotState; CHUNK_SLOTS]>; CHUNKS_MAX] =
    [const { AtomicPtr::new(ptr::null_mut()) }; CHUNKS_MAX];

/// Slots that nobody has, and how many were ever made. The handler never looks at it.
static FREE: Mutex<FreeSlots> = Mutex::new(FreeSlots {
    returned: Vec::new(),
    made: 0,
});

struct FreeSlots {
    returned: Vec<&'static SlotState>,
    made: usize,
}

/// A slot of the registry that belongs to one mapping.
struct Slot {
    state: &'static SlotState,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot")
            .field("poisoned", &self.is_poisoned())
            .finish()
    }
}

impl Slot {
    fn take() -> io::Result<Slot> {
        let mut free = FREE.lock();
        if let Some(state) = free.returned.pop() {
            return Ok(Slot { state });
        }
        if free.made == SLOTS_MAX {
            return Err(io::Error::new(
                io::ErrorKind::OutOfMemory,
                format!("{SLOTS_MAX} segments are mapped, which is the limit"),
            ));
        }
        let (chunk, index) = (free.made / CHUNK_SLOTS, free.made % CHUNK_SLOTS);
        if index == 0 {
            let fresh: Box<[SlotState; CHUNK_SLOTS]> = Box::new(
                [const {
                    SlotState {
                        start: AtomicUsize::new(0),
                        end: AtomicUsize::new(0),
                        poisoned: AtomicBool::new(false),
                    }
                }; CHUNK_SLOTS],
            );
            CHUNKS[chunk].store(Box::into_raw(fresh), Ordering::Release);
        }
        free.made += 1;
        // SAFETY: chunk 0..=chunk were stored above or by an earlier call under the same lock, from a
        // box that is never freed.
        let states: &'static [SlotState; CHUNK_SLOTS] =
            unsafe { &*CHUNKS[chunk].load(Ordering::Acquire) };
        Ok(Slot {
            state: &states[index],
        })
    }

    fn fill(&self, start: usize, size: usize) {
        self.state.poisoned.store(false, Ordering::Relaxed);
        self.state.end.store(start + size, Ordering::Release);
        self.state.start.store(start, Ordering::Release);
    }

    fn clear(&self) {
        self.state.start.store(0, Ordering::SeqCst);
    }

    fn poison(&self) {
        self.state.poisoned.store(true, Ordering::Release);
    }

    fn is_poisoned(&self) -> bool {
        self.state.poisoned.load(Ordering::Acquire)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.clear();
        FREE.lock().returned.push(self.state);
    }
}

/// The slot of the mapping that covers an address. Takes no lock and allocates nothing.
fn find_slot(address: usize) -> Option<&'static SlotState> {
    for chunk in &CHUNKS {
        let chunk = chunk.load(Ordering::Acquire);
        if chunk.is_null() {
            return None; // chunks are made in order
        }
        // SAFETY: a chunk that was stored is never freed.
        let states = unsafe { &*chunk };
        for state in states {
            let start = state.start.load(Ordering::Acquire);
            let end = state.end.load(Ordering::Acquire);
            // A slot that changes hands in between shows another start, or 0 on the way. Should it show
            // the same start again, then both mappings began there, and the one that covers the
            // address is alive (its user is in this handler), so it is this one.
            let unchanged = state.start.load(Ordering::Acquire) == start;
            if start != 0 && unchanged && (start..end).contains(&address) {
                return Some(state);
            }
        }
    }
    None
}

// --- the signal handler ---

/// What SIGBUS did before [`install_sigbus_handler`].
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// Makes a segment file that is cut from outside, or that has an unreadable sector, an error of its
/// partition instead of the death of the process.
///
/// Nothing in this crate calls it: signal handlers belong to the program. A SIGBUS that is not a fault
/// in a mapped segment goes to the handler that was there before. Calls after the first do nothing.
pub fn install_sigbus_handler() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: `sigaction` is a C struct of integers and pointers for which zero is a valid value.
        let mut previous: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers are valid or null as the call allows; it only reads the disposition.
        let read = unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut previous) };
        assert_eq!(read, 0, "invariant: SIGBUS is a signal");
        // Known before the handler can run.
        let _ = PREVIOUS.set(previous);

        // SAFETY: as above.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_sigbus as *const () as usize;
        // On the alternate stack, which Rust gives every thread: the fault may be a stack overflow that
        // the previous handler knows how to report.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
        // SAFETY: `on_sigbus` has the signature that SA_SIGINFO asks for, lives as long as the program,
        // and does only what a signal handler may do.
        let installed =
            unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) };
        assert_eq!(installed, 0, "invariant: SIGBUS can be handled");
    });
}

extern "C" fn on_sigbus(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: with SA_SIGINFO the kernel passes a valid structure.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    // Only faults carry an address; a signal that somebody sent (code <= 0) carries none.
    if code > 0 && cover_hole(address) {
        return; // the access is made again and finds zeros
    }
    // SAFETY: called from the handler with the kernel's own arguments.
    unsafe { chain(signal, code, info, context) }
}

/// Maps a page of zeros over the page that faulted, if it belongs to a registered mapping.
fn cover_hole(address: usize) -> bool {
    let Some(state) = find_slot(address) else {
        return false;
    };
    state.poisoned.store(true, Ordering::SeqCst);
    let page = page_size();
    let start = (address & !(page - 1)) as *mut libc::c_void;
    let flags = MapFlags::PRIVATE | MapFlags::FIXED;
    // SAFETY: the page belongs to a mapping of this module that is alive (its user is the thread that
    // faulted), so nothing else is replaced. The page had no content: it could not be brought in. Its
    // owner unmaps it together with the rest. The call is a bare system call: it takes no lock,
    // allocates nothing and leaves errno alone.
    let outcome = unsafe {
        rustix::mm::mmap_anonymous(start, page, ProtFlags::READ | ProtFlags::WRITE, flags)
    };
    outcome.is_ok()
}

/// Does what would have happened without this module.
///
/// # Safety
///
/// Only from the signal handler, with its arguments.
unsafe fn chain(
    signal: libc::c_int,
    code: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    let Some(previous) = PREVIOUS.get() else {
        return;
    };
    match previous.sa_sigaction {
        // A fault cannot be ignored: the kernel kills, and so does this.
        libc::SIG_IGN if code <= 0 => {}
        libc::SIG_IGN | libc::SIG_DFL => {
            // SAFETY: restores the default action and sends the signal again; it is blocked while this
            // handler runs and kills when it returns. Both calls are allowed in a handler.
            unsafe {
                let mut default: libc::sigaction = std::mem::zeroed();
                default.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(signal, &raw const default, ptr::null_mut());
                libc::raise(signal);
            }
        }
        handler if previous.sa_flags & libc::SA_SIGINFO != 0 => {
            type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
            // SAFETY: SA_SIGINFO says that the address is a function of this type.
            let handler = unsafe { std::mem::transmute::<usize, Handler>(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: without SA_SIGINFO the address is a function of this type.
            let handler =
                unsafe { std::mem::transmute::<usize, extern "C" fn(libc::c_int)>(handler) };
            handler(signal);
        }
    }
}
