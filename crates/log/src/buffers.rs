//! Large buffers, used again: a fresh megabyte costs more in page faults than what is done with it.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

/// Buffers are made in steps of this size, so that one fits the next, slightly different length.
const STEP_BYTES: usize = 64 << 10;
/// A buffer is not lent to who would use less than one part in so many of it.
const WASTE_MAX: usize = 8;

/// Buffers that nobody uses at the moment, of a bounded size together.
#[derive(Debug)]
pub struct BufferPool {
    kept: Mutex<Kept>,
    kept_bytes_max: usize,
}

#[derive(Debug, Default)]
struct Kept {
    /// The last was used last: it may still be in the processor's cache.
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

/// A buffer from a pool. It goes back when it is dropped, or with the last slice of what
/// [`Buffer::freeze`] made of it.
#[derive(Debug)]
pub struct Buffer {
    /// At least `length` bytes; what lies behind them is left over from another use.
    bytes: Vec<u8>,
    length: usize,
    pool: Arc<BufferPool>,
}

impl BufferPool {
    /// An empty pool that keeps at most `kept_bytes_max` bytes while nobody uses them.
    pub fn new(kept_bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            kept: Mutex::default(),
            kept_bytes_max,
        })
    }

    /// A buffer of `length` bytes, which may be anything: whoever takes it writes them before they are
    /// read. A new one takes memory only as it is written.
    pub fn take(self: &Arc<Self>, length: usize) -> Buffer {
        let kept = self.kept.lock().take(length);
        Buffer {
            bytes: kept.unwrap_or_else(|| vec![0; length.next_multiple_of(STEP_BYTES)]),
            length,
            pool: Arc::clone(self),
        }
    }
}

impl Kept {
    fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        let fits = |buffer: &Vec<u8>| buffer.len() >= length && buffer.len() / WASTE_MAX <= length;
        let at = self.buffers.iter().rposition(fits)?;
        let buffer = self.buffers.remove(at);
        self.bytes -= buffer.len();
        Some(buffer)
    }

    fn keep(&mut self, buffer: Vec<u8>, bytes_max: usize) {
        self.bytes += buffer.len();
        self.buffers.push(buffer);
        while self.bytes > bytes_max {
            // The one that was used longest ago.
            self.bytes -= self.buffers.remove(0).len();
        }
    }
}

impl Buffer {
    /// All of it, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }

    /// Its bytes, to be shared.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.bytes);
        let bytes_max = self.pool.kept_bytes_max;
        self.pool.kept.lock().keep(buffer, bytes_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn kept(pool: &BufferPool) -> (usize, usize) {
        let kept = pool.kept.lock();
        (kept.buffers.len(), kept.bytes)
    }

    #[test]
    fn a_buffer_comes_back_with_the_last_slice_of_it() {
        let pool = BufferPool::new(8 * MIB);
        let mut buffer = pool.take(100_000);
        buffer.bytes_mut().fill(7);
        let bytes = buffer.freeze();
        assert_eq!(bytes.len(), 100_000);
        let slice = bytes.slice(50_000..50_010);
        drop(bytes);
        assert_eq!(kept(&pool), (0, 0));
        assert_eq!(slice[..], [7; 10]);
        drop(slice);
        assert_eq!(kept(&pool), (1, 2 * STEP_BYTES));
        let again = pool.take(90_000);
        assert_eq!(kept(&pool), (0, 0));
        assert_eq!(again.as_ref().len(), 90_000);
    }

    #[test]
    fn little_does_not_take_a_large_buffer() {
        let pool = BufferPool::new(8 * MIB);
        drop(pool.take(MIB));
        let small = pool.take(10_000);
        assert_eq!(kept(&pool), (1, MIB));
        drop(small);
        assert_eq!(kept(&pool), (2, MIB + STEP_BYTES));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let pool = BufferPool::new(8 * MIB);
        let buffers: Vec<_> = (0..100).map(|_| pool.take(MIB)).collect();
        drop(buffers);
        assert_eq!(kept(&pool), (8, 8 * MIB));
        drop(pool.take(64 * MIB));
        assert_eq!(kept(&pool), (0, 0));
    }
}
