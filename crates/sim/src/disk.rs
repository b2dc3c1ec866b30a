//! The simulated disk as a log sees it, and the strings that a test pulls.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use sapwood_log::io::{DirEntry, Disk, File, OpenMode, Space, TailKind};

use crate::Rng;
use crate::directory::InodeId;
use crate::faults::{Capture, ReadFault, StepKind, Stop, TailSwitch, WriteFault};
use crate::file::SimFile;
use crate::image::SECTOR_BYTES;
use crate::state::State;
use crate::tally::Injected;

pub(crate) type SharedState = Arc<Mutex<State>>;

/// The machine has stopped, or the caller belongs to a process that was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Off;

impl fmt::Display for Off {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the machine is off")
    }
}

impl Error for Off {}

pub(crate) fn off() -> io::Error {
    io::Error::other(Off)
}

/// Whether an error, or one of its sources, is [`Off`].
pub fn is_off(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        if error.is::<Off>() || inner.is_some_and(|inner| is_off(inner)) {
            return true;
        }
        next = error.source();
    }
    false
}

/// The disk as it was just before an event, for a process that starts after a kill at that moment.
#[derive(Debug, Clone)]
pub struct Captured {
    /// The step's number.
    pub step: u64,
    /// The number among the durability events, if it is one.
    pub sync: Option<u64>,
    /// A disk of its own.
    pub disk: SimDisk,
}

/// A simulated disk. Clones are the same disk.
///
/// All controls take effect at once, also in the middle of what other threads do.
#[derive(Debug, Clone)]
pub struct SimDisk {
    state: SharedState,
    /// The process that this value belongs to; `None` is whichever runs.
    life: Option<u64>,
}

impl SimDisk {
    /// An empty disk of unlimited size, on which mapped tails are safe.
    pub fn new(seed: u64) -> SimDisk {
        SimDisk {
            state: Arc::new(Mutex::new(State::new(seed))),
            life: None,
        }
    }

    /// The disk as the process that runs now sees it: it is dead after the next kill or power cut.
    pub fn process(&self) -> SimDisk {
        let life = self.state.lock().life;
        SimDisk {
            state: Arc::clone(&self.state),
            life: Some(life),
        }
    }

    fn life(&self) -> u64 {
        self.life.unwrap_or_else(|| self.state.lock().life)
    }

    // --- crashes ---

    /// The process dies: files are closed, locks released, injected faults forgotten. What it wrote is
    /// in the page cache, dirty pages stay dirty, the boot id stays. A stopped machine goes on.
    pub fn kill(&self) {
        self.state.lock().kill();
    }

    /// The power fails and comes back: of everything that was not synced a random legal part is there.
    /// There is a new boot id.
    pub fn power_cut(&self, rng: &mut Rng) {
        self.state.lock().power_cut(rng);
    }

    /// A copy of the disk for a process that starts after the one that runs now was killed.
    pub fn fork(&self) -> SimDisk {
        let mut state = self.state.lock().clone();
        state.capture = None;
        state.captured.clear();
        state.kill();
        SimDisk {
            state: Arc::new(Mutex::new(state)),
            life: None,
        }
    }

    /// Identifies the boot, as `/proc/sys/kernel/random/boot_id` does: another one after a power cut,
    /// the same after a kill.
    pub fn boot_id(&self) -> String {
        format!("00000000-0000-4000-8000-{:012}", self.state.lock().boots)
    }

    // --- counting and stopping ---

    /// Durability events so far: `sync_data`, `sync_dir` and `sync_filesystem`.
    pub fn syncs(&self) -> u64 {
        self.state.lock().syncs
    }

    /// Steps so far: every call that changes the disk, and every durability event.
    pub fn steps(&self) -> u64 {
        self.state.lock().steps
    }

    /// Reads so far: of content, through mappings too, openings of files that are there, and listings.
    pub fn reads(&self) -> u64 {
        self.state.lock().reads
    }

    /// Notes the kind of every step from now on.
    pub fn record_kinds(&self) {
        self.state.lock().kinds.get_or_insert_default();
    }

