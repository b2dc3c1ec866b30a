//! Bytes of fetched batches that wait for slow clients: bounded over the whole broker.
//!
//! A bound that made fetches wait would let slow clients hold up the others. This one makes answers
//! smaller instead: each fetch may take a part of what is free, and never less than a little.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// What one fetch may take of what is free: one part in so many.
const SHARE: usize = 4;
/// What a fetch may take however little is free. A first batch that is larger comes all the same.
const ALLOWED_BYTES_MIN: usize = 64 << 10;

/// The bytes that are held now, and the limit.
#[derive(Debug)]
pub(crate) struct FetchedBytes {
    used: Arc<AtomicUsize>,
    bytes_max: usize,
}

/// Bytes of an answer that is not with its client yet.
#[derive(Debug)]
pub(crate) struct Held {
    used: Arc<AtomicUsize>,
    bytes: usize,
}

impl FetchedBytes {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            used: Arc::default(),
            bytes_max,
        }
    }

    /// How much a fetch that asks for `wanted` bytes may answer with.
    pub(crate) fn allowed(&self, wanted: usize) -> usize {
        let free = self
            .bytes_max
            .saturating_sub(self.used.load(Ordering::Relaxed));
        wanted.min((free / SHARE).max(ALLOWED_BYTES_MIN))
    }

    /// Counts bytes until what is returned is dropped.
    pub(crate) fn hold(&self, bytes: usize) -> Held {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        Held {
            used: Arc::clone(&self.used),
            bytes,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_is_held_the_less_a_fetch_gets_but_never_nothing() {
        let fetched = FetchedBytes::new(8 << 20);
        assert_eq!(fetched.allowed(50 << 20), 2 << 20);
        assert_eq!(fetched.allowed(1000), 1000);
        let held = fetched.hold(4 << 20);
        assert_eq!(fetched.allowed(50 << 20), 1 << 20);
        let more = fetched.hold(40 << 20);
        assert_eq!(fetched.allowed(50 << 20), 64 << 10);
        drop((held, more));
        assert_eq!(fetched.allowed(50 << 20), 2 << 20);
    }
}
