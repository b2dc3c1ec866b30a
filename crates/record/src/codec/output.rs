//! A buffer that grows as output comes, and never past its cap.

use bytes::Bytes;

/// Why decompression stopped.
#[derive(Debug)]
pub(super) enum Fault {
    /// The output would pass the cap.
    TooLarge,
    /// The input is not what the codec writes; in the decoder's words.
    Damaged(String),
}

impl Fault {
    pub(super) fn damaged(reason: impl ToString) -> Self {
        Self::Damaged(reason.to_string())
    }
}

/// The decompressed bytes so far.
#[derive(Debug)]
pub(super) struct Output {
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl Output {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes: Vec::new(),
            bytes_max,
        }
    }

    /// How many bytes may still come.
    pub(super) fn room(&self) -> usize {
        self.bytes_max - self.bytes.len()
    }

    /// What is there already.
    pub(super) fn written(&self) -> &[u8] {
        &self.bytes
    }

    /// Adds these bytes.
    pub(super) fn extend(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.reserve(bytes.len())?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Lets `fill` write up to `bytes` more bytes; it is given what is there already, and answers
    /// how many it wrote.
    pub(super) fn fill(
        &mut self,
        bytes: usize,
        fill: impl FnOnce(&[u8], &mut [u8]) -> Result<usize, Fault>,
    ) -> Result<usize, Fault> {
        self.reserve(bytes)?;
        let written = self.bytes.len();
        self.bytes.resize(written + bytes, 0);
        let (before, room) = self.bytes.split_at_mut(written);
        let result = fill(before, room);
        let more = *result.as_ref().unwrap_or(&0);
        self.bytes.truncate(written + more);
        result
    }

    /// Replaces the buffer with an empty one that has exactly this capacity.
    pub(super) fn start_over(&mut self, capacity: usize) -> Result<&mut Vec<u8>, Fault> {
        // Let go of the old one first, so that both are never there at once.
        self.bytes = Vec::new();
        self.reserve_exact(capacity)?;
        Ok(&mut self.bytes)
    }

    pub(super) fn into_bytes(self) -> Bytes {
        self.bytes.into()
    }

    fn reserve(&mut self, more: usize) -> Result<(), Fault> {
        if more > self.room() {
            return Err(Fault::TooLarge);
        }
        let needed = self.bytes.len() + more;
        if needed <= self.bytes.capacity() {
            return Ok(());
        }
        self.reserve_exact(needed.max(self.bytes.capacity() * 2).min(self.bytes_max))
    }

    fn reserve_exact(&mut self, capacity: usize) -> Result<(), Fault> {
        assert!(
            capacity <= self.bytes_max,
            "the buffer never grows past its cap"
        );
        self.bytes
            .try_reserve_exact(capacity - self.bytes.len())
            .map_err(Fault::damaged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_grows_up_to_the_cap_and_not_past_it() {
        let mut output = Output::new(1_000);
        for _ in 0..10 {
            output.extend(&[1; 100]).unwrap();
            assert!(output.bytes.capacity() <= 1_000);
        }
        assert!(matches!(output.extend(&[1]), Err(Fault::TooLarge)));
        assert_eq!(output.into_bytes().len(), 1_000);
    }

    #[test]
    fn a_failed_fill_leaves_what_was_there() {
        let mut output = Output::new(100);
        output.extend(b"abc").unwrap();
        let result = output.fill(10, |before, room| {
            assert_eq!((before, room.len()), (&b"abc"[..], 10));
            Err(Fault::TooLarge)
        });
        assert!(result.is_err());
        assert_eq!(&output.into_bytes()[..], b"abc");
    }
}
