//! Buffers for large frames, used again: a fresh megabyte costs more in page faults than what is
//! done with it.

use std::sync::Arc;

use bytes::{BufMut, Bytes, buf::Limit};
use parking_lot::Mutex;

/// Bytes of buffers that are kept while nobody uses them.
const KEPT_BYTES_MAX: usize = 8 << 20;
/// A buffer is not lent for a frame that would fill less than one part in so many of it.
const WASTE_MAX: usize = 8;

/// Buffers that nobody uses at the moment.
#[derive(Debug, Default)]
pub(crate) struct BufferPool {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The last was used last: it may still be in the processor's cache.
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

/// A frame's bytes as they come in. Goes back to its pool when it is dropped.
#[derive(Debug)]
pub(crate) struct FrameBuffer {
    bytes: Vec<u8>,
    /// How many bytes the frame has.
    length: usize,
    pool: Arc<BufferPool>,
}

impl BufferPool {
    /// An empty buffer for a frame of `length` bytes. The caller holds a permit for them.
    pub(crate) fn take(self: &Arc<Self>, length: usize) -> FrameBuffer {
        let bytes = self
            .kept
            .lock()
            .take(length)
            .unwrap_or_else(|| Vec::with_capacity(length.next_multiple_of(64 << 10)));
        FrameBuffer {
            bytes,
            length,
            pool: Arc::clone(self),
        }
    }
}

impl Kept {
    fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        let fits = |buffer: &Vec<u8>| {
            buffer.capacity() >= length && buffer.capacity() / WASTE_MAX <= length
        };
        let at = self.buffers.iter().rposition(fits)?;
        let buffer = self.buffers.remove(at);
        self.bytes -= buffer.capacity();
        Some(buffer)
    }

    fn keep(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        self.bytes += buffer.capacity();
        self.buffers.push(buffer);
        while self.bytes > KEPT_BYTES_MAX {
            // The one that was used longest ago.
            self.bytes -= self.buffers.remove(0).capacity();
        }
    }
}

impl FrameBuffer {
    /// How many bytes are there.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the whole frame is there.
    pub(crate) fn is_whole(&self) -> bool {
        self.bytes.len() == self.length
    }

    /// Adds bytes that were read with the frame's length.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        assert!(
            bytes.len() <= self.length - self.len(),
            "they are the frame's"
        );
        self.bytes.extend_from_slice(bytes);
    }

    /// Room for the rest of the frame, and not a byte more.
    pub(crate) fn rest(&mut self) -> Limit<&mut Vec<u8>> {
        let missing = self.length - self.bytes.len();
        (&mut self.bytes).limit(missing)
    }

    /// The frame. The buffer goes back to the pool with the last slice of it.
    pub(crate) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for FrameBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for FrameBuffer {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.bytes);
        self.pool.kept.lock().keep(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(pool: &BufferPool) -> (usize, usize) {
        let kept = pool.kept.lock();
        (kept.buffers.len(), kept.bytes)
    }

    #[test]
    fn a_buffer_comes_back_with_the_last_slice_of_its_frame() {
        let pool = Arc::new(BufferPool::default());
        let mut buffer = pool.take(100_000);
        buffer.rest().put_bytes(7, 100_000);
        assert!(buffer.is_whole());
        let frame = buffer.freeze();
        let slice = frame.slice(50_000..50_010);
        drop(frame);
        assert_eq!(kept(&pool), (0, 0));
        assert_eq!(&slice[..], &[7; 10]);
        drop(slice);
        assert_eq!(kept(&pool).0, 1);
        let again = pool.take(90_000);
        assert_eq!(kept(&pool), (0, 0));
        assert_eq!(again.len(), 0);
    }

    #[test]
    fn a_small_frame_does_not_take_a_large_buffer() {
        let pool = Arc::new(BufferPool::default());
        drop(pool.take(1 << 20));
        let _small = pool.take(10_000);
        assert_eq!(kept(&pool).0, 1);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let pool = Arc::new(BufferPool::default());
        let buffers: Vec<_> = (0..100).map(|_| pool.take(1 << 20)).collect();
        drop(buffers);
        assert_eq!(kept(&pool), (8, 8 << 20));
        drop(pool.take(64 << 20));
        assert_eq!(kept(&pool).1, 0);
    }
}
