//! What both kinds of tail have in common, and the tail that is written with positional writes.

use std::fs;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::real::{read_at, write_all_vectored, write_in_pieces};
use super::{TailReader, TailWriter};

/// The rules for positions in a tail, in one place for every implementation.
///
/// # Errors
///
/// `InvalidInput` if `written` is above `capacity`.
pub fn check_tail(capacity: u64, written: u64) -> io::Result<()> {
    if written > capacity {
        return Err(invalid(format!(
            "{written} written bytes do not fit a tail of {capacity} bytes"
        )));
    }
    Ok(())
}

/// Checks one [`TailWriter::write`].
///
/// # Errors
///
/// `InvalidInput` below the published end or above the capacity.
pub fn check_write(position: u64, bytes: usize, published: u64, capacity: u64) -> io::Result<()> {
    let end = position.checked_add(bytes as u64);
    if position < published || end.is_none_or(|end| end > capacity) {
        return Err(invalid(format!(
            "{bytes} bytes at {position} are outside of the writable range {published}..{capacity}"
        )));
    }
    Ok(())
}

/// Checks one [`TailWriter::publish`].
///
/// # Errors
///
/// `InvalidInput` if the word or the end lies below the published end or above the capacity.
pub fn check_publish(
    word_position: u64,
    end: u64,
    published: u64,
    capacity: u64,
) -> io::Result<()> {
    check_write(word_position, 4, published, capacity)?;
    if end < word_position + 4 || end > capacity {
        return Err(invalid(format!(
            "end {end} is not between the word at {word_position} and the capacity {capacity}"
        )));
    }
    Ok(())
}

/// Checks one [`TailReader::bytes`].
///
/// # Errors
///
/// `InvalidInput` if the range is reversed or goes past the published end.
pub fn check_read(range: &Range<u64>, published: u64) -> io::Result<()> {
    if range.start > range.end || range.end > published {
        return Err(invalid(format!(
            "range {}..{} is not below the published end {published}",
            range.start, range.end
        )));
    }
    Ok(())
}

/// How many bytes the parts of a [`TailWriter::write`] have together.
pub fn bytes_of(parts: &[&[u8]]) -> usize {
    parts.iter().map(|part| part.len()).sum()
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

#[derive(Debug)]
struct Shared {
    file: Arc<fs::File>,
    end: AtomicU64,
}

/// Writes a tail with positional writes.
///
/// A kill between the pages of one `pwrite` leaves a part of it, also of a length word that crosses a
/// page. A mapped tail cannot be cut there.
#[derive(Debug)]
pub(super) struct PwriteWriter {
    shared: Arc<Shared>,
    capacity: u64,
    published: u64,
}

impl PwriteWriter {
    pub(super) fn open(
        file: Arc<fs::File>,
        capacity: u64,
        written: u64,
    ) -> (Box<dyn TailWriter>, Arc<dyn TailReader>) {
        let shared = Arc::new(Shared {
            file,
            end: AtomicU64::new(written),
        });
        let reader = PwriteReader {
            shared: Arc::clone(&shared),
        };
        (
            Box::new(PwriteWriter {
                shared,
                capacity,
                published: written,
            }),
            Arc::new(reader),
        )
    }
}

impl TailWriter for PwriteWriter {
    fn write(&mut self, position: u64, parts: &[&[u8]]) -> io::Result<()> {
        check_write(position, bytes_of(parts), self.published, self.capacity)?;
        write_in_pieces(&self.shared.file, parts, position)
    }

    fn publish(&mut self, word_position: u64, word: [u8; 4], end: u64) -> io::Result<()> {
        check_publish(word_position, end, self.published, self.capacity)?;
        write_all_vectored(&self.shared.file, &[&word], word_position)?;
        self.published = end;
        self.shared.end.store(end, Ordering::Release);
        Ok(())
    }
}

#[derive(Debug)]
struct PwriteReader {
    shared: Arc<Shared>,
}

impl TailReader for PwriteReader {
    fn end(&self) -> u64 {
        self.shared.end.load(Ordering::Acquire)
    }

    fn bytes(&self, range: Range<u64>) -> io::Result<Bytes> {
        check_read(&range, self.end())?;
        let size = usize::try_from(range.end - range.start)
            .map_err(|_| invalid("range does not fit the address space".to_owned()))?;
        let mut bytes = vec![0; size];
        if read_at(&self.shared.file, &mut bytes, range.start)? < size {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file was cut while it was being written",
            ));
        }
        Ok(Bytes::from(bytes))
    }
}
