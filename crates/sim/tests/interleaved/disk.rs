//! A disk at which somebody else gets a turn: just before one of its events, a second thread acts.

use std::{
    fmt, io,
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::Mutex;
use sapwood_log::io::{DirEntry, Disk, File, OpenMode, Space, TailKind, TailReader, TailWriter};

/// The second thread is given this long to finish before the first goes on: it may be waiting for a lock
/// that the first one holds. What it does when is then up to the two of them, as in real life.
pub(crate) const MAY_WAIT: Duration = Duration::from_millis(30);

/// For one that takes no lock: it comes to its end, however busy the machine is.
pub(crate) const NEVER_WAITS: Duration = Duration::from_secs(20);

/// Too many open files.
const EMFILE: i32 = 24;

type Act = Box<dyn FnOnce() + Send>;

/// When the second thread gets its turn.
#[derive(Default)]
pub(crate) struct Turn {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Events still to pass, and what then happens.
    armed: Option<(u64, Act, Duration)>,
    events: u64,
    acting: Option<JoinHandle<()>>,
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Turn")
    }
}

impl Turn {
    /// Lets another thread do `act` just before the event number `at` from now on, and gives it `patience`.
    pub(crate) fn arm(&self, at: u64, patience: Duration, act: Act) {
        let mut state = self.state.lock();
        state.armed = Some((at, act, patience));
        state.events = 0;
    }

    /// Waits for the other thread. Says whether it had its turn, and how many events there were.
    pub(crate) fn end(&self) -> (bool, u64) {
        let mut state = self.state.lock();
        let came = state.armed.take().is_none();
        let (acting, events) = (state.acting.take(), state.events);
        drop(state);
        if let Some(acting) = acting
            && let Err(panic) = acting.join()
        {
            std::panic::resume_unwind(panic);
        }
        (came, events)
    }

    fn event(&self) {
        let mut state = self.state.lock();
        let number = state.events;
        state.events += 1;
        if state.armed.as_ref().is_none_or(|(at, ..)| *at != number) {
            return;
        }
        let Some((_, act, patience)) = state.armed.take() else {
            return;
        };
        let (done, finished) = mpsc::channel();
        state.acting = Some(thread::spawn(move || {
            act();
            // Nobody listens any more when it took long.
            let _ = done.send(());
        }));
        drop(state);
        match finished.recv_timeout(patience) {
            // A panic of the other thread comes out when it is joined.
            Ok(()) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
    }
}

/// A disk with turns.
#[derive(Debug)]
pub(crate) struct SharedDisk {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) turn: Arc<Turn>,
    pub(crate) shortage: Arc<Shortage>,
}

/// While it lasts, no file descriptor is left to open a folder with that is to be synced.
#[derive(Debug, Default)]
pub(crate) struct Shortage {
    pub(crate) lasts: AtomicBool,
    /// How many syncs failed for it.
    pub(crate) met: AtomicU64,
}

impl Shortage {
    fn meet(&self) -> io::Result<()> {
        if !self.lasts.load(Relaxed) {
            return Ok(());
        }
        self.met.fetch_add(1, Relaxed);
        Err(io::Error::from_raw_os_error(EMFILE))
    }
}

impl Disk for SharedDisk {
    fn open(&self, path: &Path, how: OpenMode) -> io::Result<Arc<dyn File>> {
        let file = self.disk.open(path, how)?;
        let turn = Arc::clone(&self.turn);
        Ok(Arc::new(SharedFile { file, turn }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.turn.event();
        self.disk.create_dir(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.read_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.turn.event();
        self.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.turn.event();
        self.disk.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.turn.event();
        self.shortage.meet()?;
        self.disk.sync_dir(path)
    }

    fn sync_filesystem(&self, path: &Path) -> io::Result<()> {
        self.turn.event();
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
struct SharedFile {
    file: Arc<dyn File>,
    turn: Arc<Turn>,
}

impl File for SharedFile {
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
        self.turn.event();
        self.file.set_len(len)
    }

    fn allocate(&self, range: Range<u64>) -> io::Result<()> {
        self.turn.event();
        self.file.allocate(range)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.turn.event();
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