    /// Number and kind of the steps since the last call.
    pub fn take_kinds(&self) -> Vec<(u64, StepKind)> {
        let mut state = self.state.lock();
        state.kinds.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// What was to be read when a [`SimDisk::fail_read`] hit, since the last call.
    pub fn take_failed_places(&self) -> Vec<PathBuf> {
        std::mem::take(&mut self.state.lock().failed_places)
    }

    /// What happened to this disk and to all copies of it, and of those before it.
    pub fn injected(&self) -> Injected {
        self.state.lock().counts.read()
    }

    /// Stops the machine: that event and every call after it fail with [`Off`], until
    /// [`SimDisk::kill`] or [`SimDisk::power_cut`].
    pub fn stop_at(&self, stop: Stop) {
        self.state.lock().faults.stop = Some(stop);
    }

    /// Copies the disk at every such event from now on, until `None`.
    pub fn capture(&self, at: Option<Capture>) {
        self.state.lock().capture = at;
    }

    /// The copies since the last call, in order.
    pub fn take_captured(&self) -> Vec<Captured> {
        let copies = std::mem::take(&mut self.state.lock().captured);
        let captured = copies.into_iter().map(|copied| {
            let mut state = copied.state;
            state.capture = None;
            state.kill();
            let disk = SimDisk {
                state: Arc::new(Mutex::new(state)),
                life: None,
            };
            Captured {
                step: copied.step,
                sync: copied.sync,
                disk,
            }
        });
        captured.collect()
    }

    /// Whether the machine has stopped.
    pub fn is_off(&self) -> bool {
        self.state.lock().is_off
    }

    /// Keeps every step from now on in words.
    pub fn record(&self) {
        self.state.lock().history.get_or_insert_default();
    }

    /// What was recorded since the last call.
    pub fn take_history(&self) -> Vec<String> {
        self.state
            .lock()
            .history
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    // --- faults ---

    /// Durability event number `sync` fails. Of a file, a random part becomes durable and all of it is
    /// clean afterwards; of a directory the same happens to its names. Of a file system it hits some of
    /// the dirty files, whose next sync reports it too, if they are open.
    pub fn fail_sync(&self, sync: u64) {
        self.state.lock().faults.failing_syncs.insert(sync);
    }

    /// Step number `step` fails; a write or store does a random part of its work first. A sync that is
    /// to fail is [`SimDisk::fail_sync`]'s business.
    pub fn fail_step(&self, step: u64, fault: WriteFault) {
        self.state.lock().faults.failing_steps.insert(step, fault);
    }

    /// Read number `read` fails.
    pub fn fail_read(&self, read: u64, fault: ReadFault) {
        self.state.lock().faults.failing_reads.insert(read, fault);
    }

    /// From step number `step` on the disk has room for `pages` pages more than are in use then.
    pub fn fill_at_step(&self, step: u64, pages: u64) {
        self.state.lock().faults.filling = Some((step, pages));
    }

    /// Before about one of `every` steps the kernel writes some of what is dirty on its own, names too;
    /// 0 for never, which is how a disk begins.
    pub fn set_write_back(&self, every: u64) {
        self.state.lock().write_back = every;
    }

    /// The kernel writes out a file's dirty pages on its own and fails.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub fn fail_write_out(&self, path: &Path) -> io::Result<()> {
        self.state.lock().fail_write_out(path)
    }

    /// Sets the size of the disk; `None` is unlimited. Content that is there stays, also beyond it.
    pub fn set_capacity(&self, capacity_bytes: Option<u64>) {
        self.state.lock().faults.capacity_bytes = capacity_bytes;
    }

    /// So many bytes of the disk are not told as free, and can be taken all the same: file systems keep
    /// some for root.
    pub fn set_reserve(&self, reserved_bytes: u64) {
        self.state.lock().faults.reserved_bytes = reserved_bytes;
    }

    /// Reads that touch the pages of this range fail, until a page is written as a whole.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub fn make_unreadable(&self, path: &Path, range: std::ops::Range<u64>) -> io::Result<()> {
        self.state.lock().file_at(path)?.make_unreadable(&range);
        Ok(())
    }

    /// Everything can be read again.
    pub fn make_readable(&self) {
        self.state.lock().make_readable();
    }

