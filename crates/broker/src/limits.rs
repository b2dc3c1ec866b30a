//! Back-pressure: a budget of request bytes for the whole broker and a cap for each connection.
//!
//! A front door takes a permit for a request's length before it reads the request's body, and keeps
//! it until the body's bytes are no longer held. Who finds no room waits, and while it waits its
//! socket is not read: the sender's window closes. Waiters are served in the order of arrival, so a
//! large request is not starved by small ones.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use sapwood_model::Code;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Room for the bytes of all requests that the broker holds. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bytes_max: u32,
    free: Arc<Semaphore>,
    connection_bytes_max: u32,
    /// How often somebody had to wait.
    waits: AtomicU64,
    /// How many wait now.
    waiting: AtomicU64,
}

/// Bytes of the budget that are taken. They go back when this is dropped.
#[derive(Debug)]
#[must_use = "the bytes go back to the budget when the permit is dropped"]
pub struct Permit {
    bytes: u32,
    _whole: OwnedSemaphorePermit,
    _connection: Option<OwnedSemaphorePermit>,
}

/// The share of one connection: at most so many bytes of it are held at once.
#[derive(Debug)]
pub struct ConnectionBudget {
    whole: Budget,
    bytes_max: u32,
    free: Arc<Semaphore>,
}

/// Why there is no room.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BudgetError {
    /// The request is larger than everything there is to give: waiting would not help.
    #[error("the request is {bytes} bytes; the broker's budget for requests is {bytes_max} bytes")]
    TooLarge {
        /// The request's length.
        bytes: u64,
        /// The whole budget.
        bytes_max: u64,
    },
    /// There is no room now; only [`Budget::try_acquire`] says so.
    #[error("no room for {bytes} bytes in the broker's budget of {bytes_max} bytes")]
    Full {
        /// The request's length.
        bytes: u64,
        /// The whole budget.
        bytes_max: u64,
    },
}

impl BudgetError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::TooLarge { .. } => Code::RecordTooLarge,
            Self::Full { .. } => Code::Overloaded,
        }
    }
}

impl Budget {
    /// A budget of `bytes_max` bytes, of which one connection gets at most `connection_bytes_max`.
    /// Both are capped at 4 GiB, and the connection's share at the whole.
    pub fn new(bytes_max: u64, connection_bytes_max: u64) -> Self {
        let bytes_max = u32::try_from(bytes_max).unwrap_or(u32::MAX);
        let connection_bytes_max = u32::try_from(connection_bytes_max)
            .unwrap_or(u32::MAX)
            .min(bytes_max);
        Self {
            shared: Arc::new(Shared {
                bytes_max,
                free: Arc::new(Semaphore::new(bytes_max as usize)),
                connection_bytes_max,
                waits: AtomicU64::new(0),
                waiting: AtomicU64::new(0),
            }),
        }
    }

    /// A connection's share of this budget.
    pub fn connection(&self) -> ConnectionBudget {
        let bytes_max = self.shared.connection_bytes_max;
        ConnectionBudget {
            whole: self.clone(),
            bytes_max,
            free: Arc::new(Semaphore::new(bytes_max as usize)),
        }
    }

    /// Waits for room for a request of `bytes` bytes. Dropping the future gives up the place in the
    /// queue.
    ///
    /// # Errors
    /// [`BudgetError::TooLarge`] when the request can never fit.
    pub async fn acquire(&self, bytes: u64) -> Result<Permit, BudgetError> {
        let count = self.fits(bytes)?;
        if let Ok(whole) = self.shared.free.clone().try_acquire_many_owned(count) {
            return Ok(Permit {
                bytes: count,
                _whole: whole,
                _connection: None,
            });
        }
        self.shared.waits.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting::begin(&self.shared);
        let whole = self.shared.free.clone().acquire_many_owned(count).await;
        let whole = whole.expect("the budget's semaphore is never closed");
        Ok(Permit {
            bytes: count,
            _whole: whole,
            _connection: None,
        })
    }

    /// Takes room for `bytes` bytes if it is there now.
    ///
    /// # Errors
    /// [`BudgetError::Full`] when it is not, [`BudgetError::TooLarge`] when it never will be.
    pub fn try_acquire(&self, bytes: u64) -> Result<Permit, BudgetError> {
        let count = self.fits(bytes)?;
        match self.shared.free.clone().try_acquire_many_owned(count) {
            Ok(whole) => Ok(Permit {
                bytes: count,
                _whole: whole,
                _connection: None,
            }),
            Err(_) => Err(BudgetError::Full {
                bytes,
                bytes_max: self.bytes_max(),
            }),
        }
    }

    fn fits(&self, bytes: u64) -> Result<u32, BudgetError> {
        u32::try_from(bytes)
            .ok()
            .filter(|count| *count <= self.shared.bytes_max)
            .ok_or(BudgetError::TooLarge {
                bytes,
                bytes_max: self.bytes_max(),
            })
    }

    /// The whole budget in bytes.
    pub fn bytes_max(&self) -> u64 {
        u64::from(self.shared.bytes_max)
    }

