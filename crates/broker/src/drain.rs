//! Draining: nothing new is accepted, what was accepted is finished.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{Notify, watch};

/// Set in the count of work in progress once nothing new is accepted.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// What a broker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It serves.
    Ready,
    /// It finishes what it has accepted and accepts nothing new.
    Draining,
    /// Everything is on the disk and closed.
    Closed,
}

/// Counts the work in progress and refuses new work once it is closed.
#[derive(Debug)]
pub(crate) struct Gate {
    shared: Arc<Shared>,
    status: watch::Sender<Status>,
}

#[derive(Debug, Default)]
struct Shared {
    count: AtomicUsize,
    idle: Notify,
}

/// One piece of accepted work. It is in progress until this is dropped.
#[derive(Debug)]
pub(crate) struct Accepted(Arc<Shared>);

impl Default for Gate {
    fn default() -> Self {
        Self {
            shared: Arc::default(),
            status: watch::Sender::new(Status::Ready),
        }
    }
}

impl Gate {
    /// Accepts a piece of work, unless the gate is closed.
    pub(crate) fn accept(&self) -> Option<Accepted> {
        // The count may go up for a moment after the close; who sees the mark takes it back.
        let before = self.shared.count.fetch_add(1, Ordering::AcqRel);
        let accepted = Accepted(self.shared.clone());
        (before & CLOSED == 0).then_some(accepted)
    }

    /// Accepts nothing from now on. False when it was closed already.
    pub(crate) fn close(&self) -> bool {
        let before = self.shared.count.fetch_or(CLOSED, Ordering::AcqRel);
        self.status.send_if_modified(|status| {
            let is_first = *status == Status::Ready;
            if is_first {
                *status = Status::Draining;
            }
            is_first
        });
        before & CLOSED == 0
    }

    /// Everything is done.
    pub(crate) fn finish(&self) {
        self.status.send_replace(Status::Closed);
    }

    pub(crate) fn status(&self) -> Status {
        *self.status.borrow()
    }

    /// Sees each change of the status.
    pub(crate) fn watch(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// How many pieces of work are in progress.
    pub(crate) fn in_progress(&self) -> usize {
        self.shared.count.load(Ordering::Acquire) & !CLOSED
    }

    /// Returns when no work is in progress. To be called after [`Gate::close`].
    pub(crate) async fn idle(&self) {
        loop {
            let idle = self.shared.idle.notified();
            if self.in_progress() == 0 {
                return;
            }
            idle.await;
        }
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        let before = self.0.count.fetch_sub(1, Ordering::AcqRel);
        if before == CLOSED + 1 {
            self.0.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Waker},
    };

    use super::*;

    #[test]
    fn a_closed_gate_refuses_and_waits_for_what_it_accepted() {
        let gate = Gate::default();
        let accepted = gate.accept().unwrap();
        assert!(gate.close());
        assert!(!gate.close());
        assert_eq!(gate.status(), Status::Draining);
        assert!(gate.accept().is_none());
        assert_eq!(gate.in_progress(), 1);
        let mut idle = pin!(gate.idle());
        let mut context = Context::from_waker(Waker::noop());
        assert!(idle.as_mut().poll(&mut context).is_pending());
        drop(accepted);
        assert!(idle.as_mut().poll(&mut context).is_ready());
    }
}
