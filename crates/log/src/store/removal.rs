//! Giving back the space of large segments that were removed: in steps, on a thread of its own, because a
//! file system takes hundreds of milliseconds for a gigabyte, and holds up the syncs of others meanwhile.

use std::{collections::VecDeque, io, thread, time::Duration};

use parking_lot::{Condvar, Mutex};

use super::inner::Inner;
use crate::{durability::Retired, io::OpenMode};

/// So many files wait at most. What comes on top is removed by the one who brings it.
const WAITING_MAX: usize = 1024;
/// Between two steps, for whoever waits for the file system. A full disk has no time for it.
const PAUSE: Duration = Duration::from_millis(5);

/// The files that wait.
#[derive(Debug, Default)]
pub(super) struct Removals {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Retired>,
    stopped: bool,
}

impl Removals {
    /// Hands the file back when there is no room for it.
    pub(super) fn push(&self, retired: Retired) -> Result<(), Retired> {
        let mut state = self.state.lock();
        if state.waiting.len() >= WAITING_MAX {
            return Err(retired);
        }
        state.waiting.push_back(retired);
        self.wake.notify_one();
        Ok(())
    }

    /// The next one, without waiting.
    pub(super) fn take(&self) -> Option<Retired> {
        self.state.lock().waiting.pop_front()
    }

    /// Waits for one. `None`: stopped. Blocks.
    fn wait(&self) -> Option<Retired> {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return None;
            }
            match state.waiting.pop_front() {
                Some(retired) => return Some(retired),
                None => self.wake.wait(&mut state),
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.state.lock().stopped
    }

    pub(super) fn stop(&self) {
        self.state.lock().stopped = true;
        self.wake.notify_all();
    }
}

impl Inner {
    pub(super) fn removal_loop(&self) {
        while let Some(retired) = self.removals.wait() {
            self.remove_retired(&retired, || {
                if !self.ballast.is_released() {
                    thread::sleep(PAUSE);
                }
            });
        }
    }

    /// Cuts the file piece by piece, then unlinks it. Blocks.
    pub(super) fn remove_retired(&self, retired: &Retired, pause: impl Fn()) {
        // What stands in the way of the cutting does not stand in the way of the unlinking, which is
        // only slower. The failed sync of a folder has made the directory read-only.
        let _ = self.cut_retired(retired, pause);
        retired.partition.remove_path(&retired.path);
    }

    fn cut_retired(&self, retired: &Retired, pause: impl Fn()) -> io::Result<()> {
        // First: a power cut must not bring the segment's name back for a part of it.
        self.sync_removal(&retired.partition)
            .map_err(io::Error::other)?;
        let file = self.disk().open(&retired.path, OpenMode::Write)?;
        let step = self.options.removal_step_bytes.max(1);
        let mut length = file.len()?;
        // Nobody gets hold of the mapping any more, so that it stays free once it is.
        while length > step && retired.readers.strong_count() == 0 && !self.removals.is_stopped() {
            length -= step;
            file.set_len(length)?;
            pause();
        }
        Ok(())
    }

    /// What is left when the store is closed.
    pub(super) fn remove_all_retired(&self) {
        while let Some(retired) = self.removals.take() {
            retired.partition.remove_path(&retired.path);
        }
    }
}