    /// Sectors of a file read as zeros from now on, in memory and on the device: nothing becomes dirty.
    /// Beyond the end nothing happens.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub fn zero_sectors(&self, path: &Path, sectors: std::ops::Range<u64>) -> io::Result<()> {
        let count = sectors.end.saturating_sub(sectors.start);
        let zeros = vec![0; (count * SECTOR_BYTES) as usize];
        let mut state = self.state.lock();
        let file = state.file_at(path)?;
        file.replace_at_rest(&zeros, sectors.start * SECTOR_BYTES);
        Ok(())
    }

    /// A sector of one file was written at the place of another one, of this or of another file: what
    /// belongs there is gone. Beyond the end nothing happens.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub fn misdirect(&self, from: (&Path, u64), to: (&Path, u64)) -> io::Result<()> {
        let mut state = self.state.lock();
        let mut bytes = [0; SECTOR_BYTES as usize];
        let source = state.file_at(from.0)?.cache();
        source.read(&mut bytes, from.1 * SECTOR_BYTES);
        let target = state.file_at(to.0)?;
        target.replace_at_rest(&bytes, to.1 * SECTOR_BYTES);
        Ok(())
    }

    /// Flips the bits of one byte in memory and on the device, as bit rot does: nothing becomes dirty.
    /// Beyond the end nothing happens.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub fn corrupt(&self, path: &Path, position: u64, mask: u8) -> io::Result<()> {
        self.state.lock().file_at(path)?.corrupt(position, mask);
        Ok(())
    }

    /// Somebody else cuts a file: stores through a mapping beyond its end are errors from now on.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub fn cut_from_outside(&self, path: &Path, len: u64) -> io::Result<()> {
        self.state.lock().cut_from_outside(path, len)
    }

    /// The kernel drops all clean pages from memory. What a failed sync left readable is gone.
    pub fn drop_caches(&self) {
        self.state.lock().drop_caches();
    }

    /// Where mapped tails that are made from now on write instead of storing.
    pub fn set_tail_switch(&self, switch: TailSwitch) {
        self.state.lock().tail_switch = switch;
    }

    /// What [`Disk::tail_kind`] answers.
    pub fn set_tail_kind(&self, kind: TailKind) {
        self.state.lock().tail_kind = kind;
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, how: OpenMode) -> io::Result<Arc<dyn File>> {
        let life = self.life();
        let mut state = self.state.lock();
        let make = matches!(how, OpenMode::Create | OpenMode::CreateNew);
        let inode = state.find_or_make(life, path, make, how == OpenMode::CreateNew)?;
        let told = state.open(inode);
        drop(state);
        let writable = how != OpenMode::Read;
        Ok(Arc::new(SimFile::new(
            Arc::clone(&self.state),
            life,
            inode,
            writable,
            told,
        )))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let life = self.life();
        self.state.lock().create_dir(life, path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let life = self.life();
        let names = self.state.lock().names(life, path)?;
        Ok(names
            .into_iter()
            .map(|(name, is_dir)| DirEntry { name, is_dir })
            .collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let life = self.life();
        self.state.lock().rename(life, from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let life = self.life();
        self.state.lock().remove(life, path, false)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let life = self.life();
        self.state.lock().remove(life, path, true)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let life = self.life();
        self.state.lock().sync_dir(life, path)
    }

    fn sync_filesystem(&self, path: &Path) -> io::Result<()> {
        let life = self.life();
        self.state.lock().sync_filesystem(life, path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let life = self.life();
        let inode = self.state.lock().lock(life, path)?;
        Ok(Box::new(Lock {
            state: Arc::clone(&self.state),
            life,
            inode,
        }))
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let life = self.life();
        let state = self.state.lock();
        state.check_alive(life)?;
        let (free_bytes, total_bytes) = state.space(path)?;
        Ok(Space {
            free_bytes,
            total_bytes,
        })
    }

    fn tail_kind(&self, _path: &Path) -> TailKind {
        self.state.lock().tail_kind
    }
}

struct Lock {
    state: SharedState,
    life: u64,
    inode: InodeId,
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.state.lock().unlock(self.life, self.inode);
    }
}