    /// Bytes that are taken now, or kept free for the request that has waited longest.
    pub fn bytes_used(&self) -> u64 {
        self.bytes_max()
            .saturating_sub(self.shared.free.available_permits() as u64)
    }

    /// How often a request had to wait for room since the start.
    pub fn waits(&self) -> u64 {
        self.shared.waits.load(Ordering::Relaxed)
    }

    /// Whether a request waits for room now. Who holds room without using it (a request whose bytes
    /// do not come) should give it back then.
    pub fn is_contended(&self) -> bool {
        self.shared.waiting.load(Ordering::Relaxed) > 0
    }
}

/// One who waits for room, until this is dropped.
struct Waiting<'a>(&'a AtomicU64);

impl<'a> Waiting<'a> {
    fn begin(shared: &'a Shared) -> Self {
        shared.waiting.fetch_add(1, Ordering::Relaxed);
        Self(&shared.waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ConnectionBudget {
    /// Waits for room for a request of `bytes` bytes, first in the connection's share, then in the
    /// broker's budget. A request above the connection's share is let in alone: it takes the whole
    /// share.
    ///
    /// # Errors
    /// [`BudgetError::TooLarge`] when the request is above the broker's whole budget.
    pub async fn acquire(&self, bytes: u64) -> Result<Permit, BudgetError> {
        let count = self.whole.fits(bytes)?;
        let share = count.min(self.bytes_max);
        let connection = self.free.clone().acquire_many_owned(share).await;
        let connection = connection.expect("the connection's semaphore is never closed");
        let mut permit = self.whole.acquire(bytes).await?;
        permit._connection = Some(connection);
        Ok(permit)
    }

    /// The connection's share in bytes.
    pub fn bytes_max(&self) -> u64 {
        u64::from(self.bytes_max)
    }
}

impl Permit {
    /// How many bytes of the broker's budget it holds.
    pub fn bytes(&self) -> u64 {
        u64::from(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::pin, task::Poll};

    use super::*;

    /// Polls once, without a runtime.
    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
    }

    fn now<F: Future>(future: F) -> F::Output {
        match poll(pin!(future)) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("the future waits"),
        }
    }

    #[test]
    fn a_request_waits_until_bytes_come_back() {
        let budget = Budget::new(100, 100);
        let first = now(budget.acquire(60)).unwrap();
        let mut second = pin!(budget.acquire(50));
        assert!(poll(second.as_mut()).is_pending());
        assert_eq!(budget.waits(), 1);
        assert!(budget.is_contended());
        // What is free is kept for it.
        assert!(budget.try_acquire(10).is_err());
        drop(first);
        let Poll::Ready(second) = poll(second.as_mut()) else {
            panic!("there is room now")
        };
        assert!(!budget.is_contended());
        assert_eq!(second.unwrap().bytes(), 50);
        assert_eq!(budget.bytes_used(), 0);
    }

    #[test]
    fn a_request_above_the_whole_budget_is_refused_and_does_not_wait() {
        let budget = Budget::new(100, 50);
        let refused = now(budget.acquire(101)).unwrap_err();
        assert_eq!(
            refused,
            BudgetError::TooLarge {
                bytes: 101,
                bytes_max: 100
            }
        );
        assert!(now(budget.acquire(u64::MAX)).is_err());
        assert!(now(budget.connection().acquire(101)).is_err());
    }

    #[test]
    fn one_connection_cannot_take_the_budget_of_the_others() {
        let budget = Budget::new(100, 40);
        let (greedy, modest) = (budget.connection(), budget.connection());
        let first = now(greedy.acquire(40)).unwrap();
        let mut second = pin!(greedy.acquire(1));
        assert!(poll(second.as_mut()).is_pending());
        let _modest = now(modest.acquire(40)).unwrap();
        drop(first);
        assert!(poll(second.as_mut()).is_ready());
    }

    #[test]
    fn a_request_above_the_connections_share_goes_alone() {
        let budget = Budget::new(100, 40);
        let connection = budget.connection();
        let large = now(connection.acquire(90)).unwrap();
        assert_eq!(budget.bytes_used(), 90);
        let mut next = pin!(connection.acquire(1));
        assert!(poll(next.as_mut()).is_pending());
        drop(large);
        assert!(poll(next.as_mut()).is_ready());
    }

    #[test]
    fn who_gives_up_waiting_leaves_nothing_taken() {
        let budget = Budget::new(100, 100);
        let first = now(budget.acquire(100)).unwrap();
        {
            let mut waiting = pin!(budget.acquire(10));
            assert!(poll(waiting.as_mut()).is_pending());
            assert!(budget.is_contended());
        }
        assert!(!budget.is_contended());
        drop(first);
        assert_eq!(budget.bytes_used(), 0);
        assert!(budget.try_acquire(100).is_ok());
        let held = budget.try_acquire(99).unwrap();
        assert_eq!(
            budget.try_acquire(2).unwrap_err(),
            BudgetError::Full {
                bytes: 2,
                bytes_max: 100
            }
        );
        drop(held);
    }
}
